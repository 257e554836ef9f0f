//! One decision under way: the devices of a rollout, with their verdicts and counts.

use std::collections::{BTreeMap, HashMap};

use super::definition::{Definition, OnHalt};
use super::position::{Position, position};
use super::share::Share;
use super::state::{Counted, ExposedDevice, Question, Rollout};
use super::tally::{Tally, Verdict};
use super::verdict::{self, Conditions, Subject};
use super::wave::Group;
use crate::fleet::tag_filter::TagFilter;

/// The devices of a rollout, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey<'a> {
    /// All that were exposed.
    pub all: Tally,
    /// Those of each wave.
    pub waves: BTreeMap<usize, Tally>,
    /// Those of no halted segment.
    pub live: Tally,
    /// Of these, the verdicts by which the release is judged: those since the rollout was resumed.
    pub judged: Counted,
    /// The same for each segment that is not halted, by tag and value.
    pub segments: BTreeMap<(&'a str, &'a str), Counted>,
    /// Devices that take part.
    pub devices: u64,
}

/// A device that may be exposed.
pub(super) struct Candidate<'a> {
    /// Index of its wave.
    pub(super) wave: usize,
    pub(super) position: Position,
    pub(super) subject: Subject<'a>,
}

/// One decision under way.
pub(super) struct Draft<'r, 'a> {
    pub(super) rollout: Rollout,
    pub(super) definition: &'r Definition,
    pub(super) conditions: Conditions,
    pub(super) members: Vec<(&'a str, ExposedDevice)>,
    /// Devices of the waves so far that are not exposed yet, in no halted segment.
    pub(super) candidates: Vec<Candidate<'a>>,
    /// Points of the order, if the wave is a number of devices that has no end yet.
    pub(super) points: Option<Vec<u64>>,
    pub(super) survey: Survey<'a>,
    /// The reasons of devices that failed.
    pub(super) reasons: HashMap<&'a str, u64>,
    /// What was asked before this decision.
    pub(super) question: Option<Question>,
}

impl<'r, 'a> Draft<'r, 'a> {
    pub(super) fn new(rollout: &'r Rollout, conditions: Conditions) -> Self {
        let mut own = rollout.clone();
        // It is asked again only if this decision wants it.
        let question = if own.phase.is_running() { own.question.take() } else { None };
        Self {
            rollout: own,
            definition: &rollout.definition,
            conditions,
            members: Vec::new(),
            candidates: Vec::new(),
            points: wave_number(rollout)
                .filter(|_| !rollout.ends.contains_key(&rollout.wave))
                .map(|_| Vec::new()),
            survey: Survey::default(),
            reasons: HashMap::new(),
            question,
        }
    }

    /// Counts a device, and notes it if it may be exposed.
    pub(super) fn look_at(&mut self, device: Subject<'a>) {
        if device.is_pinned {
            return;
        }
        let position = position(self.rollout.number, device.uuid, device.tags);
        let is_in = |filter: &TagFilter| filter.matches(device.tags);
        match (device.member, position) {
            (Some(member), position) => self.look_at_member(member, device, position),
            (None, Some(position)) if self.definition.filter.as_ref().is_none_or(is_in) => {
                self.look_at_other(device, position);
            }
            (None, Some(_) | None) => {}
        }
    }

    fn look_at_member(&mut self, member: &ExposedDevice, device: Subject<'a>, position: Option<Position>) {
        self.survey.devices += 1;
        self.note_point(position);
        // Once all are sent back, what they do says nothing about the release.
        let mut judged = match self.rollout.phase.keeps_release() {
            true => verdict::judged(member, &device, self.definition.silent_after, self.conditions),
            false => member.clone(),
        };
        let is_live = self.is_live(device.tags);
        judged.is_pulled_back |= !is_live && self.definition.on_halt == OnHalt::PullBack;
        self.survey.count(&judged, is_live);
        let is_new = self.rollout.resumed.is_none_or(|resumed| judged.since > resumed);
        if is_live && is_new {
            self.judge(&device, judged.verdict);
        }
        if judged != *member {
            self.members.push((device.uuid, judged));
        }
    }

    /// Counts a verdict by which the release is judged.
    fn judge(&mut self, device: &Subject<'a>, verdict: Verdict) {
        self.survey.judged.add(verdict);
        for key in &self.definition.segments {
            let Some((key, value)) = device.tags.get_key_value(key) else { continue };
            self.survey.segments.entry((key, value)).or_default().add(verdict);
        }
        if verdict.is_failure() {
            let why = if device.why.is_empty() { verdict.as_str() } else { device.why };
            *self.reasons.entry(why).or_default() += 1;
        }
    }

    fn look_at_other(&mut self, subject: Subject<'a>, position: Position) {
        self.survey.devices += 1;
        self.note_point(Some(position));
        if let Some(wave) = self.rollout.wave_of(position, subject.tags)
            && self.is_live(subject.tags)
        {
            self.candidates.push(Candidate { wave, position, subject });
        }
    }

