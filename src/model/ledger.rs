//! What only we remember.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{AppId, ContainerId, ImageRef, Release};

/// The device's memory: everything here is written to the store before it is acted on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub apps: BTreeMap<AppId, AppLedger>,
    /// Images that we pulled, so that we never remove one of somebody else's.
    pub images: BTreeSet<ImageRef>,
}

/// What we remember of one app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppLedger {
    /// The last release that ran well, whole, so that going back needs no network.
    pub good: Option<Release>,
    /// Containers that we stopped and that are not to be taken for finished ones.
    #[serde(default)]
    pub stopped: BTreeSet<ContainerId>,
}
