//! Places for responses that take long: events and logs.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::listen::Visit;

/// How many clients may read events at a time: so many privileged ones, and as many others.
pub(super) const READERS: usize = 8;

/// Places for responses that take long. Root has places of its own.
#[derive(Debug, Clone)]
pub struct Readers {
    ordinary: Arc<Semaphore>,
    privileged: Arc<Semaphore>,
}

impl Readers {
    /// Places for readers of events.
    #[must_use]
    pub fn of_events() -> Self {
        Self::new(READERS)
    }

    /// `each` places for privileged readers, and as many for others.
    pub(super) fn new(each: usize) -> Self {
        Self { ordinary: Arc::new(Semaphore::new(each)), privileged: Arc::new(Semaphore::new(each)) }
    }

    /// Takes a place if one is free.
    pub(super) fn take(&self, visit: &Visit) -> Option<OwnedSemaphorePermit> {
        let places = if visit.is_privileged() { &self.privileged } else { &self.ordinary };
        Arc::clone(places).try_acquire_owned().ok()
    }
}
