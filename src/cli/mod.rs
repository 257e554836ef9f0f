//! The command line: what is typed, what is printed, and the exit code.
//!
//! Device verbs send requests to the agent's sockets, never to the engine or the store. Fleet verbs send requests to
//! a fleet server over HTTP and never open its records. Only `agent`, `lock run` and `cotter-fleet serve` keep
//! running. `check` uses `src/doctor`, which reads the store and asks the engine itself.

mod agent;
mod attempts;
mod audit;
mod build;
mod build_log;
mod check;
mod client;
mod client_error;
mod client_files;
mod commit;
mod completion;
mod compose;
mod config;
mod consent;
mod control;
mod deletion;
mod device;
mod device_list;
mod device_logs;
mod device_tags;
mod docker;
mod env;
mod events;
mod exchange;
mod exit;
mod explain;
mod failure;
mod fleet;
#[cfg(feature = "server")]
mod fleet_backup;
mod fleet_deletion;
#[cfg(feature = "server")]
mod fleet_migrate;
#[cfg(feature = "server")]
mod fleet_server;
#[cfg(feature = "server")]
mod fleet_simulate;
mod follow;
mod history;
mod image_warnings;
mod join;
mod join_address;
mod join_file;
mod journal;
mod layout;
mod leave;
mod lock;
mod logging;
mod logs;
mod migration;
mod names;
mod openbalena;
mod openbalena_error;
mod overview;
mod plan;
mod print;
mod private_file;
mod provisioning_key;
mod purge;
mod push;
mod push_platforms;
mod quantity;
mod release;
mod rollout;
mod rollout_definition;
mod status;
mod support_bundle;
mod token;
mod unit;
mod usage;
mod user;
mod wait;
mod webhook;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use tokio::runtime::Builder;

pub use completion::completion_for;
pub use exit::Exit;
#[cfg(feature = "server")]
pub use fleet_server::{fleet_definitions, fleet_main};

