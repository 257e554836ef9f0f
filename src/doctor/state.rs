//! The state folder and what is remembered in it.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Finding, Seen, bytes, error, ok, skip, skip_rest, warning};
use crate::config::{CloudConfig, Config, Joining};
use crate::host::{self, Disk};
use crate::ownership::{self, User};
use crate::store::{Copy, Look};

/// Less than this and the next save may fail.
const FULL: u64 = 4 << 20;
/// Less than this and something else will soon have filled the disk.
const SCARCE: u64 = 32 << 20;
/// Files that a few saves need.
const FILES: u64 = 64;

pub(super) struct State<'a> {
    pub(super) folder: String,
    /// The mode of the folder, or why it cannot be told.
    pub(super) mode: Result<u32, ErrorKind>,
    pub(super) is_folder: bool,
    /// Who else could put another folder in its place, in words.
    pub(super) doubt: Option<String>,
    pub(super) disk: Option<Disk>,
    pub(super) store: Seen<'a>,
    pub(super) cloud: Option<&'a CloudConfig>,
}

pub(super) fn look<'a>(config: &'a Config, store: Seen<'a>) -> State<'a> {
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

/// As the owner of the folder must see it, whoever asks.
fn doubt(folder: &Path, owner: User) -> Option<String> {
    ownership::doubt(folder, owner).ok().flatten().map(|doubt| doubt.to_string())
}

pub(super) fn judge(state: &State<'_>) -> Vec<Finding> {
    let mut findings = vec![folder(state)];
    findings.extend(state.disk.as_ref().map(disk));
    findings.extend([identity(state), provisioning_key(state)]);
    if let Ok(look) = &state.store {
        findings.extend([copies(look), damage(look)]);
    }
    let why = match state.mode {
        Err(_) => "there is no state folder",
        Ok(_) => state.store.err().map_or("its disk does not say", String::as_str),
    };
    skip_rest("state", &mut findings, why);
    findings
}

fn folder(state: &State<'_>) -> Finding {
    let (id, folder) = ("state-folder", &state.folder);
    match (&state.mode, &state.store) {
        (Err(ErrorKind::NotFound), _) => {
            let told = format!("{folder} is not there; the agent makes it when it first starts");
            warning(id, told, "start the agent: systemctl enable --now cotter-agent")
        }
        (Err(kind), _) => error(id, format!("{folder} cannot be used: {kind}"), "set another state_dir"),
        (Ok(_), _) if !state.is_folder => {
            let remedy = "move the file that is in its place, or set another state_dir";
            error(id, format!("{folder} is not a folder"), remedy)
        }
        (Ok(_), Err(why)) => skip(id, format!("{folder} cannot be looked into ({why}); ask as root")),
        (Ok(_), Ok(_)) if state.disk.is_some_and(|disk| disk.is_read_only) => error(
            id,
            format!("{folder} is on a file system that is read-only"),
            "see `dmesg`: the kernel does so after errors of the disk, often at the end of an SD card",
        ),
        (Ok(0o700), Ok(_)) => match &state.doubt {
            None => ok(id, folder.clone()),
            Some(doubt) => {
                let remedy = "do what the line says, or set a state_dir where only root may write: who replaces the \
                              folder becomes this device";
                warning(id, format!("{folder}: {doubt}"), remedy)
            }
        },
        (Ok(mode), Ok(_)) => {
            warning(id, format!("{folder} has mode {mode:o}, and the device's key is in it"), "chmod 700 it")
        }
    }
}

fn disk(disk: &Disk) -> Finding {
    let id = "state-disk";
    let free = format!("{} free", bytes(disk.free));
    let remedy = "free space: what is remembered cannot be saved without it";
    match disk.files {
        _ if disk.free < FULL => error(id, free, remedy),
        Some((left, _)) if left < FILES => error(id, format!("{left} more files may be made"), remedy),
        _ if disk.free < SCARCE => warning(id, free, remedy),
        Some((left, _)) => ok(id, format!("{free}, {left} more files")),
        None => ok(id, free),
    }
}

fn copies(look: &Look) -> Finding {
    let id = "state-copies";
    let remedy = "the agent writes them anew when it starts; if it comes back, the disk is failing";
    let told: Vec<_> = ["mirror-a.json", "mirror-b.json"].iter().zip(&look.mirrors).collect();
    let lost = told.iter().find_map(|(name, copy)| match copy {
        Copy::Lost(why) => Some(format!("{name} cannot be used: {why}")),
        Copy::Missing if look.has_database || look.mirrors.contains(&Copy::Whole) => {
            Some(format!("{name} is missing"))
        }
        Copy::Missing | Copy::Whole => None,
    });
    match lost {
        // Both go in turn: with one of them, the next save makes the other.
        Some(lost) if look.mirrors.contains(&Copy::Whole) => warning(id, lost, remedy),
        Some(lost) if look.has_database => warning(id, format!("{lost}, nor can the other"), remedy),
        Some(lost) => error(id, format!("{lost}, and there is no database"), remedy),
        None if look.mirrors.contains(&Copy::Whole) => ok(id, "both are whole"),
        None => skip(id, "nothing was remembered yet"),
    }
}

fn damage(look: &Look) -> Finding {
    let id = "state-damage";
    match look.set_aside {
        0 => ok(id, "never, as far as the folder shows"),
        n => warning(
            id,
            format!("{n} damaged databases were set aside and made anew (db.corrupt-*)"),
            "look after the disk or its power supply; remove the folders when nobody wants to see them",
        ),
    }
}

/// Whether the key is still there. It is not read.
fn provisioning_key(state: &State<'_>) -> Finding {
    let id = "state-key";
    let Some(CloudConfig { endpoint, joining: Joining::Register { fleet, key_file }, .. }) = state.cloud
    else {
        return skip(id, "this device does not register itself");
    };
    let Ok(look) = &state.store else { return skip(id, "the state folder cannot be looked into") };
    let known = look.identity.as_ref().and_then(|identity| identity.registered.as_ref());
    let (is_registered, file) = (known.is_some_and(|at| at.endpoint == *endpoint), key_file.path().display());
    match (is_registered, key_file.has_key()) {
        (true, false) => ok(id, "it is gone"),
        (false, true) => ok(id, format!("{file} has it, for the registration")),
        (true, true) => warning(
            id,
            format!("{file} still has it: whoever takes this device can register others with it"),
            "the agent removes it when it starts and the cloud answers; a credential, or a file where it may not \
             write, is yours to remove: rm it, or /etc/credstore/cotter.provisioning-key",
        ),
        (false, false) => {
            let told = format!("{file} holds no key, and the device is not registered at {endpoint}");
            let remedy = format!(
                "put a provisioning key of fleet {fleet} into it, with mode 600, or `cotter join --force` with a new \
                 config.json"
            );
            // One that is registered elsewhere works, until its settings are mended.
            if known.is_some() { warning(id, told, &remedy) } else { error(id, told, &remedy) }
        }
    }
}

fn identity(state: &State<'_>) -> Finding {
    let id = "state-identity";
    let Some(cloud) = state.cloud else { return skip(id, "no cloud is set") };
    let Ok(look) = &state.store else {
        return match cloud.joining {
            Joining::Known { .. } => ok(id, "cloud.uuid says it"),
            Joining::Register { .. } | Joining::Remembered => {
                skip(id, "the state folder cannot be looked into")
            }
        };
    };
    let waits = "start the agent: it registers as soon as it reaches the cloud";
    let known = look.identity.as_ref().map(|i| (i.uuid.to_string(), i.registered.as_ref()));
    match (&cloud.joining, known) {
        (Joining::Known { uuid, .. }, _) => ok(id, format!("{uuid}, by cloud.uuid")),
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
            "the device is known to no cloud, and nothing says how to register",
            "set cloud.fleet and cloud.provisioning_key_file, or give a config.json to `cotter join`",
        ),
    }
}
