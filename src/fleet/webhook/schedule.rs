//! When a message is retried, and when it is given up. Callers pass the time.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::types::Message;

/// The time after each failed attempt until the next one. A message has as many attempts as this, and one more.
const AFTER: [u64; 12] = [5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 28_800];

/// How long a message is sent at most.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The longest time between two questions to a webhook that holds a wave.
const LONGEST_QUESTION: u64 = 300;

/// Returns `true` if a message with so many failed attempts is not sent any more.
#[must_use]
pub fn is_given_up(message: &Message, now: Timestamp) -> bool {
    let age = now.duration_since(message.at);
    message.failures as usize > AFTER.len() || age.unsigned_abs() >= LONGEST && now >= message.at
}

/// Longest possible delay before a retry. A longer one means that the clock was set back since, so it is ignored.
const FURTHEST: Duration = Duration::from_secs(12 * 3600);

/// Returns `true` if something that is not to be tried before `next` may be tried now.
#[must_use]
pub fn is_due(next: Timestamp, now: Timestamp) -> bool {
    next <= now || next.duration_since(now).unsigned_abs() > FURTHEST
}

/// Returns when something that has failed so often is tried again. The times differ by up to a fifth with `id`, so that what
/// failed together does not come back together. `asked` is the least wait that the receiver asks for.
#[must_use]
pub fn next_attempt(id: &str, failures: u32, asked: Option<Duration>, now: Timestamp) -> Timestamp {
    let place = (failures.max(1) as usize - 1).min(AFTER.len() - 1);
    let wait = Duration::from_secs(AFTER[place]).mul_f64(jitter(id, failures)).max(asked.unwrap_or_default());
    now.checked_add(wait).unwrap_or(now)
}

/// As [`next_attempt`], for a question that holds a wave: it goes on until a person ends it, so the waits stay short.
#[must_use]
pub fn next_question(id: &str, asked: u32, least: Option<Duration>, now: Timestamp) -> Timestamp {
    let usual = 5_u64.saturating_mul(1 << asked.clamp(1, 16).saturating_sub(1)).min(LONGEST_QUESTION);
    let wait = Duration::from_secs(usual).mul_f64(jitter(id, asked)).max(least.unwrap_or_default());
    now.checked_add(wait).unwrap_or(now)
}

/// Returns a factor from 0.8 to 1.2.
fn jitter(id: &str, attempt: u32) -> f64 {
    let hash = Sha256::digest(format!("{id} {attempt}"));
    0.8 + 0.4 * f64::from(hash[0]) / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::webhook::Event;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_waits_grow_and_have_an_end() {
        let waited = |failures| (next_attempt("msg_1", failures, None, at(0)).as_millisecond()) as f64 / 1e3;
        for (failures, usual) in [(1, 5.0), (2, 15.0), (6, 300.0), (12, 28_800.0), (13, 28_800.0)] {
            let wait = waited(failures);
            assert!((usual * 0.8..=usual * 1.2).contains(&wait), "{failures}: {wait}");
        }
        assert_ne!(waited(1), (next_attempt("msg_2", 1, None, at(0)).as_millisecond()) as f64 / 1e3);
        let asked = next_attempt("msg_1", 1, Some(Duration::from_secs(900)), at(0));
        assert_eq!(asked, at(900), "the receiver asks for more");
        for (asked, usual) in [(1, 5.0), (2, 10.0), (6, 160.0), (7, 300.0), (60, 300.0)] {
            let wait = next_question("q", asked, None, at(0)).as_millisecond() as f64 / 1e3;
            assert!((usual * 0.8..=usual * 1.2).contains(&wait), "{asked}: {wait}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nothing() {
        assert!(is_due(at(100), at(100)) && !is_due(at(101), at(100)));
        assert!(!is_due(at(12 * 3600), at(0)) && is_due(at(12 * 3600 + 1), at(0)));
    }

    #[test]
    fn a_message_ends_after_its_attempts_or_a_day() {
        let message = |failures| Message {
            number: 1,
            webhook: "ci".into(),
            id: "msg_1".into(),
            event: Event::Start,
            at: at(1000),
            body: String::new(),
            failures,
            next: at(1000),
        };
        assert!(!is_given_up(&message(12), at(2000)));
        assert!(is_given_up(&message(13), at(2000)));
        assert!(!is_given_up(&message(1), at(1000 + 86_399)));
        assert!(is_given_up(&message(1), at(1000 + 86_400)));
        assert!(!is_given_up(&message(1), at(0)), "the clock was set back");
    }
}
