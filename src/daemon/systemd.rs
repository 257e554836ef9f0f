//! Notifies systemd while the agent runs: watchdog and status line.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::host;
use crate::model::Report;

/// Notifies systemd's watchdog that the reconciler is alive. It runs in the reconciler's task, so a reconciler that blocks
/// sends no notification. The deadlines of its calls bound a reconciler that only waits.
pub(super) async fn beat() {
    let Some(limit) = host::watchdog() else { return std::future::pending().await };
    loop {
        host::notify_watchdog();
        tokio::time::sleep(limit / 3).await;
    }
}

/// Keeps systemd's status line up to date.
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

/// Describes the device in one line.
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
