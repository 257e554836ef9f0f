//! Runs docker's command line, with its output on ours.

use std::ffi::OsString;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::build_log::BuildLog;
use super::print;

/// How long docker may take to end after a signal.
const TO_END: Duration = Duration::from_secs(10);

/// What builds images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Builder {
    /// `docker buildx build`
    Buildx,
    /// `docker build`, where buildx is not installed.
    Classic,
}

/// One run of docker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) args: Vec<OsString>,
    /// Variables besides our own: values that other users must not see in a list of processes.
    pub(super) variables: Vec<(String, String)>,
    /// For its standard input.
    pub(super) input: Option<String>,
}

/// Why docker did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum DockerError {
    #[error(
        "docker is not installed, or not on the PATH: install Docker's command line (docker.io, or docker-ce-cli with \
         docker-buildx-plugin)"
    )]
    Missing,

    #[error("docker cannot be run")]
    NotRun(#[source] io::Error),

    #[error("docker ended with {}", ending(*.0))]
    Failed(ExitStatus),

    #[error("interrupted by signal {0}")]
    Interrupted(&'static str),
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    }
}

/// Docker's command line.
#[derive(Debug)]
pub(super) struct Docker {
    pub(super) builder: Builder,
    interrupts: Vec<(&'static str, Signal)>,
    /// Records what docker prints, if that is wanted.
    log: Option<BuildLog>,
}

impl Docker {
    /// Finds docker, and whether it has buildx. From now on signals end only what docker does.
    pub(super) async fn find() -> anyhow::Result<Self> {
        let mut buildx = Command::new("docker");
        buildx.args(["buildx", "version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let is_there = buildx.status().await.map_err(not_run)?.success();
        let caught = |name, kind| anyhow::Ok((name, signal(kind).context("signals cannot be caught")?));
        let interrupts = vec![
            caught("INT", SignalKind::interrupt())?,
            caught("TERM", SignalKind::terminate())?,
            caught("HUP", SignalKind::hangup())?,
        ];
        Ok(Self { builder: if is_there { Builder::Buildx } else { Builder::Classic }, interrupts, log: None })
    }

    /// Records from now on what docker prints. Docker then prints plain lines, as it does to a file.
    pub(super) fn record(&mut self) {
        self.log = Some(BuildLog::default());
    }

    /// The end of what was recorded.
    pub(super) fn recorded(&self) -> Option<String> {
        self.log.as_ref().map(BuildLog::end)
    }

    /// Runs docker to its end. All its output goes to standard error.
    pub(super) async fn run(&mut self, order: Order) -> Result<(), DockerError> {
        let mut command = Command::new("docker");
        command.args(order.args).envs(order.variables).stdout(print::for_child()).kill_on_drop(true);
        command.stdin(if order.input.is_some() { Stdio::piped() } else { Stdio::null() });
        if self.log.is_some() {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = command.spawn().map_err(not_run)?;
        if let (Some(text), Some(mut input)) = (order.input, child.stdin.take()) {
            // Docker that ends before it has read its input says why by itself.
            let _ = input.write_all(text.as_bytes()).await;
        }
        let ended = async {
            match &mut self.log {
                Some(log) => log.follow(&mut child).await,
                None => child.wait().await,
            }
        };
        tokio::select! {
            ended = ended => {
                let status = ended.map_err(DockerError::NotRun)?;
                if status.success() { Ok(()) } else { Err(DockerError::Failed(status)) }
            }
            name = interrupted(&mut self.interrupts) => {
                end(child, name).await;
                Err(DockerError::Interrupted(name))
            }
        }
    }

    /// The output of a short command; `None` if it fails.
    pub(super) async fn ask(&self, args: &[&str]) -> Option<String> {
        let out = Command::new("docker").args(args).stdin(Stdio::null()).output().await.ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Does `work`, unless a signal comes before it is done.
    pub(super) async fn unless_interrupted<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, DockerError> {
        tokio::select! {
            done = work => Ok(done),
            name = interrupted(&mut self.interrupts) => Err(DockerError::Interrupted(name)),
        }
    }
}

fn not_run(error: io::Error) -> DockerError {
    if error.kind() == io::ErrorKind::NotFound { DockerError::Missing } else { DockerError::NotRun(error) }
}

/// Waits for a signal, and returns its name.
async fn interrupted(signals: &mut [(&'static str, Signal)]) -> &'static str {
    let [(a, first), (b, second), (c, third)] = signals else { return std::future::pending().await };
    tokio::select! {
        _ = first.recv() => a,
        _ = second.recv() => b,
        _ = third.recv() => c,
    }
}

/// Asks docker to end, and kills it if it does not. A terminal has sent an interrupt to it already; docker takes a
/// second one as the first.
async fn end(mut child: Child, name: &str) {
    if let Some(id) = child.id() {
        // It is not an error if it has just ended.
        let _ = Command::new("kill").args(["-s", name, &id.to_string()]).status().await;
    }
    if tokio::time::timeout(TO_END, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}
