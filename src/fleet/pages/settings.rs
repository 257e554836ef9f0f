//! Tokens, provisioning keys, and the user's own session.

use axum::extract::Extension;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::fields::{Fields, encoded, query};
use super::layout::{self, Place};
use super::parts::{age, command, counted, csrf, moment, named, sign};
use super::site::Visitor;
use super::trouble::Trouble;
use crate::fleet::access::Permission;
use crate::wire::operator_api::access::TokenView;
use crate::wire::operator_api::{Code, FleetView, KeyView, Nothing};

pub(super) async fn page(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Trouble> {
    let content = match fields.get("do") {
        Some(act) => confirm(&visitor, &fields, act, None)?,
        None => whole(&visitor).await?,
    };
    Ok(layout::page(&visitor, &Place::new("Settings", "settings"), &content).into_response())
}

async fn whole(visitor: &Visitor) -> Result<Markup, Trouble> {
    let tokens = match visitor.may(Permission::Administer) {
        true => Some(visitor.get::<Vec<TokenView>>("/tokens").await?.value),
        false => None,
    };
    let mut keys = Vec::new();
    for fleet in visitor.get::<Vec<FleetView>>("/fleets?limit=200").await?.value {
        let path = format!("/fleets/{}/provisioning-keys", fleet.number);
        keys.extend(
            visitor.get::<Vec<KeyView>>(&path).await?.value.into_iter().map(|key| (fleet.number, key)),
        );
    }
    Ok(html! {
        div.page-head { h1 { "Settings" } }
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
        @if let Some(tokens) = &tokens { (tokens_card(tokens)) }
        (keys_card(visitor, &keys))
    })
}

fn tokens_card(tokens: &[TokenView]) -> Markup {
    html! {
        section.card.table-card aria-labelledby="tokens-title" {
            h2 #tokens-title { "Tokens" }
            @if tokens.is_empty() {
                div.nothing {
                    p { "There is only the server's first token. Make a token for each person:" }
                    (command("cotter user add anna"))
                    (command("cotter token create anna --role operator"))
                }
            } @else {
                table.keys {
                    thead {
                        tr {
                            th scope="col" { "Token" } th scope="col" { "Role" } th scope="col" { "Fleets" }
                            th scope="col" { "State" } th scope="col" { "Last used" } th scope="col" { "Act" }
                        }
                    }
                    tbody {
                        @for token in tokens {
                            tr {
                                th scope="row" { (named(&token.name)) " " span.muted { "of " (named(&token.user)) } br; code.small { (token.id) } }
                                td data-label="Role" { (token.role) }
                                td data-label="Fleets" {
                                    @match &token.fleets {
                                        None => "all",
                                        Some(fleets) => { @for fleet in fleets { span.tag { (named(fleet)) } " " } },
                                    }
                                }
                                td data-label="State" { (end_state(&token.state)) }
                                td data-label="Last used" { @if let Some(used) = token.last_used { (age(used)) } @else { span.muted { "never" } } }
                                td data-label="Act" {
                                    @if token.state == "active" {
                                        @let fields = query([("do", "revoke-token"), ("id", token.id.as_str())]);
                                        a.button.small href={ "/settings?" (fields) } data-dialog aria-label={ "Revoke token " (token.name) " of " (token.user) } { "Revoke…" }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn end_state(state: &str) -> Markup {
    let tone = if state == "active" { "good" } else { "idle" };
    html! { span.state.(tone) { (sign(state)) (state.replace('_', " ")) } }
}

fn keys_card(visitor: &Visitor, keys: &[(u64, KeyView)]) -> Markup {
    html! {
        section.card.table-card aria-labelledby="keys-title" {
            h2 #keys-title { "Provisioning keys" }
            @if keys.is_empty() { p.nothing.muted { "There is no provisioning key, so no device can join." } } @else {
                table.keys {
                    thead {
                        tr {
                            th scope="col" { "Key" } th scope="col" { "Fleet" } th scope="col" { "State" }
                            th scope="col" { "Used" } th scope="col" { "Created" } th scope="col" { "Act" }
                        }
                    }
                    tbody {
                        @for (fleet, key) in keys {
                            tr {
                                th scope="row" { (named(key.name.as_deref().unwrap_or("unnamed"))) br; code.small { (key.id) } }
                                td data-label="Fleet" { a href={ "/fleets/" (fleet) } { (named(&key.fleet)) } }
                                td data-label="State" { (end_state(&key.state)) }
                                td data-label="Used" {
                                    (key.uses) @if let Some(most) = key.most_uses { " of " (most) }
                                    " · " (counted(key.devices, "device"))
                                }
                                td data-label="Created" { (moment(key.created)) }
                                td data-label="Act" {
                                    @if key.state == "active" && visitor.may(Permission::Keys) {
                                        @let number = fleet.to_string();
                                        @let fields = query([("do", "revoke-key"), ("fleet", number.as_str()), ("id", key.id.as_str())]);
                                        a.button.small href={ "/settings?" (fields) } data-dialog aria-label={ "Revoke key " (key.id) } { "Revoke…" }
                                    }
                                }
                            }
                        }
                    }
                }
            }
            @if visitor.may(Permission::Keys) && !keys.is_empty() {
                div.nothing { p.muted { "A new key is shown only once, so make it where you keep it:" } (command("cotter fleet provisioning-key create FLEET --expires-in 30d")) }
            }
        }
    }
}

fn confirm(
    visitor: &Visitor,
    fields: &Fields,
    act: &str,
    trouble: Option<&Trouble>,
) -> Result<Markup, Trouble> {
    let (title, meaning) = match act {
        "revoke-token" => {
            ("Revoke token", "It is not accepted any more, at once and for good. All sessions with it end.")
        }
        "revoke-key" => (
            "Revoke provisioning key",
            "It registers no further device. Devices that have joined with it stay.",
        ),
        _ => return Err(Trouble::new(Code::NotFound, "there is no such act")),
    };
    Ok(html! {
        section.card.panel data-panel {
            h1 #dialog-title { (title) " " code { (fields.text("id")) } }
            @if let Some(trouble) = trouble { (layout::failure(trouble)) }
            p { (meaning) }
            form method="post" action="/settings" data-dialog {
                (csrf(&visitor.csrf))
                @for (name, value) in fields.without(&["csrf"]) { input type="hidden" name=(name) value=(value); }
                div.buttons {
                    button.primary.danger type="submit" { "Revoke" }
                    a.button href="/settings" data-close { "Cancel" }
                }
            }
        }
    })
}

pub(super) async fn act(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Trouble> {
    let (act, id) = (fields.text("do"), fields.text("id"));
    let path = match act.as_str() {
        "revoke-token" => format!("/tokens/{}/revoke", encoded(&id)),
        "revoke-key" => {
            format!("/fleets/{}/provisioning-keys/{}/revoke", encoded(&fields.text("fleet")), encoded(&id))
        }
        _ => return Err(Trouble::new(Code::NotFound, "there is no such act")),
    };
    match visitor.act::<serde_json::Value>(Method::POST, &path, &Nothing {}, None).await {
        Ok(_) => Ok(visitor.done("/settings", format!("Revoked {id}."))),
        Err(trouble) => {
            let content = confirm(&visitor, &fields, &act, Some(&trouble))?;
            let page = layout::page(&visitor, &Place::new("Settings", "settings"), &content);
            Ok((trouble.status, page).into_response())
        }
    }
}
