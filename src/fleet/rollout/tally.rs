//! What became of the devices of a rollout: the verdict of each, and their counts.

use serde::{Deserialize, Serialize};

/// What became of a device that is exposed to the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It has been offline since before it was exposed.
    Unreached,
    /// It has not reported an end yet.
    Updating,
    /// Something that its owner set delays it: a lock, a window, a hold.
    Waiting,
    /// It cannot fetch the images yet.
    Fetching,
    /// It runs the release, and its trial has ended well.
    Accepted,
    /// It tried the release, and took it back.
    Rejected,
    /// Something of the release or of the device forbids it.
    Blocked,
    /// It had accepted the release, and then a service was not healthy.
    Unhealthy,
    /// It was reachable before it was exposed, and has not said anything for too long.
    Silent,
}

impl Verdict {
    /// Its name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreached => "unreached",
            Self::Updating => "updating",
            Self::Waiting => "waiting",
            Self::Fetching => "fetching",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Blocked => "blocked",
            Self::Unhealthy => "unhealthy",
            Self::Silent => "silent",
        }
    }

    #[must_use]
    pub fn is_failure(self) -> bool {
        match self {
            Self::Rejected | Self::Blocked | Self::Unhealthy | Self::Silent => true,
            Self::Unreached | Self::Updating | Self::Waiting | Self::Fetching | Self::Accepted => false,
        }
    }
}

/// How many devices have each verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    pub unreached: u64,
    pub updating: u64,
    pub waiting: u64,
    pub fetching: u64,
    pub accepted: u64,
    pub rejected: u64,
    pub blocked: u64,
    pub unhealthy: u64,
    pub silent: u64,
}

impl Tally {
    pub(super) fn add(&mut self, verdict: Verdict) {
        let count = match verdict {
            Verdict::Unreached => &mut self.unreached,
            Verdict::Updating => &mut self.updating,
            Verdict::Waiting => &mut self.waiting,
            Verdict::Fetching => &mut self.fetching,
            Verdict::Accepted => &mut self.accepted,
            Verdict::Rejected => &mut self.rejected,
            Verdict::Blocked => &mut self.blocked,
            Verdict::Unhealthy => &mut self.unhealthy,
            Verdict::Silent => &mut self.silent,
        };
        *count += 1;
    }

    #[must_use]
    pub fn failures(&self) -> u64 {
        self.rejected + self.blocked + self.unhealthy + self.silent
    }

    /// Returns how many have accepted the release or failed.
    #[must_use]
    pub fn verdicts(&self) -> u64 {
        self.accepted + self.failures()
    }

    /// Returns how many have neither accepted the release nor failed, and are reachable.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.updating + self.waiting + self.fetching
    }

    /// Returns how many devices are exposed.
    #[must_use]
    pub fn exposed(&self) -> u64 {
        self.unreached + self.reachable()
    }

    /// Returns how many have been reachable since they were exposed.
    #[must_use]
    pub fn reachable(&self) -> u64 {
        self.verdicts() + self.open()
    }
}
