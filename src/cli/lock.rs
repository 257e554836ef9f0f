//! `cotter lock`: locks that defer updates; each has an end.

use std::cell::RefCell;
use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::control::Plain;
use super::exit::Exit;
use super::{print, status};
use crate::api::{self, ClientError, LockName, LockRequest};
use crate::config::environment;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Locks updates for a time, and prints the id of the lock
    #[command(after_help = "Example: id=$(cotter lock acquire --reason \"print job\" --ttl 30min)")]
    Acquire(Acquire),
    /// Extends a lock, from now on
    #[command(after_help = "Example: cotter lock renew \"$id\" --ttl 30min")]
    Renew(Renew),
    /// Ends a lock
    #[command(after_help = "Example: cotter lock release \"$id\"")]
    Release(Release),
    /// Lists the locks in force, including the lock files of services
    List(List),
    /// Locks updates while a command runs, and ends with the command's exit code
    ///
    /// The lock is renewed while the command runs, and released when it ends. If `cotter lock run` is killed,
    /// the lock ends by itself after --ttl at most. The exit code is 127 if the command is not found, 126 if it
    /// cannot be run, and 128 plus the number of the signal if a signal ended it.
    #[command(after_help = "Example: cotter lock run --reason backup -- /usr/local/bin/backup --full")]
    Run(Run),
}

/// Arguments of `cotter lock acquire`.
#[derive(Debug, Args)]
pub(super) struct Acquire {
    /// Why, for everyone who reads `cotter status`
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// After what time the lock ends unless it is renewed, 1s to 24h
    #[arg(long, default_value = "10min", value_parser = ttl, value_name = "DURATION")]
    ttl: u64,
    /// Who holds the lock [default: the user's name]
    #[arg(long, value_name = "TEXT")]
    owner: Option<String>,
    #[command(flatten)]
    agent: Plain,
}

/// Arguments of `cotter lock renew`.
#[derive(Debug, Args)]
pub(super) struct Renew {
    /// Id of the lock, as `acquire` printed it
    id: String,
    /// After what time the lock ends unless it is renewed, 1s to 24h
    #[arg(long, default_value = "10min", value_parser = ttl, value_name = "DURATION")]
    ttl: u64,
    #[command(flatten)]
    agent: Plain,
}

/// Arguments of `cotter lock release`.
#[derive(Debug, Args)]
pub(super) struct Release {
    /// Id of the lock, as `acquire` printed it
    id: String,
    #[command(flatten)]
    agent: Plain,
}

