//! The agent: its unit, its sockets, and its status.

use std::os::unix::fs::MetadataExt as _;

use super::{Finding, error, ok, skip, skip_rest, warning};
use crate::api::{self, ClientError, StatusDocument};
use crate::config::Config;
use crate::host::{self, MOST_BYTES, MOST_FILES, Space, Unit};
use crate::model::quantity::bytes;
use crate::store::Inspection;

/// Reasons to wait that only an operator can clear, as the status names them.
pub(super) const FOR_A_PERSON: [&str; 10] = [
    "backoff",
    "refused",
    "unhealthy",
    "rejected",
    "insufficient_disk",
    "port_in_use",
    "wrong_architecture",
    "unsupported_image",
    "engine_stuck",
    "degraded",
];

#[derive(Debug)]
pub(super) struct Agent {
    pub(super) status: Result<StatusDocument, ClientError>,
    /// The modes of the status and the control socket, if they exist.
    pub(super) modes: [Option<u32>; 2],
    pub(super) unit_name: String,
    pub(super) unit: Option<Unit>,
    pub(super) instance: String,
    pub(super) has_lock_folders: bool,
    /// The file system of the lock folders, if they exist.
    pub(super) lock_space: Option<Space>,
}

/// Returns the name and the state of the unit that runs the agent of `instance`: the instance's own unit if it is
/// enabled or active, else `cotter-agent.service`.
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

pub(super) async fn observe(config: &Config) -> Agent {
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

pub(super) fn judge(agent: &Agent, store: Option<&Inspection>) -> Vec<Finding> {
    let mut findings = vec![unit(agent), alone(agent, store), sockets(agent), lock_space(agent)];
    match &agent.status {
        Ok(status) => {
            findings.push(ok("agent-answers", format!("{} of {}", status.device.uuid, status.instance)));
            findings.extend([version(status), trouble(status), waits(status), folders(agent, status)]);
        }
        Err(why @ ClientError::NotPermitted { .. }) => findings.push(skip("agent-answers", why.to_string())),
        Err(why) if why.is_busy() => {
            let remedy = "try again; `ss -xp src */status.sock` shows the clients that are connected";
            findings.push(warning("agent-answers", why.to_string(), remedy));
        }
        Err(why) => {
            let remedy = "`systemctl start cotter-agent`; `journalctl -u cotter-agent` says why it ended";
            findings.push(error("agent-answers", why.to_string(), remedy));
        }
    }
    skip_rest("agent", &mut findings, "the agent does not answer");
    findings
}

fn unit(agent: &Agent) -> Finding {
    let (id, name) = ("agent-unit", &agent.unit_name);
    let Some(unit) = &agent.unit else { return skip(id, "this machine has no systemd") };
    let evidence = format!("{name} is {}, {}", unit.enabled, unit.active);
    match (unit.load.as_str(), unit.enabled.as_str(), unit.active.as_str()) {
        ("not-found", ..) => skip(id, format!("there is no {name}")),
        (_, "enabled" | "static" | "alias", "active" | "activating" | "reloading") => ok(id, evidence),
        (_, "enabled" | "static" | "alias", _) => {
            error(id, evidence, "`systemctl start` it; `journalctl -u` with its name says why it ended")
        }
        (_, _, "active") => {
            warning(id, evidence, "`systemctl enable` it: at the next boot it would not be started")
        }
        _ => error(id, evidence, "`systemctl enable --now` it"),
    }
}

fn alone(agent: &Agent, store: Option<&Inspection>) -> Finding {
    let (id, ours) = ("agent-alone", &agent.instance);
    let is_held = store.map(|store| store.is_held);
    match (&agent.status, is_held) {
        (Ok(status), _) if status.instance != *ours => error(
            id,
            format!(
                "the agent at this socket has instance {}, but the settings have {ours}",
                status.instance
            ),
            "give each instance its own runtime_dir and state_dir",
        ),
        (Ok(_), Some(false)) => warning(
            id,
            "the agent that answers does not hold this state folder: it was started with other settings",
            "`systemctl restart cotter-agent`, or name its settings with --config",
        ),
        (Ok(_), _) => ok(id, format!("instance {ours}")),
        (Err(why), _) if why.is_busy() => skip(id, "the agent is busy"),
        (Err(_), Some(true)) => error(
            id,
            "a process uses the state folder, but no agent answers at the status socket",
            "the agent hangs, or has another runtime_dir: see `systemctl status cotter-agent`",
        ),
        (Err(_), Some(false) | None) => skip(id, "no agent answers"),
    }
}

fn version(status: &StatusDocument) -> Finding {
    let (id, installed) = ("agent-version", env!("CARGO_PKG_VERSION"));
    if status.version == installed {
        return ok(id, installed);
    }
    let evidence = format!("version {} runs, but {installed} is installed", status.version);
    warning(id, evidence, "`systemctl restart cotter-agent`; no service is restarted")
}

fn sockets(agent: &Agent) -> Finding {
    let id = "agent-sockets";
    match agent.modes {
        [_, Some(control)] if control & 0o077 != 0 => error(
            id,
            format!("other users can control the agent: control.sock has mode {control:o}"),
            "`chmod 600` it, and find out what changed its mode",
        ),
        [Some(status), _] if status & 0o007 != 0 => warning(
            id,
            format!("every user can read the status: status.sock has mode {status:o}"),
            "`chmod 660` it",
        ),
        [None, None] => skip(id, "there are no sockets"),
        [status, control] => {
            let shown = |mode: Option<u32>| mode.map_or("missing".to_owned(), |mode| format!("{mode:o}"));
            ok(id, format!("status {}, control {}", shown(status), shown(control)))
        }
    }
}

fn trouble(status: &StatusDocument) -> Finding {
    let id = "agent-trouble";
    let remedy = "see the checks of engine and state; the agent tries again by itself";
    match (&status.engine_error, &status.store_error) {
        (Some(why), _) => error(id, why.clone(), remedy),
        (None, Some(why)) => error(id, why.clone(), remedy),
        (None, None) => ok(id, "it reaches the engine and the store"),
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
            let evidence = format!("{}: {}{more}", first.reason, first.why);
            warning(id, evidence, "`cotter explain` says what clears each of them")
        }
    }
}

fn folders(agent: &Agent, status: &StatusDocument) -> Finding {
    let id = "agent-lock-folders";
    let has_services = status.apps.iter().any(|app| !app.services.is_empty());
    match (has_services, agent.has_lock_folders) {
        (false, _) => skip(id, "no service runs"),
        (true, true) => ok(id, "they exist"),
        (true, false) => warning(
            id,
            "the folder services in runtime_dir is missing: lock files of services have no effect",
            "`systemctl restart cotter-agent`, then `cotter restart` the services that make lock files",
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
            format!("only the agent limits them: it empties one with more than {each} within half a minute"),
            "`systemctl enable run-cotter-services.mount`, and reboot: then the kernel limits them (docs/systemd.md)",
        );
    }
    if space.is_nearly_full() {
        return warning(
            id,
            format!("{} of {size} and {} of {} files are in use", bytes(space.used), space.has, space.files),
            "a service keeps deleted files open there: `cotter restart` the services one by one",
        );
    }
    ok(id, format!("{size} for all of them, {each} for each"))
}
