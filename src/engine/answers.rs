//! The fields that are read from the engine's responses. Pure.
//!
//! bollard's response types reject unknown enum values. One such value would fail the whole observation, and podman has
//! some of its own. These types accept any value. They also need much less code and time.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// A container in the engine's list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Summary {
    pub(super) id: String,
    pub(super) names: Option<Vec<String>>,
    pub(super) created: Value,
    pub(super) image: String,
    #[serde(rename = "ImageID")]
    pub(super) image_id: String,
    pub(super) labels: Option<HashMap<String, String>>,
    pub(super) state: String,
    pub(super) status: String,
    pub(super) ports: Option<Vec<Port>>,
    pub(super) network_settings: Option<NetworkSettings>,
    pub(super) mounts: Option<Vec<Mounted>>,
}

/// A mount of a container; `name` is that of a volume.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Mounted {
    #[serde(rename = "Type")]
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) source: String,
    pub(super) destination: String,
    #[serde(rename = "RW")]
    pub(super) is_writable: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct NetworkSettings {
    pub(super) networks: Option<HashMap<String, Endpoint>>,
}

/// A network that a container is on, under the network's name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Endpoint {
    #[serde(rename = "NetworkID")]
    pub(super) id: String,
}

/// A port of a container in the list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Port {
    #[serde(rename = "IP")]
    pub(super) ip: String,
    pub(super) private_port: u16,
    pub(super) public_port: Option<u16>,
    #[serde(rename = "Type")]
    pub(super) protocol: String,
}

impl Inspected {
    /// The time from its stop signal to SIGKILL. That of a container which may take forever is an hour.
    pub(super) fn grace(&self) -> Duration {
        let given = self.config.as_ref().and_then(|config| config.stop_timeout);
        Duration::from_secs(given.map_or(10, |seconds| u64::try_from(seconds).unwrap_or(3600)))
    }
}

/// A container that was inspected.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Inspected {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) created: String,
    /// Its id.
    pub(super) image: String,
    pub(super) restart_count: i64,
    pub(super) state: State,
    pub(super) config: Option<Config>,
    pub(super) host_config: HostConfig,
    pub(super) network_settings: Option<NetworkSettings>,
    pub(super) mounts: Option<Vec<Mounted>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct State {
    pub(super) status: String,
    pub(super) running: bool,
    #[serde(rename = "OOMKilled")]
    pub(super) was_out_of_memory: bool,
    pub(super) started_at: String,
    pub(super) finished_at: String,
    pub(super) exit_code: i64,
    /// Why the engine could not start it; empty if it could.
    pub(super) error: String,
    pub(super) health: Option<Probed>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Probed {
    pub(super) status: String,
    pub(super) failing_streak: i64,
    /// Its last runs, oldest first.
    pub(super) log: Option<Vec<ProbeRun>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct ProbeRun {
    pub(super) exit_code: i64,
    pub(super) output: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Config {
    /// As it was given at creation.
    pub(super) image: String,
    pub(super) labels: Option<HashMap<String, String>>,
    /// `NAME=value`.
    pub(super) env: Option<Vec<String>>,
    /// Keys are such as `8080/tcp`.
    pub(super) exposed_ports: Option<HashMap<String, IgnoredAny>>,
    /// Seconds from the stop signal to SIGKILL; -1: without an end.
    pub(super) stop_timeout: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct HostConfig {
    pub(super) restart_policy: RestartPolicy,
    pub(super) log_config: LogConfig,
    pub(super) network_mode: String,
    /// Bytes; 0: no limit.
    pub(super) memory: i64,
    pub(super) privileged: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct RestartPolicy {
    pub(super) name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct LogConfig {
    #[serde(rename = "Type")]
    pub(super) driver: String,
}

/// A network in the engine's list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Network {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) driver: String,
    pub(super) labels: Option<HashMap<String, String>>,
    #[serde(rename = "Internal")]
    pub(super) is_internal: bool,
    #[serde(rename = "EnableIPv6")]
    pub(super) has_ipv6: bool,
    pub(super) options: Option<HashMap<String, String>>,
    #[serde(rename = "IPAM")]
    pub(super) ipam: Option<Ipam>,
}

/// The address ranges of a network.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Ipam {
    pub(super) config: Option<Vec<Range>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Range {
    pub(super) subnet: Option<String>,
    pub(super) gateway: Option<String>,
}

/// An image in the engine's list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Image {
    pub(super) id: String,
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) repo_digests: Option<Vec<String>>,
    /// Bytes.
    pub(super) size: i64,
}

/// An image that was inspected.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct InspectedImage {
    #[serde(rename = "RootFS")]
    pub(super) root: Option<Root>,
    #[serde(rename = "Config")]
    pub(super) config: Option<ImageConfig>,
}

/// What an image says of its containers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ImageConfig {
    /// The paths whose content belongs into a volume.
    #[serde(rename = "Volumes")]
    pub(super) volumes: Option<BTreeMap<String, Value>>,
}

/// The layers of an image, each by the digest of its uncompressed content.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Root {
    pub(super) layers: Option<Vec<String>>,
}

