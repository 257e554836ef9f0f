//! The VPN of a balena cloud on real parts: a real agent, a real engine, a real openvpn on this device, and a real OpenVPN
//! server with the settings of open-balena-vpn in a network namespace. The cloud is a stand-in.
//!
//! Needs root, openvpn and /dev/net/tun. Without them it is skipped with a line that says why; with `COTTER_SKIP_NOTHING=1` it
//! fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, says why it is skipped, and reads the real clock"
)]

mod client;
mod server;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use client::Client;
use server::{Server, authority, run, try_run};
use support::{Agent, FakeCloud, Lab, eventually, stays};

const APP: &str = "01010101010101010101010101010101";

/// How long a tunnel may take, with the waits of openvpn between two attempts.
const TO_CONNECT: Duration = Duration::from_secs(60);

/// Why this machine cannot run the tests; `None` if it can.
fn obstacle() -> Option<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !status.lines().any(|line| line.starts_with("Uid:") && line.ends_with("\t0")) {
        return Some("network interfaces are made here, which needs root");
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("/dev/net/tun is not there");
    }
    (!Path::new("/usr/sbin/openvpn").exists())
        .then_some("openvpn is not installed; scripts/prepare.sh installs it")
}

/// Returns whether a test must be left out, and says why.
fn is_skipped() -> bool {
    let Some(why) = obstacle() else { return false };
    assert!(std::env::var_os("COTTER_SKIP_NOTHING").is_none(), "{why}");
    println!("skipped: the VPN of the cloud: {why}");
    true
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A device with its cloud and the VPN of the cloud.
struct Scene<'lab> {
    server: Server,
    cloud: FakeCloud,
    agent: Agent<'lab>,
    client: Client,
    device: String,
    port: u16,
}

impl<'lab> Scene<'lab> {
    /// Starts all of it but the server. The VPN is on, and `number` tells the interfaces of tests apart.
    #[track_caller]
    fn new(lab: &'lab Lab, number: u8, settings: &[&str]) -> Self {
        let (server, cloud) = (Server::prepare(lab), FakeCloud::start());
        cloud.offer_vpn(&server.config(), &server.ca());
        let image = lab.image("r1");
        let service = json!({
            "id": 1, "image_id": 71, "image": image, "environment": {}, "labels": { "io.cotter.trial.soak": "1s" },
            "composition": { "stop_grace_period": "1s", "volumes": ["data:/data"] },
        });
        let apps = json!({ APP: {
            "id": 1, "name": "shop", "class": "fleet",
            "releases": { "one": { "id": 9, "services": { "web": service }, "networks": {}, "volumes": { "data": {} } } },
        } });
        cloud.target("one", &apps);
        let mut agent = Agent::prepare(lab, &cloud.url, &cloud.fleet(lab), "till");
        let (port, device) = (free_port(), format!("cotter-vpn{}{number}", std::process::id() % 10_000));
        agent.set(&format!("supervisor_api.port={port}"));
        agent.set("vpn.enabled=yes");
        agent.set(&format!("vpn.device={device}"));
        settings.iter().for_each(|setting| agent.set(setting));
        agent.start_again();
        let client = Client::keep(&agent.dir().join("run"));
        Self { server, cloud, agent, client, device, port }
    }

