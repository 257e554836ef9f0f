//! What a device reports to our own fleet server besides the fields of the protocol: what it waits for, and how services
//! failed. Clouds that speak only the protocol are not sent it.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::text::cleaned;
use crate::model::{self, Report};

/// The field of a report that has the account.
pub const FIELD: &str = "cotter";

/// Bounds of an account. The agent keeps them, and the server cuts what exceeds them.
const MOST_WAITS: usize = 16;
const MOST_EVIDENCE: usize = 4;
const MOST_LINES: usize = 20;
const LONGEST_WORD: usize = 128;
const LONGEST_WHY: usize = 600;
const LONGEST_LINE: usize = 300;

/// The account of a device. A report has it whole or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The version of the agent.
    #[serde(default)]
    pub agent: String,
    /// Commit of the release that the device takes for its target, by which the rest is to be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Wait>,
    /// Newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
}

/// What a device waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// One of the stable words of docs/operations.md.
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// RFC 3339, UTC, by the device's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// How one service of a release failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub service: String,
    /// Commit.
    pub release: String,
    /// RFC 3339, UTC, by the device's clock: when it was collected.
    pub at: String,
    #[serde(default, deserialize_with = "whole")]
    pub restarts: u64,
    /// How the container ended, or how its healthcheck failed, as the predicate of a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The last lines that the service wrote, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

/// Reads a whole number. JSON has one type of numbers, so `3.0` is one, too.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number = f64::deserialize(from)?;
    if number < 0.0 || number.fract() != 0.0 {
        return Err(D::Error::custom("it is no whole number"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole and not negative"
    )]
    Ok(number as u64)
}

impl Account {
    /// Makes the account of a device. `lines`: how many of a service's last lines it may have.
    #[must_use]
    pub fn new(report: &Report, lines: usize) -> Self {
        let of_device = |reason: &str, why: &Option<String>| {
            let why = why.clone()?;
            Some(Wait { reason: reason.to_owned(), why, ..Wait::default() })
        };
        let of_device = [of_device("engine", &report.engine_error), of_device("store", &report.store_error)];
        let waits = report.waiting.iter().map(|waiting| Wait {
            service: waiting.service.as_ref().map(ToString::to_string),
            reason: waiting.reason.as_str().to_owned(),
            why: waiting.why.clone(),
            since: waiting.since.clone(),
        });
        let evidence = report.evidence.iter().map(|one| evidence(one, lines));
        Self {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            target: report.apps.values().find_map(|app| app.target.as_ref()).map(ToString::to_string),
            waiting: of_device.into_iter().flatten().chain(waits).collect(),
            evidence: evidence.collect(),
        }
        .bounded()
    }

    /// Cuts everything that exceeds the bounds, and makes all texts safe to show.
    #[must_use]
    pub fn bounded(self) -> Self {
        let word = |text: String| cleaned(&text, LONGEST_WORD);
        let waiting = self.waiting.into_iter().take(MOST_WAITS).map(|wait| Wait {
            service: wait.service.map(word),
            reason: word(wait.reason),
            why: cleaned(&wait.why, LONGEST_WHY),
            since: wait.since.map(word),
        });
        let surplus = self.evidence.len().saturating_sub(MOST_EVIDENCE);
        let evidence = self.evidence.into_iter().skip(surplus).map(|one| Evidence {
            service: word(one.service),
            release: word(one.release),
            at: word(one.at),
            restarts: one.restarts,
            cause: one.cause.map(|cause| cleaned(&cause, LONGEST_WHY)),
            lines: one.lines.into_iter().take(MOST_LINES).map(|line| cleaned(&line, LONGEST_LINE)).collect(),
        });
        Self {
            agent: word(self.agent),
            target: self.target.map(word),
            waiting: waiting.collect(),
            evidence: evidence.collect(),
        }
    }
}

fn evidence(evidence: &model::Evidence, lines: usize) -> Evidence {
    let surplus = evidence.lines.len().saturating_sub(lines);
    Evidence {
        service: evidence.service.to_string(),
        release: evidence.release.to_string(),
        at: evidence.at.clone(),
        restarts: evidence.restarts,
        cause: evidence.cause(),
        lines: evidence.lines[surplus..].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_bounded_and_safe_to_show() {
        let long = || "\u{1b}[31m".to_owned() + &"x".repeat(5000);
        let wait = || Wait { service: Some(long()), reason: long(), why: long(), since: Some(long()) };
        let evidence = |at: usize| Evidence {
            service: long(),
            release: long(),
            at: at.to_string(),
            restarts: u64::MAX,
            cause: Some(long()),
            lines: vec![long(); 100],
        };
        let account = Account {
            agent: long(),
            target: Some(long()),
            waiting: std::iter::repeat_with(wait).take(100).collect(),
            evidence: (0..50).map(evidence).collect(),
        };
        let account = account.bounded();
        let text = serde_json::to_string(&account).unwrap();
        assert!(text.len() < 48 * 1024, "{}", text.len());
        assert!(!text.contains("\\u001b"));
        let kept: Vec<_> = account.evidence.iter().map(|one| one.at.as_str()).collect();
        assert_eq!(kept, ["46", "47", "48", "49"], "the newest are kept");
        assert_eq!(account.clone().bounded(), account, "once is enough");
    }
}
