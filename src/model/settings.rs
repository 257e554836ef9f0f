//! The settings that decisions depend on.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Window;

/// Bounds for the planner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanSettings {
    /// Images pulled at the same time, at least 1.
    pub parallel_pulls: usize,
    /// Services swapped at the same time, at least 1.
    pub parallel_swaps: usize,
    /// How long all services of a new release must be well before it is good.
    pub soak: Duration,
    /// How long that may take before the release is taken back.
    pub deadline: Duration,
    /// When a release may be swapped that says nothing of it itself; empty: at any time.
    pub windows: BTreeSet<Window>,
    /// Bytes of the engine's disk that no download may use.
    pub disk_reserve: u64,
    /// How often an unhealthy service is restarted within [`heal_window`](Self::heal_window); 0: never.
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
