//! The records in memory and on disk, for many readers and one writer.
//!
//! Readers take a snapshot of the world, so a long list holds up neither a poll nor an act. The writer is a thread of its own.
//! It takes all acts that wait, decides one after the other, writes the changes of all of them to disk at once, and only then
//! puts the new world in place and answers. So no client sees a change that a power cut could undo, a client that disconnects
//! leaves no act half done, and many reports need only one write.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::access::{Scope, Which};
use super::audit_log::Page;
use super::in_progress::{InProgress, Turn};
use super::key_hash::KeyHash;
use super::live::LiveDevices;
use super::locks::locked;
use super::logs::{self, LogMode, Logs};
use super::parked::Parked;
use super::policy::{Change, Device, Refusal, Room, World};
use super::requests::Requests;
use super::standing::Contact;
use super::storage::{Opened, Trail};
use super::store::FolderLock;
use super::store_error::StoreError;
pub(super) use super::targets::Target;
use super::targets::Targets;
pub(super) use super::writer::ActError;
use super::writer::{Decide, Rank, Work, Writer};
use super::{clock, database, file_storage, render, sightings};
use crate::model::DeviceUuid;
use crate::postgres::Address;

/// The state behind the two APIs.
pub(super) struct Records {
    world: Arc<RwLock<Arc<World>>>,
    writer: Writer,
    targets: Targets,
    requests: Requests,
    parked: Arc<Parked>,
    pub(super) logs: Arc<Logs>,
    live: LiveDevices,
    registering: Arc<InProgress>,
    /// The file with the time of each device's last poll.
    sightings: PathBuf,
    poll_interval: Duration,
    room: Room,
    is_paused: AtomicBool,
    trail: Box<dyn Trail>,
    /// The folder of the store.
    dir: PathBuf,
    /// Which file the records are in: its device and inode. `None`: they are in a database.
    file: Option<(u64, u64)>,
    is_new: bool,
    /// When the store was last read for a request that names something unknown.
    unknown: Mutex<Option<Instant>>,
    _lock: FolderLock,
}

/// Maximum number of registrations with one provisioning key in progress. A body that arrives slowly holds a place of the devices.
const REGISTRATIONS: usize = 8;

/// How often servers tell each other when devices have polled.
pub(super) const SHARE_SIGHTINGS: Duration = Duration::from_secs(20);

/// The store is read for unknown names at most once in this time, because strangers can send them.
const FOR_UNKNOWN: Duration = Duration::from_millis(50);

impl Records {
    /// Opens the records, in a database or in the data folder, for polls on so many connections and as many releases as there is
    /// room for.
    ///
    /// # Errors
    ///
    /// Those of the store, and [`StoreError::InUse`].
    pub(super) fn open(
        dir: PathBuf,
        shared: Option<&Address>,
        poll_interval: Duration,
        connections: usize,
        room: Room,
        (log_mode, log_bytes): (LogMode, u64),
    ) -> Result<Self, StoreError> {
        let lock = FolderLock::take(&dir)?;
        let sightings = dir.join(sightings::FILE);
        let is_shared = shared.is_some();
        let opened = match shared {
            Some(address) => database::open(address, &dir)?,
            None => file_storage::open(&dir)?,
        };
        let file = if is_shared { None } else { file_storage::file_id(&dir) };
        let Opened { storage, trail, records, position, own } = opened;
        let is_new = records.is_empty() && !is_shared;
        let mut world = World::of(records);
        world.set_position(position);
        let known = sightings::load(&sightings, |uuid| DeviceUuid::parse(uuid).ok()).into_iter();
        let live = LiveDevices::new(known.filter(|(uuid, _)| world.device(uuid).is_some()));
        let parked = Parked::new(connections);
        let uuids = |uuid: &str| DeviceUuid::parse(uuid).is_ok_and(|uuid| world.device(&uuid).is_some());
        let logs = Logs::open(logs::folder(&dir), (log_mode, log_bytes), connections, &parked, uuids);
        let world = Arc::new(RwLock::new(Arc::new(world)));
        let writer = Writer::start(storage, Arc::clone(&world), Arc::clone(&parked));
        let failed = |source| StoreError::Io { path: dir.clone(), source };
        let writer = writer.map_err(failed)?;
        if let Some(address) = shared {
            database::follow(address.clone(), own, writer.bell()).map_err(failed)?;
        }
        let targets = Targets::new(poll_interval);
        Ok(Self {
            trail,
            dir,
            file,
            is_new,
            unknown: Mutex::default(),
            world,
            writer,
            targets,
            requests: Requests::default(),
            parked,
            logs: Arc::new(logs),
            live,
            registering: Arc::default(),
            sightings,
            poll_interval,
            room,
            is_paused: AtomicBool::new(false),
            _lock: lock,
        })
    }

