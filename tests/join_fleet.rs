//! `cotter join URL`, `cotter leave` and `cotter fleet join-file` on the real binaries: from a fleet server to a device
//! that polls, and back. No engine is needed: what a device runs is not the matter here.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use support::{FakeCloud, FleetServer, Program, eventually, unix_get};

/// A device with settings of its own, a fleet server with fleets `greenhouse` and `other`, and a systemctl that is a script.
struct Desk {
    folder: tempfile::TempDir,
    server: FleetServer,
    /// A key of `greenhouse`, and one of `other`.
    keys: [String; 2],
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = FleetServer::start_in(folder.path(), Vec::new());
        let key = |name: &str| {
            let made = server.cli_json(&["fleet", "create", name]);
            made["created"]["provisioning_key"].as_str().expect("a key").to_owned()
        };
        let keys = [key("greenhouse"), key("other")];
        let desk = Self { folder, server, keys };
        let dir = desk.dir();
        desk.write(
            "agent.toml",
            &format!(
                "instance = \"join\"\nstate_dir = \"{dir}/state\"\nruntime_dir = \"{dir}/run\"\n[engine]\nsocket = \
                 \"{dir}/none.sock\"\n"
            ),
        );
        desk
    }

    fn dir(&self) -> String {
        self.folder.path().display().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| format!("({e})"))
    }

    /// Puts a systemctl before the real one: it notes what it is asked for, and runs the agent.
    fn with_systemctl(&self) {
        std::fs::create_dir(self.path("bin")).expect("a folder");
        let (dir, cotter) = (self.dir(), Program::binary().display().to_string());
        let stop = format!(
            "if [ -e {dir}/agent.pid ]; then p=$(cat {dir}/agent.pid); kill $p; rm {dir}/agent.pid; i=0; while kill -0 $p \
             2>/dev/null && [ $i -lt 200 ]; do sleep 0.1; i=$((i + 1)); done; fi"
        );
        let script = format!(
            "#!/bin/sh\necho \"$@\" >> {dir}/systemctl.log\ncase \"$1\" in\nshow) echo loaded;;\nrestart) {stop}\n{cotter} \
             agent --config {dir}/agent.toml > {dir}/agent.log 2>&1 < /dev/null &\necho $! > \
             {dir}/agent.pid;;\ndisable) {stop};;\nesac\n"
        );
        self.write("bin/systemctl", &script);
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path("bin/systemctl"), executable).expect("its mode");
    }

    /// Runs `cotter WORDS`: the exit code, and what was said, with names for what differs from run to run.
    fn cotter(&self, words: &[&str], input: &str) -> (i32, String) {
        let words = words.iter().map(|word| {
            let word = word.replace("KEY", &self.keys[0]).replace("ELSE", &self.keys[1]);
            word.replace("DIR", &self.dir()).replace("URL", &self.server.url)
        });
        let mut command = Program::cotter();
        let path = format!("{}/bin:/usr/bin:/bin", self.dir());
        command.args(words).arg("--config").arg(self.path("agent.toml")).env("PATH", path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        // One that does not read its input has ended already.
        let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
        assert!(self.keys.iter().all(|key| !said.contains(key)), "{said}");
        let said = said.trim_end().replace(&self.dir(), "DIR").replace(&self.server.url, "URL");
        (output.status.code().expect("no signal"), said)
    }

    /// Whether anything of a join is there.
    fn has_joined(&self) -> bool {
        ["agent.d", "provisioning.key", "cloud-ca.pem", "state"].iter().any(|name| self.path(name).exists())
    }

    /// Stops the agent as the unit would.
    fn stop_agent(&self) {
        let stopped = Command::new(self.path("bin/systemctl")).arg("disable").status();
        assert!(stopped.expect("it runs").success());
    }

    fn status(&self) -> Option<Value> {
        Some(unix_get(&self.path("run/status.sock"), "/v1/status")?.json())
    }

    fn devices(&self) -> Vec<Value> {
        self.server.cli_json(&["device", "list"])["devices"].as_array().expect("a list").clone()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(self.path("agent.pid")) {
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
    }
}

/// Speaks TLS before a server, with a certificate of an authority of its own.
struct Tls {
    url: String,
    authority: PathBuf,
}

impl Tls {
    fn start(folder: &Path, behind: &str) -> Self {
        let at = |name: &str| folder.join(name).display().to_string();
        let openssl = |args: &[&str]| {
            let made =
                Command::new("openssl").args(args).stderr(Stdio::null()).status().expect("openssl runs");
            assert!(made.success(), "openssl {args:?}");
        };
        let (authority, authority_key, request) =
            (at("authority.pem"), at("authority.key"), at("request.pem"));
        let (certificate, key) = (at("tls.pem"), at("tls.key"));
        let key_kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let made =
            ["req", "-x509", "-days", "9", "-subj", "/CN=lab", "-keyout", &authority_key, "-out", &authority];
        openssl(&[&made[..], &key_kind].concat());
        let asked = ["req", "-subj", "/CN=127.0.0.1", "-keyout", &key, "-out", &request];
        openssl(&[&asked[..], &key_kind].concat());
        std::fs::write(folder.join("extensions"), "subjectAltName=IP:127.0.0.1\n").expect("a file");
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &authority,
            "-CAkey",
            &authority_key,
            "-CAcreateserial",
            "-days",
            "9",
            "-extfile",
            &at("extensions"),
            "-out",
            &certificate,
        ]);
        drop(rustls::crypto::ring::default_provider().install_default());
        let pem = |path: &str| std::fs::read(path).expect("a file");
        let chain = vec![rustls::pki_types::CertificateDer::from(der(&pem(&certificate)))];
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(der(&pem(&key))).into();
        let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        let config = Arc::new(config.expect("a certificate and its key"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("its address"));
        let behind = behind.trim_start_matches("http://").to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, behind) = (Arc::clone(&config), behind.clone());
                std::thread::spawn(move || forward(stream, config, &behind));
            }
        });
        Self { url, authority: folder.join("authority.pem") }
    }
}

