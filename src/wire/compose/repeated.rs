//! Bounds what services repeat: the hash of a service has the configs of all networks and volumes that it uses, so one long
//! config that many services use would be read as often.

use std::collections::{BTreeMap, BTreeSet};

use super::at::Notes;
use super::{Contents, refusal};
use crate::model::{MountSource, NetworkMode, NetworkName, NetworkSpec, VolumeName, VolumeSpec};

/// Maximum number of bytes of the configs of networks and volumes, each counted once for every service that uses it.
const MOST_BYTES: usize = 8 << 20;

/// Refuses a release whose services repeat too much. Returns `false` then.
pub(super) fn check(contents: &Contents, notes: &mut Notes) -> bool {
    let networks: BTreeMap<&NetworkName, usize> =
        contents.networks.iter().map(|(name, spec)| (name, of_network(spec))).collect();
    let volumes: BTreeMap<&VolumeName, usize> =
        contents.volumes.iter().map(|(name, spec)| (name, of_volume(spec))).collect();
    let mut bytes = 0;
    for spec in contents.services.values() {
        if let NetworkMode::Networks(attachments) = &spec.network_mode {
            bytes += attachments.keys().filter_map(|name| networks.get(name)).sum::<usize>();
        }
        let used = spec.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume(name) => Some(name),
            MountSource::Anonymous | MountSource::Host(_) | MountSource::EngineSocket => None,
        });
        let used: BTreeSet<_> = used.collect();
        bytes += used.into_iter().filter_map(|name| volumes.get(name)).sum::<usize>();
    }
    let is_accepted = bytes <= MOST_BYTES;
    if !is_accepted {
        let why = format_args!(
            "the configs of the networks and volumes have {bytes} bytes, counted for each service that uses them, and \
             {MOST_BYTES} are accepted: shorten their labels and options, or use them in fewer services"
        );
        notes.refuse(refusal("networks".to_owned(), why));
    }
    is_accepted
}

fn of_network(spec: &NetworkSpec) -> usize {
    let subnets = spec.subnets.iter().map(|subnet| {
        let texts = [&subnet.subnet, &subnet.gateway, &subnet.ip_range];
        texts.into_iter().flatten().map(String::len).sum::<usize>() + texts_in(&subnet.aux_addresses)
    });
    let options = texts_in(&spec.driver_opts) + texts_in(&spec.ipam_options);
    options + texts_in(&spec.labels) + subnets.sum::<usize>()
}

fn of_volume(spec: &VolumeSpec) -> usize {
    texts_in(&spec.driver_opts) + texts_in(&spec.labels)
}

fn texts_in(map: &BTreeMap<String, String>) -> usize {
    map.iter().map(|(name, text)| name.len() + text.len()).sum()
}
