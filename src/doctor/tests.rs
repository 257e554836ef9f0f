//! What is judged of what is seen: why, what was changed of a sound device, and the finding as text.

use std::io::ErrorKind;
use std::path::PathBuf;

use super::agent::Agent;
use super::cloud::Way;
use super::config::Seen;
use super::engine::Engine;
use super::host::Machine;
use super::state::State;
use super::*;
use crate::api::{self, ClientError, StatusDocument};
use crate::cloud::{Answered, CloudError, Probe};
use crate::config::Joining;
use crate::engine::Survey;
use crate::host::{Disk, Memory, Space, Unit};
use crate::http::sample::untrusted;
use crate::http::{Broken, Failure};
use crate::model::{Clock, CloudReport, DeviceUuid, Identity, Registration, Report};
use crate::store::Copy;

const GIB: u64 = 1 << 30;

/// The finding of one check as text; `id` must have exactly one.
#[track_caller]
fn as_text(findings: &[Finding], id: &str) -> String {
    let all: Vec<_> = findings.iter().filter(|finding| finding.id == id).collect();
    let [one] = all[..] else { panic!("{id} has {} findings", all.len()) };
    let has_remedy = one.remedy.as_ref().is_some_and(|remedy| !remedy.is_empty());
    assert_eq!(
        has_remedy,
        one.level > Level::Ok,
        "{one:?} says what to do when something is wrong, and only then"
    );
    format!("{}: {}", one.level.as_str(), one.evidence)
}

/// Asserts that `findings` has each check of `area` once.
#[track_caller]
fn assert_whole(area: &str, findings: &[Finding]) {
    let mut found: Vec<_> = findings.iter().map(|finding| finding.id).collect();
    let mut expected = ids(area);
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn ids_are_unique_and_areas_name_them() {
    let unique: BTreeSet<_> = CHECKS.iter().map(|(id, _)| id).collect();
    assert_eq!(unique.len(), CHECKS.len());
    assert!(CHECKS.len() >= 20);
    assert_eq!(ids("host-clock"), ["host-clock"]);
    assert_eq!(ids("config"), ["config-valid", "config-writers", "config-cloud", "config-policy"]);
    assert!(ids("colour").is_empty());
}

/// The rows of the table in docs/operations.md, and no others, have the ids and questions of [`CHECKS`].
#[test]
fn the_documents_have_every_check_with_its_question() {
    let text = include_str!("../../docs/operations.md");
    let section = text.split("\n## ").find(|section| section.starts_with("cotter check\n")).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows: Vec<_> = rows
        .filter_map(|row| row.split(" | ").next()?.strip_suffix('`').zip(row.split(" | ").nth(1)))
        .collect();
    assert_eq!(rows, CHECKS);
}

fn config(text: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, text).unwrap();
    Config::load(&Given { file: Some(file), set: Vec::new() }, &BTreeMap::new()).unwrap()
}

#[test]
fn settings() {
    let file = |mode, group| Seen { path: PathBuf::from("/etc/cotter/agent.toml"), mode, owner: 0, group };
    let config = config("[cloud]\nendpoint = \"http://10.0.0.1\"");
    for (why, files, finding) in [
        ("none", vec![], "skip: there is no settings file"),
        ("private", vec![file(0o600, 0)], "ok: only their owner can write them"),
        ("root's group may write", vec![file(0o664, 0)], "ok: only their owner can write them"),
        (
            "another group may not",
            vec![file(0o664, 7)],
            "error: other users can write /etc/cotter/agent.toml (mode 664)",
        ),
        (
            "everybody may not",
            vec![file(0o600, 0), file(0o602, 0)],
            "error: other users can write /etc/cotter/agent.toml (mode 602)",
        ),
        ("the folder /tmp", vec![file(0o1777, 0)], "ok: only their owner can write them"),
        (
            "an owner who is not root, nor who asks",
            vec![file(0o600, 0), Seen { owner: 4_000_000_000, ..file(0o600, 0) }],
            "error: /etc/cotter/agent.toml belongs to user 4000000000, who can change it",
        ),
    ] {
        let findings = super::config::judge(&files, Ok(&config));
        assert_whole("config", &findings);
        assert_eq!(as_text(&findings, "config-writers"), finding, "{why}");
    }
    for (text, finding) in [
        ("", "error: no cloud is set: the device gets no new releases"),
        ("[cloud]\nendpoint = \"https://a.example\"", "ok: https://a.example"),
        ("[cloud]\nendpoint = \"http://127.0.0.1:7300\"", "ok: http://127.0.0.1:7300"),
        ("[cloud]\nendpoint = \"http://[::1]\"", "ok: http://[::1]"),
        ("[cloud]\nendpoint = \"http://localhost/api\"", "ok: http://localhost/api"),
        (
            "[cloud]\nendpoint = \"http://127.example\"",
            "warning: http://127.example: this device's key goes there in the clear",
        ),
    ] {
        let findings = super::config::judge(&[], Ok(&self::config(text)));
        assert_eq!(as_text(&findings, "config-cloud"), finding, "{text}");
    }
    let wrong = crate::config::ConfigError::Incomplete("two go together");
    let findings = super::config::judge(&[], Err(&wrong));
    assert_whole("config", &findings);
    assert_eq!(as_text(&findings, "config-valid"), "error: two go together");
    assert_eq!(as_text(&findings, "config-cloud"), "skip: the settings are not accepted: see config-valid");
}

