//! `/api/v1/fleets/{fleet}/rollouts`: the rollouts of a fleet. The one that is not over is `current`.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;

use super::answer::{ApiError, Body, Params, Path};
use super::desk::{Acting, Desk};
use super::devices::fleet_name;
use super::pages::{self, Page, WhichPage};
use crate::fleet::clock;
use crate::fleet::policy::{Device, NewRollout, Refusal, Steering, World};
use crate::fleet::rollout::{self, Awaits, Definition, Rollout, Tally};
use crate::fleet::rollouts::Sighted;
use crate::host;
use crate::model::WindowState;
use crate::model::quantity::span;
use crate::wire::operator_api::{
    ApproveWave, Code, HaltedSegment, Nothing, RolloutSummary, RolloutTally, RolloutView, StartRollout,
    WaveView,
};

pub(super) async fn list(
    records: Desk,
    Path(fleet): Path<String>,
    Params(WhichPage { limit, cursor }): Params<WhichPage>,
) -> Result<Response, ApiError> {
    let after = pages::cursor(cursor.as_deref(), |cursor| cursor.parse::<u64>().ok())?.unwrap_or(0);
    pages::page(&records, move |records, world| {
        let fleet = world.find_fleet(&fleet)?.number;
        let rollouts = world.rollouts_after(after).filter(|rollout| rollout.fleet == fleet);
        Page::of(rollouts.map(|rollout| (rollout.number.to_string(), view(records, world, rollout))), limit)
    })
    .await
}

/// Which rollouts of all fleets are listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichRollouts {
    /// Those that are not over, or those that are; all if absent.
    open: Option<bool>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// Lists the rollouts of all fleets of the token, the newest first.
pub(super) async fn list_all(
    records: Desk,
    Params(WhichRollouts { open, limit, cursor }): Params<WhichRollouts>,
) -> Result<Response, ApiError> {
    let before = pages::cursor(cursor.as_deref(), |cursor| cursor.parse::<u64>().ok())?.unwrap_or(u64::MAX);
    pages::page(&records, move |_, world| {
        let is_it = |rollout: &&Arc<Rollout>| open.is_none_or(|open| open != rollout.phase.is_over());
        let rollouts = world.rollouts_before(before).filter(is_it);
        Page::of(rollouts.map(|rollout| (rollout.number.to_string(), summary(world, rollout))), limit)
    })
    .await
}

fn summary(world: &World, rollout: &Rollout) -> RolloutSummary {
    RolloutSummary {
        number: rollout.number,
        fleet: fleet_name(world, rollout.fleet),
        release: world.release(rollout.release).map(|release| release.commit.to_string()),
        started: rollout.started,
        ended: rollout.ended,
        phase: rollout.phase.as_str().to_owned(),
        why: why(rollout),
        wave: rollout.wave + 1,
        waves: rollout.definition.waves.len(),
        tally: tally_of(rollout.tally),
    }
}

/// Says why a rollout does not run, or which webhook holds its next wave.
fn why(rollout: &Rollout) -> Option<String> {
    rollout.phase.why().or_else(|| rollout.waits_for_webhook())
}

pub(super) async fn show(records: Desk, Path(fleet): Path<String>) -> Result<Response, ApiError> {
    pages::beside(&records, move |records, world| {
        let fleet = world.find_fleet(&fleet)?;
        let rollout = world.rollout(fleet.number);
        let rollout = rollout.ok_or_else(|| Refusal::NoRollout { fleet: fleet.name.clone() })?;
        Ok(view(records, world, rollout))
    })
    .await
}

pub(super) async fn start(
    records: Desk,
    Path(fleet): Path<String>,
    Body(StartRollout { release, definition, supersede, dry_run }): Body<StartRollout>,
) -> Result<Response, ApiError> {
    let definition: Definition = serde_json::from_value(definition)
        .map_err(|error| ApiError::bad_request(format!("the definition of the rollout: {error}")))?;
    for window in &definition.windows {
        if let WindowState::Unknown(why) = host::window(window, clock::now()) {
            return Err(ApiError::bad_request(format!("the window {window}: {why}")));
        }
    }
    let new = NewRollout { definition, supersedes: supersede, who: records.who() };
    if dry_run {
        return pages::beside(&records, move |records, world| {
            let fleet = world.find_fleet(&fleet)?;
            let release = world.find_release(Some(fleet.number), &release)?;
            let (rollout, _) = world.start_rollout(fleet, release, new, clock::now())?;
            Ok(view(records, world, &rollout))
        })
        .await;
    }
    let act = move |world: &Acting<'_>| {
        let fleet = world.find_fleet(&fleet)?;
        let release = world.find_release(Some(fleet.number), &release)?;
        let (rollout, changes) = world.start_rollout(fleet, release, new, clock::now())?;
        Ok((rollout.fleet, changes))
    };
    let fleet = records.act(act).await?;
    let mut response = shown(&records, fleet).await?;
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// Handlers of the acts on the rollout of a fleet that goes on.
macro_rules! steering {
    ($($name:ident: $steering:ident),*) => {$(
        pub(super) async fn $name(
            records: Desk,
            Path(fleet): Path<String>,
            Body(Nothing {}): Body<Nothing>,
        ) -> Result<Response, ApiError> {
            steer(records, fleet, Steering::$steering).await
        }
    )*};
}

steering!(pause: Pause, resume: Resume, abort: Abort, pull_back: PullBack, complete: Complete);

