//! Observes a real engine.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::ready;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bollard::models::EventMessage;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use serde_json::Value;

use crate::engine::answers::{Image, Info, Inspected, InspectedImage, Network, Summary, Volumes};
use crate::engine::docker_spec::label;
use crate::engine::notices::{self, Notices};
use crate::engine::secrets::{self, Secrets};
use crate::engine::{
    About, EngineError, FollowedLog, Inspect, LogSpan, Notice, RunRecord, docker_spec, logs, observed,
};
use crate::model::{
    App, ContainerId, ContainerState, Door, HeldPort, LAST_LINES, LogTime, Observed, ObservedService,
    ObservedVolume, OwnVolume, VolumeName, last_lines,
};

use super::{CONTAINERS, Docker, EVENTS, IMAGES, INFO, NETWORKS, VOLUMES, in_query};

/// How long the engine may take to answer what is secret in a message.
const TO_HIDE: Duration = Duration::from_secs(10);

/// How long the engine may take for the last lines of a log.
const TO_READ: Duration = Duration::from_secs(10);

/// How many bytes are kept of the end of a log, while it is read.
const MOST_WRITTEN: usize = 64 * 1024;

/// How many attempts one observation of podman has.
const ATTEMPTS: u32 = 5;

/// The filter of what has a label.
fn of_label(label: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![label.to_owned()])])
}

impl Docker {
    /// Inspects a container. One that does not exist has only default values.
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

