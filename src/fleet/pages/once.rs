//! A secret that the server made and does not keep: shown once, in the answer to the form that asked for it.
//!
//! It is in no message, no address and no page that can be loaded again. As every page, the answer is not cached.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::layout::{self, Place};
use super::parts::command;
use super::site::Visitor;
use super::trouble::Trouble;
use crate::fleet::secret;

/// A secret that was just made.
pub(super) struct Once<'a> {
    pub(super) title: Markup,
    /// Its noun, e.g. `token`.
    pub(super) what: &'a str,
    pub(super) secret: &'a str,
    /// What it is for.
    pub(super) about: Markup,
    /// The page to go on to.
    pub(super) to: &'a str,
}

/// The answer with the secret.
pub(super) fn shown(visitor: &Visitor, place: &Place, once: &Once<'_>) -> Response {
    let Once { title, what, secret, about, to } = once;
    let content = html! {
        section.card.panel data-panel data-secret {
            h1 #dialog-title { (title) }
            p.why-box { "This " (what) " is shown only now. Copy it before you go on: the server cannot show it again." }
            (command(secret))
            (about)
            div.buttons { a.button.primary href=(to) { "I have copied it" } }
        }
    };
    (StatusCode::CREATED, layout::page(visitor, place, &content)).into_response()
}

/// A hidden field with which a form that is sent again makes no second secret.
///
/// # Errors
///
/// If the machine has no random bytes.
pub(super) fn key() -> Result<Markup, Trouble> {
    let key = secret::token().map_err(|error| Trouble::internal(error.to_string()))?;
    Ok(html! { input type="hidden" name="key" value=(key); })
}
