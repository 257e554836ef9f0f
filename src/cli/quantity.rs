//! Moments for people. Pure.

use jiff::Timestamp;

use crate::model::quantity::span;

/// How long ago a moment was, in its largest unit: "2 min ago".
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    match u64::try_from(now.duration_since(at).as_secs()) {
        Ok(seconds) => format!("{} ago", span(seconds)),
        Err(_) => format!("at {at}"),
    }
}

/// A moment in RFC 3339 as people read it: `2 min ago (2026-11-30T10:00:00Z)`, or as it is if it cannot be read.
pub(super) fn when(at: &str, now: Timestamp) -> String {
    let Ok(moment) = at.parse::<Timestamp>() else { return at.to_owned() };
    match u64::try_from(moment.duration_since(now).as_secs()) {
        Ok(seconds @ 1..) => format!("{} ({at})", ahead(seconds)),
        Ok(_) | Err(_) => format!("{} ({at})", ago(moment, now)),
    }
}

/// Since when something lasts: `since 2026-11-30T10:00:00Z, 2 min ago`.
pub(super) fn since(at: &str, now: Timestamp) -> String {
    let long = at.parse().map_or_else(|_| String::new(), |moment| format!(", {}", ago(moment, now)));
    format!("since {at}{long}")
}

/// How far ahead a moment is: "in 40 s".
pub(super) fn ahead(seconds: u64) -> String {
    format!("in {}", span(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let at: Timestamp = "2026-12-01T10:00:00Z".parse().unwrap();
        let later = |seconds| at.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
        assert_eq!(ago(at, later(125)), "2 min ago");
        assert_eq!(ago(at, later(-5)), "at 2026-12-01T10:00:00Z");
        assert_eq!(ahead(80_000), "in 22 h");
        assert_eq!(when("2026-12-01T10:00:00Z", later(125)), "2 min ago (2026-12-01T10:00:00Z)");
        assert_eq!(when("2026-12-01T10:02:00Z", at), "in 2 min (2026-12-01T10:02:00Z)");
        assert_eq!(when("yesterday", at), "yesterday");
        assert_eq!(since("2026-12-01T10:00:00Z", later(125)), "since 2026-12-01T10:00:00Z, 2 min ago");
        assert_eq!(since("yesterday", at), "since yesterday");
    }
}
