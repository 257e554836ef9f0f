//! Attacks on the real binary, with the limits of its own unit: a hostile cloud, registry, release, app and network
//! client. They were written from what must hold and not from the code that makes it hold.
//!
//! Each attack is bounded in count and time, and stays on loopback. `make hostile` plays them against the release
//! binary and is part of `make test`; `cargo test --test hostile` plays them against the binary that cargo built for tests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test fails by panicking and reads the real clock; what modules share is no interface"
)]

#[path = "../support/mod.rs"]
mod support;

mod any;
mod app;
mod client;
mod cloud;
mod evil;
mod harmless;
mod keys;
mod lab;
mod reach;
mod registry;
mod release;
mod terminal;
mod unit;
