//! The command line of the fleet, as the binary runs it: what it prints and how it exits.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};
use tempfile::TempDir;

const COTTER: &str = env!("CARGO_BIN_EXE_cotter");
const COTTER_FLEET: &str = env!("CARGO_BIN_EXE_cotter-fleet");
const A: &str = "aaaa0000aaaa0000aaaa0000aaaa0000";
const B: &str = "bbbb0000bbbb0000bbbb0000bbbb0000";

/// `cotter`, deaf to the environment of whoever runs the tests.
fn cotter() -> Command {
    program(COTTER)
}

/// `cotter-fleet`, in the same way.
fn cotter_fleet() -> Command {
    program(COTTER_FLEET)
}

fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    command.env_clear().stdin(Stdio::null());
    command
}

/// `cotter-fleet serve` on a free port. Killed when dropped.
struct Serving {
    child: Child,
    url: String,
    data: PathBuf,
}

impl Serving {
    fn start(data: &Path) -> Self {
        let mut child = cotter_fleet()
            .args(["serve", "--listen", "127.0.0.1:0", "--poll-interval", "5s", "--data-dir"])
            .arg(data)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("fleet server is listening"), "{line}");
        let url = line.split("url=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        Self { child, url, data: data.to_owned() }
    }

    /// Runs `cotter` with these words against this server: what it printed, as one text.
    fn run(&self, words: &str) -> String {
        let mut command = cotter();
        command.args(words.split_whitespace().map(|word| word.replace('~', " ")));
        command.env("COTTER_FLEET_URL", &self.url).env("COTTER_TOKEN_FILE", self.data.join("operator.token"));
        command.current_dir(self.data.parent().unwrap());
        printed(&mut command)
    }

    fn json(&self, words: &str) -> Value {
        let printed = self.run(&format!("{words} --json"));
        let printed = printed.split("\n--- stderr\n").next().unwrap();
        serde_json::from_str(printed).unwrap_or_else(|error| panic!("{words}: {error}: {printed}"))
    }

    fn register(&self, key: &str, uuid: &str, name: &str) {
        let body = json!({ "application": 1, "device_type": "generic-amd64", "uuid": uuid, "api_key": format!("key-of-{name}-0123456789"), "device_name": name });
        let request = client().post(format!("{}/device/register", self.url)).bearer_auth(key).json(&body);
        block_on(async { assert_eq!(request.send().await.unwrap().status().as_u16(), 201) });
    }

    fn signal(&self, signal: &str) {
        let killed = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn client() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// What a command printed, and its exit code when it is not 0.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap().trim_end().to_owned();
    if !output.stderr.is_empty() {
        text += &format!("\n--- stderr\n{}", String::from_utf8(output.stderr).unwrap().trim_end());
    }
    match output.status.code().unwrap() {
        0 => text,
        code => format!("{text}\n--- exit {code}").trim_start().to_owned(),
    }
}

/// A fleet `lab` with devices `porch` and `attic` and releases `1111...`, `2222...`.
struct Lab {
    _dir: TempDir,
    serving: Serving,
    uuid: String,
}

impl Lab {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let serving = Serving::start(&dir.path().join("data"));
        let created = serving.json("fleet create lab");
        let key = created["created"]["provisioning_key"].as_str().unwrap();
        serving.register(key, A, "porch");
        serving.register(key, B, "attic");
        let image = format!("127.0.0.1:5000/lab/web@sha256:{}", "c".repeat(64));
        let compose =
            format!("services:\n  web:\n    image: {image}\n    restart: always\nvolumes:\n  data:\n");
        std::fs::write(dir.path().join("docker-compose.yml"), compose).unwrap();
        for n in ["1", "2"] {
            let commit = n.repeat(40);
            serving.json(&format!(
                "release create lab --commit {commit} --start-timestamp 2026-01-0{n}T00:00:00Z"
            ));
        }
        let uuid = created["created"]["fleet"]["uuid"].as_str().unwrap().to_owned();
        Self { _dir: dir, serving, uuid }
    }

