//! The rollouts of a fleet: the newest one as a picture, its acts, and those before.

use axum::extract::{Extension, Path};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::Value;

use super::fields::Fields;
use super::layout::{self, Place};
use super::parts::{age, command, commit, counted, csrf, moment, phase_tone, sign};
use super::rollout_picture::waves;
use super::site::Visitor;
use super::trouble::Trouble;
use crate::fleet::access::Permission;
use crate::model::text::one_line;
use crate::wire::operator_api::{ApproveWave, Code, FleetView, Nothing, RolloutView};

/// An act on a rollout: its word on the wire, its button, what it means, and in which phases it can be done.
type Act = (&'static str, &'static str, &'static str, &'static [&'static str]);

const ACTS: [Act; 6] = [
    ("pause", "Pause", "No further device gets the release. Those that have it keep it.", &["running"]),
    ("resume", "Resume", "The rollout goes on where it stopped.", &["paused", "halted"]),
    ("approve", "Start next wave", "The next wave begins at once.", &["running", "paused"]),
    (
        "complete",
        "Complete",
        "All devices that take part get the release at once, but not those of halted segments. It becomes the target of the fleet; with a filter, its devices are pinned to it.",
        &["running", "paused", "halted"],
    ),
    (
        "pull-back",
        "Pull back",
        "All devices that have the release return to the target of the fleet.",
        &["running", "paused", "halted"],
    ),
    (
        "abort",
        "Abort",
        "The rollout ends. No further device gets the release; those that have it are sent back to the target of the fleet.",
        &["running", "paused", "halted", "pulled-back"],
    ),
];

pub(super) async fn page(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path(fleet): Path<String>,
) -> Result<Response, Trouble> {
    let fleet = visitor.fleet(&fleet).await?;
    let mut rollouts =
        visitor.get::<Vec<RolloutView>>(&format!("/fleets/{}/rollouts", fleet.number)).await?.value;
    rollouts.reverse();
    let content = match (fields.get("do"), rollouts.first()) {
        (Some(act), Some(rollout)) => confirm(&visitor, &fleet, rollout, act, None)?,
        (_, None) => empty(&visitor, &fleet),
        (None, Some(newest)) => html! {
            div.page-head { h1 { "Rollouts" } (start_button(&visitor, &fleet, newest.ended.is_none())) }
            div #rollout data-live-part { (shown(&visitor, &fleet, newest)) }
            (earlier(&fleet, &rollouts[1..]))
        },
    };
    Ok(framed(&visitor, &fleet, &content))
}

fn framed(visitor: &Visitor, fleet: &FleetView, content: &Markup) -> Response {
    let place = Place::of_fleet(format!("Rollouts of {}", fleet.name), fleet.number, &fleet.name, "rollouts");
    layout::page(visitor, &place, content).into_response()
}

fn shown(visitor: &Visitor, fleet: &FleetView, rollout: &RolloutView) -> Markup {
    html! {
        section.card aria-labelledby="rollout-title" {
            div.rollout-head {
                h2 #rollout-title { "Rollout " (rollout.number) " of " (commit(&fleet.number.to_string(), rollout.release.as_deref())) }
                span.state.(phase_tone(&rollout.phase)) { (sign(&rollout.phase)) (layout::capital(&rollout.phase).trim_end_matches('.')) }
                span.muted { "started " (age(rollout.started)) }
                @if let Some(ended) = rollout.ended { span.muted { "ended " (age(ended)) } }
            }
            @if let Some(why) = &rollout.why { p.why-box { (layout::capital(why)) } }
            @if !rollout.next.is_empty() { p { (layout::capital(&rollout.next)) } }
            @for halted in &rollout.halted {
                p.why-box { (sign("halted")) " Segment " strong { (one_line(&halted.segment)) } ": " (layout::capital(&halted.why)) }
            }
            (waves(rollout))
            @if visitor.may(Permission::RollOut) && rollout.ended.is_none() {
                div.buttons {
                    @for (word, button, _, phases) in ACTS {
                        @if phases.contains(&rollout.phase.as_str()) && is_apt(word, rollout) {
                            a.button.danger[word == "abort" || word == "pull-back"]
                                href={ "/fleets/" (fleet.number) "/rollouts?do=" (word) } data-dialog { (button) "…" }
                        }
                    }
                }
            }
            details.evidence { summary { "Definition" } (definition(&rollout.definition)) }
        }
    }
}

/// A rollout that waits for an approval or a webhook is approved, and any other one that is paused is resumed.
fn is_apt(act: &str, rollout: &RolloutView) -> bool {
    match act {
        "approve" => rollout.waits_for.is_some(),
        "resume" => rollout.waits_for.is_none(),
        _ => true,
    }
}

/// The definition of a rollout.
pub(super) fn definition(definition: &Value) -> Markup {
    let plain = |value: &Value| value.as_str().map_or_else(|| one_line(&value.to_string()), one_line);
    let shown = |value: &Value| match value.as_array() {
        Some(list) => list.iter().map(plain).collect::<Vec<_>>().join(", "),
        None => plain(value),
    };
    html! {
        dl.about {
            @for (name, value) in definition.as_object().into_iter().flatten() {
                @if !value.is_null() { dt { (name.replace('_', " ")) } dd { (shown(value)) } }
            }
        }
    }
}

fn earlier(fleet: &FleetView, rollouts: &[RolloutView]) -> Markup {
    html! {
        @if !rollouts.is_empty() {
            section.card.table-card aria-labelledby="earlier-title" {
                h2 #earlier-title { "Earlier rollouts" }
                table.releases {
                    thead { tr { th scope="col" { "Rollout" } th scope="col" { "Release" } th scope="col" { "Result" } th scope="col" { "Started" } th scope="col" { "Why" } } }
                    tbody {
                        @for rollout in rollouts {
                            tr {
                                th scope="row" { (rollout.number) }
                                td data-label="Release" { (commit(&fleet.number.to_string(), rollout.release.as_deref())) }
                                td data-label="Result" { span.state.(phase_tone(&rollout.phase)) { (sign(&rollout.phase)) (rollout.phase) } }
                                td data-label="Started" { (moment(rollout.started)) }
                                td data-label="Why" { (one_line(rollout.why.as_deref().unwrap_or_default())) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The link to the form of a rollout. While one goes on, another one would replace it.
fn start_button(visitor: &Visitor, fleet: &FleetView, is_open: bool) -> Markup {
    html! {
        @if visitor.may(Permission::RollOut) && fleet.releases > 0 {
            a.button.primary[!is_open].right href={ "/fleets/" (fleet.number) "/rollouts/start" } data-dialog { "Start a rollout…" }
        }
    }
}

fn empty(visitor: &Visitor, fleet: &FleetView) -> Markup {
    html! {
        div.page-head { h1 { "Rollouts" } }
        section.card.empty {
            h2 { "Give a release to a few devices first" }
            p { "A rollout gives a release to the devices wave by wave, watches what becomes of them, and stops by itself if it is not good." }
            div.buttons { (start_button(visitor, fleet, false)) }
            p { "Or on your machine:" }
            (command(&format!("cotter rollout start {} COMMIT --waves '1, 10%, 100%'", fleet.number)))
        }
    }
}

fn confirm(
    visitor: &Visitor,
    fleet: &FleetView,
    rollout: &RolloutView,
    act: &str,
    trouble: Option<&Trouble>,
) -> Result<Markup, Trouble> {
    let found = ACTS.into_iter().find(|(word, ..)| *word == act);
    let (word, button, meaning, _) =
        found.ok_or_else(|| Trouble::new(Code::NotFound, "there is no such act"))?;
    let meaning = match (word, rollout.waits_for.as_deref()) {
        ("approve", Some("webhook")) => "The wave begins at once, although its webhook has not agreed.",
        ("approve", Some("approval")) if rollout.definition["confirm"].is_string() => {
            "The wave is approved. Then its webhook is asked, and the wave begins when that agrees."
        }
        _ => meaning,
    };
    let here = format!("/fleets/{}/rollouts", fleet.number);
    Ok(html! {
        section.card.panel data-panel {
            h1 #dialog-title { (button) ": rollout " (rollout.number) }
            @if let Some(trouble) = trouble { (layout::failure(trouble)) }
            p { (meaning) }
            p.preview { (whom(word, rollout)) }
            p.muted { "Exposed so far: " (rollout.tally.exposed) ". Accepted: " (rollout.tally.accepted) "." }
            form method="post" action=(here) data-dialog {
                (csrf(&visitor.csrf))
                input type="hidden" name="do" value=(word);
                input type="hidden" name="number" value=(rollout.number);
                @if let Some(wave) = rollout.waits_for_wave.filter(|_| word == "approve") {
                    input type="hidden" name="wave" value=(wave);
                    input type="hidden" name="for" value=(rollout.waits_for.as_deref().unwrap_or_default());
                }
                div.buttons {
                    button.primary.danger[word == "abort" || word == "pull-back"] type="submit" { (button) }
                    a.button href=(here) data-close { "Cancel" }
                }
            }
        }
    })
}

/// Says which devices an act moves.
fn whom(act: &str, rollout: &RolloutView) -> String {
    let devices = |count: u64| counted(usize::try_from(count).unwrap_or(usize::MAX), "device");
    let verb = |count: u64, one: &'static str, many: &'static str| if count == 1 { one } else { many };
    let exposed = rollout.tally.exposed;
    let others = rollout.devices.saturating_sub(exposed);
    let next = rollout.waves.iter().enumerate().find(|(_, wave)| !wave.has_begun);
    let without = format!("{} without the release", devices(others));
    match (act, next) {
        ("approve", Some((index, wave))) => {
            format!("Wave {} ({}) has {}.", index + 1, one_line(&wave.wave), devices(wave.devices))
        }
        ("pause", _) => format!("{without} {}.", verb(others, "waits", "wait")),
        ("resume" | "approve", _) => format!("{without} can get it."),
        ("complete", _) if !rollout.halted.is_empty() => {
            format!("{without}; those that are not in a halted segment get it at once.")
        }
        ("complete", _) => format!("{without} {} it at once.", verb(others, "gets", "get")),
        _ => {
            let goes = verb(exposed, "goes", "go");
            format!("{} with the release {goes} back to the target of the fleet.", devices(exposed))
        }
    }
}

pub(super) async fn act(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path(fleet): Path<String>,
) -> Result<Response, Trouble> {
    let fleet = visitor.fleet(&fleet).await?;
    let current = format!("/fleets/{}/rollouts/current", fleet.number);
    let act = fields.text("do");
    let found = ACTS.into_iter().find(|(word, ..)| *word == act);
    let (word, button, ..) = found.ok_or_else(|| Trouble::new(Code::NotFound, "there is no such act"))?;
    let rollout = visitor.get::<RolloutView>(&current).await?.value;
    // The page may show a rollout that is over since.
    let acted = if fields.text("number") == rollout.number.to_string() {
        let address = format!("{current}/{word}");
        match word {
            // The wave that the page has shown: a second click is refused.
            "approve" => {
                let wave = fields.text("wave").parse().unwrap_or_default();
                let without_webhook = fields.text("for") == "webhook";
                let approval = ApproveWave { wave, without_webhook };
                visitor.act::<RolloutView>(Method::POST, &address, &approval, None).await
            }
            _ => visitor.act::<RolloutView>(Method::POST, &address, &Nothing {}, None).await,
        }
    } else {
        let message = "another rollout has begun since you looked, so nothing was done";
        Err(Trouble::new(Code::Refused, message))
    };
    match acted {
        Ok(rollout) => {
            let message = format!("{button}: rollout {} is {} now.", rollout.number, rollout.phase);
            Ok(visitor.done(&format!("/fleets/{}/rollouts", fleet.number), message))
        }
        Err(trouble) => {
            let content = confirm(&visitor, &fleet, &rollout, word, Some(&trouble))?;
            let mut response = framed(&visitor, &fleet, &content);
            *response.status_mut() = trouble.status;
            Ok(response)
        }
    }
}
