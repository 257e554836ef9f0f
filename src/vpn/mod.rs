//! The tunnel to the VPN of a balena cloud. openvpn makes it, in a unit of its own; this room writes its settings, follows
//! it over its management socket, and ends it.
//!
//! Begin with [`run()`]. openvpn gets only settings that are written here: of what the cloud says, hosts, ports and
//! certificates (`src/wire/os_config.rs`). *It runs no program, changes no route and knows no cloud.*

mod addresses;
mod files;
mod management;
mod run;
mod settings;

pub use files::Files;
pub use run::{Ended, Intent, Tunnel, end_for_good, run};
