//! `cotter completion`: scripts by which shells complete what is typed.

use std::io::{self, Write};

use anyhow::Context;
use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Generator, shells};

use super::Cli;

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
    let script = match completion.shell {
        Shell::Bash => script(shells::Bash),
        Shell::Zsh => script(shells::Zsh),
        Shell::Fish => script(shells::Fish),
    };
    match io::stdout().lock().write_all(&script) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(()),
    }
}

fn script(shell: impl Generator) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cotter", &mut script);
    script
}
