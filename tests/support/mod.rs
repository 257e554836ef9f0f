//! Real parts for tests of the whole device: an engine, a registry with releases of the
//! demo app, our fleet server, our agent. Starts them, asks them, and ends them.
//!
//! A test makes a [`Lab`], starts a [`FleetServer`] and [`Agent`]s in it, and lets them go in
//! any way, a panic included: processes end with their value, and the lab removes what its
//! instances have in the engine. Each lab has instances of its own, so tests run side by side.
//! What is missing on the machine fails the test with a line that says so; nothing is skipped.
//!
//! It must not know how Cotter works inside: it uses the binary, the sockets and the engine.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "each test file uses a part of this; a test fails by panicking and reads the real clock"
)]

mod agent;
mod chance;
mod cloud;
mod differences;
mod docker;
mod fleet;
mod http;
mod images;
mod lab;
mod log_stream;
pub mod metrics;
mod podman;
mod postgres;
mod program;
mod proxy;
mod receiver;
mod registry;
pub mod schema;
mod wall;
mod watch;

use std::fmt::Debug;
use std::time::{Duration, Instant};

pub use agent::Agent;
pub use chance::{Chance, number};
pub use cloud::{Asked, FakeCloud, Reply};
pub use differences::Differences;
pub use docker::{Container, Docker};
pub use fleet::{Fleet, FleetServer};
pub use http::{Answer, http_get, unix_get};
pub use lab::{Lab, Parts};
pub use log_stream::LogStreams;
pub use podman::{Podman, unmount_below, until_interfaces_stay};
pub use postgres::{PASSWORD, Postgres};
pub use program::{Io, Program};
pub use proxy::EngineProxy;
pub use receiver::{Received, Receiver, Say};
pub use registry::{Instead, Question, RegistryProxy};
pub use wall::Wall;
pub use watch::Watch;

/// What `look` gives once it gives something, asked every 50 ms.
///
/// # Panics
///
/// When it gave nothing for `patience`, saying `what` was waited for.
#[track_caller]
pub fn eventually<T>(what: &str, patience: Duration, look: impl FnMut() -> Option<T>) -> T {
    eventually_or(patience, look).unwrap_or_else(|| panic!("waited {patience:?} in vain: {what}"))
}

/// As [`eventually`], but `None` when it gave nothing for `patience`.
pub fn eventually_or<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        let found = look();
        if found.is_some() || begun.elapsed() >= patience {
            return found;
        }
        // Many tests wait at the same time, and a question may start a process. So none asks more than half of the time.
        std::thread::sleep(asked.elapsed().max(Duration::from_millis(50)));
    }
}

/// Asserts that `look` gives the same for `period`, asked every 100 ms.
#[track_caller]
pub fn stays<T: PartialEq + Debug>(what: &str, period: Duration, mut look: impl FnMut() -> T) {
    let begun = Instant::now();
    let first = look();
    while begun.elapsed() < period {
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(look(), first, "changed after {:?}: {what}", begun.elapsed());
    }
}
