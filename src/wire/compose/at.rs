//! A JSON value with its path, and functions that read plain values.

use std::fmt::Display;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::model::Refusal;
use crate::model::text::{is_one_line, one_line};
use crate::wire::units;

/// Maximum number of refusals, and of warnings, that one app reports.
const MOST_NOTES: usize = 64;

/// All refusals and warnings of a release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Why the release cannot run here.
    pub refusals: Vec<Refusal>,
    /// Fields that are not honoured, although the release can run.
    pub warnings: Vec<Refusal>,
}

impl Notes {
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        add(&mut self.refusals, refusal);
    }

    pub(super) fn warn(&mut self, warning: Refusal) {
        add(&mut self.warnings, warning);
    }

    /// Returns the value, or adds the refusal and returns `None`.
    pub(super) fn keep<T>(&mut self, read: Result<T, Refusal>) -> Option<T> {
        read.map_err(|refusal| self.refuse(refusal)).ok()
    }
}

fn add(list: &mut Vec<Refusal>, note: Refusal) {
    match list.len() {
        n if n < MOST_NOTES => list.push(Refusal { path: path_line(&note.path), why: note.why }),
        MOST_NOTES => {
            list.push(Refusal { path: String::new(), why: "there are more, which are not listed".into() })
        }
        _ => {}
    }
}

pub(super) const HAS_NUL: &str = "it has a NUL character: remove it";
pub(super) const NOT_A_LINE: &str = "it has a line break or an invisible character: remove it";

/// Longest path in a message, in characters.
const LONGEST_PATH: usize = 200;

/// Makes a path safe for a message: the author's names in it may have line breaks or be very long.
pub(in crate::wire) fn path_line(path: &str) -> String {
    match path.char_indices().nth(LONGEST_PATH) {
        Some((end, _)) => format!("{}…", one_line(&path[..end])),
        None => one_line(path),
    }
}

/// Returns what the paths of a value's members begin with. A very long path is cut, which no message shows: otherwise a long
/// name with many members would take the product of both in memory.
pub(super) fn parent(path: &str) -> &str {
    path.char_indices().nth(LONGEST_PATH + 1).map_or(path, |(end, _)| &path[..end])
}

/// `networkMode` → `network_mode`.
pub(super) fn snake_case(key: &str) -> String {
    let mut snake = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// A value and its path.
#[derive(Clone)]
pub(super) struct At<'v> {
    pub(super) path: String,
    pub(super) value: &'v Value,
}

impl<'v> At<'v> {
    pub(super) fn new(path: impl Into<String>, value: &'v Value) -> Self {
        Self { path: path.into(), value }
    }

    pub(super) fn refusal(&self, why: impl Display) -> Refusal {
        Refusal { path: self.path.clone(), why: why.to_string() }
    }

    /// Makes the refusal of this value. It shows the value and says what is accepted.
    pub(super) fn wrong(&self, accepts: &str) -> Refusal {
        self.refusal(format_args!("{} is not accepted: write {accepts}", shown(self.value)))
    }

    /// Makes the refusal of a key that is not known. Keys of other formats, such as `startPeriod`, are shown in compose's
    /// spelling.
    pub(super) fn unknown(&self, why: impl Display) -> Refusal {
        let key = self.path.rsplit('.').next().unwrap_or_default();
        match snake_case(key) {
            snake if snake != key && !key.starts_with(|c: char| c.is_ascii_uppercase()) => {
                self.refusal(format_args!("unknown field: write {snake}"))
            }
            _ => self.refusal(why),
        }
    }

    /// Returns the members of a map that are not null, by name.
    pub(super) fn map(&self) -> Result<Vec<(&'v str, At<'v>)>, Refusal> {
        match self.value {
            Value::Object(map) => Ok(members(&self.path, map)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(self.wrong("a map"))
            }
        }
    }

