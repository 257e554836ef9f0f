//! Reads the agent's settings from files, environment and flags into a [`Config`], and checks them once.
//!
//! This is the only room that reads the environment.

mod cloud;
mod file;
mod join;
mod key_file;
mod knobs;
mod leave;
mod limits;
mod policy;
mod show;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{DeviceUuid, FleetRef, Instance, LogUpload, PlanSettings, Policy, Window};

pub use cloud::checked_endpoint;
pub use join::{JoinError, Joined};
pub use key_file::KeyFile;
use knobs::default_of;
pub use leave::Traces;
pub use show::{Setting, settings};
pub use sources::{Place, environment_outside, files};
use sources::{RawConfig, RawVpn, Said};

/// The settings file that is read if `--config` names no other one. It may be missing.
pub const DEFAULT_FILE: &str = "/etc/cotter/agent.toml";

/// Most characters of the name of a network interface (Linux, IFNAMSIZ).
const LONGEST_INTERFACE: usize = 15;

/// The settings in force. A `Config` exists only if they were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub instance: Instance,
    pub state_dir: PathBuf,
    pub runtime_dir: PathBuf,
    pub engine_socket: PathBuf,
    /// Longest time between two observations of the engine.
    pub resync: Duration,
    /// `None`: the agent sends requests to no cloud.
    pub cloud: Option<CloudConfig>,
    pub plan: PlanSettings,
    /// How long a download may make no progress.
    pub stall_timeout: Duration,
    /// What releases may use of the device.
    pub policy: Policy,
    /// The port of the supervisor API, at addresses that only containers reach.
    pub supervisor_port: u16,
    /// TCP address that serves metrics in addition to the status socket; `None`: none.
    pub metrics_listen: Option<SocketAddr>,
    /// The VPN of the cloud.
    pub vpn: VpnConfig,
    /// Whether logs of services are uploaded to the cloud.
    pub log_upload: LogUpload,
    pub log_level: String,
}

/// The VPN of the cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpnConfig {
    /// Whether the owner of the device has it on.
    pub is_on: bool,
    /// The name of its network interface.
    pub device: String,
}

/// How to reach the cloud, and with which identity.
#[derive(Clone, PartialEq, Eq)]
pub struct CloudConfig {
    /// Without a slash at its end.
    pub endpoint: String,
    pub joining: Joining,
    pub device_type: String,
    pub device_name: Option<String>,
    /// Tags that a Cotter fleet server gives the device when it registers.
    pub tags: BTreeMap<String, String>,
    /// Certificates of authorities that are trusted in addition to those of this machine, as PEM.
    pub authority: Option<Vec<u8>>,
    /// Image registries that get the device's key, in addition to those that belong to the endpoint.
    pub registries: Vec<String>,
    pub poll_interval: Duration,
    /// Longest time that a poll waits at a Cotter fleet server for a new target. Zero: none.
    pub poll_wait: Duration,
    pub report_interval: Duration,
    /// How many of the last lines of a failed service are reported to a Cotter fleet server.
    pub report_lines: usize,
    pub request_timeout: Duration,
    /// Where the cloud may move this device to.
    pub move_to: MoveTo,
}

/// Where a cloud may move its device to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveTo {
    /// Anywhere, if releases may be as good as root on this device; nowhere otherwise.
    AsPolicyAllows,
    Anywhere,
    /// Hosts, with a port if it is not the usual one. Empty: nowhere.
    Hosts(Vec<String>),
}

/// How the device identifies itself to its cloud.
#[derive(Clone, PartialEq, Eq)]
pub enum Joining {
    /// The cloud has this uuid and key already.
    Known { uuid: DeviceUuid, key: String },
    /// The device registers with the provisioning key in this file, or has done so.
    Register { fleet: FleetRef, key_file: KeyFile },
    /// The settings have neither. The device has registered before, or it cannot.
    Remembered,
}

// Never prints keys, or URLs that may have a password in them.
impl std::fmt::Debug for CloudConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloudConfig").finish_non_exhaustive()
    }
}

