//! The language of the planner's tests: a device as text, and its plan as text.
//!
//! # Releases
//!
//! [`RELEASES`] numbers the releases. A release is a list of services, each a name with suffixes in this order:
//!
//! ```text
//! release = service { " " service }
//! service = name [ "!" ] [ "/" config ] [ "+" joined ] [ ":" port ] [ "^" strategy ] [ ">" needed ] [ "=" number ]
//! ```
//!
//! - `db`: a service that always runs
//! - `job!`: a job, which is not started again once it has ended
//! - `web/1`: is connected to the network `lan` with config 1 (configs 1 and 2 have addresses in common)
//! - `web+vpn`: joins the network namespace of `vpn`
//! - `web:80`: publishes port 80 of the host
//! - `web^kill`, `web^delete`, `web^hand`: its strategy; without one it is `download-then-kill`
//! - `web>db`, `web>job!`: starts when `db` is healthy, or when `job` has completed
//! - `web=1`: has the spec that it has in release 1
//!
//! # Devices
//!
//! ```text
//! device = item { ", " item }
//! item   = word { " " argument }
//! ```
//!
//! `web@1` is the container, or the image, that service `web` has in release 1. [`every_word_is_read`] reads the first
//! column of these tables.
//!
//! | containers and networks | |
//! | --- | --- |
//! | `db@1 running` | a container; also `healthy`, `starting`, `unhealthy`, `created`, `exited` (code 0), `failed` (code 1), `restarting`, `dead`, `removing` |
//! | `stopped web@1` | we stopped it, so it did not finish |
//! | `restarts 3` | the engine has restarted every container 3 times |
//! | `parked db@1` | a container that was renamed, because it could not be removed |
//! | `left web@1` | the container whose namespaces it joined was started again since |
//! | `cut web@1` | a network of it was created again since it ran |
//! | `bare` | there is no network |
//! | `lan 1` | the network `lan` with config 1 |
//! | `relan 1` | the same, created again since the containers on it ran |
//! | `back web@1` | the container was connected to the networks that are here, and runs |
//!
//! | target and ledger | |
//! | --- | --- |
//! | `target 2` | the target wants release 2; also `none` (the app without a release), `other` (another app), `empty` (no app), `refused` |
//! | `override` | the target overrides locks; follows `target` |
//! | `good 1` | release 1 is the accepted one |
//! | `previous 1` | release 1 was accepted before it |
//! | `trial 2 60 1` | release 2 is on trial, has run for 60 s, and the device has booted once |
//! | `rejected 2` | release 2 was rejected |
//! | `handing-over web 30` | web has run next to its predecessor for 30 s; follows `trial` |
//! | `handed-over web` | web says that it has taken over |
//! | `steady 10` | nothing has changed for 10 s while the app waited for its trial |
//! | `hold` | an operator holds the device |
//! | `halted web@1` | an operator stopped web, with the spec of release 1 |
//! | `restart web@1` | an operator wants the container to be restarted |
//! | `healed web 2` | web was restarted twice because it was unhealthy |
//! | `forced 2` | release 2 ignores locks and windows |
//!
//! | images and steps | |
//! | --- | --- |
//! | `have 1 2 web@3` | the images of these releases and services are here |
//! | `pulled 1 2` | we pulled the images of these releases |
//! | `pulling web@2` | the image is being pulled, at 40 % |
//! | `failed web@2` | its pull failed twice and is tried again in 9 s |
//! | `cost web@2 90 30 60` | its downloads have fetched 90 MiB for an image of 30 MiB, 60 of them by downloads that failed for an unknown reason |
//! | `putoff start web@2 3` | a step failed 3 times and is tried again in 9 s |
//! | `tried stop web@1 2` | a step failed twice and may be tried again now |
//! | `spent pull web@2 5` | a step failed 5 times and is given up |
//!
//! | the host and the registry | |
//! | --- | --- |
//! | `lock web` | web has a lock file |
//! | `own` | we hold the app's locks |
//! | `lease now` | an operator has a lease; also `over` (it has ended), `old` (of an earlier boot) |
//! | `window 60` | a maintenance window is set and opens in 60 s; also `open`, `unknown` |
//! | `clock` | the clock cannot be trusted |
//! | `waited 3` | updates have waited 3 h for the clock |
//! | `free 100` | 100 MiB are free on disk |
//! | `reserve 10` | 10 MiB of them are reserved |
//! | `weight web@2 a=10 b=20` | the image has layers of 10 and 20 MiB |
//! | `layers a b` | these layers are here |
//! | `unweighed web@2` | the size of the image is not known |
//! | `measuring web@2` | its registry is being asked for it |
//! | `arch arm64` | the architecture of the device |
//! | `made web@2 amd64` | the image is made for these architectures |
//! | `zstd web@2` | the image has layers packed with zstd |
//! | `old engine` | the engine cannot unpack zstd |
//! | `port 80 * web@1` | port 80 is in use on all addresses, by this container; without one, by another program |
//!
//! # Plans
//!
//! A plan is its steps, as they are printed, and its waits: `stop web web-1, start web web-2, wait all locked`. A container
//! is called by its service and release, and a wait names its service (or `all`) and its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    App, AppId, Clock, Commit, Condition, ContainerId, ContainerState, Download, DownloadProgress, Facts,
    FailedStep, FileLock, Halt, Health, HeldPort, Hold, ImageRef, ImageSize, Lease, Ledger, Namespace,
    NetworkAttachment, NetworkId, NetworkMode, NetworkName, NetworkSpec, Observed, ObservedNetwork,
    ObservedService, Plan, PlanSettings, PortMapping, Protocol, Refusal, RefusedApp, Rejection, Release,
    RestartPolicy, ServiceName, ServiceSpec, SpecHash, Step, Strategy, Subnet, Target, TargetApp, Trial,
    TrialSpec, VolumeName, VolumeSpec, WantedApp, Window, WindowState,
};
use crate::plan::{Situation, plan, violations};

