//! One cell: a scenario, a fault, a place. Runs it to its end, and holds that against what must be.

use super::super::*;
use super::fault::{End, Fault, Place, allowed};
use super::scenario::Scenario;
use crate::model::{Clock, RegistryPass};
use crate::reconcile::Unmeasured;

/// How long the device may take after the fault is over, and for how long it must then rest.
const TO_HEAL: u64 = 1500;
const AT_REST: u64 = 600;

/// How long a scenario takes at most by itself: less than until the first look without a cause.
const UNDISTURBED: u64 = 280;

/// How many engine calls and saves a scenario takes, and which of the calls create containers.
pub(super) struct Measure {
    pub(super) calls: usize,
    pub(super) creations: Vec<usize>,
    pub(super) saves: u32,
}

fn saves(lab: &Lab) -> u32 {
    let page = lab.notebook.0.lock().unwrap();
    page.writes + page.targets
}

/// Runs a scenario without any fault.
pub(super) async fn measure(scenario: &Scenario) -> Measure {
    let lab = scenario.prepare().await;
    let (calls, saved) = (lab.engine.calls().len(), saves(&lab));
    let _answered = scenario.begin(&lab);
    lab.pass(UNDISTURBED).await;
    assert_eq!(lab.runs().await, scenario.runs(scenario.right), "{} without a fault", scenario.name);
    let mut made = lab.engine.calls().split_off(calls);
    let _own_look = made.pop();
    let creates = |(_, call): &(usize, &String)| call.starts_with("create ");
    let creations = made.iter().enumerate().filter(creates).map(|(n, _)| n).collect();
    let measure = Measure { calls: made.len(), creations, saves: saves(&lab) - saved };
    lab.cut();
    measure
}

/// A cell that runs.
struct Cell<'a> {
    scenario: &'a Scenario,
    fault: Fault,
    lab: Lab,
    host: Arc<Host>,
    answered: Option<oneshot::Receiver<Answer>>,
    is_answered: bool,
    is_registry_lost: bool,
}

/// Runs a cell: the engine calls until the end and which end it is, or what is wrong then. A clock that jumps
/// must lead to the calls of one that does not.
pub(super) async fn run(
    scenario: &Scenario,
    fault: Fault,
    place: Place,
    unmoved: Option<&[String]>,
) -> Result<(Vec<String>, End), String> {
    let lab = scenario.prepare().await;
    let theirs = ImageRef::parse("elsewhere/theirs:1").unwrap();
    lab.engine.publish(&theirs, Behaviour::Runs);
    crate::engine::Operate::pull(&*lab.engine, &theirs, None, &RegistryPass::Nothing, mpsc::channel(1).0)
        .await
        .unwrap();
    let neighbours = containers(&lab, "other").await;
    let begun = lab.engine.calls().len();
    script(&lab, fault, place);
    let answered = scenario.begin(&lab);
    let host = lab.host.clone();
    let mut cell = Cell { scenario, fault, lab, host, answered, is_answered: false, is_registry_lost: false };
    let outlives =
        matches!(fault, Fault::CallOutlivesAgent | Fault::CallOutlivesTarget | Fault::CallOutlivesDeadline);
    if outlives {
        let sent = tokio::time::timeout(Duration::from_secs(700), cell.lab.engine.outlived()).await;
        sent.map_err(|_| "the call is never made".to_owned())?;
    } else if !matches!(place, Place::In(..)) {
        let reached = tokio::time::timeout(Duration::from_secs(700), cell.lab.engine.frozen()).await;
        reached.map_err(|_| "the place is never reached".to_owned())?;
    }
    cell.hear();
    cell = cell.strike().await;
    cell.lab.pass(TO_HEAL).await;
    cell.hear();
    let calls = cell.lab.engine.calls().split_off(begun);
    if let Some(unmoved) = unmoved.map(effects).filter(|unmoved| *unmoved != effects(&calls)) {
        let (done, unmoved) = (effects(&calls).join(", "), unmoved.join(", "));
        return Err(format!("a clock that jumps changes what is done: {done}\n      instead of: {unmoved}"));
    }
    let checked = cell.check(&neighbours, &theirs, &calls).await;
    let log: Vec<_> = super::SAID.with_borrow_mut(std::mem::take);
    cell.lab.cut();
    let unsafe_plans: Vec<_> = log.into_iter().filter(|line| line.contains("unsafe plan")).collect();
    match checked {
        Ok(end) if unsafe_plans.is_empty() => Ok((calls, end)),
        Ok(_) => Err(unsafe_plans.join("; ")),
        Err(why) => Err(format!("{why}\n      calls: {}", calls.join(", ").replace(&"0".repeat(60), ""))),
    }
}

