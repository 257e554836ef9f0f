//! `cotter-fleet simulate`: tries the definition of a rollout on simulated fleets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use super::print;
use super::rollout_definition::DefinitionArgs;
use crate::fleet::rollout::simulation::{self, Model, ModelSegment, Run, Summary};
use crate::fleet::rollout::{Definition, Share};
use crate::model::quantity::{counted, span};

/// Arguments of `cotter-fleet simulate`.
#[derive(Debug, Args)]
pub(super) struct Simulate {
    #[command(flatten)]
    definition: DefinitionArgs,
    #[command(flatten)]
    fleet: FleetArgs,
    /// How many rollouts are simulated, each on a fleet of its own
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    runs: u64,
    /// The first seed: the same seeds give the same result
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Prints the result as JSON
    #[arg(long)]
    json: bool,
}

/// The shape of the fleet.
#[derive(Debug, Args)]
#[command(next_help_heading = "Shape of the fleet")]
struct FleetArgs {
    /// How many devices it has
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// The share of devices that fail with the release
    #[arg(long, value_name = "SHARE")]
    fail: Option<Share>,
    /// The share of devices that failed with the release before
    #[arg(long, value_name = "SHARE")]
    base: Option<Share>,
    /// The share of devices that are offline all the time
    #[arg(long, value_name = "SHARE")]
    offline: Option<Share>,
    /// The share of devices that are switched on for 12 hours a day
    #[arg(long, value_name = "SHARE")]
    daily: Option<Share>,
    /// Devices with a tag, and the share of them that fail: hw=rev2:10%:50%; can be repeated
    #[arg(long = "segment", value_name = "TAG=VALUE:SHARE[:FAIL]", value_parser = segment)]
    own_segments: Vec<ModelSegment>,
    /// The shortest and the longest time of an update with its trial
    #[arg(long, value_name = "TIME-TIME", default_value = "2min-15min", value_parser = update)]
    update: (Duration, Duration),
}

fn segment(text: &str) -> anyhow::Result<ModelSegment> {
    let mut parts = text.split(':');
    let (tag, share, fail) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let (key, value) = tag.split_once('=').context("write it like hw=rev2:10%:50%")?;
    let share = share.context("it has no share of the fleet: write it like hw=rev2:10%:50%")?.parse()?;
    let fail = fail.map(str::parse).transpose()?;
    if parts.next().is_some() || key.is_empty() {
        bail!("write it like hw=rev2:10%:50%");
    }
    Ok(ModelSegment { key: key.to_owned(), value: value.to_owned(), share, fail })
}

fn update(text: &str) -> anyhow::Result<(Duration, Duration)> {
    let (least, most) = text.split_once('-').context("write it like 2min-15min")?;
    let (least, most) = (humantime::parse_duration(least)?, humantime::parse_duration(most)?);
    if least > most || most > Duration::from_secs(86_400) {
        bail!("the first time must not be longer than the second, which is at most a day");
    }
    Ok((least, most))
}

pub(super) fn simulate(simulate: Simulate) -> anyhow::Result<()> {
    let definition: Definition = serde_json::from_value(simulate.definition.document()?)
        .map_err(|error| anyhow::anyhow!("the definition of the rollout: {error}"))?;
    definition.check().context("the definition of the rollout")?;
    let FleetArgs { devices, fail, base, offline, daily, own_segments: segments, update } = simulate.fleet;
    let model = Model { devices, fail, base, offline, daily, segments, update };
    let runs = all_runs(&definition, &model, simulate.seed, simulate.runs)?;
    let summary = simulation::summary(&runs);
    if simulate.json {
        return print::json("simulation", &summary);
    }
    report(&summary, devices)
}

/// Runs all on all processors.
fn all_runs(definition: &Definition, model: &Model, seed: u64, runs: u64) -> anyhow::Result<Vec<Run>> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= runs {
                return done;
            }
            done.push((number, simulation::run(definition, model, seed.wrapping_add(number))));
        }
    };
    let mut all = thread::scope(|scope| {
        let threads: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        let joined: Result<Vec<_>, _> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        joined.map(|all| all.into_iter().flatten().collect::<Vec<_>>())
    })
    .map_err(|_| anyhow::anyhow!("a simulation broke off"))?;
    all.sort_unstable_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, run)| run).collect())
}

fn report(summary: &Summary, devices: u32) -> anyhow::Result<()> {
    let ends: Vec<String> = summary.ends.iter().map(|(end, count)| format!("{count} {end}")).collect();
    let mut facts = vec![
        ("simulated", format!("{}, {} each", counted(summary.runs, "rollout"), counted(devices, "device"))),
        ("ended", ends.join(", ")),
    ];
    if let Some([half, most, greatest]) = summary.exposed_at_stop {
        let part = |exposed: u64| format!("{exposed} ({})", share_of(exposed, devices));
        facts.push((
            "exposed when stopped",
            format!(
                "half of the rollouts at most {}, 99 of 100 at most {}, all at most {}",
                part(half),
                part(most),
                part(greatest)
            ),
        ));
    }
    if let Some([half, most, greatest]) = summary.seconds_to_complete {
        facts.push((
            "time to complete",
            format!(
                "half of the rollouts at most {}, 99 of 100 at most {}, all at most {}",
                span(half),
                span(most),
                span(greatest)
            ),
        ));
    }
    for (segment, count) in &summary.segments {
        facts.push(("segment halted", format!("{segment}, {}", counted(*count, "time"))));
    }
    facts.extend(summary.example.clone().map(|example| ("first stop", example)));
    print::facts(&facts)
}

/// Returns a share of the fleet in percent, with two decimals.
fn share_of(exposed: u64, devices: u32) -> String {
    let hundredths = exposed * 10_000 / u64::from(devices);
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}