use super::engine::meet_networks;

/// The releases that stories name by number; the grammar is at the head of this file.
pub(super) const RELEASES: [(u8, &str); 23] = [
    (1, "db web"),
    (2, "db web"),
    (3, "web"),
    (4, "db web>db"),
    (5, "db web=1"),
    (6, "job! web"),
    (7, "job! web>job!"),
    (8, "web=1"),
    (9, "db web^kill"),
    (10, "db web^delete"),
    (11, "db web^hand"),
    (12, "db web:80"),
    (13, "a b c d e f"),
    (14, "vpn web+vpn"),
    (15, "vpn web+vpn"),
    (16, "vpn=14 web+vpn"),
    (17, "vpn^kill web+vpn"),
    (18, "db web/1"),
    (19, "db=18 web/2"),
    (20, "db web/3"),
    (21, "db=18 vpn/2 web+vpn"),
    (22, "db web^delete"),
    (23, "db=1 web=1"),
];

pub(super) fn app() -> AppId {
    AppId::parse("app").unwrap()
}

pub(super) fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

pub(super) fn hash(service: &str, release: u8) -> SpecHash {
    let seed: u32 = service.bytes().map(u32::from).sum();
    SpecHash::parse(format!("v1:{:064x}", u64::from(seed) * 100 + u64::from(release))).unwrap()
}

pub(super) fn image(service: &str, release: u8) -> ImageRef {
    ImageRef::parse(&format!("r/{service}:{release}")).unwrap()
}

pub(super) fn condition(on: &str) -> (ServiceName, Condition) {
    match on.strip_suffix('!') {
        Some(job) => (name(job), Condition::Completed),
        None => (name(on), Condition::Healthy),
    }
}

pub(super) fn strategy_of(word: &str) -> Strategy {
    match word {
        "kill" => Strategy::KillThenDownload,
        "delete" => Strategy::DeleteThenDownload,
        "hand" => Strategy::HandOver { timeout: Duration::from_secs(60) },
        _ => Strategy::DownloadThenKill,
    }
}

pub(super) fn published(port: u16) -> PortMapping {
    let (host_ip, host_port) = (String::new(), Some(port));
    PortMapping { host_ip, host_port, container_port: 8080, protocol: Protocol::Tcp }
}

