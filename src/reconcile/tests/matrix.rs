//! The fault matrix: every boundary between two effects of an update, times every fault.
//!
//! A boundary is an engine call or a write of the store. A fault comes right before or right after it.
//! Then the device is left alone, and in the end exactly the right release runs and all is at rest.
//! Everything is on the fake engine and a paused clock.
//!
//! `COTTER_FAULT=SCENARIO/FAULT/INDEX` runs one cell and prints what is said meanwhile, `SCENARIO/FAULT`
//! and `SCENARIO` all cells of it. `COTTER_FAULTS=all` runs every cell, as `make faults` does; else every
//! [`STRIDE`]-th runs, beginning with one that depends on the row and the column.
//!
//! What the fake cannot show is left to the real engine (`tests/faults`): it has no containers of
//! others, only their images, and no call that could remove a volume.

mod cell;
mod fault;
mod scenario;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fault::{End, FAULTS, Fault, Place, places, right};
use scenario::{SCENARIOS, Scenario};

/// Which share of the cells runs unless all are asked for.
const STRIDE: usize = 6;

thread_local! {
    /// What was said as an error in this thread.
    static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Hears what is said; of what is no error, only when `is_loud`.
struct Ear {
    is_loud: bool,
}

impl tracing::Subscriber for Ear {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        let most = if self.is_loud { tracing::Level::INFO } else { tracing::Level::ERROR };
        metadata.is_event() && *metadata.level() <= most
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                let _ = write!(self.0, "{}={value:?} ", field.name());
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        if self.is_loud {
            println!("{} {}", event.metadata().level(), line.0);
        }
        if *event.metadata().level() == tracing::Level::ERROR {
            SAID.with_borrow_mut(|said| said.push(line.0));
        }
    }
}

/// A runtime on a paused clock, for one cell.
fn on_paused_clock<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(run)
}

/// A cell that is to run.
struct Task {
    scenario: &'static Scenario,
    fault: Fault,
    column: &'static str,
    index: usize,
    place: Place,
}

impl Task {
    /// Runs it: which end it came to, or what is wrong.
    fn run(&self) -> Result<End, String> {
        let run = |fault, unmoved: Option<&[String]>| {
            on_paused_clock(cell::run(self.scenario, fault, self.place, unmoved))
        };
        let is_clock = matches!(self.fault, Fault::TenYearsAhead | Fault::TenYearsBack);
        let unmoved = if is_clock { Some(run(Fault::Nothing, None)?.0) } else { None };
        run(self.fault, unmoved.as_deref()).map(|(_, end)| end)
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own settings")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The cells that are wanted.
fn tasks(only: Option<&str>, stride: usize) -> Vec<Task> {
    let wanted: Vec<&str> = only.map(|only| only.split('/').collect()).unwrap_or_default();
    let is_wanted = |at: usize, name: &str| wanted.get(at).is_none_or(|word| *word == name);
    let mut tasks = Vec::new();
    for (row, scenario) in SCENARIOS.iter().enumerate().filter(|(_, s)| is_wanted(0, s.name)) {
        let measure = on_paused_clock(cell::measure(scenario));
        for (at, (fault, column)) in FAULTS.iter().enumerate().filter(|(_, (_, name))| is_wanted(1, name)) {
            if scenario.leaves_out(*fault) {
                continue;
            }
            let all = places(*fault, &measure);
            let chosen = all.into_iter().enumerate().skip((row + at) % stride).step_by(stride);
            for (index, place) in chosen.filter(|(index, _)| is_wanted(2, &index.to_string())) {
                tasks.push(Task { scenario, fault: *fault, column, index, place });
            }
        }
    }
    tasks
}

/// By their place among the tasks: what is wrong, and which other end than the right one came.
type Failed = Vec<(usize, String)>;
type Others = Vec<(usize, End)>;

/// Runs cells on two threads: what failed, in the order of the cells, and what came to another end than
/// the right one.
fn run(tasks: &[Task], is_loud: bool) -> (Failed, Others) {
    let (next, failed, others) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let _heard = tracing::subscriber::set_default(Ear { is_loud });
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(at) else { return };
                    match task.run() {
                        Ok(end) if end == right(task.scenario, task.fault) => {}
                        Ok(end) => others.lock().unwrap().push((at, end)),
                        Err(why) => failed.lock().unwrap().push((at, why)),
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    (failed, others.into_inner().unwrap())
}

/// The number of tried cells for which `is_it` holds, and how many of them failed.
fn counted(tasks: &[Task], failed: &[(usize, String)], is_it: impl Fn(&Task) -> bool) -> String {
    let tried = tasks.iter().filter(|task| is_it(task)).count();
    let bad = failed.iter().filter(|(at, _)| is_it(&tasks[*at])).count();
    match (tried, bad) {
        (0, _) => "-".to_owned(),
        (tried, 0) => tried.to_string(),
        (tried, bad) => format!("{bad} of {tried} BAD"),
    }
}

/// For each fault and scenario the cells that were tried, all well unless it says otherwise.
fn table(tasks: &[Task], failed: &[(usize, String)]) -> String {
    let mut text = format!("{:<23}", "cells, all well");
    for (_, name) in FAULTS {
        let _ = write!(text, " {name:>17}");
    }
    for scenario in SCENARIOS {
        let _ = write!(text, "\n{:<23}", scenario.name);
        for (_, column) in FAULTS {
            let is_it = |task: &Task| task.scenario.name == scenario.name && task.column == *column;
            let _ = write!(text, " {:>17}", counted(tasks, failed, is_it));
        }
    }
    text
}

/// The same, shorter: scenarios of a kind together.
fn summary(tasks: &[Task], failed: &[(usize, String)]) -> String {
    const KINDS: &[&str] = &["install", "update", "way-back", "rollback"];
    let mut text =
        "| fault | install | update | rollback after a rejection | rollback by hand |\n| --- | --- | --- | --- | --- |"
            .to_owned();
    for (_, column) in FAULTS {
        let _ = write!(text, "\n| {column} |");
        for kind in KINDS {
            let is_it = |task: &Task| task.scenario.name.starts_with(kind) && task.column == *column;
            let _ = write!(text, " {} |", counted(tasks, failed, is_it));
        }
    }
    text
}

#[test]
fn after_any_fault_at_any_boundary_exactly_one_release_runs() {
    let only = setting("COTTER_FAULT");
    let is_all = only.is_some() || setting("COTTER_FAULTS").is_some_and(|value| value == "all");
    let tasks = tasks(only.as_deref(), if is_all { 1 } else { STRIDE });
    assert!(!tasks.is_empty(), "COTTER_FAULT={only:?} names no cell");
    let (failed, others) = run(&tasks, tasks.len() == 1);
    println!("{}\n\n{}", table(&tasks, &failed), summary(&tasks, &failed));
    println!("\n{} cells on the fake engine, {} of them not well", tasks.len(), failed.len());
    for (fault, name) in FAULTS {
        let of_fault = others.iter().filter(|(at, _)| tasks[*at].fault == *fault);
        let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
        of_fault.for_each(|(_, end)| *ends.entry(end.described()).or_default() += 1);
        ends.iter().for_each(|(end, count)| println!("{name}: in {count} cells {end}"));
    }
    for (at, why) in failed.iter().take(40) {
        let Task { scenario, column, index, place, .. } = &tasks[*at];
        println!("COTTER_FAULT={}/{column}/{index} ({place:?}): {why}", scenario.name);
    }
    assert!(failed.is_empty(), "{} cells are not well", failed.len());
}
