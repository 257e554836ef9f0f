//! What tables look like on a terminal of 80 and of 120 columns: nothing is wrapped by the terminal in mid-word, and what
//! is cut says where the rest is. The snapshots are to be looked at, too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use stub::{Found, answer, terminal};

#[path = "support/stub.rs"]
mod stub;

const R1: &str = "1111111111111111111111111111111111111111";
const R2: &str = "2222222222222222222222222222222222222222";
const APP: &str = "0123456789abcdef0123456789abcdef";
const LONG_AGO: &str = "2026-01-02T03:04:05Z";
const LAST: &str =
    "web exited with code 1 three times in 3 s; last line: cannot open /etc/shop/config.toml: no such file";

fn of_agent(_: &str, path: &str) -> Found {
    let image = format!("registry.example.com/lab/web@sha256:{}", "1f3795f4".repeat(8));
    let why = format!("release {R2} was rejected: {LAST}");
    let download = json!({ "progress": 43, "fetched_bytes": 18_000_000, "total_bytes": 42_000_000, "rate": 1_258_291, "left_s": 19 });
    let service = |name: &str, status: &str, detail: &str, download: &Value| {
        json!({ "name": name, "release": R1, "image": image, "status": status, "detail": detail, "progress": download["progress"],
                "download": download })
    };
    let wait = |service: Option<&str>, reason: &str, why: &str, retry: Option<u32>| json!({ "app": APP, "service": service, "reason": reason, "why": why, "retry_in_s": retry, "since": LONG_AGO });
    let waiting = [
        wait(None, "rejected", &why, None),
        wait(Some("web"), "downloading", &format!("{image} at 43 %"), None),
        wait(Some("camera"), "insufficient_disk", "release needs 900 MiB, 700 MiB are free", Some(80_000)),
    ];
    let document = match path {
        "/v1/status" => json!({
            "schema_version": 1, "version": "1.0.0", "instance": "default", "device": { "uuid": APP, "name": "north" },
            "cloud": { "endpoint": "https://fleet.example.com", "last_contact": null, "next_poll": null, "failures": 3, "polls": 9,
                       "error": "cloud https://fleet.example.com cannot be reached: no route to the host, and none to its proxy either" },
            "engine_error": null, "store_error": null, "has_target": true, "is_busy": false, "hold": null,
            "apps": [{ "uuid": APP, "name": "greenhouse", "target": R2, "current": R1, "update": "rejected", "services": [
                service("web", "Running", "Up 3 min (healthy)", &Value::Null),
                service("camera", "Downloading", "", &download),
            ]}],
            "waiting": waiting,
        }),
        "/v1/history" => json!({ "schema_version": 1, "history": [
            { "at": LONG_AGO, "app": APP, "name": "greenhouse", "release": R1, "what": "accepted", "why": "" },
            { "at": LONG_AGO, "app": APP, "name": "greenhouse", "release": R2, "what": "rejected", "why": LAST },
        ]}),
        _ => json!({ "schema_version": 1, "engine_error": null, "is_cut": false, "waiting": waiting,
                     "stages": [{ "after": [], "steps": [
                         { "step": "pull", "app": null, "service": null, "what": format!("pull {image}") },
                         { "step": "unlock", "app": APP, "app_name": "greenhouse", "service": null, "what": "unlock greenhouse" },
                     ]}] }),
    };
    (200, document.to_string().into_bytes())
}

fn of_fleet(_: &str, path: &str) -> Found {
    let device = |name: &str, state: &str, why: &str| {
        json!({ "uuid": APP, "number": 1, "name": name, "device_type": "raspberrypi4-64", "fleet": "greenhouse", "pin": null,
                "target": R2, "running": R1, "update_status": null, "is_online": true, "state": state, "why": why,
                "last_seen": null, "tags": { "ring": "canary", "site": "zurich" }, "created": LONG_AGO, "agent": "1.0.0" })
    };
    let release = |commit: &str, status: &str| {
        json!({ "number": 1, "fleet": "greenhouse", "commit": commit, "status": status, "is_final": true, "is_invalidated": false,
                "is_passing_tests": true, "start_timestamp": LONG_AGO, "is_fleet_target": true, "pinned_devices": 12,
                "running_devices": 388, "services": {}, "composition": {} })
    };
    let fleet = json!({ "number": 1, "uuid": APP, "name": "greenhouse", "is_tracking_latest": true, "target": R2, "devices": 400,
                        "states": { "on-target": 388, "waiting": 9, "failing": 3 }, "releases": 2,
                        "registry": "registry.example.com/lab", "created": LONG_AGO });
    let words: Vec<_> = path.split('?').next().unwrap().split('/').skip(3).collect();
    let document = match words[..] {
        ["fleets"] => json!([fleet]),
        ["devices"] => json!([
            device("north", "on-target", ""),
            device("south-with-a-long-name", "failing", LAST),
            device("east", "blocked", "insufficient disk: needs 2.1 GB, has 0.4"),
        ]),
        _ => json!([release(R2, "success"), release(R1, "failed")]),
    };
    (200, document.to_string().into_bytes())
}

