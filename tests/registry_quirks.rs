//! What registries do differently, between a real registry and those who read it: our client, and the real engine. A release
//! must not name an image that its devices cannot pull.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use cotter::http::Http;
use cotter::model::ImageRef;
use cotter::registry::{measure_image, resolve};
use sha2::{Digest, Sha256};
use support::Lab;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A request, as far as a quirk needs it.
struct Asked {
    method: String,
    path: String,
    authorization: String,
    accept: String,
    /// The address of the proxy itself.
    own: String,
}

/// An answer: its status, its headers and its body.
struct Answer {
    status: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What a registry does; `None`: it answers as the real one.
type Quirk = fn(&Asked) -> Option<Answer>;
/// What it changes of an answer of the real one.
type Change = fn(&mut Answer);

fn answer(status: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Answer { status: status.to_owned(), headers, body: body.as_bytes().to_vec() }
}

/// Sends a request to the real registry.
fn forward(registry: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(registry).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {registry}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut reader = BufReader::new(stream);
    let (status, headers) = head_of(&mut reader);
    let mut body = Vec::new();
    reader.read_to_end(&mut body).unwrap();
    let status = status.split_once(' ').unwrap().1.to_owned();
    let is_chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if is_chunked { joined(&body) } else { body };
    Answer { status, headers, body }
}

fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunks.windows(2).position(|pair| pair == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).unwrap().trim(), 16).unwrap();
        body.extend_from_slice(&chunks[end + 2..end + 2 + size]);
        chunks = &chunks[end + 2 + size + 2..];
        if size == 0 {
            break;
        }
    }
    body
}

/// The first line and the headers, with names in lower case.
fn head_of(reader: &mut impl BufRead) -> (String, Vec<(String, String)>) {
    let mut first = String::new();
    reader.read_line(&mut first).unwrap_or_default();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or_default() == 0 || line.trim().is_empty() {
            return (first.trim().to_owned(), headers);
        }
        if let Some((name, value)) = line.trim().split_once(':') {
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
    }
}

/// A registry with a quirk in front of the real one. Returns its address. It ends with the test's process.
fn quirky(registry: &str, quirk: Quirk, change: Change) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().to_string();
    let parts = Arc::new((registry.to_owned(), own.clone()));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let parts = Arc::clone(&parts);
            std::thread::spawn(move || serve(stream, &parts.0, &parts.1, quirk, change));
        }
    });
    own
}

fn serve(stream: TcpStream, registry: &str, own: &str, quirk: Quirk, change: Change) {
    let mut reader = BufReader::new(stream);
    let (first, headers) = head_of(&mut reader);
    let mut words = first.split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return };
    let header = |wanted: &str| {
        let values = headers.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        values.collect::<Vec<_>>().join(", ")
    };
    let asked = Asked {
        method: method.to_owned(),
        path: path.to_owned(),
        authorization: header("authorization"),
        accept: header("accept"),
        own: own.to_owned(),
    };
    let said = quirk(&asked).unwrap_or_else(|| {
        let mut said = forward(registry, method, path, &[("Accept", &asked.accept)], b"");
        change(&mut said);
        said
    });
    let mut head = format!("HTTP/1.1 {}\r\n", said.status);
    let length = said.headers.iter().find(|(name, _)| name == "content-length");
    let length = length.filter(|_| method == "HEAD").map_or(said.body.len().to_string(), |(_, n)| n.clone());
    for (name, value) in &said.headers {
        if !matches!(name.as_str(), "content-length" | "transfer-encoding" | "connection") {
            head += &format!("{name}: {value}\r\n");
        }
    }
    head += &format!("Content-Length: {length}\r\nConnection: close\r\n\r\n");
    let mut stream = reader.into_inner();
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(if method == "HEAD" { b"" } else { &said.body });
}

fn same(_: &Asked) -> Option<Answer> {
    None
}

fn unchanged(_: &mut Answer) {}

