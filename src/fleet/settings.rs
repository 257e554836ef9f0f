//! The settings of the fleet server: what a file and the flags say, checked once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// What is written in the file, or given by flag or environment. Nothing is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    pub listen: Option<String>,
    pub data_dir: Option<PathBuf>,
    pub poll_interval: Option<String>,
    /// Only ever a flag: no file opens the server to a network.
    #[serde(skip)]
    pub allow_remote: bool,
}

/// The settings in force. Having one means they were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the server listens.
    pub listen: SocketAddr,
    /// The folder with everything the server knows, and the operator's token.
    pub data_dir: PathBuf,
    /// Time between polls that devices are told; whole milliseconds.
    pub poll_interval: Duration,
}

/// Why settings are not in force.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the settings file cannot be read")]
    File(#[source] std::io::Error),
    #[error("line {line} of the settings file is not accepted: {why}")]
    Form { line: usize, why: String },
    #[error("listen = {given:?} is not an address; write IP:PORT, e.g. 127.0.0.1:7300")]
    Listen { given: String },
    #[error(
        "listen = {given} is open to other machines, and the server has no TLS; put a TLS proxy in front and listen on 127.0.0.1, or say --allow-remote on a network you trust"
    )]
    Remote { given: SocketAddr },
    #[error("poll_interval = {given:?} is not a time; write e.g. 30s or 5min")]
    Interval { given: String },
    #[error("poll_interval = {given} is out of range; it must be from 1s to 24h")]
    IntervalRange { given: String },
}

impl RawConfig {
    /// Reads a settings file's text.
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

    /// These settings, and where they are silent, those of `below`.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            listen: self.listen.or(below.listen),
            data_dir: self.data_dir.or(below.data_dir),
            poll_interval: self.poll_interval.or(below.poll_interval),
            allow_remote: self.allow_remote || below.allow_remote,
        }
    }

    /// Checks the settings; what is not said has its default.
    ///
    /// # Errors
    ///
    /// A value of the wrong form or out of its range, each with what is accepted.
    pub fn check(self) -> Result<Config, ConfigError> {
        let listen = self.listen.unwrap_or_else(|| "127.0.0.1:7300".to_owned());
        let listen: SocketAddr = listen.parse().map_err(|_| ConfigError::Listen { given: listen })?;
        if !listen.ip().is_loopback() && !self.allow_remote {
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
        let data_dir = self.data_dir.unwrap_or_else(|| PathBuf::from("/var/lib/cotter-fleet"));
        Ok(Config { listen, data_dir, poll_interval })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_says_the_defaults() {
        let shipped = RawConfig::parse(include_str!("../../config/fleet.toml")).unwrap();
        let spoken = RawConfig { allow_remote: true, ..shipped.clone() };
        assert!(spoken.listen.is_some() && spoken.data_dir.is_some() && spoken.poll_interval.is_some());
        assert_eq!(shipped.check().unwrap(), RawConfig::default().check().unwrap());
        let defaults = Config {
            listen: "127.0.0.1:7300".parse().unwrap(),
            data_dir: "/var/lib/cotter-fleet".into(),
            poll_interval: Duration::from_secs(60),
        };
        assert_eq!(RawConfig::default().check().unwrap(), defaults);
    }

    #[test]
    fn what_is_not_accepted() {
        for (text, told) in [
            ("listen = \"127.0.0.1\"", "write IP:PORT"),
            ("listen = \"0.0.0.0:7300\"", "no TLS"),
            ("listen = \"[::]:7300\"", "no TLS"),
            ("poll_interval = \"soon\"", "write e.g. 30s"),
            ("poll_interval = \"999ms\"", "from 1s to 24h"),
            ("poll_interval = \"25h\"", "from 1s to 24h"),
            ("pol_interval = \"1s\"", "unknown field"),
            ("allow_remote = true", "unknown field"),
            ("\nlisten = 7300", "line 2 of the settings file"),
            ("listen", "line 1 of the settings file"),
        ] {
            let error = RawConfig::parse(text).and_then(RawConfig::check).unwrap_err();
            assert!(error.to_string().contains(told), "{text}: {error}");
        }
        let remote =
            RawConfig { listen: Some("0.0.0.0:7300".into()), allow_remote: true, ..RawConfig::default() };
        assert!(remote.check().is_ok());
    }
}
