//! Creating a fleet. Its first provisioning key is shown once.

use axum::extract::Extension;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::fields::Fields;
use super::layout::{self, Place};
use super::once::{self, Once};
use super::panel::{self, Panel, field};
use super::parts::named;
use super::site::Visitor;
use super::trouble::Trouble;
use crate::fleet::access::Permission;
use crate::wire::operator_api::{CreateFleet, FleetCreated};

fn place() -> Place {
    Place::new("Create a fleet", "fleets")
}

pub(super) async fn page(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Trouble> {
    let content = form(&visitor, &fields, None)?;
    Ok(layout::page(&visitor, &place(), &content).into_response())
}

fn form(visitor: &Visitor, fields: &Fields, trouble: Option<&Trouble>) -> Result<Markup, Trouble> {
    visitor.needs(Permission::Fleets)?;
    let content = html! {
        p { "A fleet is a set of devices that run the same app. A new one has no release, tracks the latest one, and has a provisioning key, which is shown once." }
        (once::key()?)
        (field("name", "Name", &fields.text("name"), "Such as greenhouse."))
        (field("registry", "Registry", &fields.text("registry"), "Where cotter push puts images, such as registry.example.com/greenhouse. May be empty."))
    };
    let asked = Panel {
        title: html! { "Create a fleet" },
        button: "Create fleet",
        is_danger: false,
        to: "/new-fleet",
        back: "/fleets",
        hidden: Vec::new(),
    };
    Ok(panel::panel(visitor, &asked, trouble, &content))
}

pub(super) async fn act(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Trouble> {
    let registry = fields.get("registry").map(str::to_owned);
    let asked = CreateFleet { name: fields.text("name"), registry };
    match visitor.act::<FleetCreated>(Method::POST, "/fleets", &asked, None).await {
        Ok(FleetCreated { fleet, provisioning_key }) => {
            let once = Once {
                title: html! { "Fleet " (named(&fleet.name)) " is created" },
                what: "provisioning key",
                secret: &provisioning_key,
                about: html! { p.muted { "With this key devices join the fleet. More keys are made, and this one revoked, in the settings." } },
                to: &format!("/fleets/{}", fleet.number),
            };
            Ok(once::shown(&visitor, &place(), &once))
        }
        Err(trouble) => {
            let content = form(&visitor, &fields, Some(&trouble))?;
            Ok(panel::refused(&visitor, &place(), &trouble, &content))
        }
    }
}
