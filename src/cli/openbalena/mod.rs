//! `cotter fleet to-openbalena`: creates at an openBalena what a fleet has here, and sends its devices there.
//!
//! It keeps no progress of its own: each run compares both sides and does what is missing, so it can be repeated at any time.

mod api;
mod carry;
mod devices;
mod source;
mod there;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use api::{Api, Row};
use carry::Carrying;
use devices::Missing;
use source::Source;
use there::There;

use super::client::{Client, Plain};
use super::client_files::{read_authority, read_token};
use super::exit::Usage;
use super::openbalena_error::BalenaError;
use super::print;
use crate::http::Http;
use crate::model::quantity::counted;

/// Arguments of `cotter fleet to-openbalena`.
#[derive(Debug, Args)]
pub(super) struct ToOpenBalena {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    /// Address of openBalena's API
    #[arg(long, value_name = "URL")]
    to: String,
    /// File with a token of openBalena: an API key, or what it gives at sign-in
    #[arg(long, value_name = "FILE")]
    api_token_file: PathBuf,
    /// Certificate, as PEM, of the authority that signed openBalena's, if this machine does not trust it
    #[arg(long, value_name = "FILE")]
    api_ca_file: Option<PathBuf>,
    /// Name of the fleet there, of 4 letters, digits, '-' and '_' at least [default: as here]
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// Handle of the organization there, if the token's user has several
    #[arg(long, value_name = "HANDLE")]
    organization: Option<String>,
    /// Device type of the fleet there, if its devices have none or several
    #[arg(long, value_name = "SLUG")]
    device_type: Option<String>,
    /// Also secret variables, whose values can be read there; needs the role admin
    #[arg(long)]
    secrets: bool,
    /// Also sets what is there already and differs
    #[arg(long)]
    overwrite: bool,
    /// Sends the devices there once the fleet is complete; needs the role admin
    #[arg(long = "move")]
    sends: bool,
    /// With --move: also devices with a pin of their own, which run the fleet's release there until this command runs again
    #[arg(long, requires = "sends")]
    pinned: bool,
    /// Says what would be done, and changes nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    plain: Plain,
}

/// What a run did.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    dry_run: bool,
    /// The number of the fleet there; absent if a dry run would create it.
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<u64>,
    done: &'a [String],
    left_out: &'a [String],
    differs: &'a [String],
    failed: &'a [String],
    devices_there: usize,
    devices_moving: usize,
    devices_here: usize,
}

pub(super) async fn run(asked: ToOpenBalena) -> anyhow::Result<()> {
    let json = asked.plain.json;
    let authority = asked.api_ca_file.as_deref().map(read_authority).transpose()?;
    let http = Http::trusting(authority.as_deref())?;
    let token = read_token(&asked.api_token_file)?;
    let mut api = Api::new(http.clone(), &asked.to, token, asked.dry_run, json)?;
    let name = asked.name.clone().unwrap_or_else(|| asked.fleet.clone());
    check_name(&name)?;
    let client = Client::new(asked.plain.connection)?;
    let mut source = Source::read(&client, &asked.fleet, asked.secrets).await?;
    let organization = organization(&api, asked.organization.as_deref()).await?;
    let there = match find(&api, organization, &name).await? {
        Some(row) => There::read(&api, &row).await?,
        None => create(&mut api, &mut source, organization, &name, asked.device_type.as_deref()).await?,
    };
    let (overwrite, differs, failed) = (asked.overwrite, Vec::new(), Vec::new());
    let mut carrying =
        Carrying { api, http: &http, source: &source, there, name, overwrite, differs, failed };
    let is_ready = carrying.fleet().await?;
    let Missing { mut ready, mut pinned } = carrying.devices().await?;
    let mut moving = 0;
    if asked.sends {
        if asked.pinned {
            ready.append(&mut pinned);
        }
        if is_ready {
            moving = carrying.send(&client, &ready).await?;
        } else if !ready.is_empty() {
            let why = "no device is sent before the fleet there has the target that it has here";
            carrying.failed.push(why.to_owned());
        }
    }
    finish(&carrying, moving, &pinned, json)
}

fn finish(carrying: &Carrying<'_>, moving: usize, pinned: &[String], json: bool) -> anyhow::Result<()> {
    let Carrying { api, source, there, differs, failed, .. } = carrying;
    let arrived = source.devices.keys().filter(|uuid| there.devices.contains_key(*uuid)).count();
    if json {
        let summary = Summary {
            dry_run: api.is_dry,
            application: api.real(there.application),
            done: &api.done,
            left_out: &source.left_out,
            differs,
            failed,
            devices_there: arrived,
            devices_moving: moving,
            devices_here: source.devices.len() - arrived,
        };
        print::json("to_openbalena", &summary)?;
    } else {
        if api.done.is_empty() {
            print::line("nothing to do: what the fleet has here is there")?;
        }
        for (what, lines) in
            [("not carried over", &source.left_out), ("not changed there", differs), ("not done", failed)]
        {
            lines.iter().try_for_each(|line| print::line(&format!("{what}: {line}")))?;
        }
        let all = counted(source.devices.len(), "device");
        print::line(&format!("{all}: {arrived} there, {moving} on their way"))?;
        if let Some(device) = pinned.first().and_then(|uuid| source.devices.get(uuid)) {
            print::note(&format!(
                "{} with another pin than the fleet's target, e.g. {}: there they run the target until this command runs again; \
                 --pinned sends them, too",
                counted(pinned.len(), "device"),
                device.name
            ));
        }
        if arrived < source.devices.len() {
            print::note("run this again once devices have moved: their tags, variables and pins follow them");
        }
        if api.is_dry {
            print::note("nothing was changed: this was a dry run");
        }
    }
    match failed.len() {
        0 => Ok(()),
        count => Err(BalenaError::Incomplete(format!("{} is", counted(count, "thing"))).into()),
    }
}

