//! A hostile cloud, or whoever stands between it and the device (issue: bodies, redirects, amounts).

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::evil::{Asked, Evil, Taker, bomb};
use crate::lab::{Victim, app, is_poll, polite, politely, service, uuid};
use crate::support::{Lab, eventually};

/// More than any answer may cost, with what the kernel keeps between the two.
const FAR_TOO_MUCH: u64 = 48 << 20;

type Attack = (&'static str, fn(&mut Taker) -> std::io::Result<()>);

/// Answers that do not end, or end in far more than they seem to be.
const ENDLESS: &[Attack] = &[
    ("a 500 without an end", |to| to.endless(500, "")),
    ("a 200 without an end", |to| to.endless(200, "Content-Type: application/json\r\n")),
    ("a 401 without an end", |to| to.endless(401, "")),
    ("a 409 without an end", |to| to.endless(409, "")),
    ("a 429 without an end", |to| to.endless(429, "Retry-After: 0\r\n")),
    ("a 502 that unfolds", |to| to.answer(502, "Content-Encoding: gzip\r\n", bomb())),
    ("a 200 that unfolds", |to| to.answer(200, "Content-Encoding: gzip\r\n", bomb())),
    ("a 201 that unfolds", |to| to.answer(201, "Content-Encoding: gzip\r\n", bomb())),
    ("a 502 without an end that unfolds", |to| {
        to.send(b"HTTP/1.1 502 Said\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let chunk = [format!("{:x}\r\n", bomb().len()).as_bytes(), bomb(), b"\r\n"].concat();
        to.repeat(&chunk, Duration::ZERO)
    }),
    ("headers without an end", |to| {
        to.send(b"HTTP/1.1 200 Said\r\n")?;
        to.repeat(format!("X-Filler: {}\r\n", "x".repeat(8000)).as_bytes(), Duration::ZERO)
    }),
];

/// Answers that hold the connection.
const SLOW: &[Attack] = &[
    ("a body that drips", |to| {
        to.send(b"HTTP/1.1 200 Said\r\nContent-Length: 1000000\r\n\r\n")?;
        to.repeat(b" ", Duration::from_millis(100))
    }),
    ("a failure whose body drips", |to| {
        to.send(b"HTTP/1.1 500 Said\r\nContent-Length: 1000000\r\n\r\n")?;
        to.repeat(b" ", Duration::from_millis(100))
    }),
    ("headers that drip", |to| {
        to.send(b"HTTP/1.1 200 Said\r\nX-Filler: ")?;
        to.repeat(b"x", Duration::from_millis(100))
    }),
    ("interim answers without an end", |to| {
        to.repeat(b"HTTP/1.1 100 Continue\r\n\r\n", Duration::from_millis(1))
    }),
];

#[test]
fn a_poll_takes_no_answer_without_an_end() {
    let lab = Lab::new("endless");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::start(&lab, &cloud, "till");
    for (n, (what, attack)) in ENDLESS.iter().chain(SLOW).enumerate() {
        cloud
            .rule(move |asked, to| if is_poll(asked) { attack(to) } else { politely(asked, to, &json!({})) });
        cloud.taken();
        let before = cloud.asked().iter().filter(|a| is_poll(a)).count();
        eventually(what, Duration::from_secs(40), || {
            let polls = cloud.asked().iter().filter(|a| is_poll(a)).count();
            // Only what was asked after the rule counts, and the next one says that it is over.
            (polls > before + 1).then_some(())
        });
        let taken = cloud.taken();
        assert!(n >= ENDLESS.len() || taken < FAR_TOO_MUCH, "{what}: {} MiB were taken", taken >> 20);
        victim.cage.assert_held(victim.agent.program());
    }
    victim.assert_on_duty(&cloud);
}

#[test]
fn a_report_takes_no_answer_without_an_end() {
    let lab = Lab::new("endless-report");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::prepare(&lab, &cloud.url(), "till");
    for (what, attack) in ENDLESS {
        cloud.rule(
            move |asked, to| {
                if asked.method == "PATCH" { attack(to) } else { politely(asked, to, &json!({})) }
            },
        );
        let before = cloud.asked().iter().filter(|a| a.method == "PATCH").count();
        cloud.taken();
        victim.agent.start_again();
        eventually(what, Duration::from_secs(40), || {
            let reports = cloud.asked().iter().filter(|a| a.method == "PATCH").count();
            let is_done = reports > before && cloud.taken_at_least() > 1000;
            is_done.then_some(())
        });
        let taken = cloud.taken();
        assert!(taken < FAR_TOO_MUCH, "{what}: {} MiB were taken", taken >> 20);
        victim.cage.assert_held(victim.agent.program());
        victim.agent.cut();
    }
    victim.agent.start_again();
    victim.assert_on_duty(&cloud);
}

#[test]
fn a_registration_takes_no_answer_without_an_end() {
    let lab = Lab::new("endless-register");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::prepare(&lab, &cloud.url(), "till");
    // A 409 makes it ask who has the uuid: that answer has no end either.
    for place in ["/device/register", "/v7/device"] {
        for (what, attack) in ENDLESS {
            cloud.rule(move |asked, to| match asked.path.as_str() {
                path if path.starts_with(place) => attack(to),
                "/device/register" => to.answer(409, "", b"\"uuid\" must be unique."),
                _ => to.answer(404, "", b""),
            });
            cloud.taken();
            victim.agent.start_again();
            eventually(what, Duration::from_secs(40), || (cloud.taken_at_least() > 1000).then_some(()));
            let taken = cloud.taken();
            assert!(taken < FAR_TOO_MUCH, "{place}: {what}: {} MiB were taken", taken >> 20);
            victim.until_it_answers();
            victim.cage.assert_held(victim.agent.program());
            victim.agent.cut();
        }
    }
    cloud.rule(polite(&json!({})));
    victim.agent.start_again();
    victim.assert_on_duty(&cloud);
}

/// An answer that sends on to `to`.
fn redirect(status: u16, to: &str) -> impl Fn(&mut Taker) -> std::io::Result<()> + Send + Sync + use<> {
    let headers = format!("Location: {to}\r\n");
    move |taker| taker.answer(status, &headers, b"")
}

#[test]
fn a_redirect_to_another_origin_is_not_followed() {
    let lab = Lab::new("redirect");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let other = Evil::at("127.0.0.1", polite(&json!({})));
    let foreign = Evil::at("127.0.0.2", polite(&json!({})));
    // At registration the body is the device's new key.
    let mut victim = Victim::prepare(&lab, &cloud.url(), "till");
    for (status, to) in [(307, &other), (308, &foreign), (302, &other)] {
        let (asked, url) = (cloud.asked().len(), to.url());
        cloud.rule(move |asked, taker| redirect(status, &format!("{url}{}", asked.path))(taker));
        victim.agent.start_again();
        victim.until_it_answers();
        let why = victim.agent.until_status("/cloud/error", "redirect");
        assert!(why.contains(&cloud.address) || why.contains(&to.address), "{why}");
        assert!(cloud.asked().len() > asked, "it was asked");
        assert_eq!(to.asked().len(), 0, "{status} to another origin: {:?}", to.asked());
        victim.agent.cut();
    }
    // A poll, a report and the question for its own id.
    cloud.rule(polite(&json!({})));
    victim.agent.start_again();
    victim.assert_on_duty(&cloud);
    for status in [301, 302, 303, 307, 308] {
        for to in [&other, &foreign] {
            let url = to.url();
            cloud.rule(move |asked, taker| redirect(status, &format!("{url}{}", asked.path))(taker));
            victim.agent.until_status("/cloud/error", "redirect");
            assert_eq!(to.asked().len(), 0, "{status}: {:?}", to.asked());
            cloud.rule(polite(&json!({})));
            eventually("it is content again", Duration::from_secs(30), || {
                victim.agent.status_value("/cloud/error").is_null().then_some(())
            });
        }
    }
    victim.assert_on_duty(&cloud);
}

#[test]
fn a_redirect_in_a_circle_ends() {
    let lab = Lab::new("circle");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::start(&lab, &cloud, "till");
    victim.assert_on_duty(&cloud);
    let asked = cloud.asked().len();
    cloud.rule(|asked, to| redirect(307, &asked.path)(to));
    victim.agent.until_status("/cloud/error", "redirect");
    let polls = victim.agent.status_value("/cloud/polls").as_u64().unwrap();
    let more = (cloud.asked().len() - asked) as u64;
    assert!(more <= 25 * polls.max(2), "{more} requests for {polls} polls");
    victim.assert_on_duty(&cloud);
}

/// A certificate authority and a certificate of 127.0.0.1 by it: the authority's file, and the server's settings.
fn tls(dir: &Path) -> (std::path::PathBuf, Arc<rustls::ServerConfig>) {
    let script = "set -e
        openssl ecparam -name prime256v1 -genkey -noout -out ca.key
        openssl req -x509 -new -key ca.key -days 2 -subj /CN=hostile-tests -out ca.pem
        openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out leaf.key
        openssl req -new -key leaf.key -subj /CN=127.0.0.1 -out leaf.csr
        printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE' >leaf.ext
        openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile leaf.ext -out leaf.pem";
    let made = Command::new("sh").args(["-c", script]).current_dir(dir).output().expect("sh runs");
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificate = CertificateDer::from_pem_file(dir.join("leaf.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(dir.join("leaf.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let settings = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key));
    (dir.join("ca.pem"), Arc::new(settings.expect("settings")))
}

#[test]
fn https_is_never_left_for_http() {
    let lab = Lab::new("weaker");
    let (authority, settings) = tls(lab.dir());
    let plain = Evil::at("127.0.0.1", polite(&json!({})));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let location = plain.url();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    // Each request is sent on to the same path at a plain port of the same host.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let Ok(connection) = rustls::ServerConnection::new(Arc::clone(&settings)) else { return };
            let mut stream = rustls::StreamOwned::new(connection, stream);
            let mut request = [0; 8192];
            let Ok(length) = stream.read(&mut request) else { continue };
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or("/");
            let answer = format!(
                "HTTP/1.1 307 Said\r\nLocation: {location}{path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    let mut victim = Victim::prepare(&lab, &format!("https://{address}"), "till");
    victim.variable(&format!("SSL_CERT_FILE={}", authority.display()));
    victim.agent.start_again();
    victim.until_it_answers();
    let why = victim.agent.until_status("/cloud/error", "redirect");
    assert!(asked.load(std::sync::atomic::Ordering::SeqCst) > 0, "TLS was spoken: {why}");
    assert_eq!(plain.asked().len(), 0, "{:?}", plain.asked().first().map(Asked::text));
    victim.cage.assert_held(victim.agent.program());
}

/// So many of something by number.
fn many(count: usize, each: impl Fn(usize) -> (String, Value)) -> Value {
    Value::Object((0..count).map(each).collect::<Map<_, _>>())
}

#[test]
fn too_much_of_anything_is_refused_with_the_number_and_the_setting() {
    let lab = Lab::new("much");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::start(&lab, &cloud, "till");
    let image = lab.image("r1");
    let web = |more: Value| json!({ "web": service(image, &more) });
    let none = || json!({});
    let names = |word: &str, count: usize| many(count, |n| (format!("{word}{n}"), json!({})));
    let text = "x".repeat(100);
    // Each fits into a body that is read.
    let apps = [
        (many(9000, |n| (format!("s{n}"), service(image, &none()))), none(), none(), "9000"),
        (web(none()), names("n", 3000), none(), "3000"),
        (web(none()), none(), names("v", 3000), "3000"),
        (
            web(json!({ "labels": many(5000, |n| (format!("l{n}"), json!(&text))) })),
            none(),
            none(),
            "500", // what the agent says first: 5000, or with the labels of the service's own 5001
        ),
        (
            web(json!({ "environment": many(5000, |n| (format!("E{n}"), json!(&text))) })),
            none(),
            none(),
            "5000",
        ),
    ];
    for (n, (services, networks, volumes, number)) in apps.into_iter().enumerate() {
        let apps = json!({ uuid(n): app(n + 1, "much", &services, &networks, &volumes) });
        cloud.rule(polite(&apps));
        let why = victim.refusal(&uuid(n));
        assert!(why.contains(number), "no number: {why}");
        assert!(why.contains("limits.") || why.contains("policy."), "no setting: {why}");
        assert!(victim.agent.containers().is_empty(), "nothing of it is created");
        assert_eq!(lab.docker().ids("network", victim.agent.instance()).len(), 0);
        assert_eq!(lab.docker().ids("volume", victim.agent.instance()).len(), 0);
        victim.cage.assert_held(victim.agent.program());
    }
    victim.assert_on_duty(&cloud);
}

#[test]
fn many_apps_are_too_much_as_well() {
    let lab = Lab::new("apps");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::start(&lab, &cloud, "till");
    let image = lab.image("r1");
    // 100 apps of 100 services: no single release is too large.
    let services = many(100, |n| (format!("s{n}"), service(image, &json!({}))));
    let apps = many(100, |n| (uuid(n), app(n + 1, "much", &services, &json!({}), &json!({}))));
    cloud.rule(polite(&apps));
    eventually("it says that this is too much", Duration::from_secs(60), || {
        let status = victim.agent.status()?.to_string();
        (status.contains("limits.") || status.contains("policy.")).then_some(())
    });
    assert!(victim.agent.containers().is_empty());
    victim.assert_on_duty(&cloud);
}

#[test]
fn a_target_that_no_reader_should_follow_is_left_aside() {
    let lab = Lab::new("deep");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::start(&lab, &cloud, "till");
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(200_000), close.repeat(200_000));
    let bodies = [
        deep("[", "]"),
        deep(r#"{"a":"#, "}"),
        format!(r#"{{"{}":{}}}"#, "UUID", deep("[", "]")),
        format!("{{\"UUID\":{{\"name\":\"{}\"}}}}", "n".repeat(7 << 20)),
        format!("{{\"UUID\":{{\"apps\":{{{}\"x\":1}}}}}}", "\"a\":1,".repeat(1_000_000)),
        format!("[{}1]", "1,".repeat(3_900_000)),
        format!("{{\"UUID\":{{\"x\":{}}}}}", "9".repeat(7 << 20)),
        format!("\"{}\"", "\\u0000".repeat(1_300_000)),
    ];
    for body in bodies {
        let before = cloud.asked().len();
        cloud.rule(move |asked, to| {
            if !is_poll(asked) {
                return politely(asked, to, &json!({}));
            }
            let uuid = asked.path.rsplit('/').nth(1).unwrap_or_default();
            to.answer(200, "", body.replace("UUID", uuid).as_bytes())
        });
        eventually("two polls of it", Duration::from_secs(60), || {
            let polls = cloud.asked().iter().skip(before).filter(|a| is_poll(a)).count();
            (polls >= 2).then_some(())
        });
        victim.cage.assert_held(victim.agent.program());
    }
    victim.assert_on_duty(&cloud);
}

#[test]
fn an_image_that_no_engine_takes_is_refused_and_leaves_nothing() {
    let lab = Lab::new("references");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::start(&lab, &cloud, "till");
    let (digest, registry) = (format!("sha256:{}", "a".repeat(64)), &lab.parts.registry);
    let long = "x".repeat(5000);
    let references = [
        format!("{registry}/../../x@{digest}"),
        format!("{registry}/UPPER/case@{digest}"),
        format!("{registry}/demo//app@{digest}"),
        format!("{registry}/./app@{digest}"),
        format!("{registry}/demo/app@sha256:ABC"),
        format!("{registry}/demo/app@md5:{}", "a".repeat(32)),
        format!("{registry}/demo/app@sha256:{}", "z".repeat(64)),
        format!("{registry}/demo/app?x=1@{digest}"),
        format!("{registry}/demo/app#x@{digest}"),
        format!("user:password@{registry}/demo/app@{digest}"),
        format!("http://{registry}/demo/app@{digest}"),
        format!("{registry}/de mo/app@{digest}"),
        format!("{registry}/demo/app\n@{digest}"),
        format!("{registry}/demo/\u{1b}[31mapp@{digest}"),
        format!("{registry}/démo/app@{digest}"),
        format!("{registry}/{long}@{digest}"),
        format!("{registry}/demo/app-@{digest}"),
        format!("{registry}/-demo/app@{digest}"),
        format!("-{registry}/demo/app@{digest}"),
        format!("bad_host!/demo/app@{digest}"),
        format!("127.0.0.1:99999/demo/app@{digest}"),
        format!("127.0.0.1:5a/demo/app@{digest}"),
        format!("@{digest}"),
        String::new(),
    ];
    let apps = many(references.len(), |n| {
        let services = json!({ "web": service(&references[n], &json!({})) });
        (uuid(n), app(n + 1, "bad", &services, &json!({}), &json!({})))
    });
    cloud.rule(polite(&apps));
    let mut wrong = Vec::new();
    for (n, reference) in references.iter().enumerate() {
        let found = crate::support::eventually_or(Duration::from_secs(if n == 0 { 30 } else { 3 }), || {
            let waiting = victim.agent.status_value("/waiting");
            let is_it = |w: &&Value| w["app"] == uuid(n) && w["reason"] == "refused";
            waiting.as_array()?.iter().find(is_it).map(|_| ())
        });
        if found.is_none() {
            wrong.push(reference.chars().take(80).collect::<String>());
        }
    }
    assert!(wrong.is_empty(), "these were not refused: {wrong:#?}");
    // They go, and nothing of them is tried for ever.
    let good = json!({ uuid(0): app(1, "good", &json!({ "web": service(lab.image("r1"), &json!({})) }), &json!({}), &json!({})) });
    cloud.rule(polite(&good));
    eventually("the good release runs", Duration::from_secs(60), || {
        let status = victim.agent.status()?;
        (status["apps"][0]["current"] == "good" && status["waiting"] == json!([])).then_some(())
    });
    assert!(!victim.agent.log().contains("invalid reference format"), "no engine was asked");
    victim.cage.assert_held(victim.agent.program());
}

#[test]
fn etags_and_headers_of_a_cloud_do_not_reach_into_requests() {
    let lab = Lab::new("headers");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::start(&lab, &cloud, "till");
    let long = "e".repeat(60_000);
    for etag in [long.as_str(), "a\u{1b}[31m", "\"\"\"", "W/", "é", "\t"] {
        let header = format!("ETag: {etag}\r\n");
        cloud.rule(move |asked, to| {
            if !is_poll(asked) {
                return politely(asked, to, &json!({}));
            }
            let uuid = asked.path.rsplit('/').nth(1).unwrap_or_default();
            to.answer(200, &header, json!({ uuid: { "name": "x", "apps": {} } }).to_string().as_bytes())
        });
        let before = cloud.asked().len();
        eventually("polls go on", Duration::from_secs(30), || {
            let polls = cloud.asked().iter().skip(before).filter(|a| is_poll(a)).count();
            (polls >= 3).then_some(())
        });
    }
    let longest = cloud.asked().iter().map(|a| a.header("if-none-match").len()).max().unwrap_or_default();
    assert!(longest <= 1024, "an etag of {longest} bytes was kept and sent");
    victim.assert_on_duty(&cloud);
}

#[test]
fn a_cloud_cannot_send_the_device_to_sleep() {
    let lab = Lab::new("sleep");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::start(&lab, &cloud, "till");
    for wish in ["999999999999999999", "0", "-1", "1e400", "NaN"] {
        cloud.rule(move |asked, to| {
            if !is_poll(asked) {
                return politely(asked, to, &json!({}));
            }
            let uuid = asked.path.rsplit('/').nth(1).unwrap_or_default();
            let config =
                json!({ "RESIN_SUPERVISOR_POLL_INTERVAL": wish, "BALENA_SUPERVISOR_POLL_INTERVAL": wish });
            let body = json!({ uuid: { "name": "x", "config": config, "apps": {} } });
            to.answer(200, "", body.to_string().as_bytes())
        });
        let before = cloud.asked().len();
        // An operator can always have it ask, whatever the cloud wishes.
        eventually("a poll", Duration::from_secs(30), || {
            assert!(victim.agent.order(&["update"]).0);
            let polls = cloud.asked().iter().skip(before).filter(|a| is_poll(a)).count();
            (polls >= 2).then_some(())
        });
        let next = victim.agent.status_value("/cloud/next_poll");
        let next: jiff::Timestamp = next.as_str().expect("a time").parse().expect("a time");
        let ahead = next.duration_since(jiff::Timestamp::now()).as_secs();
        assert!(ahead <= 27 * 3600, "{wish}: the next poll is in {ahead} s");
    }
    cloud.rule(polite(&json!({})));
    assert!(victim.agent.order(&["update"]).0);
    victim.cage.assert_held(victim.agent.program());
}
