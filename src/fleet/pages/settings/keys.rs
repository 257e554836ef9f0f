//! Provisioning keys: fleet by fleet, page by page; create and revoke.

use axum::extract::Extension;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::fields::{given, number};
use super::frame::{self, end_state};
use crate::fleet::access::Permission;
use crate::fleet::pages::fields::{Fields, encoded, query};
use crate::fleet::pages::layout;
use crate::fleet::pages::once::{self, Once};
use crate::fleet::pages::pager::{self, Slice};
use crate::fleet::pages::panel::{self, Panel, field};
use crate::fleet::pages::parts::{age, counted, moment, named};
use crate::fleet::pages::site::Visitor;
use crate::fleet::pages::trouble::Trouble;
use crate::wire::operator_api::{Code, CreateKey, FleetView, KeyCreated, KeyView, Nothing};

const HERE: &str = "/settings/keys";

/// Fleets of a page.
const FLEETS: &str = "20";
/// Keys of each of them. The page of one fleet has all.
const OF_FLEET: usize = 10;

/// A key with the number of its fleet.
type Row = (u64, KeyView);

pub(in crate::fleet::pages) async fn page(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Trouble> {
    let content = match fields.get("do") {
        Some("create") => create_form(&visitor, &fields, None).await?,
        Some("revoke") => confirm(&visitor, &fields, None).await?,
        Some(_) => return Err(no_such_act()),
        None => {
            let list = match fields.get("fleet") {
                Some(fleet) => of_fleet(&visitor, &visitor.fleet(fleet).await?, fields.get("from")).await?,
                None => of_fleets(&visitor, &fields.text("cursor")).await?,
            };
            return Ok(frame::page(&visitor, "keys", &list).into_response());
        }
    };
    Ok(layout::page(&visitor, &frame::place(), &content).into_response())
}

fn no_such_act() -> Trouble {
    Trouble::new(Code::NotFound, "there is no such act")
}

async fn keys(visitor: &Visitor, fleet: u64) -> Result<Vec<Row>, Trouble> {
    let path = format!("/fleets/{fleet}/provisioning-keys");
    let mut keys = visitor.get::<Vec<KeyView>>(&path).await?.value;
    keys.reverse();
    Ok(keys.into_iter().map(|key| (fleet, key)).collect())
}

async fn of_fleets(visitor: &Visitor, cursor: &str) -> Result<Markup, Trouble> {
    let asked = query([("limit", FLEETS), ("cursor", cursor)]);
    let fleets = visitor.get::<Vec<FleetView>>(&format!("/fleets?{asked}")).await?;
    let (mut rows, mut longer) = (Vec::new(), Vec::new());
    for fleet in &fleets.value {
        let mut its = keys(visitor, fleet.number).await?;
        if its.len() > OF_FLEET {
            longer.push((fleet, its.len()));
            its.truncate(OF_FLEET);
        }
        rows.extend(its);
    }
    let first = (!cursor.is_empty()).then(|| HERE.to_owned());
    let next = fleets.next.map(|next| format!("{HERE}?{}", query([("cursor", next.as_str())])));
    Ok(card(
        visitor,
        &html! { "Provisioning keys" },
        &rows,
        &html! {
            @for (fleet, number) in longer {
                p.nothing { a href={ (HERE) "?fleet=" (fleet.number) } { "All " (counted(number, "key")) " of " (named(&fleet.name)) } }
            }
            @if first.is_some() || next.is_some() {
                (pager::links(&format!("keys of {}", counted(fleets.value.len(), "fleet")), first, next))
            }
        },
    ))
}

async fn of_fleet(visitor: &Visitor, fleet: &FleetView, from: Option<&str>) -> Result<Markup, Trouble> {
    let keys = keys(visitor, fleet.number).await?;
    let slice = Slice::of(&keys, from);
    let links = slice.links(|from| format!("{HERE}?fleet={}&from={from}", fleet.number));
    let title = html! { "Provisioning keys of " (named(&fleet.name)) };
    Ok(card(
        visitor,
        &title,
        slice.rows,
        &html! { (links) p.nothing { a href=(HERE) { "Keys of all fleets" } } },
    ))
}

fn card(visitor: &Visitor, title: &Markup, rows: &[Row], below: &Markup) -> Markup {
    html! {
        @if visitor.may(Permission::Keys) {
            div.buttons { a.button href={ (HERE) "?do=create" } data-dialog { "Create a provisioning key…" } }
        }
        section.card.table-card #keys data-live-part aria-labelledby="keys-title" {
            h2 #keys-title { (title) }
            @if rows.is_empty() { p.nothing.muted { "There is no provisioning key here. A device joins its fleet with one." } } @else {
                table.keys {
                    thead {
                        tr {
                            th scope="col" { "Key" } th scope="col" { "Fleet" } th scope="col" { "State" }
                            th scope="col" { "Used" } th scope="col" { "Created" } th scope="col" { "Ends" } th scope="col" { "Act" }
                        }
                    }
                    tbody { @for row in rows { (row_of(visitor, row)) } }
                }
            }
            (below)
        }
    }
}

