//! Limits the request rate of each service, so that one in a loop does not slow down the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::model::{ApiView, AppId, ServiceName};

use super::caller::Caller;

/// Requests of a service in progress at a time.
const AT_ONCE: usize = 4;
/// Requests: so many at once, and then one each time.
const REQUESTS: Rate = Rate { burst: 100, every: Duration::from_millis(50) };
/// Requests that change something.
const CHANGES: Rate = Rate { burst: 10, every: Duration::from_secs(30) };

#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    every: Duration,
}

/// How often each service has asked lately, and the cloud, which is none.
#[derive(Debug, Default)]
pub(super) struct Paces(Mutex<BTreeMap<Option<(AppId, ServiceName)>, Pace>>);

#[derive(Debug)]
struct Pace {
    places: Arc<Semaphore>,
    /// When all earlier requests, and all changes, are paid for.
    requests: Instant,
    changes: Instant,
}

/// Why a request is refused, with the time after which to try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooMuch {
    #[error("this service has {AT_ONCE} requests in progress; wait for one of them")]
    AtOnce,
    #[error("this service asks too often: 100 requests at once and then 20 a second; try again in {} s", seconds(.0))]
    Requests(Duration),
    #[error(
        "this service orders changes too often: 10 at once and then one every 30 s; try again in {} s. Nothing was changed",
        seconds(.0)
    )]
    Changes(Duration),
}

impl TooMuch {
    /// For `Retry-After`.
    pub(super) fn seconds(&self) -> u64 {
        match self {
            Self::AtOnce => 1,
            Self::Requests(wait) | Self::Changes(wait) => seconds(wait),
        }
    }
}

fn seconds(wait: &Duration) -> u64 {
    wait.as_secs() + 1
}

impl Paces {
    /// Counts a request of a service, and gives it a place until the result is dropped.
    pub(super) fn take(
        &self,
        view: &ApiView,
        caller: &Caller,
        is_change: bool,
    ) -> Result<OwnedSemaphorePermit, TooMuch> {
        let now = Instant::now();
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |of: &Option<(AppId, ServiceName)>| match of {
            Some((app, service)) => view.clients.iter().any(|c| c.app == *app && c.service == *service),
            None => true,
        };
        if paces.len() > view.clients.len() + 1 {
            paces.retain(|key, _| is_known(key));
        }
        let fresh = || Pace { places: Arc::new(Semaphore::new(AT_ONCE)), requests: now, changes: now };
        let of = caller.service().map(|(app, service)| (app.clone(), service.clone()));
        let pace = paces.entry(of).or_insert_with(fresh);
        let place = Arc::clone(&pace.places).try_acquire_owned().map_err(|_| TooMuch::AtOnce)?;
        count(&mut pace.requests, now, REQUESTS).map_err(TooMuch::Requests)?;
        if is_change {
            count(&mut pace.changes, now, CHANGES).map_err(TooMuch::Changes)?;
        }
        Ok(place)
    }
}

/// Counts one, or returns how long to wait for it.
fn count(paid: &mut Instant, now: Instant, rate: Rate) -> Result<(), Duration> {
    let after = (*paid).max(now) + rate.every;
    let latest = now + rate.every * rate.burst;
    if after > latest {
        return Err(after - latest);
    }
    *paid = after;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_let_in_and_then_one_each_time() {
        let mut paid = Instant::now();
        let mut take = || count(&mut paid, Instant::now(), CHANGES);
        for _ in 0..10 {
            assert_eq!(take(), Ok(()));
        }
        assert_eq!(take(), Err(Duration::from_secs(30)));
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(take(), Err(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(take(), Ok(()));
        assert!(take().is_err());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!((0..20).filter(|_| take().is_ok()).count(), 10);
    }
}
