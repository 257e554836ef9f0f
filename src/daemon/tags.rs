//! Passes on the device's tags: what apps set is kept on disk until the cloud has taken it.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::cloud::{Client, CloudError, with_jitter};
use crate::model::{DeviceTag, Identity, MOST_TAGS};
use crate::store::TagFile;
use crate::supervisor_api::TagRequest;

/// Shortest time between two changes at the cloud.
const GAP: Duration = Duration::from_secs(10);

/// The same while the tag is searched for that the cloud refuses.
const SEARCH_GAP: Duration = Duration::from_secs(2);

/// The first and the longest wait after a failure.
const FIRST: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(900);

/// How long a tag that the cloud has taken is not sent again with the same value. An operator may have changed it there since.
const FRESH: Duration = Duration::from_secs(900);

/// Maximum number of requests of services to read tags at a time. Each may send two to the cloud.
const MOST_READS: usize = 4;

type Tags = BTreeMap<String, String>;

/// What was sent, and what became of it.
type Sent = (Tags, Result<(), CloudError>);

/// Takes the tags for a service that asked for them.
type Answer = oneshot::Sender<Result<Vec<DeviceTag>, String>>;

/// What was read, with the service that asked and the value of [`TagTask::sends`] then.
type Read = (Answer, u64, Result<Vec<DeviceTag>, CloudError>);

/// The tags that the cloud does not have yet, and who asks about tags.
pub(super) struct TagTask {
    requests: mpsc::Receiver<TagRequest>,
    file: TagFile,
    pending: Tags,
    /// What the cloud has, as far as that is known, and since when.
    taken: BTreeMap<String, (String, Instant)>,
    /// How often a request with changes has begun or ended. What was read from the cloud meanwhile may be outdated.
    sends: u64,
    /// Maximum number of tags of the next request. It is less than all while the tag is searched for that the cloud refuses.
    most: usize,
    wait: Duration,
    gap: Duration,
    search_gap: Duration,
}

impl TagTask {
    pub(super) fn new(requests: mpsc::Receiver<TagRequest>, state_dir: &Path) -> Self {
        let file = TagFile::of(state_dir);
        let pending = file.load();
        Self {
            requests,
            file,
            pending,
            taken: BTreeMap::new(),
            sends: 0,
            most: MOST_TAGS,
            wait: FIRST,
            gap: GAP,
            search_gap: SEARCH_GAP,
        }
    }

