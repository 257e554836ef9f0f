//! `cotter config`: shows the agent's settings, and checks them.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::agent::{self, Settings};
use super::print;
use crate::config::{Given, Place, Setting, environment_outside, settings};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Shows every setting of the agent, its value, and where it was set
    Show(Show),
    /// Checks whether the agent would start with its settings
    #[command(after_help = "Example: cotter config check /etc/cotter/agent.toml")]
    Check(Check),
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    settings: Settings,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Settings file, as --config; agent.d in the same folder is read, too
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub(super) async fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Show(Show { settings, json }) => show(&settings.given(), json),
        Verb::Check(Check { file, settings }) => {
            let given = settings.given();
            agent::check(&Given { file: file.or(given.file), set: given.set })
        }
    }
}

fn show(given: &Given, json: bool) -> anyhow::Result<()> {
    let settings = settings(given, &environment_outside(given))?;
    if json {
        let all: Vec<_> = settings.iter().map(document).collect();
        return print::json("settings", &all);
    }
    let row = |setting: &Setting| {
        let place = setting.place.as_ref().map_or("default".to_owned(), Place::to_string);
        [setting.key.to_owned(), print::or_dash(setting.value.as_deref()), place]
    };
    print::table(["SETTING", "VALUE", "FROM"], settings.iter().map(row), "")
}

fn document(setting: &Setting) -> serde_json::Value {
    let (from, line) = match &setting.place {
        None => ("default".to_owned(), None),
        Some(Place::File { path, line }) => (path.display().to_string(), Some(line)),
        Some(Place::Variable(name)) => (name.clone(), None),
        Some(Place::Flag(_)) => ("--set".to_owned(), None),
    };
    json!({ "key": setting.key, "value": setting.value, "from": from, "line": line })
}
