//! Computes the state of a device (`on-target`, `blocked`, …) from its target, its reports and its polls. Pure.

use std::fmt::Write as _;

use super::policy::{Device, World};
use super::rollout::Stands;
use crate::model::Reason;
use crate::wire::account::{Account, Wait};
use crate::wire::operator_api::DeviceState;
use crate::wire::report_v3::UpdateStatus;

/// When a device was last in contact with the server, by a poll or a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contact {
    /// Within one and a half poll intervals.
    Recent,
    /// The same, but its last report is about another target than it would be sent now, e.g. with other variables.
    Outdated,
    /// Earlier.
    Old,
    /// Never, as far as the server knows.
    Never,
}

impl Contact {
    pub(super) fn is_recent(self) -> bool {
        matches!(self, Self::Recent | Self::Outdated)
    }
}

/// The state of a device and the reason for it. `why` is empty if the state needs no explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) state: DeviceState,
    pub(super) why: String,
}

/// Returns the state of a device, and why it is in this state.
pub(super) fn of(world: &World, device: &Device, contact: Contact) -> Standing {
    let known = by_reports(world, device);
    let state = match contact {
        Contact::Recent => return known,
        Contact::Outdated if known.state == DeviceState::NoTarget => return known,
        Contact::Outdated => return Standing { state: DeviceState::Pending, why: String::new() },
        Contact::Never if world.reported(&device.uuid).at.is_none() => DeviceState::Silent,
        Contact::Old | Contact::Never => DeviceState::Offline,
    };
    let mut why = String::new();
    if device.key.is_of_expected() {
        "it was imported, and has not registered here yet".clone_into(&mut why);
    }
    if state == DeviceState::Offline {
        why = format!("before: {}", known.state.as_str());
        if !known.why.is_empty() {
            let _infallible = write!(why, ": {}", known.why);
        }
    }
    Standing { state, why }
}

fn by_reports(world: &World, device: &Device) -> Standing {
    let stands = |state| Standing { state, why: String::new() };
    let Some(target) = world.target_of(device) else { return stands(DeviceState::NoTarget) };
    let reported = world.reported(&device.uuid);
    let is_running = reported.running == Some(target.number);
    let update = reported.update_status.filter(|_| reported.update_of == Some(target.number));
    // New variables are tried, too, with the release that runs already.
    let runs_it = is_running
        && !matches!(
            update,
            Some(UpdateStatus::Downloading | UpdateStatus::Downloaded | UpdateStatus::ApplyingChanges)
        );
    let commit = target.commit.as_str();
    match &reported.account {
        // Its report is about another target, so it has not received this one yet.
        Some(account) if account.target.as_deref() != Some(commit) => stands(DeviceState::Pending),
        Some(account) => by_account(account, commit, runs_it)
            .map(|standing| if is_running { about_variables(standing) } else { standing })
            .unwrap_or_else(|| stands(if runs_it { DeviceState::OnTarget } else { DeviceState::Updating })),
        None if is_running => stands(DeviceState::OnTarget),
        None => stands(match update {
            Some(UpdateStatus::Rejected) => DeviceState::Rejected,
            Some(UpdateStatus::Downloading | UpdateStatus::Downloaded | UpdateStatus::ApplyingChanges) => {
                DeviceState::Updating
            }
            Some(UpdateStatus::Aborted | UpdateStatus::Done) | None => DeviceState::Pending,
        }),
    }
}

/// Returns how a device stands with what it should run, whether it is in contact or not, for a rollout.
pub(super) fn for_rollout(world: &World, device: &Device) -> (Stands, String) {
    let Standing { state, why } = by_reports(world, device);
    let stands = match state {
        DeviceState::OnTarget => Stands::OnTarget,
        DeviceState::Waiting => Stands::Waiting,
        // What it cannot fetch may be a matter of the registry.
        DeviceState::Blocked if why.starts_with("backoff") || why.starts_with("download_given_up") => {
            Stands::Fetching
        }
        DeviceState::Blocked => Stands::Blocked,
        DeviceState::Rejected => Stands::Rejected,
        DeviceState::Failing => Stands::Unhealthy,
        DeviceState::Pending
        | DeviceState::Updating
        | DeviceState::Offline
        | DeviceState::Silent
        | DeviceState::NoTarget => Stands::Updating,
    };
    (stands, why)
}

