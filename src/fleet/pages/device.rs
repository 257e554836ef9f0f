//! One device: what it should run, what it runs, and why these differ.

use axum::extract::{Extension, Path};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::Value;

use super::device_table::{online, policy, tag_words};
use super::fields::{Fields, encoded, query};
use super::layout::{self, Place};
use super::parts::{age, commit, icon, moment, named, plain_commit, sign, state, state_meaning};
use super::site::Visitor;
use super::trouble::Trouble;
use super::{history, logs};
use crate::fleet::access::Permission;
use crate::model::text::one_line;
use crate::wire::operator_api::{DeviceDetail, DeviceView, FleetView};

/// Fields of reports that are shown, with their words.
const REPORTED: [(&str, &str); 13] = [
    ("os_version", "Operating system"),
    ("os_variant", "Variant"),
    ("supervisor_version", "Supervisor"),
    ("ip_address", "Addresses"),
    ("mac_address", "MAC addresses"),
    ("public_address", "Public address"),
    ("cpu_usage", "CPU, percent"),
    ("cpu_temp", "Temperature, °C"),
    ("cpu_id", "CPU"),
    ("memory_usage", "Memory used, MiB"),
    ("memory_total", "Memory, MiB"),
    ("storage_usage", "Storage used, MiB"),
    ("storage_total", "Storage, MiB"),
];

pub(super) async fn page(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path(device): Path<String>,
) -> Result<Response, Trouble> {
    let detail = visitor.get::<DeviceDetail>(&format!("/devices/{}", encoded(&device))).await?.value;
    let fleet = visitor.get::<FleetView>(&format!("/fleets/{}", encoded(&detail.device.fleet))).await?.value;
    let trail = history::trail(&visitor, &detail.device).await;
    let logs = logs::opened(&visitor, &fields, &detail.device.uuid).await;
    let device = &detail.device;
    let content = html! {
        div.page-head {
            h1 { (named(&device.name)) }
            p.muted { span.uuid-whole { (device.uuid) } " · " (one_line(&device.device_type)) }
        }
        div.columns {
            div.main-column {
                div #standing data-live-part { (standing(&visitor, &fleet, &detail)) }
                div #services data-live-part { (services(&fleet, &detail)) }
                div #evidence data-live-part { (evidence(&fleet, &detail)) }
                (logs::part(&visitor, &detail, logs.as_ref()))
                div #history data-live-part { (history::releases(&fleet, &detail)) }
                div #trail data-live-part { (history::acts(trail.as_deref())) }
            }
            div.side-column {
                (tags(&visitor, &fleet, device))
                div #about data-live-part { (about(&detail)) }
            }
        }
    };
    let place = Place::of_fleet(device.name.clone(), fleet.number, &fleet.name, "devices");
    Ok(layout::page(&visitor, &place, &content).into_response())
}

fn standing(visitor: &Visitor, fleet: &FleetView, detail: &DeviceDetail) -> Markup {
    let (device, number) = (&detail.device, fleet.number.to_string());
    html! {
        section.card aria-labelledby="standing-title" {
            h2.visually-hidden #standing-title { "State" }
            div.standing {
                p.big { (state(device.state)) (online(device)) }
                p.muted { (state_meaning(device.state)) }
            }
            dl.facts {
                div { dt { "Should run" } dd { (commit(&number, device.target.as_deref())) } }
                div { dt { "Runs" } dd { (commit(&number, device.running.as_deref())) } }
                div { dt { "Release policy" } dd { (policy(device, detail.rollout.as_ref())) } }
                div {
                    dt { "Last seen" }
                    dd { @if let Some(seen) = device.last_seen { (age(seen)) } @else { "never" } }
                }
            }
            (why(detail))
            @if visitor.may(Permission::RollOut) { (acts(fleet, device)) }
        }
    }
}

/// Why it does not run its target, in its own words.
fn why(detail: &DeviceDetail) -> Markup {
    let device = &detail.device;
    html! {
        @if !device.why.is_empty() || !detail.waiting.is_empty() {
            div.why-box {
                h3 { "Why it is not done" }
                @if detail.waiting.is_empty() { p { (one_line(&device.why)) } }
                @if !detail.waiting.is_empty() {
                    ul {
                        @for wait in &detail.waiting {
                            li {
                                code { (one_line(&wait.reason)) } " "
                                @if let Some(service) = &wait.service { strong { (named(service)) } ": " }
                                (one_line(&wait.why))
                                @if let Some(since) = wait.since.as_deref().and_then(|since| since.parse().ok()) {
                                    span.muted { " since " (age(since)) }
                                }
                            }
                        }
                    }
                }
            }
        }
        @if let Some(rollout) = &detail.rollout {
            @if !rollout.why.is_empty() {
                p.note { (icon("wave")) "Rollout " (rollout.number) ": " (one_line(&rollout.why)) "." }
            }
        }
        @if let Some(migration) = &device.migration {
            p.note { "It is sent to " (one_line(&migration.to)) " (" (migration.state) "). " (one_line(&migration.why)) }
        }
    }
}

