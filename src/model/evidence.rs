//! What is known of a failure: how a container ended, what its healthcheck printed, and what the service wrote last.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::text::cleaned;
use super::{AppId, Commit, ServiceName};

/// The number of last lines of a service that are kept.
pub const LAST_LINES: u32 = 20;

/// The longest line that is kept, in characters.
const LONGEST_LINE: usize = 300;

/// The longest output of a healthcheck that is kept, in characters.
const LONGEST_OUTPUT: usize = 500;

/// The longest text that one line of evidence adds to a reason, in characters.
const LONGEST_QUOTE: usize = 160;

/// The number of services of which the book keeps evidence.
const LONGEST_BOOK: usize = 8;

/// How a container ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEnd {
    pub exit_code: i64,
    /// Whether the kernel killed it because its memory ran out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_out_of_memory: bool,
    /// What the engine says of it besides, e.g. why it could not be started; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl LastEnd {
    /// Returns an end of which only the exit code is known.
    #[must_use]
    pub fn with_code(exit_code: i64) -> Self {
        Self { exit_code, ..Self::default() }
    }
}

/// The end as the predicate of a sentence: "exited with code 139 (SIGSEGV)".
impl fmt::Display for LastEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_out_of_memory, meaning(self.exit_code)) {
            (true, _) => write!(f, "was killed because its memory ran out (code {})", self.exit_code)?,
            (false, Some(meaning)) => write!(f, "exited with code {} ({meaning})", self.exit_code)?,
            (false, None) => write!(f, "exited with code {}", self.exit_code)?,
        }
        if self.error.is_empty() { Ok(()) } else { write!(f, ": {}", self.error) }
    }
}

/// Returns what an exit code usually means. Shells and engines use 126 and 127, and 128 + n after signal n.
fn meaning(exit_code: i64) -> Option<&'static str> {
    Some(match exit_code {
        126 => "its command cannot be executed",
        127 => "its command was not found",
        129 => "SIGHUP",
        130 => "SIGINT",
        131 => "SIGQUIT",
        132 => "SIGILL",
        133 => "SIGTRAP",
        134 => "SIGABRT",
        135 => "SIGBUS",
        136 => "SIGFPE",
        137 => "SIGKILL",
        139 => "SIGSEGV",
        141 => "SIGPIPE",
        143 => "SIGTERM",
        159 => "SIGSYS",
        _ => return None,
    })
}

/// The last run of a healthcheck, which failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedProbe {
    pub exit_code: i64,
    /// What it printed, on one line; may be empty.
    pub output: String,
}

impl FailedProbe {
    /// Makes one from what the engine has stored. Its output is bounded and safe to show.
    #[must_use]
    pub fn new(exit_code: i64, output: &str) -> Self {
        Self { exit_code, output: cleaned(output, LONGEST_OUTPUT) }
    }
}

/// What is known of the failure of one service of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub app: AppId,
    pub release: Commit,
    pub service: ServiceName,
    /// RFC 3339, UTC: when it was collected.
    pub at: String,
    /// How often the engine has restarted the container.
    #[serde(default)]
    pub restarts: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<LastEnd>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<FailedProbe>,
    /// The last lines that the service wrote, oldest first; at most [`LAST_LINES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

impl Evidence {
    /// The failure itself, as the predicate of a sentence; `None` if neither an end nor a failed healthcheck is known.
    #[must_use]
    pub fn cause(&self) -> Option<String> {
        let probe = self.probe.as_ref().map(|probe| match probe.output.as_str() {
            "" => format!("its healthcheck exited with code {}", probe.exit_code),
            output => format!("its healthcheck exited with code {}: {output}", probe.exit_code),
        });
        self.end.as_ref().map(ToString::to_string).or(probe)
    }

    /// Returns the same evidence without anything that the service or its healthcheck wrote.
    #[must_use]
    pub fn without_output(&self) -> Self {
        let probe = self.probe.as_ref().map(|probe| FailedProbe { output: String::new(), ..probe.clone() });
        Self { probe, lines: Vec::new(), ..self.clone() }
    }

    /// Returns `true` if both are the same, whenever they were collected.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        let Self { app, release, service, at: _, restarts, end, probe, lines } = self;
        (app, release, service, restarts, end, probe, lines)
            == (
                &other.app,
                &other.release,
                &other.service,
                &other.restarts,
                &other.end,
                &other.probe,
                &other.lines,
            )
    }

    /// The most telling line, for the end of a reason: what the failed healthcheck printed, else the last line that the
    /// service wrote.
    #[must_use]
    pub fn quote(&self) -> Option<String> {
        let probe =
            self.probe.as_ref().map(|probe| probe.output.as_str()).filter(|output| !output.is_empty());
        let written = || self.lines.last().map(|line| format!("last line: {}", cleaned(line, LONGEST_QUOTE)));
        match (&self.end, probe) {
            (None, Some(output)) => Some(format!("healthcheck: {}", cleaned(output, LONGEST_QUOTE))),
            (Some(_), _) | (None, None) => written(),
        }
    }
}

