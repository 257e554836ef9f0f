//! `cotter rollout`: gives a release to a fleet in waves.

use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::time::Instant;

use super::client::{Client, Plain};
use super::exit::Exit;
use super::print;
use super::rollout_definition::DefinitionArgs;
use crate::model::quantity::{counted, span};
use crate::wire::operator_api::{
    ApproveWave, Nothing, RolloutSummary, RolloutTally, RolloutView, StartRollout,
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Starts a rollout of a release
    #[command(
        after_help = "Example: cotter rollout start greenhouse 3f1c2a9 --waves 'ring=canary, 1%, 10%, 50%, 100%' --soak 30min --rate 500/h"
    )]
    Start(Start),
    /// Shows wave by wave whom a rollout would reach, and when at the earliest; starts nothing
    #[command(
        after_help = "Example: cotter rollout plan greenhouse 3f1c2a9 --waves 'ring=canary, 10%, 100%'"
    )]
    Plan(Start),
    /// Lists the rollouts of a fleet; without a fleet, the open rollouts of all fleets, and the last ones
    #[command(after_help = "Example: cotter rollout list greenhouse")]
    List(List),
    /// Shows the newest rollout of a fleet
    #[command(after_help = "Example: cotter rollout show greenhouse")]
    Show(OfFleet),
    /// Follows a rollout until it is over, or waits for a person
    #[command(after_help = "Example: cotter rollout watch greenhouse --timeout 4h")]
    Watch(Watch),
    /// Gives the release to no further device until the rollout is resumed
    #[command(after_help = "Example: cotter rollout pause greenhouse --reason \"looking at the logs\"")]
    Pause(OfFleet),
    /// Goes on with a rollout that was paused or halted; what has failed so far is not held against the release again
    #[command(after_help = "Example: cotter rollout resume greenhouse --reason \"one bad SD card\"")]
    Resume(OfFleet),
    /// Lets the wave begin that waits for a person, or with --without-webhook the one that waits for a webhook
    #[command(after_help = "Example: cotter rollout approve greenhouse --wave 2")]
    Approve(Approve),
    /// Ends a rollout; devices return to their fleet's target
    #[command(after_help = "Example: cotter rollout abort greenhouse --reason \"3f1c2a9 is replaced\"")]
    Abort(OfFleet),
    /// Returns all devices that have the release to their fleet's target
    #[command(after_help = "Example: cotter rollout pull-back greenhouse --reason \"the valve stays open\"")]
    PullBack(OfFleet),
    /// Gives the release to the whole fleet at once, but not to halted segments
    #[command(after_help = "Example: cotter rollout complete greenhouse")]
    Complete(OfFleet),
}

