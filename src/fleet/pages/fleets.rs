//! All fleets.

use std::collections::HashMap;

use axum::extract::Extension;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::fields::{Fields, query};
use super::layout::{self, Place};
use super::pager;
use super::parts::{age, command, commit, counted, grouped, icon, named, sign, state_words, tone};
use super::site::Visitor;
use super::trouble::Trouble;
use crate::fleet::access::{Permission, Scope};
use crate::wire::operator_api::access::AuditView;
use crate::wire::operator_api::{DeviceState, FleetView};

/// Fleets of a page.
const ROWS: &str = "48";

pub(super) async fn page(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Trouble> {
    let cursor = fields.text("cursor");
    let asked = query([("limit", ROWS), ("cursor", cursor.as_str())]);
    let found = visitor.get::<Vec<FleetView>>(&format!("/fleets?{asked}")).await?;
    let (fleets, is_first) = (found.value, cursor.is_empty());
    let changes = last_changes(&visitor).await;
    let total: usize = fleets.iter().map(|fleet| fleet.devices).sum();
    let is_all = is_first && found.next.is_none();
    let next = found.next.map(|next| format!("/fleets?{}", query([("cursor", next.as_str())])));
    let first = (!is_first).then(|| "/fleets".to_owned());
    let content = html! {
        div.page-head {
            h1 { "Fleets" }
            @if !fleets.is_empty() {
                p.muted { (counted(fleets.len(), "fleet")) @if !is_all { " on this page" } ", " (counted(total, "device")) }
            }
            @if may_create(&visitor) && !fleets.is_empty() {
                a.button.right href="/new-fleet" data-dialog { "Create a fleet…" }
            }
        }
        div #fleets data-live-part {
            @if fleets.is_empty() && is_first { (empty(&visitor)) } @else {
                div.cards { @for fleet in &fleets { (card(fleet, changes.get(&fleet.name))) } }
            }
            @if !is_all { (pager::links(&counted(fleets.len(), "fleet"), first, next)) }
        }
    };
    Ok(layout::page(&visitor, &Place::new("Fleets", "fleets"), &content).into_response())
}

/// Returns the newest record of the audit trail of each fleet, by its name, if the user may read it.
async fn last_changes(visitor: &Visitor) -> HashMap<String, AuditView> {
    if !visitor.may(Permission::Audit) {
        return HashMap::new();
    }
    let trail = visitor.get::<Vec<AuditView>>("/audit?limit=200").await;
    let mut newest = HashMap::new();
    for entry in trail.map(|got| got.value).unwrap_or_default() {
        for fleet in entry.fleets.iter().filter(|_| entry.result == "done") {
            newest.entry(fleet.clone()).or_insert_with(|| entry.clone());
        }
    }
    newest
}

fn card(fleet: &FleetView, change: Option<&AuditView>) -> Markup {
    html! {
        article.card.fleet-card {
            h2 { a.cover href={ "/fleets/" (fleet.number) } { (named(&fleet.name)) } }
            p.policy {
                @if fleet.is_tracking_latest { (icon("follow")) "Tracks latest" } @else { (icon("pin")) "Pinned" }
                " " span.muted { "to" } " " (commit(&fleet.number.to_string(), fleet.target.as_deref()))
            }
            (bar(&fleet.states, fleet.devices))
            @if fleet.devices == 0 {
                p.muted { "No device has joined yet." }
            } @else {
                ul.counts {
                    @for (state, count) in &fleet.states {
                        li.(tone(*state)) { (sign(state.as_str())) strong { (grouped(*count)) } " " (state_words(*state)) }
                    }
                }
            }
            p.muted.small {
                (counted(fleet.devices, "device")) " · " (counted(fleet.releases, "release"))
                @if let Some(change) = change {
                    " · last change " (age(change.at)) " by " (change.user.as_deref().unwrap_or(&change.token))
                }
            }
        }
    }
}

/// The shares of the states, as a bar. The numbers stand beside it, so it is hidden from readers of screens.
pub(super) fn bar(states: &std::collections::BTreeMap<DeviceState, usize>, all: usize) -> Markup {
    // Widths are in thousandths of the bar.
    let mut begin = 0;
    let mut parts = Vec::new();
    for (state, count) in states {
        let width = (count * 1000).checked_div(all).unwrap_or(0).max(4);
        parts.push((tone(*state), begin, width));
        begin += width;
    }
    html! {
        svg.bar viewBox={ "0 0 " (begin.max(1)) " 8" } preserveAspectRatio="none" aria-hidden="true" {
            @for (tone, begin, width) in parts {
                rect.(tone) x=(begin) y="0" width=(width) height="8" {}
            }
        }
    }
}

/// A token for some fleets creates none.
fn may_create(visitor: &Visitor) -> bool {
    visitor.may(Permission::Fleets) && *visitor.caller.scope == Scope::All
}

fn empty(visitor: &Visitor) -> Markup {
    html! {
        section.card.empty {
            h2 { "Create your first fleet" }
            p { "A fleet is a set of devices that run the same app." }
            @if may_create(visitor) {
                div.buttons { a.button.primary href="/new-fleet" data-dialog { "Create a fleet…" } }
            }
            p { "Or on your machine, with your token in a file:" }
            (command(&format!("cotter fleet create greenhouse --url {} --token-file FILE", visitor.origin)))
            p.muted { "This page shows the fleet as soon as it is there." }
        }
    }
}
