//! Gathers what a plan needs to know of the host: locks, windows, the clock, free space, ports.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{EngineError, Operate};
use crate::model::{
    AppId, Clock, ContainerState, FileLock, HeldPort, ObservedVolume, Plan, Reason, Release, ServiceName,
    Step, Strategy, Target, TargetApp, VolumeName, WantedApp,
};
use crate::plan::CLOCK_PATIENCE;

use super::{HostAccess, Memory, Reconciler, releases};

/// How often lock folders are looked at while something waits for them: a few small files, no engine.
const FILES: Duration = Duration::from_millis(500);

/// How much of the waiting for a clock a power cut may make us forget, to be kind to the disk.
const SAVE_CLOCK: Duration = Duration::from_secs(600);

/// The lock folder of a service, as it was seen last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watched {
    number: u64,
    service: ServiceName,
    lock: Option<FileLock>,
    has_handed_over: bool,
}

impl Watched {
    fn read<H: HostAccess>(host: &H, number: u64, service: &ServiceName) -> Self {
        let lock = host.lock(number, service);
        let has_handed_over = host.has_handed_over(number, service);
        Self { number, service: service.clone(), lock, has_handed_over }
    }
}

/// Returns when one of the folders is not as it was; never, if none is watched.
pub(super) async fn change<H: HostAccess>(host: &H, watched: &[Watched]) {
    if watched.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(FILES).await;
        if watched.iter().any(|was| Watched::read(host, was.number, &was.service) != *was) {
            return;
        }
    }
}

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Asks the host for what costs nothing: time, windows, locks.
    pub(super) fn observe_host(&mut self) {
        self.facts.uptime = self.host.uptime();
        self.facts.clock = self.host.clock(self.ledger.clock.seen_at.as_deref());
        self.gather_windows();
        self.gather_files();
    }

    /// Asks the host, and the engine where an update is about to begin. What cannot be told is left out.
    pub(super) async fn gather(&mut self) {
        self.observe_host();
        self.forget_old_heals().await;
        if self.images_changed {
            self.facts.layers = None;
        }
        let (is_updating, has_fixed_port) = self.is_updating();
        if !is_updating {
            (self.facts.free, self.facts.ports, self.facts.volumes) = (None, Vec::new(), None);
            return;
        }
        if self.about.is_none() {
            self.about = self.engine.about().await.ok();
        }
        self.facts.architecture =
            self.about.as_ref().map(|about| about.architecture.clone()).filter(|name| !name.is_empty());
        self.facts.free = self.about.as_ref().and_then(|about| self.host.free(&about.data_root));
        self.facts.ports = if has_fixed_port { self.held_ports().await } else { Vec::new() };
        // They change by hand only, and rarely: they are looked at again while one stands in the way.
        if self.facts.volumes.is_none() || self.is_volume_in_the_way {
            self.facts.volumes = self.volumes().await.ok();
        }
    }

    /// What is here of the volumes of every wanted release.
    async fn volumes(&self) -> Result<BTreeMap<(AppId, VolumeName), ObservedVolume>, EngineError> {
        let mut found = BTreeMap::new();
        for app in self.target().into_iter().flat_map(|target| target.apps.values()) {
            let TargetApp::Wanted(WantedApp { app, release: Some(release), .. }) = app else { continue };
            let names: BTreeSet<_> = release.volumes.keys().cloned().collect();
            if names.is_empty() {
                continue;
            }
            let here = self.engine.volumes_of(app, &names).await?;
            found.extend(here.into_iter().map(|(name, volume)| ((app.id.clone(), name), volume)));
        }
        Ok(found)
    }

    fn target(&self) -> Option<&Target> {
        self.delivered.as_ref().map(|delivered| &delivered.target)
    }

    /// Whether a release is wanted that is neither good, rejected nor on trial, and whether any such one
    /// publishes a port that its author has chosen.
    fn is_updating(&self) -> (bool, bool) {
        let is_new = |(id, release): &(&AppId, &Release)| {
            let Some(ledger) = self.ledger.apps.get(*id) else { return true };
            let key = release.key();
            let is = |other: Option<&crate::model::ReleaseKey>| other == Some(&key);
            ledger.good.as_ref() != Some(*release)
                && !is(ledger.rejected.as_ref().map(|r| &r.release))
                && !is(ledger.trial.as_ref().map(|t| &t.release))
        };
        let apps = self.target().into_iter().flat_map(|target| &target.apps);
        let wanted = apps.filter_map(|(id, app)| Some((id, app.release()?)));
        let new: Vec<_> = wanted.filter(is_new).collect();
        let mut specs = new.iter().flat_map(|(_, release)| release.services.values());
        let has_fixed_port = specs.any(|spec| spec.ports.iter().any(|port| port.host_port.is_some()));
        (!new.is_empty(), has_fixed_port)
    }

    fn gather_windows(&mut self) {
        let own = self.target().into_iter().flat_map(releases).flat_map(|release| release.windows.iter());
        let all: BTreeSet<_> = own.chain(&self.settings.plan.windows).cloned().collect();
        let state = |window| {
            let state = self.host.window(&window);
            (window, state)
        };
        self.facts.windows = all.into_iter().map(state).collect();
    }

    /// Removes the lock folders of services of which there is no container, and none is to come. While there is a
    /// container of an app whose number nobody knows, which folder is its own is not known either.
    fn sweep_folders(&mut self) {
        let numbers = self.numbers();
        let observed = self.observed.services.iter().chain(&self.observed.parked);
        let mut keep: BTreeSet<(u64, ServiceName)> = BTreeSet::new();
        for seen in observed {
            let Some(number) = numbers.get(&seen.app) else { return };
            keep.insert((*number, seen.service.clone()));
        }
        let wanted = self.target().into_iter().flat_map(|target| &target.apps);
        let wanted = wanted.filter_map(|(id, app)| Some((id, app.release()?)));
        let good = self.ledger.apps.iter().filter_map(|(id, app)| Some((id, app.good.as_ref()?)));
        for (app, release) in wanted.chain(good) {
            let Some(number) = numbers.get(app) else { continue };
            keep.extend(release.services.keys().map(|service| (*number, service.clone())));
        }
        self.prepared.retain(|service| keep.contains(service));
        self.host.keep_folders(&keep);
    }

    /// Reads the lock folders of all services that are here, or are to come.
    fn gather_files(&mut self) {
        self.sweep_folders();
        let mut locks: BTreeMap<AppId, BTreeMap<ServiceName, FileLock>> = BTreeMap::new();
        let mut handed_over = BTreeSet::new();
        for (app, number, service) in self.services() {
            // After a boot the engine has made the folder itself, and only for root.
            if self.prepared.insert((number, service.clone())) {
                let _ = self.host.prepare(number, &service);
            }
            if let Some(lock) = self.host.lock(number, &service) {
                locks.entry(app.clone()).or_default().insert(service.clone(), lock);
            }
            if self.host.has_handed_over(number, &service) {
                handed_over.insert((app, service));
            }
        }
        self.facts.own_locks = self
            .numbers()
            .into_iter()
            .filter(|(_, number)| self.host.has_own_locks(*number))
            .map(|(app, _)| app)
            .collect();
        (self.facts.locks, self.facts.handed_over) = (locks, handed_over);
    }

    /// Every app with its number, as far as it is known.
    pub(super) fn numbers(&self) -> BTreeMap<AppId, u64> {
        let remembered = self.ledger.apps.iter().filter_map(|(id, app)| Some((id.clone(), app.number?)));
        let apps = self.target().into_iter().flat_map(|target| &target.apps);
        let told = apps.filter_map(|(id, app)| Some((id.clone(), app.number()?)));
        remembered.chain(told).collect()
    }

    /// Every service of which there is a container.
    fn services(&self) -> BTreeSet<(AppId, u64, ServiceName)> {
        let numbers = self.numbers();
        let seen = self.observed.services.iter();
        seen.filter_map(|s| Some((s.app.clone(), *numbers.get(&s.app)?, s.service.clone()))).collect()
    }

    /// What listens on the host, and what containers publish. The engine listens for its containers: that
    /// is told once, as theirs.
    async fn held_ports(&self) -> Vec<HeldPort> {
        let published = self.engine.published().await.unwrap_or_default();
        let is_published = |held: &HeldPort| {
            published.iter().any(|other| other.port == held.port && other.protocol == held.protocol)
        };
        let mut held = self.host.listeners();
        held.retain(|listener| !is_published(listener));
        held.extend(published);
        held
    }

    /// Asks the engine for its layers when their bytes decide whether a release fits; whether it did.
    pub(super) async fn learns_layers(&mut self, plan: &Plan) -> bool {
        let is_short = plan.waiting.iter().any(|w| w.reason == Reason::InsufficientDisk);
        if !is_short || self.facts.layers.is_some() {
            return false;
        }
        self.facts.layers = self.engine.layers().await.ok();
        self.images_changed = false;
        self.facts.layers.is_some()
    }

    /// Takes from a plan which lock folders are to be watched, and counts the waiting for the clock.
    pub(super) async fn note_waiting(&mut self, plan: &Plan) {
        let waits = |reason| plan.waiting.iter().filter(move |w| w.reason == reason);
        let apps: BTreeSet<_> =
            waits(Reason::Locked).chain(waits(Reason::HandOver)).filter_map(|w| w.app.clone()).collect();
        let services = self.services().into_iter().filter(|(app, _, _)| apps.contains(app));
        self.watched_files =
            services.map(|(_, number, service)| Watched::read(&*self.host, number, &service)).collect();
        self.is_volume_in_the_way = waits(Reason::Refused).filter_map(|w| w.app.as_ref()).any(|app| {
            self.target().and_then(|t| t.apps.get(app)).is_some_and(|app| app.release().is_some())
        });
        let is_waiting = waits(Reason::Clock).next().is_some();
        let since = self.clock_watched.get_or_insert_with(Instant::now);
        let passed = since.elapsed();
        if !is_waiting {
            self.clock_watched = None;
        } else if passed >= SAVE_CLOCK {
            self.ledger.clock.waited += passed;
            self.clock_watched = Some(Instant::now());
            self.save_ledger().await;
        }
        let is_trusted = self.facts.clock == Clock::Trusted;
        let note = &mut self.ledger.clock;
        let has_waited_enough = !is_trusted && note.waited >= CLOCK_PATIENCE && note.seen_at.is_some();
        if is_trusted && !note.waited.is_zero() {
            note.waited = Duration::ZERO;
            self.save_ledger().await;
        } else if has_waited_enough {
            // The clock has not come back to the time that was noted: that time was wrong.
            note.seen_at = None;
            self.save_ledger().await;
        }
    }

    /// A clock that can be believed leaves its time in the ledger, whenever that is written anyway.
    pub(super) fn note_time(&mut self) {
        if self.host.clock(self.ledger.clock.seen_at.as_deref()) == Clock::Trusted {
            self.ledger.clock.seen_at = Some(self.host.now());
        }
    }

    /// A heal counts for the heal window, from when this agent first saw it.
    async fn forget_old_heals(&mut self) {
        let window = self.settings.plan.heal_window;
        let mut has_changed = false;
        for (id, app) in &mut self.ledger.apps {
            let count = app.heals.len();
            app.heals.retain(|service, _| {
                let since = self.heals_seen.entry((id.clone(), service.clone())).or_insert_with(Instant::now);
                since.elapsed() < window
            });
            has_changed |= app.heals.len() != count;
        }
        let ledger = &self.ledger;
        self.heals_seen.retain(|(id, service), _| {
            ledger.apps.get(id).is_some_and(|app| app.heals.contains_key(service))
        });
        if has_changed {
            self.save_ledger().await;
        }
    }

    /// A heal counts anew from each time that it happens.
    pub(super) fn note_heal(&mut self, step: &Step) {
        if let Step::Heal { app, service } = step {
            self.heals_seen.insert((app.clone(), service.clone()), Instant::now());
        }
    }

    /// Until the first heal counts no more.
    pub(super) fn next_heal_due(&self) -> Option<Duration> {
        let window = self.settings.plan.heal_window;
        self.heals_seen.values().map(|since| window.saturating_sub(since.elapsed())).min()
    }

    /// Counts for how long successors have run beside the predecessors that they take over from.
    pub(super) fn count_hand_overs(&mut self, passed: Duration) {
        let Some(delivered) = self.delivered.clone() else { return };
        for (id, ledger) in &mut self.ledger.apps {
            let release = delivered.target.apps.get(id).and_then(|app| app.release());
            let (Some(trial), Some(release)) = (&mut ledger.trial, release) else { continue };
            for (name, spec) in &release.services {
                if !matches!(spec.strategy, Strategy::HandOver { .. }) {
                    continue;
                }
                let runs = |is_new: bool| {
                    self.observed.services.iter().any(|s| {
                        let is_of = s.app == *id && s.service == *name;
                        // One that crashes over and over takes its time all the same.
                        let is_up = matches!(s.state, ContainerState::Running | ContainerState::Restarting);
                        is_of && is_up && (s.spec == spec.hash) == is_new
                    })
                };
                if runs(true) && runs(false) {
                    *trial.hand_over.entry(name.clone()).or_default() += passed;
                }
            }
        }
    }
}
