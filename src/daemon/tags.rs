//! Passes on the device's tags: what apps set is kept on disk until the cloud has taken it.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::cloud::{Client, CloudError, with_jitter};
use crate::model::{Identity, MOST_TAGS};
use crate::store::TagFile;
use crate::supervisor_api::TagRequest;

/// Shortest time between two changes at the cloud.
const GAP: Duration = Duration::from_secs(10);

/// The first and the longest wait after a failure.
const FIRST: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(900);

/// Maximum number of requests of services to read tags at a time. Each may send two to the cloud.
const MOST_READS: usize = 4;

type Tags = BTreeMap<String, String>;

/// What was sent, and what became of it.
type Sent = (Tags, Result<(), CloudError>);

/// The tags that the cloud does not have yet, and who asks about tags.
pub(super) struct TagTask {
    requests: mpsc::Receiver<TagRequest>,
    file: TagFile,
    pending: Tags,
    wait: Duration,
}

impl TagTask {
    pub(super) fn new(requests: mpsc::Receiver<TagRequest>, state_dir: &Path) -> Self {
        let file = TagFile::of(state_dir);
        let pending = file.load();
        Self { requests, file, pending, wait: FIRST }
    }

    /// Answers requests and passes changes on to this cloud, until `stop`.
    pub(super) async fn run(&mut self, client: Client, identity: &Identity, stop: CancellationToken) {
        let (mut next, mut reads) = (Instant::now(), JoinSet::new());
        let mut sending: Option<BoxFuture<'static, Sent>> = None;
        self.wait = FIRST;
        loop {
            let is_due = sending.is_none() && !self.pending.is_empty();
            let sent = async {
                match sending.as_mut() {
                    Some(sending) => sending.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                (tags, result) = sent => {
                    sending = None;
                    next = Instant::now() + self.settle(&tags, result).await;
                }
                Some(request) = self.requests.recv() => match request {
                    TagRequest::Read(answer) if reads.len() >= MOST_READS => {
                        _ = answer.send(Err("the tags are being read for others: try again later".to_owned()));
                    }
                    TagRequest::Read(answer) => {
                        let (client, identity) = (client.clone(), identity.clone());
                        reads.spawn(async move {
                            let id = identity.registered.as_ref().and_then(|at| at.device_id);
                            let tags = client.tags(&identity.uuid, &identity.device_key, id).await;
                            _ = answer.send(tags.map_err(|error| error.to_string()));
                        });
                    }
                    TagRequest::Set(tags, answer) => _ = answer.send(self.keep(tags).await),
                },
                Some(_) = reads.join_next() => {}
                () = tokio::time::sleep_until(next), if is_due => {
                    let (client, identity, tags) = (client.clone(), identity.clone(), self.pending.clone());
                    let send = async move {
                        let sent = client.set_tags(&identity.uuid, &identity.device_key, &tags).await;
                        (tags, sent)
                    };
                    sending = Some(send.boxed());
                }
            }
        }
    }

    /// Adds changes to those that wait, on disk.
    async fn keep(&mut self, tags: Tags) -> Result<(), String> {
        let mut all = self.pending.clone();
        all.extend(tags);
        if all.len() > MOST_TAGS {
            return Err(format!(
                "{} tags wait for the cloud, and {MOST_TAGS} may: try again once it has taken them",
                self.pending.len()
            ));
        }
        self.save(all.clone()).await.map_err(|error| format!("the tags cannot be saved: {error}"))?;
        self.pending = all;
        Ok(())
    }

    /// Takes note of an answer of the cloud. Returns how long to wait before the next request.
    async fn settle(&mut self, sent: &Tags, result: Result<(), CloudError>) -> Duration {
        if let Err(error) = &result
            && !is_final(error)
        {
            let wait = with_jitter(self.wait).max(error.retry_after().unwrap_or_default());
            self.wait = (self.wait * 2).min(LONGEST);
            warn!(%error, retry_after_s = wait.as_secs(), "tags of this device are not at the cloud yet");
            return wait;
        }
        if let Err(error) = result {
            let keys = sent.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            warn!(%error, keys, "the cloud does not take these tags of the device; they are dropped");
        }
        self.wait = FIRST;
        // What was set again meanwhile still waits.
        self.pending.retain(|key, value| sent.get(key) != Some(value));
        if let Err(error) = self.save(self.pending.clone()).await {
            warn!(%error, "it is not saved which tags the cloud has; they may be sent again");
        }
        GAP
    }

    async fn save(&self, tags: Tags) -> std::io::Result<()> {
        let file = self.file.clone();
        let saved = tokio::task::spawn_blocking(move || file.save(tags)).await;
        saved.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }
}

/// Returns `true` if the same request cannot succeed later.
fn is_final(error: &CloudError) -> bool {
    matches!(error, CloudError::Refused { status: 400..=499, .. })
        && !matches!(error, CloudError::Refused { status: 408 | 429, .. })
}
