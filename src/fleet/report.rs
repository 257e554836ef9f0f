//! Reads the body of `PATCH /device/v3/state` and merges it into the earlier reports of a device (docs/dev/protocol.md,
//! "Reports"). Pure.
//!
//! It is exactly as strict as the real API, so that an agent that works here works with the cloud, too.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::policy::{Device, Image, Release, Reported, ReportedService, World};
use crate::model::{Commit, ReleaseStatus, ServiceName};
use crate::wire::account::{self, Account};
use crate::wire::report_v3::UpdateStatus;

/// Why a report is refused. No part of it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadReport {
    /// Answered with 400.
    #[error("a field of the report has a wrong type")]
    Malformed,
    /// Answered with 401: it names another device, or a release or image that is not the device's.
    #[error("the report names something that is not this device's")]
    NotYours,
}

use BadReport::{Malformed, NotYours};

/// The accepted values of a field.
#[derive(Clone, Copy)]
enum Takes {
    /// Text; cut off after this number of characters.
    Text(usize),
    TextOrNull(usize),
    Int,
    IntOrNull,
    Bool,
    /// `dev` or `prod`; others are dropped.
    Variant,
    /// Accepted, but never stored.
    Secret,
}

const FIELDS: [(&str, Takes); 20] = [
    ("status", Takes::Text(50)),
    ("os_version", Takes::TextOrNull(70)),
    ("os_variant", Takes::Variant),
    ("supervisor_version", Takes::Text(20)),
    ("provisioning_progress", Takes::IntOrNull),
    ("provisioning_state", Takes::TextOrNull(255)),
    ("ip_address", Takes::Text(2000)),
    ("mac_address", Takes::Text(900)),
    ("api_port", Takes::Int),
    ("api_secret", Takes::Secret),
    ("cpu_usage", Takes::IntOrNull),
    ("cpu_temp", Takes::IntOrNull),
    ("cpu_id", Takes::TextOrNull(255)),
    ("memory_usage", Takes::IntOrNull),
    ("memory_total", Takes::IntOrNull),
    ("storage_usage", Takes::IntOrNull),
    ("storage_total", Takes::IntOrNull),
    ("storage_block_device", Takes::TextOrNull(255)),
    ("is_undervolted", Takes::Bool),
    ("is_online", Takes::Bool),
];

/// Service states that are stored; others are ignored without an error.
const SERVICE_STATUS: [&str; 20] = [
    "Downloading",
    "Downloaded",
    "Installing",
    "Installed",
    "Starting",
    "Running",
    "Idle",
    "Handing over",
    "Awaiting handover",
    "Stopping",
    "Stopped",
    "exited",
    "Deleting",
    "deleted",
    "Dead",
    "paused",
    "restarting",
    "removing",
    "configuring",
    "Unknown",
];

/// Merges a report into the earlier ones. A field that the report omits stays.
///
/// # Errors
///
/// [`BadReport`]. All of `apps` is checked before any of it is stored.
pub(super) fn merge(world: &World, device: &Device, body: &Value) -> Result<Reported, BadReport> {
    let report = own_part(device, body)?;
    let mut reported = world.reported(&device.uuid).clone();
    for (name, takes) in FIELDS {
        if let Some(value) = report.get(name) {
            merge_field(&mut reported.fields, name, takes, value)?;
        }
    }
    if let Some(account) = report.get(account::FIELD) {
        let account = Account::deserialize(account).map_err(|_| Malformed)?.bounded();
        reported.account = Some(Arc::new(account));
    }
    if let Some(apps) = report.get("apps") {
        let apps = object(apps)?;
        let mut read = Vec::new();
        for (uuid, app) in apps {
            read.push((uuid, read_app(app)?));
        }
        merge_apps(world, device, &read, &mut reported)?;
    }
    Ok(reported)
}

fn own_part<'a>(device: &Device, body: &'a Value) -> Result<&'a Map<String, Value>, BadReport> {
    let body = body.as_object().ok_or(NotYours)?;
    match body.iter().next() {
        Some((uuid, report)) if body.len() == 1 && uuid == device.uuid.as_str() => {
            report.as_object().ok_or(NotYours)
        }
        _ => Err(NotYours),
    }
}

fn merge_field(
    fields: &mut BTreeMap<String, Value>,
    name: &str,
    takes: Takes,
    value: &Value,
) -> Result<(), BadReport> {
    let kept = match takes {
        Takes::Text(longest) => Value::from(cut(text(value)?, longest)),
        Takes::TextOrNull(_) | Takes::IntOrNull if value.is_null() => Value::Null,
        Takes::TextOrNull(longest) => Value::from(cut(text(value)?, longest)),
        Takes::Int | Takes::IntOrNull => Value::from(whole(value)?.min(i64::from(i32::MAX))),
        Takes::Bool => Value::from(value.as_bool().ok_or(Malformed)?),
        Takes::Variant if value.is_null() => Value::Null,
        Takes::Variant => match text(value)? {
            variant @ ("dev" | "prod") => Value::from(variant),
            _ => return Ok(()),
        },
        Takes::Secret if value.is_null() || value.is_string() => return Ok(()),
        Takes::Secret => return Err(Malformed),
    };
    if kept.is_null() {
        fields.remove(name);
    } else {
        fields.insert(name.to_owned(), kept);
    }
    Ok(())
}

/// The reported app, after its types were checked.
struct App<'a> {
    release_uuid: Option<&'a str>,
    releases: Vec<(&'a str, ReportedRelease<'a>)>,
}

