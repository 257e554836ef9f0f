//! What a Prometheus asks the fleet server: figures of the fleets, and where it finds the metrics of each device.
//!
//! All is computed on request, in one pass over the devices, so that a scrape costs the same however many fleets there are.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::logs::Logs;
use super::parked::Parked;
use super::policy::{Device, World};
use super::requests::{BOUNDS, Requests};
use super::rollout_metrics;
use super::standing::{self, Contact};
use super::writer::Work;
use crate::exposition::{Family, Page, Type};
use crate::wire::account::is_reachable;
use crate::wire::operator_api::DeviceState;

use Type::{Counter, Gauge, Histogram, Summary};

const BUILD: Family = ("cotter_fleet_build_info", Gauge, "Version of this fleet server.");
const DEVICES: Family =
    ("cotter_fleet_devices", Gauge, "Devices by fleet and state, in the words of `cotter device list`.");
const BY_TARGET: Family = (
    "cotter_fleet_release_target_devices",
    Gauge,
    "Devices that should run a release, by fleet and release.",
);
const BY_RUNNING: Family =
    ("cotter_fleet_release_running_devices", Gauge, "Devices that run a release completely, as they report.");
const BY_AGENT: Family =
    ("cotter_fleet_agent_devices", Gauge, "Devices by fleet and version of Cotter's agent, as they report.");

const REQUESTS: Family = ("cotter_fleet_requests_total", Counter, "Requests by route, method and status.");
const DURATION: Family = (
    "cotter_fleet_request_duration_seconds",
    Histogram,
    "Time from the head of a request to the head of its answer; without polls that waited for news.",
);
const ACTS: Family = (
    "cotter_fleet_acts_total",
    Counter,
    "Acts of operators and devices, reports among them: done, refused by a rule, or failed because of the disk.",
);
const COMMITS: Family =
    ("cotter_fleet_commit_seconds", Summary, "Writes to the disk, each with all acts that waited for it.");
const DECISIONS: Family = (
    "cotter_fleet_rollout_decision_seconds",
    Summary,
    "Decisions of rollouts, each over all devices of its fleet; without the write to the disk that follows some of them.",
);
const STORE: Family = (
    "cotter_fleet_store_up",
    Gauge,
    "1 if the last write of the records succeeded, and the database answers.",
);
const PARKED: Family =
    ("cotter_fleet_parked_polls", Gauge, "Polls that wait for a new target of their device.");

const PARKED_MOST: Family = (
    "cotter_fleet_parked_polls_limit",
    Gauge,
    "Polls that may wait at once; further devices ask every poll interval.",
);

const LOG_LINES: Family =
    ("cotter_fleet_log_lines_total", Counter, "Lines of devices' logs that were kept by this server.");
const LOG_BYTES: Family =
    ("cotter_fleet_log_bytes_total", Counter, "Bytes of devices' logs that were kept by this server.");
const LOG_DROPPED: Family = (
    "cotter_fleet_log_dropped_lines_total",
    Counter,
    "Lines of devices' logs that were not kept: too long, too many, of a wrong form, or the disk was full.",
);
const LOG_STREAMS: Family =
    ("cotter_fleet_log_streams", Gauge, "Devices that upload their logs to this server now.");

/// Maximum number of releases, and of versions of agents, of one fleet that have a sample of their own: those with the most devices. The
/// devices of all others are in one sample, so that neither many releases nor devices that report any text make many series.
const MOST_OF_A_FLEET: usize = 20;

/// The label of all others. No release has this name.
const OTHERS: &str = "(others)";

/// Devices by number of their fleet and something else.
type Counts<T> = BTreeMap<(u64, T), usize>;

