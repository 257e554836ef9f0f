//! The releases of a fleet.

use axum::extract::{Extension, Path};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::fleet::releases;
use super::layout::{self, Place};
use super::parts::{age, command, commit, counted, flags, grouped};
use super::site::Visitor;
use super::trouble::Trouble;
use crate::model::ReleaseStatus;
use crate::wire::operator_api::{FleetView, ReleaseView};

/// Rows of the page.
const MOST: usize = 200;

pub(super) async fn page(
    Extension(visitor): Extension<Visitor>,
    Path(fleet): Path<String>,
) -> Result<Response, Trouble> {
    let fleet = visitor.fleet(&fleet).await?;
    let releases = releases(&visitor, fleet.number).await?;
    let content = html! {
        div.page-head {
            h1 { "Releases" }
            @if !releases.is_empty() { p.muted { (counted(releases.len(), "release")) ", newest first" } }
        }
        @if releases.is_empty() { (empty(&fleet)) } @else {
            div.card.table-card #releases data-live-part { (table(&fleet, &releases)) }
        }
    };
    let place = Place::of_fleet(format!("Releases of {}", fleet.name), fleet.number, &fleet.name, "releases");
    Ok(layout::page(&visitor, &place, &content).into_response())
}

fn table(fleet: &FleetView, releases: &[ReleaseView]) -> Markup {
    let number = fleet.number.to_string();
    html! {
        table.releases {
            thead {
                tr {
                    th scope="col" { "Commit" }
                    th scope="col" { "Built" }
                    th scope="col" { "What it is" }
                    th scope="col" { "Services" }
                    th.number scope="col" { "Running" }
                    th.number scope="col" { "Pinned" }
                }
            }
            tbody {
                @for release in releases.iter().take(MOST) {
                    tr {
                        th scope="row" { (commit(&number, Some(&release.commit))) }
                        td data-label="Built" { (age(release.start_timestamp)) }
                        td data-label="Is" {
                            (flags(release))
                            @if is_plain(release) { span.muted { "Final" } }
                        }
                        td data-label="Services" { (counted(release.services.len(), "service")) }
                        td.number data-label="Running" { (grouped(release.running_devices)) }
                        td.number data-label="Pinned" { (grouped(release.pinned_devices)) }
                    }
                }
            }
        }
        @if releases.len() > MOST {
            p.muted.nothing { "Only the newest " (MOST) " are shown; " code { "cotter release list" } " shows all." }
        }
    }
}

fn is_plain(release: &ReleaseView) -> bool {
    let is_whole = release.status == ReleaseStatus::Success && !release.is_invalidated;
    is_whole && release.is_final && !release.is_fleet_target
}

fn empty(fleet: &FleetView) -> Markup {
    html! {
        section.card.empty {
            h2 { "Make the first release" }
            p { "From a folder with a compose file, on your machine:" }
            (command(&format!("cotter push {} .", fleet.number)))
            p.muted { "It builds the images, puts them into the registry, and makes a release of them." }
        }
    }
}
