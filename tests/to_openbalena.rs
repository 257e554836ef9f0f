//! `cotter fleet to-openbalena`: a real fleet server and a real registry, and a stand-in of openBalena's API that enforces its
//! model (`tests/support/openbalena.rs`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/openbalena.rs"]
mod openbalena;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use openbalena::{Fault, OpenBalena, TOKEN};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::{FleetServer, Program, eventually};

fn curl(args: &[&str]) -> String {
    String::from_utf8(Command::new("curl").arg("-s").args(args).output().unwrap().stdout).unwrap()
}

fn uuid(number: u32) -> String {
    format!("{number:032x}")
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Debian's registry on a loopback port, with the images of the test.
struct Registry {
    _program: Program,
    address: String,
    dir: PathBuf,
}

impl Registry {
    fn start(dir: &Path) -> Self {
        let settings = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: '127.0.0.1:0' }}\n",
            dir.join("blobs").display()
        );
        fs::write(dir.join("registry.yml"), settings).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.join("registry.yml"));
        let program = Program::start("the registry", command, &dir.join("registry.log"));
        let address = eventually("the registry listens", Duration::from_secs(30), || {
            let log = program.log();
            let rest = log.split_once("listening on 127.0.0.1:")?.1;
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            (rest.len() > port.len()).then(|| format!("127.0.0.1:{port}"))
        });
        Self { _program: program, address, dir: dir.to_owned() }
    }

    fn upload(&self, image: &str, content: &[u8]) -> Value {
        let (file, digest) = (self.dir.join("upload"), digest(content));
        fs::write(&file, content).unwrap();
        let begun =
            curl(&["-X", "POST", "-D", "-", &format!("http://{}/v2/{image}/blobs/uploads/", self.address)]);
        let place = begun.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().trim();
        let (data, to) = (format!("@{}", file.display()), format!("{place}&digest={digest}"));
        let kind = "Content-Type: application/octet-stream";
        let status = curl(&["-X", "PUT", "-H", kind, "--data-binary", &data, "-w", "%{http_code}", &to]);
        assert_eq!(status, "201");
        json!({ "size": content.len(), "digest": digest })
    }

    /// Pushes an image whose only layer is `content`, for two architectures if `is_index`; its reference.
    fn push(&self, image: &str, content: &str, is_index: bool) -> String {
        let with = |mut blob: Value, kind: &str| {
            blob["mediaType"] = kind.into();
            blob
        };
        let layer =
            with(self.upload(image, content.as_bytes()), "application/vnd.docker.image.rootfs.diff.tar.gzip");
        let config = json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [] } });
        let config = self.upload(image, config.to_string().as_bytes());
        let config = with(config, "application/vnd.docker.container.image.v1+json");
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "layers": [layer], "config": config });
        let mut pushed = self.put(image, kind, &manifest);
        if is_index {
            let kind_of_index = "application/vnd.docker.distribution.manifest.list.v2+json";
            let entry = json!({ "mediaType": kind, "digest": pushed, "size": manifest.to_string().len(),
                                "platform": { "architecture": "amd64", "os": "linux" } });
            let index = json!({ "schemaVersion": 2, "mediaType": kind_of_index, "manifests": [entry] });
            pushed = self.put(image, kind_of_index, &index);
        }
        format!("{}/{image}@{pushed}", self.address)
    }

    fn put(&self, image: &str, kind: &str, manifest: &Value) -> String {
        let text = manifest.to_string();
        let digest = digest(text.as_bytes());
        let to = format!("http://{}/v2/{image}/manifests/{digest}", self.address);
        let kind = format!("Content-Type: {kind}");
        let status = curl(&[
            "-X",
            "PUT",
            "-H",
            &kind,
            "--data-binary",
            &text,
            "-w",
            "%{http_code}",
            "-o",
            "/dev/null",
            &to,
        ]);
        assert_eq!(status, "201");
        digest
    }

    /// Whether a repository has all of an image: its manifests and blobs.
    fn has(&self, place: &str, digest: &str) -> bool {
        let kinds = "Accept: application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
        let path = place.strip_prefix(&self.address).unwrap().trim_start_matches('/');
        let at = |what: &str| format!("http://{}/v2/{path}/{what}", self.address);
        let Ok(manifest) =
            serde_json::from_str::<Value>(&curl(&["-H", kinds, &at(&format!("manifests/{digest}"))]))
        else {
            return false;
        };
        if let Some(manifests) = manifest["manifests"].as_array() {
            return manifests.iter().all(|entry| self.has(place, entry["digest"].as_str().unwrap()));
        }
        let blobs = manifest["layers"].as_array().into_iter().flatten().chain([&manifest["config"]]);
        blobs.clone().count() > 1
            && blobs.map(|blob| blob["digest"].as_str().unwrap()).all(|blob| {
                let url = at(&format!("blobs/{blob}"));
                curl(&["-I", "-o", "/dev/null", "-w", "%{http_code}", &url]) == "200"
            })
    }
}

