//! What a cloud answers, as [`super::Client`] returns it.

use serde::Deserialize;

/// A report that the cloud has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Whether the cloud also takes the account of a device. Only our own fleet server does.
    pub takes_accounts: bool,
}

/// The answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Whether the request had the device's uuid and key. Then the cloud accepted them.
    pub is_known: bool,
    /// The time of the cloud's clock, from the header `Date`.
    pub date: Option<String>,
}

/// The answer to a poll, and whether the cloud honoured the wait that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Polled {
    pub state: State,
    pub is_honoured: bool,
    /// Whether the cloud wants the logs of this device now.
    pub wants_logs: bool,
}

/// The target state, as a poll returned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A balena API answers 304 without an etag if it does not have the device (docs/dev/protocol.md, "Target state").
    Unchanged {
        etag: Option<String>,
    },
    Changed {
        etag: Option<String>,
        body: Vec<u8>,
    },
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Device {
    pub id: u64,
}

/// The fleet of a provisioning key, as a Cotter fleet server tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Admitted {
    pub number: u64,
    pub name: String,
    /// The commit of the release that a device of the fleet should run.
    #[serde(default)]
    pub target: Option<String>,
}
