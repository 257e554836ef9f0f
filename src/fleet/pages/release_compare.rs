//! What a release changes from another one, chosen in a menu. The address holds the choice.

use maud::{Markup, html};

use super::choice;
use super::compare::{Changed, Comparison, compared};
use super::fields::encoded;
use super::layout;
use super::parts::{commit, flags, named, short};
use super::site::Visitor;
use super::trouble::Trouble;
use crate::model::text::one_line;
use crate::wire::operator_api::{FleetView, ReleaseDetail, ReleaseView};

/// The card with the menu, and with the differences from the release that is chosen.
pub(super) async fn card(
    visitor: &Visitor,
    fleet: &FleetView,
    detail: &ReleaseDetail,
    chosen: Option<&str>,
) -> Result<Markup, Trouble> {
    let releases = choice::releases(visitor, fleet.number).await?.rows;
    let found = match chosen {
        Some(other) => {
            let path = format!("/releases/{}?fleet={}", encoded(other), fleet.number);
            Some(visitor.get::<ReleaseDetail>(&path).await.map(|got| got.value))
        }
        None => None,
    };
    let own = &detail.release.commit;
    let others: Vec<&ReleaseView> = releases.iter().filter(|release| release.commit != *own).collect();
    Ok(html! {
        section.card #compare aria-labelledby="compare-title" {
            h2 #compare-title { "Compare" }
            @if others.is_empty() && chosen.is_none() {
                p.muted { "The fleet has no other release." }
            } @else {
                (menu(fleet, own, &others, chosen))
            }
            @match &found {
                Some(Ok(other)) => (differences(fleet, other, &compared(other, detail))),
                Some(Err(trouble)) => (layout::failure(trouble)),
                None => {},
            }
        }
    })
}

fn menu(fleet: &FleetView, own: &str, others: &[&ReleaseView], chosen: Option<&str>) -> Markup {
    let older = chosen.filter(|chosen| !others.iter().any(|other| other.commit == *chosen));
    html! {
        form.search method="get" action={ "/fleets/" (fleet.number) "/releases/" (own) "#compare" } role="search" aria-label="Compare" {
            div.field.wide-field {
                label for="compare-with" { "What this release changes from" }
                select #compare-with name="compare" required {
                    @if let Some(older) = older { option value=(older) selected { (one_line(short(older))) } }
                    @for other in others {
                        option value=(other.commit) selected[chosen == Some(other.commit.as_str())] {
                            (short(&other.commit)) ", built " (other.start_timestamp.strftime("%Y-%m-%d"))
                        }
                    }
                }
            }
            button type="submit" { "Compare" }
        }
    }
}

fn differences(fleet: &FleetView, other: &ReleaseDetail, found: &Comparison) -> Markup {
    let release = &other.release;
    let whole = |words: &str, services: &[(String, String)]| {
        html! {
            @for (service, image) in services {
                tr {
                    th scope="row" { "Service " (named(service)) }
                    td data-label="Change" { (words) }
                    td data-label="Image" { code.image { (one_line(image)) } }
                }
            }
        }
    };
    html! {
        p {
            "Compared with " (commit(&fleet.number.to_string(), Some(&release.commit))) ". " (flags(release))
            @if found.is_empty() { " Both releases have the same services, images and compose fields." }
        }
        @if !found.added.is_empty() || !found.removed.is_empty() {
            table.services {
                thead { tr { th scope="col" { "Service" } th scope="col" { "Change" } th scope="col" { "Image" } } }
                tbody { (whole("added", &found.added)) (whole("removed", &found.removed)) }
            }
        }
        (table("Image of", "Image", &found.images))
        (table("Field", "Field", &found.fields))
        @if found.more > 0 { p.muted { (found.more) " further fields differ." } }
    }
}

fn table(prefix: &str, head: &str, rows: &[Changed]) -> Markup {
    let value = |value: &Option<String>| match value {
        Some(text) => html! { code.image { (one_line(text)) } },
        None => html! { span.muted { "not set" } },
    };
    html! {
        @if !rows.is_empty() {
            table.services {
                thead { tr { th scope="col" { (head) } th scope="col" { "Before" } th scope="col" { "After" } } }
                tbody {
                    @for Changed { path, before, after } in rows {
                        tr {
                            th scope="row" { span.visually-hidden { (prefix) " " } (named(path)) }
                            td data-label="Before" { (value(before)) }
                            td data-label="After" { (value(after)) }
                        }
                    }
                }
            }
        }
    }
}
