//! The real engine: Docker's API over its unix socket, by bollard.
//!
//! Every call has a deadline of ours, and the API version is negotiated at
//! each connect, so that an engine may be upgraded under a running agent.

mod inspect;
mod operate;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::{Future, pending};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::errors::Error;
use bollard::models::{EndpointSettings, EventMessage, NetworkConnectRequest};
use futures_util::StreamExt;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use crate::model::{ContainerId, ContentFile, Instance, Mount, MountSource, VolumeName, VolumeSpec};
use crate::tar;

use super::client::{Client, connect};
use super::docker_spec::{self, label, passed_over_by_podman};
use super::notices::{self, Ending};
use super::{EngineError, NewContainer};

/// Paths of the engine's API.
pub(super) const CONTAINERS: &str = "/containers/json";
pub(super) const IMAGES: &str = "/images/json";
pub(super) const INFO: &str = "/info";
const EVENTS: &str = "/events";
const NETWORKS: &str = "/networks";
const VOLUMES: &str = "/volumes";

/// How to reach the engine, and for which instance.
#[derive(Debug, Clone)]
pub struct DockerSettings {
    /// Path of the engine's unix socket.
    pub socket: PathBuf,
    pub instance: Instance,
    /// Where the lock folders of services are, `<app number>/<service>`: an absolute path, as the engine
    /// sees it.
    pub services_dir: PathBuf,
    /// How long a download may make no progress.
    pub stall_timeout: Duration,
}

/// A Docker Engine, or anything that speaks its API.
#[derive(Debug)]
pub struct Docker {
    settings: DockerSettings,
    /// Connected at the first call, and again after the connection was lost.
    client: Mutex<Option<Client>>,
    /// Stopped containers that the engine can never start again, as the errors of their starts show.
    lost: std::sync::Mutex<BTreeSet<ContainerId>>,
    /// No container of a balena supervisor was found.
    is_without_originals: AtomicBool,
    /// The containers of a balena supervisor that were observed last, each with its time from the stop signal to SIGKILL.
    originals: std::sync::Mutex<BTreeMap<ContainerId, Duration>>,
}

impl Docker {
    /// An engine that is not connected yet; nothing is called.
    #[must_use]
    pub fn new(settings: DockerSettings) -> Self {
        Self {
            settings,
            client: Mutex::new(None),
            lost: std::sync::Mutex::default(),
            is_without_originals: AtomicBool::new(false),
            originals: std::sync::Mutex::default(),
        }
    }

    /// Returns `true` if a balena supervisor created the container. Its anonymous volumes have data of the app, and stay when
    /// it is removed; ours has none with data.
    fn is_original(&self, id: &ContainerId) -> bool {
        self.originals.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    pub(super) async fn client(&self) -> Result<Client, EngineError> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let socket = self.settings.socket.display().to_string();
        let unreachable = |e: Error| EngineError::Unreachable { socket: socket.clone(), cause: e.into() };
        let connected = tokio::time::timeout(EngineError::DEADLINE, connect(&self.settings.socket)).await;
        let fresh = connected
            .map_err(|_| EngineError::Timeout { call: "version", seconds: EngineError::DEADLINE.as_secs() })?
            .map_err(unreachable)?;
        *client = Some(fresh.clone());
        Ok(fresh)
    }

    /// Makes one call within `deadline`. A broken connection is dropped, so that the next call connects and negotiates
    /// again.
    pub(super) async fn call<T, F, Fut>(
        &self,
        name: &'static str,
        deadline: Duration,
        make: F,
    ) -> Result<T, EngineError>
    where
        F: FnOnce(Client) -> Fut + Send,
        Fut: Future<Output = Result<T, Error>> + Send,
    {
        let client = self.client().await?;
        let error = match tokio::time::timeout(deadline, make(client)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => self.sort(name, error),
            Err(_) => EngineError::Timeout { call: name, seconds: deadline.as_secs() },
        };
        Err(Box::pin(self.failed(error)).await)
    }

    /// Drops the connection if it may be the reason.
    async fn failed(&self, error: EngineError) -> EngineError {
        if matches!(error, EngineError::Unreachable { .. } | EngineError::Timeout { .. }) {
            *self.client.lock().await = None;
        }
        error
    }

    fn sort(&self, call: &'static str, error: Error) -> EngineError {
        sort(&self.socket(), call, error)
    }

    pub(super) fn socket(&self) -> String {
        self.settings.socket.display().to_string()
    }

    pub(super) fn ours(&self) -> HashMap<String, Vec<String>> {
        let label = format!("{}={}", label::INSTANCE, self.settings.instance.as_str());
        HashMap::from([("label".to_owned(), vec![label])])
    }

