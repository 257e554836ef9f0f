//! The settings that decisions depend on.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Window;

/// Settings of the planner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanSettings {
    /// The most images pulled at the same time, at least 1.
    pub parallel_pulls: usize,
    /// The most services swapped at the same time, at least 1.
    pub parallel_swaps: usize,
    /// How long all services of a new release must run well before it is accepted.
    pub soak: Duration,
    /// How long that may take before the release is rejected.
    pub deadline: Duration,
    /// When a release may be swapped that sets no window itself; empty: at any time.
    pub windows: BTreeSet<Window>,
    /// Bytes of the engine's disk that downloads must leave free.
    pub disk_reserve: u64,
    /// The most restarts of an unhealthy service within [`heal_window`](Self::heal_window); 0: none.
    pub heals: u32,
    /// See [`heals`](Self::heals).
    pub heal_window: Duration,
}

impl Default for PlanSettings {
    fn default() -> Self {
        Self {
            parallel_pulls: 2,
            parallel_swaps: 2,
            soak: Duration::from_secs(10),
            deadline: Duration::from_secs(300),
            windows: BTreeSet::new(),
            disk_reserve: 64 << 20,
            heals: 3,
            heal_window: Duration::from_secs(3600),
        }
    }
}