/// Keeps every device of a fleet on exactly the release it should run.
#[derive(Debug, Parser)]
#[command(version, propagate_version = false)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs the agent, which keeps this device on its release
    #[command(after_help = "Example: cotter agent --config /etc/cotter/agent.toml")]
    Agent(agent::Agent),
    /// Shows what this device should run, and what it runs
    ///
    /// Also shows what it waits for.
    #[command(aliases = ["ps", "ls"], after_help = "Example: cotter status --watch")]
    Status(status::Status),
    /// Explains why this device does not run what it should
    ///
    /// Shows each cause, how long it has lasted, and what clears it.
    #[command(after_help = "Example: cotter explain web")]
    Explain(explain::Explain),
    /// Shows the agent's last 256 events, or follows them
    #[command(after_help = "Example: cotter events --follow")]
    Events(events::Events),
    /// Shows the steps that the agent would take next
    ///
    /// Takes none of them. Ends with exit code 10 if there are any.
    #[command(after_help = "Example: cotter plan --json")]
    Plan(plan::Plan),
    /// Shows how the last releases on this device ended
    #[command(after_help = "Example: cotter history")]
    History(history::History),
    /// Checks this device and suggests fixes
    #[command(alias = "doctor", after_help = "Example: cotter check --dont-run cloud,engine-live-restore")]
    Check(check::Check),
    /// Collects diagnostics into a tar file, without secrets
    #[command(after_help = "Example: cotter support-bundle --output device.tar")]
    SupportBundle(support_bundle::SupportBundle),
    /// Shows the output of a service
    #[command(after_help = "Example: cotter logs web --follow --tail 20")]
    Logs(logs::ShowLogs),
    /// Joins this device to a fleet, and starts its agent
    ///
    /// Checks fleet and key at the cloud, writes the settings, and enables and starts the agent's unit.
    ///
    /// With a config.json of a cloud instead of an address, only writes the settings.
    #[command(
        after_help = "Examples: cotter join https://fleet.example.com --fleet greenhouse --key - --tag site=zurich\n          \
        cotter join config.json --dry-run"
    )]
    Join(join::Join),
    /// Undoes `cotter join`
    ///
    /// Stops the agent, and removes what join wrote and this device's identity.
    #[command(after_help = "Example: cotter leave --dry-run")]
    Leave(leave::Leave),
    /// Shows or checks the agent's settings
    #[command(subcommand)]
    Config(config::Verb),
    /// Polls the cloud now, for what this device should run
    #[command(after_help = "Example: cotter update --wait")]
    Update(control::Update),
    /// Retries failed steps at once, and a rejected release
    #[command(after_help = "Example: cotter retry")]
    Retry(control::OfApp),
    /// Rejects the present release and rolls back to the one before
    ///
    /// That needs no network, except for services with the strategy `delete-then-download`.
    #[command(after_help = "Example: cotter rollback --app greenhouse")]
    Rollback(control::OfApp),
    /// Holds this device, so that nothing that runs is stopped
    ///
    /// The hold lasts until `cotter unhold`.
    #[command(after_help = "Example: cotter hold --reason \"harvest until friday\"")]
    Hold(control::Hold),
    /// Ends the hold, so that updates continue
    #[command(after_help = "Example: cotter unhold")]
    Unhold(control::Plain),
    /// Stops a service
    ///
    /// It stays stopped until `cotter start`, or a release that changes it.
    #[command(after_help = "Example: cotter stop camera")]
    Stop(control::OfService),
    /// Starts a service that `cotter stop` has stopped
    #[command(after_help = "Example: cotter start camera")]
    Start(control::Start),
    /// Stops a service and starts it again
    #[command(after_help = "Example: cotter restart camera --app greenhouse")]
    Restart(control::OfService),
    /// Removes volumes of an app with their content
    ///
    /// Asks first. No other command removes a named volume.
    #[command(after_help = "Example: cotter purge greenhouse data")]
    Purge(purge::Purge),
    /// Prints the completions for a shell
    #[command(after_help = "Example: cotter completion bash > /etc/bash_completion.d/cotter")]
    Completion(completion::Completion),
    /// Locks updates, so that none stops a container
    #[command(subcommand)]
    Lock(lock::Verb),
    /// Manages the fleets of a fleet server
    #[command(subcommand)]
    Fleet(fleet::Verb),
    /// Manages the devices of a fleet server
    #[command(subcommand)]
    Device(device::Verb),
    /// Creates and manages releases on a fleet server
    #[command(subcommand)]
    Release(release::Verb),
    /// Gives a release to a fleet in waves, and stops if it is bad
    #[command(subcommand)]
    Rollout(rollout::Verb),
    /// Manages where a fleet server announces rollouts
    #[command(subcommand)]
    Webhook(webhook::Verb),
    /// Manages environment variables of fleets and devices
    #[command(subcommand)]
    Env(env::Verb),
    /// Builds a compose project and creates a release of it
    ///
    /// Builds its images, pushes them to the fleet's registry, and creates a release of them.
    ///
    /// Images are built by this machine's docker: with buildx if it is installed. If anything fails, no release is
    /// created. With `--record-failure`, a failed release with the end of the build log is created.
    #[command(
        after_help = "Example: cotter push greenhouse --registry registry.example.com/lab --platform linux/arm64"
    )]
    Push(push::Push),
    /// Manages the users of a fleet server
    #[command(subcommand)]
    User(user::Verb),
    /// Manages the tokens of a fleet server
    #[command(subcommand)]
    Token(token::Verb),
    /// Shows who changed what on a fleet server, and why
    #[command(after_help = "Example: cotter audit --fleet greenhouse --since 7d")]
    Audit(audit::Audit),
    /// Writes fleets, releases, devices and variables as JSON lines
    ///
    /// Each line has one thing, in a fixed order, for other programs and for `cotter import` at another fleet server.
    /// An export has no keys, users and reports; a backup (`cotter-fleet backup`) has everything.
    #[command(after_help = "Example: cotter export fleet.jsonl")]
    Export(exchange::Export),
    /// Imports what the fleet server does not have yet
    ///
    /// Imports all lines, or none: a line that is wrong, or a thing that is on the server and differs, refuses the
    /// import.
    #[command(after_help = "Example: cotter import fleet.jsonl --dry-run")]
    Import(exchange::Import),
    /// Prints names for completion, one on each line
    #[command(hide = true)]
    Names(names::Names),
    /// Prints the version
    #[command(hide = true)]
    Version,
}

/// What `version` prints, as `--version` does.
const VERSION: &str = concat!("cotter ", env!("CARGO_PKG_VERSION"));

