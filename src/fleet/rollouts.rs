//! Runs the rollouts of all fleets. At intervals of a second or more, makes the next decision of each open rollout from its
//! devices' reports, and stores it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::access::{By, Entry, MOST_THINGS, Outcome, ROLLOUT};
use super::clock;
use super::policy::{Change, Device, World};
use super::records::{ActError, Records};
use super::rollout::{self, Conditions, Decision, ExposedDevice, Phase, Rollout, Stands, Subject};
use super::standing::{self, Contact};
use crate::host;
use crate::model::{DeviceUuid, WindowState};

/// The shortest pause between two rounds of decisions.
const PAUSE: Duration = Duration::from_secs(1);

/// After each round, the pause is at least this many times as long as the round took, so decisions use less than 5 % of one
/// processor.
const PAUSES: u32 = 20;

/// What one decision needs to know of a device.
struct Seen<'a> {
    device: &'a Device,
    stands: Stands,
    why: String,
    last_contact: Option<Timestamp>,
    is_reachable: bool,
    barriers_passed: usize,
}

/// The maximum number of devices that one decision exposes, or whose verdict it changes. The next ones follow in the next
/// decision, so that other acts can run between the two.
const AT_ONCE: usize = 5_000;

/// The devices of one fleet, as the input of a decision.
pub(super) struct Sighted<'a> {
    world: &'a World,
    /// Number of the rollout.
    rollout: u64,
    devices: Vec<Seen<'a>>,
}

impl<'a> Sighted<'a> {
    /// `contact` returns the time of a device's last contact, and whether that was recent and its last report is about its
    /// present target.
    pub(super) fn new(
        world: &'a World,
        rollout: &Rollout,
        contact: impl Fn(&Device) -> (Option<Timestamp>, Contact),
    ) -> Self {
        let barriers: Vec<Timestamp> = rollout
            .barriers
            .iter()
            .filter_map(|number| world.release(*number))
            .map(|release| release.start_timestamp)
            .collect();
        let seen = |device: &'a Device| {
            let (last_contact, contact) = contact(device);
            // Until a device has received its new target, its reports are about the old one.
            let is_judged = member(world, rollout.number, device).is_some() && contact != Contact::Outdated;
            let (stands, why) = match is_judged {
                true => standing::for_rollout(world, device),
                false => (Stands::Updating, String::new()),
            };
            let running = world.reported(&device.uuid).running.and_then(|number| world.release(number));
            let barriers_passed = running.map_or(0, |running| {
                barriers.iter().take_while(|barrier| **barrier <= running.start_timestamp).count()
            });
            let is_reachable = contact.is_recent();
            Seen { device, stands, why, last_contact, is_reachable, barriers_passed }
        };
        let of_fleet = world.devices().filter(|device| device.fleet == rollout.fleet);
        Self { world, rollout: rollout.number, devices: of_fleet.map(seen).collect() }
    }

    pub(super) fn subjects(&self) -> impl Iterator<Item = Subject<'_>> {
        self.devices.iter().map(|seen| Subject {
            uuid: seen.device.uuid.as_str(),
            tags: &seen.device.tags,
            is_pinned: seen.device.pin.is_some(),
            member: member(self.world, self.rollout, seen.device),
            stands: seen.stands,
            why: &seen.why,
            last_contact: seen.last_contact,
            is_reachable: seen.is_reachable,
            barriers_passed: seen.barriers_passed,
        })
    }

    fn decide(&self, rollout: &Rollout, listening_since: Timestamp, now: Timestamp) -> Decision<'_> {
        let windows = &rollout.definition.windows;
        let is_open = |state: WindowState| matches!(state, WindowState::Open);
        let conditions = Conditions {
            now,
            listening_since,
            is_in_window: windows.is_empty()
                || windows.iter().any(|window| is_open(host::window(window, now))),
            is_release_valid: self.world.may_be_rolled_out(rollout.release),
        };
        rollout::decide(rollout, self.subjects(), conditions)
    }
}

/// Returns the record of a device that the rollout with this number has exposed.
fn member<'a>(world: &'a World, rollout: u64, device: &Device) -> Option<&'a ExposedDevice> {
    world.membership(device).filter(|(of, _)| of.number == rollout).map(|(_, member)| member)
}

/// The next change of a rollout, computed on a snapshot of the records.
enum Next {
    /// The fleet has got another target, which ends its rollout.
    Ended,
    Decided(Box<Decided>),
}

/// A decision that is to be stored.
struct Decided {
    before: Arc<Rollout>,
    after: Rollout,
    members: Vec<(DeviceUuid, ExposedDevice)>,
    is_release_valid: bool,
}

/// Runs the rollouts of all fleets; never returns.
pub(super) async fn keep_up(records: &Arc<Records>) -> Infallible {
    let listening_since = clock::now();
    loop {
        let begun = Instant::now();
        let world = records.world();
        let open = world.fleets().filter(|fleet| world.open_rollout(fleet.number).is_some());
        let open: Vec<u64> = open.map(|fleet| fleet.number).collect();
        drop(world);
        // A server that is paused changes nothing of what devices run.
        for fleet in open.into_iter().filter(|_| !records.is_paused()) {
            if let Err(error) = advance(records, fleet, listening_since).await {
                tracing::warn!(fleet, %error, "a decision of a rollout could not be stored; the next attempt follows soon");
            }
        }
        tokio::time::sleep(PAUSE.max(begun.elapsed() * PAUSES)).await;
    }
}

