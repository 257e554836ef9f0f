//! The releases of a fleet, page by page, the newest first.

use axum::extract::{Extension, Path};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::fields::{Fields, query};
use super::layout::{self, Place};
use super::pager;
use super::parts::{age, command, commit, counted, flags, grouped};
use super::site::Visitor;
use super::trouble::Trouble;
use crate::fleet::operator_api::ReleaseRows;
use crate::model::ReleaseStatus;
use crate::wire::operator_api::{FleetView, ReleaseView};

pub(super) async fn page(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path(fleet): Path<String>,
) -> Result<Response, Trouble> {
    let fleet = visitor.fleet(&fleet).await?;
    let (number, after) = (fleet.number.to_string(), fields.text("after"));
    let asked = query([("fleet", number.as_str()), ("after", after.as_str())]);
    let found = visitor.get::<ReleaseRows>(&format!("/pages/releases?{asked}")).await?.value;
    let content = html! {
        div.page-head {
            h1 { "Releases" }
            @if found.releases > 0 { p.muted { (counted(found.releases, "release")) ", newest first" } }
        }
        @if found.releases == 0 { (empty(&fleet)) } @else {
            div.card.table-card #releases data-live-part { (table(&fleet, &found)) }
        }
    };
    let place = Place::of_fleet(format!("Releases of {}", fleet.name), fleet.number, &fleet.name, "releases");
    Ok(layout::page(&visitor, &place, &content).into_response())
}

fn table(fleet: &FleetView, found: &ReleaseRows) -> Markup {
    let number = fleet.number.to_string();
    let address = |after: &String| {
        let fields = query([("after", after.as_str())]);
        format!("/fleets/{number}/releases{}{fields}", if fields.is_empty() { "" } else { "?" })
    };
    let (before, next) = (found.before.as_ref().map(address), found.next.as_ref().map(address));
    let shown = pager::range(found.first, found.rows.len(), found.releases);
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
                @for release in &found.rows {
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
        @if before.is_some() || next.is_some() { (pager::links(&shown, before, next)) }
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
