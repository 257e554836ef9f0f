//! What the engine lists, in our words. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bollard::models::{
    ContainerSummary, ContainerSummaryStateEnum as State, EndpointSettings, ImageSummary, Network,
    PortSummaryTypeEnum, Volume,
};

use crate::model::{
    AppId, Commit, ContainerId, ContainerState, Health, HeldPort, ImageRef, Namespace, NetworkId,
    NetworkName, ObservedNetwork, ObservedService, OwnVolume, Protocol, ServiceName, SpecHash, VolumeName,
};

use super::docker_spec::{PARKED, PARTIAL, label};

/// A container of ours on these networks of ours; `None` when a label is missing or broken, and it is then
/// nobody's to touch.
pub(super) fn service(summary: ContainerSummary, networks: &[Network]) -> Option<ObservedService> {
    let is_cut_off = is_cut_off(&summary, networks);
    let labels = summary.labels.unwrap_or_default();
    let text = |key| labels.get(key).map(String::as_str);
    let status = summary.status.unwrap_or_default();
    let is_partial = summary.names.iter().flatten().any(|name| name.ends_with(PARTIAL));
    let state = if is_partial { ContainerState::Dead } else { state(summary.state, &status) };
    let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let network = |end: EndpointSettings| end.network_id.and_then(|id| NetworkId::parse(id).ok());
    let networks = networks.into_iter().map(|(name, end)| (name, network(end))).collect();
    let mut ports: BTreeMap<u16, BTreeSet<u16>> = BTreeMap::new();
    for port in summary.ports.unwrap_or_default() {
        if let Some(public) = port.public_port {
            ports.entry(port.private_port).or_default().insert(public);
        }
    }
    Some(ObservedService {
        container: ContainerId::parse(summary.id?).ok()?,
        app: AppId::parse(text(label::APP)?).ok()?,
        service: ServiceName::parse(text(label::SERVICE)?).ok()?,
        release: Commit::parse(text(label::RELEASE)?).ok()?,
        spec: SpecHash::parse(text(label::SPEC)?).ok()?,
        image: summary.image.unwrap_or_default(),
        grace: Duration::from_secs(text(label::GRACE).and_then(|g| g.parse().ok()).unwrap_or(10)),
        state,
        health: health(&status),
        is_cut_off,
        restarts: 0,
        networks,
        joins: text(label::JOINS).map(joins).unwrap_or_default(),
        status,
        ports,
    })
}

/// Whether the container is bound to a network that is not there any more, though one of its name is. The engine
/// binds by id when it first starts a container, and tells no id before.
fn is_cut_off(summary: &ContainerSummary, networks: &[Network]) -> bool {
    let bound = summary.network_settings.iter().flat_map(|settings| settings.networks.iter().flatten());
    let mut bound = bound.filter_map(|(name, endpoint)| {
        let id = endpoint.network_id.as_ref().filter(|id| !id.is_empty())?;
        Some((name, id))
    });
    bound.any(|(name, id)| {
        let mut named = networks.iter().filter(|n| n.name.as_ref() == Some(name)).peekable();
        named.peek().is_some() && named.all(|n| n.id.as_ref() != Some(id))
    })
}

/// `network:<id>,pid:<id>`.
fn joins(text: &str) -> BTreeMap<Namespace, ContainerId> {
    let join = |part: &str| {
        let (word, id) = part.split_once(':')?;
        let kind = Namespace::ALL.into_iter().find(|kind| kind.as_str() == word)?;
        Some((kind, ContainerId::parse(id).ok()?))
    };
    text.split(',').filter_map(join).collect()
}

/// Whether a container was put aside under another name.
pub(super) fn is_parked(summary: &ContainerSummary) -> bool {
    let mut names = summary.names.iter().flatten();
    names.any(|name| name.trim_start_matches('/').starts_with(PARKED))
}

