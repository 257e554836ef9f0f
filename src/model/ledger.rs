//! What only we remember.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AppId, ContainerId, ImageRef, Release, ReleaseKey};

/// The device's memory: everything here is written to the store before it is acted on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub apps: BTreeMap<AppId, AppLedger>,
    /// Images that we pulled, so that we never remove one of somebody else's.
    pub images: BTreeSet<ImageRef>,
    /// An operator's order to swap nothing on this device; `None`: it is not held.
    #[serde(default)]
    pub hold: Option<Hold>,
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
}

/// Why a release was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    pub release: ReleaseKey,
    pub why: String,
}
