//! `cotter env`: manages the environment variables of fleets and devices at a fleet server.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::client::{Client, Plain};
use super::exit::{Exit, Usage};
use super::follow::{Scope, Wait};
use super::print;
use crate::project;
use crate::wire::operator_api::{ChangeVariables, DeviceDetail, VariableView, VariablesChanged};

/// Maximum number of bytes of a file of variables. The server accepts less.
const LARGEST: u64 = 256 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Lists variables; for a device all that reach it, and which of them win
    #[command(after_help = "Example: cotter env list --device north")]
    List(List),
    /// Sets variables: all of them, or none
    ///
    /// Of several levels, the device's service wins, then the device, then the fleet's service, then the fleet. A device
    /// restarts only the services whose environment changes, and rolls back if they do not run well.
    #[command(
        override_usage = "cotter env set [OPTIONS] <--fleet FLEET|--device DEVICE> [KEY=VALUE]...",
        after_help = "Examples: cotter env set --fleet greenhouse RATE=5 UNIT=lux\n          \
        cotter env set --device north --service web --secret --file - < web.env"
    )]
    Set(Set),
    /// Removes variables: all of them, or none
    #[command(
        override_usage = "cotter env rm [OPTIONS] <--fleet FLEET|--device DEVICE> KEY...",
        after_help = "Example: cotter env rm --fleet greenhouse RATE --dry-run"
    )]
    Rm(Remove),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those of this fleet
    #[arg(long, conflicts_with = "device")]
    fleet: Option<String>,
    /// Only those that reach this device: name or uuid, or the first 4 or more digits of the uuid
    #[arg(long)]
    device: Option<String>,
    /// Only those of this service
    #[arg(long)]
    service: Option<String>,
    /// Only those with this name
    #[arg(long)]
    name: Option<String>,
    /// Prints one JSON object per line, each as soon as it is there
    #[arg(long, conflicts_with = "json")]
    json_lines: bool,
    #[command(flatten)]
    plain: Plain,
}

/// Where variables are changed.
#[derive(Debug, Args)]
struct Level {
    /// The fleet whose variables are changed
    #[arg(long, required_unless_present = "device", conflicts_with = "device")]
    fleet: Option<String>,
    /// The device whose variables are changed: name or uuid, or the first 4 or more digits of the uuid
    #[arg(long)]
    device: Option<String>,
    /// Only for this service [default: for all services]
    #[arg(long)]
    service: Option<String>,
    /// Shows which services of which devices would restart, and changes nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// Variables to set; VALUE may be empty
    #[arg(value_name = "KEY=VALUE")]
    variables: Vec<String>,
    #[command(flatten)]
    level: Level,
    /// Reads variables from this file, one per line as in .env; "-" reads standard input, which no shell records
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only devices get their values, and no command shows them. A variable stays secret until it is removed
    #[arg(long)]
    secret: bool,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// Names of the variables
    #[arg(value_name = "KEY", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    level: Level,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    plain: Plain,
}

pub(super) async fn run(verb: Verb) -> anyhow::Result<Exit> {
    match verb {
        Verb::List(asked) => list(asked).await?,
        Verb::Set(Set { variables, level, file, secret, wait, plain }) => {
            if secret && !variables.is_empty() && !plain.json {
                print::note(
                    "a secret on the command line stays in the shell's history; --file - reads it from standard input",
                );
            }
            let mut set = file.as_deref().map(read).transpose()?.unwrap_or_default();
            set.extend(pairs(&variables)?);
            if set.is_empty() {
                return Err(Usage("give variables to set: KEY=VALUE, --file FILE, or both".to_owned()).into());
            }
            return change(
                level,
                ChangeVariables { set, secret, ..ChangeVariables::default() },
                &wait,
                plain,
            )
            .await;
        }
        Verb::Rm(Remove { names, level, wait, plain }) => {
            let asked = ChangeVariables { remove: names, ..ChangeVariables::default() };
            return change(level, asked, &wait, plain).await;
        }
    }
    Ok(Exit::Done)
}

