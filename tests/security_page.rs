//! docs/security.md names the tests that show what it claims; each of them exists.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the source should fail")]

use std::fs;
use std::path::Path;

/// The text of every Rust file below a folder.
fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|e| e == "rs") {
            all.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_page_names_exists() {
    let page = fs::read_to_string("docs/security.md").unwrap();
    let mut code = String::new();
    for folder in ["src", "tests"] {
        sources(Path::new(folder), &mut code);
    }
    // Names of tests are the words in backquotes with three underscores or more.
    let names: Vec<_> = page.split('`').skip(1).step_by(2).filter(|w| w.matches('_').count() >= 3).collect();
    assert!(names.len() > 25, "{}", names.len());
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !["(", "<"].iter().any(|after| code.contains(&format!("fn {name}{after}"))))
        .collect();
    assert!(missing.is_empty(), "no test is called {missing:?}");
}
