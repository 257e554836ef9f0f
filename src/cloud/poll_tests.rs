//! Polls of a cloud that does not have this device any more, and of one that lets polls wait.

use super::*;
use crate::http::Http;
use crate::http::sample::{Server, answer};

const KEY: &str = "hunter2";

/// A poller, what it knows of the cloud, and how it is asked to poll and to stop.
struct Polling {
    poller: Poller,
    seen: watch::Receiver<CloudReport>,
    poll_now: Arc<Notify>,
    stop: CancellationToken,
}

fn polling(server: &Server, wait: Duration) -> Polling {
    let (target, report) = (watch::Sender::new(None), watch::Sender::new(CloudReport::default()));
    let seen = report.subscribe();
    let (poll_now, stop) = (Arc::new(Notify::new()), CancellationToken::new());
    let start = Start {
        uuid: DeviceUuid::parse("0".repeat(32)).unwrap(),
        device_key: KEY.to_owned(),
        policy: Policy::default(),
        etag: Some("\"1\"".to_owned()),
        interval: Duration::from_secs(3600),
        wanted_interval: None,
        wait,
        apps: crate::model::LocalApps::new(),
    };
    let times = Times { time_in: |wait| format!("in {} s", wait.as_secs()), uptime: || Duration::ZERO };
    let client = Client::new(Http::new().unwrap(), &server.url(""), Duration::from_secs(59));
    let poller = Poller::new(client, start, target, report, times, Arc::clone(&poll_now));
    Polling { poller, seen, poll_now, stop }
}

/// Polls twice, the second time because an operator asks, and returns what is then known of the cloud.
async fn polled_twice(server: &Server) -> CloudReport {
    let Polling { poller, mut seen, poll_now, stop } = polling(server, Duration::ZERO);
    let both = async {
        for count in 1..=2 {
            seen.wait_for(|report| report.polls.done + report.polls.failed == count).await.unwrap();
            poll_now.notify_one();
        }
        stop.cancel();
    };
    tokio::join!(poller.run(stop.clone()), both);
    seen.borrow().clone()
}

/// The wait that each request asked for.
fn waits(server: &Server) -> Vec<Option<String>> {
    let wait = |request: &String| {
        let line = request.split("prefer: ").nth(1)?;
        Some(line.chars().take_while(|c| !c.is_whitespace() && *c != '|').collect())
    };
    server.requests().iter().map(wait).collect()
}

const HONOURED: [&str; 2] = ["ETag: \"1\"", "Preference-Applied: wait=50"];

fn unchanged(headers: &[&str]) -> crate::http::sample::Say {
    let headers: Vec<_> = headers.iter().map(|header| (*header).to_owned()).collect();
    answer("304 Not Modified", &headers, b"")
}

/// The interval is an hour, so the second poll is one that follows a wait.
#[tokio::test]
async fn one_wait_follows_the_other_where_the_cloud_honours_it() {
    let server = Server::start(|_| unchanged(&HONOURED));
    let Polling { poller, mut seen, stop, .. } = polling(&server, Duration::from_secs(50));
    let both = async {
        seen.wait_for(|report| report.polls.done == 2).await.unwrap();
        stop.cancel();
    };
    tokio::join!(poller.run(stop.clone()), both);
    assert_eq!(waits(&server)[..2], [Some("wait=1".to_owned()), Some("wait=50".to_owned())]);
    let next = seen.borrow().next_poll.clone().unwrap();
    assert!(
        ["in 50 s", "in 51 s", "in 52 s"].contains(&next.as_str()),
        "the wait of the next one counts: {next}"
    );
}

/// All answers come at once. The first three are followed by 0, 1 and 3 s, and the fourth poll is an operator's.
#[tokio::test]
async fn a_pause_is_reported_with_its_reason_and_the_time_of_the_next_poll() {
    let server = Server::start(|_| unchanged(&HONOURED));
    let Polling { poller, mut seen, stop, .. } = polling(&server, Duration::from_secs(50));
    let both = async {
        let paused = seen.wait_for(|report| report.pause.is_some()).await.unwrap().clone();
        let next = seen.wait_for(|report| report.pause.is_none()).await.unwrap().clone();
        stop.cancel();
        (paused, next)
    };
    let ((), (paused, next)) = tokio::join!(poller.run(stop.clone()), both);
    let shown = paused.next_poll.unwrap();
    assert!(
        ["in 3 s", "in 4 s"].contains(&shown.as_str()),
        "the wait after the pause does not count: {shown}"
    );
    assert_eq!(paused.pause.unwrap(), "the cloud ended the last waits early, and without a new target");
    assert_eq!(next.next_poll.unwrap(), "in 50 s", "it waits now");
}

