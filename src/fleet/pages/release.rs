//! One release: what is in it, who runs it, and its flags.

use axum::extract::{Extension, Path};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::fields::{Fields, encoded, query};
use super::layout::{self, Place};
use super::parts::{counted, csrf, flags, icon, moment, named, short};
use super::release_compare;
use super::site::{Got, Visitor};
use super::trouble::Trouble;
use crate::fleet::access::Permission;
use crate::model::ReleaseStatus;
use crate::model::text::one_line;
use crate::wire::operator_api::{Code, FleetView, Nothing, PatchRelease, ReleaseDetail, ReleaseView};

pub(super) async fn page(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path((fleet, release)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    let fleet = visitor.fleet(&fleet).await?;
    let found = visitor.get::<ReleaseDetail>(&address(&fleet, &release)).await?;
    let content = match fields.get("do") {
        Some(act) => confirm(&visitor, &fleet, &found, act, None)?,
        None => {
            let compared =
                release_compare::card(&visitor, &fleet, &found.value, fields.get("compare")).await?;
            whole(&visitor, &fleet, &found.value, &compared)
        }
    };
    Ok(shown(&visitor, &fleet, &found.value.release, &content))
}

fn address(fleet: &FleetView, release: &str) -> String {
    format!("/releases/{}?fleet={}", encoded(release), fleet.number)
}

fn shown(visitor: &Visitor, fleet: &FleetView, release: &ReleaseView, content: &Markup) -> Response {
    let title = format!("Release {}", short(&release.commit));
    let place = Place::of_fleet(title, fleet.number, &fleet.name, "releases");
    layout::page(visitor, &place, content).into_response()
}

fn whole(visitor: &Visitor, fleet: &FleetView, detail: &ReleaseDetail, compared: &Markup) -> Markup {
    let release = &detail.release;
    html! {
        div.page-head {
            h1 { "Release " code { (short(&release.commit)) } " " (flags(release)) }
            p.muted { span.uuid-whole { (release.commit) } " · built " (moment(release.start_timestamp)) }
        }
        div #use data-live-part {
            section.card aria-labelledby="use-title" {
                h2 #use-title { "Who runs it" }
                p { "It runs on " (counted(release.running_devices, "device")) ", and is the pin of " (counted(release.pinned_devices, "device")) "." }
                (acts(visitor, fleet, release))
            }
        }
        section.card aria-labelledby="services-title" {
            h2 #services-title { "Services" }
            @if release.services.is_empty() { p.muted { "It has no images: its build failed." } } @else {
                table.services {
                    thead { tr { th scope="col" { "Service" } th scope="col" { "Image" } } }
                    tbody {
                        @for (service, image) in &release.services {
                            tr { th scope="row" { (named(service)) } td data-label="Image" { code.image { (one_line(image)) } } }
                        }
                    }
                }
                @for (service, composition) in &detail.composition.services {
                    details.evidence {
                        summary { "Compose of " (named(service)) }
                        pre tabindex="0" { (crate::model::text::json(&serde_json::to_string_pretty(composition).unwrap_or_default())) }
                    }
                }
            }
        }
        (compared)
        @if let Some(log) = &detail.build_log {
            section.card aria-labelledby="log-title" {
                h2 #log-title { "End of the build log" }
                pre tabindex="0" { @for line in log.lines() { (one_line(line)) "\n" } }
            }
        }
    }
}

/// The acts that the release's flags leave open.
fn acts(visitor: &Visitor, fleet: &FleetView, release: &ReleaseView) -> Markup {
    let here = format!("/fleets/{}/releases/{}", fleet.number, release.commit);
    let link =
        |act: &str, words: &str| html! { a.button href={ (here) "?do=" (act) } data-dialog { (words) } };
    let is_whole = release.status == ReleaseStatus::Success && !release.is_invalidated;
    let (may_pin, may_roll_out) = (is_whole && release.is_final, is_whole && !release.is_fleet_target);
    html! {
        div.buttons {
            @if visitor.may(Permission::RollOut) && may_pin {
                @let fields = query([("release", release.commit.as_str()), ("back", here.as_str())]);
                a.button.primary href={ "/fleets/" (fleet.number) "/policy?" (fields) } data-dialog {
                    (icon("pin")) "Pin fleet to this release…"
                }
            }
            @if visitor.may(Permission::RollOut) && may_roll_out {
                @let fields = query([("release", release.commit.as_str())]);
                a.button href={ "/fleets/" (fleet.number) "/rollouts/start?" (fields) } data-dialog { "Roll out in waves…" }
            }
            @if visitor.may(Permission::Release) {
                @if !release.is_final && release.status == ReleaseStatus::Success { (link("finalize", "Finalise…")) }
                @if release.is_invalidated { (link("validate", "Validate…")) } @else { (link("invalidate", "Invalidate…")) }
                (link("delete", "Delete…"))
            }
        }
    }
}

