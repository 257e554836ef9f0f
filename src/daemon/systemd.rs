//! What systemd is told while the agent runs.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::host;
use crate::model::Report;

/// Tells systemd's watchdog that the task that reconciles is alive. It runs in that very task, so a
/// reconciler that blocks is silent; one that only waits is bounded by the deadlines of its calls.
pub(super) async fn beat() {
    let Some(limit) = host::watchdog() else { return std::future::pending().await };
    loop {
        host::notify_watchdog();
        tokio::time::sleep(limit / 3).await;
    }
}

/// Keeps systemd's one line about the service current.
pub(super) async fn publish_status(mut report: watch::Receiver<Report>, stop: CancellationToken) {
    loop {
        let status = summary(&report.borrow_and_update());
        host::notify_status(&status);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = report.changed() => if changed.is_err() { return },
        }
    }
}

/// The device in a line.
fn summary(report: &Report) -> String {
    if let Some(error) = &report.engine_error {
        return error.clone();
    }
    if let Some(waiting) = report.waiting.first() {
        return format!("{}: {}", waiting.reason.as_str(), waiting.why);
    }
    let running: Vec<_> = report
        .apps
        .values()
        .map(|app| format!("{} runs {}", app.name, app.current.as_ref().map_or("no release", |c| c.as_str())))
        .collect();
    if running.is_empty() { "no target yet".to_owned() } else { running.join(", ") }
}
