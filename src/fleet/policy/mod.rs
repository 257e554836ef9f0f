//! Which release each device should run. Pure: no I/O, no async, no clock, no HTTP.
//!
//! The whole world of the fleet server is a [`World`]. An act (pin a device,
//! create a release, ...) looks at the world and answers with the [`Change`]s it
//! would make, or with the [`Refusal`] that names the rule in the way. Nothing is
//! changed by asking; [`World::apply`] makes the changes. So a dry run is an act
//! whose changes are thrown away, and "all or none" needs no undo.
//!
//! The target of a device is its own pin, else its fleet's `target` (see
//! [`World::target_of`]). As on openBalena, which the recordings in
//! `tests/fixtures/openbalena` prove, the fleet's target is a stored field that
//! events move, not a formula:
//!
//! - while a fleet tracks latest, a release that becomes or stops being trackable
//!   moves the field to the newest trackable release, by start timestamp;
//! - when no trackable release is left, the field stays where it is, so that
//!   invalidating the only release does not stop a whole fleet;
//! - pinning the fleet stops the tracking and sets the field.

mod acts_device;
mod acts_fleet;
mod acts_release;
mod bars;
mod filter;
mod keys;
mod refusal;
mod rules;
mod types;
mod world;

pub use acts_device::{NewDevice, Tagging};
pub use acts_fleet::{FleetPatch, NewFleet};
pub use acts_release::{NewRelease, NewService, ReleasePatch};
pub use bars::Bar;
pub use filter::{BadFilter, Choice, TagFilter};
pub use keys::{KeyEnd, NewKey, ProvisioningKey, USUAL_PER_MINUTE};
pub use refusal::Refusal;
pub use rules::check_device_key;
pub use types::{
    Change, Content, Counters, Device, Fleet, Image, KeyHash, Release, Reported, ReportedService,
};
pub use world::World;
