//! Devices under measure: one for each number of services, each with an engine of its own to look at.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::door::Door;
use crate::engine::{Events, Swap, now, request};
use crate::figures::{self, Mapping, Meter, median};
use crate::support::{Agent, EngineProxy, FleetServer, Lab, eventually};

/// How long a device may take to do what it should.
const PATIENCE: Duration = Duration::from_secs(120);

/// An agent with its fleet; two releases of it are there: "nN-a" and "nN-b".
pub struct Device<'lab> {
    /// Services that an update replaces.
    pub services: usize,
    /// Services that are the same in both releases.
    others: usize,
    name: String,
    agent: Agent<'lab>,
    door: Door,
    proxy: EngineProxy,
    events: Events,
    commits: [String; 2],
}

/// What a device costs that does nothing.
pub struct Rest {
    pub pss_mib: f64,
    pub computed_ms: f64,
    pub calls: f64,
    pub written: f64,
    /// Of a poll without news: bytes up and bytes down.
    pub poll: Option<(f64, f64)>,
}

impl<'lab> Device<'lab> {
    /// Creates the fleet and its releases, starts the agent on an engine whose calls are counted, and
    /// waits until the newer release is accepted.
    #[track_caller]
    pub fn install(lab: &'lab Lab, server: &FleetServer, services: usize, settings: &[&str]) -> Self {
        let name = format!("n{services}");
        let files = ["r1", "r2"].map(|release| compose(lab, &name, services, release));
        Self::install_of(lab, server, (&name, services, 0), &files, settings)
    }

    /// As [`install`](Self::install), with these compose files: so many services that an update replaces, and so many that are
    /// the same in both.
    #[track_caller]
    pub fn install_of(
        lab: &'lab Lab,
        server: &FleetServer,
        (name, services, others): (&str, usize, usize),
        files: &[PathBuf; 2],
        settings: &[&str],
    ) -> Self {
        let fleet = server.create_fleet(lab, name);
        let commits = [format!("{name}-a"), format!("{name}-b")];
        for (commit, file) in commits.iter().zip(files) {
            server.create_release(&fleet, commit, file);
        }
        let name = name.to_owned();
        let door = Door::open(&server.url);
        let socket = lab.dir().join(format!("{name}.sock"));
        let proxy = EngineProxy::start(lab.docker().socket(), &socket);
        let mut agent = Agent::prepare(lab, &door.url, &fleet, &name);
        agent.as_its_unit();
        agent.set("cloud.poll_interval=15min");
        agent.set("engine.resync=1h");
        settings.iter().for_each(|setting| agent.set(setting));
        agent.set(&format!("engine.socket={}", socket.display()));
        let events = Events::listen(lab.docker().socket(), agent.instance());
        agent.start_again();
        let device = Self { services, others, name, agent, door, proxy, events, commits };
        device.until_done(1);
        device
    }

    /// Asks the cloud for the target now.
    #[track_caller]
    pub fn update(&self) {
        self.order("update");
    }

    fn order(&self, order: &str) {
        let answer = request(&self.agent.control_socket(), "POST", &format!("/v1/{order}"), Some(&json!({})));
        assert!(answer.status == 200 || order == "retry", "{order}: {answer:?}");
    }

    /// What every device costs over `period`, all at the same time. With `polled`, the bytes of a poll are
    /// counted, too.
    #[track_caller]
    pub fn rest(devices: &mut [Self], period: Duration, polled: bool) -> Vec<Rest> {
        let before: Vec<_> = devices
            .iter_mut()
            .map(|device| {
                device.door.reset();
                let program = device.agent.program();
                (Meter::start(program.id()), program.io().disk_written, device.proxy.calls().len())
            })
            .collect();
        std::thread::sleep(period);
        let ended = devices.iter_mut().zip(before).map(|(device, (meter, written, calls))| {
            let (polls, up, down) = device.door.passed();
            let of_poll = |bytes: u64| bytes as f64 / polls.max(1) as f64;
            let program = device.agent.program();
            Rest {
                computed_ms: meter.stop(),
                pss_mib: program.pss_kib() as f64 / 1024.0,
                written: (program.io().disk_written - written) as f64,
                calls: (device.proxy.calls().len() - calls) as f64,
                poll: polled.then(|| (of_poll(up), of_poll(down))),
            }
        });
        ended.collect()
    }

