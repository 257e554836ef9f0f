//! The real agent is killed a hundred times and more, at random moments and in the middle of swaps, while its
//! fleet keeps changing its target: what was reported is never lost, two containers of one service never run at the same
//! time, and in the end exactly the target runs.
//!
//! `COTTER_CUT_SEED` repeats a run's moments and choices, `COTTER_CUTS` sets their number.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads the clock and its settings"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use cotter::model::Identity;
use cotter::store::{Recovery, Remembered, Store};
use serde_json::Value;
use support::{Agent, Chance, Container, Fleet, FleetServer, Lab, Watch, eventually, number};

/// How many cuts there are unless `COTTER_CUTS` says otherwise.
const CUTS: u64 = 110;

/// No cut comes later after a start, but for those in the middle of a swap.
const LATEST: u64 = 700;

/// How long after a container has ended the agent is killed at the latest, so that the start of its successor is
/// often under way.
const AFTER_AN_END: u64 = 120;

/// Seeds with which two containers of one service once ran, with so many cuts each.
const SEEDS: [u64; 3] = [2305559749287588979, 14251122773421049435, 14775690473727310425];
const CUTS_OF_SEEDS: u64 = 30;

/// What the device said of itself right before a cut, and how much it had logged by then.
#[derive(Debug, Default)]
struct Reported {
    current: Option<String>,
    target: Option<String>,
    /// What the fleet wanted since.
    wanted: BTreeSet<String>,
    logged: usize,
}

/// What must hold from one life of the agent to the next.
struct Witness<'a> {
    lab: &'a Lab,
    /// Once there is one there is no other.
    identity: Option<Identity>,
    reported: Reported,
    /// Where in the log the last life of the agent begins.
    life: usize,
    /// The containers of `api`, which no release changes.
    api: Option<(String, String, i64)>,
    /// Writes to the volume that were answered, and those that were asked for.
    answered: u64,
    asked: u64,
    repairs: BTreeSet<String>,
}

