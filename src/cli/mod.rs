//! The command line: what is typed, what is printed, and the exit code.
//!
//! Fleet verbs speak to a fleet server over HTTP; none of them opens its records.
//! Only `fleet serve` runs something.

mod client;
mod compose;
mod device;
mod exit;
mod fleet;
mod print;
mod release;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use exit::Exit;

/// Keeps every device of a fleet on exactly the release it should run.
#[derive(Debug, Parser)]
#[command(version, propagate_version = false, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Fleets, and the fleet server
    #[command(subcommand)]
    Fleet(fleet::Verb),
    /// Devices of a fleet
    #[command(subcommand)]
    Device(device::Verb),
    /// Releases of a fleet
    #[command(subcommand)]
    Release(release::Verb),
}

impl Verb {
    async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Fleet(verb) => Box::pin(fleet::run(verb)).await,
            Self::Device(verb) => Box::pin(device::run(verb)).await,
            Self::Release(verb) => Box::pin(release::run(verb)).await,
        }
    }
}

/// Runs what was typed, and tells how it ended. What is wrong with the command line
/// itself ends here with [`Exit::Usage`].
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(cli.verb.run()),
        Err(error) => Err(anyhow::Error::new(error).context("cannot start")),
    };
    match result {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            print::error(&error);
            Exit::of(&error).into()
        }
    }
}