/// The one block of a PEM file.
fn der(pem: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(pem);
    let inside = text.lines().filter(|line| !line.starts_with("-----")).collect::<String>();
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = inside.bytes().filter(|c| *c != b'=').map(value).collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let number = four.iter().fold(0_u32, |sum, digit| (sum << 6) | u32::from(*digit));
        let number = number << (6 * (4 - four.len()));
        number.to_be_bytes()[1..four.len()].to_vec()
    });
    bytes.collect()
}

/// Forwards one request and its answer.
fn forward(stream: TcpStream, config: Arc<rustls::ServerConfig>, behind: &str) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut tls = rustls::StreamOwned::new(rustls::ServerConnection::new(config).ok()?, stream);
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        tls.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let length = text.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length: ").and_then(|n| n.parse::<usize>().ok())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    tls.read_exact(&mut body).ok()?;
    let mut server = TcpStream::connect(behind).ok()?;
    let head = text.trim_end().to_owned() + "\r\nConnection: close\r\n\r\n";
    server.write_all(&[head.as_bytes(), &body].concat()).ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).ok()?;
    tls.write_all(&answer).ok()?;
    tls.conn.send_close_notify();
    tls.flush().ok()
}

/// A row: what is wrong, the words after `join`, standard input, the exit code, and the one line.
type Row<'a> = (&'a str, &'a str, &'a str, i32, String);

