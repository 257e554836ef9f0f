//! `cotter fleet serve`: settings from flags, environment and file; signals; logs.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::logging;
use crate::fleet::{RawConfig, Server};
use crate::host;
use crate::ownership;

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
    /// Connections of devices at a time, 16 to 60000; operators have places besides [default: 1024]
    #[arg(long, env = "COTTER_FLEET_CONNECTIONS", value_name = "NUMBER")]
    connections: Option<usize>,
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
        connections: serve.connections,
        allow_remote: serve.allow_remote,
    };
    logging::begin(logging::filter("info")?);
    ownership::make_files_private();
    let config = flags.over(file).within(host::raise_open_files())?.check()?;

    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
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
