//! An agent under test: one device of a lab.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use serde_json::Value;

use super::{
    Answer, Container, Fleet, FleetServer, Lab, Program, eventually, eventually_or, http_get, unix_get,
};

/// How long a device may take to run what it should.
const TO_FOLLOW: Duration = Duration::from_secs(60);

/// `cotter agent` with an instance, folders and settings of its own.
#[derive(Debug)]
pub struct Agent<'lab> {
    lab: &'lab Lab,
    program: Option<Program>,
    device: String,
    instance: String,
    dir: PathBuf,
    /// Runs the binary; its path is the last.
    words: Vec<PathBuf>,
    /// Stand before the words when the agent itself is started, and not before the verbs of its device.
    limits: Vec<PathBuf>,
    set: Vec<String>,
}

impl<'lab> Agent<'lab> {
    /// Writes the settings of `device` and starts its agent.
    #[track_caller]
    pub fn start(lab: &'lab Lab, server: &FleetServer, fleet: &Fleet, device: &str) -> Self {
        let mut agent = Self::prepare(lab, &server.url, fleet, device);
        agent.start_again();
        agent
    }

    /// Writes the settings of `device`, which polls `endpoint`, and starts nothing.
    #[track_caller]
    pub fn prepare(lab: &'lab Lab, endpoint: &str, fleet: &Fleet, device: &str) -> Self {
        let dir = lab.dir().join(device);
        std::fs::create_dir_all(&dir).expect("a folder in the lab");
        let instance = lab.instance(device);
        let key = dir.join("provisioning.key");
        let settings = format!(
            r#"instance = "{instance}"
state_dir = "{dir}/state"
runtime_dir = "{dir}/run"

[engine]
socket = "{socket}"

[update]
soak = "0s"

[cloud]
endpoint = "{endpoint}"
fleet = {number}
provisioning_key_file = "{key}"
device_type = "generic-amd64"
device_name = "{device}"
poll_interval = "1s"
poll_wait = "1s"
"#,
            dir = dir.display(),
            socket = lab.docker().socket().display(),
            number = fleet.number,
            key = key.display(),
        );
        let (device, words) = (device.to_owned(), Program::agent_words());
        let (limits, set) = (Vec::new(), Vec::new());
        let agent = Self { lab, program: None, device, instance, dir, words, limits, set };
        agent.write_settings(&settings);
        agent.give_key(fleet);
        agent
    }

    /// Gives it the fleet's provisioning key, which it removes once it is registered.
    #[track_caller]
    pub fn give_key(&self, fleet: &Fleet) {
        let key = std::fs::read_to_string(&fleet.key_file).expect("the fleet's key");
        self.lab.file(&format!("{}/provisioning.key", self.device), &key);
    }

    /// Replaces the settings, for the next start.
    #[track_caller]
    pub fn write_settings(&self, text: &str) {
        std::fs::write(self.settings_file(), text).expect("the settings can be written");
    }

    /// One setting more, "engine.resync=10s", for the next start and all later ones.
    pub fn set(&mut self, setting: &str) {
        self.set.push(setting.to_owned());
    }

    /// Runs it as its unit does when a device has booted: in the unit's environment, and from a binary of its own,
    /// which shares no memory with others that run it, and which is on the disk and not in memory.
    #[track_caller]
    pub fn as_its_unit(&mut self) {
        let copy = self.dir.join("cotter");
        let binary = self.words.pop().expect("a binary");
        std::fs::copy(binary, &copy).expect("the binary can be copied");
        let file = std::fs::File::open(&copy).expect("the copy is there");
        file.sync_all().expect("it can be written to the disk");
        fadvise(&file, 0, None, Advice::DontNeed).expect("what is on the disk can leave memory");
        let unit = include_str!("../../systemd/cotter-agent.service");
        let environment = unit.lines().filter_map(|line| line.strip_prefix("Environment="));
        let variables = environment.flat_map(str::split_whitespace).map(PathBuf::from);
        self.words = ["env".into()].into_iter().chain(variables).chain([copy]).collect();
    }

    /// Runs the agent by a program that limits it and then becomes it.
    pub fn limit(&mut self, words: Vec<PathBuf>) {
        self.limits = words;
    }