    /// Engine calls and connections of a look that changes nothing: medians of `count` looks. An order
    /// that finds nothing to do makes it look.
    #[track_caller]
    pub fn looks(&self, count: usize) -> (f64, f64) {
        let looks = (0..count).map(|_| {
            let (calls, connections) = (self.proxy.calls().len(), self.proxy.connections());
            self.order("retry");
            eventually("a look", PATIENCE, || (self.proxy.calls().len() > calls).then_some(()));
            std::thread::sleep(Duration::from_millis(300));
            let calls = self.proxy.calls().len() - calls;
            (calls as f64, (self.proxy.connections() - connections) as f64)
        });
        let (calls, connections): (Vec<_>, Vec<_>) = looks.unzip();
        (median(&calls), median(&connections))
    }

    /// Seconds from the start of the process to the answer of its first poll: the median of `count`
    /// starts. From now on it uses the engine `socket` itself.
    #[track_caller]
    pub fn starts(&mut self, socket: &std::path::Path, count: usize) -> f64 {
        self.agent.set(&format!("engine.socket={}", socket.display()));
        let times: Vec<_> = (0..count)
            .map(|_| {
                assert!(self.agent.stop().success(), "the agent stops well");
                self.door.reset();
                let begun = Instant::now();
                self.agent.start_again();
                let answered = eventually("a poll", PATIENCE, || self.door.first_answer());
                // A stop within the first second is not what is measured here.
                std::thread::sleep(Duration::from_millis(500));
                (answered - begun).as_secs_f64()
            })
            .collect();
        self.until_done(1);
        median(&times)
    }

    /// Its share of memory, once it rests.
    #[track_caller]
    pub fn pss_mib(&mut self) -> f64 {
        self.agent.program().pss_kib() as f64 / 1024.0
    }

    /// The id of the container of a service.
    #[track_caller]
    pub fn container(&self, service: &str) -> String {
        let running = self.agent.running();
        let found = running.iter().find(|container| container.service() == service);
        found.expect("the service runs").id.clone()
    }

    /// The status document of the agent.
    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        self.agent.status().expect("the agent answers")
    }

    /// Its mappings, each by file and permissions.
    #[track_caller]
    pub fn mappings(&mut self) -> Vec<Mapping> {
        figures::mappings(self.agent.program().id())
    }

    /// Pins it to the release that it does not run: how the swap went, and milliseconds that the agent
    /// computed until all was done and tidied up.
    #[track_caller]
    pub fn switch(&mut self, server: &FleetServer, to: usize) -> (Swap, f64) {
        server.cli(&["device", "pin", &self.name, &self.commits[to]]);
        let meter = Meter::start(self.agent.program().id());
        let begun = now();
        self.update();
        let swap = self.events.swap(begun, self.services);
        self.until_done(to);
        (swap, meter.stop())
    }

    /// Removes the container of a service with its process: seconds until a new one runs.
    #[track_caller]
    pub fn behind_its_back(&self, lab: &Lab) -> f64 {
        let old = self.agent.running().remove(0);
        let begun = now();
        lab.docker().run(&["rm", "--force", &old.id]);
        let swap = self.events.swap(begun, 1);
        // What it has just done and has to do again waits; that is for engines that lie.
        std::thread::sleep(Duration::from_secs(4));
        swap.down.first().copied().expect("an end and a start")
    }

    #[track_caller]
    fn until_done(&self, commit: usize) {
        let commit = &self.commits[commit];
        eventually(&format!("{commit} is done"), PATIENCE, || {
            let status = self.agent.status()?;
            let app = &status["apps"][0];
            let is_done =
                app["current"] == **commit && app["update"] == "done" && status["waiting"] == json!([]);
            let all = self.services + self.others;
            (is_done && self.count() == (all, all)).then_some(())
        });
    }

    /// How many containers it has, and how many of them run.
    fn count(&self) -> (usize, usize) {
        let containers = self.agent.containers();
        (containers.len(), containers.iter().filter(|container| container.running).count())
    }
}

/// A compose file of `services` services that all run `release` of the demo app.
fn compose(lab: &Lab, name: &str, services: usize, release: &str) -> PathBuf {
    let names: Vec<_> = (1..=services).map(|n| format!("s{n}")).collect();
    let services: Vec<_> = names.iter().map(|name| (name.as_str(), release)).collect();
    let more = "stop_grace_period: 3s\nlabels: { io.cotter.trial.soak: 0s }";
    lab.compose(&format!("{name}-{release}.yml"), &services, more)
}
