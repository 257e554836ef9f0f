//! The state folder, the store in it, and the device's identity.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Finding, Seen, error, ok, skip, skip_rest, warning};
use crate::config::{CloudConfig, Config, Joining};
use crate::host::{self, Disk};
use crate::model::quantity::{bytes, counted};
use crate::ownership::{self, User};
use crate::store::{Copy, Inspection};

/// With less free space, the next save may fail.
const FULL: u64 = 4 << 20;
/// With less free space, the disk will soon be full.
const SCARCE: u64 = 32 << 20;
/// Free inodes that a few saves need.
const FILES: u64 = 64;

pub(super) struct State<'a> {
    pub(super) folder: String,
    /// The mode of the folder, or why it cannot be read.
    pub(super) mode: Result<u32, ErrorKind>,
    pub(super) is_folder: bool,
    /// Which other user could replace the folder, as a sentence.
    pub(super) doubt: Option<String>,
    pub(super) disk: Option<Disk>,
    pub(super) store: Seen<'a>,
    pub(super) cloud: Option<&'a CloudConfig>,
}

pub(super) fn observe<'a>(config: &'a Config, store: Seen<'a>) -> State<'a> {
    let metadata = config.state_dir.metadata();
    State {
        folder: config.state_dir.display().to_string(),
        is_folder: metadata.as_ref().is_ok_and(std::fs::Metadata::is_dir),
        doubt: metadata.as_ref().ok().and_then(|m| doubt(&config.state_dir, User::of(m))),
        mode: metadata.map(|m| m.mode() & 0o777).map_err(|e| e.kind()),
        disk: config.state_dir.to_str().and_then(host::disk_of),
        store,
        cloud: config.cloud.as_ref(),
    }
}

/// Returns which user other than the folder's owner could replace it. The result does not depend on who runs the check.
fn doubt(folder: &Path, owner: User) -> Option<String> {
    ownership::doubt(folder, owner).ok().flatten().map(|doubt| doubt.to_string())
}

pub(super) fn judge(state: &State<'_>) -> Vec<Finding> {
    let mut findings = vec![folder(state)];
    findings.extend(state.disk.as_ref().map(disk));
    findings.extend([identity(state), provisioning_key(state)]);
    if let Ok(store) = &state.store {
        findings.extend([copies(store), damage(store)]);
    }
    let why = match state.mode {
        Err(_) => "there is no state folder",
        Ok(_) => state.store.err().map_or("the disk reports no numbers", String::as_str),
    };
    skip_rest("state", &mut findings, why);
    findings
}

fn folder(state: &State<'_>) -> Finding {
    let (id, folder) = ("state-folder", &state.folder);
    match (&state.mode, &state.store) {
        (Err(ErrorKind::NotFound), _) => {
            let evidence = format!("{folder} does not exist; the agent creates it when it first starts");
            warning(id, evidence, "start the agent: `systemctl enable --now cotter-agent`")
        }
        (Err(kind), _) => error(id, format!("{folder} cannot be used: {kind}"), "set another state_dir"),
        (Ok(_), _) if !state.is_folder => {
            let remedy = "move that file away, or set another state_dir";
            error(id, format!("{folder} is not a folder"), remedy)
        }
        (Ok(_), Err(why)) => skip(id, format!("{folder} cannot be read ({why}); run the check as root")),
        (Ok(_), Ok(_)) if state.disk.is_some_and(|disk| disk.is_read_only) => error(
            id,
            format!("the file system of {folder} is read-only"),
            "see `dmesg`: the kernel does this after disk errors, often when an SD card fails",
        ),
        (Ok(0o700), Ok(_)) => match &state.doubt {
            None => ok(id, folder.clone()),
            Some(doubt) => {
                let remedy = "correct that, or set a state_dir where only root can write: a user who replaces the \
                              folder takes over this device";
                warning(id, format!("{folder}: {doubt}"), remedy)
            }
        },
        (Ok(mode), Ok(_)) => warning(
            id,
            format!("{folder} has mode {mode:o}, and the device's key is in it"),
            "`chmod 700` it",
        ),
    }
}

fn disk(disk: &Disk) -> Finding {
    let id = "state-disk";
    let free = format!("{} free", bytes(disk.free));
    let remedy = "free space on this disk: without it the agent cannot save its state";
    match disk.files {
        _ if disk.free < FULL => error(id, free, remedy),
        Some((left, _)) if left < FILES => {
            error(id, format!("only {} can be created", counted(left, "more file")), remedy)
        }
        _ if disk.free < SCARCE => warning(id, free, remedy),
        Some((left, _)) => ok(id, format!("{free}, {left} more files possible")),
        None => ok(id, free),
    }
}

