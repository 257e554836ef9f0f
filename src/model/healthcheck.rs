//! How a service's health is probed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A healthcheck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthcheck {
    pub probe: Probe,
    /// `None` in the fields below: the engine's default (30 s, 30 s, 0 s, 3).
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub start_period: Option<Duration>,
    /// The interval while `start_period` lasts. Engines before API 1.44 do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<Duration>,
    pub retries: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// The test of the image, with other times.
    Inherit,
    /// No healthcheck, even if the image has one.
    Disabled,
    /// A program and its arguments.
    Command(Vec<String>),
    /// A line for the container's shell.
    Shell(String),
}
