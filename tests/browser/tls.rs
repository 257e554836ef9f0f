//! The dashboard behind TLS: of the server itself, and of a proxy. Without a browser.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use tempfile::TempDir;

use crate::support::{Program, eventually};

/// A fleet server that is started with these words.
struct Site {
    dir: TempDir,
    url: String,
    _program: Program,
}

impl Site {
    fn start(dir: TempDir, words: &[&str]) -> Self {
        let mut command = Program::fleet();
        command.args(["serve", "--listen", "127.0.0.1:0"]).arg("--data-dir").arg(dir.path().join("data"));
        command.args(words);
        let mut program = Program::start("the fleet server", command, &dir.path().join("log"));
        let url = eventually("the fleet server listens", Duration::from_secs(30), || {
            assert!(program.is_running(), "it ended: {}", program.log());
            Some(program.log().split_once("url=http")?.1.split_once(' ')?.0.to_owned())
        });
        Self { dir, url: format!("http{url}"), _program: program }
    }

    fn client(&self) -> Client {
        drop(rustls::crypto::ring::default_provider().install_default());
        let builder = Client::builder().no_proxy().redirect(Policy::none());
        let builder = match fs::read(self.dir.path().join("cert.pem")) {
            Ok(pem) => builder.tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()]),
            Err(_) => builder,
        };
        builder.build().unwrap()
    }

    /// Signs in as a browser does, by a proxy that says this of its own connection.
    async fn sign_in(&self, proxied: Option<&str>) -> Response {
        let token = fs::read_to_string(self.dir.path().join("data/operator.token")).unwrap();
        let request = self.client().post(format!("{}/sign-in", self.url)).header("origin", &self.url);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = match proxied {
            Some(proto) => request.header("x-forwarded-proto", proto),
            None => request,
        };
        request.body(format!("token={}", token.trim())).send().await.unwrap()
    }

    async fn status_with(&self, cookie: &str, proxied: Option<&str>) -> u16 {
        let request = self.client().get(format!("{}/fleets", self.url)).header("cookie", cookie);
        let request = match proxied {
            Some(proto) => request.header("x-forwarded-proto", proto),
            None => request,
        };
        request.send().await.unwrap().status().as_u16()
    }
}

fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("cotter-dash-").tempdir().unwrap()
}

/// Makes a certificate for 127.0.0.1 that is its own authority.
fn certify(dir: &Path) {
    let words = "req -x509 -days 9 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=127.0.0.1 \
                 -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem";
    let output = Command::new("openssl").args(words.split_whitespace()).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::set_permissions(dir.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn where_the_server_speaks_tls_the_cookie_is_secure_and_browsers_use_nothing_else() {
    let dir = folder();
    certify(dir.path());
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let site = Site::start(dir, &["--tls-cert", &cert, "--tls-key", &key]);
    assert!(site.url.starts_with("https://"), "{}", site.url);
    let answer = site.sign_in(None).await;
    assert_eq!(answer.status(), 303);
    let cookie = header(&answer, "set-cookie");
    assert!(
        cookie.starts_with("__Host-cotter=") && cookie.ends_with("; HttpOnly; SameSite=Strict; Secure"),
        "{cookie}"
    );
    assert_eq!(header(&answer, "strict-transport-security"), "max-age=15552000");
    let pair = cookie.split(';').next().unwrap();
    assert_eq!(site.status_with(pair, None).await, 200);
    assert_eq!(site.status_with(&pair.replace("__Host-", ""), None).await, 303, "not by its other name");
    let page = site.client().get(format!("{}/sign-in", site.url)).send().await.unwrap();
    assert_eq!(header(&page, "strict-transport-security"), "max-age=15552000");
}

#[tokio::test]
async fn a_trusted_proxy_says_whether_the_browser_uses_tls() {
    let site = Site::start(folder(), &["--trusted-proxy", "127.0.0.1"]);
    let answer = site.sign_in(Some("https")).await;
    let cookie = header(&answer, "set-cookie");
    assert!(cookie.starts_with("__Host-cotter=") && cookie.ends_with("; Secure"), "{cookie}");
    // This header is the proxy's.
    assert_eq!(header(&answer, "strict-transport-security"), "");
    let pair = cookie.split(';').next().unwrap();
    assert_eq!(site.status_with(pair, Some("https")).await, 200);
    assert_eq!(site.status_with(pair, Some("http")).await, 303, "a page without TLS has another cookie");
    for proto in [None, Some("http"), Some("https, http")] {
        let cookie = header(&site.sign_in(proto).await, "set-cookie");
        assert!(cookie.starts_with("cotter=") && !cookie.contains("Secure"), "{proto:?}: {cookie}");
    }
    // Another client is not believed.
    let alone = Site::start(folder(), &["--trusted-proxy", "192.0.2.1"]);
    let cookie = header(&alone.sign_in(Some("https")).await, "set-cookie");
    assert!(cookie.starts_with("cotter=") && !cookie.contains("Secure"), "{cookie}");
}
