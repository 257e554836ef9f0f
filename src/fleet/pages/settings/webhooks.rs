//! Webhooks: the list with the last delivery of each, create, test and delete. For admins.

use axum::extract::Extension;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use maud::{Markup, html};

use super::fields::{read_scope, scope};
use super::frame;
use crate::fleet::access::Permission;
use crate::fleet::pages::fields::{Fields, encoded, query};
use crate::fleet::pages::layout;
use crate::fleet::pages::once::{self, Once};
use crate::fleet::pages::pager::Slice;
use crate::fleet::pages::panel::{self, Panel, field, tick};
use crate::fleet::pages::parts::{age, counted, named, sign};
use crate::fleet::pages::site::Visitor;
use crate::fleet::pages::trouble::Trouble;
use crate::fleet::webhook::Event;
use crate::model::text::one_line;
use crate::wire::operator_api::{Code, CreateWebhook, Nothing, WebhookCreated, WebhookTested, WebhookView};

const HERE: &str = "/settings/webhooks";

pub(in crate::fleet::pages) async fn page(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Trouble> {
    visitor.needs(Permission::Administer)?;
    if let Some(act) = fields.get("do") {
        let content = asked(&visitor, &fields, act, None).await?;
        return Ok(layout::page(&visitor, &frame::place(), &content).into_response());
    }
    let webhooks = visitor.get::<Vec<WebhookView>>("/webhooks").await?.value;
    let content = html! {
        div.buttons { a.button href={ (HERE) "?do=create" } data-dialog { "Create a webhook…" } }
        (card(&webhooks, &fields))
    };
    Ok(frame::page(&visitor, "webhooks", &content).into_response())
}

fn card(webhooks: &[WebhookView], fields: &Fields) -> Markup {
    let slice = Slice::of(webhooks, fields.get("from"));
    html! {
        section.card.table-card #webhooks data-live-part aria-labelledby="webhooks-title" {
            h2 #webhooks-title { "Webhooks" }
            @if webhooks.is_empty() {
                p.nothing.muted { "There is no webhook. One tells another program what becomes of rollouts, or lets it decide whether a wave may begin." }
            } @else {
                table.keys {
                    thead {
                        tr {
                            th scope="col" { "Webhook" } th scope="col" { "Fleets" } th scope="col" { "Events" }
                            th scope="col" { "Last delivery" } th scope="col" { "Act" }
                        }
                    }
                    tbody { @for webhook in slice.rows { (row(webhook)) } }
                }
                (slice.links(|from| format!("{HERE}?from={from}")))
            }
        }
    }
}

fn row(webhook: &WebhookView) -> Markup {
    let link = |act: &str, words: &str| {
        let fields = query([("do", act), ("name", webhook.name.as_str())]);
        html! { a.button.small href={ (HERE) "?" (fields) } data-dialog aria-label={ (words) " webhook " (webhook.name) } { (words) "…" } }
    };
    html! {
        tr {
            th scope="row" { (named(&webhook.name)) br; code.small { (one_line(&webhook.url)) } }
            td data-label="Fleets" { (frame::fleets(webhook.fleets.as_deref())) }
            td data-label="Events" { @if webhook.events.is_empty() { span.muted { "none" } } @else { (webhook.events.join(", ")) } }
            td data-label="Delivery" { (deliveries(webhook)) }
            td data-label="Act" { div.buttons { (link("test", "Test")) (link("delete", "Delete")) } }
        }
    }
}

fn deliveries(webhook: &WebhookView) -> Markup {
    let failure = webhook.last_failure.as_ref();
    let is_newer = |at: Timestamp| webhook.last_success.is_none_or(|success| success < at);
    html! {
        @if let Some(failure) = failure.filter(|failure| is_newer(failure.at)) {
            span.state.bad { (sign("failing")) "Failed" } " " (age(failure.at))
            p.why { (one_line(&failure.why)) }
        } @else if let Some(success) = webhook.last_success {
            span.state.good { (sign("accepted")) "Delivered" } " " (age(success))
        } @else {
            span.muted { "none yet" }
        }
        p.small.muted {
            (webhook.delivered) " delivered, " (webhook.failed) " attempts failed"
            @if webhook.waiting > 0 { ", " (webhook.waiting) " waiting" }
            @if webhook.given_up > 0 { ", " (webhook.given_up) " given up" }
        }
    }
}

/// The panel of an act.
async fn asked(
    visitor: &Visitor,
    fields: &Fields,
    act: &str,
    trouble: Option<&Trouble>,
) -> Result<Markup, Trouble> {
    match act {
        "create" => create_form(visitor, fields, trouble).await,
        "test" | "delete" => confirm(visitor, fields, act == "delete", trouble).await,
        _ => Err(Trouble::new(Code::NotFound, "there is no such act")),
    }
}

