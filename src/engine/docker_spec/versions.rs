//! The fields that an engine is too old for, or ignores. Pure.

use std::fmt;

use crate::model::{NetworkAttachment, NetworkMode, ServiceSpec};

/// A version of the engine's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) struct Api {
    pub(in crate::engine) major: usize,
    pub(in crate::engine) minor: usize,
}

/// A field that the engine does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Lack {
    pub(in crate::engine) field: &'static str,
    needs: Api,
    has: Api,
    /// Without the field the app would work differently, so the release is refused.
    pub(in crate::engine) is_refusal: bool,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, needs, has, .. } = self;
        write!(
            f,
            "{field} needs an engine with API {}.{}, and this one has {}.{}: upgrade the engine, or remove it",
            needs.major, needs.minor, has.major, has.minor
        )
    }
}

/// The fields of `spec` that an engine with version `api` ignores (Engine API version history).
pub(in crate::engine) fn lacks(spec: &ServiceSpec, api: Api) -> Vec<Lack> {
    let mut attachments: Vec<&NetworkAttachment> = match &spec.network_mode {
        NetworkMode::Networks(attached) => attached.values().collect(),
        NetworkMode::Host | NetworkMode::None | NetworkMode::Bridge | NetworkMode::Service(_) => Vec::new(),
    };
    attachments.sort_by_key(|attachment| std::cmp::Reverse(attachment.priority));
    // Old requests have a field of their own for the MAC address on the first network.
    let has_other_address = attachments.iter().skip(1).any(|a| a.mac_address.is_some());
    let has_start_interval = spec.healthcheck.as_ref().is_some_and(|c| c.start_interval.is_some());
    [
        ("annotations", 43, !spec.annotations.is_empty(), false),
        ("healthcheck.start_interval", 44, has_start_interval, false),
        ("gw_priority", 48, attachments.iter().any(|a| a.gateway_priority != 0), false),
        ("mac_address of a second network", 44, has_other_address, true),
        ("volume.subpath", 45, spec.mounts.iter().any(|m| m.options.subpath.is_some()), true),
    ]
    .into_iter()
    .filter(|(_, minor, is_used, _)| *is_used && api < Api { major: 1, minor: *minor })
    .map(|(field, minor, _, is_refusal)| Lack { field, needs: Api { major: 1, minor }, has: api, is_refusal })
    .collect()
}

/// The fields of `spec` that podman accepts without any effect (docs/engines.md).
pub(in crate::engine) fn passed_over_by_podman(spec: &ServiceSpec) -> Vec<&'static str> {
    let has_link_local = match &spec.network_mode {
        NetworkMode::Networks(attached) => attached.values().any(|a| !a.link_local_ips.is_empty()),
        NetworkMode::Host | NetworkMode::None | NetworkMode::Bridge | NetworkMode::Service(_) => false,
    };
    [
        ("device_cgroup_rules", !spec.isolation.device_rules.is_empty()),
        ("domainname", spec.resolver.domainname.is_some()),
        ("link_local_ips", has_link_local),
        ("volume.nocopy", spec.mounts.iter().any(|mount| mount.options.has_no_copy)),
    ]
    .into_iter()
    .filter_map(|(field, is_used)| is_used.then_some(field))
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{ImageRef, NetworkName, SpecHash};

    #[test]
    fn only_fields_that_are_used_are_reported_for_podman() {
        let image = ImageRef::parse("r.example/a:1").unwrap();
        let mut spec = ServiceSpec::bare(SpecHash::from_sha256(1, [1; 32]), image);
        assert_eq!(passed_over_by_podman(&spec), Vec::<&str>::new());
        spec.resolver.domainname = Some("home.lan".into());
        spec.isolation.device_rules.insert("c 188:* rwm".into());
        assert_eq!(passed_over_by_podman(&spec), ["device_cgroup_rules", "domainname"]);
    }

    #[test]
    fn an_old_engine_lacks_newer_fields() {
        let image = ImageRef::parse("r.example/a:1").unwrap();
        let mut spec = ServiceSpec::bare(SpecHash::from_sha256(1, [1; 32]), image);
        spec.annotations.insert("a".into(), "b".into());
        let on = |address: Option<&str>, priority| NetworkAttachment {
            mac_address: address.map(str::to_owned),
            priority,
            ..NetworkAttachment::default()
        };
        let (a, b) = (NetworkName::parse("a").unwrap(), NetworkName::parse("b").unwrap());
        let mac = Some("02:42:ac:11:65:43");
        spec.network_mode =
            NetworkMode::Networks(BTreeMap::from([(a.clone(), on(None, 0)), (b.clone(), on(mac, 0))]));
        let lacks_of = |spec: &ServiceSpec, minor| {
            let lacks = lacks(spec, Api { major: 1, minor });
            lacks.iter().map(|l| format!("{} {}", l.field, l.is_refusal)).collect::<Vec<_>>()
        };
        let found = |minor| lacks_of(&spec, minor);
        assert_eq!(found(41), ["annotations false", "mac_address of a second network true"]);
        assert_eq!(found(43), ["mac_address of a second network true"]);
        assert_eq!(found(44), Vec::<String>::new());
        assert_eq!(
            lacks(&spec, Api { major: 1, minor: 43 })[0].to_string(),
            "mac_address of a second network needs an engine with API 1.44, and this one has 1.43: upgrade the engine, or remove it"
        );
        let networks = NetworkMode::Networks(BTreeMap::from([(a, on(None, 0)), (b, on(mac, 1))]));
        let first = ServiceSpec { network_mode: networks, ..spec.clone() };
        assert_eq!(lacks_of(&first, 41), ["annotations false"], "the first network has it");
    }
}
