//! The targets of all devices, rendered when they are asked for. The app of a target is the same for all devices that should
//! run a release, so it is kept: its hash always, and its JSON while it is being sent and for the most recent ones.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;

use super::policy::{Device, Fleet, Release, World};
use super::render::{self, Frame, RenderedApp};

/// Most JSON of recent apps that is kept, in bytes.
const KEPT: usize = 16 << 20;

/// Most apps whose hashes are known. Each one takes about 200 bytes.
const MOST_KNOWN: usize = 50_000;

#[derive(Debug)]
pub(super) struct Targets {
    poll_interval: Duration,
    apps: Mutex<Apps>,
}

/// The rendered apps by fleet and release.
#[derive(Debug, Default)]
struct Apps {
    known: HashMap<(u64, Option<u64>), Known>,
    recent: VecDeque<Arc<RenderedApp>>,
    /// Bytes in `recent`.
    kept: usize,
}

/// A rendered app. Of what it is made, only the name of the fleet can change: the content of a release never does.
#[derive(Debug)]
struct Known {
    fleet_name: String,
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
        Self { poll_interval, apps: Mutex::default() }
    }

    /// Returns the target of a device.
    ///
    /// # Errors
    ///
    /// Never in practice; see [`render::app`].
    pub(super) fn of(&self, device: &Device, world: &World) -> serde_json::Result<Wanted> {
        let (fleet, release) = parts(device, world)?;
        let frame = render::frame(device, fleet, self.poll_interval)?;
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let (length, hash) = match apps.known(fleet, release) {
            Some(known) => (known.length, known.hash),
            None => {
                let app = apps.render(fleet, release)?;
                (app.json.len(), app.hash)
            }
        };
        Ok(Wanted { etag: render::etag(&frame, length, &hash), frame, length })
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
        let (fleet, release) = parts(device, world)?;
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = apps.known(fleet, release).and_then(|known| known.json.upgrade());
        let app = match kept {
            Some(app) => app,
            None => apps.render(fleet, release)?,
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

fn parts<'a>(device: &Device, world: &'a World) -> serde_json::Result<(&'a Fleet, Option<&'a Release>)> {
    let fleet = world.fleet(device.fleet);
    let fleet = fleet.ok_or_else(|| serde::ser::Error::custom("the device's fleet is not in the records"))?;
    Ok((fleet, world.target_of(device).map(AsRef::as_ref)))
}

impl Apps {
    fn known(&self, fleet: &Fleet, release: Option<&Release>) -> Option<&Known> {
        let known = self.known.get(&(fleet.number, release.map(|release| release.number)))?;
        (known.fleet_name == fleet.name).then_some(known)
    }

    fn render(&mut self, fleet: &Fleet, release: Option<&Release>) -> serde_json::Result<Arc<RenderedApp>> {
        let app = Arc::new(render::app(fleet, release)?);
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        let known = Known {
            fleet_name: fleet.name.clone(),
            length: app.json.len(),
            hash: app.hash,
            json: Arc::downgrade(&app),
        };
        self.known.insert((fleet.number, release.map(|release| release.number)), known);
        self.kept += app.json.len();
        self.recent.push_back(Arc::clone(&app));
        while self.kept > KEPT {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.kept -= oldest.json.len();
        }
        Ok(app)
    }
}
