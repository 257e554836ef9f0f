//! What the code and the documents cite exists: files, headings, paths and links.
//!
//! A document is cited by its path from the root of the repository, and a place in it by its heading in
//! quotes: `docs/compose.md, "Volumes"`. Never by a number, which moves.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the source should fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What is searched for citations. This file is left out: it cites documents that do not exist.
const SEARCHED: &[&str] = &[
    ".github",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "README.md",
    "Cargo.toml",
    "Makefile",
    "benches",
    "build.rs",
    "config",
    "demo",
    "docs",
    "fuzz/fuzz_targets",
    "packaging",
    "scripts",
    "src",
    "tests",
];

/// Folders at the root. A word in backticks that begins with one is a path.
const FOLDERS: &[&str] =
    &["benches/", "config/", "docs/", "packaging/", "scripts/", "src/", "systemd/", "tests/"];

fn texts() -> Vec<(PathBuf, String)> {
    fn add(path: &Path, found: &mut Vec<(PathBuf, String)>) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                add(&entry.unwrap().path(), found);
            }
        } else if path != Path::new("tests/citations.rs")
            && let Ok(text) = fs::read_to_string(path)
        {
            found.push((path.to_owned(), text));
        }
    }
    let mut found = Vec::new();
    for path in SEARCHED {
        add(Path::new(path), &mut found);
    }
    found.sort();
    found
}

fn documents() -> Vec<(PathBuf, String)> {
    texts().into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "md")).collect()
}

/// A comment as it is read: without what begins its lines, so that a citation may be broken over two of them.
fn joined(text: &str) -> String {
    let markers = |c: char| c.is_whitespace() || c == '/' || c == '!' || c == '#';
    text.lines().map(|line| line.trim_start_matches(markers).trim_end()).collect::<Vec<_>>().join(" ")
}

fn is_of_a_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-./".contains(c)
}

/// A document that is named, and the headings of it that are quoted right behind.
#[derive(Debug, PartialEq)]
struct Citation {
    document: String,
    headings: Vec<String>,
    has_number: bool,
}

fn citations(text: &str) -> Vec<Citation> {
    let text = joined(text);
    let mut found = Vec::new();
    for (end, _) in text.match_indices(".md") {
        let (before, after) = (&text[..end], &text[end + ".md".len()..]);
        let name = before.rfind(|c| !is_of_a_path(c)).map_or(before, |at| &before[at..]);
        let name = name.trim_start_matches(|c| !is_of_a_path(c));
        // Another word that begins so, a name that is put together, or an address on the Web.
        let is_part = after.starts_with(|c: char| c.is_ascii_alphanumeric());
        let is_elsewhere = name.starts_with("//") || before.ends_with(&format!(":{name}"));
        if name.is_empty() || is_part || is_elsewhere {
            continue;
        }
        let mut rest = after.trim_start_matches('`');
        let mut headings = Vec::new();
        let has_number = rest.strip_prefix(' ').is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()));
        while let Some(quoted) = [", \"", " and \""].iter().find_map(|mark| rest.strip_prefix(mark)) {
            let Some((heading, behind)) = quoted.split_once('"') else { break };
            headings.push(heading.to_owned());
            rest = behind;
        }
        found.push(Citation { document: format!("{name}.md"), headings, has_number });
    }
    found
}

/// The headings of a document, without code blocks.
fn headings(text: &str) -> Vec<String> {
    let mut is_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        is_code ^= line.starts_with("```");
        let title = line.trim_start_matches('#');
        if !is_code && title.len() < line.len() && title.starts_with(' ') {
            found.push(title.trim().to_owned());
        }
    }
    found
}

/// The names by which the headings of a document are linked, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for heading in headings(text) {
        let mut name = heading.to_lowercase().replace(' ', "-");
        name.retain(|c| c.is_alphanumeric() || "-_".contains(c));
        let count = seen.entry(name.clone()).or_default();
        found.insert(if *count == 0 { name } else { format!("{name}-{count}") });
        *count += 1;
    }
    found
}

/// Where links of a document lead, but for those to the Web.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, mark) in text.match_indices("](") {
        let rest = &text[at + mark.len()..];
        let target = rest.split(')').next().unwrap();
        if !target.starts_with("http") {
            found.push(target.to_owned());
        }
    }
    found
}

fn beside(file: &Path, target: &str) -> PathBuf {
    file.parent().unwrap().join(target)
}

#[test]
fn every_document_and_heading_that_is_cited_exists() {
    let mut wrong = Vec::new();
    for (file, text) in texts() {
        for Citation { document, headings: cited, has_number } in citations(&text) {
            let from_root = document.trim_start_matches("root/").trim_start_matches('/');
            let places = [PathBuf::from(from_root), beside(&file, &document)];
            let Some(place) = places.iter().find(|place| place.is_file()) else {
                // Where the package puts a document on a device.
                if !document.starts_with("/usr/share/doc/") {
                    wrong.push(format!("{}: there is no {document}", file.display()));
                }
                continue;
            };
            if has_number {
                wrong.push(format!("{}: {document} is cited by a number", file.display()));
            }
            let there = headings(&fs::read_to_string(place).unwrap());
            for heading in cited.iter().filter(|heading| !there.contains(heading)) {
                wrong.push(format!("{}: {document} has no heading {heading:?}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_path_in_backticks_exists() {
    let mut wrong = Vec::new();
    for (file, text) in texts() {
        let is_map = file == Path::new("ARCHITECTURE.md");
        for word in joined(&text).split('`').skip(1).step_by(2) {
            let is_path = FOLDERS.iter().any(|folder| word.starts_with(folder))
                || is_map && word.contains('/') && !word.starts_with('/');
            if is_path && word.chars().all(is_of_a_path) && !Path::new(word).exists() {
                wrong.push(format!("{}: there is no {word}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for (file, text) in documents() {
        for link in links(&text) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { file.clone() } else { beside(&file, path) };
            if !target.exists() {
                wrong.push(format!("{}: {link} leads nowhere", file.display()));
            } else if !anchor.is_empty() && !anchors(&fs::read_to_string(&target).unwrap()).contains(anchor) {
                wrong.push(format!("{}: {link} leads to no heading", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_citation_is_read_over_the_end_of_a_line() {
    let found = citations(
        "    /// as `docs/a.md`, \"One\n    /// thing\" and \"Two\", see https://b.example/c.md or\n/// x.md 3.5",
    );
    let citation = |document: &str, headings: &[&str], has_number| Citation {
        document: document.to_owned(),
        headings: headings.iter().map(ToString::to_string).collect(),
        has_number,
    };
    assert_eq!(found, [citation("docs/a.md", &["One thing", "Two"], false), citation("x.md", &[], true)]);
    assert_eq!(headings("# A b\n```\n# no\n```\ntext\n### C"), ["A b", "C"]);
    assert_eq!(anchors("# A, b: `c`\n# A b c"), BTreeSet::from(["a-b-c".to_owned(), "a-b-c-1".to_owned()]));
    assert_eq!(links("[a](b.md#c) [d](https://e)"), ["b.md#c"]);
}