fn row_of(visitor: &Visitor, (fleet, key): &Row) -> Markup {
    let number = fleet.to_string();
    let fields = query([("do", "revoke"), ("fleet", number.as_str()), ("id", key.id.as_str())]);
    html! {
        tr {
            th scope="row" { (name_of(key)) br; code.small { (key.id) } }
            td data-label="Fleet" { a href={ "/fleets/" (fleet) } { (named(&key.fleet)) } }
            td data-label="State" { (end_state(&key.state)) }
            td data-label="Used" {
                (key.uses) @if let Some(most) = key.most_uses { " of " (most) }
                " · " (counted(key.devices, "device"))
            }
            td data-label="Created" { (moment(key.created)) }
            td data-label="Ends" { @if let Some(expires) = key.expires { (moment(expires)) } @else { span.muted { "never" } } }
            td data-label="Act" {
                @if key.state == "active" && visitor.may(Permission::Keys) {
                    a.button.small href={ (HERE) "?" (fields) } data-dialog aria-label={ "Revoke key " (key.id) } { "Revoke…" }
                }
            }
        }
    }
}

fn name_of(key: &KeyView) -> Markup {
    named(key.name.as_deref().unwrap_or("unnamed"))
}

async fn create_form(
    visitor: &Visitor,
    fields: &Fields,
    trouble: Option<&Trouble>,
) -> Result<Markup, Trouble> {
    visitor.needs(Permission::Keys)?;
    let (fleets, has_more) = visitor.fleets().await?;
    let chosen = fields.text("fleet");
    let content = html! {
        p { "Whoever has the key can let devices join the fleet, until it ends or is revoked. The key is shown once." }
        (once::key()?)
        @if has_more { (field("fleet", "Fleet", &chosen, "Its name or number.")) } @else {
            div.field {
                label for="fleet" { "Fleet" }
                select #fleet name="fleet" required {
                    @for fleet in &fleets {
                        option value=(fleet.number) selected[chosen == fleet.number.to_string()] { (crate::model::text::one_line(&fleet.name)) }
                    }
                }
            }
        }
        (field("name", "Name", &fields.text("name"), "What it is for, such as: factory, batch 7."))
        (field("expires_in", "Ends after", &fields.get("expires_in").map_or_else(|| default_expiry(fields), str::to_owned), "A time such as 12h, 30d or 1y. Empty: never."))
        (field("uses", "Most devices", &fields.text("uses"), "In total. Empty: any number."))
        (field("per_minute", "Most devices per minute", &fields.text("per_minute"), "Empty: 60."))
    };
    let asked = Panel {
        title: html! { "Create a provisioning key" },
        button: "Create key",
        is_danger: false,
        to: HERE,
        back: HERE,
        hidden: vec![("do", "create".to_owned())],
    };
    Ok(panel::panel(visitor, &asked, trouble, &content))
}

