//! The reconciler and the fake engine, fed by channels, on a paused clock.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::slice;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Channels, Command, EngineNews, Memory, SaveError, Settings, run, watch_engine};
use crate::engine::fake::{Behaviour, Fake, Fault as Wrong};
use crate::model::{
    Answer, ApiView, App, AppId, ByService, Commit, ContainerState, Delivered, Events, Health, Hold,
    ImageRef, Instance, Ledger, Mount, MountOptions, MountSource, NetworkAttachment, NetworkMode,
    NetworkName, NetworkSpec, Order, PlanSettings, Reason, Refusal, RefusedApp, Release, Report,
    RestartPolicy, ServiceName, ServiceSpec, SpecHash, StoredTarget, Target, TargetApp, TrialSpec,
    VolumeName, VolumeSpec, WantedApp,
};
use crate::store::StoreError;
use host::Host;

mod apps_api;
mod around;
mod downloads;
mod evidence;
mod host;
mod joined;
mod matrix;
mod mounts;
mod networks;
mod outage;
mod passes;
mod secrets;

/// What a full store says.
const NO_SPACE: &str = "no space to write /state: no storage space";

/// A store that keeps the last ledger, and can be full or read-only.
#[derive(Debug, Clone, Default)]
struct Notebook(Arc<Mutex<Page>>);

#[derive(Debug, Default)]
struct Page {
    ledger: Ledger,
    target: Option<StoredTarget>,
    targets: u32,
    writes: u32,
    tries: u32,
    is_full: bool,
    is_read_only: bool,
    /// What happens at a save, by how many that changed something came before it.
    script: Option<(u32, AtSave, Arc<Fake>)>,
    /// Who saves is dead, and only does not know it yet.
    is_torn: bool,
}

/// What happens at a save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtSave {
    /// Whoever saves ends before anything is written, or right after.
    EndBefore,
    EndAfter,
    /// It is saved, and then the engine stands still for as long as the test wants.
    Pause,
    /// The disk is full from now on.
    Fill,
}

impl Page {
    /// Saves what is new by `write`, unless the script says otherwise.
    fn save(&mut self, is_news: bool, write: impl FnOnce(&mut Self)) -> Result<(), SaveError> {
        if self.is_torn || (!is_news && !self.is_full && !self.is_read_only) {
            return Ok(());
        }
        let at = self.writes + self.targets;
        let scripted = self.script.take_if(|(n, _, _)| is_news && *n == at);
        let (does, engine) = scripted.map(|(_, does, engine)| (does, engine)).unzip();
        self.is_full |= does == Some(AtSave::Fill);
        if self.is_full {
            engine.inspect(|engine| engine.freeze());
            let (doing, path) = ("write", "/state".into());
            let source = ErrorKind::StorageFull.into();
            return Err(StoreError::Full { doing, path, source }.into());
        }
        if self.is_read_only {
            let (doing, path) = ("write", "/state".into());
            let source = ErrorKind::ReadOnlyFilesystem.into();
            return Err(StoreError::ReadOnly { doing, path, source }.into());
        }
        if does != Some(AtSave::EndBefore) {
            write(self);
        }
        self.is_torn = matches!(does, Some(AtSave::EndBefore | AtSave::EndAfter));
        engine.inspect(|engine| engine.freeze());
        Ok(())
    }
}

impl Memory for Notebook {
    async fn save_target(&mut self, record: &StoredTarget) -> Result<(), SaveError> {
        let mut page = self.0.lock().unwrap();
        let is_news = page.target.as_ref() != Some(record);
        page.save(is_news, |page| {
            page.targets += 1;
            page.target = Some(record.clone());
        })
    }

    async fn save_ledger(&mut self, ledger: &Ledger) -> Result<(), SaveError> {
        let mut page = self.0.lock().unwrap();
        page.tries += 1;
        let is_news = page.ledger != *ledger;
        page.save(is_news, |page| {
            page.writes += 1;
            page.ledger = ledger.clone();
        })
    }
}

fn image(service: &str, release: u8) -> ImageRef {
    ImageRef::parse(&format!("r/{service}:{release}")).unwrap()
}

