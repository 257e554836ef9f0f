//! `cotter completion` and `cotter-fleet completion`: print scripts with which shells complete commands.

use clap::{Args, Command, ValueEnum};
use clap_complete::shells;

use super::print;

/// Completes names of fleets, devices, releases and services, with `cotter names`. It calls clap's function before.
const NAMES_FOR_BASH: &str = include_str!("names.bash");

/// Arguments of `completion`.
#[derive(Debug, Args)]
pub(super) struct Completion {
    /// Shell that the script is for
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script for `command`.
pub(super) fn run(completion: &Completion, command: Command) -> anyhow::Result<()> {
    print::raw(&script(completion.shell, command))
}

/// Returns the script that completes `command` in a shell, or `None` if the shell is not bash, zsh or fish.
#[must_use]
pub fn completion_for(shell: &str, command: Command) -> Option<Vec<u8>> {
    Shell::from_str(shell, false).ok().map(|shell| script(shell, command))
}

fn script(shell: Shell, command: Command) -> Vec<u8> {
    let mut command = visible(command);
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    match shell {
        Shell::Bash => {
            clap_complete::generate(shells::Bash, &mut command, name.clone(), &mut script);
            if name == "cotter" {
                script.extend_from_slice(NAMES_FOR_BASH.as_bytes());
            }
        }
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, name, &mut script),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, name, &mut script),
    }
    script
}

/// Removes the hidden commands: clap's script for bash would offer them.
fn visible(mut command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, visible);
    }
    if !command.get_subcommands().any(Command::is_hide_set) {
        return command;
    }
    let shown: Vec<_> = command.get_subcommands().filter(|inner| !inner.is_hide_set()).cloned().collect();
    // clap takes only names that live as long as the process, which prints a script and ends.
    let name: &'static str = command.get_name().to_owned().leak();
    let copy = Command::new(name).args(command.get_arguments().cloned()).subcommands(shown);
    match command.get_about() {
        Some(about) => copy.about(about.clone()),
        None => copy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_commands_are_not_offered() {
        for shell in ["bash", "zsh", "fish"] {
            let hidden = Command::new("fleet-serve").hide(true);
            let fleet =
                Command::new("fleet").about("Fleets").subcommand(hidden).subcommand(Command::new("create"));
            let command = Command::new("cotter").version("1").subcommand(fleet);
            let script = String::from_utf8(completion_for(shell, command).unwrap()).unwrap();
            assert!(script.contains("create") && script.contains("version"), "{script}");
            assert!(!script.contains("serve"), "{script}");
        }
    }
}
