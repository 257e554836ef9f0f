//! Selects the devices of a bulk act by their tags.
//!
//! A filter is one or more conditions, joined by `,`. A device must match all of them:
//!
//! | condition | matches a device |
//! | --- | --- |
//! | `key=value` | whose tag `key` is `value` |
//! | `key!=value` | whose tag `key` has another value, **or that has no such tag** |
//! | `key` | that has the tag, whatever its value |
//! | `!key` | that does not have the tag |
//!
//! Spaces around conditions, keys and values are ignored. A value may be empty (`key=`) but contains no `,`, `=` or `!`. A
//! filter has at most 4,096 characters.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::model::text::is_one_line;
use crate::model::{TAG_KEY_ACCEPTS, is_tag_key};

/// Maximum number of characters of a filter.
const LONGEST: usize = 4096;

/// A parsed filter. `Display` writes it in its simplest form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagFilter {
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
}

/// A text that is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} in the filter is not a condition: {why}; conditions are key=value, key!=value, key and !key, joined by ','"
)]
pub struct BadFilter {
    given: String,
    why: &'static str,
}

impl TagFilter {
    /// Returns whether a device with these tags matches.
    #[must_use]
    pub fn matches(&self, tags: &BTreeMap<String, String>) -> bool {
        self.conditions.iter().all(|condition| match condition {
            Condition::Is(key, value) => tags.get(key) == Some(value),
            Condition::IsNot(key, value) => tags.get(key) != Some(value),
            Condition::Has(key) => tags.contains_key(key),
            Condition::HasNot(key) => !tags.contains_key(key),
        })
    }
}

impl FromStr for TagFilter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        if text.chars().count() > LONGEST {
            let given = text.chars().take(64).collect();
            return Err(BadFilter { given, why: "the filter has more than 4096 characters" });
        }
        let conditions = text.split(',').map(|part| condition(part.trim())).collect::<Result<_, _>>()?;
        Ok(Self { conditions })
    }
}

fn condition(text: &str) -> Result<Condition, BadFilter> {
    let bad = |why| BadFilter { given: text.to_owned(), why };
    let key = |key: &str| {
        let key = key.trim();
        let why = if key.is_empty() { "it has no key" } else { TAG_KEY_ACCEPTS };
        is_tag_key(key).then(|| key.to_owned()).ok_or_else(|| bad(why))
    };
    let value = |value: &str| {
        let value = value.trim();
        let is_plain = !value.contains(['=', '!']) && is_one_line(value);
        is_plain
            .then(|| value.to_owned())
            .ok_or(bad("its value contains '=', '!', or a control or invisible character"))
    };
    if let Some((k, v)) = text.split_once("!=") {
        return Ok(Condition::IsNot(key(k)?, value(v)?));
    }
    if let Some((k, v)) = text.split_once('=') {
        return Ok(Condition::Is(key(k)?, value(v)?));
    }
    match text.strip_prefix('!') {
        Some(k) => Ok(Condition::HasNot(key(k)?)),
        None => Ok(Condition::Has(key(text)?)),
    }
}

impl fmt::Display for TagFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, condition) in self.conditions.iter().enumerate() {
            f.write_str(if n == 0 { "" } else { "," })?;
            match condition {
                Condition::Is(key, value) => write!(f, "{key}={value}")?,
                Condition::IsNot(key, value) => write!(f, "{key}!={value}")?,
                Condition::Has(key) => write!(f, "{key}")?,
                Condition::HasNot(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}