/// A server with the fleet `greenhouse`: releases of all kinds, devices with tags, pins and variables.
struct Site {
    server: FleetServer,
    registry: Registry,
    dir: tempfile::TempDir,
    key: String,
}

impl Site {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::start(dir.path());
        let server = FleetServer::start_in(dir.path(), Vec::new());
        let created = server.cli_json(&["fleet", "create", "greenhouse", "--registry", &registry.address]);
        server.cli(&["fleet", "create", "other-fleet"]);
        let key = created["created"]["provisioning_key"].as_str().unwrap().to_owned();
        let site = Self { server, registry, dir, key };
        let web = |content| site.registry.push("lab/web", content, content == "second");
        // Two services with the same image, which openBalena cannot have at one place.
        let (one, two, three) = (web("first"), web("second"), web("third"));
        site.release("1111", &[("web", &one), ("old", &one)], &[]);
        site.release("2222", &[("web", &two)], &["--draft"]);
        site.release(
            "3333",
            &[("web", &two), ("db", &site.registry.push("lab/db", "a database", false))],
            &[],
        );
        site.release("4444", &[("web", &three)], &[]);
        site.server.cli(&["release", "invalidate", "4444"]);
        site.release("5555", &[("web", &three)], &["--status", "failed"]);
        for number in 1..=3 {
            site.register(number);
        }
        let cli = |args: &[&str]| drop(site.server.cli(args));
        cli(&["device", "rename", &uuid(1), "north"]);
        cli(&["device", "pin", &uuid(1), "1111"]);
        cli(&["device", "tag", &uuid(2), "ring=canary", "site=zurich"]);
        cli(&["env", "set", "--fleet", "greenhouse", "RATE=5"]);
        cli(&["env", "set", "--fleet", "greenhouse", "--service", "web", "MODE=slow"]);
        cli(&["env", "set", "--device", &uuid(1), "PLACE=roof"]);
        cli(&["env", "set", "--device", &uuid(1), "--service", "web", "UNIT=lux"]);
        let secret = site.file("secret.env", "TOKEN=hunter2\n");
        cli(&["env", "set", "--device", &uuid(2), "--secret", "--file", secret.to_str().unwrap()]);
        site.file("balena.token", TOKEN);
        site
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn release(&self, commit: &str, images: &[(&str, &String)], more: &[&str]) {
        let services: String =
            images.iter().map(|(name, image)| format!("  {name}:\n    image: {image}\n")).collect();
        let file = self.file("compose.yml", &format!("services:\n{services}"));
        let mut args =
            vec!["release", "create", "greenhouse", "--file", file.to_str().unwrap(), "--commit", commit];
        args.extend(more);
        self.server.cli(&args);
    }

    fn register(&self, number: u32) {
        let body = json!({ "application": 1, "device_type": "generic-amd64", "uuid": uuid(number),
                           "api_key": format!("the-key-of-device-{number}"), "device_name": format!("board-{number}") });
        let (url, key) =
            (format!("{}/device/register", self.server.url), format!("Authorization: Bearer {}", self.key));
        let kind = "Content-Type: application/json";
        let code = curl(&[
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            kind,
            "-H",
            &key,
            "-d",
            &body.to_string(),
            &url,
        ]);
        assert_eq!(code, "201");
    }

    fn run(&self, balena: &OpenBalena, more: &[&str]) -> Output {
        let token = self.dir.path().join("balena.token");
        let args = [
            "fleet",
            "to-openbalena",
            "greenhouse",
            "--to",
            &balena.url,
            "--api-token-file",
            token.to_str().unwrap(),
        ];
        self.server.try_cli(&[&args, more].concat())
    }

