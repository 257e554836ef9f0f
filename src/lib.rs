//! Cotter keeps every device of a fleet on exactly the release it should run.
//!
//! The rooms, from the ground floor up; each may use only those its row in
//! `tests/floors.rs` names.

pub mod api;
pub mod cli;
pub mod cloud;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod engine;
pub mod exposition;
#[cfg(feature = "server")]
pub mod fleet;
pub mod host;
pub mod http;
pub mod listen;
pub mod logs;
pub mod model;
pub mod ownership;
pub mod plan;
#[cfg(feature = "server")]
pub mod postgres;
pub mod project;
pub mod reconcile;
pub mod registry;
pub mod store;
pub mod supervisor_api;
pub mod tar;
pub mod vpn;
pub mod wire;
