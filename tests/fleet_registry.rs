//! Tags become digests: against a real registry (Debian's docker-registry) on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cotter::http::Http;
use cotter::model::ImageRef;
use cotter::registry::{RegistryError, resolve};
use serde_json::{Value, json};
use tempfile::TempDir;

/// `docker-registry serve` in a folder of its own. Killed when dropped.
struct Registry {
    child: Child,
    host: String,
    _dir: TempDir,
}

impl Registry {
    async fn start(login: Option<&str>) -> Self {
        let dir = TempDir::new().unwrap();
        let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config(dir.path(), &host, login))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child.expect("docker-registry is installed (scripts/prepare.sh does it)");
        let registry = Self { child, host, _dir: dir };
        for _ in 0..100 {
            if http().get(format!("http://{}/v2/", registry.host)).send().await.is_ok() {
                return registry;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("docker-registry did not start");
    }

    /// Pushes an image without layers, and returns its digest as the registry says it.
    async fn push(&self, name: &str, tag: &str) -> String {
        let config = b"{}";
        let digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let base = format!("http://{}/v2/{name}", self.host);
        let begun = http().post(format!("{base}/blobs/uploads/")).send().await.unwrap();
        let location = begun.headers()["location"].to_str().unwrap();
        let put = http().put(format!("{location}&digest={digest}")).body(config.to_vec());
        assert_eq!(put.send().await.unwrap().status().as_u16(), 201);
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "layers": [],
            "config": { "mediaType": "application/vnd.docker.container.image.v1+json", "size": 2, "digest": digest },
        });
        let put = http().put(format!("{base}/manifests/{tag}")).header("Content-Type", kind);
        let pushed = put.body(manifest.to_string()).send().await.unwrap();
        assert_eq!(pushed.status().as_u16(), 201);
        pushed.headers()["docker-content-digest"].to_str().unwrap().to_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn config(dir: &Path, host: &str, login: Option<&str>) -> std::path::PathBuf {
    let mut config = json!({
        "version": 0.1,
        "log": { "level": "error" },
        "storage": { "filesystem": { "rootdirectory": dir.join("blobs") } },
        "http": { "addr": host },
    });
    if let Some(login) = login {
        std::fs::write(dir.join("htpasswd"), login).unwrap();
        config["auth"] = json!({ "htpasswd": { "realm": "lab", "path": dir.join("htpasswd") } });
    }
    let path = dir.join("registry.yml");
    std::fs::write(&path, Value::to_string(&config)).unwrap();
    path
}

fn http() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn image(text: &str) -> ImageRef {
    ImageRef::parse(text).unwrap()
}

#[tokio::test]
async fn a_tag_becomes_the_digest_that_was_pushed() {
    let registry = Registry::start(None).await;
    let digest = registry.push("lab/web", "1.0").await;
    let host = &registry.host;
    let found = resolve(&Http::new().unwrap(), &image(&format!("{host}/lab/web:1.0"))).await.unwrap();
    assert_eq!(found.to_string(), format!("{host}/lab/web@{digest}"));

    for missing in ["lab/web:2.0", "lab/nope:1.0"] {
        let error = resolve(&Http::new().unwrap(), &image(&format!("{host}/{missing}"))).await.unwrap_err();
        assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
        assert!(error.to_string().contains("push it first"), "{error}");
    }
}

#[tokio::test]
async fn a_registry_that_wants_a_login_has_an_error_of_its_own() {
    // The user "nobody" with an unknown password.
    let login = "nobody:$2y$05$abcdefghijklmnopqrstuuO6Y0gS6TqHqkQ8rWmPZlqY9bJmZ0Z3e\n";
    let registry = Registry::start(Some(login)).await;
    let error =
        resolve(&Http::new().unwrap(), &image(&format!("{}/lab/web:1.0", registry.host))).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    assert!(error.to_string().contains("without a login"), "{error}");
}

#[tokio::test]
async fn no_registry_and_no_question() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = resolve(&Http::new().unwrap(), &image(&format!("{unused}/lab/web:1.0"))).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("does not answer (Connection refused"), "{error}");
    let exact = image(&format!("{unused}/lab/web@sha256:{}", "a".repeat(64)));
    assert_eq!(
        resolve(&Http::new().unwrap(), &exact).await.unwrap(),
        exact,
        "an exact image is not asked for"
    );
}