    /// Returns whether the file of the records is still in its place. It may have been removed, or replaced by another one,
    /// while the server has it open.
    pub(super) fn is_in_place(&self) -> bool {
        self.file.is_none_or(|file| file_storage::file_id(&self.dir) == Some(file))
    }

    /// Returns whether there were no records when they were opened.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Lets all devices keep the targets that they have.
    pub(super) fn pause(&self) {
        self.is_paused.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    /// Returns what the writer has done.
    pub(super) fn work(&self) -> &Work {
        self.writer.work()
    }

    /// Returns the counts of requests.
    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Returns the records as they are now. Later changes do not reach it.
    pub(super) fn world(&self) -> Arc<World> {
        Arc::clone(&self.world.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns how many releases are accepted.
    pub(super) fn room(&self) -> Room {
        self.room
    }

    /// Takes over what other servers have written up to now. Returns whether the store could be read.
    pub(super) async fn refresh(&self) -> bool {
        self.writer.refresh().await
    }

    /// As [`Self::refresh`], for a request that names something unknown, which another server may have made just now. `false`
    /// if no other server shares the records, or if many such requests have come.
    pub(super) async fn refresh_for_unknown(&self) -> bool {
        if self.world().position().is_none() {
            return false;
        }
        let is_due = {
            let mut last = locked(&self.unknown);
            let is_due = last.is_none_or(|last| last.elapsed() >= FOR_UNKNOWN);
            *last = last.filter(|_| !is_due).or_else(|| Some(Instant::now()));
            is_due
        };
        is_due && self.refresh().await
    }

    /// Returns the polls that wait for a change.
    pub(super) fn parked(&self) -> &Arc<Parked> {
        &self.parked
    }

    /// Runs an act: decides, writes, applies. Acts run one after the other.
    ///
    /// # Errors
    ///
    /// Then nothing was changed, in memory or on disk.
    pub(super) async fn act<T, F>(&self, act: F) -> Result<T, ActError>
    where
        T: Send + 'static,
        F: FnOnce(&World) -> Result<(T, Vec<Change>), Refusal> + Send + 'static,
    {
        self.run(Rank::Operator, act).await
    }

    /// As [`Self::act`], for a device. Operators go before all waiting devices.
    ///
    /// # Errors
    ///
    /// As [`Self::act`].
    pub(super) async fn act_for_device<T, F>(&self, act: F) -> Result<T, ActError>
    where
        T: Send + 'static,
        F: FnOnce(&World) -> Result<(T, Vec<Change>), Refusal> + Send + 'static,
    {
        self.run(Rank::Device, act).await
    }

    async fn run<T, F>(&self, rank: Rank, act: F) -> Result<T, ActError>
    where
        T: Send + 'static,
        F: FnOnce(&World) -> Result<(T, Vec<Change>), Refusal> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let decide: Decide = Box::new(move |world| {
            let (answer, changes) = act(world)?;
            // An error means that the caller has gone.
            let _gone = sender.send(answer);
            Ok(changes)
        });
        self.writer.run(rank, decide).await?;
        receiver.await.map_err(|_| ActError::Stopping)
    }

    /// Uses one report of a device's allowance. Keep the returned permit until the report is stored.
    ///
    /// # Errors
    ///
    /// The time to wait, if the device reports too often or too many at once.
    pub(super) fn may_report(&self, uuid: &DeviceUuid) -> Result<OwnedSemaphorePermit, Duration> {
        self.live.may_report(uuid)
    }

    /// Uses one change of tags of a device's allowance. The error is the time to wait.
    pub(super) fn may_tag(&self, uuid: &DeviceUuid) -> Result<(), Duration> {
        self.live.may_tag(uuid)
    }

    /// Counts a registration with this key until the turn is dropped; `None` if too many are in progress.
    pub(super) fn may_register(&self, key: &KeyHash) -> Option<Turn> {
        self.registering.enter(key, REGISTRATIONS)
    }

    /// Reads the newest records of the audit trail below a number. Blocks.
    ///
    /// # Errors
    ///
    /// [`ActError`].
    pub(super) fn audit_page(
        &self,
        which: &Which,
        scope: &Scope,
        below: u64,
        most: usize,
    ) -> Result<Page, ActError> {
        self.trail.page(which, scope, below, most).map_err(of_store)
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
        let reading = tokio::task::spawn_blocking(move || records.trail.old(keep, before, AT_ONCE));
        let old = reading.await.map_err(|_| ActError::Stopping)?.map_err(of_store)?;
        let is_all = old.len() < AT_ONCE;
        self.act(|_| Ok(((), old.into_iter().map(Change::DropAudit).collect()))).await?;
        Ok(!is_all)
    }

    /// Returns the target state of a device, without its body if the device `knows` its etag.
    ///
    /// # Errors
    ///
    /// Never in practice; see [`Targets::of`].
    pub(super) fn target(
        &self,
        device: &Device,
        world: &World,
        knows: impl Fn(&str) -> bool,
    ) -> serde_json::Result<Target> {
        let wanted = self.targets.of(device, world)?;
        let etag = match world.position() {
            Some(position) => render::etag_at(wanted.etag(), position),
            None => wanted.etag().to_owned(),
        };
        if knows(&etag) {
            return Ok(Target::Same { etag });
        }
        if let Err(wait) = self.live.may_have_target(&device.uuid) {
            return Ok(Target::TooOften { wait });
        }
        let (body, length) = self.targets.body(wanted, device, world)?;
        Ok(Target::New { etag, body, length })
    }

    /// Records that a device polls now.
    pub(super) fn saw(&self, uuid: &DeviceUuid, at: Timestamp) {
        self.live.saw(uuid, at);
    }

    /// Returns the time of a device's last poll or report, and whether it is recent: within one and a half poll intervals, or
    /// its poll still waits.
    pub(super) fn last_seen(&self, world: &World, device: &Device) -> (Option<Timestamp>, Contact) {
        let seen = self.live.seen(&device.uuid);
        let Some(at) = seen.map(|seen| seen.at).max(world.reported(&device.uuid).at) else {
            return (None, Contact::Never);
        };
        let since = match seen.and_then(|seen| seen.when) {
            Some(when) => Some(when.elapsed()),
            None => Duration::try_from(clock::now().duration_since(at)).ok(),
        };
        let late = world.position().map_or(Duration::ZERO, |_| 2 * SHARE_SIGHTINGS);
        let is_recent = since.is_some_and(|since| since <= self.poll_interval * 3 / 2 + late)
            || self.parked.has(&device.uuid);
        let contact = match is_recent {
            true if self.is_outdated(world, device) => Contact::Outdated,
            true => Contact::Recent,
            false => Contact::Old,
        };
        (Some(at), contact)
    }

    /// Returns whether a device's last report is about another target than it would be sent now. Agents that do not report
    /// the etag of their target are never outdated.
    fn is_outdated(&self, world: &World, device: &Device) -> bool {
        let account = world.reported(&device.uuid).account.as_ref();
        let Some(etag) = account.and_then(|account| account.etag.as_deref()) else { return false };
        self.targets.is_current(etag, device, world).is_ok_and(|is_current| !is_current)
    }

    /// Writes to the disk when each device polled last.
    ///
    /// # Errors
    ///
    /// The file is then as it was before.
    pub(super) fn save_sightings(&self) -> io::Result<()> {
        sightings::save(&self.sightings, &self.seen_here(None))
    }

    /// Returns when each device polled last; those whose poll waits `now`. Drops the state of devices that another server has
    /// deleted.
    pub(super) fn seen_here(&self, now: Option<Timestamp>) -> BTreeMap<DeviceUuid, Timestamp> {
        // Read before the world: a device that has polled and is not in the world was deleted.
        let seen = self.live.all_seen();
        let world = self.world();
        let is_known = |(uuid, _): &(DeviceUuid, Timestamp)| world.device(uuid).is_some();
        let (known, deleted): (Vec<_>, Vec<_>) = seen.into_iter().partition(is_known);
        deleted.iter().for_each(|(uuid, _)| self.forget(uuid));
        let at = |(uuid, at): (DeviceUuid, Timestamp)| {
            let at = now.filter(|_| self.parked.has(&uuid)).unwrap_or(at);
            (uuid, at)
        };
        known.into_iter().map(at).collect()
    }

    /// Records that a device polled another server.
    pub(super) fn saw_elsewhere(&self, uuid: &DeviceUuid, at: Timestamp) {
        if self.world().device(uuid).is_some() {
            self.live.saw_elsewhere(uuid, at);
        }
    }

    /// Drops the state in memory of a deleted device, and its logs.
    pub(super) fn forget(&self, uuid: &DeviceUuid) {
        self.live.forget(uuid);
        self.logs.forget(uuid);
    }
}

fn of_store(error: StoreError) -> ActError {
    ActError::Store(Arc::new(error))
}
