//! The variables of a fleet or of a device: a list, and forms to set and to remove one. The value of a secret variable is on
//! no page: it goes from the form to the records, and from there to devices alone.

use axum::extract::{Extension, Path};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::fields::{Fields, encoded, query};
use super::layout::{self, Place};
use super::pager;
use super::panel::{self, Panel, field, tick};
use super::parts::{counted, named};
use super::site::{Got, Visitor};
use super::trouble::Trouble;
use crate::fleet::access::Permission;
use crate::model::text::{one_line, shortened};
use crate::wire::operator_api::{
    ChangeVariables, Code, DeviceDetail, FleetView, VariableView, VariablesChanged,
};

/// Variables of a page.
const ROWS: &str = "200";

/// Longest text of a value in the list, in characters. The form has all of it.
const LONGEST: usize = 200;

/// The fleet or the device whose variables a page has.
struct Holder {
    /// Its path below `/api/v1`, and its page.
    path: String,
    name: String,
    /// Selects its variables.
    asked: (&'static str, String),
    place: Place,
    fleet: FleetView,
}

impl Holder {
    async fn fleet(visitor: &Visitor, fleet: &str) -> Result<Self, Trouble> {
        let fleet = visitor.fleet(fleet).await?;
        let title = format!("Variables of {}", fleet.name);
        Ok(Self {
            path: format!("/fleets/{}", fleet.number),
            name: fleet.name.clone(),
            asked: ("fleet", fleet.number.to_string()),
            place: Place::of_fleet(title, fleet.number, &fleet.name, "variables"),
            fleet,
        })
    }

    async fn device(visitor: &Visitor, device: &str) -> Result<Self, Trouble> {
        let path = format!("/devices/{}", encoded(device));
        let device = visitor.get::<DeviceDetail>(&path).await?.value.device;
        let fleet = visitor.fleet(&device.fleet).await?;
        let title = format!("Variables of {}", device.name);
        Ok(Self {
            path: format!("/devices/{}", device.uuid),
            name: device.name,
            asked: ("device", device.uuid),
            place: Place::of_fleet(title, fleet.number, &fleet.name, "devices"),
            fleet,
        })
    }

    fn page(&self) -> String {
        format!("{}/variables", self.path)
    }

    fn is_device(&self) -> bool {
        self.asked.0 == "device"
    }

    /// Returns `true` if the variable is set here, and not at the device's fleet.
    fn has(&self, row: &VariableView) -> bool {
        row.device.is_some() == self.is_device()
    }

    async fn list(
        &self,
        visitor: &Visitor,
        more: &[(&str, &str)],
    ) -> Result<Got<Vec<VariableView>>, Trouble> {
        let asked = [(self.asked.0, self.asked.1.as_str())];
        let asked = query(asked.into_iter().chain(more.iter().copied()));
        visitor.get::<Vec<VariableView>>(&format!("/variables?{asked}")).await
    }

