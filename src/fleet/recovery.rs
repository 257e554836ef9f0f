//! Finds out that the records can be written again, e.g. after a full disk was freed. Without it a server that is not ready would
//! stay so until the next act, which a balancer may not send to it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::policy::World;
use super::records::Records;

/// How often a write is tried while the last one failed.
const EVERY: Duration = Duration::from_secs(5);

/// Tries to write now and then while the records cannot be written.
pub(super) async fn keep_up(records: &Arc<Records>) -> Infallible {
    loop {
        tokio::time::sleep(EVERY).await;
        if records.work().failure().is_some() {
            // Its result is in the state of the records. It says nothing that is not said already.
            let _tried = records.act(|world: &World| Ok(((), vec![world.unchanged()]))).await;
        }
    }
}
