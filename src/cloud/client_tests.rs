//! Against malicious clouds.

use super::*;
use crate::http::sample::{ENDLESS, Say, Server, answer, bomb, endless_head, redirect};
use crate::model::DeviceUuid;

const KEY: &str = "hunter2";

fn uuid() -> DeviceUuid {
    DeviceUuid::parse("0".repeat(32)).unwrap()
}

fn registration(uuid: &DeviceUuid) -> Registration<'_> {
    const TAGS: &BTreeMap<String, String> = &BTreeMap::new();
    let fleet = &FleetRef::Number(1);
    Registration { fleet, device_type: "pi", device_name: None, tags: TAGS, uuid, device_key: KEY }
}

fn client(server: &Server, timeout: Duration) -> Client {
    Client::new(Http::new().unwrap(), &server.url(""), timeout)
}

/// The result of each call to a cloud, with its name.
async fn all_calls(server: &Server, timeout: Duration) -> Vec<(&'static str, CloudError)> {
    let (client, uuid) = (client(server, timeout), uuid());
    let device = registration(&uuid);
    let registered = Some(crate::model::Registration { endpoint: server.url(""), device_id: None });
    let known = Identity {
        uuid: uuid.clone(),
        device_key: KEY.to_owned(),
        registered,
        moves: crate::model::Moves::default(),
    };
    vec![
        ("registration", client.register(device, "provisioning").await.unwrap_err()),
        ("look-up of the device", client.find(&uuid, KEY).await.unwrap_err()),
        ("poll", client.state(&uuid, KEY, Some("\"1\""), None).await.unwrap_err()),
        ("poll", client.probe(Some(&known)).await.unwrap_err()),
        ("report", client.report(&uuid, KEY, &DeviceReport::default()).await.unwrap_err()),
    ]
}

#[tokio::test]
async fn an_error_answer_is_read_up_to_a_limit() {
    let gzip = || vec!["Content-Encoding: gzip".to_owned()];
    for (why, server) in [
        ("endless", Server::start(|_| Say::Endless(endless_head("500 Oh", &[]), vec![b'x'; 0x4000]))),
        ("a bomb", Server::start(move |_| answer("502 Oh", &gzip(), &bomb(32 << 20)))),
        ("one long line", Server::start(|_| answer("500 Oh", &[], &[b'x'; 100_000]))),
    ] {
        for (call, error) in all_calls(&server, Duration::from_secs(30)).await {
            let CloudError::Refused { request, message, .. } = error else { panic!("{why}: {error}") };
            assert_eq!(request, call);
            assert!(message.len() <= 200, "{why}: {}", message.len());
        }
        assert!(server.sent() < ENDLESS, "{why}: bytes beyond the limit are not read");
    }
}

#[tokio::test]
async fn a_good_answer_is_read_up_to_a_limit() {
    let server = Server::start(|request| {
        let status = if request.starts_with("POST") { "201 Made" } else { "200 OK" };
        Say::Endless(endless_head(status, &[]), vec![b' '; 0x4000])
    });
    let (client, uuid) = (client(&server, Duration::from_secs(30)), uuid());
    let device = registration(&uuid);
    let url = server.url("");
    let expected = |request: &str, status: u16, most: usize| {
        format!(
            "cloud {url} answered {request} with status {status}: its answer has more than {most} bytes and is not read"
        )
    };
    let registration = client.register(device, "provisioning").await.unwrap_err();
    assert_eq!(registration.to_string(), expected("registration", 201, 65536));
    let found = client.find(&uuid, KEY).await.unwrap_err();
    assert_eq!(found.to_string(), expected("look-up of the device", 200, 65536));
    let target = client.state(&uuid, KEY, None, None).await.unwrap_err();
    assert_eq!(target.to_string(), expected("poll", 200, 8_388_608));
    assert!(server.sent() < ENDLESS, "bytes beyond the limit are not read");
}