/// The calls that change something. What is done side by side has no order, nor have the ids that it makes.
fn effects(calls: &[String]) -> Vec<&str> {
    let calls = calls.iter().map(String::as_str);
    let changing = calls.filter(|call| !call.starts_with("inspect") && *call != "list");
    let is_id = |what: &str| what.len() == 64;
    let named = |call: &'_ str| {
        call.split_once(' ').filter(|(_, what)| is_id(what)).map_or(call.len(), |(verb, _)| verb.len())
    };
    let mut effects: Vec<_> = changing.map(|call| &call[..named(call)]).collect();
    effects.sort_unstable();
    effects
}

/// Makes it stand still, or fail, at the place.
fn script(lab: &Lab, fault: Fault, place: Place) {
    use crate::engine::fake::Fault as Call;
    let is_killed = matches!(fault, Fault::AgentKilled | Fault::PowerCut | Fault::StoreLost);
    let at_save = |n: u32, does: AtSave| {
        let at = saves(lab) + n;
        lab.notebook.0.lock().unwrap().script = Some((at, does, lab.engine.clone()));
    };
    match place {
        Place::Before(n) => lab.engine.fail(n, Call::Freeze),
        Place::After(n) => lab.engine.fail(n, Call::FreezeAfter),
        Place::Midway(n) => lab.engine.fail(n, Call::FreezeMidway),
        Place::In(n, call) => lab.engine.fail(n, call),
        Place::BeforeSave(n) if is_killed => at_save(n, AtSave::EndBefore),
        Place::AfterSave(n) if is_killed => at_save(n, AtSave::EndAfter),
        Place::BeforeSave(n) => at_save(n, AtSave::Fill),
        Place::AfterSave(n) => at_save(n, AtSave::Pause),
    }
}

/// The containers of an app, by id.
async fn containers(lab: &Lab, app: &str) -> Vec<String> {
    let observed = crate::engine::Inspect::observe(&*lab.engine).await.unwrap();
    let of_app = observed.services.iter().filter(|s| s.app == app_id(app));
    of_app.map(|s| s.container.to_string()).collect()
}

