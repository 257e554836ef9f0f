//! The engine: its socket, its settings, its disk, and unused images.

use std::io::ErrorKind;
use std::time::Duration;

use super::{Finding, error, ok, skip, skip_rest, warning};
use crate::config::Config;
use crate::engine::{Docker, DockerSettings, Survey};
use crate::host::{self, Disk};
use crate::model::quantity::{bytes, counted};

/// Longest time to wait for the engine.
const WITHIN: Duration = Duration::from_secs(15);
/// The engine's own settings file.
const DAEMON_FILE: &str = "/etc/docker/daemon.json";
/// Fewer bytes of unnamed images than this are fine.
const LITTER: u64 = 256 << 20;
const FILES: u64 = 5_000;

#[derive(Debug)]
pub(super) struct Engine {
    pub(super) socket: String,
    /// Why a connection failed; `None` if it succeeded.
    pub(super) closed: Option<String>,
    /// Whether it failed only because this user has no permission.
    pub(super) is_denied: bool,
    pub(super) survey: Result<Survey, String>,
    /// The disk of its data root, if this machine has that path.
    pub(super) disk: Option<Disk>,
    /// Bytes that a download must leave free.
    pub(super) reserve: u64,
    /// The content of the engine's own settings file; empty if there is none.
    pub(super) daemon_file: String,
    pub(super) instance: String,
}

pub(super) async fn observe(config: &Config) -> Engine {
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

/// Returns a client of the engine in the settings.
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
            findings.push(skip("engine-socket", format!("{}: {why}; run the check as root", engine.socket)));
        }
        Some(why) => {
            let remedy = "`systemctl start docker`; or install docker.io, or set engine.socket";
            findings.push(error("engine-socket", format!("{}: {why}", engine.socket), remedy));
        }
        None => findings.push(ok("engine-socket", engine.socket.clone())),
    }
    match &engine.survey {
        Ok(survey) => {
            let evidence = format!("Docker {}, API {}, {}", survey.version, survey.api, survey.architecture);
            findings.push(ok("engine-answers", evidence));
            findings.extend([version(survey), storage(survey), limits(survey), warnings(survey)]);
            findings.extend([rotation(survey, &engine.daemon_file), restart(survey), images(survey)]);
            findings.push(instances(survey, &engine.instance));
            findings.extend(disk(engine, survey));
        }
        Err(why) if engine.closed.is_none() => {
            let remedy =
                "see `journalctl -u docker`; running services keep running, but no release can be swapped";
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
            format!("API {:?} is older than 1.41, the oldest one that Cotter is tested with", survey.api),
            "install Docker 20.10 or newer",
        ),
    }
}

fn storage(survey: &Survey) -> Finding {
    let (id, driver) = ("engine-storage", survey.storage_driver.as_str());
    match driver {
        "vfs" => warning(
            id,
            "vfs shares no layers: each container needs the space of its complete image again",
            "set \"storage-driver\": \"overlay2\" in /etc/docker/daemon.json; all images are then pulled again",
        ),
        "aufs" | "devicemapper" | "overlay" => {
            let remedy = "set it to overlay2 before the engine is upgraded; all images are then pulled again";
            warning(id, format!("newer engines do not support {driver}"), remedy)
        }
        other => ok(id, other),
    }
}

fn disk(engine: &Engine, survey: &Survey) -> Vec<Finding> {
    let (id, root) = ("engine-disk", &survey.data_root);
    let Some(disk) = engine.disk else {
        let why = format!("{root} does not exist on this machine");
        return vec![skip(id, why.clone()), skip("engine-inodes", why)];
    };
    let evidence = format!("{} free at {root}, {} are kept free", bytes(disk.free), bytes(engine.reserve));
    let remedy = "free space on it: `docker system df` shows what uses it. Do not use `docker image prune`: it removes images that \
                  a rollback needs";
    let room = if disk.free <= engine.reserve {
        error(id, evidence, remedy)
    } else if disk.free < 4 * engine.reserve {
        warning(id, evidence, remedy)
    } else {
        ok(id, evidence)
    };
    let id = "engine-inodes";
    let files = match disk.files {
        None => skip(id, "this file system does not limit the number of files"),
        Some((left, _)) if left < FILES => warning(
            id,
            format!("only {} can be created at {root}", counted(left, "more file")),
            "remove unused images and containers",
        ),
        Some((left, all)) => ok(id, format!("{left} of {all} are free")),
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
        Some(size) => ok(id, format!("json-file, {size} per file")),
        None => warning(
            id,
            "json-file without max-size: logs of other containers than Cotter's grow until the disk is full",
            "set \"log-driver\": \"local\" in /etc/docker/daemon.json; Cotter's services have a limit anyway",
        ),
    }
}

fn restart(survey: &Survey) -> Finding {
    let id = "engine-live-restore";
    if survey.has_live_restore {
        return ok(id, "on");
    }
    let remedy = "set \"live-restore\": true in /etc/docker/daemon.json, then `systemctl reload docker`";
    warning(id, "off: an upgrade or a crash of the engine stops every service until it is back", remedy)
}

fn limits(survey: &Survey) -> Finding {
    let id = "engine-memory-limits";
    let evidence = format!("cgroup version {}", survey.cgroup_version);
    if survey.has_memory_limit {
        return ok(id, evidence);
    }
    warning(
        id,
        format!("{evidence} without memory limits: mem_limit has no effect"),
        "on a Raspberry Pi add cgroup_enable=memory cgroup_memory=1 to cmdline.txt, and reboot",
    )
}

fn warnings(survey: &Survey) -> Finding {
    let id = "engine-warnings";
    if survey.warnings.is_empty() {
        return ok(id, "none");
    }
    warning(
        id,
        survey.warnings.join("; "),
        "see Docker's manual; a release that needs what is missing does not work here",
    )
}

fn images(survey: &Survey) -> Finding {
    let id = "engine-images";
    let evidence = format!("{} without a name, {}", survey.nameless_images, bytes(survey.nameless_bytes));
    if survey.nameless_bytes < LITTER {
        return ok(id, evidence);
    }
    warning(
        id,
        evidence,
        "`docker images --digests` shows them with <none> as name, tag and digest: `docker rmi` those. Do not use `docker \
                  image prune`: it removes images that a rollback needs",
    )
}

fn instances(survey: &Survey, ours: &str) -> Finding {
    let id = "engine-instances";
    let count = |(instance, containers): (&String, &usize)| format!("{instance} ({containers})");
    let others: Vec<_> = survey.instances.iter().filter(|(name, _)| *name != ours).map(count).collect();
    if others.is_empty() {
        let containers = survey.instances.get(ours).copied().unwrap_or(0);
        return ok(id, format!("only {ours}: {}", counted(containers, "container")));
    }
    warning(
        id,
        format!("other instances than {ours}: {}", others.join(", ")),
        "if an instance has no agent any more, remove its containers: \
         docker ps --all --filter label=io.cotter.instance=NAME",
    )
}