    /// Returns the items of a list.
    pub(super) fn list(&self) -> Result<Vec<At<'v>>, Refusal> {
        let items = self.value.as_array().ok_or_else(|| self.wrong("a list"))?;
        Ok(self.indexed(items))
    }

    /// Returns the items of a list, or a single text as one item.
    pub(super) fn text_or_list(&self) -> Result<Vec<At<'v>>, Refusal> {
        match self.value {
            Value::String(_) => Ok(vec![self.clone()]),
            Value::Array(items) => Ok(self.indexed(items)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
                Err(self.wrong("a text or a list of texts"))
            }
        }
    }

    fn indexed(&self, items: &'v [Value]) -> Vec<At<'v>> {
        let path = parent(&self.path);
        let at = |(n, value)| At::new(format!("{path}[{n}]"), value);
        items.iter().enumerate().map(at).collect()
    }

    /// Reads a name, path or word: one line without invisible characters.
    pub(super) fn text(&self) -> Result<&'v str, Refusal> {
        let text = self.content()?;
        if is_one_line(text) { Ok(text) } else { Err(self.refusal(NOT_A_LINE)) }
    }

    /// Reads a text that only the container uses, such as a command. Refuses only NUL, which no engine accepts.
    pub(super) fn content(&self) -> Result<&'v str, Refusal> {
        let text = self.value.as_str().ok_or_else(|| self.wrong("a text"))?;
        if text.contains('\0') { Err(self.refusal(HAS_NUL)) } else { Ok(text) }
    }

    /// Reads a text as [`text`](Self::text) does, or a number or bool as text.
    pub(super) fn word(&self) -> Result<String, Refusal> {
        let word = self.scalar()?;
        if is_one_line(&word) { Ok(word) } else { Err(self.refusal(NOT_A_LINE)) }
    }

    /// Reads a text, number or bool, as text. A refusal does not show the value, because it may be a secret.
    pub(super) fn scalar(&self) -> Result<String, Refusal> {
        match self.value {
            Value::String(_) => self.content().map(str::to_owned),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(flag) => Ok(flag.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                Err(self.refusal("it must be a text, a number or a bool"))
            }
        }
    }

    pub(super) fn flag(&self) -> Result<bool, Refusal> {
        match self.value {
            Value::Bool(flag) => Ok(*flag),
            Value::String(text) if text == "true" => Ok(true),
            Value::String(text) if text == "false" => Ok(false),
            Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                Err(self.wrong("true or false"))
            }
        }
    }

    /// Reads a whole number of 0 or more, also from a text of digits.
    pub(super) fn whole(&self, accepts: &str) -> Result<u64, Refusal> {
        let number = match self.value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => digits(text),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        number.ok_or_else(|| self.wrong(accepts))
    }

    /// Reads a number of bytes: a whole number, or a text with a unit.
    pub(super) fn size(&self) -> Result<u64, Refusal> {
        let text = match self.value {
            Value::Number(number) => number.to_string(),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                self.value.as_str().ok_or_else(|| self.wrong("a size, e.g. \"64m\""))?.to_owned()
            }
        };
        units::size(&text).map_err(|bad| self.refusal(bad))
    }

    pub(super) fn duration(&self) -> Result<Duration, Refusal> {
        let text = match self.value {
            Value::Number(number) => number.to_string(),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                self.value.as_str().ok_or_else(|| self.wrong("a duration, e.g. \"10s\""))?.to_owned()
            }
        };
        units::duration(&text).map_err(|bad| self.refusal(bad))
    }
}

/// Returns the members of a map that are not null, each with its path.
pub(super) fn members<'v>(path: &str, map: &'v Map<String, Value>) -> Vec<(&'v str, At<'v>)> {
    let path = parent(path);
    let present = map.iter().filter(|(_, value)| !value.is_null());
    present.map(|(key, value)| (key.as_str(), At::new(format!("{path}.{key}"), value))).collect()
}

/// Parses a text of only digits.
pub(super) fn digits(text: &str) -> Option<u64> {
    text.chars().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Returns whether a value is null, false, or an empty text, list or map.
pub(super) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// Formats a value for a message, shortened to about 60 characters.
pub(super) fn shown(value: &Value) -> String {
    let kind = match value {
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {
            let text = one_line(&value.to_string());
            let short: String = text.chars().take(60).collect();
            return if short.len() < text.len() { format!("{short}…") } else { text };
        }
    };
    kind.to_owned()
}

/// The compose fields of a service. A null counts as absent.
pub(super) struct Fields<'v> {
    pub(super) path: &'v str,
    pub(super) map: &'v Map<String, Value>,
}

impl<'v> Fields<'v> {
    pub(super) fn get(&self, key: &str) -> Option<At<'v>> {
        let value = self.map.get(key).filter(|value| !value.is_null())?;
        Some(At::new(format!("{}.{key}", self.path), value))
    }

    /// As [`Fields::with`], but an empty text counts as absent, too.
    pub(super) fn filled<T>(
        &self,
        key: &str,
        notes: &mut Notes,
        read: impl FnOnce(&At<'v>) -> Result<T, Refusal>,
    ) -> Option<T> {
        let is_empty = self.map.get(key).and_then(Value::as_str).is_some_and(str::is_empty);
        if is_empty { None } else { self.with(key, notes, read) }
    }

    pub(super) fn with<T>(
        &self,
        key: &str,
        notes: &mut Notes,
        read: impl FnOnce(&At<'v>) -> Result<T, Refusal>,
    ) -> Option<T> {
        self.get(key).and_then(|at| notes.keep(read(&at)))
    }
}
