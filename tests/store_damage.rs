//! The agent meets a damaged, lost, read-only or full store: it starts, says what it did, restarts
//! no container, and knows its release again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cotter::model::Identity;
use cotter::store::Store;
use support::{Agent, Fleet, FleetServer, Lab, eventually, stays};

/// How long an agent may take to know its release again.
const TO_KNOW: Duration = Duration::from_secs(20);

/// A device that runs r1, its agent stopped and what it remembered kept.
struct Scene<'lab> {
    lab: &'lab Lab,
    server: FleetServer,
    fleet: Fleet,
    agent: Agent<'lab>,
    golden: PathBuf,
    identity: Identity,
    /// The container as it ran before anything was damaged.
    standing: Vec<(String, String, i64)>,
}

impl<'lab> Scene<'lab> {
    fn new(lab: &'lab Lab) -> Self {
        let server = FleetServer::start(lab);
        let fleet = server.create_fleet(lab, "lab");
        server.create_release(&fleet, "commit-r1", &compose(lab, "r1"));
        let mut agent = Agent::start(lab, &server, &fleet, "a");
        agent.until_serves("web", "commit-r1", "r1");
        until_current(&agent, "commit-r1");
        assert!(agent.stop().success());
        let golden = lab.dir().join("golden");
        copy_folder(&agent.state_dir(), &golden);
        let copy = lab.dir().join("copy");
        copy_folder(&golden, &copy);
        let identity = Store::open(&copy).unwrap().0.load().identity.expect("it has one");
        let standing = agent.standing();
        assert_eq!(standing.len(), 1);
        Self { lab, server, fleet, agent, golden, identity, standing }
    }

    /// The store as it was, before `damage` is done to it.
    fn restore(&self) {
        let _may_be_a_file = fs::remove_file(self.agent.state_dir());
        let _may_be_gone = fs::remove_dir_all(self.agent.state_dir());
        copy_folder(&self.golden, &self.agent.state_dir());
    }

    /// What the agent says from its start until it knows `commit` again; then it is cut.
    fn recovers(&mut self, what: &str) -> String {
        let before = self.agent.log().len();
        self.agent.start_again();
        until_current(&self.agent, "commit-r1");
        let uuid = self.agent.status().unwrap()["device"]["uuid"].as_str().unwrap().to_owned();
        self.agent.cut();
        assert_eq!(uuid, self.identity.uuid.as_str(), "{what}: the device is another one");
        assert_eq!(self.agent.standing(), self.standing, "{what}: a container was touched");
        self.agent.log()[before..].to_owned()
    }

    /// The agent does not start; its exit code and what it says.
    fn refuses(&mut self) -> (Option<i32>, String) {
        let before = self.agent.log().len();
        self.agent.start_again();
        let status = self.agent.program().ended(Duration::from_secs(60));
        self.agent.cut();
        assert_eq!(self.agent.standing(), self.standing, "a container was touched");
        (status.code(), self.agent.log()[before..].to_owned())
    }

    /// Settings that name the device and its key.
    fn name_the_device(&self) {
        let key = self.lab.file("device.key", &self.identity.device_key);
        let text = fs::read_to_string(self.agent.settings_file()).unwrap();
        let named = format!("{text}uuid = \"{}\"\ndevice_key_file = {key:?}\n", self.identity.uuid);
        self.agent.write_settings(&named);
    }

    fn devices(&self) -> usize {
        self.server.cli_json(&["device", "list"])["devices"].as_array().unwrap().len()
    }
}

fn compose(lab: &Lab, release: &str) -> PathBuf {
    let more = "stop_grace_period: 2s\nlabels: { io.cotter.trial.soak: 1s }";
    lab.compose(&format!("{release}.yml"), &[("web", release)], more)
}

fn until_current(agent: &Agent<'_>, commit: &str) {
    let what = format!("{commit} is current");
    eventually(&what, TO_KNOW, || agent.app().filter(|app| app["current"] == commit));
}

fn copy_folder(from: &Path, to: &Path) {
    if !to.exists() {
        fs::create_dir(to).unwrap();
    }
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let onto = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &onto);
        } else {
            fs::copy(entry.path(), onto).unwrap();
        }
    }
}

/// The files below `dir`, as paths within it.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = PathBuf::from(entry.file_name());
        if entry.path().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|file| name.join(file)));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// One way to damage a file.
type Damage = (&'static str, fn(&Path));

fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn flip(bytes: &mut [u8], at: usize) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 0x10;
    }
}

