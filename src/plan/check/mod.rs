//! Checks a plan against the safety rules, without knowing how it was made.
//!
//! The reconciler does not run a stage that breaks a rule, and every test of the planner runs this check.

use crate::model::{
    AppId, AppLedger, ContainerId, ContainerState, ImageRef, NetworkId, ObservedService, Plan, Release,
    ServiceName, ServiceSpec, SpecHash, Step, Strategy, Target, TargetApp,
};

use super::app::AppSituation;
use super::containers::{belongs_to, is_up, may_come_up};
use super::gate::may_lock;
use super::situation::Situation;
use super::stop_first::may_stop_first;
use super::{leftovers, networks};

mod refused;

/// Returns the safety rules that the plan breaks, in words. An empty list means that it is safe to run.
#[must_use]
pub fn violations(at: &Situation, plan: &Plan) -> Vec<String> {
    let mut found = Vec::new();
    for (n, step) in plan.stage.iter().enumerate() {
        let (before, after) = (&plan.stage[..n], &plan.stage[n + 1..]);
        if before.contains(step) {
            found.push(format!("{step}: twice in one stage"));
        }
        if at.failed_steps.get(step).is_some_and(|failure| !failure.is_over()) {
            found.push(format!("{step}: repeated too early"));
        }
        let Some(target) = at.target.as_deref().filter(|t| !t.apps.is_empty()) else {
            found.push(format!("{step}: there is no target, or one that names no app"));
            continue;
        };
        if let Some(why) = Checked::new(at, target, step, before, after).violation() {
            found.push(format!("{step}: {why}"));
        }
    }
    let pulls = plan.stage.iter().filter(|s| matches!(s, Step::Pull { .. })).count();
    if pulls > 0 && pulls + at.pulling.len() > at.settings.parallel_pulls {
        found.push(format!("{pulls} pulls in addition to {} under way", at.pulling.len()));
    }
    found
}

/// One step, with everything that its rules depend on.
struct Checked<'a> {
    at: &'a Situation,
    target: &'a Target,
    step: &'a Step,
    before: &'a [Step],
    after: &'a [Step],
    app: Option<AppSituation<'a>>,
    ledger: Option<&'a AppLedger>,
    good: Option<&'a Release>,
    /// The release that the app is to run. In place of a rejected or refused one, this is the good release.
    wanted: Option<&'a Release>,
    is_refused: bool,
    is_on_trial: bool,
}

impl<'a> Checked<'a> {
    fn new(
        at: &'a Situation,
        target: &'a Target,
        step: &'a Step,
        before: &'a [Step],
        after: &'a [Step],
    ) -> Self {
        let app = step.app().map(|id| AppSituation::new(at, id));
        let in_target = app.and_then(|app| target.apps.get(app.id));
        let ledger = app.and_then(|app| app.ledger);
        let good = ledger.and_then(|a| a.good.as_ref());
        let asked = in_target.and_then(TargetApp::release);
        let key = |release: Option<&Release>| release.map(Release::key);
        let rejected = ledger.and_then(|a| a.rejected.as_ref()).map(|r| &r.release);
        let is_rejected = rejected.is_some() && rejected == key(asked).as_ref();
        let is_refused = matches!(in_target, Some(TargetApp::Refused(_)));
        let wanted = if is_rejected || is_refused { good } else { asked };
        let tried = ledger.and_then(|a| a.trial.as_ref()).map(|trial| &trial.release);
        let is_on_trial = tried.is_some() && tried == key(wanted).as_ref();
        Self { at, target, step, before, after, app, ledger, good, wanted, is_refused, is_on_trial }
    }

