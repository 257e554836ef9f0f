//! The fleet server: decides which release each device should run, and serves targets over the balena device protocol.
//! It is one process with one data folder.
//!
//! Of the agent's rooms it uses only general ones: `model`, `wire`, `exposition`, `ownership` and `listen`. It knows no
//! container and no engine, and not how a device gets to its target.
//!
//! `policy` decides and is pure. `records` keeps the decisions in memory and on disk. `standing` computes the state of
//! each device. `device_api` and `operator_api` are the two APIs.

pub mod device_api;
pub mod operator_api;
pub mod policy;

mod allowance;
mod certificate;
mod clock;
mod metrics;
mod names;
mod parked;
mod records;
mod render;
mod report;
mod secret;
mod server;
mod settings;
mod sightings;
mod standing;
mod store;
mod tally;
mod targets;
mod writer;

pub use certificate::{TlsError, TlsFiles};
pub use server::{FleetError, Server};
pub use settings::{Config, ConfigError, RawConfig};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_path_is_described_and_no_other() {
        let document: serde_json::Value =
            serde_json::from_str(include_str!("../../docs/openapi-fleet.json")).unwrap();
        let described: BTreeSet<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
        let operators = operator_api::table().map(|(path, _)| format!("/api/v1{path}"));
        let devices = device_api::table().map(|(path, _)| path.to_owned());
        let metrics = operator_api::table_of_metrics().map(|(path, _)| path.to_owned());
        assert_eq!(described, operators.into_iter().chain(devices).chain(metrics).collect());
    }
}
