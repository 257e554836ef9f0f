//! What requests with an idempotency key have done, so that a repetition does not act again. Pure.

use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How long a repetition is recognised.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// Maximum number of bytes of an answer that is kept.
pub(super) const LONGEST_ANSWER: usize = 256 * 1024;

/// Maximum number of requests that are remembered, and of bytes of all of them: those before are forgotten first.
const MOST: usize = 10_000;
const LARGEST: usize = 8 << 20;

/// Maximum number of requests that are forgotten for a new one. Those that are too old go a few at a time.
const MOST_FORGOTTEN: usize = 1000;

/// A request that has changed something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeat {
    /// The SHA-256 of its user and its key.
    pub id: String,
    /// The SHA-256 of its method, path, query and body.
    pub request: String,
    pub at: Timestamp,
    /// Its record of the audit trail.
    pub number: u64,
    /// What its answer is made from, as JSON; `None` if it is too long, or not kept for another reason.
    pub answer: Option<String>,
}

impl Repeat {
    fn size(&self) -> usize {
        // With its places in the maps.
        self.answer.as_ref().map_or(0, String::len) + 400
    }
}

/// All requests that are remembered.
#[derive(Debug, Clone, Default)]
pub(super) struct Repeats {
    by_id: OrdMap<String, Arc<Repeat>>,
    /// By number.
    by_age: OrdMap<u64, String>,
    bytes: usize,
}

impl Repeats {
    pub(super) fn put(&mut self, repeat: Repeat) {
        self.drop(&repeat.id);
        self.bytes += repeat.size();
        self.by_age.insert(repeat.number, repeat.id.clone());
        self.by_id.insert(repeat.id.clone(), Arc::new(repeat));
    }

    pub(super) fn drop(&mut self, id: &str) {
        if let Some(repeat) = self.by_id.remove(id) {
            self.bytes -= repeat.size();
            self.by_age.remove(&repeat.number);
        }
    }

    /// Returns the request of this id, unless it is too long ago.
    pub(super) fn find(&self, id: &str, now: Timestamp) -> Option<&Arc<Repeat>> {
        self.by_id.get(id).filter(|repeat| !is_old(repeat, now))
    }

    /// Returns the requests to forget before this one is remembered: old ones, and the oldest where it has no room.
    pub(super) fn without_room(&self, new: &Repeat, now: Timestamp) -> Vec<String> {
        let (mut count, mut bytes) = (self.by_id.len() + 1, self.bytes + new.size());
        let oldest = self.by_age.values().filter_map(|id| self.by_id.get(id));
        let forgotten = oldest.take(MOST_FORGOTTEN).take_while(|repeat| {
            let is_forgotten = count > MOST || bytes > LARGEST || is_old(repeat, now);
            count -= 1;
            bytes -= repeat.size();
            is_forgotten
        });
        forgotten.map(|repeat| repeat.id.clone()).collect()
    }
}

fn is_old(repeat: &Repeat, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(repeat.at)).is_ok_and(|age| age >= KEPT_FOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeat(number: u64, at: i64, answer: usize) -> Repeat {
        let at = Timestamp::from_second(at).unwrap();
        let answer = Some("x".repeat(answer));
        Repeat { id: format!("id{number}"), request: String::new(), at, number, answer }
    }

    fn put(repeats: &mut Repeats, new: Repeat, now: i64) -> Vec<String> {
        let gone = repeats.without_room(&new, Timestamp::from_second(now).unwrap());
        gone.iter().for_each(|id| repeats.drop(id));
        repeats.put(new);
        gone
    }

    #[test]
    fn a_request_is_remembered_for_a_day() {
        let mut repeats = Repeats::default();
        put(&mut repeats, repeat(1, 1000, 10), 1000);
        let is_found = |now| repeats.find("id1", Timestamp::from_second(now).unwrap()).is_some();
        assert!(is_found(1000) && is_found(1000 + 86_399) && !is_found(1000 + 86_400));
        assert!(is_found(0), "the clock was set back");
        assert!(repeats.find("id2", Timestamp::UNIX_EPOCH).is_none());
        assert_eq!(put(&mut repeats, repeat(2, 100_000, 10), 100_000), ["id1"], "old ones go");
        assert_eq!((repeats.by_id.len(), repeats.by_age.len()), (1, 1));
    }

    #[test]
    fn the_memory_for_requests_is_bounded_in_number_and_bytes() {
        let mut repeats = Repeats::default();
        for number in 1..=(MOST as u64 + 100) {
            put(&mut repeats, repeat(number, 1000, 1), 1000);
        }
        assert_eq!((repeats.by_id.len(), repeats.by_age.len()), (MOST, MOST));
        assert!(repeats.find("id100", Timestamp::UNIX_EPOCH).is_none());
        assert!(repeats.find("id101", Timestamp::UNIX_EPOCH).is_some());
        for number in 20_001..=20_100 {
            put(&mut repeats, repeat(number, 1000, LONGEST_ANSWER), 1000);
        }
        let kept = repeats.by_id.values().map(|repeat| repeat.size()).sum::<usize>();
        assert_eq!(kept, repeats.bytes);
        assert!(kept <= LARGEST, "{kept}");
        assert_eq!(repeats.by_id.len(), 31, "at least the last ones are remembered, however long they are");
    }

    #[test]
    fn a_key_that_is_used_again_after_its_day_has_one_entry() {
        let mut repeats = Repeats::default();
        repeats.put(repeat(1, 1000, 10));
        repeats.put(Repeat { number: 2, ..repeat(1, 200_000, 5) });
        assert_eq!((repeats.by_id.len(), repeats.by_age.len(), repeats.bytes), (1, 1, 405));
    }
}