#[test]
fn every_refusal_is_one_line_with_a_remedy_and_nothing_is_written() {
    let desk = Desk::new();
    let tls = Tls::start(desk.folder.path(), &desk.server.url);
    let balena = FakeCloud::start();
    desk.write("empty.key", "\n");
    let revoked = desk.server.cli_json(&["fleet", "provisioning-key", "create", "greenhouse"]);
    let (revoked, id) = (&revoked["created"]["provisioning_key"], &revoked["created"]["details"]["id"]);
    let (revoked, id) = (revoked.as_str().expect("a key"), id.as_str().expect("its id"));
    desk.server.cli(&["fleet", "provisioning-key", "revoke", "greenhouse", id]);
    let no_key = "it is not a provisioning key, which is one word of 8 to 512 characters; make one with `cotter fleet \
                  provisioning-key create FLEET`";
    let needs = "an address needs --fleet and --key; `cotter fleet join-file FLEET --line` at the fleet server prints the \
                 complete command";
    let plain = "the address of a cloud has no user, password, query or fragment; write e.g. https://fleet.example.com";
    let other_fleet = |given: &str| {
        format!(
            "this provisioning key registers devices in fleet greenhouse (number 1), not in \"{given}\"; join with --fleet \
             greenhouse, or with a key of the fleet that you mean"
        )
    };
    let with = |url: &str, rest: &str| format!("{url} --fleet {rest}");
    let rows: Vec<Row<'_>> = vec![
        (
            "no scheme", "fleet.example.com --fleet greenhouse --key KEY", "", 2,
            "\"fleet.example.com\" is not the address of a cloud; write https://fleet.example.com".into(),
        ),
        (
            "another scheme", "ftp://a --fleet greenhouse --key KEY", "", 2,
            "\"ftp://a\" is not the address of a cloud; write e.g. https://fleet.example.com".into(),
        ),
        (
            "in the clear", "http://192.0.2.1:7300 --fleet greenhouse --key KEY", "", 2,
            "the keys of this device would go to 192.0.2.1 unencrypted, because http:// has no TLS; use https://, or \
             --insecure on a network you trust".into(),
        ),
        ("no key", "URL --fleet greenhouse", "", 2, needs.into()),
        ("no fleet", "URL --key KEY", "", 2, needs.into()),
        ("a key too short", "URL --fleet greenhouse --key short", "", 2, format!("--key: {no_key}")),
        (
            "no key file", "URL --fleet greenhouse --key ./no.key", "", 2,
            "--key: there is no file ./no.key; give the key, a file that has it, or -".into(),
        ),
        ("an empty key file", "URL --fleet greenhouse --key DIR/empty.key", "", 2, format!("--key: {no_key}")),
        (
            "a folder", "URL --fleet greenhouse --key DIR", "", 2,
            "--key: DIR is a folder; give the key, a file that has it, or -".into(),
        ),
        ("a query", "URL?key=x --fleet greenhouse --key KEY", "", 2, plain.into()),
        ("a password", "https://user:password@fleet.example.com --fleet greenhouse --key KEY", "", 2, plain.into()),
        ("nothing on standard input", "URL --fleet greenhouse --key -", "", 2, format!("--key: {no_key}")),
        (
            "a wrong key", "URL --fleet greenhouse --key -", "0123456789abcdef\n", 4,
            "this is no provisioning key of this server; make one there with `cotter fleet provisioning-key create FLEET`"
                .into(),
        ),
        (
            "a revoked key", "URL --fleet greenhouse --key -", revoked, 4,
            format!("provisioning key {id} was revoked at TIME; make another with `cotter fleet provisioning-key create greenhouse`"),
        ),
        ("no such fleet", "URL --fleet tomato --key KEY", "", 5, other_fleet("tomato")),
        ("the key of another fleet", "URL --fleet other --key KEY", "", 5, other_fleet("other")),
        ("another number", "URL --fleet 2 --key KEY", "", 5, other_fleet("2")),
        (
            "no server", "http://127.0.0.1:1 --fleet greenhouse --key KEY", "", 20,
            "cloud http://127.0.0.1:1 cannot be reached: Connection refused (os error 111); check the address and the network"
                .into(),
        ),
        (
            "not a cloud", "URL/nowhere --fleet greenhouse --key KEY", "", 20,
            "cloud URL/nowhere answered /ping with status 404: {\"error\":{\"code\":\"no_such_route\",\"message\":\"there is no \
             /nowhere/ping\"}}; check that this is the address of a cloud".into(),
        ),
        (
            "no file of an authority", "URL --fleet greenhouse --key KEY --ca-file DIR/none.pem", "", 2,
            "--ca-file DIR/none.pem: it cannot be read: No such file or directory (os error 2)".into(),
        ),
        (
            "no authority in it", "URL --fleet greenhouse --key KEY --ca-file DIR/agent.toml", "", 2,
            "--ca-file DIR/agent.toml: it has no certificate; give the authority's, as PEM".into(),
        ),
        (
            "no name",
            "URL --fleet greenhouse --key KEY --name ",
            "",
            2,
            "--name \"\" is not accepted: write one line of 1 to 255 characters".into(),
        ),
        (
            "a tag without a value", "URL --fleet greenhouse --key KEY --tag site", "", 2,
            "--tag \"site\" is not accepted: a tag is KEY=VALUE, e.g. site=zurich".into(),
        ),
        (
            "a tag that the server would refuse", "URL --fleet greenhouse --key KEY --tag site=a,b", "", 2,
            "--tag \"site=a,b\" is not accepted: a value has at most 255 bytes of visible characters and single spaces \
             inside, and no ',', '=' or '!'".into(),
        ),
        (
            "options of an address for a file", "DIR/agent.toml --fleet greenhouse", "", 2,
            "--fleet, --key and the other options of an address do not go with a config.json: DIR/agent.toml".into(),
        ),
    ];
    for (what, words, input, code, line) in &rows {
        let words: Vec<_> = ["join"].into_iter().chain(words.split(' ')).collect();
        assert_refused(&desk, what, &words, input, *code, line);
    }
    let exposed = with(&tls.url, "greenhouse --key KEY");
    let line = format!(
        "cloud {} cannot be reached: its certificate is signed by an authority that this machine does not trust; put the \
         certificate of your own authority into /usr/local/share/ca-certificates, with a name that ends in .crt, and run \
         update-ca-certificates; or name your own authority's certificate with --ca-file",
        tls.url
    );
    assert_refused(&desk, "an unknown authority", &words_of(&exposed), "", 20, &line);
    for (what, rest, taken) in [
        ("a name at a balena cloud", "greenhouse --key KEY", "fleet by name"),
        ("tags at a balena cloud", "1 --key KEY --tag site=a", "tags at registration"),
    ] {
        let line = format!(
            "{} is no Cotter fleet server of this version, and takes no {taken}; give the number of the fleet with --fleet, and no --tag",
            balena.url
        );
        assert_refused(&desk, what, &words_of(&with(&balena.url, rest)), "", 2, &line);
    }
    assert_eq!(desk.devices().len(), 0, "no question registers a device");
}

