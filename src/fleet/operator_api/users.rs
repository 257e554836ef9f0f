//! `/api/v1/users` and `/api/v1/tokens`.

use std::sync::Arc;

use axum::Json;
use axum::extract::Extension;
use axum::http::StatusCode;
use axum::response::Response;

use super::answer::{ApiError, Body, Path};
use super::desk::{Acting, Desk};
use super::etag::{ETag, Tagged};
use super::fleets::random;
use super::keys::expiry;
use crate::fleet::access::{AccessChange, AccessRefusal, Accounts, By, NewToken, Role, Scope, Token, User};
use crate::fleet::gate::{Caller, Gate};
use crate::fleet::policy::{Change, Refusal, World};
use crate::fleet::{clock, secret};
use crate::wire::operator_api::Nothing;
use crate::wire::operator_api::access::{AddUser, CreateToken, TokenCreated, TokenView, UserView, WhoView};

/// Lists all users, by name, including those that are disabled.
pub(super) async fn list(desk: Desk) -> Json<Vec<UserView>> {
    let world = desk.world();
    Json(world.accounts().users().map(|user| view(&world, user)).collect())
}

pub(super) async fn show(desk: Desk, Path(user): Path<String>) -> Result<Response, ApiError> {
    let world = desk.world();
    let user = world.accounts().find_user(&user)?;
    desk.read(&ETag::of_user(user), view(&world, user))
}

pub(super) async fn add(
    desk: Desk,
    Body(AddUser { name }): Body<AddUser>,
) -> Result<(StatusCode, Tagged<UserView>), ApiError> {
    let given = name.clone();
    desk.act(|world| Ok(((), changes(world.accounts().add_user(name, clock::now()))?))).await?;
    Ok((StatusCode::CREATED, shown(&desk, &given)?))
}

/// Ends all tokens of a user.
pub(super) async fn disable(
    desk: Desk,
    Path(user): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Tagged<UserView>, ApiError> {
    change(desk, user, |accounts, user| accounts.disable_user(user, clock::now())).await
}

pub(super) async fn enable(
    desk: Desk,
    Path(user): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Tagged<UserView>, ApiError> {
    change(desk, user, Accounts::enable_user).await
}

async fn change(
    desk: Desk,
    user: String,
    act: impl FnOnce(&Accounts, &User) -> Vec<AccessChange> + Send + 'static,
) -> Result<Tagged<UserView>, ApiError> {
    let name = user.clone();
    let act = move |world: &Acting<'_>| {
        let accounts = world.accounts();
        let user = accounts.find_user(&name)?;
        world.expects(&ETag::of_user(user))?;
        Ok(((), changes(Ok(act(accounts, user)))?))
    };
    desk.act(act).await?;
    shown(&desk, &user)
}

/// Lists all tokens, oldest first, including those that have ended.
pub(super) async fn list_tokens(desk: Desk, Extension(gate): Extension<Arc<Gate>>) -> Json<Vec<TokenView>> {
    let world = desk.world();
    Json(world.accounts().tokens_by_age().into_iter().map(|token| view_token(&world, &gate, token)).collect())
}

pub(super) async fn show_token(
    desk: Desk,
    Extension(gate): Extension<Arc<Gate>>,
    Path(token): Path<String>,
) -> Result<Response, ApiError> {
    let (world, now) = (desk.world(), clock::now());
    let token = world.accounts().find_token(&token, now)?;
    desk.read(&ETag::of_token(&world, token, now), view_token(&world, &gate, token))
}

pub(super) async fn create_token(
    desk: Desk,
    Extension(gate): Extension<Arc<Gate>>,
    Body(CreateToken { user, role, name, fleets, expires_in }): Body<CreateToken>,
) -> Result<(StatusCode, Json<TokenCreated>), ApiError> {
    let token = random()?;
    let hash = secret::hash(&token);
    let role: Role = role.parse().map_err(|error| ApiError::bad_request(format!("{error}")))?;
    let expires_in = expires_in.as_deref().map(expiry).transpose()?;
    let known = hash.clone();
    let act = move |world: &Acting<'_>| {
        let number = |fleet: &String| world.find_fleet(fleet).map(|fleet| fleet.number);
        let fleets = fleets.map(|fleets| fleets.iter().map(number).collect()).transpose()?;
        let scope = fleets.map_or(Scope::All, Scope::Fleets);
        let new = NewToken { hash, user, name, role, scope, created: clock::now(), expires_in };
        Ok(((), changes(world.accounts().create_token(new))?))
    };
    let secret = ("the token", "revoke it and make another one, if you did not get it");
    desk.act_with_secret(secret, act).await?;
    let world = desk.world();
    let details = world.accounts().token(&known).map(|token| view_token(&world, &gate, token));
    let details = details.ok_or_else(|| ApiError::bad_request("the token is gone already"))?;
    Ok((StatusCode::CREATED, Json(TokenCreated { token, details })))
}

