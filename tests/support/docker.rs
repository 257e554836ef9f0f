//! The engine as `docker` shows it: a second opinion on what the agent did.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The docker client, bound to the engine under test.
#[derive(Debug, Clone)]
pub struct Docker {
    client: PathBuf,
    socket: PathBuf,
}

/// A container as the engine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub name: String,
    /// The reference it was created with.
    pub image: String,
    /// Its labels, the image's among them.
    pub labels: BTreeMap<String, String>,
    pub running: bool,
    /// As the engine writes it.
    pub started_at: String,
    pub exit_code: i64,
    pub restart_count: i64,
    /// "healthy", "unhealthy", "starting"; `None` without a healthcheck.
    pub health: Option<String>,
    /// "8080/tcp" to the first address it is published on, "127.0.0.1:32768".
    pub ports: BTreeMap<String, String>,
    /// All that `docker inspect` says.
    pub raw: Value,
}

impl Container {
    /// The service it runs, by its label.
    pub fn service(&self) -> &str {
        self.label("io.cotter.service")
    }

    /// The release it belongs to, by its label.
    pub fn release(&self) -> &str {
        self.label("io.cotter.release")
    }

    /// A label's value, empty if it has none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// What tells whether it was touched: its id, start time and restart count.
    pub fn standing(&self) -> (String, String, i64) {
        (self.id.clone(), self.started_at.clone(), self.restart_count)
    }

    fn from_inspect(raw: Value) -> Self {
        let text = |path: &str| raw.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |path: &str| raw.pointer(path).and_then(Value::as_i64).unwrap_or_default();
        let labels = raw.pointer("/Config/Labels").and_then(Value::as_object);
        let labels = labels.into_iter().flatten();
        let ports = raw.pointer("/NetworkSettings/Ports").and_then(Value::as_object);
        let ports = ports.into_iter().flatten();
        Self {
            id: text("/Id"),
            name: text("/Name").trim_start_matches('/').to_owned(),
            image: text("/Config/Image"),
            labels: labels.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect(),
            running: raw.pointer("/State/Running").and_then(Value::as_bool).unwrap_or(false),
            started_at: text("/State/StartedAt"),
            exit_code: number("/State/ExitCode"),
            restart_count: number("/RestartCount"),
            health: raw.pointer("/State/Health/Status").and_then(Value::as_str).map(str::to_owned),
            ports: ports
                .filter_map(|(port, bound)| {
                    let first = bound.get(0)?;
                    let host = first.get("HostIp")?.as_str()?;
                    Some((port.clone(), format!("{host}:{}", first.get("HostPort")?.as_str()?)))
                })
                .collect(),
            raw,
        }
    }
}

impl Docker {
    pub(super) fn new(client: &Path, socket: &Path) -> Self {
        Self { client: client.to_owned(), socket: socket.to_owned() }
    }

    /// The same client, bound to another engine.
    pub fn of(&self, socket: &Path) -> Self {
        Self::new(&self.client, socket)
    }

    /// The folder that the client is in.
    pub fn folder(&self) -> &Path {
        self.client.parent().expect("a path with a folder")
    }

    /// The engine's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `docker ARGS...`, not run yet.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command.args(args).env("DOCKER_HOST", format!("unix://{}", self.socket.display()));
        command
    }

    /// Runs `docker ARGS...`, whatever comes of it.
    #[track_caller]
    pub fn try_run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the docker client runs")
    }

    /// Runs `docker ARGS...` and gives its output.
    ///
    /// # Panics
    ///
    /// If it fails.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        let out = self.try_run(args);
        assert!(out.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
    }

    /// The containers of `instance`, running or not, by name.
    #[track_caller]
    pub fn containers(&self, instance: &str) -> Vec<Container> {
        let ids = self.ids("container", instance);
        let mut args = vec!["inspect", "--type", "container"];
        args.extend(ids.iter().map(String::as_str));
        if ids.is_empty() {
            return Vec::new();
        }
        // One that goes between the two calls makes inspect fail, yet it prints the others.
        let out = self.try_run(&args);
        let list: Vec<Value> = serde_json::from_slice(&out.stdout).expect("inspect prints a list");
        let mut found: Vec<_> = list.into_iter().map(Container::from_inspect).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// The running containers of `instance`, by name.
    #[track_caller]
    pub fn running(&self, instance: &str) -> Vec<Container> {
        self.containers(instance).into_iter().filter(|container| container.running).collect()
    }

    /// The one running container of `service`; `None` if there is none or more than one.
    #[track_caller]
    pub fn service(&self, instance: &str, service: &str) -> Option<Container> {
        let mut found: Vec<_> = self.running(instance);
        found.retain(|container| container.service() == service);
        if found.len() == 1 { found.pop() } else { None }
    }

    /// Ids of the containers, or names of the networks or volumes, that bear `instance`.
    /// `kind` is "container", "network" or "volume".
    #[track_caller]
    pub fn ids(&self, kind: &str, instance: &str) -> Vec<String> {
        let filter = format!("label=io.cotter.instance={instance}");
        let mut args = vec![kind, "ls", "--quiet", "--filter", &filter];
        if kind == "container" {
            args.extend(["--all", "--no-trunc"]);
        }
        self.run(&args).lines().map(str::to_owned).collect()
    }

    /// What a container has written.
    #[track_caller]
    pub fn logs(&self, id: &str) -> String {
        let out = self.try_run(&["logs", id]);
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
    }

    /// Removes everything that bears `instance`; what resists stays.
    pub fn remove_instance(&self, instance: &str) {
        for (kind, remove) in [
            ("container", &["container", "rm", "--force", "--volumes"][..]),
            ("network", &["network", "rm"]),
            ("volume", &["volume", "rm"]),
        ] {
            let ids = self.ids(kind, instance);
            if !ids.is_empty() {
                let mut args = remove.to_vec();
                args.extend(ids.iter().map(String::as_str));
                self.try_run(&args);
            }
        }
    }
}
