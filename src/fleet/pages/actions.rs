//! Acts on the devices that are selected in the table: asks for the details, previews which devices get another release,
//! and then changes all of them or none.

use std::collections::BTreeMap;

use axum::extract::{Extension, Path};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::choice::{self, For};
use super::fields::{Fields, local, query};
use super::layout::{self, Place};
use super::parts::{counted, csrf, named, short};
use super::query::TableQuery;
use super::site::Visitor;
use super::trouble::Trouble;
use crate::fleet::operator_api::{Chosen, Moves};
use crate::wire::operator_api::{Code, FleetView};

/// What is done with the chosen devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Pin,
    Track,
    Tag,
    Move,
}

impl Action {
    fn of(word: &str) -> Result<Self, Trouble> {
        match word {
            "pin" => Ok(Self::Pin),
            "track" => Ok(Self::Track),
            "tag" => Ok(Self::Tag),
            "move" => Ok(Self::Move),
            _ => Err(Trouble::new(Code::NotFound, "there is no such action")),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Track => "track",
            Self::Tag => "tag",
            Self::Move => "move",
        }
    }

    /// The route inside the process.
    fn route(self) -> &'static str {
        match self {
            Self::Pin => "/pages/pin",
            Self::Track => "/pages/track-fleet",
            Self::Tag => "/pages/tags",
            Self::Move => "/pages/move",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Pin => "Pin to release",
            Self::Track => "Track fleet",
            Self::Tag => "Tag devices",
            Self::Move => "Move to fleet",
        }
    }
}

/// The fields that say which devices are meant. All steps carry them on.
const OF_CHOICE: [&str; 6] = ["device", "all", "filter", "state", "name", "back"];

