//! `/api/v1/export`, `/api/v1/export/secrets` and `/api/v1/import`: fleets, releases, devices and variables as JSON lines.

use axum::Json;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::{ApiError, Params};
use super::desk::{Acting, Desk};
use super::releases;
use super::stream::json_lines;
use crate::fleet::policy::{
    ImportCount, Imported, ImportedDevice, ImportedFleet, ImportedHolder, ImportedRelease, ImportedVariable,
    Refusal,
};
use crate::fleet::{clock, export, secret};
use crate::listen::Admitted;
use crate::model::{AppId, Commit, DeviceUuid, Refusal as Place, ServiceName};
use crate::wire::operator_api::{
    Code, CreateRelease, EXPORT_VERSION, ExportHead, ExportedDevice, ExportedFleet, ExportedRelease,
    ExportedVariable, ImportCounts, ImportView, LARGEST_IMPORT,
};

/// Whether an import is tried only.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn plain(desk: Desk) -> Response {
    exported(desk, false)
}

pub(super) async fn with_secrets(desk: Desk) -> Response {
    exported(desk, true)
}

/// Sends what the token sees, as it is at one moment.
fn exported(desk: Desk, secrets: bool) -> Response {
    json_lines(move |lines| {
        let world = desk.world();
        let mut text = serde_json::to_vec(&ExportHead { cotter_export: EXPORT_VERSION, secrets })?;
        text.push(b'\n');
        lines.take(&text);
        let scope = world.scope();
        for line in export::lines(&world, |fleet| scope.has(fleet), secrets) {
            let mut text = serde_json::to_vec(&line)?;
            text.push(b'\n');
            if !lines.take(&text) {
                break;
            }
        }
        Ok(())
    })
}

pub(super) async fn import(
    desk: Desk,
    Params(How { dry_run }): Params<How>,
    request: Request,
) -> Result<Json<ImportView>, ApiError> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().unwrap_or_default().trim() != "application/jsonl" {
        let message = "the request must be JSON lines, with the header `Content-Type: application/jsonl`";
        return Err(ApiError::new(Code::UnsupportedMediaType, message));
    }
    let admitted = request.extensions().get::<Admitted>().cloned().ok_or_else(ApiError::busy)?;
    let body = admitted.read(request.into_body(), LARGEST_IMPORT).await?;
    let read = tokio::task::spawn_blocking(move || read(&body)).await;
    let lines = read.map_err(|error| ApiError::failed(&error))??;
    let act = move |world: &Acting<'_>| {
        let (outcome, changes) = world.import(&lines, clock::now())?;
        Ok((outcome, if dry_run { Vec::new() } else { changes }))
    };
    let outcome = desk.act_unkept(act).await?;
    Ok(Json(ImportView {
        dry_run,
        created: counts(outcome.created),
        unchanged: counts(outcome.unchanged),
        without_value: outcome.without_value,
    }))
}

fn counts(ImportCount { fleets, releases, devices, variables }: ImportCount) -> ImportCounts {
    ImportCounts { fleets, releases, devices, variables }
}

/// Reads all lines, and names every one that cannot be read.
fn read(body: &[u8]) -> Result<Vec<(usize, Imported)>, ApiError> {
    let mut given = body.split(|byte| *byte == b'\n').enumerate().map(|(index, line)| (index + 1, line));
    let head = given.next().map(|(_, line)| line).unwrap_or_default();
    let head: ExportHead = serde_json::from_slice(head).map_err(|_| {
        let begins = r#"its first line must be {"cotter_export":1}"#;
        ApiError::bad_request(format!("this is not an export of a fleet server: {begins}"))
    })?;
    if head.cotter_export != EXPORT_VERSION {
        let version = head.cotter_export;
        let message = format!("this export has version {version}, and this server reads {EXPORT_VERSION}");
        return Err(ApiError::bad_request(message));
    }
    let (mut lines, mut refusals) = (Vec::new(), Vec::new());
    for (number, text) in given.filter(|(_, line)| !line.trim_ascii().is_empty()) {
        match line(text) {
            Ok(imported) => lines.push((number, imported)),
            Err(why) => refusals.push(Place { path: format!("line {number}"), why }),
        }
    }
    if refusals.is_empty() { Ok(lines) } else { Err(Refusal::NotImported { refusals }.into()) }
}

