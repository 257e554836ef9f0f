//! Steps, plans and waits, as data.

use std::fmt;
use std::time::Duration;

use super::{AppId, Commit, ContainerId, ImageRef, NetworkId, NetworkName, ServiceName, SpecHash};

/// One change to the device, small enough to be done or not done.
///
/// A step is data: it can be compared, printed and sent. It names things by id and holds no handle. Every step is safe to
/// repeat, because a power cut can hide whether it happened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Download an image. Changes no container. Runs in the background.
    Pull { image: ImageRef },
    /// Ask the registry for the size and the architectures of an image. Changes nothing. Runs in the background.
    MeasureImage { image: ImageRef },
    /// Create a network of the wanted or of the good release, whichever has it with this config.
    CreateNetwork { app: AppId, network: NetworkName, config_hash: Option<String> },
    /// Create a container, stopped, and the volumes that it mounts. No step removes a volume with data.
    Create { app: AppId, service: ServiceName, release: Commit, spec: SpecHash },
    /// Connect a stopped container to its networks again. One of them was created again since the container ran, and the
    /// engine would look for the old one.
    Reconnect { app: AppId, service: ServiceName, container: ContainerId },
    /// Start a container that exists.
    Start { app: AppId, service: ServiceName, container: ContainerId },
    /// Stop a container and keep it, so that a rollback needs no pull.
    Stop { app: AppId, service: ServiceName, container: ContainerId, grace: Duration },
    /// Make sure that a stopped container stays stopped before another one of its service starts. A call to the engine
    /// outlives its caller, so a start may be in progress although nothing shows it.
    Fence { app: AppId, service: ServiceName, container: ContainerId, grace: Duration },
    /// End a container that could not be stopped, by SIGKILL.
    Kill { app: AppId, service: ServiceName, container: ContainerId },
    /// Remove a container that could not be removed, by force.
    RemoveByForce { app: AppId, service: ServiceName, container: ContainerId },
    /// Rename a container that cannot be removed, so that its name is free.
    Park { app: AppId, service: ServiceName, container: ContainerId },
    /// Record that a service is restarted because it is unhealthy.
    Heal { app: AppId, service: ServiceName },
    /// Remove our own lock files. The app's own locks are read again before the next swap.
    Unlock { app: AppId },
    /// Remove a stopped container with its anonymous volumes, which hold no data.
    Remove { app: AppId, service: ServiceName, container: ContainerId },
    /// Remove a network that no container uses.
    RemoveNetwork { app: AppId, network: NetworkName, id: NetworkId },
    /// Remove an image that we pulled and that nothing needs.
    RemoveImage { image: ImageRef },
    /// Record that the trial of `release` begins: it is about to replace what runs.
    Try { app: AppId, release: Commit },
    /// Record `release` as rejected. The device rolls back to the good release, and this one is not tried again until the
    /// target changes.
    Reject { app: AppId, release: Commit, why: String },
    /// Record `release` as accepted: it is the good release from now on. Its name for programs is `commit`.
    Accept { app: AppId, release: Commit },
    /// Forget an app of which only volumes are left.
    Forget { app: AppId },
}

impl Step {
    /// Returns the service whose steps must run in order with this one; `None`: no order is needed.
    #[must_use]
    pub fn service(&self) -> Option<(&AppId, &ServiceName)> {
        match self {
            Self::Create { app, service, .. }
            | Self::Reconnect { app, service, .. }
            | Self::Start { app, service, .. }
            | Self::Stop { app, service, .. }
            | Self::Fence { app, service, .. }
            | Self::Kill { app, service, .. }
            | Self::RemoveByForce { app, service, .. }
            | Self::Park { app, service, .. }
            | Self::Heal { app, service }
            | Self::Remove { app, service, .. } => Some((app, service)),
            Self::Pull { .. }
            | Self::MeasureImage { .. }
            | Self::Unlock { .. }
            | Self::CreateNetwork { .. }
            | Self::RemoveNetwork { .. }
            | Self::RemoveImage { .. }
            | Self::Try { .. }
            | Self::Reject { .. }
            | Self::Accept { .. }
            | Self::Forget { .. } => None,
        }
    }

