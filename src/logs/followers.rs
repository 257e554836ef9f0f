//! The followers of all containers: begins one for each, and again after its log has ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::debug;

use super::buffer::Buffer;
use super::choice::Followed;
use super::cursors::Cursors;
use super::follower::Follower;
use crate::engine::{EngineError, Inspect};
use crate::model::{ContainerId, LogCursor, ServiceStatus};

/// The first and the longest delay before a log is opened again while its container runs.
const DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long a follower may go on after its container has left the report.
const LAST_LINES: Duration = Duration::from_secs(30);

/// How a follower ended.
pub(super) struct Ended {
    container: ContainerId,
    cursor: Option<LogCursor>,
    result: Result<(), EngineError>,
}

struct Known {
    what: Followed,
    state: State,
    /// Delay before the next attempt.
    delay: Duration,
    /// How far its log was read. Further than it was uploaded.
    cursor: Option<LogCursor>,
    /// Since when it is not in the report.
    gone: Option<Instant>,
}

enum State {
    Following {
        task: AbortHandle,
        since: Instant,
    },
    /// It is opened again then, or else when the container changes.
    Ended {
        again: Option<Instant>,
    },
}

pub(super) struct Followers<E> {
    engine: Arc<E>,
    buffer: Arc<Buffer>,
    cursors: Arc<Cursors>,
    known: BTreeMap<ContainerId, Known>,
    tasks: JoinSet<Ended>,
}

impl<E: Inspect + 'static> Followers<E> {
    pub(super) fn new(engine: Arc<E>, buffer: Arc<Buffer>, cursors: Arc<Cursors>) -> Self {
        Self { engine, buffer, cursors, known: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Sets the containers to follow. A container that is not among them any more is followed to the end of its log.
    pub(super) fn update(&mut self, wanted: BTreeMap<ContainerId, Followed>) {
        let now = Instant::now();
        for (container, known) in &mut self.known {
            if !wanted.contains_key(container) {
                known.gone.get_or_insert(now);
            }
        }
        for (container, what) in wanted {
            match self.known.get_mut(&container) {
                None => {
                    let cursor = self.cursors.get(&container);
                    self.begin(&container, what, cursor, DELAYS.0);
                }
                Some(known) => {
                    known.gone = None;
                    let has_changed = known.what.phase != what.phase;
                    known.what = what;
                    if let State::Ended { again } = &mut known.state
                        && has_changed
                    {
                        known.delay = DELAYS.0;
                        *again = Some(again.map_or(now, |again| again.min(now + DELAYS.0)));
                    }
                }
            }
        }
        self.known.retain(|container, known| {
            let is_kept = known.gone.is_none() || matches!(known.state, State::Following { .. });
            if !is_kept {
                self.cursors.forget(container);
            }
            is_kept
        });
        self.buffer.share_among(self.known.len());
    }

    /// Waits until there is something to do, and does it.
    pub(super) async fn step(&mut self) {
        let next = self.known.values().filter_map(|known| match (&known.state, known.gone) {
            (State::Ended { again }, _) => *again,
            (State::Following { .. }, gone) => gone.map(|gone| gone + LAST_LINES),
        });
        let next = next.min();
        tokio::select! {
            Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                if let Ok(ended) = ended {
                    self.ended(ended);
                }
            }
            () = until(next) => self.due(),
        }
    }

    /// Begins the followers that are due, and ends those that have gone on for too long.
    fn due(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        self.known.retain(|container, known| match &known.state {
            State::Following { task, .. } if known.gone.is_some_and(|gone| gone + LAST_LINES <= now) => {
                task.abort();
                false
            }
            State::Ended { again: Some(again) } if *again <= now => {
                due.push((container.clone(), known.what.clone(), known.cursor, known.delay));
                true
            }
            State::Following { .. } | State::Ended { .. } => true,
        });
        for (container, what, cursor, delay) in due {
            self.begin(&container, what, cursor, delay);
        }
    }

    fn begin(&mut self, container: &ContainerId, what: Followed, cursor: Option<LogCursor>, delay: Duration) {
        let (engine, buffer) = (Arc::clone(&self.engine), Arc::clone(&self.buffer));
        let id = container.clone();
        let mut follower = Follower { engine, container: id, what: what.clone(), buffer, cursor };
        let task = self.tasks.spawn(async move {
            let result = follower.run().await;
            Ended { container: follower.container, cursor: follower.cursor, result }
        });
        let state = State::Following { task, since: Instant::now() };
        self.known.insert(container.clone(), Known { what, state, delay, cursor, gone: None });
    }

    fn ended(&mut self, Ended { container, cursor, result }: Ended) {
        let Some(known) = self.known.get_mut(&container) else { return };
        if known.gone.is_some() {
            self.known.remove(&container);
            return;
        }
        known.cursor = cursor;
        let now = Instant::now();
        if let State::Following { since, .. } = known.state
            && now.duration_since(since) > DELAYS.1
        {
            known.delay = DELAYS.0;
        }
        // A log that cannot be read now cannot be read later either: its driver stays that of the container.
        let is_refused = matches!(result, Err(EngineError::Refused { .. }));
        if let Err(error) = result {
            debug!(service = %known.what.service, %error, "log cannot be followed");
        }
        let is_up = matches!(
            known.what.phase.0,
            ServiceStatus::Running | ServiceStatus::Restarting | ServiceStatus::Paused
        );
        let again = (is_up && !is_refused).then(|| now + known.delay);
        known.delay = (known.delay * 2).min(DELAYS.1);
        known.state = State::Ended { again };
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
