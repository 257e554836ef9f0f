//! Errors of the host, sorted by remedy.

use std::io;
use std::path::PathBuf;

use super::ServiceName;

/// Why the agent has no lock in a service's lock folder.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The app has locked its updates. Passes when the app removes its lock.
    #[error("{service} has locked updates with {path}")]
    Held { service: ServiceName, path: String },

    /// The folder, or our lock in it, cannot be written. A person must free space or repair the disk.
    #[error("lock folder {} of {service} cannot be used", folder.display())]
    Unusable {
        service: ServiceName,
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A network of the host already has one of the address ranges that a release asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "its addresses {} are those of this device's {network} ({range}): give it another subnet, or set \
     policy.host_network = \"yes\" on the device",
    asked.join(", ")
)]
pub struct RangeTaken {
    /// The ranges that the release asks for.
    pub asked: Vec<String>,
    /// The host's network, and its range that overlaps.
    pub network: String,
    pub range: String,
}

/// Why a service may not mount a path of the host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// The owner's policy or the agent's unit refuses the path. The text says what to change.
    #[error("{why}")]
    Refused { why: String },

    /// The disk or network share of the path does not answer. Passes when it comes back.
    #[error("{path:?} does not say where it leads on this device: is its disk or share away?")]
    Silent { path: String },

    /// The thread that resolved the path ended before its answer: the agent stops, or it has a defect.
    #[error("{why}")]
    Unresolved { why: String },
}
