//! Reports to the cloud what runs. A report is complete, and is sent only after a change and not too often.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::model::{CloudReport, DeviceUuid, LocalApps, Report};
use crate::wire::account::{Account, Moving};
use crate::wire::report::{self, DeviceFacts};
use crate::wire::report_v3::DeviceReport;

use super::answers::Taken;
use super::client::Client;
use super::error::CloudError;
use super::retry::Retry;

/// The task that reports.
pub struct Reporter {
    pub client: Client,
    pub uuid: DeviceUuid,
    pub device_key: String,
    pub report: watch::Receiver<Report>,
    /// Shows whether the cloud has the newest report.
    pub cloud: watch::Sender<CloudReport>,
    pub facts: DeviceFacts,
    /// Shortest time between two reports.
    pub gap: Duration,
    /// Longest wait after failures.
    pub longest_wait: Duration,
    /// How many of the last lines of a failed service are reported to our own fleet server.
    pub lines: usize,
    /// Where other machines reach the metrics of this device; asked for each report, because addresses change.
    pub metrics: Box<dyn Fn() -> Option<SocketAddr> + Send + Sync>,
    /// Whether the cloud is our own fleet server, which takes accounts besides the protocol's fields.
    pub takes_accounts: bool,
    /// The names that apps of this cloud have on this device, if it was moved here.
    pub apps: LocalApps,
}

impl Reporter {
    /// Sends the newest report after each change, at most once per `gap`, and with growing delays after failures. When
    /// `stop` is cancelled, tries to send a last report, for at most `gap`.
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
            self.cloud.send_modify(|cloud| cloud.is_reported = false);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(not_before) => {}
            }
            let sent = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                sent = self.send_changes(&mut acknowledged) => sent,
            };
            let wait = match sent {
                Ok(()) => {
                    retry.success();
                    let is_newest = self.report.has_changed().is_ok_and(|has_changed| !has_changed);
                    self.cloud.send_modify(|cloud| {
                        (cloud.is_reported, cloud.report_error) = (is_newest, None);
                    });
                    self.gap
                }
                Err(error) => {
                    let wait = retry.failure(error.retry_after()).max(self.gap);
                    if retry.failures == 1 {
                        warn!(error = %error, retry_after_s = wait.as_secs(), "report failed");
                    }
                    self.cloud.send_modify(|cloud| cloud.report_error = Some(error.to_string()));
                    self.report.mark_changed();
                    wait
                }
            };
            not_before = Instant::now() + wait;
        }
        // The answer to a first report may say that the cloud takes accounts; then this one has changed. A failure of the
        // last report changes nothing.
        let gap = self.gap;
        let last = async {
            self.send_changes(&mut acknowledged).await?;
            self.send_changes(&mut acknowledged).await
        };
        let _ = tokio::time::timeout(gap, last).await;
    }

    async fn sent(&self, report: &DeviceReport) -> Result<Taken, CloudError> {
        let report = named_as_there(report, &self.apps);
        self.client.report(&self.uuid, &self.device_key, &report).await
    }

    /// Sends the fields that differ from those that the cloud has. A 401 may mean only that a release in the report was
    /// deleted there, so the report is then sent once more with only the target release.
    async fn send_changes(&mut self, acknowledged: &mut DeviceReport) -> Result<(), CloudError> {
        let current = self.report.borrow_and_update().clone();
        if !current.has_target {
            return Ok(());
        }
        let mut full = report::render(&current, &self.facts);
        full.account = self.takes_accounts.then(|| {
            let metrics = (self.metrics)().map(|address| address.to_string());
            let moving = self.cloud.borrow().moving.as_ref().map(Moving::from);
            Account { metrics, moving, ..Account::new(&current, self.lines) }.bounded()
        });
        let changes = difference(&full, acknowledged);
        if changes == DeviceReport::default() {
            return Ok(());
        }
        debug!("reporting");
        let taken = match self.sent(&changes).await {
            Err(denied @ CloudError::Denied { .. }) => {
                let reduced = report::reduce(&changes, &current);
                if reduced == changes {
                    return Err(denied);
                }
                self.sent(&reduced).await?
            }
            other => other?,
        };
        *acknowledged = full;
        // The first answer says whether the cloud takes accounts. If it does, it gets one now.
        if taken.takes_accounts != std::mem::replace(&mut self.takes_accounts, taken.takes_accounts) {
            self.report.mark_changed();
        }
        Ok(())
    }
}

/// Gives apps the names that they have in the cloud.
fn named_as_there(report: &DeviceReport, names: &LocalApps) -> DeviceReport {
    let there =
        |local: &str| names.iter().find(|(_, app)| app.id.as_str() == local).map(|(id, _)| id.to_string());
    let apps = report.apps.as_ref().map(|apps| {
        let named = apps.iter().map(|(id, app)| (there(id).unwrap_or_else(|| id.clone()), app.clone()));
        named.collect()
    });
    DeviceReport { apps, ..report.clone() }
}

/// Returns the fields that changed. `apps` is complete if anything in it changed, because the cloud removes an app,
/// release or image that a present `apps` does not have.
fn difference(now: &DeviceReport, before: &DeviceReport) -> DeviceReport {
    fn changed<T: Clone + PartialEq>(now: &Option<T>, before: &Option<T>) -> Option<T> {
        now.as_ref().filter(|_| now != before).cloned()
    }
    DeviceReport {
        status: changed(&now.status, &before.status),
        os_version: changed(&now.os_version, &before.os_version),
        supervisor_version: changed(&now.supervisor_version, &before.supervisor_version),
        ip_address: changed(&now.ip_address, &before.ip_address),
        mac_address: changed(&now.mac_address, &before.mac_address),
        apps: changed(&now.apps, &before.apps),
        account: changed(&now.account, &before.account),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn only_changes_are_sent_and_apps_completely() {
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
