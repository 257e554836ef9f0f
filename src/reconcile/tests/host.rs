//! A host and its registries in memory, to be scripted by a test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::engine::EngineError;
use crate::model::{
    ApiKey, Clock, DeviceFacts, FileLock, HeldPort, HostNeed, ImageRef, ImageSize, LockError, MountError,
    MountSource, Power, RangeTaken, RegistryPass, ServiceName, ServiceSpec, VolumeName, VolumeSpec, Window,
    WindowState,
};
use crate::reconcile::{HostAccess, MountedPath, Unmeasured};

/// A service's lock folder.
type Folder = (u64, ServiceName);

#[derive(Debug, Default)]
pub(super) struct Host(Mutex<Inside>);

#[derive(Debug)]
pub(super) struct Inside {
    /// The lock folders that are there.
    pub(super) folders: BTreeSet<Folder>,
    /// Lock files of apps.
    pub(super) locks: BTreeSet<Folder>,
    /// Lock files that apps make just before ours are taken.
    pub(super) late: BTreeSet<Folder>,
    /// Lock files of ours.
    pub(super) own: BTreeSet<Folder>,
    pub(super) handed_over: BTreeSet<Folder>,
    pub(super) windows: BTreeMap<Window, WindowState>,
    pub(super) clock: Clock,
    /// The time seen before with which the clock was judged last.
    pub(super) judged_by: Option<String>,
    pub(super) now: String,
    pub(super) started: tokio::time::Instant,
    pub(super) free: Option<u64>,
    pub(super) listeners: Vec<HeldPort>,
    pub(super) lacks: BTreeMap<HostNeed, String>,
    pub(super) sizes: BTreeMap<ImageRef, Result<ImageSize, Unmeasured>>,
    /// How often a registry was asked.
    pub(super) asked: u32,
    /// Where paths of the host lead.
    pub(super) links: BTreeMap<String, String>,
    /// Paths that may not be mounted, and ranges that the host has.
    pub(super) barred: BTreeSet<String>,
    /// What engines are to show registries; nothing to those that are not named.
    pub(super) passes: BTreeMap<ImageRef, Result<RegistryPass, EngineError>>,
    pub(super) device: DeviceFacts,
    /// How many keys were made.
    pub(super) keys: u32,
    /// Reboots and shutdowns.
    pub(super) ended: Vec<Power>,
}

impl Default for Inside {
    fn default() -> Self {
        Self {
            folders: BTreeSet::new(),
            locks: BTreeSet::new(),
            late: BTreeSet::new(),
            own: BTreeSet::new(),
            handed_over: BTreeSet::new(),
            windows: BTreeMap::new(),
            clock: Clock::Trusted,
            judged_by: None,
            now: "2026-01-01T00:00:00Z".to_owned(),
            started: tokio::time::Instant::now(),
            free: None,
            lacks: BTreeMap::new(),
            listeners: Vec::new(),
            sizes: BTreeMap::new(),
            asked: 0,
            links: BTreeMap::new(),
            barred: BTreeSet::new(),
            passes: BTreeMap::new(),
            device: DeviceFacts::default(),
            keys: 0,
            ended: Vec::new(),
        }
    }
}

