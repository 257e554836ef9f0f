//! Downloads images outside of the loop. The end of a download wakes the reconciler.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::debug;

use crate::engine::{EngineError, Operate};
use crate::model::{
    DownloadProgress, Facts, ImageRef, Platform, PullProgress, RegistryPass, Step, Transfer, with_causes,
};
use crate::plan::{self, PullEnd};

use super::{HostAccess, Memory, Reconciler, stage};

pub(super) struct Pulls {
    tasks: JoinSet<Ended>,
    under_way: BTreeMap<ImageRef, UnderWay>,
    /// Images whose download took longer than the registry's token was valid.
    outlived: BTreeSet<ImageRef>,
    progress: mpsc::Sender<(ImageRef, PullProgress)>,
}

/// A download that has begun.
struct UnderWay {
    task: AbortHandle,
    progress: PullProgress,
    /// The bytes that had come at some moments of the last [`WINDOW`], oldest first.
    samples: VecDeque<(Instant, u64)>,
    /// The bytes that the ledger knows of.
    noted: u64,
}

impl UnderWay {
    fn new(task: AbortHandle) -> Self {
        let samples = VecDeque::from([(Instant::now(), 0)]);
        Self { task, progress: PullProgress::default(), samples, noted: 0 }
    }

    fn take(&mut self, progress: PullProgress) {
        self.progress = progress;
        let now = Instant::now();
        self.samples.push_back((now, progress.fetched));
        // The first one that is too old stays: between it and the newest lies the whole window.
        while self.samples.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) || self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
    }

    /// The bytes that come each second, over the last seconds.
    fn rate(&self) -> Option<u64> {
        let ((begun, had), (at, has)) = (self.samples.front()?, self.samples.back()?);
        let took = u64::try_from((*at - *begun).as_millis()).ok().filter(|ms| *ms >= 1000)?;
        has.saturating_sub(*had).saturating_mul(1000).checked_div(took)
    }

    /// The bytes that the ledger does not know of. It knows of them from now on.
    fn take_news(&mut self) -> u64 {
        let news = self.progress.transfer.fetched.saturating_sub(self.noted);
        self.noted = self.noted.saturating_add(news);
        news
    }
}

/// How a download ended.
pub(super) struct Ended {
    image: ImageRef,
    result: Result<u64, EngineError>,
    transfer: Transfer,
    /// Whether the registry refused the token because it had expired.
    has_outlived_token: bool,
}

/// The rate of a download is that of this time.
const WINDOW: Duration = Duration::from_secs(10);

/// Maximum number of samples of a download.
const SAMPLES: usize = 64;

/// A download that reports nothing for this time is shown again, so that its rate falls.
const QUIET: Duration = Duration::from_secs(5);

/// The ledger is saved during a download when this many bytes have come since, and a quarter of those that are needed: the
/// power may be cut, and each save wears the disk.
const WORTH_A_SAVE: u64 = 16 << 20;

impl Pulls {
    /// No downloads. Each download will send its progress to `progress`.
    pub(super) fn new(progress: mpsc::Sender<(ImageRef, PullProgress)>) -> Self {
        let (tasks, under_way) = (JoinSet::new(), BTreeMap::new());
        Self { tasks, under_way, outlived: BTreeSet::new(), progress }
    }

    pub(super) fn begin<E: Operate + 'static, H: HostAccess>(
        &mut self,
        engine: &Arc<E>,
        host: &Arc<H>,
        image: &ImageRef,
        platform: Option<Platform>,
    ) {
        let (engine, host) = (Arc::clone(engine), Arc::clone(host));
        let (image, progress) = (image.clone(), self.progress.clone());
        let (named, has_outlived) = (image.clone(), self.outlived.contains(&image));
        let task = self.tasks.spawn(async move {
            let transfer = Transfer::default();
            let pass = match host.pass(&image).await {
                // The engine needs a valid token whenever it begins a layer, and keeps nothing of a failed pull. Another
                // token would expire in the same way, so it gets the login.
                Ok(RegistryPass::Token { login, .. }) if has_outlived => RegistryPass::Login(login),
                Ok(pass) => pass,
                Err(error) => {
                    return Ended { image, result: Err(error), transfer, has_outlived_token: false };
                }
            };
            let begun = Instant::now();
            let (tx, mut rx) = mpsc::channel::<PullProgress>(8);
            let forward = async {
                let (mut last, mut quiet) = (PullProgress::default(), 0);
                loop {
                    let now = match tokio::time::timeout(QUIET, rx.recv()).await {
                        Ok(None) => return last.transfer,
                        Ok(Some(now)) => {
                            quiet = 0;
                            now
                        }
                        Err(_) => {
                            quiet += 1;
                            last
                        }
                    };
                    // After three times its rate is 0 already.
                    if now != last || (1..=3).contains(&quiet) {
                        // The receiver leaves only with the agent.
                        let _ = progress.send((image.clone(), now)).await;
                    }
                    last = now;
                }
            };
            let (result, transfer) = tokio::join!(engine.pull(&image, platform.as_ref(), &pass, tx), forward);
            ended(image, &pass, begun, transfer, result)
        });
        self.under_way.insert(named, UnderWay::new(task));
    }

    pub(super) fn is_under_way(&self, image: &ImageRef) -> bool {
        self.under_way.contains_key(image)
    }

    /// How far each download is. `facts`: the sizes that registries have reported.
    pub(super) fn progress(&self, facts: &Facts) -> BTreeMap<ImageRef, DownloadProgress> {
        let progress = |(image, download): (&ImageRef, &UnderWay)| {
            let (size, at) = (facts.bytes_to_fetch(image), &download.progress);
            let (percent, total) = (at.percent(size), at.total(size));
            (image.clone(), DownloadProgress { percent, fetched: at.fetched, total, rate: download.rate() })
        };
        self.under_way.iter().map(progress).collect()
    }

    /// Drops the downloads of images that no release wants. Wanted ones go on, because the engine keeps nothing of a
    /// dropped download.
    pub(super) fn keep_only(&mut self, is_wanted: impl Fn(&ImageRef) -> bool) {
        self.outlived.retain(|image| is_wanted(image));
        self.under_way.retain(|image, download| {
            let is_kept = is_wanted(image);
            if !is_kept {
                download.task.abort();
            }
            is_kept
        });
    }

    pub(super) async fn next_end(&mut self) -> Ended {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(ended)) => {
                    if ended.has_outlived_token {
                        self.outlived.insert(ended.image.clone());
                    }
                    return ended;
                }
                Some(Err(error)) => {
                    // A download that we aborted is no longer in `under_way`. This one panicked.
                    let broken = self.under_way.iter().find(|(_, download)| download.task.id() == error.id());
                    if let Some((image, download)) = broken {
                        let message = "the download ended by a defect of the agent".to_owned();
                        let error = EngineError::Refused { call: "pull", status: 500, message };
                        let (image, transfer) = (image.clone(), download.progress.transfer);
                        return Ended { image, result: Err(error), transfer, has_outlived_token: false };
                    }
                }
                None => return std::future::pending().await,
            }
        }
    }
}

