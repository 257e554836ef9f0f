//! Decides what to do next. Pure: no I/O, no async, no clock; knows no engine, no store, no JSON.
//!
//! [`plan`] looks at the target, at what is observed and at what we remember
//! and returns one stage of steps. The reconciler runs it, looks again and
//! asks again, so no progress is held in memory and a restart at any point is
//! harmless.
//!
//! The order for an app: pull every image, create networks, create
//! every successor (stopped), then service by service stop the predecessor and
//! start the successor, then watch the release on trial, then commit it and remove what it replaced,
//! or reject it and bring the whole good release back from its stopped containers. Nothing that runs
//! is stopped before everything that replaces it is ready, and nothing at all while an operator holds the device.

mod advance;
mod app;
mod care;
mod check;
mod containers;
mod create;
mod debris;
mod draft;
mod fetch;
mod forecast;
mod gate;
mod gone;
mod images;
mod keep;
mod networks;
mod orders;
mod planner;
mod preflight;
mod record;
mod report;
mod situation;
mod slots;
mod swap;
mod takeover;
#[cfg(test)]
mod tests;
mod trial;

pub use check::violations;
pub use forecast::forecast;
pub use gate::{CLOCK_PATIENCE, may_lock};
pub use orders::{Purging, obey, purging};
pub use planner::plan;
pub use record::{intend, record};
pub use report::report;
pub use situation::{OwnedSituation, Situation};
