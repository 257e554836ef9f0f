//! The container engine, behind two traits: [`Inspect`] reads, [`Operate`] changes.
//!
//! Each function makes one call or a few. The room does not know why a call is made, and knows nothing of targets,
//! trials or plans.

mod answers;
mod client;
mod connect;
mod docker;
mod docker_spec;
mod error;
pub mod fake;
#[cfg(test)]
mod hostile_tests;
mod injected;
mod inspection;
mod log_lines;
mod logs;
mod metered;
mod notices;
mod observed;
mod pull;
mod requests;
#[cfg(test)]
mod sample;
mod secrets;
mod stream;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

use crate::model::{
    App, AppId, Commit, ContainerId, Door, FailedProbe, HeldPort, ImageRef, Introduction, LastEnd, LogLine,
    LogTime, NetworkId, NetworkName, NetworkSpec, Observed, ObservedVolume, OwnVolume, Platform,
    PullProgress, RegistryPass, ServiceName, ServiceSpec, VolumeName, VolumeSpec,
};

pub use docker::{Docker, DockerSettings};
pub use error::EngineError;
pub use inspection::{Inspection, Mounted};
pub use logs::{LogSpan, UNREADABLE};
pub use requests::requests;
pub use survey::Survey;

/// A container to be created.
#[derive(Debug, Clone, Copy)]
pub struct NewContainer<'a> {
    pub app: &'a App,
    pub release: &'a Commit,
    pub service: &'a ServiceName,
    pub spec: &'a ServiceSpec,
    /// Configs of the app's networks and volumes; the spec names some of them.
    pub networks: &'a BTreeMap<NetworkName, NetworkSpec>,
    pub volumes: &'a BTreeMap<VolumeName, VolumeSpec>,
    /// The containers of the services whose namespaces the spec joins.
    pub joined: &'a BTreeMap<ServiceName, ContainerId>,
    /// What it gets to know about its device.
    pub introduction: &'a Introduction,
}

/// What an engine reports about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The folder with its images, as the engine sees the file system.
    pub data_root: String,
    /// The architecture of its machine, as images name it: `amd64`, `arm64`, `arm`, ...
    pub architecture: String,
    /// Whether this version of the engine cannot unpack image layers that are packed with zstd.
    pub lacks_zstd: bool,
}

/// What the engine reports about the runs of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunRecord {
    /// How often the engine has restarted it since it was last started by a call.
    pub restarts: u64,
    /// How it ended last; `None` while it runs, and before its first start.
    pub end: Option<LastEnd>,
    /// The last run of its healthcheck, if that failed.
    pub probe: Option<FailedProbe>,
}

/// The lines of a log. An error ends it.
pub type FollowedLog = BoxStream<'static, Result<LogLine, EngineError>>;

/// An event of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A container of ours has started, has ended, was removed, or has another health.
    Changed,
    /// The engine has restarted a container of ours that had ended by itself.
    Restarted { app: AppId, service: ServiceName },
    /// A container of ours has ended.
    Ended { container: ContainerId, end: LastEnd },
}

/// Reads from the engine and changes nothing.
pub trait Inspect: Send + Sync {
    /// Observes all containers and networks of our instance, and every image.
    ///
    /// Costs three calls, whatever the number of containers; with podman one more for each running container.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says. There is no partial observation.
    fn observe(&self) -> impl Future<Output = Result<Observed, EngineError>> + Send;

    /// Returns how often the engine has restarted a container, how it ended, and how its healthcheck failed. All of it is
    /// empty if the container does not exist.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    fn run_record(&self, id: &ContainerId) -> impl Future<Output = Result<RunRecord, EngineError>> + Send;

    /// Returns the last lines that a container wrote, oldest first, bounded and safe to show.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says, also if the log driver cannot be read.
    fn last_lines(&self, id: &ContainerId) -> impl Future<Output = Result<Vec<String>, EngineError>> + Send;

    /// Follows the log of a container: its last `tail` lines, but none from before `since`, and then new ones until it ends.
    /// Reads no faster than the stream is read.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says, also if the log driver cannot be read.
    fn follow_log(
        &self,
        id: &ContainerId,
        since: Option<LogTime>,
        tail: u32,
    ) -> impl Future<Output = Result<FollowedLog, EngineError>> + Send;

    /// Returns the engine's text for the last start of a container. Each start has a different text, and while no clock
    /// jumps, later ones sort after earlier ones. `None` if the container does not run or does not exist.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    fn started(&self, id: &ContainerId) -> impl Future<Output = Result<Option<String>, EngineError>> + Send;

    /// Returns what the engine reports about itself.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    fn about(&self) -> impl Future<Output = Result<About, EngineError>> + Send;

    /// Returns the layers of all images on this engine, by the digests of their uncompressed content (`diff_id`).
    ///
    /// Costs a call for each image.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    fn layers(&self) -> impl Future<Output = Result<BTreeSet<String>, EngineError>> + Send;

