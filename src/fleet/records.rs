//! The records in memory and on disk, for many readers and one writer at a time.
//!
//! The policy decides an act, then its changes are written to disk, then applied in memory. So no client sees a change
//! that a power cut could undo. An act runs to its end on a separate thread, so a client that disconnects cannot leave it
//! half done.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::Duration;

use axum::body::Bytes;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use super::access::{Entry, Scope, Which};
use super::allowance::Allowance;
use super::audit_log::{AuditLog, Page};
use super::policy::{Change, Device, Refusal, World};
use super::render::{self, Inputs};
use super::standing::Contact;
use super::store::{FolderLock, Store, StoreError};
use super::{clock, sightings};
use crate::model::DeviceUuid;

/// The decision of an act: the changes in a world.
type Decide = Box<dyn FnOnce(&World) -> Result<Vec<Change>, Refusal> + Send>;

/// The state behind the two APIs. Cheap to clone.
pub(super) struct Records {
    world: RwLock<World>,
    /// `None` after a failed write, until the store is opened and read again.
    store: Mutex<Option<Store>>,
    /// State that is only in memory, by device.
    live: RwLock<BTreeMap<DeviceUuid, Arc<Live>>>,
    dir: PathBuf,
    /// The file with the time of each device's last poll.
    sightings: PathBuf,
    poll_interval: Duration,
    /// The number of the newest record of the audit trail.
    audited: AtomicU64,
    /// Held by the act that is running.
    turn: Arc<Semaphore>,
    /// Held by the one act of a device that may wait, so that an operator waits for at most one of them.
    turn_of_devices: Arc<Semaphore>,
    _lock: FolderLock,
}

/// State of a device that is lost when the server ends.
struct Live {
    seen: Mutex<Option<Seen>>,
    rendered: Mutex<Option<Kept>>,
    /// Allowance for reports, because each one that changes something is a synced write.
    reports_left: Mutex<Allowance>,
    /// Allowance for full targets, because each one is rendered again.
    targets_left: Mutex<Allowance>,
    /// Limits its reports in progress.
    reports: Arc<Semaphore>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            seen: Mutex::default(),
            rendered: Mutex::default(),
            reports_left: Mutex::new(Allowance::new(Instant::now())),
            targets_left: Mutex::new(Allowance::new(Instant::now())),
            reports: Arc::new(Semaphore::new(REPORTS)),
        }
    }
}

/// Most reports of one device in progress: a second one, because the device may have lost the connection of the first.
const REPORTS: usize = 2;

/// A rendered target. Its body is kept only while it is being sent, because the bodies of all devices would take much
/// memory.
struct Kept {
    inputs: Inputs,
    etag: String,
    body: Weak<Vec<u8>>,
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
        body: Bytes,
    },
    /// The device requests its full target too often. It may request it again after `wait`.
    TooOften {
        wait: Duration,
    },
}

/// A body that several responses share.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The time of the last poll of a device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    at: Timestamp,
    /// `None`: before the server started.
    when: Option<Instant>,
}

