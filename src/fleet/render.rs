//! Renders the body of `GET /device/v3/:uuid/state`, and its etag. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::policy::{Device, Fleet, Release};
use super::secret::hex;
use crate::wire::state_v3::{AppState, DeviceState, ReleaseState, ServiceState};

/// The inputs of a body, except the uuid. Equal inputs give equal bodies, because the content of a release never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inputs {
    pub(super) name: String,
    pub(super) fleet: u64,
    pub(super) fleet_name: String,
    pub(super) release: Option<u64>,
}

/// A body with its etag, ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) inputs: Inputs,
    pub(super) body: Vec<u8>,
    /// Weak: `W/"<length in hex>-<hash>"`.
    pub(super) etag: String,
}

/// Renders the target state of one device.
///
/// # Errors
///
/// Never in practice: these types have no value that is not JSON.
pub(super) fn target_state(
    device: &Device,
    fleet: &Fleet,
    release: Option<&Release>,
    poll_interval: Duration,
) -> Result<Rendered, serde_json::Error> {
    let releases = release.map(|release| (release.commit.to_string(), release_state(release)));
    let app = AppState {
        id: fleet.number,
        name: fleet.name.clone(),
        class: "fleet".to_owned(),
        is_host: false,
        releases: releases.into_iter().collect(),
    };
    let milliseconds = poll_interval.as_millis().to_string();
    let state = DeviceState {
        name: device.name.clone(),
        config: BTreeMap::from([("RESIN_SUPERVISOR_POLL_INTERVAL".to_owned(), milliseconds)]),
        apps: BTreeMap::from([(fleet.uuid.to_string(), serde_json::to_value(app)?)]),
    };
    let body = serde_json::to_vec(&BTreeMap::from([(device.uuid.as_str(), state)]))?;
    let hash = hex(&Sha256::digest(&body)[..8]);
    let etag = format!("W/\"{:x}-{hash}\"", body.len());
    let inputs = Inputs {
        name: device.name.clone(),
        fleet: fleet.number,
        fleet_name: fleet.name.clone(),
        release: release.map(|release| release.number),
    };
    Ok(Rendered { inputs, body, etag })
}

fn release_state(release: &Release) -> ReleaseState {
    let content = &release.content;
    let service = |(name, image): (&crate::model::ServiceName, &super::policy::Image)| {
        let state = ServiceState {
            id: image.service,
            image_id: image.number,
            image: image.image.to_string(),
            running: true,
            environment: BTreeMap::new(),
            labels: BTreeMap::new(),
            contract: None,
            composition: image.composition.clone(),
        };
        (name.to_string(), state)
    };
    ReleaseState {
        id: release.number,
        services: content.services.iter().map(service).collect(),
        networks: content.networks.clone(),
        volumes: content.volumes.clone(),
    }
}

/// Returns whether an `If-None-Match` header has this etag, in its weak or its strong form.
pub(super) fn is_same(if_none_match: &str, etag: &str) -> bool {
    let plain = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let wanted = plain(etag);
    if_none_match.split(',').any(|tag| plain(tag) == wanted || tag.trim() == "*")
}

/// Replaces null by an empty map, the form of a network or volume without config on the wire.
pub(super) fn or_empty(config: Value) -> Value {
    if config.is_null() { Value::Object(serde_json::Map::new()) } else { config }
}
