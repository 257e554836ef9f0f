//! Remembers what the cloud knows of this device from the reports that it accepted, and computes what the next report must
//! contain. Reads no clock.
//!
//! A balena API may accept a report and not store it (docs/dev/protocol.md, "Reports: rules for apps"). For five minutes it
//! remembers the last status that it wrote for each image, and skips the same status. An image that a report does not name
//! is marked as deleted. If the next report names it again with the same status, the API skips that, and the image stays
//! deleted. It writes progress once in 30 s. So, for such an API,
//!
//! - an image that the last report did not name is reported with a progress of 100, which is always written;
//! - all apps are reported again after these five minutes, if no other report about them was sent meanwhile;
//! - once a day everything is reported, for a device that was moved to another fleet and back, or an API that was restored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::wire::report;
use crate::wire::report_v3::DeviceReport;

/// After which times reports to a balena API are repeated, and how often the device is examined for them.
#[derive(Debug, Clone, Copy)]
pub struct Repeats {
    /// All apps: longer than the memory of the API.
    pub apps: Duration,
    /// Everything.
    pub all: Duration,
    /// Time between two samples of what the device is and how loaded it is.
    pub sample: Duration,
}

impl Default for Repeats {
    /// The API remembers for 300 s by default. balena's supervisor reports metrics at intervals of 300 s or more.
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self { apps: Duration::from_secs(330), all: minutes(24 * 60), sample: minutes(5) }
    }
}

/// What the cloud knows from accepted reports, and when parts of it are sent again.
#[derive(Debug, Default)]
pub(super) struct SentReports {
    report: DeviceReport,
    /// The images in the last `apps` that the cloud accepted.
    images: BTreeSet<String>,
    /// When `apps` is due again.
    apps_due: Option<Instant>,
    /// When everything is due again.
    all_due: Option<Instant>,
    /// When the device is examined again.
    sample_due: Option<Instant>,
}

impl SentReports {
    /// Returns when a repeat or a sample is due, even if nothing changes until then. For our own fleet server there is none,
    /// because it stores each report that it accepts and gets no samples.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.apps_due, self.all_due, self.sample_due].into_iter().flatten().min()
    }

    /// Returns whether the device is to be sampled now.
    pub(super) fn is_sample_due(&self, now: Instant) -> bool {
        self.sample_due.is_none_or(|due| due <= now)
    }

    /// Sets the time of the next sample. Called when a sample is about to be taken.
    pub(super) fn sampled(&mut self, now: Instant, repeats: &Repeats) {
        self.sample_due = Some(now + repeats.sample);
    }

    /// Returns the next report: the fields of `full` that the cloud may not have. For a balena API (`repeats` is set), also
    /// repeats what is due, moves those due times, and gives each image that the last report did not name a progress of 100.
    pub(super) fn next_report(
        &mut self,
        full: &DeviceReport,
        now: Instant,
        repeats: Option<&Repeats>,
    ) -> DeviceReport {
        let is_past = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if is_past(self.all_due) {
            *self = Self { sample_due: self.sample_due, ..Self::default() };
        }
        let mut news = difference(full, &self.report);
        if is_past(self.apps_due) {
            news.apps.clone_from(&full.apps);
            // If this device has no apps to report now, the repeat is postponed.
            self.apps_due = self.apps_due.filter(|_| full.apps.is_some()).or(repeats.map(|it| now + it.apps));
        }
        if repeats.is_some() {
            let services = news.apps.iter_mut().flat_map(BTreeMap::values_mut);
            let services = services.flat_map(|app| app.releases.values_mut());
            for service in services.flat_map(|release| release.services.values_mut()) {
                if service.download_progress.is_none() && !self.images.contains(&service.image) {
                    service.download_progress = Some(100);
                }
            }
        }
        news
    }

    /// Remembers that the cloud accepted the report `sent`, so that it now knows everything in `full`.
    pub(super) fn took(
        &mut self,
        full: DeviceReport,
        sent: &DeviceReport,
        now: Instant,
        repeats: Option<&Repeats>,
    ) {
        if let Some(apps) = &sent.apps {
            let releases = apps.values().flat_map(|app| app.releases.values());
            let services = releases.flat_map(|release| release.services.values());
            self.images = services.map(|service| service.image.clone()).collect();
            let is_repeat = full.apps == self.report.apps;
            self.apps_due = repeats.filter(|_| !is_repeat).map(|repeats| now + repeats.apps);
        }
        match repeats {
            // The first accepted report shows that this cloud is a balena API, which gets samples.
            Some(repeats) => {
                self.all_due = self.all_due.or(Some(now + repeats.all));
                self.sample_due = self.sample_due.or(Some(now));
            }
            None => (self.apps_due, self.all_due, self.sample_due) = (None, None, None),
        }
        let mut device: BTreeMap<String, Value> = std::mem::take(&mut self.report.device);
        device.extend(sent.device.clone());
        // The cloud keeps its value for a field that a report leaves out.
        let apps = full.apps.or_else(|| self.report.apps.take());
        self.report = DeviceReport { device, apps, ..full };
    }
}

