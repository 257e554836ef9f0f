//! A device's move to another cloud: the order of the present one, and what the device remembers of its moves.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::AppId;

/// What a cloud orders in the config of a target: to move to another one. As it was received, not checked.
#[derive(Clone, PartialEq, Eq)]
pub struct MoveOrder {
    /// Base URL of the other API.
    pub endpoint: String,
    /// The fleet there: its number, or at a Cotter fleet server its name.
    pub fleet: String,
    /// A provisioning key of that fleet. Secret.
    pub key: String,
}

impl fmt::Debug for MoveOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, fleet, key: _ } = self;
        f.debug_struct("MoveOrder").field("endpoint", endpoint).field("fleet", fleet).finish_non_exhaustive()
    }
}

/// The moves of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Moves {
    /// The last one that was completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<Move>,
    /// One under way: its key is saved before it is sent anywhere, so that a power cut makes no second device there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun: Option<Move>,
}

impl Moves {
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.done.is_none() && self.begun.is_none()
    }

    /// Returns the move that is in force: one that was made while the settings had this endpoint. An owner who sets another
    /// one ends it.
    #[must_use]
    pub fn in_force(&self, settings: &str) -> Option<&Move> {
        self.done.as_ref().filter(|done| done.from == settings)
    }
}

/// A move to another cloud.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The endpoint of the settings at that time.
    pub from: String,
    /// Base URL of the other API.
    pub to: String,
    /// The device's key there, made for this move. Secret.
    pub device_key: String,
    /// The names that apps of the other cloud have on this device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub apps: LocalApps,
}

impl fmt::Debug for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, device_key: _, apps } = self;
        f.debug_struct("Move").field("from", from).field("to", to).field("apps", apps).finish_non_exhaustive()
    }
}

/// By the uuid in the cloud: the app on this device.
pub type LocalApps = BTreeMap<AppId, LocalApp>;

/// The uuid and the number that the engine's containers, networks and volumes of an app have, which never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalApp {
    pub id: AppId,
    pub number: u64,
}
