//! A hostile registry among those that are shown the device's key, and one that stands for it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::evil::{Asked, Evil, Taker, bomb};
use crate::lab::{Victim, app, polite, service, uuid};
use crate::support::{Lab, eventually, eventually_or};

const KIND: &str = "Content-Type: application/vnd.docker.distribution.manifest.v2+json\r\n";

/// A device that runs nothing yet and trusts `registry` with its key; and that key.
fn customer<'lab>(lab: &'lab Lab, cloud: &Evil, registry: &Evil, image: &str) -> (Victim<'lab>, String) {
    let services = json!({ "web": service(image, &json!({})) });
    let mut victim = Victim::prepare(lab, &cloud.url(), "till");
    victim.agent.set(&format!("cloud.registries={}", registry.address));
    victim.agent.start_again();
    victim.until_it_answers();
    let key = eventually("it registers", Duration::from_secs(30), || {
        let asked = cloud.asked();
        let body = &asked.iter().find(|a| a.path == "/device/register")?.body;
        let body: Value = serde_json::from_str(body).ok()?;
        body["api_key"].as_str().map(str::to_owned)
    });
    cloud.rule(polite(&json!({ uuid(1): app(1, "one", &services, &json!({}), &json!({})) })));
    (victim, key)
}

/// Requests that carry any login, or the key in whatever place and form.
fn shown(to: &Evil, key: &str) -> Vec<String> {
    let encoded = |text: &str| {
        let mut encoder = std::process::Command::new("base64");
        let mut child = encoder
            .arg("-w0")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("base64 runs");
        std::io::Write::write_all(&mut child.stdin.take().expect("its input"), text.as_bytes())
            .expect("written");
        String::from_utf8(child.wait_with_output().expect("it ends").stdout).expect("text")
    };
    // Base64 of a text within a text differs by where it begins: the inner part of each of the three.
    let parts: Vec<_> =
        ["", "x", "xx"].iter().map(|before| encoded(&format!("{before}{key}"))[4..40].to_owned()).collect();
    let has_key = |asked: &Asked| {
        let text = asked.text();
        !asked.header("authorization").is_empty()
            || text.contains(key)
            || parts.iter().any(|part| text.contains(part))
    };
    to.asked().iter().filter(|asked| has_key(asked)).map(Asked::text).collect()
}

