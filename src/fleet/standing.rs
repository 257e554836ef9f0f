//! Decides where a device stands between what it should run and what it runs, from its reports and polls. Pure.

use std::fmt::Write as _;

use super::policy::{Device, World};
use crate::model::Reason;
use crate::wire::account::{Account, Wait};
use crate::wire::operator_api::DeviceState;
use crate::wire::report_v3::UpdateStatus;

/// What the server knows of a device's polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contact {
    /// It polled within one and a half intervals.
    Recent,
    /// It polled before.
    Old,
    /// It never polled, as far as is known.
    Never,
}

/// Where a device stands, and why; `why` is empty where the state says all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) state: DeviceState,
    pub(super) why: String,
}

/// Returns where a device stands.
pub(super) fn of(world: &World, device: &Device, contact: Contact) -> Standing {
    let known = by_reports(world, device);
    let state = match contact {
        Contact::Recent => return known,
        Contact::Never if device.reported.at.is_none() => DeviceState::Silent,
        Contact::Old | Contact::Never => DeviceState::Offline,
    };
    let mut why = String::new();
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
    let reported = &device.reported;
    let runs_it = reported.running == Some(target.number);
    let commit = target.commit.as_str();
    match &reported.account {
        // What it waits for concerns another target: it has not received this one yet.
        Some(account) if account.target.as_deref() != Some(commit) => stands(DeviceState::Pending),
        Some(account) => by_account(account, commit, runs_it)
            .unwrap_or_else(|| stands(if runs_it { DeviceState::OnTarget } else { DeviceState::Updating })),
        None if runs_it => stands(DeviceState::OnTarget),
        None => stands(match reported.update_status.filter(|_| reported.update_of == Some(target.number)) {
            Some(UpdateStatus::Rejected) => DeviceState::Rejected,
            Some(UpdateStatus::Downloading | UpdateStatus::Downloaded | UpdateStatus::ApplyingChanges) => {
                DeviceState::Updating
            }
            Some(UpdateStatus::Aborted | UpdateStatus::Done) | None => DeviceState::Pending,
        }),
    }
}

/// Returns the state that the most important wait means; `None` without any. A service that is unhealthy before its
/// release is accepted does not mean a failure yet: the trial goes on until it is accepted or rejected.
fn by_account(account: &Account, target: &str, runs_it: bool) -> Option<Standing> {
    let is_on_trial = |reason: &str| !runs_it && reason == Reason::Unhealthy.as_str();
    let state = |reason: &str| if is_on_trial(reason) { DeviceState::Updating } else { state_of(reason) };
    let states = account.waiting.iter().map(|wait| (state(&wait.reason), wait));
    let (state, wait) = states.min_by_key(|(state, _)| importance(*state))?;
    Some(Standing { state, why: words(wait, target) })
}

/// Returns the state that a reason to wait means. An unknown one, of a newer agent, counts as an update under way.
fn state_of(reason: &str) -> DeviceState {
    // These two concern the whole device, and are no reasons of the planner.
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

/// The order in which waits count: what needs a person comes first.
fn importance(state: DeviceState) -> usize {
    let order = [DeviceState::Rejected, DeviceState::Failing, DeviceState::Blocked, DeviceState::Waiting];
    order.iter().position(|one| *one == state).unwrap_or(order.len())
}

/// Says a wait in one line. The release is left out where it is the target, which stands beside it.
fn words(wait: &Wait, target: &str) -> String {
    let why = wait.why.strip_prefix(&format!("release {target} was rejected: ")).unwrap_or(&wait.why);
    let said = match &wait.service {
        Some(service) if why.is_empty() => service.clone(),
        Some(service) => format!("{service}: {why}"),
        None => why.to_owned(),
    };
    // The word of the reason says what a state leaves open.
    match wait.reason.as_str() {
        "rejected" | "unhealthy" | "degraded" => said,
        reason if said.is_empty() => reason.to_owned(),
        reason => format!("{reason}: {said}"),
    }
}

#[cfg(test)]
#[path = "standing_tests.rs"]
pub(super) mod tests;