    /// Finds a variable that is set here, with the etag of all of them.
    async fn find(
        &self,
        visitor: &Visitor,
        fields: &Fields,
    ) -> Result<(Option<VariableView>, String), Trouble> {
        let (name, service) = (fields.text("name"), fields.text("service"));
        if name.is_empty() {
            return Ok((None, self.list(visitor, &[("limit", "1")]).await?.etag));
        }
        let rows = self.list(visitor, &[("name", name.as_str()), ("service", service.as_str())]).await?;
        let is_it =
            |row: &VariableView| self.has(row) && row.service.as_deref().unwrap_or_default() == service;
        Ok((rows.value.into_iter().find(is_it), rows.etag))
    }
}

pub(super) async fn of_fleet(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path(fleet): Path<String>,
) -> Result<Response, Trouble> {
    page(&visitor, &fields, &Holder::fleet(&visitor, &fleet).await?).await
}

pub(super) async fn of_device(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path(device): Path<String>,
) -> Result<Response, Trouble> {
    page(&visitor, &fields, &Holder::device(&visitor, &device).await?).await
}

pub(super) async fn change_fleet(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path(fleet): Path<String>,
) -> Result<Response, Trouble> {
    act(&visitor, &fields, &Holder::fleet(&visitor, &fleet).await?).await
}

pub(super) async fn change_device(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path(device): Path<String>,
) -> Result<Response, Trouble> {
    act(&visitor, &fields, &Holder::device(&visitor, &device).await?).await
}

async fn page(visitor: &Visitor, fields: &Fields, holder: &Holder) -> Result<Response, Trouble> {
    let content = match fields.get("do") {
        Some("set") => set_form(visitor, fields, holder, None).await?,
        Some("remove") => confirm(visitor, fields, holder, None).await?,
        Some(_) => return Err(no_such_act()),
        None => list(visitor, fields, holder).await?,
    };
    Ok(layout::page(visitor, &holder.place, &content).into_response())
}

fn no_such_act() -> Trouble {
    Trouble::new(Code::NotFound, "there is no such act")
}

async fn list(visitor: &Visitor, fields: &Fields, holder: &Holder) -> Result<Markup, Trouble> {
    let cursor = fields.text("cursor");
    let rows = holder.list(visitor, &[("limit", ROWS), ("cursor", cursor.as_str())]).await?;
    let here = holder.page();
    let first = (!cursor.is_empty()).then(|| here.clone());
    let next = rows.next.map(|next| format!("{here}?{}", query([("cursor", next.as_str())])));
    Ok(html! {
        div.page-head {
            h1 { "Variables of " (named(&holder.name)) }
            @if holder.is_device() { p.muted { a href=(holder.path) { "Back to the device" } } }
        }
        @if visitor.may(Permission::Variables) {
            div.buttons { a.button href={ (here) "?do=set" } data-dialog { "Set a variable…" } }
        }
        section.card.table-card #variables data-live-part aria-label="Variables" {
            @if rows.value.is_empty() { p.nothing.muted { "No variable is set here. Services get variables as their environment." } } @else {
                table.keys {
                    thead {
                        tr {
                            th scope="col" { "Variable" } th scope="col" { "Value" } th scope="col" { "For" } th scope="col" { "Act" }
                        }
                    }
                    tbody { @for row in &rows.value { (row_of(visitor, holder, row)) } }
                }
            }
            @if first.is_some() || next.is_some() {
                (pager::links(&counted(rows.value.len(), "variable"), first, next))
            }
        }
    })
}

fn row_of(visitor: &Visitor, holder: &Holder, row: &VariableView) -> Markup {
    let service = row.service.as_deref().unwrap_or_default();
    let to = |act: &str| {
        let fields = [("do", act), ("name", row.name.as_str()), ("service", service)];
        format!("{}?{}", holder.page(), query(fields))
    };
    html! {
        tr {
            th scope="row" { code { (one_line(&row.name)) } }
            td data-label="Value" {
                @match &row.value {
                    Some(value) => code { (shortened(&one_line(value), LONGEST)) },
                    None => span.muted { "secret" },
                }
                @if row.overridden { " " span.tag { "Overridden" } }
            }
            td data-label="For" {
                @if row.device.is_none() && holder.is_device() { a href={ "/fleets/" (holder.fleet.number) "/variables" } { "Fleet" } ", " }
                @match &row.service { Some(service) => (named(service)), None => "all services" }
            }
            td data-label="Act" {
                @if holder.has(row) && visitor.may(Permission::Variables) {
                    a.button.small href=(to("set")) data-dialog aria-label={ "Change " (row.name) } { "Change…" }
                    " "
                    a.button.small href=(to("remove")) data-dialog aria-label={ "Remove " (row.name) } { "Remove…" }
                }
            }
        }
    }
}

async fn set_form(
    visitor: &Visitor,
    fields: &Fields,
    holder: &Holder,
    trouble: Option<&Trouble>,
) -> Result<Markup, Trouble> {
    visitor.needs(Permission::Variables)?;
    let (found, etag) = holder.find(visitor, fields).await?;
    let was_secret = found.as_ref().is_some_and(|row| row.secret);
    let is_secret = was_secret || fields.get("secret").is_some();
    // A secret value that was refused is not sent back to the browser.
    let typed = fields.all("value").pop().filter(|_| !is_secret);
    let present = found.as_ref().and_then(|row| row.value.clone()).filter(|_| !is_secret);
    let value = typed.or(present).unwrap_or_default();
    let content = html! {
        (field("name", "Name", &fields.text("name"), "Such as RATE."))
        div.field {
            label for="value" { "Value" }
            // A browser drops the first line break.
            textarea #value name="value" rows="3" autocomplete="off" spellcheck="false" aria-describedby="value-hint" { "\n" (value) }
            p.muted.small #value-hint {
                @if is_secret { "It is secret: the present value is not shown." } @else { "Devices get it exactly as it is here." }
            }
        }
        (field("service", "Service", &fields.text("service"), "Only for this service. Empty: for all services."))
        @if was_secret { input type="hidden" name="secret" value="1"; } @else {
            (tick("secret", "1", is_secret, &html! { "Secret: no page, command or log shows its value again" }))
        }
        p.muted { "Services whose environment changes are restarted, as in an update." }
    };
    let here = holder.page();
    let title = html! { @if found.is_some() { "Change a variable of " } @else { "Set a variable of " } (named(&holder.name)) };
    let asked = Panel {
        title,
        button: "Set variable",
        is_danger: false,
        to: &here,
        back: &here,
        hidden: vec![("do", "set".to_owned()), ("etag", etag)],
    };
    Ok(panel::panel(visitor, &asked, trouble, &content))
}