/// Makes the next decision of the rollout of a fleet on a snapshot, and stores it if the rollout is still the same.
async fn advance(records: &Arc<Records>, fleet: u64, listening_since: Timestamp) -> Result<(), ActError> {
    let read = Arc::clone(records);
    let next = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let world = read.world();
        let next = decide_next(&world, fleet, listening_since, |device| read.last_seen(&world, device));
        read.work().decided(begun.elapsed());
        next
    });
    let Some(next) = next.await.map_err(|_| ActError::Stopping)? else { return Ok(()) };
    let act = move |world: &World| {
        let now = clock::now();
        let (mut changes, news) = changes_of(world, fleet, next, now);
        let messages = world.announcements(&changes, now);
        changes.extend(messages);
        Ok((news, changes))
    };
    if let Some(News { rollout, release, what, why, is_good }) = records.act(act).await? {
        let why = why.unwrap_or_default();
        if is_good {
            tracing::info!(rollout, release, "{what}");
        } else {
            tracing::warn!(rollout, release, why, "{what}");
        }
    }
    Ok(())
}

/// Returns the next change of the rollout of a fleet; `None` if there is none.
fn decide_next(
    world: &World,
    fleet: u64,
    listening_since: Timestamp,
    contact: impl Fn(&Device) -> (Option<Timestamp>, Contact),
) -> Option<Next> {
    let before = world.open_rollout(fleet)?;
    let now = clock::now();
    let is_release_valid = world.may_be_rolled_out(before.release);
    if world.ended_by_target(before, now).is_some() {
        return Some(Next::Ended);
    }
    let sighted = Sighted::new(world, before, contact);
    let decision = sighted.decide(before, listening_since, now);
    let members = decision.members.into_iter().take(AT_ONCE);
    let members: Vec<_> =
        members.filter_map(|(uuid, member)| Some((DeviceUuid::parse(uuid).ok()?, member))).collect();
    let is_same = members.is_empty() && decision.rollout == **before;
    (!is_same).then(|| {
        let (before, after) = (Arc::clone(before), decision.rollout);
        Next::Decided(Box::new(Decided { before, after, members, is_release_valid }))
    })
}

/// Returns the changes that store a decision. If the fleet has another target by now, returns those that end the rollout. If
/// the rollout or its release has changed since the decision, returns none, and the next decision follows soon.
fn changes_of(world: &World, fleet: u64, next: Next, now: Timestamp) -> (Vec<Change>, Option<News>) {
    let Some(open) = world.open_rollout(fleet) else { return (Vec::new(), None) };
    if let Some(ended) = world.ended_by_target(open, now) {
        return with_audit_entry(world, open, vec![ended], now);
    }
    let Next::Decided(decided) = next else { return (Vec::new(), None) };
    let Decided { before, after, members, is_release_valid } = *decided;
    if *open != before || world.may_be_rolled_out(open.release) != is_release_valid {
        return (Vec::new(), None);
    }
    with_audit_entry(world, open, world.changes_for_decision(after, members, now), now)
}

/// What a decision has changed, as text for the log and the audit trail.
struct News {
    rollout: u64,
    /// Commit.
    release: String,
    what: String,
    why: Option<String>,
    is_good: bool,
}

/// Adds an audit entry if the rollout's phase or wave has changed, or a segment was halted. Returns the changes, and the
/// news for the log.
fn with_audit_entry(
    world: &World,
    before: &Rollout,
    mut changes: Vec<Change>,
    now: Timestamp,
) -> (Vec<Change>, Option<News>) {
    let after = changes.iter().find_map(|change| {
        let Change::PutRollout(rollout) = change else { return None };
        Some(rollout)
    });
    let Some(news) = after.and_then(|after| news(world, before, after)) else { return (changes, None) };
    let (things, count, fleets) = world.things(&changes, MOST_THINGS);
    let entry = Entry {
        number: world.audited() + 1,
        at: now,
        by: By { user: None, token: ROLLOUT.to_owned(), id: String::new() },
        from: None,
        what: news.what.clone(),
        request: format!("rollout {}", news.rollout),
        things,
        count,
        fleets: fleets.into_iter().collect(),
        details: world.details(&changes),
        why: news.why.as_ref().map(|why| why.chars().take(500).collect()),
        outcome: Outcome::Done,
    };
    changes.push(Change::Audit(Box::new(entry)));
    (changes, Some(news))
}

fn news(world: &World, before: &Rollout, after: &Rollout) -> Option<News> {
    let segment = after.halted.iter().find(|(segment, _)| !before.halted.contains_key(*segment));
    let what = if after.phase != before.phase {
        format!("rollout {}", after.phase.as_str())
    } else if after.wave != before.wave {
        format!("rollout: wave {} begins", after.wave + 1)
    } else if segment.is_some() {
        "rollout: segment halted".to_owned()
    } else {
        return None;
    };
    let commit = world.release(after.release).map(|release| release.commit.to_string());
    Some(News {
        rollout: after.number,
        release: commit.unwrap_or_default(),
        what,
        why: segment.map(|(segment, halt)| format!("{segment}: {halt}")).or_else(|| after.phase.why()),
        is_good: matches!(after.phase, Phase::Running | Phase::Completed) && segment.is_none(),
    })
}

#[cfg(test)]
#[path = "rollouts_tests.rs"]
mod tests;
