//! The settings of the fleet server, from a file and flags, checked once.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::certificate::TlsFiles;
use super::logs::LogMode;
use super::policy::Room;
use crate::listen::Network;
use crate::postgres::{Address, BadAddress};

/// Unchecked settings from the file, or from flags and environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    pub listen: Option<String>,
    pub data_dir: Option<PathBuf>,
    pub poll_interval: Option<String>,
    pub connections: Option<usize>,
    pub audit_entries: Option<u64>,
    pub audit_time: Option<String>,
    pub releases_per_fleet: Option<usize>,
    pub fleet_releases_mib: Option<usize>,
    pub all_releases_mib: Option<usize>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub trusted_proxies: Option<Vec<String>>,
    pub paused: Option<bool>,
    pub store: Option<String>,
    pub store_password_file: Option<PathBuf>,
    pub logs: Option<String>,
    pub logs_mib: Option<u64>,
    /// Only a flag, so that no file can open the server to a network.
    #[serde(skip)]
    pub insecure: bool,
}

/// The settings in force. A `Config` exists only if they were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The folder with the records and the operator's token.
    pub data_dir: PathBuf,
    /// Time between polls that devices get with their target; whole milliseconds.
    pub poll_interval: Duration,
    /// Maximum number of connections of devices at a time.
    pub connections: usize,
    /// Maximum number of records of the audit trail.
    pub audit_entries: u64,
    /// How long records of the audit trail are kept.
    pub audit_time: Duration,
    /// How many releases are accepted.
    pub room: Room,
    /// The certificate; `None` for a server without TLS.
    pub tls: Option<TlsFiles>,
    /// Proxies whose `X-Forwarded-For` names the client.
    pub trusted_proxies: Vec<Network>,
    /// Whether devices keep the targets that they have.
    pub paused: bool,
    /// The database of the records, without its password if that is in a file; `None`: they are in the data folder.
    pub store: Option<Address>,
    /// The file with the password of the database.
    pub store_password_file: Option<PathBuf>,
    /// Whose logs are taken.
    pub logs: LogMode,
    /// Maximum number of bytes of the files with logs of devices.
    pub log_bytes: u64,
}

/// The default of `data_dir`.
const DATA_DIR: &str = "/var/lib/cotter-fleet";
/// The default of `connections`.
const CONNECTIONS: usize = 1024;
/// The defaults of `audit_entries` and `audit_time`, and their accepted values.
const AUDIT_ENTRIES: u64 = 100_000;
const AUDIT_ENTRIES_RANGE: RangeInclusive<u64> = 1_000..=10_000_000;
const AUDIT_TIME: Duration = Duration::from_secs(400 * DAY);
const AUDIT_TIME_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(DAY)..=Duration::from_secs(10 * 366 * DAY);
const DAY: u64 = 24 * 60 * 60;
/// The defaults of `releases_per_fleet`, `fleet_releases_mib` and `all_releases_mib`, and their accepted values. With what
/// clients and polls take at most, all releases fit into the 512 MiB of the unit.
const RELEASES_PER_FLEET: usize = 1000;
const RELEASES_PER_FLEET_RANGE: RangeInclusive<usize> = 10..=100_000;
const FLEET_RELEASES_MIB: usize = 32;
const ALL_RELEASES_MIB: usize = 96;
const RELEASES_MIB_RANGE: RangeInclusive<usize> = 1..=65_536;
/// The default of `logs_mib`, and its accepted values.
const LOGS_MIB: u64 = 256;
const LOGS_MIB_RANGE: RangeInclusive<u64> = 1..=1_048_576;
/// The accepted values of `connections`.
const CONNECTIONS_RANGE: RangeInclusive<usize> = 16..=60_000;
/// Connections of operators, in addition to the setting `connections`.
pub(super) const OPERATORS: usize = 32;

/// Connections of clients that are not identified yet, in addition to the setting `connections`.
pub(super) const SPARE: usize = 32;

