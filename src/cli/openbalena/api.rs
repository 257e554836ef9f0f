//! The API of an openBalena (OData, version 7): reads rows, creates and changes them. In a dry run it only reads.
//!
//! Filters compare numbers alone: the API does not accept every encoding of a text in a query, and no text of ours gets into
//! one this way.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::openbalena_error::BalenaError;
use crate::cli::print;
use crate::http::{Http, Method, Request, StatusCode, Url};
use crate::model::is_loopback;
use crate::model::text::one_line;

/// Longest time for one request.
const WITHIN: Duration = Duration::from_secs(60);

/// Maximum number of bytes of one answer.
const LONGEST: usize = 64 << 20;

/// Rows that are asked for at once.
const PAGE: usize = 1000;

/// Maximum number of retries of a request that the API answers with 429, and the longest delay before one.
const AGAIN: usize = 5;
const LATER: Duration = Duration::from_secs(60);

/// A row of the API.
#[derive(Debug, Clone)]
pub(super) struct Row(Map<String, Value>);

impl Row {
    pub(super) fn id(&self) -> u64 {
        self.link("id").unwrap_or_default()
    }

    pub(super) fn text(&self, field: &str) -> &str {
        self.0.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn is(&self, field: &str) -> bool {
        self.0.get(field).and_then(Value::as_bool).unwrap_or_default()
    }

    /// The number of the row that a field names. The API writes it as a number or in an object.
    pub(super) fn link(&self, field: &str) -> Option<u64> {
        let value = self.0.get(field)?;
        value.as_u64().or_else(|| value.get("__id")?.as_u64())
    }
}

#[derive(Debug)]
pub(super) struct Api {
    http: Http,
    url: Url,
    token: String,
    pub(super) is_dry: bool,
    /// Prints nothing, because the answer is JSON.
    is_quiet: bool,
    /// The last number of a dry run, for what it would create.
    imagined: u64,
    /// What was done, or in a dry run would be, in order.
    pub(super) done: Vec<String>,
}

impl Api {
    pub(super) fn new(
        http: Http,
        given: &str,
        token: String,
        is_dry: bool,
        is_quiet: bool,
    ) -> Result<Self, BalenaError> {
        let bad = |why: String| BalenaError::BadUrl { given: given.to_owned(), why };
        let url = Url::parse(given).map_err(|error| bad(error.to_string()))?;
        let Some(host) = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https")) else {
            return Err(bad("it must begin with https:// and name a host".to_owned()));
        };
        if url.scheme() == "http" && !is_loopback(host) {
            return Err(BalenaError::InTheClear { host: host.to_owned() });
        }
        Ok(Self { http, url, token, is_dry, is_quiet, imagined: u64::MAX, done: Vec::new() })
    }

    /// The address, as the order to move has it.
    pub(super) fn address(&self) -> String {
        self.url.as_str().trim_end_matches('/').to_owned()
    }

    /// Returns the number, unless a dry run has made it up.
    pub(super) fn real(&self, id: u64) -> Option<u64> {
        (id < self.imagined).then_some(id)
    }

    /// Reads all rows that match, in the order of their ids.
    pub(super) async fn rows(
        &self,
        resource: &str,
        select: &str,
        filter: &str,
    ) -> Result<Vec<Row>, BalenaError> {
        let mut rows: Vec<Row> = Vec::new();
        loop {
            let after = rows.last().map(|row| format!("id gt {}", row.id()));
            let all: Vec<&str> =
                [filter].into_iter().filter(|filter| !filter.is_empty()).chain(after.as_deref()).collect();
            let filter =
                if all.is_empty() { String::new() } else { format!("&$filter={}", all.join(" and ")) };
            let query = format!("$select=id,{select}{filter}&$orderby=id asc&$top={PAGE}");
            let path = format!("v7/{resource}?{}", query.replace(' ', "%20"));
            let what = format!("read {resource}");
            let answer = self.send(Method::GET, &path, None, &what).await?;
            let page = match answer.get("d").and_then(Value::as_array) {
                Some(page) => page.iter().filter_map(|row| Some(Row(row.as_object()?.clone()))),
                None => return Err(self.unclear(format!("a list of {resource} has no \"d\""))),
            };
            let (before, last) = (rows.len(), rows.last().map_or(0, Row::id));
            // A server that gives the same page again would be asked for ever.
            rows.extend(page.filter(|row| row.id() > last));
            if rows.len() < before + PAGE {
                return Ok(rows);
            }
        }
    }

