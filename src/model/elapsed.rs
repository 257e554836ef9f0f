//! The time in the engine's words about a container: "Up 3 minutes (healthy)", "Exited (0) 5 hours ago". It was right when
//! the engine was asked, which may be long ago, and it is coarse.

use std::ops::Range;
use std::time::Duration;

/// A time in a text of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elapsed {
    /// Where it stands in the text.
    pub place: Range<usize>,
    /// The bounds of what it means.
    pub least: Duration,
    pub most: Duration,
}

/// The words that the engine uses, with the seconds of one.
const UNITS: [(&str, u64); 7] = [
    ("second", 1),
    ("minute", 60),
    ("hour", 3600),
    ("day", 86_400),
    ("week", 7 * 86_400),
    ("month", 30 * 86_400),
    ("year", 365 * 86_400),
];

impl Elapsed {
    /// Finds the time in a text; `None` if there is none.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let fixed =
            [("Less than a second", 0, 1), ("About a minute", 46, 120), ("About an hour", 2700, 5400)];
        let seconds = Duration::from_secs;
        for (words, least, most) in fixed {
            if let Some(at) = text.find(words) {
                let place = at..at + words.len();
                return Some(Self { place, least: seconds(least), most: seconds(most) });
            }
        }
        let (at, unit) =
            UNITS.iter().find_map(|(word, unit)| Some((text.find(&format!(" {word}"))?, (word, unit))))?;
        let number = text.get(..at)?.rsplit(' ').next()?;
        let count: u64 = number.parse().ok()?;
        let end = at + 1 + unit.0.len();
        let end = if text.get(end..)?.starts_with('s') { end + 1 } else { end };
        // Hours are rounded, all others are cut.
        let rounded = if *unit.1 == 3600 { unit.1 / 2 } else { 0 };
        let whole = count.checked_mul(*unit.1)?;
        let (least, most) = (whole.saturating_sub(rounded), whole.saturating_add(unit.1 - rounded));
        Some(Self { place: at - number.len()..end, least: seconds(least), most: seconds(most) })
    }

    /// Returns when it began, as time since the device booted, seen at `uptime`: `known` if that can be true, else by the
    /// text. `None` if it began before.
    #[must_use]
    pub fn began(&self, uptime: Duration, known: Option<Duration>) -> Option<Duration> {
        // The engine was asked a moment before.
        const SLACK: Duration = Duration::from_secs(2);
        let fits = |began: &Duration| {
            let elapsed = uptime.saturating_sub(*began);
            elapsed + SLACK >= self.least && elapsed <= self.most + SLACK
        };
        known.filter(fits).or_else(|| uptime.checked_sub(self.least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_words() {
        for (text, found) in [
            ("Up Less than a second", Some(("Less than a second", 0, 1))),
            ("Up 1 second (health: starting)", Some(("1 second", 1, 2))),
            ("Up 59 seconds", Some(("59 seconds", 59, 60))),
            ("Up About a minute (healthy)", Some(("About a minute", 46, 120))),
            ("Up 3 minutes (Paused)", Some(("3 minutes", 180, 240))),
            ("Up About an hour", Some(("About an hour", 2700, 5400))),
            ("Exited (137) 5 hours ago", Some(("5 hours", 16_200, 19_800))),
            ("Restarting (1) 2 days ago", Some(("2 days", 172_800, 259_200))),
            ("Up 3 weeks", Some(("3 weeks", 1_814_400, 2_419_200))),
            ("Created", None),
            ("Exited (0)", None),
            ("Up many minutes", None),
            ("Up 99999999999999999999 minutes", None),
            ("Up 18446744073709551615 years", None),
            (" minutes", None),
            ("", None),
        ] {
            let seen = Elapsed::find(text);
            let seen = seen.as_ref().map(|e| (&text[e.place.clone()], e.least.as_secs(), e.most.as_secs()));
            assert_eq!(seen, found, "{text}");
        }
    }

    #[test]
    fn when_it_began_is_kept_while_the_words_allow_it() {
        let began = |text: &str, uptime, known: Option<u64>| {
            let began = Elapsed::find(text).unwrap();
            let began = began.began(Duration::from_secs(uptime), known.map(Duration::from_secs));
            began.map(|began| began.as_secs())
        };
        assert_eq!(began("Up 3 seconds", 1000, None), Some(997));
        assert_eq!(began("Up 3 minutes", 1200, Some(997)), Some(997), "203 s are 3 minutes");
        assert_eq!(began("Up 2 seconds", 1200, Some(997)), Some(1198), "it was restarted");
        assert_eq!(began("Up 2 hours", 1200, None), None, "before the device booted, or its clock was set");
        assert_eq!(began("Up 4 minutes", 1200, Some(1100)), Some(960), "what was known cannot be");
    }
}
