//! Tasks that run beside each other, at most one for each key.

use std::collections::HashMap;
use std::future;
use std::hash::Hash;
use std::time::Duration;

use tokio::task::{Id, JoinSet};

/// How long a key whose task panicked gets no other one.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// The tasks that run, by key.
#[derive(Debug)]
pub(super) struct OneEach<K> {
    tasks: JoinSet<()>,
    keys: HashMap<Id, K>,
}

impl<K> Default for OneEach<K> {
    fn default() -> Self {
        Self { tasks: JoinSet::new(), keys: HashMap::new() }
    }
}

impl<K: Eq + Hash> OneEach<K> {
    /// Starts a task, unless one of this key runs.
    pub(super) fn start(&mut self, key: K, task: impl Future<Output = ()> + Send + 'static) {
        if !self.keys.values().any(|running| *running == key) {
            self.keys.insert(self.tasks.spawn(task).id(), key);
        }
    }

    /// Waits until a task has ended; for ever if none runs. The key of a task that panicked is free a few seconds later.
    pub(super) async fn ended(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => drop(self.keys.remove(&id)),
            Some(Err(error)) => {
                tracing::error!(%error, "a task of the server failed; it is tried again");
                if let Some(key) = self.keys.remove(&error.id()) {
                    self.keys.insert(self.tasks.spawn(tokio::time::sleep(AFTER_PANIC)).id(), key);
                }
            }
            None => future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_has_one_task_and_is_free_after_it_also_after_a_panic() {
        let (mut tasks, begun) = (OneEach::default(), Arc::new(AtomicUsize::new(0)));
        let task = |panics: bool| {
            let begun = Arc::clone(&begun);
            async move {
                begun.fetch_add(1, Ordering::Relaxed);
                assert!(!panics, "as the test wants");
            }
        };
        let begun = || begun.load(Ordering::Relaxed);
        tasks.start("a", task(true));
        tasks.start("a", task(false));
        tasks.start("b", task(false));
        tasks.ended().await;
        tasks.ended().await;
        assert_eq!(begun(), 2);
        let now = Instant::now();
        tasks.start("a", task(false));
        tasks.ended().await;
        assert_eq!((begun(), now.elapsed()), (2, AFTER_PANIC), "it pauses");
        tasks.start("a", task(false));
        tasks.ended().await;
        assert_eq!(begun(), 3);
        assert!(timeout(AFTER_PANIC, tasks.ended()).await.is_err(), "none runs");
    }
}
