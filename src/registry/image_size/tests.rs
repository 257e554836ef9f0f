//! Against a registry on loopback with prepared answers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use sha2::{Digest, Sha256};

use super::*;

#[derive(Clone)]
struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

/// A registry by its answers. Ends with its value.
struct Registry {
    address: SocketAddr,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
    served: Option<thread::JoinHandle<()>>,
}

impl Registry {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (answers, asked) = (Arc::<Mutex<BTreeMap<String, Answer>>>::default(), Arc::default());
        let (script, noted) = (Arc::clone(&answers), Arc::clone(&asked));
        let served = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if serve(stream, &script, &noted).is_none() {
                    return;
                }
            }
        });
        Self { address, answers, asked, served: Some(served) }
    }

    fn answer(&self, path: &str, status: u16, headers: &str, body: impl Into<Vec<u8>>) {
        let answer = Answer { status, headers: headers.to_owned(), body: body.into() };
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// Puts a blob there; its digest.
    fn blob(&self, body: &Value) -> String {
        let text = body.to_string();
        let digest = digest(text.as_bytes());
        self.answer(&format!("/v2/lab/web/blobs/{digest}"), 200, "", text);
        digest
    }

    /// Puts a manifest there, under its digest and, if it has one, its tag; its digest.
    fn manifest(&self, tag: Option<&str>, body: &Value) -> String {
        let text = body.to_string();
        let digest = digest(text.as_bytes());
        for name in std::iter::once(digest.as_str()).chain(tag) {
            self.answer(&format!("/v2/lab/web/manifests/{name}"), 200, "", text.clone());
        }
        digest
    }

    /// An image of `architecture`; its digest. `layers` are their `diff_id`s with their sizes.
    fn image(&self, tag: Option<&str>, architecture: &str, layers: &[(&str, u64)]) -> String {
        let diff_ids: Vec<_> = layers.iter().map(|(id, _)| id).collect();
        let config = json!({ "architecture": architecture, "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        let layers: Vec<_> = layers
            .iter()
            .map(|(id, size)| json!({ "mediaType": "layer", "digest": layer(id), "size": size }))
            .collect();
        let config = json!({ "mediaType": "config", "digest": self.blob(&config), "size": 200 });
        self.manifest(tag, &json!({ "schemaVersion": 2, "config": config, "layers": layers }))
    }

    fn reference(&self, end: &str) -> ImageRef {
        ImageRef::parse(&format!("{}/lab/web{end}", self.address)).unwrap()
    }

    async fn measure_image(&self, end: &str, here: &[&str]) -> Result<Weighed, Unanswered> {
        Ok(weighed(&measure_image(&Http::new().unwrap(), &self.reference(end), "arm64", None).await?, here))
    }

    async fn error(&self, end: &str) -> String {
        self.measure_image(end, &[]).await.unwrap_err().why.to_string()
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // A connection that says nothing ends it.
        drop(TcpStream::connect(self.address));
        let _ended = self.served.take().map(thread::JoinHandle::join);
    }
}

fn serve(
    mut stream: TcpStream,
    script: &Mutex<BTreeMap<String, Answer>>,
    noted: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    let first = lines.next()?;
    let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    let mut words = first.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let token = head.iter().find_map(|line| line.strip_prefix("authorization: ")).unwrap_or("");
    noted.lock().ok()?.push(format!("{method} {path} {token}").trim_end().to_owned());
    let script = script.lock().ok()?;
    let wants_token =
        script.contains_key("/token") && token != "Bearer let-me-in" && !path.starts_with("/token");
    let key = if wants_token { "/denied" } else { path.split('?').next()? };
    let missing = Answer { status: 404, headers: String::new(), body: Vec::new() };
    let Answer { status, headers, body } = script.get(key).unwrap_or(&missing).clone();
    drop(script);
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
    // A client that has read enough goes.
    let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    Some(())
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// A layer's digest from its `diff_id`, which is another one in truth, too.
fn layer(diff_id: &str) -> String {
    digest(diff_id.as_bytes())
}

/// What is to be fetched of an image in sum, and for which machines it is.
type Weighed = (u64, BTreeSet<String>);

fn weighed(weight: &ImageSize, here: &[&str]) -> Weighed {
    let here = here.iter().map(|&id| id.to_owned()).collect();
    let once: BTreeMap<_, _> = weight.missing(Some(&here)).collect();
    (once.values().sum(), weight.architectures.clone())
}

fn weight(missing: u64, architectures: &[&str]) -> Weighed {
    (missing, architectures.iter().map(|&name| name.to_owned()).collect())
}

fn entry(digest: &str, os: &str, architecture: &str, variant: &str) -> Value {
    json!({ "digest": digest, "size": 7, "platform": { "os": os, "architecture": architecture, "variant": variant } })
}

#[tokio::test]
async fn what_is_missing_of_an_image() {
    let registry = Registry::start();
    let digest = registry.image(Some("1"), "arm64", &[("a", 100), ("b", 20), ("c", 3)]);
    for (here, missing) in [
        (&[][..], 123),
        (&["a"], 23),
        (&["a", "b"], 3),
        (&["a", "b", "c"], 0),
        (&["a", "b", "c", "x"], 0),
        // Engines keep a layer together with all below it.
        (&["b", "c"], 123),
        (&["a", "c"], 23),
        // The digest of the compressed layer is another one.
        (&[layer("a").as_str()], 123),
    ] {
        for end in [":1", &format!("@{digest}")] {
            assert_eq!(
                registry.measure_image(end, here).await.unwrap(),
                weight(missing, &["arm64"]),
                "{here:?}"
            );
        }
    }
    registry.image(Some("none"), "amd64", &[]);
    assert_eq!(registry.measure_image(":none", &[]).await.unwrap(), weight(0, &["amd64"]));
    registry.image(Some("twice"), "arm64", &[("a", 5), ("e", 32), ("b", 7), ("e", 32)]);
    assert_eq!(
        registry.measure_image(":twice", &["a"]).await.unwrap(),
        weight(39, &["arm64"]),
        "fetched once"
    );
}

#[tokio::test]
async fn of_an_index_the_manifest_for_the_engine_is_weighed() {
    let registry = Registry::start();
    let [amd64, arm64, v6, v7, v5] =
        [("amd64", 1), ("arm64", 20), ("arm", 300), ("arm", 4000), ("arm", 50_000)]
            .map(|(name, size)| registry.image(None, name, &[("a", size)]));
    let x86 = registry.image(None, "386", &[("a", 600_000)]);
    let index = json!({ "schemaVersion": 2, "manifests": [
        entry(&amd64, "linux", "amd64", ""),
        entry(&v6, "linux", "arm", "v6"),
        entry(&v7, "linux", "arm", "v7"),
        entry(&arm64, "linux", "arm64", "v8"),
        entry(&amd64, "windows", "s390x", ""),
        entry(&amd64, "unknown", "unknown", ""),
        { "digest": amd64, "size": 7 },
    ] });
    let digest = registry.manifest(Some("all"), &index);
    let all = ["amd64", "arm", "arm64"];
    for (architecture, missing) in
        [("amd64", 1), ("arm64", 20), ("arm", 4000), ("s390x", 0), ("unknown", 0), ("", 0)]
    {
        for end in [":all", &format!("@{digest}")] {
            let found = measure_image(&Http::new().unwrap(), &registry.reference(end), architecture, None)
                .await
                .unwrap();
            assert_eq!(weighed(&found, &[]), weight(missing, &all), "{architecture}");
        }
    }
    // Machines of 64 bits run what is made for 32.
    let index = json!({ "manifests": [entry(&v5, "linux", "arm", "v5"), entry(&x86, "linux", "386", "")] });
    registry.manifest(Some("old"), &index);
    for (architecture, missing) in [("arm64", 50_000), ("amd64", 600_000), ("arm", 50_000)] {
        let found = measure_image(&Http::new().unwrap(), &registry.reference(":old"), architecture, None)
            .await
            .unwrap();
        assert_eq!(weighed(&found, &[]), weight(missing, &["386", "arm"]), "{architecture}");
        assert!(found.fits(architecture), "{architecture}");
    }
    // Indexes in an index: containerd follows them.
    let nested = registry.manifest(None, &json!({ "manifests": [entry(&arm64, "linux", "arm64", "")] }));
    registry.manifest(Some("nested"), &json!({ "manifests": [entry(&nested, "linux", "arm64", "")] }));
    assert_eq!(registry.measure_image(":nested", &[]).await.unwrap(), weight(20, &["arm64"]));
    let mut deep = nested;
    for _ in 0..3 {
        deep = registry.manifest(Some("deep"), &json!({ "manifests": [entry(&deep, "linux", "arm64", "")] }));
    }
    assert!(registry.error(":deep").await.contains("its indexes name each other more than 3 deep"));
}

#[tokio::test]
async fn no_answer_that_makes_no_sense_is_believed_or_breaks_anything() {
    let registry = Registry::start();
    let config = registry.blob(&json!({ "architecture": "arm64", "rootfs": { "diff_ids": ["a", "b"] } }));
    let of = |sizes: [Value; 2]| {
        let layers: Vec<_> =
            sizes.iter().map(|size| json!({ "digest": layer(&size.to_string()), "size": size })).collect();
        json!({ "config": { "digest": config, "size": 9 }, "layers": layers })
    };
    let other = format!("sha256:{}", "0".repeat(64));
    registry.answer(&format!("/v2/lab/web/blobs/{other}"), 200, "", "{}");
    let no_config = |digest: &str| json!({ "config": { "digest": digest, "size": 9 }, "layers": [] });
    for (body, expected) in [
        (of([json!(1), json!(2)]), ""),
        (of([json!(1), json!(-2)]), "its manifest cannot be read: invalid value: integer `-2`, expected u64"),
        (of([json!(1), json!(1_u64 << 51)]), "it has a layer of 2251799813685248 bytes"),
        (of([json!(1), json!(u64::MAX)]), "it has a layer of 18446744073709551615 bytes"),
        (of([json!(1), json!(1e30)]), "its manifest cannot be read"),
        (of([json!(1), json!("2")]), "its manifest cannot be read"),
        (json!({ "config": { "digest": config, "size": 9 }, "layers": [] }), "has 0 layers and its config 2"),
        (json!({ "schemaVersion": 1, "fsLayers": [] }), "of a kind that is no longer used"),
        (
            json!({ "manifests": [], "layers": [], "config": { "digest": config, "size": 9 } }),
            "neither that of an image",
        ),
        (json!({ "layers": [] }), "neither that of an image"),
        (json!([]), "its manifest cannot be read"),
        (json!("x"), "its manifest cannot be read"),
        (no_config("sha256:../../secret"), "\"sha256:../../secret\" is not a digest"),
        (no_config(&other), "its config is not what its digest says"),
        (json!({ "manifests": [entry("latest", "linux", "arm64", "")] }), "\"latest\" is not a digest"),
    ] {
        registry.manifest(Some("bad"), &body);
        match registry.measure_image(":bad", &[]).await {
            Ok(weighed) => assert_eq!((weighed, expected), (weight(3, &["arm64"]), ""), "{body}"),
            Err(error) => {
                let error = error.why.to_string();
                assert!(!expected.is_empty() && error.contains(expected), "{body}: {error}");
            }
        }
    }
    registry.answer("/v2/lab/web/manifests/text", 200, "", "<html>");
    assert!(registry.error(":text").await.contains("its manifest cannot be read"));
    registry.answer(&format!("/v2/lab/web/manifests/{other}"), 200, "", of([json!(1), json!(2)]).to_string());
    assert!(registry.error(&format!("@{other}")).await.contains("its manifest is not what its digest says"));
}

#[tokio::test]
async fn nothing_without_end_is_read() {
    let registry = Registry::start();
    registry.answer("/v2/lab/web/manifests/huge", 200, "", vec![b' '; (1 << 20) + 1]);
    assert!(registry.error(":huge").await.contains("its answer has more than 1048576 bytes"));
    let config = vec![b' '; (1 << 20) + 1];
    let digest = digest(&config);
    registry.answer(&format!("/v2/lab/web/blobs/{digest}"), 200, "", config);
    registry
        .manifest(Some("huge-config"), &json!({ "config": { "digest": digest, "size": 2 }, "layers": [] }));
    assert!(registry.error(":huge-config").await.contains("its answer has more than 1048576 bytes"));
}

#[tokio::test]
async fn a_registry_that_is_busy_says_until_when() {
    let registry = Registry::start();
    let date = "Date: Wed, 25 Nov 2026 08:00:00 GMT\r\nRetry-After: Wed, 25 Nov 2026 08:02:00 GMT\r\n";
    for (status, headers, after) in [
        (429, "Retry-After: 7\r\n", Some(7)),
        (503, "Retry-After: 100000\r\n", Some(3600)),
        (429, date, Some(120)),
        (429, "", None),
        (500, "Retry-After: 7\r\n", None),
    ] {
        registry.answer("/v2/lab/web/manifests/1", status, headers, "");
        let error = registry.measure_image(":1", &[]).await.unwrap_err();
        assert_eq!(error.after, after.map(Duration::from_secs), "{status} {headers}");
        assert!(error.why.to_string().contains(&format!("status {status}")), "{}", error.why);
    }
    for (status, is_it) in [(404, "is not in its registry"), (403, "does not let us read")] {
        registry.answer("/v2/lab/web/manifests/1", status, "", "");
        let error = registry.error(":1").await;
        assert!(error.contains(is_it), "{error}");
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_and_shown_for_all() {
    let registry = Registry::start();
    let digest = registry.image(Some("1"), "arm64", &[("a", 100)]);
    let realm = format!("http://{}/token", registry.address);
    let challenge = format!(
        "WWW-Authenticate: Bearer realm=\"{realm}\",service=\"r\",scope=\"repository:lab/web:pull,push\"\r\n"
    );
    registry.answer("/denied", 401, &challenge, "");
    registry.answer("/token", 200, "", r#"{"token":"let-me-in"}"#);
    assert_eq!(registry.measure_image(&format!("@{digest}"), &[]).await.unwrap(), weight(100, &["arm64"]));
    let asked = registry.asked();
    let manifest = format!("GET /v2/lab/web/manifests/{digest}");
    assert_eq!(
        asked[..3],
        [
            manifest.clone(),
            "GET /token?scope=repository%3Alab%2Fweb%3Apull&service=r".to_owned(),
            format!("{manifest} Bearer let-me-in"),
        ]
    );
    assert!(asked[3].starts_with("GET /v2/lab/web/blobs/") && asked[3].ends_with(" Bearer let-me-in"));
    assert_eq!(asked.len(), 4);
    // Who gives the tokens may be busy as well.
    registry.answer("/token", 429, "Retry-After: 9\r\n", "");
    assert_eq!(registry.measure_image(":1", &[]).await.unwrap_err().after, Some(Duration::from_secs(9)));
    // A token that does not help is not asked for again.
    registry.asked();
    registry.answer("/token", 200, "", r#"{"token":"wrong"}"#);
    assert!(registry.error(":1").await.contains("does not let us read"));
    assert_eq!(registry.asked().len(), 3);
    // Only the token service of a registry of the cloud gets the login.
    let image = registry.reference(":1");
    let login = |registry: &str| RegistryLogin {
        cloud: String::new(),
        username: "d_1".to_owned(),
        password: "key".to_owned(),
        registries: vec![registry.to_owned()],
    };
    let own = registry.address.to_string();
    for (of, shown) in [(own.as_str(), " Basic ZF8xOmtleQ=="), ("registry.example.com", "")] {
        assert!(measure_image(&Http::new().unwrap(), &image, "arm64", Some(&login(of))).await.is_err());
        let asked = registry.asked();
        assert_eq!(
            asked[1],
            format!("GET /token?scope=repository%3Alab%2Fweb%3Apull&service=r{shown}"),
            "{of}"
        );
        assert!(asked[2].ends_with(" Bearer wrong"), "{asked:?}");
    }
}
