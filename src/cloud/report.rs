//! Reports to the cloud what runs and what the device is. A report has what the cloud may not have yet, and is sent only
//! after a change and not too often.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::model::{CloudReport, DeviceUuid, Hardware, Load, LocalApps, Report};
use crate::wire::account::{Account, Moving};
use crate::wire::report;
use crate::wire::report_v3::DeviceReport;

use super::answers::Taken;
use super::client::Client;
use super::error::CloudError;
use super::known::{Repeats, SentReports};
use super::retry::Retry;

/// Reads this device.
pub type Reader<T> = Box<dyn FnMut() -> T + Send + Sync>;

/// The task that reports.
pub struct Reporter {
    pub client: Client,
    pub uuid: DeviceUuid,
    pub device_key: String,
    pub report: watch::Receiver<Report>,
    /// Shows whether the cloud has the newest report.
    pub cloud: watch::Sender<CloudReport>,
    /// What the device is, and how loaded it is. Only a balena API gets them.
    pub hardware: Reader<Hardware>,
    pub load: Reader<Load>,
    pub repeats: Repeats,
    /// Shortest time between two reports.
    pub gap: Duration,
    /// Longest wait after failures.
    pub longest_wait: Duration,
    /// How many of the last lines of a failed service are reported to our own fleet server.
    pub lines: usize,
    /// Where other machines reach the metrics of this device; asked for each report, because addresses change.
    pub metrics: Box<dyn Fn() -> Option<SocketAddr> + Send + Sync>,
    /// Whether the cloud is our own fleet server, which takes accounts besides the protocol's fields. `None`: it has not
    /// answered yet.
    pub takes_accounts: Option<bool>,
    /// The names that apps of this cloud have on this device, if it was moved here.
    pub apps: LocalApps,
}

impl Reporter {
    /// Sends the newest report after each change, at most once per `gap`, and with growing delays after failures. Repeats
    /// what a balena API may not have stored. When `stop` is cancelled, tries to send a last report, for at most `gap`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut retry = Retry::up_to(self.longest_wait);
        let mut reports = SentReports::default();
        let mut not_before = Instant::now();
        self.report.mark_changed();
        loop {
            let is_open = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = self.report.changed() => {
                    self.cloud.send_modify(|cloud| cloud.is_reported = false);
                    changed.is_ok()
                }
                // Not earlier, so that a change in the meantime is noticed above.
                () = until(reports.due().map(|due| due.max(not_before))) => true,
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
                sent = self.send_changes(&mut reports) => sent,
            };
            not_before = Instant::now() + self.outcome(sent, &mut retry);
        }
        // The answer to a first report may say that the cloud takes accounts; then this one has changed. A failure of the
        // last report changes nothing.
        let gap = self.gap;
        let last = async {
            self.send_changes(&mut reports).await?;
            self.send_changes(&mut reports).await
        };
        let _ = tokio::time::timeout(gap, last).await;
    }

    /// Publishes how a report went, and returns the time until the next one.
    fn outcome(&mut self, sent: Result<(), CloudError>, retry: &mut Retry) -> Duration {
        match sent {
            Ok(()) => {
                retry.success();
                let is_newest = self.report.has_changed().is_ok_and(|has_changed| !has_changed);
                self.cloud.send_if_modified(|cloud| {
                    let is_news = cloud.is_reported != is_newest || cloud.report_error.is_some();
                    (cloud.is_reported, cloud.report_error) = (is_newest, None);
                    is_news
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
        }
    }

    async fn sent(&self, report: &DeviceReport) -> Result<Taken, CloudError> {
        let report = named_as_there(report, &self.apps);
        self.client.report(&self.uuid, &self.device_key, &report).await
    }

    /// Sends what the cloud may not have. A 401 may mean only that a release in the report was deleted there, so the report
    /// is then sent once more with only the target release.
    async fn send_changes(&mut self, reports: &mut SentReports) -> Result<(), CloudError> {
        let (current, now) = (self.report.borrow_and_update().clone(), Instant::now());
        if !current.has_target {
            return Ok(());
        }
        let mut full = report::render(&current);
        let is_sampled = self.takes_accounts == Some(false) && reports.is_sample_due(now);
        full.device = self.device(&current, is_sampled);
        full.account = (self.takes_accounts == Some(true)).then(|| {
            let metrics = (self.metrics)().map(|address| address.to_string());
            let moving = self.cloud.borrow().moving.as_ref().map(Moving::from);
            Account { metrics, moving, ..Account::new(&current, self.lines) }.bounded()
        });
        let repeats = Some(&self.repeats).filter(|_| self.takes_accounts == Some(false));
        let news = reports.next_report(&full, now, repeats);
        if news == DeviceReport::default() {
            if is_sampled {
                reports.sampled(now, &self.repeats);
            }
            return Ok(());
        }
        debug!("reporting");
        let (taken, sent) = match self.sent(&news).await {
            Err(denied @ CloudError::Denied { .. }) => {
                let reduced = report::reduce(&news, &current);
                if reduced == news {
                    return Err(denied);
                }
                (self.sent(&reduced).await?, reduced)
            }
            other => (other?, news),
        };
        let repeats = (!taken.takes_accounts).then_some(&self.repeats);
        reports.took(full, &sent, now, repeats);
        // A sample that the cloud did not take is taken again with the next attempt.
        if is_sampled {
            reports.sampled(now, &self.repeats);
        }
        // The first answer says whether the cloud takes accounts. If it does, it gets one now.
        let took_accounts = self.takes_accounts.replace(taken.takes_accounts) == Some(true);
        if taken.takes_accounts != took_accounts {
            self.report.mark_changed();
        }
        Ok(())
    }

    /// Reads what the device is, for a balena API, and how loaded it is, unless its user does not want that.
    fn device(&mut self, current: &Report, is_sampled: bool) -> BTreeMap<String, Value> {
        if self.takes_accounts != Some(false) {
            return BTreeMap::new();
        }
        let mut fields = report::hardware(&(self.hardware)(), env!("CARGO_PKG_VERSION"));
        if current.delivered.as_ref().is_some_and(|delivered| !delivered.target.has_metrics) {
            fields.extend(report::load(None));
        } else if is_sampled {
            fields.extend(report::load(Some(&(self.load)())));
        }
        fields
    }
}

/// Waits until this time; for ever if there is none.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
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

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