/// Open files other than connections: the store, the listener, logs, the runtime's own.
const OTHER_FILES: usize = 64;

/// Why the settings are not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the settings file cannot be read")]
    File(#[source] std::io::Error),
    #[error("line {line} of the settings file is not accepted: {why}")]
    Form { line: usize, why: String },
    #[error("listen = {given:?} is not an address; write IP:PORT, e.g. 127.0.0.1:7300")]
    Listen { given: String },
    #[error(
        "other machines can reach listen = {given}, but the server has no TLS; set tls_cert and tls_key, or listen on 127.0.0.1 behind a TLS proxy, or use --insecure on a network you trust"
    )]
    Remote { given: SocketAddr },
    #[error("{given} is set, but {missing} is not; TLS needs both: a certificate and its key")]
    HalfTls { given: &'static str, missing: &'static str },
    #[error("trusted_proxies: {given:?} is not a network; write IP or IP/N, e.g. 127.0.0.1 or 10.0.0.0/8")]
    Proxy { given: String },
    #[error("store is not accepted")]
    Store(#[from] BadAddress),
    #[error("store_password_file is set, but store is not; set store = \"postgres://USER@HOST/DATABASE\"")]
    PasswordOfNothing,
    #[error("store has a password, and store_password_file is set, too; leave one of them out")]
    TwoPasswords,
    #[error("poll_interval = {given:?} is not a duration; write e.g. 30s or 5min")]
    Interval { given: String },
    #[error("poll_interval = {given} is out of range; it must be from 1s to 24h")]
    IntervalRange { given: String },
    #[error("audit_entries = {given} is out of range; it must be from 1000 to 10000000")]
    AuditEntries { given: u64 },
    #[error("audit_time = {given:?} is not accepted; write a time such as 400days, from 1day to 10years")]
    AuditTime { given: String },
    #[error("{name} = {given} is out of range; it must be from {least} to {most}")]
    Releases { name: &'static str, given: usize, least: usize, most: usize },
    #[error("logs = {given:?} is not accepted; write asked, on or off")]
    Logs { given: String },
    #[error("logs_mib = {given} is out of range; it must be from 1 to 1048576")]
    LogsMib { given: u64 },
    #[error("connections = {given} is out of range; it must be from 16 to 60000")]
    Connections { given: usize },
    #[error(
        "connections = {given} needs {needed} open files, but this process may open {most}; raise LimitNOFILE= of the unit or `ulimit -Hn`, or set fewer connections"
    )]
    OpenFiles { given: usize, needed: usize, most: usize },
}

