//! Reads settings from files, environment and flags. A later source overrides an earlier one. Checks only their form,
//! not their values.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::de::DeTable;
use toml::{Table, Value};

use super::knobs::{KNOBS, Kind, Knob};
use super::{ConfigError, DEFAULT_FILE, Given, environment, file};

/// Where a setting is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    File {
        path: PathBuf,
        line: usize,
    },
    Variable(String),
    /// `--set` with this key.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(key) => write!(f, "--set {key}"),
        }
    }
}

/// A value of a setting, and where it is set.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Said {
    pub(super) knob: &'static str,
    pub(super) value: Value,
    pub(super) place: Place,
}

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
    pub(super) limits: RawLimits,
    pub(super) supervisor_api: RawSupervisorApi,
    pub(super) metrics: RawMetrics,
    pub(super) vpn: RawVpn,
    pub(super) logs: RawLogs,
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
    pub(super) fleet: Option<RawFleet>,
    pub(super) provisioning_key_file: Option<PathBuf>,
    pub(super) uuid: Option<String>,
    pub(super) device_key_file: Option<PathBuf>,
    pub(super) device_type: Option<String>,
    pub(super) device_name: Option<String>,
    pub(super) tags: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) registries: Option<String>,
    pub(super) poll_interval: Option<String>,
    pub(super) poll_wait: Option<String>,
    pub(super) report_interval: Option<String>,
    pub(super) report_lines: Option<usize>,
    pub(super) request_timeout: Option<String>,
    pub(super) move_to: Option<String>,
}

/// A fleet as it is written: its number, or its name.
#[derive(Debug)]
pub(super) struct RawFleet(pub(super) String);

