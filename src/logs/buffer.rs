//! The one bounded buffer between followers and upload.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::model::{CloudReport, ContainerId, LogCursor, LogMessage};

/// Most bytes of all messages that wait.
const CAPACITY: usize = 256 << 10;

/// What a message takes besides its text.
const OVERHEAD: usize = 64;

/// Most bytes that are taken out at once.
const BATCH: usize = 64 << 10;

/// A message that waits.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) message: LogMessage,
    /// Its container, and how far its log is read with this message.
    pub(super) of: Option<(ContainerId, LogCursor)>,
}

impl Kept {
    /// Returns how many bytes of the buffer it takes.
    pub(super) fn cost(&self) -> usize {
        self.message.text.len() + OVERHEAD
    }
}

/// Messages, oldest first. Each container has a share, so that one that writes a lot displaces no other.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    inner: Mutex<Inner>,
    filled: Notify,
    drained: Notify,
    /// Where it publishes how many messages wait.
    report: Option<watch::Sender<CloudReport>>,
}

#[derive(Debug, Default)]
struct Inner {
    kept: VecDeque<Kept>,
    bytes: usize,
    of: BTreeMap<ContainerId, usize>,
    /// How many containers are followed.
    sources: usize,
    /// Messages of the agent that found no room since the last batch.
    dropped: u64,
    gaps: u64,
}

impl Buffer {
    /// Makes an empty buffer that publishes how many messages wait.
    pub(super) fn reporting_to(report: watch::Sender<CloudReport>) -> Self {
        Self { report: Some(report), ..Self::default() }
    }

    /// Sets how many containers share the buffer.
    pub(super) fn share_among(&self, sources: usize) {
        self.inner().sources = sources;
    }

    /// Adds a message; gives it back if its container has used its share.
    pub(super) fn put(&self, kept: Kept) -> Result<(), Kept> {
        let cost = kept.cost();
        let mut inner = self.inner();
        let container = kept.of.as_ref().map(|(container, _)| container);
        if inner.bytes + cost > CAPACITY || container.is_some_and(|container| inner.is_full(container, cost))
        {
            return Err(kept);
        }
        inner.bytes += cost;
        if let Some((container, _)) = &kept.of {
            *inner.of.entry(container.clone()).or_default() += cost;
        }
        inner.kept.push_back(kept);
        self.publish(&inner);
        drop(inner);
        self.filled.notify_one();
        Ok(())
    }

    /// Adds a message of the agent, or counts it as dropped.
    pub(super) fn put_own(&self, message: LogMessage) {
        if self.put(Kept { message, of: None }).is_err() {
            self.inner().dropped += 1;
        }
    }

    /// Counts a gap in the log of a service.
    pub(super) fn count_gap(&self) {
        self.inner().gaps += 1;
    }

