//! What a decision may need to know besides target, engine and ledger: what the host and the registry say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{
    AppId, ContainerId, HostNeed, ImageRef, ObservedVolume, Protocol, ServiceName, VolumeName, Window,
};

/// The facts of host, engine and registries that a plan may use. An unknown fact blocks nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Lock files of apps that stand now, whoever runs. Ours are not among them.
    pub locks: BTreeMap<AppId, BTreeMap<ServiceName, FileLock>>,
    /// Apps in whose folders our own lock files stand.
    pub own_locks: BTreeSet<AppId>,
    /// Services that have said that their predecessor may go.
    pub handed_over: BTreeSet<(AppId, ServiceName)>,
    /// The state of every window of the wanted releases and of the settings.
    pub windows: BTreeMap<Window, WindowState>,
    /// Whether the clock can be believed.
    pub clock: Clock,
    /// Since the device booted; no clock that jumps changes it.
    pub uptime: Duration,
    /// Bytes free for images, on the engine's disk.
    pub free: Option<u64>,
    /// The engine's architecture as images name it, e.g. `amd64`, `arm64`, `arm`.
    pub architecture: Option<String>,
    /// Host ports in use, whoever holds them.
    pub ports: Vec<HeldPort>,
    /// What the host lacks of that which a release needs that is about to begin, and why.
    pub lacks: BTreeMap<HostNeed, String>,
    /// The sizes that registries gave. An image whose registry gave none counts as empty.
    pub image_sizes: BTreeMap<ImageRef, ImageSize>,
    /// Containers that run and have lost the namespaces that they joined: the other was started again since.
    pub left_behind: BTreeSet<ContainerId>,
    /// What is here of the volumes of apps that are about to be updated; `None`: the engine was not asked, or did
    /// not say.
    pub volumes: Option<BTreeMap<(AppId, VolumeName), ObservedVolume>>,
    /// The layers that the engine has, once it was asked.
    pub layers: Option<BTreeSet<String>>,
}

/// A lock file that an app has made (docs/dev/protocol.md, "Update locks").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLock {
    /// As the app sees it, e.g. `/tmp/balena/updates.lock`.
    pub path: String,
}

/// Whether the wall clock can be believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Clock {
    #[default]
    Trusted,
    /// Why not, in words.
    Untrusted(String),
}

/// Whether a maintenance window is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowState {
    Open,
    Closed {
        opens_in: Duration,
    },
    /// The device does not know its time zone; why, in words.
    Unknown(String),
}

/// A host port that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPort {
    /// Empty: all addresses.
    pub host_ip: String,
    pub port: u16,
    pub protocol: Protocol,
    /// The container that publishes it; `None`: a program of the host.
    pub container: Option<ContainerId>,
    /// For people: the container's name, or the kind of program.
    pub by: String,
}

/// What a registry says of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSize {
    /// Its layers from the lowest up: the digest of their uncompressed content, and their compressed bytes.
    pub layers: Vec<(String, u64)>,
    /// Architectures that it is made for, as images name them; empty: it does not say.
    pub architectures: BTreeSet<String>,
}

impl ImageSize {
    /// The layers that an engine fetches which has those of `here`: all from the first one on that it lacks,
    /// because it keeps layers by what lies below them.
    pub fn missing<'a>(&'a self, here: Option<&'a BTreeSet<String>>) -> impl Iterator<Item = (&'a str, u64)> {
        let has = move |layer: &&(String, u64)| here.is_some_and(|here| here.contains(&layer.0));
        self.layers.iter().skip_while(has).map(|(layer, bytes)| (layer.as_str(), *bytes))
    }

    /// Whether it is made for machines of this very architecture. One that does not say is.
    #[must_use]
    pub fn is_for(&self, architecture: &str) -> bool {
        self.architectures.is_empty() || self.architectures.contains(architecture)
    }

    /// Whether the image is made for machines of `architecture`, or for older ones whose programs they
    /// run as well. One that does not say is.
    #[must_use]
    pub fn fits(&self, architecture: &str) -> bool {
        self.architectures.is_empty() || runs(architecture).any(|runs| self.architectures.contains(runs))
    }
}

/// The architectures whose images an engine of `architecture` runs, its own first: it takes an image for
/// 32 bits where there is none for 64.
pub fn runs(architecture: &str) -> impl Iterator<Item = &str> {
    let older = match architecture {
        "amd64" => Some("386"),
        "arm64" => Some("arm"),
        _ => None,
    };
    std::iter::once(architecture).chain(older)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fetched_begins_with_the_first_layer_that_is_missing() {
        let layers = ["a", "b", "c"].map(|layer| (layer.to_owned(), 1)).to_vec();
        let size = ImageSize { layers, architectures: BTreeSet::new() };
        for (here, fetched) in [
            (&[][..], "a b c"),
            (&["a"], "b c"),
            (&["a", "c"], "b c"),
            (&["b"], "a b c"),
            (&["a", "b", "c"], ""),
        ] {
            let here = here.iter().map(|&layer| layer.to_owned()).collect();
            let told: Vec<_> = size.missing(Some(&here)).map(|(layer, _)| layer).collect();
            assert_eq!(told.join(" "), fetched);
        }
        assert_eq!(size.missing(None).count(), 3);
    }

    #[test]
    fn an_image_fits_machines_that_run_its_programs() {
        for (made_for, engine, fits) in [
            (&["amd64", "arm64"][..], "arm64", true),
            (&["amd64"], "arm64", false),
            (&["arm"], "arm64", true),
            (&["arm64"], "arm", false),
            (&["386"], "amd64", true),
            (&["riscv64"], "riscv64", true),
            (&[], "arm64", true),
        ] {
            let architectures = made_for.iter().map(|&name| name.to_owned()).collect();
            let size = ImageSize { layers: Vec::new(), architectures };
            assert_eq!(size.fits(engine), fits, "{made_for:?} on {engine}");
        }
    }
}