fn acts(fleet: &FleetView, device: &DeviceView) -> Markup {
    let back = format!("/devices/{}", device.uuid);
    let fields = query([("device", device.uuid.as_str()), ("back", back.as_str())]);
    let action = |word: &str| format!("/fleets/{}/actions/{word}?{fields}", fleet.number);
    html! {
        div.buttons {
            a.button.primary href=(action("pin")) data-dialog {
                (icon("pin")) @if device.pin.is_some() { "Pin to another release…" } @else { "Pin to release…" }
            }
            @if device.pin.is_some() { a.button href=(action("track")) data-dialog { (icon("follow")) "Track fleet…" } }
        }
    }
}

fn services(fleet: &FleetView, detail: &DeviceDetail) -> Markup {
    let number = fleet.number.to_string();
    html! {
        section.card aria-labelledby="services-title" {
            h2 #services-title { "Services" }
            @if detail.services.is_empty() {
                p.muted { "The device has not reported a service." }
            } @else {
                table.services {
                    thead { tr { th scope="col" { "Service" } th scope="col" { "Status" } th scope="col" { "Release" } } }
                    tbody {
                        @for service in &detail.services {
                            tr {
                                th scope="row" { (named(&service.service)) }
                                td data-label="Status" {
                                    (one_line(service.status.as_deref().unwrap_or("unknown")))
                                    @if let Some(progress) = service.download_progress.filter(|p| (0..100).contains(p)) {
                                        " " progress max="100" value=(progress) aria-label="Download" { (progress) " %" }
                                        " " span.muted { (progress) " %" }
                                    }
                                }
                                td data-label="Release" { (commit(&number, service.release.as_deref())) }
                            }
                        }
                    }
                }
            }
            @if let Some(at) = detail.reported_at { p.muted.small { "Reported " (age(at)) } }
        }
    }
}

/// How services failed.
fn evidence(fleet: &FleetView, detail: &DeviceDetail) -> Markup {
    html! {
        @if !detail.evidence.is_empty() || detail.rollout.is_some() {
            section.card aria-labelledby="evidence-title" {
                h2 #evidence-title { "Verdicts" }
                @if let Some(rollout) = &detail.rollout {
                    p {
                        @if let Some(verdict) = &rollout.verdict { (sign(verdict)) " " strong { (verdict) } " " }
                        "in rollout " a href={ "/fleets/" (fleet.number) "/rollouts" } { (rollout.number) }
                        " of " (plain_commit(rollout.release.as_deref()))
                        @if let Some(exposed) = rollout.exposed { span.muted { ", exposed " (age(exposed)) } }
                    }
                }
                @for one in detail.evidence.iter().rev() {
                    details.evidence {
                        summary {
                            (sign("failing")) " " strong { (named(&one.service)) } " of " (plain_commit(Some(&one.release)))
                            " " (one_line(one.cause.as_deref().unwrap_or("failed")))
                            @if let Ok(at) = one.at.parse() { span.muted { " " (age(at)) } }
                        }
                        @if one.restarts > 0 { p { "It was restarted " (one.restarts) " times." } }
                        pre tabindex="0" { @for line in &one.lines { (one_line(line)) "\n" } }
                    }
                }
            }
        }
    }
}

fn tags(visitor: &Visitor, fleet: &FleetView, device: &DeviceView) -> Markup {
    let back = format!("/devices/{}", device.uuid);
    let fields = query([("device", device.uuid.as_str()), ("back", back.as_str())]);
    html! {
        section.card aria-labelledby="tags-title" {
            h2 #tags-title { "Tags" }
            @if device.tags.is_empty() { p.muted { "No tags." } }
            p.tags {
                @for (key, value) in &device.tags {
                    a.tag href={ "/fleets/" (fleet.number) "?filter=" (encoded(&format!("{key}={value}"))) } { (tag_words(key, value)) }
                }
            }
            @if visitor.may(Permission::Devices) {
                div.buttons {
                    a.button href={ "/fleets/" (fleet.number) "/actions/tag?" (fields) } data-dialog { "Change tags…" }
                    a.button href={ "/fleets/" (fleet.number) "/actions/move?" (fields) } data-dialog { "Move…" }
                }
            }
            p { a href={ (back) "/variables" } { "Variables of this device" } }
        }
    }
}

fn about(detail: &DeviceDetail) -> Markup {
    let device = &detail.device;
    html! {
        section.card aria-labelledby="about-title" {
            h2 #about-title { "About" }
            dl.about {
                @if let Some(agent) = &device.agent { dt { "Agent" } dd { "Cotter " (one_line(agent)) } }
                @for (field, words) in REPORTED {
                    @if let Some(value) = detail.reported.get(field) { dt { (words) } dd { (plain(value)) } }
                }
                dt { "Joined" } dd { (moment(device.created)) }
                @if let Some(key) = device.provisioning_key_name.as_ref().or(device.provisioning_key.as_ref()) {
                    dt { "Provisioning key" } dd { (named(key)) }
                }
            }
        }
    }
}

/// A reported value as text.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| one_line(&value.to_string()), one_line)
}
