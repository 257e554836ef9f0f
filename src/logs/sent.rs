//! What was sent over a stream that the cloud has not confirmed yet. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::LogMessage;

/// What was sent so shortly before a connection broke may be lost.
const RECENT: Duration = Duration::from_secs(2);

/// Most messages of the agent that are kept until they are confirmed. Lines of services are kept by the engine.
const OWN: usize = 100;

/// The messages of one stream.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The number of lines of services.
    pub(super) lines: u64,
    /// The last ones of the agent.
    pub(super) own: VecDeque<LogMessage>,
    /// The last batches: when each was sent, and how many lines of services it had.
    recent: VecDeque<(Instant, u64)>,
}

impl Sent {
    pub(super) fn add(&mut self, messages: &[LogMessage], now: Instant) {
        let lines = messages.iter().filter(|message| message.service.is_some()).count() as u64;
        self.lines += lines;
        self.forget_before(now);
        self.recent.push_back((now, lines));
        for message in messages.iter().filter(|message| message.service.is_none()) {
            if self.own.len() == OWN {
                self.own.pop_front();
            }
            self.own.push_back(message.clone());
        }
    }

    pub(super) fn has_any(&self) -> bool {
        self.lines > 0 || !self.own.is_empty()
    }

    /// Returns how many lines of services were sent in the last moments.
    pub(super) fn last_lines(&mut self, now: Instant) -> u64 {
        self.forget_before(now);
        self.recent.iter().map(|(_, lines)| lines).sum()
    }

    fn forget_before(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|(at, _)| *at + RECENT < now) {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_moments_and_the_last_messages_of_the_agent_are_kept() {
        let own = |n: u64| LogMessage { text: n.to_string(), at_ms: n, service: None, is_stderr: false };
        let line = LogMessage { service: Some(1), ..own(0) };
        let (begun, mut sent) = (Instant::now(), Sent::default());
        for n in 0..110 {
            sent.add(&[own(n), line.clone()], begun + Duration::from_millis(100 * n));
        }
        assert_eq!((sent.lines, sent.own.len(), sent.own[0].at_ms), (110, 100, 10));
        assert_eq!(sent.last_lines(begun + Duration::from_millis(11_000)), 20);
    }
}