#[tokio::test]
async fn a_slow_body_ends_with_the_deadline_of_the_request() {
    let timeout = Duration::from_millis(300);
    let server = Server::start(|request| {
        let status = if request.starts_with("POST") { "201 Made" } else { "200 OK" };
        Say::Drip(endless_head(status, &[]), b" ".to_vec())
    });
    let (client, uuid) = (client(&server, timeout), uuid());
    let device = registration(&uuid);
    for error in [
        client.register(device, "provisioning").await.map(drop).unwrap_err(),
        client.find(&uuid, KEY).await.map(drop).unwrap_err(),
        client.state(&uuid, KEY, None, None).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(
            error.to_string(),
            format!("cloud {} cannot be reached: no answer in time", server.url(""))
        );
    }
    // Of the body of an error, the part that arrived is kept.
    let slow = Server::start(|_| Say::Drip(endless_head("500 Oh", &[]), b"x".to_vec()));
    for (_, error) in all_calls(&slow, timeout).await {
        let CloudError::Refused { status: 500, message, .. } = &error else { panic!("{error}") };
        assert!(message.starts_with('x'), "{error}");
    }
}

#[tokio::test]
async fn no_call_is_redirected_to_another_server() {
    let other = Server::start(|_| answer("200 OK", &[], br#"{"id":1,"d":[{"id":1}]}"#));
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = other.url("/x");
        let server = Server::start(move |_| redirect(status, &elsewhere));
        for (call, error) in all_calls(&server, Duration::from_secs(30)).await {
            let CloudError::Redirected { request, .. } = &error else { panic!("{status} {call}: {error}") };
            assert_eq!(*request, call);
            let text = error.to_string();
            let (of, to) = (server.url(""), other.url(""));
            assert!(
                text.starts_with(&format!(
                    "cloud {of} does not answer {call} itself: it redirects to {to}, "
                ))
            );
            assert!(text.contains("set cloud.endpoint to its new address"), "{text}");
        }
    }
    assert_eq!(other.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_poll_follows_redirects_within_its_server_and_a_changing_request_does_not() {
    let server = Server::start(|request| match request.split(' ').nth(1).unwrap() {
        "/moved" => answer("200 OK", &["ETag: \"2\"".to_owned()], b"{}"),
        _ => redirect(307, "/moved"),
    });
    let polled = client(&server, Duration::from_secs(30)).state(&uuid(), KEY, None, None).await.unwrap();
    assert_eq!(polled.state, State::Changed { etag: Some("\"2\"".to_owned()), body: b"{}".to_vec() });
    let report =
        client(&server, Duration::from_secs(30)).report(&uuid(), KEY, &DeviceReport::default()).await;
    let error = report.unwrap_err().to_string();
    assert!(error.contains("a request that changes something is not sent a second time"), "{error}");
}

#[tokio::test]
async fn an_etag_that_is_too_long_is_not_kept() {
    let long = format!("\"{}\"", "x".repeat(2000));
    let server = Server::start(move |_| answer("200 OK", &[format!("ETag: {long}")], b"{}"));
    let polled = client(&server, Duration::from_secs(30)).state(&uuid(), KEY, None, None).await.unwrap();
    assert_eq!(polled.state, State::Changed { etag: None, body: b"{}".to_vec() });
}

#[tokio::test]
async fn the_retry_after_of_a_busy_cloud_may_be_seconds_or_a_date() {
    let date = ["Date: Wed, 25 Nov 2026 08:00:00 GMT", "Retry-After: Wed, 25 Nov 2026 08:02:00 GMT"];
    for (headers, after) in [(&["Retry-After: 7"][..], Some(7)), (&date, Some(120)), (&[], None)] {
        let headers: Vec<_> = headers.iter().map(|header| (*header).to_owned()).collect();
        let server = Server::start(move |_| answer("503 Busy", &headers, b"later\x1b[2J\r\nmore"));
        let busy =
            client(&server, Duration::from_secs(30)).state(&uuid(), KEY, None, None).await.unwrap_err();
        assert_eq!(busy.retry_after(), after.map(Duration::from_secs));
        let CloudError::Refused { message, .. } = busy else { panic!("{busy}") };
        assert_eq!(message, "later[2J");
    }
}

#[tokio::test]
async fn a_provisioning_key_that_was_corrected_is_used_without_a_restart() {
    let server = Server::start(|request| match request.contains("Bearer right") {
        true => answer("201 Made", &[], br#"{"id":7}"#),
        false => answer("401 Who", &[], b"no such key"),
    });
    let (client, uuid) = (client(&server, Duration::from_secs(30)), uuid());
    let device = registration(&uuid);
    let (key, hurry) = (std::cell::RefCell::new("wrong"), tokio::sync::Notify::new());
    let correct = |_: &CloudError, _, _| {
        *key.borrow_mut() = "right";
        hurry.notify_one();
    };
    let read = || Some((*key.borrow()).to_owned());
    let stop = tokio_util::sync::CancellationToken::new();
    let registered = crate::cloud::register(&client, device, read, correct, &hurry, &stop).await;
    assert_eq!(registered.unwrap().device_id, Some(7));
    assert_eq!(server.requests().len(), 2);
}

/// Asks a cloud that says `head` and `body` to every request whether the device may register in a fleet with a name.
async fn may_register(head: &'static str, header: &[&str], body: &str) -> Result<Option<Admitted>, String> {
    let (header, body): (Vec<_>, _) = (header.iter().map(ToString::to_string).collect(), body.to_owned());
    let server = Server::start(move |_| answer(head, &header, body.as_bytes()));
    let (client, fleet) = (client(&server, Duration::from_secs(30)), FleetRef::Name("greenhouse".to_owned()));
    let said = client.may_register(&fleet, KEY).await;
    said.map_err(|error| error.to_string().replace(&server.url(""), "URL"))
}

#[tokio::test]
async fn what_a_cloud_says_of_a_fleet_is_bounded_and_a_portal_is_no_cloud() {
    const OURS: &[&str] = &["Cotter-Takes: names"];
    let long =
        format!(r#"{{"number":1,"name":"\u001b[2Ja{}","target":"{}"}}"#, "b".repeat(9000), "c".repeat(900));
    let found = may_register("200 OK", OURS, &long).await.unwrap().unwrap();
    assert_eq!(found.name, format!("[2Ja{}", "b".repeat(251)));
    assert_eq!(found.target.unwrap().len(), 64);
    let silent = may_register("404 No", OURS, r#"{"error":"\u001b"}"#).await.unwrap_err();
    assert_eq!(silent, "cloud URL does not register this device: it refuses, and does not say why");
    assert_eq!(may_register("404 No", &[], "there is no such route").await, Ok(None), "another cloud");
    let portal = may_register("200 OK", &[], "<html>Please log in</html>").await.unwrap_err();
    assert!(portal.contains("with status 200: no cloud answers so"), "{portal}");
    // It takes a registration without a device, too, which no cloud does.
    let portal = Server::start(|_| answer("200 OK", &[], b"<html>Please log in</html>"));
    let error = client(&portal, Duration::from_secs(30)).try_key(KEY).await.unwrap_err().to_string();
    assert!(error.contains("answered registration with status 200: no cloud answers so"), "{error}");
}

#[tokio::test]
async fn an_answer_to_a_log_stream_has_a_deadline_and_its_wait_can_be_repeated() {
    let slow = Server::start(|_| Say::Drip(endless_head("500 Oh", &[]), b"x".to_vec()));
    let mut stream = client(&slow, Duration::from_secs(30)).stream_logs(&uuid(), KEY);
    // The uploader gives the wait up when it has something to send.
    assert!(tokio::time::timeout(Duration::from_millis(500), stream.ended()).await.is_err());
    let error = tokio::time::timeout(Duration::from_secs(20), stream.ended()).await.unwrap();
    assert_eq!(error.to_string(), format!("cloud {} cannot be reached: no answer in time", slow.url("")));
}
