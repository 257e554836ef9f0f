//! A forecast of the next cycles, as data.

use super::{Step, Waiting};

/// The next stages, if every step succeeds and the target stays the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    pub stages: Vec<ForeseenStage>,
    /// The waits at the end that neither time nor an operator's order ends.
    pub waiting: Vec<Waiting>,
    /// Whether the forecast was cut: it is too long, or the next plan breaks a safety rule.
    pub is_cut: bool,
}

/// One stage of a forecast.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeseenStage {
    /// The waits that must end before it begins.
    pub after: Vec<Waiting>,
    pub steps: Vec<Step>,
}
