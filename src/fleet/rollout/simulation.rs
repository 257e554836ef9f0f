//! Tries a definition on a fleet that exists only in memory, with the same decisions. The seed determines each run.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::decide::decide;
use super::state::{ExposedDevice, Pause, Phase, Rollout};
use super::tally::Tally;
use super::verdict::{Conditions, Stands, Subject};
use super::{Definition, Segment, Share};

/// The shape of a fleet.
#[derive(Debug, Clone)]
pub struct Model {
    pub devices: u32,
    /// The share of devices that fail with the release.
    pub fail: Option<Share>,
    /// The share of devices that failed with the release before.
    pub base: Option<Share>,
    /// The share of devices that are offline all the time.
    pub offline: Option<Share>,
    /// The share of devices that are switched on for 12 hours a day, each from an hour of its own.
    pub daily: Option<Share>,
    pub segments: Vec<ModelSegment>,
    /// The shortest and the longest time that an update with its trial takes.
    pub update: (Duration, Duration),
}

/// Devices with a tag of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSegment {
    pub key: String,
    pub value: String,
    pub share: Share,
    /// The share of them that fail with the release, in addition to the others.
    pub fail: Option<Share>,
}

/// How a simulated rollout ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    Completed,
    /// It waits for a person.
    Paused,
    Halted,
    /// All have the release but for the halted segments.
    SegmentsHalted,
    /// It went on for more than a month.
    Unfinished,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Run {
    pub end: End,
    /// In the words of the rollout.
    pub why: Option<String>,
    pub tally: Tally,
    pub halted: Vec<Segment>,
    pub seconds: u64,
}

const STEP: Duration = Duration::from_secs(60);
const IDLE_STEP: Duration = Duration::from_secs(600);
const LONGEST: Duration = Duration::from_secs(31 * 86_400);
const DAY: u64 = 86_400;

/// A device of the simulation.
struct Simulated {
    uuid: String,
    /// Index of its tags.
    tags: usize,
    will_fail: bool,
    presence: Presence,
    member: Option<ExposedDevice>,
    /// When its update ends, in seconds since the start; known once it has heard of the release.
    ends: Option<u64>,
}

#[derive(Clone, Copy)]
enum Presence {
    Always,
    Never,
    /// 12 hours a day from this second of the day.
    Daily(u64),
}

impl Presence {
    fn is_online(self, second: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Daily(from) => (second + DAY - from) % DAY < DAY / 2,
        }
    }

    /// Returns the last second up to `second` in which it was online; `None` if there is none.
    fn last_online(self, second: u64) -> Option<u64> {
        match self {
            Self::Always => Some(second),
            Self::Never => None,
            Self::Daily(from) => {
                let since = (second + DAY - from) % DAY;
                if since < DAY / 2 { Some(second) } else { second.checked_sub(since - DAY / 2) }
            }
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns `true` with the probability of this share.
    fn draw(&mut self, share: Option<Share>) -> bool {
        let point = self.next();
        share.is_some_and(|share| share.contains(point))
    }

    fn between(&mut self, (least, most): (u64, u64)) -> u64 {
        least + self.next() % (most.saturating_sub(least) + 1)
    }
}

struct Fleet {
    devices: Vec<Simulated>,
    tags: Vec<BTreeMap<String, String>>,
}

impl Fleet {
    fn new(model: &Model, random: &mut Random) -> Self {
        let mut tags = vec![BTreeMap::new()];
        tags.extend(model.segments.iter().map(|one| BTreeMap::from([(one.key.clone(), one.value.clone())])));
        let devices = (0..model.devices).map(|number| {
            let segment = model.segments.iter().position(|segment| random.draw(Some(segment.share)));
            let in_segment = segment.and_then(|index| model.segments[index].fail);
            let will_fail = random.draw(model.fail) | random.draw(in_segment);
            let presence = if random.draw(model.offline) {
                Presence::Never
            } else if random.draw(model.daily) {
                Presence::Daily(random.next() % DAY)
            } else {
                Presence::Always
            };
            let tags = segment.map_or(0, |index| index + 1);
            Simulated { uuid: format!("{number:032x}"), tags, will_fail, presence, member: None, ends: None }
        });
        Self { devices: devices.collect(), tags }
    }

    /// Returns how all devices stand.
    fn subjects(&self, start: Timestamp, second: u64) -> impl Iterator<Item = Subject<'_>> {
        self.devices.iter().map(move |device| {
            let is_reachable = device.presence.is_online(second);
            let has_ended = device.ends.is_some_and(|ends| ends <= second);
            let stands = match (has_ended, device.will_fail) {
                (false, _) => Stands::Updating,
                (true, true) => Stands::Rejected,
                (true, false) => Stands::OnTarget,
            };
            let contact = device.presence.last_online(second);
            Subject {
                uuid: &device.uuid,
                tags: &self.tags[device.tags],
                is_pinned: false,
                member: device.member.as_ref(),
                stands,
                why: "",
                last_contact: contact.map(|contact| at(start, contact)),
                is_reachable,
                barriers_passed: 0,
            }
        })
    }

    /// Lets devices that hear of the release begin.
    fn hear(&mut self, second: u64, update: (u64, u64), random: &mut Random) {
        for device in &mut self.devices {
            if device.member.is_some() && device.ends.is_none() && device.presence.is_online(second) {
                device.ends = Some(second + random.between(update));
            }
        }
    }
}

