//! Decides what to do next. Pure: no I/O, no async, no clock; knows no engine, no store, no JSON.
//!
//! [`plan`] takes a [`Situation`] (the target, the observation, the ledger and the facts about the host) and returns
//! one stage of steps. The reconciler runs the stage, observes again and plans again. So no progress is held in memory,
//! and a restart at any point is harmless.
//!
//! The order for an app: pull all images, create the networks, create all containers (stopped), stop and start service
//! by service, and watch the release on trial. Then the release is accepted and what it replaced is removed, or it is
//! rejected and the good release is started again from its stopped containers. The *good release* is the one that was
//! accepted last: `good` in the ledger. A container is stopped only after everything that replaces it is ready; module
//! `stop_first` has the exceptions. While an operator holds the device, no container is stopped at all.
//!
//! | module | what for |
//! | --- | --- |
//! | `planner`, `advance` | the plan of the device, and the list of concerns of one app: begin reading here |
//! | `situation`, `app`, `slots`, `containers` | pure questions about the device, one app, its services, one container |
//! | `draft` | the plan under construction, and `Concern`, the result of each concern |
//! | `preflight`, `pull`, `networks`, `create`, `gate`, `trial`, `swap` | the concerns; `advance` has their order |
//! | `stop_first` | services whose predecessor stops before their image is pulled or their network is created |
//! | `fallback` | the good release, while the wanted one is not ready |
//! | `restart` | stops and restarts of single services |
//! | `leftovers`, `teardown`, `unused_images` | what is removed |
//! | `check` | the safety rules, which every plan is checked against |
//! | `record` | what steps change in the ledger |
//! | `orders` | what an operator's orders change in the ledger |
//! | `report`, `forecast` | what is shown: the device as it is, and the stages to come |
//! | `words` | text that several messages share |

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
mod stop_first;
mod swap;
mod teardown;
#[cfg(test)]
mod tests;
mod trial;
mod unused_images;
mod words;

pub use check::violations;
pub(crate) use containers::belongs_to;
pub use forecast::forecast;
pub use gate::{CLOCK_PATIENCE, may_lock};
pub use orders::{PurgePlan, apply_order, plan_purge};
pub use planner::plan;
pub use record::{PullEnd, forget_downloads, record_done, record_download, record_intent};
pub use report::report;
pub use situation::Situation;
