//! Looks at a real engine.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::time::Duration;

use bollard::models::EventMessage;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use serde_json::Value;

use crate::engine::answers::{Image, Info, Inspected, InspectedImage, Network, Summary, Volumes};
use crate::engine::notices::{self, Notices};
use crate::engine::secrets::{self, Secrets};
use crate::engine::{About, EngineError, Inspect, Notice, docker_spec, look};
use crate::model::{
    App, ContainerId, ContainerState, HeldPort, Observed, ObservedService, ObservedVolume, OwnVolume,
    VolumeName,
};

use super::{CONTAINERS, Docker, EVENTS, IMAGES, INFO, NETWORKS, VOLUMES, in_query};

/// How long the engine may take to say what is secret in a message of its own.
const TO_HIDE: Duration = Duration::from_secs(10);

/// How often podman is asked for one look.
const LOOKS: u32 = 5;

impl Docker {
    /// One container; nothing of one that is gone.
    pub(in crate::engine) async fn inspect(&self, id: &ContainerId) -> Result<Inspected, EngineError> {
        let id = id.to_string();
        let call = self.call("inspect", EngineError::DEADLINE, |client| async move {
            client.read(&format!("/containers/{id}/json"), &[]).await
        });
        match call.await {
            Err(EngineError::Refused { status: 404, .. }) => Ok(Inspected::default()),
            other => other,
        }
    }

    /// The result of a call about a container. A refusal shows nothing that is secret in that container and in
    /// what it mounts and is connected to, whoever created it and when: the engine is asked what that is.
    pub(super) async fn hidden<T>(
        &self,
        id: &ContainerId,
        result: Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let Err(error) = result else { return result };
        if matches!(&error, EngineError::Refused { .. } | EngineError::DiskFull { .. }) {
            let path = format!("/containers/{id}/json");
            let asked = self.call("inspect", TO_HIDE, |client| async move { client.read(&path, &[]).await });
            match Box::pin(asked).await {
                Ok(container) => return self.hidden_of(container, Err(error)).await,
                // The engine refused because there is none, and has none of its values.
                Err(EngineError::Refused { status: 404, .. })
                    if matches!(error, EngineError::Refused { status: 404, .. }) => {}
                Err(_) => return Err(error.map_message(secrets::withheld)),
            }
        }
        Err(error)
    }

    /// As [`hidden`](Self::hidden), of a container as the engine inspects it.
    pub(super) async fn hidden_of<T>(
        &self,
        container: Value,
        result: Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let Err(error) = result else { return result };
        if !matches!(&error, EngineError::Refused { .. } | EngineError::DiskFull { .. }) {
            return Err(error);
        }
        let asked = self.call("inspect", TO_HIDE, |client| async move {
            Ok((client.read::<Value>(VOLUMES, &[]).await?, client.read::<Value>(NETWORKS, &[]).await?))
        });
        Err(match Box::pin(asked).await {
            Ok((volumes, networks)) => {
                error.map_message(|m| Secrets::of_inspected(&container, &volumes, &networks).hide(m))
            }
            Err(_) => error.map_message(secrets::withheld),
        })
    }

    /// One image, by its name or id.
    pub(super) async fn inspect_image(&self, name: String) -> Result<InspectedImage, EngineError> {
        let call = self.call("inspect-image", EngineError::DEADLINE, |client| async move {
            client.read(&format!("/images/{name}/json"), &[]).await
        });
        call.await
    }

    /// One look at all that is ours.
    async fn look(&self) -> Result<Observed, EngineError> {
        let ours = in_query(&self.ours());
        // One after the other, so that all go over the one connection that is kept.
        let (containers, networks, images) = self
            .call("list", EngineError::DEADLINE, |client| async move {
                let containers: Vec<_> =
                    client.read(CONTAINERS, &[("all", "true"), ("filters", &ours)]).await?;
                let networks: Vec<Network> = client.read(NETWORKS, &[("filters", &ours)]).await?;
                Ok((containers, networks, client.read::<Vec<Image>>(IMAGES, &[]).await?))
            })
            .await?;
        let mut containers: Vec<Summary> = containers;
        if self.client().await?.is_podman() {
            self.complete(&mut containers).await?;
        }
        let ours =
            containers.into_iter().filter_map(|c| Some((look::is_parked(&c), look::service(c, &networks)?)));
        let (parked, services): (Vec<_>, Vec<_>) = ours.partition(|(is_parked, _)| *is_parked);
        let mut services: Vec<_> = services.into_iter().map(|(_, seen)| seen).collect();
        let mut lost = self.lost();
        let is_down =
            |s: &ObservedService| matches!(s.state, ContainerState::Created | ContainerState::Exited { .. });
        // Somebody may have helped it up.
        lost.retain(|id| services.iter().any(|seen| seen.container == *id && is_down(seen)));
        for seen in services.iter_mut().filter(|seen| lost.contains(&seen.container)) {
            seen.state = ContainerState::Dead;
        }
        drop(lost);
        Ok(Observed {
            services,
            networks: networks.into_iter().filter_map(look::network).collect(),
            images: images.into_iter().flat_map(look::images).collect(),
            parked: parked.into_iter().map(|(_, seen)| seen).collect(),
        })
    }

