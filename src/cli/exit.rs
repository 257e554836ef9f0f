//! The exit codes of all commands, and the exit code of each error.

use std::io;
use std::process::ExitCode;

use super::client::ClientError;
use super::openbalena_error::BalenaError;
use crate::api::{BindError, ClientError as AgentError};
use crate::cloud::CloudError;
use crate::config::{ConfigError as AgentConfigError, JoinError};
use crate::daemon::DaemonError;
#[cfg(feature = "server")]
use crate::fleet::{ConfigError, FleetError, RestoreError, backup::BadBackup};
use crate::registry::RegistryError;
use crate::store::StoreError;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// An unexpected error.
    Unexpected = 1,
    /// The command line, or a file that it names, is invalid.
    Usage = 2,
    /// The agent of this device does not answer, or is too busy.
    NoAgent = 3,
    /// The token, the socket or the registry does not permit it.
    NotPermitted = 4,
    /// There is no app, service, lock, release, device or fleet of this name.
    NotFound = 5,
    /// The next cycles would change something.
    Planned = 10,
    /// An operator holds the device, or updates are locked.
    Held = 11,
    /// The release cannot run here at present: a port is taken, or its images are for other machines.
    Preflight = 12,
    /// The cloud, the fleet server, or an image registry, does not answer.
    Unreachable = 20,
    /// A rule of the fleet forbids it, devices do not support it, or there is no release to roll back to.
    Refused = 21,
    /// The devices that were waited for are not done in time, and continue.
    TimedOut = 22,
    /// An image cannot be fetched.
    PullFailed = 30,
    /// The disk has no room for the images.
    NoSpace = 31,
    /// The release failed its trial. If there is an earlier one, it was rejected.
    RolledBack = 40,
    /// The release was rejected, and the one before it does not run well either.
    RollbackFailed = 41,
    /// `cotter check` found an error.
    Unwell = 50,
    /// Another process uses the folder or the socket, or they cannot be used.
    OtherInstance = 75,
    /// The settings of a daemon are wrong; starting it again does not help.
    BadConfig = 78,
}

/// A command line that can be parsed but makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// A name that nothing has.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unknown(pub(super) String);

/// Something that exists already prevents what was requested.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct InTheWay(pub(super) String);

/// A cloud does not accept a key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Denied(pub(super) String);

/// A cloud could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("{error}; {remedy}")]
pub(super) struct Unanswered {
    pub(super) error: CloudError,
    pub(super) remedy: &'static str,
}

