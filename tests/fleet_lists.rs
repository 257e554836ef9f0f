//! Long lists of a real fleet server: page by page, complete, and the same whatever their filters are.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../benches/fleet/seed.rs"]
mod seed;
mod support;

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use support::{FleetServer, Program};

const DEVICES: u32 = 2_500;

/// A page of a list: its rows, and the cursor of the next one.
fn page(server: &FleetServer, path: &str) -> (u16, Value, Option<String>) {
    let token = std::fs::read_to_string(server.token_file()).unwrap();
    let mut command = Command::new("curl");
    command.args(["-s", "-i", "-H", &format!("Authorization: Bearer {}", token.trim())]);
    let output = command.arg(format!("{}/api/v1/{path}", server.url)).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let next = head.lines().find_map(|line| line.strip_prefix("cotter-next: ")).map(str::to_owned);
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap(), next)
}

/// All rows of a list, by pages of this length.
fn all(server: &FleetServer, path: &str, limit: usize) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let joiner = if path.contains('?') { '&' } else { '?' };
        let (status, page, next) = page(server, &format!("{path}{joiner}limit={limit}{cursor}"));
        assert_eq!(status, 200, "{page}");
        let page = page.as_array().unwrap().clone();
        assert!(page.len() == limit || next.is_none(), "a page is full, or the last one");
        rows.extend(page);
        let Some(next) = next else { return rows };
        cursor = format!("&cursor={next}");
    }
}

#[test]
fn a_list_is_complete_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup.jsonl");
    let seeded = seed::write(&file, DEVICES, 30);
    assert!(seeded.bytes > 0 && seeded.commits.len() == 30 && seed::device(1).0.ends_with('1'));
    let mut restore = Command::new(Program::fleet_binary());
    restore.arg("restore").arg(&file).arg("--data-dir").arg(dir.path().join("fleet"));
    assert!(restore.status().unwrap().success());
    let server = FleetServer::start_in(dir.path(), Vec::new());

    let uuids =
        |rows: &[Value]| rows.iter().map(|row| row["uuid"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let expected: Vec<String> = (1..=DEVICES).map(|number| seed::device(number).0).collect();
    for limit in [999, 1000, 2499, 2500, 10_000] {
        assert_eq!(uuids(&all(&server, "devices", limit)), expected, "{limit}");
    }
    assert_eq!(all(&server, "devices?filter=half%3Da", 7).len(), 1250);
    assert_eq!(all(&server, "devices?state=silent&filter=half%3Db", 400).len(), 1250);
    assert_eq!(all(&server, "devices?state=on-target", 400).len(), 0);
    assert_eq!(all(&server, "releases", 7).len(), 30);
    assert_eq!(all(&server, "fleets/lab/releases", 30).len(), 30);
    assert_eq!(all(&server, "fleets", 1).len(), 1);
    assert_eq!(page(&server, "devices").1.as_array().unwrap().len(), 1000, "where no limit is given");

    // The operator's command joins the pages.
    let list = |more: &[&str]| -> Value {
        serde_json::from_str(&server.cli(&[&["device", "list", "--json"], more].concat())).unwrap()
    };
    assert_eq!(uuids(list(&[])["devices"].as_array().unwrap()), expected);
    assert_eq!(uuids(list(&["--limit", "3"])["devices"].as_array().unwrap()), expected[..3]);
    assert_eq!(list(&["--limit", "2000"])["devices"].as_array().unwrap().len(), 2000);

    // As lines, the same objects.
    let lines = |arguments: &[&str]| -> Vec<Value> {
        server.cli(arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(uuids(&lines(&["device", "list", "--json-lines"])), expected);
    assert_eq!(uuids(&lines(&["device", "list", "--json-lines", "--limit", "1001"])), expected[..1001]);
    assert_eq!(
        lines(&["device", "list", "--json-lines", "--limit", "1"])[0],
        list(&["--limit", "1"])["devices"][0]
    );
    assert_eq!(lines(&["release", "list", "--json-lines"]).len(), 30);
    let both = server.try_cli(&["device", "list", "--json-lines", "--json"]);
    assert_eq!(both.status.code(), Some(2));

    // A cursor goes on after its row, also when that is gone.
    let cursor = page(&server, "devices?limit=10").2.unwrap();
    assert_eq!(cursor, expected[9]);
    server.cli(&["device", "delete", &cursor, "--yes"]);
    let (_, rows, _) = page(&server, &format!("devices?limit=2&cursor={cursor}"));
    assert_eq!(uuids(rows.as_array().unwrap()), expected[10..12]);
    let barred: BTreeSet<_> =
        all(&server, "barred-devices", 1).iter().map(|row| row["uuid"].to_string()).collect();
    assert_eq!(barred.len(), 1);
    assert_eq!(lines(&["device", "barred", "--json-lines"])[0]["uuid"], cursor.as_str());
    server.cli(&["env", "set", "--device", &expected[20], "RATE=5", "UNIT=lux"]);
    let variables = lines(&["env", "list", "--json-lines"]);
    let names: Vec<_> = variables.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["RATE", "UNIT"]);

    for (path, why) in [
        ("devices?limit=0", "limit = 0 is out of range; a page has 1 to 10000 rows"),
        ("devices?limit=10001", "a page has 1 to 10000 rows"),
        ("devices?cursor=..", "is not a cursor of this list; take it from the header cotter-next"),
        ("releases?cursor=x", "is not a cursor of this list"),
        ("fleets?cursor=-1", "is not a cursor of this list"),
    ] {
        let (status, answer, _) = page(&server, path);
        let words = answer["error"]["message"].as_str().unwrap();
        assert!(status == 400 && words.contains(why), "{path}: {status} {words}");
    }
}
