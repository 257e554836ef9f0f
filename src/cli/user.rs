//! `cotter user`: manages the users of a fleet server.

use clap::{Args, Subcommand};

use super::client::{Client, Plain};
use super::print;
use crate::wire::operator_api::Nothing;
use crate::wire::operator_api::access::{AddUser, UserView};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Adds a user, who can then have tokens
    Add(One),
    /// Lists the users
    List(Plain),
    /// Disables a user, and ends all its tokens
    Disable(One),
    /// Lets a disabled user have new tokens; its old ones stay revoked
    Enable(One),
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// Name of the user
    #[arg(value_name = "USER")]
    user: String,
    #[command(flatten)]
    plain: Plain,
}

pub(super) async fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Add(One { user, plain }) => {
            let added: UserView =
                Client::new(plain.connection)?.post(&["users"], &AddUser { name: user }).await?;
            let said = format!("added {}; `cotter token create` makes a token of this user", added.name);
            done(plain.json, &added, &said)
        }
        Verb::List(plain) => list(plain).await,
        Verb::Disable(One { user, plain }) => {
            let path = ["users", &user, "disable"];
            let disabled: UserView = Client::new(plain.connection)?.post(&path, &Nothing {}).await?;
            done(plain.json, &disabled, &format!("disabled {}; all its tokens have ended", disabled.name))
        }
        Verb::Enable(One { user, plain }) => {
            let path = ["users", &user, "enable"];
            let enabled: UserView = Client::new(plain.connection)?.post(&path, &Nothing {}).await?;
            let said = format!("enabled {}; it needs a new token (`cotter token create`)", enabled.name);
            done(plain.json, &enabled, &said)
        }
    }
}

fn done(json: bool, user: &UserView, said: &str) -> anyhow::Result<()> {
    if json { print::json("user", user) } else { print::line(said) }
}

async fn list(plain: Plain) -> anyhow::Result<()> {
    let users: Vec<UserView> = Client::new(plain.connection)?.get(&["users"], &[]).await?;
    if plain.json {
        return print::json("users", &users);
    }
    let rows = users.iter().map(|user| {
        [
            user.name.clone(),
            user.state.clone(),
            user.tokens.to_string(),
            user.created.to_string(),
            user.disabled.map_or_else(|| "-".to_owned(), |at| at.to_string()),
        ]
    });
    let empty = "there is no user; the file operator.token of the server's data folder is the only token";
    print::table(["USER", "STATE", "TOKENS", "CREATED", "DISABLED"], rows, empty)
}
