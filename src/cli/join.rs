//! `cotter join`: joins this device to a cloud, with a config.json from there.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::agent::warn_of_exposure;
use super::exit::{InTheWay, Usage};
use super::print;
use crate::config::{Config, Given, Joined, Setting, environment_outside, settings};
use crate::model::{Admission, Enrolment, Identity};
use crate::store;
use crate::wire::config_json;

/// Most bytes that are read of a config.json. No real one is that long.
const LARGEST: u64 = 1 << 20;

/// Arguments of `cotter join`.
#[derive(Debug, Args)]
pub(super) struct Join {
    /// The config.json, or - for standard input
    file: PathBuf,
    /// The agent's settings file; `join` writes into its folder [default: /etc/cotter/agent.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Joins even if this device has another identity or another cloud already, and replaces it
    #[arg(long)]
    force: bool,
    /// Shows what would be written, and writes nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(join: Join) -> anyhow::Result<()> {
    let shown = join.file.display().to_string();
    let bytes = read(&join.file).map_err(|why| Usage(format!("{shown} cannot be read: {why}")))?;
    let (enrolment, notes) = config_json::read(&bytes)
        .map_err(|why| Usage(format!("{shown} is not a config.json to join with: {why}")))?;
    let given = Given { file: join.config, set: Vec::new() };
    let is_missing = given.file.as_ref().is_some_and(|file| !file.exists());
    let set = if is_missing { Vec::new() } else { settings(&given, &environment_outside(&given))? };
    let identity = store::inspect(&state_dir(&given, &set)).ok().and_then(|store| store.identity);
    let registered_at = identity.as_ref().and_then(|i| i.registered.as_ref()).map(|at| at.endpoint.as_str());
    let is_registered = registered_at == Some(enrolment.endpoint.as_str());
    let joined = Joined::new(&given, &enrolment, is_registered && !join.force)?;
    let changes = joined.changes()?;
    let met = joined.meets(&set)?;
    let replaced = changes.iter().find(|(_, is_other)| *is_other).map(|(path, _)| *path);
    let remembered = identity.as_ref().and_then(|identity| is_another(identity, &enrolment));
    let in_the_way = match (replaced, met, remembered) {
        (Some(path), ..) => Some(format!("{} has other content already", path.display())),
        (_, Some(met), _) => {
            let value = met.value.as_deref().unwrap_or_default();
            Some(format!("{} is {value} already", met.key))
        }
        (_, _, known) => known,
    };
    if let Some(why) = in_the_way.filter(|_| !join.force) {
        return Err(InTheWay(format!("{why}; --force replaces it with what {shown} says")).into());
    }
    if join.dry_run {
        for (path, _) in &changes {
            print::line(&format!("would write {}", path.display()))?;
        }
        for (key, value) in joined.says() {
            print::line(&format!("{key} = {value}"))?;
        }
    } else {
        joined.write()?;
        for (path, _) in &changes {
            print::line(&format!("wrote {}", path.display()))?;
        }
        // Other settings may be wrong, and then the agent would not start.
        Config::load(&given, &environment_outside(&given))
            .context("the files were written, but the agent would not start")?;
    }
    let is_left_out =
        is_registered && !join.force && matches!(enrolment.admission, Admission::Register { .. });
    let left_out = "apiKey was left out, because this device is registered there; --force writes it, for a device that \
                    was deleted there and must register again";
    let is_file = !join.dry_run && join.file != Path::new("-");
    let left = format!(
        "{shown} still has the key in it: remove the file, or a thief of this device can use the key"
    );
    let notes =
        notes.into_iter().chain(is_left_out.then(|| left_out.to_owned())).chain(is_file.then_some(left));
    notes.for_each(|note| print::note(&format!("note: {note}")));
    warn_of_exposure(Some(&enrolment.endpoint));
    print::line(&outcome(&enrolment, changes.is_empty(), join.dry_run))
}

fn outcome(enrolment: &Enrolment, is_joined_already: bool, is_dry: bool) -> String {
    let who = match &enrolment.admission {
        Admission::Known { uuid, .. } => format!("this device is {uuid} of {}", enrolment.endpoint),
        Admission::Register { fleet, .. } => {
            format!("this device registers with fleet {fleet} of {}", enrolment.endpoint)
        }
    };
    match (is_joined_already, is_dry) {
        (true, _) => format!("{who}; no file had to be changed"),
        (false, true) => format!("without --dry-run, {who}"),
        (false, false) => {
            format!(
                "{who}; start its agent with `systemctl enable cotter-agent && systemctl restart cotter-agent`"
            )
        }
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        io::stdin().lock().take(LARGEST).read_to_end(&mut bytes)?;
    } else {
        File::open(file)?.take(LARGEST).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Returns the state folder of the agent with these settings. The unit of an instance sets its own on the command
/// line, not in a file: `/var/lib/cotter-NAME` for the settings in `/etc/cotter/NAME`.
fn state_dir(given: &Given, set: &[Setting]) -> PathBuf {
    let setting = set.iter().find(|setting| setting.key == "state_dir");
    let folder = given
        .file
        .as_deref()
        .and_then(Path::parent)
        .and_then(|folder| folder.strip_prefix("/etc/cotter").ok());
    let instance = folder.and_then(Path::to_str).filter(|name| !name.is_empty());
    match (setting, instance) {
        (Some(Setting { place: None, .. }) | None, Some(name)) => format!("/var/lib/cotter-{name}").into(),
        (setting, _) => setting.and_then(|setting| setting.value.clone()).unwrap_or_default().into(),
    }
}

/// Returns the identity that the device has already, in words, if `enrolment` would change it.
fn is_another(identity: &Identity, enrolment: &Enrolment) -> Option<String> {
    let at = &identity.registered.as_ref()?.endpoint;
    let is_same = match &enrolment.admission {
        Admission::Known { uuid, .. } => *uuid == identity.uuid,
        Admission::Register { .. } => true,
    };
    let is_same = is_same && *at == enrolment.endpoint;
    (!is_same).then(|| format!("this device is {} of {at} already", identity.uuid))
}
