//! Polls the cloud for the target of this device, and hands each new one to the reconciler.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::model::{Attempted, CloudReport, Delivered, DeviceUuid, LocalApps, Policy, StoredTarget};
use crate::wire::target_v3;

use super::answers::{Polled, State};
use super::client::{Client, LONGEST_ETAG};
use super::error::CloudError;
use super::parking::{Next, Parking};
use super::retry::{Retry, moment, with_jitter};

/// The state with which polling begins.
#[derive(Debug, Clone)]
pub struct Start {
    pub uuid: DeviceUuid,
    pub device_key: String,
    /// What releases may use of the device.
    pub policy: Policy,
    /// The etag of the target in force; `None` if there is none.
    pub etag: Option<String>,
    /// Time between polls, unless the target sets it.
    pub interval: Duration,
    /// Time between polls as set by the target in force; `None` if it sets none.
    pub wanted_interval: Option<Duration>,
    /// Longest time that a poll asks its cloud to wait for a new target. Zero: polls are answered at once.
    pub wait: Duration,
    /// The local names of this cloud's apps on this device, if the device was moved to this cloud.
    pub apps: LocalApps,
}

/// The clocks. They are used only for the report.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Returns, as text, the wall-clock time after this delay.
    pub time_in: fn(Duration) -> String,
    /// Returns the time since the device booted.
    pub uptime: fn() -> Duration,
}

/// The task that polls.
pub struct Poller {
    client: Client,
    start: Start,
    target: watch::Sender<Option<Arc<Delivered>>>,
    report: watch::Sender<CloudReport>,
    times: Times,
    /// Notified when an operator wants a poll at once.
    poll_now: Arc<Notify>,
    refused: Option<String>,
    doubt: Option<Doubt>,
    parking: Parking,
}

/// The last time when the cloud was asked whether it still has this device, and its answer.
struct Doubt {
    asked: Instant,
    is_deleted: bool,
}

/// Shortest time between two such requests.
const ASK_EVERY: Duration = Duration::from_secs(3600);

/// Longest time between two attempts to reach a cloud that lets polls wait, even if the interval is longer: its
/// operators expect that devices return soon after an outage.
const RETURN_WITHIN: Duration = Duration::from_secs(45);

impl Poller {
    /// Creates a poller. It polls once `run` is called.
    #[must_use]
    pub fn new(
        client: Client,
        start: Start,
        target: watch::Sender<Option<Arc<Delivered>>>,
        report: watch::Sender<CloudReport>,
        times: Times,
        poll_now: Arc<Notify>,
    ) -> Self {
        let parking = Parking::new(start.wait, client.timeout());
        Self { client, start, target, report, times, poll_now, refused: None, doubt: None, parking }
    }

