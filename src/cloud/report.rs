//! Telling the cloud what runs: complete, only when it changed, and not too often.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::model::{DeviceUuid, Report};
use crate::wire::report::{self, DeviceFacts};
use crate::wire::report_v3::DeviceReport;

use super::client::{Client, CloudError};
use super::retry::Retry;

/// The task that reports.
pub struct Reporter {
    pub client: Client,
    pub uuid: DeviceUuid,
    pub device_key: String,
    pub report: watch::Receiver<Report>,
    pub facts: DeviceFacts,
    /// Shortest time between two reports.
    pub gap: Duration,
    /// Longest wait after failures.
    pub longest_wait: Duration,
}

impl Reporter {
    /// Sends the report whenever it changed, at most once in `gap`; after failures with growing
    /// waits, always the newest. On `stop` one last report is tried, for `gap` at most.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut retry = Retry::up_to(self.longest_wait);
        let mut acknowledged = DeviceReport::default();
        let mut not_before = Instant::now();
        self.report.mark_changed();
        loop {
            let is_open = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = self.report.changed() => changed.is_ok(),
            };
            if !is_open {
                return;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(not_before) => {}
            }
            let sent = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                sent = self.send_news(&mut acknowledged) => sent,
            };
            let wait = match sent {
                Ok(()) => {
                    retry.success();
                    self.gap
                }
                Err(error) => {
                    let wait = retry.failure(error.retry_after()).max(self.gap);
                    if retry.failures == 1 {
                        warn!(error = %error, retry_after_s = wait.as_secs(), "report failed");
                    }
                    self.report.mark_changed();
                    wait
                }
            };
            not_before = Instant::now() + wait;
        }
        // Nobody is left to tell if this fails, too.
        let _ = tokio::time::timeout(self.gap, self.send_news(&mut acknowledged)).await;
    }

    /// Sends what differs from what the cloud has. A 401 may only mean that a release we name was
    /// deleted there: the report is then tried once more with the target release alone.
    async fn send_news(&mut self, acknowledged: &mut DeviceReport) -> Result<(), CloudError> {
        let current = self.report.borrow_and_update().clone();
        if !current.has_target {
            return Ok(());
        }
        let whole = report::render(&current, &self.facts);
        let news = difference(&whole, acknowledged);
        if news == DeviceReport::default() {
            return Ok(());
        }
        debug!("reporting");
        match self.client.report(&self.uuid, &self.device_key, &news).await {
            Err(denied @ CloudError::Denied { .. }) => {
                let reduced = report::reduce(&news, &current);
                if reduced == news {
                    return Err(denied);
                }
                self.client.report(&self.uuid, &self.device_key, &reduced).await?;
            }
            other => other?,
        }
        *acknowledged = whole;
        Ok(())
    }
}

/// The fields that changed; `apps` whole if anything in it did, because an app, release or image
/// that a present `apps` leaves out is taken for gone.
fn difference(now: &DeviceReport, before: &DeviceReport) -> DeviceReport {
    fn news<T: Clone + PartialEq>(now: &Option<T>, before: &Option<T>) -> Option<T> {
        now.as_ref().filter(|_| now != before).cloned()
    }
    DeviceReport {
        status: news(&now.status, &before.status),
        os_version: news(&now.os_version, &before.os_version),
        supervisor_version: news(&now.supervisor_version, &before.supervisor_version),
        ip_address: news(&now.ip_address, &before.ip_address),
        mac_address: news(&now.mac_address, &before.mac_address),
        apps: news(&now.apps, &before.apps),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn only_what_changed_is_sent_and_apps_whole() {
        let text = |t: &str| Some(t.to_owned());
        let before = DeviceReport { status: text("Idle"), ip_address: text("a"), ..DeviceReport::default() };
        let now = DeviceReport { apps: Some(BTreeMap::new()), ip_address: text("b"), ..before.clone() };
        let news = difference(&now, &before);
        assert_eq!(
            news,
            DeviceReport { ip_address: text("b"), apps: Some(BTreeMap::new()), ..DeviceReport::default() }
        );
        assert_eq!(difference(&now, &now), DeviceReport::default());
    }
}