    /// Starts it after [`prepare`](Self::prepare), [`stop`](Self::stop) or [`cut`](Self::cut).
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.program.is_none(), "it runs already");
        let mut command = Program::cotter_by(&[&self.limits[..], &self.words].concat());
        command.arg("agent").arg("--config").arg(self.settings_file());
        command.args(self.set.iter().flat_map(|setting| ["--set", setting]));
        self.program = Some(Program::start(&format!("agent {}", self.device), command, &self.log_file()));
    }

    /// Asks it to stop and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.program.take().expect("it runs").stop()
    }

    /// SIGKILL.
    #[track_caller]
    pub fn cut(&mut self) {
        self.program.take().expect("it runs").cut();
    }

    /// The process, while it runs.
    #[track_caller]
    pub fn program(&mut self) -> &mut Program {
        self.program.as_mut().expect("it runs")
    }

    /// Its instance in the engine.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    pub fn settings_file(&self) -> PathBuf {
        self.dir.join("agent.toml")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn control_socket(&self) -> PathBuf {
        self.dir.join("run/control.sock")
    }

    /// Runs `cotter ARGS...` with its control socket; whether it went well and what it printed.
    #[track_caller]
    pub fn order(&self, args: &[&str]) -> (bool, String) {
        let mut command = Program::cotter_by(&self.words);
        let out = command.args(args).arg("--socket").arg(self.control_socket()).output().expect("it runs");
        let message = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8(message).expect("text"))
    }

    pub fn status_socket(&self) -> PathBuf {
        self.dir.join("run/status.sock")
    }

    /// All it has said, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    /// What `GET /v1/status` says; `None` while no agent listens.
    pub fn status(&self) -> Option<Value> {
        let answer = unix_get(&self.status_socket(), "/v1/status")?;
        (answer.status == 200).then(|| answer.json())
    }

    /// A value of the status, by its JSON pointer, e.g. "/cloud/error"; null while there is none.
    pub fn status_value(&self, pointer: &str) -> Value {
        let status = self.status().unwrap_or_default();
        status.pointer(pointer).cloned().unwrap_or_default()
    }

    /// Waits until the text at `pointer` of the status contains `words`; the whole text.
    #[track_caller]
    pub fn until_status(&self, pointer: &str, words: &str) -> String {
        let mut last = Value::Null;
        let found = eventually_or(TO_FOLLOW, || {
            last = self.status_value(pointer);
            let text = last.as_str().map_or_else(|| last.to_string(), str::to_owned);
            text.contains(words).then_some(text)
        });
        found.unwrap_or_else(|| panic!("{pointer} of the status never says {words:?}, but {last}"))
    }

    /// Waits until it has been in contact with its cloud `count` times more, at least 1 s apart.
    #[track_caller]
    pub fn until_polled(&self, count: u32) {
        let mut last = self.status_value("/cloud/last_contact");
        for _ in 0..count {
            last = eventually("a poll", Duration::from_secs(10), || {
                let now = self.status_value("/cloud/last_contact");
                (now != last && now.is_string()).then_some(now)
            });
        }
    }

    /// What its status says of its only app.
    pub fn app(&self) -> Option<Value> {
        self.status()?.get("apps")?.get(0).cloned()
    }

    /// The one running container of `service`.
    #[track_caller]
    pub fn service(&self, service: &str) -> Option<Container> {
        self.lab.docker().service(&self.instance, service)
    }

    /// Its running containers, by name.
    #[track_caller]
    pub fn running(&self) -> Vec<Container> {
        self.lab.docker().running(&self.instance)
    }

    /// All its containers, by name.
    #[track_caller]
    pub fn containers(&self) -> Vec<Container> {
        self.lab.docker().containers(&self.instance)
    }

    /// What tells whether any running container was touched.
    #[track_caller]
    pub fn standing(&self) -> Vec<(String, String, i64)> {
        self.running().iter().map(Container::standing).collect()
    }

    /// Asks `service` over HTTP at the port that the engine chose.
    pub fn get(&self, service: &str, path: &str) -> Option<Answer> {
        let container = self.service(service)?;
        http_get(container.ports.get("8080/tcp")?, path)
    }

    /// The release that `service` says it is, asked over HTTP.
    pub fn serves(&self, service: &str) -> Option<String> {
        let answer = self.get(service, "/")?;
        let value: Value = serde_json::from_str(&answer.body).ok()?;
        Some(value.get("release")?.as_str()?.to_owned())
    }

    /// Waits until `service` runs alone, bears `commit` and answers as `release` of the demo app.
    #[track_caller]
    pub fn until_serves(&self, service: &str, commit: &str, release: &str) -> Container {
        let what = format!("{} serves {service} of {commit} ({release})", self.device);
        let served = eventually_or(TO_FOLLOW, || {
            let has_ended = self.program.as_ref().is_some_and(Program::has_ended);
            assert!(!has_ended, "the agent of {} ended: {}", self.device, self.log());
            let container = self.service(service)?;
            let is_it = container.release() == commit && self.serves(service).as_deref() == Some(release);
            is_it.then_some(container)
        });
        served.unwrap_or_else(|| {
            panic!("waited {TO_FOLLOW:?} in vain: {what}\n{}", self.why_no_answer(service))
        })
    }

    /// What a person would look at when a container runs and does not answer: its own view and the host's.
    fn why_no_answer(&self, service: &str) -> String {
        let Some(container) = self.service(service) else {
            return "there is no container of it, or several".to_owned();
        };
        let asked = container.ports.get("8080/tcp").map(|address| (address, http_get(address, "/")));
        let docker = self.lab.docker();
        let inspected = docker.try_run(&[
            "inspect",
            "--format",
            "{{json .State}} {{json .NetworkSettings}}",
            &container.id,
        ]);
        let inspected = String::from_utf8_lossy(&inspected.stdout).into_owned();
        let written = docker.logs(&container.id);
        let of_host = |words: &[&str]| {
            let output = std::process::Command::new(words[0]).args(&words[1..]).output();
            output.map_or_else(|error| error.to_string(), |o| String::from_utf8_lossy(&o.stdout).into_owned())
        };
        format!(
            "asked: {asked:?}\ninspected: {inspected}\nwritten: {written}\nroutes: {}\ninterfaces: {}\nneighbours: {}",
            of_host(&["ip", "route"]),
            of_host(&["ip", "-brief", "address"]),
            of_host(&["ip", "neighbour"]),
        )
    }

    /// Runs `cotter ARGS...` with this agent's status socket.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> std::process::Output {
        let mut command = Program::cotter_by(&self.words);
        command.args(args).arg("--socket").arg(self.status_socket());
        command.output().expect("the binary runs")
    }

    /// The folder of this device in the lab.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
