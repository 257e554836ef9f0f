//! What the reconciler is told of the host and of registries. Only wiring.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::{self, Locks};
use crate::model::{
    Clock, FileLock, HeldPort, ImageRef, RegistryLogin, ServiceName, Weight, Window, WindowState,
};
use crate::reconcile::{Surroundings, Unweighed};
use crate::registry;

/// This machine, and the registries that it reaches.
#[derive(Debug)]
pub struct Host {
    locks: Locks,
    login: Option<RegistryLogin>,
}

impl Host {
    /// The host as the agent with this runtime folder, and with this login for registries, knows it. Nothing is made yet.
    #[must_use]
    pub fn new(runtime_dir: &Path, login: Option<RegistryLogin>) -> Self {
        Self { locks: Locks::new(services_dir(runtime_dir)), login }
    }
}

/// Where the lock folders of all services are; absolute, because the engine looks for them, too.
pub(super) fn services_dir(runtime_dir: &Path) -> PathBuf {
    let services = runtime_dir.join("services");
    std::path::absolute(&services).unwrap_or(services)
}

impl Surroundings for Host {
    fn prepare(&self, app: u64, service: &ServiceName) -> Result<(), String> {
        self.locks.prepare(app, service).map_err(|e| e.to_string())
    }

    fn keep_folders(&self, keep: &BTreeSet<(u64, ServiceName)>) {
        self.locks.keep_only(keep);
    }

    fn lock(&self, app: u64, service: &ServiceName) -> Option<FileLock> {
        self.locks.foreign(app, service)
    }

    fn take_locks(&self, app: u64, services: &[ServiceName]) -> Result<(), String> {
        self.locks.take(app, services).map_err(|e| e.to_string())
    }

    fn has_own_locks(&self, app: u64) -> bool {
        self.locks.has_own(app)
    }

    fn release_locks(&self, app: u64) {
        self.locks.release(app);
    }

    fn break_locks(&self, app: u64, service: &ServiceName) {
        self.locks.break_all(app, service);
    }

    fn has_handed_over(&self, app: u64, service: &ServiceName) -> bool {
        self.locks.has_handed_over(app, service)
    }

    fn forget_hand_over(&self, app: u64, service: &ServiceName) {
        self.locks.forget_hand_over(app, service);
    }

    fn window(&self, window: &Window) -> WindowState {
        host::window(window, host::now())
    }

    fn clock(&self, seen_at: Option<&str>) -> Clock {
        host::trust(host::now(), seen_at)
    }

    fn now(&self) -> String {
        host::time_in(Duration::ZERO)
    }

    fn uptime(&self) -> Duration {
        host::uptime()
    }

    fn free(&self, path: &str) -> Option<u64> {
        host::free(path)
    }

    fn listeners(&self) -> Vec<HeldPort> {
        host::listeners()
    }

    async fn weigh(&self, image: &ImageRef, architecture: &str) -> Result<Weight, Unweighed> {
        let asked = registry::weigh(image, architecture, self.login.as_ref()).await;
        asked.map_err(|error| Unweighed { after: error.after, why: error.why.to_string() })
    }
}
