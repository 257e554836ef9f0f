//! Decides about compose fields that we do not honour: a warning or a refusal.
//!
//! A field that only helps to build, sort or schedule gives a warning. A field that changes what the app sees or may do
//! gives a refusal, because without it another app would run than the author's.

use super::at::{At, is_nothing, snake_case};
use crate::model::Refusal;

/// The decision about a field.
pub(super) enum Verdict {
    /// It is read elsewhere, or it is empty.
    Fine,
    Warning(Refusal),
    Refusal(Refusal),
}

/// Fields that `service` reads.
pub(super) const HONOURED: &[&str] = &[
    "annotations",
    "blkio_config",
    "cap_add",
    "cap_drop",
    "cgroup",
    "cgroup_parent",
    "command",
    "configs",
    "cpu_period",
    "cpu_quota",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "cpu_shares",
    "cpus",
    "cpuset",
    "depends_on",
    "deploy",
    "device_cgroup_rules",
    "devices",
    "dns",
    "dns_opt",
    "dns_search",
    "domainname",
    "entrypoint",
    "environment",
    "extra_hosts",
    "gpus",
    "group_add",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "ipc",
    "labels",
    "links",
    "logging",
    "mac_address",
    "mem_limit",
    "mem_reservation",
    "mem_swappiness",
    "memswap_limit",
    "network_mode",
    "networks",
    "oom_kill_disable",
    "oom_score_adj",
    "pid",
    "pids_limit",
    "platform",
    "ports",
    "privileged",
    "read_only",
    "restart",
    "runtime",
    "security_opt",
    "shm_size",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "sysctls",
    "tmpfs",
    "tty",
    "ulimits",
    "user",
    "userns_mode",
    "uts",
    "volumes",
    "working_dir",
];

pub(super) const HARMLESS: &[(&str, &str)] = &[
    ("attach", "logs are always followed"),
    ("build", "images are built before a release is made"),
    ("container_name", "the agent names containers: others find the service by its own name"),
    ("contract", "requirements are not checked"),
    ("cpu_count", "it has no effect on Linux"),
    ("cpu_percent", "it has no effect on Linux"),
    ("develop", "it is for the author's own machine"),
    ("expose", "services on one network reach every port of each other"),
    ("label_file", "labels come from the release"),
    ("profiles", "all services of a release run"),
    ("pull_policy", "images are pulled once, by digest"),
    ("pull_refresh_after", "images are pulled once, by digest"),
    ("running", "only the target's own running is honoured"),
    ("scale", "a device runs one of each service"),
    ("storage_opt", "few engines have it, and others would refuse the container"),
];

pub(super) const REFUSED: &[(&str, &str)] = &[
    ("credential_spec", "remove it, because it is for Windows"),
    ("env_file", "create the release with `cotter release create`, or write the variables under environment"),
    ("extends", "create the release with `cotter release create`, or write the service in full"),
    ("external_links", "put the services on one network"),
    ("isolation", "remove it, because it is for Windows"),
    ("models", "remove it"),
    ("post_start", "do it in the service's own command"),
    ("pre_start", "do it in the service's own command"),
    ("pre_stop", "do it when the service gets its stop_signal"),
    ("provider", "remove it"),
    ("secrets", "create the release with `cotter release create`, which makes configs of them"),
    ("use_api_socket", "give the service the label \"io.balena.features.balena-socket\": \"1\""),
    ("volumes_from", "name the volumes under volumes"),
];

/// Decides about the field `key` of a service.
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
