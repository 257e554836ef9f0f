//! The targets of all devices, rendered when they are asked for. The app of a target is the same for all devices that should
//! run a release and have equal variables of their own, mostly none. So it is kept: its hash always, and its JSON while it is
//! being sent and for the most recent ones.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;

use super::locks::locked;
use super::policy::{Device, Fleet, Release, VariableDigest, VariableLevels, World};
use super::render::{self, Frame, RenderedApp};
use crate::model::DeviceUuid;

/// Maximum size of the JSON of recent apps that is kept, in bytes.
const KEPT: usize = 16 << 20;

/// Maximum number of apps whose hashes are known: more than there are devices, because each may have variables of its own. Each one takes
/// about 300 bytes.
const MOST_KNOWN: usize = 200_000;

#[derive(Debug)]
pub(super) struct Targets {
    poll_interval: Duration,
    apps: Mutex<Apps>,
    /// For each device, what its reported etag was last compared with, and whether it was the same. Lists ask this of all devices
    /// again and again.
    compared: Mutex<HashMap<DeviceUuid, (u64, bool)>>,
    hasher: RandomState,
}

/// The answer to a poll.
#[derive(Debug)]
pub(super) enum Target {
    /// The device has it already.
    Same {
        etag: String,
    },
    New {
        etag: String,
        body: Body,
        length: usize,
    },
    /// The device requests its full target too often. It may request it again after `wait`.
    TooOften {
        wait: Duration,
    },
}

/// What distinguishes apps: the fleet, the release, and the device's own variables.
type AppKey = (u64, Option<u64>, Option<VariableDigest>);

/// The rendered apps.
#[derive(Debug, Default)]
struct Apps {
    known: HashMap<AppKey, Known>,
    recent: VecDeque<Arc<RenderedApp>>,
    /// Bytes in `recent`.
    kept: usize,
}

/// A rendered app. Of what it is made, only the name and the variables of the fleet can change: the content of a release never
/// does.
#[derive(Debug)]
struct Known {
    fleet_name: String,
    fleet_variables: Option<VariableDigest>,
    length: usize,
    hash: [u8; 32],
    json: Weak<RenderedApp>,
}

/// The target of one device.
#[derive(Debug)]
pub(super) struct Wanted {
    etag: String,
    frame: Frame,
    length: usize,
}

/// What the app of a device is made of.
#[derive(Clone, Copy)]
struct Parts<'a> {
    fleet: &'a Fleet,
    release: Option<&'a Release>,
    variables: VariableLevels<'a>,
}

/// JSON that several responses share.
struct Shared(Arc<RenderedApp>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0.json
    }
}

impl Wanted {
    pub(super) fn etag(&self) -> &str {
        &self.etag
    }
}

impl Targets {
    pub(super) fn new(poll_interval: Duration) -> Self {
        let (apps, compared) = (Mutex::default(), Mutex::default());
        Self { poll_interval, apps, compared, hasher: RandomState::new() }
    }

    /// Returns the target of a device.
    ///
    /// # Errors
    ///
    /// Never in practice; see [`render::app`].
    pub(super) fn of(&self, device: &Device, world: &World) -> serde_json::Result<Wanted> {
        let parts = Parts::of(device, world)?;
        let frame = render::frame(device, parts.fleet, self.poll_interval)?;
        let mut apps = locked(&self.apps);
        let (length, hash) = match apps.known(parts) {
            Some(known) => (known.length, known.hash),
            None => {
                let app = apps.render(parts)?;
                (app.json.len(), app.hash)
            }
        };
        Ok(Wanted { etag: render::etag(&frame, length, &hash), frame, length })
    }

    /// Returns whether a device that reports this etag has the target that it would be sent now.
    ///
    /// # Errors
    ///
    /// As [`Self::of`].
    pub(super) fn is_current(&self, etag: &str, device: &Device, world: &World) -> serde_json::Result<bool> {
        let is_same = || self.of(device, world).map(|wanted| render::is_same(etag, wanted.etag()));
        // It is a part of the target, and few devices have one.
        if device.departure.is_some() {
            return is_same();
        }
        let parts = Parts::of(device, world)?;
        let fleet = (parts.fleet.uuid.as_str(), &parts.fleet.name, parts.variables.of_fleet());
        let all = self.hasher.hash_one((etag, &device.name, parts.key(), fleet));
        if let Some((of, known)) = locked(&self.compared).get(&device.uuid)
            && *of == all
        {
            return Ok(*known);
        }
        let is_same = is_same()?;
        let mut compared = locked(&self.compared);
        if compared.len() >= MOST_KNOWN {
            compared.clear();
        }
        compared.insert(device.uuid.clone(), (all, is_same));
        Ok(is_same)
    }

    /// Returns the body of a target that [`Self::of`] returned for the same device and world, with its length.
    ///
    /// # Errors
    ///
    /// As [`Self::of`].
    pub(super) fn body(
        &self,
        wanted: Wanted,
        device: &Device,
        world: &World,
    ) -> serde_json::Result<(Body, usize)> {
        let parts = Parts::of(device, world)?;
        let mut apps = locked(&self.apps);
        let kept = apps.known(parts).and_then(|known| known.json.upgrade());
        let app = match kept {
            Some(app) => app,
            None => apps.render(parts)?,
        };
        drop(apps);
        let Wanted { frame, length, .. } = wanted;
        let length = frame.before.len() + length + frame.after.len();
        let parts = [
            Bytes::from(frame.before),
            Bytes::from_owner(Shared(app)),
            Bytes::from_static(frame.after.as_bytes()),
        ];
        Ok((Body::from_stream(stream::iter(parts.map(Ok::<_, std::convert::Infallible>))), length))
    }
}

impl<'a> Parts<'a> {
    fn of(device: &Device, world: &'a World) -> serde_json::Result<Self> {
        let fleet = world.fleet(device.fleet);
        let fleet =
            fleet.ok_or_else(|| serde::ser::Error::custom("the device's fleet is not in the records"))?;
        let release = world.target_of(device).map(AsRef::as_ref);
        Ok(Self { fleet, release, variables: world.variables_for(device) })
    }

    fn key(self) -> AppKey {
        (self.fleet.number, self.release.map(|release| release.number), self.variables.of_device())
    }
}

impl Apps {
    fn known(&self, parts: Parts<'_>) -> Option<&Known> {
        let known = self.known.get(&parts.key())?;
        let is_same =
            known.fleet_name == parts.fleet.name && known.fleet_variables == parts.variables.of_fleet();
        is_same.then_some(known)
    }

    fn render(&mut self, parts: Parts<'_>) -> serde_json::Result<Arc<RenderedApp>> {
        let Parts { fleet, release, variables } = parts;
        let app = Arc::new(render::app(fleet, release, variables)?);
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        let known = Known {
            fleet_name: fleet.name.clone(),
            fleet_variables: variables.of_fleet(),
            length: app.json.len(),
            hash: app.hash,
            json: Arc::downgrade(&app),
        };
        self.known.insert(parts.key(), known);
        self.kept += app.json.len();
        self.recent.push_back(Arc::clone(&app));
        while self.kept > KEPT {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.kept -= oldest.json.len();
        }
        Ok(app)
    }
}

#[cfg(test)]
#[path = "targets_tests.rs"]
mod tests;