    fn violation(&self) -> Option<&'static str> {
        if self.is_refused && !self.is_way_back() && !self.is_ordered() {
            return Some("its app is refused and must stay as it is");
        }
        match self.step {
            Step::Stop { container, .. } | Step::Kill { container, .. } => self.stop(container),
            Step::Remove { container, .. } => self.remove(container, false),
            Step::RemoveByForce { container, .. } => self.remove(container, true),
            Step::Park { container, .. } => match self.find(container) {
                None => Some("the container is not ours"),
                Some(seen) => (!is_broken(seen)).then_some("the engine can remove it"),
            },
            Step::Start { container, .. } => self.start(container),
            Step::Fence { container, .. } => self.fence(container),
            Step::RemoveImage { image } => self.remove_image(image),
            Step::Try { .. } if self.is_held() => Some("the device is held"),
            Step::Try { .. } if self.good.is_some() && self.is_locked() => Some("updates are locked"),
            Step::Try { .. } | Step::Accept { .. } => {
                let Some(wanted) = self.wanted else { return Some("no release is wanted") };
                let is_tried = matches!(self.step, Step::Try { .. });
                (!self.is_ready(wanted, is_tried)).then_some("one of its containers is missing")
            }
            Step::Reject { .. } => {
                let has_other = self.good.is_some() && self.good != self.wanted;
                (!has_other).then_some("there is nothing to roll back to")
            }
            Step::Forget { .. } => self.wanted.is_some().then_some("a release of it is wanted"),
            Step::Heal { .. } if self.is_held() => Some("the device is held"),
            Step::Heal { service, .. } => {
                let healed = self.ledger.and_then(|a| a.heals.get(service)).copied().unwrap_or_default();
                (healed >= self.at.settings.heals).then_some("it was restarted often enough")
            }
            Step::Unlock { .. } => {
                (self.is_on_trial && self.good.is_some()).then_some("its release is on trial")
            }
            Step::Create { service, spec, .. } => self.create(service, spec),
            Step::RemoveNetwork { id, .. } => self.remove_network(id),
            Step::Reconnect { container, .. } => match self.find(container) {
                None => Some("the container is not ours"),
                Some(seen) => {
                    (is_up(seen) && !self.is_ended_before(container)).then_some("the container runs")
                }
            },
            Step::Pull { .. } | Step::MeasureImage { .. } | Step::CreateNetwork { .. } => None,
        }
    }

    fn stop(&self, container: &ContainerId) -> Option<&'static str> {
        let seen = self.find(container)?;
        if self.is_held() && is_up(seen) {
            return Some("the device is held");
        }
        if self.at.observed.is_orphan(seen) {
            return None;
        }
        let is_stopped_by_operator =
            |a: &AppLedger| a.stopped_by_operator.get(&seen.service).is_some_and(|h| h.spec == seen.spec);
        // An outdated container is removed instead, and the next plans create it again.
        let comes_back = |step: &Step| {
            matches!(step, Step::Start { container: c, .. } if c == container)
                || seen.is_outdated && matches!(step, Step::Remove { container: c, .. } if c == container)
        };
        if self.ledger.is_some_and(is_stopped_by_operator) || self.after.iter().any(comes_back) {
            return None;
        }
        if is_up(seen) && self.is_locked() {
            return Some("updates are locked");
        }
        let wanted = self.wanted?;
        let is_stranger = !is_of(self.good, seen) && !is_of(Some(wanted), seen);
        if is_stranger && self.good.is_some_and(|good| self.is_ready(good, false)) {
            return None;
        }
        let is_back = self.good == Some(wanted);
        let makes_room = (self.is_on_trial && may_stop_first(wanted, &seen.service))
            || ((self.is_on_trial || is_back) && self.stands_in_the_way(wanted, seen));
        (!self.is_ready(wanted, makes_room)).then_some("its release is not replaced by one that is ready")
    }

    /// A network is removed with its release. Before that, it is removed only to make room for another one.
    fn remove_network(&self, id: &NetworkId) -> Option<&'static str> {
        let app = self.app?;
        let Some(network) = app.networks().find(|network| network.id == *id) else {
            return Some("the network is not ours");
        };
        if self.at.observed.services.iter().any(|seen| is_up(seen) && networks::is_on(seen, network)) {
            return Some("a container that runs is on it");
        }
        if networks::has_duplicate(&self.at.observed, network, self.before.iter().chain(self.after)) {
            return None;
        }
        let tried = self.wanted.filter(|_| self.is_on_trial);
        if tried.iter().chain(&self.good).any(|release| self.is_in_the_way(app, release, id)) {
            return None;
        }
        if network.is_original {
            return Some("a balena supervisor created it, and no network needs its place");
        }
        // An app that is removed needs none of its networks.
        let wanted = self.wanted?;
        if [Some(wanted), self.good].iter().flatten().any(|release| networks::is_of(release, network)) {
            return Some("a release needs it");
        }
        let is_unused = leftovers::is_unused(app, network, self.good, wanted);
        (self.good != Some(wanted) && !is_unused).then_some("its successor is not accepted yet")
    }

    fn is_in_the_way(&self, app: AppSituation<'_>, release: &Release, id: &NetworkId) -> bool {
        networks::in_the_way(app, release).iter().any(|network| network.id == *id)
    }

    /// Returns `true` if a container is connected to a network that is in the way of one of `release`.
    fn stands_in_the_way(&self, release: &Release, seen: &ObservedService) -> bool {
        let app = AppSituation::new(self.at, &seen.app);
        networks::in_the_way(app, release).iter().any(|network| networks::is_on(seen, network))
    }

    fn remove(&self, container: &ContainerId, is_forced: bool) -> Option<&'static str> {
        if self.at.observed.parked.iter().any(|seen| seen.container == *container) {
            return (!is_forced).then_some("it was renamed, and only its removal by force is tried");
        }
        let Some(seen) = self.find(container) else { return Some("the container is not ours") };
        if is_up(seen) && !is_forced && !self.is_ended_before(container) {
            return Some("the container runs");
        }
        if is_up(seen) && self.is_held() {
            return Some("the device is held");
        }
        let is_replaced = seen.is_outdated && (is_forced || self.is_ended_before(container));
        let is_lost = is_broken(seen) || is_replaced || self.at.observed.is_orphan(seen);
        let wanted = self.wanted.filter(|_| !is_lost)?;
        let is_asked = self.is_on_trial
            && self.strategy(seen) == Some(Strategy::DeleteThenDownload)
            && !is_of(Some(wanted), seen);
        let app = AppSituation::new(self.at, &seen.app);
        if is_asked || leftovers::is_leftover(app, seen, self.good, wanted) {
            return None;
        }
        if self.good != Some(wanted) {
            return Some("its successor is not accepted yet");
        }
        let is_kept = is_of(Some(wanted), seen);
        let same = |s: &&ObservedService| s.spec == seen.spec && s.service == seen.service;
        let others = self.at.observed.services.iter().filter(same).count();
        (is_kept && others == 1).then_some("it is the one that should run")
    }

    /// A container that joins the namespaces of another one needs that to exist.
    fn create(&self, service: &ServiceName, hash: &SpecHash) -> Option<&'static str> {
        let app = self.app?;
        let has_it = |r: &&&Release| r.services.get(service).is_some_and(|spec| spec.hash == *hash);
        let releases = [self.wanted, self.good];
        let Some(release) = releases.iter().flatten().find(has_it) else {
            return Some("no release we know of has this spec");
        };
        let is_there = |name: &ServiceName| {
            app.containers().any(|seen| seen.service == *name && belongs_to(seen, release))
        };
        let mut joins = release.services.get(service)?.joins();
        joins.any(|(_, name)| !is_there(name)).then_some("a service that it joins has no container")
    }

    fn start(&self, container: &ContainerId) -> Option<&'static str> {
        let Some(seen) = self.find(container) else { return Some("the container is not ours") };
        if !is_of(self.wanted, seen) && !is_of(self.good, seen) {
            return Some("no release we know of has this spec");
        }
        if self.is_held() && self.good.is_some() && !is_of(self.good, seen) {
            return Some("the device is held");
        }
        let is_stopped_by_operator =
            |a: &AppLedger| a.stopped_by_operator.get(&seen.service).is_some_and(|h| h.spec == seen.spec);
        if self.ledger.is_some_and(is_stopped_by_operator) {
            return Some("an operator stopped it");
        }
        let of_service = |s: &&ObservedService| s.app == seen.app && s.service == seen.service;
        let mut others = self.at.observed.services.iter().filter(of_service);
        // A removed container cannot start. If its removal fails, the chain ends before this start.
        let is_fenced = |other: &ObservedService| {
            self.before.iter().any(|step| {
                matches!(step, Step::Fence { container, .. } | Step::Remove { container, .. } | Step::RemoveByForce { container, .. }
                    if *container == other.container)
            })
        };
        if others.any(|s| s.container != *container && may_come_up(s) && !is_fenced(s)) {
            return Some("another container of the service may still come up");
        }
        let hands_over = matches!(self.strategy(seen), Some(Strategy::HandOver { .. }));
        if hands_over && self.is_on_trial && is_of(self.wanted, seen) {
            return None;
        }
        let mut rivals = self.at.observed.services.iter().filter(of_service);
        rivals
            .any(|s| is_up(s) && s.container != *container && !self.is_ended_before(&s.container))
            .then_some("another container of the service runs")
    }

    /// A fence is for a container that is down, and comes before the start of another one of its service.
    fn fence(&self, container: &ContainerId) -> Option<&'static str> {
        let Some(seen) = self.find(container) else { return Some("the container is not ours") };
        if is_up(seen) {
            return Some("the container runs");
        }
        let starts_other = |step: &Step| {
            matches!(step, Step::Start { app, service, container: started }
                if *app == seen.app && *service == seen.service && started != container)
        };
        (!self.after.iter().any(starts_other)).then_some("nothing starts in its place")
    }

    fn remove_image(&self, image: &ImageRef) -> Option<&'static str> {
        if !self.at.ledger.images.contains(image) {
            return Some("we did not pull it");
        }
        let wanted = self.target.apps.values().filter_map(TargetApp::release);
        if wanted.flat_map(|r| r.services.values()).any(|s| s.image == *image) {
            return Some("a release needs it");
        }
        let is_kept = |(id, app): (&AppId, &AppLedger)| {
            let release = self.target.apps.get(id).and_then(TargetApp::release);
            let is_on_trial =
                release.is_some_and(|r| app.trial.as_ref().is_some_and(|trial| trial.release == r.key()));
            let is_deleted = |name: &ServiceName| {
                let spec = release.and_then(|r| r.services.get(name));
                is_on_trial && spec.is_some_and(|s| s.strategy == Strategy::DeleteThenDownload)
            };
            let mut specs = app.good.iter().chain(&app.previous).flat_map(|r| &r.services);
            specs.any(|(name, spec)| spec.image == *image && !is_deleted(name))
        };
        self.at.ledger.apps.iter().any(is_kept).then_some("a release needs it")
    }

    /// Returns `true` if every service of `release` has its container, so that the swap can begin. After room was made,
    /// services whose predecessor stops first, and those that wait for a network, do not count.
    fn is_ready(&self, release: &Release, has_made_room: bool) -> bool {
        let Some(app) = self.app else { return false };
        let has = |(name, spec): (&ServiceName, &ServiceSpec)| {
            let is_it = |s: &ObservedService| s.service == *name && s.spec == spec.hash;
            // A service that waits for a network must at least have its image here.
            let waits_for_network = || {
                !networks::are_here_for(app, release, spec) && self.at.observed.images.contains(&spec.image)
            };
            app.containers().any(is_it)
                || (has_made_room && (may_stop_first(release, name) || waits_for_network()))
        };
        release.services.iter().all(has)
    }

    /// Returns `true` if a lock forbids to touch the app. Locks do not count once a swap has begun.
    fn is_locked(&self) -> bool {
        let Some(app) = self.app else { return false };
        let forced = self.ledger.and_then(|a| a.forced.clone());
        let is_forced = forced.is_some() && forced == self.wanted.map(Release::key);
        if self.is_on_trial
            || self.at.facts.own_locks.contains(app.id)
            || is_forced
            || self.target.is_lock_overridden
        {
            return false;
        }
        let holds = |service: &ServiceName| may_lock(&self.at.observed, self.ledger, app.id, service);
        let has_file = self.at.facts.locks.get(app.id).is_some_and(|locks| locks.keys().any(holds));
        let (boot, uptime) = (&self.at.boot_id, self.at.facts.uptime);
        has_file || self.at.ledger.leases.iter().any(|lease| lease.is_in_force(boot, uptime))
    }

    fn is_ended_before(&self, id: &ContainerId) -> bool {
        self.before.iter().any(|step| matches!(step, Step::Stop { container, .. } | Step::Kill { container, .. } if container == id))
    }

    fn is_held(&self) -> bool {
        self.at.ledger.hold.is_some()
    }

    /// The strategy of the service in the release that is to run.
    fn strategy(&self, seen: &ObservedService) -> Option<Strategy> {
        self.wanted?.services.get(&seen.service).map(|spec| spec.strategy)
    }

    fn find(&self, container: &ContainerId) -> Option<&'a ObservedService> {
        self.at.observed.services.iter().find(|s| s.container == *container)
    }
}

/// Returns `true` if the container can never be started again.
fn is_broken(seen: &ObservedService) -> bool {
    seen.state == ContainerState::Dead || ((seen.is_cut_off || seen.is_outdated) && !is_up(seen))
}

fn is_of(release: Option<&Release>, seen: &ObservedService) -> bool {
    release.is_some_and(|release| belongs_to(seen, release))
}