impl<'de> Deserialize<'de> for RawFleet {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        let number = value.as_integer().filter(|number| *number >= 0).map(|number| number.to_string());
        number.or_else(|| value.as_str().map(str::to_owned)).map(Self).ok_or_else(|| {
            D::Error::custom(format!(
                "expected the number or the name of a fleet, found {}",
                value.type_str()
            ))
        })
    }
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
    pub(super) preset: Option<String>,
    pub(super) privileged: Option<String>,
    pub(super) host_network: Option<String>,
    pub(super) host_namespaces: Option<String>,
    pub(super) docker_socket: Option<String>,
    pub(super) devices: Option<String>,
    pub(super) capabilities: Option<String>,
    pub(super) features: Option<String>,
    pub(super) network_volumes: Option<String>,
    pub(super) drivers: Option<String>,
    pub(super) runtimes: Option<String>,
    pub(super) supervisor_api: Option<String>,
    pub(super) balena_api: Option<String>,
    pub(super) reboot: Option<String>,
    pub(super) other_apps: Option<String>,
    pub(super) host_paths: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    pub(super) apps: Option<usize>,
    pub(super) services: Option<usize>,
    pub(super) networks: Option<usize>,
    pub(super) volumes: Option<usize>,
    pub(super) ports: Option<usize>,
    pub(super) labels: Option<usize>,
    pub(super) variables: Option<usize>,
    pub(super) environment: Option<String>,
    pub(super) values: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSupervisorApi {
    pub(super) port: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawMetrics {
    pub(super) listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawVpn {
    pub(super) enabled: Option<String>,
    pub(super) device: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLogs {
    pub(super) upload: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    pub(super) level: Option<String>,
}

/// Reads all sources. A later element overrides an earlier one.
pub(super) fn said(given: &Given, environment: &BTreeMap<String, String>) -> Result<Vec<Said>, ConfigError> {
    let mut said = Vec::new();
    for file in files(given)? {
        said.extend(read(&file)?);
    }
    for Knob { name: knob, kind, .. } in KNOBS {
        let variable = format!("COTTER_{}", knob.to_uppercase().replace('.', "_"));
        if let Some(text) = environment.get(&variable) {
            let place = Place::Variable(variable);
            said.push(Said { knob, value: value(text, *kind, &place)?, place });
        }
    }
    for (key, text) in &given.set {
        let Some(Knob { name: knob, kind, .. }) = KNOBS.iter().find(|knob| knob.name == key) else {
            let known: Vec<_> = KNOBS.iter().map(|knob| knob.name).collect();
            return Err(ConfigError::Wrong {
                place: format!("--set {key}"),
                why: format!("there is no such setting; the settings are {}", known.join(", ")),
            });
        };
        let place = Place::Flag(knob);
        said.push(Said { knob, value: value(text, *kind, &place)?, place });
    }
    Ok(said)
}

/// Merges all sources into one set of settings.
pub(super) fn merged(
    said: &[Said],
    environment: &BTreeMap<String, String>,
) -> Result<RawConfig, ConfigError> {
    let nearest = KNOBS.iter().filter_map(|knob| said.iter().rfind(|said| said.knob == knob.name));
    // Written as TOML and parsed again: one parser for files, variables and flags keeps the binary small.
    let text: String = nearest.map(|said| format!("{} = {}\n", said.knob, in_toml(&said.value))).collect();
    let wrong = |e: toml::de::Error| ConfigError::Wrong {
        place: "all places together".to_owned(),
        why: plain_message(e.message()),
    };
    let mut raw: RawConfig = toml::from_str(&text).map_err(wrong)?;
    for file in [&mut raw.cloud.provisioning_key_file, &mut raw.cloud.device_key_file].into_iter().flatten() {
        *file = with_credentials(file, environment);
    }
    Ok(raw)
}

/// Returns the folders where systemd puts the credentials of the agent's unit while it runs, and where it takes them
/// from. `--set instance=NAME` names the instance of the unit, or else the folder of its file, `/etc/cotter/NAME`.
pub(super) fn credentials(given: &Given) -> Vec<String> {
    let said = given.set.iter().rfind(|(key, _)| key == "instance").map(|(_, name)| name.as_str());
    let folder = given.file.as_deref().and_then(Path::parent).and_then(Path::file_name);
    let instance = said.or(folder.and_then(OsStr::to_str));
    let own = instance.map(|name| format!("/run/credentials/cotter-agent@{name}.service"));
    let usual = ["/run/credentials/cotter-agent.service", "/etc/credstore"].map(str::to_owned);
    own.into_iter().chain(usual).collect()
}

/// Returns the environment for a command that reads the agent's settings outside of its unit. There systemd sets no
/// `$CREDENTIALS_DIRECTORY`, so it is set to the first of the unit's folders that is not empty.
#[must_use]
pub fn environment_outside(given: &Given) -> BTreeMap<String, String> {
    with_folder(environment(), &credentials(given))
}

/// [`environment_outside`] for these folders.
pub(super) fn with_folder(
    mut environment: BTreeMap<String, String>,
    folders: &[String],
) -> BTreeMap<String, String> {
    let has_any = |folder: &&String| fs::read_dir(folder).is_ok_and(|mut inside| inside.next().is_some());
    if let Some(folder) = folders.iter().find(has_any) {
        environment.entry("CREDENTIALS_DIRECTORY".to_owned()).or_insert_with(|| folder.clone());
    }
    environment
}

/// The folder in which systemd puts a unit's credentials, at the beginning of a key file's path.
pub(super) const CREDENTIALS: &str = "$CREDENTIALS_DIRECTORY";
pub(super) const NO_CREDENTIALS: &str =
    "systemd sets no $CREDENTIALS_DIRECTORY here; add LoadCredential= to the unit, or name a file";

/// Replaces [`CREDENTIALS`] at the beginning of a key file's path. If systemd sets no such folder, because the unit
/// has no credential any more, the path stays as it is, and no key is found there.
fn with_credentials(file: &Path, environment: &BTreeMap<String, String>) -> PathBuf {
    let name = file.strip_prefix(CREDENTIALS).ok();
    let inside = name.and_then(|name| Some(Path::new(environment.get("CREDENTIALS_DIRECTORY")?).join(name)));
    inside.unwrap_or_else(|| file.to_path_buf())
}

/// Returns the settings files that are read. A later file overrides an earlier one.
///
/// # Errors
///
/// When the folder `agent.d` cannot be listed.
pub fn files(given: &Given) -> Result<Vec<PathBuf>, ConfigError> {
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
        more.sort_unstable();
        files.extend(more);
    }
    Ok(files)
}

/// Makes the parser's message one line, without names of Rust types.
fn plain_message(message: &str) -> String {
    let types = [("expected u64", "expected a whole number"), ("expected usize", "expected a whole number")];
    let types = types.into_iter().chain([("expected path string", "expected a string")]);
    types.fold(message.replace('\n', " "), |text, (from, to)| text.replace(from, to))
}

/// Reads one file and checks its form, so that an error has a line number.
fn read(path: &Path) -> Result<Vec<Said>, ConfigError> {
    let shown = path.display().to_string();
    let text = file::text(path).map_err(|why| ConfigError::Unreadable { path: shown.clone(), why })?;
    let line = |at: usize| text.get(..at).unwrap_or_default().matches('\n').count() + 1;
    let wrong = |e: &toml::de::Error| {
        let line = e.span().map_or(1, |span| line(span.start));
        let why = plain_message(e.message());
        ConfigError::Wrong { place: format!("{shown}, line {line}"), why }
    };
    toml::from_str::<RawConfig>(&text).map_err(|e| wrong(&e))?;
    let table = toml::from_str::<Table>(&text).map_err(|e| wrong(&e))?;
    let places = DeTable::parse(&text).map_err(|e| wrong(&e))?;
    let one = |knob: &Knob| {
        let mut words = knob.name.split('.');
        let first = words.next()?;
        let (mut value, mut place) = (table.get(first)?, places.get_ref().get(first)?);
        for word in words {
            (value, place) = (value.get(word)?, place.get_ref().get(word)?);
        }
        let place = Place::File { path: path.to_owned(), line: line(place.span().start) };
        Some(Said { knob: knob.name, value: value.clone(), place })
    };
    Ok(KNOBS.iter().filter_map(one).collect())
}

fn value(text: &str, kind: Kind, place: &Place) -> Result<Value, ConfigError> {
    match (kind, text.parse()) {
        (Kind::Number | Kind::Either, Ok(number)) => Ok(Value::Integer(number)),
        (Kind::Text | Kind::Either, _) => Ok(Value::String(text.to_owned())),
        (Kind::Number, Err(_)) => {
            let why = format!("{text:?} is not a whole number");
            Err(ConfigError::Wrong { place: place.to_string(), why })
        }
    }
}

/// Formats a text or a whole number as TOML. A text is written as JSON, plus an escape for U+007F, which JSON does not
/// escape.
pub(super) fn in_toml(value: &Value) -> String {
    let number = || value.as_integer().unwrap_or_default().to_string();
    value
        .as_str()
        .map_or_else(number, |text| serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f"))
}
