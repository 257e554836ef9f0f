//! What an operator asks of the agent of a device, and what it answers.

use super::Hold;

/// An operator's order. Apps are named by uuid or name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Try again what was rejected or put off; `None`: of every app.
    Retry { app: Option<String> },
    /// Take the wanted release back; `None`: of the only app.
    Rollback { app: Option<String> },
    /// Swap nothing until [`Order::Unhold`].
    Hold(Hold),
    /// Go on.
    Unhold,
}

impl Order {
    /// The command's name: the journal's field `order`.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Retry { .. } => "retry",
            Self::Rollback { .. } => "rollback",
            Self::Hold(_) => "hold",
            Self::Unhold => "unhold",
        }
    }
}

/// What became of an order, each with a line for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done, or there was nothing to do.
    Done(String),
    /// It cannot be done, and nothing was changed.
    Refused(String),
    /// It waits for the end of a hold, and nothing was changed.
    Held(String),
    /// No app is called so.
    NotFound(String),
}