/// Returns the last lines of what a service wrote, bounded and safe to show. Empty lines are left out.
#[must_use]
pub fn last_lines(written: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(written);
    let lines = text.lines().rev().map(|line| cleaned(line, LONGEST_LINE)).filter(|line| !line.is_empty());
    let mut last: Vec<_> = lines.take(LAST_LINES as usize).collect();
    last.reverse();
    last
}

/// The evidence of the services that failed last, oldest first. It outlives their containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EvidenceBook(Vec<Evidence>);

impl EvidenceBook {
    /// Adds evidence. It replaces that of the same service of the same release; the oldest one is removed if there are too
    /// many.
    pub fn add(&mut self, evidence: Evidence) {
        let key = |one: &Evidence| (one.app.clone(), one.release.clone(), one.service.clone());
        self.0.retain(|one| key(one) != key(&evidence));
        self.0.push(evidence);
        let surplus = self.0.len().saturating_sub(LONGEST_BOOK);
        self.0.drain(..surplus);
    }

    /// Returns all, oldest first.
    #[must_use]
    pub fn all(&self) -> &[Evidence] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_said_with_what_its_code_means() {
        let end = |exit_code, is_out_of_memory, error: &str| {
            LastEnd { exit_code, is_out_of_memory, error: error.to_owned() }.to_string()
        };
        assert_eq!(end(1, false, ""), "exited with code 1");
        assert_eq!(end(139, false, ""), "exited with code 139 (SIGSEGV)");
        assert_eq!(end(137, true, ""), "was killed because its memory ran out (code 137)");
        assert_eq!(
            end(127, false, "no such file"),
            "exited with code 127 (its command was not found): no such file"
        );
    }

    #[test]
    fn the_last_lines_are_bounded_and_safe_to_show() {
        let written: String = (0..50).map(|n| format!("line {n}\r\n\n")).collect();
        let lines = last_lines(written.as_bytes());
        assert_eq!((lines.len(), lines[0].as_str(), lines[19].as_str()), (20, "line 30", "line 49"));
        let long = last_lines("x".repeat(10_000).as_bytes());
        assert_eq!(long[0].len(), LONGEST_LINE);
        assert_eq!(last_lines(b"\x1b[31mred\x1b[0m \xff\xe2\x80\xae"), ["[31mred [0m \u{fffd}"]);
        assert_eq!(last_lines(b""), Vec::<String>::new());
    }

    fn evidence(service: &str, end: Option<LastEnd>, probe: Option<FailedProbe>, lines: &[&str]) -> Evidence {
        Evidence {
            app: AppId::parse("app").unwrap(),
            release: Commit::parse("one").unwrap(),
            service: ServiceName::parse(service).unwrap(),
            at: String::new(),
            restarts: 0,
            end,
            probe,
            lines: lines.iter().map(|&line| line.to_owned()).collect(),
        }
    }

    #[test]
    fn the_most_telling_line_is_quoted() {
        let end = || Some(LastEnd::with_code(1));
        let probe = |output| Some(FailedProbe::new(7, output));
        for (why, evidence, cause, quote) in [
            (
                "it ended",
                evidence("web", end(), None, &["a", "b"]),
                Some("exited with code 1"),
                Some("last line: b"),
            ),
            ("it ended without a word", evidence("web", end(), None, &[]), Some("exited with code 1"), None),
            (
                "its healthcheck failed",
                evidence("web", None, probe("no route"), &["b"]),
                Some("its healthcheck exited with code 7: no route"),
                Some("healthcheck: no route"),
            ),
            (
                "its healthcheck failed without a word",
                evidence("web", None, probe(""), &["b"]),
                Some("its healthcheck exited with code 7"),
                Some("last line: b"),
            ),
            ("nothing is known", evidence("web", None, None, &[]), None, None),
        ] {
            assert_eq!((evidence.cause().as_deref(), evidence.quote().as_deref()), (cause, quote), "{why}");
        }
    }

    #[test]
    fn the_book_is_bounded_and_has_one_entry_for_a_service_of_a_release() {
        let mut book = EvidenceBook::default();
        for n in 0..20 {
            book.add(evidence(&format!("s{}", n % 10), None, None, &[&n.to_string()]));
        }
        let services: Vec<_> = book.all().iter().map(|one| one.lines[0].as_str()).collect();
        assert_eq!(services, ["12", "13", "14", "15", "16", "17", "18", "19"]);
        book.add(evidence("s9", None, None, &["again"]));
        let lines: Vec<_> = book.all().iter().map(|one| one.lines[0].as_str()).collect();
        assert_eq!(
            lines,
            ["12", "13", "14", "15", "16", "17", "18", "again"],
            "it replaces its former entry"
        );
    }
}
