//! The fleet server under test, and an operator's commands to it.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use super::{Lab, Program, eventually};

/// `cotter-fleet serve` on a loopback port, with its data in the lab's folder.
#[derive(Debug)]
pub struct FleetServer {
    program: Option<Program>,
    data: PathBuf,
    log: PathBuf,
    poll_interval: String,
    limits: Vec<PathBuf>,
    /// The URL of its database, if it has one.
    store: Option<String>,
    /// Whose logs it takes, if that is not the default.
    logs: Option<&'static str>,
    /// "http://127.0.0.1:7300"; stays the same when the server is started again.
    pub url: String,
}

/// A fleet, as devices need to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    pub name: String,
    pub number: u64,
    pub uuid: String,
    /// The file with its provisioning key.
    pub key_file: PathBuf,
}

impl FleetServer {
    /// Starts one and waits until it listens.
    #[track_caller]
    pub fn start(lab: &Lab) -> Self {
        Self::start_limited(lab, Vec::new())
    }

    /// Starts one by a program that limits it and then becomes it.
    #[track_caller]
    pub fn start_limited(lab: &Lab, limits: Vec<PathBuf>) -> Self {
        Self::start_in(lab.dir(), limits)
    }

    /// As [`start_limited`](Self::start_limited), for a test without an engine: its data is in a folder of the test.
    #[track_caller]
    pub fn start_in(dir: &Path, limits: Vec<PathBuf>) -> Self {
        let mut server = Self {
            program: None,
            data: dir.join("fleet"),
            log: dir.join("fleet.log"),
            poll_interval: "1s".to_owned(),
            limits,
            store: None,
            logs: None,
            url: "http://127.0.0.1:0".to_owned(),
        };
        server.start_again();
        server
    }

    /// As [`start_in`](Self::start_in), with its records in a database and the rest in `dir/NAME`.
    #[track_caller]
    pub fn start_on(store: &str, dir: &Path, name: &str) -> Self {
        let mut server = Self {
            program: None,
            data: dir.join(name),
            log: dir.join(format!("{name}.log")),
            poll_interval: "1s".to_owned(),
            limits: Vec::new(),
            store: Some(store.to_owned()),
            logs: None,
            url: "http://127.0.0.1:0".to_owned(),
        };
        server.start_again();
        server
    }

    /// How often devices shall poll, "15min", from its next start on; every second unless this is said.
    pub fn poll_every(&mut self, interval: &str) {
        interval.clone_into(&mut self.poll_interval);
    }

    /// Takes the logs of all devices from the next start on.
    pub fn take_all_logs(&mut self) {
        self.logs = Some("on");
    }

    /// Starts it after [`stop`](Self::stop) or [`cut`](Self::cut): same data, same address.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.program.is_none(), "it runs already");
        let _none_yet = std::fs::remove_file(&self.log);
        let mut command = Program::cotter_by(&[&self.limits[..], &[Program::fleet_binary()]].concat());
        let listen = self.url.trim_start_matches("http://");
        command.args(["serve", "--listen", listen, "--poll-interval", &self.poll_interval]);
        command.arg("--data-dir").arg(&self.data);
        if let Some(logs) = self.logs {
            command.args(["--logs", logs]);
        }
        if let Some(store) = &self.store {
            command.env("COTTER_FLEET_STORE", store);
        }
        let mut program = Program::start("the fleet server", command, &self.log);
        let address = eventually("the fleet server listens", Duration::from_secs(10), || {
            assert!(program.is_running(), "the fleet server ended: {}", program.log());
            let log = program.log();
            let rest = log.split_once("://127.0.0.1:")?.1;
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let is_whole = rest.len() > port.len() && self.token_file().exists();
            (is_whole && !port.is_empty()).then(|| format!("127.0.0.1:{port}"))
        });
        self.url = format!("http://{address}");
        self.program = Some(program);
    }

    /// The server's process, while it runs.
    #[track_caller]
    pub fn program(&mut self) -> &mut Program {
        self.program.as_mut().expect("it runs")
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Where its operator's token is.
    pub fn token_file(&self) -> PathBuf {
        self.data.join("operator.token")
    }

    /// Asks it to stop and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) {
        let status = self.program.take().expect("it runs").stop();
        assert!(status.success(), "the fleet server stopped with {status}");
    }

    /// Ends it at once, as a power cut would.
    #[track_caller]
    pub fn cut(&mut self) {
        self.program.take().expect("it runs").cut();
    }

    /// All it has said since it was last started.
    pub fn log(&self) -> String {
        self.program.as_ref().map(Program::log).unwrap_or_default()
    }

    /// Runs `cotter ARGS...` as an operator, whatever comes of it.
    #[track_caller]
    pub fn try_cli(&self, args: &[&str]) -> Output {
        let mut command = Program::cotter();
        command.args(args).env("COTTER_FLEET_URL", &self.url).env("COTTER_TOKEN_FILE", self.token_file());
        command.output().expect("the binary runs")
    }

    /// Runs `cotter ARGS...` as an operator and gives its output.
    ///
    /// # Panics
    ///
    /// If it fails.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> String {
        let out = self.try_cli(args);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "cotter {} failed with {}: {said}", args.join(" "), out.status);
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// [`cli`](Self::cli) with `--json`, parsed.
    #[track_caller]
    pub fn cli_json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.push("--json");
        let said = self.cli(&args);
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("cotter {args:?}: no JSON ({e}): {said}"))
    }

    /// Creates a fleet and keeps its provisioning key in a file of the lab.
    #[track_caller]
    pub fn create_fleet(&self, lab: &Lab, name: &str) -> Fleet {
        let said = self.cli_json(&["fleet", "create", name]);
        let (created, fleet) = (&said["created"], &said["created"]["fleet"]);
        let text = |of: &Value, key: &str| {
            let value = of.get(key).and_then(Value::as_str);
            value.unwrap_or_else(|| panic!("no {key} in {created}")).to_owned()
        };
        Fleet {
            name: name.to_owned(),
            number: fleet["number"].as_u64().unwrap_or_else(|| panic!("no number in {created}")),
            uuid: text(fleet, "uuid"),
            key_file: lab.file(&format!("{name}.key"), &text(created, "provisioning_key")),
        }
    }

    /// Creates a final release of `fleet` from a compose file.
    #[track_caller]
    pub fn create_release(&self, fleet: &Fleet, commit: &str, compose: &Path) {
        let file = compose.to_str().expect("a lab's path is text");
        self.cli(&["release", "create", &fleet.name, "--file", file, "--commit", commit]);
    }
}
