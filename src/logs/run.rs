//! The task: waits until logs are wanted, and then runs followers and upload.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::buffer::Buffer;
use super::choice::{followed, state};
use super::cursors::Cursors;
use super::followers::Followers;
use super::rewind::Rewind;
use super::texts;
use super::upload::{Times, Upload};
use crate::cloud::Client;
use crate::engine::Inspect;
use crate::model::{CloudReport, DeviceUuid, Events, LogCursors, LogState, LogUpload, Report};

/// How often cursors are saved while lines are uploaded. They are saved at the end in any case.
const SAVE_EVERY: Duration = Duration::from_secs(3600);

/// Saves cursors.
pub type SaveCursors = Box<dyn Fn(LogCursors) -> BoxFuture<'static, ()> + Send + Sync>;

/// The cloud that gets the logs.
#[derive(Debug, Clone)]
pub struct Destination {
    pub client: Client,
    pub uuid: DeviceUuid,
    pub device_key: String,
}

/// What the device's owner has set.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub upload: LogUpload,
    /// Whether each request costs money.
    pub is_metered: bool,
    pub times: Times,
    /// Returns the milliseconds since 1970.
    pub now_ms: fn() -> u64,
}

/// What the task reads.
#[derive(Debug, Clone)]
pub struct Sources {
    pub report: watch::Receiver<Report>,
    pub events: watch::Receiver<Events>,
    /// Says whether logs are wanted, and gets the counters.
    pub cloud: watch::Sender<CloudReport>,
}

/// Uploads logs. It outlives a move to another cloud.
pub struct LogTask<E> {
    engine: Arc<E>,
    settings: Settings,
    cursors: Arc<Cursors>,
    save: SaveCursors,
    /// The last event that was uploaded.
    event: AtomicU64,
    /// When the agent started, until that was uploaded.
    started_ms: Option<u64>,
}

impl<E: Inspect + 'static> LogTask<E> {
    /// `cursors` are those that an earlier run has saved.
    #[must_use]
    pub fn new(engine: Arc<E>, settings: Settings, cursors: LogCursors, save: SaveCursors) -> Self {
        let (cursors, event) = (Arc::new(Cursors::new(cursors)), AtomicU64::new(0));
        Self { engine, settings, cursors, save, event, started_ms: Some((settings.now_ms)()) }
    }

    /// Uploads to this cloud, while logs are wanted, until `stop` is cancelled.
    pub async fn run(&mut self, to: Destination, mut sources: Sources, stop: CancellationToken) {
        while self.wait(&mut sources, true, &stop).await {
            let wanted = stop.child_token();
            let buffer = Arc::new(Buffer::reporting_to(sources.cloud.clone()));
            let rewind = Arc::new(Rewind::default());
            if let Some(at) = self.started_ms.take() {
                buffer.put_own(texts::own("Supervisor starting".to_owned(), at, false));
            }
            let upload = Upload {
                client: to.client.clone(),
                uuid: to.uuid.clone(),
                device_key: to.device_key.clone(),
                times: self.settings.times,
                buffer: Arc::clone(&buffer),
                cursors: Arc::clone(&self.cursors),
                rewind: Arc::clone(&rewind),
                report: sources.cloud.clone(),
                now_ms: self.settings.now_ms,
            };
            let followers = Followers::new(
                Arc::clone(&self.engine),
                (Arc::clone(&buffer), Arc::clone(&self.cursors)),
                self.settings.now_ms,
            );
            let mut of_end = sources.clone();
            let reading = async {
                tokio::select! {
                    () = self.read(followers, (&buffer, &rewind), &mut sources) => {}
                    _ = self.wait(&mut of_end, false, &stop) => {}
                }
                wanted.cancel();
            };
            tokio::join!(Box::pin(upload.run(&wanted)), reading);
            buffer.clear();
            sources.cloud.send_if_modified(|cloud| cloud.log_error.take().is_some());
            self.save_cursors().await;
        }
    }

    /// Waits until logs are wanted, or no longer wanted. Returns `false` if `stop` is cancelled first.
    async fn wait(&self, sources: &mut Sources, wanted: bool, stop: &CancellationToken) -> bool {
        let mut cloud = sources.cloud.subscribe();
        loop {
            if stop.is_cancelled() {
                return false;
            }
            let state = {
                let (report, cloud) = (sources.report.borrow_and_update(), cloud.borrow_and_update());
                state(self.settings.upload, self.settings.is_metered, &report, &cloud)
            };
            sources.cloud.send_if_modified(|cloud| std::mem::replace(&mut cloud.log_state, state) != state);
            if (state == LogState::On) == wanted {
                return true;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                Ok(()) = sources.report.changed() => {}
                Ok(()) = cloud.changed() => {}
                else => return false,
            }
        }
    }

    /// Follows containers and events, and saves cursors now and then. Never returns.
    async fn read(
        &self,
        mut followers: Followers<E>,
        (buffer, rewind): (&Buffer, &Rewind),
        sources: &mut Sources,
    ) {
        let mut save_at = Instant::now() + SAVE_EVERY;
        sources.report.mark_changed();
        sources.events.mark_changed();
        loop {
            tokio::select! {
                Ok(()) = sources.report.changed() => {
                    let report = sources.report.borrow_and_update();
                    // Without an observation nothing is known about containers.
                    if let Some(delivered) = &report.delivered
                        && report.engine_error.is_none()
                    {
                        followers.update(followed(&report), &delivered.target);
                    }
                }
                Ok(()) = sources.events.changed() => {
                    let last = self.event.load(Ordering::Relaxed);
                    let (news, _) = sources.events.borrow_and_update().after(last);
                    let report = sources.report.borrow();
                    for news in news {
                        self.event.store(news.id, Ordering::Relaxed);
                        if let Some(text) = texts::of_event(&news, &report, (self.settings.now_ms)()) {
                            buffer.put_own(text);
                        }
                    }
                }
                () = followers.step() => {}
                () = rewind.requested() => {
                    followers.begin_again();
                    rewind.done();
                }
                () = sleep_until(save_at) => {
                    self.save_cursors().await;
                    save_at = Instant::now() + SAVE_EVERY;
                }
                else => std::future::pending().await,
            }
        }
    }

    async fn save_cursors(&self) {
        if let Some(cursors) = self.cursors.take_changed() {
            (self.save)(cursors).await;
        }
    }
}
