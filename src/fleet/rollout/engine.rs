//! Decides what a rollout does next. Pure: no clock, no records, no network.

use std::time::Duration;

use jiff::Timestamp;

use super::definition::Definition;
use super::draft::{Candidate, Draft, Survey};
use super::halting::Halted;
use super::state::{Member, Pause, Phase, Question, Rollout};
use super::tally::Verdict;
use super::verdict::{self, Outside, Subject};

/// What a rollout does next.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<'a> {
    /// The rollout as it is to be stored.
    pub rollout: Rollout,
    /// The devices to expose, and those whose verdict is another one.
    pub members: Vec<(&'a str, Member)>,
    pub survey: Survey<'a>,
}

/// Decides what a rollout does next with the devices of its fleet. A rollout that is over does nothing.
#[must_use]
pub fn decide<'a>(
    rollout: &Rollout,
    devices: impl Iterator<Item = Subject<'a>>,
    outside: Outside,
) -> Decision<'a> {
    let mut draft = Draft::new(rollout, outside);
    if !rollout.phase.is_over() {
        for device in devices {
            draft.look_at(device);
        }
        let wave = draft.rollout.wave;
        let is_confirmed = draft.rollout.is_confirmed(wave);
        if is_confirmed {
            draft.end_of_wave();
        }
        match draft.halt_if_bad() {
            Halted::Nothing if is_confirmed => {
                draft.expose();
                draft.advance();
            }
            Halted::Nothing => draft.ask(wave),
            Halted::Segment | Halted::All => {}
        }
        draft.rollout.tally = draft.survey.all;
    }
    Decision { rollout: draft.rollout, members: draft.members, survey: draft.survey }
}

impl Draft<'_, '_> {
    /// Begins the next wave, or ends the rollout, when enough devices have accepted the release for long enough.
    fn advance(&mut self) {
        if self.rollout.phase != Phase::Running {
            return;
        }
        let live = self.survey.live;
        // Once it soaks, devices that join do not begin the time anew.
        let expected = if self.rollout.settled.is_some() { live.verdicts() } else { live.reachable() };
        let needed = self.definition.advance.of(expected);
        let is_waived = self.rollout.waived == Some(self.rollout.wave);
        let has_all = self.rollout.settled.is_some() || self.candidates.is_empty();
        let is_exposed = self.points.is_none() && has_all;
        let is_ended = is_exposed && live.open() == 0;
        let is_enough = live.accepted >= needed;
        if is_ended && !is_enough && !is_waived {
            let (accepted, reachable) = (live.accepted, live.reachable());
            return self.pause(Pause::TooFewAccepted { accepted, reachable, needed });
        }
        if !(is_exposed && is_enough || is_ended && is_waived) {
            self.rollout.settled = None;
            return;
        }
        let now = self.outside.now;
        let settled = *self.rollout.settled.get_or_insert(now);
        let is_last = self.rollout.wave + 1 >= self.definition.waves.len();
        let Definition { soak, observe, .. } = *self.definition;
        let watch = if is_last { soak.max(observe) } else { soak };
        let is_empty = !is_last && !self.survey.waves.contains_key(&self.rollout.wave);
        if !is_empty && !verdict::has_passed(settled, watch, now) {
            return;
        }
        if !is_waived && let Some(pause) = self.inconclusive() {
            return self.pause(pause);
        }
        if is_last { self.complete() } else { self.begin_next() }
    }

    fn begin_next(&mut self) {
        let wave = self.rollout.wave;
        if self.definition.waves[wave].needs_approval && self.rollout.approved != Some(wave) {
            return self.pause(Pause::Approval);
        }
        if !self.rollout.is_confirmed(wave + 1) {
            return self.ask(wave + 1);
        }
        self.rollout.wave += 1;
        self.rollout.settled = None;
    }

    /// Asks whether a wave may begin, and goes on with a question that is asked already.
    fn ask(&mut self, wave: usize) {
        if self.rollout.phase != Phase::Running || !self.outside.is_in_window {
            return;
        }
        let now = self.outside.now;
        let new = || Question { wave, since: now, asked: 0, next: now, why: None };
        self.rollout.question = Some(self.question.take().unwrap_or_else(new));
    }

    fn complete(&mut self) {
        if self.rollout.halted.is_empty() {
            self.rollout.phase = Phase::Completed;
        } else {
            self.pause(Pause::SegmentsHalted);
        }
    }

    fn pause(&mut self, why: Pause) {
        self.rollout.phase = Phase::Paused { why };
    }

    /// Exposes devices to the release, within the limits.
    fn expose(&mut self) {
        let Outside { now, is_in_window, is_release_valid, .. } = self.outside;
        if self.rollout.phase != Phase::Running || !is_in_window || !is_release_valid {
            return;
        }
        self.candidates.sort_unstable_by_key(|candidate| (candidate.wave, candidate.position));
        let at_once = self.definition.at_once.map_or(u64::MAX, u64::from);
        let mut free = at_once.saturating_sub(self.survey.live.open());
        for Candidate { wave, subject, .. } in &self.candidates {
            if subject.is_reachable && free == 0 {
                continue;
            }
            if !pace(&mut self.rollout, now) {
                break;
            }
            free -= u64::from(subject.is_reachable);
            let verdict = if subject.is_reachable { Verdict::Updating } else { Verdict::Unreached };
            let member = Member {
                wave: *wave,
                exposed: now,
                is_reachable: subject.is_reachable,
                barriers: subject.barriers_passed,
                verdict,
                since: now,
                is_pulled_back: false,
            };
            self.members.push((subject.uuid, member));
        }
    }
}

/// Longest time for which an unused rate is saved up.
const SAVED: Duration = Duration::from_secs(60);

/// Takes one device from the rate. Returns `false` if it is used up.
fn pace(rollout: &mut Rollout, now: Timestamp) -> bool {
    let Some(rate) = rollout.definition.rate else { return true };
    let earliest = now.checked_sub(SAVED).unwrap_or(now);
    let from = rollout.paced_until.map_or(now, |until| until.max(earliest));
    if from > now {
        return false;
    }
    rollout.paced_until = Some(from.checked_add(rate.interval()).unwrap_or(now));
    true
}