/// Arguments of `cotter lock list`.
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    source: status::Source,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `cotter lock run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// Why, for everyone who reads `cotter status`
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// After what time the lock ends if `cotter lock run` is killed, 1s to 24h
    #[arg(long, default_value = "1min", value_parser = ttl, value_name = "DURATION")]
    ttl: u64,
    /// Who holds the lock [default: the user's name]
    #[arg(long, value_name = "TEXT")]
    owner: Option<String>,
    #[command(flatten)]
    agent: Plain,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) async fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Acquire(request) => acquire(request).await?,
        Verb::Renew(request) => {
            let renewal = renewal(request.id, request.ttl);
            print::line(&api::order(&request.agent.socket, "locks", &renewal).await?.message)?;
        }
        Verb::Release(lock) => {
            let name = LockName { id: lock.id };
            print::line(&api::order(&lock.agent.socket, "locks/release", &name).await?.message)?;
        }
        Verb::List(how) => list(how).await?,
        Verb::Run(command) => return run_locked(command).await,
    }
    Ok(Exit::Done.into())
}

/// Prints only the id to standard output, for scripts; the message goes to standard error.
async fn acquire(request: Acquire) -> anyhow::Result<()> {
    let answer =
        api::order(&request.agent.socket, "locks", &new(request.reason, request.owner, request.ttl)).await?;
    print::note(&answer.message);
    print::line(&answer.id.unwrap_or_default())
}

async fn list(how: List) -> anyhow::Result<()> {
    let document = api::status(&how.source.socket).await?;
    if how.json {
        return print::json("locks", &document.locks);
    }
    let leases = document.locks.leases.iter().map(|lease| {
        [lease.id.clone(), lease.owner.clone(), lease.reason.clone(), format!("in {} s", lease.expires_in_s)]
    });
    let files = document.locks.files.iter().map(|file| {
        let app = document.apps.iter().find(|app| app.uuid == file.app).map_or(&file.app, |app| &app.name);
        let owner = format!("{} of {app}", file.service);
        ["-".to_owned(), owner, file.path.clone(), "when the file is removed".to_owned()]
    });
    let headers = ["LOCK", "OWNER", "REASON", "ENDS"];
    print::table(headers, leases.chain(files).collect::<Vec<_>>(), "updates are not locked")
}

/// Holds a lock while a command runs. Returns the command's exit code.
async fn run_locked(order: Run) -> anyhow::Result<ExitCode> {
    let socket = &order.agent.socket;
    let request = new(order.reason, order.owner, order.ttl);
    let held = RefCell::new(api::order(socket, "locks", &request).await?.id.unwrap_or_default());
    let code =
        match order.command.split_first().map(|(name, args)| (name, Command::new(name).args(args).spawn())) {
            Some((_, Ok(child))) => tokio::select! {
                ended = attend(child) => code_of(ended?),
                never = keep(socket, &request, &held) => match never {},
            },
            Some((name, Err(error))) => {
                print::note(&format!("error: command {} cannot be run: {error}", name.display()));
                if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
            }
            None => Exit::Usage as u8,
        };
    let released = api::order(socket, "locks/release", &LockName { id: held.take() }).await;
    if let Err(error) = released {
        print::note(&format!("the lock was not released; it ends by itself after {} s: {error}", order.ttl));
    }
    Ok(ExitCode::from(code))
}

/// Waits for the command to end, also after a signal. A terminal sends an interrupt to both processes; other signals
/// are passed on to the command.
async fn attend(mut child: Child) -> anyhow::Result<ExitStatus> {
    let caught = |kind| signal(kind).context("signals cannot be caught");
    let (mut interrupt, mut terminate, mut hang_up) =
        (caught(SignalKind::interrupt())?, caught(SignalKind::terminate())?, caught(SignalKind::hangup())?);
    loop {
        let passed_on = tokio::select! {
            ended = child.wait() => return ended.context("the command cannot be waited for"),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => Some("TERM"),
            _ = hang_up.recv() => Some("HUP"),
        };
        if let (Some(name), Some(id)) = (passed_on, child.id()) {
            // It is not an error if the command has just ended: the next turn of the loop sees it.
            let _ = Command::new("kill").args(["-s", name, &id.to_string()]).status().await;
        }
    }
}

/// Renews the lock in time, for ever. If the lock has ended, e.g. because the agent was stopped for long, acquires a
/// new one.
async fn keep(socket: &Path, request: &LockRequest, held: &RefCell<String>) -> Infallible {
    let mut is_reported = false;
    loop {
        tokio::time::sleep(Duration::from_secs(request.ttl_s) / 3).await;
        let id = held.borrow().clone();
        let renewed = match api::order(socket, "locks", &renewal(id, request.ttl_s)).await {
            Err(ClientError::NotFollowed { code, .. }) if code == "not_found" => {
                api::order(socket, "locks", request).await
            }
            renewed => renewed,
        };
        match renewed {
            Ok(answer) => {
                held.replace(answer.id.unwrap_or_default());
                is_reported = false;
            }
            Err(error) if !is_reported => {
                print::note(&format!("the lock is not renewed; trying again: {error}"));
                is_reported = true;
            }
            Err(_) => {}
        }
    }
}

fn code_of(ended: ExitStatus) -> u8 {
    let code = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(Exit::Unexpected as u8)
}

fn new(reason: String, owner: Option<String>, ttl_s: u64) -> LockRequest {
    let environment = environment();
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| environment.get(name).cloned());
    LockRequest { id: None, reason: Some(reason), owner: owner.or(user), ttl_s }
}

fn renewal(id: String, ttl_s: u64) -> LockRequest {
    LockRequest { id: Some(id), ttl_s, ..LockRequest::default() }
}

/// Parses a duration in whole seconds, from 1 s to 24 h.
fn ttl(text: &str) -> Result<u64, String> {
    let most = 24 * 3600;
    let given = humantime::parse_duration(text).ok().filter(|given| given.subsec_nanos() == 0);
    let seconds = given.map(|given| given.as_secs()).filter(|seconds| (1..=most).contains(seconds));
    seconds.ok_or_else(|| "write a duration such as 10min, from 1s to 24h".to_owned())
}