impl Witness<'_> {
    /// Asks the agent once more what it is sure of.
    fn listen(&mut self, agent: &Agent<'_>, wanted: &str) {
        self.reported.wanted.insert(wanted.to_owned());
        let logged = agent.log().len();
        let Some(app) = agent.app() else { return };
        let text = |key: &str| app[key].as_str().map(str::to_owned);
        if let Some(current) = text("current") {
            self.reported.current = Some(current);
            self.reported.logged = logged;
        }
        if let Some(target) = text("target") {
            self.reported.wanted = BTreeSet::from([wanted.to_owned(), target.clone()]);
            self.reported.target = Some(target);
        }
    }

    /// Releases that `current` may be: the one reported last, those committed since, and one that this
    /// life had logged already but not reported yet.
    fn may_be_current(&self, log: &str) -> BTreeSet<Option<String>> {
        let commits = |part: &str| -> Vec<String> {
            let word =
                |line: &str| Some(line.split_once("what=commit ")?.1.split_whitespace().next()?.to_owned());
            part.lines().filter_map(word).collect()
        };
        let heard = self.reported.logged.max(self.life);
        let unreported = commits(&log[self.life..heard]).pop();
        let since = commits(&log[heard..]);
        since.into_iter().chain(unreported).map(Some).chain([self.reported.current.clone()]).collect()
    }

    /// Reads the store that a dead agent left, in a copy, as its next life will.
    fn read(&mut self, state: &Path) -> Remembered {
        let copy = self.lab.dir().join("copy");
        let _none_yet = fs::remove_dir_all(&copy);
        copy_folder(state, &copy);
        let (store, notes) = Store::open(&copy).expect("it opens");
        for note in notes.iter().filter(|note| note.is_trouble()) {
            // A database whose opening two kills in a row have cut off is set aside: its mirror has all of it.
            let is_harmless = matches!(
                note,
                Recovery::CaughtUp { .. }
                    | Recovery::MirrorLost { .. }
                    | Recovery::SetAside { .. }
                    | Recovery::Dropped { .. }
                    | Recovery::Rebuilt { may_be_old: false, .. }
            );
            assert!(is_harmless || self.reported.current.is_none(), "a kill damages nothing: {note}");
            self.repairs.insert(note.to_string());
        }
        store.load()
    }

    /// Compares what is on disk with what was reported.
    fn check_store(&mut self, agent: &Agent<'_>) {
        if !agent.state_dir().exists() {
            assert_eq!(self.reported.target, None);
            return;
        }
        let remembered = self.read(&agent.state_dir());
        let key = |identity: &Identity| (identity.uuid.clone(), identity.device_key.clone());
        match (&self.identity, &remembered.identity) {
            (Some(before), after) => {
                assert_eq!(Some(key(before)), after.as_ref().map(key), "the identity changed");
                let is_known = |i: &Identity| i.registered.is_some();
                assert!(!is_known(before) || after.as_ref().is_some_and(is_known), "registration is lost");
                self.identity.clone_from(after);
            }
            (None, after) => self.identity.clone_from(after),
        }
        if self.reported.target.is_some() {
            let body = remembered.target.expect("a target that was reported is in the store").body;
            let is_one = self.reported.wanted.iter().any(|commit| body.contains(&format!("{commit:?}")));
            assert!(
                is_one,
                "an older target than {:?} is on disk, repaired: {:?}: {body}",
                self.reported, self.repairs
            );
        }
        let good = remembered.ledger.apps.values().next().and_then(|app| app.good.as_ref());
        let good = good.map(|release| release.commit.to_string());
        let allowed = self.may_be_current(&agent.log());
        assert!(
            allowed.contains(&good),
            "{good:?} is on disk, reported was {:?}, repaired: {:?}: {}",
            self.reported,
            self.repairs,
            &agent.log()[self.life..]
        );
        // What was just seen on disk counts as reported from now on, although the agent was not asked for it.
        (self.reported.current, self.reported.logged) = (good, agent.log().len());
    }

    /// The fleet knows one device at most, and it is this one.
    fn check_fleet(&self, server: &FleetServer, fleet: &Fleet) {
        let said = server.cli_json(&["device", "list", "--fleet", &fleet.name]);
        let devices = said["devices"].as_array().expect("a list");
        assert!(devices.len() <= 1, "registered twice: {devices:#?}");
        if let Some(device) = devices.first() {
            let ours = self.identity.as_ref().expect("the identity is on disk before the cloud hears of it");
            assert_eq!(device["uuid"].as_str(), Some(ours.uuid.as_str()));
        }
    }

    /// One of each service runs at most, and `api` always the same.
    fn check_containers(&mut self, running: &[Container]) {
        let of = |service: &str| running.iter().filter(|c| c.service() == service).collect::<Vec<_>>();
        let (web, api) = (of("web"), of("api"));
        assert!(web.len() <= 1, "two of one service: {web:#?}");
        if let Some(before) = &self.api {
            let now: Vec<_> = api.iter().map(|c| c.standing()).collect();
            assert_eq!(
                now.as_slice(),
                std::slice::from_ref(before),
                "a service that no release changes was touched"
            );
        } else if let [api] = api.as_slice() {
            self.api = Some(api.standing());
        }
    }

    /// Adds 1 to the counter in the volume, if the service answers.
    fn write(&mut self, agent: &Agent<'_>) {
        self.asked += 1;
        if agent.get("web", "/write?1").is_some_and(|answer| answer.status == 200) {
            self.answered += 1;
        }
    }
}

fn other(release: &str) -> &'static str {
    if release == "commit-r1" { "commit-r2" } else { "commit-r1" }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let onto = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &onto);
        } else {
            fs::copy(entry.path(), onto).unwrap();
        }
    }
}

/// The last step that one life of the agent has done, in a word.
fn last_step(log: &str) -> String {
    let step = log.lines().rev().find_map(|line| line.split_once("step=")?.1.split_whitespace().next());
    let step = step.map(|step| step.trim_matches('"'));
    let is_started = log.contains("agent started");
    step.unwrap_or(if is_started { "started" } else { "not started" }).to_owned()
}

