//! Figures of processes, from `/proc`, and what is made of several.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Ticks a second of `/proc/PID/stat`; 100 on every architecture that Linux runs Debian on.
const TICKS: f64 = 100.0;

/// The middle of `values`; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// The largest of `values`; 0 of none.
pub fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// Adds up what the threads of a process compute, those that end meanwhile among them.
pub struct Meter {
    is_over: Arc<AtomicBool>,
    counting: JoinHandle<f64>,
}

impl Meter {
    /// Begins to count. A thread that begins and ends within 0.5 s is missed.
    pub fn start(pid: u32) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let output = Arc::clone(&is_over);
        let before = computed(pid);
        let counting = std::thread::spawn(move || {
            let mut last = before.clone();
            loop {
                let is_last = output.load(Ordering::SeqCst);
                last.extend(computed(pid));
                if is_last {
                    break;
                }
                std::thread::park_timeout(Duration::from_millis(500));
            }
            let sum: u64 = last.iter().map(|(task, ns)| ns - before.get(task).unwrap_or(&0)).sum();
            sum as f64 / 1e6
        });
        Self { is_over, counting }
    }

    /// Milliseconds since the start.
    pub fn stop(self) -> f64 {
        self.is_over.store(true, Ordering::SeqCst);
        self.counting.thread().unpark();
        self.counting.join().expect("counting does not fail")
    }
}

/// Nanoseconds that each thread of a process has computed.
fn computed(pid: u32) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let tasks = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let ns = text.split_whitespace().next()?.parse().ok()?;
        Some((task.file_name().to_string_lossy().into_owned(), ns))
    });
    tasks.collect()
}

/// Milliseconds that the children of this process have computed that were waited for, and theirs;
/// in steps of 10.
pub fn of_children() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("this process runs");
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number of ticks");
    (ticks(13) + ticks(14)) * 1000.0 / TICKS
}

/// A field of `/proc/PID/status`, in KiB.
pub fn status_kib(field: &str) -> f64 {
    let text = fs::read_to_string("/proc/self/status").expect("this process runs");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()).unwrap_or_default();
    number.parse().unwrap_or_else(|_| panic!("no {field} in {text}"))
}

/// A part of a process's memory, and how much of it is in memory, KiB.
pub struct Mapping {
    /// File and permissions, or what the kernel calls it.
    pub what: String,
    pub size: u64,
    pub pss: u64,
    pub dirty: u64,
}

/// What the memory of a process stands in.
pub fn mappings(pid: u32) -> Vec<Mapping> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("the process runs");
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let kib = words.get(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
        match (words[0], mappings.last_mut()) {
            ("Size:", Some(last)) => last.size = kib,
            ("Pss:", Some(last)) => last.pss = kib,
            ("Private_Dirty:", Some(last)) => last.dirty = kib,
            (word, _) if word.ends_with(':') => {}
            _ => {
                let file = words.get(5).map_or("(no file)", |path| path.rsplit('/').next().unwrap_or(path));
                mappings.push(Mapping { what: format!("{file} {}", words[1]), size: 0, pss: 0, dirty: 0 });
            }
        }
    }
    mappings
}

/// The machine in a line.
pub fn machine(engine: &str) -> String {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = text("/proc/cpuinfo");
    let model = cpus.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ")).map(|(_, m)| m);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = text("/proc/meminfo");
    let memory = memory.lines().next().and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok());
    format!(
        "{cores} cores ({}), {:.1} GiB, Linux {}, Docker {engine}",
        model.unwrap_or(std::env::consts::ARCH),
        memory.unwrap_or_default() / 1024.0 / 1024.0,
        text("/proc/sys/kernel/osrelease").trim(),
    )
}

/// Load of the machine: over one minute, five, fifteen.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
