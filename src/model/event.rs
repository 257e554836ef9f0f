//! The last events of the device, in a list of limited length.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Step, Waiting};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts up from 1 since the agent started.
    pub id: u64,
    /// RFC 3339, UTC, by the clock at that moment.
    pub at: String,
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A step was done, or failed.
    Step { step: Step, failure: Option<String> },
    /// A wait began, or is over.
    Waiting { waiting: Waiting, is_over: bool },
    /// Another target was received, with so many apps.
    Target { apps: usize },
    /// An operator gave an order.
    Order { verb: &'static str, is_followed: bool, answer: String },
    /// The engine does not answer, or answers again.
    Engine { error: Option<String> },
    /// The store cannot be written, or can be written again.
    Store { error: Option<String> },
}

/// How many events are kept.
const LONGEST: usize = 256;

/// The last events. Cheap to read: a slow reader misses some and delays no other.
#[derive(Debug, Default)]
pub struct Events {
    last: u64,
    kept: VecDeque<Arc<Event>>,
}

impl Events {
    /// Adds an event, and removes the oldest one if there are too many.
    pub fn add(&mut self, at: String, kind: EventKind) {
        self.last += 1;
        if self.kept.len() == LONGEST {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(Event { id: self.last, at, kind }));
    }

    /// Returns the events after `id`, oldest first, and the number of events between `id` and the first of them that are
    /// not kept any more.
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
    fn a_slow_reader_misses_some_and_learns_how_many() {
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
