//! The question to a webhook whether a wave may begin.

use super::state::{Pause, Phase, Rollout};

/// What a wave waits for besides devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaits {
    Approval,
    Webhook,
}

impl Rollout {
    /// Returns `true` if no webhook holds this wave.
    #[must_use]
    pub fn is_confirmed(&self, wave: usize) -> bool {
        self.definition.confirm.is_none() || self.confirmed.is_some_and(|confirmed| confirmed >= wave)
    }

    /// Lets the wave begin that a question is about.
    pub fn confirm(&mut self) {
        if let Some(question) = self.question.take() {
            self.confirmed = Some(question.wave);
        }
    }

    /// Returns the index of the wave that waits for an approval or a webhook.
    #[must_use]
    pub fn awaited(&self) -> Option<(usize, Awaits)> {
        match self.phase {
            Phase::Paused { why: Pause::Approval } => Some((self.wave + 1, Awaits::Approval)),
            Phase::Running => Some((self.question.as_ref()?.wave, Awaits::Webhook)),
            Phase::Paused { .. } | Phase::Halted { .. } | Phase::Completed | Phase::Aborted { .. } => None,
        }
    }

    /// Says which wave waits for which webhook, and why.
    #[must_use]
    pub fn waits_for_webhook(&self) -> Option<String> {
        let (question, webhook) = (self.question.as_ref()?, self.definition.confirm.as_ref()?);
        let why = question.why.as_deref().unwrap_or("it has not answered yet");
        Some(format!("wave {} waits for webhook {webhook}: {why}", question.wave + 1))
    }
}