async fn confirm(
    visitor: &Visitor,
    fields: &Fields,
    holder: &Holder,
    trouble: Option<&Trouble>,
) -> Result<Markup, Trouble> {
    visitor.needs(Permission::Variables)?;
    let (found, etag) = holder.find(visitor, fields).await?;
    let row = found.ok_or_else(|| Trouble::new(Code::NotFound, "this variable is not set here"))?;
    let asked = ChangeVariables { dry_run: true, ..removal(fields) };
    let changed = visitor.act::<VariablesChanged>(Method::POST, &holder.page(), &asked, None).await?;
    let content = html! {
        p {
            "The variable " code { (one_line(&row.name)) } " of " (named(&holder.name))
            @if let Some(service) = &row.service { " for the service " (named(service)) }
            " is removed. " (restarts(changed.devices)) "."
        }
        @if row.secret { p.muted { "It is secret: its value cannot be shown before it is removed." } }
    };
    let here = holder.page();
    let hidden = vec![
        ("do", "remove".to_owned()),
        ("name", row.name.clone()),
        ("service", fields.text("service")),
        ("etag", etag),
    ];
    let title = html! { "Remove a variable of " (named(&holder.name)) };
    let asked = Panel { title, button: "Remove", is_danger: true, to: &here, back: &here, hidden };
    Ok(panel::panel(visitor, &asked, trouble, &content))
}

/// Says on how many devices a change restarts services.
fn restarts(devices: usize) -> String {
    match devices {
        0 => "No device restarts a service for it".to_owned(),
        1 => "One device restarts services for it".to_owned(),
        many => format!("{} restart services for it", counted(many, "device")),
    }
}

fn service(fields: &Fields) -> Option<String> {
    fields.get("service").map(str::to_owned)
}

fn removal(fields: &Fields) -> ChangeVariables {
    let remove = vec![fields.text("name")];
    ChangeVariables { service: service(fields), remove, ..ChangeVariables::default() }
}

fn setting(fields: &Fields) -> ChangeVariables {
    // Browsers write a line break as two characters.
    let value = fields.all("value").pop().unwrap_or_default().replace("\r\n", "\n");
    let set = [(fields.text("name"), value)].into();
    let secret = fields.get("secret").is_some();
    ChangeVariables { service: service(fields), set, secret, ..ChangeVariables::default() }
}

async fn act(visitor: &Visitor, fields: &Fields, holder: &Holder) -> Result<Response, Trouble> {
    let (asked, is_set) = match fields.text("do").as_str() {
        "set" => (setting(fields), true),
        "remove" => (removal(fields), false),
        _ => return Err(no_such_act()),
    };
    let (here, etag) = (holder.page(), fields.get("etag"));
    let trouble = match visitor.act::<VariablesChanged>(Method::POST, &here, &asked, etag).await {
        Ok(changed) => {
            let done = if is_set { "Set" } else { "Removed" };
            let (name, restarts) = (one_line(&fields.text("name")), restarts(changed.devices));
            return Ok(
                visitor.done(&here, format!("{done} {name} of {}. {restarts}.", one_line(&holder.name)))
            );
        }
        Err(trouble) if trouble.is_conflict() => trouble.as_changed("list of variables"),
        Err(trouble) => trouble,
    };
    let content = match is_set {
        true => set_form(visitor, fields, holder, Some(&trouble)).await?,
        false => confirm(visitor, fields, holder, Some(&trouble)).await?,
    };
    Ok(panel::refused(visitor, &holder.place, &trouble, &content))
}