    /// Waits until a message of a container fits, and at least half of its share is free.
    pub(super) async fn wait_for_room(&self, container: &ContainerId, cost: usize) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            // A batch that is taken between the question and the wait must wake it.
            drained.as_mut().enable();
            {
                let inner = self.inner();
                let needed = (inner.share() / 2).max(cost);
                if inner.bytes + needed <= CAPACITY && !inner.is_full(container, needed) {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Waits for a message.
    pub(super) async fn wait_for_message(&self) {
        while self.inner().kept.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Takes the oldest messages, up to 64 KiB of them. Also returns how many were dropped, and how many gaps there were, since
    /// the last batch.
    pub(super) fn take(&self) -> (Vec<Kept>, u64, u64) {
        let mut inner = self.inner();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH
            && let Some(kept) = inner.kept.pop_front()
        {
            let cost = kept.cost();
            bytes += cost;
            inner.bytes -= cost;
            if let Some((container, _)) = &kept.of
                && let Some(used) = inner.of.get_mut(container)
            {
                *used -= cost;
                if *used == 0 {
                    inner.of.remove(container);
                }
            }
            batch.push(kept);
        }
        let (dropped, gaps) = (std::mem::take(&mut inner.dropped), std::mem::take(&mut inner.gaps));
        self.publish(&inner);
        drop(inner);
        self.drained.notify_waiters();
        (batch, dropped, gaps)
    }

    /// Returns how many messages wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.inner().kept.len()
    }

    /// Drops the lines of the containers that this function names, and keeps the agent's own messages.
    pub(super) fn drop_lines(&self, is_dropped: impl Fn(&ContainerId) -> bool) {
        let mut inner = self.inner();
        let (mut kept, mut bytes) = (VecDeque::new(), 0);
        for message in std::mem::take(&mut inner.kept) {
            if message.of.as_ref().is_none_or(|(container, _)| !is_dropped(container)) {
                bytes += message.cost();
                kept.push_back(message);
            }
        }
        (inner.kept, inner.bytes) = (kept, bytes);
        inner.of.retain(|container, _| !is_dropped(container));
        self.publish(&inner);
        drop(inner);
        self.drained.notify_waiters();
    }

    /// Empties the buffer.
    pub(super) fn clear(&self) {
        let mut inner = self.inner();
        *inner = Inner { sources: inner.sources, ..Inner::default() };
        self.publish(&inner);
        drop(inner);
        self.drained.notify_waiters();
    }

    /// Publishes how many messages wait, without waking the readers of the report.
    fn publish(&self, inner: &Inner) {
        if let Some(report) = &self.report {
            report.send_if_modified(|report| {
                report.logs.waiting = inner.kept.len() as u64;
                false
            });
        }
    }

    /// Ignores poisoning, because a panic elsewhere leaves a consistent list.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Returns how many bytes a container may use. One share is left to the agent's own messages.
    fn share(&self) -> usize {
        CAPACITY / (self.sources + 1)
    }

    fn is_full(&self, container: &ContainerId, more: usize) -> bool {
        let used = self.of.get(container).copied().unwrap_or_default();
        // A message of the longest text always fits into an unused share.
        used > 0 && used + more > self.share()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn container(name: &str) -> ContainerId {
        ContainerId::parse(name).unwrap()
    }

    fn line(of: &str, at: u64, size: usize) -> Kept {
        let message =
            LogMessage { text: "x".repeat(size - OVERHEAD), at_ms: 0, service: Some(1), is_stderr: false };
        Kept { message, of: Some((container(of), LogCursor { at, seen: 1 })) }
    }

    #[test]
    fn no_container_displaces_another_and_the_agent_has_room_of_its_own() {
        let buffer = Buffer::default();
        buffer.share_among(2);
        let fill = |of: &str| (0..1000).take_while(|at| buffer.put(line(of, *at, 1024)).is_ok()).count();
        assert_eq!((fill("aa"), fill("bb"), fill("aa")), (85, 85, 0));
        let own = LogMessage { text: "x".repeat(960), at_ms: 0, service: None, is_stderr: true };
        (0..100).for_each(|_| buffer.put_own(own.clone()));
        assert!(buffer.wait_for_room(&container("aa"), 100).now_or_never().is_none());
        let (batch, dropped, _) = buffer.take();
        assert_eq!((batch.len(), dropped), (64, 14));
        assert_eq!(buffer.inner().dropped, 0, "each dropped line is reported once");
        assert!(buffer.wait_for_room(&container("aa"), 100).now_or_never().is_some());
        assert!(buffer.wait_for_room(&container("bb"), 100).now_or_never().is_none());
        let mut left = 0;
        while buffer.wait_for_message().now_or_never().is_some() {
            left += buffer.take().0.len();
        }
        assert_eq!(left, 85 + 85 + 86 - 64);
        let inner = buffer.inner();
        assert_eq!((inner.bytes, inner.of.len()), (0, 0));
    }

    #[test]
    fn an_emptied_buffer_is_shared_as_before() {
        let buffer = Buffer::default();
        buffer.share_among(2);
        let fill = || (0..1000).take_while(|at| buffer.put(line("aa", *at, 1024)).is_ok()).count();
        let before = fill();
        buffer.clear();
        assert_eq!((before, fill()), (85, 85));
    }

    #[test]
    fn the_longest_line_fits_however_many_containers_there_are() {
        let buffer = Buffer::default();
        buffer.share_among(200);
        assert!(buffer.put(line("aa", 1, 40_064)).is_ok());
        assert!(buffer.put(line("aa", 2, 40_064)).is_err());
    }

    /// If a wait ended before the line fits, the follower would repeat it without a pause, and no other task would run.
    #[test]
    fn there_is_room_only_if_the_line_fits() {
        let buffer = Buffer::default();
        buffer.share_among(30);
        assert!(buffer.put(line("aa", 1, 100)).is_ok());
        let long = line("aa", 2, 10_064);
        assert!(buffer.wait_for_room(&container("aa"), 200).now_or_never().is_some());
        assert!(buffer.wait_for_room(&container("aa"), long.cost()).now_or_never().is_none());
        let long = buffer.put(long).unwrap_err();
        buffer.take();
        assert!(buffer.wait_for_room(&container("aa"), long.cost()).now_or_never().is_some());
        assert!(buffer.put(long).is_ok());
    }
}
