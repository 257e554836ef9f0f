//! A log stream of a device that stays open.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A stream, and the status of its answer.
pub(crate) struct Upload {
    lines: mpsc::Sender<String>,
    pub(crate) answer: JoinHandle<u16>,
}

/// Begins a stream with this request, which has the address and the key.
pub(crate) fn upload(request: reqwest::RequestBuilder) -> Upload {
    let (lines, receiver) = mpsc::channel::<String>(8);
    let frames = stream::unfold(receiver, async |mut receiver| {
        let message = receiver.recv().await?;
        let line = json!({ "message": message, "timestamp": 1000, "isSystem": true });
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{line}\n")))), receiver))
    });
    let request = request.header("Content-Type", "application/x-ndjson");
    let sending = request.body(reqwest::Body::wrap(StreamBody::new(Box::pin(frames)))).send();
    let answer = async move { sending.await.expect("it is answered").status().as_u16() };
    Upload { lines, answer: tokio::spawn(answer) }
}

impl Upload {
    /// Sends a line at once.
    pub(crate) async fn line(&self, message: &str) {
        self.lines.send(message.to_owned()).await.expect("the stream is open");
    }

    /// Ends the stream. Returns the status of its answer.
    pub(crate) async fn end(self) -> u16 {
        drop(self.lines);
        tokio::time::timeout(Duration::from_secs(20), self.answer).await.expect("it ends").expect("no panic")
    }
}

/// Reads an answer until it has this text. Returns all that has come so far; `None` if the text does not come.
pub(crate) async fn until(answer: &mut reqwest::Response, text: &str) -> Option<String> {
    let mut seen = String::new();
    let arrived = async {
        while !seen.contains(text) {
            seen.push_str(&String::from_utf8_lossy(&answer.chunk().await.ok()??));
        }
        Some(())
    };
    tokio::time::timeout(Duration::from_secs(8), arrived).await.ok()??;
    Some(seen)
}
