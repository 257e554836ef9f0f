//! The state of devices that is only in memory: when each polled last, and how much it may still ask for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::allowance::{Allowance, Pace, TAGS, USUAL};
use super::locks::locked;
use crate::model::DeviceUuid;

/// All devices that have asked for something, or of which it is known when they did.
pub(super) struct LiveDevices {
    by_uuid: RwLock<BTreeMap<DeviceUuid, Arc<Live>>>,
}

/// State of a device that is lost when the server ends.
struct Live {
    seen: Mutex<Option<Seen>>,
    /// Allowance for reports, because each one that changes something is a synced write.
    reports_left: Mutex<Allowance>,
    /// Allowance for full targets, because each one is sent in whole.
    targets_left: Mutex<Allowance>,
    /// Allowance for changes of its tags, because each one is a record of the audit trail.
    tags_left: Mutex<Allowance>,
    /// Limits its reports in progress.
    reports: Arc<Semaphore>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            seen: Mutex::default(),
            reports_left: Mutex::new(Allowance::new(Instant::now())),
            targets_left: Mutex::new(Allowance::new(Instant::now())),
            tags_left: Mutex::new(Allowance::new(Instant::now())),
            reports: Arc::new(Semaphore::new(REPORTS)),
        }
    }
}

/// Maximum number of reports of one device in progress: a second one, because the device may have lost the connection of the first.
const REPORTS: usize = 2;

/// The time of the last poll of a device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) at: Timestamp,
    /// `None`: before the server started, or at another server.
    pub(super) when: Option<Instant>,
}

impl LiveDevices {
    /// `known` has when devices polled before the server started.
    pub(super) fn new(known: impl Iterator<Item = (DeviceUuid, Timestamp)>) -> Self {
        let seen = |at| Live { seen: Mutex::new(Some(Seen { at, when: None })), ..Live::default() };
        let by_uuid = known.map(|(uuid, at)| (uuid, Arc::new(seen(at)))).collect();
        Self { by_uuid: RwLock::new(by_uuid) }
    }

    /// Uses one report of a device's allowance. Keep the returned permit until the report is stored.
    ///
    /// # Errors
    ///
    /// The time to wait.
    pub(super) fn may_report(&self, uuid: &DeviceUuid) -> Result<OwnedSemaphorePermit, Duration> {
        let live = self.of(uuid);
        let reporting = Arc::clone(&live.reports).try_acquire_owned().map_err(|_| Duration::ZERO)?;
        take(&live.reports_left, USUAL, uuid, "reports")?;
        Ok(reporting)
    }

    /// Uses one full target of a device's allowance.
    ///
    /// # Errors
    ///
    /// The time to wait.
    pub(super) fn may_have_target(&self, uuid: &DeviceUuid) -> Result<(), Duration> {
        take(&self.of(uuid).targets_left, USUAL, uuid, "asks for its whole target")
    }

    /// Uses one change of tags of a device's allowance.
    ///
    /// # Errors
    ///
    /// The time to wait.
    pub(super) fn may_tag(&self, uuid: &DeviceUuid) -> Result<(), Duration> {
        take(&self.of(uuid).tags_left, TAGS, uuid, "changes its tags")
    }

    /// Records that a device polls now.
    pub(super) fn saw(&self, uuid: &DeviceUuid, at: Timestamp) {
        *locked(&self.of(uuid).seen) = Some(Seen { at, when: Some(Instant::now()) });
    }

    /// Records that a device polled another server.
    pub(super) fn saw_elsewhere(&self, uuid: &DeviceUuid, at: Timestamp) {
        let live = self.of(uuid);
        let mut seen = locked(&live.seen);
        *seen = seen.filter(|seen| seen.at >= at).or(Some(Seen { at, when: None }));
    }

    /// Returns when a device polled last.
    pub(super) fn seen(&self, uuid: &DeviceUuid) -> Option<Seen> {
        let live = self.by_uuid.read().unwrap_or_else(PoisonError::into_inner).get(uuid).cloned();
        live.and_then(|live| *locked(&live.seen))
    }

    /// Returns when each device polled last.
    pub(super) fn all_seen(&self) -> Vec<(DeviceUuid, Timestamp)> {
        let live = self.by_uuid.read().unwrap_or_else(PoisonError::into_inner);
        let seen = |(uuid, live): (&DeviceUuid, &Arc<Live>)| {
            let at = (*locked(&live.seen))?.at;
            Some((uuid.clone(), at))
        };
        live.iter().filter_map(seen).collect()
    }

    /// Drops the state of a deleted device.
    pub(super) fn forget(&self, uuid: &DeviceUuid) {
        self.by_uuid.write().unwrap_or_else(PoisonError::into_inner).remove(uuid);
    }

    fn of(&self, uuid: &DeviceUuid) -> Arc<Live> {
        let known = self.by_uuid.read().unwrap_or_else(PoisonError::into_inner).get(uuid).cloned();
        known.unwrap_or_else(|| {
            let mut live = self.by_uuid.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(live.entry(uuid.clone()).or_default())
        })
    }
}

/// Uses one request of a device's allowance. Logs the first one that is refused. The error is the time to wait.
fn take(left: &Mutex<Allowance>, pace: Pace, device: &DeviceUuid, act: &str) -> Result<(), Duration> {
    locked(left).take(Instant::now(), pace).map_err(|too_often| {
        if too_often.is_first {
            tracing::warn!(%device, act, "device makes too many requests and is answered with 429");
        }
        too_often.wait
    })
}
