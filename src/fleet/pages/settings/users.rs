//! Users: the list, add, disable and enable.

use axum::http::Method;
use axum::response::Response;
use maud::{Markup, html};

use super::frame::end_state;
use crate::fleet::pages::fields::{Fields, encoded, query};
use crate::fleet::pages::pager::Slice;
use crate::fleet::pages::panel::{self, Panel, field};
use crate::fleet::pages::parts::{command, counted, moment, named};
use crate::fleet::pages::site::Visitor;
use crate::fleet::pages::trouble::Trouble;
use crate::wire::operator_api::Nothing;
use crate::wire::operator_api::access::{AddUser, UserView};

const HERE: &str = "/settings/access";

pub(super) fn card(users: &[UserView], fields: &Fields) -> Markup {
    let slice = Slice::of(users, fields.get("users"));
    html! {
        section.card.table-card #users data-live-part aria-labelledby="users-title" {
            h2 #users-title { "Users" }
            @if users.is_empty() {
                div.nothing {
                    p { "There is only the server's first token. Add a user for each person and each program, here or with:" }
                    (command("cotter user add anna"))
                }
            } @else {
                table.keys {
                    thead {
                        tr {
                            th scope="col" { "User" } th scope="col" { "State" } th.number scope="col" { "Tokens" }
                            th scope="col" { "Added" } th scope="col" { "Act" }
                        }
                    }
                    tbody { @for user in slice.rows { (row(user)) } }
                }
                (slice.links(|from| format!("{HERE}?users={from}")))
            }
        }
    }
}

fn row(user: &UserView) -> Markup {
    let is_active = user.state == "active";
    let (act, words) = if is_active { ("disable-user", "Disable") } else { ("enable-user", "Enable") };
    let change = query([("do", act), ("user", user.name.as_str())]);
    let create = query([("do", "create-token"), ("user", user.name.as_str())]);
    html! {
        tr {
            th scope="row" { (named(&user.name)) }
            td data-label="State" { (end_state(&user.state)) }
            td.number data-label="Tokens" { (user.tokens) }
            td data-label="Added" { (moment(user.created)) }
            td data-label="Act" {
                div.buttons {
                    @if is_active {
                        a.button.small href={ (HERE) "?" (create) } data-dialog aria-label={ "Create a token for " (user.name) } { "Create token…" }
                    }
                    a.button.small href={ (HERE) "?" (change) } data-dialog aria-label={ (words) " user " (user.name) } { (words) "…" }
                }
            }
        }
    }
}

pub(super) fn add_form(visitor: &Visitor, fields: &Fields, trouble: Option<&Trouble>) -> Markup {
    let content = html! {
        p { "A user is a person or a program, such as a build. It can do nothing until it has a token. Its name stays in the audit trail for good." }
        (field("name", "Name", &fields.text("name"), "Such as anna or ci."))
    };
    let asked = Panel {
        title: html! { "Add a user" },
        button: "Add user",
        is_danger: false,
        to: HERE,
        back: HERE,
        hidden: vec![("do", "add-user".to_owned())],
    };
    panel::panel(visitor, &asked, trouble, &content)
}

pub(super) async fn add(visitor: &Visitor, fields: &Fields) -> Result<Response, Trouble> {
    let asked = AddUser { name: fields.text("name") };
    let user = visitor.act::<UserView>(Method::POST, "/users", &asked, None).await?;
    let to = format!("{HERE}?{}", query([("do", "create-token"), ("user", user.name.as_str())]));
    Ok(visitor.done(&to, format!("Added user {}. Now create a token for it.", user.name)))
}

pub(super) async fn confirm(
    visitor: &Visitor,
    fields: &Fields,
    is_disable: bool,
    trouble: Option<&Trouble>,
) -> Result<Markup, Trouble> {
    let found = visitor.get::<UserView>(&format!("/users/{}", encoded(&fields.text("user")))).await?;
    let user = found.value;
    let content = html! {
        @if is_disable {
            p { "This revokes " (counted(user.tokens, "token")) " of " (named(&user.name)) " at once and for good, and ends all sessions with them." }
            p.muted { "The user can be enabled again, and needs a new token then." }
        } @else {
            p { (named(&user.name)) " can get tokens again. Those that were revoked stay so." }
        }
    };
    let (title, button, act) = match is_disable {
        true => ("Disable user ", "Disable", "disable-user"),
        false => ("Enable user ", "Enable", "enable-user"),
    };
    let asked = Panel {
        title: html! { (title) (named(&user.name)) },
        button,
        is_danger: is_disable,
        to: HERE,
        back: HERE,
        hidden: vec![("do", act.to_owned()), ("user", user.name.clone()), ("etag", found.etag)],
    };
    Ok(panel::panel(visitor, &asked, trouble, &content))
}

pub(super) async fn change(
    visitor: &Visitor,
    fields: &Fields,
    is_disable: bool,
) -> Result<Response, Trouble> {
    let (act, done) = if is_disable { ("disable", "Disabled") } else { ("enable", "Enabled") };
    let path = format!("/users/{}/{act}", encoded(&fields.text("user")));
    let user = visitor.act::<UserView>(Method::POST, &path, &Nothing {}, fields.get("etag")).await?;
    Ok(visitor.done(HERE, format!("{done} user {}.", user.name)))
}
