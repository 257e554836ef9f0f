//! Takes a release to a fleet in waves, judges it by what becomes of the devices, and stops by itself.
//!
//! [`decide`] is the whole of it: from the stored state of a rollout, the devices of its fleet and the time it computes the next
//! state and the devices to tell. It is pure, and whoever calls it stores what it returns in one write, so that a server that
//! is killed goes on where it was.
//!
//! The place of a device in the order is a hash of the rollout and the device ([`place`]), so nobody is moved by others that
//! join, leave or get another tag. A device that was told is a [`Member`] from then on, whatever becomes of its tags.

mod definition;
mod draft;
mod engine;
mod halting;
mod judge;
mod position;
mod share;
pub mod simulation;
mod state;
mod tally;
mod verdict;
mod wave;

#[cfg(test)]
mod tests;

pub use definition::{BadDefinition, Definition, OnHalt};
pub use draft::{Outside, Survey, plan};
pub use engine::{Decision, decide};
pub use judge::{Finding, Rates, Test};
pub use position::{Place, place};
pub use share::{BadQuantity, Rate, Share, Span};
pub use state::{Cause, Counted, Forgiven, Halt, Member, Pause, Phase, Rollout, Segment, Told};
pub use tally::{Tally, Verdict};
pub use verdict::{Stands, Subject};
pub use wave::{BadWave, Group, Wave, parse as parse_waves};
