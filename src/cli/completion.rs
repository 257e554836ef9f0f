//! `cotter completion`: scripts by which shells complete what is typed.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::shells;

use super::{Cli, print};

/// For which shell.
#[derive(Debug, Args)]
pub(super) struct Completion {
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(completion: &Completion) -> anyhow::Result<()> {
    print::raw(&script(completion.shell))
}

/// The script for a shell by its name; `None` for others than bash, zsh and fish.
#[must_use]
pub fn completion_for(shell: &str) -> Option<Vec<u8>> {
    Shell::from_str(shell, false).ok().map(script)
}

fn script(shell: Shell) -> Vec<u8> {
    let (mut command, mut script) = (definitions(), Vec::new());
    match shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, "cotter", &mut script),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, "cotter", &mut script),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, "cotter", &mut script),
    }
    script
}

/// The definitions of all commands, for man pages.
#[must_use]
pub fn definitions() -> clap::Command {
    Cli::command()
}
