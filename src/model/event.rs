//! What happens on the device, for whoever watches: a bounded list of the last events.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Step, Waiting};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts up from 1 since the agent started.
    pub id: u64,
    /// RFC 3339, UTC; as right as the clock was.
    pub at: String,
    pub kind: EventKind,
}

/// What happened, in the words of journal and status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A step was done, or failed.
    Step { step: Step, failure: Option<String> },
    /// Something is waited for from now on, or not any more.
    Waiting { waiting: Waiting, is_over: bool },
    /// Another target was received, with so many apps.
    Target { apps: usize },
    /// An operator gave an order.
    Order { verb: &'static str, is_followed: bool, answer: String },
    /// The engine cannot be looked at, or can again.
    Engine { error: Option<String> },
    /// The store cannot be written, or can again.
    Store { error: Option<String> },
}

/// How many events are kept.
const LONGEST: usize = 256;

/// The last events. Cheap to read from: whoever is too slow misses some, and holds nobody up.
#[derive(Debug, Default)]
pub struct Events {
    last: u64,
    kept: VecDeque<Arc<Event>>,
}

impl Events {
    /// Adds one; the oldest goes when there are too many.
    pub fn add(&mut self, at: String, kind: EventKind) {
        self.last += 1;
        if self.kept.len() == LONGEST {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(Event { id: self.last, at, kind }));
    }

    /// The events after `id`, the oldest first, and how many came between them and `id` that are not kept any
    /// more.
    #[must_use]
    pub fn after(&self, id: u64) -> (Vec<Arc<Event>>, u64) {
        let news: Vec<_> = self.kept.iter().filter(|event| event.id > id).cloned().collect();
        let first = news.first().map_or(id + 1, |event| event.id);
        (news, first.saturating_sub(id + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_too_slow_misses_some_and_is_told_how_many() {
        let mut events = Events::default();
        assert_eq!(events.after(0), (Vec::new(), 0));
        for n in 0..300 {
            events.add(format!("{n}"), EventKind::Target { apps: n });
        }
        let ends = |id| {
            let (news, missed) = events.after(id);
            (news.first().map(|e| e.id), news.last().map(|e| e.id), missed)
        };
        assert_eq!(ends(0), (Some(45), Some(300), 44));
        assert_eq!(ends(44), (Some(45), Some(300), 0));
        assert_eq!(ends(299), (Some(300), Some(300), 0));
        assert_eq!(ends(300), (None, None, 0));
        assert_eq!(ends(1000), (None, None, 0), "of another run");
    }
}
