//! Changing the release policy of a fleet: first the menu, then a preview of the devices that move, then the change.

use axum::extract::{Extension, Path};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::choice::{self, For};
use super::fields::{Fields, encoded, local, query};
use super::layout::{self, Place};
use super::parts::{counted, csrf, icon, named, plain_commit, short};
use super::site::Visitor;
use super::trouble::Trouble;
use crate::fleet::operator_api::Moves;
use crate::wire::operator_api::{FleetView, Nothing, Pin, RolloutView};

/// The value of the menu for tracking latest. No commit is so short.
const LATEST: &str = "latest";

/// The menu; with a choice, whom it moves.
pub(super) async fn page(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path(fleet): Path<String>,
) -> Result<Response, Trouble> {
    let fleet = visitor.fleet(&fleet).await?;
    let back = local(fields.get("back")).unwrap_or_else(|| format!("/fleets/{}", fleet.number));
    let Some(release) = fields.get("release") else {
        let content = menu(&visitor, &fleet, &back, None).await?;
        return Ok(shown(&visitor, &fleet, &content));
    };
    let content = match moves(&visitor, &fleet, release).await {
        Ok(moves) => {
            let current = format!("/fleets/{}/rollouts/current", fleet.number);
            let rollout = visitor.get::<RolloutView>(&current).await.ok().map(|got| got.value);
            let rollout = rollout.filter(|rollout| rollout.ended.is_none());
            confirm(&visitor, &fleet, (release, rollout.as_ref()), &moves, &back)
        }
        Err(trouble) => menu(&visitor, &fleet, &back, Some(&trouble)).await?,
    };
    Ok(shown(&visitor, &fleet, &content))
}

fn shown(visitor: &Visitor, fleet: &FleetView, content: &Markup) -> Response {
    let place =
        Place::of_fleet(format!("Release policy of {}", fleet.name), fleet.number, &fleet.name, "devices");
    layout::page(visitor, &place, content).into_response()
}

async fn moves(visitor: &Visitor, fleet: &FleetView, release: &str) -> Result<Moves, Trouble> {
    let number = fleet.number.to_string();
    let release = if release == LATEST { "" } else { release };
    let fields = query([("fleet", number.as_str()), ("release", release)]);
    Ok(visitor.get::<Moves>(&format!("/pages/moves?{fields}")).await?.value)
}

async fn menu(
    visitor: &Visitor,
    fleet: &FleetView,
    back: &str,
    trouble: Option<&Trouble>,
) -> Result<Markup, Trouble> {
    let releases = choice::releases(visitor, fleet.number).await?;
    let target = fleet.target.as_deref().filter(|_| !fleet.is_tracking_latest);
    Ok(html! {
        section.card.panel data-panel {
            h1 #dialog-title { "Release policy of " (named(&fleet.name)) }
            @if let Some(trouble) = trouble { (layout::failure(trouble)) }
            form method="get" action={ "/fleets/" (fleet.number) "/policy" } data-dialog {
                input type="hidden" name="back" value=(back);
                label.option {
                    input type="radio" name="release" value=(LATEST) required checked[fleet.is_tracking_latest];
                    (icon("follow")) strong { "Track latest" }
                    span.muted { "every new final release" }
                }
                p.label { (icon("pin")) "Pin to a release" }
                (choice::menu(&releases, For::Fleet, target))
                div.buttons {
                    button.primary type="submit" { "Show whom it moves" }
                    a.button href=(back) data-close { "Cancel" }
                }
            }
        }
    })
}

