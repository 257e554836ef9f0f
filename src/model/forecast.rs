//! What the next cycles would do, as data.

use super::{Step, Waiting};

/// The stages that are to come, if all goes well and the target stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    pub stages: Vec<ForeseenStage>,
    /// What is waited for at the end of them, and no waiting ends by itself or by somebody's word.
    pub waiting: Vec<Waiting>,
    /// Whether there is more than was looked for.
    pub is_cut: bool,
}

/// One stage of a forecast.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeseenStage {
    /// What must be over before it begins.
    pub after: Vec<Waiting>,
    pub steps: Vec<Step>,
}
