//! Followers on the fake engine: what they read once, twice or never.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::buffer::Buffer;
use super::choice::Followed;
use super::cursors::Cursors;
use super::follower::Follower;
use super::followers::Followers;
use crate::engine::fake::Fake;
use crate::model::{
    ContainerId, Instance, LogCursor, LogCursors, LogLevel, LogLine, ServiceName, ServiceStatus,
};

fn container() -> ContainerId {
    ContainerId::parse("aa").unwrap()
}

fn followed(level: LogLevel) -> Followed {
    let service = ServiceName::parse("web").unwrap();
    Followed { service, number: 7, level, phase: (ServiceStatus::Running, None) }
}

fn engine() -> Arc<Fake> {
    Arc::new(Fake::new(Instance::parse("default").unwrap()))
}

fn write(engine: &Fake, at: u64, text: &str) {
    let (is_stderr, text) = (text.starts_with("error"), text.to_owned());
    engine.write(&container(), LogLine { at, is_stderr, text });
}

fn texts(buffer: &Buffer) -> Vec<String> {
    buffer.take().0.into_iter().map(|kept| kept.message.text).collect()
}

/// Reads what the log has from a cursor on. Returns the lines, how many gaps were reported, and the cursor.
async fn read(
    engine: &Arc<Fake>,
    cursor: Option<LogCursor>,
    level: LogLevel,
) -> (Vec<String>, u64, LogCursor) {
    let (engine, buffer) = (Arc::clone(engine), Arc::new(Buffer::default()));
    buffer.share_among(1);
    let what = followed(level);
    let mut follower = Follower { engine, container: container(), what, buffer: Arc::clone(&buffer), cursor };
    let _ = tokio::time::timeout(Duration::from_secs(1), follower.run()).await;
    let (batch, _, gaps) = buffer.take();
    (batch.into_iter().map(|kept| kept.message.text).collect(), gaps, follower.cursor.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn reading_goes_on_after_the_last_line_that_was_read() {
    let engine = engine();
    for (at, text) in [(5, "a"), (5, "b"), (5, "c"), (6, "d")] {
        write(&engine, at, text);
    }
    let (lines, _, end) = read(&engine, None, LogLevel::All).await;
    assert_eq!((lines.join(" ").as_str(), end), ("a b c d", LogCursor { at: 6, seen: 1 }));
    let (lines, gaps, _) = read(&engine, Some(LogCursor { at: 5, seen: 2 }), LogLevel::All).await;
    assert_eq!((lines.join(" ").as_str(), gaps), ("c d", 0), "two of the lines of one moment were read");
    let (lines, gaps, _) = read(&engine, Some(LogCursor { at: 4, seen: 9 }), LogLevel::All).await;
    assert_eq!(
        (lines.join(" ").as_str(), gaps),
        ("a b c d", 0),
        "a log that was rotated meanwhile is no gap"
    );
}

#[tokio::test(start_paused = true)]
async fn lines_that_are_not_uploaded_are_not_read_again() {
    let engine = engine();
    for (at, text) in [(5, "error one"), (6, "no error"), (7, "nor this")] {
        write(&engine, at, text);
    }
    let (lines, _, end) = read(&engine, None, LogLevel::Errors).await;
    assert_eq!((lines.join(" ").as_str(), end), ("error one", LogCursor { at: 7, seen: 1 }));
}

#[test]
fn cursors_are_saved_when_they_have_changed() {
    let cursor = LogCursor { at: 5, seen: 1 };
    let cursors = Cursors::new(LogCursors::from([(container(), cursor)]));
    assert_eq!(cursors.take_changed(), None);
    cursors.advance(container(), cursor);
    assert_eq!(cursors.take_changed(), None, "it is the same");
    let next = LogCursor { at: 6, seen: 1 };
    cursors.advance(container(), next);
    assert_eq!(cursors.take_changed(), Some(LogCursors::from([(container(), next)])));
    cursors.forget(&container());
    assert_eq!(cursors.take_changed(), Some(LogCursors::new()), "its container is gone");
    cursors.forget(&container());
    assert_eq!(cursors.take_changed(), None);
}

/// The followers of one container.
struct Rig {
    engine: Arc<Fake>,
    buffer: Arc<Buffer>,
    followers: Followers<Fake>,
}

impl Rig {
    fn new() -> Self {
        let (engine, buffer) = (engine(), Arc::new(Buffer::default()));
        let cursors = Arc::new(Cursors::default());
        let followers = Followers::new(Arc::clone(&engine), Arc::clone(&buffer), cursors);
        let mut rig = Self { engine, buffer, followers };
        rig.report(true);
        rig
    }

    /// Reports that the container is there, or not.
    fn report(&mut self, is_there: bool) {
        let there = BTreeMap::from([(container(), followed(LogLevel::All))]);
        self.followers.update(if is_there { there } else { BTreeMap::new() });
    }

    async fn pass(&mut self, seconds: u64) {
        let all = async {
            loop {
                self.followers.step().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(seconds), all).await;
    }

    fn opened(&self) -> usize {
        self.engine.logs_opened(&container())
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_ended_is_opened_again_where_it_was_left() {
    let mut rig = Rig::new();
    write(&rig.engine, 5, "a");
    rig.pass(1).await;
    rig.engine.end_log(&container());
    write(&rig.engine, 6, "b");
    rig.pass(10).await;
    assert_eq!((texts(&rig.buffer).join(" ").as_str(), rig.opened()), ("a b", 2));
}

#[tokio::test(start_paused = true)]
async fn the_delay_grows_with_each_end_and_a_log_that_stays_open_ends_that() {
    let mut rig = Rig::new();
    rig.pass(1).await;
    for delay in [1, 2, 4, 8] {
        let before = rig.opened();
        rig.engine.end_log(&container());
        rig.pass(delay - 1).await;
        assert_eq!(rig.opened(), before, "before {delay} s");
        rig.pass(2).await;
        assert_eq!(rig.opened(), before + 1, "after {delay} s");
    }
    rig.pass(70).await;
    let before = rig.opened();
    rig.engine.end_log(&container());
    rig.pass(2).await;
    assert_eq!(rig.opened(), before + 1, "as at the first time");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_read_is_not_opened_again() {
    let mut rig = Rig::new();
    rig.engine.make_log_unreadable(&container());
    rig.pass(600).await;
    assert_eq!(rig.opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_reported_again_is_followed_on() {
    let mut rig = Rig::new();
    rig.pass(1).await;
    rig.report(false);
    rig.pass(20).await;
    rig.report(true);
    rig.pass(60).await;
    write(&rig.engine, 5, "a");
    rig.pass(1).await;
    assert_eq!(texts(&rig.buffer).join(" "), "a");
    rig.report(false);
    rig.pass(60).await;
    write(&rig.engine, 6, "b");
    rig.pass(1).await;
    assert_eq!(texts(&rig.buffer).join(" "), "", "30 s after it has left the report");
}
