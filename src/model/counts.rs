//! Counters of what the agent has done since it started. In memory only; no decision depends on them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{AppId, ServiceName};

/// Counters that only rise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// By the step's verb.
    pub steps: BTreeMap<&'static str, Attempted>,
    /// Bytes of layers that came from registries, as far as the engine reported.
    pub pulled_bytes: u64,
    /// Updates whose release was accepted.
    pub accepted: Lasted,
    /// Updates whose release was rejected by its trial.
    pub rejected: Lasted,
    /// Releases that an operator rolled back.
    pub rollbacks: u64,
    /// Containers that were started again after they had ended without being stopped, as far as the engine reported.
    pub restarts: ByService,
    /// Restarts of unhealthy services.
    pub heals: ByService,
}

/// A count for each service; services without any are absent.
pub type ByService = BTreeMap<(AppId, ServiceName), u64>;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attempted {
    pub done: u64,
    pub failed: u64,
}

/// How many there were, and how long they took in sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lasted {
    pub count: u64,
    pub time: Duration,
}

impl Lasted {
    /// Adds one that took `time`.
    pub fn add(&mut self, time: Duration) {
        self.count += 1;
        self.time = self.time.saturating_add(time);
    }
}
