//! Translates the engine's lists into observations. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::model::{
    AppId, Commit, ContainerId, ContainerState, Door, FailedProbe, Health, HeldPort, ImageRef, Instance,
    LastEnd, Namespace, NetworkId, NetworkName, ObservedNetwork, ObservedService, OriginalNetwork, OwnVolume,
    Protocol, ServiceName, SpecHash, VolumeName,
};

use super::RunRecord;
use super::answers::{Endpoint, Image, Inspected, Network, Range, State, Summary, Volume};
use super::docker_spec::{PARKED, PARTIAL, label};

impl Inspected {
    /// Returns the text of its last start, if it runs. Later starts have greater texts.
    pub(super) fn started(self) -> Option<String> {
        // Without its last letter a text with fewer digits comes before one with more.
        self.state.running.then(|| self.state.started_at.trim_end_matches('Z').to_owned())
    }

    /// What the engine keeps of its runs, without its error: that may quote secrets.
    pub(super) fn run_record(&self) -> RunRecord {
        let State { running, was_out_of_memory, finished_at, exit_code, health, .. } = &self.state;
        let has_ended = !running && !finished_at.is_empty() && !finished_at.starts_with("0001-");
        let end = LastEnd { is_out_of_memory: *was_out_of_memory, ..LastEnd::with_code(*exit_code) };
        let probe = health.as_ref().filter(|health| health.failing_streak > 0);
        let last = probe.and_then(|health| health.log.as_ref()?.last()).filter(|run| run.exit_code != 0);
        RunRecord {
            restarts: u64::try_from(self.restart_count).unwrap_or(0),
            end: (has_ended || !self.state.error.is_empty()).then_some(end),
            probe: last.map(|run| FailedProbe::new(run.exit_code, &run.output)),
        }
    }

    /// Returns `true` if it runs, or podman is about to start it again.
    pub(super) fn goes_on(&self) -> bool {
        self.state.running || self.is_coming_back(&self.state.status)
    }

    /// Returns `true` if podman is about to start it again from `state`.
    fn is_coming_back(&self, state: &str) -> bool {
        is_between(state) && (self.restart_count > 0 || (state == "stopped" && self.comes_back()))
    }

    /// Returns `true` if its restart policy starts it again after it has ended by itself.
    fn comes_back(&self) -> bool {
        match self.host_config.restart_policy.name.as_str() {
            "always" | "unless-stopped" => true,
            "on-failure" => self.state.exit_code != 0,
            _ => false,
        }
    }
}

impl Summary {
    /// Returns `true` if podman's list has less about it than Docker's has.
    pub(super) fn is_short(&self) -> bool {
        self.state == "running" && health(&self.status) == Health::Unchecked || is_between(&self.state)
    }

    /// Adds what podman reports only if one container is inspected, in Docker's words.
    pub(super) fn complete(&mut self, seen: &Inspected) {
        if is_between(&self.state) {
            if seen.is_coming_back(&self.state) {
                "restarting".clone_into(&mut self.state);
            }
            return;
        }
        match seen.state.health.as_ref().map(|probed| probed.status.as_str()) {
            Some("starting") => self.status.push_str(" (health: starting)"),
            Some(word @ ("healthy" | "unhealthy")) => self.status.push_str(&format!(" ({word})")),
            Some(_) | None => {}
        }
    }
}

/// Returns `true` for states of podman in which a container is down and may be started again at any moment: podman has
/// no state for that.
fn is_between(state: &str) -> bool {
    ["stopped", "created", "initialized"].contains(&state)
}

