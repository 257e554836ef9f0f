//! `cotter leave`: undoes `cotter join` on this device.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::consent::agree;
use super::exit::Unknown;
use super::print;
use super::unit::{Standing, Unit, as_its_unit};
use crate::config::{Config, Given, Traces, environment_outside};
use crate::daemon::{self, VpnEnded};
use crate::model::quantity::counted;
use crate::model::{Identity, with_causes};
use crate::store::{self, StoreError};

/// Arguments of `cotter leave`.
#[derive(Debug, Args)]
pub(super) struct Leave {
    /// Keeps this device's identity, and its record at the fleet server, so that it is the same device when it joins again
    #[arg(long)]
    keep_identity: bool,
    /// Stops and removes the containers and networks of all apps; volumes are kept
    #[arg(long)]
    remove_apps: bool,
    /// Leaves the apps as they are; this is the default
    #[arg(long, conflicts_with = "remove_apps")]
    keep_apps: bool,
    /// Shows what would be done, and does nothing
    #[arg(long)]
    dry_run: bool,
    /// Does it without a question
    #[arg(long)]
    yes: bool,
    /// The agent's settings file [default: /etc/cotter/agent.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The unit of the agent with these settings [default: cotter-agent.service, or that of the instance]
    #[arg(long, value_name = "UNIT")]
    unit: Option<String>,
}

/// What there is to be undone.
struct Joined {
    traces: Traces,
    unit: Unit,
    config: Config,
    identity: Option<Identity>,
}

pub(super) async fn run(leave: Leave) -> anyhow::Result<()> {
    let joined = joined(&leave)?;
    say(&leave, &joined).await?;
    if leave.dry_run {
        print::note("nothing was changed: this was a dry run");
        return Ok(());
    }
    if !leave.yes {
        agree("This device will leave its cloud.", "nothing was changed", false)?;
    }
    joined.unit.stop()?;
    check_stopped(&joined.config.state_dir)?;
    let ended = daemon::end_vpn(&joined.config).await;
    match ended.map_err(anyhow::Error::msg).context("the VPN of the cloud is not ended")? {
        VpnEnded::WasNot => {}
        VpnEnded::Gone => print::line("ended the VPN of the cloud")?,
        // What follows is repeated when openvpn has been stopped by hand.
        VpnEnded::Runs => anyhow::bail!(
            "the VPN of the cloud is not ended: openvpn goes on; stop it with `systemctl stop cotter-vpn`, then repeat this"
        ),
    }
    // The settings go last, so that all of this can be repeated if a step of it fails.
    if leave.remove_apps {
        let removed = daemon::remove_apps(&joined.config).await.context("the apps are not removed")?;
        print::line(&format!("removed {}", counts(removed.containers, removed.networks)))?;
    }
    // While the device has its key.
    if let Some(identity) = joined.identity.as_ref().filter(|_| !leave.keep_identity) {
        delete_record(&joined, identity).await?;
        daemon::forget_device(&joined.config, leave.remove_apps).context("the identity is not removed")?;
        print::line("removed the identity of this device")?;
    }
    joined.traces.remove()?;
    for path in joined.traces.files() {
        print::line(&format!("removed {}", path.display()))?;
    }
    print::line("this device has left its cloud")
}

/// Deletes the record of the device at its fleet server. If that cannot be done now, the device leaves all the same.
async fn delete_record(joined: &Joined, identity: &Identity) -> anyhow::Result<()> {
    let (uuid, endpoint) = (&identity.uuid, joined.endpoint(identity));
    let why = match daemon::delete_record(&joined.config, identity).await {
        Ok(true) => return print::line(&format!("deleted device {uuid} at {endpoint}")),
        Ok(false) => "it did not delete the device; only a Cotter fleet server does that, and only with the device's own key".to_owned(),
        Err(error) => with_causes(&error),
    };
    let remedy = format!("delete it there; at a Cotter fleet server, with `cotter device delete {uuid}`");
    print::note(&format!("note: {endpoint} may still list the device: {why}; {remedy}"));
    Ok(())
}

impl Joined {
    /// Returns the cloud where the device is.
    fn endpoint(&self, identity: &Identity) -> String {
        identity.in_force(&self.traces.endpoint).1
    }
}

fn joined(leave: &Leave) -> anyhow::Result<Joined> {
    let given: Given = as_its_unit(leave.config.clone());
    let Some(traces) = Traces::find(&given)? else {
        let why = "`cotter join` has written no settings here; settings that were written by hand are removed by hand";
        return Err(Unknown(why.to_owned()).into());
    };
    let unit = Unit::of(leave.unit.as_deref(), given.file.as_deref());
    let config = Config::load(&given, &environment_outside(&given))
        .context("the settings must be right, because they say what belongs to this agent")?;
    let identity = store::inspect(&config.state_dir).ok().and_then(|store| store.identity);
    Ok(Joined { traces, unit, config, identity })
}

/// Says what will be done.
async fn say(leave: &Leave, joined: &Joined) -> anyhow::Result<()> {
    print::line(&format!("to leave {}:", joined.traces.endpoint))?;
    match joined.unit.standing() {
        Some((name, Standing::Installed)) => {
            print::line(&format!("  the unit {name} is stopped and disabled"))?
        }
        Some((_, Standing::NotInstalled | Standing::NoSystemd)) | None => {
            print::line("  no unit of systemd is stopped: there is none")?;
        }
    }
    let apps = match daemon::count_apps(&joined.config).await {
        Ok(there) => counts(there.containers, there.networks),
        Err(error) if leave.remove_apps => return Err(error).context("the apps cannot be removed"),
        Err(_) => "containers and networks".to_owned(),
    };
    print::line(&match leave.remove_apps {
        true => format!("  {apps} are removed; volumes and images are kept"),
        false => format!("  {apps} of its apps are kept; nothing supervises them any more"),
    })?;
    if let Some(Identity { uuid, .. }) = &joined.identity {
        print::line(&match leave.keep_identity {
            true => format!("  the identity {uuid} is kept"),
            false => format!("  the identity {uuid} is removed; it joins as a new device after that"),
        })?;
    }
    if let Some(identity) = joined.identity.as_ref().filter(|_| !leave.keep_identity) {
        let endpoint = joined.endpoint(identity);
        print::line(&format!("  its record at {endpoint} is deleted, if that is a Cotter fleet server"))?;
    }
    for path in joined.traces.files() {
        print::line(&format!("  {} is removed", path.display()))?;
    }
    Ok(())
}

fn counts(containers: usize, networks: usize) -> String {
    format!("{} and {}", counted(containers, "container"), counted(networks, "network"))
}

/// Nothing is taken away from an agent that runs.
fn check_stopped(state_dir: &Path) -> anyhow::Result<()> {
    match store::inspect(state_dir) {
        Ok(store) if store.is_held => {
            let in_use = StoreError::InUse { path: state_dir.to_owned() };
            Err(in_use).context("an agent still runs with these settings; stop it first")
        }
        Ok(_) | Err(_) => Ok(()),
    }
}
