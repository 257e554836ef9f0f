//! The ETag of a thing. It changes with everything that operators decide about it, and with nothing that devices report: the
//! states and times beside it in an answer are of the moment.

use std::fmt;

use axum::Json;
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::fleet::access::{Token, User};
use crate::fleet::policy::{Device, Fleet, Release, VariableHolder, World};
use crate::fleet::secret;

/// An ETag, without its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ETag(String);

impl ETag {
    #[cfg(test)]
    pub(super) fn new(opaque: String) -> Self {
        Self(opaque)
    }

    /// The ETag of what these values are.
    fn of(values: &impl Serialize) -> Self {
        let json = serde_json::to_vec(values).unwrap_or_default();
        Self(secret::hex(&Sha256::digest(json)[..12]))
    }

    /// Of a fleet: its name, its settings and its target.
    pub(super) fn of_fleet(fleet: &Fleet) -> Self {
        Self::of(&("fleet", fleet))
    }

    /// Of a device: its name, fleet, tags and pin, and the release that it should run.
    pub(super) fn of_device(world: &World, device: &Device) -> Self {
        Self::of(&("device", device, world.target_of(device).map(|release| release.number)))
    }

    /// Of these devices together.
    pub(super) fn of_devices(world: &World, devices: &[&Device]) -> Self {
        let each = devices.iter().map(|device| Self::of_device(world, device).0);
        Self::of(&("devices", each.collect::<Vec<_>>()))
    }

    /// Of a release: its flags, and whether it is the target of its fleet. Its content never changes.
    pub(super) fn of_release(world: &World, release: &Release) -> Self {
        let is_target = world.fleet(release.fleet).is_some_and(|fleet| fleet.target == Some(release.number));
        let Release { number, status, is_final, is_invalidated, is_passing_tests, .. } = release;
        Self::of(&("release", number, status, is_final, is_invalidated, is_passing_tests, is_target))
    }

    /// Of the variables of a fleet, or of those that reach a device. The values of secret ones are not in it, because it could
    /// be used to try values; the number of the last change is.
    pub(super) fn of_variables(world: &World, holder: &VariableHolder) -> Self {
        let fleet = match holder {
            VariableHolder::Fleet(_) => None,
            VariableHolder::Device(uuid) => world.device(uuid).map(|it| VariableHolder::Fleet(it.fleet)),
        };
        let of_holder = |holder: &VariableHolder| {
            let variables = world.variables(holder);
            let rows = variables.iter().map(|(service, name, variable)| {
                let value = (!variable.is_secret).then(|| variable.value.clone());
                (service.map(ToString::to_string), name.clone(), value)
            });
            (variables.revision, rows.collect::<Vec<_>>())
        };
        Self::of(&("variables", fleet.as_ref().map(of_holder), of_holder(holder)))
    }

    pub(super) fn of_user(user: &User) -> Self {
        Self::of(&("user", user))
    }

    /// Of a token: all that is stored of it, and whether it has ended.
    pub(super) fn of_token(world: &World, token: &Token, now: Timestamp) -> Self {
        Self::of(&("token", token, world.accounts().end(token, now).map(|end| end.as_str())))
    }

    pub(super) fn opaque(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// An answer with the ETag of what it shows.
#[derive(Debug)]
pub(super) struct Tagged<T>(pub(super) ETag, pub(super) T);

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let Self(etag, view) = self;
        with(&etag, Json(view).into_response())
    }
}

/// Adds an ETag to an answer.
pub(super) fn with(etag: &ETag, mut response: Response) -> Response {
    if let Ok(value) = HeaderValue::from_str(&etag.to_string()) {
        response.headers_mut().insert(ETAG, value);
        // The rest of the answer changes without it.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// The answer to a client that has a thing already.
pub(super) fn not_modified(etag: &ETag) -> Response {
    with(etag, StatusCode::NOT_MODIFIED.into_response())
}