    /// Creates a row, and returns its id; in a dry run one that no row has. `what` is a verb's object: "release 4f1a".
    pub(super) async fn create(
        &mut self,
        what: &str,
        resource: &str,
        body: &Value,
    ) -> Result<u64, BalenaError> {
        let id = self.add(what, resource, body).await?;
        self.note(if self.is_dry { "would create" } else { "created" }, what);
        Ok(id)
    }

    /// As [`create`](Self::create), as a part of what was created.
    pub(super) async fn add(&mut self, what: &str, resource: &str, body: &Value) -> Result<u64, BalenaError> {
        if self.is_dry {
            self.imagined -= 1;
            return Ok(self.imagined);
        }
        let action = format!("create {what}");
        let made = self.send(Method::POST, &format!("v7/{resource}"), Some(body), &action).await?;
        let id = made.get("id").and_then(Value::as_u64);
        id.ok_or_else(|| self.unclear(format!("a new {resource} has no id")))
    }

    /// Changes a row. `what`: "release 4f1a to success".
    pub(super) async fn change(
        &mut self,
        what: &str,
        resource: &str,
        id: u64,
        body: &Value,
    ) -> Result<(), BalenaError> {
        self.patch(what, resource, id, body).await?;
        self.note(if self.is_dry { "would set" } else { "set" }, what);
        Ok(())
    }

    /// As [`change`](Self::change), as a part of what was created.
    pub(super) async fn patch(
        &self,
        what: &str,
        resource: &str,
        id: u64,
        body: &Value,
    ) -> Result<(), BalenaError> {
        if !self.is_dry {
            let action = format!("set {what}");
            self.send(Method::PATCH, &format!("v7/{resource}({id})"), Some(body), &action).await?;
        }
        Ok(())
    }

    /// Makes a provisioning key of a fleet.
    pub(super) async fn provisioning_key(&self, application: u64) -> Result<String, BalenaError> {
        let (path, body) =
            (format!("api-key/application/{application}/provisioning"), json!({ "name": "cotter" }));
        let key = self.send(Method::POST, &path, Some(&body), "make a provisioning key").await?;
        key.as_str()
            .map(str::to_owned)
            .ok_or_else(|| self.unclear("a provisioning key is no text".to_owned()))
    }

    /// Prints what was done, unless the answer is JSON, and keeps it.
    pub(super) fn note(&mut self, verb: &str, what: &str) {
        let line = format!("{verb} {what}");
        if !self.is_quiet {
            print::reaches(&line);
        }
        self.done.push(line);
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        what: &str,
    ) -> Result<Value, BalenaError> {
        let url = format!("{}/{path}", self.address());
        for turn in 0.. {
            let mut request = Request::new(method.clone(), &url, WITHIN).bearer(&self.token);
            if let Some(body) = body {
                request = request.json(body.to_string().into_bytes());
            }
            let failed = |why| BalenaError::Unreachable { url: self.address(), why };
            let answer = self.http.send(request).await.map_err(failed)?;
            let status = answer.status();
            if status == StatusCode::TOO_MANY_REQUESTS && turn < AGAIN {
                tokio::time::sleep(answer.retry_after().unwrap_or(LATER).min(LATER)).await;
                continue;
            }
            if !status.is_success() {
                let words = one_line(&String::from_utf8_lossy(&answer.beginning().await)).trim().to_owned();
                return Err(match status {
                    StatusCode::UNAUTHORIZED => BalenaError::WrongToken { url: self.address() },
                    _ => BalenaError::Refused { what: what.to_owned(), status, words },
                });
            }
            let body = answer.body(LONGEST).await.map_err(failed)?;
            // Changes have empty answers.
            if body.is_empty() || method == Method::PATCH {
                return Ok(Value::Null);
            }
            return serde_json::from_slice(&body).map_err(|error| self.unclear(error.to_string()));
        }
        Err(self.unclear("it wants every request later".to_owned()))
    }

    fn unclear(&self, why: String) -> BalenaError {
        BalenaError::NotUnderstood { url: self.address(), why }
    }
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