#[test]
fn a_policy_that_protects_nothing_is_a_warning() {
    let all = "ok: the policy allows everything: releases can do what root can, as on a balena device";
    for (text, finding) in [
        ("", all),
        ("host_paths = \"/\"", all),
        ("preset = \"strict\"", "ok: no release can do what root can"),
        (
            "preset = \"strict\"\nhost_network = \"yes\"\nhost_paths = \"/srv\"",
            "ok: no release can do what root can",
        ),
        (
            "preset = \"strict\"\ndevices = \"yes\"\nhost_paths = \"/srv,/etc\"",
            "warning: releases can do what root can, through policy.devices, policy.host_paths (/etc)",
        ),
        (
            "privileged = \"no\"\ndocker_socket = \"no\"",
            "warning: releases can do what root can, through policy.host_namespaces, policy.devices, policy.capabilities, \
             policy.features, policy.runtimes",
        ),
    ] {
        let findings = super::config::judge(&[], Ok(&config(&format!("[policy]\n{text}"))));
        assert_eq!(as_text(&findings, "config-policy"), finding, "{text}");
    }
}

fn disk(free: u64, files: u64) -> Disk {
    Disk { free, files: Some((files, 1_000_000)), is_read_only: false }
}

fn identity(endpoint: Option<&str>) -> Identity {
    let registered = endpoint.map(|at| Registration { endpoint: at.to_owned(), device_id: None });
    let uuid = DeviceUuid::parse("ab".repeat(16)).unwrap();
    Identity { uuid, device_key: "key".into(), registered, moves: crate::model::Moves::default() }
}

fn whole() -> Inspection {
    Inspection { has_database: true, mirrors: [Copy::Whole, Copy::Whole], ..Inspection::default() }
}

#[test]
fn the_state_folder() {
    let store = whole();
    let sound = |store| State {
        folder: "/s".to_owned(),
        mode: Ok(0o700),
        is_folder: true,
        doubt: None,
        disk: Some(disk(GIB, 1000)),
        store,
        cloud: None,
    };
    let denied = "Permission denied".to_owned();
    for (why, state, id, finding) in [
        ("sound", sound(Ok(&store)), "state-folder", "ok: /s"),
        (
            "missing",
            State { mode: Err(ErrorKind::NotFound), ..sound(Err(&denied)) },
            "state-folder",
            "warning: /s does not exist; the agent creates it when it first starts",
        ),
        (
            "a file",
            State { is_folder: false, ..sound(Ok(&store)) },
            "state-folder",
            "error: /s is not a folder",
        ),
        (
            "not root",
            sound(Err(&denied)),
            "state-folder",
            "skip: /s cannot be read (Permission denied); run the check as root",
        ),
        (
            "open",
            State { mode: Ok(0o755), ..sound(Ok(&store)) },
            "state-folder",
            "warning: /s has mode 755, and the device's key is in it",
        ),
        (
            "replaceable",
            State { doubt: Some("/ may be written by others".to_owned()), ..sound(Ok(&store)) },
            "state-folder",
            "warning: /s: / may be written by others",
        ),
        (
            "read-only",
            State { disk: Some(Disk { is_read_only: true, ..disk(GIB, 1000) }), ..sound(Ok(&store)) },
            "state-folder",
            "error: the file system of /s is read-only",
        ),
        ("room", sound(Ok(&store)), "state-disk", "ok: 1.0 GiB free, 1000 more files possible"),
        (
            "scarce",
            State { disk: Some(disk((32 << 20) - 1, 1000)), ..sound(Ok(&store)) },
            "state-disk",
            "warning: 31 MiB free",
        ),
        (
            "full",
            State { disk: Some(disk((4 << 20) - 1, 1000)), ..sound(Ok(&store)) },
            "state-disk",
            "error: 3.9 MiB free",
        ),
        (
            "no more files",
            State { disk: Some(disk(GIB, 63)), ..sound(Ok(&store)) },
            "state-disk",
            "error: only 63 more files can be created",
        ),
    ] {
        let findings = super::state::judge(&state);
        assert_whole("state", &findings);
        assert_eq!(as_text(&findings, id), finding, "{why}");
    }
}

