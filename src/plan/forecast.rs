//! Predicts the stages to come: makes a plan, applies its steps to a model of the device, and plans again.
//!
//! The model assumes that every step works, that every container gets healthy, and that waits end: first those that
//! end by themselves, then those that a person must end. A forecast changes nothing and promises nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    AppId, Clock, Condition, ContainerId, ContainerState, Forecast, ForeseenStage, Health, ImageSize,
    Namespace, NetworkId, NetworkMode, ObservedNetwork, ObservedService, Plan, Reason, Release, ServiceName,
    ServiceSpec, Step, TargetApp, Waiting, WindowState,
};

use super::check::violations;
use super::networks;
use super::planner::plan;
use super::record::{record_done, record_intent};
use super::situation::Situation;

/// How many plans a forecast makes at most.
const MOST_PLANS: usize = 200;

/// Returns the stages that lead to the target, and the waits at their end.
///
/// Makes 200 plans at most. The forecast is marked as cut if these do not reach an end, or if a plan breaks a safety
/// rule.
#[must_use]
pub fn forecast(from: Situation) -> Forecast {
    let mut device = Model { at: from, next_id: 0 };
    let mut forecast = Forecast { is_cut: true, ..Forecast::default() };
    let mut after: Vec<Waiting> = Vec::new();
    for _ in 0..MOST_PLANS {
        let (plan, is_safe) = device.plan();
        if plan.stage.is_empty() {
            let ended = device.end_waits(&plan.waiting);
            let is_new = |waiting: &Waiting| !after.contains(waiting);
            // A wait that was ended before and is back cannot be ended in this model.
            if !ended.iter().any(is_new) {
                (forecast.waiting, forecast.is_cut) = (plan.waiting, false);
                return forecast;
            }
            let new: Vec<_> = ended.into_iter().filter(is_new).collect();
            after.extend(new);
            continue;
        }
        if !is_safe {
            return forecast;
        }
        device.apply(&plan.stage);
        add(&mut forecast.stages, std::mem::take(&mut after), plan.stage);
    }
    forecast
}

/// Adds a stage. Successive stages of downloads are merged.
fn add(stages: &mut Vec<ForeseenStage>, after: Vec<Waiting>, steps: Vec<Step>) {
    let is_download = |step: &Step| matches!(step, Step::Pull { .. } | Step::MeasureImage { .. });
    match stages.last_mut() {
        Some(last)
            if after.is_empty() && steps.iter().all(is_download) && last.steps.iter().all(is_download) =>
        {
            last.steps.extend(steps);
        }
        _ => stages.push(ForeseenStage { after, steps }),
    }
}

/// A device on which everything works.
struct Model {
    at: Situation,
    /// How many containers and networks the forecast has created. Their ids are made from this number.
    next_id: usize,
}

impl Model {
    /// Returns the next plan, and `true` if it breaks no safety rule.
    fn plan(&self) -> (Plan, bool) {
        let at = &self.at;
        let plan = plan(at);
        let is_safe = violations(at, &plan).is_empty();
        (plan, is_safe)
    }

    fn apply(&mut self, stage: &[Step]) {
        record_intent(Arc::make_mut(&mut self.at.ledger), &self.at.observed, stage);
        for step in stage {
            self.change(step);
            if let Some(target) = &self.at.target {
                record_done(Arc::make_mut(&mut self.at.ledger), target, &self.at.boot_id, "", step);
            }
        }
    }

    /// Applies what the step changes outside of the ledger.
    fn change(&mut self, step: &Step) {
        self.at.failed_steps.remove(step);
        let observed = Arc::make_mut(&mut self.at.observed);
        let facts = Arc::make_mut(&mut self.at.facts);
        match step {
            Step::Pull { image } => drop(observed.images.insert(image.clone())),
            Step::MeasureImage { image } => {
                drop(facts.image_sizes.insert(image.clone(), ImageSize::default()))
            }
            Step::CreateNetwork { .. } => {
                self.next_id += 1;
                let made = self.network_of(step);
                Arc::make_mut(&mut self.at.observed).networks.extend(made);
            }
            Step::Create { .. } => {
                self.next_id += 1;
                let Ok(container) = ContainerId::parse(format!("new-{}", self.next_id)) else { return };
                let created = self.created_by(step, container);
                Arc::make_mut(&mut self.at.observed).services.extend(created);
            }
            Step::Start { container, .. } => {
                self.attach_networks(container);
                self.set(container, ContainerState::Running);
            }
            Step::Reconnect { container, .. } => self.attach_networks(container),
            Step::Stop { container, .. } | Step::Kill { container, .. } => {
                self.set(container, ContainerState::Exited { code: 143 });
            }
            Step::Remove { container, .. } | Step::RemoveByForce { container, .. } => {
                observed.services.retain(|seen| seen.container != *container);
                observed.parked.retain(|seen| seen.container != *container);
            }
            Step::Park { container, .. } => {
                let (parked, services) = std::mem::take(&mut observed.services)
                    .into_iter()
                    .partition(|seen| seen.container == *container);
                observed.services = services;
                observed.parked.extend::<Vec<_>>(parked);
            }
            Step::RemoveNetwork { id, .. } => observed.networks.retain(|network| network.id != *id),
            Step::RemoveImage { image } => drop(observed.images.remove(image)),
            Step::Try { app, .. } => drop(facts.own_locks.insert(app.clone())),
            Step::Unlock { app } => drop(facts.own_locks.remove(app)),
            Step::Fence { .. }
            | Step::Heal { .. }
            | Step::Reject { .. }
            | Step::Accept { .. }
            | Step::Forget { .. } => {}
        }
    }

