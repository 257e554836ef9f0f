//! `cotter completion` and `cotter-fleet completion`: print scripts with which shells complete commands.

use clap::{Args, Command, ValueEnum};
use clap_complete::shells;

use super::print;

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

fn script(shell: Shell, mut command: Command) -> Vec<u8> {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    match shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, name, &mut script),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, name, &mut script),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, name, &mut script),
    }
    script
}