pub(super) fn lan() -> NetworkName {
    NetworkName::parse("lan").unwrap()
}

pub(super) fn on_lan() -> NetworkMode {
    NetworkMode::Networks(BTreeMap::from([(lan(), NetworkAttachment::default())]))
}

/// The address range of a config of `lan`.
pub(super) fn range(config: &str) -> String {
    match config {
        "1" => "10.0.0.0/16",
        "2" => "10.0.1.0/24",
        _ => "10.1.0.0/16",
    }
    .to_owned()
}

pub(super) fn networks_of(services: &str) -> BTreeMap<NetworkName, NetworkSpec> {
    let mut networks = BTreeMap::from([(NetworkName::parse("default").unwrap(), NetworkSpec::default())]);
    let config = services.split(' ').find_map(|text| text.split_once('/'));
    networks.extend(config.map(|(_, config)| {
        let subnets = vec![Subnet { subnet: Some(range(config)), ..Subnet::default() }];
        (lan(), NetworkSpec { config_hash: Some(config.to_owned()), subnets, ..NetworkSpec::default() })
    }));
    networks
}

pub(super) fn release(number: u8) -> Release {
    let (_, services_text) = RELEASES.iter().find(|(n, _)| *n == number).unwrap();
    let services = services_text.split(' ').map(|text| {
        let (text, kept) = text.split_once('=').map_or((text, number), |(t, n)| (t, n.parse().unwrap()));
        let (text, on) = text.split_once('>').map_or((text, None), |(t, on)| (t, Some(on)));
        let (text, strategy) = text.split_once('^').map_or((text, ""), |(t, how)| (t, how));
        let (text, port) = text.split_once(':').map_or((text, None), |(t, port)| (t, port.parse().ok()));
        let (text, joined) = text.split_once('+').map_or((text, None), |(t, joined)| (t, Some(name(joined))));
        let (text, lan) = text.split_once('/').map_or((text, None), |(t, config)| (t, Some(config)));
        let is_job = on.is_none() && text.ends_with('!');
        let text = text.trim_end_matches('!');
        let spec = ServiceSpec {
            hash: hash(text, kept),
            image: image(text, kept),
            restart: if is_job { RestartPolicy::No } else { RestartPolicy::Always },
            depends_on: on.map(condition).into_iter().collect(),
            network_mode: match (joined, lan) {
                (Some(other), _) => NetworkMode::Service(other),
                (None, Some(_)) => on_lan(),
                (None, None) => NetworkMode::Host,
            },
            strategy: strategy_of(strategy),
            ports: port.map(published).into_iter().collect(),
            ..ServiceSpec::bare(hash(text, kept), image(text, kept))
        };
        (name(text), spec)
    });
    Release {
        commit: Commit::parse(number.to_string()).unwrap(),
        number: number.into(),
        services: services.collect(),
        networks: networks_of(services_text),
        volumes: BTreeMap::from([(VolumeName::parse("data").unwrap(), VolumeSpec::default())]),
        trial: TrialSpec::default(),
        windows: BTreeSet::new(),
    }
}

/// The containers that a container of this spec joins.
pub(super) fn joined_by(service: &str, number: u8) -> BTreeMap<Namespace, ContainerId> {
    let Some((_, services)) = RELEASES.iter().find(|(n, _)| *n == number) else { return BTreeMap::new() };
    if !services.split(' ').any(|text| text.starts_with(&format!("{service}+"))) {
        return BTreeMap::new();
    }
    let release = release(number);
    let container = |other: &ServiceName| {
        let numbers = RELEASES.iter().map(|(n, _)| *n);
        let mut numbers = numbers.filter(|n| hash(other.as_str(), *n) == release.services[other].hash);
        ContainerId::parse(format!("{other}-{}", numbers.next().unwrap())).unwrap()
    };
    let joins = release.services[&name(service)].joins();
    joins.map(|(kind, other)| (kind, container(other))).collect()
}