fn words_of(rest: &str) -> Vec<&str> {
    ["join"].into_iter().chain(rest.split(' ')).collect()
}

#[track_caller]
fn assert_refused(desk: &Desk, what: &str, words: &[&str], input: &str, code: i32, line: &str) {
    let (found, said) = desk.cotter(words, input);
    let said = match said.split_once(" was revoked at ") {
        Some((before, after)) => {
            format!("{before} was revoked at TIME;{}", after.split_once(';').map_or("", |(_, rest)| rest))
        }
        None => said,
    };
    assert_eq!((found, said.as_str()), (code, format!("error: {line}").as_str()), "{what}");
    assert!(!desk.has_joined(), "{what}: something was written");
}

#[test]
fn a_device_joins_with_one_command_and_leaves_with_one() {
    let mut desk = Desk::new();
    desk.with_systemctl();
    let tls = Tls::start(desk.folder.path(), &desk.server.url);
    let endpoint = tls.url.clone();
    let authority = tls.authority.display().to_string();
    let mut words = vec!["join", &endpoint, "--fleet", "greenhouse", "--key", "-", "--ca-file", &authority];
    words.extend([
        "--name",
        "kitchen",
        "--tag",
        "site=zurich",
        "--tag",
        "rack=3",
        "--unit",
        "join-test.service",
    ]);
    let key = format!("{}\n", desk.keys[0]);

    // What would be written, and nothing is.
    let (code, said) = desk.cotter(&[&words[..], &["--dry-run"]].concat(), &key);
    let expected = format!(
        "would write DIR/provisioning.key\nwould write DIR/cloud-ca.pem\nwould write DIR/agent.d/50-join.toml\n\
         cloud.endpoint = {endpoint}\ncloud.fleet = greenhouse\ncloud.provisioning_key_file = DIR/provisioning.key\n\
         cloud.device_name = kitchen\ncloud.tags = rack=3,site=zurich\ncloud.ca_file = DIR/cloud-ca.pem\n\
         without --dry-run, this device registers with fleet greenhouse of {endpoint}"
    );
    assert_eq!((code, said), (0, expected));
    assert!(!desk.has_joined() && !desk.path("systemctl.log").exists());

    let (code, said) = desk.cotter(&words, &key);
    assert_eq!(code, 0, "{said}: {}", desk.read("agent.log"));
    let uuid = desk.status().expect("it runs")["device"]["uuid"].as_str().expect("a uuid").to_owned();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "wrote DIR/provisioning.key",
            "wrote DIR/cloud-ca.pem",
            "wrote DIR/agent.d/50-join.toml",
            &format!("this device registers with fleet greenhouse of {endpoint}"),
        ]
    );
    assert!(
        lines[4]
            .starts_with(&format!("this device is {uuid} (kitchen) of {endpoint}; its first poll was at ")),
        "{said}"
    );
    assert_eq!(lines[5..], ["fleet greenhouse has no release for it yet"]);
    assert_eq!(
        desk.read("systemctl.log"),
        "show --property=LoadState --value -- join-test.service\nenable --quiet -- join-test.service\nrestart -- \
         join-test.service\n"
    );
    let mode = |name: &str| desk.path(name).metadata().map_or(0, |file| file.permissions().mode() & 0o777);
    assert_eq!((mode("agent.d/50-join.toml"), mode("cloud-ca.pem")), (0o644, 0o644));
    assert!(desk.read("agent.d/50-join.toml").contains("fleet = \"greenhouse\"\n"));
    let [device] = &desk.devices()[..] else { panic!("one device") };
    assert_eq!(
        (device["uuid"].as_str(), device["name"].as_str(), device["fleet"].as_str()),
        (Some(uuid.as_str()), Some("kitchen"), Some("greenhouse"))
    );
    assert_eq!(device["tags"], serde_json::json!({ "rack": "3", "site": "zurich" }));
    eventually("the key is gone", Duration::from_secs(20), || {
        (!desk.path("provisioning.key").exists()).then_some(())
    });

    leaves(&mut desk, &endpoint, &uuid);
}