impl Host {
    pub(super) fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostAccess for Host {
    fn prepare(&self, app: u64, service: &ServiceName) -> Result<(), LockError> {
        self.inside().folders.insert((app, service.clone()));
        Ok(())
    }

    fn keep_folders(&self, keep: &BTreeSet<Folder>) {
        self.inside().folders.retain(|folder| keep.contains(folder));
    }

    fn lock(&self, app: u64, service: &ServiceName) -> Option<FileLock> {
        let is_locked = self.inside().locks.contains(&(app, service.clone()));
        is_locked.then(|| FileLock { path: "/tmp/balena/updates.lock".to_owned() })
    }

    fn take_locks(&self, app: u64, services: &[ServiceName]) -> Result<(), LockError> {
        let mut inside = self.inside();
        let late = std::mem::take(&mut inside.late);
        inside.locks.extend(late);
        let folders: Vec<Folder> = services.iter().map(|service| (app, service.clone())).collect();
        if let Some((_, service)) = folders.iter().find(|folder| inside.locks.contains(folder)) {
            let path = "/tmp/balena/updates.lock".to_owned();
            return Err(LockError::Held { service: service.clone(), path });
        }
        inside.own.extend(folders);
        Ok(())
    }

    fn has_own_locks(&self, app: u64) -> bool {
        self.inside().own.iter().any(|(number, _)| *number == app)
    }

    fn release_locks(&self, app: u64) {
        self.inside().own.retain(|(number, _)| *number != app);
    }

    fn break_locks(&self, app: u64, service: &ServiceName) {
        self.inside().locks.remove(&(app, service.clone()));
    }

    fn has_handed_over(&self, app: u64, service: &ServiceName) -> bool {
        self.inside().handed_over.contains(&(app, service.clone()))
    }

    fn forget_hand_over(&self, app: u64, service: &ServiceName) {
        self.inside().handed_over.remove(&(app, service.clone()));
    }

    fn window(&self, window: &Window) -> WindowState {
        self.inside().windows.get(window).cloned().unwrap_or(WindowState::Open)
    }

    fn clock(&self, seen_before: Option<&str>) -> Clock {
        let mut inside = self.inside();
        inside.judged_by = seen_before.map(str::to_owned);
        inside.clock.clone()
    }

    fn now(&self) -> String {
        self.inside().now.clone()
    }

    fn uptime(&self) -> Duration {
        self.inside().started.elapsed()
    }

    fn free(&self, _: &str) -> Option<u64> {
        self.inside().free
    }

    fn lacks(&self, need: &HostNeed) -> Option<String> {
        self.inside().lacks.get(need).cloned()
    }

    fn listeners(&self) -> Vec<HeldPort> {
        self.inside().listeners.clone()
    }

    async fn resolve_mounts(
        &self,
        spec: &ServiceSpec,
        _: &BTreeMap<VolumeName, VolumeSpec>,
    ) -> Result<Vec<MountedPath>, MountError> {
        let inside = self.inside();
        let mut bound = Vec::new();
        for mount in &spec.mounts {
            let MountSource::Host(path) = &mount.source else { continue };
            let path = inside.links.get(path).unwrap_or(path).clone();
            if inside.barred.contains(&path) {
                return Err(MountError::Refused { why: format!("{path} may not be mounted") });
            }
            let disk = if path.starts_with("/srv/disk/") { "/srv/disk" } else { "/" }.to_owned();
            bound.push(MountedPath { path, disk, is_writable: !mount.is_read_only });
        }
        Ok(bound)
    }

    fn check_ranges(&self, ranges: &[String]) -> Result<(), RangeTaken> {
        let barred = &self.inside().barred;
        let taken = ranges.iter().find(|range| barred.contains(*range));
        taken.map_or(Ok(()), |range| {
            Err(RangeTaken { asked: ranges.to_vec(), network: "eth0".to_owned(), range: range.clone() })
        })
    }

    async fn measure_image(&self, image: &ImageRef, _: &str) -> Result<ImageSize, Unmeasured> {
        let mut inside = self.inside();
        inside.asked += 1;
        inside.sizes.get(image).cloned().unwrap_or_else(|| Ok(ImageSize::default()))
    }

    fn device(&self) -> DeviceFacts {
        self.inside().device.clone()
    }

    fn new_key(&self) -> Option<ApiKey> {
        let mut inside = self.inside();
        inside.keys += 1;
        Some(ApiKey { id: inside.keys.to_string(), secret: format!("key-{}", inside.keys) })
    }

    async fn end_run(&self, power: Power) -> Result<(), String> {
        self.inside().ended.push(power);
        Ok(())
    }

    async fn pass(&self, image: &ImageRef) -> Result<RegistryPass, EngineError> {
        self.inside().passes.get(image).cloned().unwrap_or(Ok(RegistryPass::Nothing))
    }
}
