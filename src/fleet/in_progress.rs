//! Counts the requests in progress of each key or token, so that none of them takes all places.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::key_hash::KeyHash;
use super::locks::locked;

/// The requests in progress, by key.
#[derive(Debug, Default)]
pub(super) struct InProgress {
    counts: Mutex<HashMap<KeyHash, usize>>,
}

/// A request in progress; it counts until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    of: Arc<InProgress>,
    key: KeyHash,
}

impl InProgress {
    /// Counts a request of this key; `None` if it has `most` in progress already.
    pub(super) fn enter(self: &Arc<Self>, key: &KeyHash, most: usize) -> Option<Turn> {
        let mut counts = locked(&self.counts);
        let count = counts.entry(key.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Turn { of: Arc::clone(self), key: key.clone() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = locked(&self.of.counts);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_turns_and_gets_them_back() {
        let progress = Arc::new(InProgress::default());
        let (a, b) = (KeyHash("a".into()), KeyHash("b".into()));
        let first = progress.enter(&a, 2);
        let second = progress.enter(&a, 2);
        assert!(first.is_some() && second.is_some());
        assert!(progress.enter(&a, 2).is_none());
        assert!(progress.enter(&b, 2).is_some());
        drop(first);
        assert!(progress.enter(&a, 2).is_some());
        drop(second);
        assert!(locked(&progress.counts).is_empty());
    }
}
