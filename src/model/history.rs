//! What became of releases on this device: a bounded list for whoever asks later.

use serde::{Deserialize, Serialize};

use super::{AppId, Commit};

/// Something that happened to a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// RFC 3339, UTC; as right as the clock was.
    pub at: String,
    pub app: AppId,
    pub release: Commit,
    pub what: What,
    /// The reason, in words; empty where there is none to tell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// The kinds of happenings; the names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Its services began to take the place of others.
    Tried,
    /// It is the good release from now on.
    Accepted,
    /// It was taken back, by its trial or by an operator.
    Rejected,
}

impl What {
    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tried => "tried",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

/// How many happenings are kept.
const LONGEST: usize = 60;

/// The last happenings, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(Vec<Happening>);

impl History {
    /// Adds one; the oldest goes when there are too many.
    pub fn add(&mut self, happening: Happening) {
        self.0.push(happening);
        let surplus = self.0.len().saturating_sub(LONGEST);
        self.0.drain(..surplus);
    }

    /// All of them, the oldest first.
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