fn without_digest(said: &mut Answer) {
    said.headers.retain(|(name, _)| name != "docker-content-digest");
}

fn refuses_head(asked: &Asked) -> Option<Answer> {
    (asked.method == "HEAD").then(|| answer("405 Method Not Allowed", &[("allow", "GET")], ""))
}

fn is_login(asked: &Asked) -> bool {
    asked.path.starts_with("/v2/") && asked.authorization != "Bearer let-me-in"
}

fn bearer(asked: &Asked) -> String {
    format!("Bearer realm=\"http://{}/token\",service=\"s\"", asked.own)
}

/// Wants a token, with this challenge and this answer of the token service.
fn with_token(asked: &Asked, challenges: &[(&str, &str)], token: &str) -> Option<Answer> {
    if asked.path.starts_with("/token") {
        return Some(answer("200 OK", &[("content-type", "application/json")], token));
    }
    is_login(asked).then(|| answer("401 Unauthorized", challenges, "{}"))
}

fn access_token(asked: &Asked) -> Option<Answer> {
    with_token(
        asked,
        &[("www-authenticate", &bearer(asked))],
        r#"{"access_token":"let-me-in","expires_in":300}"#,
    )
}

fn two_lines(asked: &Asked) -> Option<Answer> {
    let basic = ("www-authenticate", "Basic realm=\"r\"");
    with_token(asked, &[basic, ("www-authenticate", &bearer(asked))], r#"{"token":"let-me-in"}"#)
}

fn bearer_first_in_one_line(asked: &Asked) -> Option<Answer> {
    let both = format!("{}, Basic realm=\"r\"", bearer(asked));
    with_token(asked, &[("www-authenticate", &both)], r#"{"token":"let-me-in"}"#)
}

fn bearer_last_in_one_line(asked: &Asked) -> Option<Answer> {
    let both = format!("Basic realm=\"r\", {}", bearer(asked));
    with_token(asked, &[("www-authenticate", &both)], r#"{"token":"let-me-in"}"#)
}

fn no_token(asked: &Asked) -> Option<Answer> {
    with_token(asked, &[("www-authenticate", &bearer(asked))], "{}")
}

fn only_a_login(asked: &Asked) -> Option<Answer> {
    is_login(asked).then(|| answer("401 Unauthorized", &[("www-authenticate", "Basic realm=\"r\"")], "{}"))
}

fn portal(_: &Asked) -> Option<Answer> {
    Some(answer(
        "200 OK",
        &[("content-type", "text/html; charset=utf-8")],
        "<html>Welcome, please log in</html>",
    ))
}

fn down(_: &Asked) -> Option<Answer> {
    Some(answer("503 Service Unavailable", &[], "{}"))
}

/// Uploads a manifest or an index, and returns its descriptor.
fn put(registry: &str, path: &str, name: &str, kind: &str, body: &str, more: &str) -> String {
    let at = format!("{path}/manifests/{name}");
    let put = forward(registry, "PUT", &at, &[("Content-Type", kind)], body.as_bytes());
    assert!(put.status.starts_with("201"), "{}: {}", put.status, String::from_utf8_lossy(&put.body));
    let digest: String = Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!(r#"{{"mediaType":"{kind}","digest":"sha256:{digest}","size":{}{more}}}"#, body.len())
}

fn index(entries: &[&str]) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, entries.join(","))
}

/// What our client makes of an image: its digest and its size.
async fn read(http: &Http, image: &str) -> Result<(), String> {
    let exact = resolve(http, &ImageRef::parse(image).unwrap()).await.map_err(|error| error.to_string())?;
    let size = measure_image(http, &exact, "amd64", None).await;
    size.map(drop).map_err(|unanswered| unanswered.why.to_string())
}

/// What the engine makes of it.
fn pull(lab: &Lab, image: &str) -> Result<(), String> {
    let pulled = lab.docker().try_run(&["pull", image]);
    lab.docker().try_run(&["rmi", image]);
    let said = String::from_utf8_lossy(&pulled.stderr).trim().to_owned();
    if pulled.status.success() { Ok(()) } else { Err(said) }
}

#[tokio::test]
async fn our_client_and_the_engine_are_of_one_opinion() {
    let lab = Lab::new("registry-quirks");
    let registry = lab.parts.registry.clone();
    let image = ImageRef::parse(lab.image("r1")).unwrap();
    let name = image.repository().split_once('/').unwrap().1.to_owned();
    let path = format!("/v2/{name}");
    let plain = format!("{path}/manifests/{}", image.digest().unwrap());
    let manifest = forward(&registry, "GET", &plain, &[("Accept", MANIFEST)], b"");
    let manifest = String::from_utf8(manifest.body).unwrap();
    // The same image in an index, with the proof of its build beside it, and in an index within one.
    let platform = r#","platform":{"os":"linux","architecture":"amd64"}"#;
    let entry = put(&registry, &path, "quirk-plain", MANIFEST, &manifest, platform);
    let unknown = r#","platform":{"os":"unknown","architecture":"unknown"}"#;
    let proof = put(&registry, &path, "quirk-plain", MANIFEST, &manifest, unknown);
    put(&registry, &path, "quirk-attested", INDEX, &index(&[&proof, &entry]), "");
    let inner = put(&registry, &path, "quirk-inner", INDEX, &index(&[&entry]), "");
    put(&registry, &path, "quirk-nested", INDEX, &index(&[&inner]), "");

    let rows: &[(&str, &str, Quirk, Change, bool)] = &[
        ("nothing special", "quirk-plain", same, unchanged, true),
        ("no digest in the header", "quirk-plain", same, without_digest, true),
        ("HEAD is refused", "quirk-plain", refuses_head, unchanged, true),
        ("HEAD is refused, and no digest", "quirk-plain", refuses_head, without_digest, true),
        ("an access_token", "quirk-plain", access_token, unchanged, true),
        (
            "two challenges in one line, the token first",
            "quirk-plain",
            bearer_first_in_one_line,
            unchanged,
            true,
        ),
        ("no token", "quirk-plain", no_token, unchanged, false),
        ("only a login", "quirk-plain", only_a_login, unchanged, false),
        ("an index with a proof", "quirk-attested", same, unchanged, true),
        ("an index without digest", "quirk-attested", refuses_head, without_digest, true),
        ("a captive portal", "quirk-plain", portal, unchanged, false),
        ("away", "quirk-plain", down, unchanged, false),
        ("no such tag", "quirk-missing", same, unchanged, false),
    ];
    // Engines differ here: Docker before its containerd store asks for every credential that a registry lists, and reads one
    // challenge a line. A device with such an engine cannot pull what we find.
    let open: &[(&str, &str, Quirk)] = &[
        ("two challenges in two lines", "quirk-plain", two_lines),
        ("two challenges in one line, the token last", "quirk-plain", bearer_last_in_one_line),
        ("an index in an index", "quirk-nested", same),
    ];
    let http = Http::new().unwrap();
    let mut wrong = Vec::new();
    for (why, tag, quirk, change, expected) in rows {
        let text = format!("{}/{name}:{tag}", quirky(&registry, *quirk, *change));
        let (ours, engine) = (read(&http, &text).await, pull(&lab, &text));
        if (ours.is_ok(), engine.is_ok()) != (*expected, *expected) {
            wrong.push(format!("{why}: ours {ours:?}, the engine {engine:?}"));
        }
    }
    for (why, tag, quirk) in open {
        let text = format!("{}/{name}:{tag}", quirky(&registry, *quirk, unchanged));
        let (ours, engine) = (read(&http, &text).await, pull(&lab, &text));
        eprintln!("{why}: ours {ours:?}, the engine {engine:?}");
        if ours.is_err() {
            wrong.push(format!("{why}: {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
