//! Downloads images outside of the loop. The end of a download wakes the reconciler.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::engine::{EngineError, Operate};
use crate::model::{ImageRef, Platform, RegistryPass};

use super::HostAccess;

pub(super) struct Pulls {
    tasks: JoinSet<Ended>,
    under_way: BTreeMap<ImageRef, (AbortHandle, u8)>,
    /// Images whose download took longer than the registry's token was valid.
    outlived: BTreeSet<ImageRef>,
    progress: mpsc::Sender<(ImageRef, u8)>,
}

/// How a download ended.
struct Ended {
    image: ImageRef,
    result: Result<u64, EngineError>,
    /// Whether the registry refused the token because it had expired.
    has_outlived_token: bool,
}

impl Pulls {
    /// No downloads. Each download will send its percentages to `progress`.
    pub(super) fn new(progress: mpsc::Sender<(ImageRef, u8)>) -> Self {
        let (tasks, under_way) = (JoinSet::new(), BTreeMap::new());
        Self { tasks, under_way, outlived: BTreeSet::new(), progress }
    }

    /// Removes a download that has ended. Returns its last percentage; `None` if the download was dropped before.
    pub(super) fn end(&mut self, image: &ImageRef) -> Option<u8> {
        self.under_way.remove(image).map(|(_, percent)| percent)
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
            let pass = match host.pass(&image).await {
                // The engine needs a valid token whenever it begins a layer, and keeps nothing of a failed pull. Another
                // token would expire in the same way, so it gets the login.
                Ok(RegistryPass::Token { login, .. }) if has_outlived => RegistryPass::Login(login),
                Ok(pass) => pass,
                Err(error) => return Ended { image, result: Err(error), has_outlived_token: false },
            };
            let begun = Instant::now();
            let (tx, mut rx) = mpsc::channel(8);
            let forward = async {
                while let Some(percent) = rx.recv().await {
                    if progress.send((image.clone(), percent)).await.is_err() {
                        return;
                    }
                }
            };
            let (result, ()) = tokio::join!(engine.pull(&image, platform.as_ref(), &pass, tx), forward);
            ended(image, &pass, begun, result)
        });
        self.under_way.insert(named, (task, 0));
    }

    pub(super) fn advance(&mut self, image: &ImageRef, percent: u8) {
        if let Some((_, last)) = self.under_way.get_mut(image) {
            *last = percent;
        }
    }

    pub(super) fn percentages(&self) -> BTreeMap<ImageRef, u8> {
        self.under_way.iter().map(|(image, (_, percent))| (image.clone(), *percent)).collect()
    }

    /// Drops the downloads of images that no release wants. Wanted ones go on, because the engine keeps nothing of a
    /// dropped download.
    pub(super) fn keep_only(&mut self, is_wanted: impl Fn(&ImageRef) -> bool) {
        self.outlived.retain(|image| is_wanted(image));
        self.under_way.retain(|image, (task, _)| {
            let is_kept = is_wanted(image);
            if !is_kept {
                task.abort();
            }
            is_kept
        });
    }

    pub(super) async fn next_end(&mut self) -> (ImageRef, Result<u64, EngineError>) {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Ended { image, result, has_outlived_token })) => {
                    if has_outlived_token {
                        self.outlived.insert(image.clone());
                    }
                    return (image, result);
                }
                Some(Err(error)) => {
                    // A download that we aborted is no longer in `under_way`. This one panicked.
                    let broken = self.under_way.iter().find(|(_, (task, _))| task.id() == error.id());
                    if let Some((image, _)) = broken {
                        let message = "the download ended by a defect of the agent".to_owned();
                        let error = EngineError::Refused { call: "pull", status: 500, message };
                        return (image.clone(), Err(error));
                    }
                }
                None => return std::future::pending().await,
            }
        }
    }
}

/// Turns a registry's refusal of a token that expired during the pull into an error that is retried with the login.
fn ended(image: ImageRef, pass: &RegistryPass, begun: Instant, result: Result<u64, EngineError>) -> Ended {
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
            Ended { image, result: Err(error), has_outlived_token: true }
        }
        (_, result) => Ended { image, result, has_outlived_token: false },
    }
}
