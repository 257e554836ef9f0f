//! What a device is doing when a fault comes, and what is right in the end.

use super::super::*;
use super::fault::Fault;
use crate::model::Strategy;

/// A row of the matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Releases that ran before, in their order.
    before: &'static [u8],
    /// The release that is wanted then; `None`: an operator takes the last one back.
    then: Option<u8>,
    strategy: Strategy,
    /// Whether the service `web` of release 2 crashes, over and over: at once, or after it ran for a while.
    pub(super) is_bad: bool,
    is_late: bool,
    /// Whether the engine restarts what has ended.
    pub(super) restarts: bool,
    /// Whether there is an app beside it that does not change.
    has_neighbour: bool,
    network: Network,
    /// The release that must run in the end, and be good.
    pub(super) right: u8,
}

/// Which networks the services are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    /// All on one that stays.
    Usual,
    /// `web` is on one of its own, which is another one in each release, with addresses in common.
    Replaced,
    /// This service shares the network of the other one.
    SharedBy(&'static str),
}

fn other(service: &str) -> &'static str {
    if service == "db" { "web" } else { "db" }
}

const UPDATE: Scenario = Scenario {
    name: "update",
    before: &[1],
    then: Some(2),
    strategy: Strategy::DownloadThenKill,
    is_bad: false,
    is_late: false,
    restarts: true,
    has_neighbour: false,
    network: Network::Usual,
    right: 2,
};
const BACK: Scenario = Scenario { name: "way-back", is_bad: true, right: 1, ..UPDATE };
const BY_HAND: Scenario =
    Scenario { name: "rollback-by-hand", before: &[1, 2], then: None, right: 1, ..UPDATE };
const HAND_OVER: Strategy = Strategy::HandOver { timeout: Duration::from_secs(20) };

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "install", before: &[], then: Some(1), right: 1, ..UPDATE },
    UPDATE,
    Scenario { name: "update-kill-first", strategy: Strategy::KillThenDownload, ..UPDATE },
    Scenario { name: "update-delete-first", strategy: Strategy::DeleteThenDownload, ..UPDATE },
    Scenario { name: "update-hand-over", strategy: HAND_OVER, ..UPDATE },
    Scenario { name: "update-no-restart", restarts: false, ..UPDATE },
    Scenario { name: "update-beside", has_neighbour: true, ..UPDATE },
    Scenario { name: "update-network", network: Network::Replaced, ..UPDATE },
    Scenario { name: "update-shared", network: Network::SharedBy("web"), ..UPDATE },
    Scenario { name: "update-shared-by-first", network: Network::SharedBy("db"), ..UPDATE },
    BACK,
    Scenario { name: "way-back-late", is_late: true, ..BACK },
    Scenario { name: "way-back-no-restart", restarts: false, ..BACK },
    Scenario { name: "way-back-kill-first", strategy: Strategy::KillThenDownload, ..BACK },
    Scenario { name: "way-back-delete-first", strategy: Strategy::DeleteThenDownload, ..BACK },
    Scenario { name: "way-back-hand-over", strategy: HAND_OVER, ..BACK },
    Scenario { name: "way-back-beside", has_neighbour: true, ..BACK },
    Scenario { name: "way-back-network", network: Network::Replaced, ..BACK },
    Scenario { name: "way-back-shared", network: Network::SharedBy("web"), ..BACK },
    Scenario { name: "way-back-shared-by-first", network: Network::SharedBy("db"), ..BACK },
    BY_HAND,
    Scenario { name: "rollback-network", network: Network::Replaced, ..BY_HAND },
];

impl Scenario {
    /// The target whose newest release is `number`.
    pub(super) fn target(&self, number: u8) -> Target {
        let mut target = target(number);
        for app in target.apps.values_mut() {
            let TargetApp::Wanted(wanted) = app else { continue };
            for spec in wanted.release.iter_mut().flat_map(|release| release.services.values_mut()) {
                spec.strategy = self.strategy;
                if !self.restarts {
                    spec.restart = RestartPolicy::No;
                }
            }
        }
        match self.network {
            Network::Usual => {}
            Network::Replaced => networks::put_on_lan(&mut target, number),
            Network::SharedBy(guest) => joined::share(&mut target, guest, other(guest)),
        }
        if self.has_neighbour {
            let app = App { id: app_id("other"), number: 2, name: "other".into() };
            let wanted = WantedApp { app, release: Some(release(3)), warnings: Vec::new() };
            target.apps.insert(app_id("other"), TargetApp::Wanted(wanted));
        }
        target
    }

    /// The release that is wanted once it has begun.
    pub(super) fn wanted(&self) -> u8 {
        self.then.or(self.before.last().copied()).unwrap_or_default()
    }

    /// The release that the cloud wants again after this fault, if it is another one than before.
    pub(super) fn called_back_to(&self, fault: Fault) -> Option<u8> {
        let is_called_back = matches!(fault, Fault::CallOutlivesTarget | Fault::CallOutlivesDeadline);
        self.before.last().copied().filter(|_| is_called_back && !self.is_by_hand())
    }

