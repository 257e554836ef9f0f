//! The real fleet server with a certificate: operators, an agent and strangers over TLS, renewals, and certificates that
//! cannot be used.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use support::{Program, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
const UUID: &str = "0123456789abcdef0123456789abcdef";
const KEY: &str = "a-key-of-the-porch-1234";

/// A folder with an authority, and a fleet server with a certificate of it.
struct Site {
    folder: tempfile::TempDir,
    program: Option<Program>,
    address: String,
}

fn openssl(args: &[&str]) {
    let output = Command::new("openssl").args(args).output().expect("openssl runs");
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

impl Site {
    /// With `authority.pem`, and `leaf.pem` and `leaf.key` for 127.0.0.1.
    fn prepare() -> Self {
        let site =
            Self { folder: tempfile::tempdir().unwrap(), program: None, address: "127.0.0.1:0".to_owned() };
        let (key, pem) = (site.path("authority.key"), site.path("authority.pem"));
        let made = ["req", "-x509", "-days", "9", "-subj", "/CN=lab", "-keyout", &key, "-out", &pem];
        openssl(&[&made[..], &NEW_KEY].concat());
        fs::write(site.path("extensions"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        site.certify("leaf", "9");
        site
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Makes a certificate `NAME.pem` for so many days, and its key `NAME.key`.
    fn certify(&self, name: &str, days: &str) {
        let at = |name: &str| self.path(name);
        let (key, request, pem) = (at(&format!("{name}.key")), at("request"), at(&format!("{name}.pem")));
        let asked = ["req", "-subj", "/CN=127.0.0.1", "-keyout", &key, "-out", &request];
        openssl(&[&asked[..], &NEW_KEY].concat());
        let [ca, ca_key, extensions] = ["authority.pem", "authority.key", "extensions"].map(at);
        let sign = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"];
        openssl(&[&sign[..], &["-days", days, "-extfile", &extensions, "-out", &pem]].concat());
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn serve(&self, words: &[&str]) -> Command {
        let mut command = Program::fleet();
        command.args(["serve", "--listen", &self.address, "--data-dir", &self.path("data")]).args(words);
        command
    }

    fn start(more: &[&str]) -> Self {
        let mut site = Self::prepare();
        let (cert, key) = (site.path("leaf.pem"), site.path("leaf.key"));
        let command = site.serve(&[&["--tls-cert", &cert, "--tls-key", &key][..], more].concat());
        let mut program = Program::start("the fleet server", command, Path::new(&site.path("log")));
        site.address = eventually("the fleet server listens", PATIENCE, || {
            assert!(program.is_running(), "it ended: {}", program.log());
            Some(program.log().split_once("url=https://")?.1.split_once(' ')?.0.to_owned())
        });
        site.program = Some(program);
        site
    }

    fn program(&mut self) -> &mut Program {
        self.program.as_mut().unwrap()
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Runs `cotter ARGS... --json` as an operator who trusts the authority.
    fn try_cotter(&self, args: &[&str]) -> Output {
        let mut command = Program::cotter();
        command.args(args).args(["--json", "--ca-file", &self.path("authority.pem")]);
        command
            .env("COTTER_FLEET_URL", self.url())
            .env("COTTER_TOKEN_FILE", self.path("data/operator.token"));
        command.output().unwrap()
    }

    #[track_caller]
    fn cotter(&self, args: &[&str]) -> Value {
        let out = self.try_cotter(args);
        assert!(out.status.success(), "cotter {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// The serial number of the certificate that a new client is shown, and the protocol that was chosen.
    fn shown(&self, alpn: &[&str]) -> Result<(Vec<u8>, Option<Vec<u8>>), std::io::Error> {
        let mut roots = rustls::RootCertStore::empty();
        let authority = fs::read(self.path("authority.pem")).unwrap();
        roots.add(CertificateDer::from_pem_slice(&authority).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        let certificate = connection.peer_certificates().unwrap()[0].to_vec();
        Ok((certificate, connection.alpn_protocol().map(<[u8]>::to_vec)))
    }

    fn client(&self) -> reqwest::Client {
        drop(rustls::crypto::ring::default_provider().install_default());
        let authority = fs::read(self.path("authority.pem")).unwrap();
        let authority = reqwest::Certificate::from_pem(&authority).unwrap();
        reqwest::Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap()
    }

    /// Sends text without TLS, and reads until the end.
    fn in_the_clear(&self, text: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(text).unwrap();
        let (mut bytes, mut part) = (Vec::new(), [0; 1024]);
        while let Ok(n @ 1..) = stream.read(&mut part) {
            bytes.extend_from_slice(&part[..n]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn certificate(path: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(&fs::read(path).unwrap()).unwrap().to_vec()
}

/// A device without an agent registers and polls.
async fn registers(site: &Site, client: &reqwest::Client) {
    let created = site.cotter(&["fleet", "create", "lab"])["created"].clone();
    let device = json!({ "application": created["fleet"]["number"], "device_type": "generic-amd64",
                         "uuid": UUID, "api_key": KEY, "device_name": "porch" });
    let register = client.post(format!("{}/device/register", site.url()));
    let register = register.bearer_auth(created["provisioning_key"].as_str().unwrap()).json(&device);
    assert_eq!(register.send().await.unwrap().status().as_u16(), 201);
}

async fn polls(site: &Site, client: &reqwest::Client) -> u16 {
    let state = client.get(format!("{}/device/v3/{UUID}/state", site.url())).bearer_auth(KEY);
    state.send().await.unwrap().status().as_u16()
}

#[test]
fn an_operator_and_an_agent_use_a_server_with_a_certificate() {
    let site = Site::start(&[]);
    let created = site.cotter(&["fleet", "create", "lab"])["created"].clone();
    let key = site.path("provisioning.key");
    fs::write(&key, created["provisioning_key"].as_str().unwrap()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    // It has no engine, and needs none to register and to poll.
    let settings = format!(
        "state_dir = \"{dir}/state\"\nruntime_dir = \"{dir}/run\"\n[engine]\nsocket = \"{dir}/no-engine\"\n\
         [cloud]\nendpoint = \"{}\"\nca_file = \"{dir}/authority.pem\"\nfleet = {}\n\
         provisioning_key_file = \"{key}\"\ndevice_name = \"kitchen\"\n",
        site.url(),
        created["fleet"]["number"],
        dir = site.folder.path().display(),
    );
    fs::write(site.path("agent.toml"), settings).unwrap();
    let mut command = Program::cotter();
    command.args(["agent", "--config", &site.path("agent.toml")]);
    let mut agent = Program::start("the agent", command, Path::new(&site.path("agent.log")));
    eventually("the agent registers and polls", PATIENCE, || {
        assert!(agent.is_running(), "the agent ended: {}", agent.log());
        let listed = site.cotter(&["device", "list"]);
        let device = listed["devices"].as_array()?.first()?;
        (device["name"] == "kitchen" && device["is_online"] == true).then_some(())
    });

    // Without the authority the command says what to do, and the token is not sent.
    let mut command = Program::cotter();
    command.args(["fleet", "list"]).env("COTTER_FLEET_URL", site.url());
    command
        .env("COTTER_TOKEN_FILE", site.path("data/operator.token"))
        .env("SSL_CERT_FILE", site.path("none"));
    let out = command.output().unwrap();
    assert_eq!(out.status.code(), Some(20), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn http_1_is_the_only_protocol_inside() {
    let site = Site::start(&[]);
    let protocol = |alpn: &[&str]| site.shown(alpn).map(|(_, protocol)| protocol);
    assert_eq!(protocol(&["h2", "http/1.1"]).unwrap().as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(protocol(&[]).unwrap(), None);
    assert!(protocol(&["h2"]).is_err());
}

#[test]
fn who_speaks_no_tls_is_told_so_or_closed() {
    let site = Site::start(&[]);
    let answer = site.in_the_clear(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 400 ") && body.contains("use https://"), "{answer}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{answer}");
    assert!(
        !site.in_the_clear(b"\x16\x03\x01nonsense that is no greeting").contains("HTTP"),
        "an alert at most"
    );
    assert_eq!(site.in_the_clear(b"\0\0\0\0\0\0\0\0").find("HTTP"), None);
    assert_eq!(site.cotter(&["fleet", "list"])["fleets"], json!([]), "it serves on");
}

#[tokio::test]
async fn handshakes_that_never_end_keep_no_device_out() {
    let site = Site::start(&["--connections", "64"]);
    let client = site.client();
    registers(&site, &client).await;
    // A silent one, a half greeting, and one that stops in the middle of a record.
    let texts: [&[u8]; 3] = [b"", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\x00\x05\x01\x00"];
    let hanging: Vec<TcpStream> = texts
        .into_iter()
        .cycle()
        .take(200)
        .map(|text| {
            let mut stream = TcpStream::connect(&site.address).unwrap();
            stream.write_all(text).unwrap();
            stream
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(polls(&site, &site.client()).await, 200, "a device with a new connection");
    }
    assert_eq!(site.cotter(&["fleet", "list"])["fleets"][0]["name"], "lab", "an operator");
    drop(hanging);
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_a_bad_one_is_not() {
    let mut site = Site::start(&[]);
    let client = site.client();
    registers(&site, &client).await;
    let shown = |site: &Site| site.shown(&[]).unwrap().0;
    let first = certificate(&site.path("leaf.pem"));
    assert_eq!(shown(&site), first);

    // As certbot does it: new files take the place of the old ones, and then the server gets a signal.
    site.certify("next", "9");
    fs::rename(site.path("next.pem"), site.path("leaf.pem")).unwrap();
    fs::rename(site.path("next.key"), site.path("leaf.key")).unwrap();
    site.program().signal("HUP");
    let second = certificate(&site.path("leaf.pem"));
    assert_ne!(first, second);
    eventually("the new certificate is shown", PATIENCE, || (shown(&site) == second).then_some(()));
    assert_eq!(polls(&site, &client).await, 200, "the connection from before the renewal");

    // Without a signal it takes two checks. Until both files are there, the old certificate stays.
    site.certify("next", "9");
    fs::rename(site.path("next.pem"), site.path("leaf.pem")).unwrap();
    let error = "the renewed TLS certificate cannot be used; the last one stays in use";
    eventually("half a renewal is reported", PATIENCE * 2, || {
        assert_eq!(shown(&site), second);
        let log = site.program.as_ref().unwrap().log();
        let line = log.lines().find(|line| line.contains(error))?.to_owned();
        assert!(
            line.contains("ERROR") && line.contains("its key does not belong to the certificate"),
            "{line}"
        );
        Some(())
    });
    fs::rename(site.path("next.key"), site.path("leaf.key")).unwrap();
    let third = certificate(&site.path("leaf.pem"));
    eventually("the third certificate is shown", PATIENCE * 2, || (shown(&site) == third).then_some(()));
    let log = site.program().log();
    assert_eq!(log.matches(error).count(), 1, "{log}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_one_line_and_a_code() {
    let site = Site::prepare();
    site.certify("other", "9");
    fs::write(site.path("empty"), "").unwrap();
    fs::write(site.path("text"), "hello\n").unwrap();
    fs::set_permissions(site.path("text"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(site.path("empty"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::copy(site.path("leaf.key"), site.path("open.key")).unwrap();
    fs::set_permissions(site.path("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(site.path("broken.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    for (cert, key, expected) in [
        (
            "none.pem",
            "leaf.key",
            "tls_cert = DIR/none.pem: it cannot be read: No such file or directory (os error 2)",
        ),
        (
            "leaf.pem",
            "none.key",
            "tls_key = DIR/none.key: it cannot be read: No such file or directory (os error 2)",
        ),
        ("empty", "leaf.key", "tls_cert = DIR/empty: it is empty"),
        ("leaf.pem", "empty", "tls_key = DIR/empty: it is empty"),
        (
            "text",
            "leaf.key",
            "tls_cert = DIR/text: it has no certificate; it must have the server's certificate and then those of its chain, as PEM",
        ),
        (
            "leaf.pem",
            "text",
            "tls_key = DIR/text: it has no private key; it must have one without a password, as PEM",
        ),
        ("broken.pem", "leaf.key", "tls_cert = DIR/broken.pem: its certificate cannot be used: "),
        ("leaf.pem", "other.key", "tls_key = DIR/other.key: its key does not belong to the certificate"),
        (
            "leaf.pem",
            "open.key",
            "tls_key = DIR/open.key: other users can read or change it (mode 644); chmod 600 or 640 it",
        ),
        ("data/..", "leaf.key", "tls_cert = DIR/data/..: it is not a file of at most 1 MiB"),
    ] {
        fs::create_dir_all(site.path("data")).unwrap();
        let out =
            site.serve(&["--tls-cert", &site.path(cert), "--tls-key", &site.path(key)]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).replace(&site.path(""), "DIR/");
        assert_eq!(out.status.code(), Some(78), "{cert} {key}: {said}");
        let errors: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        let is_right = matches!(errors[..], [line] if line.starts_with(&format!("error: {expected}")));
        assert!(is_right, "{cert} {key}: {said}");
    }
    let out = site.serve(&["--tls-cert", &site.path("leaf.pem")]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(78));
    assert_eq!(
        said,
        "error: tls_cert is set, but tls_key is not; TLS needs both: a certificate and its key\n"
    );
}

#[test]
fn an_expired_certificate_is_a_warning() {
    let site = Site::prepare();
    site.certify("old", "0");
    let command = site.serve(&["--tls-cert", &site.path("old.pem"), "--tls-key", &site.path("old.key")]);
    let mut program = Program::start("the fleet server", command, Path::new(&site.path("log")));
    let log = eventually("the fleet server listens", PATIENCE, || {
        assert!(program.is_running(), "it ended: {}", program.log());
        program.log().contains("url=https://").then(|| program.log())
    });
    let warning = "the TLS certificate has expired, so devices and operators refuse it";
    let line = log.lines().find(|line| line.contains(warning)).expect("a warning");
    assert!(line.contains("WARN") && line.contains("old.pem"), "{line}");
}

/// Only root can open a port for other machines in a network of its own; here it is enough that the server agrees.
#[test]
fn other_machines_need_tls_or_a_word() {
    let site = Site::prepare();
    let serve = |words: &[&str]| {
        let mut command = Program::fleet();
        // The folder is refused after the address was accepted, so nothing is opened.
        command.args(["serve", "--listen", "0.0.0.0:1", "--data-dir", "/dev/null"]).args(words);
        let out = command.stdout(Stdio::null()).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (cert, key) = (site.path("leaf.pem"), site.path("leaf.key"));
    assert_eq!(serve(&[]).0, Some(78));
    for words in [&["--tls-cert", &cert, "--tls-key", &key][..], &["--insecure"], &["--allow-remote"]] {
        let (code, said) = serve(words);
        assert!(code == Some(75) && said.contains("/dev/null"), "{words:?}: {said}");
    }
}
