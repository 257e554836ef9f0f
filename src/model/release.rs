//! Releases: the services, networks and volumes of an app at one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names::Names;
use super::{AppId, Commit, NetworkName, ServiceName, ServiceSpec, SpecHash, VolumeName, Window};

/// What follows the name of the service in the name of a volume to which nothing gives a name.
pub const UNNAMED: &str = "_unnamed-";

/// An app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    pub id: AppId,
    /// The cloud's numeric id. It is part of the names of containers, networks and volumes.
    pub number: u64,
    pub name: String,
}

/// An immutable set of services with their networks and volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub commit: Commit,
    /// The cloud's numeric id.
    pub number: u64,
    pub services: BTreeMap<ServiceName, ServiceSpec>,
    pub networks: BTreeMap<NetworkName, NetworkSpec>,
    pub volumes: BTreeMap<VolumeName, VolumeSpec>,
    /// The author's settings for its trial.
    #[serde(default)]
    pub trial: TrialSpec,
    /// When it may be swapped: label `io.cotter.update.window` of any service. Empty: the device's settings decide.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub windows: BTreeSet<Window>,
}

/// Settings of a trial; `None`: the device's settings decide.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialSpec {
    /// Label `io.cotter.trial.soak`, the longest of all services: how long all must run well.
    pub soak: Option<Duration>,
    /// Label `io.cotter.trial.deadline`, the longest of all services: how long that may take.
    pub deadline: Option<Duration>,
}

/// Identifies the release of a trial. The same commit with other specs, e.g. another environment, has a trial of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseKey {
    pub commit: Commit,
    pub specs: BTreeMap<ServiceName, SpecHash>,
}

impl Release {
    /// Returns the volumes that it declares or mounts.
    pub fn volumes_in_use(&self) -> impl Iterator<Item = &VolumeName> {
        self.volumes.keys().chain(self.services.values().flat_map(ServiceSpec::volumes))
    }

    /// Returns `true` if a volume has the name of one to which neither the release nor the image of one of its services
    /// gives a name.
    #[must_use]
    pub fn may_have_unnamed(&self, volume: &VolumeName) -> bool {
        let of_service = |service: &ServiceName| {
            let rest = volume.as_str().strip_prefix(service.as_str());
            rest.is_some_and(|rest| rest.starts_with(UNNAMED))
        };
        self.services.keys().any(of_service)
    }

    /// Returns the key of this release.
    #[must_use]
    pub fn key(&self) -> ReleaseKey {
        let specs = self.services.iter().map(|(name, spec)| (name.clone(), spec.hash.clone())).collect();
        ReleaseKey { commit: self.commit.clone(), specs }
    }

    /// The services whose namespaces one with this spec joins, directly or by way of others; each once.
    #[must_use]
    pub fn joined<'a>(&'a self, spec: &'a ServiceSpec) -> BTreeMap<&'a ServiceName, &'a ServiceSpec> {
        let mut found = BTreeMap::new();
        let mut open: Vec<&ServiceName> = spec.joins().map(|(_, name)| name).collect();
        while let Some(name) = open.pop() {
            let Some((name, spec)) = self.services.get_key_value(name) else { continue };
            if found.insert(name, spec).is_none() {
                open.extend(spec.joins().map(|(_, name)| name));
            }
        }
        found
    }
}

/// A network of an app.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Short hash of the author's config; `None` when there is no config. It ends the engine's name
    /// of the network, so that an old and a new config stand side by side.
    pub config_hash: Option<String>,
    /// Empty: `bridge`.
    pub driver: String,
    pub driver_opts: BTreeMap<String, String>,
    pub is_internal: bool,
    pub has_ipv6: bool,
    pub labels: BTreeMap<String, String>,
    pub subnets: Vec<Subnet>,
    /// Who hands out addresses. Empty: `default`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipam_driver: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ipam_options: BTreeMap<String, String>,
}

impl fmt::Debug for NetworkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkSpec")
            .field("config_hash", &self.config_hash)
            .field("driver", &self.driver)
            .field("driver_opts", &Names(&self.driver_opts))
            .field("subnets", &self.subnets)
            .finish_non_exhaustive()
    }
}

impl NetworkSpec {
    /// Its address ranges, as its author wrote them.
    #[must_use]
    pub fn ranges(&self) -> Vec<String> {
        self.subnets.iter().filter_map(|subnet| subnet.subnet.clone()).collect()
    }

    /// Whether an address is in a range of this network and in one of `ranges`: an engine does not take both.
    #[must_use]
    pub fn overlaps(&self, ranges: &[String]) -> bool {
        let mut own = self.subnets.iter().filter_map(|subnet| subnet.subnet.as_deref());
        own.any(|own| ranges.iter().any(|other| do_overlap(own, other)))
    }
}