    fn lost(&self) -> MutexGuard<'_, BTreeSet<ContainerId>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the processes of a container that is being stopped have ended. Never returns if the engine sends no
    /// event or the clock jumps.
    #[expect(clippy::disallowed_methods, reason = "it is the clock of the engine's events")]
    async fn ended(&self, id: &ContainerId) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let begun = Instant::now();
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("container".to_owned(), vec![id.to_string()]),
            ("event".to_owned(), notices::ENDING.map(str::to_owned).to_vec()),
        ]);
        // The engine also sends events since then that came before this request.
        let from = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        let query = [("since", from.as_str()), ("filters", &in_query(&filters))];
        if let Ok(client) = self.client().await
            && let Ok(mut events) = client.follow::<EventMessage>(EVENTS, &query).await
        {
            let mut ending = Ending::new(since);
            while let Some(Ok(event)) = events.next().await {
                if ending.read(&event, begun.elapsed()) {
                    return;
                }
            }
        }
        pending().await
    }

    /// Writes the files of a release into a container that is not complete yet.
    async fn write_files(&self, id: &str, files: &[ContentFile]) -> Result<(), EngineError> {
        if files.is_empty() {
            return Ok(());
        }
        let entries: Vec<tar::Entry<'_>> = files
            .iter()
            .map(|file| tar::Entry {
                name: file.target.trim_start_matches('/'),
                content: file.content.as_bytes(),
                mode: file.mode,
                uid: file.uid,
                gid: file.gid,
            })
            .collect();
        // The time is part of no hash and of no decision; one that does not change keeps containers alike.
        let archive = tar::archive(&entries, 0);
        let call = self.call("write-files", EngineError::DEADLINE, |client| async move {
            client.unpack(id, archive).await
        });
        call.await
    }

    async fn connect_others(
        &self,
        id: &str,
        others: Vec<(String, EndpointSettings)>,
    ) -> Result<(), EngineError> {
        for (network, endpoint) in others {
            let request = NetworkConnectRequest { container: id.to_owned(), endpoint_config: Some(endpoint) };
            let call = self.call("connect-network", EngineError::DEADLINE, |client| async move {
                client.connect_network(&network, request).await
            });
            call.await?;
        }
        Ok(())
    }

    /// Checks that the engine is new enough for all fields of a service. A field without which the app would work
    /// differently is an error, and any other a warning in the log.
    async fn check_version(&self, new: NewContainer<'_>) -> Result<(), EngineError> {
        let client = self.client().await?;
        for lack in docker_spec::lacks(new.spec, client.api()) {
            if lack.is_refusal {
                let message = lack.to_string();
                return Err(EngineError::Refused { call: "create", status: 400, message });
            }
            warn!(service = %new.service, field = lack.field, "the engine is too old for a field, and it has no effect");
        }
        let passed_over = if client.is_podman() { passed_over_by_podman(new.spec) } else { Vec::new() };
        for field in passed_over {
            warn!(service = %new.service, field, "podman passes over a field, and it has no effect");
        }
        Ok(())
    }

    /// The paths that the image declares as volumes and the release does not mount.
    async fn image_volumes(&self, new: NewContainer<'_>) -> Result<Vec<String>, EngineError> {
        let image = match self.inspect_image(new.spec.image.to_string()).await {
            Ok(image) => image,
            // Without its image, creating the container fails and says so.
            Err(EngineError::Refused { status: 404, .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let declared = image.config.and_then(|config| config.volumes).unwrap_or_default();
        let bare = |path: &str| path.trim_end_matches('/').to_owned();
        let is_mounted = |path: &str| {
            let path = bare(path);
            new.spec.mounts.iter().any(|mount| bare(&mount.target) == path)
                || new.spec.tmpfs.keys().any(|target| bare(target) == path)
        };
        Ok(declared.into_keys().filter(|path| path.starts_with('/') && !is_mounted(path)).collect())
    }

    /// Makes the volumes of a container: those of the release, and those of `unnamed` paths.
    async fn create_volumes(&self, new: NewContainer<'_>, unnamed: &[String]) -> Result<(), EngineError> {
        let unconfigured = VolumeSpec::default();
        let of_mount = |mount: &Mount| match &mount.source {
            MountSource::Volume(name) => Some(name.clone()),
            MountSource::Anonymous => docker_spec::unnamed_volume(new.service, &mount.target),
            MountSource::Host(_) | MountSource::EngineSocket => None,
        };
        let of_image = unnamed.iter().filter_map(|path| docker_spec::unnamed_volume(new.service, path));
        let names: Vec<VolumeName> = new.spec.mounts.iter().filter_map(of_mount).chain(of_image).collect();
        for name in &names {
            let spec = new.volumes.get(name).unwrap_or(&unconfigured);
            let request = docker_spec::volume(&self.settings.instance, new.app, name, spec);
            let call = self.call("create-volume", EngineError::DEADLINE, |client| async move {
                client.create_volume(&request).await
            });
            call.await?;
        }
        Ok(())
    }
}

/// Translates the error of a call to the engine at `socket`.
pub(super) fn sort(socket: &str, call: &'static str, error: Error) -> EngineError {
    if let Error::DockerResponseServerError { status_code, message } = &error {
        return EngineError::of_refusal(call, *status_code, message);
    }
    EngineError::Unreachable { socket: socket.to_owned(), cause: error.into() }
}

/// Returns `true` if a start was refused because of remains of an earlier run. An engine that was killed during a start
/// finds the task or the folder of that container in its runtime, and never removes it.
fn finds_remains(id: &ContainerId, message: &str) -> bool {
    message.contains(id.as_str()) && (message.contains("already exists") || message.contains("file exists"))
}

/// Writes filters as the value of a query.
pub(super) fn in_query(filters: &HashMap<String, Vec<String>>) -> String {
    serde_json::to_string(filters).unwrap_or_default()
}

/// Turns refusals with the given statuses into success: they mean that nothing is left to do.
fn or_already(result: Result<(), EngineError>, fine: &[u16]) -> Result<(), EngineError> {
    match result {
        Err(EngineError::Refused { status, .. }) if fine.contains(&status) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::{ContainerId, finds_remains};

    #[test]
    fn remains_differ_from_other_things_that_exist() {
        let id = ContainerId::parse("e".repeat(64)).unwrap();
        let is_found = |message: &str| finds_remains(&id, &message.replace("ID", id.as_str()));
        assert!(is_found(
            "failed to start shim: mkdir /run/containerd/io.containerd.runtime.v2.task/moby/ID: file exists"
        ));
        assert!(is_found("task ID: already exists: unknown"));
        assert!(!is_found("error while creating mount source path '/data': mkdir /data: file exists"));
        assert!(!is_found("network of container ID not found"));
    }
}
