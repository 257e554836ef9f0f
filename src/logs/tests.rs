//! Followers on a fake engine, and uploads to a cloud that is silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::buffer::{Buffer, Kept};
use super::choice::{Followed, state};
use super::cursors::Cursors;
use super::follower::Follower;
use super::followers::Followers;
use super::upload::{Times, Upload};
use crate::cloud::Client;
use crate::engine::UNREADABLE;
use crate::engine::fake::Fake;
use crate::http::Http;
use crate::model::{
    AppId, CloudReport, ContainerId, Delivered, DeviceUuid, Instance, LogCursor, LogLevel, LogLine,
    LogMessage, LogState, LogUpload, RefusedApp, Report, ServiceName, ServiceStatus, Target, TargetApp,
};

const SECOND: u64 = 1_000_000_000;

fn engine() -> Fake {
    Fake::new(Instance::parse("logs").unwrap())
}

fn container(name: &str) -> ContainerId {
    ContainerId::parse(name).unwrap()
}

fn app(name: &str) -> AppId {
    AppId::parse(name.repeat(16)).unwrap()
}

fn followed(of: &str) -> Followed {
    Followed {
        app: app(of),
        service: ServiceName::parse("web").unwrap(),
        number: 40,
        level: LogLevel::All,
        phase: (ServiceStatus::Running, None),
    }
}

/// Writes a line at a second.
fn write(engine: &Fake, of: &str, second: u64, text: &str) {
    let line = LogLine { at: second * SECOND, is_stderr: false, text: text.to_owned() };
    engine.write(&container(of), line);
}

/// The texts of the messages that wait.
fn texts(buffer: &Buffer) -> Vec<String> {
    buffer.take().0.into_iter().map(|kept| kept.message.text).collect()
}

fn cursor(second: u64) -> LogCursor {
    LogCursor { at: second * SECOND, seen: 1 }
}

/// The lines that a follower with this cursor reads within some time, at the second 1000.
async fn read(engine: Fake, cursor: Option<LogCursor>, may_skip: bool) -> Vec<String> {
    let buffer = Arc::new(Buffer::default());
    buffer.share_among(1);
    let mut follower = Follower {
        engine: Arc::new(engine),
        container: container("aa"),
        what: followed("ab"),
        buffer: Arc::clone(&buffer),
        cursor,
        may_skip,
        now_ms: || 1_000_000,
    };
    let _endless = timeout(Duration::from_secs(30), follower.run()).await;
    texts(&buffer)
}

#[tokio::test(start_paused = true)]
async fn a_cursor_in_the_future_silences_no_container() {
    for (why, lines, at, expected) in [
        ("the clock is right", &[(990, "a"), (995, "b"), (996, "c")][..], 995, &["c"][..]),
        ("the clock was set back", &[(980, "a"), (5000, "b"), (990, "c"), (991, "d")], 5000, &["c", "d"]),
        ("nothing was written since", &[(980, "a"), (5000, "b")], 5000, &[]),
        ("the line of the cursor is gone", &[(990, "c"), (991, "d")], 5000, &["c", "d"]),
        ("and others of that time are left", &[(4000, "a"), (6000, "b"), (991, "d")], 5000, &["a", "b", "d"]),
    ] {
        let engine = engine();
        lines.iter().for_each(|(second, text)| write(&engine, "aa", *second, text));
        assert_eq!(read(engine, Some(cursor(at)), false).await, expected, "{why}");
    }
    // The last 1,000 lines are read, and the one of the cursor is not among them.
    let engine = engine();
    write(&engine, "aa", 5000, "before");
    (0..1500).for_each(|n| write(&engine, "aa", 900, &n.to_string()));
    let read = read(engine, Some(cursor(5000)), false).await;
    assert_eq!((read.len() > 500, read[0].as_str()), (true, "500"));
}

#[tokio::test(start_paused = true)]
async fn lines_that_are_not_read_again_after_a_silence_are_a_gap() {
    let with = |lines: u32| {
        let engine = engine();
        write(&engine, "aa", 900, "sent");
        (0..lines).for_each(|n| write(&engine, "aa", 901, &n.to_string()));
        engine
    };
    let few = read(with(3), Some(cursor(900)), true).await;
    assert_eq!(few, ["0", "1", "2"]);
    let many = read(with(1500), Some(cursor(900)), true).await;
    assert!(many[0].starts_with("Suppressed") && many[1] == "500", "{:?}", &many[..2]);
}

