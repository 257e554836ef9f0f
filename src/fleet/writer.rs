//! The one thread that changes the records. It runs acts in groups: each act is decided on the world that the acts before it
//! leave, all changes of a group are one write to disk, and then all its acts are answered.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::audit_log::SharedLog;
use super::parked::Parked;
use super::policy::{Change, Refusal, World};
use super::store::Store;
use super::store_error::StoreError;
use crate::model::with_causes;

/// The decision of an act: the changes in a world.
pub(super) type Decide = Box<dyn FnOnce(&World) -> Result<Vec<Change>, Refusal> + Send>;

/// What the thread has done since the server started.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) done: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Groups that were written.
    pub(super) commits: AtomicU64,
    pub(super) commit_micros: AtomicU64,
    /// Why the last write failed.
    failure: Mutex<Option<String>>,
}

impl Work {
    /// Returns why the records cannot be written at present, as far as the last act showed.
    pub(super) fn failure(&self) -> Option<String> {
        locked(&self.failure).clone()
    }
}

/// Most acts of devices in one group. It bounds how long an operator waits for a group that has begun.
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
    is_over: bool,
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
        store: Store,
        world: Arc<RwLock<Arc<World>>>,
        trail: SharedLog,
        parked: Arc<Parked>,
    ) -> Result<Self, StoreError> {
        let queue = Arc::new(Queue::default());
        let of_thread = Arc::clone(&queue);
        let dir = store.dir().to_owned();
        let work = Arc::new(Work::default());
        let mut desk =
            Desk { store: Some(store), dir: dir.clone(), world, trail, parked, work: Arc::clone(&work) };
        let body = move || {
            while let Some(group) = of_thread.next_group() {
                desk.run(group);
            }
        };
        let thread = thread::Builder::new().name("records".to_owned()).spawn(body);
        let thread = thread.map_err(|source| StoreError::Io { path: dir, source })?;
        Ok(Self { queue, work, thread: Some(thread) })
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
    fn next_group(&self) -> Option<Vec<Act>> {
        let mut waiting = locked(&self.waiting);
        loop {
            let devices = waiting.devices.len().min(GROUP);
            if waiting.operators.is_empty() && devices == 0 {
                if waiting.is_over {
                    return None;
                }
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let mut group: Vec<_> = waiting.operators.drain(..).collect();
            group.extend(waiting.devices.drain(..devices));
            return Some(group);
        }
    }
}

/// What the thread owns.
struct Desk {
    /// `None` after a failed write, until the store is opened and read again.
    store: Option<Store>,
    dir: PathBuf,
    world: Arc<RwLock<Arc<World>>>,
    trail: SharedLog,
    work: Arc<Work>,
    parked: Arc<Parked>,
}

impl Desk {
    fn run(&mut self, group: Vec<Act>) {
        let (answers, decides): (Vec<_>, Vec<_>) =
            group.into_iter().map(|act| (act.answer, act.decide)).unzip();
        let written = self.decide_and_write(decides);
        *locked(&self.work.failure) = written.as_ref().err().map(|error| with_causes(error));
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

    /// Returns the refusals, by act.
    fn decide_and_write(&mut self, decides: Vec<Decide>) -> Result<Vec<Option<Refusal>>, StoreError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => self.reopen()?,
        };
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
        if !changes.is_empty() {
            // On an error the store is dropped here, because after a full disk redb keeps failing until it is opened
            // again.
            let begun = Instant::now();
            store.commit(&changes)?;
            let micros = usize::try_from(begun.elapsed().as_micros()).unwrap_or(usize::MAX);
            add(&self.work.commits, 1);
            add(&self.work.commit_micros, micros);
            *self.world.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(world);
            self.parked.changed(&changes);
        }
        self.store = Some(store);
        Ok(refusals)
    }

    /// Opens the store again after a failed write, and takes over what is on the disk.
    fn reopen(&self) -> Result<Store, StoreError> {
        self.trail.set(None);
        let (store, changes) = Store::open(&self.dir)?;
        self.trail.set(Some(store.audit_log()));
        *self.world.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(World::of(changes));
        self.parked.all_changed();
        tracing::info!("opened the records again after a failed write");
        Ok(store)
    }
}

fn add(counter: &AtomicU64, number: usize) {
    counter.fetch_add(u64::try_from(number).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Ignores poisoning, because a panic elsewhere does not invalidate what this lock guards.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
