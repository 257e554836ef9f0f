//! What only we remember.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AppId, ContainerId, Download, History, ImageRef, Release, ReleaseKey, ServiceName, SpecHash};

/// The device's memory: everything here is written to the store before it is acted on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub apps: BTreeMap<AppId, AppLedger>,
    /// Images that we pulled, so that we never remove one of somebody else's.
    pub images: BTreeSet<ImageRef>,
    /// What the downloads of each image have cost for the present target.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub downloads: BTreeMap<ImageRef, Download>,
    /// An operator's order to swap nothing on this device; `None`: it is not held.
    #[serde(default)]
    pub hold: Option<Hold>,
    /// Locks that operators and programs of this device hold; one that has expired counts for nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<Lease>,
    #[serde(default)]
    pub clock: ClockNote,
    /// What became of releases; decides nothing.
    #[serde(default)]
    pub history: Arc<History>,
}

/// What is remembered of the wall clock, so that one that is wrong can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockNote {
    /// The latest time at which the ledger was written by a clock that was believed, RFC 3339 in UTC.
    pub seen_at: Option<String>,
    /// How long, in sum, an update has waited for a clock that can be believed.
    #[serde(default)]
    pub waited: Duration,
}

/// A lock with an end: nothing is swapped while it is in force. It ends with the boot in which it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// By which its holder renews and releases it.
    pub id: String,
    /// Who holds it, in words.
    pub owner: String,
    pub reason: String,
    /// The boot in which it was given.
    pub boot_id: String,
    /// When it ends, as time since that boot.
    pub until: Duration,
}

impl Lease {
    /// Whether it holds at `uptime` of the boot `boot_id`.
    #[must_use]
    pub fn is_in_force(&self, boot_id: &str, uptime: Duration) -> bool {
        self.boot_id == boot_id && uptime < self.until
    }
}

/// Why nothing is swapped, in the operator's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub reason: String,
    /// RFC 3339, UTC; only shown.
    pub since: String,
}

/// What we remember of one app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppLedger {
    /// The last release that ran well, whole, so that going back needs no network.
    pub good: Option<Release>,
    /// The release that was good before it, whole: an operator may go back to it. Its images stay here.
    #[serde(default)]
    pub previous: Option<Release>,
    /// The cloud's number of the app: it names the folder of its locks.
    #[serde(default)]
    pub number: Option<u64>,
    /// Containers that we stopped and that are not to be taken for finished ones.
    #[serde(default)]
    pub stopped: BTreeSet<ContainerId>,
    /// How far the trial of a release that is not good yet has come. Whether it *is* on trial follows
    /// from the target: a trial of another release than the wanted one counts for nothing.
    #[serde(default)]
    pub trial: Option<Trial>,
    /// The release that was tried last and taken back. Not tried again while the target is the same.
    #[serde(default)]
    pub rejected: Option<Rejection>,
    /// Services that an operator stopped: they stay so until they are started, or their spec changes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub halted: BTreeMap<ServiceName, Halt>,
    /// Containers that an operator wants to be stopped and started once.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub restart: BTreeSet<ContainerId>,
    /// How often each unhealthy service was restarted lately.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub heals: BTreeMap<ServiceName, u32>,
    /// When containers that share namespaces were started, and those that they joined then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub starts: BTreeMap<ContainerId, Starts>,
    /// The release that an operator lets pass locks and windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<ReleaseKey>,
}

/// When a container that shares namespaces was started last, and when those were that it joined: the engine's
/// own words, of which each start has another one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starts {
    pub own: String,
    pub of: BTreeMap<ContainerId, String>,
}

impl Starts {
    /// Whether one of those that it joined was started after it, when `before` is what was last known to be
    /// whole: it still has the namespaces of before, which are nobody's any more.
    ///
    /// The words are dates, and a clock may have jumped between them. They are compared only where nobody
    /// watched which came first.
    #[must_use]
    pub fn is_left_behind(&self, before: Option<&Self>) -> bool {
        self.of.iter().any(|(id, of)| match before {
            Some(before) if before.of.get(id) == Some(of) => false,
            Some(before) if before.own == self.own => true,
            Some(_) | None => self.own < *of,
        })
    }
}

/// An operator's order that a service stays stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// Of the service as it was; another spec is another service.
    pub spec: SpecHash,
    /// RFC 3339, UTC; only shown.
    pub since: String,
}

/// A trial, counted and not dated, so that no clock that jumps makes it longer or shorter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    pub release: ReleaseKey,
    /// How long the agent has watched it.
    pub ran: Duration,
    /// How often the device has booted since it began: a release that reboots its device ends, too.
    pub boots: u32,
    /// The boot in which it was last watched.
    pub boot_id: String,
    /// For how long each service of it has run beside the predecessor that it takes over from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hand_over: BTreeMap<ServiceName, Duration>,
}

/// Why a release was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    pub release: ReleaseKey,
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_started_before_the_one_it_joined_is_left_behind() {
        let starts = |own: &str, of: &str| Starts {
            own: own.to_owned(),
            of: BTreeMap::from([(ContainerId::parse("x").unwrap(), of.to_owned())]),
        };
        for (why, before, now, expected) in [
            ("nothing is known, and the dates are right", None, ("2", "1"), false),
            ("nothing is known, and the other is newer", None, ("1", "2"), true),
            ("nothing has changed, whatever the dates", Some(("1", "2")), ("1", "2"), false),
            ("the other was started again", Some(("2", "1")), ("2", "3"), true),
            ("the same while the clock went back", Some(("5", "4")), ("5", "1"), true),
            ("it was started again itself", Some(("2", "1")), ("3", "1"), false),
            ("the same while the clock went back", Some(("5", "4")), ("1", "4"), false),
            ("both were, in their order", Some(("2", "1")), ("4", "3"), false),
            ("both were, and the other one later", Some(("2", "1")), ("3", "4"), true),
        ] {
            let before = before.map(|(own, of)| starts(own, of));
            assert_eq!(starts(now.0, now.1).is_left_behind(before.as_ref()), expected, "{why}");
        }
    }

    #[test]
    fn a_lease_ends_with_its_time_and_with_its_boot() {
        let lease = Lease {
            id: "a1".into(),
            owner: "kiosk".into(),
            reason: "show".into(),
            boot_id: "one".into(),
            until: Duration::from_secs(60),
        };
        for (boot_id, seconds, expected) in
            [("one", 0, true), ("one", 59, true), ("one", 60, false), ("one", 61, false), ("two", 0, false)]
        {
            let is_in_force = lease.is_in_force(boot_id, Duration::from_secs(seconds));
            assert_eq!(is_in_force, expected, "{boot_id} {seconds}");
        }
    }
}