/// Adds to a rejection that it is one of variables: the release is the one that runs.
fn about_variables(Standing { state, why }: Standing) -> Standing {
    let why = match state == DeviceState::Rejected {
        true => format!("the release runs, and its new variables (`cotter env`) were rejected: {why}"),
        false => why,
    };
    Standing { state, why }
}

/// Returns the state that follows from the most important wait; `None` if there is no wait. While the device does not
/// run its target yet, an unhealthy service counts as an update under way: its trial may still succeed.
fn by_account(account: &Account, target: &str, runs_it: bool) -> Option<Standing> {
    let is_on_trial = |reason: &str| !runs_it && reason == Reason::Unhealthy.as_str();
    let state = |reason: &str| if is_on_trial(reason) { DeviceState::Updating } else { state_of(reason) };
    let states = account.waiting.iter().map(|wait| (state(&wait.reason), wait));
    let (state, wait) = states.min_by_key(|(state, _)| importance(*state))?;
    Some(Standing { state, why: words(wait, target) })
}

/// Returns the state that follows from a reason to wait. An unknown reason (of a newer agent) counts as an update under
/// way.
fn state_of(reason: &str) -> DeviceState {
    // These two reasons concern the device and not an app. The planner does not have them.
    if reason == "engine" {
        return DeviceState::Blocked;
    }
    if reason == "store" {
        return DeviceState::Failing;
    }
    let Some(reason) = Reason::ALL.into_iter().find(|known| known.as_str() == reason) else {
        return DeviceState::Updating;
    };
    match reason {
        Reason::Rejected => DeviceState::Rejected,
        Reason::Unhealthy | Reason::Degraded => DeviceState::Failing,
        Reason::Backoff
        | Reason::Refused
        | Reason::InsufficientDisk
        | Reason::PortInUse
        | Reason::WrongArchitecture
        | Reason::UnsupportedImage
        | Reason::HostLacks
        | Reason::DownloadGivenUp
        | Reason::EngineStuck => DeviceState::Blocked,
        Reason::Held | Reason::Locked | Reason::Window | Reason::Clock | Reason::Stopped => {
            DeviceState::Waiting
        }
        Reason::Downloading | Reason::Starting | Reason::Dependency | Reason::Trial | Reason::HandOver => {
            DeviceState::Updating
        }
    }
}

/// Returns the rank of a state; 0 is the most important one. States that need a person come first.
fn importance(state: DeviceState) -> usize {
    let order = [DeviceState::Rejected, DeviceState::Failing, DeviceState::Blocked, DeviceState::Waiting];
    order.iter().position(|one| *one == state).unwrap_or(order.len())
}

/// Describes a wait in one line. Leaves out the release if it is the target, because that is shown next to it.
fn words(wait: &Wait, target: &str) -> String {
    let why = wait.why.strip_prefix(&format!("release {target} was rejected: ")).unwrap_or(&wait.why);
    let said = match &wait.service {
        Some(service) if why.is_empty() => service.clone(),
        Some(service) => format!("{service}: {why}"),
        None => why.to_owned(),
    };
    // The state already says these three. Any other reason is put before the text.
    match wait.reason.as_str() {
        "rejected" | "unhealthy" | "degraded" => said,
        reason if said.is_empty() => reason.to_owned(),
        reason => format!("{reason}: {said}"),
    }
}

#[cfg(test)]
#[path = "standing_tests.rs"]
pub(super) mod tests;
