//! The stored state of a rollout, and of each exposed device.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::definition::Definition;
use super::share::Share;
use super::tally::{Tally, Verdict};
use crate::model::quantity::counted;

/// A rollout: it takes a release to the devices of a fleet in waves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    pub number: u64,
    /// Number of the fleet.
    pub fleet: u64,
    /// Number of the release.
    pub release: u64,
    pub definition: Definition,
    /// Numbers of the releases that devices must accept before.
    pub barriers: Vec<u64>,
    /// The target of the fleet when it started.
    pub before: Option<u64>,
    pub started: Timestamp,
    /// Since when it is over.
    pub ended: Option<Timestamp>,
    pub phase: Phase,
    /// Index of the last wave that has begun.
    pub wave: usize,
    /// Since when enough devices of the waves so far have accepted the release.
    pub settled: Option<Timestamp>,
    /// For each wave that is a number of devices and has begun: the last point of the order that is in it.
    pub ends: BTreeMap<usize, u64>,
    /// The moment up to which the rate is used up.
    pub paced_until: Option<Timestamp>,
    /// The wave after which the next one was approved.
    pub approved: Option<usize>,
    /// The last wave that the webhook of the definition lets begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<usize>,
    /// What that webhook is asked at present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<Question>,
    /// The wave that a person wants to end although its verdicts do not suffice.
    pub waived: Option<usize>,
    /// When a person resumed the rollout. What had become of devices until then is not held against the release again.
    pub resumed: Option<Timestamp>,
    /// Segments that are halted, with the reason.
    pub halted: BTreeMap<Segment, Halt>,
    /// The share of devices that failed in the fleet's last rollout.
    pub base: Option<Share>,
    /// What has become of all exposed devices.
    pub tally: Tally,
}

impl Rollout {
    /// Begins with the first wave.
    #[must_use]
    pub fn new(number: u64, fleet: u64, release: u64, definition: Definition, started: Timestamp) -> Self {
        Self {
            number,
            fleet,
            release,
            definition,
            barriers: Vec::new(),
            before: None,
            started,
            ended: None,
            phase: Phase::Running,
            wave: 0,
            settled: None,
            ends: BTreeMap::new(),
            paced_until: None,
            approved: None,
            confirmed: None,
            question: None,
            waived: None,
            resumed: None,
            halted: BTreeMap::new(),
            base: None,
            tally: Tally::default(),
        }
    }

    /// Returns the release that a device gets from it; `None` if it gets that of its fleet.
    #[must_use]
    pub fn release_for(&self, member: &ExposedDevice) -> Option<u64> {
        let is_exposed = self.phase.keeps_release() && !member.is_pulled_back;
        is_exposed.then(|| self.barriers.get(member.barriers).copied().unwrap_or(self.release))
    }

    /// Ends it.
    pub fn end(&mut self, phase: Phase, now: Timestamp) {
        (self.phase, self.ended) = (phase, Some(now));
        self.question = None;
    }

    /// Goes on, although it was paused or halted. A webhook is asked again for a wave that has not begun,
    /// because its answer may be old.
    pub fn resume(&mut self, now: Timestamp) {
        self.phase = Phase::Running;
        self.question = None;
        let begun = (self.wave > 0 || self.tally.exposed() > 0).then_some(self.wave);
        self.confirmed = self.confirmed.zip(begun).map(|(confirmed, begun)| confirmed.min(begun));
        self.waived = Some(self.wave);
        self.settled = None;
        self.resumed = Some(now);
    }

    /// Lets the next wave begin.
    pub fn approve(&mut self) {
        self.phase = Phase::Running;
        self.approved = Some(self.wave);
    }
}

/// A question that is not answered with yes so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Index of the wave that waits.
    pub wave: usize,
    pub since: Timestamp,
    /// How often it was asked.
    pub asked: u32,
    /// It is not asked again before.
    pub next: Timestamp,
    /// What the last answer was; `None` before the first one.
    pub why: Option<String>,
}

/// Failures among verdicts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    pub failures: u64,
    pub verdicts: u64,
}

impl Counted {
    pub(super) fn add(&mut self, verdict: Verdict) {
        self.failures += u64::from(verdict.is_failure());
        self.verdicts += u64::from(verdict.is_failure() || verdict == Verdict::Accepted);
    }

    /// Returns what is left without a part of it.
    #[must_use]
    pub fn without(self, part: Self) -> Self {
        let failures = self.failures.saturating_sub(part.failures);
        Self { failures, verdicts: self.verdicts.saturating_sub(part.verdicts) }
    }
}

/// All devices with one value of a tag: `hw=rev2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Segment(pub String);

impl Segment {
    #[must_use]
    pub fn new(key: &str, value: &str) -> Self {
        Self(format!("{key}={value}"))
    }

    /// Returns `true` if a device with these tags is in it.
    #[must_use]
    pub fn has(&self, tags: &BTreeMap<String, String>) -> bool {
        self.0.split_once('=').is_some_and(|(key, value)| tags.get(key).is_some_and(|own| own == value))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "phase")]
