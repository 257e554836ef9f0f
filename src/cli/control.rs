//! `cotter retry`, `rollback`, `hold`, `unhold`, `update`: orders for the agent of this device.

use std::path::PathBuf;

use clap::Args;

use super::print;
use crate::api::{self, HoldWish};

/// Whom to order.
#[derive(Debug, Args)]
pub(super) struct Plain {
    /// The agent's control socket
    #[arg(
        long,
        env = "COTTER_CONTROL_SOCKET",
        default_value = "/run/cotter/control.sock",
        value_name = "PATH"
    )]
    socket: PathBuf,
}

/// An order for one app.
#[derive(Debug, Args)]
pub(super) struct OfApp {
    /// The app, if there are several
    #[arg(long, value_name = "UUID|NAME")]
    app: Option<String>,
    #[command(flatten)]
    agent: Plain,
}

/// Why nothing shall be swapped.
#[derive(Debug, Args)]
pub(super) struct Hold {
    /// What others read in the status
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    agent: Plain,
}

/// Orders `retry` or `rollback`.
pub(super) async fn of_app(verb: &str, order: OfApp) -> anyhow::Result<()> {
    print::text(&api::order(&order.agent.socket, verb, &api::OfApp { app: order.app }).await?)
}

/// Orders `unhold` or `update`.
pub(super) async fn plain(verb: &str, order: Plain) -> anyhow::Result<()> {
    print::text(&api::order(&order.socket, verb, &()).await?)
}

pub(super) async fn hold(order: Hold) -> anyhow::Result<()> {
    print::text(&api::order(&order.agent.socket, "hold", &HoldWish { reason: order.reason }).await?)
}
