//! Gathers the facts that a plan needs: lock files, windows, the clock, free space, ports, volumes and image layers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::engine::{EngineError, Operate};
use crate::model::{
    AppId, Clock, Elapsed, Facts, FileLock, HeldPort, HostNeed, ObservedVolume, Plan, Reason, Release,
    ServiceName, Target, TargetApp, VolumeName, WantedApp,
};

use super::image_sizes::ImageSizes;
use super::lock_folders::Folder;
use super::{HostAccess, Memory, Reconciler, clock_wait, releases};

/// The facts that plans need, and what decides when each is asked for again.
#[derive(Debug, Default)]
pub(super) struct KnownFacts {
    pub(super) known: Arc<Facts>,
    /// Requests to registries for image sizes.
    pub(super) image_sizes: ImageSizes,
    /// Whether the engine's images have changed since it was asked for its layers.
    pub(super) are_layers_old: bool,
    /// Whether a release is refused because of an existing volume. Volumes are then asked for every time.
    is_volume_in_the_way: bool,
}

impl KnownFacts {
    /// The facts, to change them. They are copied first if a situation shares them.
    pub(super) fn known_mut(&mut self) -> &mut Facts {
        Arc::make_mut(&mut self.known)
    }
}

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Reads the facts that are cheap: uptime, clock, windows and lock folders.
    pub(super) fn observe_host(&mut self) {
        self.facts.known_mut().uptime = self.host.uptime();
        self.facts.known_mut().clock = self.host.clock(self.ledger.clock.seen_at.as_deref());
        self.gather_windows();
        self.read_lock_folders();
    }

    /// Records when each container entered its state. The engine's text has only the time that had passed when it was asked.
    pub(super) fn note_since(&mut self) {
        let (known, uptime) = (&self.facts.known.since, self.facts.known.uptime);
        let since = self.observed.services.iter().filter_map(|seen| {
            let elapsed = Elapsed::find(&seen.status)?;
            Some((seen.container.clone(), elapsed.began(uptime, known.get(&seen.container).copied())?))
        });
        let since: BTreeMap<_, _> = since.collect();
        if since != *known {
            self.facts.known_mut().since = since;
        }
    }

    /// Reads the cheap facts and, if an update is about to begin, those of host and engine that it needs. A fact that
    /// cannot be read stays unknown.
    pub(super) async fn gather(&mut self) {
        self.observe_host();
        if self.heals.forget_old(Arc::make_mut(&mut self.ledger), self.settings.plan.heal_window) {
            self.save_ledger().await;
        }
        if self.facts.are_layers_old {
            self.facts.known_mut().layers = None;
        }
        let (is_updating, has_fixed_port) = self.pending_updates();
        if !is_updating {
            let known = self.facts.known_mut();
            (known.free, known.ports, known.volumes) = (None, Vec::new(), None);
            known.lacks.clear();
            return;
        }
        let about = self.engine_link.about(&*self.engine).await;
        self.facts.known_mut().free = about.and_then(|about| self.host.free(&about.data_root));
        self.facts.known_mut().architecture =
            about.map(|about| about.architecture.clone()).filter(|name| !name.is_empty());
        self.facts.known_mut().lacks_zstd = about.is_some_and(|about| about.lacks_zstd);
        self.facts.known_mut().ports = if has_fixed_port { self.held_ports().await } else { Vec::new() };
        self.facts.known_mut().lacks = self.lacks();
        // Volumes only change by hand, so they are read once, and again while one of them blocks a release.
        if self.facts.known.volumes.is_none() || self.facts.is_volume_in_the_way {
            self.facts.known_mut().volumes = self.volumes().await.ok();
        }
    }

    /// Asks the engine for the existing volumes of every wanted release.
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

    /// Asks the host for what the wanted releases need of it.
    fn lacks(&self) -> BTreeMap<HostNeed, String> {
        let specs =
            self.target().into_iter().flat_map(releases).flat_map(|release| release.services.values());
        let needs: BTreeSet<_> = specs.flat_map(HostNeed::of).collect();
        needs.into_iter().filter_map(|need| Some((need.clone(), self.host.lacks(&need)?))).collect()
    }

    fn target(&self) -> Option<&Target> {
        self.delivered.as_ref().map(|delivered| &*delivered.target)
    }

    /// Returns whether an update is about to begin, i.e. a wanted release is neither good, rejected nor on trial, and
    /// whether such a release publishes a port of the host that its author has chosen.
    fn pending_updates(&self) -> (bool, bool) {
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

    /// Reads the state of every window of the wanted releases and of the settings.
    fn gather_windows(&mut self) {
        let own = self.target().into_iter().flat_map(releases).flat_map(|release| release.windows.iter());
        let all: BTreeSet<_> = own.chain(&self.settings.plan.windows).cloned().collect();
        let state = |window| {
            let state = self.host.window(&window);
            (window, state)
        };
        self.facts.known_mut().windows = all.into_iter().map(state).collect();
    }

    /// The folders of all services that have a container or are part of a wanted or good release. `None` while there is
    /// a container of an app without a known number: which folder is its own is not known.
    fn needed_folders(&self) -> Option<BTreeSet<Folder>> {
        let numbers = self.numbers();
        let mut needed = BTreeSet::new();
        for seen in self.observed.services.iter().chain(&self.observed.parked) {
            needed.insert((*numbers.get(&seen.app)?, seen.service.clone()));
        }
        let wanted = self.target().into_iter().flat_map(|target| &target.apps);
        let wanted = wanted.filter_map(|(id, app)| Some((id, app.release()?)));
        let good = self.ledger.apps.iter().filter_map(|(id, app)| Some((id, app.good.as_ref()?)));
        for (app, release) in wanted.chain(good) {
            let Some(number) = numbers.get(app) else { continue };
            needed.extend(release.services.keys().map(|service| (*number, service.clone())));
        }
        Some(needed)
    }

    /// Removes the lock folders that no service needs, and reads those of all services with a container.
    fn read_lock_folders(&mut self) {
        if let Some(needed) = self.needed_folders() {
            self.lock_folders.keep_only(&*self.host, &needed);
        }
        let mut locks: BTreeMap<AppId, BTreeMap<ServiceName, FileLock>> = BTreeMap::new();
        let mut handed_over = BTreeSet::new();
        for (app, number, service) in self.services() {
            self.lock_folders.prepare(&*self.host, number, &service);
            if let Some(lock) = self.host.lock(number, &service) {
                locks.entry(app.clone()).or_default().insert(service.clone(), lock);
            }
            if self.host.has_handed_over(number, &service) {
                handed_over.insert((app, service));
            }
        }
        self.facts.known_mut().own_locks = self
            .numbers()
            .into_iter()
            .filter(|(_, number)| self.host.has_own_locks(*number))
            .map(|(app, _)| app)
            .collect();
        let known = self.facts.known_mut();
        (known.locks, known.handed_over) = (locks, handed_over);
    }

    /// Returns the number of every app for which one is known, from the ledger or the target.
    pub(super) fn numbers(&self) -> BTreeMap<AppId, u64> {
        let remembered = self.ledger.apps.iter().filter_map(|(id, app)| Some((id.clone(), app.number?)));
        let apps = self.target().into_iter().flat_map(|target| &target.apps);
        let targeted = apps.filter_map(|(id, app)| Some((id.clone(), app.number()?)));
        remembered.chain(targeted).collect()
    }

    /// Returns every service that has a container, with the number of its app.
    fn services(&self) -> BTreeSet<(AppId, u64, ServiceName)> {
        let numbers = self.numbers();
        let seen = self.observed.services.iter();
        seen.filter_map(|s| Some((s.app.clone(), *numbers.get(&s.app)?, s.service.clone()))).collect()
    }

    /// Returns the ports that programs of the host listen on and those that containers publish. A port on which the
    /// engine listens for a container is listed once, as the container's.
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

    /// Asks the engine for its layers if free space may be too small for a release without them. Returns `true` if the
    /// layers are new, so that the plan must be made again.
    pub(super) async fn ask_for_layers(&mut self, plan: &Plan) -> bool {
        let is_short = plan.waiting.iter().any(|w| w.reason == Reason::InsufficientDisk);
        if !is_short || self.facts.known.layers.is_some() {
            return false;
        }
        self.facts.known_mut().layers = self.engine.layers().await.ok();
        self.facts.are_layers_old = false;
        self.facts.known.layers.is_some()
    }

    /// Reads from a plan which lock folders to watch and whether a volume blocks a release, and counts the wait for a
    /// trusted clock.
    pub(super) async fn note_waiting(&mut self, plan: &Plan) {
        let waits = |reason| plan.waiting.iter().filter(move |w| w.reason == reason);
        let apps: BTreeSet<_> =
            waits(Reason::Locked).chain(waits(Reason::HandOver)).filter_map(|w| w.app.clone()).collect();
        let services = self.services().into_iter().filter(|(app, _, _)| apps.contains(app));
        let folders = services.map(|(_, number, service)| (number, service));
        self.lock_folders.watch(&*self.host, folders);
        self.facts.is_volume_in_the_way = waits(Reason::Refused).filter_map(|w| w.app.as_ref()).any(|app| {
            self.target().and_then(|t| t.apps.get(app)).is_some_and(|app| app.release().is_some())
        });
        let is_waiting = waits(Reason::Clock).next().is_some();
        let must_save = self.clock_wait.count(is_waiting, &mut Arc::make_mut(&mut self.ledger).clock);
        let has_settled =
            clock_wait::settle(&self.facts.known.clock, &mut Arc::make_mut(&mut self.ledger).clock);
        if must_save || has_settled {
            self.save_ledger().await;
        }
    }

    /// Notes the time in the ledger if the clock is trusted. The caller saves the ledger.
    pub(super) fn note_time(&mut self) {
        if self.host.clock(self.ledger.clock.seen_at.as_deref()) == Clock::Trusted {
            Arc::make_mut(&mut self.ledger).clock.seen_at = Some(self.host.now());
        }
    }
}