    /// Returns the result of a call on a container, without secrets in the message of a refusal. The secrets are those of
    /// the container and of its volumes and networks, whoever created them. The engine is asked for them.
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
                // The container does not exist, so the message has no secrets of it.
                Err(EngineError::Refused { status: 404, .. })
                    if matches!(error, EngineError::Refused { status: 404, .. }) => {}
                Err(_) => return Err(error.map_message(secrets::withheld)),
            }
        }
        Err(error)
    }

    /// As [`hidden`](Self::hidden), for a container that was inspected already.
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

    /// Returns a message about a container without the secrets of its release.
    async fn without_secrets(&self, id: &ContainerId, message: &str) -> String {
        let path = format!("/containers/{id}/json");
        let asked = self.call("inspect", TO_HIDE, |client| async move {
            let container = client.read::<Value>(&path, &[]).await?;
            Ok((
                container,
                client.read::<Value>(VOLUMES, &[]).await?,
                client.read::<Value>(NETWORKS, &[]).await?,
            ))
        });
        match Box::pin(asked).await {
            Ok((container, volumes, networks)) => {
                Secrets::of_inspected(&container, &volumes, &networks).hide(message)
            }
            Err(_) => secrets::withheld(message),
        }
    }

    /// Inspects an image, by its name or id.
    pub(super) async fn inspect_image(&self, name: String) -> Result<InspectedImage, EngineError> {
        let call = self.call("inspect-image", EngineError::DEADLINE, |client| async move {
            client.read(&format!("/images/{name}/json"), &[]).await
        });
        call.await
    }

    /// Observes all that is ours once.
    async fn observe_once(&self) -> Result<Observed, EngineError> {
        let (ours, ours_or_balenas) = (in_query(&self.ours()), in_query(&self.ours_or_balenas()));
        // One after the other, so that all calls use the kept connection.
        let (containers, networks, images) = self
            .call("list", EngineError::DEADLINE, |client| async move {
                let containers: Vec<_> =
                    client.read(CONTAINERS, &[("all", "true"), ("filters", &ours)]).await?;
                let networks: Vec<Network> = client.read(NETWORKS, &[("filters", &ours_or_balenas)]).await?;
                Ok((containers, networks, client.read::<Vec<Image>>(IMAGES, &[]).await?))
            })
            .await?;
        let mut containers: Vec<Summary> = containers;
        let networks: Vec<_> = networks
            .into_iter()
            .filter(|network| {
                let of = network.labels.as_ref().and_then(|labels| labels.get(label::INSTANCE));
                of.is_none_or(|of| of == self.settings.instance.as_str())
            })
            .collect();
        if self.client().await?.is_podman() {
            self.complete(&mut containers).await?;
        }
        let ours = containers
            .into_iter()
            .filter_map(|c| Some((observed::is_parked(&c), observed::service(c, &networks)?)));
        let (parked, services): (Vec<_>, Vec<_>) = ours.partition(|(is_parked, _)| *is_parked);
        let mut services: Vec<_> = services.into_iter().map(|(_, seen)| seen).collect();
        let originals = self.originals().await?;
        let mut lost = self.lost();
        let is_down =
            |s: &ObservedService| matches!(s.state, ContainerState::Created | ContainerState::Exited { .. });
        // One that was removed or runs again is no longer lost.
        lost.retain(|id| services.iter().any(|seen| seen.container == *id && is_down(seen)));
        for seen in services.iter_mut().filter(|seen| lost.contains(&seen.container)) {
            seen.state = ContainerState::Dead;
        }
        drop(lost);
        Ok(Observed {
            services,
            networks: networks.iter().cloned().filter_map(observed::network).collect(),
            original_networks: networks.into_iter().filter_map(observed::original_network).collect(),
            images: images.into_iter().flat_map(observed::images).collect(),
            parked: parked.into_iter().map(|(_, seen)| seen).collect(),
            originals,
        })
    }

    /// Returns the containers of a balena supervisor. Only the instance with its names of volumes may take them over. Once
    /// there are none, they are not asked for again.
    async fn originals(&self) -> Result<Vec<ObservedService>, EngineError> {
        if !docker_spec::has_names_of_balena(&self.settings.instance)
            || self.is_without_originals.load(Relaxed)
        {
            return Ok(Vec::new());
        }
        let filter = in_query(&of_label(label::SUPERVISED));
        let call = self.call("list", EngineError::DEADLINE, |client| async move {
            client.read::<Vec<Summary>>(CONTAINERS, &[("all", "true"), ("filters", &filter)]).await
        });
        let mut found: Vec<_> = call.await?.into_iter().filter_map(observed::original).collect();
        self.is_without_originals.store(found.is_empty(), Relaxed);
        let known = self.originals.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for seen in &mut found {
            seen.grace = match known.get(&seen.container) {
                Some(grace) => *grace,
                // The engine's list does not have it.
                None => self.inspect(&seen.container).await?.grace(),
            };
        }
        *self.originals.lock().unwrap_or_else(PoisonError::into_inner) =
            found.iter().map(|seen| (seen.container.clone(), seen.grace)).collect();
        Ok(found)
    }

    /// The label of our networks, and of those of a balena supervisor in the instance that may take them over.
    fn ours_or_balenas(&self) -> HashMap<String, Vec<String>> {
        let is_default = docker_spec::has_names_of_balena(&self.settings.instance);
        if is_default { of_label(label::SUPERVISED) } else { self.ours() }
    }

    /// Refuses a network that has the name of one of ours, and is not ours.
    pub(super) fn check_ours(&self, there: Network) -> Result<(), EngineError> {
        let of = there.labels.as_ref().and_then(|labels| labels.get(label::INSTANCE));
        if of.is_some_and(|of| of == self.settings.instance.as_str()) {
            return Ok(());
        }
        let name = there.name;
        let message = format!(
            "the network {name} exists already, and this agent did not create it; if nothing needs it, remove it: \
             docker network rm {name}"
        );
        Err(EngineError::Refused { call: "create-network", status: 409, message })
    }

    /// Returns `true` if podman refused an observation because a container ended during it. The next attempt may succeed.
    pub(super) async fn is_blink(&self, error: &EngineError) -> bool {
        let is_refused = matches!(error, EngineError::Refused { status: 500, .. });
        is_refused && self.client().await.is_ok_and(|client| client.is_podman())
    }

    /// Adds what podman's list lacks compared with Docker's, by inspecting single containers.
    async fn complete(&self, containers: &mut [Summary]) -> Result<(), EngineError> {
        for container in containers.iter_mut().filter(|container| container.is_short()) {
            let Ok(id) = ContainerId::parse(&container.id) else { continue };
            container.complete(&self.inspect(&id).await?);
        }
        Ok(())
    }
}

impl Inspect for Docker {
    async fn default_bridge(&self) -> Result<Option<Door>, EngineError> {
        let call = self.call("list-networks", EngineError::DEADLINE, |client| async move {
            client.read::<Vec<Network>>(NETWORKS, &[]).await
        });
        Ok(observed::default_bridge(&call.await?))
    }

