//! The JSON of the fleet server's operator API, both ways. The command line (`cotter`) and the server
//! (`cotter-fleet`) read and write the same types, so the two cannot drift apart.

pub mod access;
mod bulk;
mod errors;
mod exchange;
mod keys;
mod pages;
mod rollouts;
mod variables;
mod webhooks;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::account::{Evidence, Wait};
pub use super::device_state::DeviceState;
use crate::model::ReleaseStatus;
pub use bulk::{DeleteMany, MigrateMany, MigrationOrder, MigrationView, PinMany, TagMany, TrackMany};
pub use errors::{Code, ErrorView, Failure, RefusalView};
pub use exchange::{
    EXPORT_VERSION, ExportHead, ExportLine, ExportedDevice, ExportedFleet, ExportedRelease, ExportedVariable,
    ImportCounts, ImportView, LARGEST_IMPORT,
};
pub use keys::{CreateKey, KeyCreated, KeyView};
pub use pages::{LONGEST_PAGE, NEXT_PAGE, USUAL_PAGE};
pub use rollouts::{
    ApproveWave, DeviceRollout, HaltedSegment, RolloutSummary, RolloutTally, RolloutView, StartRollout,
    WaveView,
};
pub use variables::{ChangeVariables, RestartView, VariableView, VariablesChanged};
pub use webhooks::{CreateWebhook, WebhookCreated, WebhookFailure, WebhookTested, WebhookView};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetView {
    pub number: u64,
    pub uuid: String,
    pub name: String,
    /// `false`: the fleet is pinned to its target.
    pub is_tracking_latest: bool,
    /// Commit that devices without a pin get.
    pub target: Option<String>,
    pub devices: usize,
    /// How many of its devices are in each state; states without a device are left out.
    #[serde(default)]
    pub states: BTreeMap<DeviceState, usize>,
    pub releases: usize,
    /// Where `cotter push` puts the images of its services.
    #[serde(default)]
    pub registry: Option<String>,
    pub created: Timestamp,
    /// Who pinned it; absent if it is not pinned, or was by an older version or a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<PinnedView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    pub uuid: String,
    pub number: u64,
    pub name: String,
    pub device_type: String,
    /// Name of its fleet.
    pub fleet: String,
    /// Commit that it is pinned to.
    pub pin: Option<String>,
    /// Commit that it should run.
    pub target: Option<String>,
    /// Commit that it reports as running completely.
    pub running: Option<String>,
    pub update_status: Option<String>,
    pub state: DeviceState,
    /// Why it is in this state, in one line; empty where the state says all.
    pub why: String,
    /// The version of Cotter's agent on it; absent for other agents.
    #[serde(default)]
    pub agent: Option<String>,
    /// Whether it polled within one and a half intervals.
    pub is_online: bool,
    /// Its last poll. After a crash of the server it may be up to 5 minutes older than it was.
    pub last_seen: Option<Timestamp>,
    pub tags: BTreeMap<String, String>,
    pub created: Timestamp,
    /// Id of the provisioning key that it registered with; absent where it registered before that was recorded.
    #[serde(default)]
    pub provisioning_key: Option<String>,
    /// The name of that key, if it has one.
    #[serde(default)]
    pub provisioning_key_name: Option<String>,
    /// Its move to another cloud, if one is ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationView>,
    /// Who pinned it; absent if it is not pinned, or was by an older version or a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<PinnedView>,
}

/// Since when, by whom and why a device or a fleet is pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedView {
    pub at: Timestamp,
    /// The user, or the token if that has none.
    pub by: String,
    #[serde(default)]
    pub why: Option<String>,
}

/// A deleted device, whose uuid and key are barred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BarredView {
    pub uuid: String,
    pub name: String,
    pub device_type: String,
    /// Name of the fleet that it was in.
    pub fleet: String,
    pub deleted: Timestamp,
    /// Id of the provisioning key that it had registered with.
    pub provisioning_key: Option<String>,
}

/// A device with all that it reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceDetail {
    #[serde(flatten)]
    pub device: DeviceView,
    pub reported_at: Option<Timestamp>,
    pub services: Vec<ServiceView>,
    /// What it waits for, as it reported.
    #[serde(default)]
    pub waiting: Vec<Wait>,
    /// How services failed, as it reported, newest last.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    /// The newest rollout of its fleet, unless that is over.
    #[serde(default)]
    pub rollout: Option<DeviceRollout>,
    /// The last releases that it accepted or rejected, newest first.
    #[serde(default)]
    pub history: Vec<PastReleaseView>,
    /// Plain fields of its reports, by their name on the wire.
    pub reported: BTreeMap<String, Value>,
}

