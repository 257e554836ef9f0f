//! `/api/v1/releases` and `/api/v1/fleets/FLEET/releases`.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;

use axum::Json;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::answer::{ApiError, Body, Params, Path};
use super::checking;
use super::desk::{Acting, Desk};
use super::etag::{ETag, Tagged};
use super::pages::{self, Page};
use crate::fleet::policy::{NewRelease, NewService, Refusal, Release, ReleasePatch, Sight, World};
use crate::fleet::tally::Uses;
use crate::fleet::{clock, render};
use crate::model::{Commit, ImageRef, Refusal as ContentRefusal, ReleaseStatus, ServiceName};
use crate::wire::compose_file::{self, ComposeFile};
use crate::wire::operator_api::{
    Code, Composition, CreateRelease, LONGEST_BUILD_LOG, Nothing, PatchRelease, ReleaseCreated,
    ReleaseDetail, ReleaseView,
};

/// The fleet whose releases are meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    fleet: Option<String>,
}

/// Which releases are listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    fleet: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// Which releases of one fleet are listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListedOf {
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn list(
    records: Desk,
    Params(Listed { fleet, limit, cursor }): Params<Listed>,
) -> Result<Response, ApiError> {
    let after = pages::cursor(cursor.as_deref(), |cursor| cursor.parse::<u64>().ok())?.unwrap_or(0);
    pages::page(&records, move |_, world| {
        let uses = Uses::of(world);
        let fleet = number_of(world, fleet.as_deref())?;
        let releases = world.releases_after(fleet, after);
        Page::of(releases.map(|release| (release.number.to_string(), view(world, &uses, release))), limit)
    })
    .await
}

pub(super) async fn list_of(
    records: Desk,
    Path(fleet): Path<String>,
    Params(ListedOf { limit, cursor }): Params<ListedOf>,
) -> Result<Response, ApiError> {
    list(records, Params(Listed { fleet: Some(fleet), limit, cursor })).await
}

pub(super) async fn show(
    records: Desk,
    Path(release): Path<String>,
    Params(which): Params<Which>,
) -> Result<Response, ApiError> {
    pages::answer(&records, move |records, world| {
        let release = world.find_release(number_of(world, which.fleet.as_deref())?, &release)?;
        let content = &release.content;
        let composition = Composition {
            services: content
                .services
                .iter()
                .map(|(name, i)| (name.to_string(), i.composition.value()))
                .collect(),
            networks: content.networks.value(),
            volumes: content.volumes.value(),
        };
        let build_log = release.build_log.as_deref().map(str::to_owned);
        let detail =
            ReleaseDetail { release: view(world, &Uses::of(world), release), composition, build_log };
        records.read(&ETag::of_release(world, release), detail)
    })
    .await
}

pub(super) async fn create(
    records: Desk,
    Path(fleet): Path<String>,
    Body(asked): Body<CreateRelease>,
) -> Result<(StatusCode, Json<ReleaseCreated>), ApiError> {
    let (new, warnings) = checking::beside(&records, || checked(asked)).await?;
    let room = records.room();
    let act = move |world: &Acting<'_>| {
        let fleet = world.find_fleet(&fleet)?;
        let (number, changes) = world.create_release(fleet, new)?;
        world.check_room(room, fleet, &changes)?;
        Ok((number, changes))
    };
    let number = records.act(act).await?;
    let (_, release) = viewed(&records, number).await?;
    let warnings = warnings.into_iter().map(Into::into).collect();
    Ok((StatusCode::CREATED, Json(ReleaseCreated { release, warnings })))
}

pub(super) async fn patch(
    records: Desk,
    Path(release): Path<String>,
    Params(which): Params<Which>,
    Body(asked): Body<PatchRelease>,
) -> Result<Tagged<ReleaseView>, ApiError> {
    let PatchRelease { status, is_final, is_invalidated, is_passing_tests } = asked;
    let patch = ReleasePatch { status, is_final, is_invalidated, is_passing_tests };
    let act = move |world: &Acting<'_>| {
        let release = world.find_release(number_of(world, which.fleet.as_deref())?, &release)?;
        world.expects(&ETag::of_release(world, release))?;
        Ok((release.number, world.patch_release(release, patch)?))
    };
    let number = records.act(act).await?;
    let (etag, release) = viewed(&records, number).await?;
    Ok(Tagged(etag, release))
}

/// Makes the view of a release that was changed. All devices are counted for it.
async fn viewed(records: &Desk, number: u64) -> Result<(ETag, ReleaseView), ApiError> {
    let desk = records.clone();
    let made = tokio::task::spawn_blocking(move || {
        let world = desk.world();
        let release = world.release(number).ok_or(Refusal::NoSuchRelease { given: number.to_string() })?;
        Ok((ETag::of_release(&world, release), view(&world, &Uses::of(&world), release)))
    });
    made.await.map_err(|error| ApiError::failed(&error))?
}

/// Returns the release as it was before.
pub(super) async fn delete(
    records: Desk,
    Path(release): Path<String>,
    Params(which): Params<Which>,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Json<ReleaseView>, ApiError> {
    let act = move |world: &Acting<'_>| {
        let release = world.find_release(number_of(world, which.fleet.as_deref())?, &release)?;
        world.expects(&ETag::of_release(world, release))?;
        Ok((view(world, &Uses::of(world), release), world.delete_release(release)?))
    };
    Ok(Json(records.act(act).await?))
}

fn number_of<W: Deref<Target = World>>(
    world: &Sight<W>,
    fleet: Option<&str>,
) -> Result<Option<u64>, Refusal> {
    fleet.map(|fleet| world.find_fleet(fleet).map(|fleet| fleet.number)).transpose()
}