    /// The network that a step creates.
    fn network_of(&self, step: &Step) -> Option<ObservedNetwork> {
        let Step::CreateNetwork { app, network, config_hash } = step else { return None };
        let specs = self.releases(app).filter_map(|release| release.networks.get(network));
        let spec = specs.into_iter().find(|spec| spec.config_hash == *config_hash)?;
        Some(ObservedNetwork {
            is_original: false,
            id: NetworkId::parse(format!("new-{}", self.next_id)).ok()?,
            app: app.clone(),
            network: network.clone(),
            config_hash: config_hash.clone(),
            name: format!("{app}_{network}_{}", config_hash.as_deref().unwrap_or_default()),
            subnets: spec.ranges(),
            gateway: None,
        })
    }

    /// The container that a step creates.
    fn created_by(&self, step: &Step, container: ContainerId) -> Option<ObservedService> {
        let Step::Create { app, service, release: commit, spec } = step else { return None };
        let of_service = self.releases(app).filter_map(|r| Some((r, r.services.get(service)?)));
        let (release, wanted) = of_service.into_iter().find(|(_, wanted)| wanted.hash == *spec)?;
        let joined = |(kind, other): (Namespace, &ServiceName)| {
            let other = release.services.get_key_value(other)?;
            let mut all = self.at.observed.services.iter();
            let seen = all.find(|s| s.app == *app && s.service == *other.0 && s.spec == other.1.hash)?;
            Some((kind, seen.container.clone()))
        };
        Some(ObservedService {
            container,
            app: app.clone(),
            service: service.clone(),
            release: commit.clone(),
            spec: spec.clone(),
            image: wanted.image.to_string(),
            grace: wanted.stop_grace.unwrap_or_default(),
            state: ContainerState::Created,
            health: Health::Unchecked,
            is_cut_off: false,
            restarts: 0,
            last_end: None,
            status: String::new(),
            ports: BTreeMap::new(),
            networks: self
                .networks_of(app, release, wanted)
                .map(|network| (network.name.clone(), None))
                .collect(),
            joins: wanted.joins().filter_map(joined).collect(),
            created: 0,
            introduced: None,
            is_outdated: false,
        })
    }

