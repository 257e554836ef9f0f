//! Renders the body of `GET /device/v3/:uuid/state`, and its etag. Pure.
//!
//! A body has two parts: the app, which all devices with the same release and the same variables share and which is nearly all
//! of it, and the part of the device around it. So an app is rendered once, however many devices should run it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::policy::{Departure, Device, Fleet, Release, VariableLevels};
use super::secret::hex;
use crate::model::ServiceName;
use crate::wire::state_v3::{AppState, ReleaseState, ServiceState};
use crate::wire::target_v3::{MOVE_ENDPOINT, MOVE_FLEET, MOVE_KEY};

/// The app of a body, as JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RenderedApp {
    pub(super) json: Vec<u8>,
    pub(super) hash: [u8; 32],
}

/// What is around the app in the body for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) before: String,
    pub(super) after: &'static str,
}

/// Renders the app of a fleet with one release, or with none, for devices that these variables reach.
///
/// # Errors
///
/// Never in practice: these types have no value that is not JSON.
pub(super) fn app(
    fleet: &Fleet,
    release: Option<&Release>,
    variables: VariableLevels<'_>,
) -> serde_json::Result<RenderedApp> {
    let releases = release.map(|release| {
        (release.commit.to_string(), release_state(release, |name| variables.environment(name)))
    });
    let app = AppState {
        id: fleet.number,
        name: fleet.name.clone(),
        class: "fleet".to_owned(),
        is_host: false,
        releases: releases.into_iter().collect(),
    };
    let json = serde_json::to_vec(&app)?;
    let hash = Sha256::digest(&json).into();
    Ok(RenderedApp { json, hash })
}

/// Renders what is around the app for a device.
///
/// # Errors
///
/// As [`app`].
pub(super) fn frame(device: &Device, fleet: &Fleet, poll_interval: Duration) -> serde_json::Result<Frame> {
    let (uuid, app) = (serde_json::to_string(&device.uuid)?, serde_json::to_string(&fleet.uuid)?);
    let name = serde_json::to_string(&device.name)?;
    let mut config = BTreeMap::from([(
        "RESIN_SUPERVISOR_POLL_INTERVAL".to_owned(),
        poll_interval.as_millis().to_string(),
    )]);
    if let Some(Departure { to, fleet, key, .. }) = &device.departure {
        let order = [(MOVE_ENDPOINT, to), (MOVE_FLEET, fleet), (MOVE_KEY, key)];
        config.extend(order.map(|(name, value)| (format!("BALENA_{name}"), value.clone())));
    }
    let config = serde_json::to_string(&config)?;
    let before = format!("{{{uuid}:{{\"name\":{name},\"config\":{config},\"apps\":{{{app}:");
    Ok(Frame { before, after: "}}}" })
}

/// Returns the etag of the body of these parts, weak: `W/"<length in hex>-<hash>"`.
pub(super) fn etag(frame: &Frame, app_length: usize, app_hash: &[u8; 32]) -> String {
    let length = frame.before.len() + app_length + frame.after.len();
    let hash = Sha256::new().chain_update(frame.before.as_bytes()).chain_update(app_hash).finalize();
    format!("W/\"{length:x}-{}\"", hex(&hash[..8]))
}

/// Returns a release as it is in a target, with the environment of each service.
pub(super) fn release_state(
    release: &Release,
    environment: impl Fn(&ServiceName) -> BTreeMap<String, String>,
) -> ReleaseState {
    let content = &release.content;
    let service = |(name, image): (&ServiceName, &super::policy::Image)| {
        let state = ServiceState {
            id: image.service,
            image_id: image.number,
            image: image.image.to_string(),
            running: true,
            environment: environment(name),
            labels: BTreeMap::new(),
            contract: None,
            composition: image.composition.value(),
        };
        (name.to_string(), state)
    };
    ReleaseState {
        id: release.number,
        services: content.services.iter().map(service).collect(),
        networks: content.networks.value(),
        volumes: content.volumes.value(),
    }
}

/// Returns an etag with the position of the records that the target was made of: `W/"<length>-<hash>.<position>"`. It is for
/// servers that share their records, so that none of them answers from older ones.
pub(super) fn etag_at(etag: &str, position: u64) -> String {
    format!("{}.{position}\"", etag.trim_end_matches('"'))
}

/// Returns whether an `If-None-Match` header has this etag, in its weak or its strong form, whatever the position in it.
pub(super) fn is_same(if_none_match: &str, etag: &str) -> bool {
    let (wanted, _) = parts(etag);
    if_none_match.split(',').any(|tag| parts(tag).0 == wanted || tag.trim() == "*")
}

/// Returns the newest position in an `If-None-Match` header.
pub(super) fn position(if_none_match: &str) -> Option<u64> {
    if_none_match.split(',').filter_map(|tag| parts(tag).1).max()
}

/// Splits an etag into what it says about the target and the position.
fn parts(tag: &str) -> (&str, Option<u64>) {
    let plain = tag.trim().trim_start_matches("W/").trim_matches('"');
    let split = plain.rsplit_once('.').and_then(|(target, position)| Some((target, position.parse().ok()?)));
    split.map_or((plain, None), |(target, position)| (target, Some(position)))
}

/// Replaces null by an empty map, the form of a network or volume without config on the wire.
pub(super) fn or_empty(config: Value) -> Value {
    if config.is_null() { Value::Object(serde_json::Map::new()) } else { config }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_with_and_without_a_position() {
        let etag = "W/\"1f-00ff\"";
        let at = etag_at(etag, 42);
        assert_eq!(at, "W/\"1f-00ff.42\"");
        for (given, same, newest) in [
            ("W/\"1f-00ff\"", true, None),
            ("\"1f-00ff\"", true, None),
            ("W/\"1f-00ff.7\"", true, Some(7)),
            ("\"1f-00ff.7\"", true, Some(7)),
            ("W/\"1f-00fe.43\", W/\"1f-00ff.9\"", true, Some(43)),
            ("W/\"1f-00fe.43\"", false, Some(43)),
            ("W/\"1f-00ff.x\"", false, None),
            ("W/\"1f-00ff.99999999999999999999\"", false, None),
            ("*", true, None),
            ("", false, None),
        ] {
            assert_eq!(is_same(given, etag), same, "{given}");
            assert_eq!(is_same(given, &at), same, "{given}");
            assert_eq!(position(given), newest, "{given}");
        }
    }
}
