//! Against servers that want to hurt whoever asks them.

use std::time::Duration;

use super::sample::{ENDLESS, Say, Server, answer, bomb, endless_head, redirect};
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
/// Shorter than any of the bodies that drip.
const SHORT: Duration = Duration::from_millis(300);
const MOST: usize = 100_000;

fn get(url: String, within: Duration) -> Request {
    Request::new(Method::GET, url, within).bearer("hunter2")
}

async fn sent(request: Request) -> Result<Answer, Failure> {
    Http::new().unwrap().send(request).await
}

/// An endless body in chunks.
fn chunks(status: &str, more: &[String]) -> Say {
    let chunked: Vec<_> =
        ["Transfer-Encoding: chunked".to_owned()].into_iter().chain(more.to_vec()).collect();
    let piece = [b"4000\r\n".to_vec(), vec![b'x'; 0x4000], b"\r\n".to_vec()].concat();
    Say::Endless(endless_head(status, &chunked), piece)
}

#[tokio::test]
async fn a_body_is_read_up_to_its_bound_and_no_further() {
    let server = Server::start(|request| match request.split(' ').nth(1).unwrap() {
        "/plain" => Say::Endless(endless_head("200 OK", &[]), vec![b'x'; 0x4000]),
        "/chunked" => chunks("200 OK", &[]),
        "/exact" => answer("200 OK", &[], &[b'x'; MOST]),
        "/gzip" => answer("200 OK", &["Content-Encoding: gzip".to_owned()], &bomb(64 << 20)),
        other => panic!("{other}"),
    });
    for path in ["/plain", "/chunked", "/gzip"] {
        let body = sent(get(server.url(path), PATIENCE)).await.unwrap().body(MOST).await;
        assert!(matches!(body, Err(Failure::TooLong(MOST))), "{path}: {body:?}");
    }
    let body = sent(get(server.url("/exact"), PATIENCE)).await.unwrap().body(MOST).await;
    assert_eq!(body.unwrap().len(), MOST);
    assert!(server.sent() < ENDLESS, "bytes beyond the limit are not read");
}

#[tokio::test]
async fn of_an_answer_that_tells_an_error_the_beginning_is_read() {
    let server = Server::start(|request| match request.split(' ').nth(1).unwrap() {
        "/plain" => Say::Endless(endless_head("500 Oh", &[]), vec![b'x'; 0x4000]),
        "/chunked" => chunks("500 Oh", &[]),
        "/gzip" => answer("502 Oh", &["Content-Encoding: gzip".to_owned()], &bomb(64 << 20)),
        "/short" => answer("500 Oh", &[], b"no disk"),
        "/broken" => answer("500 Oh", &["Content-Encoding: gzip".to_owned()], b"no gzip"),
        other => panic!("{other}"),
    });
    for (path, length) in
        [("/plain", 4096), ("/chunked", 4096), ("/gzip", 4096), ("/short", 7), ("/broken", 0)]
    {
        let beginning = sent(get(server.url(path), PATIENCE)).await.unwrap().beginning().await;
        assert_eq!(beginning.len(), length, "{path}");
    }
    assert!(server.sent() < ENDLESS, "bytes beyond the limit are not read");
}

#[tokio::test]
async fn the_deadline_holds_for_a_body_that_drips() {
    let server = Server::start(|request| match request.split(' ').nth(1).unwrap() {
        "/body" => Say::Drip(endless_head("200 OK", &[]), b"x".to_vec()),
        "/head" => Say::Drip("HTTP/1.1 200 OK\r\n".to_owned(), b"X: y\r\n".to_vec()),
        "/interim" => {
            Say::Drip("HTTP/1.1 100 Continue\r\n\r\n".to_owned(), b"HTTP/1.1 100 Continue\r\n\r\n".to_vec())
        }
        other => panic!("{other}"),
    });
    let body = sent(get(server.url("/body"), SHORT)).await.unwrap().body(MOST).await;
    assert!(matches!(body, Err(Failure::Late)), "{body:?}");
    let beginning = sent(get(server.url("/body"), SHORT)).await.unwrap().beginning().await;
    assert!(
        beginning.starts_with(b"x") && beginning.len() < 4096,
        "what arrived is kept: {}",
        beginning.len()
    );
    for path in ["/head", "/interim"] {
        let late = sent(get(server.url(path), SHORT)).await;
        assert!(matches!(late, Err(Failure::Late)), "{path}: {late:?}");
    }
}

