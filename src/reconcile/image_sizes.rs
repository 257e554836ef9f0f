//! Asks registries for image sizes outside of the loop. An answer wakes the reconciler.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tracing::debug;

use crate::engine::Operate;
use crate::model::{ImageRef, ImageSize, Outcome, Step};

use super::{HostAccess, Memory, Reconciler, Unmeasured};

/// An image and its registry's answer.
type Answered = (ImageRef, Result<ImageSize, Unmeasured>);

/// Requests at once, to spare the registries.
const AT_ONCE: usize = 4;

#[derive(Debug)]
pub(super) struct ImageSizes {
    tasks: JoinSet<Answered>,
    under_way: BTreeMap<ImageRef, AbortHandle>,
    turns: Arc<Semaphore>,
}

impl Default for ImageSizes {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { tasks: JoinSet::new(), under_way: BTreeMap::new(), turns }
    }
}

impl ImageSizes {
    pub(super) fn begin<H: HostAccess>(&mut self, host: &Arc<H>, image: &ImageRef, architecture: &str) {
        let (host, architecture) = (Arc::clone(host), architecture.to_owned());
        let (asked, turns) = (image.clone(), Arc::clone(&self.turns));
        let task = self.tasks.spawn(async move {
            // The semaphore is never closed.
            let _turn = turns.acquire().await;
            let size = host.measure_image(&asked, &architecture).await;
            (asked, size)
        });
        self.under_way.insert(image.clone(), task);
    }

    pub(super) fn under_way(&self) -> BTreeSet<ImageRef> {
        self.under_way.keys().cloned().collect()
    }

    pub(super) fn keep_only(&mut self, is_wanted: impl Fn(&ImageRef) -> bool) {
        self.under_way.retain(|image, task| {
            let is_kept = is_wanted(image);
            if !is_kept {
                task.abort();
            }
            is_kept
        });
    }

    pub(super) async fn next_end(&mut self) -> Answered {
        loop {
            match self.tasks.join_next().await {
                Some(Ok((image, size))) => {
                    if self.under_way.remove(&image).is_some() {
                        return (image, size);
                    }
                }
                Some(Err(error)) => {
                    // A request that we aborted is no longer in `under_way`. This one panicked.
                    let broken = self.under_way.iter().find(|(_, task)| task.id() == error.id());
                    if let Some(image) = broken.map(|(image, _)| image.clone()) {
                        self.under_way.remove(&image);
                        let why = "the request ended by a defect of the agent".to_owned();
                        return (image, Err(Unmeasured { after: None, why }));
                    }
                }
                None => return std::future::pending().await,
            }
        }
    }
}

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Records a registry's answer. Without an answer the image is downloaded all the same, unless the registry asked for
    /// a delay.
    pub(super) fn end_measurement(&mut self, image: ImageRef, answer: Result<ImageSize, Unmeasured>) {
        let size = match answer {
            Ok(size) => size,
            Err(Unmeasured { after: Some(after), why }) => {
                let step = Step::MeasureImage { image };
                self.settle(&step, Outcome::Retry { after: Some(after), why });
                return;
            }
            Err(Unmeasured { after: None, why }) => {
                debug!(%image, error = %why, "image is pulled without its size");
                ImageSize::default()
            }
        };
        self.facts.known_mut().image_sizes.insert(image, size);
    }
}
