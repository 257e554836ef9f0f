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
use crate::model::{ContainerId, LogCursor, LogLevel, LogLine, LogMessage, LogTime};

/// How many of the last lines are read of a log: as many as clouds keep of a device.
const TAIL: u32 = 1000;

/// How long a follower keeps its log open while the buffer is full.
const HOLD_OPEN: Duration = Duration::from_secs(1);

/// How often a follower whose service writes nothing compares the clock with the time since when it asked for lines.
const CHECK_CLOCK: Duration = Duration::from_secs(600);

/// How long the engine may take for the next line of those that a log has already.
const NEXT_LINE: Duration = Duration::from_secs(2);

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
    /// Whether lines after the cursor that the engine does not return any more are a gap.
    pub(super) may_skip: bool,
    /// Returns the milliseconds since 1970.
    pub(super) now_ms: fn() -> u64,
}

/// Why a follower stops reading.
enum Stopped {
    /// The log has ended, with the container or with the engine.
    Ended(Result<(), EngineError>),
    /// The service has used up what it may upload until then.
    Paced(Instant),
    /// The buffer has no room for a line that takes so much of it.
    Full(usize),
    /// The clock was set back to before the time since when the engine was asked for lines. Some engines pass none before it.
    ClockSetBack,
}

impl<E: Inspect> Follower<E> {
    /// Reads until the log ends.
    ///
    /// # Errors
    ///
    /// If the log cannot be opened, or breaks off.
    pub(super) async fn run(&mut self) -> Result<(), EngineError> {
        let mut pace = Pace::new(Instant::now());
        loop {
            let since = self.since().await?;
            let log = self.engine.follow_log(&self.container, since, TAIL).await?;
            match self.read(log, since, &mut pace).await {
                Stopped::Ended(ended) => return ended,
                Stopped::Paced(until) => tokio::time::sleep_until(until).await,
                Stopped::Full(cost) => self.buffer.wait_for_room(&self.container, cost).await,
                Stopped::ClockSetBack => {}
            }
            self.may_skip = true;
        }
    }

    /// Returns since when lines are to be read. A cursor in the future was made before the clock was set back. What was written
    /// after that has earlier times, so the engine is asked for lines of all times. If the line of the cursor is not among
    /// them, the cursor is forgotten.
    async fn since(&mut self) -> Result<Option<LogTime>, EngineError> {
        let Some(cursor) = self.cursor else { return Ok(None) };
        if !self.is_future(cursor.at) {
            return Ok(Some(cursor.at));
        }
        let log = self.engine.follow_log(&self.container, None, TAIL).await?;
        if !has_line(log, cursor.at).await? {
            self.cursor = None;
        }
        Ok(None)
    }

    fn is_future(&self, at: LogTime) -> bool {
        at / 1_000_000 > (self.now_ms)()
    }

    /// Reads a log that was opened at the cursor, and drops the lines that were read before. If these do not come again, the
    /// engine returned only the last lines of a longer log. Then some lines are lost, and the gap is reported.
    async fn read(&mut self, mut log: FollowedLog, since: Option<LogTime>, pace: &mut Pace) -> Stopped {
        let mut resume = self.cursor.map(|cursor| (cursor, 0));
        let (mut turn, mut passed_over) = (0, 0);
        loop {
            let line = match tokio::time::timeout(CHECK_CLOCK, log.next()).await {
                Ok(Some(Ok(line))) => line,
                Ok(Some(Err(error))) => return Stopped::Ended(Err(error)),
                Ok(None) => return Stopped::Ended(Ok(())),
                Err(_) if since.is_some_and(|since| self.is_future(since)) => return Stopped::ClockSetBack,
                Err(_) => continue,
            };
            if let Some((cursor, again)) = &mut resume {
                if line.at == cursor.at && *again < cursor.seen {
                    *again += 1;
                    continue;
                }
                // Without `since` lines of any time are before the line of the cursor, unless that is not there any more.
                let is_before = match since {
                    Some(_) => line.at < cursor.at,
                    None => passed_over < TAIL,
                };
                if *again == 0 && is_before {
                    passed_over += 1;
                    continue;
                }
                let is_gap = *again == 0 && self.may_skip;
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

/// Returns whether a log has a line of this time among those that are there already.
async fn has_line(mut log: FollowedLog, at: LogTime) -> Result<bool, EngineError> {
    for _ in 0..TAIL {
        match tokio::time::timeout(NEXT_LINE, log.next()).await {
            Ok(Some(Ok(line))) if line.at == at => return Ok(true),
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(error))) => return Err(error),
            Ok(None) | Err(_) => return Ok(false),
        }
    }
    Ok(false)
}
