//! `cotter token`: manages the tokens with which users reach a fleet server.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::client::{Client, Plain};
use super::exit::InTheWay;
use super::print;
use super::private_file;
use super::quantity::ago;
use crate::host;
use crate::wire::operator_api::Nothing;
use crate::wire::operator_api::access::{CreateToken, TokenCreated, TokenView, WhoView};

/// The roles, the lowest first. The server has the table of what each may do.
const ROLES: [&str; 4] = ["read-only", "release-engineer", "operator", "admin"];

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Creates a token of a user, and prints it; it is not shown again
    #[command(
        after_help = "Example: cotter token create anna --role release-engineer --fleet greenhouse --expires-in 90d"
    )]
    Create(Create),
    /// Lists tokens by id and name; the tokens themselves are never shown again
    List(List),
    /// Revokes a token
    Revoke(Revoke),
    /// Shows whose token this is, and what it may do
    #[command(after_help = "Example: cotter token whoami --token-file anna.token")]
    Whoami(Plain),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Name of the user
    #[arg(value_name = "USER")]
    user: String,
    /// What the token may do; each role may do all that the one before it may (docs/access.md)
    #[arg(long, value_parser = ROLES)]
    role: String,
    /// Name of the token [default: the name of the role]
    #[arg(long)]
    name: Option<String>,
    /// A fleet that the token reaches; give it several times for several fleets [default: all fleets]
    #[arg(long, value_name = "FLEET")]
    fleet: Vec<String>,
    /// How long the token is accepted, e.g. 90d [default: until it is revoked]
    #[arg(long, value_name = "TIME")]
    expires_in: Option<String>,
    /// Writes the token into this new file, for its owner alone, instead of printing it
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    out: Option<PathBuf>,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only tokens of this user
    #[arg(long)]
    user: Option<String>,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// Name or id of the token, or the first 4 or more digits of the id
    #[arg(value_name = "TOKEN")]
    revoked: String,
    #[command(flatten)]
    plain: Plain,
}

pub(super) async fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Create(Create { user, role, name, fleet, expires_in, out, plain }) => {
            if let Some(there) = out.as_ref().filter(|file| file.exists()) {
                return Err(InTheWay(format!("{} exists already; name a new file", there.display())).into());
            }
            let fleets = (!fleet.is_empty()).then_some(fleet);
            let wanted = CreateToken { user, role, name, fleets, expires_in };
            let created: TokenCreated = Client::new(plain.connection)?.post(&["tokens"], &wanted).await?;
            if let Some(file) = out {
                private_file::write(&file, &format!("{}\n", created.token))?;
                print::note(&format!(
                    "wrote {}; `--token-file` and COTTER_TOKEN_FILE name it",
                    file.display()
                ));
                return Ok(());
            }
            // Nothing else is printed, for scripts.
            if plain.json { print::json("created", &created) } else { print::line(&created.token) }
        }
        Verb::List(list) => show(list).await,
        Verb::Whoami(plain) => {
            let who: WhoView = Client::new(plain.connection)?.get(&["whoami"], &[]).await?;
            if plain.json { print::json("who", &who) } else { print_who(&who) }
        }
        Verb::Revoke(Revoke { revoked, plain }) => {
            let path = ["tokens", &revoked, "revoke"];
            let revoked: TokenView = Client::new(plain.connection)?.post(&path, &Nothing {}).await?;
            if plain.json {
                return print::json("token", &revoked);
            }
            print::line(&format!("revoked {} ({}) of {}", revoked.id, revoked.name, revoked.user))
        }
    }
}

fn print_who(who: &WhoView) -> anyhow::Result<()> {
    print::facts(&[
        ("user", who.user.clone().unwrap_or_else(|| "- (the server's first token)".to_owned())),
        ("token", format!("{} ({})", who.token, who.token_id)),
        ("role", who.role.clone()),
        ("fleets", who.fleets.as_ref().map_or_else(|| "all".to_owned(), |fleets| fleets.join(", "))),
        ("expires", who.expires.map_or_else(|| "never".to_owned(), |at| at.to_string())),
    ])
}

async fn show(List { user, plain }: List) -> anyhow::Result<()> {
    let mut tokens: Vec<TokenView> = Client::new(plain.connection)?.get(&["tokens"], &[]).await?;
    tokens.retain(|token| user.as_ref().is_none_or(|user| token.user == *user));
    if plain.json {
        return print::json("tokens", &tokens);
    }
    let now = host::now();
    let or_dash = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let rows = tokens.iter().map(|token| {
        [
            token.id.clone(),
            token.user.clone(),
            token.name.clone(),
            token.role.clone(),
            token.fleets.as_ref().map_or_else(|| "all".to_owned(), |fleets| fleets.join(",")),
            token.state.clone(),
            or_dash(token.expires),
            match token.last_used {
                Some(at) => ago(at, now),
                None if token.is_use_unknown => "unknown".to_owned(),
                None => "never".to_owned(),
            },
            token.created.to_string(),
        ]
    });
    let headers = ["ID", "USER", "NAME", "ROLE", "FLEETS", "STATE", "EXPIRES", "LAST USED", "CREATED"];
    print::table(
        headers,
        rows,
        "there is no token besides the file operator.token of the server's data folder",
    )
}