/// The words of an act: its title, what it means, and its button.
fn words(act: &str) -> Option<(&'static str, &'static str, &'static str)> {
    match act {
        "finalize" => Some((
            "Finalise release",
            "A final release stays final. If it is the newest one, a fleet that tracks latest moves to it at once.",
            "Finalise",
        )),
        "invalidate" => Some((
            "Invalidate release",
            "An invalid release is tracked by no fleet. A fleet that tracks latest and runs it returns to the release before at once.",
            "Invalidate",
        )),
        "validate" => Some((
            "Validate release",
            "The release can be tracked again. If it is the newest one, a fleet that tracks latest moves to it at once.",
            "Validate",
        )),
        "delete" => Some((
            "Delete release",
            "It is removed for good. A release that is a target, or to which a device is pinned, cannot be deleted.",
            "Delete",
        )),
        _ => None,
    }
}

fn confirm(
    visitor: &Visitor,
    fleet: &FleetView,
    found: &Got<ReleaseDetail>,
    act: &str,
    trouble: Option<&Trouble>,
) -> Result<Markup, Trouble> {
    let release = &found.value.release;
    let unknown = || Trouble::new(Code::NotFound, "there is no such act");
    let (title, meaning, button) = words(act).ok_or_else(unknown)?;
    let here = format!("/fleets/{}/releases/{}", fleet.number, release.commit);
    Ok(html! {
        section.card.panel data-panel {
            h1 #dialog-title { (title) " " code { (short(&release.commit)) } }
            @if let Some(trouble) = trouble { (layout::failure(trouble)) }
            p { (meaning) }
            p.muted { "It runs on " (counted(release.running_devices, "device")) ", and is the pin of " (counted(release.pinned_devices, "device")) "." }
            form method="post" action=(here) data-dialog {
                (csrf(&visitor.csrf))
                input type="hidden" name="do" value=(act);
                input type="hidden" name="etag" value=(found.etag);
                div.buttons {
                    button.primary.danger[act == "delete"] type="submit" { (button) }
                    a.button href=(here) data-close { "Cancel" }
                }
            }
        }
    })
}

pub(super) async fn act(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path((fleet, release)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    let fleet = visitor.fleet(&fleet).await?;
    let (act, etag, address) = (fields.text("do"), fields.get("etag"), address(&fleet, &release));
    let patch = match act.as_str() {
        "finalize" => Some(PatchRelease { is_final: Some(true), ..PatchRelease::default() }),
        "invalidate" => Some(PatchRelease { is_invalidated: Some(true), ..PatchRelease::default() }),
        "validate" => Some(PatchRelease { is_invalidated: Some(false), ..PatchRelease::default() }),
        "delete" => None,
        _ => return Err(Trouble::new(Code::NotFound, "there is no such act")),
    };
    let acted = match patch {
        Some(patch) => visitor.act::<ReleaseView>(Method::PATCH, &address, &patch, etag).await,
        None => visitor.act::<ReleaseView>(Method::DELETE, &address, &Nothing {}, etag).await,
    };
    match acted {
        Ok(release) => {
            let of_fleet = format!("/fleets/{}/releases", fleet.number);
            let here = format!("{of_fleet}/{}", release.commit);
            let (to, done) = match act.as_str() {
                "finalize" => (here, "is final"),
                "invalidate" => (here, "is invalid"),
                "validate" => (here, "is valid again"),
                _ => (of_fleet, "is deleted"),
            };
            Ok(visitor.done(&to, format!("Release {} {done}.", short(&release.commit))))
        }
        Err(trouble) => {
            let found = visitor.get::<ReleaseDetail>(&address).await?;
            let said = if trouble.is_conflict() { trouble.as_changed("release") } else { trouble };
            let content = confirm(&visitor, &fleet, &found, &act, Some(&said))?;
            let mut response = shown(&visitor, &fleet, &found.value.release, &content);
            *response.status_mut() = said.status;
            Ok(response)
        }
    }
}
