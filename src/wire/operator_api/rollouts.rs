//! The JSON of rollouts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A rollout that is to begin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRollout {
    /// Commit of the release.
    pub release: String,
    /// As docs/rollouts.md describes it.
    pub definition: Value,
    /// Whether it takes the place of one that is not over.
    #[serde(default)]
    pub supersede: bool,
    /// Answers with what would be, and begins nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Lets one wave begin that waits for a person or a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveWave {
    /// Number of the wave that is to begin, from 1. If another one waits, the request is refused: it may be a second click.
    pub wave: usize,
    /// Begins the wave although its webhook has not let it begin. Without it, only an approval is given.
    #[serde(default)]
    pub without_webhook: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutView {
    pub number: u64,
    /// Name of the fleet.
    pub fleet: String,
    /// Commit of the release.
    pub release: Option<String>,
    pub started: Timestamp,
    pub ended: Option<Timestamp>,
    /// `running`, `paused`, `halted`, `pulled-back`, `completed` or `aborted`.
    pub phase: String,
    /// Why it does not run, or which webhook holds its next wave.
    pub why: Option<String>,
    /// What its next wave waits for besides devices: `approval` or `webhook`.
    #[serde(default)]
    pub waits_for: Option<String>,
    /// Number of the wave that waits for it, from 1.
    #[serde(default)]
    pub waits_for_wave: Option<usize>,
    /// Number of the last wave that has begun, from 1.
    pub wave: usize,
    /// Since when enough devices of the waves so far have accepted the release.
    pub settled: Option<Timestamp>,
    /// What it waits for, in one line; empty where the phase says all.
    pub next: String,
    /// Devices that take part.
    pub devices: u64,
    pub tally: RolloutTally,
    pub waves: Vec<WaveView>,
    /// Segments that are halted.
    pub halted: Vec<HaltedSegment>,
    pub definition: Value,
}

/// A rollout in a list of those of all fleets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutSummary {
    pub number: u64,
    /// Name of the fleet.
    pub fleet: String,
    /// Commit of the release.
    pub release: Option<String>,
    pub started: Timestamp,
    pub ended: Option<Timestamp>,
    /// As in [`RolloutView`].
    pub phase: String,
    pub why: Option<String>,
    /// Number of the last wave that has begun, from 1.
    pub wave: usize,
    /// How many waves it has.
    pub waves: usize,
    pub tally: RolloutTally,
}

/// One wave of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaveView {
    /// As it is defined.
    pub wave: String,
    pub has_begun: bool,
    /// Devices that it has now, or would have if it began now.
    pub devices: u64,
    /// Those that are reachable.
    pub reachable: u64,
    /// Seconds from the start until it begins at the earliest.
    pub earliest_s: u64,
    pub tally: RolloutTally,
}

/// How many exposed devices have each verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutTally {
    pub exposed: u64,
    pub accepted: u64,
    pub rejected: u64,
    pub blocked: u64,
    pub unhealthy: u64,
    pub silent: u64,
    pub updating: u64,
    pub waiting: u64,
    pub fetching: u64,
    pub unreached: u64,
}

/// A segment that is halted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaltedSegment {
    pub segment: String,
    pub why: String,
}

/// What the newest rollout of its fleet means for a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRollout {
    pub number: u64,
    /// Commit of the release.
    pub release: Option<String>,
    pub phase: String,
    /// Number of its wave, from 1; absent while it is not exposed.
    pub wave: Option<usize>,
    pub exposed: Option<Timestamp>,
    pub verdict: Option<String>,
    /// Why it is not exposed, or was sent back; empty otherwise.
    pub why: String,
}
