//! A strict reader of Prometheus's text format, by its own description and not by our writer.

use std::collections::{BTreeMap, BTreeSet};

/// A page that was read whole: every line was understood, and every rule kept.
#[derive(Debug)]
pub struct Page {
    pub text: String,
    /// Family to type.
    pub families: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

impl Page {
    /// Reads `text`; panics with the line that breaks a rule.
    #[track_caller]
    pub fn read(text: &str) -> Self {
        let mut page = Self { text: text.to_owned(), families: BTreeMap::new(), samples: BTreeMap::new() };
        assert!(text.ends_with('\n'), "the last line has an end");
        let mut family: Option<(String, String)> = None;
        let mut helped = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a text of help");
                assert!(is_name(name) && help.ends_with('.') && !help.contains('\\'), "{line}");
                assert!(helped.insert(name.to_owned()), "HELP twice: {line}");
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(helped.contains(name), "HELP comes first: {line}");
                assert!(["counter", "gauge", "summary"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                let is_new = page.families.insert(name.to_owned(), kind.to_owned()).is_none();
                assert!(is_new, "a family stands in one piece: {line}");
                family = Some((name.to_owned(), kind.to_owned()));
                continue;
            }
            let (labelled, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
            let value: f64 = value.parse().unwrap_or_else(|e| panic!("{e}: {line}"));
            let name = labelled.split('{').next().unwrap_or_default();
            let (of, kind) = family.as_ref().expect("a family comes first");
            let end = name.strip_prefix(of.as_str()).unwrap_or_else(|| panic!("not of {of}: {line}"));
            let ends: &[&str] = if kind == "summary" { &["_sum", "_count"] } else { &[""] };
            assert!(ends.contains(&end), "{line}");
            assert!(kind == "gauge" || value >= 0.0, "{line}");
            check_labels(line, &labelled[name.len()..]);
            assert!(page.samples.insert(labelled.to_owned(), value).is_none(), "twice: {line}");
        }
        page
    }

    /// The value of a sample, named as it stands there.
    pub fn value(&self, sample: &str) -> Option<f64> {
        self.samples.get(sample).copied()
    }
}

fn is_name(name: &str) -> bool {
    let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_fine)
}

/// `{name="value",...}`, with backslash, quote and line break escaped in values, and no name twice.
#[track_caller]
fn check_labels(line: &str, labels: &str) {
    if labels.is_empty() {
        return;
    }
    let inner = labels.strip_prefix('{').and_then(|l| l.strip_suffix('}'));
    let mut rest = inner.unwrap_or_else(|| panic!("no braces: {line}"));
    let mut names = BTreeSet::new();
    loop {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
        assert!(is_name(name) && !name.starts_with("__") && names.insert(name), "{line}");
        let mut is_escaped = false;
        let end = after.char_indices().find_map(|(at, c)| {
            if is_escaped {
                assert!(matches!(c, '\\' | '"' | 'n'), "{line}");
                is_escaped = false;
                return None;
            }
            is_escaped = c == '\\';
            (c == '"').then_some(at)
        });
        let end = end.unwrap_or_else(|| panic!("no end of a value: {line}"));
        match after[end + 1..].strip_prefix(',') {
            Some(more) => rest = more,
            None => {
                assert_eq!(&after[end + 1..], "", "{line}");
                return;
            }
        }
    }
}
