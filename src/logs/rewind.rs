//! Lets the upload have the logs read again from where the cloud has confirmed them.

use tokio::sync::Notify;

/// Between the upload, which requests it, and the followers, which do it.
#[derive(Debug, Default)]
pub(super) struct Rewind {
    requested: Notify,
    done: Notify,
}

impl Rewind {
    /// Requests it, and waits until it is done.
    pub(super) async fn request(&self) {
        self.requested.notify_one();
        self.done.notified().await;
    }

    /// Waits for a request.
    pub(super) async fn requested(&self) {
        self.requested.notified().await;
    }

    /// Says that it is done.
    pub(super) fn done(&self) {
        self.done.notify_one();
    }
}
