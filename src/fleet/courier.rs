//! Makes the requests to webhooks. Each has a deadline, no redirect is followed, and no more than a few bytes of an answer are
//! read. It knows no records.

use std::time::Duration;

use serde::Deserialize;

use super::clock;
use super::policy::Attempt;
use super::webhook::Webhook;
use crate::http::header::HeaderName;
use crate::http::{self, Answer, Http, Method, Request, StatusCode};
use crate::model::text::shortened;

/// Longest time of a request, from connecting to the end of its answer. Less than [`super::policy::CLAIM`].
const WITHIN: Duration = Duration::from_secs(10);

/// Maximum number of bytes of an answer to a question.
const LONGEST_ANSWER: usize = 16 * 1024;

/// Maximum number of characters of a reason that an answer gives.
const LONGEST_WHY: usize = 200;

/// The way to the webhooks. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Courier {
    http: Http,
}

/// The answer to the question whether a wave may begin.
#[derive(Deserialize)]
struct Word {
    proceed: bool,
    #[serde(default)]
    why: Option<String>,
}

impl Courier {
    /// Opens no connection yet.
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up on this machine.
    pub(super) fn new() -> Result<Self, http::Failure> {
        Ok(Self { http: Http::new()? })
    }

    /// Sends a message. Returns the status of the answer, whose body is not read.
    ///
    /// # Errors
    ///
    /// [`Attempt`], if the answer does not say that the message was taken.
    pub(super) async fn deliver(
        &self,
        webhook: &Webhook,
        id: &str,
        body: &str,
    ) -> Result<StatusCode, Attempt> {
        let answer = self.post(webhook, id, body).await?;
        if answer.status().is_success() { Ok(answer.status()) } else { Err(refused(&answer)) }
    }

    /// Asks a webhook whether a wave may begin.
    ///
    /// # Errors
    ///
    /// [`Attempt`], unless it answers 200 with `{"proceed": true}`.
    pub(super) async fn ask(&self, webhook: &Webhook, id: &str, body: &str) -> Result<(), Attempt> {
        let answer = self.post(webhook, id, body).await?;
        if answer.status() != StatusCode::OK {
            return Err(refused(&answer));
        }
        let retry_after = answer.retry_after();
        let no = |why: String| Attempt { why, retry_after };
        let answer = answer.body(LONGEST_ANSWER).await.map_err(|failure| no(failure.to_string()))?;
        match serde_json::from_slice(&answer) {
            Ok(Word { proceed: true, .. }) => Ok(()),
            Ok(Word { why: Some(why), .. }) => {
                Err(no(format!("it said no: {}", shortened(&why, LONGEST_WHY))))
            }
            Ok(Word { why: None, .. }) => Err(no("it said no".to_owned())),
            Err(_) => Err(no("it answered 200, and neither yes nor no".to_owned())),
        }
    }

    async fn post(&self, webhook: &Webhook, id: &str, body: &str) -> Result<Answer, Attempt> {
        let failed = |why: String| Attempt { why, retry_after: None };
        let now = clock::now();
        let signature = webhook.secret.sign(id, now, body).map_err(|error| failed(error.to_string()))?;
        let request = Request::new(Method::POST, webhook.url.clone(), WITHIN)
            .header(HeaderName::from_static("webhook-id"), id)
            .header(HeaderName::from_static("webhook-timestamp"), &now.as_second().to_string())
            .header(HeaderName::from_static("webhook-signature"), &signature)
            .json(body.as_bytes().to_vec());
        self.http.send(request).await.map_err(|failure| failed(failure.to_string()))
    }
}

fn refused(answer: &Answer) -> Attempt {
    let why = format!("it answered {}", answer.status().as_u16());
    Attempt { why, retry_after: answer.retry_after() }
}