pub(super) fn target(release: Option<Release>) -> Target {
    let app = App { id: app(), number: 1, name: "demo".into() };
    let wanted = TargetApp::Wanted(WantedApp { app: app.clone(), release, warnings: Vec::new() });
    Target {
        device_name: "a".into(),
        apps: BTreeMap::from([(app.id, wanted)]),
        poll_interval: None,
        is_lock_overridden: false,
        has_logs: true,
        has_instant_updates: true,
        has_metrics: true,
        has_vpn: true,
        moves_to: None,
        variables: Vec::new(),
        left_alone: Vec::new(),
    }
}

/// A device that is read from text, planned for, and changed by steps.
#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) target: Option<Target>,
    pub(super) observed: Observed,
    pub(super) ledger: Ledger,
    pub(super) pulling: BTreeMap<ImageRef, DownloadProgress>,
    pub(super) measuring: BTreeSet<ImageRef>,
    pub(super) failed_steps: BTreeMap<Step, FailedStep>,
    pub(super) steady: BTreeMap<AppId, Duration>,
    pub(super) settings: PlanSettings,
    pub(super) facts: Facts,
    /// How many networks `lan` were created.
    pub(super) made: u32,
    /// Containers whose start is still under way in the engine, because the agent was killed after it sent the call.
    pub(super) late: BTreeSet<ContainerId>,
}

impl Device {
    /// Parses a device. Its network `default` is here unless the text says `bare`.
    pub(super) fn parse(text: &str) -> Self {
        let mut device = Self {
            target: None,
            observed: Observed::default(),
            ledger: Ledger::default(),
            pulling: BTreeMap::new(),
            measuring: BTreeSet::new(),
            failed_steps: BTreeMap::new(),
            steady: BTreeMap::new(),
            settings: PlanSettings::default(),
            facts: Facts::default(),
            made: 0,
            late: BTreeSet::new(),
        };
        device.weigh_all();
        device.add_network();
        for item in text.split(", ").filter(|i| !i.is_empty()) {
            device.read(item);
        }
        device
    }

    /// The size of every image is known to be 0.
    pub(super) fn weigh_all(&mut self) {
        let images = RELEASES.iter().flat_map(|(n, _)| release(*n).services.into_values()).map(|s| s.image);
        self.facts.image_sizes = images.map(|image| (image, ImageSize::default())).collect();
    }

    pub(super) fn add_network(&mut self) {
        self.observed.networks.push(ObservedNetwork {
            is_original: false,
            id: NetworkId::parse("n1").unwrap(),
            app: app(),
            network: NetworkName::parse("default").unwrap(),
            config_hash: None,
            name: "default".into(),
            subnets: Vec::new(),
            gateway: None,
        });
    }

    /// Adds the network `lan` with this config, under an id that counts how often it was created.
    pub(super) fn add_lan(&mut self, config: &str) {
        self.made += 1;
        self.observed.networks.push(ObservedNetwork {
            is_original: false,
            id: NetworkId::parse(format!("lan-{config}-{}", self.made)).unwrap(),
            app: app(),
            network: lan(),
            config_hash: Some(config.to_owned()),
            name: format!("lan_{config}"),
            subnets: vec![range(config)],
            gateway: None,
        });
        let (name, id) = (format!("lan_{config}"), format!("lan-{config}-{}", self.made));
        for seen in &mut self.observed.services {
            let known = seen.networks.get(&name).and_then(Option::as_ref);
            seen.is_cut_off |= known.is_some_and(|known| known.as_str() != id);
        }
    }

