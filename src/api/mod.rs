//! The local sockets: what the agent says of itself, what an operator orders, and how the command
//! line asks.
//!
//! Reads channels and touches neither engine nor store.

mod answer;
mod client;
mod control;
mod document;
mod inherited;
mod server;
mod wishes;

pub use answer::ControlAnswer;
pub use client::{ClientError, history, order, status};
pub use control::{Control, serve_control};
pub use document::{
    AppStatus, FileLockStatus, HaltedStatus, HappeningStatus, HistoryDocument, HoldStatus, LeaseStatus,
    LocksStatus, Now, SCHEMA_VERSION, StatusDocument, WaitingStatus, Who, document,
};
pub use inherited::Inherited;
pub use server::{BindError, Sources, bind, serve};
pub use wishes::{HoldWish, LockName, LockWish, OfApp, ServiceWish, UpdateWish};
