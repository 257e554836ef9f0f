//! Keeps each service's lock folder small, whatever its app writes there.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::host::{self, Locks};

/// Time between two checks. At rest a check costs a few system calls, and a single one if the folders have a small file
/// system of their own.
const EVERY: Duration = Duration::from_secs(30);

/// Watches the folders below `root` until `stop` is cancelled.
pub(super) async fn watch(root: PathBuf, stop: CancellationToken) {
    let mut known = BTreeSet::new();
    let mut is_known_full = false;
    loop {
        let (locks, of) = (Locks::new(root.clone()), root.clone());
        let check = tokio::task::spawn_blocking(move || (locks.trim(), host::space(&of)));
        let Ok((trimmed, space)) = check.await else { return };
        for folder in trimmed.iter().filter(|folder| !known.contains(*folder)) {
            warn!(folder, "a lock folder held too much and was emptied");
        }
        known = trimmed.into_iter().collect();
        let is_full = space.is_some_and(|space| space.is_small() && space.is_nearly_full());
        if is_full && !is_known_full {
            warn!(
                "the space of all lock folders is nearly used up, by files that are deleted and still open"
            );
        }
        is_known_full = is_full;
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