#[test]
fn the_store() {
    let lost = || Copy::Lost("its checksum is wrong".to_owned());
    for (why, store, id, finding) in [
        ("sound", whole(), "state-copies", "ok: both are intact"),
        ("new", Inspection::default(), "state-copies", "skip: nothing was saved yet"),
        (
            "one is lost",
            Inspection { mirrors: [Copy::Whole, lost()], ..whole() },
            "state-copies",
            "warning: mirror-b.json cannot be used: its checksum is wrong",
        ),
        (
            "one is missing",
            Inspection { mirrors: [Copy::Missing, Copy::Whole], ..whole() },
            "state-copies",
            "warning: mirror-a.json is missing",
        ),
        (
            "the database is left",
            Inspection { mirrors: [lost(), lost()], ..whole() },
            "state-copies",
            "warning: mirror-a.json cannot be used: its checksum is wrong; neither can the other one",
        ),
        (
            "nothing is left",
            Inspection { mirrors: [lost(), Copy::Missing], has_database: false, ..whole() },
            "state-copies",
            "error: mirror-a.json cannot be used: its checksum is wrong, and there is no database",
        ),
        ("never", whole(), "state-damage", "ok: never, as far as the folder shows"),
        (
            "twice",
            Inspection { set_aside: 2, ..whole() },
            "state-damage",
            "warning: 2 damaged databases were set aside and rebuilt (db.corrupt-*)",
        ),
    ] {
        let state = State {
            folder: "/s".to_owned(),
            mode: Ok(0o700),
            is_folder: true,
            doubt: None,
            disk: None,
            store: Ok(&store),
            cloud: None,
        };
        assert_eq!(as_text(&super::state::judge(&state), id), finding, "{why}");
    }
}

#[test]
fn who_the_device_is() {
    let uuid = "ab".repeat(16);
    let registers =
        config("[cloud]\nendpoint = \"https://a\"\nfleet = 7\nprovisioning_key_file = \"/no/key\"");
    let register = registers.cloud.unwrap().joining;
    let known = Joining::Known { uuid: DeviceUuid::parse(uuid.clone()).unwrap(), key: "secret".to_owned() };
    for (joining, identity, finding) in [
        (&known, None, format!("ok: {uuid}, set by cloud.uuid")),
        (&register, None, "warning: not registered yet with fleet 7".to_owned()),
        (&register, Some(identity(None)), format!("warning: {uuid}, not registered yet")),
        (&register, Some(identity(Some("https://a"))), format!("ok: {uuid}, registered")),
        (
            &Joining::Remembered,
            Some(identity(Some("https://b"))),
            format!("warning: {uuid} is registered at https://b, not at cloud.endpoint"),
        ),
        (
            &Joining::Remembered,
            None,
            "error: the device is registered nowhere, and the settings have no key to register with"
                .to_owned(),
        ),
    ] {
        let mut config = config("[cloud]\nendpoint = \"https://a\"");
        if let Some(cloud) = config.cloud.as_mut() {
            cloud.joining = joining.clone();
        }
        let store = Inspection { identity, ..whole() };
        let mut state = super::state::observe(&config, Ok(&store));
        state.mode = Ok(0o700);
        let findings = super::state::judge(&state);
        assert_eq!(as_text(&findings, "state-identity"), finding);
        assert!(!format!("{findings:?}").contains("secret"));
    }
}