/// The host ports that a container publishes.
pub(super) fn published(summary: ContainerSummary) -> Vec<HeldPort> {
    let container = summary.id.as_ref().and_then(|id| ContainerId::parse(id).ok());
    let by = summary.names.iter().flatten().next().map_or("", |name| name.trim_start_matches('/')).to_owned();
    let held = summary.ports.unwrap_or_default().into_iter().filter_map(|port| {
        let protocol = match port.typ {
            Some(PortSummaryTypeEnum::TCP) => Protocol::Tcp,
            Some(PortSummaryTypeEnum::UDP) => Protocol::Udp,
            Some(PortSummaryTypeEnum::SCTP | PortSummaryTypeEnum::EMPTY) | None => return None,
        };
        let host_ip = port.ip.filter(|ip| ip != "0.0.0.0" && ip != "::").unwrap_or_default();
        Some(HeldPort {
            host_ip,
            port: port.public_port?,
            protocol,
            container: container.clone(),
            by: by.clone(),
        })
    });
    let mut held: Vec<_> = held.collect();
    // The engine tells a port on all addresses twice: once for IPv4, once for IPv6.
    held.sort_by(|a, b| (a.port, a.protocol, &a.host_ip).cmp(&(b.port, b.protocol, &b.host_ip)));
    held.dedup();
    held
}

/// A machine as the kernel names it, in the word that images have for it; others as they are.
pub(super) fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv6l" | "armv7l" | "armhf" | "armv8l" => "arm",
        "i386" | "i686" => "386",
        other => other,
    }
}

fn state(state: Option<State>, status: &str) -> ContainerState {
    match state {
        Some(State::RUNNING) => ContainerState::Running,
        Some(State::PAUSED) => ContainerState::Paused,
        Some(State::RESTARTING) => ContainerState::Restarting,
        Some(State::EXITED | State::STOPPING) => ContainerState::Exited { code: exit_code(status) },
        Some(State::REMOVING) => ContainerState::Removing,
        Some(State::DEAD) => ContainerState::Dead,
        Some(State::CREATED | State::EMPTY) | None => ContainerState::Created,
    }
}

/// "Exited (137) 3 seconds ago"; the list tells it nowhere else. Unreadable is not a success: -1.
fn exit_code(status: &str) -> i64 {
    let code = status.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(code, _)| code);
    code.and_then(|code| code.parse().ok()).unwrap_or(-1)
}

/// "Up 2 seconds (health: starting)", "Up 5 minutes (healthy)", "Up 1 hour (unhealthy)".
fn health(status: &str) -> Health {
    if status.ends_with("(health: starting)") {
        Health::Starting
    } else if status.ends_with("(unhealthy)") {
        Health::Unhealthy
    } else if status.ends_with("(healthy)") {
        Health::Healthy
    } else {
        Health::Unchecked
    }
}

/// A network of ours; `None` as for containers.
pub(super) fn network(network: Network) -> Option<ObservedNetwork> {
    let labels: HashMap<String, String> = network.labels.unwrap_or_default();
    let ranges = network.ipam.and_then(|ipam| ipam.config).into_iter().flatten();
    Some(ObservedNetwork {
        id: NetworkId::parse(network.id?).ok()?,
        app: AppId::parse(labels.get(label::APP)?).ok()?,
        network: NetworkName::parse(labels.get(label::NETWORK)?).ok()?,
        config_hash: labels.get(label::NETWORK_CONFIG).cloned(),
        name: network.name.unwrap_or_default(),
        subnets: ranges.filter_map(|range| range.subnet).collect(),
    })
}

/// The volumes of ours, each with the containers that mount it; those without our labels are nobody's to touch.
pub(super) fn volumes(volumes: Vec<Volume>, containers: &[ContainerSummary]) -> Vec<OwnVolume> {
    let mounts = |container: &&ContainerSummary, name: &str| {
        let mut mounts = container.mounts.iter().flatten();
        mounts.any(|mount| mount.name.as_deref() == Some(name))
    };
    let ours = volumes.into_iter().filter_map(|volume| {
        let using = containers.iter().filter(|container| mounts(container, &volume.name));
        let ids = using.filter_map(|container| ContainerId::parse(container.id.as_ref()?).ok());
        Some(OwnVolume {
            app: AppId::parse(volume.labels.get(label::APP)?).ok()?,
            volume: VolumeName::parse(volume.labels.get(label::VOLUME)?).ok()?,
            used_by: ids.collect(),
            id: volume.name,
        })
    });
    ours.collect()
}

