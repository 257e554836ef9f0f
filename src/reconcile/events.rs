//! Turns the engine's events into wakeups of the reconciler.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::engine::{Inspect, Notice};
use crate::model::{ByService, ContainerId, LastEnd};

/// Delays of additional wakeups after the last event. The engine reports the death of a container before its list shows
/// it (Docker 20.10 updates the list last, after it has removed the network), so an immediate observation may still find
/// the container running, and no other event follows. The same wakeups cover changes between the last observation and
/// the start of the event stream.
const AGAIN: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];

/// The most containers of which the last end is kept.
const MOST_ENDS: usize = 256;

/// What the engine's events have reported so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineNews {
    pub restarts: ByService,
    /// How containers ended. The engine's list has forgotten it when a container runs again.
    pub ends: BTreeMap<ContainerId, LastEnd>,
}

impl EngineNews {
    fn note(&mut self, notice: Notice) {
        match notice {
            Notice::Changed => {}
            Notice::Restarted { app, service } => *self.restarts.entry((app, service)).or_default() += 1,
            Notice::Ended { container, end } => {
                if self.ends.len() >= MOST_ENDS && !self.ends.contains_key(&container) {
                    self.ends.pop_first();
                }
                self.ends.insert(container, end);
            }
        }
    }
}

/// Wakes the reconciler at every event of the engine, and whenever the stream of events ends, because events may then be
/// missed. Counts the restarts that the engine reports. Returns when `stop` is cancelled.
///
/// A stream that ends is reopened after 0.5 s to 30 s, longer with every failure.
pub async fn watch_engine<E: Inspect>(
    engine: Arc<E>,
    wakeups: watch::Sender<EngineNews>,
    stop: CancellationToken,
) {
    let mut backoff = ExponentialBackoff {
        initial_interval: Duration::from_millis(500),
        max_interval: Duration::from_secs(30),
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    loop {
        let listen = async {
            let mut events = std::pin::pin!(engine.events());
            let mut again = AGAIN.iter();
            let mut next = again.next();
            loop {
                let event = match next {
                    None => events.next().await,
                    Some(after) => match tokio::time::timeout(*after, events.next()).await {
                        Ok(event) => event,
                        Err(_) => {
                            wakeups.send_modify(|_| {});
                            next = again.next();
                            continue;
                        }
                    },
                };
                match event {
                    None => return,
                    Some(Err(error)) => {
                        debug!(%error, "events of the engine broke off");
                        return;
                    }
                    Some(Ok(notice)) => {
                        backoff.reset();
                        wakeups.send_modify(|news| news.note(notice));
                        again = AGAIN.iter();
                        next = again.next();
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = listen => {}
        }
        let pause = backoff.next_backoff().unwrap_or(backoff.max_interval);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => wakeups.send_modify(|_| {}),
        }
    }
}