fn release(number: u8) -> Release {
    let spec = |service: &str| {
        let seed: u64 = service.bytes().map(u64::from).sum();
        let hash = SpecHash::parse(format!("v1:{number:02x}{seed:062x}")).unwrap();
        let network = NetworkName::parse("default").unwrap();
        ServiceSpec {
            network_mode: NetworkMode::Networks(BTreeMap::from([(network, NetworkAttachment::default())])),
            mounts: vec![Mount {
                source: MountSource::Volume(VolumeName::parse("data").unwrap()),
                target: "/data".into(),
                is_read_only: false,
                options: MountOptions::default(),
            }],
            ..ServiceSpec::bare(hash, image(service, number))
        }
    };
    Release {
        commit: Commit::parse(number.to_string()).unwrap(),
        number: number.into(),
        services: ["db", "web"].map(|s| (ServiceName::parse(s).unwrap(), spec(s))).into(),
        networks: [(NetworkName::parse("default").unwrap(), NetworkSpec::default())].into(),
        volumes: [(VolumeName::parse("data").unwrap(), VolumeSpec::default())].into(),
        trial: TrialSpec::default(),
        windows: BTreeSet::new(),
    }
}

fn app_id(name: &str) -> AppId {
    AppId::parse(name).unwrap()
}

fn target(number: u8) -> Target {
    let app = App { id: app_id("app"), number: 1, name: "demo".into() };
    let wanted = WantedApp { app, release: Some(release(number)), warnings: Vec::new() };
    Target {
        device_name: "a".into(),
        apps: [(app_id("app"), TargetApp::Wanted(wanted))].into(),
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

/// The same target, with services that the engine does not restart.
fn without_restart(number: u8) -> Target {
    let mut target = target(number);
    for app in target.apps.values_mut() {
        let TargetApp::Wanted(app) = app else { continue };
        let services = app.release.iter_mut().flat_map(|release| release.services.values_mut());
        services.for_each(|spec| spec.restart = RestartPolicy::No);
    }
    target
}

/// A running reconciler with everything around it.
struct Lab {
    engine: Arc<Fake>,
    host: Arc<Host>,
    notebook: Notebook,
    target: watch::Sender<Option<Arc<Delivered>>>,
    commands: mpsc::Sender<Command>,
    report: watch::Receiver<Report>,
    events: watch::Receiver<Events>,
    api_view: watch::Receiver<ApiView>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Lab {
    fn new() -> Self {
        let engine = Arc::new(Fake::new(Instance::parse("default").unwrap()));
        for number in 1..=3 {
            for service in ["db", "web"] {
                engine.publish(&image(service, number), Behaviour::Runs);
            }
        }
        Self::on(engine, Notebook::default())
    }

    /// As [`new`](Self::new), with other settings.
    fn with(plan: PlanSettings) -> Self {
        let lab = Self::new();
        let (engine, notebook) = lab.cut();
        Self::on_with(engine, notebook, plan)
    }

    fn on(engine: Arc<Fake>, notebook: Notebook) -> Self {
        Self::on_with(engine, notebook, PlanSettings::default())
    }

    fn on_with(engine: Arc<Fake>, notebook: Notebook, plan: PlanSettings) -> Self {
        Self::booted(engine, Arc::new(Host::default()), notebook, "boot", plan)
    }

    #[expect(clippy::disallowed_methods, reason = "the tests' own tasks end with the tests")]
    fn booted(
        engine: Arc<Fake>,
        host: Arc<Host>,
        notebook: Notebook,
        boot: &str,
        plan: PlanSettings,
    ) -> Self {
        let (target, target_heard) = watch::channel(None);
        let (report, report_heard) = watch::channel(Report::default());
        let (events, events_heard) = watch::channel(Events::default());
        let (api_view, api_view_heard) = watch::channel(ApiView::default());
        let (commands, commands_heard) = mpsc::channel(8);
        let (wake, wake_heard) = watch::channel(EngineNews::default());
        let stop = CancellationToken::new();
        let settings =
            Settings { plan: Arc::new(plan), resync: Duration::from_secs(300), boot_id: boot.into() };
        let ledger = notebook.0.lock().unwrap().ledger.clone();
        let channels = Channels {
            api_view,
            target: target_heard,
            engine: wake_heard,
            commands: commands_heard,
            report,
            outlook: watch::Sender::new(None),
            events,
        };
        let tasks = vec![
            tokio::spawn(watch_engine(engine.clone(), wake, stop.clone())),
            tokio::spawn(run(
                engine.clone(),
                host.clone(),
                notebook.clone(),
                ledger,
                settings,
                channels,
                stop.clone(),
            )),
        ];
        Self {
            engine,
            host,
            notebook,
            target,
            commands,
            report: report_heard,
            events: events_heard,
            api_view: api_view_heard,
            stop,
            tasks,
        }
    }

    fn deliver(&self, target: Target) {
        let record = StoredTarget { endpoint: String::new(), etag: None, body: String::new() };
        let delivered = Delivered { target: Arc::new(target), record: Some(record), etag: None };
        self.target.send_replace(Some(Arc::new(delivered)));
    }

    /// Gives an order as the control socket does.
    async fn order(&self, order: Order) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.commands.send((order, answer)).await.unwrap();
        answered.await.unwrap()
    }

    /// Lets the clock run for a while, and everybody act on it.
    async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// How many containers there are.
    async fn containers(&self) -> usize {
        crate::engine::Inspect::observe(&*self.engine).await.unwrap().services.len()
    }

    /// The containers, e.g. "db@1 web@1"; one that does not run is in brackets.
    async fn runs(&self) -> String {
        let observed = crate::engine::Inspect::observe(&*self.engine).await.unwrap();
        let mut containers: Vec<_> = observed
            .services
            .iter()
            .map(|s| {
                let name = format!("{}@{}", s.service, s.release);
                if s.state == ContainerState::Running { name } else { format!("({name})") }
            })
            .collect();
        containers.sort();
        containers.join(" ")
    }

    fn good(&self) -> Option<String> {
        let page = self.notebook.0.lock().unwrap();
        page.ledger.apps.get(&app_id("app")).and_then(|a| a.good.as_ref()).map(|g| g.commit.to_string())
    }

    /// Ends it as a power cut would: nothing is finished.
    fn cut(self) -> (Arc<Fake>, Notebook) {
        self.tasks.iter().for_each(JoinHandle::abort);
        (self.engine.clone(), self.notebook.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn it_installs_updates_and_rests() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    assert_eq!(lab.good().as_deref(), Some("1"));
    lab.deliver(target(2));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
    assert_eq!(lab.good().as_deref(), Some("2"));
    lab.deliver(target(3));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@3 web@3");
    let observed = crate::engine::Inspect::observe(&*lab.engine).await.unwrap();
    assert_eq!(
        observed.images,
        BTreeSet::from([image("db", 2), image("web", 2), image("db", 3), image("web", 3)]),
        "release 1's images are gone, those of the one before stay"
    );
    assert_eq!(lab.engine.volumes().len(), 1);

    let (calls, writes) = (lab.engine.calls().len(), lab.notebook.0.lock().unwrap().writes);
    lab.pass(290).await;
    assert_eq!(lab.engine.calls().len(), calls, "no call at rest");
    lab.pass(600).await;
    assert_eq!(&lab.engine.calls()[calls..], ["list", "list"], "a look every five minutes");
    assert_eq!(lab.notebook.0.lock().unwrap().writes, writes, "nothing is written at rest");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_changes_nothing_says_nothing() {
    let mut lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    lab.report.mark_unchanged();
    lab.deliver(target(1));
    lab.pass(20).await;
    assert!(!lab.report.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_away_comes_back() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    lab.engine.meddle(|services| services.retain(|s| s.service.as_str() == "db"));
    lab.pass(1).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    lab.engine.meddle(|services| services[0].state = ContainerState::Exited { code: 0 });
    lab.pass(1).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
}

/// Docker 20.10 tells that a container died some 0.2 s before its list says so, or later under load.
#[tokio::test(start_paused = true)]
async fn what_the_engine_tells_before_it_lists_it_is_seen() {
    for late in [200, 3000] {
        let lab = Lab::new();
        lab.deliver(target(1));
        lab.pass(60).await;
        lab.engine.meddle(|_| {});
        tokio::time::sleep(Duration::from_millis(late)).await;
        lab.engine.meddle_unheard(|services| services[0].state = ContainerState::Exited { code: 137 });
        lab.pass(6).await;
        assert_eq!(lab.runs().await, "db@1 web@1", "{late} ms late");
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_stops_no_container() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    lab.engine.unpublish(&image("web", 2));
    lab.deliver(target(2));
    lab.pass(3600).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    let report = lab.report.borrow().clone();
    let waiting: Vec<_> =
        report.waiting.iter().map(|w| (w.reason, w.why.contains("is not in its registry"))).collect();
    assert_eq!(waiting, [(Reason::Backoff, true)]);
    assert_eq!(report.apps[&app_id("app")].current.as_ref().unwrap().as_str(), "1");
    let pulls = lab.engine.calls().iter().filter(|c| *c == "pull r/web:2").count();
    assert!((3..10).contains(&pulls), "{pulls} in an hour");
    lab.engine.publish(&image("web", 2), Behaviour::Runs);
    lab.deliver(target(3));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@3 web@3", "a newer target does not wait");
}

#[tokio::test(start_paused = true)]
async fn one_refused_app_does_not_stop_another() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    let mut mixed = target(2);
    let other = mixed.apps.remove(&app_id("app")).unwrap();
    let TargetApp::Wanted(mut other) = other else { unreachable!() };
    other.app = App { id: app_id("other"), number: 2, name: "other".into() };
    mixed.apps.insert(app_id("other"), TargetApp::Wanted(other));
    let refusals = vec![Refusal { path: "services.web.pid".into(), why: "not supported".into() }];
    let refused = RefusedApp { name: "demo".into(), release: "9".into(), refusals };
    mixed.apps.insert(app_id("app"), TargetApp::Refused(refused));
    lab.deliver(mixed);
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@1 db@2 web@1 web@2");
    assert_eq!(lab.report.borrow().waiting[0].why, "services.web.pid: not supported");
}

#[tokio::test(start_paused = true)]
async fn without_a_target_nothing_is_touched() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    let (engine, notebook) = lab.cut();
    let lab = Lab::on(engine, notebook);
    let calls = lab.engine.calls().len();
    lab.pass(1000).await;
    assert!(lab.engine.calls()[calls..].iter().all(|c| c == "list"), "only looks");
    assert_eq!(lab.runs().await, "db@1 web@1");
}

#[tokio::test(start_paused = true)]
async fn a_full_store_stops_nothing() {
    let lab = Lab::new();
    lab.notebook.0.lock().unwrap().is_full = true;
    lab.deliver(target(1));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    assert_eq!(lab.report.borrow().store_error.as_deref(), Some(NO_SPACE));
    lab.notebook.0.lock().unwrap().is_full = false;
    lab.deliver(target(2));
    lab.pass(20).await;
    assert_eq!(lab.report.borrow().store_error, None);
    assert_eq!(lab.good().as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_store_with_space_again_is_written_without_any_other_cause() {
    let lab = Lab::new();
    lab.notebook.0.lock().unwrap().is_full = true;
    lab.deliver(target(1));
    lab.pass(200).await;
    assert_eq!(lab.report.borrow().store_error.as_deref(), Some(NO_SPACE));
    let (tries, calls) = (lab.notebook.0.lock().unwrap().tries, lab.engine.calls().len());
    lab.pass(600).await;
    let tried = lab.notebook.0.lock().unwrap().tries - tries;
    assert_eq!(tried, 10, "once a minute");
    assert!(lab.engine.calls().len() - calls <= 10, "no loop");
    lab.notebook.0.lock().unwrap().is_full = false;
    lab.pass(61).await;
    assert_eq!(lab.report.borrow().store_error, None);
    assert_eq!(lab.good().as_deref(), Some("1"));
}

/// A read-only disk is tried more rarely than a full one (`StoreError::retry_after`).
#[tokio::test(start_paused = true)]
async fn a_read_only_store_is_tried_every_five_minutes() {
    let lab = Lab::new();
    lab.notebook.0.lock().unwrap().is_read_only = true;
    lab.deliver(target(1));
    lab.pass(400).await;
    let why = "cannot write /state: the file system is read-only: read-only filesystem or storage medium";
    assert_eq!(lab.report.borrow().store_error.as_deref(), Some(why));
    let tries = lab.notebook.0.lock().unwrap().tries;
    lab.pass(3000).await;
    assert_eq!(lab.notebook.0.lock().unwrap().tries - tries, 10, "every five minutes");
    lab.notebook.0.lock().unwrap().is_read_only = false;
    lab.pass(301).await;
    assert_eq!(lab.report.borrow().store_error, None);
}

#[tokio::test(start_paused = true)]
async fn it_stops_when_it_is_cancelled_and_when_all_senders_are_gone() {
    let mut lab = Lab::new();
    lab.pass(10).await;
    lab.stop.cancel();
    let task = lab.tasks.pop().unwrap();
    tokio::time::timeout(Duration::from_secs(1), task).await.unwrap().unwrap();

    let mut lab = Lab::new();
    lab.pass(10).await;
    drop(lab.target);
    let task = lab.tasks.pop().unwrap();
    tokio::time::timeout(Duration::from_secs(1), task).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_release_that_crashes_is_taken_back_without_the_registry() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    lab.engine.publish(&image("web", 2), Behaviour::Crashes);
    lab.deliver(target(2));
    lab.pass(3).await;
    for number in 1..=3 {
        ["db", "web"].iter().for_each(|service| lab.engine.unpublish(&image(service, number)));
    }
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    assert_eq!(lab.good().as_deref(), Some("1"));
    let report = lab.report.borrow().clone();
    assert_eq!(report.waiting[0].reason, Reason::Rejected);
    assert!(report.waiting[0].why.starts_with("release 2 was rejected: web was restarted"));
    let app = &report.apps[&app_id("app")];
    assert_eq!(app.current.as_ref().unwrap().as_str(), "1");
    assert_eq!(app.update[app.target.as_ref().unwrap()], crate::model::UpdateStatus::Rejected);
    let web = (app_id("app"), ServiceName::parse("web").unwrap());
    assert_eq!(
        report.counts.restarts,
        ByService::from([(web, 1)]),
        "that of the engine, and no start of ours"
    );
    assert_eq!(report.counts.heals, ByService::new());

    let calls = lab.engine.calls().len();
    lab.deliver(target(2));
    lab.pass(3600).await;
    let since = &lab.engine.calls()[calls..];
    assert!(since.iter().all(|call| call == "list"), "the same target is not tried again: {since:?}");

    let (engine, notebook) = lab.cut();
    let lab = Lab::on(engine, notebook);
    lab.deliver(target(2));
    lab.pass(100).await;
    assert_eq!(lab.runs().await, "db@1 web@1", "nor after a restart");
}

#[tokio::test(start_paused = true)]
async fn a_release_that_never_gets_healthy_is_taken_back_at_its_deadline() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    lab.engine.publish(&image("web", 2), Behaviour::Reports(Health::Starting));
    lab.deliver(target(2));
    lab.pass(280).await;
    assert_eq!(lab.runs().await, "(db@1) (web@1) db@2 web@2", "predecessors are kept");
    lab.pass(40).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_back_is_tried_again_after_another_target() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    lab.engine.publish(&image("web", 2), Behaviour::Crashes);
    lab.deliver(target(2));
    lab.pass(30).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    lab.engine.publish(&image("web", 2), Behaviour::Runs);
    // Back to what runs: there is nothing to commit that would forget the rejection.
    lab.deliver(target(1));
    lab.pass(30).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    lab.deliver(target(2));
    lab.pass(30).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
}

#[tokio::test(start_paused = true)]
async fn a_service_without_restarts_comes_back_after_our_own_stop() {
    let lab = Lab::new();
    lab.deliver(without_restart(1));
    lab.pass(20).await;
    lab.engine.publish(&image("web", 2), Behaviour::Exits(3));
    lab.deliver(without_restart(2));
    lab.pass(30).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
}

/// An engine may restart a container faster than it tells, or without an event.
#[tokio::test(start_paused = true)]
async fn a_restart_that_was_not_seen_resets_the_soak() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(60).await;
    lab.deliver(target(2));
    lab.pass(8).await;
    assert_eq!((lab.runs().await.as_str(), lab.good().as_deref()), ("(db@1) (web@1) db@2 web@2", Some("1")));
    lab.engine.meddle_unheard(|services| services.iter_mut().for_each(|seen| seen.restarts = 1));
    lab.pass(8).await;
    assert_eq!(lab.good().as_deref(), Some("1"), "10 s have passed, and not 10 s without a restart");
    lab.pass(8).await;
    assert_eq!((lab.runs().await.as_str(), lab.good().as_deref()), ("db@2 web@2", Some("2")));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_soak_begins_anew_at_whatever_event() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(60).await;
    lab.deliver(target(2));
    lab.pass(8).await;
    lab.engine.meddle(|services| services.iter_mut().for_each(|seen| seen.restarts = 1));
    lab.pass(4).await;
    lab.engine.meddle(|_| {});
    lab.pass(1).await;
    assert_eq!(lab.good().as_deref(), Some("1"), "13 s after its start, and 5 s after its restart");
    lab.pass(10).await;
    assert_eq!(lab.good().as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_trial_past_its_deadline_is_not_saved_again_and_again() {
    let lab = Lab::new();
    lab.engine.publish(&image("web", 1), Behaviour::Reports(Health::Starting));
    lab.deliver(target(1));
    lab.pass(1000).await;
    assert!(lab.report.borrow().waiting.iter().any(|w| w.reason == Reason::Degraded));
    let writes = || lab.notebook.0.lock().unwrap().writes;
    let before = writes();
    lab.pass(24 * 3600).await;
    assert_eq!(writes(), before);
}

#[tokio::test(start_paused = true)]
async fn boots_of_a_held_device_are_no_fault_of_the_release() {
    let mut lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    lab.engine.publish(&image("web", 2), Behaviour::Reports(Health::Starting));
    lab.deliver(target(2));
    lab.pass(20).await;
    lab.order(held()).await;
    for boot in ["the second", "the third", "the fourth"] {
        let (engine, notebook) = lab.cut();
        lab = Lab::booted(engine, Arc::new(Host::default()), notebook, boot, PlanSettings::default());
        lab.deliver(target(2));
        lab.pass(20).await;
    }
    lab.order(Order::Unhold).await;
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "(db@1) (web@1) db@2 web@2", "it is still on trial");
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_in_a_trial_is_no_fault_of_the_release() {
    let lab = Lab::new();
    lab.deliver(without_restart(1));
    lab.pass(5).await;
    let (engine, notebook) = lab.cut();
    engine.meddle(|services| services[0].state = ContainerState::Exited { code: 255 });
    let lab =
        Lab::booted(engine, Arc::new(Host::default()), notebook, "the next boot", PlanSettings::default());
    lab.deliver(without_restart(1));
    lab.pass(30).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    assert_eq!(lab.good().as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_trial_is_counted_over_restarts_of_the_agent() {
    let mut lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    lab.engine.publish(&image("web", 2), Behaviour::Reports(Health::Starting));
    for _ in 0..12 {
        lab.deliver(target(2));
        lab.pass(45).await;
        let (engine, notebook) = lab.cut();
        lab = Lab::on(engine, notebook);
    }
    lab.deliver(target(2));
    lab.pass(5).await;
    assert_eq!(lab.runs().await, "db@1 web@1", "12 times 45 s is more than the deadline");
}

#[tokio::test(start_paused = true)]
async fn a_first_release_that_crashes_stays_up_and_is_reported() {
    let lab = Lab::new();
    lab.engine.publish(&image("web", 1), Behaviour::Crashes);
    lab.deliver(target(1));
    lab.pass(600).await;
    assert_eq!(lab.runs().await, "(web@1) db@1");
    assert_eq!(lab.good(), None);
    assert_eq!(lab.report.borrow().waiting[0].reason, Reason::Degraded);
}

fn all_images() -> Vec<ImageRef> {
    (1..=3).flat_map(|number| [image("db", number), image("web", number)]).collect()
}

fn held() -> Order {
    Order::Hold(Hold { reason: "audit".into(), since: "2026-01-01T00:00:00Z".into() })
}

#[tokio::test(start_paused = true)]
async fn an_operator_goes_back_after_commit_without_the_registry() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    assert!(matches!(lab.order(Order::Rollback { app: None }).await, Answer::Refused(_)), "to what?");
    lab.deliver(target(2));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
    all_images().iter().for_each(|image| lab.engine.unpublish(image));
    let calls = lab.engine.calls().len();
    let answer = lab.order(Order::Rollback { app: Some("demo".into()) }).await;
    let line =
        "release 2 of demo is rejected, and the app rolls back to release 1; `cotter retry` undoes this";
    assert_eq!(answer, Answer::Done(line.into()));
    assert_eq!(
        lab.notebook.0.lock().unwrap().ledger.apps[&app_id("app")].previous,
        None,
        "saved before the answer"
    );
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    assert_eq!(lab.good().as_deref(), Some("1"));
    assert_eq!(lab.report.borrow().waiting[0].reason, Reason::Rejected);
    assert!(lab.engine.calls()[calls..].iter().all(|call| !call.starts_with("pull")));
    assert!(matches!(lab.order(Order::Rollback { app: None }).await, Answer::Refused(_)), "twice");

    let (engine, notebook) = lab.cut();
    let lab = Lab::on(engine, notebook);
    lab.deliver(target(2));
    lab.pass(100).await;
    assert_eq!(lab.runs().await, "db@1 web@1", "a restart forgets nothing");
    lab.order(Order::Retry { app: None }).await;
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@2 web@2", "its images are still here");
    assert_eq!(lab.good().as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_release_comes_back_with_its_own_networks() {
    let lab = Lab::new();
    let back = NetworkName::parse("back").unwrap();
    let mut with_network = target(1);
    let Some(TargetApp::Wanted(wanted)) = with_network.apps.get_mut(&app_id("app")) else { unreachable!() };
    let first = wanted.release.as_mut().unwrap();
    first.networks = BTreeMap::from([(back.clone(), NetworkSpec::default())]);
    for spec in first.services.values_mut() {
        spec.network_mode =
            NetworkMode::Networks(BTreeMap::from([(back.clone(), NetworkAttachment::default())]));
    }
    lab.deliver(with_network);
    lab.pass(20).await;
    lab.deliver(target(2));
    lab.pass(20).await;
    let networks = async || {
        let observed = crate::engine::Inspect::observe(&*lab.engine).await.unwrap();
        observed.networks.into_iter().map(|n| n.network.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(networks().await, ["default"]);
    lab.order(Order::Rollback { app: None }).await;
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    assert_eq!(networks().await, ["back"]);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_release_is_tried_again_after_the_order_retry() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    assert_eq!(lab.order(Order::Retry { app: None }).await, Answer::Done("nothing to retry".into()));
    lab.engine.publish(&image("web", 2), Behaviour::Crashes);
    lab.deliver(target(2));
    lab.pass(30).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    let elsewhere = lab.order(Order::Retry { app: Some("no".into()) }).await;
    assert_eq!(
        elsewhere,
        Answer::NotFound("this device has no app no; `cotter status` names its apps".into())
    );
    let answer = lab.order(Order::Retry { app: Some("app".into()) }).await;
    assert_eq!(answer, Answer::Done("release 2 of demo is tried again".into()));
    lab.pass(30).await;
    assert_eq!(lab.runs().await, "db@1 web@1", "it was tried, and is still bad");
    let starts = lab.engine.calls().iter().filter(|call| call.starts_with("start ")).count();
    assert_eq!(starts, 10, "both services: 1, 2, back to 1, 2 again, back to 1");
    assert_eq!(lab.report.borrow().waiting[0].reason, Reason::Rejected);
}

#[tokio::test(start_paused = true)]
async fn a_retry_does_not_wait_for_a_back_off() {
    let lab = Lab::new();
    lab.engine.unpublish(&image("web", 1));
    lab.deliver(target(1));
    lab.pass(1000).await;
    lab.engine.publish(&image("web", 1), Behaviour::Runs);
    let answer = lab.order(Order::Retry { app: None }).await;
    assert_eq!(answer, Answer::Done("steps that failed are tried again now".into()));
    lab.pass(15).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
}

#[tokio::test(start_paused = true)]
async fn a_held_device_fetches_and_revives_and_swaps_nothing() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    lab.order(held()).await;
    assert!(lab.report.borrow().hold.is_some(), "reported at once");
    lab.deliver(target(2));
    lab.pass(1000).await;
    assert_eq!(lab.runs().await, "(db@2) (web@2) db@1 web@1", "fetched and created, not started");
    let report = lab.report.borrow().clone();
    assert_eq!(report.waiting[0].reason, Reason::Held);
    assert_eq!(report.waiting[0].why, "held since 2026-01-01T00:00:00Z: audit");
    lab.engine.meddle(|services| {
        services.retain(|s| s.release.as_str() != "1" || s.service.as_str() != "web");
    });
    lab.pass(5).await;
    assert_eq!(lab.runs().await, "(db@2) (web@2) db@1 web@1", "the good release is kept alive");
    assert!(matches!(lab.order(Order::Rollback { app: None }).await, Answer::Held(_)));

    let (engine, notebook) = lab.cut();
    let lab = Lab::on(engine, notebook);
    lab.deliver(target(2));
    lab.pass(1000).await;
    assert_eq!(lab.runs().await, "(db@2) (web@2) db@1 web@1", "a restart forgets no hold");
    let calls = lab.engine.calls().len();
    lab.pass(3000).await;
    assert!(lab.engine.calls()[calls..].iter().all(|call| call == "list"), "it rests");
    lab.order(Order::Unhold).await;
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
    assert_eq!(lab.good().as_deref(), Some("2"));
    assert_eq!(lab.report.borrow().hold, None);
}

#[tokio::test(start_paused = true)]
async fn a_trial_stands_still_while_held() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    lab.engine.publish(&image("web", 2), Behaviour::Reports(Health::Starting));
    lab.deliver(target(2));
    lab.pass(100).await;
    lab.order(held()).await;
    lab.pass(5000).await;
    assert_eq!(lab.runs().await, "(db@1) (web@1) db@2 web@2", "neither counted nor judged");
    lab.order(Order::Unhold).await;
    lab.pass(180).await;
    assert_eq!(lab.runs().await, "(db@1) (web@1) db@2 web@2", "280 s were counted");
    lab.pass(40).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
}

#[tokio::test(start_paused = true)]
async fn the_evidence_of_a_rejection_outlives_the_container_and_a_restart_of_the_agent() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    lab.engine.publish(&image("web", 2), Behaviour::Crashes);
    lab.deliver(target(2));
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    let report = lab.report.borrow().clone();
    let why = "release 2 was rejected: web was restarted 5 times by the engine; it last exited with code 1; \
               last line: the last line of web";
    assert_eq!(report.waiting[0].why, why);
    assert!(why.ends_with(&report.history.all().last().unwrap().why), "{:?}", report.history);
    let [evidence] = &report.evidence[..] else { panic!("{:?}", report.evidence) };
    assert_eq!((evidence.service.as_str(), evidence.release.as_str(), evidence.restarts), ("web", "2", 5));
    assert_eq!(evidence.lines, ["the last line of web"]);
    assert_eq!(
        lab.notebook.0.lock().unwrap().ledger.evidence.all(),
        slice::from_ref(evidence),
        "it is saved"
    );
    lab.deliver(target(3));
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@3 web@3");
    assert_eq!(
        lab.report.borrow().evidence,
        slice::from_ref(evidence),
        "a better release does not remove it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_with_no_release_to_go_back_to_has_its_evidence_in_the_report() {
    let lab = Lab::new();
    lab.engine.publish(&image("web", 1), Behaviour::Crashes);
    lab.deliver(target(1));
    lab.pass(60).await;
    let report = lab.report.borrow().clone();
    assert_eq!(report.waiting[0].reason, Reason::Degraded, "{:?}", report.waiting);
    let [evidence] = &report.evidence[..] else { panic!("{:?}", report.evidence) };
    assert_eq!(evidence.cause().as_deref(), Some("exited with code 1"));
    assert_eq!(lab.notebook.0.lock().unwrap().ledger.evidence.all(), [], "what goes on is not saved");
    let asked = |lab: &Lab| lab.engine.calls().iter().filter(|call| call.starts_with("logs ")).count();
    let before = asked(&lab);
    lab.pass(3600).await;
    assert!(asked(&lab) - before <= 60, "once a minute at most");
    assert_eq!(lab.report.borrow().evidence[0].at, evidence.at, "the same evidence is not dated again");
}