/// The engine's list of volumes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Volumes {
    pub(super) volumes: Option<Vec<Volume>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) driver: String,
    pub(super) options: Option<HashMap<String, String>>,
    pub(super) labels: Option<HashMap<String, String>>,
}

/// What the engine reports about itself and its machine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Info {
    pub(super) server_version: String,
    pub(super) driver: String,
    pub(super) logging_driver: String,
    pub(super) live_restore_enabled: bool,
    pub(super) cgroup_version: String,
    pub(super) memory_limit: bool,
    pub(super) warnings: Option<Vec<String>>,
    pub(super) docker_root_dir: String,
    /// In the kernel's name.
    pub(super) architecture: String,
    pub(super) kernel_version: String,
    pub(super) operating_system: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Version {
    pub(super) version: String,
    pub(super) api_version: String,
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    fn read<T: DeserializeOwned>(text: &str) -> T {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn an_absent_field_a_null_or_an_unknown_value_does_not_fail_the_observation() {
        let listed: Summary = read(
            r#"{"Id": "1", "Names": null, "Labels": null, "State": "dreaming", "Ports": null, "Mounts": null,
                "NetworkSettings": null, "Dreams": [1]}"#,
        );
        assert_eq!((listed.id.as_str(), listed.state.as_str()), ("1", "dreaming"));
        let one: Inspected = read(
            r#"{"Id": "1", "Config": null, "NetworkSettings": null, "Mounts": null, "State": {"Health": null}}"#,
        );
        assert_eq!(one.id, "1");
        let network: Network =
            read(r#"{"Name": "n", "Id": "2", "Labels": null, "IPAM": null, "Scope": "galaxy"}"#);
        assert_eq!((network.name.as_str(), network.id.as_str()), ("n", "2"));
        assert!(read::<Network>(r#"{"IPAM": {"Config": null}}"#).ipam.is_some());
        let image: Image = read(r#"{"Id": "3", "RepoTags": null, "RepoDigests": null, "Size": -1}"#);
        assert_eq!((image.id.as_str(), image.size), ("3", -1));
        assert!(read::<InspectedImage>(r#"{"RootFS": {"Type": "layers", "Layers": null}}"#).root.is_some());
        assert!(read::<InspectedImage>(r#"{"RootFS": null}"#).root.is_none());
        assert!(read::<Volumes>(r#"{"Volumes": null, "Warnings": null}"#).volumes.is_none());
        let volume: Volume =
            read(r#"{"Name": "v", "Driver": "d", "Options": null, "Labels": null, "Status": {}}"#);
        assert_eq!(volume.name, "v");
        let info: Info =
            read(r#"{"Driver": "new", "CgroupVersion": "3", "Warnings": null, "Swarm": {"Tea": 1}}"#);
        assert_eq!((info.driver.as_str(), info.cgroup_version.as_str()), ("new", "3"));
        assert_eq!(read::<Version>(r#"{"Version": "1", "Components": null}"#).version, "1");
    }
}
