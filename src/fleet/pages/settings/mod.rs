//! The settings: the user's own session, provisioning keys, users and tokens, and webhooks.

pub(super) mod access;
mod fields;
mod frame;
pub(super) mod keys;
mod tokens;
mod users;
pub(super) mod webhooks;

use axum::extract::Extension;
use axum::response::{IntoResponse, Response};
use maud::html;

use super::parts::{csrf, named};
use super::site::Visitor;

/// The user's own session.
pub(super) async fn page(Extension(visitor): Extension<Visitor>) -> Response {
    let content = html! {
        section.card aria-labelledby="you-title" {
            h2 #you-title { "You" }
            p {
                "Signed in as " strong { (named(&visitor.who())) } " with token " code { (visitor.caller.by.token) }
                ", role " strong { (visitor.caller.role) } "."
            }
            p.muted { "A session ends after 2 hours without use, after 12 hours in any case, and with its token." }
            form.buttons method="post" action="/sign-out" {
                (csrf(&visitor.csrf))
                button type="submit" { "Sign out" }
                button type="submit" name="everywhere" value="1" { "Sign out everywhere" }
            }
        }
    };
    frame::page(&visitor, "you", &content).into_response()
}
