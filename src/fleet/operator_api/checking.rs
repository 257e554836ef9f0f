//! Checks releases beside the threads that answer polls, few at once: a release of the largest size takes a while.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer::ApiError;
use super::desk::Desk;

/// Maximum number of releases that are checked at once.
const AT_ONCE: usize = 2;

/// The longest wait for a place.
const PATIENCE: Duration = Duration::from_secs(5);

static CHECKS: Checks = Checks::new();

/// The places of releases that are checked.
struct Checks {
    places: Semaphore,
}

/// Runs a check on a thread of its own. It keeps its place, and that of its request, although the client may go.
///
/// # Errors
///
/// [`ApiError::busy`] if no place gets free; else that of the check.
pub(super) async fn beside<T: Send + 'static>(
    desk: &Desk,
    check: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let desk = desk.clone();
    CHECKS
        .run(move || {
            let _place = desk;
            check()
        })
        .await
}

impl Checks {
    const fn new() -> Self {
        Self { places: Semaphore::const_new(AT_ONCE) }
    }

    async fn run<T: Send + 'static>(
        &'static self,
        check: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let Ok(Ok(place)) = timeout(PATIENCE, self.places.acquire()).await else {
            return Err(ApiError::busy());
        };
        let checked = tokio::task::spawn_blocking(move || {
            let _place = place;
            check()
        });
        checked.await.map_err(|error| ApiError::failed(&error))?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use axum::http::header::RETRY_AFTER;
    use axum::response::IntoResponse;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn checks_hold_up_no_other_work_and_only_some_run_at_once() {
        static CHECKS: Checks = Checks::new();
        let mut running = JoinSet::new();
        // Each lasts until something is sent to it. With one thread, nobody could send, if it ran on that.
        let ends: Vec<Sender<()>> = std::iter::repeat_with(|| {
            let (end, ended) = channel();
            running.spawn(CHECKS.run(move || ended.recv().map_err(|_| ApiError::bad_request("not ended"))));
            end
        })
        .take(AT_ONCE)
        .collect();
        while CHECKS.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let mut waiting = JoinSet::new();
        waiting.spawn(CHECKS.run(|| Ok(())));
        tokio::task::yield_now().await;
        tokio::time::advance(PATIENCE).await;
        let refused = waiting.join_next().await.unwrap().unwrap().unwrap_err().into_response();
        let retry_after = refused.headers()[RETRY_AFTER].to_str().unwrap();
        assert_eq!((refused.status().as_u16(), retry_after), (503, "5"));
        for end in ends {
            end.send(()).unwrap();
        }
        while let Some(ran) = running.join_next().await {
            assert!(ran.unwrap().is_ok());
        }
        assert!(CHECKS.run(|| Ok(())).await.is_ok());
    }
}
