//! Stops a rollout, or a segment of it, because of failures.

use super::definition::{Definition, OnHalt};
use super::draft::Draft;
use super::judge::Finding;
use super::share::Share;
use super::state::{Cause, Counted, Halt, Pause, Phase, Segment};

/// Maximum number of reasons of devices that a halt quotes.
const MOST_REASONS: usize = 3;

/// What has been halted. The rest is judged at the next decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Halted {
    Nothing,
    Segment,
    All,
}

impl Draft<'_, '_> {
    /// Halts the rollout, or a segment of it, if the verdicts say so.
    pub(super) fn halt_if_bad(&mut self) -> Halted {
        let (Phase::Running | Phase::Paused { .. }) = self.rollout.phase else { return Halted::Nothing };
        let cause =
            if self.conditions.is_release_valid { self.bad_cause() } else { Some(Cause::Invalidated) };
        // One bad segment does not mean that the release is bad in the others.
        if self.conditions.is_release_valid && self.halt_segment() {
            return Halted::Segment;
        }
        match cause {
            Some(cause) => self.halt(cause),
            None => return Halted::Nothing,
        }
        Halted::All
    }

    /// Returns why the verdicts of all segments that are not halted say that the release is bad.
    fn bad_cause(&self) -> Option<Cause> {
        let Definition { test, max_failures, max_failure_rate, min_sample, .. } = *self.definition;
        let live = self.survey.judged;
        let rates = test.rates(self.base());
        if let Some(most) = max_failures
            && live.failures >= u64::from(most)
        {
            Some(Cause::MaxFailures { most })
        } else if let Some(most) = max_failure_rate
            && live.verdicts >= u64::from(min_sample)
            && most.is_exceeded_by(live.failures, live.verdicts)
        {
            Some(Cause::MaxFailureRate { most: most.to_string() })
        } else if test.judge(rates, live.failures, live.verdicts, 1) == Finding::Bad {
            Some(self.by_test())
        } else {
            None
        }
    }

    /// Returns why the rollout cannot go on by itself, if the verdicts so far speak against the release, or, in a strict rollout,
    /// do not prove it good. Without any failure they need not: a small fleet has too few devices for a proof.
    pub(super) fn inconclusive(&self) -> Option<Pause> {
        let Counted { failures, verdicts } = self.survey.judged;
        let Definition { test, is_strict, .. } = *self.definition;
        let rates = test.rates(self.base());
        let is_doubtful = is_strict || test.leans_bad(rates, failures, verdicts);
        match test.judge(rates, failures, verdicts, 1) {
            Finding::Open { needs } if failures > 0 && is_doubtful => {
                Some(Pause::Inconclusive { failures, verdicts, needs })
            }
            Finding::Open { .. } | Finding::Good | Finding::Bad => None,
        }
    }

    /// Halts the worst segment that is bad while the rest is not. Returns `true` if there is one.
    fn halt_segment(&mut self) -> bool {
        let test = self.definition.test;
        let (rates, live) = (test.rates(self.base()), self.survey.judged);
        let is_all_bad = test.judge(rates, live.failures, live.verdicts, 1) == Finding::Bad;
        let tests = u64::try_from(self.survey.segments.len()).unwrap_or(u64::MAX);
        let mut worst: Option<(Segment, Counted)> = None;
        for ((key, value), counted) in &self.survey.segments {
            let (segment, counted) = (Segment::new(key, value), *counted);
            let rest = live.without(counted);
            let is_bad = test.judge(rates, counted.failures, counted.verdicts, tests) == Finding::Bad;
            let is_only_here = rest.verdicts > 0 && !test.leans_bad(rates, rest.failures, rest.verdicts);
            let is_worse = worst.as_ref().is_none_or(|(_, worst)| counted.failures > worst.failures);
            if (is_bad || is_all_bad) && is_only_here && is_worse {
                worst = Some((segment, counted));
            }
        }
        let Some((segment, Counted { failures, verdicts })) = worst else { return false };
        let halt = Halt { cause: self.by_test(), failures, verdicts, evidence: self.evidence() };
        self.rollout.halted.insert(segment, halt);
        true
    }

    fn base(&self) -> f64 {
        self.rollout.base.map_or(0.0, Share::as_f64)
    }

    fn by_test(&self) -> Cause {
        let rates = self.definition.test.rates(self.base());
        Cause::Test { base: percent(rates.base), bad: percent(rates.bad) }
    }

    fn halt(&mut self, cause: Cause) {
        let Counted { failures, verdicts } = self.survey.judged;
        let why = Halt { cause, failures, verdicts, evidence: self.evidence() };
        let is_pulled_back = self.definition.on_halt == OnHalt::PullBack;
        self.rollout.phase = Phase::Halted { why, is_pulled_back };
    }

    fn evidence(&self) -> Vec<(String, u64)> {
        let mut reasons: Vec<(&str, u64)> = self.reasons.iter().map(|(why, count)| (*why, *count)).collect();
        reasons.sort_unstable_by_key(|(why, count)| (std::cmp::Reverse(*count), *why));
        reasons.truncate(MOST_REASONS);
        reasons.into_iter().map(|(why, count)| (why.chars().take(300).collect(), count)).collect()
    }
}

fn percent(rate: f64) -> String {
    let text = format!("{:.2}", rate * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}
