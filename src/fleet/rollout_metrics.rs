//! Figures of rollouts and webhooks for Prometheus. Their labels have few values: fleets with a rollout, names of webhooks, and
//! words of ours.

use super::policy::World;
use super::rollout::{Phase, Rollout, Tally};
use super::webhook::Webhook;
use crate::exposition::{Family, Page, Type};

use Type::{Counter, Gauge};

pub(super) const PHASE: Family = (
    "cotter_fleet_rollout_phase",
    Gauge,
    "1 for the phase in which the newest rollout of a fleet is, else 0.",
);
pub(super) const DEVICES: Family = (
    "cotter_fleet_rollout_devices",
    Gauge,
    "Devices that the rollout of a fleet has exposed, by verdict; absent once it is over.",
);
pub(super) const WAVE: Family = (
    "cotter_fleet_rollout_wave",
    Gauge,
    "The last wave that the rollout of a fleet has begun, from 1; absent once it is over.",
);
pub(super) const HALTED: Family = (
    "cotter_fleet_rollout_halted_segments",
    Gauge,
    "Segments that the rollout of a fleet has halted; absent once it is over.",
);
pub(super) const HELD: Family = (
    "cotter_fleet_rollout_waits_for_webhook",
    Gauge,
    "1 if a webhook holds the next wave of the rollout of a fleet, else 0; absent once it is over.",
);
pub(super) const DELIVERIES: Family = (
    "cotter_fleet_webhook_deliveries_total",
    Counter,
    "Messages delivered to a webhook, failed attempts, and messages that are not sent any more, since it was created.",
);
pub(super) const WAITING: Family =
    ("cotter_fleet_webhook_waiting", Gauge, "Messages that wait for their delivery to a webhook.");

/// The phases by their names.
const PHASES: [&str; 6] = ["running", "paused", "halted", "pulled-back", "completed", "aborted"];

/// Adds the figures.
pub(super) fn add(page: &mut Page, world: &World) {
    let newest =
        world.fleets().filter_map(|fleet| Some((&*fleet.name, world.rollout(fleet.number)?.as_ref())));
    let newest: Vec<(&str, &Rollout)> = newest.collect();
    let phases = newest.iter().flat_map(|(fleet, rollout)| {
        let is_it = |phase| f64::from(u8::from(rollout.phase.as_str() == phase));
        PHASES.map(|phase| ("", vec![("fleet", *fleet), ("phase", phase)], is_it(phase)))
    });
    page.add(PHASE, phases);
    let open: Vec<_> = newest.iter().filter(|(_, rollout)| !rollout.phase.is_over()).copied().collect();
    let devices = open.iter().flat_map(|(fleet, rollout)| {
        verdicts(rollout.tally)
            .map(|(verdict, count)| ("", vec![("fleet", *fleet), ("verdict", verdict)], float(count)))
    });
    page.add(DEVICES, devices);
    let of_fleets = |count: fn(&Rollout) -> u64| {
        open.iter().map(move |(fleet, rollout)| ("", vec![("fleet", *fleet)], float(count(rollout))))
    };
    page.add(WAVE, of_fleets(|rollout| rollout.wave as u64 + 1));
    page.add(HALTED, of_fleets(|rollout| rollout.halted.len() as u64));
    page.add(
        HELD,
        of_fleets(|rollout| u64::from(rollout.phase == Phase::Running && rollout.question.is_some())),
    );
    let of_webhook = |webhook: &Webhook| {
        let its = &webhook.deliveries;
        [("delivered", its.delivered), ("failed", its.failed), ("given-up", its.given_up)]
    };
    let deliveries = world.webhooks().flat_map(|webhook| {
        of_webhook(webhook).map(|(result, count)| {
            ("", vec![("webhook", webhook.name.as_str()), ("result", result)], float(count))
        })
    });
    page.add(DELIVERIES, deliveries);
    let waiting = world.webhooks().map(|webhook| {
        let its = world.messages().filter(|message| message.webhook == webhook.name);
        ("", vec![("webhook", webhook.name.as_str())], float(its.count() as u64))
    });
    page.add(WAITING, waiting);
}

fn verdicts(tally: Tally) -> [(&'static str, u64); 9] {
    let Tally { unreached, updating, waiting, fetching, accepted, rejected, blocked, unhealthy, silent } =
        tally;
    [
        ("accepted", accepted),
        ("rejected", rejected),
        ("blocked", blocked),
        ("unhealthy", unhealthy),
        ("silent", silent),
        ("updating", updating),
        ("waiting", waiting),
        ("fetching", fetching),
        ("unreached", unreached),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other number")]
fn float(count: u64) -> f64 {
    count as f64
}
