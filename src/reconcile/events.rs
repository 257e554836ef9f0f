//! Turns the engine's events into wake-ups, for as long as the agent lives.

use std::sync::Arc;
use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::engine::Inspect;

/// Counts `wake` up at every event of the engine, and whenever the stream of events ends: what
/// happened while nobody listened must be looked for. Returns when `stop` is cancelled.
///
/// A stream that ends is opened again after 0.5 s to 30 s, longer with every failure.
pub async fn watch_engine<E: Inspect>(engine: Arc<E>, wake: watch::Sender<u64>, stop: CancellationToken) {
    let mut backoff = ExponentialBackoff {
        initial_interval: Duration::from_millis(500),
        max_interval: Duration::from_secs(30),
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    loop {
        let listen = async {
            let mut events = std::pin::pin!(engine.events());
            while let Some(event) = events.next().await {
                if let Err(error) = event {
                    debug!(%error, "events of the engine broke off");
                    return;
                }
                backoff.reset();
                wake.send_modify(|n| *n = n.wrapping_add(1));
            }
        };
        // What happened between the last look and the moment the engine began to tell is lost, and
        // nothing says when that moment is: one look a little later covers it.
        let look_once = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            wake.send_modify(|n| *n = n.wrapping_add(1));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = listen => {}
            () = look_once => {}
        }
        let pause = backoff.next_backoff().unwrap_or(backoff.max_interval);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => wake.send_modify(|n| *n = n.wrapping_add(1)),
        }
    }
}
