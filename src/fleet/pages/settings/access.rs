//! Users and their tokens, for admins.

use axum::extract::Extension;
use axum::response::{IntoResponse, Response};
use maud::html;

use super::{frame, tokens, users};
use crate::fleet::access::Permission;
use crate::fleet::pages::fields::Fields;
use crate::fleet::pages::site::Visitor;
use crate::fleet::pages::trouble::Trouble;
use crate::fleet::pages::{layout, panel};
use crate::wire::operator_api::Code;
use crate::wire::operator_api::access::{TokenView, UserView};

pub(in crate::fleet::pages) async fn page(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Trouble> {
    visitor.needs(Permission::Administer)?;
    if let Some(act) = fields.get("do") {
        let content = asked(&visitor, &fields, act, None).await?;
        return Ok(layout::page(&visitor, &frame::place(), &content).into_response());
    }
    let users = visitor.get::<Vec<UserView>>("/users").await?.value;
    let mut tokens = visitor.get::<Vec<TokenView>>("/tokens").await?.value;
    tokens.reverse();
    let content = html! {
        div.buttons {
            a.button href="/settings/access?do=add-user" data-dialog { "Add a user…" }
            @if !users.is_empty() {
                a.button href="/settings/access?do=create-token" data-dialog { "Create a token…" }
            }
        }
        (users::card(&users, &fields))
        (tokens::card(&tokens, &fields))
    };
    Ok(frame::page(&visitor, "access", &content).into_response())
}

/// The panel of an act.
async fn asked(
    visitor: &Visitor,
    fields: &Fields,
    act: &str,
    trouble: Option<&Trouble>,
) -> Result<maud::Markup, Trouble> {
    match act {
        "add-user" => Ok(users::add_form(visitor, fields, trouble)),
        "disable-user" | "enable-user" => {
            users::confirm(visitor, fields, act == "disable-user", trouble).await
        }
        "create-token" => tokens::create_form(visitor, fields, trouble).await,
        "revoke-token" => tokens::confirm(visitor, fields, trouble).await,
        _ => Err(Trouble::new(Code::NotFound, "there is no such act")),
    }
}

pub(in crate::fleet::pages) async fn act(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Trouble> {
    let act = fields.text("do");
    let acted = match act.as_str() {
        "add-user" => users::add(&visitor, &fields).await,
        "disable-user" | "enable-user" => users::change(&visitor, &fields, act == "disable-user").await,
        "create-token" => tokens::create(&visitor, &fields).await,
        "revoke-token" => tokens::revoke(&visitor, &fields).await,
        _ => return Err(Trouble::new(Code::NotFound, "there is no such act")),
    };
    let trouble = match acted {
        Ok(response) => return Ok(response),
        Err(trouble) if trouble.is_conflict() => trouble.as_changed("token or user"),
        Err(trouble) => trouble,
    };
    visitor.needs(Permission::Administer)?;
    let content = asked(&visitor, &fields, &act, Some(&trouble)).await?;
    Ok(panel::refused(&visitor, &frame::place(), &trouble, &content))
}