/// Why the settings are not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("settings file {path} cannot be read ({why}); make it readable, or name another file")]
    Unreadable { path: String, why: String },
    #[error("settings in {place} are invalid: {why}")]
    Wrong { place: String, why: String },
    #[error("{key} = {given:?} is not accepted: it must be {accepts}")]
    Value { key: &'static str, given: String, accepts: String },
    #[error("{key}: key file {path} cannot be used: {why}")]
    KeyFile { key: &'static str, path: String, why: String },
    #[error("{0}")]
    Incomplete(&'static str),
    /// One of the above, with the place where the setting is set.
    #[error("{wrong}; it is set in {place}")]
    At { place: Place, wrong: Box<ConfigError> },
}

/// The options of the command line that change settings.
#[derive(Debug, Default, Clone)]
pub struct Given {
    /// `--config`; the file must then exist.
    pub file: Option<PathBuf>,
    /// `--set key=value`, in the order of the command line.
    pub set: Vec<(String, String)>,
}

impl Config {
    /// Reads the settings from the file, from `agent.d/*.toml` in its folder, the environment and the flags; then
    /// checks them. A later source overrides an earlier one.
    ///
    /// # Errors
    ///
    /// The first invalid setting, with its place and the accepted values.
    pub fn load(given: &Given, environment: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let said = sources::said(given, environment)?;
        check(sources::merged(&said, environment)?).map_err(|error| located(error, &said))
    }

    /// Returns whether nothing at all is set: there is no file, no variable and no flag.
    ///
    /// # Errors
    ///
    /// If a source cannot be read or parsed.
    pub fn is_unset(given: &Given, environment: &BTreeMap<String, String>) -> Result<bool, ConfigError> {
        Ok(sources::files(given)?.is_empty() && sources::said(given, environment)?.is_empty())
    }

    /// Adds the place of the setting to an `error` that a caller found in loaded settings.
    #[must_use]
    pub fn locate(error: ConfigError, given: &Given, environment: &BTreeMap<String, String>) -> ConfigError {
        match sources::said(given, environment) {
            Ok(said) => located(error, &said),
            Err(_) => error,
        }
    }
}

/// Returns the environment of this process, for [`Config::load`] and for the operator's commands.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

/// Adds the place of the setting to an error that is about one setting.
fn located(error: ConfigError, said: &[Said]) -> ConfigError {
    let key = match &error {
        ConfigError::Value { key, .. } | ConfigError::KeyFile { key, .. } => *key,
        ConfigError::Unreadable { .. }
        | ConfigError::Wrong { .. }
        | ConfigError::Incomplete(_)
        | ConfigError::At { .. } => return error,
    };
    match said.iter().rfind(|said| said.knob == key) {
        Some(said) => ConfigError::At { place: said.place.clone(), wrong: Box::new(error) },
        None => error,
    }
}

fn check(raw: RawConfig) -> Result<Config, ConfigError> {
    let instance = raw.instance.unwrap_or_else(|| default_of("instance").to_owned());
    let accepts =
        "lower-case letters, digits and '-', at most 32, beginning with a letter or digit".to_owned();
    let instance = Instance::parse(&instance).map_err(|_| ConfigError::Value {
        key: "instance",
        given: instance,
        accepts,
    })?;
    let (second, hour, day) = (1, 3600, 24 * 3600);
    let engine_socket = raw.engine.socket.unwrap_or_else(|| default_of("engine.socket").into());
    let vpn = vpn(raw.vpn)?;
    Ok(Config {
        instance,
        state_dir: raw.state_dir.unwrap_or_else(|| default_of("state_dir").into()),
        runtime_dir: raw.runtime_dir.unwrap_or_else(|| default_of("runtime_dir").into()),
        resync: duration("engine.resync", raw.engine.resync, 10 * second, day)?,
        cloud: cloud::cloud(raw.cloud)?,
        plan: PlanSettings {
            parallel_pulls: count("update.parallel_pulls", raw.update.parallel_pulls, 1..=16)?,
            parallel_swaps: count("update.parallel_swaps", raw.update.parallel_swaps, 1..=64)?,
            soak: duration("update.soak", raw.update.soak, 0, hour)?,
            deadline: duration("update.deadline", raw.update.deadline, 1, day)?,
            windows: windows("update.windows", raw.update.windows)?,
            disk_reserve: bytes("update.disk_reserve", raw.update.disk_reserve)?,
            heals: count("heal.restarts", raw.heal.restarts, 0..=100)?,
            heal_window: duration("heal.window", raw.heal.window, 10 * second, day)?,
        },
        stall_timeout: duration("update.stall_timeout", raw.update.stall_timeout, 5 * second, hour)?,
        policy: policy::policy(raw.policy, &engine_socket, limits::limits(raw.limits)?, vpn.is_on)?,
        vpn,
        engine_socket,
        supervisor_port: count("supervisor_api.port", raw.supervisor_api.port, 1024..=65535)?,
        metrics_listen: listen("metrics.listen", raw.metrics.listen)?,
        log_upload: log_upload("logs.upload", raw.logs.upload)?,
        log_level: raw.log.level.unwrap_or_else(|| default_of("log.level").to_owned()),
    })
}

/// Parses an address to listen on. An empty text is none.
fn listen(key: &'static str, given: Option<String>) -> Result<Option<SocketAddr>, ConfigError> {
    let given = given.filter(|given| !given.is_empty());
    let accepts = "an address with a port, such as 127.0.0.1:9599 or [::]:9599, or empty".to_owned();
    let parsed = given.map(|given| given.parse().map_err(|_| ConfigError::Value { key, given, accepts }));
    parsed.transpose()
}

/// Reads the section `vpn`. The names of all its interfaces begin alike, so that the addresses there are not reported.
fn vpn(raw: RawVpn) -> Result<VpnConfig, ConfigError> {
    let key = "vpn.enabled";
    let is_on = policy::yes(key, raw.enabled.as_deref())?.unwrap_or(default_of(key) == "yes");
    let key = "vpn.device";
    let device = raw.device.unwrap_or_else(|| default_of(key).to_owned());
    let is_accepted = device.starts_with(default_of(key))
        && device.len() <= LONGEST_INTERFACE
        && device.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !is_accepted {
        let accepts = format!(
            "{} with lower-case letters, digits and '-' after it, {LONGEST_INTERFACE} characters at most",
            default_of(key)
        );
        return Err(ConfigError::Value { key, given: device, accepts });
    }
    Ok(VpnConfig { is_on, device })
}

fn log_upload(key: &'static str, given: Option<String>) -> Result<LogUpload, ConfigError> {
    let given = given.unwrap_or_else(|| default_of(key).to_owned());
    match given.as_str() {
        "auto" => Ok(LogUpload::Auto),
        "on" => Ok(LogUpload::On),
        "off" => Ok(LogUpload::Off),
        _ => Err(ConfigError::Value { key, given, accepts: "auto, on or off".to_owned() }),
    }
}

fn duration(
    key: &'static str,
    given: Option<String>,
    least: u64,
    most: u64,
) -> Result<Duration, ConfigError> {
    let default = default_of(key);
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

/// Checks a number against `range`. `T` must be able to hold every number of it.
fn count<T: TryFrom<usize>>(
    key: &'static str,
    given: Option<usize>,
    range: RangeInclusive<usize>,
) -> Result<T, ConfigError> {
    // A default that is no number would become 0 and be refused. A test loads all defaults.
    let given = given.unwrap_or_else(|| default_of(key).parse().unwrap_or(0));
    let number = T::try_from(given).ok().filter(|_| range.contains(&given));
    number.ok_or_else(|| ConfigError::Value {
        key,
        given: given.to_string(),
        accepts: format!("a whole number from {} to {}", range.start(), range.end()),
    })
}

fn windows(key: &'static str, given: Option<String>) -> Result<BTreeSet<Window>, ConfigError> {
    let given = given.unwrap_or_default();
    Window::parse_all(&given).map_err(|bad| ConfigError::Value {
        key,
        given,
        accepts: format!(
            "windows such as Mon-Fri 02:00-04:00 Europe/Zurich, separated by ;, or empty ({bad})"
        ),
    })
}

/// Parses a number of bytes, 1 TiB at most.
fn bytes(key: &'static str, given: Option<String>) -> Result<u64, ConfigError> {
    bytes_within(key, given, 0, 1 << 40)
}

/// Parses a number of bytes: a whole number with `B`, `KiB`, `MiB`, `GiB` or `TiB`, in upper or lower case.
fn bytes_within(key: &'static str, given: Option<String>, least: u64, most: u64) -> Result<u64, ConfigError> {
    let default = default_of(key);
    let given = given.unwrap_or_else(|| default.to_owned());
    let text = given.trim().to_ascii_lowercase();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit.trim_start() {
        "" | "b" => Some(0),
        "kib" => Some(10),
        "mib" => Some(20),
        "gib" => Some(30),
        "tib" => Some(40),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    let bytes = number.zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.filter(|bytes| (least..=most).contains(bytes)).ok_or_else(|| ConfigError::Value {
        key,
        given,
        accepts: format!("a size such as {default}, from {} to {}", size(least), size(most)),
    })
}

/// Formats bytes with the largest unit that needs no fraction.
fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fits = |(shift, _): &(u32, &str)| bytes > 0 && bytes.trailing_zeros() >= *shift;
    units
        .into_iter()
        .find(fits)
        .map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}
