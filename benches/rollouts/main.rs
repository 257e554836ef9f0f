//! Rollouts, measured: `make bench-rollouts`.
//!
//! `cotter-fleet simulate` of the server that is shipped runs each scenario many times, with fixed seeds, so the figures of one
//! version are the same on each machine. The command of each row can be typed by anyone. The time of one decision is measured with
//! the library of the bench. `--runs N` and `--devices N` for other sizes; `--server FILE` is the binary. Other words are passed
//! over: cargo adds some.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "a bench fails by panicking, reads the real clocks, prints its table, and its counts are small"
)]

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use cotter::fleet::rollout::{Conditions, Definition, ExposedDevice, Rollout, Stands, Subject, decide};
use jiff::Timestamp;
use serde_json::Value;

/// What `simulate` answers.
struct Summary(Value);

impl Summary {
    /// Returns the share of runs that ended in this way.
    fn ended(&self, end: &str) -> f64 {
        self.0["ends"][end].as_u64().unwrap_or(0) as f64 / self.0["runs"].as_u64().unwrap() as f64
    }

    /// Returns how many devices were exposed at a stop: at half of the stops, at 99 of 100, and the most.
    fn exposed(&self) -> [u64; 3] {
        let spread = &self.0["exposed_at_stop"];
        [0, 1, 2].map(|index| spread[index].as_u64().unwrap_or(0))
    }
}

struct Scenario {
    what: &'static str,
    /// The words after `cotter-fleet simulate --devices N --runs N`.
    words: &'static [&'static str],
    goal: &'static str,
    /// Returns the figures, and whether the goal is reached.
    judge: fn(&Summary, u32) -> (String, bool),
}

const WAVES: &str = "0.4%, 2%, 10%, 50%, 100%";

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        what: "5 % of the devices fail with the release",
        words: &["--waves", WAVES, "--fail", "5%", "--base", "0.5%"],
        goal: "≥ 99 % halt, with ≤ 0.5 % of the fleet exposed",
        judge: |summary, devices| {
            let ([half, most, greatest], halted) = (summary.exposed(), summary.ended("halted"));
            let share = |count: u64| format!("{:.2} %", count as f64 / f64::from(devices) * 100.0);
            let is_kept = halted >= 0.99 && most * 200 <= u64::from(devices);
            let exposed = format!("{} / {} / {}", share(half), share(most), share(greatest));
            (
                format!("{} halt; exposed then (half / 99 of 100 / all runs): {exposed}", percent(halted)),
                is_kept,
            )
        },
    },
    Scenario {
        what: "as many fail as with the release before (0.5 %)",
        words: &["--waves", WAVES, "--fail", "0.5%", "--base", "0.5%"],
        goal: "≤ 1 % halt",
        judge: |summary, _| {
            let (halted, completed) = (summary.ended("halted"), summary.ended("completed"));
            (format!("{} halt, {} complete", percent(halted), percent(completed)), halted <= 0.01)
        },
    },
    Scenario {
        what: "half of `hw=rev2` (10 % of the fleet) fail, and no other",
        words: &["--waves", WAVES, "--segment", "hw=rev2:10%:50%", "--segment-by", "hw"],
        goal: "the other segments complete, and the segment is named",
        judge: |summary, _| {
            let ended = summary.ended("segments-halted");
            let named = summary.0["segments"]["hw=rev2"].as_u64().unwrap_or(0);
            let segments = summary.0["segments"].as_object().map_or(0, serde_json::Map::len);
            let is_kept = ended >= 0.99 && segments == 1;
            (format!("{} so, hw=rev2 named in {named} runs, other segments in none", percent(ended)), is_kept)
        },
    },
    Scenario {
        what: "30 % are offline all the time, 0.5 % fail as before",
        words: &["--waves", WAVES, "--fail", "0.5%", "--base", "0.5%", "--offline", "30%"],
        goal: "≥ 99 % complete",
        judge: |summary, _| {
            let completed = summary.ended("completed");
            (format!("{} complete", percent(completed)), completed >= 0.99)
        },
    },
];

fn simulated(server: &str, devices: u32, runs: u32, words: &[&str]) -> Summary {
    let mut command = Command::new(server);
    command.args(["simulate", "--json", "--devices", &devices.to_string(), "--runs", &runs.to_string()]);
    let out = command.args(words).output().expect("the server's binary");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let document: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    Summary(document["simulation"].clone())
}

/// Returns the longest of some decisions in the middle of a rollout, in which half of the devices are exposed.
fn longest_decision(devices: u32) -> Duration {
    let text = r#"{"waves": ["50%", "100%"], "segments": ["hw"]}"#;
    let definition: Definition = serde_json::from_str(text).expect("a definition");
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let mut rollout = Rollout::new(1, 1, 1, definition, now);
    let kinds = ["rev1", "rev2", "rev3"].map(|kind| BTreeMap::from([("hw".to_owned(), kind.to_owned())]));
    let uuids: Vec<String> = (0..devices).map(|number| format!("{number:032x}")).collect();
    let mut members: BTreeMap<String, ExposedDevice> = BTreeMap::new();
    let mut longest = Duration::ZERO;
    for round in 0..20_u64 {
        let seen = members.clone();
        let subjects = uuids.iter().enumerate().map(|(index, uuid)| Subject {
            uuid,
            tags: &kinds[index % kinds.len()],
            is_pinned: false,
            member: seen.get(uuid.as_str()),
            stands: if index % 500 == 0 { Stands::Rejected } else { Stands::OnTarget },
            why: "web exited with code 3",
            last_contact: Some(now),
            is_reachable: true,
            barriers_passed: 0,
        });
        let conditions = Conditions {
            now: now + Duration::from_secs(60 * round),
            listening_since: now,
            is_in_window: true,
            is_release_valid: true,
        };
        let began = Instant::now();
        let decision = decide(&rollout, subjects, conditions);
        longest = longest.max(began.elapsed());
        members.extend(decision.members.into_iter().map(|(uuid, member)| (uuid.to_owned(), member)));
        rollout = decision.rollout;
    }
    longest
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().collect();
    let value = |name: &str| words.windows(2).find(|two| two[0] == name).map(|two| two[1].clone());
    let number = |name: &str, usual| value(name).map_or(usual, |n| n.parse().expect("a number"));
    let (devices, runs) = (number("--devices", 100_000_u32), number("--runs", 1_000_u32));
    let server = value("--server").unwrap_or_else(|| "target/server/cotter-fleet".to_owned());
    println!("{runs} runs of {devices} devices each\n");
    println!("| fleet, and the words after `cotter-fleet simulate` | result | goal |\n| --- | --- | --- |");
    let mut is_all_kept = true;
    for scenario in SCENARIOS {
        let (figures, is_kept) =
            (scenario.judge)(&simulated(&server, devices, runs, scenario.words), devices);
        let typed: Vec<String> = scenario
            .words
            .iter()
            .map(|word| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() })
            .collect();
        let missed = if is_kept { "" } else { " **missed**" };
        println!("| {}: `{}` | {figures} | {}{missed} |", scenario.what, typed.join(" "), scenario.goal);
        is_all_kept &= is_kept;
    }
    let longest = longest_decision(devices);
    let is_kept = longest < Duration::from_millis(50);
    let missed = if is_kept { "" } else { " **missed**" };
    println!(
        "| the longest of 20 decisions for {devices} devices | {} ms | < 50 ms{missed} |",
        longest.as_millis()
    );
    if is_all_kept && is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
