//! The list of all settings, with their defaults.

/// A setting, by its name in the file.
#[derive(Debug)]
pub(super) struct Knob {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// `None` if there is none, or if it depends on the machine.
    pub(super) default: Option<&'static str>,
}

/// How a setting is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    /// A whole number, or else a text.
    Either,
}

const fn text(name: &'static str, default: Option<&'static str>) -> Knob {
    Knob { name, kind: Kind::Text, default }
}

const fn number(name: &'static str, default: Option<&'static str>) -> Knob {
    Knob { name, kind: Kind::Number, default }
}

/// Every setting.
pub(super) const KNOBS: &[Knob] = &[
    text("instance", Some("default")),
    text("state_dir", Some("/var/lib/cotter")),
    text("runtime_dir", Some("/run/cotter")),
    text("engine.socket", Some("/var/run/docker.sock")),
    text("engine.resync", Some("5min")),
    text("cloud.endpoint", None),
    Knob { name: "cloud.fleet", kind: Kind::Either, default: None },
    text("cloud.provisioning_key_file", None),
    text("cloud.uuid", None),
    text("cloud.device_key_file", None),
    text("cloud.device_type", None),
    text("cloud.device_name", None),
    text("cloud.tags", Some("")),
    text("cloud.ca_file", None),
    text("cloud.registries", Some("")),
    text("cloud.poll_interval", Some("15min")),
    text("cloud.poll_wait", Some("50s")),
    text("cloud.report_interval", Some("10s")),
    number("cloud.report_lines", Some("20")),
    text("cloud.request_timeout", Some("59s")),
    text("cloud.move_to", Some("policy")),
    number("update.parallel_pulls", Some("2")),
    number("update.parallel_swaps", Some("2")),
    text("update.stall_timeout", Some("2min")),
    text("update.soak", Some("10s")),
    text("update.deadline", Some("5min")),
    text("update.windows", Some("")),
    text("update.disk_reserve", Some("64MiB")),
    number("heal.restarts", Some("3")),
    text("heal.window", Some("1h")),
    text("policy.preset", Some("balena")),
    text("policy.privileged", None),
    text("policy.host_network", None),
    text("policy.host_namespaces", None),
    text("policy.docker_socket", None),
    text("policy.devices", None),
    text("policy.capabilities", None),
    text("policy.features", None),
    text("policy.network_volumes", None),
    text("policy.drivers", None),
    text("policy.runtimes", None),
    text("policy.supervisor_api", None),
    text("policy.balena_api", None),
    text("policy.reboot", None),
    text("policy.other_apps", None),
    text("policy.host_paths", Some("")),
    number("limits.apps", Some("200")),
    number("limits.services", Some("200")),
    number("limits.networks", Some("100")),
    number("limits.volumes", Some("200")),
    number("limits.ports", Some("1000")),
    number("limits.labels", Some("200")),
    number("limits.variables", Some("1000")),
    text("limits.environment", Some("1MiB")),
    number("limits.values", Some("100000")),
    number("supervisor_api.port", Some("48484")),
    text("metrics.listen", Some("")),
    text("vpn.enabled", Some("no")),
    text("vpn.device", Some("cotter-vpn")),
    text("logs.upload", Some("auto")),
    text("log.level", Some("info")),
];

/// Returns the default of a setting as text, or an empty text if it has none.
pub(super) fn default_of(name: &str) -> &'static str {
    KNOBS.iter().find(|knob| knob.name == name).and_then(|knob| knob.default).unwrap_or_default()
}
