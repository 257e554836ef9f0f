//! The one thread that changes the records. It runs acts in groups: each act is decided on the world that the acts before it
//! leave, all changes of a group are one write to disk, and then all its acts are answered.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, Weak};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::locks::locked;
use super::parked::Parked;
use super::policy::{Change, Refusal, World};
use super::pulse::fleets_of;
use super::storage::{News, Storage};
use super::store_error::StoreError;
use crate::model::with_causes;

/// The decision of an act: the changes in a world.
pub(super) type Decide = Box<dyn FnOnce(&World) -> Result<Vec<Change>, Refusal> + Send>;

/// What the thread, and the task that runs rollouts, have done since the server started.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) done: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Groups that were written.
    pub(super) commits: AtomicU64,
    pub(super) commit_micros: AtomicU64,
    /// Decisions of rollouts, whether they changed something or not.
    pub(super) decisions: AtomicU64,
    pub(super) decision_micros: AtomicU64,
    failure: Mutex<Option<Failure>>,
}

/// Why the records cannot be written.
#[derive(Debug)]
struct Failure {
    why: String,
    /// Whether a read of the store shows that it is over. An act that was not written, e.g. because the disk is full, says
    /// nothing of reads.
    ends_with_a_read: bool,
    is_of_database: bool,
}

impl Work {
    /// Returns why the records cannot be written at present, as far as the last attempts showed.
    pub(super) fn failure(&self) -> Option<String> {
        locked(&self.failure).as_ref().map(|failure| failure.why.clone())
    }

    /// Counts a decision of a rollout.
    pub(super) fn decided(&self, took: Duration) {
        add(&self.decisions, 1);
        add(&self.decision_micros, micros(took));
    }

    /// Records the result of a group of acts, or of reading the store. Says in the log when the database is lost, and when it is
    /// back. Failures of a file are logged with each request.
    fn record(&self, error: Option<&StoreError>, is_read: bool) {
        let mut failure = locked(&self.failure);
        let Some(error) = error else {
            if failure
                .take_if(|failure| !is_read || failure.ends_with_a_read)
                .is_some_and(|old| old.is_of_database)
            {
                tracing::info!("the database is back");
            }
            return;
        };
        let why = with_causes(error);
        let is_of_database = error.is_of_database();
        let ends_with_a_read = is_read || error.is_of_connection();
        if failure.is_none() && is_of_database {
            if ends_with_a_read {
                tracing::error!(
                    error = why,
                    "the database is lost: polls are answered from memory, and changes are refused until it is back"
                );
            } else {
                tracing::error!(
                    error = why,
                    "the database accepts no changes: polls are answered, and changes are refused until one was written"
                );
            }
        }
        *failure = Some(Failure { why, is_of_database, ends_with_a_read });
    }
}

/// Maximum number of acts of devices in one group. It bounds how long an operator waits for a group that has begun.
const GROUP: usize = 1024;

/// Why an act failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Every act of the group has the same error.
    #[error(transparent)]
    Store(Arc<StoreError>),
    #[error("the server is stopping")]
    Stopping,
}

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// Before all waiting devices.
    Operator,
    Device,
}

/// The way to the thread. It ends, after the acts that wait, when this is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Arc<Queue>,
    work: Arc<Work>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    operators: VecDeque<Act>,
    devices: VecDeque<Act>,
    /// Whether other servers may have written to the store.
    may_have_news: bool,
    /// Who waits for the news.
    readers: Vec<oneshot::Sender<bool>>,
    is_over: bool,
}

/// What the thread does next.
struct Task {
    /// All of them; none, if only the news of the store are taken over.
    group: Vec<Act>,
    readers: Vec<oneshot::Sender<bool>>,
}

struct Act {
    decide: Decide,
    answer: oneshot::Sender<Result<(), ActError>>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If the machine has no thread for it.
    pub(super) fn start(
        storage: Box<dyn Storage>,
        world: Arc<RwLock<Arc<World>>>,
        parked: Arc<Parked>,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let of_thread = Arc::clone(&queue);
        let work = Arc::new(Work::default());
        let mut desk = Desk { storage, world, parked, work: Arc::clone(&work) };
        let body = move || {
            while let Some(task) = of_thread.next() {
                desk.run(task);
            }
        };
        let thread = thread::Builder::new().name("records".to_owned()).spawn(body)?;
        Ok(Self { queue, work, thread: Some(thread) })
    }

