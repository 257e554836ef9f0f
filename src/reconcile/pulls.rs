//! Downloads, which run beside the loop.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::engine::{EngineError, Operate};
use crate::model::ImageRef;

/// Those under way.
pub(super) struct Pulls {
    pub(super) tasks: JoinSet<(ImageRef, Result<(), EngineError>)>,
    pub(super) under_way: BTreeMap<ImageRef, (AbortHandle, u8)>,
    pub(super) progress: mpsc::Sender<(ImageRef, u8)>,
}

impl Pulls {
    pub(super) fn begin<E: Operate + 'static>(&mut self, engine: &Arc<E>, image: &ImageRef) {
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
            let (result, ()) = tokio::join!(engine.pull(&image, tx), forward);
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
        self.under_way.iter().map(|(image, (_, percent))| (image.clone(), *percent)).collect()
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

    pub(super) async fn next_end(&mut self) -> (ImageRef, Result<(), EngineError>) {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(end)) => return end,
                // Aborted by us; or it panicked, and `under_way` is cleared when nothing runs.
                Some(Err(_)) => {}
                None => return std::future::pending().await,
            }
        }
    }
}
