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
mod check;
mod containers;
mod create;
mod draft;
mod fallback;
mod forecast;
mod gate;
mod leftovers;
mod networks;
mod orders;
mod planner;
mod preflight;
mod pull;
mod record;
mod report;
mod restart;
mod situation;
mod slots;
mod swap;
mod takeover;
mod teardown;
#[cfg(test)]
mod tests;
mod trial;
mod unused_images;

pub use check::violations;
pub use forecast::forecast;
pub use gate::{CLOCK_PATIENCE, may_lock};
pub use orders::{PurgePlan, apply_order, plan_purge};
pub use planner::plan;
pub use record::{record_done, record_intent};
pub use report::report;
pub use situation::{OwnedSituation, Situation};