#[derive(Debug, Args)]
pub(super) struct OfFleet {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct Approve {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    /// The wave that is to begin; if another one waits, nothing is done [default: the one that waits now]
    #[arg(long, value_name = "NUMBER")]
    wave: Option<usize>,
    /// Begins the wave although its webhook has not let it begin
    #[arg(long)]
    without_webhook: bool,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: Option<String>,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct Start {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    /// Commit of the release, or the first 4 or more characters of it
    #[arg(value_name = "COMMIT")]
    release: String,
    /// Takes the place of a rollout of the fleet that is not over
    #[arg(long)]
    supersede: bool,
    #[command(flatten)]
    definition: DefinitionArgs,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct Watch {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    /// The longest time to wait
    #[arg(long, value_name = "TIME", default_value = "1day", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    plain: Plain,
}

/// Time between two requests of `watch`.
const INTERVAL: Duration = Duration::from_secs(2);

pub(super) async fn run(verb: Verb) -> anyhow::Result<Exit> {
    match verb {
        Verb::Start(start) => begin(start, false).await?,
        Verb::Plan(start) => begin(start, true).await?,
        Verb::List(List { fleet: Some(fleet), plain }) => list(&fleet, plain).await?,
        Verb::List(List { fleet: None, plain }) => list_all(plain).await?,
        Verb::Show(OfFleet { fleet, plain }) => {
            let client = Client::new(plain.connection)?;
            shown(&client.get(&["fleets", &fleet, "rollouts", "current"], &[]).await?, plain.json)?;
        }
        Verb::Watch(watch) => return follow(watch).await,
        Verb::Pause(of) => steer("pause", of).await?,
        Verb::Resume(of) => steer("resume", of).await?,
        Verb::Approve(approval) => approve(approval).await?,
        Verb::Abort(of) => steer("abort", of).await?,
        Verb::PullBack(of) => steer("pull-back", of).await?,
        Verb::Complete(of) => steer("complete", of).await?,
    }
    Ok(Exit::Done)
}

async fn begin(start: Start, dry_run: bool) -> anyhow::Result<()> {
    let Start { fleet, release, supersede, definition, plain } = start;
    let client = Client::new(plain.connection)?;
    let asked = StartRollout { release, definition: definition.document()?, supersede, dry_run };
    let view: RolloutView = client.post(&["fleets", &fleet, "rollouts"], &asked).await?;
    if !dry_run || plain.json {
        return shown(&view, plain.json);
    }
    let rows = view.waves.iter().enumerate().map(|(index, wave)| {
        let earliest = if wave.earliest_s == 0 { "at once".to_owned() } else { span(wave.earliest_s) };
        let number = (index + 1).to_string();
        [number, wave.wave.clone(), wave.devices.to_string(), wave.reachable.to_string(), earliest]
    });
    print::table(["WAVE", "WHO", "DEVICES", "REACHABLE", "BEGINS AFTER"], rows, "there is no wave")?;
    print::note("nothing was started; the times are without the updates themselves");
    Ok(())
}

async fn steer(act: &str, OfFleet { fleet, plain }: OfFleet) -> anyhow::Result<()> {
    let client = Client::new(plain.connection)?;
    let view: RolloutView = client.post(&["fleets", &fleet, "rollouts", "current", act], &Nothing {}).await?;
    shown(&view, plain.json)
}

/// Approves one wave by its number, so that the same command does not approve the next one, too, if it is given twice.
async fn approve(Approve { fleet, wave, without_webhook, plain }: Approve) -> anyhow::Result<()> {
    let client = Client::new(plain.connection)?;
    let current = ["fleets", &fleet, "rollouts", "current"];
    let wave = match wave {
        Some(wave) => wave,
        None => {
            let view: RolloutView = client.get(&current, &[]).await?;
            // The server says why nothing is approved.
            view.waits_for_wave.unwrap_or(view.wave + 1)
        }
    };
    let asked = ApproveWave { wave, without_webhook };
    let view: RolloutView = client.post(&[&current[..], &["approve"]].concat(), &asked).await?;
    shown(&view, plain.json)
}

async fn list(fleet: &str, plain: Plain) -> anyhow::Result<()> {
    let client = Client::new(plain.connection)?;
    let rollouts: Vec<RolloutView> = client.list(&["fleets", fleet, "rollouts"], &[], None).await?;
    if plain.json {
        return print::json("rollouts", &rollouts);
    }
    let rows = rollouts.iter().map(|view| {
        [
            view.number.to_string(),
            print::short(view.release.as_deref()),
            view.phase.clone(),
            format!("{} of {}", view.wave, view.waves.len()),
            view.tally.accepted.to_string(),
            failures(&view.tally).to_string(),
            view.started.to_string(),
            view.why.clone().unwrap_or_default(),
        ]
    });
    let headers = ["NUMBER", "RELEASE", "PHASE", "WAVE", "ACCEPTED", "FAILED", "STARTED", "WHY"];
    print::table(headers, rows, "the fleet has had no rollout; start one with `cotter rollout start`")
}

/// How many rollouts that are over are in the list of all fleets.
const LAST: usize = 20;

async fn list_all(plain: Plain) -> anyhow::Result<()> {
    let client = Client::new(plain.connection)?;
    let mut rollouts: Vec<RolloutSummary> =
        client.list(&["rollouts"], &[("open", Some("true"))], None).await?;
    let over: Vec<RolloutSummary> =
        client.list(&["rollouts"], &[("open", Some("false"))], Some(LAST)).await?;
    rollouts.extend(over);
    if plain.json {
        return print::json("rollouts", &rollouts);
    }
    let rows = rollouts.iter().map(|rollout| {
        [
            rollout.number.to_string(),
            rollout.fleet.clone(),
            print::short(rollout.release.as_deref()),
            rollout.phase.clone(),
            format!("{} of {}", rollout.wave, rollout.waves),
            rollout.tally.accepted.to_string(),
            failures(&rollout.tally).to_string(),
            rollout.started.to_string(),
            rollout.why.clone().unwrap_or_default(),
        ]
    });
    let headers = ["NUMBER", "FLEET", "RELEASE", "PHASE", "WAVE", "ACCEPTED", "FAILED", "STARTED", "WHY"];
    print::table(headers, rows, "there was no rollout yet; start one with `cotter rollout start`")
}

/// Prints a line whenever something has changed.
async fn follow(Watch { fleet, timeout, plain }: Watch) -> anyhow::Result<Exit> {
    let client = Client::new(plain.connection)?;
    let begun = Instant::now();
    let mut last = String::new();
    loop {
        let view: RolloutView = client.get(&["fleets", &fleet, "rollouts", "current"], &[]).await?;
        let line = if plain.json { serde_json::to_string(&view)? } else { progress(&view) };
        if line != last {
            if plain.json {
                print::json_reaches(&line);
            } else {
                print::line(&line)?;
            }
            last = line;
        }
        match view.phase.as_str() {
            "completed" => return Ok(Exit::Done),
            "halted" | "pulled-back" | "aborted" => return Ok(Exit::RolledBack),
            "paused" => return Ok(Exit::Held),
            _ if begun.elapsed() >= timeout => return Ok(Exit::TimedOut),
            _ => tokio::time::sleep(INTERVAL).await,
        }
    }
}

/// Returns the state of a rollout in one line, with a bar of what its devices have.
fn progress(view: &RolloutView) -> String {
    const WIDTH: u64 = 20;
    let RolloutTally { exposed, accepted, .. } = view.tally;
    let part = |count: u64| count * WIDTH / view.devices.max(1);
    let bar = (0..WIDTH).map(|place| match place {
        _ if place < part(accepted) => '#',
        _ if place < part(exposed) => '+',
        _ => '.',
    });
    let bar: String = bar.collect();
    let why = view.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    format!(
        "[{bar}] wave {} of {}, {} of {} exposed, {accepted} accepted, {} failed, {}{why}",
        view.wave,
        view.waves.len(),
        exposed,
        counted(view.devices, "device"),
        failures(&view.tally),
        view.phase,
    )
}

fn failures(tally: &RolloutTally) -> u64 {
    tally.rejected + tally.blocked + tally.unhealthy + tally.silent
}

/// Counts verdicts in words, without those that no device has: "12 accepted, 1 rejected".
fn verdicts(tally: &RolloutTally) -> String {
    let RolloutTally {
        accepted,
        rejected,
        blocked,
        unhealthy,
        silent,
        updating,
        waiting,
        fetching,
        unreached,
        ..
    } = *tally;
    let counts = [
        (accepted, "accepted"),
        (rejected, "rejected"),
        (blocked, "blocked"),
        (unhealthy, "unhealthy"),
        (silent, "silent"),
        (updating, "updating"),
        (waiting, "waiting"),
        (fetching, "fetching"),
        (unreached, "unreached"),
    ];
    let some: Vec<_> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(n, word)| format!("{n} {word}")).collect();
    if some.is_empty() { "none exposed".to_owned() } else { some.join(", ") }
}

fn shown(view: &RolloutView, json: bool) -> anyhow::Result<()> {
    if json {
        return print::json("rollout", view);
    }
    let mut facts = vec![
        ("rollout", view.number.to_string()),
        ("fleet", view.fleet.clone()),
        ("release", print::or_dash(view.release.as_deref())),
        ("phase", view.phase.clone()),
    ];
    facts.extend(view.why.clone().map(|why| ("why", why)));
    if !view.next.is_empty() {
        facts.push(("next", view.next.clone()));
    }
    facts.push(("devices", format!("{}: {}", view.devices, verdicts(&view.tally))));
    facts.push(("started", view.started.to_string()));
    facts.extend(view.ended.map(|ended| ("ended", ended.to_string())));
    for segment in &view.halted {
        facts.push(("segment halted", format!("{}: {}", segment.segment, segment.why)));
    }
    print::facts(&facts)?;
    let rows = view.waves.iter().enumerate().map(|(index, wave)| {
        let state = if !wave.has_begun { "later".to_owned() } else { verdicts(&wave.tally) };
        [(index + 1).to_string(), wave.wave.clone(), wave.devices.to_string(), state]
    });
    print::table(["WAVE", "WHO", "DEVICES", "VERDICTS"], rows, "there is no wave")
}