    fn run(&self, words: &str) -> String {
        let printed = self.serving.run(words).replace(&self.uuid, "<fleet uuid>");
        let lines = printed.lines().map(|line| {
            if line.starts_with("created   20") {
                "created   <now>"
            } else if line.starts_with("pinned    at 20") {
                "pinned    at <now> by token operator.token"
            } else if line.starts_with("registered with  key ") {
                "registered with  key <key id>"
            } else {
                line
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn reading_a_fleet() {
    let lab = Lab::new();
    assert_snapshot!(lab.run("fleet list"), @r"
    NUMBER  NAME  FOLLOWS  TARGET        DEVICES  RELEASES
    1       lab   latest   222222222222  2        2
    ");
    assert_snapshot!(lab.run("device list"), @r"
    UUID          NAME   FLEET  STATE   TARGET        BY     RUNNING  SEEN   WHY
    aaaa0000aaaa  porch  lab    silent  222222222222  fleet  -        never  -
    bbbb0000bbbb  attic  lab    silent  222222222222  fleet  -        never  -
    ");
    assert_snapshot!(lab.run("release list lab"), @r"
    COMMIT                                    FLEET  STATE    STARTED               TARGET OF  PINNED  RUNNING
    1111111111111111111111111111111111111111  lab    success  2026-01-01T00:00:00Z  -          0       0
    2222222222222222222222222222222222222222  lab    success  2026-01-02T00:00:00Z  fleet      0       0
    ");
    assert_snapshot!(lab.run("release show 2222"), @r"
    release          2222222222222222222222222222222222222222
    number           2
    fleet            lab
    state            success
    started          2026-01-02T00:00:00Z
    fleet target     yes
    pinned devices   0
    running devices  0

    SERVICE  IMAGE
    web      127.0.0.1:5000/lab/web@sha256:cccccccc
    ");
    assert_snapshot!(lab.run("device show porch"), @r"
    device           porch
    uuid             aaaa0000aaaa0000aaaa0000aaaa0000
    type             generic-amd64
    fleet            lab
    pin              -
    target           2222222222222222222222222222222222222222
    running          -
    state            silent
    why              -
    agent            -
    last seen        -
    tags             -
    registered with  key <key id>
    reported         -
    ");
    assert_snapshot!(lab.run("fleet show lab"), @r"
    fleet     lab
    number    1
    uuid      <fleet uuid>
    follows   latest
    target    2222222222222222222222222222222222222222
    devices   2: 2 silent
    releases  2
    registry  -
    created   <now>
    ");
}

#[test]
fn many_devices_are_tagged_in_one_act_or_none() {
    let lab = Lab::new();
    let tags = |device: &str| lab.serving.json(&format!("device show {device}"))["device"]["tags"].clone();
    lab.run("device tag porch ring=canary old=1");
    lab.run("device tag attic ring=canary");
    assert_snapshot!(lab.run("device tag --filter ring=canary site=hq --remove old --dry-run"), @r"
    UUID          NAME   FLEET  TAGS ARE
    aaaa0000aaaa  porch  lab    ring=canary,site=hq
    bbbb0000bbbb  attic  lab    ring=canary,site=hq
    --- stderr
    nothing was changed: this was a dry run
    ");
    assert_eq!(tags("porch"), json!({ "ring": "canary", "old": "1" }));
    let bulk = lab.serving.json("device tag --filter ring=canary site=hq --remove old");
    assert_eq!(bulk["bulk"]["devices"][1]["tags"], json!({ "ring": "canary", "site": "hq" }));
    for device in ["porch", "attic"] {
        assert_eq!(tags(device), json!({ "ring": "canary", "site": "hq" }), "{device}");
    }
    // The hundredth tag of one is too many, so the other one gets none either.
    let many: Vec<_> = (0..98).map(|n| format!("k{n}=v")).collect();
    lab.run(&format!("device tag porch {}", many.join(" ")));
    assert_snapshot!(lab.run("device tag --filter ring=canary one=more"), @r"
    --- stderr
    error: 101 cannot be the number of tags of a device: it must be from 0 to 100
    --- exit 2
    ");
    assert_eq!(tags("attic"), json!({ "ring": "canary", "site": "hq" }));
    assert_snapshot!(lab.run("device tag --filter ring=none a=b"), @r#"
    --- stderr
    error: no device matches "ring=none"; `cotter device list --columns name,tags` shows all tags
    --- exit 5
    "#);
    assert_snapshot!(lab.run("device tag --filter ring=canary"), @r"
    --- stderr
    error: give tags to set, KEY=VALUE, or to remove, --remove KEY
    --- exit 2
    ");
}

#[test]
fn a_fleet_is_renamed_and_deleted() {
    let mut lab = Lab::new();
    let key = lab.serving.json("fleet provisioning-key create lab")["created"]["provisioning_key"].clone();
    assert_snapshot!(lab.run("fleet rename lab 7"), @r#"
    --- stderr
    error: "7" cannot be a fleet name: digits alone would be taken for a fleet's number, and 32 hex digits for its uuid; put a letter or '-' into it
    --- exit 2
    "#);
    lab.run("fleet create yard");
    assert_snapshot!(lab.run("fleet rename lab yard"), @r#"
    --- stderr
    error: the fleet name "yard" is taken; choose another
    --- exit 21
    "#);
    let renamed = lab.serving.json("fleet rename lab works");
    assert_eq!((&renamed["fleet"]["name"], &renamed["fleet"]["number"]), (&json!("works"), &json!(1)));
    assert_snapshot!(lab.run("device list --columns name,fleet,target,version"), @r"
    NAME   FLEET  TARGET        VERSION
    porch  works  222222222222  -
    attic  works  222222222222  -
    ");
    // Its keys are still its keys.
    lab.serving.register(key.as_str().unwrap(), &"c".repeat(32), "hall");
    lab.run("device move attic yard");
    assert_snapshot!(lab.run("fleet delete works"), @r"
    --- stderr
    error: fleet works has 2 devices; move or delete them first (`cotter device list --fleet`), or delete them with it: --with-devices
    --- exit 21
    ");
    assert_snapshot!(lab.run("fleet delete works --with-devices --dry-run"), @r"
    fleet              works
    number             1
    releases           2
    provisioning keys  2
    devices            2

    UUID          NAME
    aaaa0000aaaa  porch
    cccccccccccc  hall
    --- stderr
    nothing was deleted: this was a dry run
    ");
    let unasked = lab.run("fleet delete works --with-devices");
    assert!(
        unasked.ends_with("error: nothing was deleted; without a terminal this needs --yes\n--- exit 2"),
        "{unasked}"
    );
    assert_eq!(lab.serving.json("device list")["devices"].as_array().unwrap().len(), 3);
    let gone = lab.run("fleet delete works --with-devices --yes");
    assert!(
        gone.ends_with("deleted fleet works with 2 devices, 2 releases and 2 provisioning keys"),
        "{gone}"
    );
    assert_snapshot!(lab.run("device list --columns name,fleet,target"), @r"
    NAME   FLEET  TARGET
    attic  yard   -
    ");
    assert_snapshot!(lab.run("release list"), @"there is no release; create one with `cotter release create FLEET`");
    assert_snapshot!(lab.run("device allow porch --restore"), @r"
    --- stderr
    error: the fleet of device aaaa0000aaaa0000aaaa0000aaaa0000 was deleted, so it cannot be restored; let it register in another fleet, with a key of that: `cotter device allow aaaa0000aaaa0000aaaa0000aaaa0000` without --restore
    --- exit 21
    ");
    assert!(lab.run("fleet delete yard --yes").contains("yard has 1 device;"));
    lab.run("device delete attic --yes");
    assert!(
        lab.run("fleet delete yard --yes")
            .ends_with("deleted fleet yard with 0 devices, 0 releases and 1 provisioning key")
    );
    // Nothing of it comes back from the disk.
    lab.serving.child.kill().unwrap();
    lab.serving.child.wait().unwrap();
    lab.serving = Serving::start(&lab.serving.data.clone());
    assert_snapshot!(lab.run("fleet list"), @"there is no fleet; create one with `cotter fleet create NAME`");
    assert!(lab.run("fleet create works").contains("number            3"), "no number is used twice");
}

#[test]
fn errors_are_json_where_json_is_asked_for() {
    let lab = Lab::new();
    let error = |words: &str| {
        let printed = lab.serving.run(&format!("{words} --json"));
        let (line, exit) = printed.strip_prefix("--- stderr\n").unwrap().split_once("\n--- exit ").unwrap();
        assert_eq!(line.lines().count(), 1, "{line}");
        let document: Value = serde_json::from_str(line).unwrap();
        assert_eq!(document["schema_version"], 1);
        let error = &document["error"];
        assert_eq!(error["exit"].to_string(), exit, "{words}");
        let text = |name: &str| error[name].as_str().unwrap_or("-").to_owned();
        (text("code"), text("rule"), text("message"))
    };
    for (words, code, rule, message) in [
        ("fleet show none", "not_found", "no_such_fleet", "there is no fleet \"none\""),
        ("fleet create lab", "refused", "fleet_name_taken", "the fleet name \"lab\" is taken"),
        ("fleet delete lab --yes", "refused", "fleet_has_devices", "fleet lab has 2 devices"),
        ("device pin porch 9999", "not_found", "no_such_release", "there is no release \"9999\""),
        ("device tag --filter a=b c=d", "not_found", "no_device_matches", "no device matches \"a=b\""),
        ("device rename porch attic", "refused", "name_taken", "device bbbb0000"),
        ("release delete 2222 --yes", "refused", "in_use", "release 2222"),
        (
            "fleet delete lab --with-devices",
            "usage",
            "-",
            "nothing was deleted; with --json this needs --yes",
        ),
        ("device delete porch", "usage", "-", "nothing was deleted; with --json this needs --yes"),
        ("device delete --filter !ring", "usage", "-", "nothing was deleted; with --json this needs --yes"),
        ("release delete 1111", "usage", "-", "nothing was deleted; with --json this needs --yes"),
        ("device list --filter ==", "usage", "-", ""),
        ("device list --nonsense", "usage", "-", "unexpected argument '--nonsense' found"),
        (
            "fleet list --url http://127.0.0.1:1",
            "unreachable",
            "-",
            "no fleet server answers at http://127.0.0.1:1",
        ),
    ] {
        let found = error(words);
        assert_eq!((found.0.as_str(), found.1.as_str()), (code, rule), "{words}: {found:?}");
        assert!(found.2.starts_with(message), "{words}: {found:?}");
    }
    // Without it they are lines for people.
    assert!(lab.run("fleet show none").starts_with("--- stderr\nerror: there is no fleet"));
}

#[test]
fn a_fleet_has_a_registry_as_a_setting() {
    let lab = Lab::new();
    let registry = |words: &str| lab.serving.json(words)["fleet"]["registry"].clone();
    assert_eq!(registry("fleet show lab"), Value::Null);
    assert_eq!(registry("fleet set lab --registry r.example/lab/"), "r.example/lab");
    assert_eq!(registry("fleet show lab"), "r.example/lab");
    assert_eq!(registry("fleet set lab --no-registry"), Value::Null);
    let created = lab.serving.json("fleet create yard --registry localhost:5000");
    assert_eq!(created["created"]["fleet"]["registry"], "localhost:5000");
    assert_snapshot!(lab.run("fleet set lab --registry lab"), @r#"
    --- stderr
    error: "lab" cannot be a registry: write HOST[:PORT][/PATH], e.g. registry.example.com/lab, without https:// and in lower case, 128 characters at most
    --- exit 2
    "#);
    let none = lab.run("fleet set lab");
    assert!(none.contains("--registry") && none.ends_with("--- exit 2"), "{none}");
}

#[test]
fn pinning_and_tagging() {
    let lab = Lab::new();
    lab.run("device tag porch ring=canary site=hq");
    lab.run("device tag attic ring=prod");
    assert_snapshot!(lab.run("device pin --filter ring=canary,site!=lab 1111 --dry-run"), @r"
    UUID          NAME   FLEET  TARGET WAS    TARGET IS
    aaaa0000aaaa  porch  lab    222222222222  111111111111
    --- stderr
    nothing was changed: this was a dry run
    ");
    assert_snapshot!(lab.run("device pin --filter ring=canary 1111"), @r"
    UUID          NAME   FLEET  TARGET WAS    TARGET IS
    aaaa0000aaaa  porch  lab    222222222222  111111111111
    ");
    assert_snapshot!(lab.run("device pin aaaa 9999"), @r#"
    --- stderr
    error: there is no release "9999"; give its commit or the first 4 or more characters of it (`cotter release list`)
    --- exit 5
    "#);
    assert_snapshot!(lab.run("fleet pin lab 1111"), @r"
    fleet     lab
    number    1
    uuid      <fleet uuid>
    follows   pin
    target    1111111111111111111111111111111111111111
    devices   2: 2 silent
    releases  2
    registry  -
    created   <now>
    pinned    at <now> by token operator.token
    ");
    assert_snapshot!(lab.run("release delete 1111 --yes"), @r"
    --- stderr
    error: release 1111111111111111111111111111111111111111 is the target of its fleet and pinned by device aaaa0000aaaa0000aaaa0000aaaa0000, so it cannot be deleted; pin or track another release there first
    --- exit 21
    ");
    assert_snapshot!(lab.run("device track-fleet --filter ring"), @r"
    UUID          NAME   FLEET  TARGET WAS    TARGET IS
    aaaa0000aaaa  porch  lab    111111111111  111111111111
    bbbb0000bbbb  attic  lab    111111111111  111111111111
    ");
    assert_snapshot!(lab.run("fleet track-latest lab"), @r"
    fleet     lab
    number    1
    uuid      <fleet uuid>
    follows   latest
    target    2222222222222222222222222222222222222222
    devices   2: 2 silent
    releases  2
    registry  -
    created   <now>
    ");
    assert_snapshot!(lab.run("release invalidate 2222"), @r"
    release          2222222222222222222222222222222222222222
    number           2
    fleet            lab
    state            success, invalidated
    started          2026-01-02T00:00:00Z
    fleet target     no
    pinned devices   0
    running devices  0

    SERVICE  IMAGE
    web      127.0.0.1:5000/lab/web@sha256:cccccccc
    ");
    assert_snapshot!(lab.run("release validate 2222"), @r"
    release          2222222222222222222222222222222222222222
    number           2
    fleet            lab
    state            success
    started          2026-01-02T00:00:00Z
    fleet target     yes
    pinned devices   0
    running devices  0

    SERVICE  IMAGE
    web      127.0.0.1:5000/lab/web@sha256:cccccccc
    ");
    assert_snapshot!(lab.run("device tag porch --remove site"), @r"
    device     porch
    uuid       aaaa0000aaaa0000aaaa0000aaaa0000
    type       generic-amd64
    fleet      lab
    pin        -
    target     2222222222222222222222222222222222222222
    running    -
    state      silent
    why        -
    agent      -
    last seen  -
    tags       ring=canary
    ");
    lab.run("fleet create site");
    assert_snapshot!(lab.run("device move attic site"), @r"
    device     attic
    uuid       bbbb0000bbbb0000bbbb0000bbbb0000
    type       generic-amd64
    fleet      site
    pin        -
    target     -
    running    -
    state      silent
    why        -
    agent      -
    last seen  -
    tags       ring=prod
    ");
    assert_snapshot!(lab.run("device delete attic --yes"), @"deleted bbbb0000bbbb0000bbbb0000bbbb0000 (attic); its containers keep running, and it cannot register again until `cotter device allow bbbb0000bbbb0000bbbb0000bbbb0000`");
    assert_snapshot!(lab.run("release delete 1111 --yes"), @"deleted 1111111111111111111111111111111111111111 of lab");
}

#[test]
fn keys_and_deleted_devices() {
    let lab = Lab::new();
    let alone = lab.run("fleet provisioning-key lab");
    let other = lab.run("fleet provisioning-key create lab --name factory --expires-in 30d --uses 500");
    for key in [&alone, &other] {
        assert!(key.len() == 32 && key.chars().all(|c| c.is_ascii_hexdigit()), "the key alone: {key}");
    }
    let listed = lab.serving.json("fleet provisioning-key list lab");
    let states: Vec<&Value> = listed["keys"].as_array().unwrap().iter().map(|key| &key["uses"]).collect();
    assert_eq!(states, [2, 0, 0]);
    let table = lab.run("fleet provisioning-key list lab");
    assert!(
        table.starts_with("ID            NAME     STATE   USES      DEVICES  A MINUTE  EXPIRES"),
        "{table}"
    );
    assert!(table.contains("  factory  active  0 of 500  0        60        20"), "{table}");
    let id = listed["keys"][0]["id"].as_str().unwrap();
    let revoked = format!("revoked {id}; the devices that registered with it keep working (2)");
    assert_eq!(lab.run(&format!("fleet provisioning-key revoke lab {id}")), revoked);
    assert!(lab.run("fleet provisioning-key list lab").contains(&format!("{id}  -        revoked  2")));

    assert_snapshot!(lab.run(&format!("device delete --provisioning-key {id} --dry-run")), @r"
    UUID          NAME   FLEET
    aaaa0000aaaa  porch  lab
    bbbb0000bbbb  attic  lab
    --- stderr
    nothing was deleted: this was a dry run
    ");
    // Standard input is no terminal here, so no question can be asked.
    assert_snapshot!(lab.run("device delete --filter !ring --fleet lab"), @r"
    UUID          NAME   FLEET
    aaaa0000aaaa  porch  lab
    bbbb0000bbbb  attic  lab
    --- stderr
    error: nothing was deleted; without a terminal this needs --yes
    --- exit 2
    ");
    assert_snapshot!(lab.run("device delete --filter !ring --yes"), @r"
    UUID          NAME   FLEET
    aaaa0000aaaa  porch  lab
    bbbb0000bbbb  attic  lab
    --- stderr
    deleted 2 devices; `cotter device allow` lets one come back
    ");
    let barred = lab.run("device barred");
    assert!(barred.starts_with("UUID                              NAME   FLEET  DELETED"), "{barred}");
    assert!(barred.contains(&format!("{A}  porch  lab    20")) && barred.contains(id), "{barred}");
    assert_snapshot!(lab.run("device allow porch attic --restore"), @r"
    aaaa0000aaaa0000aaaa0000aaaa0000 (porch) is a device of lab again, from its next poll on
    bbbb0000bbbb0000bbbb0000bbbb0000 (attic) is a device of lab again, from its next poll on
    ");
    assert_snapshot!(lab.run("device barred"), @"no device is barred");
    assert_snapshot!(lab.run("device rename porch beef"), @r#"
    --- stderr
    error: "beef" cannot be a device name: 4 or more hex digits alone would be taken for the beginning of a uuid or an id; put another character into it
    --- exit 2
    "#);
    assert!(lab.run("device rename porch terrace~2").starts_with("device     terrace 2\n"));
}

#[test]
fn errors_are_one_line_with_their_exit_code() {
    let lab = Lab::new();
    std::fs::write(lab.serving.data.join("../bad.yml"), "services:\n  web:\n    build: .\n").unwrap();
    let image = format!("r/a@sha256:{}", "c".repeat(64));
    let refused = format!("services:\n  web:\n    image: {image}\n    ports: [\"x:y\"]\n");
    std::fs::write(lab.serving.data.join("../refused.yml"), refused).unwrap();
    std::fs::write(lab.serving.data.join("../tag.yml"), "services: { web: { image: \"127.0.0.1:1/a:1\" } }")
        .unwrap();
    std::fs::write(lab.serving.data.join("../other.token"), "wrong").unwrap();
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(lab.serving.data.join("../other.token"), private).unwrap();
    std::fs::write(lab.serving.data.join("../open.token"), "wrong").unwrap();
    for (words, expected) in [
        ("device show nope", "--- exit 5"),
        ("fleet create lab", "--- exit 21"),
        ("device pin porch", "--- exit 2"),
        ("device pin --filter ring porch 1111", "--- exit 2"),
        ("device pin --filter a=b=c 1111", "--- exit 2"),
        ("device pin --filter ring=x 1111", "--- exit 5"),
        ("device pin porch 1111 --dry-run", "--- exit 2"),
        ("device track-fleet", "--- exit 2"),
        ("device track-fleet porch --filter ring", "--- exit 2"),
        ("device tag porch", "--- exit 2"),
        ("device delete", "--- exit 2"),
        ("device delete porch --filter ring", "--- exit 2"),
        ("device delete --fleet lab", "--- exit 2"),
        ("device delete --filter ring", "--- exit 5"),
        ("device allow porch", "--- exit 5"),
        ("device rename porch attic", "--- exit 21"),
        ("fleet provisioning-key", "--- exit 2"),
        ("fleet provisioning-key revoke lab nope", "--- exit 5"),
        ("fleet provisioning-key create lab --expires-in soon", "--- exit 2"),
        ("device tag porch ring", "--- exit 2"),
        ("device tag porch a~b=c", "--- exit 2"),
        ("release create lab --file none.yml", "--- exit 2"),
        ("release create lab --file bad.yml", "--- exit 2"),
        ("release create lab --file refused.yml", "--- exit 21"),
        ("release create lab --file tag.yml", "--- exit 20"),
        ("release create nope", "--- exit 5"),
        ("release create lab --commit a/b", "--- exit 2"),
        ("release create lab --start-timestamp soon", "--- exit 2"),
        ("fleet list --token-file other.token", "--- exit 4"),
        ("fleet list --token-file none.token", "--- exit 4"),
        ("fleet list --token-file open.token", "--- exit 4"),
        ("fleet list --token-file bad.yml", "--- exit 4"),
        ("fleet list --url ftp://x", "--- exit 2"),
        ("fleet list --url http://127.0.0.1:1", "--- exit 20"),
        ("fleet lost", "--- exit 2"),
        ("", "--- exit 2"),
    ] {
        let printed = lab.run(words);
        assert!(printed.ends_with(expected), "{words}: {printed}");
        if words.is_empty() {
            continue; // the help, whole
        }
        assert!(printed.starts_with("--- stderr\nerror: "), "{words}: {printed}");
        assert_eq!(printed.lines().count(), 3, "{words}: {printed}");
    }
    let wrong = lab.run("fleet list --token-file other.token").replace(&lab.serving.url, "<url>");
    assert_snapshot!(wrong, @r"
    --- stderr
    error: the fleet server at <url>/ does not accept this token; pass one that `cotter token create` made, or the operator.token of its data folder, with --token-file or COTTER_TOKEN
    --- exit 4
    ");
    assert_snapshot!(lab.run("fleet list --token-file open.token"), @r"
    --- stderr
    error: cannot read the operator's token in open.token; name its file with --token-file, or set COTTER_TOKEN: every user can read it (mode 644) and control the fleet with it; chmod 600 it
    --- exit 4
    ");
    assert_snapshot!(lab.run("fleet list --url http://127.0.0.1:1"), @r"
    --- stderr
    error: no fleet server answers at http://127.0.0.1:1/ (Connection refused (os error 111)); is `cotter-fleet serve` running? --url names another address
    --- exit 20
    ");
    assert_snapshot!(lab.run("release create lab --file bad.yml"), @r"
    --- stderr
    error: bad.yml:3: services.web.build: images are not built here: use `cotter push`, which builds them, or build and push it and name the image
    --- exit 2
    ");
    assert_snapshot!(lab.run("release create lab --file refused.yml"), @r#"
    --- stderr
    error: refused.yml:4: services.web.ports[0]: "x:y" is not accepted: write "[address:][host port[-end]:]container port[-end][/tcp|/udp]", e.g. "8080:80"
    --- exit 21
    "#);
    assert_snapshot!(lab.run("device pin porch"), @r"
    --- stderr
    error: give a device and a commit, or --filter and a commit
    --- exit 2
    ");
    assert_snapshot!(lab.run("device tag porch ring"), @r#"
    --- stderr
    error: "ring" is not a tag; write KEY=VALUE (VALUE may be empty)
    --- exit 2
    "#);
}

#[test]
fn json_has_a_schema_version_on_every_verb() {
    let lab = Lab::new();
    for (words, name) in [
        ("fleet list", "fleets"),
        ("fleet show lab", "fleet"),
        ("fleet pin lab 1111", "fleet"),
        ("fleet track-latest lab", "fleet"),
        ("fleet provisioning-key lab", "created"),
        ("fleet provisioning-key create lab --name factory", "created"),
        ("fleet provisioning-key list lab", "keys"),
        ("fleet provisioning-key revoke lab factory", "key"),
        ("device list", "devices"),
        ("device show porch", "device"),
        ("device pin porch 1111", "device"),
        ("device track-fleet porch", "device"),
        ("device tag porch ring=canary", "device"),
        ("device pin --filter ring 1111", "bulk"),
        ("device track-fleet --filter ring", "bulk"),
        ("device move porch lab", "device"),
        ("release list", "releases"),
        ("release show 1111", "release"),
        ("release invalidate 1111", "release"),
        ("release validate 1111", "release"),
        ("release set-status 1111 failed", "release"),
        ("release delete 1111 --yes", "deleted"),
        ("device rename porch terrace", "device"),
        ("device delete attic --yes", "deleted"),
        ("device barred", "barred"),
        ("device allow attic --restore", "allowed"),
        ("device delete --filter ring --dry-run", "bulk"),
        ("device delete --filter ring --yes", "bulk"),
    ] {
        let document = lab.serving.json(words);
        let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
        assert_eq!(keys, [name, "schema_version"], "{words}");
        assert_eq!(document["schema_version"], 1);
    }
}

/// Every verb that asks a fleet server, with what it needs besides.
const ASKING: [&str; 16] = [
    "fleet create lab",
    "fleet list",
    "fleet show lab",
    "fleet pin lab 1111",
    "fleet track-latest lab",
    "fleet provisioning-key lab",
    "device list",
    "device show porch",
    "device pin porch 1111",
    "device track-fleet porch",
    "device tag porch a=b",
    "device move porch lab",
    "device delete porch",
    "release list",
    "release show 1111",
    "release delete 1111",
];

#[test]
fn the_token_goes_to_no_other_machine_in_the_clear() {
    let dir = TempDir::new().unwrap();
    // It is not even read.
    let ask = |words: &str, url: &str, more: &[&str]| {
        let mut command = cotter();
        command.args(words.split(' ')).args(more).current_dir(dir.path());
        command.env("COTTER_FLEET_URL", url).env("COTTER_TOKEN_FILE", "/none/operator.token");
        printed(&mut command)
    };
    for words in ASKING {
        assert_eq!(
            ask(words, "http://fleet.example.com:7300", &[]),
            "--- stderr\nerror: the operator's token would go to fleet.example.com unencrypted, because http:// has no TLS; \
             use https://, or --insecure on a network you trust\n--- exit 2",
            "{words}"
        );
    }
    for url in ["http://0.0.0.0:1", "http://192.0.2.1", "http://[2001:db8::1]", "http://localhost.example"] {
        assert!(ask("fleet list", url, &[]).contains("unencrypted"), "{url}");
    }
    for url in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://0.0.0.0:1"] {
        assert!(ask("fleet list", url, &[]).contains("cannot read the operator's token"), "{url}");
    }
    // A server without TLS says so to those who expect it.
    let serving = Serving::start(&dir.path().join("data"));
    let mut command = cotter();
    command.args(["fleet", "list"]).env("COTTER_FLEET_URL", serving.url.replace("http:", "https:"));
    let message = printed(command.env("COTTER_TOKEN", "t"));
    assert!(
        message.contains("it speaks no TLS; if it is meant to be without, write http://")
            && message.ends_with("--- exit 20"),
        "{message}"
    );
    // Whoever says so gets it.
    let insecure = ask("fleet list", "http://0.0.0.0:1", &["--insecure"]);
    assert!(insecure.contains("cannot read the operator's token"), "{insecure}");
    let by_variable = |value: &str| {
        let mut command = cotter();
        command.args(["fleet", "list"]).env("COTTER_FLEET_URL", "http://0.0.0.0:1");
        printed(command.env("COTTER_TOKEN", "t").env("COTTER_INSECURE", value))
    };
    assert!(by_variable("1").contains("no fleet server answers at http://0.0.0.0:1"), "{}", by_variable("1"));
    assert!(by_variable("0").contains("unencrypted"), "{}", by_variable("0"));

    // Every verb takes the flag, so none is missing above for want of it.
    let verbs = cotter::cli::definitions();
    for noun in ["fleet", "device", "release"] {
        for verb in verbs.find_subcommand(noun).unwrap().get_subcommands() {
            let is_asking = !matches!(verb.get_name(), "serve" | "check");
            let takes_it = verb.get_arguments().any(|argument| argument.get_id() == "insecure");
            assert_eq!(takes_it, is_asking, "{noun} {}", verb.get_name());
        }
    }
}

#[test]
fn settings_of_the_server() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let file = dir.path().join("fleet.toml");
    std::fs::write(&file, "listen = \"0.0.0.0:1\"\n").unwrap();
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "lisen = \"127.0.0.1:0\"\n").unwrap();
    let serve = |words: &[&str], environment: &[(&str, &str)]| {
        let mut command = cotter_fleet();
        command.args(["serve", "--data-dir"]).arg(&data).args(words).envs(environment.iter().copied());
        printed(&mut command).replace(dir.path().to_str().unwrap(), "<dir>")
    };
    let file = file.to_str().unwrap();
    assert_snapshot!(serve(&["--config", file], &[]), @r"
    --- stderr
    error: other machines can reach listen = 0.0.0.0:1, but the server has no TLS; set tls_cert and tls_key, or listen on 127.0.0.1 behind a TLS proxy, or use --insecure on a network you trust
    --- exit 78
    ");
    assert_snapshot!(serve(&["--config", bad.to_str().unwrap()], &[]), @r"
    --- stderr
    error: in <dir>/bad.toml: line 1 of the settings file is not accepted: unknown field `lisen`, expected one of `listen`, `data_dir`, `poll_interval`, `connections`, `audit_entries`, `audit_time`, `releases_per_fleet`, `fleet_releases_mib`, `all_releases_mib`, `tls_cert`, `tls_key`, `trusted_proxies`, `paused`, `store`, `store_password_file`, `logs`, `logs_mib`
    --- exit 78
    ");
    assert_snapshot!(serve(&["--config", file, "--listen", "here"], &[("COTTER_FLEET_LISTEN", "there")]), @r#"
    --- stderr
    error: listen = "here" is not an address; write IP:PORT, e.g. 127.0.0.1:7300
    --- exit 78
    "#);
    assert_snapshot!(serve(&["--config", file], &[("COTTER_FLEET_LISTEN", "there")]), @r#"
    --- stderr
    error: listen = "there" is not an address; write IP:PORT, e.g. 127.0.0.1:7300
    --- exit 78
    "#);
    assert_snapshot!(serve(&["--listen", "127.0.0.1:0"], &[("COTTER_FLEET_POLL_INTERVAL", "1ms")]), @r"
    --- stderr
    error: poll_interval = 1ms is out of range; it must be from 1s to 24h
    --- exit 78
    ");
    assert_snapshot!(serve(&["--config", "/none.toml"], &[]), @r"
    --- stderr
    error: in /none.toml: the settings file cannot be read: No such file or directory (os error 2)
    --- exit 78
    ");
    assert!(!data.exists(), "nothing was begun");

    let serving = Serving::start(&data);
    assert_snapshot!(serve(&["--listen", "127.0.0.1:0"], &[]), @r"
    --- stderr
    error: another `cotter-fleet serve` uses <dir>/data; stop that one, or use another --data-dir
    --- exit 75
    ");
    let taken = serving.url.trim_start_matches("http://");
    let other = dir.path().join("other");
    let mut command = cotter_fleet();
    command.args(["serve", "--listen", taken, "--data-dir"]).arg(&other);
    let printed = printed(&mut command);
    assert!(printed.contains("cannot listen on 127.0.0.1:") && printed.ends_with("--- exit 75"), "{printed}");
}

/// An old unit file or script gets the new command, whatever it says besides.
#[test]
fn the_old_place_of_the_server_names_the_new_one() {
    let old = |words: &[&str]| {
        let mut command = cotter();
        printed(command.args(["fleet", "serve"]).args(words))
    };
    assert_snapshot!(old(&[]), @r"
    --- stderr
    error: the fleet server is a program of its own now (package cotter-fleet); run: cotter-fleet serve
    --- exit 2
    ");
    assert_snapshot!(old(&["--config", "/etc/cotter/fleet.toml"]), @r"
    --- stderr
    error: the fleet server is a program of its own now (package cotter-fleet); run: cotter-fleet serve --config /etc/cotter/fleet.toml
    --- exit 2
    ");
    assert_snapshot!(old(&["--listen=0.0.0.0:7300", "--allow-remote", "--data-dir", "/srv/all fleets"]), @r"
    --- stderr
    error: the fleet server is a program of its own now (package cotter-fleet); run: cotter-fleet serve '--listen=0.0.0.0:7300' --allow-remote --data-dir '/srv/all fleets'
    --- exit 2
    ");
    for words in [&["--help"][..], &["-h"], &["--version"], &["--none-such"], &["help"]] {
        let printed = old(words);
        assert!(
            printed.contains(&format!("run: cotter-fleet serve {}", words.join(" "))),
            "{words:?}: {printed}"
        );
        assert!(printed.ends_with("--- exit 2"), "{words:?}: {printed}");
    }
    let mut help = cotter();
    let help = printed(help.args(["fleet", "--help"]));
    assert!(!help.contains("serve "), "{help}");
}

#[test]
fn the_server_stops_on_a_signal() {
    for signal in ["-TERM", "-INT"] {
        let dir = TempDir::new().unwrap();
        let mut serving = Serving::start(&dir.path().join("data"));
        // A client that keeps its connection open does not hold the server up.
        let http = client();
        let ping = http.get(format!("{}/ping", serving.url));
        block_on(async { assert_eq!(ping.send().await.unwrap().text().await.unwrap(), "OK") });
        serving.signal(signal);
        let status = serving.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{signal}");
        let mut rest = String::new();
        serving.child.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
        assert!(rest.contains("fleet server stopped"), "{rest}");
    }
}

/// What was answered is on disk, whenever the process is killed.
#[test]
fn killed_at_any_time_it_remembers_what_it_answered() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let mut answered: Vec<String> = Vec::new();
    for round in 0..6_u64 {
        let serving = Serving::start(&data);
        let listed = serving.json("fleet list");
        let names: Vec<&str> = listed["fleets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fleet| fleet["name"].as_str().unwrap())
            .collect();
        let lost: Vec<&String> = answered.iter().filter(|name| !names.contains(&name.as_str())).collect();
        assert!(lost.is_empty(), "round {round} lost {lost:?}");
        let token = std::fs::read_to_string(data.join("operator.token")).unwrap();
        let url = format!("{}/api/v1/fleets", serving.url);
        let pid = serving.child.id().to_string();
        block_on(async {
            let http = client();
            let killer = async {
                tokio::time::sleep(Duration::from_millis(20 + round * 17)).await;
                assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
            };
            let writer = async {
                for n in 0.. {
                    let name = format!("f{round}-{n}");
                    let request = http.post(&url).bearer_auth(token.trim()).json(&json!({ "name": name }));
                    match request.send().await {
                        Ok(response) => assert_eq!(response.status().as_u16(), 201),
                        Err(_) => break,
                    }
                    answered.push(name);
                }
            };
            tokio::join!(killer, writer);
        });
    }
    assert!(answered.len() > 20, "it wrote between the kills: {}", answered.len());
}

#[test]
fn help_and_version() {
    let mut command = cotter();
    assert_snapshot!(printed(command.arg("--version")), @"cotter 0.2.0");
    assert_snapshot!(printed(cotter_fleet().arg("--version")), @"cotter-fleet 0.2.0");
    assert_snapshot!(printed(cotter_fleet().arg("--help")), @r"
    Serves a fleet of devices: decides which release each of them runs

    Usage: cotter-fleet <COMMAND>

    Commands:
      serve       Runs the fleet server
      backup      Writes a copy of a running server's records to a file
      verify      Checks that the file of a backup is complete and unchanged
      restore     Puts a backup in the place of the records of a server that is stopped
      migrate     Copies the records of a stopped server from its data folder into a database, or back
      simulate    Tries the definition of a rollout on simulated fleets
      completion  Prints a script with which a shell completes commands and options

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Fleets, devices and releases are managed with `cotter fleet`, `cotter device` and `cotter release`.
    ");
    let mut command = cotter();
    assert_snapshot!(printed(command.args(["device", "pin", "--help"])), @r"
    Pins a device, or all that match a filter, to a release

    Usage: cotter device pin [OPTIONS] DEVICE COMMIT
           cotter device pin [OPTIONS] --filter FILTER [--fleet FLEET] [--dry-run] COMMIT

    Arguments:
      <DEVICE COMMIT>...  The device (not with --filter), then the commit of the release, or the first 4
                          or more characters of it

    Options:
          --filter <FILTER>      Only devices whose tags match: key=value, key!=value, key or !key;
                                 several are joined by ',' and must all match
          --fleet <FLEET>        Only devices of this fleet
          --dry-run              Shows which devices would be changed, and changes none
          --wait                 Waits until all devices that were changed run their target. Exit code
                                 40: more failed than --allow-failed; 22: the timeout has passed
          --timeout <TIME>       The longest time to wait [default: 30min]
          --allow-failed <N|N%>  How many devices may fail, or not be done in time: a number, or a share
                                 of all such as 2% [default: 0]
          --json                 Prints JSON
      -h, --help                 Print help

    Connection:
          --url <URL>          Address of the fleet server [env: COTTER_FLEET_URL=] [default:
                               http://127.0.0.1:7300]
          --token-file <FILE>  File with a token [env: COTTER_TOKEN_FILE=] [default:
                               /var/lib/cotter-fleet/operator.token]
          --insecure           Sends the token over http:// to another machine, so that anyone on the
                               network path can read it [env: COTTER_INSECURE=]
          --ca-file <FILE>     Certificate, as PEM, of the authority that signed the server's, if this
                               machine does not trust it [env: COTTER_CA_FILE=]
          --reason <TEXT>      Why a change is made, for the audit trail

    Example: cotter device pin 3f1c2a9 --filter ring=canary --dry-run
    ");
}