pub enum Phase {
    Running,
    /// No other device is exposed until a person resumes it.
    Paused {
        why: Pause,
    },
    /// It has stopped itself because of failures.
    Halted {
        why: Halt,
        /// Whether those that had the release have gone back.
        is_pulled_back: bool,
    },
    /// The fleet's target is the release.
    Completed,
    /// A person has ended it, or the fleet got another target.
    Aborted {
        why: String,
    },
}

impl Phase {
    #[must_use]
    pub fn is_running(&self) -> bool {
        *self == Self::Running
    }

    /// Its name in JSON.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused { .. } => "paused",
            Self::Halted { is_pulled_back: false, .. } => "halted",
            Self::Halted { is_pulled_back: true, .. } => "pulled-back",
            Self::Completed => "completed",
            Self::Aborted { .. } => "aborted",
        }
    }

    /// Returns why it does not run.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        match self {
            Self::Running | Self::Completed => None,
            Self::Paused { why } => Some(why.to_string()),
            Self::Halted { why, .. } => Some(why.to_string()),
            Self::Aborted { why } => Some(why.clone()),
        }
    }

    /// Returns `true` if it will never change again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Completed | Self::Aborted { .. })
    }

    /// Returns `true` if exposed devices keep the release.
    #[must_use]
    pub fn keeps_release(&self) -> bool {
        match self {
            Self::Running | Self::Paused { .. } => true,
            Self::Halted { is_pulled_back, .. } => !is_pulled_back,
            Self::Completed | Self::Aborted { .. } => false,
        }
    }
}

/// Why a rollout waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum Pause {
    Person {
        who: String,
    },
    /// The next wave needs an approval.
    Approval,
    /// The verdicts of the waves so far do not say whether the release is good.
    Inconclusive {
        failures: u64,
        verdicts: u64,
        needs: u64,
    },
    /// All reachable devices of the waves so far have ended, and too few have accepted the release.
    TooFewAccepted {
        accepted: u64,
        reachable: u64,
        needed: u64,
    },
    /// All devices have it, except those of halted segments.
    SegmentsHalted,
    /// Its fleet would not keep the release.
    CannotEnd {
        why: String,
    },
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person { who } => write!(f, "paused by {who}"),
            Self::Approval => write!(f, "the next wave needs an approval"),
            Self::Inconclusive { failures, verdicts, needs } => write!(
                f,
                "{failures} of {} failed, which does not say whether the release is good; {} would say it is",
                counted(*verdicts, "device"),
                format_args!("{} that accept it", counted(*needs, "further device")),
            ),
            Self::TooFewAccepted { accepted, reachable, needed } => write!(
                f,
                "{accepted} of {} accepted the release, {needed} are needed",
                counted(*reachable, "reachable device"),
            ),
            Self::SegmentsHalted => write!(f, "all devices have the release but for the halted segments"),
            Self::CannotEnd { why } => f.write_str(why),
        }
    }
}

/// Why a rollout, or a segment of it, has stopped itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    pub cause: Cause,
    pub failures: u64,
    pub verdicts: u64,
    /// The most frequent reasons of devices, with how many gave it.
    pub evidence: Vec<(String, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "rule")]
pub enum Cause {
    /// The test says that the release is bad. The rates are percent.
    Test {
        base: String,
        bad: String,
    },
    MaxFailures {
        most: u32,
    },
    MaxFailureRate {
        most: String,
    },
    /// The release was invalidated.
    Invalidated,
    Person {
        who: String,
    },
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cause, failures, verdicts, evidence } = self;
        let failed = format!("{failures} of {} failed", counted(*verdicts, "device"));
        match cause {
            Cause::Test { base, bad } => {
                write!(f, "{failed}: more likely a failure rate of {bad} than the usual {base}")?;
            }
            Cause::MaxFailures { most } => write!(f, "{failed}: max_failures is {most}")?,
            Cause::MaxFailureRate { most } => write!(f, "{failed}: max_failure_rate is {most}")?,
            Cause::Invalidated => write!(f, "the release was invalidated; {failed}")?,
            Cause::Person { who } => write!(f, "pulled back by {who}; {failed}")?,
        }
        for (n, (why, count)) in evidence.iter().enumerate() {
            write!(f, "{} {count} × {why}", if n == 0 { "; most frequent:" } else { "," })?;
        }
        Ok(())
    }
}

/// A device that is exposed to the release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExposedDevice {
    /// Index of its wave.
    pub wave: usize,
    pub exposed: Timestamp,
    /// Whether it was reachable when it was exposed, or since.
    pub is_reachable: bool,
    /// How many barriers it has passed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub barriers: usize,
    pub verdict: Verdict,
    /// Since when.
    pub since: Timestamp,
    /// Whether it was sent back, alone or with its segment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_pulled_back: bool,
}

/// A device that a rollout has exposed to its release. It means nothing once its fleet has another rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutExposure {
    /// Number of the rollout.
    pub rollout: u64,
    #[serde(flatten)]
    pub member: ExposedDevice,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}
