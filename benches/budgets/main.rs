//! The budgets of the design, measured: `make bench`.
//!
//! One run prints one table: Cotter, Debian's docker-compose and the engine alone do the same on the same
//! engine, in turns, with 1, 5 and 20 services; each figure is a median. `--quick` measures less and is good
//! for nothing but trying this program; `--updates` rests for seconds only; `--logs` measures the upload of logs only; `--memory` shows which mappings an
//! agent's memory at rest stands in, and no more than that; `--set KEY=VALUE` is one setting
//! more for every agent, to see what it does; `--note FILE` is where the bench writes which folder is to be
//! removed when it is ended from outside. Other words are passed over: cargo adds some.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    unreachable_pub,
    reason = "a bench fails by panicking, reads the real clocks, and its counts are small"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod compose;
mod device;
mod door;
mod engine;
mod figures;
mod logs;
mod pure;
mod table;

use std::time::{Duration, Instant};

use compose::Project;
use device::{Device, Rest};
use engine::{Events, Floor, Swap, request};
use figures::{median, most};
use support::{FleetServer, Lab, Program};
use table::Row;

/// How much is measured.
struct Size {
    services: Vec<usize>,
    /// Rounds of updates, for each number of services.
    rounds: Vec<usize>,
    rest: Duration,
    starts: usize,
}

/// The updates of one number of services.
#[derive(Default)]
struct Updates {
    cotter: Vec<(Swap, f64)>,
    compose: Vec<(Swap, f64)>,
    one_at_a_time: Vec<Swap>,
    four_at_a_time: Vec<Swap>,
}

fn main() {
    if std::env::args().any(|word| word == pure::WORD) {
        return pure::print();
    }
    let words: Vec<_> = std::env::args().collect();
    let is_said = |word: &str| words.iter().any(|said| said == word);
    let settings: Vec<_> = words.windows(2).filter(|two| two[0] == "--set").map(|two| &*two[1]).collect();
    let seconds = Duration::from_secs;
    let size = if is_said("--quick") {
        Size { services: vec![1, 5], rounds: vec![1, 1], rest: seconds(10), starts: 1 }
    } else if is_said("--updates") {
        Size { services: vec![1, 5, 20], rounds: vec![3, 3, 3], rest: seconds(3), starts: 1 }
    } else {
        Size { services: vec![1, 5, 20], rounds: vec![5, 5, 4], rest: seconds(60), starts: 5 }
    };
    let begun = Instant::now();
    let say = |what: &str| eprintln!("[{:4.0} s] {what}", begun.elapsed().as_secs_f64());
    let load = figures::load();

    say("planning and reading");
    let pure = pure::measure();
    let lab = Lab::new("bench");
    if let Some(note) = words.windows(2).find(|two| two[0] == "--note") {
        std::fs::write(&note[1], lab.dir().display().to_string()).expect("the note can be written");
    }
    let engine = lab.docker().socket().to_owned();
    let mut server = FleetServer::start(&lab);
    server.stop();
    server.poll_every("15min");
    server.start_again();

    let of_logs = logs::Size { rest: size.rest, rounds: size.rounds[0] };
    if is_said("--logs") {
        let rows = logs::rows(&lab, &mut server, &of_logs, &say);
        println!("\nload before {load}, after {}; {:.0} s\n", figures::load(), begun.elapsed().as_secs_f64());
        return table::print(&rows);
    }
    say("installing the devices");
    let install = |services: &usize| Device::install(&lab, &server, *services, &settings);
    let mut devices: Vec<_> = size.services.iter().map(install).collect();
    // After an update it looks once more, 5 s later.
    std::thread::sleep(seconds(6));
    if is_said("--memory") {
        return devices
            .iter_mut()
            .for_each(|device| table::print_mappings(device.services, &device.mappings()));
    }
    say("at rest, polls every 15 min");
    let rare = Device::rest(&mut devices, size.rest, false);
    say("looks that change nothing");
    let (calls, connections): (Vec<_>, Vec<_>) = devices.iter().map(|device| device.looks(5)).unzip();
    server.stop();
    server.poll_every("10s");
    server.start_again();
    devices.iter().for_each(Device::update);
    std::thread::sleep(seconds(6));
    say("at rest, polls every 10 s");
    let often = Device::rest(&mut devices, size.rest, true);
    server.stop();
    server.poll_every("15min");
    server.start_again();
    say("starts");
    let starts: Vec<_> = devices.iter_mut().map(|device| device.starts(&engine, size.starts)).collect();

    let (mut updates, mut later, mut behind) = (Vec::new(), Vec::new(), Vec::new());
    for (device, rounds) in devices.iter_mut().zip(&size.rounds) {
        say(&format!("{rounds} rounds of updates with {} services", device.services));
        updates.push(rounds_of(&lab, &server, device, *rounds));
        std::thread::sleep(seconds(6));
        later.push(device.pss_mib());
        let times: Vec<_> = (0..3).map(|_| device.behind_its_back(&lab)).collect();
        behind.push(median(&times));
    }
    let logs = logs::rows(&lab, &mut server, &of_logs, &say);
    let version = request(&engine, "GET", "/version", None).json();
    println!("\n{}", figures::machine(version["Version"].as_str().unwrap_or_default()));
    println!(
        "load before {load}, after {}; {:.0} s; updates: medians of {:?} rounds, all images are here; {settings:?}\n",
        figures::load(),
        begun.elapsed().as_secs_f64(),
        size.rounds
    );
    let mut rows = rows_of_rest(&rare, &often, &later, &calls, &connections, &starts);
    rows.extend(rows_of_updates(&updates));
    rows.push(Row::new("removed behind its back, back after, s", 2, behind).budget(&[1.0]));
    rows.extend(rows_of_decisions(&pure));
    rows.extend(logs);
    table::print(&rows);
}