#[test]
fn a_realm_on_another_host_is_not_shown_the_key() {
    let lab = Lab::new("realm");
    let witness = Evil::at("127.0.0.2", |_, to| to.answer(200, "", br#"{"token":"t","access_token":"t"}"#));
    let realms = [
        format!("http://{}/token", witness.address),
        format!("http://REGISTRY@{}/token", witness.address),
        format!("http://REGISTRY%2f@{}/token", witness.address),
        format!("//{}/token", witness.address),
        format!("http:\\\\{}/token", witness.address),
        // Its own, which sends on.
        "http://REGISTRY/away".to_owned(),
    ];
    for (n, realm) in realms.iter().enumerate() {
        let registry = Evil::witness("127.0.0.1");
        let (own, away) = (registry.address.clone(), witness.url());
        let realm = realm.replace("REGISTRY", &own);
        registry.rule(move |asked, to| {
            if asked.path.starts_with("/away") {
                return to.answer(307, &format!("Location: {away}/token\r\n"), b"");
            }
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:x/y:pull\"\r\n"
            );
            to.answer(401, &challenge, br#"{"errors":[{"code":"UNAUTHORIZED"}]}"#)
        });
        let cloud = Evil::at("127.0.0.1", polite(&json!({})));
        let image = format!("{}/x/y@sha256:{}", registry.address, "a".repeat(64));
        let lab_device = &lab;
        let (mut victim, key) = customer(lab_device, &cloud, &registry, &image);
        // What weighs the image and what pulls it both ask.
        eventually("the image was tried", Duration::from_secs(60), || {
            let waiting = victim.agent.status_value("/waiting").to_string();
            (registry.asked().len() >= 2 && waiting.contains("backoff")).then_some(())
        });
        victim.agent.until_polled(2);
        assert_eq!(shown(&witness, &key), Vec::<String>::new(), "realm {n}: {}", realms[n]);
        victim.cage.assert_held(victim.agent.program());
        victim.agent.cut();
        drop(victim);
        std::fs::remove_dir_all(lab.dir().join("till")).unwrap();
    }
}

#[test]
fn a_redirect_of_a_registry_goes_without_the_key() {
    let lab = Lab::new("blobs");
    let witness = Evil::witness("127.0.0.2");
    let registry = Evil::witness("127.0.0.1");
    let away = witness.url();
    // It takes the login itself, and sends on whoever has logged in.
    registry.rule(move |asked, to| {
        if asked.header("authorization").is_empty() {
            return to.answer(401, "WWW-Authenticate: Basic realm=\"r\"\r\n", b"");
        }
        to.answer(307, &format!("Location: {away}{}\r\n", asked.path), b"")
    });
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let image = format!("{}/x/y@sha256:{}", registry.address, "a".repeat(64));
    let (mut victim, key) = customer(&lab, &cloud, &registry, &image);
    eventually("the image was tried", Duration::from_secs(60), || {
        (registry.asked().len() >= 2 && victim.agent.status_value("/waiting").to_string().contains("backoff"))
            .then_some(())
    });
    victim.agent.until_polled(2);
    assert_eq!(shown(&witness, &key), Vec::<String>::new());
    victim.assert_on_duty(&cloud);
}

type Answer = fn(&Asked, &mut Taker) -> std::io::Result<()>;

/// What a registry may say to who only wants to know how large an image is. `true`: of the token's endpoint.
const SAID: &[(&str, bool, Answer)] = &[
    ("a manifest without an end", false, |_, to| to.endless(200, KIND)),
    ("a manifest that unfolds", false, |_, to| {
        to.answer(200, &format!("{KIND}Content-Encoding: gzip\r\n"), bomb())
    }),
    ("a failure without an end", false, |_, to| to.endless(500, "")),
    ("a failure that unfolds", false, |_, to| to.answer(404, "Content-Encoding: gzip\r\n", bomb())),
    ("too many requests without an end", false, |_, to| to.endless(429, "Retry-After: 1\r\n")),
    ("a token without an end", true, |_, to| to.endless(200, "")),
    ("a token that unfolds", true, |_, to| to.answer(200, "Content-Encoding: gzip\r\n", bomb())),
    ("a token of 5 MB", true, |_, to| {
        to.answer(200, "", format!("{{\"token\":\"{}\"}}", "t".repeat(5_000_000)).as_bytes())
    }),
    ("a token with a line break", true, |_, to| to.answer(200, "", b"{\"token\":\"a\\r\\nX-Evil: 1\"}")),
    ("sizes that overflow", false, |_, to| {
        let layer =
            json!({ "mediaType": "x", "size": u64::MAX, "digest": format!("sha256:{}", "b".repeat(64)) });
        let manifest = json!({ "schemaVersion": 2, "config": layer, "layers": vec![layer.clone(); 50] });
        to.answer(200, KIND, manifest.to_string().as_bytes())
    }),
    ("sizes below nothing", false, |_, to| {
        let layer = json!({ "mediaType": "x", "size": -5, "digest": "sha256:x" });
        to.answer(
            200,
            KIND,
            json!({ "schemaVersion": 2, "config": layer, "layers": [layer] }).to_string().as_bytes(),
        )
    }),
    ("an index of itself", false, |asked, to| {
        let digest = asked.path.rsplit('/').next().unwrap_or_default();
        let entry = json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "size": 100, "digest": digest,
            "platform": { "os": "linux", "architecture": "amd64" } });
        let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry] });
        to.answer(
            200,
            "Content-Type: application/vnd.oci.image.index.v1+json\r\n",
            index.to_string().as_bytes(),
        )
    }),
    ("a challenge without an end", false, |asked, to| {
        let path = &asked.path;
        to.answer(
            401,
            &format!(
                "WWW-Authenticate: Bearer realm=\"http://{}{path}\",scope=\"{}\"\r\n",
                asked.header("host"),
                "s".repeat(60_000)
            ),
            b"",
        )
    }),
    ("a manifest that drips", false, |_, to| {
        to.send(format!("HTTP/1.1 200 Said\r\n{KIND}Content-Length: 100000\r\n\r\n").as_bytes())?;
        to.repeat(b" ", Duration::from_millis(200))
    }),
];