/// A key ends after 30 days, unless a person says otherwise.
fn default_expiry(fields: &Fields) -> String {
    let is_first = fields.get("csrf").is_none();
    if is_first { "30d".to_owned() } else { String::new() }
}

async fn confirm(visitor: &Visitor, fields: &Fields, trouble: Option<&Trouble>) -> Result<Markup, Trouble> {
    visitor.needs(Permission::Keys)?;
    let (fleet, id) = (visitor.fleet(&fields.text("fleet")).await?, fields.text("id"));
    let found = keys(visitor, fleet.number).await?.into_iter().map(|(_, key)| key).find(|key| key.id == id);
    let key = found.ok_or_else(|| Trouble::new(Code::NotFound, "the fleet has no such provisioning key"))?;
    let content = html! {
        p { "The key " (name_of(&key)) " of " (named(&fleet.name)) " lets no further device join. This cannot be undone." }
        p.muted {
            "It has been used " (counted(usize::try_from(key.uses).unwrap_or(usize::MAX), "time"))
            @if let Some(used) = key.last_used { ", last " (age(used)) }
            ". Devices that joined with it stay as they are: " (key.devices) "."
        }
    };
    let asked = Panel {
        title: html! { "Revoke provisioning key " code { (key.id) } },
        button: "Revoke",
        is_danger: true,
        to: HERE,
        back: HERE,
        hidden: vec![
            ("do", "revoke".to_owned()),
            ("fleet", fleet.number.to_string()),
            ("id", key.id.clone()),
        ],
    };
    Ok(panel::panel(visitor, &asked, trouble, &content))
}

pub(in crate::fleet::pages) async fn act(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Trouble> {
    let (acted, is_create) = match fields.text("do").as_str() {
        "create" => (create(&visitor, &fields).await, true),
        "revoke" => (revoke(&visitor, &fields).await, false),
        _ => return Err(no_such_act()),
    };
    let trouble = match acted {
        Ok(response) => return Ok(response),
        Err(trouble) => trouble,
    };
    let content = match is_create {
        true => create_form(&visitor, &fields, Some(&trouble)).await?,
        false => confirm(&visitor, &fields, Some(&trouble)).await?,
    };
    Ok(panel::refused(&visitor, &frame::place(), &trouble, &content))
}

async fn create(visitor: &Visitor, fields: &Fields) -> Result<Response, Trouble> {
    let asked = CreateKey {
        name: given(fields, "name"),
        expires_in: given(fields, "expires_in"),
        uses: number(fields, "uses", "The most devices")?,
        per_minute: number(fields, "per_minute", "The most devices per minute")?,
    };
    let path = format!("/fleets/{}/provisioning-keys", encoded(&fields.text("fleet")));
    let created = visitor.act::<KeyCreated>(Method::POST, &path, &asked, None).await?;
    let key = &created.details;
    let once = Once {
        title: html! { "Provisioning key of " (named(&created.fleet)) },
        what: "provisioning key",
        secret: &created.provisioning_key,
        about: html! {
            p.muted {
                "Its id is " code { (key.id) } ". "
                @match key.expires { Some(expires) => { "It ends " (moment(expires)) "." }, None => "It does not end by itself." }
            }
        },
        to: HERE,
    };
    Ok(once::shown(visitor, &frame::place(), &once))
}

async fn revoke(visitor: &Visitor, fields: &Fields) -> Result<Response, Trouble> {
    let (fleet, id) = (fields.text("fleet"), fields.text("id"));
    let path = format!("/fleets/{}/provisioning-keys/{}/revoke", encoded(&fleet), encoded(&id));
    let key = visitor.act::<KeyView>(Method::POST, &path, &Nothing {}, None).await?;
    Ok(visitor.done(HERE, format!("Revoked provisioning key {}.", key.id)))
}