impl Cell<'_> {
    /// Whether the operator has an answer that the store knows of.
    fn hear(&mut self) {
        let page = self.lab.notebook.0.lock().unwrap();
        let is_sure = !page.is_torn && !page.is_full;
        let answer = self.answered.as_mut().and_then(|answered| answered.try_recv().ok());
        self.is_answered |= answer.is_some() && is_sure;
    }

    /// The agent ends without a word and is started again, in this boot or the next; what it finds in its
    /// store comes first, what the cloud wants a little later.
    async fn start_again(self, boot: &str) -> Self {
        let Self { scenario, fault, lab, host, answered, is_answered, is_registry_lost } = self;
        let (engine, notebook) = lab.cut();
        tokio::task::yield_now().await;
        engine.thaw();
        notebook.0.lock().unwrap().is_torn = false;
        if boot != "boot" {
            let mut inside = host.inside();
            inside.own.clear();
            inside.handed_over.clear();
            drop(inside);
            engine.go_down();
        }
        let lab = Lab::booted(engine, host.clone(), notebook, boot, PlanSettings::default());
        match scenario.called_back_to(fault) {
            None => scenario.remember(&lab),
            Some(before) => scenario.deliver(&lab, before),
        }
        if boot != "boot" {
            lab.pass(5).await;
            lab.engine.revive();
        }
        lab.pass(2).await;
        scenario.deliver(&lab, scenario.called_back_to(fault).unwrap_or(scenario.wanted()));
        Self { scenario, fault, lab, host, answered, is_answered, is_registry_lost }
    }

    /// Lets the fault happen, and its cause go after a while.
    async fn strike(mut self) -> Self {
        let engine = self.lab.engine.clone();
        let page = self.lab.notebook.0.clone();
        match self.fault {
            Fault::AgentKilled | Fault::CallOutlivesAgent | Fault::CallOutlivesTarget => {
                return self.start_again("boot").await;
            }
            Fault::CallOutlivesDeadline => {
                if let Some(before) = self.scenario.called_back_to(self.fault) {
                    self.lab.pass(59).await;
                    self.scenario.deliver(&self.lab, before);
                }
            }
            Fault::PowerCut => return self.start_again("the next boot").await,
            Fault::StoreLost => {
                *page.lock().unwrap() = Page::default();
                return self.start_again("boot").await;
            }
            Fault::EngineHangs => self.lab.pass(150).await,
            Fault::EngineKilled => {
                engine.go_down();
                self.lab.pass(45).await;
                engine.revive();
            }
            Fault::CallFails | Fault::Nothing => {}
            Fault::CallFailsAndKilled => {
                self.lab.pass(8).await;
                return self.start_again("boot").await;
            }
            Fault::StoreFull => {
                engine.thaw();
                self.lab.pass(200).await;
                page.lock().unwrap().is_full = false;
            }
            Fault::StoreFullAndKilled => {
                engine.thaw();
                self.lab.pass(7).await;
                let cell = self.start_again("boot").await;
                cell.lab.pass(200).await;
                page.lock().unwrap().is_full = false;
                return cell;
            }
            Fault::RegistryLost => self.lose_registry().await,
            Fault::TenYearsAhead => self.host.inside().now = "2036-01-01T00:00:00Z".to_owned(),
            Fault::TenYearsBack => {
                let mut inside = self.host.inside();
                inside.now = "2016-01-01T00:00:00Z".to_owned();
                inside.clock = Clock::Untrusted("it is behind what was seen before".to_owned());
            }
        }
        engine.thaw();
        self
    }

    /// No registry answers any more; for a rollback that needs none it never comes again.
    async fn lose_registry(&mut self) {
        let engine = self.lab.engine.clone();
        self.is_registry_lost = true;
        for image in all_images() {
            engine.cut_registry(&image);
            let lost = Unmeasured { after: None, why: "connection refused".to_owned() };
            self.host.inside().sizes.insert(image, Err(lost));
        }
        engine.thaw();
        self.lab.pass(300).await;
        if self.scenario.needs_registry() {
            all_images().iter().for_each(|image| engine.mend_registry(image));
            self.host.inside().sizes.clear();
            self.is_registry_lost = false;
        }
    }

    /// What must hold in the end; which end it is.
    async fn check(&self, neighbours: &[String], theirs: &ImageRef, calls: &[String]) -> Result<End, String> {
        let lab = &self.lab;
        let runs = lab.runs().await;
        let allowed = allowed(self.scenario, self.fault, self.is_answered);
        let Some(end) = allowed.iter().find(|end| end.is_it(self.scenario, &runs)) else {
            let waiting = lab.report.borrow().waiting.clone();
            return Err(format!("{runs} runs; waiting for {waiting:?}"));
        };
        if !lab.engine.doubles().is_empty() && !self.scenario.hands_over() {
            return Err(format!("two of one service ran: {:?}", lab.engine.doubles()));
        }
        if lab.good().as_deref() != end.good() {
            return Err(format!("{runs} runs, and {:?} is good", lab.good()));
        }
        let waits: Vec<_> = lab.report.borrow().waiting.iter().map(|w| w.reason).collect();
        let is_reported = waits.iter().any(|reason| matches!(reason, Reason::Degraded | Reason::Unhealthy));
        if matches!(end, End::Degraded | End::Kept | End::Down) && !is_reported {
            return Err(format!("{runs} runs, and no wait says so: {waits:?}"));
        }
        let report = lab.report.borrow().clone();
        if report.engine_error.is_some() || report.store_error.is_some() {
            return Err(format!(
                "the report still has errors: {:?}, {:?}",
                report.engine_error, report.store_error
            ));
        }
        let is_theirs = |call: &String| neighbours.iter().any(|id| call.contains(id.as_str()));
        if let Some(call) = calls.iter().find(|call| is_theirs(call)) {
            return Err(format!("another app was changed: {call}"));
        }
        if containers(lab, "other").await != neighbours {
            return Err("another app has other containers".to_owned());
        }
        let observed = crate::engine::Inspect::observe(&*lab.engine).await.unwrap();
        if !observed.images.contains(theirs) {
            return Err("an image that we did not pull was removed".to_owned());
        }
        // What we pulled we know as ours, or it would stay for ever.
        let is_forgotten = matches!(self.fault, Fault::StoreLost | Fault::StoreFullAndKilled);
        let ours = lab.notebook.0.lock().unwrap().ledger.images.clone();
        let mut strays = observed.images.iter().filter(|image| *image != theirs && !ours.contains(*image));
        if let Some(image) = strays.next().filter(|_| !is_forgotten) {
            return Err(format!("{image} is not known as ours"));
        }
        self.scenario.check_networks(lab, end.number()).await?;
        if lab.engine.volumes().len() != 1 {
            return Err(format!("volumes: {:?}", lab.engine.volumes()));
        }
        if !self.host.inside().own.is_empty() {
            return Err(format!("lock files are left: {:?}", self.host.inside().own));
        }
        // Those stay on trial: each look asks for restarts, too.
        let is_tried = matches!(end, End::Degraded | End::Kept | End::Down);
        // And of each that shares a network is asked when it and the other one were started.
        let per_look = if self.scenario.is_shared() { 3 } else { 1 };
        // A service that has ended with an error does not run well either.
        let is_failing = is_tried || matches!(end, End::Ended);
        let is_asked = is_failing || self.scenario.is_shared();
        let is_look = |call: &&String| *call == "list" || (is_asked && call.starts_with("inspect "));
        // What does not run well is asked for its last lines, after a minute at the earliest.
        let is_evidence = |call: &&String| is_failing && call.starts_with("logs ");
        let (calls, saved) = (lab.engine.calls().len(), saves(lab));
        lab.pass(AT_REST).await;
        let since = lab.engine.calls().split_off(calls);
        // What cannot be fetched is asked for again and again, each image every four minutes or more rarely.
        let is_pull = |call: &&String| self.is_registry_lost && call.starts_with("pull ");
        let pulls = since.iter().filter(is_pull).count();
        let evidence = since.iter().filter(is_evidence).count();
        if let Some(call) = since.iter().find(|call| !is_look(call) && !is_pull(call) && !is_evidence(call)) {
            return Err(format!("no rest: {call}"));
        }
        // Before the last lines, the container is inspected.
        let looks = since.len() - pulls - 2 * evidence;
        let most = per_look * if is_tried { 12 } else { 3 + 2 * pulls };
        if saves(lab) != saved || looks > most || pulls > 6 {
            return Err(format!("no rest: {looks} looks, {} saves", saves(lab) - saved));
        }
        Ok(*end)
    }
}
