//! The frame of the settings: their parts, and what their tables share.

use axum::response::Html;
use maud::{Markup, html};

use crate::fleet::access::Permission;
use crate::fleet::pages::layout::{self, Place};
use crate::fleet::pages::parts::{named, sign};
use crate::fleet::pages::site::Visitor;

/// The place of all pages of the settings.
pub(super) fn place() -> Place {
    Place::new("Settings", "settings")
}

/// A page of the settings.
pub(super) fn page(visitor: &Visitor, part: &str, content: &Markup) -> Html<String> {
    let link = |key: &str, words: &str, address: &str| {
        let current = (part == key).then_some("page");
        html! { a href=(address) aria-current=[current] { (words) } }
    };
    let content = html! {
        div.page-head { h1 { "Settings" } }
        nav.parts aria-label="Parts of the settings" {
            (link("you", "You", "/settings"))
            (link("keys", "Provisioning keys", "/settings/keys"))
            @if visitor.may(Permission::Administer) {
                (link("access", "Users and tokens", "/settings/access"))
                (link("webhooks", "Webhooks", "/settings/webhooks"))
            }
        }
        (content)
    };
    layout::page(visitor, &place(), &content)
}

/// Whether a token, a key or a user is accepted.
pub(super) fn end_state(state: &str) -> Markup {
    let tone = if state == "active" { "good" } else { "idle" };
    html! { span.state.(tone) { (sign(state)) (state.replace('_', " ")) } }
}

/// The fleets that a token or a webhook is for.
pub(super) fn fleets(fleets: Option<&[String]>) -> Markup {
    html! {
        @match fleets {
            None => "all",
            Some(fleets) => { @for fleet in fleets { span.tag { (named(fleet)) } " " } },
        }
    }
}
