//! Logs waits and remembers since when each lasts. In memory only: a restart of the agent resets the times.

use std::collections::BTreeMap;

use tracing::{debug, info, warn};

use crate::model::{AppId, EventKind, Plan, Reason, ServiceName, Waiting};

/// Identifies a wait. Its text may change while it lasts.
type Key = (Option<AppId>, Option<ServiceName>, Reason);

#[derive(Debug, Default)]
pub(super) struct WaitingLog(BTreeMap<Key, Waiting>);

impl WaitingLog {
    /// Writes the start of each wait into a plan, and logs new waits. Returns an event for each wait that began or ended.
    /// `name_of`: the name of an app.
    pub(super) fn date<'a>(
        &mut self,
        plan: &mut Plan,
        now: impl Fn() -> String,
        name_of: impl Fn(&AppId) -> Option<&'a str>,
    ) -> Vec<EventKind> {
        let mut known: BTreeMap<Key, Waiting> = BTreeMap::new();
        let mut events = Vec::new();
        for waiting in &mut plan.waiting {
            let key = (waiting.app.clone(), waiting.service.clone(), waiting.reason);
            let before = self.0.remove(&key).or_else(|| known.get(&key).cloned());
            let is_new = before.is_none();
            waiting.since = before.and_then(|before| before.since).or_else(|| Some(now()));
            known.insert(key, waiting.clone());
            if is_new {
                log(waiting, waiting.app.as_ref().and_then(&name_of));
                events.push(EventKind::Waiting { waiting: waiting.clone(), is_over: false });
            }
        }
        let over = std::mem::replace(&mut self.0, known).into_values();
        events.extend(over.map(|waiting| EventKind::Waiting { waiting, is_over: true }));
        events
    }
}

/// Logs a wait. Waits that a step, the target or an alert logs already are logged for debugging only.
fn log(waiting: &Waiting, app_name: Option<&str>) {
    let (app, service) = (
        waiting.app.as_ref().map(tracing::field::display),
        waiting.service.as_ref().map(tracing::field::display),
    );
    let (reason, why) = (waiting.reason.as_str(), waiting.why.as_str());
    match waiting.reason {
        Reason::Unhealthy => warn!(app, app_name, service, reason, why, "waiting"),
        Reason::Held | Reason::Locked | Reason::Window | Reason::Clock | Reason::Stopped => {
            info!(app, app_name, service, reason, why, "waiting");
        }
        Reason::Downloading
        | Reason::Backoff
        | Reason::Refused
        | Reason::InsufficientDisk
        | Reason::PortInUse
        | Reason::WrongArchitecture
        | Reason::UnsupportedImage
        | Reason::HostLacks
        | Reason::DownloadGivenUp
        | Reason::EngineStuck
        | Reason::Degraded
        | Reason::Starting
        | Reason::Dependency
        | Reason::Trial
        | Reason::Rejected
        | Reason::HandOver => debug!(app, app_name, service, reason, why, "waiting"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_counts_for_as_long_as_it_lasts() {
        let plan = |reason, why: &str| Plan {
            waiting: vec![Waiting {
                app: None,
                service: None,
                reason,
                why: why.into(),
                retry_in: None,
                since: None,
            }],
            ..Plan::default()
        };
        let mut waits = WaitingLog::default();
        let mut since = |mut plan: Plan, now: &str| {
            waits.date(&mut plan, || now.to_owned(), |_| None);
            plan.waiting[0].since.clone().unwrap()
        };
        assert_eq!(since(plan(Reason::Downloading, "at 1 %"), "1"), "1");
        assert_eq!(since(plan(Reason::Downloading, "at 2 %"), "2"), "1");
        assert_eq!(since(plan(Reason::Backoff, "failed"), "3"), "3");
        assert_eq!(since(plan(Reason::Downloading, "at 1 %"), "4"), "4");
    }
}
