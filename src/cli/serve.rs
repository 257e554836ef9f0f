//! `cotter fleet serve`: settings from flags, environment and file; signals; logs.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::fleet::{RawConfig, Server};

/// The settings of the server, each of which may also stand in the file.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// IP address and port [default: 127.0.0.1:7300]
    #[arg(long, env = "COTTER_FLEET_LISTEN", value_name = "IP:PORT")]
    listen: Option<String>,
    /// Folder for everything the server knows [default: /var/lib/cotter-fleet]
    #[arg(long, env = "COTTER_FLEET_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How often devices are told to poll, 1s to 24h [default: 60s]
    #[arg(long, env = "COTTER_FLEET_POLL_INTERVAL", value_name = "TIME")]
    poll_interval: Option<String>,
    /// Listen where other machines reach it, though the server has no TLS
    #[arg(long)]
    allow_remote: bool,
    /// Settings file (TOML); flags and environment go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) async fn run(serve: Serve) -> anyhow::Result<()> {
    let file = match &serve.config {
        None => RawConfig::default(),
        Some(path) => RawConfig::read(path).with_context(|| format!("in {}", path.display()))?,
    };
    let flags = RawConfig {
        listen: serve.listen,
        data_dir: serve.data_dir,
        poll_interval: serve.poll_interval,
        allow_remote: serve.allow_remote,
    };
    let config = flags.over(file).check()?;
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).from_env_lossy();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();

    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let server = Server::open(config).await?;
    tell_systemd(NotifyState::Ready);
    let running = server.run(stop.clone());
    let signalled = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tell_systemd(NotifyState::Stopping);
        stop.cancel();
    };
    let (served, ()) = tokio::join!(
        async {
            let served = running.await;
            stop.cancel();
            served
        },
        async {
            tokio::select! { () = signalled => {}, () = stop.cancelled() => {} }
        }
    );
    Ok(served?)
}

/// Outside systemd there is nobody to tell.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(error = %error, "cannot tell systemd");
    }
}
