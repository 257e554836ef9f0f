//! What the attacks share: an agent in its unit's limits, a cloud that can be polite, and who is to be refused.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::evil::{Asked, Evil, Taker};
use crate::support::{Agent, Fleet, Lab, eventually, eventually_or};
use crate::unit::{Cage, LockSpace};

/// An agent with its unit's limits.
pub struct Victim<'lab> {
    pub agent: Agent<'lab>,
    pub cage: Cage,
    /// Where the lock folders of its services are.
    pub lock_space: LockSpace,
}

impl<'lab> Victim<'lab> {
    /// One that polls `endpoint` every second and was not started yet.
    #[track_caller]
    pub fn prepare(lab: &'lab Lab, endpoint: &str, device: &str) -> Self {
        let cage = Cage::of("cotter-agent.service");
        let key_file = lab.file(&format!("{device}.key"), "the-provisioning-key");
        let fleet = Fleet { name: "any".to_owned(), number: 1, uuid: String::new(), key_file };
        let mut agent = Agent::prepare(lab, endpoint, &fleet, device);
        agent.set("cloud.report_interval=1s");
        agent.set("cloud.request_timeout=5s");
        agent.limit(cage.words());
        let lock_space = LockSpace::over(&agent.dir().join("run/services"));
        Self { agent, cage, lock_space }
    }

    /// The same, registered and following its cloud.
    #[track_caller]
    pub fn start(lab: &'lab Lab, cloud: &Evil, device: &str) -> Self {
        let mut victim = Self::prepare(lab, &cloud.url(), device);
        victim.agent.start_again();
        victim.until_it_answers();
        victim
    }

    /// Every switch of the owner's policy is "no", those among them that this test does not know.
    pub fn allow_nothing(&mut self) {
        for switch in switches() {
            self.agent.set(&format!("policy.{switch}=no"));
        }
    }

    /// One more variable of its environment.
    pub fn variable(&mut self, variable: &str) {
        self.agent.limit(self.cage.words().into_iter().chain([PathBuf::from(variable)]).collect());
    }

    #[track_caller]
    pub fn until_it_answers(&self) {
        eventually("the agent answers", Duration::from_secs(20), || self.agent.status());
    }

    /// Asserts that it still does its duty: it is alive within its limits, follows its cloud, which is polite from now
    /// on, and answers its operator.
    #[track_caller]
    pub fn assert_on_duty(&mut self, cloud: &Evil) {
        cloud.rule(polite(&json!({})));
        let asked = cloud.asked().len();
        eventually("it polls", Duration::from_secs(60), || {
            let polled = cloud.asked().iter().skip(asked).filter(|a| is_poll(a)).count();
            (polled > 0).then_some(())
        });
        eventually("it is content with its cloud", Duration::from_secs(30), || {
            let status = self.agent.status()?;
            (status["cloud"]["error"].is_null() && status["has_target"] == true).then_some(())
        });
        assert!(self.agent.cli(&["status"]).status.success(), "its operator is answered");
        self.cage.assert_held(self.agent.program());
    }

    /// Why `app` is refused; waits until it is.
    #[track_caller]
    pub fn refusal(&self, app: &str) -> String {
        self.until_waiting(app, &["refused"])
    }

    /// What the status says of an app that waits for one of these reasons.
    #[track_caller]
    pub fn until_waiting(&self, app: &str, reasons: &[&str]) -> String {
        let mut last = Value::Null;
        let found = eventually_or(Duration::from_secs(60), || {
            last = self.agent.status_value("/waiting");
            let entry = last.as_array()?.iter().find(|entry| {
                entry["app"] == app && reasons.iter().any(|reason| entry["reason"] == *reason)
            })?;
            entry["why"].as_str().map(str::to_owned)
        });
        found.unwrap_or_else(|| panic!("{app} is not {reasons:?}: {last:#}"))
    }
}