/// Returns `true` if a download that needs so many bytes is saved after so many.
fn is_worth_a_save(unsaved: u64, needed: u64) -> bool {
    unsaved >= WORTH_A_SAVE.max(needed / 4)
}

/// Turns a registry's refusal of a token that expired during the pull into an error that is retried with the login.
fn ended(
    image: ImageRef,
    pass: &RegistryPass,
    begun: Instant,
    transfer: Transfer,
    result: Result<u64, EngineError>,
) -> Ended {
    match (pass, result) {
        (RegistryPass::Token { life, .. }, Err(EngineError::RegistryAuth { message, .. }))
            if begun.elapsed() >= *life =>
        {
            let message = format!(
                "the download took longer than the registry's token was good for, {} s; the engine is given the device's \
                 login next: {message}",
                life.as_secs()
            );
            let error = EngineError::Registry { image: image.to_string(), message };
            Ended { image, result: Err(error), transfer, has_outlived_token: true }
        }
        (_, result) => Ended { image, result, transfer, has_outlived_token: false },
    }
}

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Takes the progress of a download, and saves from time to time what it has cost.
    pub(super) async fn note_progress(&mut self, image: &ImageRef, progress: PullProgress) {
        let Some(download) = self.pulls.under_way.get_mut(image) else { return };
        download.take(progress);
        let unsaved = progress.transfer.fetched.saturating_sub(download.noted);
        if !is_worth_a_save(unsaved, progress.transfer.needed) {
            return;
        }
        let news = download.take_news();
        plan::record_download(Arc::make_mut(&mut self.ledger), image, news, progress.transfer, None);
        self.save_ledger().await;
    }

    /// Records and saves what the downloads have cost that end with the agent.
    pub(super) async fn note_unfinished_pulls(&mut self) {
        for (image, download) in &mut self.pulls.under_way {
            let news = download.take_news();
            if news > 0 {
                plan::record_download(
                    Arc::make_mut(&mut self.ledger),
                    image,
                    news,
                    download.progress.transfer,
                    None,
                );
            }
        }
        self.save_ledger().await;
    }

    /// Records the end of a download, unless it was dropped before.
    pub(super) async fn end_pull(&mut self, ended: Ended) {
        let Ended { image, result, transfer, has_outlived_token: _ } = ended;
        let Some(mut download) = self.pulls.under_way.remove(&image) else { return };
        debug!(%image, fetched = download.progress.fetched, "pull ended");
        download.progress.transfer = transfer;
        let news = download.take_news();
        let why = result.as_ref().err().map(|error| with_causes(error)).unwrap_or_default();
        let end = match &result {
            Ok(_) => PullEnd::Done,
            Err(error) => {
                PullEnd::Failed { why: &why, is_passing: !matches!(error, EngineError::PullFailed { .. }) }
            }
        };
        plan::record_download(Arc::make_mut(&mut self.ledger), &image, news, transfer, Some(end));
        self.save_ledger().await;
        self.outbox.counters.counts.pulled_bytes += result.as_ref().copied().unwrap_or_default();
        let step = Step::Pull { image };
        self.settle(&step, stage::outcome(&step, result.map(drop)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_saved_four_times_at_most_and_a_small_one_less_often() {
        const MIB: u64 = 1 << 20;
        for (unsaved, needed, expected) in [
            (16 * MIB - 1, 0, false),
            (16 * MIB, 0, true),
            (16 * MIB, 64 * MIB, true),
            (16 * MIB, 400 * MIB, false),
            (100 * MIB - 1, 400 * MIB, false),
            (100 * MIB, 400 * MIB, true),
        ] {
            assert_eq!(is_worth_a_save(unsaved, needed), expected, "{unsaved} of {needed}");
        }
    }
}
