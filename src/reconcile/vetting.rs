//! Whether the host lets a step have what it would reach: asked right before the step runs, because links on the host and
//! its networks change at any time.

use std::collections::BTreeMap;

use crate::engine::Operate;
use crate::model::{
    AppId, ContainerId, ContainerState, ObservedService, Release, ServiceName, ServiceSpec, SpecHash, Step,
    VolumeName, VolumeSpec, is_at_or_below,
};

use super::stage::Doer;
use super::surroundings::{Bound, Surroundings};

/// A container that may be up, and what it mounts.
struct Neighbour<'a> {
    app: &'a AppId,
    service: &'a ServiceName,
    spec: &'a ServiceSpec,
    volumes: &'a BTreeMap<VolumeName, VolumeSpec>,
    is_up: bool,
}

impl<E: Operate, S: Surroundings> Doer<'_, E, S> {
    /// The step that the host does not let run now, and why: `step`, or the start that follows when it is a stop, because
    /// what cannot start stops nothing. Adds to `stopped` what the step stops.
    pub(super) async fn barred_with_next(
        &self,
        step: &Step,
        next: Option<&Step>,
        stopped: &mut Vec<ContainerId>,
    ) -> Option<(Step, String)> {
        if let Some(why) = self.barred(step, stopped).await {
            return Some((step.clone(), why));
        }
        let Step::Stop { container, .. } = step else { return None };
        stopped.push(container.clone());
        let next = next?;
        self.barred(next, stopped).await.map(|why| (next.clone(), why))
    }

    /// Why the host does not let a step run now. `stopped`: containers that are down since the last look.
    async fn barred(&self, step: &Step, stopped: &[ContainerId]) -> Option<String> {
        let (app, service, spec) = match step {
            Step::CreateNetwork { app, network, config_hash } => {
                let has_it = |release: &Release| {
                    release.networks.get(network).is_some_and(|spec| spec.config_hash == *config_hash)
                };
                let ranges = self.release_where(app, has_it)?.1.networks.get(network)?.ranges();
                return if ranges.is_empty() { None } else { self.surroundings.has_room_for(&ranges).err() };
            }
            Step::Create { app, service, spec, .. } => (app, service, spec),
            Step::Start { app, service, container } => (app, service, &self.seen(container)?.spec),
            Step::Pull { .. }
            | Step::Weigh { .. }
            | Step::Try { .. }
            | Step::Unlock { .. }
            | Step::Heal { .. }
            | Step::Reject { .. }
            | Step::Commit { .. }
            | Step::Forget { .. }
            | Step::Reconnect { .. }
            | Step::Stop { .. }
            | Step::Kill { .. }
            | Step::RemoveByForce { .. }
            | Step::Park { .. }
            | Step::Remove { .. }
            | Step::RemoveNetwork { .. }
            | Step::RemoveImage { .. } => return None,
        };
        let release = self.release_with(app, service, spec)?.1;
        let bound = match self.surroundings.bound(release.services.get(service)?, &release.volumes).await {
            Ok(bound) => bound,
            Err(why) => return Some(why),
        };
        if bound.is_empty() || !matches!(step, Step::Start { .. }) {
            return None;
        }
        self.replaceable((app, spec), &bound, stopped).await
    }

    fn seen(&self, container: &ContainerId) -> Option<&ObservedService> {
        self.observed.services.iter().find(|seen| seen.container == *container)
    }

    /// Why a container of `own` may not mount `bound` beside others: one of the two could replace what the other mounts
    /// by a link, which the engine follows whenever it starts that one again by itself.
    async fn replaceable(
        &self,
        own: (&AppId, &SpecHash),
        bound: &[Bound],
        stopped: &[ContainerId],
    ) -> Option<String> {
        for other in self.neighbours(own, stopped) {
            // One that may not be mounted any more is not what the other one has.
            let Ok(theirs) = self.surroundings.bound(other.spec, other.volumes).await else { continue };
            let name = format!("service {} of app {}", other.service, other.app);
            let (who, path, whose) = match (first_in(bound, &theirs), first_in(&theirs, bound)) {
                (Some(path), _) => (name, path, "it".to_owned()),
                (None, Some(path)) if other.is_up => ("it".to_owned(), path, name),
                (None, _) => continue,
            };
            return Some(format!(
                "{who} may write into a folder above {path:?}, which {whose} mounts, and could put a link there that leads \
                 anywhere: mount the upper folder read-only, or nothing below it"
            ));
        }
        None
    }

    /// All containers that are up, but those that were stopped, and those that other apps may start.
    fn neighbours(&self, own: (&AppId, &SpecHash), stopped: &[ContainerId]) -> Vec<Neighbour<'_>> {
        let is_up = |app: &AppId, spec: &SpecHash| {
            self.observed.services.iter().any(|seen| {
                let is_down = matches!(
                    seen.state,
                    ContainerState::Created | ContainerState::Exited { .. } | ContainerState::Dead
                );
                seen.app == *app && seen.spec == *spec && !is_down && !stopped.contains(&seen.container)
            })
        };
        let mut found = Vec::new();
        for (app, release) in self.releases() {
            for (service, spec) in &release.services {
                let is_up = is_up(app, &spec.hash);
                if (app, &spec.hash) != own && (is_up || app != own.0) {
                    found.push(Neighbour { app, service, spec, volumes: &release.volumes, is_up });
                }
            }
        }
        found
    }

    /// Every release that may run: those that are wanted and those that are good.
    fn releases(&self) -> impl Iterator<Item = (&AppId, &Release)> {
        let wanted = self.target.apps.iter().filter_map(|(id, app)| Some((id, app.release()?)));
        let good = self.ledger.apps.iter().filter_map(|(id, app)| Some((id, app.good.as_ref()?)));
        wanted.chain(good)
    }
}

/// The first of `paths` that is in a folder that is mounted to be written.
fn first_in<'a>(paths: &'a [Bound], folders: &[Bound]) -> Option<&'a str> {
    let mut writable = folders.iter().filter(|folder| folder.is_writable);
    writable.find_map(|folder| {
        let is_in = |bound: &&Bound| bound.path != folder.path && is_at_or_below(&bound.path, &folder.path);
        paths.iter().find(is_in).map(|bound| bound.path.as_str())
    })
}
