//! `cotter retry`, `rollback`, `hold`, `unhold`, `update`, `stop`, `start`, `restart`: send an order to the agent of
//! this device.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::exit::Exit;
use super::{print, wait};
use crate::api::{self, HoldRequest, ServiceRequest, UpdateRequest};

/// The agent that gets the order.
#[derive(Debug, Args)]
pub(super) struct Plain {
    /// The agent's control socket
    #[arg(
        long,
        env = "COTTER_CONTROL_SOCKET",
        default_value = "/run/cotter/control.sock",
        value_name = "PATH"
    )]
    pub(super) socket: PathBuf,
}

/// An order for one app.
#[derive(Debug, Args)]
pub(super) struct OfApp {
    /// The app; needed only if the device has several
    #[arg(long, value_name = "UUID|NAME")]
    app: Option<String>,
    #[command(flatten)]
    agent: Plain,
}

/// Arguments of `cotter hold`.
#[derive(Debug, Args)]
pub(super) struct Hold {
    /// Why, for everyone who reads `cotter status`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    agent: Plain,
}

/// Arguments of `cotter update`.
#[derive(Debug, Args)]
pub(super) struct Update {
    /// Lets the present target pass locks and maintenance windows, once
    #[arg(long)]
    force: bool,
    /// Waits until the device runs its target or something prevents that; the exit code says which
    #[arg(long)]
    wait: bool,
    /// The longest time to wait
    #[arg(long, value_name = "TIME", default_value = "30min", value_parser = humantime::parse_duration, requires = "wait")]
    timeout: Duration,
    /// The agent's status socket, for --wait [default: status.sock in the folder of the control socket]
    #[arg(long, env = "COTTER_STATUS_SOCKET", value_name = "PATH")]
    status_socket: Option<PathBuf>,
    #[command(flatten)]
    agent: Plain,
}

/// Arguments of `cotter start`.
#[derive(Debug, Args)]
pub(super) struct Start {
    /// Name of the service in the compose file
    service: String,
    /// App of the service; needed only if several apps have a service of this name
    #[arg(long, value_name = "UUID|NAME")]
    app: Option<String>,
    #[command(flatten)]
    agent: Plain,
}

/// Arguments of `cotter stop` and `cotter restart`.
#[derive(Debug, Args)]
pub(super) struct OfService {
    #[command(flatten)]
    of: Start,
    /// Ignores locks
    #[arg(long)]
    force: bool,
}

/// Sends the order `retry` or `rollback`.
pub(super) async fn of_app(verb: &str, order: OfApp) -> anyhow::Result<()> {
    send(&order.agent, verb, &api::AppRequest { app: order.app }).await
}

pub(super) async fn unhold(order: Plain) -> anyhow::Result<()> {
    send(&order, "unhold", &()).await
}

pub(super) async fn hold(order: Hold) -> anyhow::Result<()> {
    send(&order.agent, "hold", &HoldRequest { reason: order.reason }).await
}

pub(super) async fn update(order: Update) -> anyhow::Result<ExitCode> {
    let request = UpdateRequest { force: order.force };
    if !order.wait {
        send(&order.agent, "update", &request).await?;
        return Ok(Exit::Done.into());
    }
    let usual = order.agent.socket.with_file_name("status.sock");
    let status = order.status_socket.unwrap_or(usual);
    let before = wait::polls(&status).await?;
    send(&order.agent, "update", &request).await?;
    wait::wait(&status, before, order.timeout).await
}

pub(super) async fn start(order: Start) -> anyhow::Result<()> {
    let request = ServiceRequest { service: order.service, app: order.app, force: false };
    send(&order.agent, "services/start", &request).await
}

/// Sends the order `stop` or `restart`.
pub(super) async fn of_service(verb: &str, order: OfService) -> anyhow::Result<()> {
    let OfService { of, force } = order;
    let request = ServiceRequest { service: of.service, app: of.app, force };
    send(&of.agent, &format!("services/{verb}"), &request).await
}

async fn send(agent: &Plain, verb: &str, request: &impl Serialize) -> anyhow::Result<()> {
    print::line(&api::order(&agent.socket, verb, request).await?.message)
}