/// Translates a container of ours, with our networks. `None` if a label is missing or invalid: such a container is
/// never changed.
pub(super) fn service(summary: Summary, networks: &[Network]) -> Option<ObservedService> {
    let is_cut_off = is_cut_off(&summary, networks);
    let labels = summary.labels.unwrap_or_default();
    let text = |key| labels.get(key).map(String::as_str);
    let status = summary.status;
    let is_partial = summary.names.iter().flatten().any(|name| name.ends_with(PARTIAL));
    let state = if is_partial { ContainerState::Dead } else { state(&summary.state, &status) };
    let last_end = match state {
        ContainerState::Exited { code } => Some(LastEnd::with_code(code)),
        ContainerState::Restarting => Some(LastEnd::with_code(exit_code(&status))),
        ContainerState::Created
        | ContainerState::Running
        | ContainerState::Paused
        | ContainerState::Removing
        | ContainerState::Dead => None,
    };
    let ends = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let bound = |(name, end): (String, Endpoint)| {
        let id = bound(&name, end, networks);
        (name, id)
    };
    let networks = ends.into_iter().map(bound).collect();
    let mut ports: BTreeMap<u16, BTreeSet<u16>> = BTreeMap::new();
    // podman lists the ports of stopped containers, too.
    let held = if is_up(&state) { summary.ports.unwrap_or_default() } else { Vec::new() };
    for port in held {
        if let Some(public) = port.public_port {
            ports.entry(port.private_port).or_default().insert(public);
        }
    }
    Some(ObservedService {
        container: ContainerId::parse(summary.id).ok()?,
        app: AppId::parse(text(label::APP)?).ok()?,
        service: ServiceName::parse(text(label::SERVICE)?).ok()?,
        release: Commit::parse(text(label::RELEASE)?).ok()?,
        spec: SpecHash::parse(text(label::SPEC)?).ok()?,
        image: summary.image,
        grace: Duration::from_secs(text(label::GRACE).and_then(|g| g.parse().ok()).unwrap_or(10)),
        state,
        health: health(&status),
        is_cut_off,
        restarts: 0,
        last_end,
        networks,
        joins: text(label::JOINS).map(joins).unwrap_or_default(),
        created: summary.created.as_i64().unwrap_or_default(),
        introduced: text(label::INTRODUCED).filter(|text| !text.is_empty()).map(str::to_owned),
        is_outdated: false,
        status,
        ports,
    })
}

/// Translates a container that a balena supervisor created (docs/dev/protocol.md, "Labels of containers"). `None` if it is
/// one of ours, or lacks what such a container has.
pub(super) fn original(mut summary: Summary) -> Option<ObservedService> {
    let name = summary.names.iter().flatten().next()?.trim_start_matches('/').to_owned();
    let labels = summary.labels.as_mut().filter(|labels| !labels.contains_key(label::INSTANCE))?;
    let of = |labels: &HashMap<String, String>, name: &str| {
        let spellings =
            ["io.balena.", "io.resin."].map(|prefix| labels.get(&format!("{prefix}{name}")).cloned());
        spellings.into_iter().flatten().next()
    };
    let (app, service) = (of(labels, "app-uuid")?, of(labels, "service-name")?);
    // `<service>_<number of the image>_<number of the release>_<commit>`
    let rest = name.strip_prefix(&service)?.strip_prefix('_')?;
    let mut parts = rest.splitn(3, '_');
    let numbers = [parts.next()?, parts.next()?];
    if numbers.iter().any(|number| number.parse::<u64>().is_err()) {
        return None;
    }
    let commit = parts.next()?.to_owned();
    // The image of the container may have labels with our names.
    labels.retain(|name, _| !name.starts_with("io.cotter."));
    labels.extend([
        (label::APP.to_owned(), app),
        (label::SERVICE.to_owned(), service),
        (label::RELEASE.to_owned(), commit),
        (label::SPEC.to_owned(), SpecHash::of_original().to_string()),
    ]);
    self::service(summary, &[])
}

/// Returns the network that an endpoint is bound to. podman binds by name and reports the name in place of the id; it
/// means the network that has this name now.
fn bound(name: &str, end: Endpoint, networks: &[Network]) -> Option<NetworkId> {
    let is_bound_by_name = end.id == name;
    let named = || networks.iter().find(|n| n.name == name).map(|n| n.id.clone());
    NetworkId::parse(if is_bound_by_name { named()? } else { end.id }).ok()
}

