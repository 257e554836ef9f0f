//! The settings that decisions depend on.

/// Bounds for the planner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanSettings {
    /// Images pulled at the same time, at least 1.
    pub parallel_pulls: usize,
    /// Services swapped at the same time, at least 1.
    pub parallel_swaps: usize,
}

impl Default for PlanSettings {
    fn default() -> Self {
        Self { parallel_pulls: 2, parallel_swaps: 4 }
    }
}