/// Returns the fields that changed. `apps` is complete if anything in it changed, because the cloud removes an app,
/// release or image that a present `apps` does not have.
fn difference(now: &DeviceReport, before: &DeviceReport) -> DeviceReport {
    fn changed<T: Clone + PartialEq>(now: &Option<T>, before: &Option<T>) -> Option<T> {
        now.as_ref().filter(|_| now != before).cloned()
    }
    DeviceReport {
        status: changed(&now.status, &before.status),
        apps: changed(&now.apps, &before.apps),
        account: changed(&now.account, &before.account),
        device: report::news(&now.device, &before.device),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(text: &Value) -> DeviceReport {
        serde_json::from_value(text.clone()).unwrap()
    }

    fn apps(images: &[&str]) -> Value {
        let service = |image: &&str| ((*image).to_owned(), json!({ "image": image, "status": "Running" }));
        let services: serde_json::Map<_, _> = images.iter().map(service).collect();
        json!({ "a": { "releases": { "r": { "services": services } } } })
    }

    /// The progress of each image that is sent; none if no app is.
    fn progress(sent: &DeviceReport) -> Option<Vec<(String, Option<i64>)>> {
        let services = sent.apps.as_ref()?["a"].releases["r"].services.values();
        Some(services.map(|service| (service.image.clone(), service.download_progress)).collect())
    }

    #[test]
    fn only_changes_are_sent_and_apps_completely() {
        let before = report(&json!({ "status": "Idle", "ip_address": "a" }));
        let now = report(&json!({ "status": "Idle", "ip_address": "b", "apps": {} }));
        assert_eq!(difference(&now, &before), report(&json!({ "ip_address": "b", "apps": {} })));
        assert_eq!(difference(&now, &now), DeviceReport::default());
    }

    #[test]
    fn an_image_that_was_away_is_reported_so_that_it_is_written_and_all_once_more() {
        let (mut reports, begin) = (SentReports::default(), Instant::now());
        let repeats = Repeats { sample: Duration::from_secs(1 << 20), ..Repeats::default() };
        let both = report(&json!({ "apps": apps(&["db", "web"]) }));
        let sent = reports.next_report(&both, begin, Some(&repeats));
        let named = |one: Option<i64>, other: Option<i64>| {
            Some(vec![("db".to_owned(), one), ("web".to_owned(), other)])
        };
        assert_eq!(progress(&sent), named(Some(100), Some(100)), "the API may know them from before");
        reports.took(both.clone(), &sent, begin, Some(&repeats));
        assert_eq!(reports.next_report(&both, begin, Some(&repeats)), DeviceReport::default());
        assert_eq!(reports.due(), Some(begin), "a sample");
        assert!(reports.is_sample_due(begin));
        reports.sampled(begin, &repeats);
        assert!(!reports.is_sample_due(begin));

        let one = report(&json!({ "apps": apps(&["web"]) }));
        let sent = reports.next_report(&one, begin, Some(&repeats));
        reports.took(one, &sent, begin, Some(&repeats));
        let sent = reports.next_report(&both, begin, Some(&repeats));
        assert_eq!(progress(&sent), named(Some(100), None), "db was away");
        reports.took(both.clone(), &sent, begin, Some(&repeats));

        assert_eq!(reports.due(), Some(begin + repeats.apps));
        assert_eq!(
            reports.next_report(&both, begin + repeats.apps / 2, Some(&repeats)),
            DeviceReport::default()
        );
        let later = begin + repeats.apps;
        let sent = reports.next_report(&both, later, Some(&repeats));
        assert_eq!(progress(&sent), named(None, None));
        reports.took(both.clone(), &sent, later, Some(&repeats));
        assert_eq!(reports.due(), Some(begin + repeats.all), "then it is quiet");
        let sent = reports.next_report(&both, begin + repeats.all, Some(&repeats));
        assert_eq!(progress(&sent), named(Some(100), Some(100)));
    }

    #[test]
    fn our_own_server_gets_nothing_twice() {
        let (mut reports, begin) = (SentReports::default(), Instant::now());
        let both = report(&json!({ "apps": apps(&["db", "web"]) }));
        let sent = reports.next_report(&both, begin, None);
        assert_eq!(sent, both);
        reports.took(both, &sent, begin, None);
        assert_eq!(reports.due(), None);
    }

    #[test]
    fn a_number_that_moves_a_little_is_no_news() {
        let (mut reports, begin, repeats) = (SentReports::default(), Instant::now(), Repeats::default());
        for (usage, temp, memory, total, sent) in [
            (
                19,
                44,
                309,
                1000,
                json!({ "cpu_usage": 19, "cpu_temp": 44, "memory_usage": 309, "memory_total": 1000 }),
            ),
            (0, 40, 300, 1000, json!({})),
            (20, 44, 305, 1000, json!({ "cpu_usage": 20 })),
            (39, 45, 310, 1001, json!({ "cpu_temp": 45, "memory_usage": 310, "memory_total": 1001 })),
        ] {
            let full = json!({ "cpu_usage": usage, "cpu_temp": temp, "memory_usage": memory, "memory_total": total });
            let full = report(&full);
            let news = reports.next_report(&full, begin, Some(&repeats));
            assert_eq!(serde_json::to_value(&news).unwrap(), sent);
            reports.took(full, &news, begin, Some(&repeats));
        }
    }
}