/// What each table looks like on a terminal of this width, without colours.
fn tables(width: usize) -> String {
    let folder = tempfile::tempdir().unwrap();
    let agent = UnixListener::bind(folder.path().join("agent.sock")).unwrap();
    let fleet = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", fleet.local_addr().unwrap());
    std::thread::spawn(move || agent.incoming().flatten().for_each(|stream| answer(stream, of_agent)));
    std::thread::spawn(move || fleet.incoming().flatten().for_each(|stream| answer(stream, of_fleet)));
    let columns = width.to_string();
    let environment = [
        ("COLUMNS", columns.as_str()),
        ("NO_COLOR", "1"),
        ("COTTER_TOKEN", "t"),
        ("COTTER_FLEET_URL", &url),
        ("COTTER_STATUS_SOCKET", "agent.sock"),
    ];
    let mut all = String::new();
    for words in ["status", "explain", "history", "plan", "device list", "fleet list", "release list"] {
        let shown = String::from_utf8(terminal(folder.path(), words, &environment)).unwrap();
        let shown = shown.replace("\r\n", "\n");
        let wide: Vec<_> = shown.lines().filter(|line| line.chars().count() > width).collect();
        assert!(wide.is_empty(), "{words} at {width}: {wide:#?}");
        all.push_str(&format!("$ cotter {words}\n{shown}\n"));
    }
    // The days since then are more every day.
    let mut parts = all.split(" days ago");
    let mut dated = parts.next().unwrap().to_owned();
    for part in parts {
        dated.truncate(dated.trim_end_matches(|c: char| c.is_ascii_digit()).len());
        dated.push_str("N days ago");
        dated.push_str(part);
    }
    dated
}