    #[track_caller]
    fn done(&self, balena: &OpenBalena, more: &[&str]) -> String {
        let out = self.run(balena, more);
        assert!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
        text(&out.stdout)
    }

    /// Registers a device as its move orders it.
    fn arrive(&self, balena: &OpenBalena, number: u32) {
        let url = format!("{}/device/v3/{}/state", self.server.url, uuid(number));
        let key = format!("Authorization: Bearer the-key-of-device-{number}");
        let state: Value = serde_json::from_str(&curl(&["-H", &key, &url])).unwrap();
        let config = &state[uuid(number)]["config"];
        assert_eq!(config["BALENA_COTTER_MOVE_ENDPOINT"], balena.url.as_str(), "{config}");
        let body = json!({ "application": config["BALENA_COTTER_MOVE_FLEET"], "device_type": "generic-amd64",
                           "uuid": uuid(number), "api_key": "a-new-key-of-a-device", "device_name": format!("board-{number}") });
        let key = format!("Authorization: Bearer {}", config["BALENA_COTTER_MOVE_KEY"].as_str().unwrap());
        let url = format!("{}/device/register", balena.url);
        let code =
            curl(&["-o", "/dev/null", "-w", "%{http_code}", "-H", &key, "-d", &body.to_string(), &url]);
        assert_eq!(code, "201");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Number of a row that has this value.
fn id_of(balena: &OpenBalena, table: &str, field: &str, value: &str) -> u64 {
    let rows = balena.table(table);
    let row = rows.iter().find(|row| row[field] == value).unwrap_or_else(|| panic!("{table}: no {value}"));
    row["id"].as_u64().unwrap()
}

#[test]
fn a_fleet_is_created_there_and_a_second_run_changes_nothing() {
    let (site, balena) = (Site::start(), OpenBalena::start());
    let before = balena.rows();
    let tried = site.done(&balena, &["--dry-run"]);
    assert_eq!((balena.rows(), balena.changes()), (before, 0), "a dry run changes nothing");
    assert!(
        tried.contains("would create fleet greenhouse\n") && tried.contains("would create release 1111\n"),
        "{tried}"
    );

    let done = site.done(&balena, &[]);
    assert_eq!(
        done,
        tried.replace("would create", "created").replace("would set", "set"),
        "as the dry run said"
    );
    for line in [
        "not carried over: variable TOKEN of device board-2: it is secret",
        "not carried over: the registry of the fleet",
        "3 devices: 0 there, 0 on their way",
    ] {
        assert!(done.contains(line), "{done}");
    }
    let releases = balena.table("release");
    let shown = |row: &serde_json::Map<String, Value>| {
        let flag = |name: &str| row[name].as_bool().unwrap();
        (
            row["commit"].as_str().unwrap().to_owned(),
            row["status"].as_str().unwrap().to_owned(),
            flag("is_final"),
            flag("is_invalidated"),
        )
    };
    let expected = [
        ("1111", "success", true, false),
        ("2222", "success", false, false),
        ("3333", "success", true, false),
        ("4444", "success", true, true),
        ("5555", "failed", true, false),
    ];
    let expected = expected.map(|(commit, status, is_final, is_invalid)| {
        (commit.to_owned(), status.to_owned(), is_final, is_invalid)
    });
    assert_eq!(releases.iter().map(shown).collect::<Vec<_>>(), expected);
    let application = balena.table("application")[0].clone();
    assert_eq!(application["should_be_running__release"], id_of(&balena, "release", "commit", "3333"));
    assert_eq!(application["should_track_latest_release"], true);
    let here = site.server.cli_json(&["fleet", "show", "greenhouse"])["fleet"]["uuid"].clone();
    assert_eq!(application["uuid"], here, "devices find their app by its uuid");
    // The same image of a service is one row for all releases, and each image has a place with the same digest.
    let images = balena.table("image");
    assert_eq!((images.len(), balena.table("image__is_part_of__release").len()), (5, 7));
    for image in &images {
        let (place, digest) =
            (image["is_stored_at__image_location"].as_str(), image["content_hash"].as_str());
        assert!(
            image["status"] == "success" && site.registry.has(place.unwrap(), digest.unwrap()),
            "{image:?}"
        );
    }
    let variable = balena.table("service_environment_variable")[0].clone();
    assert_eq!((&variable["name"], &variable["value"]), (&json!("MODE"), &json!("slow")));
    assert_eq!(variable["service"], id_of(&balena, "service", "service_name", "web"));

    let (rows, changes) = (balena.rows(), balena.changes());
    let again = site.done(&balena, &[]);
    assert!(again.starts_with("nothing to do: what the fleet has here is there\n"), "{again}");
    assert_eq!((balena.rows(), balena.changes()), (rows, changes), "a second run changes nothing");

    // A release that is created later is carried over by a later run, and becomes the target as it did here.
    site.release("6666", &[("web", &site.registry.push("lab/web", "sixth", false))], &[]);
    site.done(&balena, &[]);
    let target = balena.table("application")[0]["should_be_running__release"].clone();
    assert_eq!(target, id_of(&balena, "release", "commit", "6666"));
}

#[test]
fn a_run_that_is_cut_anywhere_is_continued_by_the_next_one() {
    let site = Site::start();
    site.server.cli(&["fleet", "pin", "greenhouse", "1111"]);
    let whole = OpenBalena::start();
    site.done(&whole, &[]);
    let expected = whole.rows();
    let pinned = whole.table("application")[0]["should_be_running__release"].clone();
    assert_eq!(pinned, id_of(&whole, "release", "commit", "1111"));
    for fault in [Fault::After, Fault::Before] {
        let cut = OpenBalena::start();
        let mut runs = 0;
        loop {
            // Each run gets a little further: one change more is answered.
            cut.fail_after(1, fault);
            let out = site.run(&cut, &[]);
            runs += 1;
            if out.status.success() {
                break;
            }
            let words = text(&out.stderr);
            assert!(out.status.code() == Some(20) && words.contains("run this again"), "{words}");
            assert!(runs < 100, "{words}");
            assert!(cut.table("application").iter().all(|row| row["should_be_running__release"].is_null()
                || row["should_be_running__release"] == pinned));
        }
        assert_eq!(cut.rows(), expected, "{fault:?}, {runs} runs");
        assert!(runs > 10, "{runs}");
        cut.let_pass();
        let changes = cut.changes();
        site.done(&cut, &[]);
        assert_eq!(cut.changes(), changes);
    }
}

#[test]
fn devices_are_sent_and_their_things_follow_them() {
    let (site, balena) = (Site::start(), OpenBalena::start());
    let sent = site.run(&balena, &["--move", "--secrets"]);
    let (said, words) = (text(&sent.stdout), text(&sent.stderr));
    assert!(said.contains("sent 2 devices there\n"), "{said}{words}");
    assert!(said.contains("3 devices: 0 there, 2 on their way"), "{said}");
    assert!(words.contains("1 device with another pin than the fleet's target, e.g. north"), "{words}");
    // The order is given once.
    let again = site.done(&balena, &["--move", "--secrets"]);
    assert!(again.starts_with("nothing to do") && again.contains("0 there, 2 on their way"), "{again}");

    site.arrive(&balena, 2);
    let followed = site.done(&balena, &["--move", "--secrets"]);
    assert!(followed.contains("created tag ring of device board-2\n"), "{followed}");
    assert!(
        followed.contains("created variable TOKEN of device board-2\n") && !followed.contains("hunter2"),
        "{followed}"
    );
    assert!(followed.contains("3 devices: 1 there, 1 on their way"), "{followed}");

    // The one with a pin, too: it is pinned once it has come.
    let sent = site.done(&balena, &["--move", "--pinned", "--secrets"]);
    assert!(sent.contains("sent 1 device there\n"), "{sent}");
    site.arrive(&balena, 1);
    let followed = site.done(&balena, &["--secrets"]);
    for line in [
        "created variable PLACE of device north\n",
        "created variable UNIT of device north, service web\n",
        "set pin of device north: 1111\n",
    ] {
        assert!(followed.contains(line), "{line}: {followed}");
    }
    assert!(followed.contains("not changed there: name of device north, as it is here"), "{followed}");
    let device = balena.table("device").into_iter().find(|row| row["uuid"] == uuid(1).as_str()).unwrap();
    assert_eq!(device["is_pinned_on__release"], id_of(&balena, "release", "commit", "1111"));
    let changes = balena.changes();
    site.done(&balena, &["--secrets"]);
    assert_eq!(balena.changes(), changes);

    // What an operator changes there afterwards stays, and is named; --overwrite brings what is here.
    let rate = id_of(&balena, "application_environment_variable", "name", "RATE");
    balena.set("application_environment_variable", rate, "value", json!("7"));
    balena.set(
        "device",
        device["id"].as_u64().unwrap(),
        "is_pinned_on__release",
        Value::from(id_of(&balena, "release", "commit", "3333")),
    );
    let named = site.done(&balena, &["--secrets"]);
    for line in
        ["not changed there: variable RATE of the fleet", "not changed there: pin of device north: 1111"]
    {
        assert!(named.contains(line), "{named}");
    }
    assert_eq!(balena.changes(), changes);
    let set = site.done(&balena, &["--secrets", "--overwrite"]);
    for line in
        ["set variable RATE of the fleet\n", "set pin of device north: 1111\n", "set name of device north\n"]
    {
        assert!(set.contains(line), "{set}");
    }
    let document: Value = serde_json::from_str(&site.done(&balena, &["--secrets", "--json"])).unwrap();
    let summary = &document["to_openbalena"];
    assert_eq!(
        (&summary["done"], &summary["differs"], &summary["devices_there"]),
        (&json!([]), &json!([]), &json!(2))
    );
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let (site, balena) = (Site::start(), OpenBalena::start());
    let refused = |more: &[&str], code: i32, expected: &str| {
        let out = site.run(&balena, more);
        let words = text(&out.stderr);
        assert!(
            out.status.code() == Some(code) && words.contains(expected),
            "{more:?}: {:?} {words}",
            out.status
        );
        assert!(!words.contains(TOKEN), "{words}");
    };
    refused(&["--as", "lab"], 2, "4 to 100 letters, digits, '-' and '_'; give another one with --as");
    refused(&["--device-type", "toaster"], 2, "openBalena has no device type toaster");
    refused(&["--organization", "nobody"], 2, "no such organization; name one with --organization: acme");
    balena.add_organization("second\u{1b}[31m");
    refused(&[], 2, "several organizations; name one with --organization: acme, second\\u{1b}[31m");
    site.file("balena.token", "another");
    refused(&["--organization", "acme"], 4, "does not accept this token");
    site.file("balena.token", TOKEN);
    let nowhere = site.server.try_cli(&[
        "fleet",
        "to-openbalena",
        "nope",
        "--organization",
        "acme",
        "--to",
        &balena.url,
        "--api-token-file",
        site.dir.path().join("balena.token").to_str().unwrap(),
        "--as",
        "nope",
    ]);
    assert!(
        nowhere.status.code() == Some(5) && text(&nowhere.stderr).contains("there is no fleet \"nope\""),
        "{nowhere:?}"
    );
    let clear = site.server.try_cli(&[
        "fleet",
        "to-openbalena",
        "greenhouse",
        "--to",
        "http://api.example.com",
        "--api-token-file",
        site.dir.path().join("balena.token").to_str().unwrap(),
    ]);
    assert!(clear.status.code() == Some(2) && text(&clear.stderr).contains("unencrypted"), "{clear:?}");
    assert_eq!(balena.changes(), 0, "nothing is changed before all is known");
}

#[test]
fn an_image_that_is_gone_stops_its_releases_alone_and_a_busy_api_is_waited_for() {
    let (site, balena) = (Site::start(), OpenBalena::start());
    let missing = format!("{}/lab/web@sha256:{}", site.registry.address, "a".repeat(64));
    site.release("6666", &[("web", &missing)], &[]);
    balena.want_later(1);
    let out = site.run(&balena, &["--move"]);
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(30), "{said}");
    assert!(
        said.contains("not done: release 6666: the image of web") && said.contains("is not in its registry"),
        "{said}"
    );
    assert!(said.contains("not done: the target of the fleet, 6666, is not there"), "{said}");
    assert!(said.contains("no device is sent before the fleet there has the target"), "{said}");
    let statuses = balena.table("release").iter().filter(|row| row["status"] == "success").count();
    assert_eq!(statuses, 4, "the others are complete");
    assert!(text(&out.stderr).contains("correct what is named above, and run this again"));
}
