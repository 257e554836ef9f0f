//! The settings: are they accepted, and who can change them?

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::{Finding, error, ok, skip, skip_rest, warning};
use crate::config::{Config, ConfigError, Given, files};
use crate::model::{EXPOSURE_REMEDY, Policy, Switch, exposure};
use crate::ownership::User;

/// A settings file or its folder, with the owner and mode that decide who can write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) path: PathBuf,
    /// The permission bits, as `chmod` takes them.
    pub(super) mode: u32,
    pub(super) owner: u32,
    pub(super) group: u32,
}

/// Returns the settings files, and the folders that contain them.
pub(super) fn observe(given: &Given) -> Vec<Seen> {
    let files = files(given).unwrap_or_default();
    let mut paths: Vec<_> = files.iter().filter_map(|file| file.parent()).map(PathBuf::from).collect();
    paths.extend(files.iter().cloned());
    paths.sort_unstable();
    paths.dedup();
    let seen = |path: PathBuf| {
        let metadata = path.metadata().ok()?;
        let (owner, group) = (metadata.uid(), metadata.gid());
        Some(Seen { path, mode: metadata.mode() & 0o7777, owner, group })
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
            let from = if read.is_empty() {
                "no file: all settings have their defaults".to_owned()
            } else {
                read.join(", ")
            };
            findings.push(ok("config-valid", from));
            findings.extend([cloud(config), policy(&config.policy)]);
        }
        Err(wrong) => {
            let remedy =
                "correct it and run `cotter config check`; the agent does not start with invalid settings";
            findings.push(error("config-valid", wrong.to_string(), remedy));
            skip_rest("config", &mut findings, "the settings are not accepted: see config-valid");
        }
    }
    findings
}

fn writers(files: &[Seen]) -> Finding {
    let id = "config-writers";
    // In a folder with the sticky bit (0o1000), like /tmp, only its owner can replace a file.
    let is_open = |f: &&Seen| {
        let by_others = f.mode & 0o002 != 0 || (f.mode & 0o020 != 0 && f.group != 0);
        by_others && f.mode & 0o1000 == 0
    };
    // The agent runs as root, or as the user who runs this check.
    let us = User::us().id;
    let foreign = files.iter().find(|f| ![0, us].contains(&f.owner));
    let remedy = "a user who can set engine.socket or the cloud can become root on this device";
    match (files.iter().find(is_open), foreign) {
        _ if files.is_empty() => skip(id, "there is no settings file"),
        (Some(open), _) => error(
            id,
            format!("other users can write {} (mode {:o})", open.path.display(), open.mode),
            &format!("`chmod go-w` it: {remedy}"),
        ),
        (None, Some(foreign)) => error(
            id,
            format!("{} belongs to user {}, who can change it", foreign.path.display(), foreign.owner),
            &format!("`chown root` it: {remedy}"),
        ),
        (None, None) => ok(id, "only their owner can write them"),
    }
}

fn cloud(config: &Config) -> Finding {
    let id = "config-cloud";
    let Some(cloud) = &config.cloud else {
        let remedy = "join a cloud with `cotter join`, or set cloud.endpoint";
        return error(id, "no cloud is set: the device gets no new releases", remedy);
    };
    match exposure(&cloud.endpoint) {
        None => ok(id, cloud.endpoint.clone()),
        Some(exposed) => warning(id, exposed, EXPOSURE_REMEDY),
    }
}

/// Warns only if the policy forbids something, because then its owner wants protection. A policy that allows everything
/// is for trusted releases, as on a balena device.
fn policy(policy: &Policy) -> Finding {
    let (id, open) = ("config-policy", policy.root_equal());
    if open.is_empty() {
        return ok(id, "no release can do what root can");
    }
    if policy.allowed.len() == Switch::ALL.len() {
        return ok(id, "the policy allows everything: releases can do what root can, as on a balena device");
    }
    let evidence = format!("releases can do what root can, through policy.{}", open.join(", policy."));
    let remedy = "set policy.preset = \"strict\" and allow only what the releases need; each of these settings is as good as \
                  root, so the others protect nothing";
    warning(id, evidence, remedy)
}
