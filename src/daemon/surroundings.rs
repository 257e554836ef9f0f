//! What the reconciler is told of the host and of registries. Only wiring.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::EngineError;
use crate::host::{self, Locks};
use crate::http::Http;
use crate::model::{
    Clock, FileLock, HeldPort, ImageRef, RegistryLogin, RegistryPass, ServiceName, Weight, Window,
    WindowState,
};
use crate::reconcile::{Surroundings, Unweighed};
use crate::registry::{self, RegistryError, Unanswered};

/// This machine, and the registries that it reaches.
#[derive(Debug)]
pub struct Host {
    locks: Locks,
    http: Http,
    login: Option<RegistryLogin>,
}

impl Host {
    /// The host as the agent with this runtime folder, and with this login for registries, knows it. Nothing is made yet.
    #[must_use]
    pub fn new(runtime_dir: &Path, http: Http, login: Option<RegistryLogin>) -> Self {
        Self { locks: Locks::new(services_dir(runtime_dir)), http, login }
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
        let asked = registry::weigh(&self.http, image, architecture, self.login.as_ref()).await;
        asked.map_err(|error| Unweighed { after: error.after, why: error.why.to_string() })
    }

    async fn pass(&self, image: &ImageRef) -> Result<RegistryPass, EngineError> {
        match &self.login {
            Some(login) => {
                registry::pass(&self.http, image, login).await.map_err(|error| as_of_pull(image, error))
            }
            None => Ok(RegistryPass::Nothing),
        }
    }
}

/// The error of a pull that cannot begin, because there is nothing that the engine may show the registry.
fn as_of_pull(image: &ImageRef, error: Unanswered) -> EngineError {
    let Unanswered { after, why } = error;
    let image = image.to_string();
    match why {
        RegistryError::NotFound { .. } => EngineError::NoImage { image, message: why.to_string() },
        RegistryError::Denied { .. } => {
            let message = "it does not accept the device's key".to_owned();
            EngineError::RegistryAuth { image, message }
        }
        RegistryError::ForeignRealm { realm, .. } => {
            let message = format!(
                "it wants the device's key to be shown to {realm}, which is not one of the cloud's hosts; if it may be \
                 shown there, add {realm} to cloud.registries"
            );
            EngineError::RegistryAuth { image, message }
        }
        RegistryError::Unreachable { why, .. } if after.is_some() => {
            EngineError::RateLimited { image, message: why }
        }
        RegistryError::Unreachable { why, .. } => {
            let message = format!("{why}; the agent asks it what the engine is to show it");
            EngineError::Registry { image, message }
        }
    }
}