/// Whether two ranges, as `address/bits`, have an address in common.
fn do_overlap(one: &str, other: &str) -> bool {
    let (Some((a, width, a_bits)), Some((b, b_width, b_bits))) = (range(one), range(other)) else {
        return false;
    };
    let free = width - a_bits.min(b_bits);
    // All addresses of a kind differ in no bit that counts.
    let same = (a ^ b).checked_shr(free).unwrap_or_default() == 0;
    width == b_width && same
}

/// A range as its first address, how many bits an address has, and how many of them all of its addresses share.
fn range(text: &str) -> Option<(u128, u32, u32)> {
    let (ip, bits) = text.split_once('/')?;
    let (value, width) = match ip.parse::<IpAddr>().ok()? {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    Some((value, width, bits.parse::<u32>().ok()?.min(width)))
}

/// RFC 1918 and RFC 4193.
const PRIVATE: [&str; 4] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

/// One address range of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub subnet: Option<String>,
    pub gateway: Option<String>,
    pub ip_range: Option<String>,
    /// Reserved addresses by name. The engine assigns them to no container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aux_addresses: BTreeMap<String, String>,
}

impl Subnet {
    /// Returns `true` if all its addresses are private. Those that the engine chooses are.
    #[must_use]
    pub fn is_private(&self) -> bool {
        let Some(text) = &self.subnet else { return true };
        let bits = |text: &str| range(text).map(|(_, _, bits)| bits);
        PRIVATE.iter().any(|private| do_overlap(text, private) && bits(text) >= bits(private))
    }
}

/// A volume of an app.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Empty: `local`.
    pub driver: String,
    pub driver_opts: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

impl fmt::Debug for VolumeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolumeSpec")
            .field("driver", &self.driver)
            .field("driver_opts", &Names(&self.driver_opts))
            .finish_non_exhaustive()
    }
}

impl VolumeSpec {
    /// Returns the path of the host that the volume binds, if its options say so.
    #[must_use]
    pub fn bound_path(&self) -> Option<&str> {
        let is_bind = |options: &String| options.split(',').any(|o| matches!(o.trim(), "bind" | "rbind"));
        let is_local = self.driver.is_empty() || self.driver == "local";
        let device = self.driver_opts.get("device").map_or("", String::as_str);
        (is_local && self.driver_opts.get("o").is_some_and(is_bind)).then_some(device)
    }

    /// Returns `true` if its options make it read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        let mut words = self.driver_opts.get("o").map_or("", String::as_str).rsplit(',');
        words.find(|word| matches!(*word, "ro" | "rw")) == Some("ro")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_ranges_are_not_public() {
        for (text, is_private) in [
            ("10.0.0.0/8", true),
            ("10.9.0.0/16", true),
            ("172.31.255.0/24", true),
            ("172.32.0.0/24", false),
            ("172.0.0.0/8", false),
            ("192.168.1.1/32", true),
            ("192.168.0.0/15", false),
            ("8.8.8.0/24", false),
            ("0.0.0.0/0", false),
            ("100.64.0.0/10", false),
            ("fd00:1::/64", true),
            ("fc00::/7", true),
            ("2001:db8::/32", false),
            ("::/0", false),
            ("nonsense", false),
        ] {
            let subnet = Subnet { subnet: Some(text.to_owned()), ..Subnet::default() };
            assert_eq!(subnet.is_private(), is_private, "{text}");
        }
        assert!(Subnet::default().is_private());
    }

    #[test]
    fn ranges_that_have_an_address_in_common() {
        for (one, other, expected) in [
            ("10.1.0.0/16", "10.1.0.0/16", true),
            ("10.1.0.0/16", "10.1.2.0/24", true),
            ("10.1.2.0/24", "10.1.0.0/16", true),
            ("10.1.2.128/25", "10.1.2.0/25", false),
            ("10.1.2.0/24", "10.1.3.0/24", false),
            ("0.0.0.0/0", "192.168.7.0/24", true),
            ("10.1.2.3/32", "10.1.2.3/32", true),
            ("10.1.2.3/32", "10.1.2.4/32", false),
            ("fd00::/64", "fd00::1/128", true),
            ("fd00::/64", "fd00:0:0:1::/64", false),
            ("::/0", "fd00::/64", true),
            ("::/0", "10.1.0.0/16", false),
            ("10.1.0.0", "10.1.0.0/16", false),
            ("", "10.1.0.0/16", false),
        ] {
            assert_eq!(do_overlap(one, other), expected, "{one} {other}");
        }
    }
}
