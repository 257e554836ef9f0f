use std::sync::{Arc, Mutex};

use super::*;
use crate::http::Http;
use crate::http::sample::{Say, Server, answer, endless_head};
use crate::model::{DeviceUuid, Moves, Registration};

/// The task at a server, and what asks it.
struct Bench {
    ask: mpsc::Sender<TagRequest>,
    stop: CancellationToken,
    folder: tempfile::TempDir,
    task: JoinSet<()>,
}

impl Bench {
    fn start(server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ask, requests) = mpsc::channel(32);
        let mut tags = TagTask::new(requests, folder.path());
        (tags.gap, tags.search_gap) = (Duration::from_secs(600), Duration::from_millis(1));
        let client = Client::new(Http::new().unwrap(), &server.url(""), Duration::from_secs(20));
        let registered = Some(Registration { endpoint: server.url(""), device_id: Some(7) });
        let identity = Identity {
            uuid: DeviceUuid::parse("0".repeat(32)).unwrap(),
            device_key: "key".to_owned(),
            registered,
            moves: Moves::default(),
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let mut task = JoinSet::new();
        task.spawn(async move { tags.run(client, &identity, stopped).await });
        Self { ask, stop, folder, task }
    }

    async fn set(&self, tags: &[(&str, &str)]) -> Result<(), String> {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (answer, answered) = oneshot::channel();
        self.ask.send(TagRequest::Set(tags, answer)).await.unwrap();
        answered.await.unwrap()
    }

    async fn read(&self) -> oneshot::Receiver<Result<Vec<DeviceTag>, String>> {
        let (answer, answered) = oneshot::channel();
        self.ask.send(TagRequest::Read(answer)).await.unwrap();
        answered
    }

    /// Waits until nothing is left for the cloud.
    async fn until_none_waits(&self) {
        let file = TagFile::of(self.folder.path());
        for _ in 0..600 {
            if file.load().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("tags still wait: {:?}", file.load());
    }

    async fn end(mut self) {
        self.stop.cancel();
        self.task.join_next().await.unwrap().unwrap();
    }
}

/// A cloud that takes tags one request after the other, and none that has the tag `bad`; the numbers of tags that it was sent.
fn picky() -> (Server, Arc<Mutex<Vec<usize>>>) {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let server = Server::with_body(move |_, body| {
        let body: BTreeMap<String, Tags> = serde_json::from_slice(body).unwrap();
        let tags = body.into_values().next().unwrap();
        seen.lock().unwrap().push(tags.len());
        if tags.contains_key("bad") {
            answer("400 Bad Request", &[], b"the tag bad is not accepted")
        } else {
            answer("200 OK", &[], b"")
        }
    });
    (server, sizes)
}

#[tokio::test]
async fn one_refused_tag_is_found_and_the_others_are_sent() {
    let (server, sizes) = picky();
    let bench = Bench::start(&server);
    bench.set(&[("a", "1"), ("bad", "x"), ("c", "3"), ("d", "4")]).await.unwrap();
    bench.until_none_waits().await;
    // All four; a and bad; a; bad; c and d.
    assert_eq!(*sizes.lock().unwrap(), [4, 2, 1, 2, 1, 2]);
    bench.end().await;
}

#[tokio::test]
async fn a_tag_that_the_cloud_has_is_neither_sent_nor_saved_again() {
    let (server, sizes) = picky();
    let bench = Bench::start(&server);
    bench.set(&[("site", "bern")]).await.unwrap();
    bench.until_none_waits().await;
    let file = bench.folder.path().join("device-tags.json");
    std::fs::remove_file(&file).unwrap();
    bench.set(&[("site", "bern")]).await.unwrap();
    assert!(!file.exists(), "it is at the cloud");
    bench.set(&[("site", "basel")]).await.unwrap();
    assert!(file.exists(), "another value is a change");
    std::fs::remove_file(&file).unwrap();
    bench.set(&[("site", "basel")]).await.unwrap();
    assert!(!file.exists(), "it waits already");
    bench.set(&[("site", "bern")]).await.unwrap();
    assert!(file.exists(), "the cloud's value is a change while another one waits");
    assert_eq!(sizes.lock().unwrap().len(), 1);
    bench.end().await;
}

#[tokio::test]
async fn only_so_many_requests_read_tags_at_a_time() {
    let server = Server::start(|_| Say::Drip(endless_head("200 OK", &[]), b" ".to_vec()));
    let bench = Bench::start(&server);
    let mut reading = Vec::new();
    for _ in 0..MOST_READS {
        reading.push(bench.read().await);
    }
    let refused = bench.read().await.await.unwrap().unwrap_err();
    assert_eq!(refused, "the tags are being read for others: try again later");
    assert!(reading.iter_mut().all(|read| read.try_recv().is_err()), "the others still wait");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(server.requests().len(), MOST_READS);
    bench.end().await;
}