    pub(super) fn read(&mut self, item: &str) {
        let words: Vec<&str> = item.split(' ').collect();
        let numbers = words.iter().skip(1).filter_map(|w| w.parse::<u8>().ok());
        let ledger = self.ledger.apps.entry(app()).or_default();
        match words[0] {
            "bare" => self.observed.networks.clear(),
            "lan" => self.add_lan(words[1]),
            // Created again since the containers on it ran.
            "relan" => {
                self.made = 7;
                self.add_lan(words[1]);
            }
            // Was reconnected, and runs.
            "back" => {
                let id = ContainerId::parse(words[1].replace('@', "-")).unwrap();
                let here = self.observed.networks.clone();
                let seen = self.observed.services.iter_mut().find(|s| s.container == id).unwrap();
                seen.networks.values_mut().for_each(|id| *id = None);
                seen.networks = meet_networks(seen, &here).unwrap();
                seen.state = ContainerState::Running;
            }
            "have" => {
                let specs = numbers.flat_map(|n| release(n).services.into_values());
                self.observed.images.extend(specs.map(|s| s.image));
                let exact = words.iter().filter_map(|w| w.split_once('@'));
                self.observed.images.extend(exact.map(|(s, n)| image(s, n.parse().unwrap())));
            }
            "pulled" => {
                let specs = numbers.flat_map(|n| release(n).services.into_values());
                self.ledger.images.extend(specs.map(|s| s.image));
            }
            "trial" => {
                let mut numbers = words.iter().skip(1).map(|w| w.parse::<u64>().unwrap());
                let release = release(u8::try_from(numbers.next().unwrap()).unwrap()).key();
                let ran = Duration::from_secs(numbers.next().unwrap_or(0));
                let boots = u32::try_from(numbers.next().unwrap_or(0)).unwrap();
                ledger.trial =
                    Some(Trial { release, ran, boots, boot_id: String::new(), hand_over: BTreeMap::new() });
            }
            "rejected" => {
                let release = numbers.max().map(release).unwrap().key();
                ledger.rejected = Some(Rejection { release, why: "it was bad".into() });
            }
            "steady" => drop(self.steady.insert(app(), Duration::from_secs(words[1].parse().unwrap()))),
            "restarts" => {
                for seen in &mut self.observed.services {
                    seen.restarts = words[1].parse().unwrap();
                }
            }
            "good" => ledger.good = numbers.max().map(release),
            "previous" => ledger.previous = numbers.max().map(release),
            "hold" => {
                self.ledger.hold = Some(Hold { reason: "audit".into(), since: "noon".into() });
            }
            "stopped" => {
                ledger.stopped_by_agent.insert(ContainerId::parse(words[1].replace('@', "-")).unwrap());
            }
            "target" => match words[1] {
                "none" => self.target = Some(target(None)),
                "empty" => {
                    self.target = Some(Target {
                        device_name: "a".into(),
                        apps: BTreeMap::new(),
                        poll_interval: None,
                        is_lock_overridden: false,
                        has_logs: true,
                        has_instant_updates: true,
                        has_metrics: true,
                        has_vpn: true,
                        moves_to: None,
                        variables: Vec::new(),
                        left_alone: Vec::new(),
                    });
                }
                "other" => {
                    let mut other = target(None);
                    let wanted = other.apps.remove(&app()).unwrap();
                    other.apps.insert(AppId::parse("other").unwrap(), wanted);
                    self.target = Some(other);
                }
                "refused" => {
                    let refusals = vec![Refusal { path: "services.web.pid".into(), why: "no".into() }];
                    let refused = RefusedApp { name: "demo".into(), release: "9".into(), refusals };
                    let mut refusing = target(None);
                    refusing.apps.insert(app(), TargetApp::Refused(refused));
                    self.target = Some(refusing);
                }
                number => self.target = Some(target(Some(release(number.parse().unwrap())))),
            },
            "pulling" => {
                let (service, number) = words[1].split_once('@').unwrap();
                let progress = DownloadProgress { percent: 40, ..DownloadProgress::default() };
                self.pulling.insert(image(service, number.parse().unwrap()), progress);
            }
            "failed" => {
                let (service, number) = words[1].split_once('@').unwrap();
                let step = Step::Pull { image: image(service, number.parse().unwrap()) };
                let remaining = Some(Duration::from_secs(9));
                self.failed_steps.insert(step, FailedStep { attempts: 2, why: "gone".into(), remaining });
            }
            "cost" => {
                let (service, number) = words[1].split_once('@').unwrap();
                let mib = |word: usize| words[word].parse::<u64>().unwrap() * MIB;
                let (fetched, needed, futile) = (mib(2), mib(3), mib(4));
                let download = Download { fetched, futile, needed, why: "invalid tar header".into() };
                self.ledger.downloads.insert(image(service, number.parse().unwrap()), download);
            }
            word if self.surround(word, &words) => {}
            container => {
                let (service, number) = container.split_once('@').unwrap();
                self.add_container(service, number.parse().unwrap(), words[1]);
            }
        }
    }

