//! The unit of systemd that runs the agent of a settings file: finds, starts and stops it with systemctl.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::config::{DEFAULT_FILE, Given};

/// The unit of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// `None`: no unit has these settings.
    name: Option<String>,
    file: PathBuf,
}

/// Whether systemd can start a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Installed,
    NotInstalled,
    NoSystemd,
}

/// What became of a start.
#[derive(Debug)]
pub(super) enum Started {
    Yes,
    /// How to start the agent.
    No(String),
}

/// Returns the settings of the agent with this file as its unit gives them. The unit of an instance sets instance and
/// folders on the command line, not in a file.
pub(super) fn as_its_unit(file: Option<PathBuf>) -> Given {
    let set = match instance(file.as_deref()) {
        Some(name) => vec![
            ("instance".to_owned(), name.clone()),
            ("state_dir".to_owned(), format!("/var/lib/cotter-{name}")),
            ("runtime_dir".to_owned(), format!("/run/cotter-{name}")),
        ],
        None => Vec::new(),
    };
    Given { file, set }
}

/// The instance whose settings are in this file: `/etc/cotter/NAME/agent.toml`.
fn instance(file: Option<&Path>) -> Option<String> {
    let folder = file?.parent()?.strip_prefix("/etc/cotter").ok()?;
    folder.to_str().filter(|name| !name.is_empty() && !name.contains('/')).map(str::to_owned)
}

impl Unit {
    /// Returns the unit `given`, or else that of the agent with this settings file.
    pub(super) fn of(given: Option<&str>, file: Option<&Path>) -> Self {
        let is_default = file.is_none_or(|file| file == Path::new(DEFAULT_FILE));
        let usual = is_default.then(|| "cotter-agent.service".to_owned());
        let of_instance = || Some(format!("cotter-agent@{}.service", instance(file)?));
        let name = given.map(str::to_owned).or(usual).or_else(of_instance);
        Self { name, file: file.unwrap_or(Path::new(DEFAULT_FILE)).to_owned() }
    }

    /// Returns its name, and whether systemd runs here and has it; `None` if no unit has these settings.
    pub(super) fn standing(&self) -> Option<(&str, Standing)> {
        let name = self.name.as_deref()?;
        // It fails if systemd does not run here, and answers for a unit that is not installed, too.
        let shown = Command::new("systemctl")
            .args(["show", "--property=LoadState", "--value", "--", name])
            .stdin(Stdio::null())
            .output();
        let standing = match shown {
            Ok(output) if output.status.success() => match output.stdout.trim_ascii() {
                b"loaded" => Standing::Installed,
                _ => Standing::NotInstalled,
            },
            Ok(_) | Err(_) => Standing::NoSystemd,
        };
        Some((name, standing))
    }

    /// Enables and starts the agent, or starts it again with its new settings, if systemd can and that is wanted.
    /// `is_running`: an agent with these settings runs, and has its old settings until it is started again.
    pub(super) fn start(&self, is_unwanted: bool, is_running: bool) -> anyhow::Result<Started> {
        let first =
            if is_running { "its agent runs with the settings of before: stop it, and then " } else { "" };
        let by_hand = format!("{first}start its agent with `cotter agent --config {}`", self.file.display());
        let (name, standing) = match self.standing() {
            None => return Ok(Started::No(format!("no unit of systemd has these settings; {by_hand}"))),
            Some(standing) => standing,
        };
        match standing {
            Standing::NoSystemd => Ok(Started::No(format!("systemd does not run here; {by_hand}"))),
            Standing::NotInstalled => Ok(Started::No(format!("the unit {name} is not installed; {by_hand}"))),
            Standing::Installed if is_unwanted && is_running => Ok(Started::No(format!(
                "its agent runs with the settings of before; start it again with `systemctl restart {name}`"
            ))),
            Standing::Installed if is_unwanted => Ok(Started::No(format!(
                "start its agent with `systemctl enable {name} && systemctl restart {name}`"
            ))),
            Standing::Installed => {
                systemctl(&["enable", "--quiet", "--", name])?;
                systemctl(&["restart", "--", name])?;
                Ok(Started::Yes)
            }
        }
    }

    /// Stops the agent and disables it.
    pub(super) fn stop(&self) -> anyhow::Result<()> {
        match self.standing() {
            Some((name, Standing::Installed)) => systemctl(&["disable", "--quiet", "--now", "--", name]),
            Some((_, Standing::NotInstalled | Standing::NoSystemd)) | None => Ok(()),
        }
    }
}

fn systemctl(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("systemctl").args(args).stdin(Stdio::null()).output();
    let output = output.context("systemctl cannot be run")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or_default();
    let unit = args.last().unwrap_or(&"cotter-agent");
    bail!("`systemctl {}` failed: {said}; see `journalctl -u {unit}`", args.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_a_settings_file() {
        for (given, file, expected) in [
            (None, None, Some("cotter-agent.service")),
            (None, Some("/etc/cotter/agent.toml"), Some("cotter-agent.service")),
            (None, Some("/etc/cotter/lab/agent.toml"), Some("cotter-agent@lab.service")),
            (None, Some("/etc/cotter/a/b/agent.toml"), None),
            (None, Some("/srv/agent.toml"), None),
            (Some("mine.service"), Some("/srv/agent.toml"), Some("mine.service")),
        ] {
            let unit = Unit::of(given, file.map(Path::new));
            assert_eq!(unit.name.as_deref(), expected, "{given:?} {file:?}");
        }
    }

    #[test]
    fn an_instance_has_the_folders_that_its_unit_gives_it() {
        let set = as_its_unit(Some("/etc/cotter/lab/agent.toml".into())).set;
        let set: Vec<_> = set.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(set, ["instance=lab", "state_dir=/var/lib/cotter-lab", "runtime_dir=/run/cotter-lab"]);
        assert_eq!(as_its_unit(Some("/srv/agent.toml".into())).set, []);
        assert_eq!(as_its_unit(None).set, []);
    }
}
