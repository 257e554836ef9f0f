//! The world in memory and on disk, for many readers and one writer at a time.
//!
//! An act is asked of the policy, written to disk, then applied to memory, in this
//! order: nobody is told of what a power cut could take back. It runs to its end on a
//! thread of its own, so that a client that hangs up cannot leave it half done.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::policy::{Change, Device, Refusal, World};
use super::render::{self, Rendered, Told};
use super::store::{FolderLock, Store, StoreError};
use crate::model::DeviceUuid;

/// What an act changes in a world.
type Decide = Box<dyn FnOnce(&World) -> Result<Vec<Change>, Refusal> + Send>;

/// Everything behind the two APIs. Cheap to share.
pub(super) struct Records {
    world: RwLock<World>,
    /// `None` after a failed write, until it is opened and read again.
    store: Mutex<Option<Store>>,
    /// What is only in memory, by device.
    live: RwLock<BTreeMap<DeviceUuid, Arc<Live>>>,
    dir: PathBuf,
    poll_interval: Duration,
    _lock: FolderLock,
}

/// What is known of a device only while the server runs.
#[derive(Default)]
struct Live {
    seen: Mutex<Option<Seen>>,
    rendered: Mutex<Option<Arc<Rendered>>>,
}

/// The last poll of a device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) at: Timestamp,
    when: Instant,
}

/// Why an act was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the server is stopping")]
    Stopping,
}

impl Records {
    /// Opens the records in `dir/store`.
    ///
    /// # Errors
    ///
    /// As [`Store::open`], and [`StoreError::InUse`].
    pub(super) fn open(dir: PathBuf, poll_interval: Duration) -> Result<Self, StoreError> {
        let lock = FolderLock::take(&dir)?;
        let dir = dir.join("store");
        let (store, changes) = Store::open(&dir)?;
        Ok(Self {
            world: RwLock::new(world_of(changes)),
            store: Mutex::new(Some(store)),
            live: RwLock::default(),
            dir,
            poll_interval,
            _lock: lock,
        })
    }

    /// The world as it is. Hold it for the length of an answer, and never over an await.
    pub(super) fn world(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does an act: decides, writes, applies. Acts are done one after the other.
    ///
    /// # Errors
    ///
    /// Nothing was changed, in memory or on disk.
    pub(super) async fn act<T, F>(self: &Arc<Self>, act: F) -> Result<T, ActError>
    where
        T: Send + 'static,
        F: FnOnce(&World) -> Result<(T, Vec<Change>), Refusal> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let records = Arc::clone(self);
        // One task for acts of all kinds: tokio makes 3 KB of code for each.
        let decide: Decide = Box::new(move |world| {
            let (answer, changes) = act(world)?;
            // An error means that nobody waits for it any more.
            let _gone = tell.send(answer);
            Ok(changes)
        });
        let done = tokio::task::spawn_blocking(move || records.act_now(decide)).await;
        done.unwrap_or(Err(ActError::Stopping))?;
        told.await.map_err(|_| ActError::Stopping)
    }

    fn act_now(&self, decide: Decide) -> Result<(), ActError> {
        let mut writer = locked(&self.store);
        let store = match writer.take() {
            Some(store) => store,
            None => self.reopen()?,
        };
        let decided = decide(&self.world());
        let changes = match decided {
            Ok(changes) => changes,
            Err(refusal) => {
                *writer = Some(store);
                return Err(refusal.into());
            }
        };
        if !changes.is_empty() {
            // On an error the store is dropped here: after a full disk, sled goes on
            // failing until it is opened again.
            store.commit(&changes)?;
        }
        *writer = Some(store);
        let mut world = self.world.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            world.apply(change);
        }
        Ok(())
    }

    /// After a failed write the disk decides what is true.
    fn reopen(&self) -> Result<Store, StoreError> {
        let (store, changes) = Store::open(&self.dir)?;
        *self.world.write().unwrap_or_else(PoisonError::into_inner) = world_of(changes);
        tracing::info!("opened the records again after a failed write");
        Ok(store)
    }

    /// The target state of a device, rendered once for as long as it stays the same.
    ///
    /// # Errors
    ///
    /// Never in practice; see [`render::target_state`].
    pub(super) fn target_state(&self, device: &Device, world: &World) -> serde_json::Result<Arc<Rendered>> {
        let live = self.live_of(&device.uuid);
        let mut kept = locked(&live.rendered);
        let release = world.target_of(device);
        if let Some(rendered) = kept.as_ref() {
            let Told { name, fleet, release: told } = &rendered.told;
            if *name == device.name && *fleet == device.fleet && *told == release.map(|r| r.number) {
                return Ok(Arc::clone(rendered));
            }
        }
        let fleet = world
            .fleet(device.fleet)
            .ok_or_else(|| serde::ser::Error::custom("the device's fleet is not in the records"))?;
        let rendered =
            Arc::new(render::target_state(device, fleet, release.map(AsRef::as_ref), self.poll_interval)?);
        *kept = Some(Arc::clone(&rendered));
        Ok(rendered)
    }

    /// Notes that a device asked for its target just now.
    pub(super) fn saw(&self, uuid: &DeviceUuid, at: Timestamp) {
        *locked(&self.live_of(uuid).seen) = Some(Seen { at, when: Instant::now() });
    }

    /// When a device last asked for its target since the server started, and whether
    /// that is recent: within one and a half poll intervals.
    pub(super) fn last_seen(&self, uuid: &DeviceUuid) -> Option<(Timestamp, bool)> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner).get(uuid).cloned()?;
        let seen = (*locked(&live.seen))?;
        Some((seen.at, seen.when.elapsed() <= self.poll_interval * 3 / 2))
    }

    fn live_of(&self, uuid: &DeviceUuid) -> Arc<Live> {
        let known = self.live.read().unwrap_or_else(PoisonError::into_inner).get(uuid).cloned();
        known.unwrap_or_else(|| {
            let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(live.entry(uuid.clone()).or_default())
        })
    }

    /// Drops what was in memory about a device that is gone.
    pub(super) fn forget(&self, uuid: &DeviceUuid) {
        self.live.write().unwrap_or_else(PoisonError::into_inner).remove(uuid);
    }
}

fn world_of(changes: Vec<Change>) -> World {
    let mut world = World::default();
    for change in changes {
        world.apply(change);
    }
    world
}

/// A panic elsewhere does not make what these locks guard less true.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
