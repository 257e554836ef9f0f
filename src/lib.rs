//! Cotter keeps every device of a fleet on exactly the release it should run.
//!
//! The rooms, from the ground floor up; each may use only those its row in
//! `tests/floors.rs` names.

pub mod cli;
pub mod fleet;
pub mod model;
pub mod registry;
pub mod wire;