pub(super) async fn approve(
    records: Desk,
    Path(fleet): Path<String>,
    Body(ApproveWave { wave, without_webhook }): Body<ApproveWave>,
) -> Result<Response, ApiError> {
    let remedy = "waits_for_wave of the rollout is the wave that waits";
    let no_wave = || ApiError::with_remedy(Code::BadRequest, "waves are counted from 1", remedy);
    let wave = wave.checked_sub(1).ok_or_else(no_wave)?;
    steer(records, fleet, Steering::Approve { wave, without_webhook }).await
}

async fn steer(records: Desk, fleet: String, steering: Steering) -> Result<Response, ApiError> {
    let who = records.who();
    let act = move |world: &Acting<'_>| {
        let fleet = world.find_fleet(&fleet)?;
        Ok((fleet.number, world.steer_rollout(fleet, &steering, &who, clock::now())?))
    };
    let fleet = records.act(act).await?;
    shown(&records, fleet).await
}

/// Answers with the newest rollout of a fleet.
async fn shown(records: &Desk, fleet: u64) -> Result<Response, ApiError> {
    pages::beside(records, move |records, world| {
        let rollout = world.rollout(fleet);
        let rollout = rollout.ok_or_else(|| Refusal::NoRollout { fleet: fleet_name(world, fleet) })?;
        Ok(view(records, world, rollout))
    })
    .await
}

fn view(records: &Desk, world: &World, rollout: &Rollout) -> RolloutView {
    let now = clock::now();
    let is_newest = world.rollout(rollout.fleet).is_none_or(|newest| newest.number <= rollout.number);
    let contact = |device: &Device| records.last_seen(world, device);
    let sighted = is_newest.then(|| Sighted::new(world, rollout, contact));
    let subjects = || sighted.iter().flat_map(Sighted::subjects);
    let (survey, plan) = (rollout::survey(rollout, subjects()), rollout::plan(rollout, subjects()));
    let Definition { soak, rate, .. } = &rollout.definition;
    let mut earliest = 0;
    let mut waves = Vec::new();
    for (index, wave) in rollout.definition.waves.iter().enumerate() {
        let (devices, reachable) = plan.get(index).copied().unwrap_or_default();
        let exposed = survey.waves.get(&index).copied().unwrap_or_default();
        let has_begun = index <= rollout.wave && rollout.is_confirmed(index);
        let (wave, tally) = (wave.to_string(), tally_of(exposed));
        waves.push(WaveView { wave, has_begun, devices, reachable, earliest_s: earliest, tally });
        let exposing =
            rate.map_or(0, |rate| (rate.interval() * u32::try_from(devices).unwrap_or(u32::MAX)).as_secs());
        earliest += if devices == 0 { 0 } else { soak.0.as_secs() + exposing };
    }
    let awaited = rollout.awaited();
    let halted = rollout.halted.iter();
    let halted =
        halted.map(|(segment, why)| HaltedSegment { segment: segment.to_string(), why: why.to_string() });
    RolloutView {
        number: rollout.number,
        fleet: fleet_name(world, rollout.fleet),
        release: world.release(rollout.release).map(|release| release.commit.to_string()),
        started: rollout.started,
        ended: rollout.ended,
        phase: rollout.phase.as_str().to_owned(),
        why: why(rollout),
        waits_for: awaited.map(|(_, awaits)| word_of(awaits).to_owned()),
        waits_for_wave: awaited.map(|(wave, _)| wave + 1),
        wave: rollout.wave + 1,
        settled: rollout.settled,
        next: next(rollout, rollout.tally, now),
        devices: plan.iter().map(|(devices, _)| devices).sum(),
        tally: tally_of(rollout.tally),
        waves,
        halted: halted.collect(),
        definition: serde_json::to_value(&rollout.definition).unwrap_or_default(),
    }
}

fn word_of(awaits: Awaits) -> &'static str {
    match awaits {
        Awaits::Approval => "approval",
        Awaits::Webhook => "webhook",
    }
}

fn tally_of(tally: Tally) -> RolloutTally {
    RolloutTally {
        exposed: tally.exposed(),
        accepted: tally.accepted,
        rejected: tally.rejected,
        blocked: tally.blocked,
        unhealthy: tally.unhealthy,
        silent: tally.silent,
        updating: tally.updating,
        waiting: tally.waiting,
        fetching: tally.fetching,
        unreached: tally.unreached,
    }
}

/// Says what a rollout that runs waits for.
fn next(rollout: &Rollout, tally: Tally, now: Timestamp) -> String {
    if !rollout.phase.is_running() {
        return String::new();
    }
    if let Some(question) = &rollout.question {
        let again = question.next.strftime("%FT%TZ");
        return format!(
            "the webhook is asked again at {again}; `cotter rollout approve --without-webhook` begins the wave without it"
        );
    }
    let is_last = rollout.wave + 1 == rollout.definition.waves.len();
    let Definition { soak, observe, advance, .. } = &rollout.definition;
    match rollout.settled {
        Some(settled) => {
            let watch = if is_last { *soak.max(observe) } else { *soak };
            let passed = u64::try_from(now.duration_since(settled).as_secs()).unwrap_or_default();
            let left = span(watch.0.as_secs().saturating_sub(passed));
            let then = if is_last { "completes" } else { "goes on with the next wave" };
            format!(
                "enough devices have accepted the release; it is watched for {left} more, and then {then}"
            )
        }
        None => format!(
            "{} of {} reachable devices that are exposed have accepted the release; {} must",
            tally.accepted,
            tally.reachable(),
            advance,
        ),
    }
}