/// Makes the page of `GET /metrics`.
pub(super) fn page(
    world: &World,
    requests: &Requests,
    work: &Work,
    (parked, logs): (&Parked, &Logs),
    contact: impl Fn(&Device) -> Contact,
) -> String {
    let mut page = Page::default();
    page.add(BUILD, [("", vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)]);
    add_devices(&mut page, world, contact);
    add_requests(&mut page, requests);
    add_acts(&mut page, work);
    page.add(PARKED, [("", vec![], float(parked.count()))]);
    page.add(PARKED_MOST, [("", vec![], float(parked.most()))]);
    rollout_metrics::add(&mut page, world);
    add_logs(&mut page, logs);
    page.into_text()
}

fn add_logs(page: &mut Page, logs: &Logs) {
    let counts = logs.counts();
    let families = [(LOG_LINES, &counts.lines), (LOG_BYTES, &counts.bytes), (LOG_DROPPED, &counts.dropped)];
    for (family, counter) in families {
        page.add(family, [("", vec![], float(counter.load(Ordering::Relaxed)))]);
    }
    page.add(LOG_STREAMS, [("", vec![], float(logs.streams()))]);
}

fn add_devices(page: &mut Page, world: &World, contact: impl Fn(&Device) -> Contact) {
    let mut states: Counts<DeviceState> = Counts::new();
    let (mut targets, mut running): (Counts<u64>, Counts<u64>) = (Counts::new(), Counts::new());
    let mut agents: Counts<&str> = Counts::new();
    // Every state has a sample, so that an alert about one is not about missing data.
    for fleet in world.fleets() {
        states.extend(DeviceState::ALL.map(|state| ((fleet.number, state), 0)));
    }
    for device in world.devices() {
        let state = standing::of(world, device, contact(device)).state;
        *states.entry((device.fleet, state)).or_default() += 1;
        if let Some(target) = world.target_of(device) {
            *targets.entry((device.fleet, target.number)).or_default() += 1;
        }
        // A device that was moved may still run a release of the fleet before.
        let reported = world.reported(&device.uuid);
        if let Some(release) = reported.running {
            *running.entry((device.fleet, release)).or_default() += 1;
        }
        if let Some(account) = &reported.account {
            *agents.entry((device.fleet, account.agent.as_str())).or_default() += 1;
        }
    }
    let name = |fleet: &u64| world.fleet(*fleet).map_or("", |fleet| fleet.name.as_str());
    let samples = states.iter().map(|((fleet, state), count)| {
        ("", vec![("fleet", name(fleet)), ("state", state.as_str())], float(*count))
    });
    page.add(DEVICES, samples);
    let by_commit = |counts: Counts<u64>| {
        let named =
            |((fleet, release), count)| Some(((fleet, world.release(release)?.commit.as_str()), count));
        bounded(counts.into_iter().filter_map(named))
    };
    let families = [
        (BY_TARGET, "release", by_commit(targets)),
        (BY_RUNNING, "release", by_commit(running)),
        (BY_AGENT, "version", bounded(agents.into_iter())),
    ];
    for (family, label, counts) in families {
        let samples = counts.iter().map(|((fleet, value), count)| {
            ("", vec![("fleet", name(fleet)), (label, *value)], float(*count))
        });
        page.add(family, samples);
    }
}

/// Returns the counts with the most devices of each fleet, and the sum of the others.
fn bounded<'a>(counts: impl Iterator<Item = ((u64, &'a str), usize)>) -> Counts<&'a str> {
    let mut fleets: BTreeMap<u64, Vec<(usize, &str)>> = BTreeMap::new();
    for ((fleet, label), count) in counts {
        fleets.entry(fleet).or_default().push((count, label));
    }
    let mut bounded = Counts::new();
    for (fleet, mut labels) in fleets {
        labels.sort_by_key(|(count, label)| (Reverse(*count), *label));
        for (place, (count, label)) in labels.into_iter().enumerate() {
            let label = if place < MOST_OF_A_FLEET { label } else { OTHERS };
            *bounded.entry((fleet, label)).or_default() += count;
        }
    }
    bounded
}

