//! A device with all its parts, what can be done to it, and what must hold afterwards.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::engine::PrivateEngine;
use crate::registry::PrivateRegistry;
use crate::support::{Agent, Container, Fleet, FleetServer, Lab, eventually, eventually_or, stays};

/// How long the device may take to come to rest by itself: longer than the longest wait after a full disk.
const TO_HEAL: Duration = Duration::from_secs(120);

/// The releases; the last one crashes.
const RELEASES: [&str; 3] = ["r1", "r2", "crash"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    AgentKilled,
    EngineKilled,
    /// As near to a power cut as a test can go: what the disk had not is not lost.
    BothKilled,
    EngineHangs,
    RegistryLost,
    StoreFull,
    StoreLost,
}

impl Fault {
    pub(crate) const ALL: [(Self, &str); 7] = [
        (Self::AgentKilled, "agent killed"),
        (Self::EngineKilled, "engine killed"),
        (Self::BothKilled, "agent and engine killed"),
        (Self::EngineHangs, "engine hangs"),
        (Self::RegistryLost, "registry lost"),
        (Self::StoreFull, "store full"),
        (Self::StoreLost, "store lost"),
    ];
}

/// The parts, in the order in which they must go; lab and engine after them.
pub(crate) struct Scene<'lab> {
    agent: Agent<'lab>,
    server: FleetServer,
    fleet: Fleet,
    registry: PrivateRegistry,
    _state: Mount,
    lab: &'lab Lab,
    engine: &'lab mut PrivateEngine,
    /// The release that runs and is good; unknown once the store was lost in a bad moment.
    good: Option<&'static str>,
    wanted: &'static str,
    api: Option<String>,
    stranger: String,
    volumes: Vec<String>,
    answered: u64,
    asked: u64,
    uuid: Value,
}

/// A file system of its own; unmounted with its value.
struct Mount(PathBuf);

impl Mount {
    #[track_caller]
    fn tmpfs(at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs"]).arg(&at);
        assert!(mount.status().unwrap().success(), "this test mounts a tmpfs: run it as root");
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _shown_by_the_folder = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl<'lab> Scene<'lab> {
    /// A device on release r1, and a container of a stranger.
    #[track_caller]
    pub(crate) fn set(lab: &'lab Lab, engine: &'lab mut PrivateEngine) -> Self {
        let from = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".registry");
        let registry = PrivateRegistry::start(&lab.dir().join("registry"), &from);
        let server = FleetServer::start(lab);
        let fleet = server.create_fleet(lab, "lab");
        for release in RELEASES {
            server.create_release(&fleet, release, &lab.web_and_api(release, &registry.address, "3s"));
        }
        server.cli(&["fleet", "pin", &fleet.name, "r1"]);
        let image = lab.image("r4").replace(&lab.parts.registry, &registry.address);
        let label = format!("io.cotter.instance={}", lab.instance("other"));
        let args = ["run", "--detach", "--restart", "always", "--network", "none", "--label", &label, &image];
        let stranger = lab.docker().run(&args).lines().last().unwrap_or_default().to_owned();
        let mut agent = Agent::prepare(lab, &server.url, &fleet, "a");
        let state = Mount::tmpfs(agent.state_dir());
        agent.start_again();
        let mut scene = Self {
            agent,
            server,
            fleet,
            registry,
            _state: state,
            lab,
            engine,
            good: None,
            wanted: "r1",
            api: None,
            stranger,
            volumes: Vec::new(),
            answered: 0,
            asked: 0,
            uuid: Value::Null,
        };
        scene.until_at_rest("r1", Fault::AgentKilled);
        scene
    }

    /// A release other than the one that runs, and than the one that was wanted last: about one in three
    /// crashes.
    pub(crate) fn choose(&self, chance: u64) -> &'static str {
        match (chance, self.good) {
            (0, Some(_)) if self.wanted != "crash" => "crash",
            (_, Some("r1")) => "r2",
            _ => "r1",
        }
    }

    /// Asks for a release, and lets the fault happen a moment after that for a while; whether the update
    /// was under way then.
    #[track_caller]
    pub(crate) fn strike(
        &mut self,
        fault: Fault,
        wanted: &'static str,
        moment: Duration,
        length: Duration,
    ) -> bool {
        if fault == Fault::RegistryLost {
            // What was fetched before needs no registry: it is to be fetched again.
            self.registry.stop();
        }
        self.wanted = wanted;
        self.server.cli(&["fleet", "pin", &self.fleet.name, wanted]);
        std::thread::sleep(moment);
        let output = self.agent.app().unwrap_or_default();
        let is_mid_update =
            output["target"] != wanted || !matches!(output["update"].as_str(), Some("done" | "rejected"));
        match fault {
            Fault::AgentKilled => {
                self.agent.cut();
                std::thread::sleep(length / 4);
                self.agent.start_again();
            }
            Fault::EngineKilled => {
                self.engine.cut();
                std::thread::sleep(length / 4);
                self.engine.start_again();
            }
            Fault::BothKilled => {
                self.agent.cut();
                self.engine.cut();
                self.agent.start_again();
                std::thread::sleep(length / 4);
                self.engine.start_again();
            }
            Fault::EngineHangs => self.engine.stand_still(length),
            Fault::RegistryLost => {
                std::thread::sleep(length);
                self.registry.start_again();
            }
            Fault::StoreFull => {
                let filler = self.agent.state_dir().join("filler");
                fs::write(&filler, vec![1; 16 << 20]).expect_err("the disk is full");
                std::thread::sleep(length);
                fs::remove_file(filler).expect("it can be removed");
            }
            Fault::StoreLost => {
                self.agent.cut();
                for entry in fs::read_dir(self.agent.state_dir()).unwrap().map(|entry| entry.unwrap().path())
                {
                    let removed =
                        if entry.is_dir() { fs::remove_dir_all(&entry) } else { fs::remove_file(&entry) };
                    removed.expect("the store can be removed");
                }
                self.good = None;
                self.uuid = Value::Null;
                self.agent.give_key(&self.fleet);
                self.agent.start_again();
            }
        }
        is_mid_update
    }