#[test]
fn a_hundred_cuts_during_updates_lose_nothing_that_was_reported() {
    let (chance, seed) = Chance::seeded("COTTER_CUT_SEED");
    if number("COTTER_CUT_SEED").is_none() {
        for seed in SEEDS {
            cut(Chance::of(seed), seed, CUTS_OF_SEEDS);
        }
    }
    cut(chance, seed, number("COTTER_CUTS").unwrap_or(CUTS));
}

fn cut(mut chance: Chance, seed: u64, cuts: u64) {
    println!("COTTER_CUT_SEED={seed} COTTER_CUTS={cuts}");

    let lab = Lab::new("cut");
    let mut server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "lab");
    for release in ["r1", "r2"] {
        server.create_release(
            &fleet,
            &format!("commit-{release}"),
            &lab.web_and_api(release, &lab.parts.registry, "1s"),
        );
    }
    let label = format!("io.cotter.instance={}", lab.instance("other"));
    let args = ["run", "--detach", "--network", "none", "--label", &label, lab.image("r4")];
    let stranger = lab.docker().run(&args);
    let look_at_stranger = || lab.docker().run(&["inspect", "--format", "{{json .State}}", &stranger]);
    let stranger_was = look_at_stranger();

    let mut agent = Agent::prepare(&lab, &server.url, &fleet, "a");
    let mut witness = Witness {
        lab: &lab,
        identity: None,
        reported: Reported::default(),
        life: 0,
        api: None,
        answered: 0,
        asked: 0,
        repairs: BTreeSet::new(),
    };
    let mut wanted = "commit-r2";
    let watch = Watch::begin(lab.docker(), agent.instance());
    let (mut mid_update, mut mid_swap, mut finished, mut reached) = (0, 0, 0, BTreeMap::new());
    let mut is_quick = false;
    let begun = Instant::now();
    for round in 0..cuts {
        // One that has followed is given something to do; one on its way may be called back.
        let is_called_back = !is_quick && chance.below(4) == 0;
        if witness.reported.current.as_deref() == Some(wanted) || is_called_back {
            wanted = other(wanted);
            server.cli(&["fleet", "pin", &fleet.name, wanted]);
        }
        if !is_quick && chance.below(16) == 0 {
            server.cut();
            server.start_again();
        }
        if !is_quick {
            witness.life = agent.log().len();
        }
        agent.start_again();
        let moment = chance.below(10);
        is_quick = (1..=4).contains(&moment) && watch.until_one_ends(Duration::from_millis(2 * LATEST));
        if is_quick {
            // The agent is killed in the middle of a swap, and its next life begins at once, half of the time with
            // the other release as its target.
            witness.reported.wanted.insert(wanted.to_owned());
            if chance.below(2) == 0 {
                wanted = other(wanted);
                server.cli(&["fleet", "pin", &fleet.name, wanted]);
            }
            witness.reported.wanted.insert(wanted.to_owned());
            std::thread::sleep(Duration::from_millis(chance.below(AFTER_AN_END)));
            agent.cut();
            mid_swap += 1;
            continue;
        }
        if moment == 0 {
            // Let it come to an end now and then, so that there is something to lose.
            eventually("an update ends", Duration::from_secs(30), || {
                witness.listen(&agent, wanted);
                (witness.reported.current.as_deref() == Some(wanted)).then_some(())
            });
            finished += 1;
            witness.write(&agent);
        } else {
            std::thread::sleep(Duration::from_millis(chance.below(LATEST)));
        }
        witness.listen(&agent, wanted);
        mid_update += u64::from(witness.reported.current.as_deref() != Some(wanted));
        agent.cut();
        *reached.entry(last_step(&agent.log()[witness.life..])).or_insert(0_u32) += 1;
        witness.check_store(&agent);
        assert_eq!(watch.doubles(), Vec::<String>::new(), "two of one service ran, COTTER_CUT_SEED={seed}");
        if round % 4 == 0 {
            witness.check_containers(&agent.running());
            witness.check_fleet(&server, &fleet);
        }
    }
    println!(
        "{cuts} cuts in {:?}: {mid_update} during an update, {mid_swap} right after a container had ended, \
         {finished} after one had ended, {} starts; how far they let it come: {reached:?}; repairs: {:?}",
        begun.elapsed(),
        watch.starts(),
        witness.repairs
    );
    // An update that never ends is wanted back half of the time, so a slow machine comes close to a half.
    let mid_update = mid_update + mid_swap;
    assert!(mid_update * 4 > cuts, "many cuts come during an update: {mid_update} of {cuts}");

    server.cli(&["fleet", "pin", &fleet.name, "commit-r1"]);
    witness.life = agent.log().len();
    agent.start_again();
    agent.until_serves("web", "commit-r1", "r1");
    let rests = |app: &Value| app["current"] == "commit-r1" && app["target"] == "commit-r1";
    eventually("it says so", Duration::from_secs(20), || agent.app().filter(rests));
    let all = eventually("nothing else is left", Duration::from_secs(20), || {
        let all = lab.docker().containers(agent.instance());
        (all.len() == 2).then_some(all)
    });
    assert!(all.iter().all(|c| c.running), "{all:#?}");
    witness.check_containers(&all);
    assert_eq!(watch.doubles(), Vec::<String>::new());
    assert!(watch.starts() > cuts / 10, "the events are heard: {}", watch.starts());
    assert!(witness.api.is_some());
    assert_eq!(lab.docker().ids("network", agent.instance()).len(), 1);
    assert_eq!(lab.docker().ids("volume", agent.instance()).len(), 1);
    let count = agent.get("web", "/").expect("it answers").json()["count"].as_u64().unwrap();
    assert!(
        (witness.answered..=witness.asked).contains(&count) && witness.answered > 0,
        "{count} in the volume, {} answered",
        witness.answered
    );
    assert_eq!(look_at_stranger(), stranger_was, "a stranger's container was touched");
    assert!(agent.stop().success());
    witness.reported.wanted = BTreeSet::from(["commit-r1".to_owned()]);
    witness.check_store(&agent);
    witness.check_fleet(&server, &fleet);
    let log = agent.log();
    assert!(!log.contains("unsafe plan"), "{log}");
    assert!(log.matches("device registered").count() >= 1);
}

