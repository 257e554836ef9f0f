//! Remembers failed steps and when each may be tried again. In memory only: after a restart they are tried at once.

use std::collections::BTreeMap;
use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use tokio::time::Instant;

use crate::model::{FailedStep, Outcome, Step};

#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: BTreeMap<Step, Failed>,
    /// The last successes of each step: their time, and how many followed each other within [`JUST`].
    done: BTreeMap<Step, (Instant, u32)>,
}

/// How often a step is tried that fails for good. After that it waits for another target or for an order.
const GIVE_UP: u32 = 5;

/// A step that is planned again within this time after its success may have had no effect.
const JUST: Duration = Duration::from_secs(3);

/// A single repetition may be due to a change from outside. After this many in a row the step has no effect.
const IN_VAIN: u32 = 2;

#[derive(Debug)]
struct Failed {
    attempts: u32,
    why: String,
    /// `None`: it is not tried again.
    until: Option<Instant>,
    backoff: ExponentialBackoff,
}

/// Returns 1 s to 5 min for failures that pass by themselves, 1 min to 1 h for those that a person must remedy. Both with
/// jitter.
fn backoff_for(outcome: &Outcome) -> ExponentialBackoff {
    let (first, longest) = match outcome {
        Outcome::Failed { .. } => (Duration::from_secs(60), Duration::from_secs(3600)),
        Outcome::Done | Outcome::Retry { .. } => (Duration::from_secs(1), Duration::from_secs(300)),
    };
    let mut backoff = ExponentialBackoff {
        initial_interval: first,
        max_interval: longest,
        multiplier: 2.0,
        randomization_factor: 0.2,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    backoff.reset();
    backoff
}

impl Attempts {
    /// Records the outcome of a step. A success clears its failures, a failure postpones it.
    pub(super) fn note(&mut self, step: &Step, outcome: Outcome) {
        let (after, why) = match &outcome {
            Outcome::Done => {
                // A step that had no effect before keeps its failures, so that its delays go on growing.
                if !self.done.contains_key(step) {
                    self.failed.remove(step);
                }
                self.done.retain(|_, (at, _)| at.elapsed() < JUST);
                let before = self.done.get(step).map_or(0, |(_, times)| *times);
                self.done.insert(step.clone(), (Instant::now(), before + 1));
                return;
            }
            Outcome::Retry { after, why } => (*after, why.clone()),
            Outcome::Failed { why } => (None, why.clone()),
        };
        let now = Instant::now();
        let failed = self.failed.entry(step.clone()).or_insert_with(|| Failed {
            attempts: 0,
            why: String::new(),
            until: Some(now),
            backoff: backoff_for(&outcome),
        });
        failed.attempts = failed.attempts.saturating_add(1);
        failed.why = why;
        let next = failed.backoff.next_backoff().unwrap_or(failed.backoff.max_interval);
        let wait = after.map_or(next, |after| after.max(next));
        // The engine gives the same answer to the same container. An image may still be pushed.
        let most = if matches!(step, Step::Create { .. }) { 1 } else { GIVE_UP };
        let is_given_up = matches!(outcome, Outcome::Failed { .. }) && failed.attempts >= most;
        failed.until = (!is_given_up).then_some(now + wait);
    }

    /// Returns `true` if the step succeeded at least twice in a row a moment ago.
    fn was_just_done(&self, step: &Step) -> bool {
        self.done.get(step).is_some_and(|(at, times)| at.elapsed() < JUST && *times >= IN_VAIN)
    }

    /// Parts a stage: the steps that were just done, and those that may run. A later step of the same service as one that
    /// was just done, e.g. the start of a successor, is in neither part, because it needs the effect of that step.
    pub(super) fn part_repeated(&self, stage: Vec<Step>) -> (Vec<Step>, Vec<Step>) {
        let (again, fresh): (Vec<_>, Vec<_>) = stage.into_iter().partition(|step| self.was_just_done(step));
        let is_after =
            |step: &Step| again.iter().any(|s| s.service().is_some() && s.service() == step.service());
        let fresh = fresh.into_iter().filter(|step| !is_after(step)).collect();
        (again, fresh)
    }

    /// Forgets all outcomes, because a new target makes every step worth trying again.
    pub(super) fn clear(&mut self) {
        self.failed.clear();
        self.done.clear();
    }

    /// Returns the steps whose last attempt failed, and when each may be repeated.
    pub(super) fn failed_steps(&self) -> BTreeMap<Step, FailedStep> {
        let now = Instant::now();
        self.failed
            .iter()
            .map(|(step, failed)| {
                let remaining = failed.until.map(|until| until.saturating_duration_since(now));
                (step.clone(), FailedStep { attempts: failed.attempts, why: failed.why.clone(), remaining })
            })
            .collect()
    }

    /// Returns the time until the first postponed step may be tried again.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let now = Instant::now();
        self.failed
            .values()
            .filter_map(|f| f.until)
            .filter(|until| *until > now)
            .map(|until| until - now)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AppId, ContainerId, ImageRef, NetworkName, ServiceName};

    #[tokio::test(start_paused = true)]
    async fn what_is_done_in_vain_is_done_less_and_less_often() {
        let (app, network) = (AppId::parse("app").unwrap(), NetworkName::parse("default").unwrap());
        let step = Step::CreateNetwork { app, network, config_hash: None };
        let mut attempts = Attempts::default();
        attempts.note(&step, Outcome::Done);
        assert!(!attempts.was_just_done(&step), "once is no proof");
        for _ in 0..5 {
            attempts.note(&step, Outcome::Done);
            assert!(attempts.was_just_done(&step));
            attempts.note(&step, Outcome::Retry { after: None, why: "in vain".into() });
        }
        assert_eq!(attempts.failed_steps()[&step].attempts, 5);
        tokio::time::sleep(JUST * 100).await;
        assert!(!attempts.was_just_done(&step));
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_that_was_asked_for_only_makes_a_wait_longer() {
        let step = Step::MeasureImage { image: ImageRef::parse("r/web:1").unwrap() };
        let mut attempts = Attempts::default();
        let mut wait = |seconds: u64| {
            let after = Some(Duration::from_secs(seconds));
            attempts.note(&step, Outcome::Retry { after, why: "too many requests".into() });
            attempts.failed_steps()[&step].remaining.unwrap().as_secs()
        };
        for _ in 0..7 {
            wait(1);
        }
        assert!(wait(1) > 60, "the eighth failure in a row");
        assert_eq!(wait(900), 900);
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_a_step_without_an_effect_is_not_done_either() {
        let (app, container) = (AppId::parse("app").unwrap(), |id: &str| ContainerId::parse(id).unwrap());
        let stop = |service: &str, id: &str| Step::Stop {
            app: app.clone(),
            service: ServiceName::parse(service).unwrap(),
            container: container(id),
            grace: Duration::ZERO,
        };
        let start = |service: &str, id: &str| Step::Start {
            app: app.clone(),
            service: ServiceName::parse(service).unwrap(),
            container: container(id),
        };
        let image = ImageRef::parse("r/web:1").unwrap();
        let (old, of_no_service) = (stop("web", "aa"), Step::RemoveImage { image });
        let mut attempts = Attempts::default();
        for step in [&old, &of_no_service, &old, &of_no_service] {
            attempts.note(step, Outcome::Done);
        }
        let others = [start("db", "cc"), Step::Unlock { app: app.clone() }];
        let stage =
            [old.clone(), start("web", "bb"), of_no_service.clone()].into_iter().chain(others.clone());
        let (again, fresh) = attempts.part_repeated(stage.collect());
        assert_eq!((again, fresh), (vec![old, of_no_service], others.to_vec()));
    }
}
