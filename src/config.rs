//! Settings of the agent: file, environment and flags → [`Config`], checked once.
//!
//! The only place that reads the environment. Every knob is in [`KNOBS`].

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::{Table, Value};

use crate::engine::Instance;
use crate::model::{DeviceUuid, PlanSettings};

/// Where the settings are when nothing else is said. It may be missing.
pub const DEFAULT_FILE: &str = "/etc/cotter/agent.toml";

/// Every setting by its name in the file, and whether it is a number.
const KNOBS: &[(&str, bool)] = &[
    ("instance", false),
    ("state_dir", false),
    ("runtime_dir", false),
    ("engine.socket", false),
    ("engine.resync", false),
    ("cloud.endpoint", false),
    ("cloud.fleet", true),
    ("cloud.provisioning_key_file", false),
    ("cloud.uuid", false),
    ("cloud.device_key_file", false),
    ("cloud.device_type", false),
    ("cloud.device_name", false),
    ("cloud.poll_interval", false),
    ("cloud.report_interval", false),
    ("cloud.request_timeout", false),
    ("update.parallel_pulls", true),
    ("update.parallel_swaps", true),
    ("update.stall_timeout", false),
    ("log.level", false),
];

/// The settings as written. Every one is optional and none is checked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    instance: Option<String>,
    state_dir: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
    engine: RawEngine,
    cloud: RawCloud,
    update: RawUpdate,
    log: RawLog,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawEngine {
    socket: Option<PathBuf>,
    resync: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCloud {
    endpoint: Option<String>,
    fleet: Option<u64>,
    provisioning_key_file: Option<PathBuf>,
    uuid: Option<String>,
    device_key_file: Option<PathBuf>,
    device_type: Option<String>,
    device_name: Option<String>,
    poll_interval: Option<String>,
    report_interval: Option<String>,
    request_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawUpdate {
    parallel_pulls: Option<usize>,
    parallel_swaps: Option<usize>,
    stall_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLog {
    level: Option<String>,
}

/// The settings in force. Having one means they were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub instance: Instance,
    pub state_dir: PathBuf,
    pub runtime_dir: PathBuf,
    pub engine_socket: PathBuf,
    /// Longest time between two looks at the engine.
    pub resync: Duration,
    /// `None`: no cloud is asked.
    pub cloud: Option<CloudConfig>,
    pub plan: PlanSettings,
    /// How long a download may make no progress.
    pub stall_timeout: Duration,
    pub log_level: String,
}

/// How to reach the cloud, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub struct CloudConfig {
    /// Without a slash at its end.
    pub endpoint: String,
    pub joining: Joining,
    pub device_type: String,
    pub device_name: Option<String>,
    pub poll_interval: Duration,
    pub report_interval: Duration,
    pub request_timeout: Duration,
}

/// How the device becomes known to its cloud.
#[derive(Clone, PartialEq, Eq)]
pub enum Joining {
    /// It is known, under this uuid and key.
    Known { uuid: DeviceUuid, key: String },
    /// It registers itself with a provisioning key.
    Register { fleet: u64, provisioning_key: String },
    /// It has registered before, or cannot.
    Remembered,
}

// Neither keys nor URLs with a password in them are ever printed.
impl std::fmt::Debug for CloudConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloudConfig").finish_non_exhaustive()
    }
}