/// The switches of `[policy]` in the shipped settings.
pub fn switches() -> Vec<String> {
    let shipped = include_str!("../../config/agent.toml");
    let (_, policy) = shipped.split_once("[policy]\n").expect("the settings have a policy");
    let policy = policy.split("\n[").next().expect("a section ends");
    let switches = policy.lines().filter_map(|line| line.strip_suffix(" = \"yes\""));
    // Those that are off by default stay so.
    switches.map(|switch| switch.trim_start_matches("# ").to_owned()).collect()
}

pub fn is_poll(asked: &Asked) -> bool {
    asked.method == "GET" && asked.path.starts_with("/device/v3/") && asked.path.ends_with("/state")
}

/// The rule of a cloud that keeps to the protocol, with this target.
pub fn polite(apps: &Value) -> impl Fn(&Asked, &mut Taker) -> std::io::Result<()> + Send + Sync + 'static {
    let apps = apps.clone();
    move |asked, to| politely(asked, to, &apps)
}

/// Answers as the protocol has it.
pub fn politely(asked: &Asked, to: &mut Taker, apps: &Value) -> std::io::Result<()> {
    match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/device/register") => to.answer(201, "", br#"{"id":1}"#),
        ("GET", _) if is_poll(asked) => {
            let uuid = asked.path.rsplit('/').nth(1).unwrap_or_default();
            let body = json!({ uuid: { "name": "victim", "config": {}, "apps": apps } }).to_string();
            to.answer(200, "", body.as_bytes())
        }
        ("PATCH", _) => to.answer(200, "", b""),
        _ => to.answer(404, "", b""),
    }
}

/// An app's uuid.
pub fn uuid(number: usize) -> String {
    format!("{number:032x}")
}

/// An app with one release.
pub fn app(number: usize, commit: &str, services: &Value, networks: &Value, volumes: &Value) -> Value {
    json!({
        "id": number, "name": format!("app{number}"), "class": "fleet",
        "releases": { commit: { "id": number, "services": services, "networks": networks, "volumes": volumes } },
    })
}

/// A service that runs `image` with this composition.
pub fn service(image: &str, composition: &Value) -> Value {
    json!({
        "id": 1, "image_id": 1, "image": image, "environment": {}, "labels": { "io.cotter.trial.soak": "0s" },
        "composition": composition,
    })
}

/// An image with nothing but busybox at `/busybox`, by digest: the shell of an app that was taken over.
#[track_caller]
pub fn busybox(lab: &Lab) -> String {
    static IMAGE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        let name = format!("{}/hostile/busybox", lab.parts.registry);
        let tar = lab.dir().join("busybox.tar");
        let script = r#"set -e; mkdir -p "$0.d"; cp "$(command -v busybox)" "$0.d/busybox"; tar -C "$0.d" -cf "$0" busybox"#;
        let made = std::process::Command::new("sh").args(["-c", script]).arg(&tar).status();
        assert!(made.expect("sh runs").success(), "busybox is missing: scripts/prepare.sh installs it");
        let label = format!("LABEL io.cotter.demo={}", lab.parts.label);
        let tar = tar.to_str().expect("a lab's path is text");
        lab.docker().run(&["import", "--change", &label, tar, &name]);
        let said = lab.docker().run(&["push", &name]);
        lab.docker().run(&["rmi", &name]);
        let digest = said.split("digest: ").nth(1).and_then(|rest| rest.split(' ').next());
        format!("{name}@{}", digest.unwrap_or_else(|| panic!("no digest: {said}")))
    });
    image.clone()
}

/// A service that runs a script of busybox's shell.
pub fn shell(image: &str, script: &str) -> Value {
    let script =
        format!("PATH=/bb; /busybox mkdir -p /bb; /busybox --install -s /bb; {script}; exec sleep 100000");
    service(image, &json!({ "command": ["/busybox", "sh", "-c", script], "stop_grace_period": "0s" }))
}