fn at(start: Timestamp, second: u64) -> Timestamp {
    start.checked_add(Duration::from_secs(second)).unwrap_or(Timestamp::MAX)
}

/// Runs one rollout on one fleet, both decided by the seed.
#[must_use]
pub fn run(definition: &Definition, model: &Model, seed: u64) -> Run {
    let mut random = Random(seed);
    let mut fleet = Fleet::new(model, &mut random);
    let start = Timestamp::UNIX_EPOCH;
    // Its webhook lets each wave begin at once.
    let definition = Definition { confirm: None, ..definition.clone() };
    let mut rollout = Rollout::new(seed, 1, 1, definition, start);
    rollout.base = model.base;
    let update = (model.update.0.as_secs(), model.update.1.as_secs());
    let mut second = 0;
    loop {
        fleet.hear(second, update, &mut random);
        let conditions = Conditions {
            now: at(start, second),
            listening_since: start,
            is_in_window: true,
            is_release_valid: true,
        };
        let decision = decide(&rollout, fleet.subjects(start, second), conditions);
        let tally = decision.survey.all;
        let is_idle = decision.members.is_empty() && tally.open() == 0;
        rollout = decision.rollout;
        let changed: Vec<(usize, ExposedDevice)> =
            decision.members.into_iter().map(|(uuid, member)| (index_of(uuid), member)).collect();
        for (index, member) in changed {
            fleet.devices[index].member = Some(member);
        }
        let end = match &rollout.phase {
            Phase::Running if second >= LONGEST.as_secs() => Some((End::Unfinished, None)),
            Phase::Running => None,
            Phase::Paused { why: Pause::SegmentsHalted } => Some((End::SegmentsHalted, None)),
            Phase::Paused { why } => Some((End::Paused, Some(why.to_string()))),
            Phase::Halted { why, .. } => Some((End::Halted, Some(why.to_string()))),
            Phase::Completed | Phase::Aborted { .. } => Some((End::Completed, None)),
        };
        if let Some((end, why)) = end {
            let halted = rollout.halted.into_keys().collect();
            return Run { end, why, tally, halted, seconds: second };
        }
        second += if is_idle { IDLE_STEP } else { STEP }.as_secs();
    }
}

fn index_of(uuid: &str) -> usize {
    usize::from_str_radix(uuid, 16).unwrap_or_default()
}

/// What many runs have in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub runs: u64,
    /// How many runs ended in each way.
    pub ends: BTreeMap<&'static str, u64>,
    /// Devices that were exposed when a run was halted or paused: at half of such runs, at 99 of 100, and the most.
    pub exposed_at_stop: Option<[u64; 3]>,
    /// Seconds until completion: at half of such runs, at 99 of 100, and the most.
    pub seconds_to_complete: Option<[u64; 3]>,
    /// How often each segment was halted.
    pub segments: BTreeMap<String, u64>,
    /// The words of one stop.
    pub example: Option<String>,
}

/// Sums up runs.
#[must_use]
pub fn summary(runs: &[Run]) -> Summary {
    let mut summary = Summary {
        runs: u64::try_from(runs.len()).unwrap_or(u64::MAX),
        ends: BTreeMap::new(),
        exposed_at_stop: None,
        seconds_to_complete: None,
        segments: BTreeMap::new(),
        example: None,
    };
    let (mut exposed, mut seconds) = (Vec::new(), Vec::new());
    for run in runs {
        let name = match run.end {
            End::Completed => "completed",
            End::Paused => "paused",
            End::Halted => "halted",
            End::SegmentsHalted => "segments-halted",
            End::Unfinished => "unfinished",
        };
        *summary.ends.entry(name).or_default() += 1;
        match run.end {
            End::Completed | End::SegmentsHalted => seconds.push(run.seconds),
            End::Paused | End::Halted | End::Unfinished => exposed.push(run.tally.exposed()),
        }
        for segment in &run.halted {
            *summary.segments.entry(segment.to_string()).or_default() += 1;
        }
        if summary.example.is_none() {
            summary.example.clone_from(&run.why);
        }
    }
    (summary.exposed_at_stop, summary.seconds_to_complete) = (spread(exposed), spread(seconds));
    summary
}

/// Returns the middle of some numbers, the one that 99 of 100 do not exceed, and the greatest.
fn spread(mut numbers: Vec<u64>) -> Option<[u64; 3]> {
    numbers.sort_unstable();
    let last = numbers.len().checked_sub(1)?;
    Some([numbers[last / 2], numbers[(last * 99).div_ceil(100)], numbers[last]])
}
