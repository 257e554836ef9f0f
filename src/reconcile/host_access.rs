//! What the reconciler needs of the host and of registries, as a trait: tests script it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use crate::engine::EngineError;
use crate::model::{
    Clock, FileLock, HeldPort, ImageRef, ImageSize, LockError, MountError, RangeTaken, RegistryPass,
    ServiceName, ServiceSpec, VolumeName, VolumeSpec, Window, WindowState,
};

/// What is known of the host and of registries, and the lock files of apps. The host is the real one.
///
/// An app is named by its number, as in the folder of its locks. Nothing here takes long but
/// [`measure_image`](Self::measure_image) and [`pass`](Self::pass), and [`resolve_mounts`](Self::resolve_mounts) on a disk that hangs: the rest reads a
/// few small files of the host.
pub trait HostAccess: Send + Sync + 'static {
    /// Makes sure that a service's lock folder is there, for every user of its container to write.
    ///
    /// # Errors
    ///
    /// [`LockError::Unusable`].
    fn prepare(&self, app: u64, service: &ServiceName) -> Result<(), LockError>;

    /// Removes the lock folders of all services but these, named by the number of their app.
    fn keep_folders(&self, keep: &BTreeSet<(u64, ServiceName)>);

    /// The lock file of a service that is not ours, if one stands.
    fn lock(&self, app: u64, service: &ServiceName) -> Option<FileLock>;

    /// Puts our own lock files into the folders of all these services, or into none. Ones of ours that
    /// stand already are a success.
    ///
    /// # Errors
    ///
    /// Which service's app holds a lock, or which folder cannot be written.
    fn take_locks(&self, app: u64, services: &[ServiceName]) -> Result<(), LockError>;

    /// Whether any lock file of ours stands in a folder of the app.
    fn has_own_locks(&self, app: u64) -> bool;

    /// Takes every lock file of ours away from the folders of an app.
    fn release_locks(&self, app: u64);

    /// Whether a service has said that its predecessor may go (docs/dev/protocol.md, "Update strategies").
    fn has_handed_over(&self, app: u64, service: &ServiceName) -> bool;

    /// Forgets what a service has said of that.
    fn forget_hand_over(&self, app: u64, service: &ServiceName);

    /// Whether a window is open now.
    fn window(&self, window: &Window) -> WindowState;

    /// Whether the clock can be believed, when it was last believed at `seen_at`.
    fn clock(&self, seen_at: Option<&str>) -> Clock;

    /// The time now: RFC 3339, UTC.
    fn now(&self) -> String;

    /// Since the device booted; it does not jump.
    fn uptime(&self) -> Duration;

    /// Bytes that are free on the disk that holds `path`; `None` when nobody can say.
    fn free(&self, path: &str) -> Option<u64>;

    /// Ports on which programs of the host listen, those of the engine for its containers among them.
    fn listeners(&self) -> Vec<HeldPort>;

    /// Takes the lock files of others away from a service's folder: they count for nothing, or an order says so.
    fn break_locks(&self, app: u64, service: &ServiceName);

    /// The paths of the host that a service mounts because its author says so, as they lead now, with all links followed.
    /// Empty, too, where releases may mount all that the host has.
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

    /// Asks an image's registry for its layers, and for which machines it is made. Of an image for several
    /// machines those of `architecture` count.
    fn measure_image(
        &self,
        image: &ImageRef,
        architecture: &str,
    ) -> impl Future<Output = Result<ImageSize, Unmeasured>> + Send;

    /// What the engine is to show an image's registry when it pulls the image.
    ///
    /// # Errors
    ///
    /// As a pull's own: the registry does not answer, or wants the device's login to be shown to somebody else.
    fn pass(&self, image: &ImageRef) -> impl Future<Output = Result<RegistryPass, EngineError>> + Send;
}

/// A path of the host that a service mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedPath {
    /// Without links.
    pub path: String,
    /// Where the disk is mounted on which its folder is.
    pub disk: String,
    /// The service may write there. What is mounted further below, it may write to in any case: an engine before API
    /// 1.44 makes only the upper mount read-only.
    pub is_writable: bool,
}

/// Why a registry did not say what an image weighs. It is pulled all the same, but not before `after`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmeasured {
    /// As the registry wishes (`Retry-After`).
    pub after: Option<Duration>,
    pub why: String,
}
