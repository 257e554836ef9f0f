//! Errors and warnings of a compose project, with their places.

use std::fmt;
use std::sync::Arc;

use crate::model::text::one_line;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file as the operator would write it.
    pub file: Arc<str>,
    /// From 1; 0 if it is not known.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.file))?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        Ok(())
    }
}

/// An error or a warning: where it is, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// `None` if it does not belong to a file.
    pub place: Option<Place>,
    /// E.g. `services.web.image`; empty for the complete file.
    pub path: String,
    /// The reason, with a remedy.
    pub why: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.why)
    }
}

impl std::error::Error for Finding {}

impl Finding {
    pub(super) fn at(place: &Place, path: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { place: Some(place.clone()), path: shown_path(&path.into()), why: why.to_string() }
    }
}

/// Maximum number of characters of a path in a message.
const LONGEST_PATH: usize = 200;

fn shown_path(path: &str) -> String {
    match path.char_indices().nth(LONGEST_PATH) {
        Some((end, _)) => format!("{}…", one_line(&path[..end])),
        None => one_line(path),
    }
}