fn line(text: &[u8]) -> Result<Imported, String> {
    let mut value: Value =
        serde_json::from_slice(text).map_err(|error| format!("it is not JSON: {error}"))?;
    // By its kind, so that an error names a field, and never quotes the value of a variable.
    let kind = value.as_object_mut().and_then(|line| line.remove("kind"));
    match kind.as_ref().and_then(Value::as_str) {
        Some("fleet") => fleet(typed(value)?),
        Some("release") => release(typed(value)?),
        Some("device") => device(typed(value)?),
        Some("variable") => typed(value)
            .map_err(|_| {
                "a variable has name, fleet or device, value or secret, and may have service".to_owned()
            })
            .and_then(variable),
        Some(other) => Err(format!("there is no kind {:?}", other.chars().take(64).collect::<String>())),
        None => Err("it has no kind: fleet, release, device or variable".to_owned()),
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn fleet(asked: ExportedFleet) -> Result<Imported, String> {
    let uuid = match &asked.uuid {
        Some(uuid) => AppId::parse(uuid).map_err(said)?,
        None => AppId::parse(secret::uuid().map_err(said)?).map_err(said)?,
    };
    let services = asked.former_services.iter().map(ServiceName::parse).collect::<Result<_, _>>();
    Ok(Imported::Fleet(ImportedFleet {
        uuid,
        is_uuid_given: asked.uuid.is_some(),
        name: asked.name,
        registry: asked.registry,
        is_tracking_latest: asked.is_tracking_latest,
        target: asked.target.map(Commit::parse).transpose().map_err(said)?,
        former_services: services.map_err(said)?,
    }))
}

fn release(asked: ExportedRelease) -> Result<Imported, String> {
    let ExportedRelease { fleet, is_invalidated, .. } = asked;
    let create = CreateRelease {
        commit: asked.commit,
        status: asked.status,
        is_final: asked.is_final,
        is_passing_tests: asked.is_passing_tests,
        start_timestamp: asked.start_timestamp,
        composition: asked.composition,
        images: asked.images,
        build_log: asked.build_log,
    };
    let (new, _warnings) = releases::checked(create).map_err(|error| error.message())?;
    Ok(Imported::Release(Box::new(ImportedRelease { fleet, is_invalidated, new })))
}

fn device(asked: ExportedDevice) -> Result<Imported, String> {
    Ok(Imported::Device(ImportedDevice {
        uuid: DeviceUuid::parse(&asked.uuid).map_err(said)?,
        name: asked.name,
        device_type: asked.device_type,
        fleet: asked.fleet,
        pin: asked.pin.map(Commit::parse).transpose().map_err(said)?,
        tags: asked.tags,
    }))
}

fn variable(asked: ExportedVariable) -> Result<Imported, String> {
    let ExportedVariable { fleet, device, service, name, value, secret } = asked;
    let holder = match (fleet, device) {
        (Some(fleet), None) => ImportedHolder::Fleet(fleet),
        (None, Some(device)) => ImportedHolder::Device(DeviceUuid::parse(&device).map_err(said)?),
        (Some(_), Some(_)) | (None, None) => return Err("a variable has a fleet or a device".to_owned()),
    };
    if value.is_none() && !secret {
        return Err(format!(
            "{:?} has no value, and is not secret",
            name.chars().take(64).collect::<String>()
        ));
    }
    let service = service.map(ServiceName::parse).transpose().map_err(said)?;
    Ok(Imported::Variable(ImportedVariable { holder, service, name, value, is_secret: secret }))
}
