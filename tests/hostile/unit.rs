//! The limits of a shipped unit, put on a process without systemd: a control group of its own, or what `ulimit` can.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::Program;

const GROUPS: &str = "/sys/fs/cgroup";
/// What the groups of these tests are called: this, the test's process, a number.
const PREFIX: &str = "cotter-hostile";

/// What a unit file allows its process.
#[derive(Debug, Clone)]
struct Limits {
    /// `MemoryMax`, in bytes.
    memory: u64,
    /// `TasksMax`.
    tasks: u64,
    /// `LimitNOFILE`; where it says none, systemd's own 1024.
    files: u64,
    /// `Environment`.
    variables: Vec<PathBuf>,
}

impl Limits {
    #[track_caller]
    fn of(unit: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(unit);
        let text = fs::read_to_string(path).expect("the unit is shipped");
        let all = |key: &str| -> Vec<String> {
            let values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            values.map(str::to_owned).collect()
        };
        let one = |key: &str| all(key).last().cloned();
        let number =
            |key: &str| one(key).map(|n| n.parse().unwrap_or_else(|e| panic!("{unit}: {key}={n}: {e}")));
        let memory = one("MemoryMax").expect("the unit bounds memory");
        let mebibytes = memory.strip_suffix('M').and_then(|m| m.parse::<u64>().ok());
        let variables = all("Environment");
        Self {
            memory: mebibytes.unwrap_or_else(|| panic!("{unit}: MemoryMax={memory} is no number of M")) << 20,
            tasks: number("TasksMax").expect("the unit bounds tasks"),
            files: number("LimitNOFILE").unwrap_or(1024),
            variables: variables.iter().flat_map(|v| v.split_whitespace()).map(PathBuf::from).collect(),
        }
    }
}

/// The limits of a unit, for one process. Drop it after the process has ended.
#[derive(Debug)]
pub struct Cage {
    limits: Limits,
    /// One group for memory and tasks (v2), or one for each (v1); none where groups cannot be made.
    memory: Option<PathBuf>,
    tasks: Option<PathBuf>,
}

impl Cage {
    /// The limits of a unit file in `systemd`.
    #[track_caller]
    pub fn of(unit: &str) -> Self {
        static CAGES: AtomicU32 = AtomicU32::new(0);
        let limits = Limits::of(unit);
        let name = format!("{PREFIX}-{}-{}", std::process::id(), CAGES.fetch_add(1, Ordering::Relaxed));
        let root = Path::new(GROUPS);
        let is_v2 = root.join("cgroup.controllers").exists();
        let (memory, tasks) = if is_v2 {
            // They may be enabled already.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory +pids");
            let group = group(root, &name, &[("memory.max", limits.memory), ("pids.max", limits.tasks)]);
            (group.clone(), group)
        } else {
            let memory = group(&root.join("memory"), &name, &[("memory.limit_in_bytes", limits.memory)]);
            (memory, group(&root.join("pids"), &name, &[("pids.max", limits.tasks)]))
        };
        if memory.is_none() {
            eprintln!("no control group can be made here: {unit} is limited by `ulimit -v` instead");
        }
        Self { limits, memory, tasks }
    }

    /// The words that put a command behind them into the cage.
    pub fn words(&self) -> Vec<PathBuf> {
        let mut script = String::new();
        for group in [&self.memory, &self.tasks].into_iter().flatten() {
            script += &format!("echo $$ >{}/cgroup.procs && ", group.display());
        }
        if self.memory.is_none() {
            script += &format!("ulimit -v {} && ", self.limits.memory >> 10);
        }
        // A machine of a CI may allow fewer than the unit asks for: then all that it allows.
        let files = self.limits.files;
        script += &format!(
            "{{ ulimit -n {files} 2>/dev/null || ulimit -n \"$(ulimit -Hn)\"; }} && exec env \"$@\""
        );
        let words = ["sh", "-c", &script, "sh"].map(PathBuf::from);
        words.into_iter().chain(self.limits.variables.clone()).collect()
    }

    /// Asserts that the process lives, was never near its end for want of memory, and says how much it took.
    #[track_caller]
    pub fn assert_held(&self, program: &mut Program) {
        assert!(program.is_running(), "it has ended: {}", program.log());
        let peak = peak_of(program.id());
        assert!(peak < self.limits.memory, "it took {} MiB", peak >> 20);
        assert_eq!(self.killed(), 0, "the kernel killed it for want of memory");
    }

    /// How often the kernel killed something in it for want of memory.
    fn killed(&self) -> u64 {
        let Some(group) = &self.memory else { return 0 };
        let texts = ["memory.oom_control", "memory.events"].map(|name| fs::read_to_string(group.join(name)));
        let text = texts.into_iter().flatten().next().expect("a group tells what was killed in it");
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|n| n.parse().ok()).expect("a number")
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        for group in [&self.memory, &self.tasks].into_iter().flatten() {
            // A process that was reaped just now may still be counted.
            for _ in 0..50 {
                if fs::remove_dir(group).is_ok() || !group.exists() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}

/// The file system of `systemd/run-cotter-services.mount` over a folder; gone when dropped.
#[derive(Debug)]
pub struct LockSpace {
    folder: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// How many files and folders it takes.
    pub files: u64,
}

impl LockSpace {
    #[track_caller]
    pub fn over(folder: &Path) -> Self {
        let unit = include_str!("../../systemd/run-cotter-services.mount");
        let options =
            unit.lines().find_map(|line| line.strip_prefix("Options=")).expect("the unit has options");
        let option = |name: &str| options.split(',').find_map(|option| option.strip_prefix(name));
        let size = option("size=").and_then(|size| size.strip_suffix('M')?.parse::<u64>().ok());
        let files = option("nr_inodes=").and_then(|files| files.parse().ok());
        fs::create_dir_all(folder).expect("a folder to mount over");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder);
        assert!(mount.status().expect("mount runs").success(), "{options} cannot be mounted; are you root?");
        Self {
            folder: folder.to_owned(),
            size: size.expect("a size in MiB") << 20,
            files: files.expect("a number of files"),
        }
    }
}

impl Drop for LockSpace {
    fn drop(&mut self) {
        // Containers that still run keep what they see of it until they end.
        let ended = Command::new("umount").arg("--lazy").arg(&self.folder).status();
        if !ended.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.folder.display());
        }
    }
}

/// The most memory that a process had at a time, in bytes.
#[track_caller]
pub fn peak_of(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kibibytes.expect("a number of kB") << 10
}

/// A new group below `parent` with these limits; `None` where this process may not.
fn group(parent: &Path, name: &str, limits: &[(&str, u64)]) -> Option<PathBuf> {
    remove_remains(parent);
    let group = parent.join(name);
    fs::create_dir(&group).ok()?;
    let is_set = limits.iter().all(|(file, limit)| fs::write(group.join(file), limit.to_string()).is_ok());
    if !is_set {
        // It is of no use.
        let _ = fs::remove_dir(&group);
    }
    is_set.then_some(group)
}

/// Removes the groups of tests that were killed.
fn remove_remains(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // One that is not empty is still in use.
            let _ = fs::remove_dir(entry.path());
        }
    }
}