/// A release that a device accepted or rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastReleaseView {
    /// Commit.
    pub release: String,
    /// `accepted`, `rejected`, or `running` where the device's agent reports no trial.
    pub verdict: String,
    /// When the server received the report that said so.
    pub at: Option<Timestamp>,
    /// Why it was rejected, as the device reported; empty otherwise.
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    pub service: String,
    pub release: Option<String>,
    pub status: Option<String>,
    pub download_progress: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseView {
    pub number: u64,
    pub fleet: String,
    pub commit: String,
    pub status: ReleaseStatus,
    pub is_final: bool,
    pub is_invalidated: bool,
    pub is_passing_tests: bool,
    pub start_timestamp: Timestamp,
    /// Whether its fleet's target is this release.
    pub is_fleet_target: bool,
    pub pinned_devices: usize,
    pub running_devices: usize,
    /// Image by service.
    pub services: BTreeMap<String, String>,
}

/// A release with its compose document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseDetail {
    #[serde(flatten)]
    pub release: ReleaseView,
    pub composition: Composition,
    /// The end of the log of its build, if that failed and was kept.
    #[serde(default)]
    pub build_log: Option<String>,
}

/// What a bulk act did, or with `dry_run` would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkView {
    pub dry_run: bool,
    pub devices: Vec<BulkDevice>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkDevice {
    pub uuid: String,
    pub name: String,
    pub fleet: String,
    /// The commits that it should run before and after.
    pub target_before: Option<String>,
    pub target_after: Option<String>,
    /// Its tags after a change of tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
}

/// A fleet that was deleted, or with `dry_run` would be, as it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetDeleted {
    pub dry_run: bool,
    pub fleet: FleetView,
    /// How many provisioning keys it had.
    pub keys: usize,
    /// The devices that are deleted with it.
    pub devices: Vec<BulkDevice>,
}

/// A compose file's services, networks and volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Composition {
    pub services: BTreeMap<String, Map<String, Value>>,
    #[serde(default)]
    pub networks: BTreeMap<String, Value>,
    #[serde(default)]
    pub volumes: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateFleet {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
}

/// Settings of a fleet. Those that are absent stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PatchFleet {
    /// An empty text removes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenameFleet {
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeleteFleet {
    /// Deletes its devices, too. Without this a fleet that has devices is not deleted.
    pub with_devices: bool,
    /// The expected number of devices. If it has another number, nothing is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<usize>,
    pub dry_run: bool,
}

/// A new fleet with its first provisioning key, which is shown only now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetCreated {
    pub fleet: FleetView,
    pub provisioning_key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// A commit, or the first 4 or more characters of one.
    pub release: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenameDevice {
    pub name: String,
}

/// Whether a deleted device is also restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    pub restore: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TagDevice {
    pub set: BTreeMap<String, String>,
    pub remove: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveDevice {
    pub fleet: String,
}

/// No fields are accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRelease {
    pub commit: String,
    #[serde(default = "success")]
    pub status: ReleaseStatus,
    #[serde(default = "yes")]
    pub is_final: bool,
    #[serde(default = "yes")]
    pub is_passing_tests: bool,
    /// When its build began; now when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Timestamp>,
    pub composition: Composition,
    /// Image by service, each with its digest. A failed release may have none; its composition is then not kept.
    pub images: BTreeMap<String, String>,
    /// The end of the log of its build, if that failed; [`LONGEST_BUILD_LOG`] characters at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_log: Option<String>,
}

/// Maximum number of characters of the log of a build.
pub const LONGEST_BUILD_LOG: usize = 16 * 1024;

fn success() -> ReleaseStatus {
    ReleaseStatus::Success
}

fn yes() -> bool {
    true
}

/// A new release, with the places of its compose file that devices do not honour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseCreated {
    pub release: ReleaseView,
    pub warnings: Vec<RefusalView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PatchRelease {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<ReleaseStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_final: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_invalidated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_passing_tests: Option<bool>,
}
