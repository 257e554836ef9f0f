//! Reads the URL of a database, and refuses each part of it that is not understood.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::model::innermost_cause;

/// What the certificate of the database must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trust {
    /// Nothing: the connection is encrypted, but anyone could be at its other end.
    Anyone,
    /// An authority of this file has signed it, for whatever name.
    Authority(PathBuf),
    /// It is for the name in the URL, and an authority has signed it: of this file, or one that the machine trusts.
    Name(Option<PathBuf>),
}

/// Where a database is, and who uses it.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    pub(super) config: Config,
    pub(super) trust: Trust,
    label: String,
}

/// Why a URL is not accepted. No error quotes a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    #[error("it is no URL of a database; write postgres://USER@HOST/DATABASE")]
    Scheme,
    #[error("{0}; write postgres://USER@HOST/DATABASE")]
    Form(String),
    #[error("it names no database; write postgres://USER@HOST/DATABASE")]
    NoDatabase,
    #[error(
        "its part {name:?} is unknown; known are host, port, user, sslmode, sslrootcert and target_session_attrs"
    )]
    Unknown { name: String },
    #[error("a password belongs before the @ of it, or better into a file")]
    PasswordInQuery,
    #[error("sslmode={given} is unknown; known are disable, prefer, require, verify-ca and verify-full")]
    SslMode { given: String },
    #[error("sslmode=verify-ca needs sslrootcert=FILE with the certificate of your authority")]
    NoAuthority,
    #[error("sslrootcert has no effect with sslmode={mode}; use verify-full")]
    UnusedAuthority { mode: String },
    #[error("sslmode={mode} needs TLS, and a unix socket has none; use sslmode=disable")]
    SocketWithTls { mode: String },
    #[error("it names a unix socket and other hosts; a socket has no TLS, so name either sockets or hosts")]
    SocketAndHosts,
}

/// The parts of a URL that are not for the client library.
#[derive(Default)]
struct Query {
    mode: Option<String>,
    authority: Option<PathBuf>,
    rest: Vec<String>,
}

impl Address {
    /// Parses `postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?sslmode=…]`.
    ///
    /// Without `sslmode` a database on another machine must have a certificate for its name.
    ///
    /// # Errors
    ///
    /// [`BadAddress`].
    pub fn parse(text: &str) -> Result<Self, BadAddress> {
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let rest = rest.ok_or(BadAddress::Scheme)?;
        if rest.contains('#') {
            return Err(BadAddress::Form("it has a #; write %23 for one in a name".to_owned()));
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let query = Query::parse(query)?;
        let understood = format!("postgres://{place}?{}", query.rest.join("&"));
        let mut config =
            Config::from_str(&understood).map_err(|error| BadAddress::Form(innermost_cause(&error)))?;
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err(BadAddress::NoDatabase);
        }
        if config.get_hosts().is_empty() {
            config.host("127.0.0.1");
        }
        let is_local = config.get_hosts().iter().all(is_of_this_machine);
        let has_socket = config.get_hosts().iter().any(|host| matches!(host, Host::Unix(_)));
        if has_socket && !config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_))) {
            return Err(BadAddress::SocketAndHosts);
        }
        let default = if is_local { "prefer" } else { "verify-full" };
        let mode = query.mode.as_deref().unwrap_or(default);
        let (ssl, trust) = meaning(mode, query.authority)?;
        if has_socket && query.mode.is_some() && ssl == SslMode::Require {
            return Err(BadAddress::SocketWithTls { mode: mode.to_owned() });
        }
        config.ssl_mode(if has_socket { SslMode::Disable } else { ssl });
        config.application_name("cotter-fleet");
        config.keepalives_idle(Duration::from_secs(30)).tcp_user_timeout(Duration::from_secs(30));
        if config.get_hosts().len() > 1 && config.get_target_session_attrs() == TargetSessionAttrs::Any {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let label = label(&config);
        Ok(Self { config, trust, label })
    }

    /// Returns whether it has a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// Returns the same address with this password.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.config.password(password);
        self
    }

    /// Returns the name of the database.
    #[must_use]
    pub fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or_default()
    }

    /// Returns the user; `None`: the one as whom this process runs.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.config.get_user()
    }
}

/// The URL without the password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.label).finish()
    }
}

impl Query {
    fn parse(text: &str) -> Result<Self, BadAddress> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "sslmode" => query.mode = Some(value.to_owned()),
                "sslrootcert" => query.authority = Some(PathBuf::from(plain(value))),
                "host" | "port" | "user" | "target_session_attrs" => query.rest.push(pair.to_owned()),
                "password" => return Err(BadAddress::PasswordInQuery),
                _ => return Err(BadAddress::Unknown { name: name.to_owned() }),
            }
        }
        Ok(query)
    }
}

fn meaning(mode: &str, authority: Option<PathBuf>) -> Result<(SslMode, Trust), BadAddress> {
    let (ssl, trust) = match mode {
        "disable" => (SslMode::Disable, Trust::Anyone),
        "prefer" => (SslMode::Prefer, Trust::Anyone),
        "require" => (SslMode::Require, Trust::Anyone),
        "verify-ca" => {
            let authority = authority.ok_or(BadAddress::NoAuthority)?;
            return Ok((SslMode::Require, Trust::Authority(authority)));
        }
        "verify-full" => return Ok((SslMode::Require, Trust::Name(authority))),
        other => return Err(BadAddress::SslMode { given: other.to_owned() }),
    };
    match authority {
        Some(_) => Err(BadAddress::UnusedAuthority { mode: mode.to_owned() }),
        None => Ok((ssl, trust)),
    }
}