    /// Returns the means to announce that other servers may have written to the store.
    pub(super) fn bell(&self) -> Bell {
        Bell(Arc::downgrade(&self.queue))
    }

    /// Takes over what other servers have written up to now. Returns whether the store could be read.
    pub(super) async fn refresh(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        locked(&self.queue.waiting).readers.push(answer);
        self.queue.changed.notify_one();
        answered.await.unwrap_or(false)
    }

    pub(super) fn work(&self) -> &Work {
        &self.work
    }

    /// Runs an act, after those of its rank that wait.
    ///
    /// # Errors
    ///
    /// [`ActError`]. Then nothing was changed.
    pub(super) async fn run(&self, rank: Rank, decide: Decide) -> Result<(), ActError> {
        let (answer, answered) = oneshot::channel();
        let act = Act { decide, answer };
        {
            let mut waiting = locked(&self.queue.waiting);
            match rank {
                Rank::Operator => waiting.operators.push_back(act),
                Rank::Device => waiting.devices.push_back(act),
            }
        }
        self.queue.changed.notify_one();
        answered.await.unwrap_or(Err(ActError::Stopping))
    }
}

/// Announces news of the store.
pub(super) struct Bell(Weak<Queue>);

impl Bell {
    /// Lets the writer take over what other servers have written. Returns `false` once the writer has ended.
    pub(super) fn ring(&self) -> bool {
        let Some(queue) = self.0.upgrade() else { return false };
        let mut waiting = locked(&queue.waiting);
        waiting.may_have_news = true;
        let is_over = waiting.is_over;
        drop(waiting);
        queue.changed.notify_one();
        !is_over
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        locked(&self.queue.waiting).is_over = true;
        self.queue.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Queue {
    /// Waits for acts, and takes those that wait: all of operators first, then of devices. `None` at the end.
    fn next(&self) -> Option<Task> {
        let mut waiting = locked(&self.waiting);
        loop {
            let devices = waiting.devices.len().min(GROUP);
            let has_acts = !waiting.operators.is_empty() || devices > 0;
            if !has_acts && waiting.is_over {
                return None;
            }
            if !has_acts && !waiting.may_have_news && waiting.readers.is_empty() {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let mut group: Vec<_> = waiting.operators.drain(..).collect();
            group.extend(waiting.devices.drain(..devices));
            waiting.may_have_news = false;
            return Some(Task { group, readers: std::mem::take(&mut waiting.readers) });
        }
    }
}

/// What the thread owns.
struct Desk {
    storage: Box<dyn Storage>,
    world: Arc<RwLock<Arc<World>>>,
    work: Arc<Work>,
    parked: Arc<Parked>,
}

impl Desk {
    fn run(&mut self, Task { group, readers }: Task) {
        let (answers, decides): (Vec<_>, Vec<_>) =
            group.into_iter().map(|act| (act.answer, act.decide)).unzip();
        let (is_read, commits) = (decides.is_empty(), self.work.commits.load(Ordering::Relaxed));
        let written = match is_read {
            true => self.refresh(),
            false => self.decide_and_write(decides),
        };
        // Acts that change nothing show only that the store can be read.
        let is_unwritten = written.is_ok() && self.work.commits.load(Ordering::Relaxed) == commits;
        self.work.record(written.as_ref().err(), is_read || is_unwritten);
        for reader in readers {
            let _gone = reader.send(written.is_ok());
        }
        match written {
            Ok(refusals) => {
                let refused = refusals.iter().filter(|refusal| refusal.is_some()).count();
                add(&self.work.refused, refused);
                add(&self.work.done, refusals.len() - refused);
                for (answer, refused) in answers.into_iter().zip(refusals) {
                    // An error means that the caller has gone.
                    let _gone = answer.send(refused.map_or(Ok(()), |refusal| Err(refusal.into())));
                }
            }
            Err(error) => {
                add(&self.work.failed, answers.len());
                let error = Arc::new(error);
                for answer in answers {
                    let _gone = answer.send(Err(ActError::Store(Arc::clone(&error))));
                }
            }
        }
    }

    fn refresh(&mut self) -> Result<Vec<Option<Refusal>>, StoreError> {
        let news = self.storage.refresh()?;
        self.take_over(news);
        Ok(Vec::new())
    }

    /// Returns the refusals, by act.
    fn decide_and_write(&mut self, decides: Vec<Decide>) -> Result<Vec<Option<Refusal>>, StoreError> {
        let news = self.storage.begin()?;
        self.take_over(news);
        let mut world = World::clone(&self.world.read().unwrap_or_else(PoisonError::into_inner));
        let mut changes = Vec::new();
        let mut refusals = Vec::with_capacity(decides.len());
        for decide in decides {
            match decide(&world) {
                Ok(decided) => {
                    refusals.push(None);
                    for change in decided {
                        changes.push(change.clone());
                        world.apply(change);
                    }
                }
                Err(refusal) => refusals.push(Some(refusal)),
            }
        }
        if changes.is_empty() {
            self.storage.end();
            return Ok(refusals);
        }
        let begun = Instant::now();
        let position = self.storage.commit(&changes)?;
        add(&self.work.commits, 1);
        add(&self.work.commit_micros, micros(begun.elapsed()));
        world.set_position(position);
        let fleets = fleets_of(&world, &changes);
        self.publish(world);
        self.parked.changed(&changes);
        self.parked.pulse().beat(&fleets);
        Ok(refusals)
    }

    /// Puts a world in place that has what the store has, and wakes the polls that it may concern.
    fn take_over(&self, news: News) {
        match news {
            News::None => {}
            News::Changes(changes, position) => {
                let mut world = World::clone(&self.world.read().unwrap_or_else(PoisonError::into_inner));
                for change in &changes {
                    world.apply(change.clone());
                }
                world.set_position(Some(position));
                let fleets = fleets_of(&world, &changes);
                self.publish(world);
                self.parked.changed(&changes);
                self.parked.pulse().beat(&fleets);
            }
            News::All(records, position) => {
                let mut world = World::of(records);
                world.set_position(position);
                self.publish(world);
                self.parked.all_changed();
                self.parked.pulse().beat_all();
            }
        }
    }

    fn publish(&self, world: World) {
        *self.world.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(world);
    }
}

fn micros(time: Duration) -> usize {
    usize::try_from(time.as_micros()).unwrap_or(usize::MAX)
}

fn add(counter: &AtomicU64, number: usize) {
    counter.fetch_add(u64::try_from(number).unwrap_or(u64::MAX), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::DatabaseError;

    #[test]
    fn a_failure_ends_with_what_shows_that_it_is_over() {
        let (place, why) = ("postgres://db/fleet".to_owned(), "why".to_owned());
        let error = |name| match name {
            "lost" => DatabaseError::Lost { place: place.clone(), why: why.clone() }.into(),
            "unreachable" => DatabaseError::Unreachable { place: place.clone(), why: why.clone() }.into(),
            "unknown" => DatabaseError::Unknown { place: place.clone(), why: why.clone() }.into(),
            "read-only" => DatabaseError::ReadOnly { place: place.clone(), why: why.clone() }.into(),
            "full" => DatabaseError::Refused { place: place.clone(), why: why.clone() }.into(),
            _ => StoreError::Closed,
        };
        for (failed, is_read, ends_with_a_read) in [
            ("lost", false, true),
            ("lost", true, true),
            ("unreachable", false, true),
            ("unknown", false, true),
            ("read-only", false, false),
            ("read-only", true, true),
            ("full", false, false),
            ("closed", false, false),
        ] {
            let work = Work::default();
            work.record(Some(&error(failed)), is_read);
            assert!(work.failure().is_some(), "{failed}");
            work.record(None, true);
            assert_eq!(work.failure().is_none(), ends_with_a_read, "{failed} of a read: {is_read}");
            work.record(None, false);
            assert_eq!(work.failure(), None, "{failed}: an act was written");
        }
    }
}
