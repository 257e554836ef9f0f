//! Checks the mounts and address ranges of a step right before it runs, because links and networks of the host may change
//! at any time.

use std::collections::BTreeMap;

use crate::engine::Operate;
use crate::model::{
    AppId, ContainerId, ContainerState, ObservedService, Release, ServiceName, ServiceSpec, SpecHash, Step,
    VolumeName, VolumeSpec, is_at_or_below, with_causes,
};

use super::host_access::{HostAccess, MountedPath};
use super::resolve::{ResolvedStep, Subject};
use super::stage::StepRunner;

/// Another service, to compare its mounts with those of the service that is to start.
struct Neighbour<'a> {
    app: &'a AppId,
    service: &'a ServiceName,
    spec: &'a ServiceSpec,
    volumes: &'a BTreeMap<VolumeName, VolumeSpec>,
    is_up: bool,
}

impl<E: Operate, H: HostAccess> StepRunner<'_, E, H> {
    /// Returns the step that the host does not allow now, and why: `step` itself or, if it is a stop, a later start in
    /// `rest` of its chain, because no container is stopped for a successor that cannot start. Adds the container that
    /// `step` stops to `stopped`.
    pub(super) async fn barred_here_or_later(
        &self,
        step: &ResolvedStep<'_>,
        rest: impl Iterator<Item = ResolvedStep<'_>>,
        stopped: &mut Vec<ContainerId>,
    ) -> Option<(Step, String)> {
        if let Some(why) = self.barred(step, stopped).await {
            return Some((step.step.clone(), why));
        }
        let Step::Stop { container, .. } = &step.step else { return None };
        stopped.push(container.clone());
        let mut later = stopped.clone();
        for step in rest {
            if let Some(why) = self.barred(&step, &later).await {
                return Some((step.step, why));
            }
            let step = &step.step;
            later.extend(step.container().filter(|_| matches!(step, Step::Stop { .. })).cloned());
        }
        None
    }

    /// Returns why the host does not allow a step now. `stopped`: containers that were stopped since the observation.
    async fn barred(&self, step: &ResolvedStep<'_>, stopped: &[ContainerId]) -> Option<String> {
        let ResolvedStep { step, subject } = step;
        let (release, spec) = match subject.as_ref()? {
            Subject::Network { spec, .. } => {
                let ranges = spec.ranges();
                let checked = if ranges.is_empty() { Ok(()) } else { self.host.check_ranges(&ranges) };
                return checked.err().map(|error| with_causes(&error));
            }
            // Reconnecting mounts nothing.
            Subject::Service { .. } if matches!(step, Step::Reconnect { .. }) => return None,
            Subject::Service { release, spec, .. } => (*release, *spec),
        };
        let bound = match self.host.resolve_mounts(spec, &release.volumes).await {
            Ok(bound) => bound,
            Err(error) => return Some(with_causes(&error)),
        };
        if let Step::Start { app, .. } = step
            && !bound.is_empty()
        {
            return self.replaceable((app, release, &spec.hash), &bound, stopped).await;
        }
        None
    }

    /// Returns why a service that mounts `bound` may not run together with another service: one of the two could replace a
    /// path that the other mounts by a link, and the engine would follow the link at the next restart.
    async fn replaceable(
        &self,
        own: (&AppId, &Release, &SpecHash),
        bound: &[MountedPath],
        stopped: &[ContainerId],
    ) -> Option<String> {
        if let Some(path) = first_in(bound, bound) {
            return Some(above("it", path, "it"));
        }
        if let Some(stranger) = self.stranger(stopped) {
            let (service, release) = (&stranger.service, &stranger.release);
            return Some(format!(
                "service {service} of release {release} still runs, and its mounts are not known: this start waits for its end"
            ));
        }
        for other in self.neighbours(own, stopped) {
            // A path that may no longer be mounted is not what the running container has.
            let Ok(theirs) = self.host.resolve_mounts(other.spec, other.volumes).await else { continue };
            let name = format!("service {} of app {}", other.service, other.app);
            if let Some(path) = first_in(bound, &theirs) {
                return Some(above(&name, path, "it"));
            }
            if let Some(path) = first_in(&theirs, bound).filter(|_| other.is_up) {
                return Some(above("it", path, &name));
            }
        }
        None
    }

    fn is_up(&self, seen: &ObservedService, stopped: &[ContainerId]) -> bool {
        let is_down = matches!(
            seen.state,
            ContainerState::Created | ContainerState::Exited { .. } | ContainerState::Dead
        );
        !is_down && !stopped.contains(&seen.container)
    }

    /// Returns a running container that belongs to no wanted or good release.
    fn stranger(&self, stopped: &[ContainerId]) -> Option<&ObservedService> {
        let is_known = |seen: &ObservedService| {
            self.releases().any(|(app, release)| {
                *app == seen.app
                    && release.services.get(&seen.service).is_some_and(|spec| spec.hash == seen.spec)
            })
        };
        let all = self.known.observed.services.iter().chain(&self.known.observed.parked);
        all.into_iter().find(|seen| self.is_up(seen, stopped) && !is_known(seen))
    }

    /// Returns all other services of the same release, those of other apps, and those that run.
    fn neighbours(&self, own: (&AppId, &Release, &SpecHash), stopped: &[ContainerId]) -> Vec<Neighbour<'_>> {
        let (own_app, own_release, own_spec) = own;
        let mut found = Vec::new();
        for (app, release) in self.releases() {
            let is_beside = app != own_app || release == own_release;
            for (service, spec) in &release.services {
                let is_it = |seen: &&ObservedService| {
                    seen.app == *app && seen.service == *service && seen.spec == spec.hash
                };
                let is_up =
                    self.known.observed.services.iter().filter(is_it).any(|seen| self.is_up(seen, stopped));
                if (app, &spec.hash) != (own_app, own_spec) && (is_up || is_beside) {
                    found.push(Neighbour { app, service, spec, volumes: &release.volumes, is_up });
                }
            }
        }
        found
    }

    /// Returns all wanted and all good releases.
    fn releases(&self) -> impl Iterator<Item = (&AppId, &Release)> {
        let wanted = self.known.target.apps.iter().filter_map(|(id, app)| Some((id, app.release()?)));
        let good = self.known.ledger.apps.iter().filter_map(|(id, app)| Some((id, app.good.as_ref()?)));
        wanted.chain(good)
    }
}

/// Returns the first of `paths` that lies in a mounted folder of `others` and can be replaced there: the folder is mounted
/// writable, or another disk is mounted between the two.
fn first_in<'a>(paths: &'a [MountedPath], others: &[MountedPath]) -> Option<&'a str> {
    others.iter().find_map(|other| {
        let is_in = |path: &str| path != other.path && is_at_or_below(path, &other.path);
        let is_replaceable =
            |bound: &&MountedPath| is_in(&bound.path) && (other.is_writable || is_in(&bound.disk));
        paths.iter().find(is_replaceable).map(|bound| bound.path.as_str())
    })
}

fn above(writer: &str, path: &str, other: &str) -> String {
    format!(
        "{writer} may write into a folder above {path:?}, which {other} mounts, and could put a link there that leads \
         anywhere: mount the upper folder read-only, or nothing below it"
    )
}
