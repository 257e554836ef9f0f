//! Polls of a cloud that does not have this device any more.

use super::*;
use crate::http::Http;
use crate::http::sample::{Server, answer};

const KEY: &str = "hunter2";

/// Polls twice, the second time because an operator asks, and returns what is then known of the cloud.
async fn polled_twice(server: &Server) -> CloudReport {
    let (target, report) = (watch::Sender::new(None), watch::Sender::new(CloudReport::default()));
    let mut seen = report.subscribe();
    let (poll_now, stop) = (Arc::new(Notify::new()), CancellationToken::new());
    let start = Start {
        uuid: DeviceUuid::parse("0".repeat(32)).unwrap(),
        device_key: KEY.to_owned(),
        policy: Policy::default(),
        etag: Some("\"1\"".to_owned()),
        interval: Duration::from_secs(3600),
        wanted_interval: None,
    };
    let times = Times { time_in: |_| String::new(), uptime: || Duration::ZERO };
    let poller = Poller::new(
        Client::new(Http::new().unwrap(), &server.url(""), Duration::from_secs(30)),
        start,
        target,
        report,
        times,
        Arc::clone(&poll_now),
    );
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
