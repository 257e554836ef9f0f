//! Facts that a plan uses besides target, observation and ledger: about the host and about registries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{
    AppId, ContainerId, HostNeed, ImageRef, ObservedVolume, Protocol, ServiceName, VolumeName, Window,
};

/// The facts of host, engine and registries that a plan may use. An unknown fact blocks nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The lock files that apps have now, without ours, for all services.
    pub locks: BTreeMap<AppId, BTreeMap<ServiceName, FileLock>>,
    /// Apps in whose folders our own lock files are.
    pub own_locks: BTreeSet<AppId>,
    /// Services that have said that their predecessor may be stopped.
    pub handed_over: BTreeSet<(AppId, ServiceName)>,
    /// The state of every window of the wanted releases and of the settings.
    pub windows: BTreeMap<Window, WindowState>,
    /// Whether the clock can be trusted.
    pub clock: Clock,
    /// Time since the device booted. It never jumps.
    pub uptime: Duration,
    /// When containers began to be in their present state, as time since the device booted.
    pub since: BTreeMap<ContainerId, Duration>,
    /// Bytes free for images, on the engine's disk.
    pub free: Option<u64>,
    /// The engine's architecture as images name it, e.g. `amd64`, `arm64`, `arm`.
    pub architecture: Option<String>,
    /// Whether the engine is known not to unpack layers that are packed with zstd.
    pub lacks_zstd: bool,
    /// Host ports in use by any container or program.
    pub ports: Vec<HeldPort>,
    /// What the host lacks of that which a release needs that is about to begin, and why.
    pub lacks: BTreeMap<HostNeed, String>,
    /// Image sizes from registries. An image without a known size counts as empty.
    pub image_sizes: BTreeMap<ImageRef, ImageSize>,
    /// Running containers that have lost the namespaces that they joined, because the other container was restarted.
    pub left_behind: BTreeSet<ContainerId>,
    /// The existing volumes of apps that are about to be updated. `None`: the engine was not asked or did not answer.
    pub volumes: Option<BTreeMap<(AppId, VolumeName), ObservedVolume>>,
    /// The layers that the engine has; `None` until it was asked.
    pub layers: Option<BTreeSet<String>>,
}

/// A lock file that an app has made (docs/dev/protocol.md, "Update locks").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLock {
    /// The path inside the container, e.g. `/tmp/balena/updates.lock`.
    pub path: String,
}

/// Whether the wall clock can be trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Clock {
    #[default]
    Trusted,
    /// Why not, for people.
    Untrusted(String),
}

/// Whether a maintenance window is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowState {
    Open,
    Closed {
        opens_in: Duration,
    },
    /// The device does not know its time zone, with the reason for people.
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
    /// The container's name, or the kind of program, for people.
    pub by: String,
}

impl Facts {
    /// The compressed bytes that the engine would fetch for an image, as its registry reports them; 0: unknown.
    #[must_use]
    pub fn missing_bytes(&self, image: &ImageRef) -> u64 {
        let missing =
            self.image_sizes.get(image).into_iter().flat_map(|size| size.missing(self.layers.as_ref()));
        missing.fold(0, |sum: u64, (_, bytes)| sum.saturating_add(bytes))
    }

    /// The same, but 0 as well while the engine has not been asked which layers it has.
    #[must_use]
    pub fn bytes_to_fetch(&self, image: &ImageRef) -> u64 {
        if self.layers.is_some() { self.missing_bytes(image) } else { 0 }
    }
}

/// What a registry reports about an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSize {
    /// Its layers from the lowest up: the digest of their uncompressed content, and their compressed bytes.
    pub layers: Vec<(String, u64)>,
    /// The architectures for which it is built; empty: unknown.
    pub architectures: BTreeSet<String>,
    /// Whether layers of it are packed with zstd.
    pub has_zstd: bool,
}

impl ImageSize {
    /// Returns the layers that an engine with the layers `here` would fetch: all from the first missing one on, because
    /// the engine identifies a layer together with those below it.
    pub fn missing<'a>(&'a self, here: Option<&'a BTreeSet<String>>) -> impl Iterator<Item = (&'a str, u64)> {
        let has = move |layer: &&(String, u64)| here.is_some_and(|here| here.contains(&layer.0));
        self.layers.iter().skip_while(has).map(|(layer, bytes)| (layer.as_str(), *bytes))
    }

    /// Returns `true` if the image is built for exactly this architecture, or for unknown ones.
    #[must_use]
    pub fn is_for(&self, architecture: &str) -> bool {
        self.architectures.is_empty() || self.architectures.contains(architecture)
    }

    /// Returns `true` if machines of `architecture` can run the image: it is built for them, for older machines whose
    /// programs they also run, or for unknown ones.
    #[must_use]
    pub fn fits(&self, architecture: &str) -> bool {
        self.architectures.is_empty() || runs(architecture).any(|runs| self.architectures.contains(runs))
    }
}

/// Returns the architectures whose images an engine of `architecture` runs, its own first. It uses an image for 32 bits
/// if there is none for 64 bits.
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
    fn all_layers_from_the_first_missing_one_are_fetched() {
        let layers = ["a", "b", "c"].map(|layer| (layer.to_owned(), 1)).to_vec();
        let size = ImageSize { layers, ..ImageSize::default() };
        for (here, fetched) in [
            (&[][..], "a b c"),
            (&["a"], "b c"),
            (&["a", "c"], "b c"),
            (&["b"], "a b c"),
            (&["a", "b", "c"], ""),
        ] {
            let here = here.iter().map(|&layer| layer.to_owned()).collect();
            let missing: Vec<_> = size.missing(Some(&here)).map(|(layer, _)| layer).collect();
            assert_eq!(missing.join(" "), fetched);
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
            let size = ImageSize { architectures, ..ImageSize::default() };
            assert_eq!(size.fits(engine), fits, "{made_for:?} on {engine}");
        }
    }
}