fn add_requests(page: &mut Page, requests: &Requests) {
    let all = requests.all();
    let statuses: Vec<_> = all
        .iter()
        .flat_map(|((route, method), counts)| {
            counts.answers.iter().map(move |(status, count)| (route, *method, status.to_string(), *count))
        })
        .collect();
    let samples = statuses.iter().map(|(route, method, status, count)| {
        ("", vec![("route", route.as_str()), ("method", *method), ("status", status.as_str())], float(*count))
    });
    page.add(REQUESTS, samples);
    let samples = all.iter().flat_map(|((route, method), counts)| {
        let labels = move || vec![("route", route.as_str()), ("method", *method)];
        let buckets = counts.within.iter().zip(BOUNDS).map(move |(count, (_, bound))| {
            ("_bucket", [labels(), vec![("le", bound)]].concat(), float(*count))
        });
        let timed = float(counts.timed);
        buckets.chain([
            ("_bucket", [labels(), vec![("le", "+Inf")]].concat(), timed),
            ("_sum", labels(), counts.seconds),
            ("_count", labels(), timed),
        ])
    });
    page.add(DURATION, samples);
}

fn add_acts(page: &mut Page, work: &Work) {
    let value = |counter: &AtomicU64| float(counter.load(Ordering::Relaxed));
    let results = [("done", &work.done), ("refused", &work.refused), ("failed", &work.failed)];
    let samples = results.map(|(result, counter)| ("", vec![("result", result)], value(counter)));
    page.add(ACTS, samples);
    let commits =
        [("_count", vec![], value(&work.commits)), ("_sum", vec![], value(&work.commit_micros) / 1e6)];
    page.add(COMMITS, commits);
    let decisions =
        [("_count", vec![], value(&work.decisions)), ("_sum", vec![], value(&work.decision_micros) / 1e6)];
    page.add(DECISIONS, decisions);
    page.add(STORE, [("", vec![], if work.failure().is_none() { 1.0 } else { 0.0 })]);
}

/// A device in the form of Prometheus's HTTP service discovery.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Scraped {
    /// IP address and port; always one.
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

/// Returns where the metrics of each device are, for those that report an address.
pub(super) fn targets(world: &World) -> Vec<Scraped> {
    let scraped = |device: &Device| {
        let address = world.reported(&device.uuid).account.as_ref()?.metrics.clone();
        // One from before a rule was added may be stored.
        let address = address.filter(|address| is_reachable(address))?;
        let mut labels = BTreeMap::new();
        for (key, value) in &device.tags {
            // Of two tags that become one label, the first in order stays.
            labels.entry(format!("__meta_cotter_tag_{}", label(key))).or_insert_with(|| value.clone());
        }
        let fleet = world.fleet(device.fleet).map_or_else(String::new, |fleet| fleet.name.clone());
        labels.insert("__meta_cotter_uuid".to_owned(), device.uuid.to_string());
        labels.insert("__meta_cotter_name".to_owned(), device.name.clone());
        labels.insert("__meta_cotter_fleet".to_owned(), fleet);
        labels.insert("__meta_cotter_device_type".to_owned(), device.device_type.clone());
        Some(Scraped { targets: [address], labels })
    };
    world.devices().filter_map(scraped).collect()
}

/// A name of a label: letters, digits and `_` only.
fn label(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other number")]
fn float(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

/// Every family.
#[cfg(test)]
const ALL: [Family; 24] = [
    BUILD,
    DEVICES,
    BY_TARGET,
    BY_RUNNING,
    BY_AGENT,
    REQUESTS,
    DURATION,
    ACTS,
    COMMITS,
    DECISIONS,
    STORE,
    PARKED,
    PARKED_MOST,
    rollout_metrics::PHASE,
    rollout_metrics::DEVICES,
    rollout_metrics::WAVE,
    rollout_metrics::HALTED,
    rollout_metrics::HELD,
    rollout_metrics::DELIVERIES,
    rollout_metrics::WAITING,
    LOG_LINES,
    LOG_BYTES,
    LOG_DROPPED,
    LOG_STREAMS,
];

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