#[test]
fn a_provisioning_key_that_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let text = format!(
        "[cloud]\nendpoint = \"https://a\"\nfleet = 7\nprovisioning_key_file = \"{}\"",
        file.display()
    );
    let found = |text: &str, identity: Option<Identity>| {
        let config = config(text);
        let store = Inspection { identity, ..whole() };
        let mut state = super::state::observe(&config, Ok(&store));
        state.mode = Ok(0o700);
        let finding = as_text(&super::state::judge(&state), "state-key");
        finding.replace(&dir.path().display().to_string(), "DIR")
    };
    assert_eq!(found(&text, Some(identity(Some("https://a")))), "ok: it was removed after the registration");
    let needed = "DIR/key has no key, and the device is not registered at https://a";
    for (level, identity) in
        [("error", None), ("error", Some(identity(None))), ("warning", Some(identity(Some("https://b"))))]
    {
        assert_eq!(found(&text, identity), format!("{level}: {needed}"));
    }
    std::fs::write(&file, "hunter2").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(found(&text, None), "ok: DIR/key has the key for the registration");
    let left = "warning: DIR/key still has the key: a thief of this device can register others with it";
    assert_eq!(found(&text, Some(identity(Some("https://a")))), left);
    std::fs::write(&file, "").unwrap();
    assert_eq!(
        found(&text, Some(identity(Some("https://a")))),
        "ok: it was removed after the registration",
        "made empty"
    );
    let other = found("[cloud]\nendpoint = \"https://a\"", None);
    assert_eq!(other, "skip: this device does not register itself");
}

#[test]
fn the_machine() {
    let sound = || Machine {
        now: "2026-12-01T00:00:00Z".to_owned(),
        clock: Clock::Trusted,
        is_synced: Some(true),
        windows: (1, None),
        memory: Some(Memory { total: GIB, available: GIB / 2 }),
        power: Some(0),
        keeps_journal: Some(true),
    };
    let scarce = Some(Memory { total: GIB, available: 47 << 20 });
    for (machine, id, finding) in [
        (sound(), "host-clock", "ok: 2026-12-01T00:00:00Z"),
        (
            Machine { clock: Clock::Untrusted("it is 1970".into()), ..sound() },
            "host-clock",
            "error: it is 1970",
        ),
        (sound(), "host-time-sync", "ok: yes"),
        (
            Machine { is_synced: Some(false), ..sound() },
            "host-time-sync",
            "warning: the clock is not synchronized",
        ),
        (sound(), "host-zones", "ok: windows with known zones: 1"),
        (Machine { windows: (1, Some("no X".into())), ..sound() }, "host-zones", "error: no X"),
        (sound(), "host-memory", "ok: 512 MiB of 1.0 GiB available"),
        (Machine { memory: scarce, ..sound() }, "host-memory", "warning: 47 MiB of 1.0 GiB available"),
        (sound(), "host-power", "ok: never too little voltage since the boot"),
        (
            Machine { power: Some(0x50000), ..sound() },
            "host-power",
            "warning: too little voltage since the boot",
        ),
        (Machine { power: Some(0x50005), ..sound() }, "host-power", "error: too little voltage now"),
        (
            Machine { keeps_journal: Some(false), ..sound() },
            "host-journal",
            "warning: the journal is only in memory: a reboot loses it, and with it the cause of a crash",
        ),
    ] {
        let findings = super::host::judge(&machine);
        assert_whole("host", &findings);
        assert_eq!(as_text(&findings, id), finding);
    }
    let silent = Machine {
        is_synced: None,
        windows: (0, None),
        memory: None,
        power: None,
        keeps_journal: None,
        ..sound()
    };
    let skipped = super::host::judge(&silent).into_iter().filter(|f| f.level == Level::Skip).count();
    assert_eq!(skipped, 5);
}

fn engine(survey: Survey) -> Engine {
    Engine {
        socket: "/docker.sock".to_owned(),
        closed: None,
        is_denied: false,
        survey: Ok(survey),
        disk: Some(disk(GIB, 10_000)),
        reserve: 64 << 20,
        daemon_file: String::new(),
        instance: "default".to_owned(),
    }
}