#[test]
fn a_registry_cannot_exhaust_agent_or_operator() {
    let lab = Lab::new("registry");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let registry = Evil::witness("127.0.0.1");
    let image = |n: usize| format!("{}/x/y@sha256:{n:064x}", registry.address);
    let (mut victim, _) = customer(&lab, &cloud, &registry, &image(0));
    for (n, (what, is_token, answer)) in SAID.iter().enumerate() {
        registry.rule(move |asked, to| {
            // The engine is another program, which many share here.
            if !asked.header("user-agent").starts_with("cotter/") {
                return to.answer(404, "", b"{}");
            }
            let is_at_token = asked.path.starts_with("/token");
            if *is_token && !is_at_token {
                let host = asked.header("host");
                return to.answer(
                    401,
                    &format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"s\"\r\n"),
                    b"",
                );
            }
            answer(asked, to)
        });
        let before = registry.asked().len();
        registry.taken();
        let services = json!({ "web": service(&image(n + 1), &json!({})) });
        cloud.rule(polite(&json!({ uuid(1): app(1, &format!("r{n}"), &services, &json!({}), &json!({})) })));
        let asked = eventually_or(Duration::from_secs(30), || {
            let ours = registry.asked()[before..]
                .iter()
                .filter(|a| a.header("user-agent").starts_with("cotter/"))
                .count();
            (ours > 0).then_some(())
        });
        assert!(asked.is_some(), "{what}: the agent asks the registry");
        // It goes on as without a weight: the pull begins, or it says why not.
        eventually(what, Duration::from_secs(90), || {
            let waiting = victim.agent.status_value("/waiting").to_string();
            let is_over = waiting.contains(&uuid(1)) && !waiting.contains("downloading");
            is_over.then_some(())
        });
        assert!(registry.taken() < 48 << 20, "{what}: too much was taken");
        assert!(
            registry.asked()[before..].len() < 60,
            "{what}: {} requests",
            registry.asked()[before..].len()
        );
        victim.cage.assert_held(victim.agent.program());
    }
    victim.assert_on_duty(&cloud);
}

#[test]
fn another_image_under_a_known_digest_is_not_run() {
    let lab = Lab::new("digest");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let registry = Evil::witness("127.0.0.1");
    // Every question is answered with a manifest of another image, whole and right in itself.
    let real = lab.image("r1").split_once('@').expect("a digest").1.to_owned();
    let from = lab.parts.registry.clone();
    registry.rule(move |asked, to| {
        let path = if asked.path.contains("/manifests/") { format!("/v2/demo/app/manifests/{real}") } else { asked.path.clone() };
        let mut stream = std::net::TcpStream::connect(&from)?;
        std::io::Write::write_all(&mut stream, format!("{} {path} HTTP/1.1\r\nHost: {from}\r\nAccept: application/vnd.docker.distribution.manifest.v2+json\r\nConnection: close\r\n\r\n", asked.method).as_bytes())?;
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut answer)?;
        to.send(&answer)
    });
    let other = lab.image("r2").split_once('@').expect("a digest").1;
    let (mut victim, _) =
        customer(&lab, &cloud, &registry, &format!("{}/demo/app@{other}", registry.address));
    // An engine that has the manifest of that digest already takes it from its own store; any other fails to pull.
    eventually("the release has its answer", Duration::from_secs(60), || {
        let is_refused = victim.agent.status_value("/waiting").to_string().contains("backoff");
        (is_refused || victim.agent.status_value("/apps/0/update") == "done").then_some(())
    });
    let sent =
        format!("{}/demo/app@{}", lab.parts.registry, lab.image("r1").split_once('@').expect("a digest").1);
    lab.docker().run(&["pull", &sent]);
    let sent = lab.docker().run(&["image", "inspect", "--format", "{{.Id}}", &sent]);
    for container in victim.agent.containers() {
        assert_ne!(
            container.raw["Image"],
            sent.trim(),
            "the image that the registry sent runs under another digest"
        );
    }
    victim.assert_on_duty(&cloud);
}