    pub(super) fn add_container(&mut self, service: &str, number: u8, state: &str) {
        let (state, health) = match state {
            "running" => (ContainerState::Running, Health::Unchecked),
            "healthy" => (ContainerState::Running, Health::Healthy),
            "starting" => (ContainerState::Running, Health::Starting),
            "unhealthy" => (ContainerState::Running, Health::Unhealthy),
            "created" => (ContainerState::Created, Health::Unchecked),
            "exited" => (ContainerState::Exited { code: 0 }, Health::Unchecked),
            "failed" => (ContainerState::Exited { code: 1 }, Health::Unchecked),
            "restarting" => (ContainerState::Restarting, Health::Unchecked),
            "dead" => (ContainerState::Dead, Health::Unchecked),
            "removing" => (ContainerState::Removing, Health::Unchecked),
            other => panic!("no state {other}"),
        };
        let joins = joined_by(service, number);
        let networks = self.networks_of(service, number, state);
        self.observed.services.push(ObservedService {
            container: ContainerId::parse(format!("{service}-{number}")).unwrap(),
            app: app(),
            service: name(service),
            release: Commit::parse(number.to_string()).unwrap(),
            spec: hash(service, number),
            image: image(service, number).to_string(),
            grace: Duration::from_secs(10),
            state,
            health,
            is_cut_off: false,
            restarts: 0,
            last_end: None,
            status: format!("{state:?}"),
            ports: BTreeMap::new(),
            networks,
            joins,
            created: 0,
            introduced: None,
            is_outdated: false,
        });
    }

    /// The networks of a container. One that was started is connected to those that are here, or was connected to one
    /// that is gone.
    pub(super) fn networks_of(
        &self,
        service: &str,
        number: u8,
        state: ContainerState,
    ) -> BTreeMap<String, Option<NetworkId>> {
        let Some((_, services)) = RELEASES.iter().find(|(n, _)| *n == number) else { return BTreeMap::new() };
        let on = services.split(' ').find_map(|text| text.strip_prefix(service)?.strip_prefix('/'));
        let Some(config) = on else { return BTreeMap::new() };
        let here = self.observed.networks.iter().find(|n| n.config_hash.as_deref() == Some(config));
        let gone = || NetworkId::parse(format!("lan-{config}-0")).unwrap();
        let id = (state != ContainerState::Created).then(|| here.map_or_else(gone, |n| n.id.clone()));
        BTreeMap::from([(format!("lan_{config}"), id)])
    }

    pub(super) fn situation(&self) -> Situation {
        Situation {
            target: self.target.clone().map(Arc::new),
            observed: Arc::new(self.observed.clone()),
            ledger: Arc::new(self.ledger.clone()),
            pulling: self.pulling.clone(),
            measuring: self.measuring.clone(),
            failed_steps: self.failed_steps.clone(),
            steady: self.steady.clone(),
            facts: Arc::new(self.facts.clone()),
            boot_id: "boot".into(),
            settings: Arc::new(self.settings.clone()),
        }
    }

    /// Plans, and checks the plan against the safety rules.
    pub(super) fn plan(&self) -> Plan {
        let at = self.situation();
        let plan = plan(&at);
        assert_eq!(violations(&at, &plan), Vec::<String>::new(), "{}", self.shown());
        plan
    }

    /// The device in one line, for the messages of failed tests.
    pub(super) fn shown(&self) -> String {
        let seen = self.observed.services.iter().map(|s| format!("{} {:?}", s.container, s.state));
        let good = self.ledger.apps.get(&app()).and_then(|a| a.good.as_ref()).map(|g| &g.commit);
        format!("{}; good {good:?}; target {:?}", seen.collect::<Vec<_>>().join(", "), self.target)
    }

    /// The plan as text: its steps, then its waits.
    pub(super) fn planned(&self) -> String {
        let plan = self.plan();
        let steps = plan.stage.iter().map(Step::to_string);
        let waits = plan.waiting.iter().map(|w| {
            let service = w.service.as_ref().map_or("all", ServiceName::as_str);
            format!("wait {service} {}", w.reason.as_str())
        });
        steps.chain(waits).collect::<Vec<_>>().join(", ")
    }
}

