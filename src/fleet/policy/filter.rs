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

use super::rules::{check_tag_key, shown};
use super::{Device, KeyHash};
use crate::model::text::is_one_line;

/// Most characters of a filter.
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

/// Selects devices. Every field that is set must match; without any, all devices are selected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    pub filter: Option<TagFilter>,
    /// Number of their fleet.
    pub fleet: Option<u64>,
    /// The provisioning key that they registered with.
    pub key: Option<KeyHash>,
}

impl Choice {
    /// Returns whether a device is one of them.
    #[must_use]
    pub fn matches(&self, device: &Device) -> bool {
        self.fleet.is_none_or(|fleet| fleet == device.fleet)
            && self.key.as_ref().is_none_or(|key| device.provisioned_by.as_ref() == Some(key))
            && self.filter.as_ref().is_none_or(|filter| filter.matches(&device.tags))
    }
}

impl FromStr for TagFilter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        if text.chars().count() > LONGEST {
            return Err(BadFilter { given: shown(text), why: "the filter has more than 4096 characters" });
        }
        let conditions = text.split(',').map(|part| condition(part.trim())).collect::<Result<_, _>>()?;
        Ok(Self { conditions })
    }
}

fn condition(text: &str) -> Result<Condition, BadFilter> {
    let bad = |why| BadFilter { given: text.to_owned(), why };
    let key = |key: &str| {
        let key = key.trim();
        check_tag_key(key)
            .map(|()| key.to_owned())
            .map_err(|accepts| bad(if key.is_empty() { "it has no key" } else { accepts }))
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
