//! Tokens: the list, create and revoke.

use axum::http::Method;
use axum::response::Response;
use maud::{Markup, html};

use super::fields::{given, read_scope, scope};
use super::frame::{self, end_state};
use crate::fleet::access::Role;
use crate::fleet::pages::fields::{Fields, encoded, query};
use crate::fleet::pages::once::{self, Once};
use crate::fleet::pages::pager::Slice;
use crate::fleet::pages::panel::{self, Panel, choices, field};
use crate::fleet::pages::parts::{age, moment, named};
use crate::fleet::pages::site::Visitor;
use crate::fleet::pages::trouble::Trouble;
use crate::model::text::one_line;
use crate::wire::operator_api::Nothing;
use crate::wire::operator_api::access::{CreateToken, TokenCreated, TokenView, UserView};

const HERE: &str = "/settings/access";

pub(super) fn card(tokens: &[TokenView], fields: &Fields) -> Markup {
    let slice = Slice::of(tokens, fields.get("tokens"));
    html! {
        section.card.table-card #tokens data-live-part aria-labelledby="tokens-title" {
            h2 #tokens-title { "Tokens" }
            @if tokens.is_empty() { p.nothing.muted { "No user has a token yet." } } @else {
                table.keys {
                    thead {
                        tr {
                            th scope="col" { "Token" } th scope="col" { "Role" } th scope="col" { "Fleets" } th scope="col" { "State" }
                            th scope="col" { "Ends" } th scope="col" { "Last used" } th scope="col" { "Act" }
                        }
                    }
                    tbody { @for token in slice.rows { (row(token)) } }
                }
                (slice.links(|from| format!("{HERE}?tokens={from}")))
            }
        }
    }
}

fn row(token: &TokenView) -> Markup {
    let revoke = query([("do", "revoke-token"), ("id", token.id.as_str())]);
    html! {
        tr {
            th scope="row" { (named(&token.name)) " " span.muted { "of " (named(&token.user)) } br; code.small { (token.id) } }
            td data-label="Role" { (token.role) }
            td data-label="Fleets" { (frame::fleets(token.fleets.as_deref())) }
            td data-label="State" { (end_state(&token.state)) }
            td data-label="Ends" { @if let Some(expires) = token.expires { (moment(expires)) } @else { span.muted { "never" } } }
            td data-label="Last used" { (last_use(token)) }
            td data-label="Act" {
                @if token.state == "active" {
                    a.button.small href={ (HERE) "?" (revoke) } data-dialog aria-label={ "Revoke token " (token.name) " of " (token.user) } { "Revoke…" }
                }
            }
        }
    }
}

fn last_use(token: &TokenView) -> Markup {
    html! {
        @match token.last_used {
            Some(used) => (age(used)),
            None if token.is_use_unknown => span.muted { "unknown" },
            None => span.muted { "never" },
        }
    }
}

/// What a role may do, in a line.
fn meaning(role: Role) -> &'static str {
    match role {
        Role::ReadOnly => "sees everything but the audit trail, and changes nothing",
        Role::ReleaseEngineer => "also makes releases, pins, and rolls out",
        Role::Operator => {
            "also tags and moves devices, changes fleets, variables and keys, and reads the audit trail"
        }
        Role::Admin => "also manages users, tokens and webhooks",
    }
}

pub(super) async fn create_form(
    visitor: &Visitor,
    fields: &Fields,
    trouble: Option<&Trouble>,
) -> Result<Markup, Trouble> {
    let users = visitor.get::<Vec<UserView>>("/users").await?.value;
    let (fleets, has_more) = visitor.fleets().await?;
    let roles = Role::ALL.map(|role| (role.as_str(), role.as_str(), meaning(role)));
    let is_first = fields.get("csrf").is_none();
    let expiry = if is_first { "90d".to_owned() } else { fields.text("expires_in") };
    let content = html! {
        p { "Whoever has the token can act as this user, in the dashboard and with " code { "cotter" } ". The token is shown once." }
        (once::key()?)
        div.field {
            label for="user" { "User" }
            select #user name="user" required {
                @for user in users.iter().filter(|user| user.state == "active") {
                    option value=(user.name) selected[user.name == fields.text("user")] { (one_line(&user.name)) }
                }
            }
        }
        (choices("role", "Role", &fields.text("role"), &roles))
        (scope(fields, &fleets, has_more))
        (field("expires_in", "Ends after", &expiry, "A time such as 12h, 90d or 1y. Empty: when it is revoked."))
        (field("name", "Name", &fields.text("name"), "Such as laptop. Empty: the name of the role."))
    };
    let asked = Panel {
        title: html! { "Create a token" },
        button: "Create token",
        is_danger: false,
        to: HERE,
        back: HERE,
        hidden: vec![("do", "create-token".to_owned())],
    };
    Ok(panel::panel(visitor, &asked, trouble, &content))
}

pub(super) async fn create(visitor: &Visitor, fields: &Fields) -> Result<Response, Trouble> {
    let asked = CreateToken {
        user: fields.text("user"),
        role: fields.text("role"),
        name: given(fields, "name"),
        fleets: read_scope(fields)?,
        expires_in: given(fields, "expires_in"),
    };
    let created = visitor.act::<TokenCreated>(Method::POST, "/tokens", &asked, None).await?;
    let token = &created.details;
    let once = Once {
        title: html! { "Token " (named(&token.name)) " of " (named(&token.user)) },
        what: "token",
        secret: &created.token,
        about: html! {
            p.muted {
                "Its id is " code { (token.id) } ", its role " (token.role) ". "
                @match token.expires { Some(expires) => { "It ends " (moment(expires)) "." }, None => "It does not end by itself." }
            }
        },
        to: HERE,
    };
    Ok(once::shown(visitor, &frame::place(), &once))
}

pub(super) async fn confirm(
    visitor: &Visitor,
    fields: &Fields,
    trouble: Option<&Trouble>,
) -> Result<Markup, Trouble> {
    let found = visitor.get::<TokenView>(&format!("/tokens/{}", encoded(&fields.text("id")))).await?;
    let token = found.value;
    let is_own = token.id == visitor.caller.by.id;
    let content = html! {
        p {
            "The token " (named(&token.name)) " of " (named(&token.user)) ", role " (token.role)
            ", is not accepted any more, at once and for good. All sessions with it end."
        }
        p.muted { "Last used: " (last_use(&token)) "." }
        @if is_own { p.why-box { "This is your own token: you will be signed out." } }
    };
    let asked = Panel {
        title: html! { "Revoke token " code { (token.id) } },
        button: "Revoke",
        is_danger: true,
        to: HERE,
        back: HERE,
        hidden: vec![("do", "revoke-token".to_owned()), ("id", token.id.clone()), ("etag", found.etag)],
    };
    Ok(panel::panel(visitor, &asked, trouble, &content))
}

pub(super) async fn revoke(visitor: &Visitor, fields: &Fields) -> Result<Response, Trouble> {
    let path = format!("/tokens/{}/revoke", encoded(&fields.text("id")));
    let token = visitor.act::<TokenView>(Method::POST, &path, &Nothing {}, fields.get("etag")).await?;
    Ok(visitor.done(HERE, format!("Revoked token {}.", token.id)))
}
