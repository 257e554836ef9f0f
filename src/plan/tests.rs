//! The planner told as stories: the device as text, the plan as text.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

mod forecast;
mod gate;
mod joined;
mod leftovers;
mod networks;
mod orders;
mod preflight;
mod purge;
mod restart;
mod strategies;
mod surround;

use super::{Situation, plan, violations};
use crate::model::{
    App, AppId, Commit, Condition, ContainerId, ContainerState, Cooling, Facts, Health, Hold, ImageRef,
    Ledger, Namespace, NetworkAttachment, NetworkId, NetworkMode, NetworkName, NetworkSpec, Observed,
    ObservedNetwork, ObservedService, Plan, PlanSettings, PortMapping, Protocol, Reason, Refusal, RefusedApp,
    Rejection, Release, RestartPolicy, ServiceName, ServiceSpec, SpecHash, Step, Strategy, Subnet, Target,
    TargetApp, Trial, TrialSpec, VolumeName, VolumeSpec, WantedApp, Weight,
};

/// The releases of the stories. `web=1` keeps the spec of release 1; `web>db` depends on db being
/// healthy, `web>job!` on job having completed; `job!` is a one-shot.
/// `web+vpn` joins the network of vpn; `web/1` is on the network `lan` with the config 1. Those of 1 and 2 have
/// addresses in common.
/// `web^kill`, `web^delete`, `web^hand` say how web takes over; `web:80` publishes a port of the host.
const RELEASES: [(u8, &str); 23] = [
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

fn app() -> AppId {
    AppId::parse("app").unwrap()
}

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

fn hash(service: &str, release: u8) -> SpecHash {
    let seed: u32 = service.bytes().map(u32::from).sum();
    SpecHash::parse(format!("v1:{:064x}", u64::from(seed) * 100 + u64::from(release))).unwrap()
}

fn image(service: &str, release: u8) -> ImageRef {
    ImageRef::parse(&format!("r/{service}:{release}")).unwrap()
}

fn condition(on: &str) -> (ServiceName, Condition) {
    match on.strip_suffix('!') {
        Some(job) => (name(job), Condition::Completed),
        None => (name(on), Condition::Healthy),
    }
}

fn strategy_of(word: &str) -> Strategy {
    match word {
        "kill" => Strategy::KillThenDownload,
        "delete" => Strategy::DeleteThenDownload,
        "hand" => Strategy::HandOver { timeout: Duration::from_secs(60) },
        _ => Strategy::DownloadThenKill,
    }
}

fn published(port: u16) -> PortMapping {
    let (host_ip, host_port) = (String::new(), Some(port));
    PortMapping { host_ip, host_port, container_port: 8080, protocol: Protocol::Tcp }
}

fn lan() -> NetworkName {
    NetworkName::parse("lan").unwrap()
}

fn on_lan() -> NetworkMode {
    NetworkMode::Networks(BTreeMap::from([(lan(), NetworkAttachment::default())]))
}

/// The address range of a config of `lan`.
fn range(config: &str) -> String {
    match config {
        "1" => "10.0.0.0/16",
        "2" => "10.0.1.0/24",
        _ => "10.1.0.0/16",
    }
    .to_owned()
}

fn networks_of(services: &str) -> BTreeMap<NetworkName, NetworkSpec> {
    let mut networks = BTreeMap::from([(NetworkName::parse("default").unwrap(), NetworkSpec::default())]);
    let config = services.split(' ').find_map(|text| text.split_once('/'));
    networks.extend(config.map(|(_, config)| {
        let subnets = vec![Subnet { subnet: Some(range(config)), ..Subnet::default() }];
        (lan(), NetworkSpec { config_hash: Some(config.to_owned()), subnets, ..NetworkSpec::default() })
    }));
    networks
}

fn release(number: u8) -> Release {
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

/// The containers that one of this spec was created to join.
fn joined_by(service: &str, number: u8) -> BTreeMap<Namespace, ContainerId> {
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

fn target(release: Option<Release>) -> Target {
    let app = App { id: app(), number: 1, name: "demo".into() };
    let wanted = TargetApp::Wanted(WantedApp { app: app.clone(), release, warnings: Vec::new() });
    Target {
        device_name: "a".into(),
        apps: BTreeMap::from([(app.id, wanted)]),
        poll_interval: None,
        is_lock_overridden: false,
    }
}

/// A device that can be written down, planned for, and changed by the steps it is given.
#[derive(Debug, Clone)]
struct Device {
    target: Option<Target>,
    observed: Observed,
    ledger: Ledger,
    pulling: BTreeMap<ImageRef, u8>,
    weighing: BTreeSet<ImageRef>,
    cooling: BTreeMap<Step, Cooling>,
    steady: BTreeMap<AppId, Duration>,
    settings: PlanSettings,
    facts: Facts,
    /// How many networks `lan` were made.
    made: u32,
    /// Containers whose start was sent by an agent that was killed then: the engine is still at it.
    late: BTreeSet<ContainerId>,
}

impl Device {
    /// Parses e.g. `web@1 running, db@1 exited, have 1 2, good 1, target 2`. The network is
    /// there unless the text says `bare`.
    fn parse(text: &str) -> Self {
        let mut device = Self {
            target: None,
            observed: Observed::default(),
            ledger: Ledger::default(),
            pulling: BTreeMap::new(),
            weighing: BTreeSet::new(),
            cooling: BTreeMap::new(),
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

    /// The registries have told what every image weighs: nothing.
    fn weigh_all(&mut self) {
        let images = RELEASES.iter().flat_map(|(n, _)| release(*n).services.into_values()).map(|s| s.image);
        self.facts.weights = images.map(|image| (image, Weight::default())).collect();
    }

    fn add_network(&mut self) {
        self.observed.networks.push(ObservedNetwork {
            id: NetworkId::parse("n1").unwrap(),
            app: app(),
            network: NetworkName::parse("default").unwrap(),
            config_hash: None,
            name: "default".into(),
            subnets: Vec::new(),
        });
    }

    /// The network `lan` with this config, under an id that tells how often it was made.
    fn add_lan(&mut self, config: &str) {
        self.made += 1;
        self.observed.networks.push(ObservedNetwork {
            id: NetworkId::parse(format!("lan-{config}-{}", self.made)).unwrap(),
            app: app(),
            network: lan(),
            config_hash: Some(config.to_owned()),
            name: format!("lan_{config}"),
            subnets: vec![range(config)],
        });
        let (name, id) = (format!("lan_{config}"), format!("lan-{config}-{}", self.made));
        for seen in &mut self.observed.services {
            let known = seen.networks.get(&name).and_then(Option::as_ref);
            seen.is_cut_off |= known.is_some_and(|known| known.as_str() != id);
        }
    }

    fn read(&mut self, item: &str) {
        let words: Vec<&str> = item.split(' ').collect();
        let numbers = words.iter().skip(1).filter_map(|w| w.parse::<u8>().ok());
        let ledger = self.ledger.apps.entry(app()).or_default();
        match words[0] {
            "bare" => self.observed.networks.clear(),
            "lan" => self.add_lan(words[1]),
            // Made anew since whoever was on it ran.
            "relan" => {
                self.made = 7;
                self.add_lan(words[1]);
            }
            // Came back, and runs.
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
            "stopped" => drop(ledger.stopped.insert(ContainerId::parse(words[1].replace('@', "-")).unwrap())),
            "target" => match words[1] {
                "none" => self.target = Some(target(None)),
                "empty" => {
                    self.target = Some(Target {
                        device_name: "a".into(),
                        apps: BTreeMap::new(),
                        poll_interval: None,
                        is_lock_overridden: false,
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
                self.pulling.insert(image(service, number.parse().unwrap()), 40);
            }
            "failed" => {
                let (service, number) = words[1].split_once('@').unwrap();
                let step = Step::Pull { image: image(service, number.parse().unwrap()) };
                let remaining = Some(Duration::from_secs(9));
                self.cooling.insert(step, Cooling { attempts: 2, why: "gone".into(), remaining });
            }
            word if self.surround(word, &words) => {}
            container => {
                let (service, number) = container.split_once('@').unwrap();
                self.add_container(service, number.parse().unwrap(), words[1]);
            }
        }
    }

    fn add_container(&mut self, service: &str, number: u8, state: &str) {
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
            status: format!("{state:?}"),
            ports: BTreeMap::new(),
            networks,
            joins,
        });
    }

    /// The networks that a container is on; one that was started has met those that are there, or else one that
    /// is gone.
    fn networks_of(
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

    fn situation(&self) -> Situation<'_> {
        Situation {
            target: self.target.as_ref(),
            observed: &self.observed,
            ledger: &self.ledger,
            pulling: &self.pulling,
            weighing: &self.weighing,
            cooling: &self.cooling,
            steady: &self.steady,
            facts: &self.facts,
            boot_id: "boot",
            settings: &self.settings,
        }
    }

    /// Plans, and holds the plan against the safety rules.
    fn plan(&self) -> Plan {
        let plan = plan(&self.situation());
        assert_eq!(violations(&self.situation(), &plan), Vec::<String>::new(), "{}", self.shown());
        plan
    }

    /// The device in a line, for messages of failed tests.
    fn shown(&self) -> String {
        let seen = self.observed.services.iter().map(|s| format!("{} {:?}", s.container, s.state));
        let good = self.ledger.apps.get(&app()).and_then(|a| a.good.as_ref()).map(|g| &g.commit);
        format!("{}; good {good:?}; target {:?}", seen.collect::<Vec<_>>().join(", "), self.target)
    }

    fn told(&self) -> String {
        let plan = self.plan();
        let steps = plan.stage.iter().map(Step::to_string);
        let waits = plan.waiting.iter().map(|w| {
            let service = w.service.as_ref().map_or("all", ServiceName::as_str);
            format!("wait {service} {}", w.reason.as_str())
        });
        steps.chain(waits).collect::<Vec<_>>().join(", ")
    }

    /// Another target; what was tried and taken back is then forgotten, as the reconciler does.
    fn retarget(&mut self, number: u8) {
        self.target = Some(target(Some(release(number))));
        let key = release(number).key();
        for ledger in self.ledger.apps.values_mut() {
            ledger.trial.take_if(|trial| trial.release != key);
            ledger.rejected.take_if(|rejected| rejected.release != key);
        }
    }

    /// Nothing and nobody stands in the way any more.
    fn clear_the_way(&mut self) {
        let uptime = self.facts.uptime;
        self.facts = Facts {
            weights: std::mem::take(&mut self.facts.weights),
            own_locks: std::mem::take(&mut self.facts.own_locks),
            uptime,
            ..Facts::default()
        };
        (self.ledger.hold, self.ledger.leases) = (None, Vec::new());
        self.settings.windows.clear();
        self.ledger.apps.values_mut().for_each(|app| app.halted.clear());
    }

    /// Ten seconds pass in which nothing changes.
    fn pass(&mut self) {
        self.steady = BTreeMap::from([(app(), Duration::from_secs(10))]);
    }

    /// The agent is killed right after it has sent the call of this step.
    fn send(&mut self, step: &Step) {
        if let Step::Start { container, .. } = step {
            self.late.insert(container.clone());
        } else {
            self.apply(step, |_| true);
        }
    }

    /// The engine comes to the end of the starts that it was still at.
    fn finish_late_starts(&mut self) {
        for id in std::mem::take(&mut self.late) {
            for seen in self.observed.services.iter_mut().filter(|seen| seen.container == id) {
                if matches!(seen.state, ContainerState::Created | ContainerState::Exited { .. }) {
                    seen.state = ContainerState::Running;
                }
            }
        }
    }

    /// Services of which two containers run, although none of them hands over.
    fn doubles(&self) -> Vec<String> {
        let up =
            |s: &&ObservedService| matches!(s.state, ContainerState::Running | ContainerState::Restarting);
        let mut running: Vec<_> = self.observed.services.iter().filter(up).collect();
        running.sort_by(|a, b| a.service.cmp(&b.service));
        let is_double = |pair: &&[&ObservedService]| {
            let hands_over = pair.iter().any(|s| s.spec == hash("web", 11));
            pair[0].service == pair[1].service && !hands_over
        };
        running.windows(2).filter(is_double).map(|pair| pair[0].service.to_string()).collect()
    }

    /// What a step does to the device when it works.
    fn apply(&mut self, step: &Step, works: impl Fn(&SpecHash) -> bool) {
        // The engine ends one call on a container before it begins the next.
        let was_late = step.container().is_some_and(|id| self.late.remove(id));
        let at =
            |id: &ContainerId, all: &[ObservedService]| all.iter().position(|s| s.container == *id).unwrap();
        let all = &mut self.observed.services;
        let ledger = self.ledger.apps.entry(app()).or_default();
        match step {
            Step::Pull { image } => {
                self.ledger.images.insert(image.clone());
                self.observed.images.insert(image.clone());
            }
            Step::CreateNetwork { config_hash: None, .. } => self.add_network(),
            Step::CreateNetwork { config_hash: Some(config), .. } => {
                let others = self.observed.networks.iter().flat_map(|n| n.subnets.clone());
                let others: Vec<_> = others.collect();
                let subnets = vec![Subnet { subnet: Some(range(config)), ..Subnet::default() }];
                if !(NetworkSpec { subnets, ..NetworkSpec::default() }).overlaps(&others) {
                    self.add_lan(config);
                }
            }
            Step::Reconnect { container, .. } => {
                let n = at(container, all);
                all[n].networks.values_mut().for_each(|id| *id = None);
                all[n].is_cut_off = false;
            }
            Step::Create { service, spec, .. } => {
                let number = (1..=22).find(|n| hash(service.as_str(), *n) == *spec).unwrap();
                self.add_container(service.as_str(), number, "created");
            }
            Step::Start { container, .. } => {
                ledger.stopped.remove(container);
                let n = at(container, all);
                let runs = |id: &ContainerId| {
                    all.iter().any(|s| s.container == *id && s.state == ContainerState::Running)
                };
                assert!(!all[n].is_cut_off, "it cannot be started: {step}");
                if !all[n].joins.values().all(runs) {
                    return; // the engine refuses it
                }
                let Some(met) = meet_networks(&all[n], &self.observed.networks) else {
                    return; // the engine refuses it
                };
                all[n].networks = met;
                let joined = all.iter().filter(|s| s.joins.values().any(|id| id == container));
                self.facts.left_behind.extend(joined.map(|s| s.container.clone()));
                self.facts.left_behind.remove(container);
                all[n].state =
                    if works(&all[n].spec) { ContainerState::Running } else { ContainerState::Restarting };
            }
            Step::Stop { container, .. } => {
                ledger.stopped.insert(container.clone());
                let n = at(container, all);
                all[n].state = ContainerState::Exited { code: 143 };
            }
            Step::Fence { container, .. } => {
                let n = at(container, all);
                if all[n].state == ContainerState::Created {
                    ledger.stopped.insert(container.clone());
                }
                if was_late {
                    all[n].state = ContainerState::Exited { code: 143 };
                }
            }
            Step::Weigh { image } => drop(self.facts.weights.insert(image.clone(), Weight::default())),
            Step::Heal { service, .. } => *ledger.heals.entry(service.clone()).or_default() += 1,
            Step::Unlock { .. } => drop(self.facts.own_locks.remove(&app())),
            Step::Park { container, .. } => {
                let n = at(container, all);
                let seen = all.remove(n);
                self.observed.parked.push(seen);
            }
            Step::Kill { container, .. } => {
                let n = at(container, all);
                all[n].state = ContainerState::Exited { code: 137 };
            }
            Step::Remove { container, .. } | Step::RemoveByForce { container, .. } => {
                let n = at(container, all);
                all.remove(n);
            }
            Step::RemoveNetwork { id, .. } => {
                let is_on = |s: &ObservedService| s.networks.values().any(|on| on.as_ref() == Some(id));
                assert!(!all.iter().any(|s| is_on(s) && s.state == ContainerState::Running), "it is in use");
                self.observed.networks.retain(|n| n.id != *id);
            }
            Step::RemoveImage { image } => {
                self.observed.images.remove(image);
                self.ledger.images.remove(image);
            }
            Step::Try { release: commit, .. } => {
                self.facts.own_locks.insert(app());
                let release = release(commit.as_str().parse().unwrap()).key();
                let (ran, boots, boot_id) = (Duration::ZERO, 0, String::new());
                ledger.trial = Some(Trial { release, ran, boots, boot_id, hand_over: BTreeMap::new() });
            }
            Step::Reject { release: commit, why, .. } => {
                let release = release(commit.as_str().parse().unwrap()).key();
                (ledger.rejected, ledger.trial) = (Some(Rejection { release, why: why.clone() }), None);
            }
            Step::Commit { release: commit, .. } => {
                let good = release(commit.as_str().parse().unwrap());
                let replaced = ledger.good.replace(good.clone());
                ledger.previous = replaced.filter(|r| *r != good).or(ledger.previous.take());
                (ledger.trial, ledger.rejected) = (None, None);
            }
            Step::Forget { .. } => self.ledger.apps.clear(),
        }
    }
}

/// The networks of a container as it finds them when it starts: by what it knows of each, and else by name.
fn meet_networks(
    seen: &ObservedService,
    here: &[ObservedNetwork],
) -> Option<BTreeMap<String, Option<NetworkId>>> {
    let meet = |(name, id): (&String, &Option<NetworkId>)| {
        let found = here.iter().find(|n| id.as_ref().map_or(n.name == *name, |id| n.id == *id))?;
        Some((name.clone(), Some(found.id.clone())))
    };
    seen.networks.iter().map(meet).collect()
}

#[track_caller]
fn check(rows: &[(&str, &str, &str)]) {
    for (why, device, expected) in rows {
        assert_eq!(Device::parse(device).told(), *expected, "{why}");
    }
}

#[test]
fn a_first_install() {
    check(&[
        ("pull two at once", "bare, target 1", "pull r/db:1, pull r/web:1"),
        (
            "a pull under way is not begun again",
            "bare, target 1, pulling db@1, have web@1",
            "wait db downloading",
        ),
        ("then networks", "bare, target 1, have 1", "create-network default"),
        ("then all containers", "target 1, have 1", "create db@1, create web@1"),
        ("then write down that it is tried", "target 1, have 1, db@1 created, web@1 created", "try 1"),
        (
            "then start them",
            "target 1, trial 1, have 1, db@1 created, web@1 created",
            "start db db-1, start web web-1",
        ),
        ("watch them", "target 1, trial 1, db@1 running, web@1 running", "wait all trial"),
        (
            "commit when all were well for long enough",
            "target 1, trial 1, steady 10, db@1 running, web@1 running",
            "commit 1",
        ),
        ("rest", "target 1, have 1, db@1 running, web@1 running, good 1", ""),
        (
            "images are not needed once there is a container",
            "target 1, db@1 running, web@1 running, good 1",
            "",
        ),
    ]);
}

#[test]
fn from_release_1_to_2() {
    check(&[
        ("pull first", "target 2, good 1, have 1, db@1 running, web@1 running", "pull r/db:2, pull r/web:2"),
        (
            "create all before stopping any",
            "target 2, good 1, have 1 2, db@1 running, web@1 running, db@2 created",
            "create web@2",
        ),
        (
            "write down that it is tried",
            "target 2, good 1, have 1 2, db@1 running, web@1 running, db@2 created, web@2 created",
            "try 2",
        ),
        (
            "stop and start service by service",
            "target 2, good 1, trial 2, db@1 running, web@1 running, db@2 created, web@2 created",
            "stop db db-1, start db db-2, stop web web-1, start web web-2",
        ),
        (
            "cut between stop and start",
            "target 2, good 1, trial 2, db@1 exited, stopped db@1, web@1 running, db@2 created, web@2 created",
            "fence db db-1, start db db-2, stop web web-1, start web web-2",
        ),
        (
            "nothing is removed before all run",
            "target 2, good 1, trial 2, db@1 exited, web@1 exited, db@2 running, web@2 starting",
            "wait web starting",
        ),
        (
            "watch them",
            "target 2, good 1, trial 2, steady 9, db@1 exited, web@1 exited, db@2 running, web@2 healthy",
            "wait all trial",
        ),
        (
            "commit",
            "target 2, good 1, trial 2, steady 10, db@1 exited, web@1 exited, db@2 running, web@2 healthy",
            "commit 2",
        ),
        (
            "then the predecessors go",
            "target 2, good 2, db@1 exited, web@1 exited, db@2 running, web@2 healthy",
            "remove db db-1, remove web web-1",
        ),
        (
            "then images that we pulled and nobody needs",
            "target 2, good 2, db@2 running, web@2 healthy, have 1 2, pulled 1 2",
            "remove-image r/db:1, remove-image r/web:1",
        ),
        ("images of others stay", "target 2, good 2, db@2 running, web@2 healthy, have 1 2, pulled 2", ""),
    ]);
}

#[test]
fn what_does_not_change_is_not_touched() {
    check(&[
        (
            "release 5 keeps web",
            "target 5, good 1, trial 5, have 5, db@1 running, web@1 running, db@5 created",
            "stop db db-1, start db db-5",
        ),
        ("same specs under another commit", "target 23, good 1, db@1 running, web@1 running", "commit 23"),
        (
            "what runs of it since a trial that another target cut off is tried",
            "target 5, good 1, db@5 running, web@1 running",
            "try 5",
        ),
        (
            "also when it is all well",
            "target 2, good 1, db@1 exited, stopped db@1, web@1 exited, stopped web@1, db@2 running, web@2 healthy",
            "try 2",
        ),
        (
            "where no release is known to be good, what runs is watched, and nothing could be gone back to",
            "target 2, db@2 running, web@2 running",
            "wait all trial",
        ),
        (
            "a service that the release drops",
            "target 3, good 1, trial 3, have 3, db@1 running, web@1 running, web@3 created",
            "stop web web-1, start web web-3, stop db db-1",
        ),
        ("and is removed after", "target 3, good 3, db@1 exited, web@3 running", "remove db db-1"),
    ]);
}

#[test]
fn a_bad_release_is_taken_back() {
    let on = |state| {
        format!(
            "target 2, good 1, trial 2 5, db@1 exited, stopped db@1, web@1 exited, stopped web@1, db@2 running, {state}"
        )
    };
    for (why, state, expected) in [
        ("unhealthy", "web@2 unhealthy", "reject 2: web is unhealthy"),
        ("one restart may be bad luck", "web@2 restarting, restarts 2", "wait web unhealthy"),
        (
            "three are a crash loop",
            "web@2 restarting, restarts 3",
            "reject 2: db was restarted 3 times by the engine: Running",
        ),
        ("still starting", "web@2 starting", "wait web starting"),
    ] {
        assert_eq!(Device::parse(&on(state)).told(), expected, "{why}");
    }
    check(&[
        (
            "not good by the deadline",
            "target 2, good 1, trial 2 300, db@1 exited, web@1 exited, db@2 running, web@2 starting",
            "reject 2: not good after 300 s",
        ),
        (
            "it reboots the device",
            "target 2, good 1, trial 2 5 3, db@1 exited, web@1 exited, db@2 running, web@2 starting",
            "reject 2: the device booted 3 times during its trial",
        ),
        (
            "the whole good release comes back, and nothing is pulled",
            "target 2, good 1, rejected 2, db@1 exited, stopped db@1, web@1 exited, stopped web@1, db@2 running, web@2 unhealthy",
            "stop db db-2, start db db-1, stop web web-2, start web web-1, wait all rejected",
        ),
        (
            "what ended with an error before, and is not started again, is no reason to stay",
            "target 7, good 6, rejected 7, job@6 failed, web@6 exited, stopped web@6, job@7 running, web@7 unhealthy",
            "stop job job-7, stop web web-7, start web web-6, wait all rejected",
        ),
        (
            "cut in the middle of it",
            "target 2, good 1, rejected 2, db@1 running, web@1 exited, stopped web@1, db@2 exited, web@2 unhealthy",
            "stop web web-2, start web web-1, wait all rejected",
        ),
        (
            "then the rejected containers go",
            "target 2, good 1, rejected 2, db@1 running, web@1 running, db@2 exited, web@2 exited",
            "remove db db-2, remove web web-2, wait all rejected",
        ),
        ("and it rests", "target 2, good 1, rejected 2, db@1 running, web@1 running", "wait all rejected"),
        (
            "a way back that fails, too, is told, and what runs is left running",
            "target 2, good 1, rejected 2, db@1 running, web@1 exited, stopped web@1, web@2 exited, putoff start web@1 2",
            "wait all rejected, wait web backoff, wait all degraded",
        ),
        (
            "the good release is kept alive meanwhile",
            "target 2, good 1, rejected 2, have 1, db@1 running",
            "create web@1, wait all rejected",
        ),
        (
            "with nothing to go back to it stays up",
            "target 2, trial 2 300, db@2 running, web@2 unhealthy",
            "wait all degraded, wait web unhealthy",
        ),
        (
            "and is good when it comes good",
            "target 2, trial 2 400, steady 10, db@2 running, web@2 healthy",
            "commit 2",
        ),
        (
            "a kept service is not judged",
            "target 5, good 1, trial 5, db@1 exited, db@5 running, web@1 unhealthy",
            "wait web unhealthy, wait all trial",
        ),
        (
            "one that is well late is given its soak",
            "target 2, good 1, trial 2 400, steady 3, db@1 exited, web@1 exited, db@2 running, web@2 healthy",
            "wait all trial",
        ),
        (
            "one whose image and container vanished is judged all the same",
            "target 2, good 1, trial 2 300, db@1 exited, web@1 exited, db@2 running",
            "reject 2: not good after 300 s",
        ),
        (
            "a release that only drops a service is tried, too",
            "target 8, good 1, db@1 running, web@1 running",
            "try 8",
        ),
        (
            "with nothing to go back to, a job that failed takes nobody's place",
            "target 6, trial 6, job@6 failed, job@1 running, web@6 running",
            "wait all degraded, wait job unhealthy",
        ),
        (
            "a job that fails",
            "target 6, good 1, trial 6, job@6 failed, web@1 exited, web@6 running",
            "reject 6: job exited with code 1",
        ),
    ]);
}

#[test]
fn a_trial_that_a_new_target_cuts_off_does_not_stay_half_done() {
    let between = |state| {
        format!(
            "good 1, have 1, db@1 exited, stopped db@1, web@1 exited, stopped web@1, db@2 running, web@2 {state}"
        )
    };
    for (why, target, state, expected) in [
        (
            "what is well goes on until the next is here",
            "target 3, pulling web@3",
            "healthy",
            "wait web downloading",
        ),
        (
            "what is not gives way to the good release",
            "target 3, pulling web@3",
            "restarting",
            "stop db db-2, start db db-1, stop web web-2, start web web-1, wait web downloading",
        ),
        (
            "also where a gap is",
            "target 3, pulling web@3",
            "exited",
            "stop db db-2, start db db-1, fence web web-2, start web web-1, wait web downloading",
        ),
        (
            "but not while an app has locked updates",
            "target refused, lock web",
            "healthy",
            "wait all refused, wait web locked",
        ),
        (
            "and when the next one is refused",
            "target refused",
            "healthy",
            "stop db db-2, start db db-1, stop web web-2, start web web-1, wait all refused",
        ),
    ] {
        assert_eq!(Device::parse(&format!("{target}, {}", between(state))).told(), expected, "{why}");
    }
    check(&[(
        "half of a release is not what may go on",
        "target 3, good 1, pulling web@3, db@1 exited, stopped db@1, db@2 running, web@1 running, web@2 created",
        "stop db db-2, start db db-1, wait web downloading",
    )]);
}

#[test]
fn dependencies_order_the_swap() {
    check(&[
        (
            "web waits for db",
            "target 4, good 1, trial 4, have 4, db@1 running, web@1 running, db@4 created, web@4 created",
            "stop db db-1, start db db-4, wait web dependency",
        ),
        (
            "until it is healthy",
            "target 4, good 1, trial 4, web@1 running, db@4 starting, web@4 created",
            "wait web dependency",
        ),
        (
            "web waits for a job",
            "target 7, good 1, trial 7, web@1 running, job@7 running, web@7 created",
            "wait web dependency",
        ),
        (
            "one that failed has not completed",
            "target 7, trial 7, job@7 failed, web@7 created",
            "wait all degraded, wait web dependency",
        ),
        (
            "until it has completed",
            "target 7, good 1, trial 7, web@1 running, job@7 exited, web@7 created",
            "stop web web-1, start web web-7",
        ),
        (
            "then it goes on",
            "target 4, good 1, trial 4, web@1 running, db@4 healthy, web@4 created",
            "stop web web-1, start web web-4",
        ),
    ]);
}

#[test]
fn no_target_touches_nothing() {
    check(&[
        ("none ever", "db@1 running, web@1 running, good 1", ""),
        ("one that names no app", "target empty, db@1 running, web@1 exited, good 1", ""),
        (
            "a refused app stays as it is",
            "target refused, db@1 running, web@1 exited, good 1",
            "wait all refused",
        ),
        (
            "an app without a release stops",
            "target none, db@1 running, web@1 exited, good 1",
            "stop db db-1, remove db db-1, remove web web-1",
        ),
        ("then its networks go", "target none, good 1", "remove-network default"),
        ("an app that is gone", "target other, db@1 running, good 1", "stop db db-1, remove db db-1"),
    ]);
}

#[test]
fn what_ends_comes_back() {
    check(&[
        ("stopped by somebody", "target 1, good 1, db@1 exited, web@1 running", "start db db-1"),
        ("removed by somebody", "target 1, good 1, have 1, web@1 running", "create db@1"),
        ("the engine is at it", "target 1, good 1, db@1 restarting, web@1 running", "wait db unhealthy"),
        ("dead", "target 1, good 1, db@1 dead, web@1 running", "remove db db-1"),
        (
            "also while a newer release is fetched",
            "target 2, good 1, pulling db@2, have web@2, db@1 failed, web@1 running",
            "start db db-1, wait db downloading",
        ),
        (
            "nor is a container created twice that both releases have",
            "target 5, good 1, have 1 5, db@1 running",
            "create db@5, create web@5",
        ),
        (
            "but never beside its successor",
            "target 3, good 1, pulling web@3, db@1 running, web@1 exited, web@2 running",
            "wait web downloading",
        ),
        ("a job that is done stays done", "target 6, good 6, job@6 exited, web@6 running", ""),
        ("a job that failed is told", "target 6, good 6, job@6 failed, web@6 running", "wait job unhealthy"),
        (
            "a job that we stopped goes on",
            "target 6, good 6, job@6 failed, stopped job@6, web@6 running",
            "start job job-6",
        ),
    ]);
}

#[test]
fn what_failed_waits_its_time() {
    let device = Device::parse("target 2, good 1, db@1 running, web@1 running, failed db@2");
    assert_eq!(device.told(), "pull r/web:2, wait db backoff");
    let plan = device.plan();
    assert_eq!(plan.waiting[0].why, "pull r/db:2 failed 2 times: gone");
    assert_eq!(plan.waiting[0].retry_in, Some(Duration::from_secs(9)));
    assert_eq!(plan.waiting[0].reason, Reason::Backoff);
}

#[test]
fn at_most_so_many_at_once() {
    let created: Vec<_> = ["a", "b", "c", "d", "e", "f"].map(|name| format!("{name}@13 created")).into();
    let mut device = Device::parse(&format!("target 13, trial 13, {}", created.join(", ")));
    device.settings = PlanSettings { parallel_swaps: 1, ..PlanSettings::default() };
    assert_eq!(
        device.told(),
        "start a a-13, start b b-13, start c c-13, start d d-13, start e e-13",
        "one after the other, then a look"
    );
    let mut device = Device::parse("target 1, pulling x@9");
    device.settings = PlanSettings { parallel_pulls: 1, parallel_swaps: 1, ..PlanSettings::default() };
    assert_eq!(device.told(), "wait db downloading, wait web downloading");
}

#[test]
fn the_checker_knows_an_unsafe_plan() {
    let unsafe_plans = [
        ("db@1 running", "stop db", "there is no target, or one that names no app"),
        ("target refused, db@1 running", "stop db", "its app is refused and must stay as it is"),
        ("target 2, good 1, db@1 running", "stop db", "its release is not replaced by one that is ready"),
        ("target 2, good 1, db@1 exited", "remove db", "its successor is not accepted yet"),
        ("target 1, good 1, db@1 running", "remove db", "the container runs"),
        ("target 1, good 1, db@1 exited", "remove db", "it is the one that should run"),
        ("target 3, good 3, db@1 exited", "start db", "no release we know of has this spec"),
        (
            "target 2, good 1, db@1 running, db@2 created, web@2 created, lock db",
            "stop db",
            "updates are locked",
        ),
        ("target 1, good 1, db@1 created, db@2 running", "start db", "another container of the service runs"),
        (
            "target 11, good 11, web@11 created, web@1 running",
            "start web",
            "another container of the service runs",
        ),
        (
            "target 1, good 1, db@1 exited, db@2 created",
            "start db",
            "another container of the service may still come up",
        ),
        (
            "target 1, good 1, db@1 created, db@2 exited",
            "start db",
            "another container of the service may still come up",
        ),
        ("target 2, good 1, db@1 running", "fence db", "the container runs"),
        ("target 2, good 1, db@1 exited", "fence db", "nothing starts in its place"),
        ("target 1, good 1, db@1 running, healed db 3", "heal db", "it was restarted often enough"),
    ];
    let network = |text: &str| {
        let device = Device::parse(text);
        let id = device.observed.networks[0].id.clone();
        let step = Step::RemoveNetwork { app: app(), network: NetworkName::parse("default").unwrap(), id };
        violations(&device.situation(), &Plan { stage: vec![step], waiting: Vec::new() })
    };
    assert_eq!(network("target 2, good 1"), ["remove-network default: a release needs it"]);
    assert_eq!(network("target none, good 1"), Vec::<String>::new(), "its app goes");
    for (text, step, why) in unsafe_plans {
        let device = Device::parse(text);
        let (verb, service) = step.split_once(' ').unwrap();
        let container = format!("{service}-{}", if service == "web" { 11 } else { 1 });
        let (app, service, container) = (app(), name(service), ContainerId::parse(container).unwrap());
        let step = match verb {
            "stop" => Step::Stop { app, service, container, grace: Duration::ZERO },
            "fence" => Step::Fence { app, service, container, grace: Duration::ZERO },
            "remove" => Step::Remove { app, service, container },
            "heal" => Step::Heal { app, service },
            _ => Step::Start { app, service, container },
        };
        let told = violations(&device.situation(), &Plan { stage: vec![step.clone()], waiting: Vec::new() });
        assert_eq!(told, vec![format!("{step}: {why}")], "{text}");
    }
}

/// What a walk may meet on its way, by number.
fn meet(device: &mut Device, act: u8, number: u8, which: prop::sample::Index) {
    let services = device.observed.services.len();
    match act {
        0 => device.retarget(number + 1),
        1 if services > 0 => drop(device.observed.services.remove(which.index(services))),
        2 if services > 0 => {
            let n = which.index(services);
            device.observed.services[n].state = ContainerState::Exited { code: 137 };
        }
        3 => device.pass(),
        // Locks, leases, windows and operators come and go.
        4 => {
            let words = ["lock web", "lease now", "window 60", "clock", "hold", "halted web@1", "port 80 *"];
            device.read(words[which.index(words.len())]);
        }
        5 => device.clear_the_way(),
        6 if services > 0 => {
            let n = which.index(services);
            if device.observed.services[n].state == ContainerState::Running {
                device.observed.services[n].health = Health::Unhealthy;
            }
        }
        // Somebody takes a network away on which nothing runs.
        9 => {
            let runs = |s: &&ObservedService| s.state == ContainerState::Running;
            let used: Vec<_> = device.observed.services.iter().filter(runs).collect();
            let used: Vec<_> = used.iter().flat_map(|s| s.networks.values().flatten().cloned()).collect();
            device.observed.networks.retain(|n| used.contains(&n.id) || n.name == "default");
        }
        7 => drop(device.facts.handed_over.insert((app(), name("web")))),
        // A cut right after a call was sent, of which nobody hears any more.
        10 => {
            let plan = device.plan();
            let upto = which.index(plan.stage.len() + 1);
            plan.stage[..upto].iter().for_each(|step| device.apply(step, |_| true));
            plan.stage.get(upto).into_iter().for_each(|step| device.send(step));
        }
        11 => device.finish_late_starts(),
        // Its network is removed, and is there again.
        8 if services > 0 => device.observed.services[which.index(services)].is_cut_off = true,
        _ => {
            // A cut: only the first few steps of the stage happen.
            let plan = device.plan();
            let upto = which.index(plan.stage.len() + 1);
            for step in &plan.stage[..upto] {
                device.apply(step, |_| true);
            }
        }
    }
}

proptest! {
    /// Whatever happens on the way (steps lost to a power cut, calls that the engine ends after their caller was
    /// killed, targets that change, containers that are removed, stopped or sick behind our back, locks, windows,
    /// holds), every plan is safe, two containers of one service never run, and the device comes to rest running
    /// exactly the wanted release.
    #[test]
    fn always_converges(
        acts in prop::collection::vec((0_u8..14, 0_u8..22, any::<prop::sample::Index>()), 0..80),
        last in 1_u8..=22,
    ) {
        let mut device = Device::parse("bare, target 1");
        for (act, number, which) in acts {
            device.plan();
            device.steady.clear();
            meet(&mut device, act, number, which);
            prop_assert_eq!(device.doubles(), Vec::<String>::new(), "{}", device.shown());
        }
        device.finish_late_starts();
        device.retarget(last);
        device.clear_the_way();
        // What was taken back on the way is tried again, as `cotter retry` does.
        device.ledger.apps.values_mut().for_each(|ledger| ledger.rejected = None);
        for seen in &mut device.observed.services {
            seen.health = Health::Unchecked;
        }
        // A job that was killed has failed: its release may be taken back, or wait for a person.
        let job_failed = device.observed.services.iter().any(|s| {
            s.service.as_str() == "job" && s.state == ContainerState::Exited { code: 137 }
        });
        let mut rounds = 0;
        loop {
            for seen in &mut device.observed.services {
                // A one-shot ends well, once it runs.
                if seen.service.as_str() == "job" && seen.state == ContainerState::Running {
                    seen.state = ContainerState::Exited { code: 0 };
                }
            }
            device.pass();
            let plan = device.plan();
            let hands_over = plan.waiting.iter().any(|w| w.reason == Reason::HandOver);
            if plan.stage.is_empty() && !hands_over { break; }
            for step in &plan.stage { device.apply(step, |_| true); }
            prop_assert_eq!(device.doubles(), Vec::<String>::new(), "{}", device.shown());
            if hands_over { device.facts.handed_over.insert((app(), name("web"))); }
            rounds += 1;
            prop_assert!(rounds < 40, "no rest: {}", device.told());
        }
        if !job_failed {
            prop_assert_eq!(device.told(), "", "{} stopped {:?}", device.shown(), device.ledger.apps[&app()].stopped);
            let mut runs: Vec<_> = device.observed.services.iter().map(|s| s.spec.clone()).collect();
            let mut wanted: Vec<_> = release(last).services.values().map(|s| s.hash.clone()).collect();
            runs.sort();
            wanted.sort();
            prop_assert_eq!(runs, wanted);
            prop_assert_eq!(device.ledger.apps[&app()].good.as_ref().unwrap(), &release(last));
            prop_assert!(device.facts.own_locks.is_empty());
            let is_of = |n: &ObservedNetwork| {
                release(last).networks.get(&n.network).is_some_and(|spec| spec.config_hash == n.config_hash)
            };
            prop_assert!(device.observed.networks.iter().all(is_of), "no other network is left");
            prop_assert_eq!(device.observed.networks.len(), release(last).networks.len());
        }
    }

    /// A release that crashes is never good: wherever the power is cut, the device comes back to the
    /// whole release before it, without a single download where none was asked for.
    #[test]
    fn a_bad_release_is_never_good(
        bad in prop::sample::select(vec![2_u8, 9, 11]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 40),
    ) {
        let text = format!("target {bad}, good 1, have 1 {bad}, pulled 1 {bad}, db@1 running, web@1 running");
        let mut device = Device::parse(&text);
        let bad = hash("web", bad);
        for cut in cuts.into_iter().map(Some).chain([None; 30]) {
            let plan = device.plan();
            let upto = cut.map_or(plan.stage.len(), |cut| cut.index(plan.stage.len() + 1));
            for step in &plan.stage[..upto] {
                prop_assert!(!matches!(step, Step::Pull { .. }), "no download");
                device.apply(step, |spec| *spec != bad);
            }
            for seen in &mut device.observed.services {
                seen.restarts += u64::from(seen.state == ContainerState::Restarting);
            }
        }
        prop_assert_eq!(device.told(), "wait all rejected");
        let runs: Vec<_> = device.observed.services.iter().map(|s| s.container.to_string()).collect();
        prop_assert_eq!(runs.len(), 2);
        prop_assert!(device.observed.services.iter().all(|s| s.state == ContainerState::Running));
        prop_assert_eq!(device.ledger.apps[&app()].good.as_ref().unwrap(), &release(1));
        for service in ["db", "web"] {
            let spec = hash(service, 1);
            prop_assert!(device.observed.services.iter().any(|s| s.spec == spec), "{} is kept", service);
        }
    }
}
