//! `cotter-fleet`, the command line of the fleet server: reads settings, starts logging, and stops on signals.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::completion::{self, Completion};
use super::{Exit, block_on, logging, parse};
use super::{fleet_backup, fleet_migrate, fleet_simulate, print};
use crate::fleet::{RawConfig, Server, check, while_reading};
use crate::host;
use crate::ownership;

/// Serves a fleet of devices: decides which release each of them runs.
#[derive(Debug, Parser)]
#[command(
    name = "cotter-fleet",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    after_help = "Fleets, devices and releases are managed with `cotter fleet`, `cotter device` and `cotter release`."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs the fleet server
    #[command(after_help = "Example: cotter-fleet serve --config /etc/cotter/fleet.toml")]
    Serve(Box<Serve>),
    /// Writes a copy of a running server's records to a file
    #[command(
        after_help = "Example: cotter-fleet backup fleet-$(date +%F).jsonl\n\nThe file is made of JSON lines: a head, a line for each record, and a checksum.\nThe operator's token is not in it, and of keys it has only hashes."
    )]
    Backup(fleet_backup::Save),
    /// Checks that the file of a backup is complete and unchanged
    #[command(after_help = "Example: cotter-fleet verify fleet-2026-11-30.jsonl")]
    Verify(fleet_backup::Verify),
    /// Puts a backup in the place of the records of a server that is stopped
    #[command(
        after_help = "Example: cotter-fleet restore fleet-2026-11-30.jsonl --data-dir /var/lib/cotter-fleet"
    )]
    Restore(fleet_backup::Restore),
    /// Copies the records of a stopped server from its data folder into a database, or back
    #[command(
        after_help = "Example: cotter-fleet migrate /var/lib/cotter-fleet postgres://cotter@db.example.com/fleet --password-file FILE"
    )]
    Migrate(fleet_migrate::Migrate),
    /// Tries the definition of a rollout on simulated fleets
    #[command(
        after_help = "Example: cotter-fleet simulate --devices 10000 --waves 'ring=canary, 1%, 10%, 100%' --fail 5% --offline 30% --segment ring=canary:0.5%"
    )]
    Simulate(Box<fleet_simulate::Simulate>),
    /// Prints a script with which a shell completes commands and options
    #[command(after_help = "Example: cotter-fleet completion bash > /etc/bash_completion.d/cotter-fleet")]
    Completion(Completion),
}

/// The settings of the server. Each of them can be set in the settings file, too.
#[derive(Debug, Args)]
struct Serve {
    /// IP address and port to listen on [default: 127.0.0.1:7300]
    #[arg(long, env = "COTTER_FLEET_LISTEN", value_name = "IP:PORT")]
    listen: Option<String>,
    /// Folder for the server's records and keys [default: /var/lib/cotter-fleet]
    #[arg(long, env = "COTTER_FLEET_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How often devices poll, 1s to 24h [default: 60s]
    #[arg(long, env = "COTTER_FLEET_POLL_INTERVAL", value_name = "TIME")]
    poll_interval: Option<String>,
    /// Maximum number of connections of devices at a time, 16 to 60000; some more are reserved for operators [default: 1024]
    #[arg(long, env = "COTTER_FLEET_CONNECTIONS", value_name = "NUMBER")]
    connections: Option<usize>,
    /// Maximum number of records of the audit trail, 1000 to 10000000 [default: 100000]
    #[arg(long, env = "COTTER_FLEET_AUDIT_ENTRIES", value_name = "NUMBER")]
    audit_entries: Option<u64>,
    /// How long records of the audit trail are kept, 1day to 10years [default: 400days]
    #[arg(long, env = "COTTER_FLEET_AUDIT_TIME", value_name = "TIME")]
    audit_time: Option<String>,
    /// Maximum number of releases of a fleet, 10 to 100000 [default: 1000]
    #[arg(long, env = "COTTER_FLEET_RELEASES_PER_FLEET", value_name = "NUMBER")]
    releases_per_fleet: Option<usize>,
    /// Maximum memory that the releases of a fleet take, in MiB [default: 32]
    #[arg(long, env = "COTTER_FLEET_FLEET_RELEASES_MIB", value_name = "MIB")]
    fleet_releases_mib: Option<usize>,
    /// Maximum memory that the releases of all fleets take, in MiB [default: 96]
    #[arg(long, env = "COTTER_FLEET_ALL_RELEASES_MIB", value_name = "MIB")]
    all_releases_mib: Option<usize>,
    /// The server's certificate and those of its chain, as PEM; read again after a renewal and on SIGHUP
    #[arg(long, env = "COTTER_FLEET_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert, as PEM
    #[arg(long, env = "COTTER_FLEET_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// A proxy whose X-Forwarded-For names the client; can be repeated
    #[arg(
        long = "trusted-proxy",
        env = "COTTER_FLEET_TRUSTED_PROXIES",
        value_name = "IP[/N]",
        value_delimiter = ','
    )]
    trusted_proxies: Option<Vec<String>>,
    /// PostgreSQL database for the records, which several servers can share: postgres://USER@HOST/DATABASE
    /// [default: the records are in --data-dir]
    #[arg(long, env = "COTTER_FLEET_STORE", value_name = "URL", hide_env_values = true)]
    store: Option<String>,
    /// File with the password of the database
    #[arg(long, env = "COTTER_FLEET_STORE_PASSWORD_FILE", value_name = "FILE")]
    store_password_file: Option<PathBuf>,
    /// Whose logs are taken: of devices that an operator asks for, of all (on), or of none (off) [default: asked]
    #[arg(long, env = "COTTER_FLEET_LOGS", value_name = "asked|on|off")]
    logs: Option<String>,
    /// Maximum disk space for logs of devices, in MiB [default: 256]
    #[arg(long, env = "COTTER_FLEET_LOGS_MIB", value_name = "MIB")]
    logs_mib: Option<u64>,
    /// Allows a --listen address that other machines can reach, although the server has no TLS; --allow-remote is
    /// its old name, until the next release
    #[arg(long, alias = "allow-remote")]
    insecure: bool,
    /// Sends no device another target than it has, e.g. to look at restored records first
    #[arg(long)]
    paused: bool,
    /// Checks the settings, the certificate and the records, says what the server would do, and ends; exit code 78 for wrong
    /// settings
    #[arg(long)]
    check: bool,
    /// Settings file (TOML); flags and environment variables override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Maximum number of worker threads. The server has one per processor, but `TasksMax=` of its unit limits all threads, including