/// Returns `true` if the container is bound to a network that does not exist any more, although a network with its name
/// exists. The engine binds by id at the first start, and reports no id before; podman binds by name.
fn is_cut_off(summary: &Summary, networks: &[Network]) -> bool {
    let bound = summary.network_settings.iter().flat_map(|settings| settings.networks.iter().flatten());
    let mut bound = bound.filter(|(name, endpoint)| !endpoint.id.is_empty() && endpoint.id != **name);
    bound.any(|(name, endpoint)| {
        let mut named = networks.iter().filter(|n| n.name == *name).peekable();
        named.peek().is_some() && named.all(|n| n.id != endpoint.id)
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

/// Returns `true` if the container was parked under another name.
pub(super) fn is_parked(summary: &Summary) -> bool {
    let mut names = summary.names.iter().flatten();
    names.any(|name| name.trim_start_matches('/').starts_with(PARKED))
}

/// The host ports that a container publishes.
pub(super) fn published(summary: Summary) -> Vec<HeldPort> {
    let container = ContainerId::parse(summary.id).ok();
    let by = summary.names.iter().flatten().next().map_or("", |name| name.trim_start_matches('/')).to_owned();
    let held = summary.ports.unwrap_or_default().into_iter().filter_map(|port| {
        let protocol = match port.protocol.as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        let host_ip = if port.ip == "0.0.0.0" || port.ip == "::" { String::new() } else { port.ip };
        Some(HeldPort {
            host_ip,
            port: port.public_port?,
            protocol,
            container: container.clone(),
            by: by.clone(),
        })
    });
    let mut held: Vec<_> = held.collect();
    // The engine lists a port on all addresses twice: once for IPv4 and once for IPv6.
    held.sort_by(|a, b| (a.port, a.protocol, &a.host_ip).cmp(&(b.port, b.protocol, &b.host_ip)));
    held.dedup();
    held
}

/// Whether Docker of this version cannot unpack layers that are packed with zstd, which it learned in version 23. That of a
/// version which is not a number is not known.
pub(super) fn is_before_zstd(version: &str) -> bool {
    version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major < 23)
}

/// Translates the kernel's name of an architecture into that of images. Other names stay.
pub(super) fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv6l" | "armv7l" | "armhf" | "armv8l" => "arm",
        "i386" | "i686" => "386",
        other => other,
    }
}

/// Returns `true` if a container in this state holds its ports.
fn is_up(state: &ContainerState) -> bool {
    match state {
        ContainerState::Running | ContainerState::Paused | ContainerState::Restarting => true,
        ContainerState::Created
        | ContainerState::Exited { .. }
        | ContainerState::Removing
        | ContainerState::Dead => false,
    }
}

/// Translates a state. podman's `stopped` is a container that has ended and was not cleaned up yet, and `initialized`
/// one that is about to start.
fn state(state: &str, status: &str) -> ContainerState {
    match state {
        "running" => ContainerState::Running,
        "paused" => ContainerState::Paused,
        "restarting" => ContainerState::Restarting,
        "exited" | "stopped" | "stopping" => ContainerState::Exited { code: exit_code(status) },
        "removing" => ContainerState::Removing,
        "dead" => ContainerState::Dead,
        _ => ContainerState::Created,
    }
}

/// Reads the exit code from "Exited (137) 3 seconds ago": the list has it nowhere else. -1 if it cannot be read, so that
/// it does not count as a success.
fn exit_code(status: &str) -> i64 {
    let code = status.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(code, _)| code);
    code.and_then(|code| code.parse().ok()).unwrap_or(-1)
}

/// Reads the health from "Up 2 seconds (health: starting)", "Up 5 minutes (healthy)", "Up 1 hour (unhealthy)".
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

/// Translates a network of ours; `None` as for containers.
pub(super) fn network(network: Network) -> Option<ObservedNetwork> {
    let gateway = gateway(&network);
    let labels = network.labels.unwrap_or_default();
    let ranges = network.ipam.and_then(|ipam| ipam.config).into_iter().flatten();
    Some(ObservedNetwork {
        id: NetworkId::parse(network.id).ok()?,
        app: AppId::parse(labels.get(label::APP)?).ok()?,
        network: NetworkName::parse(labels.get(label::NETWORK)?).ok()?,
        config_hash: labels.get(label::NETWORK_CONFIG).cloned(),
        name: network.name,
        subnets: ranges.filter_map(|range| range.subnet).collect(),
        gateway,
        is_original: false,
    })
}

