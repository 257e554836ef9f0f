//! The open connections of a server, and the choice of those that are closed for a new one. Pure except for the tasks.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::{AbortHandle, Id, JoinSet};

use super::admission::{Connection, Phase};

/// The fraction of connections that is closed at once to make room, so that during a flood not every new connection needs
/// a search.
const BATCH: usize = 32;

#[derive(Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    open: HashMap<Id, (Arc<Connection>, AbortHandle)>,
}

impl Connections {
    pub(super) fn spawn(
        &mut self,
        connection: Arc<Connection>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(task);
        self.open.insert(handle.id(), (connection, handle));
    }

    /// Waits until a connection ends; for ever if none is open.
    pub(super) async fn ended(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => drop(self.open.remove(&id)),
            Some(Err(aborted)) => drop(self.open.remove(&aborted.id())),
            None => std::future::pending().await,
        }
    }

    /// Waits until all have ended.
    pub(super) async fn all_ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    /// Returns whether `most` connections of this kind are open.
    pub(super) fn is_full(&self, is_privileged: bool, most: usize) -> bool {
        // A cheap test first: most servers have only one kind, and are far from full.
        self.open.len() >= most
            && self.open.values().filter(|(c, _)| c.peer.is_privileged == is_privileged).count() >= most
    }

    /// Closes connections of this kind that have no request in progress, at least one if there is any. Returns how
    /// many.
    pub(super) fn make_room(&mut self, is_privileged: bool) -> usize {
        loop {
            let of_kind = self.open.iter().filter(|(_, (c, _))| c.peer.is_privileged == is_privileged);
            let candidates: Vec<_> =
                of_kind.map(|(id, (connection, _))| (*id, Candidate::of(connection))).collect();
            let spare = victims(candidates);
            let closed = spare.iter().filter(|id| self.close(**id)).count();
            // Another thread may have admitted a request on each of them meanwhile.
            if closed > 0 || spare.is_empty() {
                return closed;
            }
        }
    }

    /// Closes a connection and returns `true`, unless it has a request that was admitted.
    fn close(&mut self, id: Id) -> bool {
        let is_closed = self.open.get(&id).is_some_and(|(connection, _)| connection.close());
        if is_closed && let Some((_, task)) = self.open.remove(&id) {
            task.abort();
        }
        is_closed
    }

    /// Closes every connection that waits for a request.
    pub(super) fn close_waiting(&mut self) {
        for (connection, task) in self.open.values() {
            let is_waiting = matches!(connection.phase(), Phase::New | Phase::Head | Phase::Idle);
            if is_waiting && connection.close() {
                task.abort();
            }
        }
    }
}

/// The properties of a connection that decide whether it makes room.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    group: u64,
    is_admitted: bool,
    was_admitted: bool,
    since: u64,
}

impl Candidate {
    fn of(connection: &Connection) -> Self {
        Self {
            group: connection.group(),
            is_admitted: connection.is_admitted(),
            was_admitted: connection.was_admitted(),
            since: connection.since(),
        }
    }
}

/// Orders connections by who makes room first: those of the largest group, then those that never had an admitted request,
/// then those that have waited longest.
fn victims<I: Copy>(candidates: Vec<(I, Candidate)>) -> Vec<I> {
    let mut sizes: HashMap<u64, usize> = HashMap::new();
    for (_, candidate) in &candidates {
        *sizes.entry(candidate.group).or_default() += 1;
    }
    let most = candidates.len().div_ceil(BATCH);
    let mut spare: Vec<_> = candidates.into_iter().filter(|(_, candidate)| !candidate.is_admitted).collect();
    spare.sort_by_key(|(_, c)| (Reverse(sizes.get(&c.group).copied()), c.was_admitted, c.since));
    spare.into_iter().take(most).map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "group since" with "in progress" or "known" behind it, commas between them.
    fn closed(text: &str) -> Vec<String> {
        let candidates = text.split(", ").map(|connection| {
            let mut words = connection.split(' ');
            let (group, since) = (words.next().unwrap(), words.next().unwrap());
            let rest: Vec<_> = words.collect();
            let candidate = Candidate {
                group: group.bytes().next().unwrap().into(),
                is_admitted: rest == ["in", "progress"],
                was_admitted: !rest.is_empty(),
                since: since.parse().unwrap(),
            };
            (connection, candidate)
        });
        victims(candidates.collect()).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn who_makes_room() {
        for (why, open, expected) in [
            ("the oldest", "a 3, a 1, a 2", vec!["a 1"]),
            ("strangers first", "a 1 known, a 2, a 3", vec!["a 2"]),
            ("then known ones", "a 2 known, a 1 known", vec!["a 1 known"]),
            ("never a request in progress", "a 1 in progress, a 2 in progress", vec![]),
            ("the largest group", "a 1, b 2, b 3", vec!["b 2"]),
            ("a group is as large as its requests, too", "a 1, b 2, b 3 in progress", vec!["b 2"]),
            ("the largest has nothing to give", "a 1, b 2 in progress, b 3 in progress", vec!["a 1"]),
        ] {
            assert_eq!(closed(open), expected, "{why}");
        }
        let many: Vec<_> = (0..100).map(|n| format!("a {n}")).collect();
        assert_eq!(closed(&many.join(", ")), ["a 0", "a 1", "a 2", "a 3"], "one in 32");
    }
}