/// What is left, is told first, needs a yes, and is not what others wrote.
fn leaves(desk: &mut Desk, endpoint: &str, uuid: &str) {
    desk.write("agent.d/60-mine.toml", "[update]\nsoak = \"1s\"\n");
    let before = desk.read("agent.toml");
    let unit = ["--unit", "join-test.service"];
    let (code, plan) = desk.cotter(&[&["leave", "--dry-run"][..], &unit].concat(), "");
    assert_eq!(code, 0, "{plan}");
    for line in [
        "  the unit join-test.service is stopped and disabled".to_owned(),
        format!("  the identity {uuid} is removed; it joins as a new device after that"),
        format!("  its record at {endpoint} is deleted, if that is a Cotter fleet server"),
        "  DIR/agent.d/50-join.toml is removed".to_owned(),
        "  DIR/cloud-ca.pem is removed".to_owned(),
        "nothing was changed: this was a dry run".to_owned(),
    ] {
        assert!(plan.lines().any(|said| said == line), "{line}: {plan}");
    }
    let (code, said) = desk.cotter(&[&["leave"][..], &unit].concat(), "yes\n");
    assert_eq!(code, 2, "{said}");
    assert!(said.ends_with("error: nothing was changed; without a terminal this needs --yes"), "{said}");
    assert!(desk.status().is_some() && desk.path("agent.d/50-join.toml").exists());

    // Without a unit that could stop it, the agent that runs is left alone.
    let (code, said) = desk.cotter(&["leave", "--yes"], "");
    assert_eq!(code, 75, "{said}");
    assert!(said.contains("an agent still runs with these settings; stop it first"), "{said}");
    assert!(desk.path("agent.d/50-join.toml").exists());

    // What a power cut right after the server has deleted the device leaves.
    let copy = |from: &str, to: &str| {
        let (from, to) = (desk.path(from), desk.path(to));
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs").success());
    };
    let (code, said) = desk.cotter(&[&["leave", "--dry-run"][..], &unit].concat(), "");
    assert_eq!(code, 0, "{said}");
    desk.stop_agent();
    for (from, to) in [("state", "state.cut"), ("agent.d", "agent.d.cut"), ("cloud-ca.pem", "cloud-ca.cut")] {
        copy(from, to);
    }
    let leave = || desk.cotter(&[&["leave", "--yes"][..], &unit].concat(), "");
    let (code, said) = leave();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("deleted device {uuid} at {endpoint}\n")), "{said}");
    assert_eq!(desk.devices().len(), 0, "the server has no record of it any more");
    for (from, to) in
        [("state.cut/.", "state"), ("agent.d.cut/.", "agent.d"), ("cloud-ca.cut", "cloud-ca.pem")]
    {
        copy(from, to);
    }
    let (code, said) = leave();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("deleted device {uuid} at {endpoint}\n")), "{said}");
    let trail = desk.server.cli(&["audit", "--by", "device", "--json"]);
    let act: Value = serde_json::from_str(trail.trim()).expect("one record");
    assert_eq!((&act["what"], &act["things"][0]["id"]), (&"delete a device".into(), &uuid.into()), "{trail}");
    assert!(said.contains("this device has left its cloud"), "{said}");
    assert!(desk.read("systemctl.log").ends_with("disable --quiet --now -- join-test.service\n"));
    assert!(!desk.path("agent.d/50-join.toml").exists() && !desk.path("cloud-ca.pem").exists());
    assert_eq!(
        (desk.read("agent.toml"), desk.read("agent.d/60-mine.toml").as_str()),
        (before, "[update]\nsoak = \"1s\"\n")
    );
    let (code, said) = desk.cotter(&["leave", "--yes"], "");
    let expected = "error: `cotter join` has written no settings here; settings that were written by hand are removed by hand";
    assert_eq!((code, said.as_str()), (5, expected));

    // It comes back as another device, and is told of its release.
    let image = format!("127.0.0.1:1/web@sha256:{}", "a".repeat(64));
    desk.write("compose.yml", &format!("services: {{ web: {{ image: '{image}' }} }}\n"));
    let file = desk.path("compose.yml").display().to_string();
    desk.server.cli(&["release", "create", "greenhouse", "--file", &file, "--commit", "r1"]);
    let (code, said) =
        desk.cotter(&[&["join", "URL", "--fleet", "1", "--key", "KEY"][..], &unit].concat(), "");
    assert_eq!(code, 0, "{said}");
    assert!(
        said.ends_with(
            "\nit will run release r1 of greenhouse; `cotter status --watch` shows how it gets there"
        ),
        "{said}"
    );
    let again = desk.status().expect("it runs")["device"]["uuid"].clone();
    assert_ne!(again, uuid);
    assert_eq!(desk.devices().len(), 1);

    // Kept, the identity is that of the same device.
    let (code, said) = desk.cotter(&[&["leave", "--yes", "--keep-identity"][..], &unit].concat(), "");
    assert_eq!(code, 0, "{said}");
    let (code, said) =
        desk.cotter(&[&["join", "URL", "--fleet", "greenhouse", "--key", "KEY"][..], &unit].concat(), "");
    assert_eq!(code, 0, "{said}");
    assert_eq!(desk.status().expect("it runs")["device"]["uuid"], again);
    assert_eq!(desk.devices().len(), 1);

    // A server that cannot be reached keeps no device, and the command says what is left to do.
    desk.server.stop();
    let (code, said) = desk.cotter(&[&["leave", "--yes"][..], &unit].concat(), "");
    let again = again.as_str().expect("text");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("note: URL may still list the device: "), "{said}");
    assert!(said.contains(&format!("`cotter device delete {again}`")), "{said}");
}