fn is_of_this_machine(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

fn label(config: &Config) -> String {
    let user = config.get_user().map(|user| format!("{user}@")).unwrap_or_default();
    let host = |(at, host): (usize, &Host)| {
        let host = match host {
            Host::Unix(folder) => folder.display().to_string(),
            Host::Tcp(name) if name.contains(':') => format!("[{name}]"),
            Host::Tcp(name) => name.clone(),
        };
        match config.get_ports().get(at).or(config.get_ports().first()) {
            Some(port) if *port != 5432 => format!("{host}:{port}"),
            _ => host,
        }
    };
    let hosts: Vec<_> = config.get_hosts().iter().enumerate().map(host).collect();
    format!("postgres://{user}{}/{}", hosts.join(","), config.get_dbname().unwrap_or_default())
}

/// Decodes `%2F` and the like. What is no such sequence stays as it is.
fn plain(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(String, SslMode, Trust), String> {
        let address = Address::parse(text).map_err(|error| error.to_string())?;
        Ok((address.to_string(), address.config.get_ssl_mode(), address.trust))
    }

    #[test]
    fn urls_and_what_they_mean() {
        let by_name = |file: Option<&str>| Trust::Name(file.map(PathBuf::from));
        for (text, label, mode, trust) in [
            (
                "postgres://cotter@db.example.com/fleet",
                "postgres://cotter@db.example.com/fleet",
                SslMode::Require,
                by_name(None),
            ),
            ("postgresql://a:secret@db:5433/f", "postgres://a@db:5433/f", SslMode::Require, by_name(None)),
            ("postgres://a@127.0.0.1/f", "postgres://a@127.0.0.1/f", SslMode::Prefer, Trust::Anyone),
            ("postgres://a@[::1]:1/f", "postgres://a@[::1]:1/f", SslMode::Prefer, Trust::Anyone),
            ("postgres:///f", "postgres://127.0.0.1/f", SslMode::Prefer, Trust::Anyone),
            (
                "postgres:///f?host=/run/postgresql",
                "postgres:///run/postgresql/f",
                SslMode::Disable,
                Trust::Anyone,
            ),
            ("postgres://a@%2Frun%2Fpg/f", "postgres://a@/run/pg/f", SslMode::Disable, Trust::Anyone),
            ("postgres://a@db/f?sslmode=disable", "postgres://a@db/f", SslMode::Disable, Trust::Anyone),
            ("postgres://a@db/f?sslmode=require", "postgres://a@db/f", SslMode::Require, Trust::Anyone),
            (
                "postgres://a@db/f?sslmode=verify-full&sslrootcert=/a%20b",
                "postgres://a@db/f",
                SslMode::Require,
                by_name(Some("/a b")),
            ),
            (
                "postgres://a@db/f?sslmode=verify-ca&sslrootcert=c",
                "postgres://a@db/f",
                SslMode::Require,
                Trust::Authority("c".into()),
            ),
            ("postgres://a@b,c:2/f", "postgres://a@b,c:2/f", SslMode::Require, by_name(None)),
        ] {
            assert_eq!(read(text), Ok((label.to_owned(), mode, trust)), "{text}");
        }
        let several = Address::parse("postgres://a@b,c/f").unwrap();
        assert_eq!(several.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }

    #[test]
    fn what_is_not_accepted_and_no_error_has_the_password() {
        for (text, expected) in [
            ("mysql://a:hush@b/c", "no URL of a database"),
            ("/var/lib/cotter-fleet", "no URL of a database"),
            ("postgres://a:hush@b", "names no database"),
            ("postgres://a:hush@b/", "names no database"),
            ("postgres://a:hush@b:x/c", "write postgres://"),
            ("postgres://a:hush@b/c#d", "it has a #"),
            ("postgres://a:hush@b/c?sslmode=allow", "sslmode=allow is unknown"),
            ("postgres://a:hush@b/c?sslmode=", "sslmode= is unknown"),
            ("postgres://a:hush@b/c?ssl=true", "\"ssl\" is unknown"),
            ("postgres://a:hush@b/c?options=-c%20x=1", "\"options\" is unknown"),
            ("postgres://a@b/c?password=hush", "better into a file"),
            ("postgres://a:hush@b/c?sslmode=verify-ca", "needs sslrootcert=FILE"),
            ("postgres://a:hush@b/c?sslmode=require&sslrootcert=x", "use verify-full"),
            ("postgres://a:hush@/c?host=/run&sslmode=verify-full", "a unix socket has none"),
            ("postgres://a:hush@b/c?host=/run", "name either sockets or hosts"),
            ("postgres://a:hush@%2Frun,b/c?sslmode=require", "name either sockets or hosts"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(expected) && !error.contains("hush"), "{text}: {error}");
        }
        let shown = format!("{:?}", Address::parse("postgres://a:hush@b/c").unwrap());
        assert!(!shown.contains("hush"), "{shown}");
    }
}