async fn create_form(
    visitor: &Visitor,
    fields: &Fields,
    trouble: Option<&Trouble>,
) -> Result<Markup, Trouble> {
    let (fleets, has_more) = visitor.fleets().await?;
    let is_first = fields.get("csrf").is_none();
    let events = fields.all("event");
    let content = html! {
        p { "The server sends a POST with JSON to this address for each event. With the secret, which is shown once, its receiver verifies that a message is from this server." }
        (once::key()?)
        (field("name", "Name", &fields.text("name"), "Lower-case letters, digits, and . _ -"))
        (field("url", "URL", &fields.text("url"), "https, or http to the server's own machine."))
        (tick("allow_http", "1", fields.get("allow_http").is_some(), &html! { "Accept http to another machine. Others on the network can read the messages then." }))
        fieldset.options {
            legend.label { "Events" }
            div.ticks {
                @for event in Event::ALL.map(Event::as_str) {
                    (tick("event", event, is_first || events.iter().any(|given| given == event), &html! { (event) }))
                }
            }
            p.muted.small { "With none, it is only asked before waves of rollouts that name it." }
        }
        (scope(fields, &fleets, has_more))
    };
    let asked = Panel {
        title: html! { "Create a webhook" },
        button: "Create webhook",
        is_danger: false,
        to: HERE,
        back: HERE,
        hidden: vec![("do", "create".to_owned())],
    };
    Ok(panel::panel(visitor, &asked, trouble, &content))
}

async fn confirm(
    visitor: &Visitor,
    fields: &Fields,
    is_delete: bool,
    trouble: Option<&Trouble>,
) -> Result<Markup, Trouble> {
    let path = format!("/webhooks/{}", encoded(&fields.text("name")));
    let webhook = visitor.get::<WebhookView>(&path).await?.value;
    let content = html! {
        @if is_delete {
            p { "Nothing is sent to " code { (one_line(&webhook.url)) } " any more. This cannot be undone; a new webhook has a new secret." }
            @if webhook.waiting > 0 { p.why-box { (counted(webhook.waiting, "message")) " that still wait for it are lost." } }
        } @else {
            p { "One message of the type " code { "webhook.test" } " is sent to " code { (one_line(&webhook.url)) } " now." }
        }
    };
    let (title, button, act) = if is_delete {
        ("Delete webhook ", "Delete", "delete")
    } else {
        ("Test webhook ", "Send a test", "test")
    };
    let asked = Panel {
        title: html! { (title) (named(&webhook.name)) },
        button,
        is_danger: is_delete,
        to: HERE,
        back: HERE,
        hidden: vec![("do", act.to_owned()), ("name", webhook.name.clone())],
    };
    Ok(panel::panel(visitor, &asked, trouble, &content))
}

pub(in crate::fleet::pages) async fn act(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Trouble> {
    let act = fields.text("do");
    let acted = match act.as_str() {
        "create" => create(&visitor, &fields).await,
        "test" => test(&visitor, &fields).await,
        "delete" => delete(&visitor, &fields).await,
        _ => return Err(Trouble::new(Code::NotFound, "there is no such act")),
    };
    let trouble = match acted {
        Ok(response) => return Ok(response),
        Err(trouble) => trouble,
    };
    visitor.needs(Permission::Administer)?;
    let content = asked(&visitor, &fields, &act, Some(&trouble)).await?;
    Ok(panel::refused(&visitor, &frame::place(), &trouble, &content))
}

async fn create(visitor: &Visitor, fields: &Fields) -> Result<Response, Trouble> {
    let asked = CreateWebhook {
        name: fields.text("name"),
        url: fields.text("url"),
        allow_http: fields.get("allow_http").is_some(),
        fleets: read_scope(fields)?,
        events: Some(fields.all("event")),
    };
    let created = visitor.act::<WebhookCreated>(Method::POST, "/webhooks", &asked, None).await?;
    let once = Once {
        title: html! { "Secret of webhook " (named(&created.webhook.name)) },
        what: "secret",
        secret: &created.secret,
        about: html! { p.muted { "Messages go to " code { (one_line(&created.webhook.url)) } "." } },
        to: HERE,
    };
    Ok(once::shown(visitor, &frame::place(), &once))
}

async fn test(visitor: &Visitor, fields: &Fields) -> Result<Response, Trouble> {
    let path = format!("/webhooks/{}/test", encoded(&fields.text("name")));
    let tested = visitor.act::<WebhookTested>(Method::POST, &path, &Nothing {}, None).await?;
    let name = &tested.webhook;
    let message = match (tested.status, tested.why) {
        (Some(status), None) => format!("Webhook {name} answered {status} after {} ms.", tested.took_ms),
        (_, why) => format!("The test did not reach webhook {name}: {}", one_line(&why.unwrap_or_default())),
    };
    Ok(visitor.done(HERE, message))
}

async fn delete(visitor: &Visitor, fields: &Fields) -> Result<Response, Trouble> {
    let path = format!("/webhooks/{}", encoded(&fields.text("name")));
    let webhook = visitor.act::<WebhookView>(Method::DELETE, &path, &Nothing {}, None).await?;
    Ok(visitor.done(HERE, format!("Deleted webhook {}.", webhook.name)))
}