/// Why there are no settings in force.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "settings file {path} cannot be read ({why}); make it readable, or name another one with --config"
    )]
    Unreadable { path: String, why: String },
    #[error("settings in {place} are wrong: {why}")]
    Wrong { place: String, why: String },
    #[error("{key} = {given:?} is not accepted: it must be {accepts}")]
    Value { key: &'static str, given: String, accepts: String },
    #[error("{key}: key file {path} cannot be used: {why}")]
    KeyFile { key: &'static str, path: String, why: String },
    #[error("{0}")]
    Incomplete(&'static str),
}

/// What the command line says of the settings.
#[derive(Debug, Default, Clone)]
pub struct Given {
    /// `--config`; the file must then exist.
    pub file: Option<PathBuf>,
    /// `--set key=value`, in their order.
    pub set: Vec<(String, String)>,
}

impl Config {
    /// Reads the settings: file, `agent.d/*.toml` beside it, environment, flags; then checks them.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its place and what is accepted.
    pub fn load(given: &Given, environment: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut merged = Table::new();
        for file in files(given)? {
            overlay(&mut merged, read(&file)?);
        }
        for (knob, is_number) in KNOBS {
            let variable = format!("COTTER_{}", knob.to_uppercase().replace('.', "_"));
            if let Some(text) = environment.get(&variable) {
                set(&mut merged, knob, value(text, *is_number, &format!("variable {variable}"))?);
            }
        }
        for (key, text) in &given.set {
            let place = format!("--set {key}");
            let Some((knob, is_number)) = KNOBS.iter().find(|(knob, _)| knob == key) else {
                let known: Vec<_> = KNOBS.iter().map(|(knob, _)| *knob).collect();
                return Err(ConfigError::Wrong {
                    place,
                    why: format!("there is no such setting; there are {}", known.join(", ")),
                });
            };
            set(&mut merged, knob, value(text, *is_number, &place)?);
        }
        let wrong = |e: toml::de::Error| ConfigError::Wrong {
            place: "all places together".to_owned(),
            why: e.message().to_owned(),
        };
        check(merged.try_into().map_err(wrong)?)
    }
}

/// The environment of this process, for [`Config::load`] and for the operator's commands.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

fn files(given: &Given) -> Result<Vec<PathBuf>, ConfigError> {
    let first = given.file.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let mut files = Vec::new();
    if given.file.is_some() || first.exists() {
        files.push(first.clone());
    }
    let folder = first.with_file_name("agent.d");
    if folder.is_dir() {
        let unreadable = |e: std::io::Error| ConfigError::Unreadable {
            path: folder.display().to_string(),
            why: e.to_string(),
        };
        let mut more = Vec::new();
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|e| e == "toml") {
                more.push(path);
            }
        }
        more.sort();
        files.extend(more);
    }
    Ok(files)
}

/// One file, checked for its form by itself, so that a mistake is told with its line.
fn read(path: &Path) -> Result<Table, ConfigError> {
    let shown = path.display().to_string();
    let text = fs::read_to_string(path)
        .map_err(|e| ConfigError::Unreadable { path: shown.clone(), why: e.to_string() })?;
    let wrong = |e: &toml::de::Error| {
        let line = e.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        let why = e.message().replace('\n', " ");
        ConfigError::Wrong { place: format!("{shown}, line {line}"), why }
    };
    toml::from_str::<RawConfig>(&text).map_err(|e| wrong(&e))?;
    toml::from_str::<Table>(&text).map_err(|e| wrong(&e))
}

fn overlay(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            (_, value) => drop(below.insert(key, value)),
        }
    }
}

fn value(text: &str, is_number: bool, place: &str) -> Result<Value, ConfigError> {
    if !is_number {
        return Ok(Value::String(text.to_owned()));
    }
    let why = format!("{text:?} is not a whole number");
    text.parse().map(Value::Integer).map_err(|_| ConfigError::Wrong { place: place.to_owned(), why })
}

fn set(table: &mut Table, knob: &str, value: Value) {
    match knob.split_once('.') {
        None => drop(table.insert(knob.to_owned(), value)),
        Some((section, key)) => {
            if let Value::Table(inner) = table.entry(section).or_insert_with(|| Value::Table(Table::new())) {
                inner.insert(key.to_owned(), value);
            }
        }
    }
}

fn check(raw: RawConfig) -> Result<Config, ConfigError> {
    let instance = raw.instance.unwrap_or_else(|| Instance::DEFAULT.to_owned());
    let accepts =
        "lower-case letters, digits and '-', at most 32, beginning with a letter or digit".to_owned();
    let instance =
        Instance::parse(&instance).ok_or(ConfigError::Value { key: "instance", given: instance, accepts })?;
    let (second, hour, day) = (1, 3600, 24 * 3600);
    Ok(Config {
        instance,
        state_dir: raw.state_dir.unwrap_or_else(|| "/var/lib/cotter".into()),
        runtime_dir: raw.runtime_dir.unwrap_or_else(|| "/run/cotter".into()),
        engine_socket: raw.engine.socket.unwrap_or_else(|| "/var/run/docker.sock".into()),
        resync: duration("engine.resync", raw.engine.resync, "5min", 10 * second, day)?,
        cloud: cloud(raw.cloud)?,
        plan: PlanSettings {
            parallel_pulls: count("update.parallel_pulls", raw.update.parallel_pulls, 2, 16)?,
            parallel_swaps: count("update.parallel_swaps", raw.update.parallel_swaps, 4, 64)?,
        },
        stall_timeout: duration("update.stall_timeout", raw.update.stall_timeout, "2min", 5 * second, hour)?,
        log_level: raw.log.level.unwrap_or_else(|| "info".to_owned()),
    })
}

