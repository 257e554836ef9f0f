//! The architecture as a test: which room may use which, that no files use each other in a circle, the size of files and
//! functions, and that no work is left half done.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the source should fail")]

#[path = "support/modules.rs"]
mod modules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use modules::{
    before_tests, circles, declared, functions, graph, is_code, is_test, module_of, rust_files, used,
};

/// Each room and the rooms it may use. A room that is not listed may use nothing.
const FLOORS: &[(&str, &[&str])] = &[
    // floor 0
    ("model", &[]),
    // floor 1: pure
    ("wire", &["model"]),
    ("plan", &["model"]),
    ("ownership", &[]),
    ("tar", &[]),
    ("exposition", &["model"]),
    // floor 1: one way to ask over HTTP
    ("http", &["model"]),
    // floor 2: the outside
    ("listen", &[]),
    ("engine", &["model", "tar"]),
    ("store", &["model", "ownership"]),
    ("registry", &["model", "http"]),
    ("host", &["model"]),
    ("postgres", &["model"]),
    ("cloud", &["model", "wire", "http"]),
    ("vpn", &["model", "ownership"]),
    ("config", &["model", "ownership"]),
    ("project", &["model", "wire"]),
    // floor 3: the single writer
    ("reconcile", &["model", "plan", "engine", "store"]),
    // floor 3, too: it only reads
    ("logs", &["model", "engine", "cloud", "http"]),
    // floor 4
    ("api", &["model", "exposition", "listen", "http"]),
    ("supervisor_api", &["model", "listen"]),
    ("fleet", &["model", "wire", "exposition", "host", "http", "ownership", "listen", "postgres"]),
    (
        "daemon",
        &[
            "api",
            "cloud",
            "config",
            "engine",
            "host",
            "http",
            "logs",
            "model",
            "ownership",
            "reconcile",
            "registry",
            "store",
            "supervisor_api",
            "vpn",
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
            "cloud",
            "config",
            "daemon",
            "doctor",
            "fleet",
            "host",
            "http",
            "ownership",
            "postgres",
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

/// Lines of a function, with its signature.
const LONGEST_FUNCTION: usize = 60;

/// The room of a file: the first folder or file below `src`.
fn room_of(file: &str) -> String {
    file.split('/').nth(1).unwrap().trim_end_matches(".rs").to_owned()
}

#[test]
fn rooms_only_use_the_floors_below() {
    let (mut wrong, mut rows) = (Vec::new(), BTreeMap::<String, BTreeSet<String>>::new());
    for (file, text) in rust_files(Path::new("src")) {
        let room = room_of(&file);
        let row = FLOORS.iter().find(|(name, _)| *name == room);
        let Some((_, allowed)) = row else {
            wrong.push(format!("{file}: the room {room} has no row"));
            continue;
        };
        let used_rooms = rows.entry(room.clone()).or_default();
        let lines: Vec<&str> = text.lines().collect();
        for used in used(&lines, &module_of(&file), &declared(&lines)) {
            let Some(used_room) = used.path.first().filter(|first| **first != room) else { continue };
            if room == "lib" {
                continue;
            }
            if allowed.contains(&used_room.as_str()) {
                used_rooms.insert(used_room.clone());
            } else {
                wrong.push(format!("{file}:{}: {room} uses {used_room:?}", used.line));
            }
        }
    }
    for (room, allowed) in FLOORS {
        let Some(used_rooms) = rows.get(*room) else {
            wrong.push(format!("the row {room} has no room"));
            continue;
        };
        let unused = allowed.iter().filter(|allowed| !used_rooms.contains(**allowed));
        wrong.extend(unused.map(|unused| format!("the row {room} allows {unused}, which it does not use")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A file may use its neighbours and its parent, but not a file that uses it, directly or through others.
#[test]
fn no_files_use_each_other_in_a_circle() {
    let circles = circles(&graph(Path::new("src")));
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn functions_stay_readable() {
    let mut wrong = Vec::new();
    for (file, text) in rust_files(Path::new("src")).into_iter().filter(|(file, _)| !is_test(file)) {
        for (line, name, length) in functions(&before_tests(&text)) {
            if length > LONGEST_FUNCTION {
                wrong.push(format!(
                    "{file}:{line}: {name} has {length} lines; {LONGEST_FUNCTION} is the limit"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_room_names_each_outside_thing() {
    let doors = [
        ("sled::", &["store", "fleet"][..]),
        ("redb::", &["fleet"]),
        ("imbl::", &["fleet"]),
        ("maud::", &["fleet"]),
        ("bollard::", &["engine"]),
        ("reqwest::", &["http"]),
        ("rustls::", &["http", "listen", "postgres"]),
        ("tokio_postgres::", &["postgres"]),
        ("sd_notify::", &["host"]),
        ("rustix::", &["host", "ownership"]),
        ("clap::", &["cli"]),
    ];
    for (file, text) in rust_files(Path::new("src")) {
        let room = room_of(&file);
        for (thing, rooms) in doors {
            let names_it = text.lines().filter(|l| is_code(l)).any(|l| l.contains(thing));
            assert!(!names_it || rooms.contains(&room.as_str()), "{file} names {thing}");
        }
    }
}

#[test]
fn only_the_reconciler_changes_what_the_engine_holds() {
    for (file, text) in rust_files(Path::new("src")) {
        let room = room_of(&file);
        let orders = text.lines().filter(|l| is_code(l)).any(|l| l.contains("Operate"));
        assert!(
            !orders || ["engine", "reconcile"].contains(&room.as_str()),
            "{file} names the changing half of the engine"
        );
    }
}

#[test]
fn one_file_writes_to_the_terminal() {
    // That file makes everything safe that it prints. Other files must not print, because text may come from outside.
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

/// The reader of modules finds what the tests above need.
#[test]
fn paths_of_modules_are_read() {
    let text = "use crate::model::{App, id::Id};\nuse super::other::Thing as Name;\npub use child::One;\nmod child;\n\
                mod inner {\n    use super::super::far;\n}\n// super::comment\nfn f() {\n    crate::host::now(\"super::text\");\n}";
    let lines: Vec<&str> = text.lines().collect();
    let children = declared(&lines);
    let found = used(&lines, &["room".into(), "file".into()], &children);
    let paths: Vec<String> = found.iter().map(|used| used.path.join("::")).collect();
    assert_eq!(
        paths,
        [
            "model::App",
            "model::id::Id",
            "room::other::Thing",
            "room::file::child::One",
            "room::far",
            "host::now"
        ]
    );
    let exported: Vec<_> = found.iter().filter(|used| used.is_exported).map(|used| used.line).collect();
    assert_eq!(exported, [3]);
    assert_eq!(functions(&lines), [(9, "f".to_owned(), 3)]);
}
