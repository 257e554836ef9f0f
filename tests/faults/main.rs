//! The fault matrix on real parts: the real agent, a private dockerd, a private registry, and a fault at a
//! random moment of each update. After each, without anybody's help, exactly one release runs.
//!
//! `COTTER_FAULT_SEED` repeats a run's choices, `COTTER_FAULT_SECONDS` says how long it goes on. The
//! moments themselves depend on the machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads the clock and its settings"
)]

#[path = "../support/mod.rs"]
mod support;

mod drift;
mod engine;
mod registry;
mod scene;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::PrivateEngine;
use scene::{Fault, Scene};
use support::{Chance, Lab, Parts, number};

/// How long faults go on unless `COTTER_FAULT_SECONDS` says otherwise.
const SECONDS: u64 = 75;

/// What became of the rounds of one fault.
#[derive(Debug, Default)]
struct Tally {
    rounds: u32,
    mid_update: u32,
    new: u32,
    old: u32,
}

fn is_root() -> bool {
    let id = std::process::Command::new("id").arg("-u").output().expect("id runs");
    id.stdout.trim_ascii() == b"0"
}

#[test]
fn a_fault_at_any_moment_leaves_exactly_one_release() {
    if !is_root() {
        println!("skipped: only root can start an engine of its own");
        return;
    }
    let (mut chance, seed) = Chance::seeded("COTTER_FAULT_SEED");
    let seconds = number("COTTER_FAULT_SECONDS").unwrap_or(SECONDS);
    println!("COTTER_FAULT_SEED={seed} COTTER_FAULT_SECONDS={seconds}");
    let shared = Parts::ensure();
    let has_bridge = || std::path::Path::new("/sys/class/net/docker0").exists();
    let had_bridge = has_bridge();
    let mut engine = PrivateEngine::start(&shared.docker);
    let mut lab = Lab::new("faults");
    lab.parts.docker = engine.docker().clone();
    let mut scene = Scene::set(&lab, &mut engine);
    let mut tally: BTreeMap<&str, Tally> = BTreeMap::new();
    let (begun, mut order) = (Instant::now(), Vec::new());
    let mut rounds: u32 = 0;
    // A store that was full is written again after a minute, so the first rounds may take all the time.
    while begun.elapsed() < Duration::from_secs(seconds) || rounds < 3 {
        rounds += 1;
        if order.is_empty() {
            // Every fault once, in an order of chance, then again.
            order = Fault::ALL.to_vec();
            for at in (1..order.len()).rev() {
                order.swap(at, usize::try_from(chance.below(at as u64 + 1)).unwrap());
            }
        }
        let (fault, name) = order.pop().expect("one is left");
        let wanted = scene.choose(chance.below(3));
        let moment = Duration::from_millis(chance.below(3500));
        let length = Duration::from_millis(500 + chance.below(3500));
        println!("{:>4} s: {name} at {moment:?} of an update to {wanted}", begun.elapsed().as_secs());
        let is_mid_update = scene.strike(fault, wanted, moment, length);
        let end = scene.until_at_rest(wanted, fault);
        let answer = tally.entry(name).or_default();
        answer.rounds += 1;
        answer.mid_update += u32::from(is_mid_update);
        *(if end == wanted { &mut answer.new } else { &mut answer.old }) += 1;
    }
    scene.check_log();
    assert_eq!(has_bridge(), had_bridge, "the bridge of the shared engine was touched");
    println!(
        "\n| fault, real engine | rounds, all well | in the middle of the update | the new release runs | the old one |"
    );
    println!("| --- | --- | --- | --- | --- |");
    for (name, Tally { rounds, mid_update, new, old }) in &tally {
        println!("| {name} | {rounds} | {mid_update} | {new} | {old} |");
    }
    println!("\n{rounds} rounds on a real engine in {} s, all of them well", begun.elapsed().as_secs());
}
