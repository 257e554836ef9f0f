//! The architecture as a test: which room may use which, how large a file may be, and that no word
//! of the code is left half done.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the source should fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Each room and the rooms it may use. A room that is not listed may use nothing.
const FLOORS: &[(&str, &[&str])] = &[
    // floor 0
    ("model", &[]),
    // floor 1: pure
    ("wire", &["model"]),
    ("plan", &["model"]),
    ("ownership", &[]),
    ("tar", &[]),
    // floor 1: one way to ask over HTTP
    ("http", &["model"]),
    // floor 2: the outside
    ("listen", &[]),
    ("engine", &["model", "tar"]),
    ("store", &["model", "ownership"]),
    ("registry", &["model", "http"]),
    ("host", &["model"]),
    ("cloud", &["model", "wire", "http"]),
    ("config", &["model", "ownership"]),
    ("project", &["model", "wire"]),
    // floor 3: the single writer
    ("reconcile", &["model", "plan", "engine", "store", "registry"]),
    // floor 4
    ("api", &["model", "listen", "http"]),
    ("fleet", &["model", "wire", "registry", "ownership", "listen"]),
    (
        "daemon",
        &[
            "api",
            "cloud",
            "config",
            "engine",
            "host",
            "http",
            "model",
            "ownership",
            "reconcile",
            "registry",
            "store",
            "wire",
        ],
    ),
    ("doctor", &["api", "cloud", "config", "engine", "host", "http", "model", "ownership", "store", "tar"]),
    // the door: `cotter agent` runs the daemon, `cotter-fleet serve` the fleet server
    (
        "cli",
        &[
            "model",
            "api",
            "config",
            "daemon",
            "doctor",
            "fleet",
            "host",
            "http",
            "ownership",
            "project",
            "registry",
            "store",
            "wire",
        ],
    ),
    ("main", &["cli"]),
    ("bin", &["cli"]),
    ("lib", &[]),
];

/// Lines of a file before its tests.
const CEILING: usize = 400;

fn rust_files(folder: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    files.sort();
    files
}

fn is_test(file: &str) -> bool {
    file.contains("/tests") || file.ends_with("tests.rs")
}

/// Whether `line` is code, and not a comment.
fn is_code(line: &str) -> bool {
    !line.trim_start().starts_with("//")
}

/// The lines of a file before its tests.
fn before_tests(text: &str) -> Vec<&str> {
    let mut all: Vec<&str> = text.lines().collect();
    // A declaration of tests that stand in another file ends nothing.
    let begins_tests = |pair: &[&str]| pair[0].starts_with("#[cfg(test)]") && pair[1].ends_with('{');
    if let Some(end) = all.windows(2).position(begins_tests) {
        all.truncate(end);
    }
    all
}

#[test]
fn rooms_only_use_the_floors_below() {
    let mut wrong = Vec::new();
    let mut used_rows = BTreeSet::new();
    for (file, text) in rust_files(Path::new("src")) {
        let room = file.split('/').nth(1).unwrap().trim_end_matches(".rs").to_owned();
        let row = FLOORS.iter().find(|(name, _)| *name == room);
        let Some((_, allowed)) = row else {
            wrong.push(format!("{file}: the room {room} has no row"));
            continue;
        };
        used_rows.insert(room.clone());
        for (n, line) in text.lines().enumerate().filter(|(_, line)| is_code(line)) {
            for path in line.split("crate::").skip(1) {
                let used = path.split([':', ';', '{', ' ', ',', ')']).next().unwrap();
                if used != room && !allowed.contains(&used) {
                    wrong.push(format!("{file}:{}: {room} uses {used:?}", n + 1));
                }
            }
        }
    }
    for (room, _) in FLOORS {
        assert!(used_rows.contains(*room), "the row {room} has no room");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_room_names_each_outside_thing() {
    let doors = [
        ("sled::", &["store", "fleet"][..]),
        ("bollard::", &["engine"]),
        ("reqwest::", &["http"]),
        ("rustls::", &["http"]),
        ("sd_notify::", &["host"]),
        ("rustix::", &["host", "ownership"]),
        ("clap::", &["cli"]),
    ];
    for (file, text) in rust_files(Path::new("src")) {
        let room = file.split('/').nth(1).unwrap().trim_end_matches(".rs");
        for (thing, rooms) in doors {
            let names_it = text.lines().filter(|l| is_code(l)).any(|l| l.contains(thing));
            assert!(!names_it || rooms.contains(&room), "{file} names {thing}");
        }
    }
}

#[test]
fn only_the_reconciler_changes_what_the_engine_holds() {
    for (file, text) in rust_files(Path::new("src")) {
        let room = file.split('/').nth(1).unwrap().trim_end_matches(".rs");
        let orders = text.lines().filter(|l| is_code(l)).any(|l| l.contains("Operate"));
        assert!(!orders || ["engine", "reconcile"].contains(&room), "{file} names the engine's second door");
    }
}

#[test]
fn one_file_writes_to_the_terminal() {
    // All that it prints is made safe there: what is printed elsewhere might come from outside, and is not.
    let ways = [" stdout()", " stderr()", "io::stdout", "io::stderr", "print!(", "println!(", "/dev/tty"];
    for (file, text) in rust_files(Path::new("src")).into_iter().filter(|(file, _)| !is_test(file)) {
        for (n, line) in before_tests(&text).into_iter().enumerate().filter(|(_, line)| is_code(line)) {
            let is_printed = ways.iter().any(|way| line.contains(way));
            assert!(!is_printed || file == "src/cli/print.rs", "{file}:{} prints by itself", n + 1);
        }
    }
}

#[test]
fn files_stay_readable() {
    for (file, text) in rust_files(Path::new("src")).into_iter().filter(|(file, _)| !is_test(file)) {
        let lines = before_tests(&text).len();
        assert!(lines <= CEILING, "{file} has {lines} lines before its tests; {CEILING} is the ceiling");
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//!"), "{file} does not say what it is for");
    }
}

#[test]
fn nothing_is_left_half_done() {
    let words = ["todo!(", "unimplemented!(", "dbg!(", concat!("TO", "DO"), concat!("FIX", "ME"), "#[ignore"];
    for folder in ["src", "tests"] {
        for (file, text) in
            rust_files(Path::new(folder)).into_iter().filter(|(f, _)| !f.ends_with("floors.rs"))
        {
            for word in words {
                assert!(!text.contains(word), "{file} has {word}");
            }
        }
    }
}
