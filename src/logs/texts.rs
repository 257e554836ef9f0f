//! The agent's own messages in the log of a device, in balena's words (docs/dev/protocol.md, "Log streaming"). Pure.

use crate::model::{
    AppId, Event, EventKind, LogMessage, Reason, Report, ServiceName, Step, TargetApp, Waiting,
};

/// Returns the message that an event gives, if any. `now_ms` is its time if it has none that can be read.
pub(super) fn of_event(event: &Event, report: &Report, now_ms: u64) -> Option<LogMessage> {
    let (text, is_stderr) = match &event.kind {
        EventKind::Step { step, failure } => {
            let text = of_step(step, failure.is_some(), report)?;
            match failure {
                Some(why) => (format!("{text} due to '{why}'"), true),
                None => (text, false),
            }
        }
        EventKind::Waiting { waiting, is_over: false } if waiting.reason == Reason::Locked => {
            (locked(waiting), true)
        }
        EventKind::Waiting { .. }
        | EventKind::Target { .. }
        | EventKind::Order { .. }
        | EventKind::Engine { .. }
        | EventKind::Store { .. } => return None,
    };
    let at = event.at.parse::<jiff::Timestamp>().ok();
    let at_ms = at.and_then(|at| u64::try_from(at.as_millisecond()).ok()).unwrap_or(now_ms);
    Some(own(text, at_ms, is_stderr))
}

/// Makes a message of the agent.
pub(super) fn own(text: String, at_ms: u64, is_stderr: bool) -> LogMessage {
    LogMessage { text, at_ms, service: None, is_stderr }
}

/// The message about messages that were dropped.
pub(super) fn suppressed(count: u64) -> String {
    format!("Suppressed {count} message(s) due to high load")
}

/// The message about messages that were sent shortly before a connection broke.
pub(super) fn uncertain(count: u64) -> String {
    format!("Up to {count} message(s) may be missing: the connection to the cloud broke")
}

/// The message about lines of a service that were skipped unread.
pub(super) fn skipped(service: &ServiceName) -> String {
    format!(
        "Suppressed messages of service '{service}' due to high load; `cotter logs` on the device has them"
    )
}

fn of_step(step: &Step, is_failed: bool, report: &Report) -> Option<String> {
    let (done, failed) = match step {
        Step::Pull { .. } => ("Downloaded image", "Failed to download image"),
        Step::RemoveImage { .. } => ("Deleted image", "Failed to delete image"),
        Step::Create { .. } => ("Installed service", "Failed to install service"),
        Step::Start { .. } => ("Started service", "Failed to start service"),
        Step::Stop { .. } | Step::Kill { .. } => ("Killed service", "Failed to kill service"),
        Step::Heal { .. } => ("Restarting service", "Failed to restart service"),
        Step::CreateNetwork { .. } => ("Creating network", "Failed to create network"),
        Step::RemoveNetwork { .. } => ("Removing network", "Failed to remove network"),
        Step::Try { .. } => ("Trying release", "Failed to try release"),
        Step::Accept { .. } => ("Accepted release", "Failed to accept release"),
        Step::Reject { .. } => ("Rejected release", "Failed to reject release"),
        Step::MeasureImage { .. }
        | Step::Reconnect { .. }
        | Step::Fence { .. }
        | Step::RemoveByForce { .. }
        | Step::Park { .. }
        | Step::Unlock { .. }
        | Step::Remove { .. }
        | Step::Forget { .. } => return None,
    };
    let verb = if is_failed { failed } else { done };
    let why = if let Step::Reject { why, .. } = step { format!(" due to '{why}'") } else { String::new() };
    Some(format!("{verb} '{}'{why}", name(step, report)?))
}

/// Returns what a step is about.
fn name(step: &Step, report: &Report) -> Option<String> {
    if let Step::Pull { image } | Step::RemoveImage { image } = step {
        return Some(image.to_string());
    }
    if let Step::CreateNetwork { network, .. } | Step::RemoveNetwork { network, .. } = step {
        return Some(network.to_string());
    }
    match (step.service(), step.release()) {
        (Some((app, service)), _) => Some(with_image(app, service, report)),
        (None, Some(release)) => Some(release.to_string()),
        (None, None) => None,
    }
}

/// Returns a service with its image, if that is known.
fn with_image(app: &AppId, service: &ServiceName, report: &Report) -> String {
    let target = report.delivered.as_ref().map(|delivered| &delivered.target);
    let release = target.and_then(|target| target.apps.get(app)).and_then(TargetApp::release);
    match release.and_then(|release| release.services.get(service)) {
        Some(spec) => format!("{service} {}", spec.image),
        None => service.to_string(),
    }
}

fn locked(waiting: &Waiting) -> String {
    match waiting.retry_in {
        Some(wait) => format!("Updates are locked, retrying in {} seconds", wait.as_secs()),
        None => "Updates are locked, retrying when the lock is gone".to_owned(),
    }
}