struct ReportedRelease<'a> {
    update_status: Option<UpdateStatus>,
    services: Vec<(&'a str, Service<'a>)>,
}

struct Service<'a> {
    image: &'a str,
    status: Option<&'a str>,
    /// Absent: the old number stays.
    progress: Option<Option<i64>>,
}

fn read_app(app: &Value) -> Result<App<'_>, BadReport> {
    let app = object(app)?;
    let release_uuid = app.get("release_uuid").map(text).transpose()?;
    let mut releases = Vec::new();
    for (commit, release) in entries(app.get("releases"))? {
        let release = object(release)?;
        let update_status = release.get("update_status").map(UpdateStatus::deserialize).transpose();
        let mut services = Vec::new();
        for (name, service) in entries(release.get("services"))? {
            services.push((name, read_service(object(service)?)?));
        }
        let update_status = update_status.map_err(|_| Malformed)?;
        releases.push((commit, ReportedRelease { update_status, services }));
    }
    Ok(App { release_uuid, releases })
}

fn read_service(service: &Map<String, Value>) -> Result<Service<'_>, BadReport> {
    let progress = match service.get("download_progress") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(number) => Some(Some(whole(number)?)),
    };
    Ok(Service {
        image: text(service.get("image").ok_or(Malformed)?)?,
        status: service.get("status").map(text).transpose()?,
        progress,
    })
}

fn merge_apps(
    world: &World,
    device: &Device,
    apps: &[(&String, App<'_>)],
    reported: &mut Reported,
) -> Result<(), BadReport> {
    let own = world.fleet(device.fleet).map(|fleet| fleet.uuid.as_str());
    let find = |commit: &str| {
        let release = Commit::parse(commit).ok().and_then(|commit| world.release_of(device.fleet, &commit));
        release.filter(|release| release.status == ReleaseStatus::Success).ok_or(NotYours)
    };
    // One row for each service of a release, because a report may name it several times, by names of the same image.
    let mut rows = BTreeMap::new();
    let mut updates = Vec::new();
    for (uuid, app) in apps {
        if Some(uuid.as_str()) != own {
            // An app of an earlier fleet may be named, but not with a release.
            if app.releases.is_empty() { continue } else { return Err(NotYours) }
        }
        if let Some(commit) = app.release_uuid {
            reported.running = Some(find(commit)?.number);
        }
        for (commit, named) in &app.releases {
            let release = find(commit)?;
            updates.extend(named.update_status.map(|status| (status, release.number)));
            for (name, service) in &named.services {
                let (name, _) = find_image(release, name, service.image).ok_or(NotYours)?;
                let row = merge_row(&reported.services, release.number, name, service);
                rows.insert((release.number, name.clone()), row);
            }
        }
    }
    reported.services = rows.into_values().collect();
    // Of several releases in the same state the newest counts.
    if let Some((status, of)) =
        updates.into_iter().min_by_key(|(status, of)| (*status, std::cmp::Reverse(*of)))
    {
        (reported.update_status, reported.update_of) = (Some(status), Some(of));
    }
    Ok(())
}

/// Returns the service of a release with this image. The reported name only helps to choose between services with the same
/// image, because the real API ignores it.
fn find_image<'a>(release: &'a Release, name: &str, image: &str) -> Option<(&'a ServiceName, &'a Image)> {
    let (location, digest) = image.split_once('@').map_or((image, None), |(l, d)| (l, Some(d)));
    let fits = |image: &Image| {
        image.image.repository() == location && digest.is_none_or(|d| image.image.digest() == Some(d))
    };
    let services = || release.content.services.iter().filter(|(_, image)| fits(image));
    services().find(|(service, _)| service.as_str() == name).or_else(|| services().next())
}

fn merge_row(
    before: &[ReportedService],
    release: u64,
    name: &ServiceName,
    reported: &Service<'_>,
) -> ReportedService {
    let old = before.iter().find(|row| row.release == release && row.service == *name);
    let status = reported.status.filter(|word| SERVICE_STATUS.contains(word)).map(str::to_owned);
    ReportedService {
        release,
        service: name.clone(),
        status: status.or_else(|| old.and_then(|row| row.status.clone())),
        progress: reported.progress.unwrap_or_else(|| old.and_then(|row| row.progress)),
    }
}

fn object(value: &Value) -> Result<&Map<String, Value>, BadReport> {
    value.as_object().ok_or(Malformed)
}

fn entries(value: Option<&Value>) -> Result<Vec<(&str, &Value)>, BadReport> {
    let Some(value) = value else { return Ok(Vec::new()) };
    Ok(object(value)?.iter().map(|(key, value)| (key.as_str(), value)).collect())
}

fn text(value: &Value) -> Result<&str, BadReport> {
    value.as_str().ok_or(Malformed)
}

/// Reads a whole number: `40.0` is one, `40.5` is not. A number beyond 64 bits becomes the nearest one.
fn whole(value: &Value) -> Result<i64, BadReport> {
    if let Some(whole) = value.as_i64() {
        return Ok(whole);
    }
    let number = value.as_f64().ok_or(Malformed)?;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole; beyond i64 the nearest is right")]
    if number.fract() == 0.0 { Ok(number as i64) } else { Err(Malformed) }
}

/// Cuts a text off after `longest` characters, at a space if possible.
fn cut(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    let short: String = text.chars().take(longest).collect();
    match short.rsplit_once(' ') {
        Some((whole_words, _)) if longest > 100 => whole_words.to_owned(),
        _ => short,
    }
}
