//! The two local sockets: status (read by users and programs) and control (an operator's orders), and the client of
//! the command line.
//!
//! The room reads channels, and logs through a function that it is given. It touches neither engine nor store.

mod answer;
mod client;
mod control;
mod document;
mod events;
mod forecast;
mod inherited;
mod log_status;
mod logs;
mod metrics;
mod readers;
mod requests;
mod server;
mod service_status;
mod sources;
mod target_status;
mod vpn_status;

pub use answer::ControlAnswer;
pub use client::{ClientError, ReadLog, events, history, logs, order, plan, status};
pub use control::{Control, serve_control};
pub use document::{
    AppStatus, CloudStatus, EventStatus, EvidenceStatus, FileLockStatus, HaltedStatus, HappeningStatus,
    HistoryDocument, HoldStatus, LeaseStatus, LocksStatus, MovingStatus, Now, SCHEMA_VERSION, StatusDocument,
    WaitingStatus, Who, document,
};
pub use forecast::{Forecaster, PlanDocument, StageStatus, StepStatus};
pub use inherited::Inherited;
pub use logs::{Log, LogRequest, Logs, NoLog};
pub use readers::Readers;
pub use requests::{
    AppRequest, HoldRequest, LockName, LockRequest, PurgeRequest, ServiceRequest, UpdateRequest,
};
pub use server::{BindError, bind, serve, serve_metrics};
pub use service_status::{DownloadStatus, ServiceStatus};
pub use sources::Sources;
pub use target_status::{LeftAloneStatus, VariableStatus};
pub use vpn_status::VpnStatus;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_described_and_no_other() {
        let document: serde_json::Value =
            serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap();
        let described = document["paths"].as_object().unwrap().iter().flat_map(|(path, operations)| {
            let methods = operations.as_object().unwrap();
            methods.iter().map(move |(method, of)| {
                let tag = of["tags"][0].as_str().unwrap();
                format!("{method} {path} on {tag}")
            })
        });
        let status = server::routes().map(|(path, _)| format!("get {path} on status"));
        let control = control::routes().map(|(path, _)| format!("post {path} on control"));
        let routes: BTreeSet<_> = status.into_iter().chain(control).collect();
        assert_eq!(described.collect::<BTreeSet<_>>(), routes);
    }
}
