//! The fleet server: decides which release each device should run, and serves targets over the balena device protocol.
//! It is one process with one data folder.
//!
//! Of the agent's rooms it uses only general ones: `model`, `wire`, `exposition`, `ownership` and `listen`. It knows no
//! container and no engine, and not how a device gets to its target.
//!
//! `policy` decides and is pure. `records` keeps the decisions in memory and on disk. `standing` computes the state of
//! each device. `device_api` and `operator_api` are the two APIs.

pub mod access;
pub mod backup;
pub mod device_api;
pub mod operator_api;
pub mod policy;

mod allowance;
mod audit_log;
mod certificate;
mod check;
mod clock;
mod confirmations;
mod courier;
mod database;
mod database_error;
mod deliveries;
mod export;
mod file_storage;
mod gate;
mod health;
mod in_progress;
mod key_hash;
mod live;
mod locks;
mod logs;
mod metrics;
mod migrate;
mod names;
mod one_each;
mod pages;
mod parked;
mod places;
mod pulse;
mod reach;
mod reading;
mod record;
mod records;
mod recovery;
mod render;
mod repeats;
mod report;
mod requests;
mod restore;
pub mod rollout;
mod rollout_metrics;
mod rollouts;
mod secret;
mod server;
mod settings;
mod sightings;
mod sled_store;
mod standing;
mod storage;
mod store;
mod store_error;
mod tag_filter;
mod tally;
mod targets;
pub mod webhook;
mod writer;

pub use access::RESTORER;
pub use certificate::{TlsError, TlsFiles};
pub use check::check;
pub use database_error::DatabaseError;
pub use logs::LogMode;
pub use migrate::{Home, fill, read_out};
pub use reading::while_reading;
pub use restore::{RestoreError, restore};
pub use secret::password;
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
        let operators = operator_api::table().into_iter().map(|(path, _)| format!("/api/v1{path}"));
        let devices = device_api::table().map(|(path, _)| path.to_owned());
        let metrics = operator_api::table_of_metrics().into_iter().map(|(path, _)| path.to_owned());
        let health = health::table().map(|(path, _)| path.to_owned());
        assert_eq!(described, operators.chain(devices).chain(metrics).chain(health).collect());
    }

    /// The document for people says what the table of routes decides by.
    #[test]
    fn every_route_has_the_role_and_the_reach_that_are_described() {
        let document: serde_json::Value =
            serde_json::from_str(include_str!("../../docs/openapi-fleet.json")).unwrap();
        let below = |(path, ways)| (format!("/api/v1{path}"), ways);
        let metrics =
            operator_api::table_of_metrics().into_iter().map(|(path, ways)| (path.to_owned(), ways));
        let mut found = 0;
        for (path, ways) in operator_api::table().into_iter().map(below).chain(metrics) {
            for needs in ways.iter().map(|way| way.needs) {
                let described = &document["paths"][&path][needs.method.as_str().to_lowercase()];
                let reach = if needs.reach == access::Reach::Server { "server" } else { "fleets" };
                let expected = (needs.permission.least().as_str(), reach);
                let role = described["x-role"].as_str().unwrap_or("none");
                assert_eq!((role, described["x-reach"].as_str().unwrap_or("none")), expected, "{path}");
                found += 1;
            }
        }
        assert_eq!(found, document.to_string().matches("\"x-role\"").count());
    }
}
