//! Changes the fake engine.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::engine::{EngineError, NewContainer, Operate, docker_spec};
use crate::model::{
    App, ContainerId, ImageRef, NetworkId, NetworkName, NetworkSpec, OwnVolume, Platform, PullProgress,
    RegistryPass, Transfer,
};

use super::inside::{Inside, unmet};
use super::{Fake, late};

impl Operate for Fake {
    async fn pull(
        &self,
        image: &ImageRef,
        platform: Option<&Platform>,
        pass: &RegistryPass,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<u64, EngineError> {
        let broken = self.inside().broken.get(image).cloned();
        let bytes = broken.as_ref().map_or(0, |(bytes, _)| *bytes);
        let transfer = Transfer { fetched: bytes, needed: bytes };
        let _ =
            progress.try_send(PullProgress { transfer, layers: 2, complete: 1, ..PullProgress::default() });
        let time = self.inside().slow.get(image).copied();
        if let Some(time) = time {
            tokio::time::sleep(time).await;
        }
        let what = platform.map_or(image.to_string(), |platform| format!("{image} for {platform}"));
        let shown = match pass {
            RegistryPass::Nothing => "",
            RegistryPass::Token { .. } => " with a token",
            RegistryPass::Login(_) => " with the login",
        };
        let (image, is_token) = (image.clone(), matches!(pass, RegistryPass::Token { .. }));
        self.call("pull", &format!("{what}{shown}"), move |inside| {
            if inside.takes_no_token && is_token {
                let message = "unauthorized: authentication required";
                return Err(EngineError::of_pull(&image.to_string(), message));
            }
            if inside.unreachable.contains(&image) {
                return Err(EngineError::of_pull(&image.to_string(), "connect: connection refused"));
            }
            if let Some((_, message)) = broken {
                return Err(EngineError::of_pull(&image.to_string(), &message));
            }
            if inside.registry.contains(&image) {
                inside.observed.images.insert(image);
                return Ok(1000);
            }
            Err(EngineError::of_pull(&image.to_string(), "manifest unknown"))
        })
        .await
    }

    async fn create_network(
        &self,
        app: &App,
        name: &NetworkName,
        spec: &NetworkSpec,
    ) -> Result<(), EngineError> {
        let full_name = docker_spec::network_name(&self.instance, app, name, spec);
        let (app, network, spec) = (app.clone(), name.clone(), spec.clone());
        let act = move |inside: &mut Inside| inside.create_network(&app, &network, &spec, full_name);
        self.call("create-network", name.as_str(), act).await
    }

    async fn remove_network(&self, id: &NetworkId) -> Result<(), EngineError> {
        let network = id.clone();
        self.call("remove-network", id.as_str(), move |inside| inside.remove_network(&network)).await
    }

    async fn create(&self, new: NewContainer<'_>) -> Result<(), EngineError> {
        let what = format!("{}@{}", new.service, new.release);
        let (instance, owned) = (self.instance.clone(), late::OwnedContainer::from(new));
        self.call("create", &what, move |inside| inside.create(&instance, owned.as_new())).await
    }

    async fn reconnect(&self, id: &ContainerId, new: NewContainer<'_>) -> Result<(), EngineError> {
        let names = unmet(&self.instance, new);
        self.call_on("reconnect", id, move |inside, id| inside.reconnect(id, names)).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.call_on("start", id, |inside, id| inside.start(id)).await
    }

    async fn stop(&self, id: &ContainerId, _grace: Duration) -> Result<(), EngineError> {
        self.call_on("stop", id, |inside, id| {
            inside.end(id, 0);
            Ok(())
        })
        .await
    }

    async fn fence(&self, id: &ContainerId, _grace: Duration) -> Result<(), EngineError> {
        self.call_on("fence", id, |inside, id| {
            inside.end(id, 0);
            Ok(())
        })
        .await
    }

    async fn swap(
        &self,
        old: &ContainerId,
        grace: Duration,
        new: &ContainerId,
    ) -> (Result<(), EngineError>, Option<Result<(), EngineError>>) {
        self.inside().swaps += 1;
        match self.stop(old, grace).await {
            Ok(()) => (Ok(()), Some(self.start(new).await)),
            Err(error) => (Err(error), None),
        }
    }

    async fn kill(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.call_on("kill", id, |inside, id| {
            inside.end(id, 137);
            Ok(())
        })
        .await
    }

    async fn remove_by_force(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.call_on("remove-by-force", id, |inside, id| {
            inside.forget(id);
            Ok(())
        })
        .await
    }

    async fn park(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.call_on("rename", id, |inside, id| {
            inside.park(id);
            Ok(())
        })
        .await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.call_on("remove", id, Inside::remove).await
    }

    async fn remove_volume(&self, volume: &OwnVolume) -> Result<(), EngineError> {
        let (app, name) = (volume.app.clone(), volume.volume.clone());
        self.call("remove-volume", &volume.id, move |inside| {
            if !inside.users(&app, &name).is_empty() {
                let message = "volume is in use".to_owned();
                return Err(EngineError::Refused { call: "remove-volume", status: 409, message });
            }
            inside.volumes.remove(&(app, name));
            Ok(())
        })
        .await
    }

    async fn remove_image(&self, image: &ImageRef) -> Result<(), EngineError> {
        let name = image.clone();
        self.call("remove-image", &image.to_string(), move |inside| {
            let is_used = inside.everything().any(|seen| seen.image == name.to_string());
            if !is_used {
                inside.observed.images.remove(&name);
            }
            Ok(())
        })
        .await
    }
}
