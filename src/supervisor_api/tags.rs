//! The device's tags in its cloud. They are read there; changes are kept on the device until the cloud has taken them.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::model::{
    DeviceTag, LONGEST_SET_KEY as LONGEST_KEY, LONGEST_SET_VALUE as LONGEST_VALUE, MOST_TAGS,
};

use super::Supervisor;
use super::answers::{failed, success};
use super::request::Parameters;

/// Namespaces that are reserved for balena.
const RESERVED: [&str; 2] = ["io.resin.", "io.balena."];

/// Longest time for an answer. While the device registers, nothing answers.
const WITHIN: Duration = Duration::from_secs(40);

/// What a service asks about the device's tags, with the sender for the answer. An error is a line for people.
#[derive(Debug)]
pub enum TagRequest {
    Read(oneshot::Sender<Result<Vec<DeviceTag>, String>>),
    /// Keeps changes until the cloud has taken them.
    Set(BTreeMap<String, String>, oneshot::Sender<Result<(), String>>),
}

/// Shows the tags, as the cloud has them.
pub(super) async fn read(supervisor: &Supervisor) -> Response {
    match ask(supervisor, TagRequest::Read).await {
        Ok(tags) => {
            let tag = |tag: &DeviceTag| json!({ "id": tag.id, "name": tag.key, "value": tag.value });
            success(json!({ "tags": tags.iter().map(tag).collect::<Vec<_>>() }))
        }
        Err(refusal) => *refusal,
    }
}

/// Takes tags to create or to change.
pub(super) async fn set(supervisor: &Supervisor, parameters: &Parameters) -> Response {
    let tags = match checked(parameters.of_body()) {
        Ok(tags) => tags,
        Err(why) => return failed(StatusCode::BAD_REQUEST, &why),
    };
    match ask(supervisor, |answer| TagRequest::Set(tags, answer)).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(refusal) => *refusal,
    }
}

/// Hands a request to the task that talks to the cloud, if the owner allows that.
async fn ask<T>(
    supervisor: &Supervisor,
    request: impl FnOnce(oneshot::Sender<Result<T, String>>) -> TagRequest,
) -> Result<T, Box<Response>> {
    if !supervisor.allowed.tags {
        let why = "the owner of this device does not let apps use its key of the cloud: policy.balena_api = \"yes\" allows it";
        return Err(Box::new(failed(StatusCode::FORBIDDEN, why)));
    }
    let refused = |why: &str| Box::new(failed(StatusCode::INTERNAL_SERVER_ERROR, why));
    let tags = supervisor.tags.as_ref().ok_or_else(|| refused("this device has no cloud"))?;
    let (answer, answered) = oneshot::channel();
    let asked = async {
        tags.send(request(answer)).await.map_err(|_| refused("the agent is stopping"))?;
        answered.await.map_err(|_| refused("the agent is stopping"))?.map_err(|why| refused(&why))
    };
    let late = |_| refused("the cloud has not answered yet; try again");
    tokio::time::timeout(WITHIN, asked).await.map_err(late)?
}

/// Returns the tags of a body.
fn checked(body: &BTreeMap<String, Value>) -> Result<BTreeMap<String, String>, String> {
    if body.is_empty() {
        return Err(
            "the body names no tag: it must be a JSON object of texts, {\"key\": \"value\"}".to_owned()
        );
    }
    if body.len() > MOST_TAGS {
        return Err(format!("there are {} tags, and a device has at most {MOST_TAGS}", body.len()));
    }
    let tag = |(key, value): (&String, &Value)| {
        let is_good = !key.is_empty()
            && key.len() <= LONGEST_KEY
            && key.chars().all(|c| !c.is_whitespace() && !c.is_control())
            && !RESERVED.iter().any(|reserved| key.starts_with(reserved));
        if !is_good {
            let key: String = key.chars().take(LONGEST_KEY).collect();
            return Err(format!(
                "the key {key:?} is not accepted: it must have 1 to {LONGEST_KEY} characters, no space, and not begin with \
                 io.resin. or io.balena."
            ));
        }
        match value.as_str().filter(|value| value.len() <= LONGEST_VALUE && !value.contains('\0')) {
            Some(value) => Ok((key.clone(), value.to_owned())),
            None => Err(format!(
                "the value of {key:?} is not accepted: it must be a text of at most {LONGEST_VALUE} bytes"
            )),
        }
    };
    body.iter().map(tag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_are_accepted_and_refused() {
        let read = |body: Value| {
            let body: BTreeMap<String, Value> = serde_json::from_value(body).unwrap();
            checked(&body).map(|tags| tags.len())
        };
        assert_eq!(read(json!({ "site": "zurich", "a/b:c": "", "größe": "2 m\n" })), Ok(3));
        let many: BTreeMap<_, _> = (0..=MOST_TAGS).map(|n| (format!("k{n}"), "v")).collect();
        for (body, expected) in [
            (json!({}), "the body names no tag"),
            (json!({ "": "x" }), "the key \"\" is not accepted"),
            (json!({ "a b": "x" }), "the key \"a b\" is not accepted"),
            (json!({ "io.balena.x": "x" }), "the key \"io.balena.x\" is not accepted"),
            (json!({ "a": 7 }), "the value of \"a\" is not accepted"),
            (json!({ "a": "x".repeat(5000) }), "the value of \"a\" is not accepted"),
            (json!(many), "there are 101 tags"),
        ] {
            let why = read(body.clone()).unwrap_err();
            assert!(why.starts_with(expected), "{body}: {why}");
        }
    }
}
