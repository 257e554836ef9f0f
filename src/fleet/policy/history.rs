//! The last releases that a device accepted or rejected. They follow from its reports, which alone say only how it is now. Pure.

use super::{Device, PastRelease, PastVerdict, Reported, World};
use crate::model::{Commit, Reason};
use crate::wire::report_v3::UpdateStatus;

/// Maximum number of releases that are kept of one device. The oldest ones go.
const MOST: usize = 12;

/// Longest text of why a release was rejected, in characters.
const LONGEST: usize = 300;

impl World {
    /// Returns the reports of a device with its history, to which these reports may add a release.
    pub(super) fn with_history(&self, device: &Device, mut reported: Reported) -> Reported {
        let said = |reported: &Reported| verdict(self, device, reported);
        let Some((release, verdict, why)) = said(&reported) else { return reported };
        let is_same = |(known, known_verdict, _): (u64, PastVerdict, String)| {
            (known, known_verdict) == (release, verdict)
        };
        // What it said before is no news, also if it was not recorded then.
        if said(self.reported(&device.uuid)).is_some_and(is_same) {
            return reported;
        }
        let is_rejection = |past: &&PastRelease| past.verdict == PastVerdict::Rejected;
        let is_known = match verdict {
            PastVerdict::Rejected => {
                reported.history.last().filter(is_rejection).is_some_and(|past| past.release == release)
            }
            // A device goes on to run a release while it rejects another one.
            PastVerdict::Accepted | PastVerdict::Running => {
                let ran = reported.history.iter().rev().find(|past| !is_rejection(past));
                ran.is_some_and(|past| past.release == release && past.verdict == verdict)
            }
        };
        if !is_known {
            let surplus = (reported.history.len() + 1).saturating_sub(MOST);
            reported.history.drain(..surplus);
            reported.history.push(PastRelease { release, verdict, at: reported.at, why });
        }
        reported
    }
}