const MIB: u64 = 1 << 20;

fn service_and_release(text: &str) -> (&str, u8) {
    let (service, number) = text.split_once('@').unwrap();
    (service, number.parse().unwrap())
}

fn container(text: &str) -> ContainerId {
    ContainerId::parse(text.replace('@', "-")).unwrap()
}

impl Device {
    /// Reads an item. Returns `false` if `word` is none of these.
    fn surround(&mut self, word: &str, words: &[&str]) -> bool {
        self.surround_by_gate(word, words)
            || self.surround_by_host(word, words)
            || self.surround_by_hand(word, words)
    }

    fn surround_by_gate(&mut self, word: &str, words: &[&str]) -> bool {
        let window = || Window::parse("02:00-04:00").unwrap();
        match word {
            "lock" => {
                let lock = FileLock { path: "/tmp/balena/updates.lock".into() };
                self.facts.locks.entry(app()).or_default().insert(name(words[1]), lock);
            }
            "lease" => {
                self.facts.uptime = Duration::from_secs(100);
                let boot_id = if words[1] == "old" { "another" } else { "boot" }.to_owned();
                let until = Duration::from_secs(if words[1] == "over" { 100 } else { 130 });
                let (id, owner, reason) = ("1".into(), "backup".into(), "copying".into());
                self.ledger.leases.push(Lease { id, owner, reason, boot_id, until });
            }
            "own" => drop(self.facts.own_locks.insert(app())),
            "forced" => {
                let key = release(words[1].parse().unwrap()).key();
                self.ledger.apps.entry(app()).or_default().forced = Some(key);
            }
            "override" => self.target.as_mut().unwrap().is_lock_overridden = true,
            "window" => {
                self.settings.windows = [window()].into();
                let state = match words[1] {
                    "open" => WindowState::Open,
                    "unknown" => WindowState::Unknown("no zone is known".into()),
                    seconds => {
                        WindowState::Closed { opens_in: Duration::from_secs(seconds.parse().unwrap()) }
                    }
                };
                self.facts.windows = [(window(), state)].into();
            }
            "clock" => self.facts.clock = Clock::Untrusted("it is 1970".into()),
            "waited" => {
                self.ledger.clock.waited = Duration::from_secs(3600 * words[1].parse::<u64>().unwrap())
            }
            _ => return false,
        }
        true
    }

    fn surround_by_host(&mut self, word: &str, words: &[&str]) -> bool {
        match word {
            "cut" => {
                let cut_off = container(words[1]);
                let mut seen = self.observed.services.iter_mut();
                seen.find(|s| s.container == cut_off).unwrap().is_cut_off = true;
            }
            "outdated" => {
                let outdated = container(words[1]);
                let mut seen = self.observed.services.iter_mut();
                seen.find(|s| s.container == outdated).unwrap().is_outdated = true;
            }
            "free" => self.facts.free = Some(words[1].parse::<u64>().unwrap() * MIB),
            "reserve" => self.settings.disk_reserve = words[1].parse::<u64>().unwrap() * MIB,
            "weight" => {
                let (service, number) = service_and_release(words[1]);
                let weight = self.facts.image_sizes.entry(image(service, number)).or_default();
                for layer in &words[2..] {
                    let (id, bytes) = layer.split_once('=').unwrap();
                    weight.layers.push((id.to_owned(), bytes.parse::<u64>().unwrap() * MIB));
                }
            }
            "unweighed" => {
                let (service, number) = service_and_release(words[1]);
                self.facts.image_sizes.remove(&image(service, number));
            }
            "measuring" => {
                let (service, number) = service_and_release(words[1]);
                self.facts.image_sizes.remove(&image(service, number));
                self.measuring.insert(image(service, number));
            }
            "layers" => self.facts.layers = Some(words[1..].iter().map(|&layer| layer.to_owned()).collect()),
            "arch" => self.facts.architecture = Some(words[1].to_owned()),
            "old" => self.facts.lacks_zstd = true,
            "zstd" => {
                let (service, number) = service_and_release(words[1]);
                let size = ImageSize { has_zstd: true, ..ImageSize::default() };
                self.facts.image_sizes.insert(image(service, number), size);
            }
            "made" => {
                let (service, number) = service_and_release(words[1]);
                let architectures = words[2..].iter().map(|&made| made.to_owned()).collect();
                self.facts
                    .image_sizes
                    .insert(image(service, number), ImageSize { architectures, ..ImageSize::default() });
            }
            "port" => {
                let holder = words.get(3).map(|text| container(text));
                let by = words.get(3).unwrap_or(&"another program").to_string();
                let host_ip =
                    words.get(2).filter(|ip| **ip != "*").map_or(String::new(), |ip| (*ip).to_owned());
                let (port, protocol) = (words[1].parse().unwrap(), Protocol::Tcp);
                self.facts.ports.push(HeldPort { host_ip, port, protocol, container: holder, by });
            }
            _ => return false,
        }
        true
    }

