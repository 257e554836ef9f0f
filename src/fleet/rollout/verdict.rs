//! What became of one device.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::share::Span;
use super::state::ExposedDevice;
use super::tally::Verdict;

/// A device of the fleet, as far as a rollout depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub uuid: &'a str,
    pub tags: &'a BTreeMap<String, String>,
    /// Whether it has a pin of its own, which is stronger than a rollout.
    pub is_pinned: bool,
    /// `None`: it is not exposed to the release.
    pub member: Option<&'a ExposedDevice>,
    /// How it stands with what it should run.
    pub stands: Stands,
    /// Why it stands so, in its own words; may be empty.
    pub why: &'a str,
    pub last_contact: Option<Timestamp>,
    /// Whether that was recent.
    pub is_reachable: bool,
    /// How many barriers it has passed by the release that it runs.
    pub barriers_passed: usize,
}

/// The conditions of a decision besides the devices: the time, and limits.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    pub now: Timestamp,
    /// Whether devices may be exposed at this time.
    pub is_in_window: bool,
    /// Since when the server has received polls of devices. Before that no device counts as silent.
    pub listening_since: Timestamp,
    /// Whether the release may still be given to devices.
    pub is_release_valid: bool,
}

/// How a device stands with what it should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    OnTarget,
    Updating,
    Waiting,
    Fetching,
    Blocked,
    Rejected,
    Unhealthy,
}

/// Returns the device's record as it is now.
pub(super) fn judged(
    member: &ExposedDevice,
    subject: &Subject<'_>,
    silent_after: Span,
    conditions: Conditions,
) -> ExposedDevice {
    let mut judged = member.clone();
    if member.is_pulled_back {
        return judged;
    }
    judged.is_reachable |= subject.last_contact.is_some_and(|contact| contact > member.exposed);
    let is_passing = subject.barriers_passed > member.barriers;
    judged.barriers = member.barriers.max(subject.barriers_passed);
    let verdict =
        if is_passing { Verdict::Updating } else { verdict(&judged, subject, silent_after, conditions) };
    if verdict != member.verdict {
        (judged.verdict, judged.since) = (verdict, conditions.now);
    }
    judged
}

fn verdict(
    member: &ExposedDevice,
    subject: &Subject<'_>,
    silent_after: Span,
    conditions: Conditions,
) -> Verdict {
    let was = member.verdict;
    if was == Verdict::Rejected || was == Verdict::Unhealthy {
        // Once is enough, whatever comes after it.
        return was;
    }
    if !member.is_reachable {
        return Verdict::Unreached;
    }
    let sign = subject.last_contact.map_or(member.exposed, |contact| contact.max(member.exposed));
    if !subject.is_reachable && has_passed(sign.max(conditions.listening_since), silent_after, conditions.now)
    {
        return Verdict::Silent;
    }
    match subject.stands {
        Stands::Rejected => Verdict::Rejected,
        Stands::Unhealthy if was == Verdict::Accepted => Verdict::Unhealthy,
        Stands::OnTarget => Verdict::Accepted,
        // It has accepted the release; what it does now is something else, e.g. after a change of a variable.
        _ if was == Verdict::Accepted => was,
        Stands::Updating | Stands::Unhealthy => Verdict::Updating,
        Stands::Waiting => Verdict::Waiting,
        Stands::Fetching => Verdict::Fetching,
        Stands::Blocked => Verdict::Blocked,
    }
}

/// Returns `true` if that much time has passed since `from`.
pub(super) fn has_passed(from: Timestamp, span: Span, now: Timestamp) -> bool {
    now.duration_since(from).unsigned_abs() >= span.0 && now >= from
}