/// Every reference of an image, `<none>` left out.
pub(super) fn images(image: ImageSummary) -> impl Iterator<Item = ImageRef> {
    let names = image.repo_tags.into_iter().chain(image.repo_digests);
    names.filter_map(|name| ImageRef::parse(&name).ok())
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerSummaryNetworkSettings, EndpointSettings};

    use super::*;

    #[test]
    fn the_engines_words() {
        assert_eq!(exit_code("Exited (137) 3 seconds ago"), 137);
        assert_eq!(exit_code("Exited (0) About a minute ago"), 0);
        assert_eq!(exit_code("who knows"), -1);
        assert_eq!(health("Up 2 seconds (health: starting)"), Health::Starting);
        assert_eq!(health("Up 5 minutes (healthy)"), Health::Healthy);
        assert_eq!(health("Up 1 hour (unhealthy)"), Health::Unhealthy);
        assert_eq!(health("Up 1 hour"), Health::Unchecked);
        assert_eq!(health("Up 1 hour (Paused)"), Health::Unchecked);
    }

    #[test]
    fn whom_a_container_joins() {
        let told = |text: &str| {
            joins(text).into_iter().map(|(k, id)| format!("{} {id}", k.as_str())).collect::<Vec<_>>()
        };
        assert_eq!(told("pid:b,network:a"), ["network a", "pid b"]);
        assert_eq!(told("network:,uts:c,pid"), Vec::<String>::new());
    }

    #[test]
    fn machines_in_the_words_of_images() {
        for (machine, told) in [
            ("x86_64", "amd64"),
            ("aarch64", "arm64"),
            ("armv7l", "arm"),
            ("armv6l", "arm"),
            ("i686", "386"),
            ("riscv64", "riscv64"),
        ] {
            assert_eq!(architecture(machine), told);
        }
    }

    #[test]
    fn ports_that_are_published() {
        let port = |ip: &str, public, typ| bollard::models::PortSummary {
            ip: Some(ip.to_owned()),
            private_port: 80,
            public_port: public,
            typ: Some(typ),
        };
        let summary = ContainerSummary {
            id: Some("abc".into()),
            names: Some(vec!["/their_web".into()]),
            ports: Some(vec![
                port("0.0.0.0", Some(8080), PortSummaryTypeEnum::TCP),
                port("127.0.0.1", Some(8081), PortSummaryTypeEnum::TCP),
                port("::", Some(8080), PortSummaryTypeEnum::TCP),
                port("0.0.0.0", Some(8080), PortSummaryTypeEnum::UDP),
                port("", None, PortSummaryTypeEnum::TCP),
                port("0.0.0.0", Some(9000), PortSummaryTypeEnum::SCTP),
            ]),
            ..ContainerSummary::default()
        };
        let seen: Vec<_> = published(summary)
            .into_iter()
            .map(|held| {
                assert_eq!(held.container, ContainerId::parse("abc").ok());
                format!("{:?} {}:{} by {}", held.protocol, held.host_ip, held.port, held.by)
            })
            .collect();
        assert_eq!(
            seen,
            ["Tcp :8080 by their_web", "Udp :8080 by their_web", "Tcp 127.0.0.1:8081 by their_web"]
        );
    }

    #[test]
    fn a_container_without_our_labels_is_not_ours() {
        let summary = ContainerSummary { id: Some("abc".into()), ..ContainerSummary::default() };
        assert_eq!(service(summary, &[]), None);
    }

    #[test]
    fn a_container_whose_network_was_replaced() {
        let network = |name: &str, id: &str| Network {
            name: Some(name.to_owned()),
            id: Some(id.to_owned()),
            ..Network::default()
        };
        let there = [network("own", "1"), network("twice", "2"), network("twice", "3")];
        for (why, name, id, expected) in [
            ("it is there", "own", "1", false),
            ("another one has its name", "own", "9", true),
            ("never started", "own", "", false),
            ("one of two", "twice", "3", false),
            ("neither of two", "twice", "9", true),
            ("gone, and not made again yet", "gone", "9", false),
            ("not ours", "bridge", "9", false),
        ] {
            let endpoint =
                EndpointSettings { network_id: Some(id.to_owned()), ..EndpointSettings::default() };
            let settings = ContainerSummaryNetworkSettings {
                networks: Some(HashMap::from([(name.to_owned(), endpoint)])),
            };
            let summary =
                ContainerSummary { network_settings: Some(settings), ..ContainerSummary::default() };
            assert_eq!(is_cut_off(&summary, &there), expected, "{why}");
        }
        assert!(!is_cut_off(&ContainerSummary::default(), &there), "an engine that does not tell");
    }
}