/// Why an act failed.
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
        let sightings = dir.join(sightings::FILE);
        let dir = dir.join("store");
        let (store, changes) = Store::open(&dir)?;
        let world = world_of(changes);
        let audited = store.audit_log().newest().map_err(|error| StoreError::of(&dir, error))?;
        let known = sightings::load(&sightings, |uuid| DeviceUuid::parse(uuid).ok())
            .into_iter()
            .filter(|(uuid, _)| world.device(uuid).is_some());
        let seen = |at| Live { seen: Mutex::new(Some(Seen { at, when: None })), ..Live::default() };
        let live = known.map(|(uuid, at)| (uuid, Arc::new(seen(at)))).collect();
        Ok(Self {
            world: RwLock::new(world),
            store: Mutex::new(Some(store)),
            live: RwLock::new(live),
            sightings,
            dir,
            poll_interval,
            audited: AtomicU64::new(audited),
            turn: Arc::new(Semaphore::new(1)),
            turn_of_devices: Arc::new(Semaphore::new(1)),
            _lock: lock,
        })
    }

    /// Locks the records for reading. Hold the guard only while making an answer, and never across an await.
    pub(super) fn world(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an act: decides, writes, applies. Acts run one after the other.
    ///
    /// # Errors
    ///
    /// Then nothing was changed, in memory or on disk.
    pub(super) async fn act<T, F>(self: &Arc<Self>, act: F) -> Result<T, ActError>
    where
        T: Send + 'static,
        F: FnOnce(&World) -> Result<(T, Vec<Change>), Refusal> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let records = Arc::clone(self);
        // One type of task for all acts, because each instance of a generic task is 3 KB of code.
        let decide: Decide = Box::new(move |world| {
            let (answer, changes) = act(world)?;
            // An error means that the caller has gone.
            let _gone = sender.send(answer);
            Ok(changes)
        });
        // Wait here and not on a blocking thread, because hundreds of acts may be waiting.
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|_| ActError::Stopping)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = records.act_now(decide);
            drop(turn);
            done
        })
        .await;
        done.unwrap_or(Err(ActError::Stopping))?;
        receiver.await.map_err(|_| ActError::Stopping)
    }

    /// As [`Self::act`], for a device. Operators go before all waiting devices.
    ///
    /// # Errors
    ///
    /// As [`Self::act`].
    pub(super) async fn act_for_device<T, F>(self: &Arc<Self>, act: F) -> Result<T, ActError>
    where
        T: Send + 'static,
        F: FnOnce(&World) -> Result<(T, Vec<Change>), Refusal> + Send + 'static,
    {
        let _turn = self.turn_of_devices.acquire().await.map_err(|_| ActError::Stopping)?;
        self.act(act).await
    }

    /// Uses one report of a device's allowance. Keep the returned permit until the report is stored.
    ///
    /// # Errors
    ///
    /// The time to wait, if the device reports too often or too many at once.
    pub(super) fn may_report(&self, uuid: &DeviceUuid) -> Result<OwnedSemaphorePermit, Duration> {
        let live = self.live_of(uuid);
        let reporting = Arc::clone(&live.reports).try_acquire_owned().map_err(|_| Duration::ZERO)?;
        take(&live.reports_left, uuid, "reports")?;
        Ok(reporting)
    }

    /// Returns the number of the next record of the audit trail. Call it in an act, so that numbers ascend.
    pub(super) fn next_audit(&self) -> u64 {
        self.audited.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Reads the newest records of the audit trail below a number. Blocks.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(super) fn audit_page(
        &self,
        which: &Which,
        scope: &Scope,
        below: u64,
        most: usize,
    ) -> Result<Page, StoreError> {
        self.audit_log()?.page(which, scope, below, most).map_err(|error| StoreError::of(&self.dir, error))
    }

    /// Drops records of the audit trail that are old, or too many. Returns whether there may be more.
    ///
    /// # Errors
    ///
    /// As [`Self::act`].
    pub(super) async fn drop_old_audit(
        self: &Arc<Self>,
        keep: u64,
        before: Timestamp,
    ) -> Result<bool, ActError> {
        const AT_ONCE: usize = 1000;
        let records = Arc::clone(self);
        let is_old = move |entry: &Entry| entry.at < before;
        let reading = tokio::task::spawn_blocking(move || {
            let old = records.audit_log()?.old(keep, is_old, AT_ONCE);
            old.map_err(|error| StoreError::of(&records.dir, error))
        });
        let old = reading.await.map_err(|_| ActError::Stopping)??;
        let is_all = old.len() < AT_ONCE;
        self.act(|_| Ok(((), old.into_iter().map(Change::DropAudit).collect()))).await?;
        Ok(!is_all)
    }

    /// The lock is held only while the trail is opened, so that reading it delays no act.
    fn audit_log(&self) -> Result<AuditLog, StoreError> {
        let mut writer = locked(&self.store);
        let store = match writer.take() {
            Some(store) => store,
            None => self.reopen()?,
        };
        let log = store.audit_log();
        *writer = Some(store);
        Ok(log)
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
            // On an error the store is dropped here, because after a full disk sled keeps failing until it is opened
            // again.
            store.commit(&changes)?;
        }
        *writer = Some(store);
        let mut world = self.world.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            world.apply(change);
        }
        Ok(())
    }

    /// Opens the store again after a failed write, and takes over what is on the disk.
    fn reopen(&self) -> Result<Store, StoreError> {
        let (store, changes) = Store::open(&self.dir)?;
        *self.world.write().unwrap_or_else(PoisonError::into_inner) = world_of(changes);
        tracing::info!("opened the records again after a failed write");
        Ok(store)
    }

    /// Returns the target state of a device, without its body if the device `knows` its etag. Renders it if it has changed,
    /// or if it must be sent and is not being sent already.
    ///
    /// # Errors
    ///
    /// Never in practice; see [`render::target_state`].
    pub(super) fn target(
        &self,
        device: &Device,
        world: &World,
        knows: impl Fn(&str) -> bool,
    ) -> serde_json::Result<Target> {
        let live = self.live_of(&device.uuid);
        let mut kept = locked(&live.rendered);
        let release = world.target_of(device);
        if let Some(Kept { inputs, etag, body }) = kept.as_ref() {
            let is_same = inputs.name == device.name
                && inputs.fleet == device.fleet
                && world.fleet(device.fleet).is_some_and(|fleet| fleet.name == inputs.fleet_name)
                && inputs.release == release.map(|release| release.number);
            if is_same && knows(etag) {
                return Ok(Target::Same { etag: etag.clone() });
            }
            if let (true, Some(body)) = (is_same, body.upgrade()) {
                return Ok(Target::New { etag: etag.clone(), body: Bytes::from_owner(Shared(body)) });
            }
        }
        if let Err(wait) = take(&live.targets_left, &device.uuid, "asks for its whole target") {
            return Ok(Target::TooOften { wait });
        }
        let fleet = world
            .fleet(device.fleet)
            .ok_or_else(|| serde::ser::Error::custom("the device's fleet is not in the records"))?;
        let rendered = render::target_state(device, fleet, release.map(AsRef::as_ref), self.poll_interval)?;
        let (etag, body) = (rendered.etag, Arc::new(rendered.body));
        *kept = Some(Kept { inputs: rendered.inputs, etag: etag.clone(), body: Arc::downgrade(&body) });
        if knows(&etag) {
            return Ok(Target::Same { etag });
        }
        Ok(Target::New { etag, body: Bytes::from_owner(Shared(body)) })
    }

    /// Records that a device polls now.
    pub(super) fn saw(&self, uuid: &DeviceUuid, at: Timestamp) {
        *locked(&self.live_of(uuid).seen) = Some(Seen { at, when: Some(Instant::now()) });
    }

    /// Returns the time of a device's last poll or report, and whether it is recent: within one and a half poll intervals.
    pub(super) fn last_seen(&self, device: &Device) -> (Option<Timestamp>, Contact) {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner).get(&device.uuid).cloned();
        let seen = live.and_then(|live| *locked(&live.seen));
        let Some(at) = seen.map(|seen| seen.at).max(device.reported.at) else {
            return (None, Contact::Never);
        };
        let since = match seen.and_then(|seen| seen.when) {
            Some(when) => Some(when.elapsed()),
            None => Duration::try_from(clock::now().duration_since(at)).ok(),
        };
        let is_recent = since.is_some_and(|since| since <= self.poll_interval * 3 / 2);
        (Some(at), if is_recent { Contact::Recent } else { Contact::Old })
    }

    /// Writes to the disk when each device polled last.
    ///
    /// # Errors
    ///
    /// The file is then as it was before.
    pub(super) fn save_sightings(&self) -> io::Result<()> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let seen =
            live.iter().filter_map(|(uuid, live)| Some((uuid.clone(), (*locked(&live.seen))?.at))).collect();
        drop(live);
        sightings::save(&self.sightings, &seen)
    }

    fn live_of(&self, uuid: &DeviceUuid) -> Arc<Live> {
        let known = self.live.read().unwrap_or_else(PoisonError::into_inner).get(uuid).cloned();
        known.unwrap_or_else(|| {
            let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(live.entry(uuid.clone()).or_default())
        })
    }

    /// Drops the state in memory of a deleted device.
    pub(super) fn forget(&self, uuid: &DeviceUuid) {
        self.live.write().unwrap_or_else(PoisonError::into_inner).remove(uuid);
    }
}

/// Uses one request of a device's allowance. Logs the first one that is refused. The error is the time to wait.
fn take(left: &Mutex<Allowance>, device: &DeviceUuid, act: &str) -> Result<(), Duration> {
    locked(left).take(Instant::now()).map_err(|too_often| {
        if too_often.is_first {
            tracing::warn!(%device, act, "device makes too many requests and is answered with 429");
        }
        too_often.wait
    })
}

fn world_of(changes: Vec<Change>) -> World {
    let mut world = World::default();
    for change in changes {
        world.apply(change);
    }
    world
}

/// Ignores poisoning, because a panic elsewhere does not invalidate what these locks guard.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
