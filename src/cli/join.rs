//! `cotter join`: joins this device to a cloud, with its address and a key, or with a config.json from there.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::agent::warn_of_exposure;
use super::exit::{Exit, InTheWay, Usage};
use super::join_address::{self, Address};
use super::print;
use super::unit::{Started, Unit, as_its_unit};
use crate::api;
use crate::config::{Config, Given, Joined, Setting, environment_outside, settings};
use crate::http::{Http, Url};
use crate::model::{Admission, Enrolment, Identity};
use crate::store;
use crate::wire::config_json;

/// Maximum number of bytes that are read of a config.json. No real one is that long.
const LARGEST: u64 = 1 << 20;

/// What a device does not do with a key of a cloud where it is registered.
const MOVE: &str = "this device is registered there, so it uses the key only if it was deleted there; `cotter device move` \
                    moves it to another fleet";

/// Arguments of `cotter join`.
#[derive(Debug, Args)]
pub(super) struct Join {
    /// Address of the cloud, with --fleet and --key; or a config.json, or - for one on standard input
    #[arg(value_name = "URL|FILE")]
    source: PathBuf,
    #[command(flatten)]
    address: Address,
    /// Does not start the agent; the command that does is printed
    #[arg(long)]
    no_start: bool,
    /// How long the first poll of the agent is waited for
    #[arg(long, value_name = "TIME", default_value = "1min", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// The agent's settings file; `join` writes into its folder [default: /etc/cotter/agent.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The unit of the agent with these settings [default: cotter-agent.service, or that of the instance]
    #[arg(long, value_name = "UNIT")]
    unit: Option<String>,
    /// Joins even if this device has another identity or another cloud already, and replaces it
    #[arg(long)]
    force: bool,
    /// Joins the VPN of the cloud, too (openBalena, balenaCloud), by which its dashboard orders restarts, updates and the
    /// like; needs openvpn. The cloud then reaches every port that listens at all addresses
    #[arg(long)]
    vpn: bool,
    /// Shows what would be written, and writes nothing
    #[arg(long)]
    dry_run: bool,
}

/// Where the device is to be joined, and as what.
struct Wanted {
    enrolment: Enrolment,
    notes: Vec<String>,
    /// What it is called in messages.
    shown: String,
    /// A file that has the key in it.
    key_file: Option<String>,
    is_address: bool,
}

/// What this device has before.
struct Before {
    given: Given,
    set: Vec<Setting>,
    identity: Option<Identity>,
}

pub(super) async fn run(join: Join) -> anyhow::Result<Exit> {
    let mut wanted = wanted(&join)?;
    let before = before(&join)?;
    let registered_at = before.identity.as_ref().and_then(|identity| identity.registered.as_ref());
    let is_there = registered_at.is_some_and(|at| at.endpoint == wanted.enrolment.endpoint);
    let needs_key = join.force || !is_there;
    let joined = Joined::new(&before.given, &wanted.enrolment, !needs_key)?;
    let joined = if join.vpn { joined.with_vpn() } else { joined };
    check_free(&join, &joined, &wanted, &before)?;
    if wanted.is_address && !needs_key {
        join_address::check_known(&wanted.enrolment, before.identity.as_ref()).await?;
    }
    if wanted.is_address && is_there {
        wanted.notes.extend(join.force.then(|| MOVE.to_owned()));
    }
    // Nothing is written before the cloud has taken the key.
    let found = match wanted.is_address && needs_key {
        true => join_address::ask(&wanted.enrolment, &mut wanted.notes).await?,
        false => None,
    };
    let changes = joined.changes()?;
    if join.dry_run {
        for (path, _) in &changes {
            print::line(&format!("would write {}", path.display()))?;
        }
        for (key, value) in joined.says() {
            print::line(&format!("{key} = {value}"))?;
        }
    } else {
        joined.write(join.force)?;
        for (path, _) in &changes {
            print::line(&format!("wrote {}", path.display()))?;
        }
        // Other settings may be wrong, and then the agent would not start.
        Config::load(&before.given, &environment_outside(&before.given))
            .context("the files were written, but the agent would not start")?;
    }
    print_notes(&join, &wanted, needs_key);
    let who = who(&wanted.enrolment, found.as_ref().map(|fleet| fleet.name.as_str()));
    if join.dry_run || !wanted.is_address {
        print::line(&outcome(&who, changes.is_empty(), join.dry_run))?;
        return Ok(Exit::Done);
    }
    print::line(&who)?;
    let unit = Unit::of(join.unit.as_deref(), before.given.file.as_deref());
    let set = settings(&before.given, &environment_outside(&before.given))?;
    let is_running = api::status(&join_address::socket(&set)).await.is_ok();
    match unit.start(join.no_start, is_running)? {
        Started::Yes => join_address::wait(&set, &wanted.enrolment, found, join.timeout).await,
        Started::No(how) => {
            print::line(&how)?;
            Ok(Exit::Done)
        }
    }
}