/// those that write to the disk.
const MOST_WORKERS: usize = 16;

/// Runs the command line of `cotter-fleet`, and returns its exit code.
pub fn fleet_main() -> ExitCode {
    let verb = match parse::<Cli>(Cli::command()) {
        Ok(cli) => cli.verb,
        Err(code) => return code,
    };
    std::panic::set_hook(Box::new(|panic| match while_reading() {
        Some(words) => print::note(&format!("error: {words}")),
        None => print::panic(panic),
    }));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(processors.min(MOST_WORKERS));
    block_on(runtime, verb.run())
}

impl Verb {
    async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Serve(settings) => Box::pin(serve(*settings)).await,
            Self::Backup(save) => Box::pin(fleet_backup::save(save)).await,
            Self::Verify(verify) => fleet_backup::verify(&verify),
            Self::Restore(restore) => {
                tokio::task::spawn_blocking(move || fleet_backup::restore(&restore)).await?
            }
            Self::Migrate(migrate) => {
                tokio::task::spawn_blocking(move || fleet_migrate::migrate(&migrate)).await?
            }
            Self::Simulate(simulate) => fleet_simulate::simulate(*simulate),
            Self::Completion(completion) => completion::run(&completion, fleet_definitions()),
        }?;
        Ok(Exit::Done.into())
    }
}

/// The definitions of all commands of `cotter-fleet`, for man pages.
#[must_use]
pub fn fleet_definitions() -> clap::Command {
    Cli::command()
}

async fn serve(serve: Serve) -> anyhow::Result<()> {
    let remedy = "give a file that has it with --store-password-file, or the URL in COTTER_FLEET_STORE";
    fleet_migrate::keep_password_secret(serve.store.as_deref(), remedy)?;
    let file = match &serve.config {
        None => RawConfig::default(),
        Some(path) => RawConfig::read(path).with_context(|| format!("in {}", path.display()))?,
    };
    let flags = RawConfig {
        listen: serve.listen,
        data_dir: serve.data_dir,
        poll_interval: serve.poll_interval,
        connections: serve.connections,
        audit_entries: serve.audit_entries,
        audit_time: serve.audit_time,
        releases_per_fleet: serve.releases_per_fleet,
        fleet_releases_mib: serve.fleet_releases_mib,
        all_releases_mib: serve.all_releases_mib,
        tls_cert: serve.tls_cert,
        tls_key: serve.tls_key,
        trusted_proxies: serve.trusted_proxies,
        store: serve.store,
        store_password_file: serve.store_password_file,
        logs: serve.logs,
        logs_mib: serve.logs_mib,
        insecure: serve.insecure,
        paused: serve.paused.then_some(true),
    };
    logging::begin("cotter-fleet", logging::filter("info")?);
    ownership::make_files_private();
    let config = flags.over(file).within(host::raise_open_files())?.check()?;
    if serve.check {
        let facts = tokio::task::spawn_blocking(move || check(config)).await??;
        return print::facts(&facts);
    }

    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    // `systemctl reload` does not end a server that has no certificate to read again.
    let _ignored = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let server = Server::open(config).await?;
    host::notify_ready();
    let running = server.run(stop.clone());
    let signalled = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        host::notify_stopping();
        stop.cancel();
    };
    tokio::join!(running, signalled);
    Ok(())
}