/// Some engines pass no line that is older than the time with which the log was opened, also while it is followed.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_while_a_log_is_followed_silences_it_for_ten_minutes_at_most() {
    static NOW: AtomicU64 = AtomicU64::new(1_000_000);
    let (engine, buffer) = (Arc::new(engine()), Arc::new(Buffer::default()));
    buffer.share_among(1);
    write(&engine, "aa", 999, "before");
    let mut follower = Follower {
        engine: Arc::clone(&engine),
        container: container("aa"),
        what: followed("ab"),
        buffer: Arc::clone(&buffer),
        cursor: Some(cursor(999)),
        may_skip: false,
        now_ms: || NOW.load(Ordering::Relaxed),
    };
    let mut following = JoinSet::new();
    following.spawn(async move { follower.run().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    NOW.store(500_000, Ordering::Relaxed);
    write(&engine, "aa", 500, "after");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((texts(&buffer), engine.logs_opened(&container("aa"))), (vec![], 1), "as the engine does");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(texts(&buffer), ["after"]);
    // At rest nothing is asked any more.
    let opened = engine.logs_opened(&container("aa"));
    tokio::time::sleep(Duration::from_secs(7200)).await;
    assert_eq!(engine.logs_opened(&container("aa")), opened);
    following.abort_all();
}

/// A target with these apps.
fn target(apps: &[&str]) -> Target {
    Target {
        device_name: String::new(),
        apps: apps
            .iter()
            .map(|name| {
                (
                    app(name),
                    TargetApp::Refused(RefusedApp {
                        name: String::new(),
                        release: String::new(),
                        refusals: Vec::new(),
                    }),
                )
            })
            .collect(),
        poll_interval: None,
        is_lock_overridden: false,
        has_logs: true,
        has_instant_updates: true,
        has_metrics: true,
        has_vpn: true,
        moves_to: None,
        variables: Vec::new(),
        left_alone: Vec::new(),
    }
}

struct Following {
    engine: Arc<Fake>,
    buffer: Arc<Buffer>,
    cursors: Arc<Cursors>,
    followers: Followers<Fake>,
}

impl Following {
    fn new() -> Self {
        let (engine, buffer, cursors) = (Arc::new(engine()), Arc::default(), Arc::default());
        let parts = (Arc::clone(&buffer), Arc::clone(&cursors));
        let followers = Followers::new(Arc::clone(&engine), parts, || 10_000_000);
        Self { engine, buffer, cursors, followers }
    }

    fn update(&mut self, containers: &[(&str, &str)], apps: &[&str]) {
        let wanted = containers.iter().map(|(id, app)| (container(id), followed(app)));
        self.followers.update(wanted.collect::<BTreeMap<_, _>>(), &target(apps));
    }

    async fn steps(&mut self) {
        let steps = async {
            loop {
                self.followers.step().await
            }
        };
        let _endless = timeout(Duration::from_secs(5), steps).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_app_wrote_does_not_reach_the_fleet_to_which_the_device_is_moved() {
    let mut following = Following::new();
    following.update(&[("aa", "ab"), ("bb", "ab")], &["ab"]);
    write(&following.engine, "aa", 1, "secret of the fleet before");
    write(&following.engine, "bb", 1, "another one");
    following.steps().await;
    // A container that a release of the same app replaced is read to its end.
    following.update(&[("bb", "ab")], &["ab"]);
    write(&following.engine, "aa", 2, "its last line");
    following.steps().await;
    assert_eq!(texts(&following.buffer).len(), 3);
    write(&following.engine, "bb", 2, "secret that waits");
    following.steps().await;
    following.buffer.put_own(LogMessage { text: "own".into(), at_ms: 0, service: None, is_stderr: false });
    following.update(&[("cc", "cd")], &["cd"]);
    write(&following.engine, "bb", 3, "secret that is written late");
    write(&following.engine, "cc", 3, "news");
    following.steps().await;
    assert_eq!(texts(&following.buffer), ["own", "news"]);
}

#[tokio::test(start_paused = true)]
async fn logs_are_read_again_from_where_they_were_confirmed() {
    let mut following = Following::new();
    following.update(&[("aa", "ab")], &["ab"]);
    (1..=4).for_each(|n| write(&following.engine, "aa", n, &n.to_string()));
    following.steps().await;
    for (sent, is_confirmed) in [(cursor(2), true), (cursor(4), false)] {
        following.cursors.advance(container("aa"), sent);
        if is_confirmed {
            following.cursors.confirm();
        }
    }
    following.cursors.roll_back();
    following.followers.begin_again();
    following.steps().await;
    write(&following.engine, "aa", 5, "5");
    following.steps().await;
    assert_eq!(texts(&following.buffer), ["3", "4", "5"]);
}

#[tokio::test(start_paused = true)]
async fn lines_that_cannot_be_read_again_are_a_gap() {
    let mut following = Following::new();
    following.update(&[("aa", "ab")], &["ab"]);
    write(&following.engine, "aa", 1, "1");
    following.steps().await;
    following.cursors.advance(container("aa"), cursor(1));
    following.cursors.confirm();
    (0..1500).for_each(|n| write(&following.engine, "aa", 2, &n.to_string()));
    following.followers.begin_again();
    following.steps().await;
    let texts = texts(&following.buffer);
    assert!(texts[0].starts_with("Suppressed") && texts[1] == "500", "{:?}", &texts[..2]);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_the_engine_refuses_is_opened_only_so_often() {
    for (message, opened) in [(UNREADABLE, 1), ("the engine starts", 6)] {
        let mut following = Following::new();
        following.engine.refuse_log(&container("aa"), message);
        following.update(&[("aa", "ab")], &["ab"]);
        for _ in 0..200 {
            following.steps().await;
        }
        assert_eq!(following.engine.logs_opened(&container("aa")), opened, "{message}");
    }
}

const TIMES: Times = Times {
    grace: Duration::ZERO,
    gap: Duration::from_millis(5),
    idle: Duration::from_millis(100),
    renewal: Duration::from_secs(60),
    confirmation: Duration::from_millis(300),
    delays: (Duration::from_millis(20), Duration::from_millis(100)),
    proven: Duration::from_secs(30),
};

/// An upload with three lines of a container, and an own message, to a cloud at this address.
fn upload(listener: &TcpListener, times: Times) -> Upload {
    let report = watch::Sender::new(CloudReport::default());
    let buffer = Arc::new(Buffer::reporting_to(report.clone()));
    buffer.share_among(1);
    for n in 1..=3 {
        let message = LogMessage { text: n.to_string(), at_ms: n, service: Some(40), is_stderr: false };
        buffer.put(Kept { message, of: Some((container("aa"), cursor(n))) }).unwrap();
    }
    buffer.put_own(LogMessage { text: "own".into(), at_ms: 4, service: None, is_stderr: false });
    let url = format!("http://{}", listener.local_addr().unwrap());
    Upload {
        client: Client::new(Http::new().unwrap(), &url, Duration::from_secs(5)),
        uuid: DeviceUuid::parse("ab".repeat(16)).unwrap(),
        device_key: "key".to_owned(),
        times,
        buffer,
        cursors: Arc::default(),
        rewind: Arc::default(),
        report,
        now_ms: || 7,
    }
}

/// Reads a request to its end, and confirms it.
async fn confirm(stream: &mut TcpStream) {
    let (mut body, mut piece) = (Vec::new(), vec![0; 4096]);
    while !body.ends_with(b"\r\n0\r\n\r\n") {
        let n = stream.read(&mut piece).await.unwrap();
        assert!(n > 0, "the stream is complete");
        body.extend_from_slice(&piece[..n]);
    }
    stream
        .write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
}

#[tokio::test]
async fn what_a_silent_cloud_has_not_confirmed_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upload = upload(&listener, TIMES);
    let (cursors, rewind, buffer) =
        (Arc::clone(&upload.cursors), Arc::clone(&upload.rewind), Arc::clone(&upload.buffer));
    let (report, stop) = (upload.report.subscribe(), CancellationToken::new());
    let mut uploading = JoinSet::new();
    uploading.spawn({
        let stop = stop.clone();
        async move { upload.run(&stop).await }
    });
    // It accepts, and never reads.
    let _silent = listener.accept().await.unwrap();
    timeout(Duration::from_secs(10), rewind.requested()).await.expect("the logs are read again");
    assert_eq!((cursors.get(&container("aa")), cursors.take_changed()), (None, None));
    let error = report.borrow().log_error.clone();
    assert!(error.is_some_and(|error| error.contains("cannot be reached")), "the status says so");
    let message = LogMessage { text: "1".into(), at_ms: 1, service: Some(40), is_stderr: false };
    buffer.put(Kept { message, of: Some((container("aa"), cursor(3))) }).unwrap();
    rewind.done();
    let (mut stream, _) = listener.accept().await.unwrap();
    confirm(&mut stream).await;
    let confirmed = async {
        while cursors.take_changed().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), confirmed).await.expect("it is confirmed");
    assert_eq!(cursors.get(&container("aa")), Some(cursor(3)));
    let (counts, error) = (report.borrow().logs, report.borrow().log_error.clone());
    assert_eq!((counts.repeated, counts.uncertain, counts.failures, error), (3, 0, 1, None));
    // Three lines and a message, and then the line and that message once more.
    assert_eq!((counts.lines, counts.waiting), (4 + 2, 0));
    stop.cancel();
    timeout(Duration::from_secs(5), uploading.join_all()).await.expect("it stops");
}

#[tokio::test]
async fn what_was_sent_before_a_connection_broke_is_not_sent_twice_and_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upload = upload(&listener, Times { idle: Duration::from_secs(60), ..TIMES });
    let (cursors, buffer) = (Arc::clone(&upload.cursors), Arc::clone(&upload.buffer));
    let (mut report, stop) = (upload.report.subscribe(), CancellationToken::new());
    let mut uploading = JoinSet::new();
    uploading.spawn({
        let stop = stop.clone();
        async move { upload.run(&stop).await }
    });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut piece = [0; 8192];
    while buffer.waiting() > 0 {
        let _n = stream.read(&mut piece).await.unwrap();
    }
    stream.write_all(b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.unwrap();
    drop(stream);
    timeout(Duration::from_secs(10), report.wait_for(|report| report.logs.failures == 1))
        .await
        .unwrap()
        .unwrap();
    let counts = report.borrow().logs;
    assert_eq!((counts.uncertain, counts.repeated), (3, 0));
    assert_eq!((cursors.get(&container("aa")), cursors.take_changed().is_some()), (Some(cursor(3)), true));
    // The cloud gets to know it.
    let (mut stream, _) = listener.accept().await.unwrap();
    while report.borrow().logs.lines < 5 {
        let _n = stream.read(&mut piece).await.unwrap();
    }
    stop.cancel();
    let stopped = async { tokio::join!(confirm(&mut stream), uploading.join_all()) };
    timeout(Duration::from_secs(5), stopped).await.expect("it stops");
    assert_eq!(report.borrow().logs.lines, 4 + 1, "a message says that lines may be missing");
}

#[test]
fn the_state_says_why_nothing_is_uploaded() {
    let with = |has_logs| Report {
        delivered: Some(Arc::new(Delivered {
            target: Arc::new(Target { has_logs, ..target(&[]) }),
            record: None,
            etag: None,
        })),
        ..Report::default()
    };
    let cloud = |wants_logs| CloudReport { wants_logs, ..CloudReport::default() };
    let none = Report::default();
    for (upload, is_metered, report, cloud, expected) in [
        (LogUpload::Auto, false, &with(true), cloud(Some(true)), LogState::On),
        (LogUpload::Auto, true, &with(true), cloud(Some(true)), LogState::OffOnMeteredLink),
        (LogUpload::On, true, &with(true), cloud(Some(true)), LogState::On),
        (LogUpload::Off, false, &with(true), cloud(Some(true)), LogState::OffBySetting),
        (LogUpload::On, false, &with(false), cloud(Some(true)), LogState::OffByVariable),
        (LogUpload::On, false, &with(true), cloud(Some(false)), LogState::NotWanted),
        (LogUpload::On, false, &with(true), cloud(None), LogState::Unknown),
        (LogUpload::On, false, &none, cloud(Some(true)), LogState::Unknown),
    ] {
        assert_eq!(state(upload, is_metered, report, &cloud), expected, "{upload:?} {is_metered}");
    }
}
