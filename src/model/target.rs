//! The target: the releases that the fleet wants on this device.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AnsweredVariable, App, AppId, MoveOrder, Release};

/// The target of this device. Having none is different from a target without apps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub device_name: String,
    /// The device's apps, without those that we must not run (the host's and the balena supervisor's).
    pub apps: BTreeMap<AppId, TargetApp>,
    /// The time between polls that the cloud asks for, if it does.
    pub poll_interval: Option<Duration>,
    /// Whether the cloud orders to ignore update locks (`SUPERVISOR_OVERRIDE_LOCK`, docs/dev/protocol.md, "Update locks").
    pub is_lock_overridden: bool,
    /// Whether the cloud takes logs (`SUPERVISOR_LOG_CONTROL`, docs/dev/protocol.md, "Log streaming").
    pub has_logs: bool,
    /// Whether a service may make the agent poll at once without `force` (`SUPERVISOR_INSTANT_UPDATE_TRIGGER`).
    pub has_instant_updates: bool,
    /// Whether the cloud takes metrics of the device (`SUPERVISOR_HARDWARE_METRICS`, docs/dev/protocol.md, "Reports: fields").
    pub has_metrics: bool,
    /// Whether the cloud wants the device in its VPN (`SUPERVISOR_VPN_CONTROL`), if the device's owner does.
    pub has_vpn: bool,
    /// Whether the cloud orders the device to move to another cloud.
    pub moves_to: Option<MoveOrder>,
    /// What became of each configuration variable of the cloud.
    pub variables: Vec<AnsweredVariable>,
    /// The apps of the target that this device does not run.
    pub left_alone: Vec<LeftAlone>,
}

/// An app of the target that this device must not run, and does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftAlone {
    pub name: String,
    /// Its uuid in the cloud.
    pub uuid: String,
    pub why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetApp {
    Wanted(WantedApp),
    Refused(RefusedApp),
}

impl TargetApp {
    /// Returns the cloud's number of the app, if it could be read.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Wanted(wanted) => Some(wanted.app.number),
            Self::Refused(_) => None,
        }
    }

    /// Returns the wanted release, if there is one and it was not refused.
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
    /// Base URL of the API that sent it. A target of another API is ignored.
    pub endpoint: String,
    /// The cloud's etag, to be sent with the next poll.
    pub etag: Option<String>,
    /// The answer, byte for byte. Not in the `Debug` output, because it contains environment variables.
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

/// A target, and the record to save; `None` if it came from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    pub target: Arc<Target>,
    pub record: Option<StoredTarget>,
    /// The cloud's etag of it, whether or not it came from the store.
    pub etag: Option<String>,
}

/// An app without a release, or with one that was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedApp {
    pub app: App,
    /// `None`: the app has no release, and nothing of it runs.
    pub release: Option<Release>,
    /// Fields that have no effect here, and do not prevent the release from running.
    pub warnings: Vec<Refusal>,
}

/// An app whose release was refused. Its containers stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedApp {
    /// Its name in the target; its uuid if the name cannot be read.
    pub name: String,
    /// The commit in the target, which may be invalid.
    pub release: String,
    pub refusals: Vec<Refusal>,
}

/// A reason for a refusal, and its place.
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
