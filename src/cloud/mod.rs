//! The cloud: registers the device, polls for its target, and reports what runs.
//!
//! Uses the balena device protocol (openBalena, balenaCloud, our own fleet server). It passes targets to the reconciler
//! and reports to the cloud, and must not decide anything about containers.

mod answers;
mod client;
mod error;
mod known;
mod leave;
mod log_stream;
mod os_config;
mod parking;
mod poll;
mod probe;
mod register;
mod registries;
mod report;
mod retry;
mod tags;

pub use answers::{Admitted, Answered, Polled, State};
pub use client::{Client, Registration};
pub use error::CloudError;
pub use known::Repeats;
pub use log_stream::LogStream;
pub use poll::{Poller, Start, Times};
pub use probe::{Probe, probe};
pub use register::{Registered, register, register_once};
pub use registries::registries;
pub use report::{Reader, Reporter};
pub use retry::with_jitter;

#[cfg(test)]
mod known_repeats_tests;
