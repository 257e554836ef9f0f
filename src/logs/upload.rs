//! Uploads the messages of the buffer, while there are some.
//!
//! The only sign that the cloud has taken what was sent is its answer at the end of a stream. So a stream is ended, and another
//! one is begun, every few minutes. What a cloud that has become silent has not confirmed is sent again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::buffer::{Buffer, Kept};
use super::cursors::Cursors;
use super::rewind::Rewind;
use super::sent::Sent;
use super::texts;
use crate::cloud::{Client, CloudError, LogStream, with_jitter};
use crate::model::{CloudReport, DeviceUuid, LogCounts};

/// The times of an upload (docs/dev/protocol.md, "Log streaming").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long nothing is sent over a new connection. If the cloud answers it with an error, no message is lost.
    pub grace: Duration,
    /// Shortest time between two batches.
    pub gap: Duration,
    /// The connection is closed after this time without a message.
    pub idle: Duration,
    /// After so long the stream is ended, so that the cloud confirms it, and another one is begun.
    pub renewal: Duration,
    /// How long the cloud may take to confirm a stream. A Cotter fleet server may not read for a minute, to slow a device down.
    pub confirmation: Duration,
    /// The first and the longest time between two connections.
    pub delays: (Duration, Duration),
    /// A connection that lasted at least this long does not count as a failure.
    pub proven: Duration,
}

impl Times {
    /// The times of the protocol, and two of our own for confirmations.
    pub const PROTOCOL: Self = Self {
        grace: Duration::from_secs(5),
        gap: Duration::from_millis(100),
        idle: Duration::from_secs(60),
        renewal: Duration::from_secs(300),
        confirmation: Duration::from_secs(75),
        delays: (Duration::from_secs(5), Duration::from_secs(300)),
        proven: Duration::from_secs(30),
    };
}

/// How long the last messages may take when the upload is stopped.
const LAST: Duration = Duration::from_secs(2);

pub(super) struct Upload {
    pub(super) client: Client,
    pub(super) uuid: DeviceUuid,
    pub(super) device_key: String,
    pub(super) times: Times,
    pub(super) buffer: Arc<Buffer>,
    pub(super) cursors: Arc<Cursors>,
    pub(super) rewind: Arc<Rewind>,
    pub(super) report: watch::Sender<CloudReport>,
    pub(super) now_ms: fn() -> u64,
}

/// How a stream ended.
enum Closed {
    /// The upload is stopped. `true` if the cloud has confirmed the stream.
    Stopped(bool),
    /// The cloud has confirmed it.
    Confirmed,
    Failed(CloudError),
}