/// Translates a network that a balena supervisor created: `<uuid of the app>_<network>`, with the app's number in place
/// of the uuid in older versions. `None` if it is one of ours, or lacks what such a network has.
pub(super) fn original_network(network: Network) -> Option<OriginalNetwork> {
    let gateway = gateway(&network);
    let labels = network.labels.filter(|labels| !labels.contains_key(label::INSTANCE))?;
    let (of, name) = network.name.split_once('_')?;
    let has_ranges = labels.contains_key("io.balena.private.ipam.config");
    let is_plain = network.driver == "bridge"
        && !(network.is_internal || network.has_ipv6 || has_ranges)
        && network.options.is_none_or(|options| options.is_empty());
    let ranges = network.ipam.and_then(|ipam| ipam.config).into_iter().flatten();
    Some(OriginalNetwork {
        of: of.to_owned(),
        id: NetworkId::parse(network.id).ok()?,
        network: NetworkName::parse(name).ok()?,
        is_plain,
        subnets: ranges.filter_map(|range| range.subnet).collect(),
        gateway,
        name: network.name,
    })
}

/// Returns the host's own address on a network, an IPv4 address if there is one. Docker does not list the gateway of a
/// range without one; it is then the first address of the range. On other networks than bridges the gateway is another
/// machine.
fn gateway(network: &Network) -> Option<IpAddr> {
    if network.driver != "bridge" {
        return None;
    }
    let ranges = network.ipam.as_ref()?.config.iter().flatten();
    let own = |range: &Range| {
        let given = range.gateway.as_deref().map(|text| text.split('/').next().unwrap_or(text));
        given
            .filter(|text| !text.is_empty())
            .map_or_else(|| first_address(range.subnet.as_deref()?), |text| text.parse().ok())
    };
    ranges.filter_map(own).min_by_key(IpAddr::is_ipv6)
}

/// The first address of a range of IPv4 that a machine can have.
fn first_address(range: &str) -> Option<IpAddr> {
    let (network, prefix) = range.split_once('/')?;
    let (network, prefix): (Ipv4Addr, u32) = (network.parse().ok()?, prefix.parse().ok()?);
    let mask = u32::MAX.checked_shl(32_u32.checked_sub(prefix)?).unwrap_or(0);
    Some(Ipv4Addr::from((u32::from(network) & mask) | 1).into())
}

/// The engine's default bridge, if it is in the list.
pub(super) fn default_bridge(networks: &[Network]) -> Option<Door> {
    let bridge = networks.iter().find(|network| network.name == "bridge" || network.name == "podman")?;
    let ranges = bridge.ipam.as_ref()?.config.iter().flatten();
    Some(Door { address: gateway(bridge)?, peers: ranges.filter_map(|range| range.subnet.clone()).collect() })
}

/// Translates our volumes, each with the containers that mount it. Volumes without the labels of our own, and of other
/// instances, are left out. Those of balena's names have balena's labels, and their name says which volume of the app they
/// are.
pub(super) fn volumes(volumes: Vec<Volume>, containers: &[Summary], instance: &Instance) -> Vec<OwnVolume> {
    let mounts = |container: &&Summary, name: &str| {
        let mut mounts = container.mounts.iter().flatten();
        mounts.any(|mount| mount.name == name)
    };
    let ours = volumes.into_iter().filter_map(|volume| {
        let using = containers.iter().filter(|container| mounts(container, &volume.name));
        let ids = using.filter_map(|container| ContainerId::parse(&container.id).ok());
        let labels = volume.labels?;
        if labels.get(label::INSTANCE).is_some_and(|of| of != instance.as_str()) {
            return None;
        }
        let of_balena = volume.name.split_once('_').filter(|(number, _)| number.parse::<u64>().is_ok());
        let name = labels.get(label::VOLUME).map(String::as_str).or(of_balena.map(|(_, name)| name))?;
        Some(OwnVolume {
            app: AppId::parse(labels.get(label::APP).or(labels.get(label::APP_UUID))?).ok()?,
            volume: VolumeName::parse(name).ok()?,
            used_by: ids.collect(),
            id: volume.name,
        })
    });
    ours.collect()
}

