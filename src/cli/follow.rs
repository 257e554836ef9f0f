//! Waits until devices run their target, or are in another state that was asked for. Used by `--wait` of every command
//! that moves devices, by `cotter device wait` and by `cotter release wait`. It asks only the fleet server, which
//! computes the state of each device (`src/fleet/standing.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use super::client::{Client, ClientError};
use super::exit::{Exit, Unknown};
use super::print;
use crate::model::quantity::span;
use crate::wire::operator_api::{DeviceState, DeviceView, ReleaseView};

/// Time between two requests for the states of the devices.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the fleet server may be away while devices are waited for. Its restart or its upgrade takes less.
const OUTAGE: Duration = Duration::from_secs(300);

/// How many devices the last line names at most.
const MOST_NAMED: usize = 10;

/// The options with which a verb waits for the devices that it has moved.
#[derive(Debug, Clone, Args)]
pub(super) struct Wait {
    /// Waits until all devices that were changed run their target. Exit code 40: more failed than --allow-failed; 22: the
    /// timeout has passed
    #[arg(long)]
    wait: bool,
    /// The longest time to wait
    #[arg(long, value_name = "TIME", default_value = "30min", value_parser = humantime::parse_duration, requires = "wait")]
    timeout: Duration,
    /// How many devices may fail, or not be done in time: a number, or a share of all such as 2%
    #[arg(long, value_name = "N|N%", default_value = "0", value_parser = allowance, requires = "wait")]
    allow_failed: Allowance,
}

impl Wait {
    /// Returns whether `--wait` was given.
    pub(super) fn is_wanted(&self) -> bool {
        self.wait
    }

    /// Waits until the devices run their target, if `--wait` was given.
    ///
    /// # Errors
    ///
    /// Those of the fleet server.
    pub(super) async fn follow(&self, client: &Client, scope: &Scope) -> anyhow::Result<Exit> {
        if !self.wait {
            return Ok(Exit::Done);
        }
        let patience = Patience { timeout: self.timeout, allow_failed: self.allow_failed };
        follow(client, scope, &[DeviceState::OnTarget], &patience, Output::Notes).await
    }
}

/// How long to wait, and for how many: the options of verbs that do nothing else.
#[derive(Debug, Clone, Args)]
pub(super) struct Patience {
    /// The longest time to wait
    #[arg(long, value_name = "TIME", default_value = "30min", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// How many devices may fail, or not be done in time: a number, or a share of all such as 2%
    #[arg(long, value_name = "N|N%", default_value = "0", value_parser = allowance)]
    allow_failed: Allowance,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowance {
    Devices(usize),
    Percent(usize),
}

fn allowance(text: &str) -> Result<Allowance, String> {
    let number = |text: &str| text.trim().parse::<usize>().ok();
    match text.strip_suffix('%') {
        Some(share) => number(share).filter(|share| *share <= 100).map(Allowance::Percent),
        None => number(text).map(Allowance::Devices),
    }
    .ok_or_else(|| "write a number of devices, such as 3, or a share from 0% to 100%".to_owned())
}

impl Allowance {
    fn of(self, devices: usize) -> usize {
        match self {
            Self::Devices(number) => number,
            Self::Percent(share) => devices * share / 100,
        }
    }
}

/// Selects the devices to wait for. A field that is `None` selects all.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    pub(super) fleet: Option<String>,
    pub(super) filter: Option<String>,
    pub(super) uuid: Option<String>,
    /// Only those that should run this release.
    pub(super) release: Option<String>,
    /// Returns an error if no device matches.
    pub(super) is_any_required: bool,
}

impl Scope {
    /// The devices that should run a release.
    pub(super) fn of_release(release: &ReleaseView) -> Self {
        let (fleet, release) = (Some(release.fleet.clone()), Some(release.commit.clone()));
        Self { fleet, release, ..Self::default() }
    }
}

/// Where and how changes of a device's state are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// For people, on standard error: the output of the command is something else.
    Notes,
    /// For people, as the output of the command.
    Lines,
    /// For programs, as the output of the command: a line of JSON for each change.
    Json,
}

impl Output {
    /// Returns the form for a command whose output is these changes.
    pub(super) fn answer(json: bool) -> Self {
        if json { Self::Json } else { Self::Lines }
    }
}

/// The state of a device. With `--json` it is printed as one line whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Line {
    uuid: String,
    device: String,
    state: DeviceState,
    why: String,
}

/// How many devices have reached the wanted state, and which have failed or are still pending.
#[derive(Debug, Default)]
struct Tally<'a> {
    reached: usize,
    failed: Vec<&'a Line>,
    pending: Vec<&'a Line>,
}

