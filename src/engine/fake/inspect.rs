//! Observes the fake engine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures_util::{Stream, stream};

use crate::engine::{About, EngineError, FollowedLog, Inspect, Notice, RunRecord};
use crate::model::{
    App, AppId, ContainerId, ContainerState, Door, FailedProbe, Health, HeldPort, LogTime, Observed,
    ObservedVolume, OwnVolume, VolumeName,
};

use super::inside::last_end;
use super::{Fake, gone, is_up};

impl Inspect for Fake {
    async fn observe(&self) -> Result<Observed, EngineError> {
        self.call("list", "", |inside| Ok(inside.observed())).await
    }

    async fn run_record(&self, id: &ContainerId) -> Result<RunRecord, EngineError> {
        let container = id.clone();
        self.call("inspect", id.as_str(), move |inside| {
            let Some(seen) = inside.find(&container) else { return Ok(RunRecord::default()) };
            let is_unhealthy = seen.state == ContainerState::Running && seen.health == Health::Unhealthy;
            Ok(RunRecord {
                restarts: if seen.state == ContainerState::Restarting { 5 } else { seen.restarts },
                end: last_end(seen.state),
                probe: is_unhealthy.then(|| FailedProbe::new(1, "no answer")),
            })
        })
        .await
    }

    async fn last_lines(&self, id: &ContainerId) -> Result<Vec<String>, EngineError> {
        let container = id.clone();
        self.call("logs", id.as_str(), move |inside| {
            let seen = inside.find(&container).filter(|seen| seen.state != ContainerState::Created);
            Ok(seen.map(|seen| format!("the last line of {}", seen.service)).into_iter().collect())
        })
        .await
    }

    async fn follow_log(
        &self,
        id: &ContainerId,
        since: Option<LogTime>,
        tail: u32,
    ) -> Result<FollowedLog, EngineError> {
        self.written.follow(id, since, tail)
    }

    async fn started(&self, id: &ContainerId) -> Result<Option<String>, EngineError> {
        let container = id.clone();
        self.call("inspect", id.as_str(), move |inside| {
            let is_up = inside.find(&container).is_some_and(|seen| is_up(seen.state));
            Ok(inside.starts.get(&container).filter(|_| is_up).map(|n| format!("{n:020}")))
        })
        .await
    }

    async fn about(&self) -> Result<About, EngineError> {
        self.call("info", "", |inside| {
            let architecture = inside.architecture.clone().unwrap_or_else(|| "amd64".to_owned());
            Ok(About { data_root: "/fake".to_owned(), architecture, lacks_zstd: false })
        })
        .await
    }

    async fn layers(&self) -> Result<BTreeSet<String>, EngineError> {
        self.call("list-layers", "", |inside| {
            let made_of = |image| inside.layers.get(image).into_iter().flatten().cloned();
            Ok(inside.observed.images.iter().flat_map(made_of).collect())
        })
        .await
    }

    async fn volumes_of(
        &self,
        app: &App,
        names: &BTreeSet<VolumeName>,
    ) -> Result<BTreeMap<VolumeName, ObservedVolume>, EngineError> {
        let (instance, app, names) = (self.instance.clone(), app.clone(), names.clone());
        self.call("list-volumes", "", move |inside| Ok(inside.volumes_of(&instance, &app, &names))).await
    }

    async fn default_bridge(&self) -> Result<Option<Door>, EngineError> {
        let peers = vec!["172.17.0.0/16".to_owned()];
        let bridge = Door { address: IpAddr::from([172, 17, 0, 1]), peers };
        self.call("list-networks", "", |_| Ok(Some(bridge))).await
    }

    async fn published(&self) -> Result<Vec<HeldPort>, EngineError> {
        self.call("list-ports", "", |inside| Ok(inside.published())).await
    }

    async fn volumes(&self) -> Result<Vec<OwnVolume>, EngineError> {
        self.call("list-volumes", "", |inside| {
            let own = |(app, volume): &(AppId, VolumeName)| OwnVolume {
                id: format!("{app}_{volume}"),
                app: app.clone(),
                volume: volume.clone(),
                used_by: inside.users(app, volume),
            };
            Ok(inside.volumes.keys().map(own).collect())
        })
        .await
    }

    fn events(&self) -> impl Stream<Item = Result<Notice, EngineError>> + Send {
        let sent = self.inside().restarted.len();
        stream::unfold(Some((self.changed.subscribe(), sent)), |listening| async {
            let (mut changed, sent) = listening?;
            let is_down = || self.inside().is_down;
            let restarted = || self.inside().restarted.get(sent).cloned();
            if !is_down() && restarted().is_none() {
                tokio::select! {
                    change = changed.changed() => change.ok()?,
                    () = self.late_call() => {}
                }
            }
            if is_down() {
                return Some((Err(gone()), None));
            }
            match restarted() {
                None => Some((Ok(Notice::Changed), Some((changed, sent)))),
                Some((app, service)) => {
                    Some((Ok(Notice::Restarted { app, service }), Some((changed, sent + 1))))
                }
            }
        })
    }
}
