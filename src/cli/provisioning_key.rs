//! `cotter fleet provisioning-key`: manages the keys with which devices register.

use clap::{Args, Subcommand};

use super::client::{Client, Plain};
use super::exit::Usage;
use super::print;
use crate::wire::operator_api::{CreateKey, KeyCreated, KeyView, Nothing};

/// Arguments of `cotter fleet provisioning-key`. `provisioning-key FLEET` creates a key, as it did before there were
/// other verbs.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct ProvisioningKey {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Short for `create FLEET`
    #[arg(value_name = "FLEET")]
    fleet: Option<String>,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Creates a key with which devices register, and prints it; other keys stay valid
    #[command(
        after_help = "Example: cotter fleet provisioning-key create lab --name factory --expires-in 30d --uses 500"
    )]
    Create(Create),
    /// Lists the keys of a fleet by id and name; the keys themselves are never shown again
    List(List),
    /// Revokes a key, so that it registers no more devices; devices that registered with it keep working
    Revoke(Revoke),
}

#[derive(Debug, Args)]
struct Create {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    /// Name of the key, shown with it and with its devices
    #[arg(long)]
    name: Option<String>,
    /// How long the key can register devices, e.g. 30d [default: until it is revoked]
    #[arg(long, alias = "expires", value_name = "TIME")]
    expires_in: Option<String>,
    /// How many devices the key can register in total [default: any number]
    #[arg(long, value_name = "NUMBER")]
    uses: Option<u64>,
    /// How many devices the key can register per minute [default: 60]
    #[arg(long, value_name = "NUMBER")]
    per_minute: Option<u32>,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
struct List {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
struct Revoke {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    /// Name or id of the key, or the first 4 or more digits of the id
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    plain: Plain,
}

pub(super) async fn run(keys: ProvisioningKey) -> anyhow::Result<()> {
    let ProvisioningKey { verb, fleet, plain } = keys;
    match (verb, fleet) {
        (Some(Verb::Create(Create { fleet, name, expires_in, uses, per_minute, plain })), _) => {
            create(&fleet, &CreateKey { name, expires_in, uses, per_minute }, plain).await
        }
        (Some(Verb::List(List { fleet, plain })), _) => list(&fleet, plain).await,
        (Some(Verb::Revoke(Revoke { fleet, key, plain })), _) => {
            let path = ["fleets", &fleet, "provisioning-keys", &key, "revoke"];
            let revoked: KeyView = Client::new(plain.connection)?.post(&path, &Nothing {}).await?;
            if plain.json {
                return print::json("key", &revoked);
            }
            let (id, devices) = (&revoked.id, revoked.devices);
            print::line(&format!(
                "revoked {id}; the devices that registered with it keep working ({devices})"
            ))
        }
        (None, Some(fleet)) => create(&fleet, &CreateKey::default(), plain).await,
        (None, None) => {
            Err(Usage("use `create FLEET`, `list FLEET` or `revoke FLEET KEY`".to_owned()).into())
        }
    }
}

/// Creates a key, and prints nothing else, for scripts.
async fn create(fleet: &str, wanted: &CreateKey, plain: Plain) -> anyhow::Result<()> {
    let client = Client::new(plain.connection)?;
    let created: KeyCreated = client.post(&["fleets", fleet, "provisioning-keys"], wanted).await?;
    if plain.json { print::json("created", &created) } else { print::line(&created.provisioning_key) }
}

async fn list(fleet: &str, plain: Plain) -> anyhow::Result<()> {
    let path = ["fleets", fleet, "provisioning-keys"];
    let keys: Vec<KeyView> = Client::new(plain.connection)?.get(&path, &[]).await?;
    if plain.json {
        return print::json("keys", &keys);
    }
    let or_dash = |at: Option<_>| at.map_or_else(|| "-".to_owned(), |at: jiff::Timestamp| at.to_string());
    let rows = keys.iter().map(|key| {
        [
            key.id.clone(),
            print::or_dash(key.name.as_deref()),
            key.state.clone(),
            key.most_uses.map_or_else(|| key.uses.to_string(), |most| format!("{} of {most}", key.uses)),
            key.devices.to_string(),
            key.per_minute.to_string(),
            or_dash(key.expires),
            or_dash(key.last_used),
            key.created.to_string(),
        ]
    });
    let headers = ["ID", "NAME", "STATE", "USES", "DEVICES", "A MINUTE", "EXPIRES", "LAST USED", "CREATED"];
    print::table(headers, rows, "the fleet has no provisioning key")
}
