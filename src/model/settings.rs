//! The settings that decisions depend on.

use std::time::Duration;

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
}

impl Default for PlanSettings {
    fn default() -> Self {
        Self {
            parallel_pulls: 2,
            parallel_swaps: 4,
            soak: Duration::from_secs(10),
            deadline: Duration::from_secs(300),
        }
    }
}
