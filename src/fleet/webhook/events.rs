//! The events of a rollout that webhooks receive.

use serde::{Deserialize, Serialize};

use crate::fleet::rollout::{Cause, Phase, Rollout, Segment};

/// What can happen to a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Start,
    Wave,
    Pause,
    Halt,
    Resume,
    Complete,
    Abort,
    PullBack,
}

impl Event {
    pub const ALL: [Self; 8] = [
        Self::Start,
        Self::Wave,
        Self::Pause,
        Self::Halt,
        Self::Resume,
        Self::Complete,
        Self::Abort,
        Self::PullBack,
    ];

    /// Returns its name in commands and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Wave => "wave",
            Self::Pause => "pause",
            Self::Halt => "halt",
            Self::Resume => "resume",
            Self::Complete => "complete",
            Self::Abort => "abort",
            Self::PullBack => "pull-back",
        }
    }

    /// Finds an event by its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == name)
    }
}

/// Something that has happened to a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News<'a> {
    pub event: Event,
    /// The segment that is halted, if it is not the whole rollout.
    pub segment: Option<&'a Segment>,
}

/// Returns what has happened to a rollout. `before` is `None` if it begins.
#[must_use]
pub fn news<'a>(before: Option<&Rollout>, after: &'a Rollout) -> Vec<News<'a>> {
    let plain = |event| News { event, segment: None };
    let Some(before) = before else { return vec![plain(Event::Start)] };
    let mut all = Vec::new();
    let new = after.halted.keys().filter(|segment| !before.halted.contains_key(*segment));
    all.extend(new.map(|segment| News { event: Event::Halt, segment: Some(segment) }));
    if after.wave > before.wave {
        all.push(plain(Event::Wave));
    }
    if after.phase.as_str() == before.phase.as_str() {
        return all;
    }
    all.extend(of_phase(&before.phase, &after.phase).iter().copied().map(plain));
    all
}

fn of_phase(before: &Phase, after: &Phase) -> &'static [Event] {
    let was_halted = matches!(before, Phase::Halted { .. });
    match after {
        Phase::Running => &[Event::Resume],
        Phase::Paused { .. } => &[Event::Pause],
        Phase::Halted { is_pulled_back: false, .. } => &[Event::Halt],
        // A pull-back by a person, or of a rollout that was halted before, is no halt.
        Phase::Halted { why, .. } if was_halted || matches!(why.cause, Cause::Person { .. }) => {
            &[Event::PullBack]
        }
        Phase::Halted { .. } => &[Event::Halt, Event::PullBack],
        Phase::Completed => &[Event::Complete],
        Phase::Aborted { .. } => &[Event::Abort],
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::fleet::rollout::{Definition, Halt, Pause};

    fn rollout(phase: Phase, wave: usize) -> Rollout {
        let mut rollout = Rollout::new(1, 1, 1, Definition::default(), Timestamp::UNIX_EPOCH);
        (rollout.phase, rollout.wave) = (phase, wave);
        rollout
    }

    fn halted(cause: Cause, is_pulled_back: bool) -> Phase {
        let why = Halt { cause, failures: 1, verdicts: 1, evidence: Vec::new() };
        Phase::Halted { why, is_pulled_back }
    }

    #[test]
    fn each_change_of_a_rollout_has_its_events() {
        let paused = || Phase::Paused { why: Pause::Approval };
        let person = || Cause::Person { who: "anna".into() };
        let most = || Cause::MaxFailures { most: 1 };
        for (before, after, expected) in [
            (Phase::Running, Phase::Running, ""),
            (Phase::Running, paused(), "pause"),
            (paused(), Phase::Running, "resume"),
            (Phase::Running, halted(most(), false), "halt"),
            (Phase::Running, halted(most(), true), "halt pull-back"),
            (Phase::Running, halted(person(), true), "pull-back"),
            (halted(most(), false), halted(person(), true), "pull-back"),
            (halted(most(), false), Phase::Running, "resume"),
            (Phase::Running, Phase::Completed, "complete"),
            (paused(), Phase::Aborted { why: String::new() }, "abort"),
            // A pause with another reason is none.
            (paused(), Phase::Paused { why: Pause::SegmentsHalted }, ""),
        ] {
            let after = rollout(after, 0);
            let found: Vec<_> =
                news(Some(&rollout(before.clone(), 0)), &after).iter().map(|n| n.event.as_str()).collect();
            assert_eq!(found.join(" "), expected, "{before:?} {after:?}");
        }
        let next = rollout(Phase::Running, 1);
        assert_eq!(news(Some(&rollout(Phase::Running, 0)), &next)[0].event, Event::Wave);
        assert_eq!(news(None, &next), [News { event: Event::Start, segment: None }]);
        let mut one = next.clone();
        let why = Halt { cause: most(), failures: 1, verdicts: 1, evidence: Vec::new() };
        one.halted.insert(Segment::new("hw", "rev2"), why);
        let found = news(Some(&next), &one);
        assert_eq!((found.len(), found[0].event), (1, Event::Halt));
        assert_eq!(found[0].segment.map(ToString::to_string).as_deref(), Some("hw=rev2"));
        assert_eq!(news(Some(&one), &one), []);
    }

    #[test]
    fn names_are_stored_as_they_are_given() {
        for event in Event::ALL {
            assert_eq!(Event::parse(event.as_str()), Some(event));
            assert_eq!(serde_json::to_value(event).unwrap(), event.as_str());
        }
        assert_eq!(Event::parse("Start"), None);
    }
}
