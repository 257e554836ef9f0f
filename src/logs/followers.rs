//! The followers of all containers: begins one for each, and again after its log has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::debug;

use super::buffer::Buffer;
use super::choice::Followed;
use super::cursors::Cursors;
use super::follower::Follower;
use crate::engine::{EngineError, Inspect, UNREADABLE};
use crate::model::{ContainerId, LogCursor, ServiceStatus, Target};

/// The first and the longest delay before a log is opened again while its container runs.
const DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How often a log is opened again although the engine has refused that. An engine that starts refuses for a moment.
const REFUSALS: u32 = 6;

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
    /// How often in a row the engine has refused to open it.
    refusals: u32,
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
    /// Returns the milliseconds since 1970.
    now_ms: fn() -> u64,
    known: BTreeMap<ContainerId, Known>,
    tasks: JoinSet<Ended>,
}

impl<E: Inspect + 'static> Followers<E> {
    pub(super) fn new(
        engine: Arc<E>,
        (buffer, cursors): (Arc<Buffer>, Arc<Cursors>),
        now_ms: fn() -> u64,
    ) -> Self {
        Self { engine, buffer, cursors, now_ms, known: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Sets the containers to follow. A container that is not among them any more is followed to the end of its log, unless
    /// its app is not in the target any more: what it wrote must not reach the fleet to which the device was moved.
    pub(super) fn update(&mut self, wanted: BTreeMap<ContainerId, Followed>, target: &Target) {
        let now = Instant::now();
        self.forget_apps(target);
        for (container, known) in &mut self.known {
            if !wanted.contains_key(container) {
                known.gone.get_or_insert(now);
            }
        }
        for (container, what) in wanted {
            match self.known.get_mut(&container) {
                None => {
                    let cursor = self.cursors.get(&container);
                    self.begin((&container, cursor, false), what, (DELAYS.0, 0));
                }
                Some(known) => {
                    known.gone = None;
                    let has_changed = known.what.phase != what.phase;
                    known.what = what;
                    if let State::Ended { again } = &mut known.state
                        && has_changed
                    {
                        (known.delay, known.refusals) = (DELAYS.0, 0);
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

    /// Ends the followers of apps that are not in the target, and drops their lines that wait.
    fn forget_apps(&mut self, target: &Target) {
        let is_left = |known: &Known| !target.apps.contains_key(&known.what.app);
        let left: BTreeSet<_> =
            self.known.iter().filter(|(_, known)| is_left(known)).map(|(id, _)| id.clone()).collect();
        if left.is_empty() {
            return;
        }
        for container in &left {
            if let Some(Known { state: State::Following { task, .. }, .. }) = self.known.remove(container) {
                task.abort();
            }
            self.cursors.forget(container);
        }
        self.buffer.drop_lines(|container| left.contains(container));
    }

    /// Follows all logs again from where they were sent, and drops the lines that wait.
    pub(super) fn begin_again(&mut self) {
        // With its tasks go the results of those that have ended.
        self.tasks = JoinSet::new();
        self.buffer.drop_lines(|_| true);
        for (container, known) in std::mem::take(&mut self.known) {
            let cursor = self.cursors.get(&container);
            self.begin((&container, cursor, cursor.is_some()), known.what, (DELAYS.0, 0));
            if let Some(begun) = self.known.get_mut(&container) {
                begun.gone = known.gone;
            }
        }
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
                let attempts = (known.delay, known.refusals);
                due.push((container.clone(), known.what.clone(), known.cursor, attempts));
                true
            }
            State::Following { .. } | State::Ended { .. } => true,
        });
        for (container, what, cursor, attempts) in due {
            self.begin((&container, cursor, false), what, attempts);
        }
    }

    /// Begins a follower of a container, from a cursor on. `may_skip`: lines that are not read again are reported as a gap.
    /// `attempts` are the delay before the next attempt, and how often the engine has refused in a row.
    fn begin(
        &mut self,
        (container, cursor, may_skip): (&ContainerId, Option<LogCursor>, bool),
        what: Followed,
        attempts: (Duration, u32),
    ) {
        let (engine, buffer) = (Arc::clone(&self.engine), Arc::clone(&self.buffer));
        let id = container.clone();
        let now_ms = self.now_ms;
        let mut follower =
            Follower { engine, container: id, what: what.clone(), buffer, cursor, may_skip, now_ms };
        let task = self.tasks.spawn(async move {
            let result = follower.run().await;
            Ended { container: follower.container, cursor: follower.cursor, result }
        });
        let state = State::Following { task, since: Instant::now() };
        let (delay, refusals) = attempts;
        self.known.insert(container.clone(), Known { what, state, delay, refusals, cursor, gone: None });
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
        known.refusals = match &result {
            // Its driver stays that of the container.
            Err(EngineError::Refused { message, .. }) if message.contains(UNREADABLE) => REFUSALS,
            Err(EngineError::Refused { .. }) => known.refusals + 1,
            Ok(()) | Err(_) => 0,
        };
        if let Err(error) = result {
            debug!(service = %known.what.service, %error, "log cannot be followed");
        }
        let is_up = matches!(
            known.what.phase.0,
            ServiceStatus::Running | ServiceStatus::Restarting | ServiceStatus::Paused
        );
        let again = (is_up && known.refusals < REFUSALS).then(|| now + known.delay);
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