fn cloud(raw: RawCloud) -> Result<Option<CloudConfig>, ConfigError> {
    let poll_interval = duration("cloud.poll_interval", raw.poll_interval, "15min", 1, 24 * 3600)?;
    let report_interval = duration("cloud.report_interval", raw.report_interval, "10s", 1, 3600)?;
    let request_timeout = duration("cloud.request_timeout", raw.request_timeout, "59s", 1, 600)?;
    let joining = match (raw.uuid, raw.device_key_file, raw.fleet, raw.provisioning_key_file) {
        (Some(uuid), Some(file), _, _) => {
            let accepts = "32 or 62 lower-case hex digits".to_owned();
            let uuid = DeviceUuid::parse(&uuid).map_err(|_| ConfigError::Value {
                key: "cloud.uuid",
                given: uuid,
                accepts,
            })?;
            Joining::Known { uuid, key: key("cloud.device_key_file", &file)? }
        }
        (Some(_), None, _, _) | (None, Some(_), _, _) => {
            return Err(ConfigError::Incomplete(
                "cloud.uuid and cloud.device_key_file go together; set both or neither",
            ));
        }
        (None, None, Some(fleet), Some(file)) => {
            Joining::Register { fleet, provisioning_key: key("cloud.provisioning_key_file", &file)? }
        }
        (None, None, Some(_), None) | (None, None, None, Some(_)) => {
            return Err(ConfigError::Incomplete(
                "cloud.fleet and cloud.provisioning_key_file go together; set both or neither",
            ));
        }
        (None, None, None, None) => Joining::Remembered,
    };
    let Some(endpoint) = raw.endpoint else { return Ok(None) };
    let is_url = endpoint.strip_prefix("https://").or(endpoint.strip_prefix("http://"));
    if is_url
        .is_none_or(|rest| rest.is_empty() || rest.starts_with('/') || rest.contains(char::is_whitespace))
    {
        let accepts = "a URL with http:// or https://, e.g. https://api.example.com".to_owned();
        return Err(ConfigError::Value { key: "cloud.endpoint", given: endpoint, accepts });
    }
    Ok(Some(CloudConfig {
        endpoint: endpoint.trim_end_matches('/').to_owned(),
        joining,
        device_type: raw.device_type.unwrap_or_else(|| default_device_type().to_owned()),
        device_name: raw.device_name,
        poll_interval,
        report_interval,
        request_timeout,
    }))
}

fn default_device_type() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "generic-aarch64",
        "arm" => "generic-armv7ahf",
        _ => "generic-amd64",
    }
}

/// The first line of a key file, which nobody else may read.
fn key(key: &'static str, path: &Path) -> Result<String, ConfigError> {
    let bad = |why: String| ConfigError::KeyFile { key, path: path.display().to_string(), why };
    let metadata = fs::metadata(path).map_err(|e| bad(e.to_string()))?;
    let mode = metadata.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(bad(format!("others may read it (mode {:o}); chmod 600 it", mode & 0o777)));
    }
    let text = fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    let first = text.lines().next().unwrap_or_default().trim().to_owned();
    if first.is_empty() {
        Err(bad("its first line is empty; write the key there".to_owned()))
    } else {
        Ok(first)
    }
}

fn duration(
    key: &'static str,
    given: Option<String>,
    default: &str,
    least: u64,
    most: u64,
) -> Result<Duration, ConfigError> {
    let given = given.unwrap_or_else(|| default.to_owned());
    let (least, most) = (Duration::from_secs(least), Duration::from_secs(most));
    match humantime::parse_duration(&given) {
        Ok(duration) if (least..=most).contains(&duration) => Ok(duration),
        Ok(_) | Err(_) => {
            let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
            Err(ConfigError::Value {
                key,
                given,
                accepts: format!("a duration such as {default}, from {least} to {most}"),
            })
        }
    }
}

fn count(key: &'static str, given: Option<usize>, default: usize, most: usize) -> Result<usize, ConfigError> {
    match given.unwrap_or(default) {
        n if (1..=most).contains(&n) => Ok(n),
        n => Err(ConfigError::Value {
            key,
            given: n.to_string(),
            accepts: format!("a whole number from 1 to {most}"),
        }),
    }
}

#[cfg(test)]
mod tests;
