//! The examples of docs/server.md, taken out of the page and run: a fleet server and a registry behind nginx and behind
//! Caddy, with a device, an operator and a stranger.
//!
//! Names, paths and every rule stay as the page has them. Ports and certificates are the test's own, and requests to port
//! 443 of the page's names reach the proxy through a tunnel (`HTTPS_PROXY`), from an operator's address or another one.
//! Without nginx or Caddy (scripts/prepare.sh unpacks them) a test is skipped; with `COTTER_SKIP_NOTHING=1` it fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and has an environment and tasks of its own"
)]

#[path = "support/nginx.rs"]
mod nginx;
mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nginx::{
    FLEET, REGISTRY, block, certificates, find, free_port, listening, localized, replaced, start_nginx,
    tunnel,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{FleetServer, Program, eventually};

const PAGE: &str = "docs/server.md";
const PATIENCE: Duration = Duration::from_secs(30);

/// A fleet server and a registry as the page sets them up, and what stands in front of them.
struct Site {
    dir: tempfile::TempDir,
    fleet: FleetServer,
    _registry: Program,
    registry_address: String,
    proxy: Option<Program>,
    port: u16,
    /// Tunnels to the proxy from 127.0.0.1, an operator's address, and from 127.0.0.2.
    operator: SocketAddr,
    stranger: SocketAddr,
}

impl Site {
    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("cotter-").tempdir_in("/tmp").unwrap();
        let at = |name: &str| dir.path().join(name);
        certificates(dir.path());

        let settings =
            replaced(&block(PAGE, "yaml"), "/var/lib/docker-registry", at("blobs").to_str().unwrap());
        let settings = replaced(&settings, "127.0.0.1:5000", "127.0.0.1:0");
        fs::write(at("registry.yml"), settings).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(at("registry.yml"));
        let registry = Program::start("the registry", command, &at("registry.log"));
        let registry_address = eventually("the registry listens", PATIENCE, || {
            let log = registry.log();
            let rest = log.split_once("listening on 127.0.0.1:")?.1;
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            (rest.len() > port.len()).then(|| format!("127.0.0.1:{port}"))
        });
        let port = free_port();
        Self {
            fleet: FleetServer::start_in(dir.path(), Vec::new()),
            _registry: registry,
            registry_address,
            proxy: None,
            port,
            operator: tunnel(Ipv4Addr::LOCALHOST, port),
            stranger: tunnel(Ipv4Addr::new(127, 0, 0, 2), port),
            dir,
        }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// An example of the page with the addresses of this test's servers.
    fn example(&self, language: &str) -> String {
        let text =
            replaced(&block(PAGE, language), "127.0.0.1:7300", self.fleet.url.trim_start_matches("http://"));
        replaced(&text, "127.0.0.1:5000", &self.registry_address)
    }

    fn by_nginx(&mut self, nginx: &Path) {
        let text = localized(&self.example("nginx"), self.dir.path(), self.port);
        self.proxy = Some(start_nginx(nginx, self.dir.path(), &text, self.port));
    }

    fn by_caddy(&mut self, caddy: &Path) {
        let tls = format!("\ttls {} {}", self.path("leaf.pem"), self.path("leaf.key"));
        let mut text = self.example("caddyfile");
        for name in [FLEET, REGISTRY] {
            text = replaced(&text, &format!("{name} {{\n"), &format!("{name} {{\n{tls}\n"));
        }
        let own = format!(
            "{{\n\tadmin off\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n\thttps_port {}\n\
             \tstorage file_system {}\n}}\n",
            self.port,
            self.path("caddy")
        );
        fs::write(self.path("Caddyfile"), own + &text).unwrap();
        let mut command = Command::new(caddy);
        command.args(["run", "--adapter", "caddyfile", "--config", &self.path("Caddyfile")]);
        command.env("HOME", self.dir.path()).env("XDG_CONFIG_HOME", self.dir.path());
        self.proxy = Some(listening("Caddy", command, self.dir.path(), self.port));
    }

    /// A client that trusts the test's authority and asks through a tunnel.
    fn client(&self, tunnel: SocketAddr) -> reqwest::Client {
        drop(rustls::crypto::ring::default_provider().install_default());
        let authority = reqwest::Certificate::from_pem(&fs::read(self.path("ca.pem")).unwrap()).unwrap();
        let proxy = reqwest::Proxy::all(format!("http://{tunnel}")).unwrap();
        reqwest::Client::builder().proxy(proxy).tls_certs_only([authority]).build().unwrap()
    }

    /// The environment by which our own commands do the same.
    fn through(&self, mut command: Command) -> Command {
        command.env("HTTPS_PROXY", format!("http://{}", self.operator)).env("NO_PROXY", "");
        command.env("SSL_CERT_FILE", self.path("ca.pem"));
        command
    }

    /// Runs `cotter ARGS... --json` as an operator on another machine.
    #[track_caller]
    fn cotter(&self, args: &[&str]) -> Value {
        let mut command = self.through(Program::cotter());
        command.env("COTTER_FLEET_URL", format!("https://{FLEET}"));
        command.env("COTTER_TOKEN_FILE", self.fleet.token_file()).args(args).arg("--json");
        let out = command.output().unwrap();
        assert!(out.status.success(), "cotter {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Uploads a blob as docker does: begins, sends the content, ends.
async fn upload(client: &reqwest::Client, image: &str, content: Vec<u8>) -> Value {
    let (size, digest) = (content.len(), digest(&content));
    let location = |answer: &reqwest::Response| answer.headers()["location"].to_str().unwrap().to_owned();
    let begun = client.post(format!("https://{REGISTRY}/v2/{image}/blobs/uploads/")).send().await.unwrap();
    assert_eq!(begun.status().as_u16(), 202);
    let sent = client.patch(location(&begun)).body(content).send().await.unwrap();
    assert_eq!(sent.status().as_u16(), 202);
    let next = location(&sent);
    assert!(next.starts_with(&format!("https://{REGISTRY}/v2/")), "the registry sends clients to {next}");
    let ended = client.put(format!("{next}&digest={digest}")).send().await.unwrap();
    assert_eq!(ended.status().as_u16(), 201);
    json!({ "size": size, "digest": digest })
}

/// Pushes an image with a layer that is larger than proxies take by themselves.
async fn push(client: &reqwest::Client, image: &str, tag: &str) -> String {
    let mut layer = upload(client, image, vec![7; 3 << 20]).await;
    layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
    let description = json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [] } });
    let mut config = upload(client, image, description.to_string().into_bytes()).await;
    config["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "layers": [layer], "config": config });
    let put =
        client.put(format!("https://{REGISTRY}/v2/{image}/manifests/{tag}")).header("Content-Type", kind);
    let pushed = put.body(manifest.to_string()).send().await.unwrap();
    assert_eq!(pushed.status().as_u16(), 201);
    pushed.headers()["docker-content-digest"].to_str().unwrap().to_owned()
}

/// A device sends the largest report that the server takes.
async fn reports(client: &reqwest::Client, created: &Value) {
    let (uuid, key) = ("0123456789abcdef0123456789abcdef", "a-key-of-the-porch-1234");
    let provisioning_key = created["provisioning_key"].as_str().unwrap();
    let device = json!({ "application": created["fleet"]["number"], "device_type": "generic-amd64", "uuid": uuid,
                         "api_key": key, "device_name": "porch" });
    let register = client.post(format!("https://{FLEET}/device/register")).bearer_auth(provisioning_key);
    let registered = register.json(&device).send().await.unwrap();
    assert_eq!(registered.status().as_u16(), 201, "{}", registered.text().await.unwrap());
    let report = json!({ uuid: { "os_version": "an OS of the porch", "nonsense": "x".repeat(500 * 1024) } });
    let report = client.patch(format!("https://{FLEET}/device/v3/state")).bearer_auth(key).json(&report);
    assert_eq!(report.send().await.unwrap().status().as_u16(), 200);
}

/// What an operator, a device and a stranger do on a site.
async fn is_used(site: &Site) {
    let operator = site.client(site.operator);
    let pushed = push(&operator, "lab/web", "1").await;
    let created = site.cotter(&["fleet", "create", "lab"]);
    let image = format!("{REGISTRY}/lab/web");
    fs::write(site.path("compose.yml"), format!("services: {{ web: {{ image: '{image}:1' }} }}\n")).unwrap();
    let release =
        site.cotter(&["release", "create", "lab", "--file", &site.path("compose.yml"), "--commit", "one"]);
    assert!(release.to_string().contains(&format!("{image}@{pushed}")), "{release}");

    // A real agent. It has no engine, and needs none to register and to poll.
    let key = created["created"]["provisioning_key"].as_str().unwrap();
    fs::write(site.path("provisioning.key"), key).unwrap();
    Command::new("chmod").args(["600", &site.path("provisioning.key")]).status().unwrap();
    let settings = format!(
        "state_dir = \"{dir}/state\"\nruntime_dir = \"{dir}/run\"\n[engine]\nsocket = \"{dir}/no-engine\"\n\
         [cloud]\nendpoint = \"https://{FLEET}\"\nfleet = {}\nprovisioning_key_file = \"{dir}/provisioning.key\"\n\
         device_name = \"kitchen\"\n",
        created["created"]["fleet"]["number"],
        dir = site.dir.path().display(),
    );
    fs::write(site.path("agent.toml"), settings).unwrap();
    let mut command = site.through(Program::cotter());
    command.args(["agent", "--config", &site.path("agent.toml")]);
    let mut agent = Program::start("the agent", command, &site.dir.path().join("agent.log"));
    eventually("the agent registers and polls through the proxy", PATIENCE, || {
        assert!(agent.is_running(), "the agent ended: {}", agent.log());
        let listed = site.cotter(&["device", "list"]);
        let device = listed["devices"].as_array()?.first()?;
        let is_right = device["name"] == "kitchen" && device["target"] == "one";
        (is_right && device["is_online"] == true).then_some(())
    });
    reports(&site.client(site.stranger), &created["created"]).await;
    let shown = site.cotter(&["device", "show", "porch"]);
    assert!(shown.to_string().contains("an OS of the porch"), "{shown}");

    let stranger = site.client(site.stranger);
    let status = async |client: &reqwest::Client, method: reqwest::Method, url: &str| {
        client.request(method, url).send().await.unwrap().status().as_u16()
    };
    let (get, post) = (reqwest::Method::GET, reqwest::Method::POST);
    let (ping, fleets) = (format!("https://{FLEET}/ping"), format!("https://{FLEET}/api/v1/fleets"));
    let manifest = format!("https://{REGISTRY}/v2/lab/web/manifests/{pushed}");
    let uploads = format!("https://{REGISTRY}/v2/lab/web/blobs/uploads/");
    assert_eq!(status(&stranger, get.clone(), &ping).await, 200);
    assert_eq!(status(&stranger, get.clone(), &manifest).await, 200, "a device pulls from any address");
    assert_eq!(status(&stranger, post, &uploads).await, 403, "a stranger may push");
    assert_eq!(
        status(&stranger, reqwest::Method::DELETE, &manifest).await,
        403,
        "a stranger may delete an image"
    );
    assert_eq!(status(&stranger, get.clone(), &fleets).await, 403, "a stranger reaches the operators' API");
    assert_eq!(status(&operator, get, &fleets).await, 401, "the token is not asked for");
}

#[tokio::test]
async fn the_example_for_nginx_serves_a_fleet() {
    let Some(nginx) = find("nginx") else { return };
    let mut site = Site::start();
    site.by_nginx(&nginx);
    is_used(&site).await;
    let secret = "0123456789abcdef";
    let asked = format!("https://{FLEET}/v7/device?apikey={secret}");
    site.client(site.operator).get(asked).send().await.unwrap();
    // nginx writes the line after it has answered.
    let line = format!("{FLEET} GET /v7/device 400");
    let log = eventually("nginx logs the request", PATIENCE, || {
        let log = fs::read_to_string(site.path("access.log")).unwrap();
        log.contains(&line).then_some(log)
    });
    assert!(!log.contains(secret), "{log}");
}

#[tokio::test]
async fn the_example_for_caddy_serves_a_fleet() {
    let Some(caddy) = find("caddy") else { return };
    let mut site = Site::start();
    site.by_caddy(&caddy);
    is_used(&site).await;
}
