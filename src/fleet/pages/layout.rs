//! The frame of every page: head, navigation, the message of the last act, and how a trouble is shown.

use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::assets;
use super::parts::{icon, named};
use super::site::Visitor;
use super::trouble::Trouble;
use crate::fleet::access::Permission;

pub(super) use super::parts::{command, sign};

/// Where a page is: its title, its entry in the navigation, and the fleet that it is about.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub(super) title: String,
    pub(super) entry: &'static str,
    /// Number and name.
    pub(super) fleet: Option<(u64, String)>,
    /// The entry of the fleet's own navigation.
    pub(super) tab: &'static str,
}

impl Place {
    pub(super) fn new(title: impl Into<String>, entry: &'static str) -> Self {
        Self { title: title.into(), entry, ..Self::default() }
    }

    pub(super) fn of_fleet(title: impl Into<String>, number: u64, name: &str, tab: &'static str) -> Self {
        Self { title: title.into(), entry: "fleets", fleet: Some((number, name.to_owned())), tab }
    }
}

/// A page for a signed-in user.
pub(super) fn page(visitor: &Visitor, place: &Place, content: &Markup) -> Html<String> {
    // The script shows only parts of a page, so the message waits for the next full page.
    let message =
        (!visitor.is_by_script).then(|| visitor.site.sessions.take_message(&visitor.cookie)).flatten();
    let fleet = place.fleet.as_ref().map(|(number, _)| number.to_string());
    let body = html! {
        body data-live=[fleet] {
            a.skip href="#main" { "Skip to content" }
            header.top {
                div.wide {
                    a.brand href="/fleets" { (mark()) span { "Cotter" } }
                    nav aria-label="Dashboard" {
                        (entry(place, "fleets", "Fleets", "/fleets"))
                        @if visitor.may(Permission::Audit) { (entry(place, "audit", "Audit", "/audit")) }
                        (entry(place, "settings", "Settings", "/settings"))
                    }
                    span.connection #connection hidden { }
                    (account(visitor))
                }
            }
            @if let Some((number, name)) = &place.fleet { (fleet_head(place, *number, name)) }
            main.wide #main tabindex="-1" {
                @if let Some(message) = message {
                    p.done role="status" { (icon("check")) span { (message) } }
                }
                (content)
            }
            dialog #dialog aria-labelledby="dialog-title" { }
        }
    };
    document(&place.title, &body)
}

fn entry(place: &Place, name: &str, words: &str, address: &str) -> Markup {
    let current = (place.entry == name).then_some("page");
    html! { a href=(address) aria-current=[current] { (words) } }
}

fn account(visitor: &Visitor) -> Markup {
    html! {
        details.menu.account data-menu {
            summary { (icon("person")) span.who { (visitor.who()) } }
            div.sheet {
                p { strong { (visitor.who()) } br; span.muted { "Role " (visitor.caller.role) } }
                form method="post" action="/sign-out" {
                    input type="hidden" name="csrf" value=(visitor.csrf);
                    button type="submit" { "Sign out" }
                    button type="submit" name="everywhere" value="1" { "Sign out everywhere" }
                }
            }
        }
    }
}

fn fleet_head(place: &Place, number: u64, name: &str) -> Markup {
    let tab = |key: &str, words: &str, rest: &str| {
        let current = (place.tab == key).then_some("page");
        html! { a href={ "/fleets/" (number) (rest) } aria-current=[current] { (words) } }
    };
    html! {
        section.fleet-head aria-label="Fleet" {
            div.wide {
                p.crumbs { a href="/fleets" { "Fleets" } span aria-hidden="true" { "/" } }
                p.fleet-name { (named(name)) }
                nav.tabs aria-label="Parts of the fleet" {
                    (tab("devices", "Devices", ""))
                    (tab("releases", "Releases", "/releases"))
                    (tab("rollouts", "Rollouts", "/rollouts"))
                    (tab("variables", "Variables", "/variables"))
                }
            }
        }
    }
}

/// A page without navigation.
pub(super) fn bare(title: &str, content: &Markup) -> Markup {
    let body = html! { body.bare { main #main { (content) } } };
    head_and(title, &body)
}

fn document(title: &str, body: &Markup) -> Html<String> {
    Html(head_and(title, body).into_string())
}

fn head_and(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (crate::model::text::one_line(title)) " · Cotter" }
                link rel="icon" type="image/svg+xml" href=(assets::icon());
                link rel="stylesheet" href=(assets::style());
                script src=(assets::script()) defer { }
            }
            (body)
        }
    }
}

/// A page that loads itself once more.
pub(super) fn reload() -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; meta http-equiv="refresh" content="0"; title { "Cotter" } }
            body { p { "One moment." } }
        }
    }
}

/// The sign of the project: a cotter pin.
pub(super) fn mark() -> Markup {
    html! {
        svg.mark viewBox="0 0 24 24" width="24" height="24" aria-hidden="true" {
            circle cx="7.5" cy="7.5" r="4.5" fill="none" stroke="currentColor" stroke-width="2.5" {}
            path d="M10 11.5 20 21M11.8 9.8 21.5 17.5" fill="none" stroke="currentColor" stroke-width="2.5" stroke-linecap="round" {}
        }
    }
}

/// Says what went wrong, with the rule and what to do.
pub(super) fn failure(trouble: &Trouble) -> Markup {
    let failure = &trouble.failure;
    let remedy = failure.remedy.as_deref().unwrap_or_default();
    let wrong = failure.message.strip_suffix(remedy).unwrap_or(&failure.message);
    let wrong = wrong.trim_end().trim_end_matches([';', ':']);
    html! {
        div.error role="alert" {
            (sign("failing"))
            div {
                p { strong { (capital(wrong)) } }
                @if !remedy.is_empty() { p { (capital(remedy)) } }
                @for refusal in &failure.refusals { p { code { (refusal.path) } " " (refusal.why) } }
                p.muted { "Rule " code { (failure.rule.as_deref().unwrap_or(&failure.code)) } }
            }
        }
    }
}

/// Returns a sentence with a capital letter and a full stop.
pub(super) fn capital(text: &str) -> String {
    let text = crate::model::text::one_line(text);
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '…', '?']) || text.is_empty() { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

/// The page for what cannot be shown.
pub(super) fn trouble(visitor: &Visitor, trouble: &Trouble) -> Response {
    let title = match trouble.status.as_u16() {
        403 => "Not allowed",
        404 => "Not found",
        _ => "That did not work",
    };
    let content = html! {
        section.card.trouble data-panel {
            h1 #dialog-title { (title) }
            (failure(trouble))
            p { a href="/fleets" { "Go to all fleets" } }
        }
    };
    (trouble.status, page(visitor, &Place::new(title, ""), &content)).into_response()
}