impl<'a> Tally<'a> {
    fn new(lines: impl IntoIterator<Item = &'a Line>, until: &[DeviceState]) -> Self {
        let mut tally = Self::default();
        for line in lines {
            // A device without a target has nothing to do.
            if until.contains(&line.state) || line.state == DeviceState::NoTarget {
                tally.reached += 1;
            } else if matches!(line.state, DeviceState::Rejected | DeviceState::Failing) {
                tally.failed.push(line);
            } else {
                tally.pending.push(line);
            }
        }
        tally
    }

    fn all(&self) -> usize {
        self.reached + self.failed.len() + self.pending.len()
    }

    /// Returns how the wait ends; `None` while it goes on. `is_over` means that the timeout has passed.
    fn exit(&self, allowed: Allowance, is_over: bool) -> Option<Exit> {
        let allowed = allowed.of(self.all());
        if self.failed.len() > allowed {
            return Some(Exit::RolledBack);
        }
        if self.pending.is_empty() {
            return Some(Exit::Done);
        }
        // At the timeout, pending devices (e.g. offline ones) count against the allowance like failed ones.
        let is_enough = self.failed.len() + self.pending.len() <= allowed;
        is_over.then_some(if is_enough { Exit::Done } else { Exit::TimedOut })
    }

    fn words(&self) -> String {
        let mut states: BTreeMap<DeviceState, usize> = BTreeMap::new();
        for line in self.pending.iter().chain(&self.failed) {
            *states.entry(line.state).or_default() += 1;
        }
        let others = states.into_iter().map(|(state, count)| format!(", {count} {}", state.as_str()));
        format!("{} of {} done{}", self.reached, self.all(), others.collect::<String>())
    }
}

/// Waits until all devices are in one of the states `until`, too many have failed, or the timeout has passed. Prints
/// each change of a state.
///
/// # Errors
///
/// Those of the fleet server.
pub(super) async fn follow(
    client: &Client,
    scope: &Scope,
    until: &[DeviceState],
    patience: &Patience,
    output: Output,
) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let mut outage = Outage::new(output);
    let mut shown: BTreeMap<String, Line> = BTreeMap::new();
    let is_on_terminal = print::warns_on_terminal() && output != Output::Json;
    loop {
        let left = patience.timeout.saturating_sub(begun.elapsed());
        let answer = devices(client, scope).await;
        if is_on_terminal {
            print::progress_note("");
        }
        let now = match answer {
            Ok(now) => now,
            Err(error) => {
                outage.bear(error, left)?;
                tokio::time::sleep(INTERVAL.min(left)).await;
                continue;
            }
        };
        outage.end();
        if now.is_empty() && scope.is_any_required {
            return Err(Unknown("no device matches; `cotter device list` shows all".to_owned()).into());
        }
        for (uuid, line) in &now {
            if shown.get(uuid) != Some(line) {
                show(line, output)?;
            }
        }
        shown = now;
        let tally = Tally::new(shown.values(), until);
        let left = patience.timeout.saturating_sub(begun.elapsed());
        if let Some(exit) = tally.exit(patience.allow_failed, left.is_zero()) {
            print::note(&last_line(&tally, exit, patience.timeout));
            return Ok(exit);
        }
        if is_on_terminal {
            print::progress_note(&tally.words());
        }
        tokio::time::sleep(INTERVAL.min(left)).await;
    }
}

fn show(line: &Line, output: Output) -> anyhow::Result<()> {
    let Line { device, state, why, .. } = line;
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let words = format!("{device} is {}{why}", state.as_str());
    let is_read = match output {
        Output::Json => print::json_reaches(&serde_json::to_string(line)?),
        Output::Lines => print::reaches(&words),
        Output::Notes => {
            print::note(&words);
            true
        }
    };
    if is_read { Ok(()) } else { anyhow::bail!("nothing reads the output any more") }
}

fn last_line(tally: &Tally<'_>, exit: Exit, timeout: Duration) -> String {
    let named = |lines: &[&Line]| {
        let mut names: Vec<_> = lines.iter().take(MOST_NAMED).map(|line| line.device.clone()).collect();
        let more = lines.len().saturating_sub(MOST_NAMED);
        names.extend((more > 0).then(|| format!("{more} more")));
        names.join(", ")
    };
    let words = tally.words();
    if exit == Exit::TimedOut {
        let (s, names) = (timeout.as_secs(), named(&tally.pending));
        format!("not done within {s} s, and the devices continue: {words}; not done: {names}")
    } else if tally.all() == 0 {
        "no device is concerned".to_owned()
    } else if tally.failed.is_empty() {
        words
    } else {
        format!("{words}; failed: {}; `cotter device show` says why", named(&tally.failed))
    }
}

/// The time in which the fleet server does not answer.
struct Outage {
    /// Whether the server has answered this command before. A wrong address is said at once.
    has_answered: bool,
    since: Option<Instant>,
}

