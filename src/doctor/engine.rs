//! The engine: its socket, its kind, its disk, and what lies about in it.

use std::io::ErrorKind;
use std::time::Duration;

use super::{Finding, bytes, error, ok, skip, skip_rest, warning};
use crate::config::Config;
use crate::engine::{Docker, DockerSettings, Survey};
use crate::host::{self, Disk};

/// Longest time to wait for the engine.
const WITHIN: Duration = Duration::from_secs(15);
/// Where the engine has its own settings.
const DAEMON_FILE: &str = "/etc/docker/daemon.json";
/// Nameless images below this are not worth a word.
const LITTER: u64 = 256 << 20;
const FILES: u64 = 5_000;

#[derive(Debug)]
pub(super) struct Engine {
    pub(super) socket: String,
    /// Why it cannot be connected to; `None` when it can.
    pub(super) closed: Option<String>,
    /// Whether that is only because of who asks.
    pub(super) is_denied: bool,
    pub(super) survey: Result<Survey, String>,
    /// The disk of its data root, seen from here.
    pub(super) disk: Option<Disk>,
    /// What a download must leave free.
    pub(super) reserve: u64,
    /// The engine's own settings; empty when there is no file.
    pub(super) daemon_file: String,
    pub(super) instance: String,
}

pub(super) async fn look(config: &Config) -> Engine {
    let closed = tokio::net::UnixStream::connect(&config.engine_socket).await.err();
    let survey =
        if closed.is_some() { Err("it cannot be connected to".to_owned()) } else { survey(config).await };
    let disk = survey.as_ref().ok().and_then(|survey| host::disk_of(&survey.data_root));
    Engine {
        socket: config.engine_socket.display().to_string(),
        is_denied: closed.as_ref().is_some_and(|e| e.kind() == ErrorKind::PermissionDenied),
        closed: closed.map(|e| e.to_string()),
        survey,
        disk,
        reserve: config.plan.disk_reserve,
        daemon_file: std::fs::read_to_string(DAEMON_FILE).unwrap_or_default(),
        instance: config.instance.to_string(),
    }
}

/// The engine that the settings name, to be looked at.
pub(super) fn docker(config: &Config) -> Docker {
    Docker::new(DockerSettings {
        socket: config.engine_socket.clone(),
        instance: config.instance.clone(),
        services_dir: config.runtime_dir.clone(),
        stall_timeout: config.stall_timeout,
    })
}

async fn survey(config: &Config) -> Result<Survey, String> {
    match tokio::time::timeout(WITHIN, docker(config).survey()).await {
        Ok(survey) => survey.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer within {} s", WITHIN.as_secs())),
    }
}

pub(super) fn judge(engine: &Engine) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &engine.closed {
        Some(why) if engine.is_denied => {
            findings.push(skip("engine-socket", format!("{}: {why}; ask as root", engine.socket)));
        }
        Some(why) => {
            let remedy = "systemctl start docker; or install docker.io, or set engine.socket";
            findings.push(error("engine-socket", format!("{}: {why}", engine.socket), remedy));
        }
        None => findings.push(ok("engine-socket", engine.socket.clone())),
    }
    match &engine.survey {
        Ok(survey) => {
            let told = format!("Docker {}, API {}, {}", survey.version, survey.api, survey.architecture);
            findings.push(ok("engine-answers", told));
            findings.extend([version(survey), storage(survey), limits(survey), warnings(survey)]);
            findings.extend([rotation(survey, &engine.daemon_file), restart(survey), images(survey)]);
            findings.push(instances(survey, &engine.instance));
            findings.extend(disk(engine, survey));
        }
        Err(why) if engine.closed.is_none() => {
            let remedy = "see `journalctl -u docker`; what runs goes on, and no release can be swapped";
            findings.push(error("engine-answers", why.clone(), remedy));
        }
        Err(_) => {}
    }
    skip_rest("engine", &mut findings, "the engine does not answer");
    findings
}

fn version(survey: &Survey) -> Finding {
    let id = "engine-version";
    let minor = survey.api.split_once('.').and_then(|(_, minor)| minor.parse::<u32>().ok());
    match minor {
        Some(41..) => ok(id, format!("API {}", survey.api)),
        Some(_) | None => warning(
            id,
            format!("API {:?} is older than 1.41, with which Cotter is tried", survey.api),
            "install Docker 20.10 or newer",
        ),
    }
}