fn wanted(join: &Join) -> anyhow::Result<Wanted> {
    let shown = join.source.display().to_string();
    if let Some(enrolment) = join.address.enrolment(&shown)? {
        let key_file = join.address.key_file();
        return Ok(Wanted { enrolment, notes: Vec::new(), shown, key_file, is_address: true });
    }
    let bytes = read(&join.source).map_err(|why| unreadable(&shown, &why))?;
    let (enrolment, notes) = config_json::read(&bytes)
        .map_err(|why| Usage(format!("{shown} is not a config.json to join with: {why}")))?;
    Http::trusting(enrolment.authority.as_ref().map(String::as_bytes))
        .map_err(|why| Usage(format!("{shown}: the certificate in balenaRootCA cannot be used: {why}")))?;
    let key_file = (join.source != Path::new("-")).then(|| shown.clone());
    Ok(Wanted { enrolment, notes, shown, key_file, is_address: false })
}

fn before(join: &Join) -> anyhow::Result<Before> {
    let given = as_its_unit(join.config.clone());
    let is_missing = given.file.as_ref().is_some_and(|file| !file.exists());
    let set = if is_missing { Vec::new() } else { settings(&given, &environment_outside(&given))? };
    let said = set.iter().find(|setting| setting.key == "state_dir").and_then(|it| it.value.clone());
    let by_unit = || given.set.iter().find(|(key, _)| key == "state_dir").map(|(_, value)| value.clone());
    let state_dir = said.or_else(by_unit).map(PathBuf::from);
    let identity = state_dir.and_then(|dir| store::inspect(&dir).ok()?.identity);
    Ok(Before { given, set, identity })
}

/// Refuses to replace another cloud, another fleet or another identity, unless that is wanted.
fn check_free(join: &Join, joined: &Joined, wanted: &Wanted, before: &Before) -> anyhow::Result<()> {
    let changes = joined.changes()?;
    let met = joined.meets(&before.set)?;
    let replaced = changes.iter().find(|(_, is_other)| *is_other).map(|(path, _)| *path);
    let remembered = before.identity.as_ref().and_then(|identity| is_another(identity, &wanted.enrolment));
    let in_the_way = match (replaced, met, remembered) {
        (Some(path), ..) => Some(format!("{} has other content already", path.display())),
        (_, Some(met), _) => {
            let value = met.value.as_deref().unwrap_or_default();
            Some(format!("{} is {value} already", met.key))
        }
        (_, _, known) => known,
    };
    match in_the_way.filter(|_| !join.force) {
        Some(why) => {
            Err(InTheWay(format!("{why}; --force replaces it with what {} says", wanted.shown)).into())
        }
        None => Ok(()),
    }
}

fn print_notes(join: &Join, wanted: &Wanted, needs_key: bool) {
    let is_left_out = !needs_key && matches!(wanted.enrolment.admission, Admission::Register { .. });
    let key = if wanted.is_address { "the key" } else { "apiKey" };
    let left_out = format!(
        "{key} was left out, because this device is registered there; --force writes it, for a device that was deleted \
         there and must register again"
    );
    let left = wanted.key_file.as_ref().filter(|_| !join.dry_run).map(|file| {
        format!("{file} still has the key in it: remove the file, or a thief of this device can use the key")
    });
    let notes = wanted.notes.iter().cloned().chain(is_left_out.then_some(left_out)).chain(left);
    notes.for_each(|note| print::note(&format!("note: {note}")));
    warn_of_exposure(Some(&wanted.enrolment.endpoint));
}

/// Says which device of which cloud this one is or becomes. `name`: of the fleet, as the cloud says it.
fn who(enrolment: &Enrolment, name: Option<&str>) -> String {
    match &enrolment.admission {
        Admission::Known { uuid, .. } => format!("this device is {uuid} of {}", enrolment.endpoint),
        Admission::Register { fleet, .. } => {
            let fleet = name.map_or_else(|| fleet.to_string(), str::to_owned);
            format!("this device registers with fleet {fleet} of {}", enrolment.endpoint)
        }
    }
}

fn outcome(who: &str, is_joined_already: bool, is_dry: bool) -> String {
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

/// Says why a file cannot be read. What has the form of a host may be the address of a server, without its scheme.
fn unreadable(shown: &str, why: &io::Error) -> Usage {
    if why.kind() != io::ErrorKind::NotFound {
        return Usage(format!("{shown} cannot be read: {why}"));
    }
    let url = format!("https://{shown}");
    let is_name = |host: &str| host.contains('.') && !host.ends_with(".json") || host == "localhost";
    let is_host = Url::parse(&url).is_ok_and(|url| url.host_str().is_some_and(is_name));
    let is_path = shown.starts_with(['/', '.']) || shown.contains(char::is_whitespace);
    let or = if is_host && !is_path {
        format!("; if it is the address of a fleet server, write {url}")
    } else {
        String::new()
    };
    Usage(format!("there is no file {shown}{or}"))
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