/// Takes one request and never answers it; its JSON body.
fn unanswered(listener: &TcpListener) -> Value {
    let (mut stream, _) = listener.accept().expect("the agent asks");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (mut request, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut part).expect("the request goes on");
        assert!(read > 0, "it ends early: {}", String::from_utf8_lossy(&request));
        request.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&request);
        let body = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
        if let Some(body) = body {
            return body;
        }
    }
}

/// The moment that no random cut hits: the cloud has the registration, the device not its answer.
#[test]
fn a_device_cut_while_it_registers_is_the_same_device_after() {
    let lab = Lab::new("register");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let key_file = lab.file("lab.key", "provisioning");
    let fleet = Fleet { name: "lab".to_owned(), number: 1, uuid: "0".repeat(32), key_file };
    let mut agent = Agent::prepare(&lab, &endpoint, &fleet, "a");
    let mut heard = Vec::new();
    for round in 0..3 {
        agent.start_again();
        let body = unanswered(&listener);
        agent.cut();
        let copy = lab.dir().join(format!("copy-{round}"));
        copy_folder(&agent.state_dir(), &copy);
        let (store, _) = Store::open(&copy).unwrap();
        let identity = store.load().identity.expect("on disk before the cloud hears of it");
        assert_eq!(body["uuid"], identity.uuid.as_str());
        assert_eq!(body["api_key"], identity.device_key.as_str());
        assert_eq!(identity.registered, None);
        heard.push((body["uuid"].clone(), body["api_key"].clone()));
    }
    assert_eq!(heard[0], heard[1]);
    assert_eq!(heard[0], heard[2]);
}
