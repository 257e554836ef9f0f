//! The parameters of a request: from its query, and from its body as JSON or as a form.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde_json::Value;

use crate::listen::{Admitted, Unread, from_json};

use super::answers::failed;

/// The largest body that is read, in bytes. A larger one is refused before it is read.
pub(super) const LARGEST_BODY: usize = 64 << 10;

/// The parameters of a request, by name.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    /// Those of the body go before those of the query.
    all: BTreeMap<String, Value>,
    /// Those of the body alone.
    body: BTreeMap<String, Value>,
}

impl Parameters {
    /// Reads the parameters of a request.
    pub(super) async fn read(
        admitted: &Admitted,
        query: Option<&str>,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Self, Box<Response>> {
        let refused = |status, why: &str| Box::new(failed(status, why));
        let bytes = admitted.read(body, LARGEST_BODY).await.map_err(|why| match why {
            Unread::TooLarge => refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!("the body has more than {LARGEST_BODY} bytes"),
            ),
            Unread::TooSlow => refused(StatusCode::REQUEST_TIMEOUT, &why.to_string()),
            Unread::Busy => refused(StatusCode::SERVICE_UNAVAILABLE, &why.to_string()),
            Unread::Broken => refused(StatusCode::BAD_REQUEST, &why.to_string()),
        })?;
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is_form = kind.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded");
        Self::parse(query.unwrap_or_default(), &bytes, is_form)
            .map_err(|why| refused(StatusCode::BAD_REQUEST, &why))
    }

    /// Parses the parameters. A body of any type that looks like a form is one, because wget sends JSON as a form.
    pub(super) fn parse(query: &str, body: &[u8], is_form: bool) -> Result<Self, String> {
        let mut all = form(query.as_bytes());
        let text = body.trim_ascii();
        let mut body = BTreeMap::new();
        if text.starts_with(b"{") {
            body = from_json(text).map_err(|error| format!("the body is not understood: {error}"))?;
        } else if is_form {
            body = form(text);
        } else if !text.is_empty() && text != b"null" {
            return Err("the body is not understood: it must be a JSON object or a form".to_owned());
        }
        all.extend(body.clone());
        Ok(Self { all, body })
    }

    /// Those of the body alone.
    pub(super) fn of_body(&self) -> &BTreeMap<String, Value> {
        &self.body
    }

    /// A parameter as text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.all.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// A parameter as a number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.trim().parse().ok()
    }

    /// Whether the parameter `force` is set.
    pub(super) fn is_forced(&self) -> bool {
        self.is_set("force")
    }

    /// Whether a parameter is a yes.
    pub(super) fn is_set(&self, name: &str) -> bool {
        match self.all.get(name) {
            Some(Value::Bool(is_set)) => *is_set,
            Some(_) => self.text(name).is_some_and(|text| matches!(text.as_str(), "1" | "true" | "on")),
            None => false,
        }
    }
}

/// Parses `name=value&name=value`. What is not encoded correctly stays.
fn form(text: &[u8]) -> BTreeMap<String, Value> {
    let pairs = form_urlencoded::parse(text).into_owned();
    pairs.map(|(name, value)| (name, Value::String(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_from_query_json_and_form() {
        for (query, body, is_form) in [
            ("serviceName=a%20b&force=true", "", false),
            ("", r#"{"serviceName": "a b", "force": true, "more": [1]}"#, false),
            ("", r#"{"serviceName": "a b", "force": "1"}"#, true),
            ("force=1&serviceName=c", "serviceName=a+b", true),
        ] {
            let all = Parameters::parse(query, body.as_bytes(), is_form).unwrap();
            assert_eq!(
                (all.text("serviceName").as_deref(), all.is_forced()),
                (Some("a b"), true),
                "{query}{body}"
            );
        }
        let all = Parameters::parse("appId=7&x=%zz%4", b" null ", false).unwrap();
        assert_eq!((all.number("appId"), all.text("x").as_deref()), (Some(7), Some("%zz%4")));
        assert!(!all.is_forced());
        assert_eq!(Parameters::parse("", br#"{"appId": 7}"#, false).unwrap().number("appId"), Some(7));
        for body in ["[1]", "{", "7", "{\"a\": 1} x"] {
            assert!(Parameters::parse("", body.as_bytes(), false).is_err(), "{body}");
        }
    }
}
