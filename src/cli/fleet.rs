//! `cotter fleet`: manages the fleets of a fleet server.

use std::ffi::OsString;

use clap::{Args, Subcommand};

use super::client::{Client, Plain};
use super::exit::{Exit, Usage};
use super::fleet_deletion::{self, Delete};
use super::follow::{Scope, Wait};
use super::join_file::{self, JoinFile};
use super::openbalena::{self, ToOpenBalena};
use super::print;
use super::provisioning_key::{self, ProvisioningKey};
use crate::http::Method;
use crate::wire::operator_api::{
    CreateFleet, FleetCreated, FleetView, Nothing, PatchFleet, Pin, RenameFleet,
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// The old place of `cotter-fleet serve`; goes with the next release
    #[command(hide = true, disable_help_flag = true)]
    Serve(Moved),
    /// Creates a fleet, and prints the key with which its devices register
    Create(Create),
    /// Changes the settings of a fleet
    #[command(after_help = "Example: cotter fleet set greenhouse --registry registry.example.com/lab")]
    Set(Set),
    /// Renames a fleet; its devices stay in it
    Rename(Rename),
    /// Deletes a fleet with its releases and provisioning keys, after a question; refused while it has devices
    #[command(after_help = "Example: cotter fleet delete greenhouse --with-devices --dry-run")]
    Delete(Delete),
    /// Lists the fleets
    List(Plain),
    /// Shows a fleet
    Show(Named),
    /// Pins a fleet to a release; new releases then change nothing
    Pin(PinFleet),
    /// Lets a fleet follow its newest release that is successful, final and valid
    TrackLatest(TrackLatest),
    /// Makes what a device needs to join a fleet: a config.json or a command, with a new key that expires
    #[command(after_help = "Example: cotter fleet join-file greenhouse --line --expires-in 1h --uses 1")]
    JoinFile(JoinFile),
    /// Creates, lists and revokes the keys with which devices register
    ProvisioningKey(ProvisioningKey),
    /// Creates at an openBalena what a fleet has here, and sends its devices there
    ///
    /// Releases, variables, tags, pins and the target. It can be repeated: each run does what is missing there.
    #[command(
        after_help = "Example: cotter fleet to-openbalena greenhouse --to https://api.example.com --api-token-file balena.token --dry-run"
    )]
    ToOpenbalena(ToOpenBalena),
}

/// Accepts every argument of the former command, so that an old unit file gets the new command as its error, and not a
/// complaint about a flag.
#[derive(Debug, Args)]
pub(super) struct Moved {
    #[arg(hide = true, allow_hyphen_values = true, trailing_var_arg = true)]
    arguments: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    /// Registry to which `cotter push` pushes the images of the fleet
    #[arg(long, value_name = "HOST[:PORT][/PATH]")]
    registry: Option<String>,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("setting").required(true).multiple(true))]