fn check_name(name: &str) -> Result<(), Usage> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if (4..=100).contains(&name.len()) && name.chars().all(is_good) {
        return Ok(());
    }
    Err(Usage(format!(
        "{name:?} cannot be the name of a fleet at openBalena: 4 to 100 letters, digits, '-' and '_'; give another one with --as"
    )))
}

async fn organization(api: &Api, handle: Option<&str>) -> anyhow::Result<u64> {
    let rows = api.rows("organization", "handle", "").await?;
    let is_it = |row: &&Row| handle.is_none_or(|handle| row.text("handle") == handle);
    let found: Vec<&Row> = rows.iter().filter(is_it).collect();
    if let [one] = found.as_slice() {
        return Ok(one.id());
    }
    let handles: Vec<&str> = rows.iter().map(|row| row.text("handle")).collect();
    let why = if found.is_empty() { "no such organization" } else { "several organizations" };
    let handles = handles.join(", ");
    Err(Usage(format!("the token's user has {why}; name one with --organization: {handles}")).into())
}

async fn find(api: &Api, organization: u64, name: &str) -> Result<Option<Row>, BalenaError> {
    let select = "app_name,uuid,should_track_latest_release,should_be_running__release";
    let rows = api.rows("application", select, &format!("organization eq {organization}")).await?;
    // As openBalena makes its slugs.
    Ok(rows.into_iter().find(|row| row.text("app_name").eq_ignore_ascii_case(name)))
}

/// Creates the fleet there.
async fn create(
    api: &mut Api,
    source: &mut Source,
    organization: u64,
    name: &str,
    device_type: Option<&str>,
) -> anyhow::Result<There> {
    let mut types: Vec<&str> = source.devices.values().map(|device| device.device_type.as_str()).collect();
    types.sort_unstable();
    types.dedup();
    let slug = match (device_type, types.as_slice()) {
        (Some(slug), _) => slug.to_owned(),
        (None, [one]) => (*one).to_owned(),
        (None, several) => {
            let why = format!(
                "the devices of the fleet have {}; name one that openBalena knows with --device-type, e.g. generic-amd64",
                counted(several.len(), "device type")
            );
            return Err(Usage(why).into());
        }
    };
    let known = api.rows("device_type", "slug", "").await?;
    let Some(kind) = known.iter().find(|row| row.text("slug") == slug).map(Row::id) else {
        return Err(
            Usage(format!("openBalena has no device type {slug}; name one with --device-type")).into()
        );
    };
    let mut body = json!({ "app_name": name, "organization": organization, "is_for__device_type": kind });
    let uuid = source.fleet.as_ref().and_then(|fleet| fleet.uuid.as_deref()).unwrap_or_default();
    if is_version_4(uuid) {
        body["uuid"] = Value::from(uuid);
    } else {
        source.left_out.push("the uuid of the fleet: openBalena takes only those of version 4".to_owned());
    }
    let application = api.create(&format!("fleet {name}"), "application", &body).await?;
    Ok(There { application, is_tracking_latest: true, ..There::default() })
}

/// Whether 32 digits are a UUID of version 4.
fn is_version_4(uuid: &str) -> bool {
    let digits = uuid.as_bytes();
    let is_hex = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    digits.len() == 32
        && digits.iter().all(is_hex)
        && digits[12] == b'4'
        && matches!(digits[16], b'8' | b'9' | b'a' | b'b')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_uuid_of_version_4_is_carried_over() {
        for (uuid, expected) in [
            ("c1e6d44ed31f499f8066283d20a8f3ae", true),
            ("c1e6d44ed31f399f8066283d20a8f3ae", false),
            ("c1e6d44ed31f499f7066283d20a8f3ae", false),
            ("C1e6d44ed31f499f8066283d20a8f3ae", false),
            ("c1e6d44ed31f499f8066283d20a8f3a", false),
            ("", false),
        ] {
            assert_eq!(is_version_4(uuid), expected, "{uuid}");
        }
    }

    #[test]
    fn names_are_those_that_the_api_takes() {
        for (name, is_good) in
            [("lab", false), ("labs", true), ("a b c", false), ("north-1_x", true), ("größe", false)]
        {
            assert_eq!(check_name(name).is_ok(), is_good, "{name}");
        }
    }
}
