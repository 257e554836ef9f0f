//! The dashboard in a real browser, at a real fleet server, with devices that poll and report as the test says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking and reads the real clock"
)]

#[path = "../support/mod.rs"]
mod support;

mod acts;
mod agents;
mod bench;
mod device;
mod driver;
mod http;
mod lists;
mod looks;
mod policy;
mod rollouts;
mod scene;
mod sessions;
mod settings;
mod tls;
mod variables;