    fn surround_by_hand(&mut self, word: &str, words: &[&str]) -> bool {
        let ledger = self.ledger.apps.entry(app()).or_default();
        match word {
            "halted" => {
                let (service, number) = service_and_release(words[1]);
                let halt = Halt { spec: hash(service, number), since: "noon".into() };
                ledger.stopped_by_operator.insert(name(service), halt);
            }
            "left" => drop(self.facts.left_behind.insert(container(words[1]))),
            "restart" => drop(ledger.restart.insert(container(words[1]))),
            "healed" => drop(ledger.heals.insert(name(words[1]), words[2].parse().unwrap())),
            "handed-over" => drop(self.facts.handed_over.insert((app(), name(words[1])))),
            "handing-over" => {
                let ran = Duration::from_secs(words[2].parse().unwrap());
                ledger.trial.as_mut().unwrap().hand_over.insert(name(words[1]), ran);
            }
            "parked" => {
                let (service, number) = service_and_release(words[1]);
                self.add_container(service, number, "dead");
                let seen = self.observed.services.pop().unwrap();
                self.observed.parked.push(seen);
            }
            // A step that failed so often, and may be tried again now, later, or is given up.
            "tried" | "spent" | "putoff" => {
                let attempts = words[3].parse().unwrap();
                let step = self.step(words[1], words[2]);
                let remaining = match word {
                    "tried" => Some(Duration::ZERO),
                    "putoff" => Some(Duration::from_secs(9)),
                    _ => None,
                };
                self.failed_steps.insert(step, FailedStep { attempts, why: "no".into(), remaining });
            }
            _ => return false,
        }
        true
    }

    fn step(&self, verb: &str, text: &str) -> Step {
        let (service, number) = service_and_release(text);
        let (app, service, container) = (app(), name(service), container(text));
        match verb {
            "stop" => Step::Stop { app, service, container, grace: Duration::from_secs(10) },
            "kill" => Step::Kill { app, service, container },
            "remove" => Step::Remove { app, service, container },
            "remove-by-force" => Step::RemoveByForce { app, service, container },
            "reconnect" => Step::Reconnect { app, service, container },
            "create" => {
                let (release, spec) =
                    (Commit::parse(number.to_string()).unwrap(), hash(service.as_str(), number));
                Step::Create { app, service, release, spec }
            }
            "start" => Step::Start { app, service, container },
            "pull" => Step::Pull { image: image(service.as_str(), number) },
            other => panic!("no step {other}"),
        }
    }
}

/// Every word of the grammar is read, and changes the device.
#[test]
fn every_word_is_read() {
    let start = "lan 1, target 3, good 4, trial 4, web@1 exited, web@18 exited";
    let rows =
        include_str!("story.rs").lines().filter_map(|line| line.strip_prefix("//! | `")?.split_once("` |"));
    let examples: Vec<_> = rows.map(|(example, _)| example).collect();
    assert_eq!(examples.len(), 49, "the tables at the head of this file");
    for example in examples {
        // A container of `lan` shows what becomes of its networks.
        let example = if example.starts_with("back ") { "back web@18" } else { example };
        let (before, after) = (Device::parse(start), Device::parse(&format!("{start}, {example}")));
        assert_ne!(format!("{before:?}"), format!("{after:?}"), "{example}");
    }
}
