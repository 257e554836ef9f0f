//! What the services of a device write: the last lines on its page, and the stream of new ones for the script.
//!
//! A device uploads its logs only while they are asked for, so a page shows them when its reader opens them. All text is made
//! safe to show here; the script adds it as text.

use std::cmp::min;
use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path};
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::fields::{Fields, encoded};
use super::layout::failure;
use super::site::Visitor;
use super::trouble::Trouble;
use crate::fleet::access::Permission;
use crate::model::text::{one_line, shortened};
use crate::wire::operator_api::DeviceDetail;

/// How many of the last lines a page shows without a script, and with one when it begins to follow.
const LAST: usize = 200;
const BEGIN: usize = 1000;

/// Longest text of a line, in characters. `cotter device logs` shows all of it.
const LONGEST: usize = 2000;

/// A stream ends after so long, and the script opens another one, for which the session and the token are checked again.
const FOLLOWED: Duration = Duration::from_secs(90);

/// How long the records may take to give the last lines.
const FIRST: Duration = Duration::from_secs(10);

/// How late a line of one service may arrive after a later one of another service, and how many lines later.
const LATE: SignedDuration = SignedDuration::from_secs(10);
const LATE_LINES: usize = 200;

/// How many colours there are.
const COLOURS: usize = 6;

/// Maximum number of services that are listed. Lines of others are shown, too.
const MOST_SERVICES: usize = 50;

/// The name that lines of the agent have.
const AGENT: &str = "cotter";

/// A line of the API.
#[derive(Debug, Deserialize)]
struct Line {
    at: Timestamp,
    /// Absent: of the device's agent.
    service: Option<String>,
    #[serde(default)]
    stderr: bool,
    message: String,
}

/// A line as a page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Shown {
    at: Timestamp,
    service: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stderr: bool,
    text: String,
}

impl From<Line> for Shown {
    fn from(Line { at, service, stderr, message }: Line) -> Self {
        let service = one_line(&service.unwrap_or_else(|| AGENT.to_owned()));
        Self { at, service, stderr, text: shortened(&one_line(&message), LONGEST) }
    }
}

/// Sends the last lines, then an empty line, and then each new line, as JSON lines. Further empty lines mean nothing.
pub(super) async fn stream(
    Extension(visitor): Extension<Visitor>,
    Path(device): Path<String>,
) -> Result<Response, Trouble> {
    let lines = follow(&visitor, &device, BEGIN).await?.into_data_stream();
    // The first piece has the last lines, also if there are none.
    let mut is_first = true;
    let pieces = lines.map(move |piece| {
        let mut text = piece.map(|piece| json(&shown(&piece))).map_err(io::Error::other)?;
        if std::mem::take(&mut is_first) || text.is_empty() {
            text.push('\n');
        }
        Ok::<_, io::Error>(Bytes::from(text))
    });
    let body = Body::from_stream(pieces.take_until(Box::pin(sleep(FOLLOWED))));
    // A proxy must not keep lines until it has many.
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    Ok(([(CONTENT_TYPE, "application/jsonl"), (unbuffered, "no")], body).into_response())
}

async fn follow(visitor: &Visitor, device: &str, most: usize) -> Result<Body, Trouble> {
    visitor.stream(&format!("/devices/{}/logs?follow=true&lines={most}", encoded(device))).await
}

/// Reads the complete lines of a piece of an answer. Pieces of the API end with a line.
fn shown(piece: &[u8]) -> Vec<Shown> {
    let lines = piece.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok()).map(Shown::from).collect()
}

fn json(lines: &[Shown]) -> String {
    let line = |line| serde_json::to_string(line).unwrap_or_default() + "\n";
    lines.iter().map(line).collect()
}

/// Puts lines in the order of their times. They arrive service by service. A line that is much older than those before it stays
/// where it is, because the device has set its clock back.
fn merged(lines: Vec<Shown>) -> Vec<Shown> {
    let mut merged: Vec<Shown> = Vec::with_capacity(lines.len());
    for line in lines {
        let last = merged.len();
        let is_late = |before: &&Shown| before.at > line.at && before.at.duration_since(line.at) <= LATE;
        let later = merged.iter().rev().take(min(LATE_LINES, last)).take_while(is_late).count();
        merged.insert(last - later, line);
    }
    merged
}

/// The last lines of a device, or why there are none.
pub(super) struct Logs(Result<Vec<Shown>, Trouble>);

/// Returns the last lines if the reader has opened the logs of this device. Asks the device for them.
pub(super) async fn opened(visitor: &Visitor, fields: &Fields, device: &str) -> Option<Logs> {
    // The script has a stream of its own, and keeps its part when the page loads itself.
    if fields.get("logs").is_none() || visitor.is_by_script || !visitor.may(Permission::See) {
        return None;
    }
    let last = async {
        let mut pieces = follow(visitor, device, LAST).await?.into_data_stream();
        let first = timeout(FIRST, pieces.next()).await;
        Ok(first.ok().flatten().and_then(Result::ok).map(|piece| merged(shown(&piece))).unwrap_or_default())
    };
    Some(Logs(last.await))
}