impl Exit {
    /// Returns the exit code for an error, by the first kind in its chain of sources that has one.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(Self::of_kind).unwrap_or(Self::Unexpected)
    }

    /// Returns its name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unexpected => "unexpected",
            Self::Usage => "usage",
            Self::NoAgent => "no_agent",
            Self::NotPermitted => "not_permitted",
            Self::NotFound => "not_found",
            Self::Planned => "planned",
            Self::Held => "held",
            Self::Preflight => "preflight",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::PullFailed => "pull_failed",
            Self::NoSpace => "no_space",
            Self::RolledBack => "rolled_back",
            Self::RollbackFailed => "rollback_failed",
            Self::Unwell => "unwell",
            Self::OtherInstance => "other_instance",
            Self::BadConfig => "bad_config",
        }
    }

    fn of_kind(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if let Some(error) = error.downcast_ref::<DaemonError>() {
            return match error {
                DaemonError::Store(error) => Self::of_kind(error),
                DaemonError::Socket(error) => Self::of_kind(error),
                DaemonError::IdentityUnknown { .. } => Some(Self::OtherInstance),
                DaemonError::NotJoined | DaemonError::NoKey(_) => Some(Self::BadConfig),
                DaemonError::Tls(_)
                | DaemonError::Random(_)
                | DaemonError::TaskEnded
                | DaemonError::Signals(_) => None,
            };
        }
        if let Some(exit) = Self::of_command(error) {
            return Some(exit);
        }
        if let Some(error) = error.downcast_ref::<JoinError>() {
            return Some(Self::of_join(error));
        }
        if error.is::<AgentConfigError>() {
            return Some(Self::BadConfig);
        }
        if error.is::<BindError>() || error.downcast_ref::<StoreError>().is_some_and(StoreError::is_fatal) {
            return Some(Self::OtherInstance);
        }
        if let Some(error) = error.downcast_ref::<AgentError>() {
            return Some(Self::of_agent(error));
        }
        #[cfg(feature = "server")]
        if let Some(exit) = Self::of_server(error) {
            return Some(exit);
        }
        if let Some(error) = error.downcast_ref::<RegistryError>() {
            return Some(match error {
                RegistryError::NotFound { .. } => Self::NotFound,
                RegistryError::Denied { .. } | RegistryError::ForeignRealm { .. } => Self::NotPermitted,
                RegistryError::Unreachable { .. } => Self::Unreachable,
            });
        }
        if let Some(error) = error.downcast_ref::<BalenaError>() {
            return Some(match error {
                BalenaError::BadUrl { .. } | BalenaError::InTheClear { .. } => Self::Usage,
                BalenaError::Unreachable { .. } => Self::Unreachable,
                BalenaError::WrongToken { .. } => Self::NotPermitted,
                BalenaError::Refused { .. } => Self::Refused,
                BalenaError::NotUnderstood { .. } => Self::Unexpected,
                BalenaError::Incomplete(_) => Self::PullFailed,
            });
        }
        error.downcast_ref::<ClientError>().map(Self::of_client)
    }

    /// The code for an error of a fleet server, or of the way to it.
    fn of_client(error: &ClientError) -> Self {
        match error {
            ClientError::BadUrl { .. }
            | ClientError::NoName { .. }
            | ClientError::InTheClear { .. }
            | ClientError::NoAuthority { .. } => Self::Usage,
            ClientError::NoToken { .. } | ClientError::WrongToken { .. } => Self::NotPermitted,
            ClientError::Unreachable { .. }
            | ClientError::Away { .. }
            | ClientError::HalfWay { .. }
            | ClientError::Untrusted { .. } => Self::Unreachable,
            ClientError::NeedsTls { .. } => Self::Usage,
            ClientError::Refused { .. } => Self::NotPermitted,
            ClientError::NotUnderstood { .. } => Self::Unexpected,
            ClientError::Answer { failure, .. } => match failure.code.as_str() {
                "not_found" | "no_match" => Self::NotFound,
                "bad_request" | "ambiguous" | "too_large" => Self::Usage,
                "refused" | "unsupported" | "precondition_failed" | "shown_once" => Self::Refused,
                // The change is made; only the answer is lost.
                "done_already" => Self::Done,
                "busy" | "too_slow" | "database_lost" => Self::Unreachable,
                "forbidden" | "token_ended" | "too_many_tokens" => Self::NotPermitted,
                _ => Self::Unexpected,
            },
        }
    }

    /// The code for an error that a command makes itself.
    fn of_command(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let kinds = [
            (error.is::<Usage>(), Self::Usage),
            (error.is::<Unknown>(), Self::NotFound),
            (error.is::<Denied>(), Self::NotPermitted),
            (error.is::<Unanswered>(), Self::Unreachable),
            (error.is::<InTheWay>(), Self::Refused),
        ];
        kinds.into_iter().find(|(is_it, _)| *is_it).map(|(_, exit)| exit)
    }

    /// The code for an error of the fleet server itself.
    #[cfg(feature = "server")]
    fn of_server(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if error.is::<ConfigError>() {
            return Some(Self::BadConfig);
        }
        if error.is::<BadBackup>() {
            return Some(Self::Usage);
        }
        if let Some(error) = error.downcast_ref::<RestoreError>() {
            return Some(Self::of_restore(error));
        }
        let error = error.downcast_ref::<FleetError>()?;
        if matches!(error, FleetError::Tls(_)) {
            return Some(Self::BadConfig);
        }
        if let Some(passes) = error.database_passes() {
            return Some(if passes { Self::Unreachable } else { Self::BadConfig });
        }
        let is_taken = matches!(error, FleetError::Listen { .. });
        let is_kept = is_taken || error.is_in_use() || error.is_not_ours();
        Some(if is_kept { Self::OtherInstance } else { Self::Unexpected })
    }

    #[cfg(feature = "server")]
    fn of_restore(error: &RestoreError) -> Self {
        match error {
            _ if error.is_not_empty() => Self::Refused,
            _ if error.is_in_use() => Self::OtherInstance,
            RestoreError::Folder(_) => Self::OtherInstance,
            RestoreError::NoRecords { .. } => Self::NotFound,
            _ if error.database_passes() == Some(true) => Self::Unreachable,
            RestoreError::Store(_) | RestoreError::NotEmpty { .. } | RestoreError::Io { .. } => {
                Self::Unexpected
            }
        }
    }

    fn of_join(error: &JoinError) -> Self {
        match error {
            JoinError::Value(_) => Self::Usage,
            JoinError::Against { .. } | JoinError::Edited { .. } | JoinError::Raced { .. } => Self::Refused,
            JoinError::Unreadable { why, .. } | JoinError::Unwritable { why, .. }
                if why.kind() == io::ErrorKind::PermissionDenied =>
            {
                Self::NotPermitted
            }
            JoinError::Unreadable { .. } | JoinError::Unwritable { .. } => Self::Unexpected,
        }
    }

    fn of_agent(error: &AgentError) -> Self {
        match error {
            AgentError::NoAgent { .. } | AgentError::NoAnswer { .. } | AgentError::Busy => Self::NoAgent,
            AgentError::NotPermitted { .. } => Self::NotPermitted,
            AgentError::NotUnderstood { .. } => Self::Unexpected,
            AgentError::NotFollowed { code, .. } => match code.as_str() {
                "refused" => Self::Refused,
                "held" => Self::Held,
                "not_found" => Self::NotFound,
                "bad_request" => Self::Usage,
                "stopping" | "busy" => Self::NoAgent,
                _ => Self::Unexpected,
            },
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Returns every code. A new one does not compile until it is added here.
    fn all() -> BTreeSet<u8> {
        let next = |exit: Exit| match exit {
            Exit::Done => Some(Exit::Unexpected),
            Exit::Unexpected => Some(Exit::Usage),
            Exit::Usage => Some(Exit::NoAgent),
            Exit::NoAgent => Some(Exit::NotPermitted),
            Exit::NotPermitted => Some(Exit::NotFound),
            Exit::NotFound => Some(Exit::Planned),
            Exit::Planned => Some(Exit::Held),
            Exit::Held => Some(Exit::Preflight),
            Exit::Preflight => Some(Exit::Unreachable),
            Exit::Unreachable => Some(Exit::Refused),
            Exit::Refused => Some(Exit::TimedOut),
            Exit::TimedOut => Some(Exit::PullFailed),
            Exit::PullFailed => Some(Exit::NoSpace),
            Exit::NoSpace => Some(Exit::RolledBack),
            Exit::RolledBack => Some(Exit::RollbackFailed),
            Exit::RollbackFailed => Some(Exit::Unwell),
            Exit::Unwell => Some(Exit::OtherInstance),
            Exit::OtherInstance => Some(Exit::BadConfig),
            Exit::BadConfig => None,
        };
        std::iter::successors(Some(Exit::Done), |exit| next(*exit)).map(|exit| exit as u8).collect()
    }

    #[test]
    fn every_code_has_its_row_in_the_documents_and_no_other() {
        let text = include_str!("../../docs/operations.md");
        let section = text.split("\n## ").find(|section| section.starts_with("Exit codes\n")).unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
        let codes: Vec<u8> = rows.filter_map(|row| row.split(' ').next()?.parse().ok()).collect();
        assert!(codes.is_sorted(), "{codes:?}");
        assert_eq!(codes.iter().copied().collect::<BTreeSet<_>>(), all());
    }
}
