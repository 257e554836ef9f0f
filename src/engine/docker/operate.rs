//! Changes a real engine: containers, networks, volumes and images.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::models::CreateImageInfo;
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use crate::engine::answers::Network;
use crate::engine::docker_spec::{self, Host, PARTIAL};
use crate::engine::secrets::Secrets;
use crate::engine::{EngineError, NewContainer, Operate, injected, pull};
use crate::model::{
    App, ContainerId, ImageRef, NetworkId, NetworkName, NetworkSpec, OwnVolume, Platform, PullProgress,
    RegistryLogin, RegistryPass,
};

use super::{Docker, NETWORKS, finds_remains, in_query, or_already};

/// How long, and with which pause, a call that ends a container is repeated while podman keeps restarting it: only a
/// call that meets it running has an effect.
const TO_MEET: Duration = Duration::from_secs(20);
const BETWEEN_CALLS: Duration = Duration::from_millis(10);

/// Time between two messages about a download whose percentage does not change.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

impl Operate for Docker {
    async fn pull(
        &self,
        image: &ImageRef,
        platform: Option<&Platform>,
        pass: &RegistryPass,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<u64, EngineError> {
        self.pull_image(image, platform, pass, progress).await.map_err(|error| hide_pass(error, pass))
    }

    async fn create_network(
        &self,
        app: &App,
        name: &NetworkName,
        spec: &NetworkSpec,
    ) -> Result<(), EngineError> {
        let request = docker_spec::network(&self.settings.instance, app, name, spec);
        // Engines before API 1.44 create a second network of the same name without an error.
        let filters = in_query(&HashMap::from([("name".to_owned(), vec![request.name.clone()])]));
        let alike = self.call("list-networks", EngineError::DEADLINE, |client| async move {
            client.read::<Vec<Network>>(NETWORKS, &[("filters", &filters)]).await
        });
        if let Some(there) = alike.await?.into_iter().find(|network| network.name == request.name) {
            return self.check_ours(there);
        }
        let call = self.call("create-network", EngineError::DEADLINE, |client| async move {
            client.create_network(request).await
        });
        let hide = |message: &str| Secrets::of_network(name.as_str(), spec).hide(message);
        or_already(call.await, &[409]).map_err(|error| error.map_message(hide))
    }

    async fn remove_network(&self, id: &NetworkId) -> Result<(), EngineError> {
        let id = id.to_string();
        let call = self.call("remove-network", EngineError::DEADLINE, |client| async move {
            client.remove_network(&id).await
        });
        or_already(call.await, &[404])
    }

    async fn create(&self, new: NewContainer<'_>) -> Result<(), EngineError> {
        self.create_whole(new).await.map_err(|error| error.map_message(|m| Secrets::of(new).hide(m)))
    }

    async fn reconnect(&self, id: &ContainerId, new: NewContainer<'_>) -> Result<(), EngineError> {
        let reconnected = self.reconnect_all(id, new).await;
        reconnected.map_err(|error| error.map_message(|m| Secrets::of(new).hide(m)))
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        let name = id.to_string();
        let call =
            self.call(
                "start",
                EngineError::DEADLINE,
                |client| async move { client.start_container(&name).await },
            );
        let started = or_already(call.await, &[304]);
        if let Err(EngineError::Refused { message, .. }) = &started
            && finds_remains(id, message)
        {
            self.lost().insert(id.clone());
        }
        self.hidden(id, started).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        let begun = Instant::now();
        loop {
            match self.stop_once(id, grace).await {
                // podman refuses it while the container's process ends or starts by itself.
                Err(EngineError::Refused { status: 409, .. })
                    if begun.elapsed() < TO_MEET && self.client().await?.is_podman() =>
                {
                    tokio::time::sleep(BETWEEN_CALLS).await;
                    continue;
                }
                stopped => stopped?,
            }
            if !self.has_missed(id, begun).await? {
                return Ok(());
            }
        }
    }

    async fn fence(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        let call = self.call("fence", EngineError::DEADLINE, |client| async move { client.catch_up().await });
        call.await?;
        self.stop(id, grace).await
    }

    async fn swap(
        &self,
        old: &ContainerId,
        grace: Duration,
        new: &ContainerId,
    ) -> (Result<(), EngineError>, Option<Result<(), EngineError>>) {
        let mut stop = pin!(self.stop(old, grace));
        let stopped = tokio::select! {
            biased;
            stopped = &mut stop => Some(stopped),
            () = self.ended(old) => None,
        };
        match stopped {
            Some(Ok(())) => (Ok(()), Some(self.start(new).await)),
            Some(Err(error)) => (Err(error), None),
            None => match tokio::join!(stop, self.start(new)) {
                // The start may have needed something that was not free yet.
                (Ok(()), Err(_)) => (Ok(()), Some(self.start(new).await)),
                (stopped, started) => (stopped, Some(started)),
            },
        }
    }

    async fn kill(&self, id: &ContainerId) -> Result<(), EngineError> {
        let begun = Instant::now();
        loop {
            self.kill_once(id).await?;
            if !self.has_missed(id, begun).await? {
                return Ok(());
            }
        }
    }

    async fn remove_by_force(&self, id: &ContainerId) -> Result<(), EngineError> {
        let (name, with_volumes) = (id.to_string(), !self.is_original(id));
        let call = self.call("remove-by-force", EngineError::DEADLINE, |client| async move {
            client.remove_container(&name, true, with_volumes).await
        });
        self.hidden(id, or_already(call.await, &[404])).await
    }

    async fn park(&self, id: &ContainerId) -> Result<(), EngineError> {
        let name = id.to_string();
        let parked = docker_spec::parked_name(&name);
        let call = self.call("rename", EngineError::DEADLINE, |client| async move {
            client.rename_container(&name, parked).await
        });
        match or_already(call.await, &[404]) {
            // It has this name already: an earlier call worked, and its answer was lost.
            Err(EngineError::Refused { status: 400, message, .. }) if message.contains("same name") => Ok(()),
            other => self.hidden(id, other).await,
        }
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        let (name, with_volumes) = (id.to_string(), !self.is_original(id));
        let call = self.call("remove", EngineError::DEADLINE, |client| async move {
            client.remove_container(&name, false, with_volumes).await
        });
        self.hidden(id, or_already(call.await, &[404])).await
    }

    async fn remove_volume(&self, volume: &OwnVolume) -> Result<(), EngineError> {
        let id = volume.id.clone();
        let call = self.call("remove-volume", EngineError::DEADLINE, |client| async move {
            client.remove_volume(&id).await
        });
        let removed = or_already(call.await, &[404]);
        self.hidden_of(json!({ "Mounts": [{ "Name": volume.id }] }), removed).await
    }

    async fn remove_image(&self, image: &ImageRef) -> Result<(), EngineError> {
        if !image.is_good() {
            warn!(%image, "no engine accepts the name of this image; it is forgotten");
            return Ok(());
        }
        let name = image.to_string();
        let call = self.call("remove-image", EngineError::DEADLINE, |client| async move {
            client.remove_image(&name).await
        });
        match call.await {
            // An engine that cannot read the name does not have the image, and another attempt would fail the same way.
            Err(EngineError::Refused { status: 400, message, .. }) => {
                warn!(%image, error = %message, "the engine cannot read the name of an image; it is forgotten");
                Ok(())
            }
            other => or_already(other, &[404, 409]),
        }
    }
}

/// Returns the credentials for the image's registry. podman 4.3 ignores a token, and gets the login instead.
fn credentials(image: &ImageRef, pass: &RegistryPass, is_podman: bool) -> Option<DockerCredentials> {
    let registry = image.registry().map(str::to_owned);
    let with_login = |login: &RegistryLogin| DockerCredentials {
        username: Some(login.username.clone()),
        password: Some(login.password.clone()),
        serveraddress: registry.clone(),
        ..DockerCredentials::default()
    };
    match pass {
        RegistryPass::Nothing => None,
        RegistryPass::Login(login) => Some(with_login(login)),
        RegistryPass::Token { login, .. } if is_podman => Some(with_login(login)),
        RegistryPass::Token { token, .. } => Some(DockerCredentials {
            registrytoken: Some(token.clone()),
            serveraddress: registry.clone(),
            ..DockerCredentials::default()
        }),
    }
}

/// Hides credentials in an error: an engine or a registry may quote them.
fn hide_pass(error: EngineError, pass: &RegistryPass) -> EngineError {
    let hide = |error: EngineError, secret: &str| error.map_message(|m| Secrets::of_login(secret).hide(m));
    match pass {
        RegistryPass::Nothing => error,
        RegistryPass::Token { token, login, .. } => hide(hide(error, token), &login.password),
        RegistryPass::Login(login) => hide(error, &login.password),
    }
}

impl Docker {
    async fn pull_image(
        &self,
        image: &ImageRef,
        platform: Option<&Platform>,
        pass: &RegistryPass,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<u64, EngineError> {
        let client = self.client().await?;
        let name = image.to_string();
        let platform = platform.map(ToString::to_string);
        let mut query = vec![("fromImage", image.repository())];
        query.extend(image.digest().or(image.tag()).map(|tag| ("tag", tag)));
        query.extend(platform.as_deref().map(|platform| ("platform", platform)));
        let credentials = credentials(image, pass, client.is_podman());
        let stall = self.settings.stall_timeout;
        let stalled = |_| EngineError::Stalled { image: name.clone(), seconds: stall.as_secs() };
        let begun = tokio::time::timeout(stall, client.create_image(&query, credentials)).await;
        let mut lines = begun.map_err(stalled)?.map_err(|error| self.of_pull(&name, error))?;
        let (mut layers, mut shown) = (pull::Progress::default(), (Instant::now(), 0));
        let ended = loop {
            let line = match tokio::time::timeout(stall, lines.next()).await {
                Err(late) => break Err(stalled(late)),
                Ok(None) => break Ok(()),
                Ok(Some(line)) => line,
            };
            let line = line.and_then(|line| Ok(serde_json::from_slice::<CreateImageInfo>(&line)?));
            let message = match line {
                Ok(message) => message,
                Err(error) => break Err(self.of_pull(&name, error)),
            };
            if let Some(error) = message.error_detail.as_ref().and_then(|error| error.message.as_ref()) {
                break Err(EngineError::of_pull(&name, error));
            }
            layers.advance(&message);
            let (now, percent) = (layers.now(), layers.now().percent(0));
            if percent != shown.1 || shown.0.elapsed() >= PROGRESS_EVERY {
                // If the channel is full, the message before is not read yet.
                let _ = progress.try_send(now);
                shown = (Instant::now(), percent);
            }
        };
        // The receiver may have left. The download is over all the same.
        let _ = progress.send(layers.now()).await;
        ended?;
        // A pull may end well without the image: docs/dev/facts.md, "A pull that ends well without its image".
        match self.inspect_image(name.clone()).await {
            Ok(_) => Ok(layers.transfer().fetched),
            Err(EngineError::Refused { status: 404, .. }) => {
                let message = "the pull ended well, but the engine does not have the image".to_owned();
                Err(EngineError::PullFailed { image: name, message })
            }
            Err(error) => Err(error),
        }
    }

    async fn create_whole(&self, new: NewContainer<'_>) -> Result<(), EngineError> {
        let unnamed = self.image_volumes(new).await?;
        self.create_volumes(new, &unnamed).await?;
        let name = docker_spec::container_name(&self.settings.instance, new.app, new.service, new.spec);
        self.check_version(new).await?;
        let is_podman = self.client().await?.is_podman();
        let host = Host { instance: &self.settings.instance, socket: &self.settings.socket, is_podman };
        let (mut body, others) = docker_spec::container(host, new);
        docker_spec::add_image_volumes(&mut body, host, new, &unnamed);
        injected::into(&mut body, &self.settings.services_dir, new);
        let is_whole = others.is_empty() && new.spec.files.is_empty();
        let first_name = if is_whole { name.clone() } else { format!("{name}{PARTIAL}") };
        let created = self
            .call("create", EngineError::DEADLINE, |client| async move {
                client.create_container(first_name, body).await
            })
            .await?;
        if !is_whole {
            self.write_files(&created, &new.spec.files).await?;
            self.connect_others(&created, others).await?;
            let call = self.call("rename", EngineError::DEADLINE, |client| async move {
                client.rename_container(&created, name).await
            });
            call.await?;
        }
        Ok(())
    }

    async fn reconnect_all(&self, id: &ContainerId, new: NewContainer<'_>) -> Result<(), EngineError> {
        for (network, endpoint) in docker_spec::endpoints(&self.settings.instance, new).1 {
            let (name, container) = (network.clone(), id.to_string());
            let call = self.call("disconnect-network", EngineError::DEADLINE, |client| async move {
                client.disconnect_network(&name, container).await
            });
            match call.await {
                // An earlier attempt was interrupted between its two calls.
                Err(EngineError::Refused { message, .. }) if message.contains("is not connected") => {}
                other => other?,
            }
            self.connect_others(id.as_str(), vec![(network, endpoint)]).await?;
        }
        Ok(())
    }

    /// Sorts the error of a pull, by its message if the engine sent one.
    fn of_pull(&self, image: &str, error: Error) -> EngineError {
        if let Error::DockerResponseServerError { message, .. } = &error {
            return EngineError::of_pull(image, message);
        }
        self.sort("pull", error)
    }

    async fn stop_once(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        let name = id.to_string();
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let call = self.call("stop", grace.saturating_add(EngineError::DEADLINE), |client| async move {
            client.stop_container(&name, seconds).await
        });
        self.hidden(id, or_already(call.await, &[304, 404])).await
    }

    async fn kill_once(&self, id: &ContainerId) -> Result<(), EngineError> {
        let name = id.to_string();
        let call = self
            .call("kill", EngineError::DEADLINE, |client| async move { client.kill_container(&name).await });
        // 409: it does not run.
        self.hidden(id, or_already(call.await, &[404, 409])).await
    }

    /// Returns `true` if a call that ends a container must be repeated: podman ignores the call if the container is down
    /// between two starts, and starts it nevertheless. An error if that goes on for too long after `begun`.
    async fn has_missed(&self, id: &ContainerId, begun: Instant) -> Result<bool, EngineError> {
        if !self.client().await?.is_podman() {
            return Ok(false);
        }
        let goes_on = match self.inspect(id).await {
            Err(error) if self.is_blink(&error).await => true,
            seen => seen?.goes_on(),
        };
        if !goes_on {
            return Ok(false);
        }
        if begun.elapsed() > TO_MEET {
            return Err(EngineError::KeptRestarting { seconds: TO_MEET.as_secs() });
        }
        tokio::time::sleep(BETWEEN_CALLS).await;
        Ok(true)
    }
}