    /// How it has ended, once it has; `None` while it is under way.
    fn end(&self, wanted: &'static str) -> Option<&'static str> {
        let status = self.agent.status()?;
        let app = &status["apps"][0];
        if !status["engine_error"].is_null() || !status["store_error"].is_null() || app["target"] != wanted {
            return None;
        }
        let all = self.lab.docker().containers(self.agent.instance());
        let web: Vec<&Container> = all.iter().filter(|c| c.service() == "web").collect();
        let is_up = |release: &str| {
            all.len() == 2 && all.iter().all(|c| c.running) && web.len() == 1 && self.is_of(web[0], release)
        };
        if wanted != "crash" {
            let is_it = app["update"] == "done" && app["current"] == wanted && is_up(wanted);
            return is_it.then_some(wanted);
        }
        let old = app["current"].as_str().and_then(|good| RELEASES.into_iter().find(|r| *r == good));
        if let Some(old) = old.filter(|old| *old != "crash") {
            return (app["update"] == "rejected" && is_up(old)).then_some(old);
        }
        // There is no accepted release to roll back to: it stays up, and the status says so.
        let reasons: Vec<_> = status["waiting"].as_array()?.iter().map(|w| w["reason"].clone()).collect();
        let is_reported = reasons.iter().any(|reason| reason == "degraded" || reason == "unhealthy");
        let crashes = web.iter().any(|c| self.is_of(c, "crash") && c.restart_count > 0);
        (app["current"].is_null() && self.good.is_none() && is_reported && crashes).then_some(wanted)
    }

    fn is_of(&self, container: &Container, release: &str) -> bool {
        let digest = self.lab.image(release).rsplit('@').next().unwrap_or_default();
        container.image.ends_with(digest)
    }

    /// Waits until the device is at rest by itself, holds everything against what must be, and gives the
    /// release that runs.
    #[track_caller]
    pub(crate) fn until_at_rest(&mut self, wanted: &'static str, fault: Fault) -> &'static str {
        let end = eventually_or(TO_HEAL, || self.end(wanted)).unwrap_or_else(|| {
            let all = self.lab.docker().containers(self.agent.instance());
            let all: Vec<_> = all.iter().map(|c| (&c.name, c.release(), c.running, c.exit_code)).collect();
            panic!(
                "{wanted} after {fault:?} does not end: {all:#?}\n{:#}",
                self.agent.status().unwrap_or_default()
            )
        });
        if let Some(good) = self.good.filter(|_| wanted == "crash") {
            assert_eq!(end, good, "another release than the good one came back");
        }
        self.good = (end != "crash").then_some(end);
        let running = self.agent.running();
        let of = |service: &str| running.iter().filter(|c| c.service() == service).collect::<Vec<_>>();
        let [api] = of("api")[..] else { panic!("api runs once: {running:#?}") };
        let before = self.api.get_or_insert_with(|| api.id.clone());
        assert_eq!(*before, api.id, "a service that no release changes was made again");
        self.check_others();
        if end != "crash" {
            self.check_counter();
            stays("containers at rest", Duration::from_secs(1), || self.agent.standing());
        }
        let uuid = self.agent.status_value("/device/uuid");
        if self.uuid.is_null() {
            self.uuid = uuid;
        } else {
            assert_eq!(self.uuid, uuid, "the device is another one");
        }
        end
    }

    /// Nothing of others was touched, and no volume has gone.
    fn check_others(&mut self) {
        let output = ["inspect", "--format", "{{.State.Running}} {{.Name}}", &self.stranger];
        let output = self.lab.docker().run(&output);
        assert!(output.starts_with("true "), "a stranger's container was touched: {output}");
        let volumes: Vec<_> =
            self.lab.docker().run(&["volume", "ls", "--quiet"]).lines().map(str::to_owned).collect();
        if self.volumes.is_empty() {
            self.volumes.clone_from(&volumes);
        }
        assert_eq!(self.volumes, volumes);
        let networks = self.lab.docker().ids("network", self.agent.instance());
        assert_eq!(networks.len(), 1, "{networks:?}");
    }

    /// What was written into the volume before is there, and one more can be.
    fn check_counter(&mut self) {
        self.asked += 1;
        let written =
            eventually("web answers", Duration::from_secs(10), || self.agent.get("web", "/write?1"));
        self.answered += u64::from(written.status == 200);
        let count = self.agent.get("web", "/").expect("it answers").json()["count"].as_u64().unwrap();
        assert!(
            (self.answered..=self.asked).contains(&count),
            "{count} in the volume, {} answered",
            self.answered
        );
    }

    /// No plan was ever dropped for being unsafe.
    pub(crate) fn check_log(&self) {
        let log = self.agent.log();
        assert!(!log.contains("unsafe plan"), "{log}");
    }
}
