//! Uploads the messages of the buffer: connects when there is one, and disconnects after a time without any.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::buffer::{Buffer, Kept};
use super::cursors::Cursors;
use super::texts;
use crate::cloud::{Client, CloudError, LogStream, with_jitter};
use crate::model::{CloudReport, DeviceUuid};

/// The times of an upload (docs/dev/protocol.md, "Log streaming").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long nothing is sent over a new connection. If the cloud answers it with an error, no message is lost.
    pub grace: Duration,
    /// Shortest time between two batches.
    pub gap: Duration,
    /// The connection is closed after this time without a message.
    pub idle: Duration,
    /// The first and the longest time between two connections.
    pub delays: (Duration, Duration),
    /// A connection that lasted at least this long does not count as a failure.
    pub proven: Duration,
}

impl Times {
    /// The times of the protocol.
    pub const PROTOCOL: Self = Self {
        grace: Duration::from_secs(5),
        gap: Duration::from_millis(100),
        idle: Duration::from_secs(60),
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
    pub(super) report: watch::Sender<CloudReport>,
    pub(super) now_ms: fn() -> u64,
}

/// How a connection ended.
enum Closed {
    Stopped,
    Idle,
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
            let error = match self.converse(stop).await {
                Closed::Stopped => return,
                Closed::Idle => {
                    (failures, not_before) = (0, opened + self.times.delays.0);
                    continue;
                }
                Closed::Failed(error) => error,
            };
            if opened.elapsed() >= self.times.proven {
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
            self.count(|counts| counts.failures += 1);
        }
    }

    /// Opens a connection and sends messages until it ends.
    async fn converse(&self, stop: &CancellationToken) -> Closed {
        let mut stream = self.client.stream_logs(&self.uuid, &self.device_key);
        tokio::select! {
            biased;
            () = stop.cancelled() => return Closed::Stopped,
            error = stream.ended() => return Closed::Failed(error),
            () = sleep(self.times.grace) => {}
        }
        loop {
            let filled = timeout(self.times.idle, self.buffer.wait_for_message());
            let is_stopped = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                error = stream.ended() => return Closed::Failed(error),
                filled = filled => match filled {
                    Ok(()) => false,
                    Err(_) => {
                        stream.finish().await;
                        return Closed::Idle;
                    }
                }
            };
            if is_stopped {
                let last = async {
                    self.send(&mut stream).await?;
                    stream.finish().await;
                    Ok::<_, CloudError>(())
                };
                let _too_late = timeout(LAST, last).await;
                return Closed::Stopped;
            }
            // A cloud that accepts nothing does not delay the end of the agent.
            tokio::select! {
                biased;
                () = stop.cancelled() => return Closed::Stopped,
                sent = self.send(&mut stream) => if let Err(error) = sent {
                    return Closed::Failed(error);
                }
            }
            tokio::select! {
                error = stream.ended() => return Closed::Failed(error),
                () = stop.cancelled() => {}
                () = sleep(self.times.gap) => {}
            }
        }
    }

    /// Sends one batch.
    async fn send(&self, stream: &mut LogStream) -> Result<(), CloudError> {
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
        // If the connection breaks, it is not known whether the cloud has the batch. It is not sent again.
        read.into_iter().for_each(|(container, cursor)| self.cursors.advance(container, cursor));
        let bytes = stream.send(&messages).await?;
        self.count(|counts| (counts.lines, counts.bytes) = (counts.lines + lines, counts.bytes + bytes));
        Ok(())
    }

    /// Changes the counters without waking the readers of the report.
    fn count(&self, change: impl FnOnce(&mut crate::model::LogCounts)) {
        self.report.send_if_modified(|report| {
            change(&mut report.logs);
            false
        });
    }
}