/// Returns what a device made of a release, if its reports say it.
fn verdict(world: &World, device: &Device, reported: &Reported) -> Option<(u64, PastVerdict, String)> {
    let update = |of: u64| reported.update_status.filter(|_| reported.update_of == Some(of));
    let is_updated = |of: u64| {
        use UpdateStatus::{ApplyingChanges, Downloaded, Downloading};
        !matches!(update(of), Some(Downloading | Downloaded | ApplyingChanges))
    };
    let Some(account) = &reported.account else {
        let rejected = reported.update_of.filter(|of| update(*of) == Some(UpdateStatus::Rejected));
        return match (rejected, reported.running) {
            (Some(rejected), _) => Some((rejected, PastVerdict::Rejected, String::new())),
            (None, Some(running)) if is_updated(running) => {
                Some((running, PastVerdict::Running, String::new()))
            }
            (None, _) => None,
        };
    };
    let target = Commit::parse(account.target.as_deref()?).ok()?;
    let target = world.release_of(device.fleet, &target)?;
    let waits_for = |reason: Reason| account.waiting.iter().find(|wait| wait.reason == reason.as_str());
    if let Some(wait) = waits_for(Reason::Rejected) {
        let said = format!("release {} was rejected: ", target.commit);
        let why = wait.why.strip_prefix(&said).unwrap_or(&wait.why);
        let service = wait.service.as_ref().map(|service| format!("{service}: ")).unwrap_or_default();
        let why = format!("{service}{why}").chars().take(LONGEST).collect();
        return Some((target.number, PastVerdict::Rejected, why));
    }
    let is_on_trial = waits_for(Reason::Trial).is_some();
    let is_accepted = reported.running == Some(target.number) && is_updated(target.number) && !is_on_trial;
    is_accepted.then_some((target.number, PastVerdict::Accepted, String::new()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::fleet::policy::Change;
    use crate::fleet::standing::tests::world;
    use crate::wire::account::{Account, Wait};

    /// The reports of a device that takes `target` for its target, runs a release, and waits for this.
    fn says(target: &str, running: u64, waiting: &[(&str, &str)]) -> Reported {
        let wait = |(reason, why): &(&str, &str)| Wait {
            reason: (*reason).to_owned(),
            why: (*why).to_owned(),
            ..Wait::default()
        };
        let waiting = waiting.iter().map(wait).collect();
        let account = Account { target: Some(target.to_owned()), waiting, ..Account::default() };
        Reported { running: Some(running), account: Some(Arc::new(account)), ..Reported::default() }
    }

    /// Reports one after the other; returns the history.
    fn history(world: &mut World, reports: Vec<Reported>) -> Vec<(u64, &'static str, String)> {
        for (second, reported) in reports.into_iter().enumerate() {
            let device = world.find_device("board").unwrap().clone();
            let history = world.reported(&device.uuid).history.clone();
            let at = Timestamp::from_second(second.try_into().unwrap()).ok();
            let changes: Vec<Change> = world.report(&device, Reported { at, history, ..reported });
            changes.into_iter().for_each(|change| world.apply(change));
        }
        let device = world.find_device("board").unwrap();
        let history = &world.reported(&device.uuid).history;
        history.iter().map(|past| (past.release, past.verdict.as_str(), past.why.clone())).collect()
    }

    #[test]
    fn accepted_and_rejected_releases_are_recorded_once_each_time() {
        let (one, two) = (1, 2);
        let mut world = world(|_| {});
        let rejected = [("rejected", "release two was rejected: web exited with code 1")];
        let reports = vec![
            says("one", one, &[("trial", "")]),
            says("one", one, &[]),
            says("two", one, &[("downloading", "")]),
            says("two", one, &rejected),
            says("two", one, &[rejected[0], ("held", "")]),
            says("one", one, &[]),
            says("two", one, &rejected),
            says("two", two, &[("trial", "")]),
            says("two", two, &[("unhealthy", "the healthcheck failed")]),
            says("two", two, &[]),
            says("none", two, &[]),
        ];
        let known = history(&mut world, reports);
        let why = "web exited with code 1".to_owned();
        let none = String::new;
        assert_eq!(known, [(one, "accepted", none()), (two, "rejected", why), (two, "accepted", none())]);
        assert_eq!(
            world.reported(&world.find_device("board").unwrap().uuid).history[1].at.unwrap().as_second(),
            3
        );
    }

    #[test]
    fn what_was_reported_before_this_record_existed_has_no_invented_time() {
        let mut world = world(|reported| *reported = says("two", 2, &[]));
        let uuid = world.find_device("board").unwrap().uuid.clone();
        let without = Reported { history: Vec::new(), ..world.reported(&uuid).clone() };
        world.apply(Change::PutReports(uuid, without));
        let more = Reported { fields: [("cpu_temp".to_owned(), 40.into())].into(), ..says("two", 2, &[]) };
        assert_eq!(history(&mut world, vec![more]), []);
    }

    #[test]
    fn another_agent_reports_no_trial_and_the_history_is_bounded() {
        let mut world = world(|_| {});
        let plain = |running, update_status, update_of| Reported {
            running: Some(running),
            update_status,
            update_of,
            ..Reported::default()
        };
        let reports = vec![
            plain(1, Some(UpdateStatus::Done), Some(1)),
            plain(1, Some(UpdateStatus::Downloading), Some(2)),
            plain(1, Some(UpdateStatus::Rejected), Some(2)),
        ];
        let known = history(&mut world, reports);
        assert_eq!(known, [(1, "running", String::new()), (2, "rejected", String::new())]);
        let again = (0..40).map(|n| plain(1 + n % 2, None, None)).collect();
        let known = history(&mut world, again);
        assert_eq!((known.len(), known[MOST - 1].0), (MOST, 2));
    }

    #[test]
    fn a_deleted_release_leaves_the_history() {
        let mut world = world(|_| {});
        history(&mut world, vec![says("one", 1, &[]), says("two", 2, &[])]);
        let device = world.find_device("board").unwrap();
        let reported = world.reported(&device.uuid).without_releases(&[1].into()).unwrap();
        assert_eq!(reported.history.iter().map(|past| past.release).collect::<Vec<_>>(), [2]);
        assert_eq!(world.reported(&device.uuid).without_releases(&[3].into()), None);
    }
}