async fn list(List { fleet, device, service, name, json_lines, plain }: List) -> anyhow::Result<()> {
    let query = [
        ("fleet", fleet.as_deref()),
        ("device", device.as_deref()),
        ("service", service.as_deref()),
        ("name", name.as_deref()),
    ];
    let client = Client::new(plain.connection)?;
    if json_lines {
        return Ok(client.print_lines(&["variables"], &query, None).await?);
    }
    let variables: Vec<VariableView> = client.list(&["variables"], &query, None).await?;
    if plain.json {
        return print::json("variables", &variables);
    }
    let rows = variables.iter().map(|row| {
        let of = match &row.device {
            Some(device) => format!("device {}", row.device_name.as_ref().unwrap_or(device)),
            None => format!("fleet {}", row.fleet),
        };
        [
            row.name.clone(),
            row.service.clone().unwrap_or_else(|| "all".to_owned()),
            if row.overridden { format!("{of} (overridden)") } else { of },
            row.value.clone().unwrap_or_else(|| "(secret)".to_owned()),
        ]
    });
    print::table(["NAME", "SERVICE", "SET AT", "VALUE"], rows, "no variable")
}

async fn change(level: Level, asked: ChangeVariables, wait: &Wait, plain: Plain) -> anyhow::Result<Exit> {
    let Level { fleet, device, service, dry_run } = level;
    let asked = ChangeVariables { service, dry_run, ..asked };
    let path = match (&fleet, &device) {
        (Some(fleet), _) => ["fleets", fleet, "variables"],
        (None, Some(device)) => ["devices", device, "variables"],
        (None, None) => return Err(Usage("give --fleet FLEET or --device DEVICE".to_owned()).into()),
    };
    let client = Client::new(plain.connection)?;
    let changed: VariablesChanged = client.post(&path, &asked).await?;
    if plain.json {
        print::json("changed", &changed)?;
    } else {
        say(&asked, &changed)?;
    }
    if dry_run {
        return Ok(Exit::Done);
    }
    let uuid = match &device {
        Some(device) if wait.is_wanted() => {
            let detail: DeviceDetail = client.get(&["devices", device], &[]).await?;
            Some(detail.device.uuid)
        }
        _ => None,
    };
    wait.follow(&client, &Scope { fleet, uuid, ..Scope::default() }).await
}

fn say(asked: &ChangeVariables, changed: &VariablesChanged) -> anyhow::Result<()> {
    if asked.dry_run {
        let rows = changed.restarts.iter().map(|restart| {
            [print::short(Some(&restart.uuid)), restart.name.clone(), restart.services.join(", ")]
        });
        print::table(["UUID", "NAME", "WOULD RESTART"], rows, "no service would restart")?;
        print::note("nothing was changed: this was a dry run");
        return Ok(());
    }
    let count = asked.set.len() + asked.remove.len();
    let done = if asked.set.is_empty() { "removed" } else { "set" };
    print::line(&format!("{done} {count} {}; {}", of("variable", count), outcome(changed.devices)))
}

fn outcome(devices: usize) -> String {
    match devices {
        0 => "no service restarts".to_owned(),
        1 => "1 device restarts services once it has polled".to_owned(),
        more => format!("{more} devices restart services once they have polled"),
    }
}

fn of(noun: &str, count: usize) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

/// Reads the arguments. An error does not quote one, because it may contain a secret.
fn pairs(variables: &[String]) -> Result<BTreeMap<String, String>, Usage> {
    let mut pairs = BTreeMap::new();
    for (n, variable) in variables.iter().enumerate() {
        let Some((name, value)) = variable.split_once('=') else {
            return Err(Usage(format!(
                "variable {} on the command line has no \"=\": write KEY=VALUE (VALUE may be empty)",
                n + 1
            )));
        };
        if pairs.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(Usage(format!("{} is set twice on the command line: set it once", shown(name))));
        }
    }
    Ok(pairs)
}

/// Returns the name of a variable for a message. What cannot be one may have a secret in it.
fn shown(name: &str) -> &str {
    let is_name = name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_name { name } else { "a variable" }
}

fn read(path: &Path) -> Result<BTreeMap<String, String>, Usage> {
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(LARGEST + 1).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text))
    };
    read.map_err(|error| Usage(format!("cannot read variables from {name}: {error}")))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > LARGEST {
        return Err(Usage(format!("{name} has more than {LARGEST} bytes, which is too much for variables")));
    }
    project::variables_of(&text)
        .map_err(|(line, why)| Usage(format!("{name}, line {line} is not accepted: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_given_twice_is_named() {
        let given = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            pairs(&texts).map_err(|Usage(why)| why)
        };
        assert_eq!(given(&["A=1", "B=1"]).map(|pairs| pairs.len()), Ok(2));
        assert_eq!(given(&["A=1", "A=2"]), Err("A is set twice on the command line: set it once".to_owned()));
        let secret = given(&["s3cret/x=1", "s3cret/x=2"]);
        assert_eq!(secret, Err("a variable is set twice on the command line: set it once".to_owned()));
    }
}