    /// Returns its app; steps on images have none.
    #[must_use]
    pub fn app(&self) -> Option<&AppId> {
        match self {
            Self::Pull { .. } | Self::MeasureImage { .. } | Self::RemoveImage { .. } => None,
            Self::CreateNetwork { app, .. }
            | Self::Kill { app, .. }
            | Self::RemoveByForce { app, .. }
            | Self::Park { app, .. }
            | Self::Heal { app, .. }
            | Self::Unlock { app }
            | Self::Create { app, .. }
            | Self::Reconnect { app, .. }
            | Self::Start { app, .. }
            | Self::Stop { app, .. }
            | Self::Fence { app, .. }
            | Self::Remove { app, .. }
            | Self::RemoveNetwork { app, .. }
            | Self::Try { app, .. }
            | Self::Reject { app, .. }
            | Self::Accept { app, .. }
            | Self::Forget { app } => Some(app),
        }
    }

    /// Returns the release that it names.
    #[must_use]
    pub fn release(&self) -> Option<&Commit> {
        match self {
            Self::Create { release, .. }
            | Self::Try { release, .. }
            | Self::Reject { release, .. }
            | Self::Accept { release, .. } => Some(release),
            Self::Pull { .. }
            | Self::MeasureImage { .. }
            | Self::CreateNetwork { .. }
            | Self::Reconnect { .. }
            | Self::Start { .. }
            | Self::Stop { .. }
            | Self::Fence { .. }
            | Self::Kill { .. }
            | Self::RemoveByForce { .. }
            | Self::Park { .. }
            | Self::Heal { .. }
            | Self::Unlock { .. }
            | Self::Remove { .. }
            | Self::RemoveNetwork { .. }
            | Self::RemoveImage { .. }
            | Self::Forget { .. } => None,
        }
    }

    /// Returns the existing container that it changes.
    #[must_use]
    pub fn container(&self) -> Option<&ContainerId> {
        match self {
            Self::Reconnect { container, .. }
            | Self::Start { container, .. }
            | Self::Stop { container, .. }
            | Self::Fence { container, .. }
            | Self::Kill { container, .. }
            | Self::RemoveByForce { container, .. }
            | Self::Park { container, .. }
            | Self::Remove { container, .. } => Some(container),
            Self::Pull { .. }
            | Self::MeasureImage { .. }
            | Self::CreateNetwork { .. }
            | Self::Create { .. }
            | Self::Heal { .. }
            | Self::Unlock { .. }
            | Self::RemoveNetwork { .. }
            | Self::RemoveImage { .. }
            | Self::Try { .. }
            | Self::Reject { .. }
            | Self::Accept { .. }
            | Self::Forget { .. } => None,
        }
    }

    /// Returns the stable name of the kind of step, the field `step` of the journal.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Pull { .. } => "pull",
            Self::MeasureImage { .. } => "weigh",
            Self::Kill { .. } => "kill",
            Self::RemoveByForce { .. } => "remove-by-force",
            Self::Park { .. } => "park",
            Self::Heal { .. } => "heal",
            Self::Unlock { .. } => "unlock",
            Self::CreateNetwork { .. } => "create-network",
            Self::Create { .. } => "create",
            Self::Reconnect { .. } => "reconnect",
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Fence { .. } => "fence",
            Self::Remove { .. } => "remove",
            Self::RemoveNetwork { .. } => "remove-network",
            Self::RemoveImage { .. } => "remove-image",
            Self::Try { .. } => "try",
            Self::Reject { .. } => "reject",
            Self::Accept { .. } => "commit",
            Self::Forget { .. } => "forget",
        }
    }
}

impl Step {
    /// The step as a line for people, with the name of its app in place of the uuid, if that is known.
    #[must_use]
    pub fn for_people(&self, app_name: Option<&str>) -> String {
        let line = self.to_string();
        match (self.app(), app_name) {
            (Some(app), Some(name)) => line.replace(app.as_str(), name),
            _ => line,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = self.verb();
        match self {
            Self::Pull { image } | Self::MeasureImage { image } | Self::RemoveImage { image } => {
                write!(f, "{verb} {image}")
            }
            Self::CreateNetwork { network, .. } | Self::RemoveNetwork { network, .. } => {
                write!(f, "{verb} {network}")
            }
            Self::Create { service, release, .. } => write!(f, "{verb} {service}@{release}"),
            Self::Reconnect { service, container, .. }
            | Self::Start { service, container, .. }
            | Self::Stop { service, container, .. }
            | Self::Fence { service, container, .. }
            | Self::Kill { service, container, .. }
            | Self::RemoveByForce { service, container, .. }
            | Self::Park { service, container, .. }
            | Self::Remove { service, container, .. } => {
                let id = container.as_str();
                write!(f, "{verb} {service} {}", id.get(..12).unwrap_or(id))
            }
            Self::Try { release, .. } | Self::Accept { release, .. } => write!(f, "{verb} {release}"),
            Self::Reject { release, why, .. } => write!(f, "{verb} {release}: {why}"),
            Self::Heal { service, .. } => write!(f, "{verb} {service}"),
            Self::Forget { app } | Self::Unlock { app } => write!(f, "{verb} {app}"),
        }
    }
}

/// The outcome of a step. A failed step is an answer, not an `Err`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// May succeed later, not before `after` if the other side named a time.
    Retry {
        after: Option<Duration>,
        why: String,
    },
    /// Another attempt cannot succeed soon, e.g. the image does not exist.
    Failed {
        why: String,
    },
}

