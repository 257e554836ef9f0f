//! The agent: its unit, its sockets, and what it says of itself.

use std::os::unix::fs::MetadataExt as _;

use super::{Finding, bytes, error, ok, skip, skip_rest, warning};
use crate::api::{self, ClientError, StatusDocument};
use crate::config::Config;
use crate::host::{self, MOST_BYTES, MOST_FILES, Space, Unit};
use crate::store::Look;

/// What only a person can clear, by its word in the status.
pub(super) const FOR_A_PERSON: [&str; 9] = [
    "backoff",
    "refused",
    "unhealthy",
    "rejected",
    "insufficient_disk",
    "port_in_use",
    "wrong_architecture",
    "engine_stuck",
    "degraded",
];

#[derive(Debug)]
pub(super) struct Agent {
    pub(super) status: Result<StatusDocument, ClientError>,
    /// The modes of the status and the control socket, where they are.
    pub(super) modes: [Option<u32>; 2],
    pub(super) unit_name: String,
    pub(super) unit: Option<Unit>,
    pub(super) instance: String,
    pub(super) has_lock_folders: bool,
    /// Their file system, where they are.
    pub(super) lock_space: Option<Space>,
}

/// The unit that runs the agent of `instance`, and what systemd knows of it: one of the instance's own where
/// that is in use, else the one that every machine has.
pub(super) async fn unit_of(instance: &str) -> (String, Option<Unit>) {
    let usual = "cotter-agent.service".to_owned();
    let own = format!("cotter-agent@{instance}.service");
    match host::unit(&own).await {
        Some(unit) if unit.active == "active" || unit.enabled == "enabled" => (own, Some(unit)),
        Some(_) => {
            let unit = host::unit(&usual).await;
            (usual, unit)
        }
        None => (usual, None),
    }
}

pub(super) async fn look(config: &Config) -> Agent {
    let instance = config.instance.to_string();
    let (unit_name, unit) = unit_of(&instance).await;
    let path = |name: &str| config.runtime_dir.join(name);
    let mode = |name: &str| path(name).metadata().ok().map(|m| m.mode() & 0o777);
    Agent {
        status: api::status(&path("status.sock")).await,
        modes: [mode("status.sock"), mode("control.sock")],
        unit,
        unit_name,
        instance,
        has_lock_folders: path("services").is_dir(),
        lock_space: host::space(&path("services")),
    }
}

pub(super) fn judge(agent: &Agent, store: Option<&Look>) -> Vec<Finding> {
    let mut findings = vec![unit(agent), alone(agent, store), sockets(agent), lock_space(agent)];
    match &agent.status {
        Ok(status) => {
            findings.push(ok("agent-answers", format!("{} of {}", status.device.uuid, status.instance)));
            findings.extend([version(status), trouble(status), waits(status), folders(agent, status)]);
        }
        Err(why @ ClientError::NotPermitted { .. }) => findings.push(skip("agent-answers", why.to_string())),
        Err(why) if why.is_busy() => {
            let remedy = "try again; `ss -xp src */status.sock` shows who is connected to it";
            findings.push(warning("agent-answers", why.to_string(), remedy));
        }
        Err(why) => {
            let remedy = "systemctl start cotter-agent; `journalctl -u cotter-agent` says why it ended";
            findings.push(error("agent-answers", why.to_string(), remedy));
        }
    }
    skip_rest("agent", &mut findings, "the agent does not answer");
    findings
}

fn unit(agent: &Agent) -> Finding {
    let (id, name) = ("agent-unit", &agent.unit_name);
    let Some(unit) = &agent.unit else { return skip(id, "there is no systemd here") };
    let told = format!("{name} is {}, {}", unit.enabled, unit.active);
    match (unit.load.as_str(), unit.enabled.as_str(), unit.active.as_str()) {
        ("not-found", ..) => skip(id, format!("there is no {name}")),
        (_, "enabled" | "static" | "alias", "active" | "activating" | "reloading") => ok(id, told),
        (_, "enabled" | "static" | "alias", _) => {
            error(id, told, "systemctl start it; `journalctl -u` of it says why it ended")
        }
        (_, _, "active") => {
            warning(id, told, "systemctl enable it: at the next boot it would not be started")
        }
        _ => error(id, told, "systemctl enable --now it"),
    }
}

