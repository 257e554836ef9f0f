//! Remembers whether the engine answers, and what it said of itself.

use std::time::Duration;

use tracing::{info, warn};

use crate::engine::{About, Inspect};
use crate::model::{Alert, EventKind};

/// The state of the connection to the engine.
#[derive(Debug, Default)]
pub(super) struct EngineLink {
    /// What the engine said of itself since it last began to answer.
    about: Option<About>,
    /// Why the engine does not answer.
    error: Option<String>,
    /// Observations that failed in a row.
    failures: u32,
}

impl EngineLink {
    /// Why the engine does not answer; `None` if it does.
    pub(super) fn error(&self) -> Option<&String> {
        self.error.as_ref()
    }

    /// Records an answer. Returns an event if the engine did not answer before.
    pub(super) fn note_answer(&mut self) -> Option<EventKind> {
        self.failures = 0;
        self.error.take()?;
        info!("engine answers again");
        Some(EventKind::Engine { error: None })
    }

    /// Records that the engine does not answer. Returns an event if the reason is a new one.
    pub(super) fn note_failure(&mut self, why: String) -> Option<EventKind> {
        self.about = None;
        self.failures = self.failures.saturating_add(1);
        let is_new = self.error.as_ref() != Some(&why);
        if is_new {
            warn!(alert = Alert::EngineLost.as_str(), error = %why, "engine does not answer");
        }
        self.error = Some(why.clone());
        is_new.then_some(EventKind::Engine { error: Some(why) })
    }

    /// Returns the time until the next attempt: 2 s to 32 s, longer with every failure.
    pub(super) fn retry_in(&self) -> Duration {
        Duration::from_secs(1_u64 << self.failures.min(5))
    }

    /// Returns what the engine says of itself. Asks once, and again after the engine did not answer.
    pub(super) async fn about<E: Inspect>(&mut self, engine: &E) -> Option<&About> {
        if self.about.is_none() {
            self.about = engine.about().await.ok();
        }
        self.about.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_with_every_failure_and_an_answer_ends_that() {
        let mut link = EngineLink::default();
        let fail = |link: &mut EngineLink| {
            let is_news = link.note_failure("no such file".to_owned()).is_some();
            (is_news, link.retry_in().as_secs())
        };
        let delays: Vec<_> = (0..7).map(|_| fail(&mut link)).collect();
        let seconds: Vec<_> = delays.iter().map(|(_, seconds)| *seconds).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 32, 32, 32]);
        assert_eq!(delays.iter().filter(|(is_news, _)| *is_news).count(), 1, "the same reason is said once");
        assert!(link.note_answer().is_some() && link.note_answer().is_none());
        assert_eq!(fail(&mut link), (true, 2));
    }
}
