//! The signals that end the agent.

use tokio::signal::unix::{SignalKind, signal};
use tracing::error;

use super::DaemonError;
use crate::config::ConfigError;
use crate::model::Alert;

/// Returns at SIGTERM or SIGINT, or at SIGHUP when `check` finds the settings right.
pub(super) async fn wait(check: impl Fn() -> Result<(), ConfigError>) -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(DaemonError::Signals)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => match check() {
                Ok(()) => return Ok(()),
                Err(error) => {
                    error!(alert = Alert::SettingsWrong.as_str(), %error, "settings are wrong, those in force stay");
                }
            },
        }
    }
}
