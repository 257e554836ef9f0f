//! Uploads what services write to the cloud's log stream (docs/dev/protocol.md, "Log streaming").
//!
//! A follower for each container reads its log from the engine and puts lines into one bounded buffer, which one upload
//! empties. A follower reads no faster than its service may upload, and not at all while the buffer is full: the lines wait in
//! the engine's own log. Those that become too old there are never read.
//!
//! The room reads from the engine and changes nothing. Its tasks are its own, and no other task waits for them.

mod buffer;
mod choice;
mod cursors;
mod follower;
mod followers;
mod pace;
mod run;
#[cfg(test)]
mod tests;
mod texts;
mod upload;

pub use run::{Destination, LogTask, SaveCursors, Settings, Sources};
pub use upload::Times;
