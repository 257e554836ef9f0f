//! The local socket: what the agent says of itself, and how the command line asks.
//!
//! Reads channels and touches neither engine nor store.

mod client;
mod document;
mod server;

pub use client::{ClientError, status};
pub use document::{AppStatus, SCHEMA_VERSION, StatusDocument, WaitingStatus, Who, document};
pub use server::{BindError, Sources, bind, serve};