impl Upload {
    /// Uploads until `stop` is cancelled. Then uploads the rest of the buffer if a connection is open.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let mut failures = 0_u32;
        let mut not_before = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = async { self.buffer.wait_for_message().await; sleep_until(not_before).await } => {}
            }
            let opened = Instant::now();
            let mut sent = Sent::default();
            let error = match self.converse(&mut sent, stop).await {
                Closed::Stopped(is_confirmed) => return self.settle(is_confirmed),
                Closed::Confirmed => {
                    self.settle(true);
                    (failures, not_before) = (0, opened + self.times.delays.0);
                    continue;
                }
                Closed::Failed(error) => error,
            };
            if opened.elapsed() >= self.times.proven && !error.is_silence() {
                failures = 0;
            }
            let (first, longest) = self.times.delays;
            let delay = first.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(longest);
            let delay = with_jitter(delay.max(error.retry_after().unwrap_or_default()));
            failures = failures.saturating_add(1);
            not_before = opened + delay;
            if failures == 1 {
                warn!(%error, retry_after_s = delay.as_secs(), "logs are not uploaded now");
            } else {
                debug!(%error, retry_after_s = delay.as_secs(), "logs are not uploaded now");
            }
            if !self.failed(&error, sent, stop).await {
                return;
            }
        }
    }

    /// Decides what becomes of the messages that were sent, if the cloud has confirmed their stream or not.
    fn settle(&self, is_confirmed: bool) {
        if is_confirmed {
            self.cursors.confirm();
        } else {
            self.cursors.roll_back();
        }
    }

    /// Decides what becomes of the messages of a stream that failed. Returns `false` if `stop` is cancelled meanwhile.
    ///
    /// A cloud that answers, or a connection that is closed, was there until then: only the last moments are uncertain, and
    /// nothing is sent twice. A cloud that has become silent may have taken nothing for minutes: all is sent again.
    async fn failed(&self, error: &CloudError, mut sent: Sent, stop: &CancellationToken) -> bool {
        let is_silence = error.is_silence() && sent.has_any();
        let uncertain = if is_silence { 0 } else { sent.last_lines(Instant::now()) };
        let repeated = if is_silence { sent.lines } else { 0 };
        self.report.send_if_modified(|report| {
            report.logs.failures += 1;
            report.logs.uncertain += uncertain;
            report.logs.repeated += repeated;
            report.log_error.replace(error.to_string()) != Some(error.to_string())
        });
        self.settle(!is_silence);
        if !is_silence {
            if uncertain > 0 {
                self.buffer.put_own(texts::own(texts::uncertain(uncertain), (self.now_ms)(), true));
            }
            return true;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return false,
            () = self.rewind.request() => {}
        }
        sent.own.into_iter().for_each(|message| self.buffer.put_own(message));
        true
    }

    /// Opens a connection and sends messages until it ends.
    async fn converse(&self, sent: &mut Sent, stop: &CancellationToken) -> Closed {
        let mut stream = self.client.stream_logs(&self.uuid, &self.device_key);
        tokio::select! {
            biased;
            () = stop.cancelled() => return Closed::Stopped(true),
            error = stream.ended() => return Closed::Failed(error),
            () = sleep(self.times.grace) => {}
        }
        let renewal = Instant::now() + self.times.renewal;
        loop {
            let filled = timeout(self.times.idle, self.buffer.wait_for_message());
            tokio::select! {
                biased;
                () = stop.cancelled() => return Closed::Stopped(self.send_last(stream, sent).await),
                error = stream.ended() => return Closed::Failed(error),
                filled = filled => if filled.is_err() || Instant::now() >= renewal {
                    return self.finish(stream, stop).await;
                }
            }
            // A cloud that takes nothing does not hold up the end of the agent.
            match within_stop(self.send(&mut stream, sent), stop).await {
                Some(Ok(())) => {}
                Some(Err(error)) => return Closed::Failed(error),
                None => return Closed::Stopped(false),
            }
            tokio::select! {
                error = stream.ended() => return Closed::Failed(error),
                () = stop.cancelled() => {}
                () = sleep(self.times.gap) => {}
            }
        }
    }

    /// Ends a stream, and waits for its confirmation.
    async fn finish(&self, stream: LogStream, stop: &CancellationToken) -> Closed {
        match within_stop(stream.finish(self.times.confirmation), stop).await {
            Some(Ok(())) => Closed::Confirmed,
            Some(Err(error)) => Closed::Failed(error),
            None => Closed::Stopped(false),
        }
    }

    /// Sends what is left, ends the stream, and returns whether the cloud has confirmed it.
    async fn send_last(&self, mut stream: LogStream, sent: &mut Sent) -> bool {
        let last = async {
            self.send(&mut stream, sent).await?;
            stream.finish(LAST).await
        };
        matches!(timeout(LAST, last).await, Ok(Ok(())))
    }

    /// Sends one batch.
    async fn send(&self, stream: &mut LogStream, sent: &mut Sent) -> Result<(), CloudError> {
        let (batch, dropped, gaps) = self.buffer.take();
        let (mut messages, mut read) = (Vec::with_capacity(batch.len() + 1), Vec::new());
        for Kept { message, of } in batch {
            messages.push(message);
            read.extend(of);
        }
        let lines = messages.len() as u64;
        if dropped > 0 {
            messages.push(texts::own(texts::suppressed(dropped), (self.now_ms)(), true));
        }
        self.count(|counts| (counts.dropped, counts.gaps) = (counts.dropped + dropped, counts.gaps + gaps));
        if messages.is_empty() {
            return Ok(());
        }
        read.into_iter().for_each(|(container, cursor)| self.cursors.advance(container, cursor));
        sent.add(&messages, Instant::now());
        let bytes = stream.send(&messages).await?;
        self.report.send_if_modified(|report| {
            let counts = &mut report.logs;
            (counts.lines, counts.bytes) = (counts.lines + lines, counts.bytes + bytes);
            report.log_error.take().is_some()
        });
        Ok(())
    }

    /// Changes the counters without waking the readers of the report.
    fn count(&self, change: impl FnOnce(&mut LogCounts)) {
        self.report.send_if_modified(|report| {
            change(&mut report.logs);
            false
        });
    }
}

/// Waits for a future, but no longer than [`LAST`] after `stop` is cancelled.
async fn within_stop<T>(future: impl Future<Output = T>, stop: &CancellationToken) -> Option<T> {
    tokio::pin!(future);
    tokio::select! {
        biased;
        done = &mut future => Some(done),
        () = async { stop.cancelled().await; sleep(LAST).await } => None,
    }
}
