//! Asks the engine once where it keeps its data, so that reports can have the use of that disk. It is asked only when a
//! report wants to know, which is never so for our own fleet server.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::engine::{Docker, Inspect};

/// Time between two attempts while the engine does not answer.
const RETRY: Duration = Duration::from_secs(60);

/// The folder in which the engine keeps its data.
#[derive(Debug, Default)]
pub(super) struct DataRoot {
    found: OnceLock<PathBuf>,
    wanted: Notify,
}

impl DataRoot {
    /// Returns the folder. If it is not known yet, it is asked for, and known the next time.
    pub(super) fn get(&self) -> Option<&Path> {
        if self.found.get().is_none() {
            self.wanted.notify_one();
        }
        self.found.get().map(PathBuf::as_path)
    }

    /// Waits until the folder is wanted, and asks until the engine has answered, or until `stop`.
    pub(super) async fn find(self: Arc<Self>, engine: Arc<Docker>, stop: CancellationToken) {
        let ask = async {
            self.wanted.notified().await;
            loop {
                if let Ok(about) = engine.about().await {
                    let _ = self.found.set(PathBuf::from(about.data_root));
                    return;
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        let _ = stop.run_until_cancelled(ask).await;
        // The agent ends when a task does.
        stop.cancelled().await;
    }
}
