//! Gives a release to a fleet in waves, judges it by the verdicts of the devices, and stops by itself when it is bad.
//!
//! Begin with [`decide()`]. It takes the stored state of a rollout, the devices of its fleet and the time, and returns the
//! next state and the devices that get the release. It is pure. The caller stores what it returns in one write, so a server
//! that is killed continues from there.
//!
//! The position of a device in the order is a hash of the rollout and the device ([`position()`]), so devices that join,
//! leave or get another tag do not change the place of others. From the moment when a device gets the release, it is an
//! [`ExposedDevice`], whatever becomes of its tags.

mod decide;
mod definition;
mod draft;
mod halting;
mod judge;
mod position;
mod question;
mod share;
pub mod simulation;
mod state;
mod tally;
mod verdict;
mod wave;

#[cfg(test)]
mod tests;

pub use decide::{Decision, decide};
pub use definition::Definition;
pub use draft::{plan, survey};
pub use position::{Position, position};
pub use question::Awaits;
pub use share::Share;
pub use state::{
    Cause, Counted, ExposedDevice, Halt, Pause, Phase, Question, Rollout, RolloutExposure, Segment,
};
pub use tally::Tally;
pub use verdict::{Conditions, Stands, Subject};
pub use wave::Group;
