//! `cotter agent`: reads the settings, starts logging and runs the daemon.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use tracing_subscriber::filter::Targets;

use super::{logging, print};
use crate::config::{Config, ConfigError, Given, Joining, environment, environment_outside};
use crate::daemon::{self, DaemonError};
use crate::model::{EXPOSURE_REMEDY, exposure, is_zone};
use crate::store;

/// Options that change the agent's settings.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// Settings file [default: /etc/cotter/agent.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Overrides one setting, e.g. --set cloud.poll_interval=1min; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

impl Settings {
    pub(super) fn given(self) -> Given {
        Given { file: self.config, set: self.set }
    }
}

/// Arguments of `cotter agent`.
#[derive(Debug, Args)]
pub(super) struct Agent {
    #[command(flatten)]
    settings: Settings,
    /// Only checks the settings, and exits
    #[arg(long)]
    check: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, e.g. instance=lab")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// The answer to an agent that has no settings at all.
const NO_SETTINGS: &str = "this device has no settings yet, so there is nothing for an agent to do; join a cloud with \
                           `cotter join https://... --fleet NAME --key KEY` (at the fleet server `cotter fleet join-file \
                           NAME --line` prints that command) or `cotter join config.json`";

pub(super) async fn run(agent: Agent) -> anyhow::Result<()> {
    let given = agent.settings.given();
    if agent.check {
        return check(&given);
    }
    let (config, filter) = accepted(&given, &environment())?;
    // A device that has an identity goes on without its settings, so that its services are kept running.
    if !has_begun(&config.state_dir) && Config::is_unset(&given, &environment())? {
        return Err(ConfigError::Incomplete(NO_SETTINGS).into());
    }
    // Check the key before a state folder is created for a device that cannot register. If there is a folder, the
    // agent reads the identity in it first.
    if !config.state_dir.exists() {
        check_key(&config).map_err(|error| Config::locate(error, &given, &environment()))?;
    }
    logging::begin("cotter", filter);
    let (again, place) = (given.clone(), given);
    let ended = Box::pin(daemon::run(config, move || accepted(&again, &environment()).map(drop))).await;
    match ended {
        Err(DaemonError::NoKey(error)) => Err(Config::locate(error, &place, &environment()).into()),
        other => Ok(other?),
    }
}

/// Returns whether an agent with an identity has run with this state folder. A damaged one may hold an identity.
fn has_begun(state_dir: &Path) -> bool {
    store::inspect(state_dir).is_ok_and(|store| {
        let is_lost = |copy: &store::Copy| *copy != store::Copy::Whole;
        store.identity.is_some() || (store.has_database && store.mirrors.iter().all(is_lost))
    })
}

/// Prints a warning if the device's key would go to the cloud without TLS.
pub(super) fn warn_of_exposure(endpoint: Option<&str>) {
    if let Some(exposed) = endpoint.and_then(exposure) {
        print::note(&format!("warning: {exposed}; {EXPOSURE_REMEDY}"));
    }
}

/// Loads the settings, and the log filter that they contain.
fn accepted(given: &Given, environment: &BTreeMap<String, String>) -> Result<(Config, Targets), ConfigError> {
    let config = Config::load(given, environment)?;
    let filter = logging::filter(&config.log_level);
    let filter = filter.map_err(|error| Config::locate(error, given, environment))?;
    Ok((config, filter))
}

/// Checks whether an agent would start with these settings, and warns about dangerous ones.
pub(super) fn check(given: &Given) -> anyhow::Result<()> {
    let environment = environment_outside(given);
    let (config, _) = accepted(given, &environment)?;
    check_key(&config).map_err(|error| Config::locate(error, given, &environment))?;
    check_joined(&config)?;
    check_zones(&config).map_err(|error| Config::locate(error, given, &environment))?;
    warn_of_exposure(config.cloud.as_ref().map(|cloud| cloud.endpoint.as_str()));
    print::line("the settings are fine")
}

/// Checks that the time zone of every window exists. An agent starts with another one, and its window never opens.
fn check_zones(config: &Config) -> Result<(), ConfigError> {
    let Some(window) = config.plan.windows.iter().find(|window| !is_zone(&window.zone)) else {
        return Ok(());
    };
    Err(ConfigError::Value {
        key: "update.windows",
        given: window.to_string(),
        accepts: format!(
            "a window in a zone of the time zone database, e.g. Europe/Zurich; {} is none",
            window.zone
        ),
    })
}

/// Checks that a device with a cloud, but without a fleet or an identity in its settings, was registered before.
fn check_joined(config: &Config) -> Result<(), DaemonError> {
    if config.cloud.as_ref().is_none_or(|cloud| cloud.joining != Joining::Remembered) {
        return Ok(());
    }
    let is_known = match store::inspect(&config.state_dir) {
        // The identity may be in the database, which only the agent opens.
        Ok(store) => store.has_database || store.identity.is_some_and(|it| it.registered.is_some()),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    if is_known { Ok(()) } else { Err(DaemonError::NotJoined) }
}

/// Checks that a device that is not registered has its provisioning key. A registered device has removed the key.
fn check_key(config: &Config) -> Result<(), ConfigError> {
    let joining = config.cloud.as_ref().map(|cloud| &cloud.joining);
    let Some(Joining::Register { key_file, .. }) = joining else { return Ok(()) };
    let needs_key = match store::inspect(&config.state_dir) {
        Ok(store) => match store.identity {
            Some(identity) => identity.registered.is_none(),
            // The identity may be in the database, which only the agent opens.
            None => !store.has_database,
        },
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if needs_key { key_file.read().map(drop) } else { Ok(()) }
}