fn survey() -> Survey {
    Survey {
        version: "28.0.0".to_owned(),
        api: "1.48".to_owned(),
        storage_driver: "overlay2".to_owned(),
        log_driver: "local".to_owned(),
        has_live_restore: true,
        cgroup_version: "2".to_owned(),
        has_memory_limit: true,
        data_root: "/var/lib/docker".to_owned(),
        architecture: "arm64".to_owned(),
        instances: BTreeMap::from([("default".to_owned(), 2)]),
        ..Survey::default()
    }
}

#[test]
fn the_engine() {
    let others = BTreeMap::from([("default".to_owned(), 2), ("lab".to_owned(), 3)]);
    let json_file = || Survey { log_driver: "json-file".to_owned(), ..survey() };
    let limited = r#"{"log-opts": {"max-size": "10m"}}"#.to_owned();
    for (engine, id, finding) in [
        (engine(survey()), "engine-answers", "ok: Docker 28.0.0, API 1.48, arm64"),
        (engine(survey()), "engine-version", "ok: API 1.48"),
        (
            engine(Survey { api: "1.40".to_owned(), ..survey() }),
            "engine-version",
            "warning: API \"1.40\" is older than 1.41, the oldest one that Cotter is tested with",
        ),
        (
            engine(Survey { storage_driver: "vfs".to_owned(), ..survey() }),
            "engine-storage",
            "warning: vfs shares no layers: each container needs the space of its complete image again",
        ),
        (
            engine(Survey { storage_driver: "aufs".to_owned(), ..survey() }),
            "engine-storage",
            "warning: newer engines do not support aufs",
        ),
        (engine(survey()), "engine-disk", "ok: 1.0 GiB free at /var/lib/docker, 64 MiB are kept free"),
        (
            Engine { disk: Some(disk((256 << 20) - 1, 10_000)), ..engine(survey()) },
            "engine-disk",
            "warning: 255 MiB free at /var/lib/docker, 64 MiB are kept free",
        ),
        (
            Engine { disk: Some(disk(64 << 20, 10_000)), ..engine(survey()) },
            "engine-disk",
            "error: 64 MiB free at /var/lib/docker, 64 MiB are kept free",
        ),
        (
            Engine { disk: None, ..engine(survey()) },
            "engine-disk",
            "skip: /var/lib/docker does not exist on this machine",
        ),
        (
            Engine { disk: Some(disk(GIB, 4_999)), ..engine(survey()) },
            "engine-inodes",
            "warning: only 4999 more files can be created at /var/lib/docker",
        ),
        (engine(survey()), "engine-log-rotation", "ok: local"),
        (
            engine(json_file()),
            "engine-log-rotation",
            "warning: json-file without max-size: logs of other containers than Cotter's grow until the disk is full",
        ),
        (
            Engine { daemon_file: limited, ..engine(json_file()) },
            "engine-log-rotation",
            "ok: json-file, 10m per file",
        ),
        (
            engine(Survey { has_live_restore: false, ..survey() }),
            "engine-live-restore",
            "warning: off: an upgrade or a crash of the engine stops every service until it is back",
        ),
        (
            engine(Survey { has_memory_limit: false, ..survey() }),
            "engine-memory-limits",
            "warning: cgroup version 2 without memory limits: mem_limit has no effect",
        ),
        (
            engine(Survey { warnings: vec!["WARNING: no swap\n".to_owned(), "b".to_owned()], ..survey() }),
            "engine-warnings",
            "warning: WARNING: no swap ; b",
        ),
        (
            engine(Survey { nameless_images: 3, nameless_bytes: 300 << 20, ..survey() }),
            "engine-images",
            "warning: 3 without a name, 300 MiB",
        ),
        (engine(survey()), "engine-instances", "ok: only default: 2 containers"),
        (
            engine(Survey { instances: BTreeMap::from([("default".to_owned(), 1)]), ..survey() }),
            "engine-instances",
            "ok: only default: 1 container",
        ),
        (
            engine(Survey { instances: others, ..survey() }),
            "engine-instances",
            "warning: other instances than default: lab (3)",
        ),
        (
            Engine { survey: Err("no answer within 15 s".to_owned()), ..engine(survey()) },
            "engine-answers",
            "error: no answer within 15 s",
        ),
    ] {
        let findings = super::engine::judge(&engine);
        assert_whole("engine", &findings);
        assert_eq!(as_text(&findings, id), finding);
    }
    let closed = Engine {
        closed: Some("Connection refused".to_owned()),
        survey: Err("it cannot be connected to".to_owned()),
        ..engine(survey())
    };
    let findings = super::engine::judge(&closed);
    assert_whole("engine", &findings);
    assert_eq!(as_text(&findings, "engine-socket"), "error: /docker.sock: Connection refused");
    assert_eq!(findings.iter().filter(|f| f.level == Level::Skip).count(), findings.len() - 1);
    let findings = super::engine::judge(&Engine { is_denied: true, ..closed });
    assert_eq!(
        as_text(&findings, "engine-socket"),
        "skip: /docker.sock: Connection refused; run the check as root"
    );
}