pub(super) struct Set {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    /// Registry to which `cotter push` pushes the images of the fleet
    #[arg(long, group = "setting", value_name = "HOST[:PORT][/PATH]")]
    registry: Option<String>,
    /// Removes the registry
    #[arg(long, group = "setting", conflicts_with = "registry")]
    no_registry: bool,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct Rename {
    /// Name of the fleet
    #[arg(value_name = "OLD")]
    fleet: String,
    /// The new name
    #[arg(value_name = "NEW")]
    name: String,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct PinFleet {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    /// Commit of the release, or the first 4 or more characters of it
    #[arg(value_name = "COMMIT")]
    release: String,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct TrackLatest {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    plain: Plain,
}

pub(super) async fn run(verb: Verb) -> anyhow::Result<Exit> {
    match verb {
        Verb::Serve(Moved { arguments }) => return Err(Usage(new_command(&arguments)).into()),
        Verb::Set(Set { fleet, registry, no_registry, plain }) => {
            let client = Client::new(plain.connection)?;
            let registry = registry.map(|registry| registry.trim_end_matches('/').to_owned());
            let patch = PatchFleet { registry: if no_registry { Some(String::new()) } else { registry } };
            let view: FleetView = client.ask(Method::PATCH, &["fleets", &fleet], &[], Some(&patch)).await?;
            shown(&view, plain.json)?;
        }
        Verb::Create(asked) => create(asked).await?,
        Verb::Rename(Rename { fleet, name, plain }) => {
            let client = Client::new(plain.connection)?;
            shown(&client.post(&["fleets", &fleet, "rename"], &RenameFleet { name }).await?, plain.json)?;
        }
        Verb::Delete(delete) => fleet_deletion::run(delete).await?,
        Verb::List(plain) => {
            let fleets: Vec<FleetView> = Client::new(plain.connection)?.list(&["fleets"], &[], None).await?;
            if plain.json {
                print::json("fleets", &fleets)?;
                return Ok(Exit::Done);
            }
            print::table(
                ["NUMBER", "NAME", "FOLLOWS", "TARGET", "DEVICES", "RELEASES"],
                fleets.iter().map(row),
                "there is no fleet; create one with `cotter fleet create NAME`",
            )?;
        }
        Verb::Show(Named { fleet, plain }) => {
            let view: FleetView = Client::new(plain.connection)?.get(&["fleets", &fleet], &[]).await?;
            shown(&view, plain.json)?;
        }
        Verb::Pin(PinFleet { fleet, release, wait, plain }) => {
            let client = Client::new(plain.connection)?;
            let view: FleetView = client.post(&["fleets", &fleet, "pin"], &Pin { release }).await?;
            return moved(&client, &view, &wait, plain.json).await;
        }
        Verb::TrackLatest(TrackLatest { fleet, wait, plain }) => {
            let client = Client::new(plain.connection)?;
            let view: FleetView = client.post(&["fleets", &fleet, "track-latest"], &Nothing {}).await?;
            return moved(&client, &view, &wait, plain.json).await;
        }
        Verb::JoinFile(asked) => join_file::run(asked).await?,
        Verb::ProvisioningKey(keys) => provisioning_key::run(keys).await?,
        Verb::ToOpenbalena(asked) => Box::pin(openbalena::run(asked)).await?,
    }
    Ok(Exit::Done)
}

async fn create(Create { fleet, registry, plain }: Create) -> anyhow::Result<()> {
    let client = Client::new(plain.connection)?;
    let created: FleetCreated = client.post(&["fleets"], &CreateFleet { name: fleet, registry }).await?;
    if plain.json {
        return print::json("created", &created);
    }
    print::facts(&[
        ("fleet", created.fleet.name),
        ("number", created.fleet.number.to_string()),
        ("uuid", created.fleet.uuid),
        ("provisioning key", created.provisioning_key),
    ])?;
    print::note(
        "the provisioning key is shown only now; `cotter fleet provisioning-key create` makes another",
    );
    Ok(())
}

/// Prints a fleet whose target was changed, and follows the devices that should run it, if that is wanted.
async fn moved(client: &Client, fleet: &FleetView, wait: &Wait, json: bool) -> anyhow::Result<Exit> {
    shown(fleet, json)?;
    let scope = Scope { fleet: Some(fleet.name.clone()), release: fleet.target.clone(), ..Scope::default() };
    wait.follow(client, &scope).await
}

/// Returns an error text with the command that starts the fleet server now, with the same arguments.
fn new_command(arguments: &[OsString]) -> String {
    let words = ["cotter-fleet".into(), "serve".into()].into_iter();
    let command = shell_words::join(words.chain(arguments.iter().map(|argument| argument.to_string_lossy())));
    format!("the fleet server is a program of its own now (package cotter-fleet); run: {command}")
}

fn row(fleet: &FleetView) -> [String; 6] {
    [
        fleet.number.to_string(),
        fleet.name.clone(),
        follows(fleet).to_owned(),
        print::short(fleet.target.as_deref()),
        fleet.devices.to_string(),
        fleet.releases.to_string(),
    ]
}

fn follows(fleet: &FleetView) -> &'static str {
    if fleet.is_tracking_latest { "latest" } else { "pin" }
}

/// Says how many devices there are, and in which states: "400: 388 on-target, 9 waiting, 3 rejected".
fn devices(fleet: &FleetView) -> String {
    let states: Vec<_> =
        fleet.states.iter().map(|(state, count)| format!("{count} {}", state.as_str())).collect();
    if states.is_empty() {
        fleet.devices.to_string()
    } else {
        format!("{}: {}", fleet.devices, states.join(", "))
    }
}

fn shown(fleet: &FleetView, json: bool) -> anyhow::Result<()> {
    if json {
        return print::json("fleet", fleet);
    }
    let mut facts = vec![
        ("fleet", fleet.name.clone()),
        ("number", fleet.number.to_string()),
        ("uuid", fleet.uuid.clone()),
        ("follows", follows(fleet).to_owned()),
        ("target", print::or_dash(fleet.target.as_deref())),
        ("devices", devices(fleet)),
        ("releases", fleet.releases.to_string()),
        ("registry", print::or_dash(fleet.registry.as_deref())),
        ("created", fleet.created.to_string()),
    ];
    facts.extend(fleet.pinned.iter().map(|pinned| ("pinned", print::pinned(pinned))));
    print::facts(&facts)
}