/// What was written stays, because the agent goes on trying.
#[test]
fn an_agent_that_does_not_poll_is_waited_for_no_longer_than_wanted() {
    let desk = Desk::new();
    desk.with_systemctl();
    desk.write("bin/systemctl", "#!/bin/sh\n[ \"$1\" != show ] || echo loaded\n");
    let join =
        ["join", "URL", "--fleet", "greenhouse", "--key", "KEY", "--unit", "none.service", "--timeout", "1s"];
    let (code, said) = desk.cotter(&join, "");
    assert_eq!(code, 22, "{said}");
    let line = said.lines().last().expect("a line");
    let begins =
        "error: the agent has not reached its cloud within 1s (no agent answers at DIR/run/status.sock";
    assert!(line.starts_with(begins), "{line}");
    assert!(line.ends_with("it goes on trying: see `cotter status` and `cotter check`"), "{line}");
    assert!(desk.path("agent.d/50-join.toml").exists());

    // A unit that does not start, and one that is not installed.
    desk.write(
        "bin/systemctl",
        "#!/bin/sh\ncase \"$1\" in show) echo loaded;; restart) echo 'Job failed.' >&2; exit 1;; esac\n",
    );
    let (code, said) = desk.cotter(&join, "");
    assert_eq!(code, 1, "{said}");
    let expected =
        "error: `systemctl restart -- none.service` failed: Job failed.; see `journalctl -u none.service`";
    assert_eq!(said.lines().last(), Some(expected));
    desk.write("bin/systemctl", "#!/bin/sh\necho not-found\n");
    let (code, said) = desk.cotter(&join, "");
    assert_eq!(code, 0, "{said}");
    let expected =
        "the unit none.service is not installed; start its agent with `cotter agent --config DIR/agent.toml`";
    assert_eq!(said.lines().last(), Some(expected));
}

#[test]
fn what_join_did_not_write_is_kept() {
    let desk = Desk::new();
    let join = ["join", "URL", "--fleet", "greenhouse", "--key", "KEY", "--no-start"];
    let (code, said) = desk.cotter(&join, "");
    let expected = "wrote DIR/provisioning.key\nwrote DIR/agent.d/50-join.toml\nthis device registers with fleet greenhouse of \
                    URL\nno unit of systemd has these settings; start its agent with `cotter agent --config DIR/agent.toml`";
    assert_eq!((code, said.as_str()), (0, expected));
    let written = desk.read("agent.d/50-join.toml");
    for (change, what) in [
        (format!("{written}poll_interval2 = \"5s\"\n"), "it has the line \"poll_interval2 = \\\"5s\\\"\""),
        (written.replace("# Made by", "# Once made by"), "it begins otherwise"),
        (written.replace("/provisioning.key", "/mine.key"), "provisioning_key_file names another file"),
    ] {
        desk.write("agent.d/50-join.toml", &change);
        let (code, said) = desk.cotter(&["leave", "--yes"], "");
        let expected = format!(
            "error: DIR/agent.d/50-join.toml is not as `cotter join` wrote it ({what}), so it is kept; remove it yourself, \
             or undo the change"
        );
        assert_eq!((code, said), (21, expected));
        assert!(desk.path("provisioning.key").exists(), "{what}");
    }
    desk.write("agent.d/50-join.toml", &written);
    let (code, said) = desk.cotter(&["leave", "--yes"], "");
    assert_eq!(code, 0, "{said}");
    assert!(!desk.path("provisioning.key").exists() && desk.path("agent.toml").exists());
}