#[tokio::test]
async fn a_credential_is_never_shown_to_another_origin() {
    let other = Server::start(|request| match request.split(' ').nth(1).unwrap() {
        "/again" => redirect(302, "/end"),
        _ => answer("200 OK", &[], b"mine now"),
    });
    let elsewhere = other.address.clone();
    let first = Server::start(move |request| {
        let status = request.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        redirect(status, &format!("http://{elsewhere}/again"))
    });
    for status in [301, 302, 303, 307, 308] {
        let url = first.url(&format!("/{status}"));
        let refused = sent(get(url.clone(), PATIENCE)).await.unwrap_err();
        let expected = format!(
            "it redirects to http://{}, which is another server; our key is not sent there",
            other.address
        );
        assert_eq!(refused.to_string(), expected, "{status}");
        for method in [Method::POST, Method::PATCH] {
            let request = Request::new(method, url.clone(), PATIENCE).bearer("hunter2").json(b"{}".to_vec());
            let refused = sent(request).await.unwrap_err();
            assert!(matches!(refused, Failure::Redirected { .. }), "{status}: {refused}");
        }
        assert_eq!(other.requests(), Vec::<String>::new(), "{status}: the other server got no request");
    }
    let answer = sent(get(first.url("/307"), PATIENCE).follow(Follow::Anywhere)).await.unwrap();
    assert_eq!(answer.body(MOST).await.unwrap(), b"mine now");
    let asked = other.requests();
    assert_eq!(asked.len(), 2, "two redirects were followed: {asked:?}");
    for request in asked {
        assert!(!request.to_lowercase().contains("authorization"), "{request}");
        assert!(!request.contains("hunter2") && !request.to_lowercase().contains("referer"), "{request}");
    }
    assert!(first.requests()[0].contains("authorization: Bearer hunter2"), "{:?}", first.requests());
}

#[tokio::test]
async fn a_redirect_within_the_origin_is_followed_by_what_reads_and_keeps_the_credential() {
    let server = Server::start(|request| match request.split(' ').nth(1).unwrap() {
        "/old" => redirect(308, "/new"),
        "/circle" => redirect(302, "/circle"),
        "/nowhere" => answer("302 Elsewhere", &[], b"no address"),
        _ => answer("200 OK", &[], b"here"),
    });
    let answer = sent(get(server.url("/old"), PATIENCE)).await.unwrap();
    assert_eq!(answer.body(MOST).await.unwrap(), b"here");
    assert!(server.requests().iter().all(|r| r.contains("Bearer hunter2")), "{:?}", server.requests());
    let circle = sent(get(server.url("/circle"), PATIENCE)).await.unwrap_err();
    let expected = format!("it redirects to http://{}, after too many redirects", server.address);
    assert_eq!(circle.to_string(), expected);
    let post = Request::new(Method::POST, server.url("/old"), PATIENCE).json(b"{}".to_vec());
    assert!(matches!(sent(post).await.unwrap_err(), Failure::Redirected { .. }));
    assert_eq!(sent(get(server.url("/nowhere"), PATIENCE)).await.unwrap().status(), StatusCode::FOUND);
}

/// Why redirects are not left to reqwest. When this fails, it has learnt to forget them.
#[tokio::test]
async fn reqwest_itself_leaks_a_credential_on_the_second_redirect() {
    let other = Server::start(|request| match request.split(' ').nth(1).unwrap() {
        "/again" => redirect(302, "/end"),
        _ => answer("200 OK", &[], b""),
    });
    let elsewhere = other.address.clone();
    let first = Server::start(move |_| redirect(302, &format!("http://{elsewhere}/again")));
    drop(Http::new().unwrap());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(first.url("/")).bearer_auth("hunter2").send().await.unwrap();
    let shown = other.requests().iter().map(|r| r.contains("hunter2")).collect::<Vec<_>>();
    assert_eq!(shown, [false, true]);
}

#[tokio::test]
async fn errors_do_not_contain_addresses() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let refused = sent(get(format!("http://{closed}/?signature=hunter2"), PATIENCE)).await.unwrap_err();
    assert_eq!(refused.to_string(), "Connection refused (os error 111)");
    let unreadable = sent(get("http://[::".to_owned(), PATIENCE)).await.unwrap_err();
    assert_eq!(unreadable.to_string(), "its address is not a URL: invalid IPv6 address");
    let odd = Request::new(Method::GET, "http://127.0.0.1:1/?hunter2", PATIENCE).bearer("a\nb");
    assert_eq!(sent(odd).await.unwrap_err().to_string(), "failed to parse header value");
    assert!(!format!("{:?}", get("http://a".into(), PATIENCE)).contains("hunter2"));
}

#[test]
fn which_addresses_are_this_machine() {
    for (url, is_here) in [
        ("http://localhost:5001/token", true),
        ("http://127.0.0.1/token?a=b", true),
        ("http://127.1.2.3", true),
        ("http://[::1]:5001", true),
        ("http://auth.example/token", false),
        ("http://127.example", false),
        ("http://localhost.example", false),
        ("http://localhost:x@auth.example/token", false),
        ("http://10.0.0.1", false),
        ("http://[::ffff:127.0.0.1]", false),
    ] {
        assert_eq!(is_loopback(&Url::parse(url).unwrap()), is_here, "{url}");
    }
}
