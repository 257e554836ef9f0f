//! Places for what lasts long, such as the streams of open pages: bounded in all, and fair between users.
//!
//! While a place is free, anybody takes it. If none is, a user with fewer places gets the oldest place of the user who has the
//! most. So no user keeps others out with many pages.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// A bounded number of places.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    last: u64,
    count: usize,
    /// The places of each user by their numbers, oldest first.
    by_user: HashMap<String, VecDeque<(u64, CancellationToken)>>,
}

/// A place. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<Places>,
    user: String,
    number: u64,
    given_away: CancellationToken,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// Takes a place for a user; `None` if there is none, and no user has clearly more than this one.
    pub(super) fn enter(self: &Arc<Self>, user: &str) -> Option<Place> {
        let mut taken = self.taken();
        if taken.count >= self.most && !taken.give_away(user) {
            return None;
        }
        taken.last += 1;
        taken.count += 1;
        let (number, given_away) = (taken.last, CancellationToken::new());
        taken.by_user.entry(user.to_owned()).or_default().push_back((number, given_away.clone()));
        drop(taken);
        Some(Place { of: Arc::clone(self), user: user.to_owned(), number, given_away })
    }

    /// Ignores poisoning, because a panic elsewhere does not invalidate what this lock guards.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Takes a place from the user who has the most, for one who has at least two fewer. Returns `false` if there is no such user.
    fn give_away(&mut self, to: &str) -> bool {
        let own = self.by_user.get(to).map_or(0, VecDeque::len);
        let Some(most) = self.by_user.values_mut().max_by_key(|places| places.len()) else { return false };
        if most.len() < own + 2 {
            return false;
        }
        if let Some((_, given_away)) = most.pop_front() {
            given_away.cancel();
            self.count -= 1;
        }
        true
    }
}

impl Place {
    /// Returns what is cancelled when the place goes to another user.
    pub(super) fn given_away(&self) -> CancellationToken {
        self.given_away.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.taken();
        let Some(places) = taken.by_user.get_mut(&self.user) else { return };
        let before = places.len();
        places.retain(|(number, _)| *number != self.number);
        let (gone, is_empty) = (before - places.len(), places.is_empty());
        taken.count -= gone;
        if is_empty {
            taken.by_user.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(places: &[Place]) -> usize {
        places.iter().filter(|place| place.given_away().is_cancelled()).count()
    }

    #[test]
    fn a_user_with_fewer_places_gets_one_of_the_user_with_the_most() {
        let places = Places::new(6);
        let a: Vec<_> = (0..6).map(|_| places.enter("a").unwrap()).collect();
        assert!(places.enter("a").is_none(), "a user takes no place from itself");
        let b: Vec<_> = (0..3).map(|_| places.enter("b").unwrap()).collect();
        assert_eq!(lost(&a), 3);
        assert!(a[0].given_away().is_cancelled() && !a[5].given_away().is_cancelled(), "the oldest first");
        assert!(places.enter("b").is_none() && places.enter("a").is_none(), "both have three");
        let c: Vec<_> = (0..2).map(|_| places.enter("c").unwrap()).collect();
        assert!(places.enter("c").is_none(), "each has two");
        assert_eq!((lost(&a) + lost(&b), lost(&c)), (5, 0));
        drop((a, b));
        let more: Vec<_> = (0..4).map(|_| places.enter("c").unwrap()).collect();
        assert!(places.enter("c").is_none());
        drop((c, more));
        let taken = places.taken();
        assert_eq!((taken.count, taken.by_user.len()), (0, 0));
    }

    #[test]
    fn where_each_user_has_one_place_the_next_user_has_none() {
        let places = Places::new(3);
        let held: Vec<_> = ["a", "b", "c"].map(|user| places.enter(user).unwrap()).into();
        assert!(places.enter("d").is_none());
        assert_eq!(lost(&held), 0);
    }
}