impl Outage {
    fn new(output: Output) -> Self {
        // Notes are printed by commands that have changed something at the server before they wait.
        Self { has_answered: output == Output::Notes, since: None }
    }

    /// Says that the server does not answer, once. Returns the error if it is not one that passes, or if it has lasted
    /// too long: [`OUTAGE`], or until no time is left.
    fn bear(&mut self, error: ClientError, left: Duration) -> Result<(), ClientError> {
        let lasts = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        if !error.is_passing() || !self.has_answered || left.is_zero() || lasts >= OUTAGE {
            return Err(error);
        }
        if self.since.is_none() {
            let most = span(OUTAGE.min(left).as_secs());
            print::note(&format!("note: {error}; the devices continue, and this goes on trying for {most}"));
            self.since = Some(Instant::now());
        }
        Ok(())
    }

    fn end(&mut self) {
        self.has_answered = true;
        if self.since.take().is_some() {
            print::note("note: the fleet server answers again");
        }
    }
}

async fn devices(client: &Client, scope: &Scope) -> Result<BTreeMap<String, Line>, ClientError> {
    let query = [("fleet", scope.fleet.as_deref()), ("filter", scope.filter.as_deref())];
    let all: Vec<DeviceView> = client.list(&["devices"], &query, None).await?;
    let is_meant = |device: &DeviceView| {
        let is_it = scope.uuid.as_ref().is_none_or(|uuid| *uuid == device.uuid);
        is_it && scope.release.as_ref().is_none_or(|release| device.target.as_ref() == Some(release))
    };
    let line = |device: DeviceView| {
        let DeviceView { uuid, name, state, why, .. } = device;
        (uuid.clone(), Line { uuid, device: name, state, why })
    };
    Ok(all.into_iter().filter(is_meant).map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(states: &[(DeviceState, usize)]) -> Vec<Line> {
        let line = |n: usize, state| Line {
            uuid: n.to_string(),
            device: format!("board-{n}"),
            state,
            why: String::new(),
        };
        let all = states.iter().flat_map(|(state, count)| std::iter::repeat_n(*state, *count));
        all.enumerate().map(|(n, state)| line(n, state)).collect()
    }

    #[test]
    fn when_a_wait_ends_and_how() {
        use DeviceState::{Failing, Offline, OnTarget, Rejected, Updating};
        let (none, two) = (Allowance::Devices(0), Allowance::Percent(2));
        for (why, states, allowed, in_time, at_the_end) in [
            ("all run it", &[(OnTarget, 3)][..], none, Some(Exit::Done), Some(Exit::Done)),
            ("one is on its way", &[(OnTarget, 2), (Updating, 1)], none, None, Some(Exit::TimedOut)),
            (
                "one rejects it",
                &[(Updating, 2), (Rejected, 1)],
                none,
                Some(Exit::RolledBack),
                Some(Exit::RolledBack),
            ),
            ("2 of 100 may fail", &[(OnTarget, 98), (Failing, 2)], two, Some(Exit::Done), Some(Exit::Done)),
            (
                "3 of 100 may not",
                &[(Updating, 97), (Failing, 3)],
                two,
                Some(Exit::RolledBack),
                Some(Exit::RolledBack),
            ),
            ("2 of 100 may be away", &[(OnTarget, 98), (Offline, 2)], two, None, Some(Exit::Done)),
            ("but not 3", &[(OnTarget, 97), (Offline, 3)], two, None, Some(Exit::TimedOut)),
            ("there is none", &[], none, Some(Exit::Done), Some(Exit::Done)),
        ] {
            let lines = lines(states);
            let tally = Tally::new(&lines, &[OnTarget]);
            assert_eq!(
                (tally.exit(allowed, false), tally.exit(allowed, true)),
                (in_time, at_the_end),
                "{why}"
            );
        }
    }

    #[test]
    fn the_last_line_names_devices_but_not_all_of_four_hundred() {
        let lines = lines(&[(DeviceState::OnTarget, 388), (DeviceState::Rejected, 12)]);
        let tally = Tally::new(&lines, &[DeviceState::OnTarget]);
        let line = last_line(&tally, Exit::RolledBack, Duration::ZERO);
        assert!(line.starts_with("388 of 400 done, 12 rejected; failed: board-388, board-389, "), "{line}");
        assert!(line.ends_with("board-397, 2 more; `cotter device show` says why"), "{line}");
    }

    #[test]
    fn allowances() {
        assert_eq!(allowance("3"), Ok(Allowance::Devices(3)));
        assert_eq!(allowance("2 %"), Ok(Allowance::Percent(2)));
        for bad in ["", "-1", "101%", "2.5%", "some"] {
            assert!(allowance(bad).is_err(), "{bad}");
        }
    }
}
