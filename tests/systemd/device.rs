//! A fleet server and a device of its fleet on the machine, and what happens to the device.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Log;
use crate::machine::{AGENT, Machine, command, run, text};
use crate::packages::{NEXT, Packages};
use crate::support::{Container, Lab, eventually, http_get};

/// What identifies a running container: its id, its start and its restarts.
type Standing = Vec<(String, String, i64)>;

/// An entry of the agent's journal.
type Entry = serde_json::Map<String, Value>;

pub(crate) struct Device<'a> {
    lab: &'a Lab,
    machine: &'a Machine,
    instance: String,
    url: String,
    provisioning_key: String,
    before: Standing,
}

impl<'a> Device<'a> {
    /// Starts the fleet server and the agent, with one release.
    pub(crate) fn start(lab: &'a Lab, machine: &'a Machine, log: &Log) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        machine.drop_in(
            "cotter-fleet.service",
            &format!(
                "Environment=COTTER_FLEET_LISTEN=127.0.0.1:{port}\nEnvironment=COTTER_FLEET_POLL_INTERVAL=1s"
            ),
        );
        machine.run(&["systemctl", "start", "cotter-fleet.service"]);
        let score = machine.assert_secure("cotter-fleet.service");
        log.checked(&format!("systemd-analyze security: cotter-fleet.service {score}, 2.0 at most"));
        let (instance, url) = (lab.instance("device"), format!("http://127.0.0.1:{port}"));
        let mut device =
            Self { lab, machine, instance, url, provisioning_key: String::new(), before: Vec::new() };
        let created: Value =
            serde_json::from_str(&device.cli(&["fleet", "create", "lab", "--json"])).unwrap();
        let created = &created["created"];
        device.provisioning_key = created["provisioning_key"].as_str().unwrap().to_owned();
        log.checked("the fleet server's unit serves");
        device.write_key("etc/credstore/cotter.provisioning-key");
        let settings = format!(
            "instance = \"{}\"\n[engine]\nsocket = \"/run/engine.sock\"\n[cloud]\nendpoint = \"{}\"\nfleet = {}\n\
             provisioning_key_file = \"$CREDENTIALS_DIRECTORY/cotter.provisioning-key\"\npoll_interval = \"1s\"\n\
             [update]\nsoak = \"1s\"\n",
            device.instance,
            device.url,
            created["fleet"]["number"].as_u64().unwrap()
        );
        machine.write("etc/cotter/agent.d/device.toml", &settings);
        device.release("one", "r1");
        machine.run(&["systemctl", "start", AGENT]);
        assert_eq!(machine.unit("ActiveState"), "active");
        log.checked("READY: the unit is active, in systemd's eyes, and has its key as a credential");
        device.until_serves("r1");
        device.until_accepted("one");
        device.before = device.standing();
        log.checked("a release is pulled, started and accepted under the unit's hardening");
        device
    }

    fn cli(&self, args: &[&str]) -> String {
        let url = format!("COTTER_FLEET_URL={}", self.url);
        self.machine.run(&[&["env", &url, "cotter"], args].concat())
    }

    /// Writes the provisioning key to a file of the machine, for root only.
    fn write_key(&self, path: &str) {
        let file = self.machine.file(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&file);
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(file).unwrap();
        std::io::Write::write_all(&mut file, format!("{}\n", self.provisioning_key).as_bytes()).unwrap();
    }

    /// Creates a release that runs an image of the demo app.
    fn release(&self, commit: &str, image: &str) {
        let compose = format!(
            "services:\n  web:\n    image: {}\n    ports: [\"127.0.0.1::8080\"]\n    volumes: [\"data:/data\"]\n\
             volumes: {{ data: {{}} }}\n",
            self.lab.image(image)
        );
        self.machine.write(&format!("root/{commit}.yml"), &compose);
        let file = format!("/root/{commit}.yml");
        self.cli(&["release", "create", "lab", "--file", &file, "--commit", commit]);
    }

    fn containers(&self) -> Vec<Container> {
        self.lab.docker().running(&self.instance)
    }

    fn standing(&self) -> Standing {
        self.containers().iter().map(Container::standing).collect()
    }

    #[track_caller]
    fn assert_unchanged(&self, after: &str) {
        assert_eq!(self.standing(), self.before, "after {after} the container is not the same");
    }

    /// The answer of the app's one container.
    fn web(&self, path: &str) -> Option<Value> {
        let containers = self.containers();
        let [container] = &containers[..] else { return None };
        let answer = http_get(container.ports.get("8080/tcp")?, path)?;
        Some(if path == "/" { answer.json() } else { Value::Null })
    }

    fn serves(&self, release: &str) -> bool {
        self.web("/").is_some_and(|about| about["release"] == release)
    }

    #[track_caller]
    fn until_serves(&self, release: &str) {
        self.until(&format!("{release} is served"), 30, || self.serves(release));
    }

    #[track_caller]
    fn until(&self, what: &str, seconds: u64, is_so: impl Fn() -> bool) {
        eventually(what, Duration::from_secs(seconds), || is_so().then_some(()));
    }

    fn status(&self) -> Option<Value> {
        let status = self.machine.try_run(&["cotter", "status", "--json"]);
        serde_json::from_slice(&status.stdout).ok()
    }

    fn is_accepted(&self, commit: &str) -> bool {
        let status = self.status().unwrap_or_default();
        let is_it = |app: &Value| app["current"] == commit && app["update"] == "done";
        status["apps"].as_array().is_some_and(|apps| apps.iter().any(is_it))
    }

    #[track_caller]
    fn until_accepted(&self, commit: &str) {
        self.until(&format!("{commit} is accepted"), 30, || self.is_accepted(commit));
    }

    fn waits(&self, reason: &str) -> bool {
        let status = self.status().unwrap_or_default();
        let mut waits = status["waiting"].as_array().into_iter().flatten();
        waits.any(|wait| wait["reason"] == reason)
    }

    /// The ids of the checks of `cotter check` with this level.
    #[track_caller]
    fn checks(&self, level: &str) -> Vec<String> {
        let output = self.machine.try_run(&["cotter", "check", "--json"]);
        let checks: Value = serde_json::from_slice(&output.stdout).expect("cotter check prints JSON");
        let checks = checks["checks"].as_array().unwrap().iter();
        let found = checks.filter(|check| check["level"] == level);
        found.map(|check| check["id"].as_str().unwrap().to_owned()).collect()
    }

    fn journal_has(&self, text: &str) -> bool {
        self.machine.journal(&[]).contains(text)
    }

    /// Runs a command as a user with this group only.
    fn as_member(&self, group: &str, words: &[&str]) -> bool {
        let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--groups", group];
        self.machine.succeeds(&[&user[..], words].concat())
    }

    /// Returns `true` if an agent other than process `pid` is active.
    fn is_new(&self, pid: &str) -> bool {
        let now = self.machine.unit("MainPID");
        now != pid && now != "0" && self.machine.unit("ActiveState") == "active"
    }

    pub(crate) fn under_the_hardening(&self, work: &Path, log: &Log) {
        let machine = self.machine;
        self.until("systemd's status line", 5, || machine.unit("StatusText") == "lab runs one");
        log.checked("STATUS: lab runs one");
        let score = machine.assert_secure(AGENT);
        log.checked(&format!("systemd-analyze security: {AGENT} {score}, 2.0 at most"));
        let score = machine.assert_secure("cotter-vpn.service");
        machine.run(&["systemctl", "is-active", "--quiet", "cotter-vpn.path"]);
        assert!(
            !machine.succeeds(&["systemctl", "is-active", "--quiet", "cotter-vpn.service"]),
            "the VPN is off"
        );
        log.checked(&format!(
            "systemd-analyze security: cotter-vpn.service {score}, 2.0 at most; it does not run"
        ));
        assert!(self.as_member("cotter", &["cotter", "status"]), "group cotter may read the status");
        assert!(!self.as_member("65534", &["cotter", "status"]), "others may not read the status");
        assert!(!self.as_member("cotter", &["cotter", "hold", "--reason", "test"]), "only root gives orders");
        log.checked("the status is for group cotter, orders are for root");
        machine.run(&["cotter", "config", "check"]);
        let (ok, warnings) = (self.checks("ok"), self.checks("warning"));
        assert!(!ok.is_empty());
        assert_eq!(self.checks("error"), Vec::<String>::new(), "cotter check has errors under the unit");
        assert!(
            warnings.contains(&"state-key".to_owned()),
            "no warning of the credential that stays: {warnings:?}"
        );
        assert!(self.journal_has("the provisioning key cannot be removed"));
        log.checked(&format!("cotter check: {} ok, no error, warnings: {}", ok.len(), warnings.join(" ")));
        machine.run(&["cotter", "support-bundle", "--output", "/root/bundle.tar"]);
        let bundle = machine.file("root/bundle.tar");
        assert_eq!(fs::metadata(&bundle).unwrap().permissions().mode() & 0o777, 0o600);
        let pages = run("tar", &["--list", "--file", &bundle.display().to_string()]);
        for page in ["checks.json", "status.json", "explain.json", "journal.jsonl"] {
            let is_there = pages.lines().any(|line| line.ends_with(&format!("/{page}")));
            assert!(is_there, "the bundle has no {page}: {pages}");
        }
        let content = fs::read(&bundle).unwrap();
        let key = self.provisioning_key.as_bytes();
        assert!(!content.windows(key.len()).any(|part| part == key), "the bundle has the provisioning key");
        fs::write(work.join("bundle.txt"), &pages).unwrap();
        log.checked(&format!("cotter support-bundle: {} files", pages.lines().count()));
    }

    /// Through the hardening and the engine's mount.
    pub(crate) fn obeys_locks(&mut self, work: &Path, log: &Log) {
        self.web("/make?/tmp/balena/updates.lock").expect("the app can make its lock file");
        self.release("two", "r2");
        self.until("the wait for the lock", 20, || self.waits("locked"));
        self.assert_unchanged("a lock");
        self.web("/take?/tmp/balena/updates.lock");
        self.until_serves("r2");
        self.until_accepted("two");
        self.before = self.standing();
        log.checked("an app's lock file is seen, and so is its removal");

        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let is_space = |line: &&str| line.starts_with("tmpfs /run/cotter/services ");
        assert_eq!(
            mounts.lines().filter(is_space).count(),
            1,
            "the lock folders have a file system of their own"
        );
        assert!(
            self.checks("ok").contains(&"agent-lock-space".to_owned()),
            "cotter check finds their file system"
        );
        let big = work.join("big");
        fs::write(&big, vec![0; 8 << 20]).unwrap();
        let into = format!("{}:/tmp/balena/big", self.containers()[0].id);
        let copied = self.lab.docker().try_run(&["cp", &big.display().to_string(), &into]);
        assert!(!copied.status.success(), "8 MiB fit into a lock folder");
        self.until("a folder with too much is emptied", 60, is_empty);
        assert!(self.journal_has("lock folder held too much"));
        self.assert_unchanged("a full lock folder");
        log.checked("an app cannot fill the memory by its lock folder, and its content there is removed");
    }

    pub(crate) fn survives_its_agent(&self, log: &Log) {
        let machine = self.machine;
        machine.drop_in(AGENT, "WatchdogSec=6");
        machine.run(&["systemctl", "restart", AGENT]);
        self.assert_unchanged("a restart");
        log.checked("a restart of the unit restarts nothing");
        let pid = machine.unit("MainPID");
        machine.run(&["sh", "-c", &format!("kill -STOP {pid}")]);
        self.until("the watchdog restarts an agent that hangs", 20, || self.is_new(&pid));
        assert!(self.journal_has("result 'watchdog'"));
        self.assert_unchanged("the watchdog");
        log.checked("an agent that hangs is restarted by the watchdog");
        let pid = machine.unit("MainPID");
        machine.run(&["sh", "-c", &format!("kill -KILL {pid}")]);
        self.until("an agent that is killed comes back", 20, || self.is_new(&pid));
        self.assert_unchanged("SIGKILL");
        log.checked("an agent that is killed comes back, to the sockets that it left");
        self.is_reloaded();
        log.checked("a reload takes new settings, and wrong ones change nothing");
        let begun = Instant::now();
        machine.run(&["systemctl", "stop", AGENT]);
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "the unit's limit: it stopped in {:?}",
            begun.elapsed()
        );
        assert_eq!(machine.unit("Result"), "success");
        self.assert_unchanged("a stop");
        assert!(Path::new("/run/cotter/services").is_dir(), "the lock folders of running containers stay");
        log.checked("it stops in time, and the lock folders of what runs stay");
    }

    fn is_reloaded(&self) {
        let machine = self.machine;
        let pid = machine.unit("MainPID");
        machine.write("etc/cotter/agent.d/log.toml", "[log]\nlevel = \"debug\"\n");
        machine.run(&["systemctl", "reload", AGENT]);
        self.until("a reloaded agent comes back", 20, || self.is_new(&pid));
        let of_agent = format!("_PID={}", machine.unit("MainPID"));
        self.until("a reloaded agent has its new settings", 10, || {
            let words = ["journalctl", "--no-pager", "-o", "json", "-p", "6..7", &of_agent];
            text(&machine.try_run(&words)).contains("\"PRIORITY\":\"6\"")
        });
        let pid = machine.unit("MainPID");
        machine.write("etc/cotter/agent.d/log.toml", "[log]\nlevel = \"loud\"\n");
        machine.run(&["systemctl", "reload", AGENT]);
        let of_agent = format!("_PID={pid}");
        self.until("wrong settings are reported", 10, || {
            machine.journal(&["-o", "json", &of_agent]).contains("settings are wrong")
        });
        assert_eq!((machine.unit("MainPID"), machine.unit("ActiveState")), (pid, "active".to_owned()));
        fs::remove_file(machine.file("etc/cotter/agent.d/log.toml")).unwrap();
        self.assert_unchanged("a reload");
    }

    pub(crate) fn is_started_by_sockets(&self, log: &Log) {
        let (machine, sockets) = (self.machine, ["cotter-agent.socket", "cotter-agent-control.socket"]);
        machine.run(&[&["systemctl", "start"], &sockets[..]].concat());
        assert_eq!(machine.unit("ActiveState"), "inactive", "the sockets started the agent before a request");
        self.until("a request starts the agent", 10, || self.is_accepted("two"));
        assert_eq!(machine.unit("ActiveState"), "active", "another process answered");
        machine.run(&["cotter", "hold", "--reason", "test"]);
        machine.run(&["cotter", "unhold"]);
        assert!(self.as_member("cotter", &["cotter", "status"]), "systemd's socket is for group cotter");
        machine.run(&[&["systemctl", "stop"], &sockets[..], &[AGENT]].concat());
        self.assert_unchanged("socket activation");
        log.checked("sockets of systemd start the agent at the first request");
        machine.run(&["systemctl", "start", AGENT]);
        self.until("the agent creates its own sockets again", 10, || self.is_accepted("two"));
    }

    /// In the one file of /etc that the unit may write.
    pub(crate) fn empties_its_key(&self, log: &Log) {
        let machine = self.machine;
        fs::remove_file(machine.file("etc/credstore/cotter.provisioning-key")).unwrap();
        machine.run(&["systemctl", "restart", AGENT]);
        self.until("a registered device starts without its credential", 10, || self.is_accepted("two"));
        self.write_key("etc/cotter/provisioning.key");
        let settings = fs::read_to_string(machine.file("etc/cotter/agent.d/device.toml")).unwrap();
        let credential = "$CREDENTIALS_DIRECTORY/cotter.provisioning-key";
        assert!(settings.contains(credential));
        let settings = settings.replace(credential, "/etc/cotter/provisioning.key");
        machine.write("etc/cotter/agent.d/device.toml", &settings);
        machine.run(&["systemctl", "restart", AGENT]);
        let key = machine.file("etc/cotter/provisioning.key");
        self.until("the key is emptied", 20, || fs::metadata(&key).is_ok_and(|file| file.len() == 0));
        assert!(
            self.checks("ok").contains(&"state-key".to_owned()),
            "cotter check sees that the key is gone"
        );
        self.assert_unchanged("the end of a key");
        log.checked("a provisioning key in /etc/cotter is emptied once the device is registered");
    }

    pub(crate) fn has_a_neighbour(&self, log: &Log) {
        let (machine, other) = (self.machine, self.lab.instance("other"));
        let settings = "[engine]\nsocket = \"/run/engine.sock\"\n";
        machine.write(&format!("etc/cotter/{other}/agent.toml"), settings);
        let unit = format!("cotter-agent@{other}.service");
        machine.run(&["systemctl", "start", &unit]);
        let socket = format!("/run/cotter-{other}/status.sock");
        let status = machine.run(&["cotter", "status", "--json", "--socket", &socket]);
        let status: Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["apps"], Value::Array(Vec::new()), "an instance sees apps of others");
        assert!(
            machine.file(&format!("var/lib/cotter-{other}")).is_dir(),
            "an instance has a folder of its own"
        );
        let score = machine.assert_secure(&unit);
        machine.run(&["systemctl", "stop", &unit]);
        self.assert_unchanged("another instance");
        log.checked(&format!(
            "an instance of cotter-agent@.service runs, too; security {score}, 2.0 at most"
        ));
    }

    pub(crate) fn is_upgraded(&self, packages: &Packages, log: &Log) {
        let machine = self.machine;
        let settings = machine.file("etc/cotter/agent.toml");
        let own = fs::read_to_string(&settings).unwrap() + "# a line of the owner\n";
        fs::write(&settings, own).unwrap();
        let pid = machine.unit("MainPID");
        packages.install(machine, NEXT, &["cotter", "cotter-fleet"]);
        self.until("the upgrade starts the agent again", 20, || self.is_new(&pid));
        self.until("the fleet server is there again", 20, || self.is_accepted("two"));
        self.assert_unchanged("an upgrade");
        let kept = fs::read_to_string(&settings).unwrap();
        assert!(kept.contains("a line of the owner"), "the upgrade replaced the owner's settings");
        log.checked("an upgrade starts the agent again and changes no app, and the owner's settings stay");
    }

    /// The lines of docs/server.md for a backup and for a recovery, as they are there, but for the name of the file.
    pub(crate) fn is_recovered(&self, log: &Log) {
        let page = fs::read_to_string("docs/server.md").unwrap();
        let lines = |heading: &str| {
            let section = page.split_once(heading).unwrap().1.split("\n## ").next().unwrap();
            section
                .lines()
                .filter_map(|line| line.strip_prefix("    ").map(str::to_owned))
                .collect::<Vec<_>>()
        };
        let run = |line: &str| {
            let file = "/root/fleet.jsonl";
            let line = line.replace("/var/backups/fleet-$(date +%F).jsonl", file);
            let line = line
                .replace("fleet-2026-11-30.jsonl", file)
                .replace("backup ", &format!("backup --url {} ", self.url));
            self.machine.run(&["sh", "-c", &line]);
        };
        let (backup, recovery) = (lines("## What to back up"), lines("## How to recover"));
        assert!(backup.len() == 2 && recovery.len() == 5, "{backup:?} {recovery:?}");
        // The first one enables the timer, whose unit asks the server at its usual address.
        assert_eq!(backup[0], "systemctl enable --now cotter-fleet-backup.timer");
        run(&backup[1]);
        self.cli(&["device", "list", "--json"]);
        recovery.iter().for_each(|line| run(line));
        self.until("the fleet server has its records again", 20, || self.is_accepted("two"));
        assert!(self.cli(&["device", "list"]).contains("on-target"), "with the same token");
        self.assert_unchanged("a recovery of the fleet server");
        log.checked("the lines of docs/server.md for a backup and a recovery do what they say");
    }

    /// The lines of docs/server.md that give the server a certificate which only root can read.
    pub(crate) fn has_its_certificate_as_a_credential(&self, log: &Log) {
        let machine = self.machine;
        let page = fs::read_to_string("docs/server.md").unwrap();
        let section = page.split_once("systemd gives it a copy of both files").unwrap().1;
        let lines: Vec<_> = section.lines().filter_map(|line| line.strip_prefix("    ")).collect();
        let unit: Vec<_> = lines.iter().take_while(|line| !line.starts_with("listen")).copied().collect();
        let settings: Vec<_> = lines.iter().copied().filter(|line| line.starts_with("tls_")).collect();
        assert!(unit.len() == 3 && settings.len() >= 2, "{unit:?} {settings:?}");
        let live = machine.file("etc/letsencrypt/live/fleet.example.com");
        fs::create_dir_all(&live).unwrap();
        let (key, certificate) = (live.join("privkey.pem"), live.join("fullchain.pem"));
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=fleet.example.com",
                "-addext",
                "subjectAltName=DNS:fleet.example.com",
                "-keyout",
                key.to_str().unwrap(),
                "-out",
                certificate.to_str().unwrap(),
            ],
        );
        fs::set_permissions(&live, fs::Permissions::from_mode(0o700)).unwrap();
        let before = fs::read_to_string(machine.file("etc/cotter/fleet.toml")).unwrap();
        machine.write("etc/cotter/fleet.toml", &format!("{before}\n{}\n", settings[..2].join("\n")));
        machine
            .write("etc/systemd/system/cotter-fleet.service.d/tls.conf", &format!("{}\n", unit.join("\n")));
        let again = || {
            machine.run(&["systemctl", "daemon-reload"]);
            machine.run(&["systemctl", "restart", "cotter-fleet.service"]);
        };
        again();
        let port = self.url.rsplit(':').next().unwrap();
        let (https, resolve) =
            (format!("https://fleet.example.com:{port}/ping"), format!("fleet.example.com:{port}:127.0.0.1"));
        let authority = "/etc/letsencrypt/live/fleet.example.com/fullchain.pem";
        let said = machine.run(&["curl", "-sS", "--cacert", authority, "--resolve", &resolve, &https]);
        assert_eq!(said, "OK");
        machine.write("etc/cotter/fleet.toml", &before);
        fs::remove_file(machine.file("etc/systemd/system/cotter-fleet.service.d/tls.conf")).unwrap();
        again();
        self.until("the fleet server is there without TLS again", 20, || self.is_accepted("two"));
        log.checked(
            "the lines of docs/server.md give the fleet server a certificate that only root can read",
        );
    }

    /// Entries of the agent after a cursor. journalctl's own matches would leave out the first entry after a cursor that
    /// they do not match.
    fn entries(&self, cursor: &str) -> Vec<Entry> {
        let journal = self.machine.journal(&["-o", "json", "--after-cursor", cursor]);
        let entries = journal.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
        entries.filter(|entry| entry.get("_COMM").is_some_and(|name| name == "cotter")).collect()
    }

    fn cursor(&self) -> String {
        let shown = self.machine.journal(&["-n", "1", "--show-cursor"]);
        shown.lines().find_map(|line| line.strip_prefix("-- cursor: ")).expect("a cursor").to_owned()
    }

    /// Returns `true` if an entry after the cursor has all these fields.
    fn has_entry(&self, cursor: &str, fields: &[(&str, &str)]) -> bool {
        self.entries(cursor).iter().any(|entry| fields.iter().all(|(name, value)| is(entry, name, value)))
    }

    pub(crate) fn writes_a_journal(&mut self, log: &Log) {
        let mark = self.cursor();
        self.release("three", "r1");
        self.until_accepted("three");
        self.until("the old container is removed", 10, || {
            self.lab.docker().ids("container", &self.instance).len() == 1
        });
        let entries = self.entries(&mark);
        let messages: Vec<_> = entries.iter().map(|entry| &entry["MESSAGE"]).collect();
        assert!(entries.len() <= 14, "an update of one service has {} lines: {messages:?}", entries.len());
        assert_eq!(values(&entries, "COTTER_SERVICE"), ["web"]);
        let starts: Vec<_> =
            entries.iter().filter(|entry| is(entry, "COTTER_STEP", "start")).cloned().collect();
        assert_eq!(values(&starts, "COTTER_RELEASE"), ["three"]);
        let id = "9d146db3d8604572821db671adfff0b2";
        let updates: Vec<_> = entries.iter().filter(|entry| is(entry, "MESSAGE_ID", id)).cloned().collect();
        assert_eq!(values(&updates, "COTTER_RELEASE"), ["three"], "there is no MESSAGE_ID of the update");
        let apps = values(&entries, "COTTER_APP");
        assert!(
            apps.iter().all(|app| app.chars().all(|c| c.is_ascii_hexdigit())) && !apps.is_empty(),
            "{apps:?}"
        );
        log.checked(&format!(
            "the journal has {} lines of an update, with COTTER_APP, _SERVICE, _RELEASE and _STEP",
            entries.len()
        ));
        let mark = self.cursor();
        std::thread::sleep(Duration::from_secs(5));
        assert_eq!(self.entries(&mark).len(), 0, "five polls without news write lines");
        log.checked("five polls without news write nothing");
        self.release("bad", "exit");
        let rejected =
            [("COTTER_ALERT", "rejected"), ("COTTER_REASON", "rejected"), ("COTTER_RELEASE", "bad")];
        self.until("a bad release is reported", 60, || self.has_entry(&mark, &rejected));
        let back = [("COTTER_ALERT", "rolled_back"), ("COTTER_RELEASE", "three")];
        self.until("the rollback is reported", 30, || self.has_entry(&mark, &back));
        assert!(self.serves("r1"), "release three is not back");
        let shown =
            self.machine.journal(&["-x", "-o", "short", "MESSAGE_ID=d7486aa294c347a4a7fd80e39f214d53"]);
        assert!(shown.contains("cotter retry"), "the catalog has nothing of a rejection: {shown}");
        let entries: Vec<_> =
            self.entries(&mark).into_iter().filter(|e| is(e, "COTTER_ALERT", "rejected")).collect();
        log.checked(&format!("a release that is rejected: {:?}", values(&entries, "COTTER_WHY")));
        self.before = self.standing();
    }

    pub(crate) fn is_removed(&self, log: &Log) {
        let machine = self.machine;
        machine.write("etc/cotter/agent.d/wrong.toml", "[update]\nsoak = \"soon\"\n");
        assert!(!machine.succeeds(&["systemctl", "restart", AGENT]), "wrong settings start");
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(machine.unit("ExecMainStatus"), "78", "the exit code for wrong settings");
        assert_eq!(machine.unit("ActiveState"), "failed", "wrong settings are tried again");
        self.assert_unchanged("wrong settings");
        log.checked("wrong settings end with 78 and are not tried again");
        fs::remove_file(machine.file("etc/cotter/agent.d/wrong.toml")).unwrap();
        machine.run(&["systemctl", "start", AGENT]);
        machine.run(&["dpkg", "--remove", "cotter"]);
        self.assert_unchanged("the removal of the package");
        assert!(machine.file("var/lib/cotter").is_dir(), "a removal without purge deleted the agent's state");
        let said = machine.run_with_errors(&["dpkg", "--purge", "cotter"]);
        self.assert_unchanged("the purge of the package");
        for gone in ["var/lib/cotter", "etc/cotter/agent.toml", "usr/bin/cotter"] {
            assert!(fs::symlink_metadata(machine.file(gone)).is_err(), "a purge left /{gone}");
        }
        assert!(
            machine.file("etc/cotter/fleet.toml").exists(),
            "the agent's purge removed the server's settings"
        );
        machine.run(&["systemctl", "is-active", "--quiet", "cotter-fleet.service"]);
        let volumes = self.lab.docker().ids("volume", &self.instance);
        assert_eq!(volumes.len(), 1, "a purge removed a volume");
        assert!(said.contains("volumes of the apps stay"), "a purge does not say what stays: {said}");
        let said = machine.run_with_errors(&["dpkg", "--purge", "cotter-fleet"]);
        assert!(
            said.contains("records of the fleet server stay"),
            "the server's purge does not say what stays: {said}"
        );
        for gone in ["etc/cotter/fleet.toml", "usr/bin/cotter-fleet"] {
            assert!(fs::symlink_metadata(machine.file(gone)).is_err(), "the server's purge left /{gone}");
        }
        log.checked("removed and purged: the app runs on, its volume is there, the agent's state is gone");
    }
}

/// Returns `true` if the lock folders of the service are empty.
fn is_empty() -> bool {
    let listed = command("sh").args(["-c", "ls -A /run/cotter/services/*/web"]).output().unwrap();
    listed.status.success() && listed.stdout.is_empty()
}

fn is(entry: &Entry, name: &str, value: &str) -> bool {
    entry.get(name).is_some_and(|found| found == value)
}

/// The different values of a field, sorted.
fn values(entries: &[Entry], name: &str) -> Vec<String> {
    let mut values: Vec<_> =
        entries.iter().filter_map(|entry| Some(entry.get(name)?.as_str()?.to_owned())).collect();
    values.sort();
    values.dedup();
    values
}
