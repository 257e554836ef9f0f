//! The audit trail: who did what, and when.

use axum::extract::Extension;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::fields::{Fields, query};
use super::layout::{self, Place};
use super::parts::{moment, named, plain_commit};
use super::site::{Got, Visitor};
use super::trouble::Trouble;
use crate::model::text::one_line;
use crate::wire::operator_api::access::{AuditView, ThingView};

/// The fields of the filter, with their words.
const FILTER: [(&str, &str, &str); 4] = [
    ("by", "User or token", "anna"),
    ("what", "What", "pin"),
    ("device", "Device", "name or UUID"),
    ("fleet", "Fleet", "name"),
];

/// Maximum number of things that a row names.
const THINGS: usize = 3;

/// The filter of a request, as fields of a query.
pub(super) fn given(fields: &Fields) -> Vec<(&'static str, String)> {
    FILTER.map(|(name, ..)| (name, fields.text(name))).to_vec()
}

pub(super) async fn page(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Trouble> {
    let given = given(&fields);
    let asked = given.iter().map(|(name, value)| (*name, value.as_str()));
    let cursor = fields.text("cursor");
    let all = asked.clone().chain([("cursor", cursor.as_str()), ("limit", "50")]);
    let found = visitor.get::<Vec<AuditView>>(&format!("/audit?{}", query(all))).await;
    if let Err(trouble) = &found
        && trouble.status == StatusCode::FORBIDDEN
    {
        return Err(trouble.clone());
    }
    let filter: Vec<(&str, &str)> = asked.collect();
    let content = html! {
        div.page-head { h1 { "Audit" } p.muted { "Every change, and every change that was refused." } }
        (search(&fields))
        @match &found {
            Ok(found) => {
                @if !found.value.is_empty() { (export(&filter)) }
                div.card.table-card #trail data-live-part[cursor.is_empty()] { (table(found, &filter)) }
            },
            Err(trouble) => (layout::failure(trouble)),
        }
    };
    let status = found.as_ref().err().map(|trouble| trouble.status).unwrap_or_default();
    Ok((status, layout::page(&visitor, &Place::new("Audit", "audit"), &content)).into_response())
}

fn search(fields: &Fields) -> Markup {
    let is_narrowed = FILTER.iter().any(|(name, ..)| fields.get(name).is_some());
    html! {
        form.search method="get" action="/audit" role="search" aria-label="Audit trail" {
            @for (name, words, example) in FILTER {
                div.field {
                    label for=(name) { (words) }
                    input #(name) type="search" name=(name) value=(fields.text(name)) placeholder=(example) spellcheck="false";
                }
            }
            button type="submit" { "Filter" }
            @if is_narrowed { a.clear href="/audit" { "Clear" } }
        }
    }
}

/// The link to the file with all records of the filter, not of this page alone.
fn export(filter: &[(&str, &str)]) -> Markup {
    let fields = query(filter.iter().copied());
    html! {
        div.buttons {
            a.button href={ "/audit/export" (if fields.is_empty() { "" } else { "?" }) (fields) } download { "Download as JSON lines" }
            p.muted.small { "All records of this filter, at most the newest 100,000." }
        }
    }
}

fn table(found: &Got<Vec<AuditView>>, filter: &[(&str, &str)]) -> Markup {
    if found.value.is_empty() {
        return html! { div.nothing { p { strong { "No record matches." } } p { a href="/audit" { "Show all" } } } };
    }
    html! {
        table.audit {
            thead {
                tr {
                    th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "What" }
                    th scope="col" { "Things" } th scope="col" { "Result" }
                }
            }
            tbody { @for entry in &found.value { (row(entry)) } }
        }
        @if let Some(next) = &found.next {
            nav.pager aria-label="Pages" {
                a href={ "/audit?" (query(filter.iter().copied().chain([("cursor", next.as_str())]))) } { "Older" }
            }
        }
    }
}

/// A release is named by its commit, which is long.
fn thing_named(thing: &ThingView) -> Markup {
    let name = thing.name.as_deref().unwrap_or(&thing.id);
    let is_commit = name.len() >= 32 && name.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_commit { plain_commit(Some(name)) } else { named(name) }
}

fn row(entry: &AuditView) -> Markup {
    html! {
        tr {
            th scope="row" { (moment(entry.at)) }
            td data-label="Who" {
                strong { (named(entry.user.as_deref().unwrap_or(&entry.token))) }
                p.muted.small {
                    @if entry.user.is_some() { (named(&entry.token)) " " }
                    @if let Some(from) = &entry.from { (from) }
                }
            }
            td data-label="What" {
                (entry.what)
                @if let Some(details) = &entry.details { p.small { (one_line(details)) } }
                @if let Some(why) = &entry.why { p.small { "Reason: " (named(why)) } }
                p.muted.small { code { (one_line(&entry.request)) } }
            }
            td data-label="Things" {
                @for thing in entry.things.iter().take(THINGS) {
                    p.small {
                        span.muted { (thing.kind) " " }
                        @if thing.kind == "device" { a href={ "/devices/" (thing.id) } { (named(thing.name.as_deref().unwrap_or(&thing.id))) } }
                        @else { (thing_named(thing)) }
                    }
                }
                @if entry.count > THINGS { p.muted.small { "and " (entry.count - THINGS) " more" } }
            }
            td data-label="Result" {
                @if entry.result == "done" { span.state.good { (layout::sign("accepted")) "Done" } } @else {
                    span.state.bad { (layout::sign("rejected")) "Refused" }
                    @if let Some(message) = &entry.message { p.small { (one_line(message)) } }
                }
            }
        }
    }
}