    /// Returns those of an app's volumes `names` that exist, whoever created them.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    fn volumes_of(
        &self,
        app: &App,
        names: &BTreeSet<VolumeName>,
    ) -> impl Future<Output = Result<BTreeMap<VolumeName, ObservedVolume>, EngineError>> + Send;

    /// Returns the host ports that running containers publish, whoever created them.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    fn published(&self) -> impl Future<Output = Result<Vec<HeldPort>, EngineError>> + Send;

    /// Returns the named volumes of our instance, and the containers that mount them.
    ///
    /// Costs two calls.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    fn volumes(&self) -> impl Future<Output = Result<Vec<OwnVolume>, EngineError>> + Send;

    /// Returns the host's address on the engine's default bridge, and its ranges; `None` if there is no such bridge.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    fn default_bridge(&self) -> impl Future<Output = Result<Option<Door>, EngineError>> + Send;

    /// A stream with one item whenever a container of ours starts, ends, is removed or changes its health.
    ///
    /// It ends with an error when the connection to the engine ends. Then open it again and observe, because events
    /// in between, including restarts, are lost.
    fn events(&self) -> impl Stream<Item = Result<Notice, EngineError>> + Send;
}

/// Changes what the engine holds. Every call may be repeated.
pub trait Operate: Inspect {
    /// Downloads an image, for `platform` or else for the engine's own machine. Returns the bytes that came from the
    /// registry, as far as the engine reports them. `pass` has the only credentials that the registry gets.
    ///
    /// Sends its progress whenever the percentage changes, at least once a second while data arrives, and once more
    /// at its end, also when it fails. The last message has the total of the bytes. Fails if the engine reports
    /// nothing for the stall timeout of the settings. Dropping the future ends the download, and what it has fetched
    /// is lost.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoImage`] if another attempt cannot help soon.
    fn pull(
        &self,
        image: &ImageRef,
        platform: Option<&Platform>,
        pass: &RegistryPass,
        progress: mpsc::Sender<PullProgress>,
    ) -> impl Future<Output = Result<u64, EngineError>> + Send;

    /// Creates a network. If it exists already, that is a success.
    fn create_network(
        &self,
        app: &App,
        name: &NetworkName,
        spec: &NetworkSpec,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a network. If it does not exist, that is a success.
    fn remove_network(&self, id: &NetworkId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Creates a container, stopped, connected to all its networks, with the volumes it mounts.
    ///
    /// An interrupted call leaves no container, or one that is observed as dead. If a network is missing, or a
    /// container whose namespaces it joins does not run, this call succeeds and the start fails (with podman, a
    /// missing network already fails this call). A name that is taken is an error. Then observe again, because an
    /// earlier call may have created the container although its answer was lost.
    fn create(&self, new: NewContainer<'_>) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Disconnects a stopped container from all its networks, which must exist, and connects it to them again.
    ///
    /// It gets the addresses and names that it was created with. Nothing else of it changes.
    fn reconnect(
        &self,
        id: &ContainerId,
        new: NewContainer<'_>,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Starts a container. If it runs already, that is a success.
    fn start(&self, id: &ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Stops a container: its stop signal, then SIGKILL after `grace`, rounded up to whole seconds.
    ///
    /// If it is stopped already or does not exist, that is a success.
    fn stop(&self, id: &ContainerId, grace: Duration)
    -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Makes sure that a stopped container stays stopped, even if a call to start it is still in progress.
    ///
    /// A call outlives its caller: an earlier run of the agent may have sent a start, or a start may have passed its
    /// deadline, and the engine may still execute it. The engine executes the calls for one container one after the
    /// other, so a later stop waits for such a start and ends the container. Costs two short calls if nothing is in
    /// progress. If the container does not exist, that is a success.
    fn fence(
        &self,
        id: &ContainerId,
        grace: Duration,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Stops `old` as [`stop`](Self::stop) does, and starts `new`. If the engine reports that the processes of `old`
    /// have ended, `new` starts at once, while the engine still cleans up `old`. Must not be used for two containers
    /// that need the same host port or the same address.
    ///
    /// Returns the results of the stop and of the start. `None`: `old` did not end, and nothing was started.
    fn swap(
        &self,
        old: &ContainerId,
        grace: Duration,
        new: &ContainerId,
    ) -> impl Future<Output = (Result<(), EngineError>, Option<Result<(), EngineError>>)> + Send;

    /// Ends a container with SIGKILL. If it does not run or does not exist, that is a success.
    fn kill(&self, id: &ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a container as [`remove`](Self::remove) does, even one that runs.
    fn remove_by_force(&self, id: &ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Renames a container, so that its name is free and it is observed as parked. If it does not exist, that is a
    /// success.
    fn park(&self, id: &ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a stopped container with its anonymous volumes. If it does not exist, that is a success.
    fn remove(&self, id: &ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a named volume with its content. If it does not exist, that is a success.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says. A volume that a container mounts is not removed.
    fn remove_volume(&self, volume: &OwnVolume) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes our reference to an image. If it does not exist, is used by other containers, or has a name that no
    /// engine accepts, that is a success.
    fn remove_image(&self, image: &ImageRef) -> impl Future<Output = Result<(), EngineError>> + Send;
}
