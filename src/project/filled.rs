//! Keeps the values of variables out of messages, because they may be secrets.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::error::{Finding, Place};
use super::variables;

/// The variables that were filled in, by place, with their values.
#[derive(Debug, Clone, Default)]
pub(super) struct Filled(BTreeMap<Place, BTreeMap<String, String>>);

/// Values of variables that remembers which of them were read.
pub(super) struct Recorded<'v> {
    values: &'v BTreeMap<String, String>,
    used: RefCell<BTreeMap<String, String>>,
}

impl<'v> Recorded<'v> {
    pub(super) fn of(values: &'v BTreeMap<String, String>) -> Self {
        Self { values, used: RefCell::default() }
    }
}

impl variables::Values for Recorded<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let value = self.values.get(name).cloned()?;
        self.used.borrow_mut().insert(name.to_owned(), value.clone());
        Some(value)
    }
}

/// Shorter values are not hidden: a message would say nothing without the port or the name in it.
const SHORTEST: usize = 4;

/// So many characters of a value in a row are not shown.
const PART: usize = 8;

impl Filled {
    pub(super) fn note(&mut self, place: &Place, used: Recorded<'_>) {
        let used = used.used.into_inner();
        if used.values().any(|value| value.len() >= SHORTEST) {
            self.0.entry(place.clone()).or_default().extend(used);
        }
    }

    /// The finding without the values of the variables that were filled in at its place, or at one of these.
    pub(super) fn hide<'p>(&self, mut finding: Finding, places: impl Iterator<Item = &'p Place>) -> Finding {
        let places: Vec<Place> = places.cloned().chain(finding.place.clone()).collect();
        for (name, value) in places.iter().filter_map(|place| self.0.get(place)).flatten() {
            let is_in = |text: &str| has_part(text, value);
            if is_in(&finding.path) {
                let kept: Vec<_> = finding.path.split('.').take_while(|part| !is_in(part)).collect();
                finding.path = kept.join(".");
            }
            if is_in(&finding.why) {
                let rest = finding.why.split_once(" is not accepted: ").or(finding.why.rsplit_once(": "));
                let remedy = rest.map(|(_, remedy)| remedy).filter(|remedy| !is_in(remedy));
                let remedy = remedy.unwrap_or("correct it");
                finding.why = format!("the value of the variable {name} is not accepted: {remedy}");
            }
        }
        finding
    }
}

/// Whether a text has a part of a value, or all of a short one.
fn has_part(text: &str, value: &str) -> bool {
    if value.len() < SHORTEST || text.is_empty() {
        return false;
    }
    let chars: Vec<char> = text.chars().collect();
    // Messages show quotes and the like with an escape.
    let escaped = value.escape_debug().to_string();
    let part = PART.min(value.chars().count());
    chars.windows(part).any(|window| {
        let window: String = window.iter().collect();
        value.contains(&window) || escaped.contains(&window)
    })
}
