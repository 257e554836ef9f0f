//! Where settings come from: files, environment, flags, laid over each other. Nothing is checked here
//! but their form.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::{ConfigError, DEFAULT_FILE, Given};

/// Every setting by its name in the file, and whether it is a number.
pub(super) const KNOBS: &[(&str, bool)] = &[
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
    ("cloud.registries", false),
    ("cloud.poll_interval", false),
    ("cloud.report_interval", false),
    ("cloud.request_timeout", false),
    ("update.parallel_pulls", true),
    ("update.parallel_swaps", true),
    ("update.stall_timeout", false),
    ("update.soak", false),
    ("update.deadline", false),
    ("update.windows", false),
    ("update.disk_reserve", false),
    ("heal.restarts", true),
    ("heal.window", false),
    ("policy.privileged", false),
    ("policy.host_network", false),
    ("policy.host_namespaces", false),
    ("policy.docker_socket", false),
    ("policy.devices", false),
    ("policy.capabilities", false),
    ("policy.features", false),
    ("policy.host_paths", false),
    ("log.level", false),
];

/// The settings as written. Every one is optional and none is checked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    pub(super) instance: Option<String>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) runtime_dir: Option<PathBuf>,
    pub(super) engine: RawEngine,
    pub(super) cloud: RawCloud,
    pub(super) update: RawUpdate,
    pub(super) heal: RawHeal,
    pub(super) policy: RawPolicy,
    pub(super) log: RawLog,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawEngine {
    pub(super) socket: Option<PathBuf>,
    pub(super) resync: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCloud {
    pub(super) endpoint: Option<String>,
    pub(super) fleet: Option<u64>,
    pub(super) provisioning_key_file: Option<PathBuf>,
    pub(super) uuid: Option<String>,
    pub(super) device_key_file: Option<PathBuf>,
    pub(super) device_type: Option<String>,
    pub(super) device_name: Option<String>,
    pub(super) registries: Option<String>,
    pub(super) poll_interval: Option<String>,
    pub(super) report_interval: Option<String>,
    pub(super) request_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawUpdate {
    pub(super) parallel_pulls: Option<usize>,
    pub(super) parallel_swaps: Option<usize>,
    pub(super) stall_timeout: Option<String>,
    pub(super) soak: Option<String>,
    pub(super) deadline: Option<String>,
    pub(super) windows: Option<String>,
    pub(super) disk_reserve: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHeal {
    pub(super) restarts: Option<usize>,
    pub(super) window: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPolicy {
    pub(super) privileged: Option<String>,
    pub(super) host_network: Option<String>,
    pub(super) host_namespaces: Option<String>,
    pub(super) docker_socket: Option<String>,
    pub(super) devices: Option<String>,
    pub(super) capabilities: Option<String>,
    pub(super) features: Option<String>,
    pub(super) host_paths: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    pub(super) level: Option<String>,
}

/// Everything that was said, the nearest last.
pub(super) fn merged(
    given: &Given,
    environment: &BTreeMap<String, String>,
) -> Result<RawConfig, ConfigError> {
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
        why: in_words(e.message()),
    };
    let mut raw: RawConfig = merged.try_into().map_err(wrong)?;
    for (knob, file) in [
        ("cloud.provisioning_key_file", &mut raw.cloud.provisioning_key_file),
        ("cloud.device_key_file", &mut raw.cloud.device_key_file),
    ] {
        if let Some(file) = file {
            *file = with_credentials(knob, file, environment)?;
        }
    }
    Ok(raw)
}

/// Where a key file is, when its path begins with the folder in which systemd puts a unit's credentials.
fn with_credentials(
    key: &'static str,
    file: &Path,
    environment: &BTreeMap<String, String>,
) -> Result<PathBuf, ConfigError> {
    let Ok(name) = file.strip_prefix("$CREDENTIALS_DIRECTORY") else { return Ok(file.to_path_buf()) };
    let why = "systemd sets no $CREDENTIALS_DIRECTORY here; give the unit LoadCredential=, or name a file";
    let folder = environment.get("CREDENTIALS_DIRECTORY").ok_or_else(|| ConfigError::KeyFile {
        key,
        path: file.display().to_string(),
        why: why.to_owned(),
    })?;
    Ok(Path::new(folder).join(name))
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

/// The parser's message in one line, and without names of Rust's types.
fn in_words(message: &str) -> String {
    let types = [("expected u64", "expected a whole number"), ("expected usize", "expected a whole number")];
    let types = types.into_iter().chain([("expected path string", "expected a string")]);
    types.fold(message.replace('\n', " "), |text, (from, to)| text.replace(from, to))
}

/// One file, checked for its form by itself, so that a mistake is told with its line.
fn read(path: &Path) -> Result<Table, ConfigError> {
    let shown = path.display().to_string();
    let text = fs::read_to_string(path)
        .map_err(|e| ConfigError::Unreadable { path: shown.clone(), why: e.to_string() })?;
    let wrong = |e: &toml::de::Error| {
        let line = e.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        let why = in_words(e.message());
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
