//! Decides which release each device should run. Pure: no I/O, no async, no clock, no HTTP.
//!
//! A [`World`] has all records of the fleet server. An act (pin a device, create a release, ...) reads the world and
//! returns the [`Change`]s that it would make, or the [`Refusal`] with the rule that forbids it. It changes nothing;
//! [`World::apply`] makes the changes. So a dry run is an act whose changes are dropped, and "all or none" needs no undo.
//!
//! The target of a device is its own pin, or else the release of a rollout that exposes it, or else the `target` of
//! its fleet (see [`World::target_of`]). The target of a fleet is a stored field, as on openBalena (the recordings in
//! `tests/fixtures/openbalena` show it). It changes by these rules:
//!
//! - While a fleet tracks latest, the field is set to the newest trackable release, by start timestamp, whenever a
//!   release becomes trackable or is no longer trackable.
//! - If no trackable release is left, the field keeps its value, so that invalidating the only release does not stop all
//!   devices of a fleet.
//! - Pinning the fleet ends the tracking and sets the field.

mod acts_departure;
mod acts_device;
mod acts_fleet;
mod acts_import;
mod acts_pins;
mod acts_release;
mod acts_rollout;
mod acts_variables;
mod acts_webhook;
mod bars;
mod choice;
mod compact;
mod details;
mod history;
mod keys;
mod matches;
mod past;
mod pinned;
mod refusal;
mod rollouts;
mod room;
mod rules;
mod scope;
mod snapshot;
mod target;
mod types;
mod variables;
mod webhooks;
mod world;

pub use super::key_hash::KeyHash;
pub use super::tag_filter::{BadFilter, TagFilter};
pub use acts_device::{NewDevice, OWN_TAGS, Tagging};
pub use acts_fleet::{FleetPatch, NewFleet};
pub use acts_import::{
    ImportCount, ImportOutcome, Imported, ImportedDevice, ImportedFleet, ImportedHolder, ImportedRelease,
    ImportedVariable,
};
pub use acts_release::{NewRelease, NewService, ReleasePatch};
pub use acts_rollout::{NewRollout, Steering};
pub use acts_variables::VariableChange;
pub use acts_webhook::{Attempt, CLAIM, NewWebhook};
pub use choice::Choice;
pub use compact::Compact;
pub use keys::{NewKey, USUAL_PER_MINUTE};
pub use past::{PastRelease, PastVerdict};
pub use pinned::{Pinned, PinnedTo};
pub use refusal::Refusal;
pub use room::Room;
pub use rules::check_device_key;
pub use scope::Sight;
pub use types::{
    Bar, Change, Content, Counters, Departure, Device, Fleet, Image, KeyEnd, ProvisioningKey, Release,
    Reported, ReportedService,
};
pub use variables::{Variable, VariableDigest, VariableHolder, VariableLevels, VariableMap, Variables};
pub use world::World;