const DAMAGES: [Damage; 9] = [
    ("delete", |path| fs::remove_file(path).unwrap()),
    ("empty", |path| rewrite(path, Vec::clear)),
    ("half", |path| rewrite(path, |bytes| bytes.truncate(bytes.len() / 2))),
    ("less 5 bytes", |path| rewrite(path, |bytes| bytes.truncate(bytes.len().saturating_sub(5)))),
    ("first block zero", |path| rewrite(path, |bytes| bytes.iter_mut().take(512).for_each(|b| *b = 0))),
    ("all zero", |path| rewrite(path, |bytes| bytes.fill(0))),
    ("bit in the first bytes", |path| rewrite(path, |bytes| flip(bytes, 3))),
    ("bits in each KiB", |path| {
        rewrite(path, |bytes| (100..bytes.len()).step_by(1024).for_each(|at| flip(bytes, at)));
    }),
    ("last bit", |path| {
        rewrite(path, |bytes| {
            let last = bytes.len().saturating_sub(2);
            flip(bytes, last);
        });
    }),
];

/// Returns `true` if the agent logged that a file of the store was damaged.
fn is_logged(log: &str) -> bool {
    let words = ["set the database aside", "rebuilt the database", "lost mirror", "took the mirror"];
    log.lines().any(|line| line.contains("WARN") && words.iter().any(|word| line.contains(word)))
}

#[test]
fn any_file_of_the_store_may_be_damaged_in_any_way() {
    let lab = Lab::new("damage");
    let mut scene = Scene::new(&lab);
    // Its cloud is stopped, so what it knows it has from its store.
    scene.server.stop();
    let files = files(&scene.golden);
    assert!(files.contains(&"db/db".into()) && files.contains(&"mirror-a.json".into()), "{files:?}");
    let mut unlogged = Vec::new();
    for file in &files {
        for (name, damage) in DAMAGES {
            let what = format!("{}: {name}", file.display());
            scene.restore();
            damage(&scene.agent.state_dir().join(file));
            let log = scene.recovers(&what);
            assert!(!log.contains("panicked"), "{what}: {log}");
            if !is_logged(&log) {
                unlogged.push(what);
            }
        }
    }
    println!("{} files, {} ways each; no word on: {unlogged:#?}", files.len(), DAMAGES.len());
    let of_mirrors = unlogged.iter().filter(|what| what.contains("mirror")).count();
    assert_eq!(of_mirrors, 0, "any change of a mirror is seen: {unlogged:?}");
    let of_database = unlogged.iter().filter(|what| what.starts_with("db/db:")).count();
    assert!(of_database <= 3, "only what sled does not use may be damaged unseen: {unlogged:?}");
    assert_eq!(scene.lab.docker().containers(scene.agent.instance()).len(), 1);

    // The database with both mirrors gone, and each of the two with the database gone.
    for lost in [&["mirror-a.json", "mirror-b.json"][..], &["db", "mirror-a.json"], &["db", "mirror-b.json"]]
    {
        scene.restore();
        for name in lost {
            let path = scene.agent.state_dir().join(name);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        let log = scene.recovers(&format!("without {lost:?}"));
        assert!(is_logged(&log), "{log}");
    }
}

#[test]
fn a_lost_store_restarts_nothing() {
    let lab = Lab::new("lost");
    let mut scene = Scene::new(&lab);
    let (code, said) = {
        fs::remove_dir_all(scene.agent.state_dir()).unwrap();
        fs::write(scene.agent.state_dir(), "not a folder").unwrap();
        scene.refuses()
    };
    assert_eq!(code, Some(75), "{said}");
    let dir = scene.agent.state_dir().display().to_string();
    let error = said.lines().find(|line| line.contains(&dir)).expect("it names the folder");
    assert!(error.contains("is not a folder: move that file away"), "{said}");
    fs::remove_file(scene.agent.state_dir()).unwrap();

    // Named by its settings it is the same device, though nothing is left of its memory.
    let plain = fs::read_to_string(scene.agent.settings_file()).unwrap();
    scene.name_the_device();
    scene.server.stop();
    scene.agent.start_again();
    eventually("it runs", TO_KNOW, || scene.agent.status());
    let standing = scene.standing.clone();
    stays("containers without a target", Duration::from_secs(3), || {
        assert_eq!(scene.agent.standing(), standing);
        scene.agent.status().unwrap()["has_target"].clone()
    });
    assert_eq!(scene.agent.status().unwrap()["has_target"], false);
    scene.agent.cut();
    fs::remove_dir_all(scene.agent.state_dir()).unwrap();
    scene.server.start_again();
    scene.recovers("settings name the device");
    assert_eq!(scene.devices(), 1);

    // Without that it needs a key again: the one that it registered with is gone.
    fs::remove_dir_all(scene.agent.state_dir()).unwrap();
    scene.agent.write_settings(&plain);
    let (code, said) = scene.refuses();
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("provisioning.key cannot be used: No such file or directory"), "{said}");
    assert_eq!(scene.agent.standing(), scene.standing);

    // With one it is a new device, which leaves alone what runs until it has a target.
    scene.agent.give_key(&scene.fleet);
    scene.server.stop();
    let before = scene.agent.log().len();
    scene.agent.start_again();
    let status = eventually("it runs", TO_KNOW, || scene.agent.status());
    let uuid = status["device"]["uuid"].as_str().unwrap().to_owned();
    assert_ne!(uuid, scene.identity.uuid.as_str());
    stays("containers of a device that no cloud knows", Duration::from_secs(3), || scene.agent.standing());
    assert_eq!(scene.agent.standing(), scene.standing);
    scene.agent.cut();
    scene.server.start_again();
    scene.agent.start_again();
    until_current(&scene.agent, "commit-r1");
    assert_eq!(scene.agent.status().unwrap()["device"]["uuid"], uuid.as_str(), "its new identity stays");
    assert_eq!(scene.agent.standing(), scene.standing, "the same fleet, the same target: nothing to do");
    assert_eq!(scene.devices(), 2);
    let log = scene.agent.log()[before..].to_owned();
    assert_eq!(log.matches("device registered").count(), 1, "{log}");
    assert!(log.contains("the store is new and empty"), "{log}");
    // And it has taken the place of the first: it follows the fleet.
    scene.server.create_release(&scene.fleet, "commit-r2", &compose(&lab, "r2"));
    scene.agent.until_serves("web", "commit-r2", "r2");
    eventually("the first is gone", TO_KNOW, || {
        (lab.docker().containers(scene.agent.instance()).len() == 1).then_some(())
    });
}