/// All of them in turns; who begins changes with every round.
fn rounds_of(lab: &Lab, server: &FleetServer, device: &mut Device<'_>, rounds: usize) -> Updates {
    let services = device.services;
    let project = Project::install(lab, services);
    let instance = lab.instance(&format!("floor{services}"));
    let mut floor = Floor::start(lab.docker().socket(), &instance, services, lab.image("r2"));
    let events = Events::listen(lab.docker().socket(), &instance);
    let mut updates = Updates::default();
    for round in 0..rounds {
        let to = round % 2;
        for turn in 0..3 {
            match (round + turn) % 3 {
                0 => updates.cotter.push(device.switch(server, to)),
                1 => updates.compose.push(project.switch(to)),
                _ => {
                    for at_once in [1, 4] {
                        let from = floor.swap(lab.image(["r1", "r2"][to]), at_once);
                        let swap = events.swap(from, services);
                        if at_once == 1 {
                            updates.one_at_a_time.push(swap)
                        } else {
                            updates.four_at_a_time.push(swap)
                        }
                    }
                }
            }
        }
        let output = |swap: &Swap| format!("{:.2} ({:.2})", swap.whole, median(&swap.down));
        eprintln!(
            "         whole and down, s: Cotter {}, compose {}, engine {} and {}; computed, ms: {:.0}, {:.0}",
            output(&updates.cotter[round].0),
            output(&updates.compose[round].0),
            output(&updates.one_at_a_time[round]),
            output(&updates.four_at_a_time[round]),
            updates.cotter[round].1,
            updates.compose[round].1,
        );
    }
    updates
}

fn rows_of_rest(
    rare: &[Rest],
    often: &[Rest],
    later: &[f64],
    calls: &[f64],
    connections: &[f64],
    starts: &[f64],
) -> Vec<Row> {
    let binary = std::fs::metadata(Program::binary()).map_or(0, |file| file.len());
    let of = |rests: &[Rest], figure: fn(&Rest) -> f64| rests.iter().map(figure).collect::<Vec<_>>();
    let poll =
        |which: fn((f64, f64)) -> f64| often.iter().filter_map(|r| r.poll.map(which)).collect::<Vec<_>>();
    vec![
        Row::new("release binary, MiB", 2, [binary as f64 / 1024.0 / 1024.0]).budget(&[7.0]),
        Row::new("memory at rest (PSS), MiB", 1, of(rare, |r| r.pss_mib)).budget(&[7.0, 7.0, 8.0]),
        Row::new("memory after the updates (PSS), MiB", 1, later).budget(&[8.0, 8.0, 9.5]),
        Row::new("computed at rest, polls every 15 min, ms", 2, of(rare, |r| r.computed_ms)).budget(&[1.0]),
        Row::new("  with polls every 10 s, ms", 2, of(often, |r| r.computed_ms)),
        Row::new("engine calls at rest", 0, of(often, |r| r.calls)).budget(&[0.0]),
        Row::new("written to disk at rest, bytes", 0, of(often, |r| r.written)).budget(&[0.0]),
        Row::new("a poll without news, bytes up", 0, poll(|(up, _)| up)).budget(&[250.0]),
        Row::new("a poll without news, bytes down", 0, poll(|(_, down)| down)).budget(&[150.0]),
        Row::new("engine calls of an idle look", 0, calls).budget(&[4.0]),
        Row::new("connections of an idle look", 0, connections).budget(&[1.0]),
        Row::new("start to first poll answered, s", 3, starts).budget(&[0.05]),
    ]
}