impl Verb {
    async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Check(check) => return Box::pin(check::run(check)).await,
            Self::Lock(verb) => return Box::pin(lock::run(verb)).await,
            Self::Plan(plan) => return Box::pin(plan::run(plan)).await,
            Self::Push(push) => return Box::pin(push::run(push)).await,
            Self::Fleet(verb) => return Ok(Box::pin(fleet::run(verb)).await?.into()),
            Self::Release(verb) => return Ok(Box::pin(release::run(verb)).await?.into()),
            Self::Device(verb) => return Ok(Box::pin(device::run(verb)).await?.into()),
            Self::Rollout(verb) => return Ok(Box::pin(rollout::run(verb)).await?.into()),
            Self::Webhook(verb) => return Ok(Box::pin(webhook::run(verb)).await?.into()),
            Self::Env(verb) => return Ok(Box::pin(env::run(verb)).await?.into()),
            Self::Join(join) => return Ok(Box::pin(join::run(join)).await?.into()),
            Self::Update(order) => return Box::pin(control::update(order)).await,
            Self::User(verb) => Box::pin(user::run(verb)).await,
            Self::Token(verb) => Box::pin(token::run(verb)).await,
            Self::Audit(audit) => Box::pin(audit::run(audit)).await,
            Self::Export(export) => Box::pin(exchange::export(export)).await,
            Self::Import(import) => Box::pin(exchange::import(import)).await,
            Self::Version => print::line(VERSION),
            Self::Agent(agent) => Box::pin(agent::run(agent)).await,
            Self::Config(verb) => Box::pin(config::run(verb)).await,
            Self::Leave(leave) => Box::pin(leave::run(leave)).await,
            Self::Completion(completion) => completion::run(&completion, definitions()),
            Self::SupportBundle(bundle) => Box::pin(support_bundle::run(bundle)).await,
            Self::Names(names) => Box::pin(names::run(names)).await,
            Self::Logs(logs) => Box::pin(logs::run(logs)).await,
            Self::Explain(explain) => Box::pin(explain::run(explain)).await,
            Self::History(history) => Box::pin(history::run(history)).await,
            Self::Status(status) => Box::pin(status::run(status)).await,
            Self::Events(events) => Box::pin(events::run(events)).await,
            Self::Retry(order) => Box::pin(control::of_app("retry", order)).await,
            Self::Rollback(order) => Box::pin(control::of_app("rollback", order)).await,
            Self::Hold(order) => Box::pin(control::hold(order)).await,
            Self::Unhold(order) => Box::pin(control::unhold(order)).await,
            Self::Stop(order) => Box::pin(control::of_service("stop", order)).await,
            Self::Start(order) => Box::pin(control::start(order)).await,
            Self::Restart(order) => Box::pin(control::of_service("restart", order)).await,
            Self::Purge(purge) => Box::pin(purge::run(purge)).await,
        }?;
        Ok(Exit::Done.into())
    }
}

/// Prints the help as it is, or a usage error as one line. Returns the exit code.
fn not_run(answer: &clap::Error, known: &clap::Command) -> ExitCode {
    let is_help = answer.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if is_help || !answer.use_stderr() {
        print::help(answer);
        return if is_help { Exit::Usage.into() } else { Exit::Done.into() };
    }
    let line = usage::without_environment(&answer.render().to_string(), known, std::env::args());
    let line = in_a_line(&line) + &usage::suggestion(answer, known, std::env::args().nth(1).as_deref());
    failure::say_usage(&line, failure::wants_json(std::env::args_os()));
    Exit::Usage.into()
}

/// Joins a message of several paragraphs into one line.
fn in_a_line(message: &str) -> String {
    let mut joined = String::new();
    for line in message.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (begins, rest) = match (line.strip_prefix("Usage: "), line.strip_prefix("For more information, "))
        {
            (Some(rest), _) => ("usage: ", rest),
            (None, Some(rest)) => ("", rest.trim_end_matches('.')),
            (None, None) => ("", line),
        };
        if !joined.is_empty() {
            joined.push_str(if joined.ends_with(':') { " " } else { "; " });
        }
        joined.push_str(begins);
        joined.push_str(rest);
    }
    joined
}

/// How long blocking work, e.g. name resolution, may delay the end of the process.
const LINGER: Duration = Duration::from_secs(1);

/// Runs the command line of `cotter`, and returns its exit code.
pub fn main() -> ExitCode {
    let verb = match parse::<Cli>(definitions()) {
        Ok(cli) => cli.verb,
        Err(code) => return code,
    };
    // One thread: blocking work has threads of its own, and every thread costs a device memory for its stack.
    block_on(Builder::new_current_thread(), verb.run())
}

/// The definitions of all commands of `cotter`, for man pages and completions.
#[must_use]
pub fn definitions() -> clap::Command {
    overview::grouped(Cli::command())
}

/// Parses the command line. If there is nothing to run, prints the help or the error, and returns the exit code.
fn parse<C: Parser>(command: clap::Command) -> Result<C, ExitCode> {
    std::panic::set_hook(Box::new(print::panic));
    let mut command = command;
    let found = command.try_get_matches_from_mut(std::env::args_os());
    let found = found.and_then(|found| C::from_arg_matches(&found));
    found.map_err(|answer| not_run(&answer, &command))
}

/// Runs `command` to its end, prints its error if it has one, and returns its exit code.
fn block_on(mut builder: Builder, command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let result = match builder.enable_all().build() {
        Ok(runtime) => {
            let result = runtime.block_on(command);
            // Blocking work that still runs is a resolver or a disk that does not answer. Do not wait for it.
            runtime.shutdown_timeout(LINGER);
            result
        }
        Err(error) => Err(anyhow::Error::new(error).context("cannot start")),
    };
    match result {
        Ok(code) => code,
        Err(error) => failure::say(&error, failure::wants_json(std::env::args_os())).into(),
    }
}
