//! The container engine, through two doors: [`Inspect`] looks, [`Operate`] changes.
//!
//! The room does what it is told, one call at a time. It must not be told why,
//! and knows nothing of targets, trials or plans.

mod answers;
mod base64;
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
mod logs;
mod look;
mod metered;
mod notices;
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
use tokio::sync::mpsc;

use crate::model::{
    App, AppId, Commit, ContainerId, HeldPort, ImageRef, NetworkId, NetworkName, NetworkSpec, Observed,
    ObservedVolume, OwnVolume, Platform, PullProgress, RegistryPass, ServiceName, ServiceSpec, VolumeName,
    VolumeSpec,
};

pub use docker::{Docker, DockerSettings};
pub use error::EngineError;
pub use inspection::{Inspection, Mounted};
pub use logs::LogSpan;
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
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Where it keeps its images, as it sees the file system.
    pub data_root: String,
    /// Its machine's, as images name it: `amd64`, `arm64`, `arm`, ...
    pub architecture: String,
}

/// What the engine tells unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A container of ours has started, ended, gone or changed its health.
    Changed,
    /// A container of ours was started again after it had ended without being stopped.
    Restarted { app: AppId, service: ServiceName },
}

/// Looks at the engine and changes nothing.
pub trait Inspect: Send + Sync {
    /// Everything of our instance, and every image.
    ///
    /// Costs three calls whatever the number of containers; with podman one more for each that runs.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says; the look is then worthless as a whole.
    fn observe(&self) -> impl Future<Output = Result<Observed, EngineError>> + Send;

    /// How often the engine has restarted a container since it was last started by hand; 0 for one that
    /// is gone.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    fn restarts(&self, id: &ContainerId) -> impl Future<Output = Result<u64, EngineError>> + Send;

    /// The engine's word for when it started a container last: each start has another one, and a later one is
    /// sorted after it while no clock jumps. `None` for one that does not run, or is gone.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    fn started(&self, id: &ContainerId) -> impl Future<Output = Result<Option<String>, EngineError>> + Send;

    /// What the engine says of itself.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    fn about(&self) -> impl Future<Output = Result<About, EngineError>> + Send;

    /// The layers of all images that are here, by the digests of their uncompressed content (`diff_id`).
    ///
    /// Costs a call for each image.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    fn layers(&self) -> impl Future<Output = Result<BTreeSet<String>, EngineError>> + Send;

    /// What is here of an app's volumes of these names, whoever made them.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    fn volumes_of(
        &self,
        app: &App,
        names: &BTreeSet<VolumeName>,
    ) -> impl Future<Output = Result<BTreeMap<VolumeName, ObservedVolume>, EngineError>> + Send;

    /// Host ports that running containers publish, whoever made them.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    fn published(&self) -> impl Future<Output = Result<Vec<HeldPort>, EngineError>> + Send;

    /// The named volumes of our instance, and who mounts them.
    ///
    /// Costs two calls.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    fn volumes(&self) -> impl Future<Output = Result<Vec<OwnVolume>, EngineError>> + Send;

    /// One item whenever a container of ours starts, ends, goes or changes its health.
    ///
    /// The stream ends with an error when the engine goes; open it again then,
    /// and look first, because what happened in between is lost: restarts among it are never told.
    fn events(&self) -> impl Stream<Item = Result<Notice, EngineError>> + Send;
}

/// Changes what the engine holds. Every call may be repeated.
pub trait Operate: Inspect {
    /// Downloads an image, for `platform` or else for the engine's own machine. Returns the bytes that came from the
    /// registry, as far as the engine reports them. The registry is shown `pass` and nothing else.
    ///
    /// Sends its progress whenever the percentage rises, and once more at its end, also when it fails: the last message
    /// has all bytes that came. Gives up when the registry sends nothing for the time that was set.
    /// Dropping the future drops the download with all it had fetched.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoImage`] when asking again cannot help soon, others when it can.
    fn pull(
        &self,
        image: &ImageRef,
        platform: Option<&Platform>,
        pass: &RegistryPass,
        progress: mpsc::Sender<PullProgress>,
    ) -> impl Future<Output = Result<u64, EngineError>> + Send;

    /// Creates a network; one that is there already is a success.
    fn create_network(
        &self,
        app: &App,
        name: &NetworkName,
        spec: &NetworkSpec,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a network; one that is gone already is a success.
    fn remove_network(&self, id: &NetworkId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Creates a container, stopped, connected to all its networks, with the volumes it mounts.
    ///
    /// It is there whole, or not at all, or seen as dead. A network that does not exist shows only
    /// when it is started, and so does one whose namespaces it joins and that does not run. A name that is taken is an error: look again then, because
    /// an earlier call may have worked unheard.
    fn create(&self, new: NewContainer<'_>) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Connects a container that does not run anew to all its networks, which are there.
    ///
    /// It has its addresses and names there as when it was created, and keeps all else.
    fn reconnect(
        &self,
        id: &ContainerId,
        new: NewContainer<'_>,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Starts a container; one that runs already is a success.
    fn start(&self, id: &ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Stops a container: its stop signal, then SIGKILL after `grace`, rounded up to whole seconds.
    ///
    /// One that is stopped or gone already is a success.
    fn stop(&self, id: &ContainerId, grace: Duration)
    -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Makes sure that a container that is down stays down, whoever has called for its start before.
    ///
    /// A call outlives its caller: a start that an earlier life of the agent has sent, or that was given up at its
    /// deadline, may still be under way. The engine makes the calls on one container one after the other, so a stop
    /// that it gets later waits for such a start, and ends what came up. Costs two short calls where nothing was
    /// under way. One that is gone is a success.
    fn fence(
        &self,
        id: &ContainerId,
        grace: Duration,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Stops `old` as [`stop`](Self::stop) does, and starts `new`: as soon as the processes of `old` have ended, if
    /// the engine tells, while it still clears away what `old` had. Not for two that ask for the same port of the
    /// host or the same address.
    ///
    /// What became of the stop, and of the start; `None`: `old` did not end, and nothing was started.
    fn swap(
        &self,
        old: &ContainerId,
        grace: Duration,
        new: &ContainerId,
    ) -> impl Future<Output = (Result<(), EngineError>, Option<Result<(), EngineError>>)> + Send;

    /// Ends a container with SIGKILL; one that does not run, or is gone, is a success.
    fn kill(&self, id: &ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a container as [`remove`](Self::remove) does, even one that runs.
    fn remove_by_force(&self, id: &ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Renames a container, so that its name is free and it is observed as parked; one that is gone is a
    /// success.
    fn park(&self, id: &ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a stopped container with its anonymous volumes; one that is gone is a success.
    fn remove(&self, id: &ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a named volume with all that is in it; one that is gone is a success.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says; one that a container mounts stays.
    fn remove_volume(&self, volume: &OwnVolume) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes our reference to an image; one that is gone, or in use by others, or that no engine can have by its name,
    /// is a success.
    fn remove_image(&self, image: &ImageRef) -> impl Future<Output = Result<(), EngineError>> + Send;
}
