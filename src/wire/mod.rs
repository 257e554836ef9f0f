//! Converts JSON and YAML from outside into the model and back. Pure: it does not know who sends or receives.
//!
//! Shared by the device (which reads targets and writes reports) and by the fleet server (which writes targets and reads
//! reports).

pub mod account;
pub mod bounds;
mod cloud_variables;
pub mod compose;
pub mod compose_file;
pub mod config_json;
mod device_state;
pub mod log_line;
pub mod operator_api;
pub mod os_config;
pub mod policy;
pub mod report;
pub mod report_v3;
pub mod spec_hash;
pub mod state_v3;
pub mod target_v3;
pub mod units;