    /// Answers requests and passes changes on to this cloud, until `stop`.
    pub(super) async fn run(&mut self, client: Client, identity: &Identity, stop: CancellationToken) {
        let (mut next, mut reads) = (Instant::now(), JoinSet::<Read>::new());
        let mut sending: Option<BoxFuture<'static, Sent>> = None;
        (self.wait, self.most) = (FIRST, MOST_TAGS);
        // It may be another cloud than before.
        self.taken.clear();
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
                    self.sends += 1;
                    next = Instant::now() + self.settle(&tags, result).await;
                }
                Some(request) = self.requests.recv() => match request {
                    TagRequest::Read(answer) if reads.len() >= MOST_READS => {
                        _ = answer.send(Err("the tags are being read for others: try again later".to_owned()));
                    }
                    TagRequest::Read(answer) => {
                        reads.spawn(read(client.clone(), identity.clone(), (answer, self.sends)));
                    }
                    TagRequest::Set(tags, answer) => _ = answer.send(self.keep(tags).await),
                },
                Some(read) = reads.join_next() => if let Ok((answer, sends, tags)) = read {
                    if sends == self.sends {
                        self.learn(&tags);
                    }
                    _ = answer.send(tags.map_err(|error| error.to_string()));
                },
                () = tokio::time::sleep_until(next), if is_due => {
                    let some = self.pending.iter().take(self.most);
                    let tags: Tags = some.map(|(key, value)| (key.clone(), value.clone())).collect();
                    let (client, identity) = (client.clone(), identity.clone());
                    let send = async move {
                        let sent = client.set_tags(&identity.uuid, &identity.device_key, &tags).await;
                        (tags, sent)
                    };
                    sending = Some(send.boxed());
                    self.sends += 1;
                }
            }
        }
    }

    /// Adds changes to those that wait, on disk. What waits already, or is at the cloud, is no change.
    async fn keep(&mut self, tags: Tags) -> Result<(), String> {
        let mut all = self.pending.clone();
        all.extend(tags.into_iter().filter(|(key, value)| !self.is_at_cloud(key, value)));
        if all == self.pending {
            return Ok(());
        }
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

    /// Returns `true` if the cloud has this tag, and no other value of it waits.
    fn is_at_cloud(&self, key: &str, value: &str) -> bool {
        let is_it = |(taken, since): &(String, Instant)| taken == value && since.elapsed() < FRESH;
        !self.pending.contains_key(key) && self.taken.get(key).is_some_and(is_it)
    }

    /// Takes note of the tags that the cloud has.
    fn learn(&mut self, tags: &Result<Vec<DeviceTag>, CloudError>) {
        let Ok(tags) = tags else { return };
        let now = Instant::now();
        let some = tags.iter().take(MOST_TAGS);
        self.taken = some.map(|tag| (tag.key.clone(), (tag.value.clone(), now))).collect();
    }

    /// Takes note of an answer of the cloud. Returns how long to wait before the next request.
    async fn settle(&mut self, sent: &Tags, result: Result<(), CloudError>) -> Duration {
        match result {
            Ok(()) => {
                self.most = (self.most * 2).min(MOST_TAGS);
                self.note_taken(sent);
            }
            Err(error) if !is_final(&error) => {
                let wait = with_jitter(self.wait).max(error.retry_after().unwrap_or_default());
                self.wait = (self.wait * 2).min(LONGEST);
                warn!(%error, retry_after_s = wait.as_secs(), "tags of this device are not at the cloud yet");
                return wait;
            }
            // It is for one of them that the cloud refuses all.
            Err(error) if sent.len() > 1 && !is_of_any(&error) => {
                debug!(%error, tags = sent.len(), "cloud refuses tags of the device; fewer are sent");
                self.most = sent.len() / 2;
                self.wait = FIRST;
                return self.search_gap;
            }
            Err(error) => {
                let keys = sent.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                warn!(%error, keys, "the cloud does not take these tags of the device; they are dropped");
                self.most = 2;
            }
        }
        self.wait = FIRST;
        // What was set again meanwhile still waits.
        self.pending.retain(|key, value| sent.get(key) != Some(value));
        if self.pending.is_empty() {
            self.most = MOST_TAGS;
        }
        if let Err(error) = self.save(self.pending.clone()).await {
            warn!(%error, "it is not saved which tags the cloud has; they may be sent again");
        }
        if self.most < MOST_TAGS { self.search_gap } else { self.gap }
    }

    /// Takes note of what the cloud has taken. The oldest are forgotten: services may set any number of keys, one after the other.
    fn note_taken(&mut self, sent: &Tags) {
        let now = Instant::now();
        self.taken.extend(sent.iter().map(|(key, value)| (key.clone(), (value.clone(), now))));
        if self.taken.len() > MOST_TAGS {
            self.taken.retain(|key, _| sent.contains_key(key));
        }
    }

    async fn save(&self, tags: Tags) -> std::io::Result<()> {
        let file = self.file.clone();
        let saved = tokio::task::spawn_blocking(move || file.save(tags)).await;
        saved.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }
}

/// Reads the tags at the cloud.
async fn read(client: Client, identity: Identity, (answer, sends): (Answer, u64)) -> Read {
    let id = identity.registered.as_ref().and_then(|at| at.device_id);
    let tags = client.tags(&identity.uuid, &identity.device_key, id).await;
    (answer, sends, tags)
}

/// Returns `true` if the same request cannot succeed later.
fn is_final(error: &CloudError) -> bool {
    matches!(error, CloudError::Conflict { .. } | CloudError::Refused { status: 400..=499, .. })
        && !matches!(error, CloudError::Refused { status: 408 | 425 | 429, .. })
}

/// Returns `true` if the cloud refuses any tags: it does not know such a request.
fn is_of_any(error: &CloudError) -> bool {
    matches!(error, CloudError::Refused { status: 404 | 405, .. })
}

#[cfg(test)]
#[path = "tags_tests.rs"]
mod tests;