fn copies(store: &Inspection) -> Finding {
    let id = "state-copies";
    let remedy = "the agent writes them again when it starts; if this comes back, replace the disk";
    let evidence: Vec<_> = ["mirror-a.json", "mirror-b.json"].iter().zip(&store.mirrors).collect();
    let lost = evidence.iter().find_map(|(name, copy)| match copy {
        Copy::Lost(why) => Some(format!("{name} cannot be used: {why}")),
        Copy::Missing if store.has_database || store.mirrors.contains(&Copy::Whole) => {
            Some(format!("{name} is missing"))
        }
        Copy::Missing | Copy::Whole => None,
    });
    match lost {
        // Saves alternate between the mirrors, so the next save restores the lost one.
        Some(lost) if store.mirrors.contains(&Copy::Whole) => warning(id, lost, remedy),
        Some(lost) if store.has_database => warning(id, format!("{lost}; neither can the other one"), remedy),
        Some(lost) => error(id, format!("{lost}, and there is no database"), remedy),
        None if store.mirrors.contains(&Copy::Whole) => ok(id, "both are intact"),
        None => skip(id, "nothing was saved yet"),
    }
}

fn damage(store: &Inspection) -> Finding {
    let id = "state-damage";
    match store.set_aside {
        0 => ok(id, "never, as far as the folder shows"),
        n => warning(
            id,
            format!("{n} damaged databases were set aside and rebuilt (db.corrupt-*)"),
            "check the disk and its power supply; remove the folders once nothing in them is needed",
        ),
    }
}

/// Checks whether the provisioning key still exists, without reading it.
fn provisioning_key(state: &State<'_>) -> Finding {
    let id = "state-key";
    let Some(CloudConfig { endpoint, joining: Joining::Register { fleet, key_file }, .. }) = state.cloud
    else {
        return skip(id, "this device does not register itself");
    };
    let Ok(store) = &state.store else { return skip(id, "the state folder cannot be read") };
    let known = store.identity.as_ref().and_then(|identity| identity.registered.as_ref());
    let (is_registered, file) = (known.is_some_and(|at| at.endpoint == *endpoint), key_file.path().display());
    match (is_registered, key_file.has_key()) {
        (true, false) => ok(id, "it was removed after the registration"),
        (false, true) => ok(id, format!("{file} has the key for the registration")),
        (true, true) => warning(
            id,
            format!("{file} still has the key: a thief of this device can register others with it"),
            "the agent removes it when it starts and the cloud answers; `rm` a credential \
             (/etc/credstore/cotter.provisioning-key), or a file where the agent cannot write",
        ),
        (false, false) => {
            let evidence = format!("{file} has no key, and the device is not registered at {endpoint}");
            let remedy = format!(
                "write a provisioning key of fleet {fleet} into it, with mode 600, or `cotter join --force` with a new \
                 config.json"
            );
            // A device that is registered at another cloud keeps running its last target.
            if known.is_some() { warning(id, evidence, &remedy) } else { error(id, evidence, &remedy) }
        }
    }
}

fn identity(state: &State<'_>) -> Finding {
    let id = "state-identity";
    let Some(cloud) = state.cloud else { return skip(id, "no cloud is set") };
    let Ok(store) = &state.store else {
        return match cloud.joining {
            Joining::Known { .. } => ok(id, "it is set by cloud.uuid"),
            Joining::Register { .. } | Joining::Remembered => skip(id, "the state folder cannot be read"),
        };
    };
    let waits = "start the agent: it registers as soon as it reaches the cloud";
    let known = store.identity.as_ref().map(|i| (i.uuid.to_string(), i.registered.as_ref()));
    match (&cloud.joining, known) {
        (Joining::Known { uuid, .. }, _) => ok(id, format!("{uuid}, set by cloud.uuid")),
        (_, Some((uuid, Some(at)))) if at.endpoint == cloud.endpoint => ok(id, format!("{uuid}, registered")),
        (_, Some((uuid, Some(at)))) => warning(
            id,
            format!("{uuid} is registered at {}, not at cloud.endpoint", at.endpoint),
            "set cloud.endpoint back, or join the new cloud with another state_dir",
        ),
        (Joining::Register { .. }, Some((uuid, None))) => {
            warning(id, format!("{uuid}, not registered yet"), waits)
        }
        (Joining::Register { fleet, .. }, None) => {
            warning(id, format!("not registered yet with fleet {fleet}"), waits)
        }
        (Joining::Remembered, Some((_, None)) | None) => error(
            id,
            "the device is registered nowhere, and the settings have no key to register with",
            "join with `cotter join`, or set cloud.fleet and cloud.provisioning_key_file",
        ),
    }
}