pub(super) async fn revoke_token(
    desk: Desk,
    Extension(gate): Extension<Arc<Gate>>,
    Path(token): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Tagged<TokenView>, ApiError> {
    let act = move |world: &Acting<'_>| {
        let accounts = world.accounts();
        let token = accounts.find_token(&token, clock::now())?;
        world.expects(&ETag::of_token(world, token, clock::now()))?;
        Ok((token.hash.clone(), changes(Ok(accounts.revoke_token(token, clock::now())))?))
    };
    let hash = desk.act(act).await?;
    let world = desk.world();
    let token = world.accounts().token(&hash);
    let token = token.ok_or_else(|| AccessRefusal::NoSuchToken { given: hash.id().to_owned() })?;
    Ok(Tagged(ETag::of_token(&world, token, clock::now()), view_token(&world, &gate, token)))
}

fn changes(decided: Result<Vec<AccessChange>, AccessRefusal>) -> Result<Vec<Change>, Refusal> {
    Ok(decided?.into_iter().map(Change::Access).collect())
}

fn shown(desk: &Desk, user: &str) -> Result<Tagged<UserView>, ApiError> {
    let world = desk.world();
    let user = world.accounts().find_user(user).map_err(Refusal::from)?;
    Ok(Tagged(ETag::of_user(user), view(&world, user)))
}

fn view(world: &World, user: &User) -> UserView {
    let (accounts, now) = (world.accounts(), clock::now());
    let its = accounts.tokens_by_age().into_iter().filter(|token| token.user == user.name);
    UserView {
        name: user.name.clone(),
        state: if user.disabled.is_some() { "disabled" } else { "active" }.to_owned(),
        tokens: its.filter(|token| accounts.end(token, now).is_none()).count(),
        created: user.created,
        disabled: user.disabled,
    }
}

/// Says whose token the request has.
pub(super) async fn whoami(desk: Desk, Extension(caller): Extension<Caller>) -> Json<WhoView> {
    let world = desk.world();
    let By { user, token, id } = &caller.by;
    Json(WhoView {
        user: user.clone(),
        token: token.clone(),
        token_id: id.clone(),
        role: caller.role.to_string(),
        fleets: fleets_of(&world, &caller.scope),
        expires: caller.token(&world).and_then(|token| token.expires),
    })
}

fn view_token(world: &World, gate: &Gate, token: &Token) -> TokenView {
    let end = world.accounts().end(token, clock::now());
    let fleets = fleets_of(world, &token.scope);
    TokenView {
        id: token.hash.id().to_owned(),
        user: token.user.clone(),
        name: token.name.clone(),
        role: token.role.to_string(),
        fleets,
        state: end.map_or("active", |end| end.as_str()).to_owned(),
        created: token.created,
        expires: token.expires,
        revoked: token.revoked,
        last_used: gate.last_used(&token.hash),
        is_use_unknown: gate.is_use_unknown(token),
    }
}

/// Returns the names of the fleets that a token reaches; `None`: all.
fn fleets_of(world: &World, scope: &Scope) -> Option<Vec<String>> {
    match scope {
        Scope::All => None,
        Scope::Fleets(fleets) => Some(fleets.iter().map(|fleet| name_of(world, *fleet)).collect()),
    }
}

/// The name of a fleet, or the number of one that was deleted.
pub(super) fn name_of(world: &World, fleet: u64) -> String {
    world.fleet(fleet).map_or_else(|| fleet.to_string(), |fleet| fleet.name.clone())
}
