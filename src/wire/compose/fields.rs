//! Compose fields that we do not honour: which are harmless, and which stand in the way.
//!
//! A field that only helps to build, sort or schedule is a warning. One that
//! changes what the app sees or is allowed is a refusal, because running
//! without it would be another app than the author's.

use super::at::{At, is_nothing};
use crate::model::Refusal;

/// What becomes of a field.
pub(super) enum Verdict {
    /// It is read elsewhere, or asks for nothing.
    Fine,
    Warning(Refusal),
    Refusal(Refusal),
}

/// Fields that `service` reads.
const HONOURED: &[&str] = &[
    "image",
    "command",
    "entrypoint",
    "environment",
    "labels",
    "ports",
    "volumes",
    "tmpfs",
    "networks",
    "network_mode",
    "restart",
    "depends_on",
    "user",
    "working_dir",
    "hostname",
    "healthcheck",
    "stop_grace_period",
    "stop_signal",
    "mem_limit",
    "cap_add",
    "cap_drop",
    "devices",
    "init",
    "tty",
    "read_only",
    "privileged",
    "ulimits",
    "extra_hosts",
    "links",
];

const HARMLESS: &[(&str, &str)] = &[
    ("annotations", "annotations are not passed on"),
    ("attach", "logs are always followed"),
    ("blkio_config", "disk weights are not honoured"),
    ("build", "images are built before a release is made"),
    ("container_name", "the agent names containers: others find the service by its own name"),
    ("contract", "requirements are not checked"),
    ("cpu_count", "it has no effect on Linux"),
    ("cpu_percent", "it has no effect on Linux"),
    ("cpu_shares", "processor weights are not honoured"),
    ("deploy", "a device runs one of each service, without limits from deploy: use mem_limit"),
    ("develop", "it is for the author's own machine"),
    ("expose", "services on one network reach every port of each other"),
    ("label_file", "labels come from the release"),
    ("logging", "the agent follows logs as the engine's own settings keep them"),
    ("mem_reservation", "only mem_limit is honoured"),
    ("mem_swappiness", "only mem_limit is honoured"),
    ("oom_kill_disable", "it is not honoured"),
    ("oom_score_adj", "it is not honoured"),
    ("platform", "the image's own platform holds"),
    ("profiles", "all services of a release run"),
    ("pull_policy", "images are pulled once, by digest"),
    ("running", "only the target's own running is honoured"),
    ("scale", "a device runs one of each service"),
    ("stdin_open", "nobody types into a container on a device"),
    ("storage_opt", "it is not honoured"),
];

const REFUSED: &[(&str, &str)] = &[
    ("cgroup", "remove it: each container has its own"),
    ("cgroup_parent", "remove it: containers stand where the engine puts them"),
    ("configs", "put the file into the image, or its content into environment"),
    ("cpu_period", "remove it: processor limits are not supported"),
    ("cpu_quota", "remove it: processor limits are not supported"),
    ("cpu_rt_period", "remove it: processor limits are not supported"),
    ("cpu_rt_runtime", "remove it: processor limits are not supported"),
    ("cpus", "remove it: processor limits are not supported"),
    ("cpuset", "remove it: processor limits are not supported"),
    ("credential_spec", "remove it: it is for Windows"),
    ("device_cgroup_rules", "name the devices under devices"),
    ("dns", "remove it: the engine's own settings hold"),
    ("dns_opt", "remove it: the engine's own settings hold"),
    ("dns_search", "remove it: the engine's own settings hold"),
    ("domainname", "write the full name as hostname"),
    ("env_file", "write the variables under environment"),
    ("extends", "write the service in full"),
    ("external_links", "put the services on one network"),
    ("gpus", "remove it: graphics processors are not supported"),
    ("group_add", "write the group as part of user, e.g. \"1000:44\""),
    ("ipc", "remove it: each container has its own"),
    ("isolation", "remove it: it is for Windows"),
    ("mac_address", "remove it: the engine chooses one"),
    ("memswap_limit", "remove it and use mem_limit"),
    ("models", "remove it: models are not supported"),
    ("pid", "remove it: each container has its own processes"),
    ("pids_limit", "limit processes with ulimits.nproc"),
    ("post_start", "do it in the service's own command"),
    ("pre_stop", "do it when the service gets its stop_signal"),
    ("provider", "remove it: providers are not supported"),
    ("runtime", "remove it: the engine's default runtime is used"),
    ("secrets", "give the value by an environment variable of the device or fleet"),
    ("security_opt", "remove it: security options are not supported"),
    ("shm_size", "mount a tmpfs at /dev/shm with the size, e.g. tmpfs: [\"/dev/shm:size=256m\"]"),
    ("sysctls", "set it on the host, or remove it"),
    ("use_api_socket", "give the service the label \"io.balena.features.balena-socket\": \"1\""),
    ("userns_mode", "remove it: the engine's own settings hold"),
    ("uts", "remove it: each container has its own host name"),
    ("volumes_from", "name the volumes under volumes"),
];

/// What becomes of the field `key` of a service.
pub(super) fn judge(key: &str, at: &At<'_>) -> Verdict {
    if HONOURED.contains(&key) || key.starts_with("x-") || is_nothing(at.value) {
        return Verdict::Fine;
    }
    let find =
        |list: &[(&str, &'static str)]| list.iter().find(|(name, _)| *name == key).map(|(_, why)| *why);
    if let Some(why) = find(HARMLESS) {
        return Verdict::Warning(at.refusal(format_args!("not honoured: {why}")));
    }
    if let Some(remedy) = find(REFUSED) {
        return Verdict::Refusal(at.refusal(format_args!("not supported: {remedy}")));
    }
    let snake = snake_case(key);
    if snake != key && HONOURED.contains(&snake.as_str()) {
        return Verdict::Refusal(at.refusal(format_args!("unknown field: write {snake}")));
    }
    Verdict::Refusal(at.refusal("unknown field: correct its name, or remove it"))
}

/// `networkMode` → `network_mode`.
fn snake_case(key: &str) -> String {
    let mut snake = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