fn confirm(
    visitor: &Visitor,
    fleet: &FleetView,
    (release, rollout): (&str, Option<&RolloutView>),
    moves: &Moves,
    back: &str,
) -> Markup {
    let is_latest = release == LATEST;
    html! {
        section.card.panel data-panel {
            h1 #dialog-title {
                @if is_latest { "Track latest" } @else { "Pin " (named(&fleet.name)) " to " code { (short(release)) } }
            }
            @if moves.is_change {
                (choice::preview(moves, "of this fleet"))
                @if moves.pinned > 0 {
                    p.note { (icon("pin")) "Not changed: " (counted(moves.pinned, "device")) " with a pin of its own." }
                }
                @if let Some(rollout) = rollout {
                    p.note {
                        "This ends rollout " (rollout.number) ". Its "
                        (counted(usize::try_from(rollout.tally.exposed).unwrap_or(usize::MAX), "exposed device"))
                        " will follow the target of the fleet, too."
                    }
                }
                form method="post" action={ "/fleets/" (fleet.number) "/policy" } data-dialog {
                    (csrf(&visitor.csrf))
                    input type="hidden" name="release" value=(release);
                    input type="hidden" name="etag" value=(moves.etag);
                    input type="hidden" name="back" value=(back);
                    div.buttons {
                        button.primary type="submit" { @if is_latest { "Track latest" } @else { "Pin fleet" } }
                        a.button href={ "/fleets/" (fleet.number) "/policy" } data-dialog { "Choose another" }
                    }
                }
            } @else {
                p.note {
                    @if is_latest { "The fleet tracks latest already." }
                    @else { "The fleet is pinned to " (plain_commit(moves.to.as_deref())) " already." }
                }
                div.buttons { a.button href=(back) data-close { "Close" } }
            }
        }
    }
}

/// Changes the policy, if the fleet has not changed since the preview.
pub(super) async fn act(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path(fleet): Path<String>,
) -> Result<Response, Trouble> {
    let address = format!("/fleets/{}", encoded(&fleet));
    let (release, etag) = (fields.text("release"), fields.get("etag"));
    let acted = if release == LATEST {
        visitor.act::<FleetView>(Method::POST, &format!("{address}/track-latest"), &Nothing {}, etag).await
    } else {
        let pin = Pin { release: release.clone() };
        visitor.act::<FleetView>(Method::POST, &format!("{address}/pin"), &pin, etag).await
    };
    let back = local(fields.get("back"));
    match acted {
        Ok(fleet) => {
            let back = back.unwrap_or_else(|| format!("/fleets/{}", fleet.number));
            let message = match fleet.is_tracking_latest {
                true => format!("{} tracks latest.", fleet.name),
                false => format!(
                    "{} is pinned to {}.",
                    fleet.name,
                    short(fleet.target.as_deref().unwrap_or("nothing"))
                ),
            };
            Ok(visitor.done(&back, message))
        }
        Err(trouble) => refused(&visitor, &address, &release, back, trouble).await,
    }
}

/// Shows why the change was refused. After a conflict it also shows the fleet's present policy.
async fn refused(
    visitor: &Visitor,
    address: &str,
    release: &str,
    back: Option<String>,
    trouble: Trouble,
) -> Result<Response, Trouble> {
    if !trouble.is_conflict() {
        return Err(trouble);
    }
    let fleet = visitor.get::<FleetView>(address).await?.value;
    let back = back.unwrap_or_else(|| format!("/fleets/{}", fleet.number));
    let again =
        format!("/fleets/{}/policy?{}", fleet.number, query([("release", release), ("back", back.as_str())]));
    let content = html! {
        section.card.panel data-panel {
            h1 #dialog-title { "Another user changed this first" }
            (layout::failure(&trouble.as_changed("fleet")))
            p {
                "Now the fleet "
                @if fleet.is_tracking_latest { "tracks latest, " } @else { "is pinned to " }
                (plain_commit(fleet.target.as_deref())) "."
            }
            div.buttons {
                a.button.primary href=(again) data-dialog { "Preview it again" }
                a.button href=(back) data-close { "Leave it" }
            }
        }
    };
    let mut response = shown(visitor, &fleet, &content);
    *response.status_mut() = trouble.status;
    Ok(response)
}
