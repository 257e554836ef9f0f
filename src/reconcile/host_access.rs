//! The trait by which the reconciler reaches the host and registries. Tests replace it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use crate::engine::EngineError;
use crate::model::{
    ApiKey, Clock, DeviceFacts, FileLock, HeldPort, HostNeed, ImageRef, ImageSize, LockError, MountError,
    Power, RangeTaken, RegistryPass, ServiceName, ServiceSpec, VolumeName, VolumeSpec, Window, WindowState,
};

/// Access to the host, to registries and to the lock files of apps.
///
/// An app is named by its number, as in the path of its lock folder. All calls are fast except
/// [`measure_image`](Self::measure_image) and [`pass`](Self::pass), and [`resolve_mounts`](Self::resolve_mounts) on a disk that hangs: the rest reads a
/// few small files of the host.
pub trait HostAccess: Send + Sync + 'static {
    /// Makes a service's lock folder writable for every user of its container, and creates it if it is missing.
    ///
    /// # Errors
    ///
    /// [`LockError::Unusable`].
    fn prepare(&self, app: u64, service: &ServiceName) -> Result<(), LockError>;

    /// Removes the lock folders of all services but these, named by the number of their app.
    fn keep_folders(&self, keep: &BTreeSet<(u64, ServiceName)>);

    /// Returns the app's own lock on a service, if there is one.
    fn lock(&self, app: u64, service: &ServiceName) -> Option<FileLock>;

    /// Locks all these services for us, or none. A lock that is ours already counts as success.
    ///
    /// # Errors
    ///
    /// Which service's app holds a lock, or which folder cannot be written.
    fn take_locks(&self, app: u64, services: &[ServiceName]) -> Result<(), LockError>;

    /// Returns `true` if any lock file in the app's folders is ours.
    fn has_own_locks(&self, app: u64) -> bool;

    /// Removes all our lock files from the folders of an app.
    fn release_locks(&self, app: u64);

    /// Returns `true` if a service has signalled that its predecessor may stop (docs/dev/protocol.md, "Update strategies").
    fn has_handed_over(&self, app: u64, service: &ServiceName) -> bool;

    /// Removes that signal.
    fn forget_hand_over(&self, app: u64, service: &ServiceName);

    /// Returns whether a window is open now.
    fn window(&self, window: &Window) -> WindowState;

    /// Returns whether the clock can be trusted. `seen_at` is the last time at which it was.
    fn clock(&self, seen_at: Option<&str>) -> Clock;

    /// The time now: RFC 3339, UTC.
    fn now(&self) -> String;

    /// Time since the device booted. It never jumps.
    fn uptime(&self) -> Duration;

    /// Free bytes on the disk that holds `path`; `None` when they cannot be read.
    fn free(&self, path: &str) -> Option<u64>;

    /// Ports on which programs of the host listen, including those of the engine for its containers.
    fn listeners(&self) -> Vec<HeldPort>;

    /// Returns why the host cannot give a service what it needs; `None`: it can, or that cannot be known.
    fn lacks(&self, need: &HostNeed) -> Option<String>;

    /// Removes the app's own locks on a service, because they do not count or an order overrides them.
    fn break_locks(&self, app: u64, service: &ServiceName);

    /// Resolves the paths of the host that a service mounts by its author's choice, with all links followed. Empty if
    /// releases may mount every path of the host.
    ///
    /// # Errors
    ///
    /// Which path may not be mounted on this device, why, and what to do.
    fn resolve_mounts(
        &self,
        spec: &ServiceSpec,
        volumes: &BTreeMap<VolumeName, VolumeSpec>,
    ) -> impl Future<Output = Result<Vec<MountedPath>, MountError>> + Send;

    /// Checks that no network of the host has one of these address ranges.
    ///
    /// # Errors
    ///
    /// Which network of the host has one of them, and what to do.
    fn check_ranges(&self, ranges: &[String]) -> Result<(), RangeTaken>;

    /// Asks an image's registry for the image's layers and architectures. Of an image for several architectures, returns
    /// the layers for `architecture`.
    fn measure_image(
        &self,
        image: &ImageRef,
        architecture: &str,
    ) -> impl Future<Output = Result<ImageSize, Unmeasured>> + Send;

    /// The facts of the device that new containers get.
    fn device(&self) -> DeviceFacts;

    /// A new key for the supervisor API. `None`: the system has no random numbers.
    fn new_key(&self) -> Option<ApiKey>;

    /// Orders the host to reboot or to switch itself off, and does not wait for it.
    ///
    /// # Errors
    ///
    /// Why the host does not do it.
    fn end_run(&self, power: Power) -> impl Future<Output = Result<(), String>> + Send;

    /// Returns the credentials that the engine shows an image's registry to pull the image.
    ///
    /// # Errors
    ///
    /// The registry does not answer, or wants the device's login to be shown to a foreign host. The error is that of a
    /// pull.
    fn pass(&self, image: &ImageRef) -> impl Future<Output = Result<RegistryPass, EngineError>> + Send;
}

/// A path of the host that a service mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedPath {
    /// Without links.
    pub path: String,
    /// The mount point of the disk that holds its folder.
    pub disk: String,
    /// Whether the service may write there. It may always write to disks mounted further below, because an engine before
    /// API 1.44 makes only the upper mount read-only.
    pub is_writable: bool,
}

/// Why a registry did not give the size of an image. The image is pulled all the same, but not before `after`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmeasured {
    /// As the registry wishes (`Retry-After`).
    pub after: Option<Duration>,
    pub why: String,
}