#[test]
fn a_fleet_hands_out_what_a_device_joins_with() {
    let desk = Desk::new();
    let made = desk.server.try_cli(&[
        "fleet",
        "join-file",
        "greenhouse",
        "--endpoint",
        "https://fleet.example.com/",
    ]);
    let config: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    assert_eq!(config["apiEndpoint"], "https://fleet.example.com");
    assert_eq!((&config["applicationId"], &config["applicationName"]), (&1.into(), &"greenhouse".into()));
    let key = config["apiKey"].as_str().expect("a key").to_owned();
    let said = String::from_utf8(made.stderr).expect("text");
    let listed = desk.server.cli_json(&["fleet", "provisioning-key", "list", "greenhouse"]);
    let newest = listed["keys"].as_array().and_then(|keys| keys.last()).expect("a key").clone();
    let (id, expires) = (newest["id"].as_str().expect("an id"), newest["expires"].as_str().expect("a time"));
    let expected = format!(
        "note: the key registers devices until {expires}; to end that sooner: cotter fleet provisioning-key revoke greenhouse \
         {id}\n"
    );
    assert_eq!(said, expected);

    // Into a file for its owner alone, and never over one that is there.
    let file = desk.path("join.json").display().to_string();
    let out = ["fleet", "join-file", "greenhouse", "--uses", "1", "--out", &file];
    assert_eq!(desk.server.cli(&out), "");
    assert_eq!(desk.path("join.json").metadata().expect("a file").permissions().mode() & 0o777, 0o600);
    let again = desk.server.try_cli(&out);
    let keys = || {
        desk.server.cli_json(&["fleet", "provisioning-key", "list", "greenhouse"])["keys"]
            .as_array()
            .map(Vec::len)
    };
    assert_eq!((again.status.code(), keys()), (Some(21), Some(3)), "no key is made for nothing");
    let (code, said) = desk.cotter(&["join", &file, "--dry-run"], "");
    assert!(code == 0 && said.contains("cloud.fleet = 1\n"), "{said}");

    // The line is a command that works as it is.
    let made = desk.server.try_cli(&["fleet", "join-file", "greenhouse", "--line"]);
    let line = String::from_utf8(made.stdout).expect("text");
    let said = String::from_utf8(made.stderr).expect("text");
    assert!(
        said.contains("is this machine alone; for other devices name the server's address with --endpoint"),
        "{said}"
    );
    let words: Vec<_> = line.split_whitespace().skip(1).collect();
    assert_eq!(words[..4], ["join", desk.server.url.as_str(), "--fleet", "greenhouse"]);
    let (code, said) = desk.cotter(&[&words[..], &["--no-start"]].concat(), "");
    assert_eq!(code, 0, "{said}");
    assert_eq!(format!("{}\n", words[5]), desk.read("provisioning.key"));
    assert_ne!(words[5], key);
}

/// Settings that were written by hand, for a server that resolves names and for a cloud that does not.
#[test]
fn a_name_and_tags_are_resolved_by_our_server_alone() {
    let desk = Desk::new();
    let balena = FakeCloud::start();
    let settings = |endpoint: &str, rest: &str| {
        let dir = desk.dir();
        let text = format!(
            "[cloud]\nendpoint = \"{endpoint}\"\nprovisioning_key_file = \"{dir}/provisioning.key\"\n{rest}\n"
        );
        std::fs::create_dir_all(desk.path("agent.d")).expect("a folder");
        desk.write("agent.d/cloud.toml", &text);
        desk.write("provisioning.key", &desk.keys[0]);
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(desk.path("provisioning.key"), private).expect("its mode");
    };
    let start = || {
        let mut command = Program::cotter();
        command.arg("agent").arg("--config").arg(desk.path("agent.toml"));
        Program::start("agent", command, &desk.path("agent.log"))
    };
    for rest in ["fleet = \"greenhouse\"", "fleet = 1\ntags = \"site=a\""] {
        settings(&balena.url, rest);
        let agent = start();
        let error = eventually("an error", Duration::from_secs(20), || {
            desk.status()?["cloud"]["error"].as_str().map(str::to_owned)
        });
        let expected = format!(
            "registration: cloud {} is no Cotter fleet server of this version: it knows fleets by number alone and takes no tags at \
             registration; set cloud.fleet to the fleet's number, and leave cloud.tags out",
            balena.url
        );
        assert_eq!(error, expected);
        drop(agent);
    }
    assert_eq!(balena.registrations().len(), 0, "nothing is registered there");
    settings(&desk.server.url, "fleet = \"greenhouse\"\ntags = \"site=a, rack=2\"");
    let _agent = start();
    let device = eventually("a device", Duration::from_secs(20), || desk.devices().pop());
    assert_eq!(device["fleet"], "greenhouse");
    assert_eq!(device["tags"], serde_json::json!({ "rack": "2", "site": "a" }));
}