fn status() -> StatusDocument {
    let who = api::Who { instance: "default".to_owned(), uuid: "ab".repeat(16) };
    let cloud =
        CloudReport { last_contact: Some("2026-12-01T00:00:00Z".to_owned()), ..CloudReport::default() };
    let now = api::Now { boot_id: "", uptime: std::time::Duration::ZERO };
    api::document(&who, None, &Report::default(), Some(&cloud), now)
}

fn agent(status: StatusDocument) -> Agent {
    Agent {
        status: Ok(status),
        modes: [Some(0o660), Some(0o600)],
        unit_name: "cotter-agent.service".to_owned(),
        unit: unit("loaded", "enabled", "active"),
        instance: "default".to_owned(),
        has_lock_folders: true,
        lock_space: Some(LOCK_SPACE),
    }
}

/// As the unit makes it.
const LOCK_SPACE: Space = Space { is_own: true, bytes: 4 << 20, used: 8192, files: 2048, has: 12 };

#[expect(clippy::unnecessary_wraps, reason = "it stands where a unit may be missing")]
fn unit(load: &str, enabled: &str, active: &str) -> Option<Unit> {
    Some(Unit { load: load.to_owned(), enabled: enabled.to_owned(), active: active.to_owned() })
}

fn busy() -> ClientError {
    ClientError::NotFollowed { code: "busy".to_owned(), message: "the agent is busy".to_owned() }
}

fn no_agent() -> ClientError {
    ClientError::NoAgent { path: "/run/status.sock".into(), why: "refused".to_owned() }
}

fn waiting(reason: &str) -> api::WaitingStatus {
    api::WaitingStatus {
        app: None,
        service: None,
        reason: reason.to_owned(),
        why: "so".to_owned(),
        retry_in_s: None,
        since: None,
    }
}