fn rows_of_updates(updates: &[Updates]) -> Vec<Row> {
    let each = |figure: &dyn Fn(&Updates) -> f64| updates.iter().map(figure).collect::<Vec<_>>();
    let whole = |swaps: &mut dyn Iterator<Item = &Swap>| median(&swaps.map(|s| s.whole).collect::<Vec<_>>());
    let down = |swaps: &mut dyn Iterator<Item = &Swap>| {
        median(&swaps.flat_map(|s| s.down.clone()).collect::<Vec<_>>())
    };
    let longest =
        |swaps: &mut dyn Iterator<Item = &Swap>| median(&swaps.map(|s| most(&s.down)).collect::<Vec<_>>());
    let computed = |of: &[(Swap, f64)]| median(&of.iter().map(|(_, ms)| *ms).collect::<Vec<_>>());
    let cotter = |u: &Updates| u.cotter.iter().map(|(swap, _)| swap.clone()).collect::<Vec<_>>();
    let compose = |u: &Updates| u.compose.iter().map(|(swap, _)| swap.clone()).collect::<Vec<_>>();
    let ratio =
        |ours: &[f64], theirs: &[f64]| ours.iter().zip(theirs).map(|(a, b)| a / b).collect::<Vec<_>>();

    let ours_whole = each(&|u| whole(&mut cotter(u).iter()));
    let ours_down = each(&|u| down(&mut cotter(u).iter()));
    let theirs_whole = each(&|u| whole(&mut compose(u).iter()));
    let theirs_down = each(&|u| down(&mut compose(u).iter()));
    let floor_down = each(&|u| down(&mut u.one_at_a_time.iter()));
    vec![
        Row::new("update: switch to all new running, s", 2, ours_whole.clone())
            .compose(theirs_whole.clone())
            .floor(each(&|u| whole(&mut u.four_at_a_time.iter())))
            .budget(&[0.6, 1.5, 5.0]),
        Row::new("  (engine: one at a time)", 2, []).floor(each(&|u| whole(&mut u.one_at_a_time.iter()))),
        Row::new("update: a service down, median, s", 2, ours_down.clone())
            .compose(theirs_down.clone())
            .floor(floor_down.clone())
            .budget(&[0.35, 0.35, 0.6]),
        Row::new("  (engine: four at a time)", 2, []).floor(each(&|u| down(&mut u.four_at_a_time.iter()))),
        Row::new("update: a service down, longest, s", 2, each(&|u| longest(&mut cotter(u).iter())))
            .compose(each(&|u| longest(&mut compose(u).iter())))
            .floor(each(&|u| longest(&mut u.one_at_a_time.iter()))),
        Row::new("update: computed, ms", 0, each(&|u| computed(&u.cotter)))
            .compose(each(&|u| computed(&u.compose)))
            .budget(&[30.0, 60.0, 150.0]),
        Row::new("update time as a part of compose's", 2, ratio(&ours_whole, &theirs_whole))
            .budget(&[0.57, 0.68, 0.79]),
        Row::new("time down as a part of compose's", 2, ratio(&ours_down, &theirs_down))
            .budget(&[1.0, 0.36, 0.2]),
        Row::new("time down, times the engine's one at a time", 2, ratio(&ours_down, &floor_down))
            .budget(&[1.3]),
    ]
}

fn rows_of_decisions(pure: &pure::Pure) -> Vec<Row> {
    vec![
        Row::new("a plan for 100 services, 20 change, ms", 2, [pure.plan_ms]).budget(&[5.0]),
        Row::new("  with its check and the report, ms", 2, [pure.decide_ms]),
        Row::new("reading a target of 1 MB, 200 services, ms", 1, [pure.parse_ms]).budget(&[50.0]),
        Row::new("  memory for it at its peak, MiB", 1, [pure.parse_mib]).budget(&[20.0]),
    ]
}
