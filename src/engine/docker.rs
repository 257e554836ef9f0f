//! The real engine: Docker's API over its unix socket, by bollard.
//!
//! Every call has a deadline of ours, and the API version is negotiated at
//! each connect, so that an engine may be upgraded under a running agent.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{EndpointSettings, NetworkConnectRequest};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, EventsOptions, InspectContainerOptions, KillContainerOptions,
    ListContainersOptions, ListImagesOptions, ListNetworksOptions, RemoveContainerOptions,
    RemoveImageOptions, RenameContainerOptions, StartContainerOptions, StopContainerOptions,
};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{Mutex, mpsc};

use crate::model::{
    App, ContainerId, HeldPort, ImageRef, Instance, MountSource, NetworkId, NetworkName, NetworkSpec,
    Observed, VolumeSpec,
};

use super::connect::{connect, told};
use super::docker_spec::{self, PARTIAL, label};
use super::{About, EngineError, Inspect, NewContainer, Operate, look, pull};

/// How to reach the engine, and as whom.
#[derive(Debug, Clone)]
pub struct DockerSettings {
    /// Path of the engine's unix socket.
    pub socket: PathBuf,
    pub instance: Instance,
    /// How long a download may make no progress.
    pub stall_timeout: Duration,
}

/// A Docker Engine, or anything that speaks its API.
#[derive(Debug)]
pub struct Docker {
    settings: DockerSettings,
    /// Connected at the first call, and again after the engine was gone.
    client: Mutex<Option<bollard::Docker>>,
}

impl Docker {
    /// An engine that is not connected yet; nothing is called.
    #[must_use]
    pub fn new(settings: DockerSettings) -> Self {
        Self { settings, client: Mutex::new(None) }
    }