/// Shows the form while a field is missing, and else a preview of the devices that get another release.
pub(super) async fn page(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path((fleet, action)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    let action = Action::of(&action)?;
    let fleet = visitor.fleet(&fleet).await?;
    let step = Step { visitor: &visitor, fleet: &fleet, fields: &fields, action };
    let content = if step.has_no_devices() {
        step.nothing_chosen()
    } else if step.is_said() {
        match step.moves(true).await {
            Ok(moves) => step.confirm(&moves),
            Err(trouble) => step.ask(Some(&trouble)).await?,
        }
    } else {
        step.ask(None).await?
    };
    Ok(step.shown(&content))
}

/// Carries out the action, if no device has changed since the preview.
pub(super) async fn act(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path((fleet, action)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    let action = Action::of(&action)?;
    let fleet = visitor.fleet(&fleet).await?;
    let step = Step { visitor: &visitor, fleet: &fleet, fields: &fields, action };
    if step.has_no_devices() {
        return Ok(step.shown(&step.nothing_chosen()));
    }
    match step.moves(false).await {
        Ok(moves) => Ok(visitor.done(&step.back(), step.what_was_done(&moves))),
        Err(trouble) => {
            let status = trouble.status;
            let content = step.refused(&trouble).await?;
            let mut response = step.shown(&content);
            *response.status_mut() = status;
            Ok(response)
        }
    }
}

/// A step of an action.
struct Step<'a> {
    visitor: &'a Visitor,
    fleet: &'a FleetView,
    fields: &'a Fields,
    action: Action,
}

impl Step<'_> {
    fn back(&self) -> String {
        local(self.fields.get("back")).unwrap_or_else(|| format!("/fleets/{}", self.fleet.number))
    }

    fn address(&self) -> String {
        format!("/fleets/{}/actions/{}", self.fleet.number, self.action.word())
    }

    fn has_no_devices(&self) -> bool {
        self.fields.get("all").is_none() && self.fields.get("device").is_none()
    }

    /// Returns whether the request has a field that the action needs.
    fn is_said(&self) -> bool {
        let needs: &[&str] = match self.action {
            Action::Pin => &["release"],
            Action::Track => &[],
            Action::Tag => &["set", "remove"],
            Action::Move => &["to"],
        };
        needs.is_empty() || needs.iter().any(|name| self.fields.get(name).is_some())
    }

    /// Requests a preview of the action (`dry_run`), or carries it out.
    async fn moves(&self, dry_run: bool) -> Result<Moves, Trouble> {
        let is_all = self.fields.get("all").is_some();
        let (set, remove) = self.tags()?;
        let chosen = Chosen {
            devices: if is_all { Vec::new() } else { self.fields.all("device") },
            selection: TableQuery::of(self.fields).selection(self.fleet.number),
            dry_run,
            release: self.fields.get("release").map(str::to_owned),
            to_fleet: self.fields.get("to").map(str::to_owned),
            set,
            remove,
        };
        let etag = self.fields.get("etag").filter(|_| !dry_run);
        self.visitor.act(Method::POST, self.action.route(), &chosen, etag).await
    }

    /// Reads `key=value` with commas between them, and the keys that are to go.
    fn tags(&self) -> Result<(BTreeMap<String, String>, Vec<String>), Trouble> {
        let parts = |name: &str| {
            let text = self.fields.text(name);
            text.split(',')
                .map(|part| part.trim().to_owned())
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
        };
        let set = parts("set").into_iter().map(|part| match part.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
            None => Err(Trouble::new(Code::BadRequest, format!("{part:?} is no tag; write key=value"))),
        });
        Ok((set.collect::<Result<_, _>>()?, parts("remove")))
    }

    fn shown(&self, content: &Markup) -> Response {
        let place = Place::of_fleet(self.action.title(), self.fleet.number, &self.fleet.name, "devices");
        layout::page(self.visitor, &place, content).into_response()
    }

    fn carried(&self, with_choice: bool) -> Markup {
        let names: &[&str] =
            if with_choice { &["csrf", "etag"] } else { &["csrf", "etag", "release", "set", "remove", "to"] };
        html! {
            @for (name, value) in self.fields.without(names).filter(|(_, value)| !value.is_empty()) {
                @if with_choice || OF_CHOICE.contains(&name) { input type="hidden" name=(name) value=(value); }
            }
        }
    }

    fn panel(&self, title: &Markup, content: &Markup) -> Markup {
        html! { section.card.panel data-panel { h1 #dialog-title { (title) } (content) } }
    }

    fn nothing_chosen(&self) -> Markup {
        let content = html! {
            p { "No device is chosen. Choose some in the table, or all of the selection, and then the action." }
            div.buttons { a.button.primary href=(self.back()) data-close { "Back to the devices" } }
        };
        self.panel(&html! { (self.action.title()) }, &content)
    }

    fn whom(&self) -> String {
        match self.fields.get("all") {
            Some(_) => "all devices of the selection".to_owned(),
            None => counted(self.fields.all("device").len(), "device"),
        }
    }

    async fn ask(&self, trouble: Option<&Trouble>) -> Result<Markup, Trouble> {
        let content = html! {
            @if let Some(trouble) = trouble { (layout::failure(trouble)) }
            p.muted { "For " (self.whom()) " of " (named(&self.fleet.name)) "." }
            form method="get" action=(self.address()) data-dialog {
                (self.carried(false))
                @match self.action {
                    Action::Pin => (choice::menu(&choice::releases(self.visitor, self.fleet.number).await?, For::Devices, None)),
                    Action::Track => {},
                    Action::Tag => (tag_fields(self.fields)),
                    Action::Move => (self.fleets().await?),
                }
                div.buttons {
                    button.primary type="submit" { "Show what it changes" }
                    a.button href=(self.back()) data-close { "Cancel" }
                }
            }
        };
        Ok(self.panel(&html! { (self.action.title()) }, &content))
    }

    async fn fleets(&self) -> Result<Markup, Trouble> {
        let (fleets, has_more) = self.visitor.fleets().await?;
        Ok(html! {
            fieldset.menu-of-releases {
                legend.visually-hidden { "Fleet" }
                @for fleet in fleets.iter().filter(|fleet| fleet.number != self.fleet.number) {
                    label.option {
                        input type="radio" name="to" value=(fleet.number) required;
                        strong { (named(&fleet.name)) }
                        span.muted.right { (counted(fleet.devices, "device")) }
                    }
                }
                @if fleets.len() < 2 { p { "There is no other fleet." } }
                @if has_more { p.muted { "These are the first fleets; " code { "cotter device move" } " takes any." } }
            }
        })
    }

    fn confirm(&self, moves: &Moves) -> Markup {
        let devices = counted(moves.devices, "device");
        let title = html! {
            @match self.action {
                Action::Pin => { "Pin " (devices) " to " code { (short(moves.to.as_deref().unwrap_or_default())) } },
                Action::Track => { "Let " (devices) " track the fleet" },
                Action::Tag => { "Tag " (devices) },
                Action::Move => { "Move " (devices) },
            }
        };
        let content = html! {
            @if !moves.is_change {
                p.note { "Nothing would change: " (devices) " are so already." }
                div.buttons { a.button href=(self.back()) data-close { "Close" } }
            } @else {
                (choice::preview(moves, "that are chosen"))
                form method="post" action=(self.address()) data-dialog {
                    (csrf(&self.visitor.csrf))
                    (self.carried(true))
                    input type="hidden" name="etag" value=(moves.etag);
                    div.buttons {
                        button.primary type="submit" { (self.action.title()) }
                        a.button href=(self.back()) data-close { "Cancel" }
                    }
                }
            }
        };
        self.panel(&title, &content)
    }

    fn what_was_done(&self, moves: &Moves) -> String {
        let devices = counted(moves.devices, "device");
        match self.action {
            Action::Pin => format!("Pinned {devices} to {}.", short(moves.to.as_deref().unwrap_or_default())),
            Action::Track => format!("{devices} now follow the fleet."),
            Action::Tag => format!("Tagged {devices}."),
            Action::Move => format!("Moved {devices}."),
        }
    }

    async fn refused(&self, trouble: &Trouble) -> Result<Markup, Trouble> {
        if !trouble.is_conflict() {
            return self.ask(Some(trouble)).await;
        }
        let again = query(self.fields.without(&["csrf", "etag"]));
        let content = html! {
            (layout::failure(&trouble.as_changed("selection")))
            p { "Another user has changed one of these devices, or the selection has other devices now." }
            div.buttons {
                a.button.primary href={ (self.address()) "?" (again) } data-dialog { "Preview it again" }
                a.button href=(self.back()) data-close { "Leave it" }
            }
        };
        Ok(self.panel(&html! { "Another user changed this first" }, &content))
    }
}

fn tag_fields(fields: &Fields) -> Markup {
    html! {
        div.field {
            label for="set" { "Set tags" }
            input #set type="text" name="set" value=(fields.text("set")) placeholder="site=north, ring=canary" spellcheck="false";
        }
        div.field {
            label for="remove" { "Remove tags" }
            input #remove type="text" name="remove" value=(fields.text("remove")) placeholder="beta" spellcheck="false";
        }
    }
}