fn storage(survey: &Survey) -> Finding {
    let (id, driver) = ("engine-storage", survey.storage_driver.as_str());
    match driver {
        "vfs" => warning(
            id,
            "vfs copies every layer whole: each container costs its whole image again",
            "set \"storage-driver\": \"overlay2\" in /etc/docker/daemon.json; images are then pulled anew",
        ),
        "aufs" | "devicemapper" | "overlay" => {
            let remedy = "move to overlay2 before the engine is upgraded; images are then pulled anew";
            warning(id, format!("{driver} is gone from newer engines"), remedy)
        }
        other => ok(id, other),
    }
}

fn disk(engine: &Engine, survey: &Survey) -> Vec<Finding> {
    let (id, root) = ("engine-disk", &survey.data_root);
    let Some(disk) = engine.disk else {
        let why = format!("{root} cannot be seen from here");
        return vec![skip(id, why.clone()), skip("engine-inodes", why)];
    };
    let told = format!("{} free at {root}, {} are kept free", bytes(disk.free), bytes(engine.reserve));
    let remedy = "free space on it: `docker system df` shows what takes it; not by `docker image prune`, which takes what a \
                  rollback needs";
    let room = if disk.free <= engine.reserve {
        error(id, told, remedy)
    } else if disk.free < 4 * engine.reserve {
        warning(id, told, remedy)
    } else {
        ok(id, told)
    };
    let id = "engine-inodes";
    let files = match disk.files {
        None => skip(id, "this file system has no such limit"),
        Some((left, _)) if left < FILES => {
            warning(id, format!("{left} more files may be made at {root}"), "remove images nobody uses")
        }
        Some((left, all)) => ok(id, format!("{left} of {all} are left")),
    };
    vec![room, files]
}

fn rotation(survey: &Survey, daemon_file: &str) -> Finding {
    let id = "engine-log-rotation";
    if survey.log_driver != "json-file" {
        return ok(id, survey.log_driver.clone());
    }
    let settings: serde_json::Value = serde_json::from_str(daemon_file).unwrap_or_default();
    match settings.pointer("/log-opts/max-size").and_then(serde_json::Value::as_str) {
        Some(size) => ok(id, format!("json-file, {size} a file")),
        None => warning(
            id,
            "json-file without max-size: logs of containers that are not ours grow until the disk is full",
            "set \"log-driver\": \"local\" in /etc/docker/daemon.json; Cotter's services have a limit anyway",
        ),
    }
}

fn restart(survey: &Survey) -> Finding {
    let id = "engine-live-restore";
    if survey.has_live_restore {
        return ok(id, "on");
    }
    let remedy = "set \"live-restore\": true in /etc/docker/daemon.json, then systemctl reload docker";
    warning(id, "off: an upgrade or a crash of the engine stops every service until it is back", remedy)
}

fn limits(survey: &Survey) -> Finding {
    let id = "engine-memory-limits";
    let told = format!("cgroup version {}", survey.cgroup_version);
    if survey.has_memory_limit {
        return ok(id, told);
    }
    warning(
        id,
        format!("{told}, without limits of memory: mem_limit has no effect"),
        "on a Raspberry Pi add cgroup_enable=memory cgroup_memory=1 to cmdline.txt, and boot",
    )
}

fn warnings(survey: &Survey) -> Finding {
    let id = "engine-warnings";
    if survey.warnings.is_empty() {
        return ok(id, "none");
    }
    warning(id, survey.warnings.join("; "), "see Docker's manual; a release that needs it does not work here")
}

fn images(survey: &Survey) -> Finding {
    let id = "engine-images";
    let told = format!("{} without a name, {}", survey.nameless_images, bytes(survey.nameless_bytes));
    if survey.nameless_bytes < LITTER {
        return ok(id, told);
    }
    warning(
        id,
        told,
        "`docker images --digests` shows them as <none> in all columns: `docker rmi` them, and never `docker image \
                  prune`, which takes what a rollback needs, too",
    )
}

fn instances(survey: &Survey, ours: &str) -> Finding {
    let id = "engine-instances";
    let count = |(instance, containers): (&String, &usize)| format!("{instance} ({containers})");
    let others: Vec<_> = survey.instances.iter().filter(|(name, _)| *name != ours).map(count).collect();
    if others.is_empty() {
        let containers = survey.instances.get(ours).copied().unwrap_or(0);
        return ok(id, format!("only ours, {ours}: {containers} containers"));
    }
    warning(
        id,
        format!("containers of {}, besides those of {ours}", others.join(", ")),
        "if an instance has no agent any more, remove what it left: \
         docker ps --all --filter label=io.cotter.instance=NAME",
    )
}
