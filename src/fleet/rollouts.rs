//! Runs the rollouts of all fleets: now and then each of them looks at its devices, and what it decides is stored.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::access::{By, Entry, Outcome, Thing};
use super::clock;
use super::policy::{Change, Device, Refusal, World};
use super::records::{ActError, Records};
use super::rollout::{self, Counted, Decision, Outside, Phase, Rollout, Segment, Stands, Subject};
use super::standing::{self, Contact};
use crate::host;
use crate::model::{DeviceUuid, WindowState};

/// The shortest pause between two decisions.
const PAUSE: Duration = Duration::from_secs(1);

/// The pause is at least so many times as long as the decisions took, so that large fleets do not fill a processor.
const PAUSES: u32 = 20;

/// Who does what a rollout does by itself, in the audit trail.
pub(super) const ACTOR: &str = "rollout";

/// A device as its rollout sees it.
struct Seen<'a> {
    device: &'a Device,
    stands: Stands,
    why: String,
    last_contact: Option<Timestamp>,
    is_reachable: bool,
    barriers_passed: usize,
}

/// The devices of one fleet as its rollout sees them.
pub(super) struct Sighted<'a> {
    world: &'a World,
    devices: Vec<Seen<'a>>,
}

impl<'a> Sighted<'a> {
    /// `contact` returns a device's last contact, and whether it is recent.
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
            // One that has not received its target yet reports about another one.
            let is_judged = world.membership(device).is_some() && contact != Contact::Outdated;
            let (stands, why) = if is_judged {
                standing::for_rollout(world, device)
            } else {
                (Stands::Updating, String::new())
            };
            let running = world.reported(&device.uuid).running.and_then(|number| world.release(number));
            let barriers_passed = running.map_or(0, |running| {
                barriers.iter().take_while(|barrier| **barrier <= running.start_timestamp).count()
            });
            let is_reachable = contact.is_recent();
            Seen { device, stands, why, last_contact, is_reachable, barriers_passed }
        };
        let of_fleet = world.devices().filter(|device| device.fleet == rollout.fleet);
        Self { world, devices: of_fleet.map(seen).collect() }
    }

    pub(super) fn subjects(&self) -> impl Iterator<Item = Subject<'_>> {
        self.devices.iter().map(|seen| Subject {
            uuid: seen.device.uuid.as_str(),
            tags: &seen.device.tags,
            is_pinned: seen.device.pin.is_some(),
            member: self.world.membership(seen.device).map(|(_, member)| member),
            stands: seen.stands,
            why: &seen.why,
            last_contact: seen.last_contact,
            is_reachable: seen.is_reachable,
            barriers_passed: seen.barriers_passed,
        })
    }

    pub(super) fn decide(&self, rollout: &Rollout, now: Timestamp) -> Decision<'_> {
        let windows = &rollout.definition.windows;
        let is_open = |state: WindowState| matches!(state, WindowState::Open);
        let outside = Outside {
            now,
            is_in_window: windows.is_empty()
                || windows.iter().any(|window| is_open(host::window(&window.0, now))),
            is_release_valid: self.world.may_be_rolled_out(rollout.release),
        };
        rollout::decide(rollout, self.subjects(), outside)
    }

    /// Returns the failures and verdicts of each segment.
    pub(super) fn segments(&self, rollout: &Rollout, now: Timestamp) -> BTreeMap<Segment, Counted> {
        let survey = self.decide(rollout, now).survey;
        survey
            .segments
            .into_iter()
            .map(|((key, value), tally)| (Segment::new(key, value), tally.into()))
            .collect()
    }
}

/// Lets all rollouts go on, for ever.
pub(super) async fn keep_up(records: &Arc<Records>) -> Infallible {
    loop {
        let begun = Instant::now();
        let world = records.world();
        let open = world.fleets().filter(|fleet| world.open_rollout(fleet.number).is_some());
        let open: Vec<u64> = open.map(|fleet| fleet.number).collect();
        drop(world);
        for fleet in open {
            if let Err(error) = advance(records, fleet).await {
                tracing::warn!(fleet, %error, "the rollout of a fleet cannot go on now");
            }
        }
        tokio::time::sleep(PAUSE.max(begun.elapsed() * PAUSES)).await;
    }
}

/// Stores the next decision of the rollout of a fleet. It is made on a snapshot first: most decisions change nothing, and do not
/// hold up other acts.
async fn advance(records: &Arc<Records>, fleet: u64) -> Result<(), ActError> {
    let looking = Arc::clone(records);
    let looked = tokio::task::spawn_blocking(move || {
        next(&looking.world(), fleet, |world, device| looking.last_seen(world, device), clock::now())
            .map(|(changes, _)| changes.is_empty())
    });
    if looked.await.map_err(|_| ActError::Stopping)?? {
        return Ok(());
    }
    let looking = Arc::clone(records);
    let act = move |world: &World| {
        let (changes, news) =
            next(world, fleet, |world, device| looking.last_seen(world, device), clock::now())?;
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

/// What a decision has changed, for people.
struct News {
    rollout: u64,
    /// Commit.
    release: String,
    what: String,
    why: Option<String>,
    is_good: bool,
}

/// Returns the changes of the next decision.
fn next(
    world: &World,
    fleet: u64,
    contact: impl Fn(&World, &Device) -> (Option<Timestamp>, Contact),
    now: Timestamp,
) -> Result<(Vec<Change>, Option<News>), Refusal> {
    let Some(before) = world.open_rollout(fleet) else { return Ok((Vec::new(), None)) };
    if let Some(ended) = world.ended_by_target(before, now) {
        return Ok(recorded(world, before, vec![ended], now));
    }
    let sighted = Sighted::new(world, before, |device| contact(world, device));
    let decision = sighted.decide(before, now);
    let members = decision.members.into_iter();
    let members = members.filter_map(|(uuid, member)| Some((DeviceUuid::parse(uuid).ok()?, member)));
    let changes = world.put_decision(decision.rollout, members, now)?;
    Ok(recorded(world, before, changes, now))
}

/// Adds a record of the audit trail if the rollout has another phase or wave now.
fn recorded(
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
    let commit = (!news.release.is_empty()).then(|| news.release.clone());
    let thing = Thing { kind: "rollout".to_owned(), id: news.rollout.to_string(), name: commit };
    let entry = Entry {
        number: world.audited() + 1,
        at: now,
        by: By { user: None, token: ACTOR.to_owned(), id: String::new() },
        from: None,
        what: news.what.clone(),
        request: format!("rollout {}", news.rollout),
        things: vec![thing],
        count: 1,
        fleets: vec![before.fleet],
        details: None,
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