/// What an operator does with the fleet later reaches a device that joined by the fleet's name.
#[test]
fn a_device_that_joined_by_name_follows_its_fleet_when_that_is_renamed_and_deleted() {
    let desk = Desk::new();
    let (code, said) =
        desk.cotter(&["join", "URL", "--fleet", "greenhouse", "--key", "KEY", "--no-start"], "");
    assert_eq!(code, 0, "{said}");
    let image = format!("127.0.0.1:1/web@sha256:{}", "a".repeat(64));
    desk.write("compose.yml", &format!("services: {{ web: {{ image: '{image}' }} }}\n"));
    let file = desk.path("compose.yml").display().to_string();
    desk.server.cli(&["release", "create", "greenhouse", "--file", &file, "--commit", "r1"]);
    let start = || {
        let mut command = Program::cotter();
        command.arg("agent").arg("--config").arg(desk.path("agent.toml"));
        Program::start("agent", command, &desk.path("agent.log"))
    };
    let app = || {
        let status = desk.status()?;
        let app = &status["apps"][0];
        Some((app["name"].as_str()?.to_owned(), app["target"].as_str()?.to_owned()))
    };
    let is_named = |name: &str| {
        eventually(&format!("an app {name}"), Duration::from_secs(30), || {
            (app()? == (name.to_owned(), "r1".to_owned())).then_some(())
        });
    };
    let agent = start();
    is_named("greenhouse");
    desk.server.cli(&["fleet", "rename", "greenhouse", "hothouse"]);
    is_named("hothouse");
    drop(agent);
    // Its settings have the old name, which it does not need any more.
    let _agent = start();
    is_named("hothouse");
    eventually("a poll", Duration::from_secs(20), || {
        let cloud = desk.status()?["cloud"].clone();
        (cloud["last_contact"].is_string() && cloud["error"].is_null()).then_some(())
    });
    // Whoever joins by the old name now is told the new one.
    let mut other = Desk::new();
    other.keys.clone_from(&desk.keys);
    let (code, said) = other.cotter(&["join", &desk.server.url, "--fleet", "greenhouse", "--key", "KEY"], "");
    assert!(code == 5 && said.contains("in fleet hothouse (number 1), not in \"greenhouse\""), "{said}");

    desk.server.cli(&["fleet", "delete", "hothouse", "--with-devices", "--yes"]);
    eventually("it is told", Duration::from_secs(20), || {
        let error = desk.status()?["cloud"]["error"].as_str()?.to_owned();
        error.contains("this device was deleted from its fleet").then_some(())
    });
    assert_eq!(app(), Some(("hothouse".to_owned(), "r1".to_owned())), "what it has stays");
}

/// It neither makes a folder nor begins to run.
#[test]
fn an_agent_without_any_settings_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    // Not the settings and the state of the machine that runs this test.
    let script = "mkdir -p \"$1/etc\" \"$1/lib\" \"$1/run\" && mount -t tmpfs none /var/lib && mount -t tmpfs none /run && \
                  { ! [ -e /etc/cotter ] || mount -t tmpfs none /etc/cotter; } && timeout 20 \"$2\" agent; echo \"exit $?\"; \
                  ls /var/lib /run";
    let mut command =
        Program::cotter_by(&["unshare".into(), "--mount".into(), "sh".into(), "-c".into(), script.into()]);
    command.arg("sh").arg(folder.path()).arg(Program::binary());
    let output = command.output().expect("unshare runs");
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if error.contains("unshare") {
        println!("skipped: mounting is not permitted here");
        return;
    }
    assert_eq!(said, "exit 78\n/run:\n\n/var/lib:\n", "{error}");
    let expected = "error: this device has no settings yet, so there is nothing for an agent to do; join a cloud with `cotter \
                    join https://... --fleet NAME --key KEY` (at the fleet server `cotter fleet join-file NAME --line` prints \
                    that command) or `cotter join config.json`\n";
    assert_eq!(error, expected);
}

#[test]
fn an_operator_names_an_authority_of_their_own() {
    let desk = Desk::new();
    let tls = Tls::start(desk.folder.path(), &desk.server.url);
    let list = |authority: &[&str]| {
        let mut command = Program::cotter();
        command.args(["fleet", "list", "--url", &tls.url]).args(authority);
        command.env("COTTER_TOKEN_FILE", desk.server.token_file());
        let output = command.output().expect("the binary runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    };
    let authority = tls.authority.display().to_string();
    let (code, said) = list(&["--ca-file", &authority]);
    assert!(code == Some(0) && said.contains("greenhouse"), "{said}");
    let (code, said) = list(&[]);
    assert!(code == Some(20) && said.contains("update-ca-certificates"), "{said}");
    let token = desk.server.token_file().display().to_string();
    let (code, said) = list(&["--ca-file", &token]);
    let line = format!(
        "error: --ca-file {token} cannot be used: it has no certificate; give the authority's certificate, as PEM\n"
    );
    assert_eq!((code, said), (Some(2), line));
}
