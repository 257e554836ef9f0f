//! The settings: whether they are accepted, and who may change them.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::{Finding, error, ok, skip, skip_rest, warning};
use crate::config::{Config, ConfigError, Given, files};
use crate::http::{Url, is_loopback};

/// A file of settings, and who may write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) path: PathBuf,
    /// As `chmod` writes it.
    pub(super) mode: u32,
    pub(super) group: u32,
}

/// The files that are read, and the folders that they are in.
pub(super) fn look(given: &Given) -> Vec<Seen> {
    let files = files(given).unwrap_or_default();
    let mut paths: Vec<_> = files.iter().filter_map(|file| file.parent()).map(PathBuf::from).collect();
    paths.extend(files.iter().cloned());
    paths.sort_unstable();
    paths.dedup();
    let seen = |path: PathBuf| {
        let metadata = path.metadata().ok()?;
        Some(Seen { path, mode: metadata.mode() & 0o7777, group: metadata.gid() })
    };
    paths.into_iter().filter_map(seen).collect()
}

pub(super) fn judge(files: &[Seen], loaded: Result<&Config, &ConfigError>) -> Vec<Finding> {
    let mut findings = vec![writers(files)];
    match loaded {
        Ok(config) => {
            let read: Vec<_> =
                files.iter().filter(|f| f.path.extension().is_some_and(|e| e == "toml")).collect();
            let read: Vec<_> = read.iter().map(|file| file.path.display().to_string()).collect();
            let from = if read.is_empty() { "no file: all are defaults".to_owned() } else { read.join(", ") };
            findings.push(ok("config-valid", from));
            findings.push(cloud(config));
        }
        Err(wrong) => {
            let remedy =
                "mend it; `cotter config check` looks again, and the agent starts only when it is right";
            findings.push(error("config-valid", wrong.to_string(), remedy));
            skip_rest("config", &mut findings, "the settings are not accepted: see config-valid");
        }
    }
    findings
}

fn writers(files: &[Seen]) -> Finding {
    let id = "config-writers";
    // A folder like /tmp, whose files only their owners may replace, has the bit 1000.
    let is_open = |f: &&Seen| {
        let by_others = f.mode & 0o002 != 0 || (f.mode & 0o020 != 0 && f.group != 0);
        by_others && f.mode & 0o1000 == 0
    };
    match files.iter().find(is_open) {
        _ if files.is_empty() => skip(id, "there is no file of settings"),
        None => ok(id, "nobody but their owner"),
        Some(open) => error(
            id,
            format!("{} may be written by others (mode {:o})", open.path.display(), open.mode),
            "chmod go-w it: whoever sets engine.socket and the cloud is root on this device",
        ),
    }
}

fn cloud(config: &Config) -> Finding {
    let id = "config-cloud";
    let Some(cloud) = &config.cloud else {
        let remedy = "set cloud.endpoint, or give a config.json to `cotter join`";
        return warning(id, "no cloud is set: what was last received goes on running", remedy);
    };
    let url = Url::parse(&cloud.endpoint).ok().filter(|url| url.scheme() == "http");
    if url.is_none_or(|url| is_loopback(&url)) {
        return ok(id, cloud.endpoint.clone());
    }
    let remedy = "put TLS before the cloud and set an https:// address";
    warning(id, format!("{}: this device's key goes there in the clear", cloud.endpoint), remedy)
}