    async fn client(&self) -> Result<bollard::Docker, EngineError> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let socket = self.settings.socket.display().to_string();
        let unreachable = |e: Error| EngineError::Unreachable { socket: socket.clone(), why: told(&e) };
        let connected = tokio::time::timeout(EngineError::DEADLINE, connect(&self.settings.socket)).await;
        let fresh = connected
            .map_err(|_| EngineError::Timeout { call: "version", seconds: EngineError::DEADLINE.as_secs() })?
            .map_err(unreachable)?;
        *client = Some(fresh.clone());
        Ok(fresh)
    }

    /// Makes one call within `deadline`; a broken connection is forgotten, so that the next call
    /// connects and negotiates anew.
    async fn call<T, F, Fut>(&self, name: &'static str, deadline: Duration, make: F) -> Result<T, EngineError>
    where
        F: FnOnce(bollard::Docker) -> Fut + Send,
        Fut: Future<Output = Result<T, Error>> + Send,
    {
        let client = self.client().await?;
        let error = match tokio::time::timeout(deadline, make(client)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => self.sort(name, &error),
            Err(_) => EngineError::Timeout { call: name, seconds: deadline.as_secs() },
        };
        if matches!(error, EngineError::Unreachable { .. } | EngineError::Timeout { .. }) {
            *self.client.lock().await = None;
        }
        Err(error)
    }

    fn sort(&self, call: &'static str, error: &Error) -> EngineError {
        if let Error::DockerResponseServerError { status_code, message } = error {
            let message = message.trim().to_owned();
            if message.contains("no space left on device") {
                return EngineError::DiskFull { call, message };
            }
            return EngineError::Refused { call, status: *status_code, message };
        }
        EngineError::Unreachable { socket: self.settings.socket.display().to_string(), why: told(error) }
    }

    fn ours(&self) -> HashMap<String, Vec<String>> {
        let label = format!("{}={}", label::INSTANCE, self.settings.instance.as_str());
        HashMap::from([("label".to_owned(), vec![label])])
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

    async fn create_volumes(&self, new: NewContainer<'_>) -> Result<(), EngineError> {
        let unconfigured = VolumeSpec::default();
        for mount in &new.spec.mounts {
            let MountSource::Volume(name) = &mount.source else { continue };
            let spec = new.volumes.get(name).unwrap_or(&unconfigured);
            let request = docker_spec::volume(&self.settings.instance, new.app, name, spec);
            let call = self.call("create-volume", EngineError::DEADLINE, |client| async move {
                client.create_volume(request).await
            });
            call.await?;
        }
        Ok(())
    }
}

/// Takes the given statuses for success: what should be so is so already.
fn or_already(result: Result<(), EngineError>, fine: &[u16]) -> Result<(), EngineError> {
    match result {
        Err(EngineError::Refused { status, .. }) if fine.contains(&status) => Ok(()),
        other => other,
    }
}

impl Inspect for Docker {
    async fn observe(&self) -> Result<Observed, EngineError> {
        let containers = ListContainersOptions {
            all: true,
            filters: Some(self.ours()),
            ..ListContainersOptions::default()
        };
        let networks = ListNetworksOptions { filters: Some(self.ours()) };
        let images = ListImagesOptions::default();
        // One after the other, so that all go over the one connection that is kept.
        let (containers, networks, images) = self
            .call("list", EngineError::DEADLINE, |client| async move {
                let containers = client.list_containers(Some(containers)).await?;
                let networks = client.list_networks(Some(networks)).await?;
                Ok((containers, networks, client.list_images(Some(images)).await?))
            })
            .await?;
        let ours = containers.into_iter().filter_map(|c| Some((look::is_parked(&c), look::service(c)?)));
        let (parked, services): (Vec<_>, Vec<_>) = ours.partition(|(is_parked, _)| *is_parked);
        Ok(Observed {
            services: services.into_iter().map(|(_, seen)| seen).collect(),
            networks: networks.into_iter().filter_map(look::network).collect(),
            images: images.into_iter().flat_map(look::images).collect(),
            parked: parked.into_iter().map(|(_, seen)| seen).collect(),
        })
    }

    async fn restarts(&self, id: &ContainerId) -> Result<u64, EngineError> {
        let id = id.to_string();
        let call = self.call("inspect", EngineError::DEADLINE, |client| async move {
            client.inspect_container(&id, None::<InspectContainerOptions>).await
        });
        match call.await {
            Ok(seen) => Ok(seen.restart_count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)),
            Err(EngineError::Refused { status: 404, .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    async fn about(&self) -> Result<About, EngineError> {
        let info = self.call("info", EngineError::DEADLINE, |client| async move { client.info().await });
        let info = info.await?;
        let machine = info.architecture.unwrap_or_default();
        Ok(About {
            data_root: info.docker_root_dir.unwrap_or_default(),
            architecture: look::architecture(&machine).to_owned(),
        })
    }

    async fn layers(&self) -> Result<BTreeSet<String>, EngineError> {
        let call = self.call("list-images", EngineError::DEADLINE, |client| async move {
            client.list_images(Some(ListImagesOptions::default())).await
        });
        let mut layers = BTreeSet::new();
        for image in call.await? {
            let inspect = self.call("inspect-image", EngineError::DEADLINE, |client| async move {
                client.inspect_image(&image.id).await
            });
            match inspect.await {
                Ok(seen) => layers.extend(seen.root_fs.and_then(|fs| fs.layers).unwrap_or_default()),
                // It has gone since it was listed.
                Err(EngineError::Refused { status: 404, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(layers)
    }

    async fn published(&self) -> Result<Vec<HeldPort>, EngineError> {
        let call = self.call("list", EngineError::DEADLINE, |client| async move {
            client.list_containers(Some(ListContainersOptions::default())).await
        });
        Ok(call.await?.into_iter().flat_map(look::published).collect())
    }

    fn events(&self) -> impl Stream<Item = Result<(), EngineError>> + Send {
        let mut filters = self.ours();
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        let kinds = ["start", "die", "destroy", "pause", "unpause", "health_status"];
        filters.insert("event".to_owned(), kinds.map(str::to_owned).to_vec());
        stream::once(self.client()).flat_map(move |client| match client {
            Ok(client) => {
                let options = EventsOptions { filters: Some(filters.clone()), ..EventsOptions::default() };
                let events = client.events(Some(options));
                events.map(|event| event.map(drop).map_err(|e| self.sort("events", &e))).left_stream()
            }
            Err(error) => stream::iter([Err(error)]).right_stream(),
        })
    }
}

impl Operate for Docker {
    async fn pull(&self, image: &ImageRef, progress: mpsc::Sender<u8>) -> Result<(), EngineError> {
        let client = self.client().await?;
        let name = image.to_string();
        let options = CreateImageOptions {
            from_image: Some(image.repository().to_owned()),
            tag: image.digest().or(image.tag()).map(str::to_owned),
            ..CreateImageOptions::default()
        };
        let mut messages = std::pin::pin!(client.create_image(Some(options), None, None));
        let mut percent = pull::Progress::default();
        let stall = self.settings.stall_timeout;
        loop {
            let message = match tokio::time::timeout(stall, messages.next()).await {
                Err(_) => return Err(EngineError::Stalled { image: name, seconds: stall.as_secs() }),
                Ok(None) => break,
                Ok(Some(message)) => message,
            };
            match message {
                Ok(message) => {
                    if let Some(percent) = percent.advance(&message) {
                        // A full channel only means that nobody has read the last one yet.
                        let _ = progress.try_send(percent);
                    }
                }
                Err(
                    Error::DockerResponseServerError { message, .. }
                    | Error::DockerStreamError { error: message },
                ) => {
                    return Err(EngineError::of_pull(&name, &message));
                }
                Err(error) => return Err(self.sort("pull", &error)),
            }
        }
        // The engine has been seen to end a pull well without the image (field-problems.md 1).
        let is_there = self.call("inspect-image", EngineError::DEADLINE, |client| {
            let name = name.clone();
            async move { client.inspect_image(&name).await }
        });
        match is_there.await {
            Ok(_) => Ok(()),
            Err(EngineError::Refused { status: 404, .. }) => {
                let message = "the pull ended well, but the engine does not have the image".to_owned();
                Err(EngineError::Registry { image: name, message })
            }
            Err(error) => Err(error),
        }
    }

    async fn create_network(
        &self,
        app: &App,
        name: &NetworkName,
        spec: &NetworkSpec,
    ) -> Result<(), EngineError> {
        let request = docker_spec::network(&self.settings.instance, app, name, spec);
        // Engines before API 1.44 make a second network of the same name without a word.
        let mut filters = self.ours();
        filters.insert("name".to_owned(), vec![request.name.clone()]);
        let options = ListNetworksOptions { filters: Some(filters) };
        let alike = self.call("list-networks", EngineError::DEADLINE, |client| async move {
            client.list_networks(Some(options)).await
        });
        if alike.await?.iter().any(|network| network.name.as_ref() == Some(&request.name)) {
            return Ok(());
        }
        let call = self.call("create-network", EngineError::DEADLINE, |client| async move {
            client.create_network(request).await.map(drop)
        });
        or_already(call.await, &[409])
    }

    async fn remove_network(&self, id: &NetworkId) -> Result<(), EngineError> {
        let id = id.to_string();
        let call = self.call("remove-network", EngineError::DEADLINE, |client| async move {
            client.remove_network(&id).await
        });
        or_already(call.await, &[404])
    }

    async fn create(&self, new: NewContainer<'_>) -> Result<(), EngineError> {
        self.create_volumes(new).await?;
        let name = docker_spec::container_name(&self.settings.instance, new.app, new.service, new.spec);
        let (body, others) = docker_spec::container(&self.settings.instance, new);
        let is_whole = others.is_empty();
        let first_name = if is_whole { name.clone() } else { format!("{name}{PARTIAL}") };
        let options = CreateContainerOptions { name: Some(first_name), ..CreateContainerOptions::default() };
        let created = self
            .call("create", EngineError::DEADLINE, |client| async move {
                client.create_container(Some(options), body).await
            })
            .await?;
        if !is_whole {
            self.connect_others(&created.id, others).await?;
            let options = RenameContainerOptions { name };
            let call = self.call("rename", EngineError::DEADLINE, |client| async move {
                client.rename_container(&created.id, options).await
            });
            call.await?;
        }
        Ok(())
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        let id = id.to_string();
        let call = self.call("start", EngineError::DEADLINE, |client| async move {
            client.start_container(&id, None::<StartContainerOptions>).await
        });
        or_already(call.await, &[304])
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        let id = id.to_string();
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let options = StopContainerOptions { t: i32::try_from(seconds).ok(), signal: None };
        let call = self.call("stop", grace + EngineError::DEADLINE, |client| async move {
            client.stop_container(&id, Some(options)).await
        });
        or_already(call.await, &[304, 404])
    }

    async fn kill(&self, id: &ContainerId) -> Result<(), EngineError> {
        let id = id.to_string();
        let options = KillContainerOptions { signal: "SIGKILL".to_owned() };
        let call = self.call("kill", EngineError::DEADLINE, |client| async move {
            client.kill_container(&id, Some(options)).await
        });
        // 409: it does not run.
        or_already(call.await, &[404, 409])
    }

    async fn remove_by_force(&self, id: &ContainerId) -> Result<(), EngineError> {
        let id = id.to_string();
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        let call = self.call("remove-by-force", EngineError::DEADLINE, |client| async move {
            client.remove_container(&id, Some(options)).await
        });
        or_already(call.await, &[404])
    }

    async fn park(&self, id: &ContainerId) -> Result<(), EngineError> {
        let id = id.to_string();
        let options = RenameContainerOptions { name: docker_spec::parked_name(&id) };
        let call = self.call("rename", EngineError::DEADLINE, |client| async move {
            client.rename_container(&id, options).await
        });
        or_already(call.await, &[404])
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        let id = id.to_string();
        let options = RemoveContainerOptions { v: true, force: false, link: false };
        let call = self.call("remove", EngineError::DEADLINE, |client| async move {
            client.remove_container(&id, Some(options)).await
        });
        or_already(call.await, &[404])
    }

    async fn remove_image(&self, image: &ImageRef) -> Result<(), EngineError> {
        let name = image.to_string();
        let options = RemoveImageOptions { force: false, noprune: false, platforms: None };
        let call = self.call("remove-image", EngineError::DEADLINE, |client| async move {
            client.remove_image(&name, Some(options), None).await.map(drop)
        });
        or_already(call.await, &[404, 409])
    }
}