/// A file system of its own at a path; unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None`, and a line that says so, where mounting is not permitted.
    fn tmpfs(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|out| out.status.success()) {
            return Some(Self(at.to_owned()));
        }
        println!("skipped: this user may not mount a tmpfs, so no disk can be filled");
        None
    }

    fn remount(&self, how: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status();
        assert!(done.unwrap().success());
    }

    /// Writes until nothing fits any more.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        fs::write(&path, vec![1; 64 << 20]).unwrap_err();
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_refuses_stops_no_container_and_makes_no_second_device() {
    let lab = Lab::new("disk");
    let mut scene = Scene::new(&lab);
    let state = scene.agent.state_dir();
    fs::remove_dir_all(&state).unwrap();
    let Some(disk) = Mount::tmpfs(&state, "4m") else { return };

    // Nothing can be read or written, so its identity is unknown, and it takes no new one.
    for (remount, remedy) in [("rw", "free space or repair the disk"), ("ro", "read-only")] {
        let filler = disk.fill();
        disk.remount(remount);
        let (code, said) = scene.refuses();
        disk.remount("rw");
        assert_eq!(code, Some(75), "{said}");
        assert!(said.contains(&state.display().to_string()) && said.contains(remedy), "{said}");
        assert!(said.contains("cloud.uuid and cloud.device_key_file"), "{said}");
        fs::remove_file(filler).unwrap();
        for name in ["db", "mirror-a.json", "mirror-b.json"] {
            let path = state.join(name);
            let _may_be_gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
    assert_eq!(scene.devices(), 1);

    // All there and not a byte more: it knows everything and goes on.
    copy_folder(&scene.golden, &state);
    disk.remount("ro");
    let log = scene.recovers("read-only");
    assert!(log.contains("read-only") || log.contains("unavailable"), "{log}");
    disk.remount("rw");
    let filler = disk.fill();
    scene.recovers("full");

    // It even updates, and says that it could not write that down.
    scene.agent.start_again();
    scene.server.create_release(&scene.fleet, "commit-r2", &compose(&lab, "r2"));
    scene.agent.until_serves("web", "commit-r2", "r2");
    until_current(&scene.agent, "commit-r2");
    let error = scene.agent.status().unwrap()["store_error"].clone();
    assert!(error.as_str().is_some_and(|e| e.contains("no space")), "{error}");
    // A disk with space again is noticed without any other cause.
    fs::remove_file(filler).unwrap();
    let is_well = || scene.agent.status().filter(|status| status["store_error"].is_null());
    eventually("the error clears", Duration::from_secs(75), is_well);
    scene.server.stop();
    let standing = scene.agent.standing();
    scene.agent.cut();
    scene.agent.start_again();
    until_current(&scene.agent, "commit-r2");
    assert_eq!(scene.agent.standing(), standing);
    scene.agent.cut();
}