#[test]
fn the_agent() {
    let held = Inspection { is_held: true, ..whole() };
    let waits = |reasons: &[&str]| {
        agent(StatusDocument { waiting: reasons.iter().map(|r| waiting(r)).collect(), ..status() })
    };
    for (agent, id, finding) in [
        (agent(status()), "agent-unit", "ok: cotter-agent.service is enabled, active"),
        (
            Agent { unit: unit("not-found", "", "inactive"), ..agent(status()) },
            "agent-unit",
            "skip: there is no cotter-agent.service",
        ),
        (
            Agent { unit: unit("loaded", "enabled", "failed"), ..agent(status()) },
            "agent-unit",
            "error: cotter-agent.service is enabled, failed",
        ),
        (
            Agent { unit: unit("loaded", "disabled", "active"), ..agent(status()) },
            "agent-unit",
            "warning: cotter-agent.service is disabled, active",
        ),
        (
            Agent { unit: unit("masked", "masked", "inactive"), ..agent(status()) },
            "agent-unit",
            "error: cotter-agent.service is masked, inactive",
        ),
        (
            Agent { status: Err(no_agent()), ..agent(status()) },
            "agent-alone",
            "error: a process uses the state folder, but no agent answers at the status socket",
        ),
        (Agent { status: Err(busy()), ..agent(status()) }, "agent-alone", "skip: the agent is busy"),
        (Agent { status: Err(busy()), ..agent(status()) }, "agent-answers", "warning: the agent is busy"),
        (
            Agent { instance: "lab".to_owned(), ..agent(status()) },
            "agent-alone",
            "error: the agent at this socket has instance default, but the settings have lab",
        ),
        (
            agent(StatusDocument { version: "0.0.9".to_owned(), ..status() }),
            "agent-version",
            "warning: version 0.0.9 runs, but 0.2.0 is installed",
        ),
        (agent(status()), "agent-sockets", "ok: status 660, control 600"),
        (agent(status()), "agent-lock-space", "ok: 4.0 MiB for all of them, 64 KiB or 64 files for each"),
        (
            Agent { lock_space: None, ..agent(status()) },
            "agent-lock-space",
            "skip: there are no lock folders",
        ),
        (
            Agent { lock_space: Some(Space { is_own: false, ..LOCK_SPACE }), ..agent(status()) },
            "agent-lock-space",
            "warning: only the agent limits them: it empties one with more than 64 KiB or 64 files within half a minute",
        ),
        (
            Agent { lock_space: Some(Space { has: 2000, ..LOCK_SPACE }), ..agent(status()) },
            "agent-lock-space",
            "warning: 8.0 KiB of 4.0 MiB and 2000 of 2048 files are in use",
        ),
        (
            Agent { modes: [Some(0o666), Some(0o600)], ..agent(status()) },
            "agent-sockets",
            "warning: every user can read the status: status.sock has mode 666",
        ),
        (
            Agent { modes: [Some(0o660), Some(0o660)], ..agent(status()) },
            "agent-sockets",
            "error: other users can control the agent: control.sock has mode 660",
        ),
        (
            agent(StatusDocument { store_error: Some("no space".to_owned()), ..status() }),
            "agent-trouble",
            "error: no space",
        ),
        (waits(&["downloading", "held"]), "agent-waits", "ok: nothing that does not clear by itself"),
        (waits(&["downloading", "rejected", "backoff"]), "agent-waits", "warning: rejected: so (and 1 more)"),
    ] {
        let findings = super::agent::judge(&agent, Some(&held));
        assert_whole("agent", &findings);
        assert_eq!(as_text(&findings, id), finding);
    }
    let findings = super::agent::judge(&agent(status()), Some(&whole()));
    let alone =
        "warning: the agent that answers does not hold this state folder: it was started with other settings";
    assert_eq!(as_text(&findings, "agent-alone"), alone);
}

#[test]
fn what_waits_for_a_person_are_words_of_the_status() {
    for word in super::agent::FOR_A_PERSON {
        assert!(crate::model::Reason::ALL.iter().any(|reason| reason.as_str() == word), "{word}");
    }
}

fn broken(why: &str) -> Broken {
    std::io::Error::other(why).into()
}

fn way(answer: Result<Answered, CloudError>) -> Way {
    let probe = Probe {
        host: "a.example".to_owned(),
        port: 443,
        addresses: Ok(vec!["10.0.0.1".to_owned()]),
        connection: Some(Ok("10.0.0.1:443".to_owned())),
        answer,
    };
    Way { probe: Some(Ok(probe)), proxy: None, at: "2026-12-01T00:00:00Z".parse().unwrap() }
}

fn answered(date: &str) -> Way {
    way(Ok(Answered { is_known: true, date: Some(date.to_owned()) }))
}

