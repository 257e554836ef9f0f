//! The history of releases on this device: which were tried, accepted and rejected. A list of limited length.

use serde::{Deserialize, Serialize};

use super::{AppId, Commit};

/// An entry of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// RFC 3339, UTC, by the clock at that moment.
    pub at: String,
    pub app: AppId,
    pub release: Commit,
    pub what: What,
    /// The reason for people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// The kinds of entries. Their names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Its trial began.
    Tried,
    /// It was accepted and is the good release from then on.
    Accepted,
    /// It was rejected, by its trial or by an operator.
    Rejected,
}

impl What {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tried => "tried",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

/// How many entries are kept.
const LONGEST: usize = 60;

/// The last entries, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(Vec<Happening>);

impl History {
    /// Adds an entry, and removes the oldest one if there are too many.
    pub fn add(&mut self, happening: Happening) {
        self.0.push(happening);
        let surplus = self.0.len().saturating_sub(LONGEST);
        self.0.drain(..surplus);
    }

    /// Returns all entries, oldest first.
    #[must_use]
    pub fn all(&self) -> &[Happening] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go() {
        let mut history = History::default();
        for n in 0..70 {
            let (at, why) = (format!("{n}"), String::new());
            let (app, release) = (AppId::parse("app").unwrap(), Commit::parse("one").unwrap());
            history.add(Happening { at, app, release, what: What::Tried, why });
        }
        let ends = (history.all().first().unwrap().at.as_str(), history.all().last().unwrap().at.as_str());
        assert_eq!((history.all().len(), ends), (60, ("10", "69")));
    }
}