#[tokio::test]
async fn a_cloud_that_does_not_wait_is_polled_at_the_interval() {
    let server = Server::start(|_| unchanged(&HONOURED[..1]));
    let Polling { poller, mut seen, stop, .. } = polling(&server, Duration::from_secs(50));
    let both = async {
        seen.wait_for(|report| report.polls.done == 1).await.unwrap();
        stop.cancel();
    };
    tokio::join!(poller.run(stop.clone()), both);
    let next: u64 = seen.borrow().next_poll.clone().unwrap()[3..7].parse().unwrap();
    assert!((3600..=3960).contains(&next), "{next}");
}

#[tokio::test]
async fn an_operator_ends_a_wait() {
    let server = Server::start(|request| {
        if request.contains("prefer: ") {
            std::thread::sleep(Duration::from_secs(40));
        }
        unchanged(&HONOURED[..1])
    });
    let Polling { poller, mut seen, poll_now, stop } = polling(&server, Duration::from_secs(50));
    let both = async {
        while server.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        poll_now.notify_one();
        seen.wait_for(|report| report.polls.done == 1).await.unwrap();
        stop.cancel();
    };
    tokio::join!(poller.run(stop.clone()), both);
    assert_eq!(waits(&server), [Some("wait=1".to_owned()), None]);
}

/// A proxy closes the connection of the second poll while it waits.
#[tokio::test]
async fn a_wait_that_was_cut_off_is_no_failure() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |_| {
        if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 1 {
            std::thread::sleep(Duration::from_millis(5200));
            return crate::http::sample::Say::Whole(Vec::new());
        }
        unchanged(&HONOURED)
    });
    let Polling { poller, mut seen, stop, .. } = polling(&server, Duration::from_secs(50));
    let both = async {
        seen.wait_for(|report| report.polls.done == 3).await.unwrap();
        stop.cancel();
    };
    tokio::join!(poller.run(stop.clone()), both);
    let report = seen.borrow().clone();
    assert_eq!((report.polls.failed, report.failures, report.error), (0, 0, None));
    let (first, wait, none) = (Some("wait=1".to_owned()), Some("wait=50".to_owned()), None);
    assert_eq!(waits(&server)[..4], [first, wait.clone(), none, wait]);
}