impl RawConfig {
    /// Parses the text of a settings file.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Form`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = text.get(..at).map_or(0, |before| before.matches('\n').count()) + 1;
            ConfigError::Form { line, why: error.message().replace('\n', "; ") }
        })
    }

    /// Reads a settings file.
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`], [`ConfigError::Form`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&std::fs::read_to_string(path).map_err(ConfigError::File)?)
    }

    /// Merges these settings over those of `below`.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            listen: self.listen.or(below.listen),
            data_dir: self.data_dir.or(below.data_dir),
            poll_interval: self.poll_interval.or(below.poll_interval),
            connections: self.connections.or(below.connections),
            audit_entries: self.audit_entries.or(below.audit_entries),
            audit_time: self.audit_time.or(below.audit_time),
            releases_per_fleet: self.releases_per_fleet.or(below.releases_per_fleet),
            fleet_releases_mib: self.fleet_releases_mib.or(below.fleet_releases_mib),
            all_releases_mib: self.all_releases_mib.or(below.all_releases_mib),
            tls_cert: self.tls_cert.or(below.tls_cert),
            tls_key: self.tls_key.or(below.tls_key),
            trusted_proxies: self.trusted_proxies.or(below.trusted_proxies),
            paused: self.paused.or(below.paused),
            store: self.store.or(below.store),
            store_password_file: self.store_password_file.or(below.store_password_file),
            logs: self.logs.or(below.logs),
            logs_mib: self.logs_mib.or(below.logs_mib),
            insecure: self.insecure || below.insecure,
        }
    }

    /// Returns the data folder, or its default.
    #[must_use]
    pub fn data_dir(self) -> PathBuf {
        self.data_dir.unwrap_or_else(|| PathBuf::from(DATA_DIR))
    }

    /// Fits `connections` to `most`, the number of files that this process may open. Lowers the default if necessary.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OpenFiles`] if a number that is set does not fit, or not even the smallest one.
    pub fn within(mut self, most: usize) -> Result<Self, ConfigError> {
        let fits = most.saturating_sub(OPERATORS + SPARE + OTHER_FILES);
        let given = self.connections.unwrap_or_else(|| CONNECTIONS.min(fits.max(*CONNECTIONS_RANGE.start())));
        if given > fits {
            let needed = given.saturating_add(OPERATORS + SPARE + OTHER_FILES);
            return Err(ConfigError::OpenFiles { given, needed, most });
        }
        if given < CONNECTIONS && self.connections.is_none() {
            tracing::warn!(
                connections = given,
                open_files = most,
                "connections are limited, because this process may not open more files"
            );
        }
        self.connections = Some(given);
        Ok(self)
    }

    /// Checks the settings. A setting that is not set gets its default.
    ///
    /// # Errors
    ///
    /// An invalid value, or one out of its range, with the accepted values.
    pub fn check(self) -> Result<Config, ConfigError> {
        let listen = self.listen.unwrap_or_else(|| "127.0.0.1:7300".to_owned());
        let listen: SocketAddr = listen.parse().map_err(|_| ConfigError::Listen { given: listen })?;
        let tls = match (self.tls_cert, self.tls_key) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            (Some(_), None) => return Err(ConfigError::HalfTls { given: "tls_cert", missing: "tls_key" }),
            (None, Some(_)) => return Err(ConfigError::HalfTls { given: "tls_key", missing: "tls_cert" }),
        };
        if !listen.ip().is_loopback() && tls.is_none() && !self.insecure {
            return Err(ConfigError::Remote { given: listen });
        }
        let poll_interval = match self.poll_interval {
            None => Duration::from_secs(60),
            Some(text) => humantime::parse_duration(&text)
                .map_err(|_| ConfigError::Interval { given: text.clone() })
                .and_then(|interval| {
                    let range = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
                    let is_in_range = range.contains(&interval);
                    is_in_range.then_some(interval).ok_or(ConfigError::IntervalRange { given: text })
                })?,
        };
        let data_dir = self.data_dir.unwrap_or_else(|| PathBuf::from(DATA_DIR));
        let connections = self.connections.unwrap_or(CONNECTIONS);
        if !CONNECTIONS_RANGE.contains(&connections) {
            return Err(ConfigError::Connections { given: connections });
        }
        let audit_entries = self.audit_entries.unwrap_or(AUDIT_ENTRIES);
        if !AUDIT_ENTRIES_RANGE.contains(&audit_entries) {
            return Err(ConfigError::AuditEntries { given: audit_entries });
        }
        let audit_time = match self.audit_time {
            None => AUDIT_TIME,
            Some(text) => humantime::parse_duration(&text)
                .ok()
                .filter(|time| AUDIT_TIME_RANGE.contains(time))
                .ok_or(ConfigError::AuditTime { given: text })?,
        };
        let (logs, log_bytes) = logs(self.logs, self.logs_mib)?;
        let room = room(self.releases_per_fleet, self.fleet_releases_mib, self.all_releases_mib)?;
        let store = database(self.store.as_deref(), self.store_password_file.as_deref())?;
        Ok(Config {
            listen,
            data_dir,
            poll_interval,
            connections,
            audit_entries,
            audit_time,
            room,
            tls,
            trusted_proxies: proxies(self.trusted_proxies.unwrap_or_default())?,
            paused: self.paused.unwrap_or(false),
            store,
            store_password_file: self.store_password_file,
            logs,
            log_bytes,
        })
    }
}

