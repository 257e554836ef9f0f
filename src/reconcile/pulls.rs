//! Downloads, which run beside the loop and wake it when they end.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::engine::{EngineError, Operate};
use crate::model::{ImageRef, Platform, gathered};

pub(super) struct Pulls {
    tasks: JoinSet<(ImageRef, Result<u64, EngineError>)>,
    under_way: BTreeMap<ImageRef, (AbortHandle, u8)>,
    progress: mpsc::Sender<(ImageRef, u8)>,
}

impl Pulls {
    /// None yet; percentages of each go to `progress`.
    pub(super) fn new(progress: mpsc::Sender<(ImageRef, u8)>) -> Self {
        Self { tasks: JoinSet::new(), under_way: BTreeMap::new(), progress }
    }

    /// Takes note of an end; the last percentage then, `None` for one that nobody waits for.
    pub(super) fn end(&mut self, image: &ImageRef) -> Option<u8> {
        self.under_way.remove(image).map(|(_, percent)| percent)
    }

    pub(super) fn begin<E: Operate + 'static>(
        &mut self,
        engine: &Arc<E>,
        image: &ImageRef,
        platform: Option<Platform>,
    ) {
        let (engine, image, progress) = (Arc::clone(engine), image.clone(), self.progress.clone());
        let named = image.clone();
        let task = self.tasks.spawn(async move {
            let (tx, mut rx) = mpsc::channel(8);
            let forward = async {
                while let Some(percent) = rx.recv().await {
                    if progress.send((image.clone(), percent)).await.is_err() {
                        return;
                    }
                }
            };
            let (result, ()) = tokio::join!(engine.pull(&image, platform.as_ref(), tx), forward);
            (image, result)
        });
        self.under_way.insert(named, (task, 0));
    }

    pub(super) fn advance(&mut self, image: &ImageRef, percent: u8) {
        if let Some((_, told)) = self.under_way.get_mut(image) {
            *told = percent;
        }
    }

    pub(super) fn percentages(&self) -> BTreeMap<ImageRef, u8> {
        gathered(self.under_way.iter().map(|(image, (_, percent))| (image.clone(), *percent)))
    }

    /// The engine forgets a dropped download entirely, so only what nobody wants is dropped.
    pub(super) fn keep_only(&mut self, is_wanted: impl Fn(&ImageRef) -> bool) {
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
                Some(Ok(end)) => return end,
                Some(Err(error)) => {
                    // One that we aborted is not under way any more; this one broke.
                    let broken = self.under_way.iter().find(|(_, (task, _))| task.id() == error.id());
                    if let Some((image, _)) = broken {
                        let message = "the download broke off by a mistake of ours".to_owned();
                        let error = EngineError::Refused { call: "pull", status: 500, message };
                        return (image.clone(), Err(error));
                    }
                }
                None => return std::future::pending().await,
            }
        }
    }
}