#[tokio::test]
async fn a_device_that_was_deleted_is_known_by_an_answer_without_an_etag_and_a_look_up() {
    for (why, etag, found, is_deleted, look_ups) in [
        ("the cloud has no such device", &[][..], ("200 OK", &br#"{"d":[]}"#[..]), true, 1),
        ("the key was deleted with it", &[], ("401 Who", &b""[..]), true, 1),
        ("it has the device", &[], ("200 OK", &br#"{"d":[{"id":7}]}"#[..]), false, 1),
        ("it does not say", &[], ("503 Busy", &b""[..]), false, 2),
        ("an ordinary answer", &["ETag: \"1\""], ("401 Who", &b""[..]), false, 0),
    ] {
        let headers: Vec<_> = etag.iter().map(|header| (*header).to_owned()).collect();
        let server = Server::start(move |request| match request.contains("/v7/device") {
            true => answer(found.0, &[], found.1),
            false => answer("304 Not Modified", &headers, b""),
        });
        let report = polled_twice(&server).await;
        assert_eq!(report.is_deleted, is_deleted, "{why}: {report:?}");
        assert_eq!(report.error.is_some(), is_deleted, "{why}");
        let asked = server.requests().iter().filter(|request| request.contains("/v7/device")).count();
        assert_eq!(asked, look_ups, "{why}");
    }
}

/// The cloud may say how new its records were that the unchanged target was made of.
#[tokio::test]
async fn the_position_in_the_etag_of_an_unchanged_target_is_kept() {
    let server = Server::start(|_| unchanged(&HONOURED));
    let Polling { mut poller, .. } = polling(&server, Duration::ZERO);
    for (had, sent, has) in [
        ("W/\"1f-00ff.7\"", Some("W/\"1f-00ff.9\""), "W/\"1f-00ff.9\""),
        ("W/\"1f-00ff.7\"", Some("W/\"1f-00fe.9\""), "W/\"1f-00ff.7\""),
        ("W/\"1f-00ff.7\"", Some("W/\"1f-00ff\""), "W/\"1f-00ff.7\""),
        ("W/\"1f-00ff.7\"", None, "W/\"1f-00ff.7\""),
        ("\"1\"", Some("\"2\""), "\"1\""),
    ] {
        poller.start.etag = Some(had.to_owned());
        poller.follow(sent.map(str::to_owned));
        assert_eq!(poller.start.etag.as_deref(), Some(has), "{had} {sent:?}");
    }
}

#[tokio::test]
async fn after_an_ordinary_answer_a_deletion_is_asked_about_anew() {
    let is_here = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let now = Arc::clone(&is_here);
    let server = Server::start(move |_| match now.load(std::sync::atomic::Ordering::Relaxed) {
        true => answer("200 OK", &[], br#"{"d":[{"id":7}]}"#),
        false => answer("200 OK", &[], br#"{"d":[]}"#),
    });
    let Polling { mut poller, .. } = polling(&server, Duration::ZERO);
    let unchanged = |etag: Option<&str>| {
        let state = State::Unchanged { etag: etag.map(str::to_owned) };
        Ok(Polled { state, is_honoured: false, wants_logs: false })
    };
    assert!(matches!(poller.confirmed(unchanged(None)).await, Err(CloudError::Unknown { .. })));
    is_here.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(poller.confirmed(unchanged(None)).await.is_err(), "it is asked once an hour at most");
    assert!(poller.confirmed(unchanged(Some("\"1\""))).await.is_ok(), "it knows the device");
    assert!(poller.confirmed(unchanged(None)).await.is_ok(), "and this doubt is another one");
}

#[tokio::test]
async fn a_deletion_is_remembered_while_the_cloud_cannot_be_reached() {
    let server = Server::start(|_| unchanged(&HONOURED));
    let Polling { poller, seen, .. } = polling(&server, Duration::ZERO);
    let endpoint = || server.url("");
    let busy = || {
        let (request, message) = ("poll", String::new());
        CloudError::Refused { endpoint: endpoint(), request, status: 503, message, retry_after: None }
    };
    let lost = || CloudError::Unreachable { endpoint: endpoint(), why: crate::http::Failure::Late };
    for (error, is_deleted) in [
        (lost(), false),
        (CloudError::Unknown { endpoint: endpoint() }, true),
        (lost(), true),
        (busy(), false),
        (lost(), false),
    ] {
        poller.report_failure(&error, 1, Duration::ZERO);
        assert_eq!(seen.borrow().is_deleted, is_deleted, "{error}");
    }
}

#[tokio::test]
async fn a_cloud_that_lets_polls_wait_is_tried_again_soon() {
    let server = Server::start(|_| unchanged(&HONOURED));
    let Polling { mut poller, .. } = polling(&server, Duration::from_secs(50));
    assert_eq!(poller.longest_retry(), Duration::from_secs(3600));
    let asked = poller.parking.ask();
    let _next = poller.parking.answered(asked, true, Duration::from_secs(1), false);
    assert_eq!(poller.longest_retry(), RETURN_WITHIN);
    poller.start.wanted_interval = Some(Duration::from_secs(30));
    assert_eq!(poller.longest_retry(), Duration::from_secs(30), "the interval is shorter");
}

#[tokio::test]
async fn the_same_target_that_is_sent_again_is_not_new() {
    let server = Server::start(|_| unchanged(&HONOURED));
    let Polling { mut poller, .. } = polling(&server, Duration::ZERO);
    let body = format!(r#"{{"{}":{{"name":"a","apps":{{}}}}}}"#, "0".repeat(32)).into_bytes();
    for (why, etag, is_new) in [
        ("the one in force", Some("\"1\""), false),
        ("another one", Some("\"2\""), true),
        ("sent again", Some("\"2\""), false),
        ("without an etag nothing is known", None, false),
    ] {
        let state = State::Changed { etag: etag.map(str::to_owned), body: body.clone() };
        assert_eq!(poller.take(state), is_new, "{why}");
    }
    assert_eq!(poller.refused, None);
}

#[test]
fn only_what_a_proxy_says_about_time_may_be_a_cut() {
    let of_status = |status: u16| CloudError::Refused {
        endpoint: String::new(),
        request: "poll",
        status,
        message: String::new(),
        retry_after: None,
    };
    for (status, expected) in
        [(408, true), (429, false), (500, false), (502, true), (503, false), (504, true)]
    {
        assert_eq!(of_status(status).may_be_cut(), expected, "{status}");
    }
}