/// Checks how many releases are accepted.
fn room(releases: Option<usize>, fleet: Option<usize>, all: Option<usize>) -> Result<Room, ConfigError> {
    let checked = |name, given: Option<usize>, usual, range: RangeInclusive<usize>| {
        let given = given.unwrap_or(usual);
        let (least, most) = (*range.start(), *range.end());
        let is_good = range.contains(&given);
        is_good.then_some(given).ok_or(ConfigError::Releases { name, given, least, most })
    };
    let mib = RELEASES_MIB_RANGE;
    Ok(Room {
        releases: checked("releases_per_fleet", releases, RELEASES_PER_FLEET, RELEASES_PER_FLEET_RANGE)?,
        of_a_fleet: checked("fleet_releases_mib", fleet, FLEET_RELEASES_MIB, mib.clone())? << 20,
        of_all: checked("all_releases_mib", all, ALL_RELEASES_MIB, mib)? << 20,
    })
}

/// Checks whose logs are taken, and how many bytes of them are kept.
fn logs(mode: Option<String>, mib: Option<u64>) -> Result<(LogMode, u64), ConfigError> {
    let mode = match mode {
        None => LogMode::default(),
        Some(given) => LogMode::parse(&given).ok_or(ConfigError::Logs { given })?,
    };
    let mib = mib.unwrap_or(LOGS_MIB);
    if !LOGS_MIB_RANGE.contains(&mib) {
        return Err(ConfigError::LogsMib { given: mib });
    }
    Ok((mode, mib << 20))
}

fn proxies(given: Vec<String>) -> Result<Vec<Network>, ConfigError> {
    given.into_iter().map(|given| given.parse().map_err(|_| ConfigError::Proxy { given })).collect()
}

