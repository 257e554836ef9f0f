//! Connects the upload of logs with the other tasks. Only wiring.

use std::sync::Arc;

use futures_util::FutureExt;
use tracing::warn;

use super::Wires;
use crate::cloud::Client;
use crate::config::Config;
use crate::engine::Docker;
use crate::host;
use crate::logs::{Destination, LogTask, Settings, Sources, Times};
use crate::model::Identity;
use crate::store::CursorFile;

/// The task that uploads logs, as the settings say.
pub(super) fn task(engine: Arc<Docker>, config: &Config) -> LogTask<Docker> {
    let file = CursorFile::of(&config.state_dir);
    let cursors = file.load();
    let save = move |cursors| {
        let file = file.clone();
        async move {
            let saved = tokio::task::spawn_blocking(move || file.save(cursors)).await;
            if let Ok(Err(error)) = saved {
                warn!(%error, "it is not saved how far logs were uploaded; lines may be uploaded twice");
            }
        }
        .boxed()
    };
    let is_metered = config.cloud.as_ref().is_some_and(|cloud| cloud.poll_wait.is_zero());
    let now_ms = || u64::try_from(host::now().as_millisecond()).unwrap_or(0);
    let settings = Settings { upload: config.log_upload, is_metered, times: Times::PROTOCOL, now_ms };
    LogTask::new(engine, settings, cursors, Box::new(save))
}

/// Where it uploads to.
pub(super) fn to(client: &Client, identity: &Identity) -> Destination {
    let (uuid, device_key) = (identity.uuid.clone(), identity.device_key.clone());
    Destination { client: client.clone(), uuid, device_key }
}

/// What it reads.
pub(super) fn sources(wires: &Wires) -> Sources {
    Sources { report: wires.report.subscribe(), events: wires.events.subscribe(), cloud: wires.cloud.clone() }
}
