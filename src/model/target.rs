//! What the fleet wants of this device.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{App, AppId, Release};

/// The resolved target of one device. Absence of a target is never a `Target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub device_name: String,
    /// The device's apps. Apps that are not ours to run (the host's, the balena supervisor's) are not in it.
    pub apps: BTreeMap<AppId, TargetApp>,
    /// The cloud's wish for the time between polls, when it has one.
    pub poll_interval: Option<Duration>,
    /// The cloud's order to pass over update locks (`SUPERVISOR_OVERRIDE_LOCK`, docs/dev/protocol.md, "Update locks").
    pub is_lock_overridden: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetApp {
    Wanted(WantedApp),
    Refused(RefusedApp),
}

impl TargetApp {
    /// The cloud's number of the app, as far as it could be read.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Wanted(wanted) => Some(wanted.app.number),
            Self::Refused(_) => None,
        }
    }

    /// The release that is wanted, if one is and we can run it.
    #[must_use]
    pub fn release(&self) -> Option<&Release> {
        match self {
            Self::Wanted(wanted) => wanted.release.as_ref(),
            Self::Refused(_) => None,
        }
    }
}

/// A target as the cloud sent it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredTarget {
    /// Base URL of the API that sent it; another one's target does not count.
    pub endpoint: String,
    /// As the cloud gave it, to be sent with the next poll.
    pub etag: Option<String>,
    /// The answer, byte for byte. `Debug` leaves it out: it holds the author's environment.
    pub body: String,
}

impl fmt::Debug for StoredTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredTarget")
            .field("endpoint", &self.endpoint)
            .field("etag", &self.etag)
            .field("body", &format_args!("({} bytes)", self.body.len()))
            .finish()
    }
}

/// A target, with what is to be kept of it; nothing when it came from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    pub target: Target,
    pub record: Option<StoredTarget>,
}

/// An app whose release, if any, we can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedApp {
    pub app: App,
    /// `None`: the app has no release, and nothing of it runs.
    pub release: Option<Release>,
    /// Fields that we do not honour but that do not stand in the way.
    pub warnings: Vec<Refusal>,
}

/// An app left exactly as it is, because its release asks for what we do not support.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedApp {
    /// As the target gives it; its uuid when even that cannot be read.
    pub name: String,
    /// As the target names it; it need not be a valid commit.
    pub release: String,
    pub refusals: Vec<Refusal>,
}

/// What we would not accept, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// E.g. `services.web.composition.ports[0]`.
    pub path: String,
    pub why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}