    fn vpn(&self, field: &str) -> String {
        self.agent.status_value(&format!("/cloud/vpn/{field}")).as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn until(&self, state: &str) {
        let mut last = String::new();
        let found = support::eventually_or(TO_CONNECT, || {
            last = format!("{} ({})", self.vpn("state"), self.vpn("why"));
            (self.vpn("state") == state).then_some(())
        });
        assert!(found.is_some(), "not {state} but {last}:\n{}\n{}", self.agent.log(), self.openvpn_log());
    }

    fn openvpn_log(&self) -> String {
        fs::read_to_string(self.agent.dir().join("openvpn.log")).unwrap_or_default()
    }

    fn client_conf(&self) -> PathBuf {
        self.agent.dir().join("run/vpn/client.conf")
    }

    /// The uuid and the key with which openvpn logs in.
    #[track_caller]
    fn credentials(&self) -> (String, String) {
        eventually("the settings of openvpn", Duration::from_secs(30), || {
            let text = fs::read_to_string(self.client_conf().with_file_name("credentials")).ok()?;
            let (uuid, key) = text.trim_end().split_once('\n')?;
            self.client_conf().exists().then(|| (uuid.to_owned(), key.to_owned()))
        })
    }

    /// Lets the server take this device, and waits for the tunnel.
    #[track_caller]
    fn connect(&mut self, more: &[&str]) {
        let (uuid, key) = self.credentials();
        self.server.allow(&uuid, &key);
        self.server.start(more);
        self.until("connected");
    }

    /// A field of the last report that has it, as text.
    #[track_caller]
    fn reported(&self, name: &str) -> String {
        eventually(&format!("{name} is reported"), Duration::from_secs(30), || {
            self.cloud.reports().iter().rev().find_map(|body| {
                let body: Value = serde_json::from_str(body).ok()?;
                let value = body.as_object()?.values().next()?.get(name)?.clone();
                Some(value.as_str().map_or(value.to_string(), str::to_owned))
            })
        })
    }

    /// Asks as the cloud does, with this key.
    fn ask(&self, key: &str, request: &str, body: &str) -> (u16, String) {
        let (method, path) = request.split_once(' ').unwrap();
        let url = format!("{method} http://{}:{}{path}?apikey={key}", self.vpn("address"), self.port);
        self.server.ask(&url, body, &[])
    }

    #[track_caller]
    fn until_answered(&self, key: &str) {
        eventually("the supervisor API answers", Duration::from_secs(10), || {
            (self.ask(key, "GET /ping", "").0 == 200).then_some(())
        });
    }

    /// When the container of the service was started.
    #[track_caller]
    fn started(&self) -> String {
        let web = eventually("web runs", Duration::from_secs(60), || self.agent.service("web"));
        web.raw.pointer("/State/StartedAt").and_then(Value::as_str).unwrap().to_owned()
    }
}

/// The routes of this machine.
fn routes() -> String {
    run(&["ip", "route", "show", "table", "all"]) + &run(&["ip", "-6", "route", "show", "table", "all"])
}

fn name_servers() -> String {
    fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}

#[test]
fn the_cloud_orders_through_the_tunnel() {
    if is_skipped() {
        return;
    }
    let lab = Lab::new("vpn");
    let mut scene =
        Scene::new(&lab, 1, &["policy.reboot=no", "policy.supervisor_api=no", "policy.other_apps=no"]);
    scene.agent.until_status("/apps/0/update", "done");
    scene.connect(&[]);
    assert_eq!(scene.reported("api_port"), scene.port.to_string());
    let key = scene.reported("api_secret");
    let (_, device_key) = scene.credentials();
    assert_ne!(key, device_key);
    let own = scene.vpn("address");
    assert!(own.starts_with(&format!("100.{}.", scene.server.pool())), "{own}");
    assert_eq!(scene.vpn("peer"), scene.server.gateway);
    scene.until_answered(&key);

    for (request, body, status, expected) in [
        ("GET /v1/healthy", "", 200, "OK"),
        ("GET /v2/device/vpn", "", 200, r#""connected":true"#),
        ("GET /v2/applications/state", "", 200, r#""shop":{"#),
        ("GET /v2/state/status", "", 200, r#""containerId":""#),
        ("POST /v1/update", r#"{"force":false}"#, 204, ""),
        ("POST /v1/reboot", "", 403, "policy.reboot"),
        ("POST /v1/blink", "", 501, "no light"),
        ("POST /v1/restart", r#"{"appId":2}"#, 404, "App not found"),
    ] {
        let (answered, text) = scene.ask(&key, request, body);
        assert_eq!(answered, status, "{request}: {text}");
        assert!(text.contains(expected), "{request}: {text}");
    }
    // An update is a poll at once.
    let polls = scene.cloud.polls().len();
    assert_eq!(scene.ask(&key, "POST /v1/update", r#"{"force":true}"#).0, 204);
    eventually("a poll", Duration::from_secs(5), || (scene.cloud.polls().len() > polls).then_some(()));

    let before = scene.started();
    assert_eq!(scene.ask(&key, "POST /v1/restart", r#"{"appId":1}"#), (200, "OK".to_owned()));
    eventually("a restart", Duration::from_secs(30), || (scene.started() != before).then_some(()));
    let before = scene.started();
    let purged = scene.ask(&key, "POST /v1/purge", r#"{"appId":1}"#);
    assert_eq!(purged, (200, r#"{"Data":"OK","Error":""}"#.to_owned()));
    eventually("a start with empty volumes", Duration::from_secs(30), || {
        (scene.started() != before).then_some(())
    });

    for wrong in ["", "x", &key[1..], &device_key] {
        assert_eq!(scene.ask(wrong, "POST /v1/restart", r#"{"appId":1}"#).0, 401, "{wrong}");
    }
    // The wire of this machine is no way in, neither by its own address nor by that of the tunnel, and nor is the machine.
    let at = |host: &str| format!("GET http://{host}:{}/ping?apikey={key}", scene.port);
    assert_eq!(scene.server.ask(&at(&scene.server.here), "", &[]).0, 0);
    let wire = scene.server.inside(&["ip", "-o", "-4", "route", "get", &scene.server.here]);
    let wire = wire.split(" dev ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert_eq!(scene.server.ask(&at(&own), "", &["--interface", &wire]).0, 0);
    let url = at(&own);
    // The kernel lets this machine connect; its address is not that of the server.
    let local = try_run(&["curl", "--silent", "--max-time", "5", url.trim_start_matches("GET ")]);
    assert_ne!(String::from_utf8_lossy(&local.stdout), "OK");
    assert_eq!(scene.ask(&key, "GET /ping", "").0, 200, "the tunnel still is");
    let reports = scene.cloud.reports().join("\n");
    assert!(!reports.contains(&own), "the address of the tunnel is no address of the device: {reports}");
}

#[test]
fn a_tunnel_outlives_the_agent_and_comes_back_after_its_server() {
    if is_skipped() {
        return;
    }
    let lab = Lab::new("vpn-back");
    let mut scene = Scene::new(&lab, 2, &[]);
    // Refused, until the server knows the key.
    let (uuid, key) = scene.credentials();
    scene.server.allow(&uuid, "another key");
    scene.server.start(&[]);
    scene.until("refused");
    scene.server.allow(&uuid, &key);
    scene.until("connected");
    let secret = scene.reported("api_secret");
    scene.until_answered(&secret);

    let pid = scene.client.pid();
    scene.agent.stop();
    assert_eq!(scene.ask(&secret, "GET /ping", "").0, 0);
    scene.agent.start_again();
    scene.until("connected");
    scene.until_answered(&secret);
    assert_eq!(
        (scene.client.pid(), scene.client.pid().is_some()),
        (pid, true),
        "openvpn was not started again"
    );

    scene.server.kill();
    scene.until("unreachable");
    assert!(scene.vpn("why").contains("Connection refused"), "{}", scene.vpn("why"));
    scene.server.start(&[]);
    scene.until("connected");
    scene.until_answered(&secret);

    // The cloud turns it off, and on again.
    let target = |etag: &str, value: &str| {
        let config = json!({ "BALENA_SUPERVISOR_VPN_CONTROL": value });
        scene.cloud.target_with(etag, &config, &json!({}));
    };
    target("two", "false");
    scene.until("turned_off");
    eventually("openvpn has ended", Duration::from_secs(10), || scene.client.pid().is_none().then_some(()));
    assert!(!scene.client_conf().exists());
    assert!(!try_run(&["ip", "link", "show", &scene.device]).status.success());
    target("three", "true");
    scene.until("connected");

    // The tunnel of another identity, such as before `cotter join --force`, ends also while the new cloud does not answer.
    scene.agent.stop();
    let credentials = scene.client_conf().with_file_name("credentials");
    let own = fs::read_to_string(&credentials).unwrap();
    fs::write(&credentials, "another\nidentity\n").unwrap();
    scene.agent.set("cloud.endpoint=http://127.0.0.1:9");
    scene.agent.start_again();
    eventually("openvpn has ended", Duration::from_secs(40), || scene.client.pid().is_none().then_some(()));
    assert!(!scene.client_conf().exists());
    scene.agent.stop();
    let endpoint = format!("cloud.endpoint={}", scene.cloud.url);
    scene.agent.set(&endpoint);
    scene.agent.start_again();
    scene.until("connected");
    assert_eq!(fs::read_to_string(&credentials).unwrap(), own);

    // The owner turns it off.
    scene.agent.stop();
    scene.agent.set("vpn.enabled=no");
    scene.agent.start_again();
    eventually("openvpn has ended", Duration::from_secs(20), || scene.client.pid().is_none().then_some(()));
    assert_eq!(scene.agent.status_value("/cloud/vpn"), Value::Null);
    assert!(!scene.client_conf().exists() && !scene.client_conf().with_file_name("credentials").exists());
}

#[test]
fn a_hostile_server_changes_nothing_on_the_device() {
    if is_skipped() {
        return;
    }
    let lab = Lab::new("vpn-hostile");
    let mut scene = Scene::new(&lab, 3, &[]);
    scene.credentials();
    let before = name_servers();
    let evil = lab.dir().join("evil");
    fs::write(&evil, format!("#!/bin/sh\ntouch {}/was-run\n", lab.dir().display())).unwrap();
    let evil = evil.display().to_string();
    let mut pushes: Vec<String> = [
        "redirect-gateway def1 bypass-dhcp",
        "route 198.51.100.0 255.255.255.0",
        "route-ipv6 2001:db8::/32",
        "ifconfig-ipv6 2001:db8::2/64 2001:db8::1",
        "dhcp-option DNS 203.0.113.66",
        "dns server 1 address 203.0.113.66",
        "setenv EVIL 1",
        "setenv-safe EVIL 1",
        "script-security 3",
        "ip-win32 dynamic",
        "auth-token abcdef",
        "inactive 1",
        "explicit-exit-notify 3",
    ]
    .map(str::to_owned)
    .to_vec();
    for directive in
        ["up", "route-up", "ipchange", "down", "plugin", "config", "log", "tls-verify", "iproute"]
    {
        pushes.push(format!("{directive} {evil}"));
    }
    // As many as a server sends at all.
    pushes.extend((0..300).map(|number| format!("route 203.0.113.{} 255.255.255.255", number % 250)));
    let more: Vec<&str> = pushes.iter().flat_map(|push| ["--push", push]).collect();
    scene.connect(&more);
    stays("the tunnel", Duration::from_secs(3), || scene.vpn("state"));
    assert_eq!(name_servers(), before);
    let routes = routes();
    for range in ["198.51.100.", "203.0.113.", "0.0.0.0/1", "128.0.0.0/1", "2001:db8:"] {
        assert!(!routes.contains(range), "{range}: {routes}");
    }
    let over = run(&["ip", "route", "show", "dev", &scene.device]);
    assert_eq!(over.lines().count(), 1, "only the peer: {over}");
    assert!(over.starts_with(&scene.server.gateway), "{over}");
    let addresses = run(&["ip", "-6", "addr", "show", "dev", &scene.device, "scope", "global"]);
    assert_eq!(addresses.trim(), "");
    assert!(!lab.dir().join("was-run").exists());
    let environ = fs::read(format!("/proc/{}/environ", scene.client.pid().unwrap())).unwrap();
    assert!(!String::from_utf8_lossy(&environ).contains("EVIL"));
}

#[test]
fn a_server_gets_no_traffic_by_its_addresses_and_no_trust_without_its_certificate() {
    if is_skipped() {
        return;
    }
    let lab = Lab::new("vpn-bad");
    let mut scene = Scene::new(&lab, 4, &[]);
    let (uuid, key) = scene.credentials();
    scene.server.allow(&uuid, &key);
    // It takes the place of a neighbour of this device.
    let neighbour = scene.server.there.clone();
    let clients = lab.dir().join("clients");
    fs::create_dir_all(&clients).unwrap();
    let own = format!("{}.9", scene.server.gateway.rsplit_once('.').unwrap().0);
    fs::write(clients.join("DEFAULT"), format!("ifconfig-push {own} {neighbour}\n")).unwrap();
    scene.server.start(&["--client-config-dir", &clients.display().to_string()]);
    scene.until("addresses");
    assert!(scene.vpn("why").contains(&neighbour), "{}", scene.vpn("why"));
    eventually("openvpn has ended", Duration::from_secs(10), || scene.client.pid().is_none().then_some(()));
    assert!(!scene.client_conf().exists());
    scene.server.kill();

    // The cloud names another authority.
    let other = authority(&lab.dir().join("other"), "other authority");
    scene.agent.stop();
    scene.cloud.offer_vpn(&scene.server.config(), &other);
    scene.server.start(&[]);
    scene.agent.start_again();
    scene.until("not_trusted");
    assert!(scene.vpn("remedy").contains("DEVICE_CONFIG_OPENVPN_CA"));
    let shown = String::from_utf8(scene.agent.cli(&["status"]).stdout).unwrap();
    assert!(shown.contains("the certificate of the VPN server is not trusted"), "{shown}");
}

#[test]
fn nothing_of_a_hostile_cloud_gets_into_the_settings() {
    if is_skipped() {
        return;
    }
    let lab = Lab::new("vpn-cloud");
    let scene = Scene::new(&lab, 5, &[]);
    let (config, ca) = (scene.server.config(), scene.server.ca());
    scene.credentials();
    let text = fs::read_to_string(scene.client_conf()).unwrap();
    for evil in ["upscript", "downscript", "resin-vpn", "/etc/openvpn", "script-security 2"] {
        assert!(config.contains(evil) || evil == "/etc/openvpn");
        assert!(!text.contains(evil), "{evil}: {text}");
    }
    assert!(text.contains(&format!("\nremote {} 443 tcp-client\n", scene.server.there)), "{text}");
    let mut scene = scene;
    for (config, ca, expected) in [
        ("remote evil;reboot 443".to_owned(), ca.clone(), "is no host"),
        ("remote 192.0.2.1 443 tcp\nproto $(reboot)".to_owned(), ca.clone(), "is no protocol"),
        (
            config.clone(),
            format!("{ca}</ca>\nup /bin/evil\n-----BEGIN CERTIFICATE-----\n"),
            "ends within a certificate",
        ),
        (config.clone(), "no certificate".to_owned(), "has no certificate"),
        ("remote a 1\n".repeat(10_000), ca.clone(), "bytes"),
    ] {
        scene.agent.stop();
        scene.cloud.offer_vpn(&config, &ca);
        scene.agent.start_again();
        scene.until("bad_offer");
        assert!(scene.vpn("why").contains(expected), "{}", scene.vpn("why"));
        assert!(!scene.client_conf().exists());
    }
    scene.agent.stop();
    scene.cloud.offer_vpn("client\n", &ca);
    scene.agent.start_again();
    scene.until("no_vpn");
}