fn alone(agent: &Agent, store: Option<&Look>) -> Finding {
    let (id, ours) = ("agent-alone", &agent.instance);
    let is_held = store.map(|look| look.is_held);
    match (&agent.status, is_held) {
        (Ok(status), _) if status.instance != *ours => error(
            id,
            format!(
                "the agent at this socket is of instance {}, and the settings say {ours}",
                status.instance
            ),
            "give each instance a runtime_dir and a state_dir of its own",
        ),
        (Ok(_), Some(false)) => warning(
            id,
            "the agent that answers does not hold this state folder: it was started with other settings",
            "systemctl restart cotter-agent, or name its settings with --config",
        ),
        (Ok(_), _) => ok(id, format!("instance {ours}")),
        (Err(why), _) if why.is_busy() => skip(id, "the agent is busy"),
        (Err(_), Some(true)) => error(
            id,
            "a process holds the state folder, and none answers at the status socket",
            "an agent with another runtime_dir runs, or this one hangs: see `systemctl status cotter-agent`",
        ),
        (Err(_), Some(false) | None) => skip(id, "no agent answers"),
    }
}

fn version(status: &StatusDocument) -> Finding {
    let (id, installed) = ("agent-version", env!("CARGO_PKG_VERSION"));
    if status.version == installed {
        return ok(id, installed);
    }
    let told = format!("version {} runs, and {installed} is installed", status.version);
    warning(id, told, "systemctl restart cotter-agent; no service is touched by it")
}

fn sockets(agent: &Agent) -> Finding {
    let id = "agent-sockets";
    match agent.modes {
        [_, Some(control)] if control & 0o077 != 0 => error(
            id,
            format!("others may order the agent: control.sock has mode {control:o}"),
            "chmod 600 it, and find out who opened it",
        ),
        [Some(status), _] if status & 0o007 != 0 => warning(
            id,
            format!("everybody may read the status: status.sock has mode {status:o}"),
            "chmod 660 it",
        ),
        [None, None] => skip(id, "they are not there"),
        [status, control] => {
            let told = |mode: Option<u32>| mode.map_or("missing".to_owned(), |mode| format!("{mode:o}"));
            ok(id, format!("status {}, control {}", told(status), told(control)))
        }
    }
}

fn trouble(status: &StatusDocument) -> Finding {
    let id = "agent-trouble";
    let remedy = "see the checks of engine and state; the agent goes on trying by itself";
    match (&status.engine_error, &status.store_error) {
        (Some(why), _) => error(id, why.clone(), remedy),
        (None, Some(why)) => error(id, why.clone(), remedy),
        (None, None) => ok(id, "it reaches both"),
    }
}

fn waits(status: &StatusDocument) -> Finding {
    let id = "agent-waits";
    let mut waiting = status.waiting.iter().filter(|w| FOR_A_PERSON.contains(&w.reason.as_str()));
    match waiting.next() {
        None => ok(id, "nothing that does not clear by itself"),
        Some(first) => {
            let more = waiting.count();
            let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            let told = format!("{}: {}{more}", first.reason, first.why);
            warning(id, told, "`cotter explain` says of each what clears it")
        }
    }
}

fn folders(agent: &Agent, status: &StatusDocument) -> Finding {
    let id = "agent-lock-folders";
    let has_services = status.apps.iter().any(|app| !app.services.is_empty());
    match (has_services, agent.has_lock_folders) {
        (false, _) => skip(id, "no service runs"),
        (true, true) => ok(id, "they are"),
        (true, false) => warning(
            id,
            "services in the runtime folder is gone: locks that services make are not seen",
            "systemctl restart cotter-agent, then `cotter restart` the services that make locks",
        ),
    }
}

fn lock_space(agent: &Agent) -> Finding {
    let id = "agent-lock-space";
    let Some(space) = agent.lock_space else { return skip(id, "there are no lock folders") };
    let (each, size) = (format!("{} or {MOST_FILES} files", bytes(MOST_BYTES)), bytes(space.bytes));
    if !space.is_small() {
        return warning(
            id,
            format!(
                "only the agent bounds them: one that holds more than {each} is emptied within half a minute"
            ),
            "systemctl enable run-cotter-services.mount, and reboot: the kernel bounds them then (docs/systemd.md)",
        );
    }
    if space.is_nearly_full() {
        return warning(
            id,
            format!("{} of {size} and {} of {} files are in use", bytes(space.used), space.has, space.files),
            "a service holds files there that it has deleted: `cotter restart` the services, one after another",
        );
    }
    ok(id, format!("all of them together have {size}, and each {each}"))
}
