//! What happened to a device: the releases that it accepted or rejected, and what people did.

use maud::{Markup, html};

use super::parts::{commit, moment, sign};
use super::site::Visitor;
use crate::fleet::access::Permission;
use crate::model::text::one_line;
use crate::wire::operator_api::access::AuditView;
use crate::wire::operator_api::{DeviceDetail, DeviceView, FleetView};

/// The releases that it accepted or rejected.
pub(super) fn releases(fleet: &FleetView, detail: &DeviceDetail) -> Markup {
    let number = fleet.number.to_string();
    html! {
        section.card aria-labelledby="history-title" {
            h2 #history-title { "Release history" }
            @if detail.history.is_empty() {
                p.muted { "The device has accepted or rejected no release since the server records it." }
            }
            ol.trail {
                @for past in &detail.history {
                    li {
                        @if let Some(at) = past.at { (moment(at)) " " }
                        span.state.(tone(&past.verdict)) { (sign(&past.verdict)) (words(&past.verdict)) } " "
                        (commit(&number, Some(&past.release)))
                        @if !past.why.is_empty() { span.muted { " – " (one_line(&past.why)) } }
                    }
                }
            }
        }
    }
}

fn words(verdict: &str) -> &str {
    match verdict {
        "accepted" => "Accepted",
        "rejected" => "Rejected",
        "running" => "Running",
        other => other,
    }
}

fn tone(verdict: &str) -> &'static str {
    match verdict {
        "accepted" => "good",
        "rejected" => "bad",
        _ => "busy",
    }
}

/// Returns what operators have done with a device, if the user may read it.
pub(super) async fn trail(visitor: &Visitor, device: &DeviceView) -> Option<Vec<AuditView>> {
    if !visitor.may(Permission::Audit) {
        return None;
    }
    let trail = visitor.get::<Vec<AuditView>>(&format!("/audit?device={}&limit=20", device.uuid)).await;
    trail.ok().map(|got| got.value)
}

/// What people did.
pub(super) fn acts(trail: Option<&[AuditView]>) -> Markup {
    html! {
        @if let Some(trail) = trail {
            section.card aria-labelledby="trail-title" {
                h2 #trail-title { "What people did" }
                @if trail.is_empty() { p.muted { "Nobody has changed anything about this device." } }
                ul.trail {
                    @for entry in trail {
                        li {
                            (moment(entry.at)) " "
                            strong { (entry.user.as_deref().unwrap_or(&entry.token)) } " "
                            (entry.what)
                            @if let Some(details) = &entry.details { span.muted { " – " (one_line(details)) } }
                            @if entry.result != "done" { " " span.tag.bad { "refused" } }
                        }
                    }
                }
            }
        }
    }
}