#[test]
fn the_way_to_the_cloud() {
    let unreachable = |why: Broken| {
        let why = Failure::Unreachable(why);
        way(Err(CloudError::Unreachable { endpoint: "https://a.example".to_owned(), why }))
    };
    let mut nameless = unreachable(broken("no name"));
    if let Some(Ok(probe)) = &mut nameless.probe {
        probe.addresses = Err("Name or service not known".to_owned());
        probe.connection = None;
    }
    let same = "Tue, 01 Dec 2026 00:00:00 GMT";
    for (way, id, finding) in [
        (answered(same), "cloud-name", "ok: a.example is 10.0.0.1"),
        (answered(same), "cloud-connects", "ok: 10.0.0.1:443"),
        (answered(same), "cloud-answers", "ok: it accepts this device's key"),
        (answered(same), "cloud-clock", "ok: ours is 0 s ahead of the cloud's"),
        (answered("Mon, 30 Nov 2026 23:58:00 GMT"), "cloud-clock", "ok: ours is 120 s ahead of the cloud's"),
        (
            answered("Tue, 01 Dec 2026 00:02:01 GMT"),
            "cloud-clock",
            "warning: ours is 121 s behind the cloud's",
        ),
        (
            answered("Thu, 03 Dec 2026 00:00:00 GMT"),
            "cloud-clock",
            "error: ours is 172800 s behind the cloud's",
        ),
        (answered("soon"), "cloud-clock", "skip: the cloud's time cannot be read: \"soon\""),
        (nameless, "cloud-name", "error: a.example: Name or service not known"),
        (
            unreachable(broken("refused")),
            "cloud-answers",
            "error: cloud https://a.example cannot be reached: refused",
        ),
        (
            way(Err(CloudError::Redirected {
                endpoint: "https://a.example".to_owned(),
                request: "poll",
                why: "it redirects to https://b.example".to_owned(),
            })),
            "cloud-answers",
            "error: cloud https://a.example does not answer poll itself: it redirects to https://b.example; if the cloud \
             has moved, set cloud.endpoint to its new address; otherwise a proxy or portal intercepts the request",
        ),
        (
            Way { proxy: Some("HTTPS_PROXY".to_owned()), ..answered(same) },
            "cloud-name",
            "skip: HTTPS_PROXY is set: requests go through a proxy",
        ),
        (Way { probe: None, ..answered(same) }, "cloud-answers", "skip: no cloud is set"),
        (answered(same), "cloud-contact", "ok: last contact 2026-12-01T00:00:00Z"),
    ] {
        let findings = super::cloud::judge(&way, Some(&status()));
        assert_whole("cloud", &findings);
        assert_eq!(as_text(&findings, id), finding);
    }
    for (why, remedy) in [
        (untrusted(), "is the clock right"),
        // What counts is the kind of the error, and not a word in it.
        (broken("certificates.example does not answer"), "see cloud-name"),
        (broken("Connection refused (os error 111)"), "see cloud-name"),
    ] {
        let findings = super::cloud::judge(&unreachable(why.clone()), None);
        let answer = findings.iter().find(|finding| finding.id == "cloud-answers").unwrap();
        assert!(answer.remedy.as_ref().unwrap().starts_with(remedy), "{why}");
    }
    let mut failing = status();
    let cloud = failing.cloud.as_mut().unwrap();
    (cloud.error, cloud.failures) = (Some("no route".to_owned()), 4);
    let findings = super::cloud::judge(&answered(same), Some(&failing));
    let expected = "warning: last contact 2026-12-01T00:00:00Z, failed 4 times since: no route";
    assert_eq!(as_text(&findings, "cloud-contact"), expected);
    for (variables, expected) in [
        (&[][..], "skip: the cloud has sent none"),
        (&[("A", "honoured", "x"), ("B", "honoured", "y")], "ok: 2 have their effect"),
        (
            &[("B", "not_applicable", "no VPN"), ("A", "honoured", "x")],
            "ok: 1 have their effect; B: not applicable here: no VPN",
        ),
        (&[("B", "bad_value", "it is wrong")], "warning: 0 have their effect; B: it is wrong"),
        (&[("B", "unknown", "not known")], "warning: 0 have their effect; B: not known"),
    ] {
        let variable = |(name, standing, what): &(&str, &str, &str)| api::VariableStatus {
            name: (*name).to_owned(),
            standing: (*standing).to_owned(),
            what: (*what).to_owned(),
        };
        let status = StatusDocument { variables: variables.iter().map(variable).collect(), ..status() };
        let findings = super::cloud::judge(&answered(same), Some(&status));
        assert_eq!(as_text(&findings, "cloud-variables"), expected);
    }
}

#[test]
fn every_check_has_its_place() {
    let left_out = BTreeSet::from(["engine-disk"]);
    let findings = in_order(vec![error("engine-disk", "x", "y"), ok("config-valid", "x")], &left_out);
    assert_eq!(
        findings.iter().map(|f| f.id).collect::<Vec<_>>(),
        CHECKS.iter().map(|c| c.0).collect::<Vec<_>>()
    );
    assert_eq!(as_text(&findings, "config-valid"), "ok: x");
    assert_eq!(as_text(&findings, "engine-disk"), "skip: left out by --dont-run");
}
