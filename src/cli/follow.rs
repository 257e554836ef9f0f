//! `cotter push --wait`: follows a new release until the devices that should run it have accepted or rejected it. It
//! asks only the fleet server.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::client::Client;
use super::exit::Exit;
use super::print;
use crate::wire::operator_api::{DeviceDetail, DeviceView, ReleaseView};

/// How often the devices are asked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a device's report may still be about the release before, although it has asked for this one.
const SETTLES: Duration = Duration::from_secs(10);

/// A device's first poll since the release was created.
#[derive(Debug)]
struct FirstPoll {
    at: Timestamp,
    /// When we saw it.
    seen: Instant,
    /// Whether the device has reported anything but a rejection since.
    has_begun: bool,
}

/// How far a device is with the release.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Accepted,
    Rejected,
    /// What it does, or what it waits for.
    Pending(String),
}

/// Follows a release until no device is on its way, or `timeout` is over.
///
/// # Errors
///
/// Those of the fleet server.
pub(super) async fn follow(
    client: &Client,
    release: &ReleaseView,
    timeout: Duration,
) -> anyhow::Result<Exit> {
    let mut shown: BTreeMap<String, Standing> = BTreeMap::new();
    let ends = async {
        let mut first_polls = BTreeMap::new();
        loop {
            let devices = devices(client, release, &mut first_polls).await?;
            if devices.is_empty() {
                print::note(&format!("no device of {} should run this release", release.fleet));
                return Ok(Exit::Done);
            }
            for (name, standing) in &devices {
                if shown.get(name) != Some(standing) {
                    print::note(&format!("{name} {}", standing.words()));
                }
            }
            let is_pending = devices.values().any(|standing| matches!(standing, Standing::Pending(_)));
            let is_rejected = devices.values().any(|standing| *standing == Standing::Rejected);
            shown = devices;
            if !is_pending {
                return anyhow::Ok(if is_rejected { Exit::RolledBack } else { Exit::Done });
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let Ok(ended) = tokio::time::timeout(timeout, ends).await else {
        let pending: Vec<_> = shown
            .iter()
            .filter(|(_, standing)| matches!(standing, Standing::Pending(_)))
            .map(|(name, standing)| format!("{name} {}", standing.words()))
            .collect();
        let (s, pending) = (timeout.as_secs(), pending.join("; "));
        print::note(&format!("not done within {s} s, and the devices continue: {pending}"));
        return Ok(Exit::Unexpected);
    };
    ended
}

impl Standing {
    fn words(&self) -> &str {
        match self {
            Self::Accepted => "has accepted it",
            Self::Rejected => "has rejected it; `cotter history` on the device says why",
            Self::Pending(words) => words,
        }
    }
}

/// The devices that should run the release, by name.
async fn devices(
    client: &Client,
    release: &ReleaseView,
    first_polls: &mut BTreeMap<String, FirstPoll>,
) -> anyhow::Result<BTreeMap<String, Standing>> {
    let all: Vec<DeviceView> = client.get(&["devices"], &[("fleet", Some(&release.fleet))]).await?;
    let mut found = BTreeMap::new();
    for device in all.into_iter().filter(|device| device.target.as_deref() == Some(&release.commit)) {
        let polled = device.last_seen.filter(|seen| *seen > release.start_timestamp);
        if let Some(at) = polled {
            let first = FirstPoll { at, seen: Instant::now(), has_begun: false };
            first_polls.entry(device.uuid.clone()).or_insert(first);
        }
        let first = first_polls.get_mut(&device.uuid);
        let first_poll = first.as_ref().map(|first| first.at);
        let is_settled = first.is_some_and(|first| {
            first.has_begun |= !says_no(&device);
            first.has_begun || first.seen.elapsed() > SETTLES
        });
        let reported = if says_no(&device) && is_settled {
            let detail: DeviceDetail = client.get(&["devices", &device.uuid], &[]).await?;
            detail.reported_at
        } else {
            None
        };
        let standing = standing(&device, &release.commit, first_poll, reported);
        found.insert(device.name, standing);
    }
    Ok(found)
}

fn says_no(device: &DeviceView) -> bool {
    matches!(device.update_status.as_deref(), Some("rejected" | "aborted"))
}

/// How far a device is. `first_poll`: when it first asked for its target since the release was created. What it reported
/// before that is about another release.
fn standing(
    device: &DeviceView,
    commit: &str,
    first_poll: Option<Timestamp>,
    reported: Option<Timestamp>,
) -> Standing {
    let status = device.update_status.as_deref();
    if device.running.as_deref() == Some(commit) && status == Some("done") {
        return Standing::Accepted;
    }
    let Some(first_poll) = first_poll else {
        let words = if device.is_online { "has not asked for its target yet" } else { "is offline" };
        return Standing::Pending(words.to_owned());
    };
    if says_no(device) && reported.is_some_and(|reported| reported > first_poll) {
        return Standing::Rejected;
    }
    Standing::Pending(match status.filter(|status| *status != "done" && !says_no(device)) {
        Some(status) => format!("is {status}"),
        None => "has asked for its target".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_report_about_the_new_release_ends_the_wait() {
        let at = |minute: u32| Some(format!("2026-01-01T00:{minute:02}:00Z").parse().unwrap());
        let pending = |words: &str| Standing::Pending(words.to_owned());
        for (why, running, status, online, first_poll, reported, wanted) in [
            ("it runs it", "new", "done", true, at(1), None, Standing::Accepted),
            ("on trial", "new", "applying changes", true, at(1), None, pending("is applying changes")),
            (
                "the status of the release before",
                "old",
                "done",
                true,
                at(1),
                None,
                pending("has asked for its target"),
            ),
            ("away", "old", "done", false, None, None, pending("is offline")),
            ("not yet", "old", "done", true, None, None, pending("has not asked for its target yet")),
            (
                "rejected the one before",
                "old",
                "rejected",
                true,
                None,
                None,
                pending("has not asked for its target yet"),
            ),
            ("an old report", "old", "rejected", true, at(2), at(1), pending("has asked for its target")),
            ("rejected", "old", "rejected", true, at(1), at(2), Standing::Rejected),
            ("aborted", "old", "aborted", true, at(1), at(2), Standing::Rejected),
            ("downloads", "old", "downloading", true, at(1), at(2), pending("is downloading")),
        ] {
            let device = json!({
                "uuid": "a", "number": 1, "name": "a", "device_type": "t", "fleet": "f", "pin": null, "target": "new",
                "running": running, "update_status": status, "is_online": online, "last_seen": null, "tags": {},
                "created": "2026-01-01T00:00:00Z",
            });
            let device: DeviceView = serde_json::from_value(device).unwrap();
            assert_eq!(standing(&device, "new", first_poll, reported), wanted, "{why}");
        }
    }
}