/// Checks the release in a request, and returns it with warnings. Refuses a release that devices would refuse, by the same
/// code as theirs, with all reasons at once.
pub(super) fn checked(asked: CreateRelease) -> Result<(NewRelease, Vec<ContentRefusal>), ApiError> {
    let commit = Commit::parse(&asked.commit).map_err(|error| ApiError::bad_request(error.to_string()))?;
    check_log(&asked)?;
    if asked.status == ReleaseStatus::Failed && asked.images.is_empty() {
        return Ok((of_failed_build(commit, asked), Vec::new()));
    }
    let Composition { services, networks, volumes } = asked.composition;
    let mut file = ComposeFile { services, networks, volumes };
    compose_file::drop_extensions(&mut file);
    let changed = compose_file::as_compose_means(&mut file);
    let images = exact_images(&file, asked.images)?;
    let mut warnings =
        compose_file::check(&file, &images, None).map_err(|refusals| Refusal::Unsupported { refusals })?;
    warnings.extend(changed);
    let mut services = BTreeMap::new();
    for (name, composition) in file.services {
        let image = images.get(&name).cloned();
        let name = ServiceName::parse(&name).map_err(|error| ApiError::bad_request(error.to_string()))?;
        services.extend(image.map(|image| (name, NewService { image, composition })));
    }
    let filled = |configs: BTreeMap<String, Value>| {
        configs.into_iter().map(|(name, config)| (name, render::or_empty(config))).collect()
    };
    let new = NewRelease {
        commit,
        status: asked.status,
        is_final: asked.is_final,
        is_passing_tests: asked.is_passing_tests,
        start_timestamp: start(asked.start_timestamp),
        services,
        networks: filled(file.networks),
        volumes: filled(file.volumes),
        build_log: asked.build_log,
    };
    Ok((new, warnings))
}

/// A builder's clock may be ahead. A release from the future would be the latest for as long.
fn start(given: Option<Timestamp>) -> Timestamp {
    given.map_or_else(clock::now, |start| start.min(clock::now()))
}

/// Refuses a log that is too long to be kept in memory.
fn check_log(asked: &CreateRelease) -> Result<(), ApiError> {
    let length = asked.build_log.as_ref().map_or(0, |log| log.chars().count());
    if length <= LONGEST_BUILD_LOG {
        return Ok(());
    }
    let wrong = format!("build_log has {length} characters, and {LONGEST_BUILD_LOG} at most are kept");
    Err(ApiError::with_remedy(Code::BadRequest, wrong, "send its end"))
}

/// The record of a build that failed: there is nothing that a device could run.
fn of_failed_build(commit: Commit, asked: CreateRelease) -> NewRelease {
    NewRelease {
        commit,
        status: asked.status,
        is_final: asked.is_final,
        is_passing_tests: asked.is_passing_tests,
        start_timestamp: start(asked.start_timestamp),
        services: BTreeMap::new(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        build_log: asked.build_log,
    }
}

/// Checks that each service has an image with a digest, and that no other name has one.
fn exact_images(
    file: &ComposeFile,
    mut given: BTreeMap<String, String>,
) -> Result<BTreeMap<String, ImageRef>, Refusal> {
    let mut images = BTreeMap::new();
    let mut refusals = Vec::new();
    if file.services.is_empty() {
        refuse(&mut refusals, "services", "a release has at least one service");
    }
    for name in file.services.keys() {
        match exact_image(given.remove(name)) {
            Ok(image) => drop(images.insert(name.clone(), image)),
            Err(why) => refuse(&mut refusals, &format!("images.{name}"), why),
        }
    }
    for name in given.into_keys() {
        refuse(&mut refusals, &format!("images.{name}"), "the composition has no such service");
    }
    if refusals.is_empty() { Ok(images) } else { Err(Refusal::Unsupported { refusals }) }
}

/// Parses an image reference with a digest, in lower case, as the real API writes it.
fn exact_image(given: Option<String>) -> Result<ImageRef, String> {
    let given = given.ok_or("the service has no image here; name it with its digest")?;
    let image = ImageRef::parse(&given.to_lowercase()).map_err(|error| error.to_string())?;
    match image.digest() {
        Some(_) => Ok(image),
        None => Err(format!("{given} has no digest; a tag can move, so write repository@sha256:...")),
    }
}

fn refuse(refusals: &mut Vec<ContentRefusal>, path: &str, why: impl Into<String>) {
    refusals.push(ContentRefusal { path: path.to_owned(), why: why.into() });
}

pub(super) fn view(world: &World, uses: &Uses, release: &Release) -> ReleaseView {
    let fleet = world.fleet(release.fleet);
    let count = |devices: &HashMap<u64, usize>| devices.get(&release.number).copied().unwrap_or(0);
    ReleaseView {
        number: release.number,
        fleet: fleet.map_or_else(String::new, |fleet| fleet.name.clone()),
        commit: release.commit.to_string(),
        status: release.status,
        is_final: release.is_final,
        is_invalidated: release.is_invalidated,
        is_passing_tests: release.is_passing_tests,
        start_timestamp: release.start_timestamp,
        is_fleet_target: fleet.is_some_and(|fleet| fleet.target == Some(release.number)),
        pinned_devices: count(&uses.pinned),
        running_devices: count(&uses.running),
        services: release
            .content
            .services
            .iter()
            .map(|(name, image)| (name.to_string(), image.image.to_string()))
            .collect(),
    }
}