    /// Returns `true` if the device is in no halted segment.
    fn is_live(&self, tags: &BTreeMap<String, String>) -> bool {
        self.rollout.halted.keys().all(|segment| !segment.has(tags))
    }

    fn note_point(&mut self, position: Option<Position>) {
        if let Some(points) = &mut self.points {
            points.extend(position.and_then(point_of));
        }
    }

    /// Finds where a wave ends that is a number of devices and has just begun. Its devices are exposed at the next decision.
    pub(super) fn end_of_wave(&mut self) {
        let (Some(points), Some(number)) = (&mut self.points, wave_number(&self.rollout)) else { return };
        let end = end_of(points, number);
        self.rollout.ends.insert(self.rollout.wave, end);
    }
}

impl Rollout {
    /// Returns the wave of a device among those that have begun; `None` if it is in a later one.
    #[must_use]
    pub fn wave_of(&self, position: Position, tags: &BTreeMap<String, String>) -> Option<usize> {
        let begun = self.definition.waves.iter().enumerate().take(self.wave + 1);
        let mut waves = begun.filter(|(index, wave)| match (&wave.group, position) {
            (Group::Tags(filter), _) => filter.matches(tags),
            (Group::Share(share), Position::Late(_)) => *share == Share::ALL,
            (Group::Share(share), Position::Usual(point)) => share.contains(point),
            (Group::Number(_), Position::Usual(point)) => {
                self.ends.get(index).is_some_and(|end| point <= *end)
            }
            (Group::Number(_), Position::Late(_)) => false,
            (Group::Share(_) | Group::Number(_), Position::Early(_)) => true,
        });
        waves.next().map(|(index, _)| index)
    }
}

/// Returns how many devices each wave would have, and how many of them are reachable, if all began now.
#[must_use]
pub fn plan<'a>(rollout: &Rollout, devices: impl Iterator<Item = Subject<'a>>) -> Vec<(u64, u64)> {
    let definition = &rollout.definition;
    let is_in = |device: &Subject<'_>| {
        !device.is_pinned && definition.filter.as_ref().is_none_or(|filter| filter.matches(device.tags))
    };
    let positioned = devices
        .filter(is_in)
        .filter_map(|device| Some((position(rollout.number, device.uuid, device.tags)?, device)));
    let positioned: Vec<(Position, Subject<'_>)> = positioned.collect();
    let mut all = rollout.clone();
    all.wave = definition.waves.len().saturating_sub(1);
    let mut points: Vec<u64> = positioned.iter().filter_map(|(position, _)| point_of(*position)).collect();
    for (index, wave) in definition.waves.iter().enumerate() {
        if let Group::Number(number) = wave.group {
            all.ends.entry(index).or_insert_with(|| end_of(&mut points, number));
        }
    }
    let mut waves = vec![(0, 0); definition.waves.len()];
    for (position, device) in &positioned {
        let wave = device.member.map(|member| member.wave).or_else(|| all.wave_of(*position, device.tags));
        if let Some((devices, reachable)) = wave.and_then(|wave| waves.get_mut(wave)) {
            *devices += 1;
            *reachable += u64::from(device.is_reachable);
        }
    }
    waves
}

/// Counts the exposed devices by the verdicts that are stored.
#[must_use]
pub fn survey<'a>(rollout: &Rollout, devices: impl Iterator<Item = Subject<'a>>) -> Survey<'a> {
    let mut survey = Survey::default();
    for device in devices {
        if let Some(member) = device.member {
            survey.count(member, rollout.halted.keys().all(|segment| !segment.has(device.tags)));
        }
    }
    survey
}

impl Survey<'_> {
    fn count(&mut self, member: &ExposedDevice, is_live: bool) {
        self.all.add(member.verdict);
        self.waves.entry(member.wave).or_default().add(member.verdict);
        if is_live {
            self.live.add(member.verdict);
        }
    }
}

/// Returns the point in the order of devices that numbers of devices are counted by. Devices that come late have none.
fn point_of(position: Position) -> Option<u64> {
    match position {
        Position::Early(_) => Some(0),
        Position::Usual(point) => Some(point),
        Position::Late(_) => None,
    }
}

/// Returns the last of the first `number` points.
fn end_of(points: &mut [u64], number: u32) -> u64 {
    let last = usize::try_from(number).unwrap_or(usize::MAX).min(points.len()).saturating_sub(1);
    if points.is_empty() { 0 } else { *points.select_nth_unstable(last).1 }
}

/// Returns how many devices the last wave that has begun should have, if it is a number.
fn wave_number(rollout: &Rollout) -> Option<u32> {
    match rollout.definition.waves.get(rollout.wave).map(|wave| &wave.group) {
        Some(Group::Number(number)) => Some(*number),
        Some(Group::Tags(_) | Group::Share(_)) | None => None,
    }
}