#[test]
fn at_80_columns() {
    insta::assert_snapshot!(tables(80), @r#"
    $ cotter status
    device        north (0123456789abcdef0123456789abcdef)
    agent         1.0.0 (default)
    cloud         https://fleet.example.com
    last contact  -
    next poll     -
    cloud error   cloud https://fleet.example.com cannot be reached: no route to the
                  host, and none to its proxy either (failed 3 times in a row)
    app           greenhouse: runs 111111111111, target 222222222222 (rejected)

    APP         SERVICE  RELEASE       STATUS            DETAIL
    greenhouse  web      111111111111  Running           Up 3 min (healthy)
    greenhouse  camera   111111111111  Downloading 43 %  17 MiB of 40 MiB, 1.1 MiB/…

    WAITING            SERVICE  NEXT TRY     WHY
    rejected           -        on a change  release 222222222222222222222222222222…
    downloading        web      on a change  registry.example.com/lab/web@sha256:1f…
    insufficient_disk  camera   in 22 h      release needs 900 MiB, 700 MiB are free
    -> cotter explain

    $ cotter explain
    greenhouse: should run 2222222222222222222222222222222222222222 (rejected), last
      accepted 1111111111111111111111111111111111111111

    cloud
      cloud https://fleet.example.com cannot be reached: no route to the host, and
      none to its proxy either
      next try: on a change
      what to do: see `cotter check`; the last target stays in force, and `cotter
                  update` polls at once

    rejected, since 2026-01-02T03:04:05Z, N days ago
      release 2222222222222222222222222222222222222222 was rejected: web exited with
      code 1 three times in 3 s; last line: cannot open /etc/shop/config.toml: no
      such file
      next try: on a change
      what to do: create a better release; `cotter retry` tries this one again

    downloading web, since 2026-01-02T03:04:05Z, N days ago
      registry.example.com/lab/web@sha256:1f3795f4 at 43 %
      next try: on a change
      what to do: nothing: it ends by itself

    insufficient_disk camera, since 2026-01-02T03:04:05Z, N days ago
      release needs 900 MiB, 700 MiB are free
      next try: in 22 h
      what to do: free space on the engine's disk, or lower update.disk_reserve

    $ cotter history
    AT                    APP         RELEASE       WHAT      WHY
    2026-01-02T03:04:05Z  greenhouse  111111111111  accepted  -
    2026-01-02T03:04:05Z  greenhouse  222222222222  rejected  web exited with code…

    $ cotter plan
    STAGE        WHAT
    1      do    pull registry.example.com/lab/web@sha256:1f3795f4
    1      do    unlock greenhouse
    end    wait  rejected: release 2222222222222222222222222222222222222222 was rej…
    end    wait  downloading web: registry.example.com/lab/web@sha256:1f3795f4 at 4…
    end    wait  insufficient_disk camera: release needs 900 MiB, 700 MiB are free…

    $ cotter device list
    NAME                    STATE      TARGET        SEEN   WHY
    north                   on-target  222222222222  never  -
    south-with-a-long-name  failing    222222222222  never  web exited with code 1…
    east                    blocked    222222222222  never  insufficient disk: need…
    -> cotter device show NAME

    $ cotter fleet list
    NUMBER  NAME        FOLLOWS  TARGET        DEVICES  RELEASES
    1       greenhouse  latest   222222222222  400      2

    $ cotter release list
    COMMIT        FLEET       STATE    STARTED     TARGET OF  PINNED  RUNNING
    222222222222  greenhouse  success  2026-01-02  fleet      12      388
    111111111111  greenhouse  failed   2026-01-02  fleet      12      388
    "#);
}

#[test]
fn at_120_columns() {
    insta::assert_snapshot!(tables(120), @r#"
    $ cotter status
    device        north (0123456789abcdef0123456789abcdef)
    agent         1.0.0 (default)
    cloud         https://fleet.example.com
    last contact  -
    next poll     -
    cloud error   cloud https://fleet.example.com cannot be reached: no route to the host, and none to its proxy either
                  (failed 3 times in a row)
    app           greenhouse: runs 111111111111, target 222222222222 (rejected)

    APP         SERVICE  RELEASE       STATUS            DETAIL
    greenhouse  web      111111111111  Running           Up 3 min (healthy)
    greenhouse  camera   111111111111  Downloading 43 %  17 MiB of 40 MiB, 1.1 MiB/s, 19 s left

    WAITING            SERVICE  NEXT TRY     WHY
    rejected           -        on a change  release 2222222222222222222222222222222222222222 was rejected: web exited with…
    downloading        web      on a change  registry.example.com/lab/web@sha256:1f3795f4 at 43 %
    insufficient_disk  camera   in 22 h      release needs 900 MiB, 700 MiB are free
    -> cotter explain

    $ cotter explain
    greenhouse: should run 2222222222222222222222222222222222222222 (rejected), last accepted
      1111111111111111111111111111111111111111

    cloud
      cloud https://fleet.example.com cannot be reached: no route to the host, and none to its proxy either
      next try: on a change
      what to do: see `cotter check`; the last target stays in force, and `cotter update` polls at once

    rejected, since 2026-01-02T03:04:05Z, N days ago
      release 2222222222222222222222222222222222222222 was rejected: web exited with code 1 three times in 3 s; last line:
      cannot open /etc/shop/config.toml: no such file
      next try: on a change
      what to do: create a better release; `cotter retry` tries this one again

    downloading web, since 2026-01-02T03:04:05Z, N days ago
      registry.example.com/lab/web@sha256:1f3795f4 at 43 %
      next try: on a change
      what to do: nothing: it ends by itself

    insufficient_disk camera, since 2026-01-02T03:04:05Z, N days ago
      release needs 900 MiB, 700 MiB are free
      next try: in 22 h
      what to do: free space on the engine's disk, or lower update.disk_reserve

    $ cotter history
    AT                    APP         RELEASE       WHAT      WHY
    2026-01-02T03:04:05Z  greenhouse  111111111111  accepted  -
    2026-01-02T03:04:05Z  greenhouse  222222222222  rejected  web exited with code 1 three times in 3 s; last line: cannot…

    $ cotter plan
    STAGE        WHAT
    1      do    pull registry.example.com/lab/web@sha256:1f3795f4
    1      do    unlock greenhouse
    end    wait  rejected: release 2222222222222222222222222222222222222222 was rejected: web exited with code 1 three time…
    end    wait  downloading web: registry.example.com/lab/web@sha256:1f3795f4 at 43 %
    end    wait  insufficient_disk camera: release needs 900 MiB, 700 MiB are free (in 22 h)

    $ cotter device list
    UUID          NAME                    FLEET       STATE      TARGET        RUNNING       SEEN   WHY
    0123456789ab  north                   greenhouse  on-target  222222222222  111111111111  never  -
    0123456789ab  south-with-a-long-name  greenhouse  failing    222222222222  111111111111  never  web exited with code 1…
    0123456789ab  east                    greenhouse  blocked    222222222222  111111111111  never  insufficient disk: need…
    -> cotter device show NAME

    $ cotter fleet list
    NUMBER  NAME        FOLLOWS  TARGET        DEVICES  RELEASES
    1       greenhouse  latest   222222222222  400      2

    $ cotter release list
    COMMIT                                    FLEET       STATE    STARTED               TARGET OF  PINNED  RUNNING
    2222222222222222222222222222222222222222  greenhouse  success  2026-01-02T03:04:05Z  fleet      12      388
    1111111111111111111111111111111111111111  greenhouse  failed   2026-01-02T03:04:05Z  fleet      12      388
    "#);
}

#[test]
fn states_have_colours_on_a_terminal_unless_its_user_wants_none() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", fleet.local_addr().unwrap());
    std::thread::spawn(move || fleet.incoming().flatten().for_each(|stream| answer(stream, of_fleet)));
    for (no_color, has_colour) in [("", true), ("1", false)] {
        let environment = [("NO_COLOR", no_color), ("COTTER_TOKEN", "t"), ("COTTER_FLEET_URL", &url)];
        let shown = String::from_utf8(terminal(folder.path(), "device list", &environment)).unwrap();
        assert_eq!(shown.contains("\x1b[31mfailing"), has_colour, "{shown:?}");
        assert_eq!(shown.contains("\x1b[32mon-target"), has_colour, "{shown:?}");
    }
}