    /// Whether two containers of one service may run at once, because its author says so.
    pub(super) fn hands_over(&self) -> bool {
        self.strategy == HAND_OVER
    }

    /// What runs when `number` does.
    pub(super) fn runs(&self, number: u8) -> String {
        let (beside, of) = if self.has_neighbour { (" db@3", " web@3") } else { ("", "") };
        format!("db@{number}{beside} web@{number}{of}")
    }

    /// What is wrong with the networks when release `number` runs.
    pub(super) async fn check_networks(&self, lab: &Lab, number: u8) -> Result<(), String> {
        let mut expected = vec!["1_default".to_owned()];
        if self.network == Network::Replaced {
            expected.push(format!("1_lan_c{number}"));
        }
        if self.has_neighbour {
            expected.push("2_default".to_owned());
        }
        let found = networks::networks(lab).await;
        if found != expected {
            return Err(format!("networks: {found:?}"));
        }
        let observed = crate::engine::Inspect::observe(&*lab.engine).await.unwrap();
        let running = |name: &str| {
            let mut all = observed.services.iter().filter(|s| s.state == ContainerState::Running);
            all.find(|s| s.service.as_str() == name)
        };
        let Network::SharedBy(guest) = self.network else { return Ok(()) };
        let (Some(seen), Some(of)) = (running(guest), running(other(guest))) else { return Ok(()) };
        joined::are_together(lab, seen, of).await.map_err(|why| format!("{guest}: {why}"))
    }

    /// Whether a fault cannot come in it, or it has no end to be held against.
    pub(super) fn leaves_out(&self, fault: Fault) -> bool {
        let has_no_target_before = fault == Fault::CallOutlivesTarget && self.called_back_to(fault).is_none();
        has_no_target_before || self.ends_with_engine(fault)
    }

    /// Whether it has no end to be held against: what must come back has ended with the engine, and its
    /// author wants that it is not started again.
    fn ends_with_engine(&self, fault: Fault) -> bool {
        !self.restarts && self.is_bad && matches!(fault, Fault::PowerCut | Fault::EngineKilled)
    }

    /// Whether one service shares the network of the other one.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.network, Network::SharedBy(_))
    }

    /// Whether `db` cannot run without `web`.
    pub(super) fn needs_web(&self) -> bool {
        self.network == Network::SharedBy("db")
    }

    /// Whether it is an operator who takes a release back.
    pub(super) fn is_by_hand(&self) -> bool {
        self.then.is_none()
    }

    /// Whether its end cannot be reached without the registry.
    pub(super) fn needs_registry(&self) -> bool {
        !self.is_bad && !self.is_by_hand() || self.strategy == Strategy::DeleteThenDownload
    }

    /// Whether images come while the trial is counted already.
    pub(super) fn needs_registry_in_time(&self) -> bool {
        matches!(self.strategy, Strategy::KillThenDownload | Strategy::DeleteThenDownload)
    }

    /// A device on which all is ready for it to begin.
    pub(super) async fn prepare(&self) -> Lab {
        let lab = Lab::new();
        lab.host.inside().free = Some(1 << 40);
        if self.is_bad {
            let late = Behaviour::CrashesAfter(Duration::from_secs(5));
            let behaviour = if self.is_late { late } else { Behaviour::Crashes };
            lab.engine.publish(&image("web", 2), behaviour);
        }
        for number in self.before {
            self.deliver(&lab, *number);
            lab.pass(60).await;
            assert_eq!(lab.runs().await, self.runs(*number), "before {}", self.name);
        }
        if self.is_by_hand() {
            // Going back needs no registry.
            all_images().iter().for_each(|image| lab.engine.unpublish(image));
        }
        lab
    }

    /// Tells the device what the cloud wants, as the cloud would.
    pub(super) fn deliver(&self, lab: &Lab, number: u8) {
        let record = StoredTarget { endpoint: String::new(), etag: None, body: number.to_string() };
        let delivered = Delivered { target: Arc::new(self.target(number)), record: Some(record), etag: None };
        lab.target.send_replace(Some(Arc::new(delivered)));
    }

    /// Tells the device what it finds in its own store, if it finds any.
    pub(super) fn remember(&self, lab: &Lab) {
        let body = lab.notebook.0.lock().unwrap().target.as_ref().map(|record| record.body.clone());
        let Some(number) = body.and_then(|body| body.parse().ok()) else { return };
        let delivered = Delivered { target: Arc::new(self.target(number)), record: None, etag: None };
        lab.target.send_replace(Some(Arc::new(delivered)));
    }

    /// Begins it. What an operator asked for is answered there.
    pub(super) fn begin(&self, lab: &Lab) -> Option<oneshot::Receiver<Answer>> {
        if let Some(number) = self.then {
            self.deliver(lab, number);
            return None;
        }
        let (answer, answered) = oneshot::channel();
        lab.commands.try_send((Order::Rollback { app: None }, answer)).unwrap();
        Some(answered)
    }
}