/// The part of the device's page. `logs` is absent while they are not opened.
pub(super) fn part(visitor: &Visitor, detail: &DeviceDetail, logs: Option<&Logs>) -> Markup {
    let page = format!("/devices/{}", detail.device.uuid);
    // The records of one server alone have no position.
    let is_shared = visitor.site.gate.records().world().position().is_some();
    html! {
        @if visitor.may(Permission::See) {
            section.card #logs aria-labelledby="logs-title" {
                div.card-head {
                    h2 #logs-title { "Logs" }
                    @match logs {
                        None => a href={ (page) "?logs=1#logs" } { "Show logs" },
                        Some(_) => a href=(page) { "Hide logs" },
                    }
                }
                @match logs {
                    None => p.muted { "What the services write. The device uploads it while a page or a command shows it." },
                    Some(Logs(Err(trouble))) => (failure(trouble)),
                    Some(Logs(Ok(lines))) => (open(&page, detail, lines, is_shared)),
                }
            }
        }
    }
}

fn open(page: &str, detail: &DeviceDetail, lines: &[Shown], is_shared: bool) -> Markup {
    let services = services(detail, lines);
    html! {
        div.log-tools hidden {
            div.field {
                label for="log-filter" { "Lines that contain" }
                input #log-filter type="search" maxlength="200" autocomplete="off" spellcheck="false";
            }
            fieldset #log-services {
                legend.label { "Services" }
                @for (colour, service) in services.iter().enumerate() { (choice(service, &format!("of-{}", colour % COLOURS))) }
                (choice(AGENT, "of-agent"))
            }
            button #log-pause type="button" { "Pause" }
        }
        div.log-lines #log-lines tabindex="0" role="group" aria-label="Lines of the logs" data-stream={ (page) "/logs" } {
            @for line in lines { (row(line, &services)) }
        }
        @if is_shared {
            p.note #log-servers {
                "Several servers share these devices, and the lines of a device are at the server that it sends them to. If none come here, ask another server: "
                code { "cotter device logs " (detail.device.uuid) }
            }
        }
        p.muted.small #log-state role="status" {
            @if lines.is_empty() {
                "There are no lines yet. The device was asked for them, and sends the first ones in about 10 seconds if it is online. Load the page again."
            } @else {
                "These are the last lines, " (LAST) " at most. Load the page again for newer ones."
            }
        }
    }
}

/// Returns the services whose lines may come, in the order of their colours.
fn services(detail: &DeviceDetail, lines: &[Shown]) -> Vec<String> {
    let reported = detail.services.iter().map(|service| one_line(&service.service));
    let mut services: Vec<String> = Vec::new();
    for service in reported.chain(lines.iter().map(|line| line.service.clone())) {
        if service != AGENT && !services.contains(&service) && services.len() < MOST_SERVICES {
            services.push(service);
        }
    }
    services
}

/// Whether the lines of a service are shown.
fn choice(service: &str, class: &str) -> Markup {
    html! {
        label.check.(class) {
            input type="checkbox" value=(service) checked autocomplete="off";
            span { (service) }
        }
    }
}

fn row(line: &Shown, services: &[String]) -> Markup {
    let colour = services.iter().position(|service| *service == line.service);
    let class = colour.map_or_else(|| "of-agent".to_owned(), |colour| format!("of-{}", colour % COLOURS));
    html! {
        p.(class) {
            time datetime=(line.at) { (line.at.strftime("%H:%M:%S%.3f")) } " "
            b { (line.service) } " "
            @if line.stderr { i { "err" } " " }
            span.text { (line.text) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: i64, text: &str) -> Shown {
        let at = Timestamp::from_millisecond(at).unwrap();
        Shown { at, service: "web".to_owned(), stderr: false, text: text.to_owned() }
    }

    #[test]
    fn lines_are_merged_by_time_unless_the_clock_was_set_back() {
        let order = |times: &[i64]| -> Vec<i64> {
            let lines = times.iter().map(|at| line(*at, "")).collect();
            merged(lines).iter().map(|line| line.at.as_millisecond()).collect()
        };
        assert_eq!(order(&[1, 5, 9, 2, 6, 10]), [1, 2, 5, 6, 9, 10]);
        assert_eq!(order(&[100_000, 100_001, 5, 6]), [100_000, 100_001, 5, 6]);
        assert_eq!(order(&[7, 7, 3]), [3, 7, 7]);
        assert_eq!(order(&[]), [0; 0]);
    }

    #[test]
    fn text_of_a_line_is_safe_to_show_and_bounded() {
        let piece = concat!(
            r#"{"at":"1970-01-01T00:00:01Z","service":"web","stderr":true,"message":"\u001b[31m<b>\u202egnp\u0007"}"#,
            "\n\nno json\n",
            r#"{"at":"1970-01-01T00:00:02Z","stderr":false,"message":"Started"}"#,
            "\n",
        );
        let lines = shown(piece.as_bytes());
        assert_eq!(
            json(&lines),
            concat!(
                r#"{"at":"1970-01-01T00:00:01Z","service":"web","stderr":true,"text":"\\u{1b}[31m<b>\\u{202e}gnp\\u{7}"}"#,
                "\n",
                r#"{"at":"1970-01-01T00:00:02Z","service":"cotter","text":"Started"}"#,
                "\n",
            )
        );
        let long = format!(r#"{{"at":"1970-01-01T00:00:01Z","message":"{}"}}"#, "x".repeat(10_000));
        let text = &shown(long.as_bytes())[0].text;
        assert!(text.ends_with("… (and 8000 characters more)") && text.len() < 2100, "{}", text.len());
    }
}