    async fn observe(&self) -> Result<Observed, EngineError> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            match self.observe_once().await {
                Err(error) if left > 0 && self.is_blink(&error).await => {}
                seen => return seen,
            }
        }
    }

    async fn run_record(&self, id: &ContainerId) -> Result<RunRecord, EngineError> {
        let seen = self.inspect(id).await?;
        let mut record = seen.run_record();
        if let Some(end) = record.end.as_mut().filter(|_| !seen.state.error.is_empty()) {
            end.error = self.without_secrets(id, &seen.state.error).await;
        }
        Ok(record)
    }

    async fn last_lines(&self, id: &ContainerId) -> Result<Vec<String>, EngineError> {
        let span = LogSpan { tail: Some(LAST_LINES), since: 0, is_followed: false };
        let read = async {
            let mut pieces = std::pin::pin!(self.logs(id, span).await?);
            let mut last = Vec::new();
            while let Some(piece) = pieces.try_next().await? {
                last.extend(piece);
                // Lines may be of any length. Only the end is kept, cut in large steps.
                if last.len() > 2 * MOST_WRITTEN {
                    last.drain(..last.len() - MOST_WRITTEN);
                }
            }
            Ok(last_lines(&last))
        };
        let late = EngineError::Timeout { call: "logs", seconds: TO_READ.as_secs() };
        tokio::time::timeout(TO_READ, read).await.unwrap_or(Err(late))
    }

    async fn follow_log(
        &self,
        id: &ContainerId,
        since: Option<LogTime>,
        tail: u32,
    ) -> Result<FollowedLog, EngineError> {
        logs::follow(self, id, since, tail).await
    }

    async fn started(&self, id: &ContainerId) -> Result<Option<String>, EngineError> {
        Ok(self.inspect(id).await?.started())
    }

    async fn about(&self) -> Result<About, EngineError> {
        let call =
            self.call("info", EngineError::DEADLINE, |client| async move { client.read(INFO, &[]).await });
        let info: Info = call.await?;
        let is_podman = self.client().await?.is_podman();
        Ok(About {
            data_root: info.docker_root_dir,
            architecture: observed::architecture(&info.architecture).to_owned(),
            lacks_zstd: !is_podman && observed::is_before_zstd(&info.server_version),
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
                // It was removed after it was listed.
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
        Ok(call.await?.into_iter().flat_map(observed::published).collect())
    }

    async fn volumes(&self) -> Result<Vec<OwnVolume>, EngineError> {
        let is_default = docker_spec::has_names_of_balena(&self.settings.instance);
        let ours = in_query(&if is_default { of_label(label::SUPERVISED) } else { self.ours() });
        let call = self.call("list-volumes", EngineError::DEADLINE, |client| async move {
            let volumes: Volumes = client.read(VOLUMES, &[("filters", &ours)]).await?;
            Ok((volumes, client.read::<Vec<Summary>>(CONTAINERS, &[("all", "true")]).await?))
        });
        let (volumes, containers) = call.await?;
        Ok(observed::volumes(volumes.volumes.unwrap_or_default(), &containers, &self.settings.instance))
    }

    fn events(&self) -> impl Stream<Item = Result<Notice, EngineError>> + Send {
        let mut filters = self.ours();
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        filters.insert("event".to_owned(), notices::KINDS.map(str::to_owned).to_vec());
        stream::once(self.client()).flat_map(move |client| match client {
            Ok(client) => {
                let mut filters = filters.clone();
                // podman has kinds of its own, and its filter does not find all of them.
                let is_podman = client.is_podman();
                if is_podman {
                    filters.remove("event");
                }
                let events = stream::once(async move {
                    client.follow::<EventMessage>(EVENTS, &[("filters", &in_query(&filters))]).await
                });
                let events = events.try_flatten();
                let mut reader = Notices::new(is_podman);
                let notices = events.filter_map(move |event| {
                    let read = event.map(|event| reader.read(&event)).map_err(|e| self.sort("events", e));
                    ready(read.transpose())
                });
                notices.left_stream()
            }
            Err(error) => stream::iter([Err(error)]).right_stream(),
        })
    }
}