    /// Whether podman refused a look because a container's process ended meanwhile: the next look is another one.
    pub(super) async fn is_blink(&self, error: &EngineError) -> bool {
        let is_refused = matches!(error, EngineError::Refused { status: 500, .. });
        is_refused && self.client().await.is_ok_and(|client| client.is_podman())
    }

    /// podman tells less in its list than Docker: what is missing is asked container by container.
    async fn complete(&self, containers: &mut [Summary]) -> Result<(), EngineError> {
        for container in containers.iter_mut().filter(|container| container.is_short()) {
            let Ok(id) = ContainerId::parse(&container.id) else { continue };
            container.complete(&self.inspect(&id).await?);
        }
        Ok(())
    }
}

impl Inspect for Docker {
    async fn observe(&self) -> Result<Observed, EngineError> {
        let mut left = LOOKS;
        loop {
            left -= 1;
            match self.look().await {
                Err(error) if left > 0 && self.is_blink(&error).await => {}
                seen => return seen,
            }
        }
    }

    async fn restarts(&self, id: &ContainerId) -> Result<u64, EngineError> {
        let seen = self.inspect(id).await?;
        Ok(u64::try_from(seen.restart_count).unwrap_or(0))
    }

    async fn started(&self, id: &ContainerId) -> Result<Option<String>, EngineError> {
        Ok(self.inspect(id).await?.started())
    }

    async fn about(&self) -> Result<About, EngineError> {
        let call =
            self.call("info", EngineError::DEADLINE, |client| async move { client.read(INFO, &[]).await });
        let info: Info = call.await?;
        Ok(About {
            data_root: info.docker_root_dir,
            architecture: look::architecture(&info.architecture).to_owned(),
        })
    }

    async fn layers(&self) -> Result<BTreeSet<String>, EngineError> {
        let call = self.call("list-images", EngineError::DEADLINE, |client| async move {
            client.read::<Vec<Image>>(IMAGES, &[]).await
        });
        let mut layers = BTreeSet::new();
        for image in call.await? {
            match self.inspect_image(image.id).await {
                Ok(seen) => layers.extend(seen.root.and_then(|root| root.layers).unwrap_or_default()),
                // It has gone since it was listed.
                Err(EngineError::Refused { status: 404, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(layers)
    }

    async fn volumes_of(
        &self,
        app: &App,
        names: &BTreeSet<VolumeName>,
    ) -> Result<BTreeMap<VolumeName, ObservedVolume>, EngineError> {
        let of = |name: &VolumeName| docker_spec::volume_name(&self.settings.instance, app, name);
        let call = self.call("list-volumes", EngineError::DEADLINE, |client| async move {
            client.read::<Volumes>(VOLUMES, &[]).await
        });
        let all = call.await?.volumes.into_iter().flatten();
        let ours = all.filter_map(|volume| {
            let name = names.iter().find(|name| of(name) == volume.name)?.clone();
            let options = volume.options.into_iter().flatten().collect();
            Some((name, ObservedVolume { name: volume.name, driver: volume.driver, options }))
        });
        Ok(ours.collect())
    }

    async fn published(&self) -> Result<Vec<HeldPort>, EngineError> {
        let call = self.call("list", EngineError::DEADLINE, |client| async move {
            client.read::<Vec<Summary>>(CONTAINERS, &[]).await
        });
        Ok(call.await?.into_iter().flat_map(look::published).collect())
    }

    async fn volumes(&self) -> Result<Vec<OwnVolume>, EngineError> {
        let ours = in_query(&self.ours());
        let call = self.call("list-volumes", EngineError::DEADLINE, |client| async move {
            let volumes: Volumes = client.read(VOLUMES, &[("filters", &ours)]).await?;
            Ok((volumes, client.read::<Vec<Summary>>(CONTAINERS, &[("all", "true")]).await?))
        });
        let (volumes, containers) = call.await?;
        Ok(look::volumes(volumes.volumes.unwrap_or_default(), &containers))
    }

    fn events(&self) -> impl Stream<Item = Result<Notice, EngineError>> + Send {
        let mut filters = self.ours();
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        filters.insert("event".to_owned(), notices::KINDS.map(str::to_owned).to_vec());
        stream::once(self.client()).flat_map(move |client| match client {
            Ok(client) => {
                let mut filters = filters.clone();
                // podman has words of its own, and does not find all of them by a filter.
                let is_podman = client.is_podman();
                if is_podman {
                    filters.remove("event");
                }
                let events = stream::once(async move {
                    client.follow::<EventMessage>(EVENTS, &[("filters", &in_query(&filters))]).await
                });
                let events = events.try_flatten();
                let mut notices = Notices::new(is_podman);
                let told = events.filter_map(move |event| {
                    let read = event.map(|event| notices.read(&event)).map_err(|e| self.sort("events", &e));
                    ready(read.transpose())
                });
                told.left_stream()
            }
            Err(error) => stream::iter([Err(error)]).right_stream(),
        })
    }
}
