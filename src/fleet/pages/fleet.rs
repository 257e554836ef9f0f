//! One fleet: its release policy, and its devices.

use axum::extract::{Extension, Path};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::device_table;
use super::fields::{Fields, query};
use super::layout::{self, Place};
use super::parts::{age, command, commit, counted, icon, phase_tone, sign};
use super::query::TableQuery;
use super::site::Visitor;
use super::trouble::Trouble;
use crate::fleet::access::Permission;
use crate::fleet::operator_api::DeviceRows;
use crate::wire::operator_api::access::AuditView;
use crate::wire::operator_api::{FleetView, RolloutView};

pub(super) async fn page(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path(fleet): Path<String>,
) -> Result<Response, Trouble> {
    let fleet = visitor.fleet(&fleet).await?;
    let asked = TableQuery::of(&fields);
    let rows = rows(&visitor, &fleet, &asked).await;
    let rollout = open_rollout(&visitor, &fleet).await;
    let change = policy_change(&visitor, &fleet).await;
    let content = html! {
        h1.visually-hidden { "Fleet " (crate::model::text::one_line(&fleet.name)) }
        div #policy data-live-part {
            (policy_card(&visitor, &fleet, change.as_ref(), rollout.as_ref()))
        }
        @match &rows {
            Ok(rows) if rows.devices == 0 => div #empty data-live-part { (empty(&visitor, &fleet)) },
            Ok(rows) => (device_table::shown(&visitor, &fleet, &asked, rows)),
            Err(trouble) => {
                (device_table::search(&fleet, &asked))
                (layout::failure(trouble))
            }
        }
    };
    let place = Place::of_fleet(fleet.name.clone(), fleet.number, &fleet.name, "devices");
    let status = rows.as_ref().err().map(|trouble| trouble.status).unwrap_or_default();
    Ok((status, layout::page(&visitor, &place, &content)).into_response())
}

async fn rows(visitor: &Visitor, fleet: &FleetView, asked: &TableQuery) -> Result<DeviceRows, Trouble> {
    let number = fleet.number.to_string();
    let fields = asked.fields().into_iter().chain([("fleet", number.as_str())]);
    Ok(visitor.get(&format!("/pages/devices?{}", query(fields))).await?.value)
}

/// Returns the rollout of a fleet that is not over.
async fn open_rollout(visitor: &Visitor, fleet: &FleetView) -> Option<RolloutView> {
    let found = visitor.get::<RolloutView>(&format!("/fleets/{}/rollouts/current", fleet.number)).await;
    found.ok().map(|got| got.value).filter(|rollout| rollout.ended.is_none())
}

/// Returns the record of the last change of a fleet's policy, if the user may read the audit trail.
async fn policy_change(visitor: &Visitor, fleet: &FleetView) -> Option<AuditView> {
    if !visitor.may(Permission::Audit) {
        return None;
    }
    let fields =
        [("fleet", fleet.number.to_string()), ("what", "fleet".to_owned()), ("limit", "50".to_owned())];
    let fields = query(fields.iter().map(|(name, value)| (*name, value.as_str())));
    let found = visitor.get::<Vec<AuditView>>(&format!("/audit?{fields}")).await.ok()?.value;
    let words = if fleet.is_tracking_latest { "let a fleet track its latest release" } else { "pin a fleet" };
    found.into_iter().find(|entry| entry.result == "done" && entry.what == words)
}

fn policy_card(
    visitor: &Visitor,
    fleet: &FleetView,
    change: Option<&AuditView>,
    rollout: Option<&RolloutView>,
) -> Markup {
    html! {
        section.card.policy-card aria-labelledby="policy-title" {
            div {
                h2.label #policy-title { "Release policy" }
                p.big {
                    @if fleet.is_tracking_latest { (icon("follow")) "Tracks latest" } @else { (icon("pin")) "Pinned" }
                    @if fleet.target.is_some() { " " (commit(&fleet.number.to_string(), fleet.target.as_deref())) }
                }
                p.muted {
                    @if fleet.is_tracking_latest {
                        @if fleet.target.is_some() { "New final releases go to all devices without a pin of their own." }
                        @else { "There is no release yet." }
                    } @else {
                        "Devices without a pin of their own stay on this release."
                    }
                    @if let Some(change) = change {
                        " Since " (age(change.at)) ", by " (change.user.as_deref().unwrap_or(&change.token)) "."
                    }
                }
            }
            @if let Some(rollout) = rollout { (of_rollout(fleet, rollout)) }
            @if visitor.may(Permission::RollOut) && fleet.releases > 0 {
                div.buttons {
                    a.button.primary href={ "/fleets/" (fleet.number) "/policy" } data-dialog { "Change policy…" }
                    @if rollout.is_none() && fleet.devices > 0 {
                        a.button href={ "/fleets/" (fleet.number) "/rollouts/start" } data-dialog { "Start a rollout…" }
                    }
                }
            }
        }
    }
}

fn of_rollout(fleet: &FleetView, rollout: &RolloutView) -> Markup {
    html! {
        div.of-rollout {
            p.label { "Rollout" }
            p {
                span.(phase_tone(&rollout.phase)) { (sign(&rollout.phase)) }
                a href={ "/fleets/" (fleet.number) "/rollouts" } { "Rollout " (rollout.number) " " (rollout.phase) }
                " " span.muted { "wave " (rollout.wave) " of " (rollout.waves.len()) ", " }
                (counted(usize::try_from(rollout.tally.accepted).unwrap_or(0), "device")) " accepted"
            }
        }
    }
}

fn empty(visitor: &Visitor, fleet: &FleetView) -> Markup {
    let number = fleet.number;
    html! {
        section.card.empty {
            h2 { "Let a device join" }
            p { "On your machine, make the command that joins a device, and run it on a device with Docker:" }
            (command(&format!("cotter fleet join-file {number} --line --endpoint {}", visitor.origin)))
            @if fleet.releases == 0 {
                p { "Give the fleet something to run, from a folder with a compose file:" }
                (command(&format!("cotter push {number} .")))
            }
            p.muted { "What joins shows here by itself." }
        }
    }
}