    /// Polls at once, then after every interval plus up to 10 %, and whenever `poll_now` is notified. If the cloud
    /// lets a poll wait for a new target, the next poll follows within a second of the answer instead, and `poll_now`
    /// ends a poll that waits. After a failure the next attempt follows after about 15 s, then later and later, up to
    /// one interval (45 s if the cloud lets polls wait), but never sooner than the cloud asks for. Returns when
    /// `stop` is cancelled.
    ///
    /// A target that cannot be parsed is reported and dropped. The target in force and its etag stay, so the next
    /// poll fetches the new one again.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut retry = Retry::up_to(self.interval());
        loop {
            let (asked, begun) = (self.parking.ask(), Instant::now());
            self.end_pause(asked);
            let Start { uuid, device_key, etag, .. } = &self.start;
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.poll_now.notified(), if asked.is_some() => {
                    debug!("asked to poll now");
                    self.parking.interrupt();
                    continue;
                }
                answer = self.client.state(uuid, device_key, etag.as_deref(), asked) => answer,
            };
            let took = begun.elapsed();
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                answer = self.confirmed(answer) => answer,
            };
            let wait = match answer {
                Ok(polled) => {
                    // An answer that asks for logs comes early, like one with a new target.
                    let is_new = self.take(polled.state) | self.note_logs(polled.wants_logs);
                    let next = self.parking.answered(asked, polled.is_honoured, took, is_new);
                    retry = Retry::up_to(self.longest_retry());
                    let wait = self.delay(next);
                    self.report_success(wait, pause(next, is_new));
                    wait
                }
                Err(error) if self.parking.forgive_cut(asked, took, error.may_be_cut()) => {
                    debug!(%error, "a poll that waited was cut off");
                    moment()
                }
                Err(error) => {
                    self.parking.failed();
                    let wait = retry.failure(error.retry_after());
                    self.report_failure(&error, retry.failures, wait);
                    wait
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.poll_now.notified() => {
                    debug!("asked to poll now");
                    self.parking.interrupt();
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Returns how long to wait before the next poll.
    fn delay(&self, next: Next) -> Duration {
        match next {
            Next::Interval => with_jitter(self.interval()),
            Next::Now => Duration::ZERO,
            Next::After(delay) => delay.min(self.interval()) + moment(),
        }
    }

    /// Returns the longest delay after a failure.
    fn longest_retry(&self) -> Duration {
        if self.parking.is_honoured() { self.interval().min(RETURN_WITHIN) } else { self.interval() }
    }

    /// Turns "unchanged" into an error if the cloud has deleted this device. A 304 without an etag may mean that. Only
    /// then is the cloud asked for the device, once an hour at most. If that request fails, "unchanged" stays, unless
    /// the last answer was that the device is deleted.
    async fn confirmed(&mut self, answer: Result<Polled, CloudError>) -> Result<Polled, CloudError> {
        let Ok(Polled { state: State::Unchanged { etag: None }, .. }) = answer else {
            if answer.is_ok() {
                self.doubt = None;
            }
            return answer;
        };
        let is_fresh = |doubt: &Doubt| doubt.asked.elapsed() < ASK_EVERY;
        if !self.doubt.as_ref().is_some_and(is_fresh) {
            let asked = Instant::now();
            match self.client.find(&self.start.uuid, &self.start.device_key).await {
                Ok(found) => self.doubt = Some(Doubt { asked, is_deleted: found.is_none() }),
                Err(error) => debug!(%error, "the cloud does not say whether it has this device"),
            }
        }
        if self.doubt.as_ref().is_some_and(|doubt| doubt.is_deleted) {
            return Err(CloudError::Unknown { endpoint: self.client.endpoint().to_owned() });
        }
        answer
    }

    fn interval(&self) -> Duration {
        self.start.wanted_interval.unwrap_or(self.start.interval)
    }

    /// Stores the etag of an unchanged target if it differs only in the position, which is the part after the last
    /// dot. So a server with older records does not send an older target (docs/postgresql.md, "What holds").
    fn follow(&mut self, etag: Option<String>) {
        let target = |etag: &str| etag.rsplit_once('.').map(|(target, _)| target.to_owned());
        let is_same = |etag: &String| {
            target(etag).is_some() && target(etag) == self.start.etag.as_deref().and_then(target)
        };
        if let Some(etag) = etag.filter(|etag| etag.len() <= LONGEST_ETAG).filter(is_same) {
            self.start.etag = Some(etag);
        }
    }

    /// Publishes a new target, if there is one that can be parsed. Returns `true` if it has another etag than the
    /// target before.
    fn take(&mut self, state: State) -> bool {
        let (etag, body) = match state {
            State::Changed { etag, body } => (etag, body),
            State::Unchanged { etag } => {
                debug!("target unchanged");
                self.follow(etag);
                return false;
            }
        };
        let parsed = target_v3::parse(&body, &self.start.uuid, &self.start.policy);
        let text = String::from_utf8(body);
        match (parsed, text) {
            (Ok(mut target), Ok(body)) => {
                target.localize(&self.start.apps);
                self.refused = None;
                let is_new = etag.is_some() && etag != self.start.etag;
                self.start.etag.clone_from(&etag);
                self.start.wanted_interval = target.poll_interval;
                let record =
                    StoredTarget { endpoint: self.client.endpoint().to_owned(), etag: etag.clone(), body };
                let delivered = Delivered { target: Arc::new(target), record: Some(record), etag };
                self.target.send_replace(Some(Arc::new(delivered)));
                return is_new;
            }
            (Err(error), _) => self.refuse(error.to_string()),
            (Ok(_), Err(_)) => self.refuse("it is not UTF-8".to_owned()),
        }
        false
    }

    /// Publishes whether the cloud wants logs. Returns whether that is news.
    fn note_logs(&self, wants_logs: bool) -> bool {
        self.report.send_if_modified(|report| report.wants_logs.replace(wants_logs) != Some(wants_logs))
    }

    fn refuse(&mut self, why: String) {
        if self.refused.as_ref() != Some(&why) {
            warn!(error = %why, "target of the cloud cannot be read; the one in force stays");
        }
        self.refused = Some(why);
    }

    /// If there was a pause before this poll, reports that the pause is over. The poll asks to wait for `asked`.
    fn end_pause(&self, asked: Option<Duration>) {
        self.report.send_if_modified(|report| {
            let has_paused = report.pause.take().is_some();
            if has_paused {
                report.next_poll = Some((self.times.time_in)(asked.unwrap_or_default()));
            }
            has_paused
        });
    }

    /// Reports an answer, and the next poll after `wait`. If that poll will itself wait at the cloud, its wait is
    /// added, so that the reported time is not in the past while it waits. `pause`: why the next poll does not begin
    /// at once.
    fn report_success(&self, wait: Duration, pause: Option<&str>) {
        let is_parked = self.parking.is_honoured() && pause.is_none();
        let parked = self.parking.ask().filter(|_| is_parked).unwrap_or_default();
        let wait = wait + parked;
        let error = self
            .refused
            .as_ref()
            .map(|why| format!("its target was ignored, and the last one stays in force: {why}"));
        self.report.send_modify(|report| {
            *report = CloudReport {
                endpoint: self.client.endpoint().to_owned(),
                last_contact: Some((self.times.time_in)(Duration::ZERO)),
                next_poll: Some((self.times.time_in)(wait)),
                pause: pause.map(str::to_owned),
                error,
                failures: 0,
                polls: Attempted { done: report.polls.done + 1, ..report.polls },
                heard_at: Some((self.times.uptime)()),
                is_deleted: false,
                ..std::mem::take(report)
            };
        });
    }

    fn report_failure(&self, error: &CloudError, failures: u32, wait: Duration) {
        if self.report.borrow().error.as_ref() != Some(&error.to_string()) {
            warn!(error = %error, retry_after_s = wait.as_secs(), "poll failed");
        }
        self.report.send_modify(|report| {
            self.client.endpoint().clone_into(&mut report.endpoint);
            (report.next_poll, report.pause) = (Some((self.times.time_in)(wait)), None);
            report.error = Some(error.to_string());
            report.failures = failures;
            report.polls.failed += 1;
            // While the cloud cannot be reached, its last answer about a deletion stays.
            report.is_deleted =
                error.says_deleted() || report.is_deleted && matches!(error, CloudError::Unreachable { .. });
        });
    }
}

/// Returns why the next poll begins more than a second from now.
fn pause(next: Next, is_new: bool) -> Option<&'static str> {
    let is_long = matches!(next, Next::After(pause) if pause > Duration::from_secs(1));
    is_long.then_some(match is_new {
        true => "the cloud changes the target again and again",
        false => "the cloud ended the last waits early, and without a new target",
    })
}

#[cfg(test)]
#[path = "poll_tests.rs"]
mod tests;
