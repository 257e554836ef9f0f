//! Follows the log of one container, and puts its lines into the buffer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use super::buffer::{Buffer, Kept};
use super::choice::Followed;
use super::pace::Pace;
use super::texts;
use crate::engine::{EngineError, FollowedLog, Inspect};
use crate::model::{ContainerId, LogCursor, LogLevel, LogLine, LogMessage};

/// How many of the last lines are read of a log: as many as clouds keep of a device.
const TAIL: u32 = 1000;

/// How long a follower keeps its log open while the buffer is full.
const HOLD_OPEN: Duration = Duration::from_secs(1);

/// After so many lines other tasks have a turn.
const TURN: u32 = 100;

/// The follower of one container.
pub(super) struct Follower<E> {
    pub(super) engine: Arc<E>,
    pub(super) container: ContainerId,
    pub(super) what: Followed,
    pub(super) buffer: Arc<Buffer>,
    /// The last line that was read.
    pub(super) cursor: Option<LogCursor>,
}

/// Why a follower stops reading.
enum Stopped {
    /// The log has ended, with the container or with the engine.
    Ended(Result<(), EngineError>),
    /// The service has used up what it may upload until then.
    Paced(Instant),
    /// The buffer has no room for a line that takes so much of it.
    Full(usize),
}

impl<E: Inspect> Follower<E> {
    /// Reads until the log ends.
    ///
    /// # Errors
    ///
    /// If the log cannot be opened, or breaks off.
    pub(super) async fn run(&mut self) -> Result<(), EngineError> {
        let mut pace = Pace::new(Instant::now());
        let mut may_skip = false;
        loop {
            let since = self.cursor.map(|cursor| cursor.at);
            let log = self.engine.follow_log(&self.container, since, TAIL).await?;
            match self.read(log, &mut pace, may_skip).await {
                Stopped::Ended(ended) => return ended,
                Stopped::Paced(until) => tokio::time::sleep_until(until).await,
                Stopped::Full(cost) => self.buffer.wait_for_room(&self.container, cost).await,
            }
            may_skip = true;
        }
    }

    /// Reads a log that was opened at the cursor, and drops the lines that were read before. If these do not come again, the
    /// engine returned only the last lines of a longer log. Then some lines are lost, and the gap is reported.
    async fn read(&mut self, mut log: FollowedLog, pace: &mut Pace, may_skip: bool) -> Stopped {
        let mut resume = self.cursor.map(|cursor| (cursor, 0));
        let mut turn = 0;
        while let Some(line) = log.next().await {
            let line = match line {
                Ok(line) => line,
                Err(error) => return Stopped::Ended(Err(error)),
            };
            if let Some((cursor, again)) = &mut resume {
                if line.at < cursor.at {
                    continue;
                }
                if line.at == cursor.at && *again < cursor.seen {
                    *again += 1;
                    continue;
                }
                let is_gap = *again == 0 && may_skip;
                resume = None;
                if is_gap {
                    self.report_gap(line.at);
                }
            }
            if let Err(stopped) = self.pass(line, pace).await {
                return stopped;
            }
            turn += 1;
            if turn % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        Stopped::Ended(Ok(()))
    }

    /// Puts a line into the buffer.
    async fn pass(&mut self, line: LogLine, pace: &mut Pace) -> Result<(), Stopped> {
        let cursor = self.cursor.unwrap_or_default().after(line.at);
        if self.what.level == LogLevel::Errors && !line.is_stderr {
            self.cursor = Some(cursor);
            return Ok(());
        }
        pace.take(Instant::now(), line.text.len()).map_err(Stopped::Paced)?;
        let message = LogMessage {
            text: line.text,
            at_ms: line.at / 1_000_000,
            service: Some(self.what.number),
            is_stderr: line.is_stderr,
        };
        let mut kept = Kept { message, of: Some((self.container.clone(), cursor)) };
        while let Err(full) = self.buffer.put(kept) {
            let room = self.buffer.wait_for_room(&self.container, full.cost());
            if tokio::time::timeout(HOLD_OPEN, room).await.is_err() {
                return Err(Stopped::Full(full.cost()));
            }
            kept = full;
        }
        self.cursor = Some(cursor);
        Ok(())
    }

    fn report_gap(&self, at: u64) {
        self.buffer.count_gap();
        self.buffer.put_own(texts::own(texts::skipped(&self.what.service), at / 1_000_000, true));
    }
}
