//! The bodies that are sent to webhooks.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::events::News;
use crate::fleet::rollout::{Rollout, Tally};

/// The names of what a rollout is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Name of the fleet.
    pub fleet: &'a str,
    /// Commit of the release.
    pub release: &'a str,
}

/// Returns the body that announces something.
#[must_use]
pub fn announcement(news: &News<'_>, rollout: &Rollout, of: Subject<'_>, now: Timestamp) -> String {
    let mut data = described(rollout, of, rollout.wave);
    if let Some(segment) = news.segment {
        data["segment"] = segment.to_string().into();
        data["why"] = rollout.halted.get(segment).map(ToString::to_string).into();
    }
    body(&format!("rollout.{}", news.event.as_str()), now, data)
}

/// Returns the body of the question whether a wave may begin. `wave` is its index.
#[must_use]
pub fn question(rollout: &Rollout, of: Subject<'_>, wave: usize, now: Timestamp) -> String {
    body("rollout.confirm", now, described(rollout, of, wave))
}

/// Returns the body of a test.
#[must_use]
pub fn test(webhook: &str, now: Timestamp) -> String {
    body("webhook.test", now, json!({ "webhook": webhook }))
}

fn body(kind: &str, now: Timestamp, data: Value) -> String {
    json!({ "type": kind, "timestamp": now, "data": data }).to_string()
}

/// Describes a rollout; `wave` is the index of the wave that it is about.
fn described(rollout: &Rollout, Subject { fleet, release }: Subject<'_>, wave: usize) -> Value {
    let Tally { unreached, updating, waiting, fetching, accepted, rejected, blocked, unhealthy, silent } =
        rollout.tally;
    json!({
        "rollout": rollout.number,
        "fleet": fleet,
        "release": release,
        "phase": rollout.phase.as_str(),
        "why": rollout.phase.why(),
        "wave": wave + 1,
        "waves": rollout.definition.waves.len(),
        "devices": {
            "exposed": rollout.tally.exposed(), "accepted": accepted, "rejected": rejected, "blocked": blocked,
            "unhealthy": unhealthy, "silent": silent, "updating": updating, "waiting": waiting,
            "fetching": fetching, "unreached": unreached,
        },
    })
}