/// Checks the address of a database and where its password is.
fn database(store: Option<&str>, password: Option<&Path>) -> Result<Option<Address>, ConfigError> {
    let address = store.map(Address::parse).transpose()?;
    match (&address, password) {
        (None, Some(_)) => Err(ConfigError::PasswordOfNothing),
        (Some(address), Some(_)) if address.has_password() => Err(ConfigError::TwoPasswords),
        _ => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_says_the_defaults() {
        let shipped = RawConfig::parse(include_str!("../../config/fleet.toml")).unwrap();
        let spoken = shipped.clone();
        assert!(spoken.listen.is_some() && spoken.data_dir.is_some() && spoken.poll_interval.is_some());
        assert!(spoken.connections.is_some() && spoken.trusted_proxies.is_some());
        assert!(spoken.audit_entries.is_some() && spoken.audit_time.is_some());
        assert!(spoken.releases_per_fleet.is_some() && spoken.fleet_releases_mib.is_some());
        assert!(spoken.all_releases_mib.is_some() && spoken.logs.is_some() && spoken.logs_mib.is_some());
        assert_eq!(shipped.check().unwrap(), RawConfig::default().check().unwrap());
        let defaults = Config {
            listen: "127.0.0.1:7300".parse().unwrap(),
            data_dir: "/var/lib/cotter-fleet".into(),
            poll_interval: Duration::from_secs(60),
            connections: 1024,
            audit_entries: 100_000,
            audit_time: Duration::from_secs(34_560_000),
            room: Room { releases: 1000, of_a_fleet: 32 << 20, of_all: 96 << 20 },
            tls: None,
            trusted_proxies: Vec::new(),
            paused: false,
            store: None,
            store_password_file: None,
            logs: LogMode::Asked,
            log_bytes: 256 << 20,
        };
        assert_eq!(RawConfig::default().check().unwrap(), defaults);
    }

    #[test]
    fn what_is_not_accepted() {
        for (text, expected) in [
            ("listen = \"127.0.0.1\"", "write IP:PORT"),
            ("listen = \"0.0.0.0:7300\"", "no TLS"),
            ("listen = \"[::]:7300\"", "no TLS"),
            ("poll_interval = \"soon\"", "write e.g. 30s"),
            ("logs = \"yes\"", "write asked, on or off"),
            ("logs_mib = 0", "from 1 to 1048576"),
            ("poll_interval = \"999ms\"", "from 1s to 24h"),
            ("poll_interval = \"25h\"", "from 1s to 24h"),
            ("connections = 15", "from 16 to 60000"),
            ("connections = 60001", "from 16 to 60000"),
            ("connections = -1", "line 1 of the settings file"),
            ("audit_entries = 999", "from 1000 to 10000000"),
            ("audit_time = \"23h\"", "from 1day to 10years"),
            (
                "releases_per_fleet = 9",
                "releases_per_fleet = 9 is out of range; it must be from 10 to 100000",
            ),
            ("fleet_releases_mib = 0", "from 1 to 65536"),
            ("all_releases_mib = 65537", "from 1 to 65536"),
            ("audit_time = \"long\"", "write a time such as 400days"),
            ("pol_interval = \"1s\"", "unknown field"),
            ("allow_remote = true", "unknown field"),
            ("insecure = true", "unknown field"),
            ("tls_cert = \"a\"", "tls_cert is set, but tls_key is not"),
            ("tls_key = \"a\"", "tls_key is set, but tls_cert is not"),
            ("trusted_proxies = [\"127.0.0.1\", \"here\"]", "\"here\" is not a network"),
            ("store = \"/srv/records\"", "store is not accepted: it is no URL of a database"),
            ("store = \"postgres://a@b/c?ssl=1\"", "\"ssl\" is unknown"),
            ("store_password_file = \"p\"", "store_password_file is set, but store is not"),
            ("store = \"postgres://a:b@c/d\"\nstore_password_file = \"p\"", "leave one of them out"),
            ("\nlisten = 7300", "line 2 of the settings file"),
            ("listen", "line 1 of the settings file"),
        ] {
            let error = RawConfig::parse(text).and_then(RawConfig::check).unwrap_err();
            let error = crate::model::with_causes(&error);
            assert!(error.contains(expected), "{text}: {error}");
            let said = error.split(": ").collect::<std::collections::BTreeSet<_>>().len();
            assert_eq!(said, error.split(": ").count(), "nothing is said twice: {error}");
        }
        for text in ["", "tls_cert = \"a\"\ntls_key = \"b\""] {
            let remote = RawConfig {
                listen: Some("0.0.0.0:7300".into()),
                insecure: text.is_empty(),
                ..RawConfig::parse(text).unwrap()
            };
            assert!(remote.check().is_ok(), "{text}");
        }
    }

    /// Without a set number there are as many connections as files allow; with one, exactly that number or an error.
    #[test]
    fn connections_fit_the_files_that_may_be_open() {
        for (said, most, expected) in [
            (None, 1_048_576, Ok(1024)),
            (None, 1152, Ok(1024)),
            (None, 1151, Ok(1023)),
            (None, 256, Ok(128)),
            (None, 144, Ok(16)),
            (None, 143, Err("connections = 16 needs 144 open files, but this process may open 143")),
            (Some(1024), 1152, Ok(1024)),
            (
                Some(1024),
                1024,
                Err("needs 1152 open files, but this process may open 1024; raise LimitNOFILE="),
            ),
            (Some(60_000), 65_536, Ok(60_000)),
        ] {
            let raw = RawConfig { connections: said, ..RawConfig::default() };
            match (raw.within(most).and_then(RawConfig::check), expected) {
                (Ok(config), Ok(connections)) => {
                    assert_eq!(config.connections, connections, "{said:?} {most}")
                }
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (given, expected) => panic!("{said:?} {most}: {given:?}, not {expected:?}"),
            }
        }
    }
}
