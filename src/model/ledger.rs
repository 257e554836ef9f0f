//! The ledger: what only the agent remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    ApiKey, AppId, ContainerId, Download, EvidenceBook, History, ImageRef, Release, ReleaseKey, ServiceName,
    SpecHash,
};

/// The memory of the device. Every change is saved to the store before the agent acts on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub apps: BTreeMap<AppId, AppLedger>,
    /// The images that we pulled. No other image is ever removed.
    pub images: BTreeSet<ImageRef>,
    /// What the downloads of each image have cost for the present target.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub downloads: BTreeMap<ImageRef, Download>,
    /// Set while an operator holds the device. Nothing is swapped then.
    #[serde(default)]
    pub hold: Option<Hold>,
    /// The leases of operators and programs. An expired one has no effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<Lease>,
    #[serde(default)]
    pub clock: ClockNote,
    /// The history of releases. No decision depends on it.
    #[serde(default)]
    pub history: Arc<History>,
    /// Why services of rejected releases failed. No decision depends on it.
    #[serde(default)]
    pub evidence: Arc<EvidenceBook>,
}

/// What is remembered about the wall clock, to find out when it is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockNote {
    /// The latest time at which the ledger was saved under a trusted clock, RFC 3339 in UTC.
    pub seen_at: Option<String>,
    /// The total time for which an update has waited for a trusted clock.
    #[serde(default)]
    pub waited: Duration,
}

/// A lock with an end. Nothing is swapped while it is in force. It also ends with the boot in which it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The id with which its holder renews and releases it.
    pub id: String,
    /// Who holds it, for people.
    pub owner: String,
    pub reason: String,
    /// The boot in which it was made.
    pub boot_id: String,
    /// When it ends, as time since that boot.
    pub until: Duration,
}

impl Lease {
    /// Returns `true` if it is in force at `uptime` of the boot `boot_id`.
    #[must_use]
    pub fn is_in_force(&self, boot_id: &str, uptime: Duration) -> bool {
        self.boot_id == boot_id && uptime < self.until
    }
}

/// An operator's order to swap nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub reason: String,
    /// RFC 3339, UTC; only shown.
    pub since: String,
}

/// The memory of one app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppLedger {
    /// The good release: the one that was accepted last. It is stored completely, so that a rollback needs no network.
    pub good: Option<Release>,
    /// The release that was accepted before it, for an operator's rollback. Its images are kept.
    #[serde(default)]
    pub previous: Option<Release>,
    /// The cloud's number of the app, which is the name of its lock folder.
    #[serde(default)]
    pub number: Option<u64>,
    /// Containers that we stopped. They do not count as finished jobs.
    #[serde(rename = "stopped", default)]
    pub stopped_by_agent: BTreeSet<ContainerId>,
    /// The progress of the trial of a release that is not accepted yet. It counts only while the target wants this
    /// release.
    #[serde(default)]
    pub trial: Option<Trial>,
    /// The release that was rejected last. It is not tried again until the target changes.
    #[serde(default)]
    pub rejected: Option<Rejection>,
    /// Services that an operator stopped, until they are started by an order or their spec changes.
    #[serde(rename = "halted", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stopped_by_operator: BTreeMap<ServiceName, Halt>,
    /// Containers that an operator wants to be restarted once.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub restart: BTreeSet<ContainerId>,
    /// The number of recent restarts of each unhealthy service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub heals: BTreeMap<ServiceName, u32>,
    /// The last starts of containers that share namespaces, and of those that they joined.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub starts: BTreeMap<ContainerId, Starts>,
    /// The release that an operator lets pass locks and windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<ReleaseKey>,
    /// The keys of its services for the supervisor API.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub api_keys: BTreeMap<ServiceName, ApiKey>,
}

/// The last start of a container that joins namespaces, and the last starts of the containers that it joined then, in the
/// engine's texts. Each start has a different text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starts {
    pub own: String,
    pub of: BTreeMap<ContainerId, String>,
}

impl Starts {
    /// Returns `true` if a container that it joined was started after it. It then still has the namespaces of before
    /// that start, which no other container has any more. `before` are the last starts at which all was well.
    ///
    /// The texts are dates, and a clock may have jumped between them. So they are compared only if the agent has not
    /// seen which start came first.
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
    /// The spec of the service at that time. The order ends when the spec changes.
    pub spec: SpecHash,
    /// RFC 3339, UTC; only shown.
    pub since: String,
}

/// A trial. Its time is counted and not dated, so a clock that jumps does not change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    pub release: ReleaseKey,
    /// How long the agent has watched it.
    pub ran: Duration,
    /// The number of boots since it began, so that a release that reboots its device is rejected, too.
    pub boots: u32,
    /// The boot in which it was last watched.
    pub boot_id: String,
    /// How long each service has run at the same time as the predecessor from which it takes over.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hand_over: BTreeMap<ServiceName, Duration>,
}

/// A rejected release, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    pub release: ReleaseKey,
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_was_started_before_the_one_it_joins_is_left_behind() {
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
