//! Gives the reconciler access to the host and to registries. Only wiring.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::engine::EngineError;
use crate::host::{self, Bounds, Led, Locks};
use crate::http::Http;
use crate::model::{
    ApiKey, Clock, DeviceFacts, FileLock, HeldPort, HostNeed, ImageRef, ImageSize, LockError, MountError,
    NetworkSpec, Policy, Power, RangeTaken, RegistryLogin, RegistryPass, ServiceName, ServiceSpec, Subnet,
    Switch, VolumeName, VolumeSpec, Window, WindowState, with_causes,
};
use crate::reconcile::{HostAccess, MountedPath, Unmeasured};
use crate::registry::{self, RegistryError, Unanswered};
use crate::wire::policy;

use super::apps_api;

/// How long the resolution of a path may take.
const TO_FOLLOW: Duration = Duration::from_secs(5);

/// This machine, and the registries that it reaches.
#[derive(Debug)]
pub struct Host {
    locks: Locks,
    http: Http,
    /// That of the present cloud.
    login: watch::Receiver<Option<RegistryLogin>>,
    policy: Policy,
    /// What containers get to know of the device, except its cloud.
    device: DeviceFacts,
    /// Bounds the threads that wait for a hanging disk to one.
    following: Arc<Semaphore>,
}

impl Host {
    /// Access to this host, with the agent's runtime folder, the device's login for registries and the policy of its
    /// owner. Creates nothing yet.
    #[must_use]
    pub fn new(
        runtime_dir: &Path,
        http: Http,
        login: watch::Receiver<Option<RegistryLogin>>,
        policy: Policy,
    ) -> Self {
        let following = Arc::new(Semaphore::new(1));
        let device = DeviceFacts::default();
        Self { locks: Locks::new(services_dir(runtime_dir)), http, login, policy, device, following }
    }

    /// Tells containers these facts of the device, and those of its cloud, as far as the owner allows.
    #[must_use]
    pub fn introduced_as(self, device: DeviceFacts) -> Self {
        let supervisor_port = device.supervisor_port.filter(|_| self.policy.allows(Switch::SupervisorApi));
        Self { device: DeviceFacts { supervisor_port, ..device }, ..self }
    }

    /// Returns which paths of this host releases may mount.
    fn bounds(&self) -> Bounds {
        let barred = if self.policy.allows(Switch::DockerSocket) {
            Vec::new()
        } else {
            self.policy.sockets().map(str::to_owned).collect()
        };
        Bounds { allowed: self.policy.host_paths.clone(), barred }
    }
}

/// Returns the folder of all lock folders, as an absolute path, because the engine mounts them.
pub(super) fn services_dir(runtime_dir: &Path) -> PathBuf {
    let services = runtime_dir.join("services");
    std::path::absolute(&services).unwrap_or(services)
}

impl HostAccess for Host {
    fn prepare(&self, app: u64, service: &ServiceName) -> Result<(), LockError> {
        self.locks.prepare(app, service)
    }

    fn keep_folders(&self, keep: &BTreeSet<(u64, ServiceName)>) {
        self.locks.keep_only(keep);
    }

    fn lock(&self, app: u64, service: &ServiceName) -> Option<FileLock> {
        self.locks.foreign(app, service)
    }

    fn take_locks(&self, app: u64, services: &[ServiceName]) -> Result<(), LockError> {
        self.locks.take(app, services)
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

    fn lacks(&self, need: &HostNeed) -> Option<String> {
        host::lacks(need)
    }

    fn listeners(&self) -> Vec<HeldPort> {
        host::listeners()
    }

    async fn resolve_mounts(
        &self,
        spec: &ServiceSpec,
        volumes: &BTreeMap<VolumeName, VolumeSpec>,
    ) -> Result<Vec<MountedPath>, MountError> {
        let paths = policy::host_paths(spec, volumes);
        let Some((first, _)) = paths.first().cloned() else { return Ok(Vec::new()) };
        let (bounds, following) = (self.bounds(), Arc::clone(&self.following));
        let follow = async {
            let permit = following.acquire_owned().await;
            let followed = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                let resolve = |(path, is_writable): (String, bool)| match host::leads_to(&path, &bounds) {
                    Ok(Led { path, disk }) => Ok(MountedPath { path, disk, is_writable }),
                    Err(error) => Err(MountError::Refused { why: with_causes(&error) }),
                };
                paths.into_iter().map(resolve).collect::<Result<Vec<_>, _>>()
            });
            followed.await.unwrap_or_else(|error| Err(MountError::Unresolved { why: error.to_string() }))
        };
        let silent = |_| Err(MountError::Silent { path: first });
        let mounted = timeout(TO_FOLLOW, follow).await.unwrap_or_else(silent)?;
        // If every path may be mounted, a link cannot lead out of what is allowed.
        Ok(if self.policy.has_path("/") { Vec::new() } else { mounted })
    }

    fn check_ranges(&self, ranges: &[String]) -> Result<(), RangeTaken> {
        if self.policy.allows(Switch::HostNetwork) {
            return Ok(());
        }
        let subnet = |range: &String| Subnet { subnet: Some(range.clone()), ..Subnet::default() };
        let asked = NetworkSpec { subnets: ranges.iter().map(subnet).collect(), ..NetworkSpec::default() };
        let taken =
            host::routes().into_iter().find(|route| asked.overlaps(std::slice::from_ref(&route.range)));
        taken.map_or(Ok(()), |route| {
            Err(RangeTaken { asked: ranges.to_vec(), network: route.what, range: route.range })
        })
    }

    fn device(&self) -> DeviceFacts {
        let login = self.login.borrow();
        let login = login.as_ref().filter(|_| self.policy.allows(Switch::BalenaApi));
        let cloud = login.map(|login| (login.cloud.clone(), login.password.clone()));
        DeviceFacts { cloud, ..self.device.clone() }
    }

    fn new_key(&self) -> Option<ApiKey> {
        apps_api::new_key()
    }

    async fn end_run(&self, power: Power) -> Result<(), String> {
        host::end_run(match power {
            Power::Reboot => "reboot",
            Power::Off => "poweroff",
        })
        .await
    }

    async fn measure_image(&self, image: &ImageRef, architecture: &str) -> Result<ImageSize, Unmeasured> {
        let login = self.login.borrow().clone();
        let asked = registry::measure_image(&self.http, image, architecture, login.as_ref()).await;
        asked.map_err(|error| Unmeasured { after: error.after, why: with_causes(&error.why) })
    }

    async fn pass(&self, image: &ImageRef) -> Result<RegistryPass, EngineError> {
        let login = self.login.borrow().clone();
        match login {
            Some(login) => {
                registry::pass(&self.http, image, &login).await.map_err(|error| as_of_pull(image, error))
            }
            None => Ok(RegistryPass::Nothing),
        }
    }
}

/// Turns a registry's refusal to give a token into the error of a pull that cannot begin.
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
            EngineError::RateLimited { image, message: why.to_string() }
        }
        RegistryError::Unreachable { why, .. } => {
            let message = format!("{why}; the agent asks it what the engine is to show it");
            EngineError::Registry { image, message }
        }
    }
}