/// A step that failed the last time. It may wait for its next attempt, be due already, or never be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedStep {
    /// How often it failed in a row.
    pub attempts: u32,
    pub why: String,
    /// The time until the next attempt, from the moment of planning; `None`: there is none before the target changes or an
    /// operator orders one.
    pub remaining: Option<Duration>,
}

impl FailedStep {
    /// Returns `true` if the step may be tried again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.remaining.is_some_and(|remaining| remaining.is_zero())
    }
}

/// The steps for now, and the waits.
///
/// The steps are one *stage*: those of one service run in order, and those of different services at the same time. Then
/// the device is observed again, so a plan never reaches past what is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub stage: Vec<Step>,
    pub waiting: Vec<Waiting>,
}

/// A wait: why something does not happen now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub app: Option<AppId>,
    pub service: Option<ServiceName>,
    pub reason: Reason,
    /// The evidence, for people.
    pub why: String,
    /// When it is planned again if nothing changes before; `None`: when the fact changes.
    pub retry_in: Option<Duration>,
    /// RFC 3339, UTC: when the wait began, as far as this run of the agent has seen; only shown.
    pub since: Option<String>,
}

/// The reasons of waits. Their names are stable, and shown in status and journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Images are being pulled.
    Downloading,
    /// A step failed, and is tried again later.
    Backoff,
    /// The release was refused.
    Refused,
    /// A container has not become healthy yet.
    Starting,
    /// A container is unhealthy or keeps exiting.
    Unhealthy,
    /// A service waits for one that it depends on.
    Dependency,
    /// A new release runs well, and its soak is not over.
    Trial,
    /// The wanted release was rejected.
    Rejected,
    /// An operator holds the device.
    Held,
    /// The app, or the holder of a lease, has locked updates.
    Locked,
    /// The maintenance window is closed.
    Window,
    /// There is a window, and the clock cannot be trusted.
    Clock,
    /// The engine's disk has no room for the images.
    InsufficientDisk,
    /// A host port that the release publishes is taken.
    PortInUse,
    /// An image is built for other machines.
    WrongArchitecture,
    /// The engine cannot unpack the layers of an image.
    UnsupportedImage,
    /// The host has no such device or kernel setting as the release asks for.
    HostLacks,
    /// The downloads of an image have used up its data budget, and it is not downloaded again.
    DownloadGivenUp,
    /// A successor runs at the same time as its predecessor, and has not taken over yet.
    HandOver,
    /// An operator stopped the service.
    Stopped,
    /// The engine cannot stop or remove a container.
    EngineStuck,
    /// The release does not run well, and there is no good one to roll back to.
    Degraded,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::Downloading,
        Self::Backoff,
        Self::Refused,
        Self::Starting,
        Self::Unhealthy,
        Self::Dependency,
        Self::Trial,
        Self::Rejected,
        Self::Held,
        Self::Locked,
        Self::Window,
        Self::Clock,
        Self::InsufficientDisk,
        Self::PortInUse,
        Self::WrongArchitecture,
        Self::UnsupportedImage,
        Self::HostLacks,
        Self::DownloadGivenUp,
        Self::HandOver,
        Self::Stopped,
        Self::EngineStuck,
        Self::Degraded,
    ];

    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Downloading => "downloading",
            Self::Backoff => "backoff",
            Self::Refused => "refused",
            Self::Starting => "starting",
            Self::Unhealthy => "unhealthy",
            Self::Dependency => "dependency",
            Self::Trial => "trial",
            Self::Rejected => "rejected",
            Self::Held => "held",
            Self::Locked => "locked",
            Self::Window => "window",
            Self::Clock => "clock",
            Self::InsufficientDisk => "insufficient_disk",
            Self::PortInUse => "port_in_use",
            Self::WrongArchitecture => "wrong_architecture",
            Self::UnsupportedImage => "unsupported_image",
            Self::HostLacks => "host_lacks",
            Self::DownloadGivenUp => "download_given_up",
            Self::HandOver => "hand-over",
            Self::Stopped => "stopped",
            Self::EngineStuck => "engine_stuck",
            Self::Degraded => "degraded",
        }
    }
}