/// Returns every reference of an image, except `<none>`.
pub(super) fn images(image: Image) -> impl Iterator<Item = ImageRef> {
    let names = [image.repo_tags, image.repo_digests].into_iter().flatten().flatten();
    names.filter_map(|name| ImageRef::parse(&name).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::answers::{NetworkSettings, Port};

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
    fn how_a_container_ended_and_why_its_healthcheck_failed() {
        let record = |json: &str| serde_json::from_str::<Inspected>(json).unwrap().run_record();
        let end = |code| Some(LastEnd::with_code(code));
        let ended = r#""FinishedAt": "2026-01-01T00:00:00Z""#;
        let crashed = record(&format!(r#"{{"RestartCount": 2, "State": {{"ExitCode": 3, {ended}}}}}"#));
        assert_eq!((crashed.restarts, crashed.end), (2, end(3)));
        let killed = record(&format!(r#"{{"State": {{"ExitCode": 137, "OOMKilled": true, {ended}}}}}"#));
        assert!(killed.end.unwrap().is_out_of_memory);
        let never = r#"{"State": {"FinishedAt": "0001-01-01T00:00:00Z"}}"#;
        assert_eq!(record(never), RunRecord::default(), "it never ran");
        let refused =
            r#"{"State": {"FinishedAt": "0001-01-01T00:00:00Z", "ExitCode": 127, "Error": "no such file"}}"#;
        assert_eq!(record(refused).end, end(127), "it could not be started");
        assert_eq!(
            record(&format!(r#"{{"State": {{"Running": true, {ended}}}}}"#)).end,
            None,
            "it runs again"
        );
        let probed = |streak: i64, code: i64| {
            record(&format!(
                r#"{{"State": {{"Running": true, "Health": {{"FailingStreak": {streak},
                    "Log": [{{"ExitCode": 9, "Output": "old"}}, {{"ExitCode": {code}, "Output": "no\nroute"}}]}}}}}}"#
            ))
        };
        assert_eq!(probed(2, 7).probe, Some(FailedProbe::new(7, "no route")));
        assert_eq!(probed(0, 0).probe, None);
    }

    #[test]
    fn containers_of_a_balena_supervisor_are_known_by_label_and_name() {
        let labels = |more: &[(&str, &str)]| {
            let all = [
                ("io.balena.supervised", "true"),
                ("io.balena.app-uuid", "0123456789abcdef0123456789abcdef"),
                ("io.balena.service-name", "my_web"),
            ];
            let all = all.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Some(all.collect::<HashMap<_, _>>())
        };
        let found = |name: &str, labels| {
            let names = Some(vec![name.to_owned()]);
            let summary =
                Summary { id: "a1".into(), names, labels, state: "running".into(), ..Summary::default() };
            original(summary)
                .map(|it| format!("{} {} {} {}", it.service, it.release, it.spec.short(), it.grace.as_secs()))
        };
        assert_eq!(found("/my_web_7_8_c0ffee", labels(&[])).as_deref(), Some("my_web c0ffee 00000000 10"));
        // What its image claims is not believed.
        let claims =
            labels(&[("io.cotter.spec", "v1:x"), ("io.cotter.joins", "pid:x"), ("io.cotter.grace", "900")]);
        assert_eq!(found("/my_web_7_8_c0ffee", claims).as_deref(), Some("my_web c0ffee 00000000 10"));
        for (name, labels) in [
            ("/my_web_7_8", labels(&[])),
            ("/my_web_seven_8_c0ffee", labels(&[])),
            ("/web_7_8_c0ffee", labels(&[])),
            ("/balena_supervisor", labels(&[])),
            ("/my_web_7_8_c0ffee", labels(&[("io.cotter.instance", "default")])),
            ("/my_web_7_8_c0ffee", labels(&[("io.balena.app-uuid", "../x y")])),
            ("/my_web_7_8_c0ffee", Some(HashMap::new())),
        ] {
            assert_eq!(found(name, labels), None, "{name}");
        }
    }

    #[test]
    fn networks_of_a_balena_supervisor_are_known_by_label_and_name() {
        let found = |json: serde_json::Value| {
            let found = original_network(serde_json::from_value(json).unwrap())?;
            Some(format!(
                "{} of {}{}",
                found.network,
                found.of,
                if found.is_plain { "" } else { ", configured" }
            ))
        };
        let plain = |name: &str, labels: &[&str]| {
            let labels: BTreeMap<_, _> = labels.iter().map(|name| (*name, "true")).collect();
            serde_json::json!({ "Id": "n1", "Name": name, "Driver": "bridge", "Labels": labels })
        };
        let supervised = ["io.balena.supervised"];
        assert_eq!(found(plain("7_my_net", &supervised)).as_deref(), Some("my_net of 7"));
        assert_eq!(found(plain("0abc_default", &supervised)).as_deref(), Some("default of 0abc"));
        for (field, value) in [
            ("Driver", serde_json::json!("macvlan")),
            ("Internal", true.into()),
            ("EnableIPv6", true.into()),
            ("Options", serde_json::json!({ "mtu": "9" })),
            ("Labels", serde_json::json!({ "io.balena.private.ipam.config": "true" })),
        ] {
            let mut network = plain("7_default", &supervised);
            network[field] = value;
            assert_eq!(found(network).as_deref(), Some("default of 7, configured"), "{field}");
        }
        assert_eq!(found(plain("7_default", &["io.cotter.instance"])), None);
        assert_eq!(found(plain("supervisor0", &supervised)), None);
    }

    #[test]
    fn the_grace_of_a_container_is_its_own() {
        let grace = |json: &str| serde_json::from_str::<Inspected>(json).unwrap().grace().as_secs();
        assert_eq!(grace(r#"{"Config": {"StopTimeout": 120}}"#), 120);
        assert_eq!(grace(r#"{"Config": {"StopTimeout": null}}"#), 10);
        assert_eq!(grace(r#"{"Config": {"StopTimeout": -1}}"#), 3600);
        assert_eq!(grace("{}"), 10);
    }

    #[test]
    fn volumes_with_balenas_names_have_its_labels_or_ours() {
        let found = |name: &str, labels: &[(&str, &str)]| {
            let labels =
                labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let volume = Volume { name: name.into(), labels: Some(labels), ..Volume::default() };
            let instance = Instance::parse("default").unwrap();
            let volumes = volumes(vec![volume], &[], &instance);
            volumes.first().map(|it| format!("{} of {}", it.volume, it.app))
        };
        let of_balena = [("io.balena.supervised", "true"), ("io.balena.app-uuid", "abc")];
        assert_eq!(found("7_my_data", &of_balena).as_deref(), Some("my_data of abc"));
        assert_eq!(found("data", &of_balena), None);
        let ours =
            [("io.cotter.instance", "default"), ("io.cotter.app", "abc"), ("io.cotter.volume", "data")];
        assert_eq!(found("7_data", &ours).as_deref(), Some("data of abc"));
        let others = [("io.cotter.instance", "lab"), ("io.cotter.app", "abc"), ("io.cotter.volume", "data")];
        assert_eq!(found("lab_7_data", &others), None);
    }

    #[test]
    fn joins_are_parsed() {
        let parsed = |text: &str| {
            joins(text).into_iter().map(|(k, id)| format!("{} {id}", k.as_str())).collect::<Vec<_>>()
        };
        assert_eq!(parsed("pid:b,network:a"), ["network a", "pid b"]);
        assert_eq!(parsed("network:,uts:c,pid"), Vec::<String>::new());
    }

    #[test]
    fn states_that_podman_reports_only_by_inspection() {
        let running = |health: &str| format!(r#"{{"State": {{"Health": {{"Status": "{health}"}}}}}}"#);
        let ended = |policy: &str, code: i64, count: i64| {
            format!(
                r#"{{"RestartCount": {count}, "State": {{"ExitCode": {code}}},
                    "HostConfig": {{"RestartPolicy": {{"Name": "{policy}"}}}}}}"#
            )
        };
        for (state, inspected, expected) in [
            ("running", running("healthy"), "Running Healthy"),
            ("running", running("unhealthy"), "Running Unhealthy"),
            ("running", running("starting"), "Running Starting"),
            ("running", running(""), "Running Unchecked"),
            ("stopped", ended("unless-stopped", 0, 0), "Restarting Unchecked"),
            ("stopped", ended("on-failure", 1, 0), "Restarting Unchecked"),
            ("stopped", ended("on-failure", 0, 0), "Exited { code: -1 } Unchecked"),
            ("stopped", ended("no", 1, 0), "Exited { code: -1 } Unchecked"),
            ("created", ended("unless-stopped", 0, 0), "Created Unchecked"),
            ("created", ended("unless-stopped", 1, 2), "Restarting Unchecked"),
        ] {
            let mut summary = Summary { state: state.to_owned(), ..Summary::default() };
            assert!(summary.is_short(), "{state}");
            summary.complete(&serde_json::from_str(&inspected).unwrap());
            let seen = format!("{:?} {:?}", super::state(&summary.state, ""), health(&summary.status));
            assert_eq!(seen, expected, "{state} {inspected}");
        }
        let at_rest = Summary { state: "exited".to_owned(), ..Summary::default() };
        assert!(!at_rest.is_short());
    }

    #[test]
    fn containers_that_podman_will_restart() {
        for (status, policy, count, goes_on) in [
            ("running", "no", 0, true),
            ("stopped", "unless-stopped", 0, true),
            ("stopped", "no", 0, false),
            ("created", "unless-stopped", 0, false),
            ("created", "unless-stopped", 3, true),
            ("initialized", "unless-stopped", 3, true),
            ("exited", "unless-stopped", 3, false),
        ] {
            let is_up = status == "running";
            let json = format!(
                r#"{{"RestartCount": {count}, "State": {{"Status": "{status}", "Running": {is_up}}},
                    "HostConfig": {{"RestartPolicy": {{"Name": "{policy}"}}}}}}"#
            );
            let seen: Inspected = serde_json::from_str(&json).unwrap();
            assert_eq!(seen.goes_on(), goes_on, "{json}");
        }
        assert!(!Inspected::default().goes_on(), "one that is gone");
    }

    #[test]
    fn docker_unpacks_zstd_from_version_23_on() {
        for (version, expected) in [
            ("20.10.24+dfsg1", true),
            ("19.03.18", true),
            ("23.0.0", false),
            ("28.2.2", false),
            ("dev", false),
            ("", false),
        ] {
            assert_eq!(is_before_zstd(version), expected, "{version}");
        }
    }

    #[test]
    fn architectures_get_the_names_of_images() {
        for (machine, expected) in [
            ("x86_64", "amd64"),
            ("aarch64", "arm64"),
            ("armv7l", "arm"),
            ("armv6l", "arm"),
            ("i686", "386"),
            ("riscv64", "riscv64"),
        ] {
            assert_eq!(architecture(machine), expected);
        }
    }

    #[test]
    fn published_ports_are_listed_once() {
        let port = |ip: &str, public_port, protocol: &str| Port {
            ip: ip.to_owned(),
            private_port: 80,
            public_port,
            protocol: protocol.to_owned(),
        };
        let summary = Summary {
            id: "abc".into(),
            names: Some(vec!["/their_web".into()]),
            ports: Some(vec![
                port("0.0.0.0", Some(8080), "tcp"),
                port("127.0.0.1", Some(8081), "tcp"),
                port("::", Some(8080), "tcp"),
                port("0.0.0.0", Some(8080), "udp"),
                port("", None, "tcp"),
                port("0.0.0.0", Some(9000), "sctp"),
            ]),
            ..Summary::default()
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
        let summary = Summary { id: "abc".into(), ..Summary::default() };
        assert_eq!(service(summary, &[]), None);
    }

    #[test]
    fn the_network_that_a_container_is_on() {
        let own = Network { name: "own".into(), id: "1".into(), ..Network::default() };
        for (why, name, id, expected) in [
            ("by its id", "own", "1", Some("1")),
            ("another one had the name", "own", "9", Some("9")),
            ("never started", "own", "", None),
            ("by its name", "own", "own", Some("1")),
            ("by the name of one that is gone", "gone", "gone", None),
        ] {
            let end = Endpoint { id: id.to_owned() };
            let id = bound(name, end, std::slice::from_ref(&own));
            assert_eq!(id.as_ref().map(NetworkId::as_str), expected, "{why}");
        }
    }

    #[test]
    fn a_container_whose_network_was_replaced() {
        let network =
            |name: &str, id: &str| Network { name: name.to_owned(), id: id.to_owned(), ..Network::default() };
        let there = [network("own", "1"), network("twice", "2"), network("twice", "3")];
        for (why, name, id, expected) in [
            ("it is there", "own", "1", false),
            ("another one has its name", "own", "9", true),
            ("never started", "own", "", false),
            ("one of two", "twice", "3", false),
            ("neither of two", "twice", "9", true),
            ("gone, and not made again yet", "gone", "9", false),
            ("not ours", "bridge", "9", false),
            ("bound by its name", "own", "own", false),
        ] {
            let endpoint = Endpoint { id: id.to_owned() };
            let networks = Some(HashMap::from([(name.to_owned(), endpoint)]));
            let network_settings = Some(NetworkSettings { networks });
            let summary = Summary { network_settings, ..Summary::default() };
            assert_eq!(is_cut_off(&summary, &there), expected, "{why}");
        }
        assert!(!is_cut_off(&Summary::default(), &there), "an engine that reports no networks");
    }
}
