//! `/api/v1/webhooks`: where the server announces what becomes of rollouts. Only admins see them, because a URL may have a
//! secret in its path.

use std::io;

use axum::Json;
use axum::extract::Extension;
use axum::http::StatusCode;
use tokio::time::Instant;

use super::answer::{ApiError, Body, Path, SecretBody};
use super::desk::{Acting, Desk};
use super::users::name_of;
use crate::fleet::access::Scope;
use crate::fleet::courier::Courier;
use crate::fleet::policy::{NewWebhook, World};
use crate::fleet::webhook::{self, Secret, Webhook};
use crate::fleet::{clock, secret};
use crate::wire::operator_api::{
    Code, CreateWebhook, Nothing, WebhookCreated, WebhookFailure, WebhookTested, WebhookView,
};

/// Lists all webhooks, by name.
pub(super) async fn list(desk: Desk) -> Json<Vec<WebhookView>> {
    let world = desk.world();
    Json(world.webhooks().map(|webhook| view(&world, webhook)).collect())
}

pub(super) async fn show(desk: Desk, Path(name): Path<String>) -> Result<Json<WebhookView>, ApiError> {
    let world = desk.world();
    Ok(Json(view(&world, world.find_webhook(&name)?)))
}

pub(super) async fn create(
    desk: Desk,
    SecretBody(CreateWebhook { name, url, allow_http, fleets, events }): SecretBody<CreateWebhook>,
) -> Result<(StatusCode, Json<WebhookCreated>), ApiError> {
    let failed = |error: io::Error| ApiError::new(Code::Internal, error.to_string());
    let secret = Secret::of(&secret::random().map_err(failed)?);
    let (given, shown) = (name.clone(), secret.reveal().to_owned());
    let act = move |world: &Acting<'_>| {
        let number = |fleet: &String| world.find_fleet(fleet).map(|fleet| fleet.number);
        let fleets = fleets.map(|fleets| fleets.iter().map(number).collect()).transpose()?;
        let scope = fleets.map_or(Scope::All, Scope::Fleets);
        let (allows_http, created) = (allow_http, clock::now());
        let new = NewWebhook { name, url, allows_http, secret, scope, events, created };
        Ok(((), world.create_webhook(new)?))
    };
    let once = ("the secret", "delete the webhook and create it again, if you did not get it");
    desk.act_with_secret(once, act).await?;
    let world = desk.world();
    let webhook = view(&world, world.find_webhook(&given)?);
    Ok((StatusCode::CREATED, Json(WebhookCreated { secret: shown, webhook })))
}

/// Deletes a webhook with the messages that wait for it. Answers with it as it was.
pub(super) async fn delete(desk: Desk, Path(name): Path<String>) -> Result<Json<WebhookView>, ApiError> {
    let act = move |world: &Acting<'_>| {
        let webhook = world.find_webhook(&name)?;
        Ok((view(world, webhook), world.delete_webhook(webhook)?))
    };
    // Its URL, which may have a secret in it, is kept nowhere.
    Ok(Json(desk.act_unkept(act).await?))
}

/// Sends a message now, and answers with what became of it. It changes nothing.
pub(super) async fn test(
    desk: Desk,
    Extension(courier): Extension<Courier>,
    Path(name): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Json<WebhookTested>, ApiError> {
    let webhook = desk.world().find_webhook(&name)?.clone();
    let now = clock::now();
    let body = webhook::test(&webhook.name, now);
    let id = webhook::id_of(&format!("test {} {now}", webhook.name));
    let begun = Instant::now();
    let done = courier.deliver(&webhook, &id, &body).await;
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (status, why) = match done {
        Ok(status) => (Some(status.as_u16()), None),
        Err(attempt) => (None, Some(attempt.why)),
    };
    Ok(Json(WebhookTested { webhook: webhook.name, delivered: why.is_none(), status, why, took_ms }))
}

fn view(world: &World, webhook: &Webhook) -> WebhookView {
    let waiting: Vec<_> = world.messages().filter(|message| message.webhook == webhook.name).collect();
    let its = &webhook.deliveries;
    let fleets = match &webhook.scope {
        Scope::All => None,
        Scope::Fleets(fleets) => Some(fleets.iter().map(|fleet| name_of(world, *fleet)).collect()),
    };
    let last_failure = its.last_failure.as_ref();
    WebhookView {
        name: webhook.name.clone(),
        url: webhook.url.clone(),
        fleets,
        events: webhook.events.iter().map(|event| event.as_str().to_owned()).collect(),
        created: webhook.created,
        waiting: waiting.len(),
        next: waiting.iter().map(|message| message.next).min(),
        delivered: its.delivered,
        failed: its.failed,
        given_up: its.given_up,
        last_success: its.last_success,
        last_failure: last_failure.map(|last| WebhookFailure { at: last.at, why: last.why.clone() }),
    }
}
