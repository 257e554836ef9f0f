//! Takes a release to a fleet in waves, judges it by what becomes of the devices, and stops by itself.
//!
//! [`decide`] is the whole of it: from the stored state of a rollout, the devices of its fleet and the time it computes the next
//! state and the devices to expose. It is pure, and whoever calls it stores what it returns in one write, so that a server that
//! is killed goes on where it was.
//!
//! The position of a device in the order is a hash of the rollout and the device ([`position()`]), so no device is moved by others that
//! join, leave or get another tag. A device that was exposed is a [`Member`] from then on, whatever becomes of its tags.

mod definition;
mod draft;
mod engine;
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

pub use definition::Definition;
pub use draft::{plan, survey};
pub use engine::{Decision, decide};
pub use position::{Position, position};
pub use question::Awaits;
pub use share::Share;
pub use state::{Cause, Counted, Halt, Member, Pause, Phase, Question, Rollout, RolloutMember, Segment};
pub use tally::Tally;
pub use verdict::{Outside, Stands, Subject};
pub use wave::Group;