    /// The existing networks of a release that a service of it is connected to.
    fn networks_of<'a>(
        &'a self,
        app: &'a AppId,
        release: &'a Release,
        spec: &'a ServiceSpec,
    ) -> impl Iterator<Item = &'a ObservedNetwork> {
        let attached = match &spec.network_mode {
            NetworkMode::Networks(attached) => Some(attached),
            NetworkMode::Host | NetworkMode::None | NetworkMode::Bridge | NetworkMode::Service(_) => None,
        };
        self.at.observed.networks.iter().filter(move |network| {
            let is_on = attached.is_some_and(|attached| attached.contains_key(&network.network));
            is_on && network.app == *app && networks::is_of(release, network)
        })
    }

    /// Connects a container to the networks of its release as they are now.
    fn attach_networks(&mut self, container: &ContainerId) {
        let Some(networks) = self.networks_now(container) else { return };
        if let Some(seen) =
            Arc::make_mut(&mut self.at.observed).services.iter_mut().find(|seen| seen.container == *container)
        {
            (seen.is_cut_off, seen.networks) = (false, networks);
        }
    }

    fn networks_now(&self, container: &ContainerId) -> Option<BTreeMap<String, Option<NetworkId>>> {
        let seen = self.at.observed.services.iter().find(|seen| seen.container == *container)?;
        let specs = self.releases(&seen.app).filter_map(|r| Some((r, r.services.get(&seen.service)?)));
        let (release, spec) = specs.into_iter().find(|(_, spec)| spec.hash == seen.spec)?;
        let on = self.networks_of(&seen.app, release, spec);
        Some(on.map(|network| (network.name.clone(), Some(network.id.clone()))).collect())
    }

    /// The releases of an app that a step may refer to: the wanted one, then the good one.
    fn releases(&self, app: &AppId) -> impl Iterator<Item = &Release> {
        let target = self.at.target.as_ref().and_then(|target| target.apps.get(app));
        let good = self.at.ledger.apps.get(app).and_then(|ledger| ledger.good.as_ref());
        target.and_then(TargetApp::release).into_iter().chain(good)
    }

    fn set(&mut self, container: &ContainerId, state: ContainerState) {
        for seen in Arc::make_mut(&mut self.at.observed)
            .services
            .iter_mut()
            .filter(|seen| seen.container == *container)
        {
            (seen.state, seen.restarts) = (state, 0);
            if seen.health != Health::Unchecked {
                seen.health = Health::Healthy;
            }
        }
    }

    /// Ends the waits that end by themselves. If there are none, ends those that a person can end. Returns the ended
    /// waits.
    fn end_waits(&mut self, waiting: &[Waiting]) -> Vec<Waiting> {
        for can_end in [ends_by_itself, can_be_ended] {
            let ended: Vec<_> = waiting.iter().filter(|w| can_end(w)).cloned().collect();
            if !ended.is_empty() {
                ended.iter().for_each(|waiting| self.end_wait(waiting));
                return ended;
            }
        }
        Vec::new()
    }

    fn end_wait(&mut self, waiting: &Waiting) {
        let at = &mut self.at;
        let (observed, ledger, facts) =
            (Arc::make_mut(&mut at.observed), Arc::make_mut(&mut at.ledger), Arc::make_mut(&mut at.facts));
        match waiting.reason {
            Reason::Downloading => {
                observed.images.extend(std::mem::take(&mut at.pulling).into_keys());
                let measured = std::mem::take(&mut at.measuring).into_iter();
                facts.image_sizes.extend(measured.map(|image| (image, ImageSize::default())));
            }
            Reason::Backoff => at.failed_steps.retain(|_, failure| failure.remaining.is_none()),
            Reason::Starting => {
                observed.services.retain(|seen| seen.state != ContainerState::Removing);
                for seen in observed.services.iter_mut().filter(|s| s.health == Health::Starting) {
                    seen.health = Health::Healthy;
                }
            }
            Reason::Dependency => self.end_dependencies(),
            Reason::Trial => {
                at.steady.extend(waiting.app.clone().map(|app| (app, Duration::MAX)));
            }
            Reason::HandOver => facts.handed_over.extend(waiting.app.clone().zip(waiting.service.clone())),
            Reason::Held => ledger.hold = None,
            Reason::Locked => {
                ledger.leases.clear();
                facts.locks.retain(|app, _| waiting.app.as_ref() != Some(app));
            }
            Reason::Window => facts.windows.values_mut().for_each(|state| *state = WindowState::Open),
            Reason::Clock => facts.clock = Clock::Trusted,
            Reason::Refused
            | Reason::Unhealthy
            | Reason::Rejected
            | Reason::InsufficientDisk
            | Reason::PortInUse
            | Reason::WrongArchitecture
            | Reason::UnsupportedImage
            | Reason::HostLacks
            | Reason::DownloadGivenUp
            | Reason::Stopped
            | Reason::EngineStuck
            | Reason::Degraded => {}
        }
    }

    /// Makes every service healthy, and completes the jobs that other services wait for.
    fn end_dependencies(&mut self) {
        let apps = self.at.target.iter().flat_map(|target| target.apps.keys());
        let mut jobs = BTreeSet::new();
        for app in apps {
            let specs = self.releases(app).flat_map(|release| release.services.values());
            let awaited = specs.flat_map(|spec| &spec.depends_on);
            let completing = awaited.filter(|(_, condition)| **condition == Condition::Completed);
            jobs.extend(completing.map(|(job, _)| (app.clone(), job.clone())));
        }
        for seen in &mut Arc::make_mut(&mut self.at.observed).services {
            if seen.state == ContainerState::Running
                && jobs.contains(&(seen.app.clone(), seen.service.clone()))
            {
                seen.state = ContainerState::Exited { code: 0 };
            }
            if seen.health == Health::Starting {
                seen.health = Health::Healthy;
            }
        }
    }
}

fn ends_by_itself(waiting: &Waiting) -> bool {
    match waiting.reason {
        Reason::Downloading | Reason::Starting | Reason::Dependency | Reason::Trial | Reason::HandOver => {
            true
        }
        Reason::Backoff => waiting.retry_in.is_some(),
        Reason::Refused
        | Reason::Unhealthy
        | Reason::Rejected
        | Reason::Held
        | Reason::Locked
        | Reason::Window
        | Reason::Clock
        | Reason::InsufficientDisk
        | Reason::PortInUse
        | Reason::WrongArchitecture
        | Reason::UnsupportedImage
        | Reason::HostLacks
        | Reason::DownloadGivenUp
        | Reason::Stopped
        | Reason::EngineStuck
        | Reason::Degraded => false,
    }
}

fn can_be_ended(waiting: &Waiting) -> bool {
    matches!(waiting.reason, Reason::Held | Reason::Locked | Reason::Window | Reason::Clock)
}
