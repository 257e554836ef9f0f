//! `cotter agent`: settings, logs, and the daemon itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::filter::Targets;

use super::logging;
use crate::config::{Config, ConfigError, Given, environment, environment_outside};
use crate::daemon;

/// What may be said of the agent's settings; the rest is in its file.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// Settings file [default: /etc/cotter/agent.toml, which may be missing]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, e.g. --set cloud.poll_interval=1min; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

impl Settings {
    pub(super) fn given(self) -> Given {
        Given { file: self.config, set: self.set }
    }
}

/// The agent, and whether it shall only look at its settings.
#[derive(Debug, Args)]
pub(super) struct Agent {
    #[command(flatten)]
    settings: Settings,
    /// Only check the settings, and say whether they are fine
    #[arg(long)]
    check: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, e.g. instance=lab")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

pub(super) async fn run(agent: Agent) -> anyhow::Result<()> {
    let given = agent.settings.given();
    if agent.check {
        accepted(&given, &environment_outside(&given))?;
        return super::print::line("the settings are fine");
    }
    let (config, filter) = accepted(&given, &environment())?;
    logging::begin(filter);
    Box::pin(daemon::run(config, move || accepted(&given, &environment()).map(drop))).await?;
    Ok(())
}

/// The settings in force, and what is to be logged.
pub(super) fn accepted(
    given: &Given,
    environment: &BTreeMap<String, String>,
) -> Result<(Config, Targets), ConfigError> {
    let config = Config::load(given, environment)?;
    let filter = logging::filter(&config.log_level);
    let filter = filter.map_err(|error| Config::locate(error, given, environment))?;
    Ok((config, filter))
}
