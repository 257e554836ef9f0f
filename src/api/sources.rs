//! The channels and functions from which the sockets answer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::document::Who;
use super::forecast::Forecaster;
use super::logs::Logs;
use super::readers::Readers;
use crate::model::{CloudReport, Delivered, Events, Report};

/// The sources of what is served.
#[derive(Debug, Clone)]
pub struct Sources {
    pub who: Who,
    pub report: watch::Receiver<Report>,
    /// `None` if no cloud is configured.
    pub cloud: Option<watch::Receiver<CloudReport>>,
    pub target: watch::Receiver<Option<Arc<Delivered>>>,
    pub forecaster: Forecaster,
    pub events: watch::Receiver<Events>,
    /// An id of this run of the agent.
    pub run: Arc<str>,
    pub readers: Readers,
    /// Ends responses that have no end of their own.
    pub stop: CancellationToken,
    /// Memory of the agent, in bytes.
    pub memory: fn() -> Option<u64>,
    /// Time since the device booted.
    pub uptime: fn() -> Duration,
    /// This boot of the device.
    pub boot_id: String,
    pub logs: Logs,
}

impl FromRef<Sources> for Logs {
    fn from_ref(sources: &Sources) -> Self {
        sources.logs.clone()
    }
}
