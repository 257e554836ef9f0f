//! Maintenance windows: when a release may be swapped.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of the day on some days of the week, in a time zone: `Mon-Fri 02:00-04:00 Europe/Zurich`.
///
/// Without days it means every day, without a zone UTC. A span whose end is earlier than its begin goes over midnight and
/// belongs to the day on which it begins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// Monday to Sunday.
    pub days: [bool; 7],
    /// Minutes since midnight.
    pub from: u16,
    /// Minutes since midnight; never `from`.
    pub to: u16,
    /// A name of the time zone database, or `UTC`.
    pub zone: String,
}

/// A text that is not a window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a maintenance window: {why}")]
pub struct BadWindow {
    given: String,
    why: &'static str,
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

impl Window {
    /// Parses one window.
    ///
    /// # Errors
    ///
    /// [`BadWindow`] with the reason.
    pub fn parse(text: &str) -> Result<Self, BadWindow> {
        let bad = |why| BadWindow { given: text.chars().take(80).collect(), why };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, span, zone) = match words.as_slice() {
            [span] => (None, *span, None),
            [first, second] if first.contains(':') => (None, *first, Some(*second)),
            [days, span] => (Some(*days), *span, None),
            [days, span, zone] => (Some(*days), *span, Some(*zone)),
            _ => return Err(bad("write it as `Mon-Fri 02:00-04:00 Europe/Zurich`")),
        };
        let days = match days {
            None => [true; 7],
            Some(days) => parse_days(days).ok_or_else(|| bad("its days must be like Mon-Fri or Sat,Sun"))?,
        };
        let (from, to) = span.split_once('-').ok_or_else(|| bad("its span must be like 02:00-04:00"))?;
        let minutes = |text| minutes(text).ok_or_else(|| bad("its times must be like 02:00, up to 24:00"));
        let (from, to) = (minutes(from)?, minutes(to)?);
        if from == to || from == 24 * 60 {
            return Err(bad(
                "it must begin before 24:00 and have a length; for the whole day write 00:00-24:00",
            ));
        }
        let zone = zone.unwrap_or("UTC").to_owned();
        let is_zone = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '+');
        if !zone.chars().all(is_zone) || zone.len() > 64 || zone.starts_with('/') {
            return Err(bad("its zone must be a name like Europe/Zurich or UTC"));
        }
        Ok(Self { days, from, to, zone })
    }

    /// Parses windows with `;` between them. An empty text has none.
    ///
    /// # Errors
    ///
    /// [`BadWindow`] for the first invalid one.
    pub fn parse_all(text: &str) -> Result<std::collections::BTreeSet<Self>, BadWindow> {
        text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(Self::parse).collect()
    }
}

fn parse_days(text: &str) -> Option<[bool; 7]> {
    let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            None => (day(part)?, day(part)?),
            Some((first, last)) => (day(first)?, day(last)?),
        };
        let mut at = first;
        loop {
            days[at] = true;
            if at == last {
                break;
            }
            at = (at + 1) % 7;
        }
    }
    Some(days)
}

fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let is_digits = |t: &str| t.len() == 2 && t.chars().all(|c| c.is_ascii_digit());
    if !is_digits(hours) || !is_digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= 24 * 60).then_some(all)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != [true; 7] {
            let days: Vec<_> =
                DAYS.iter().zip(self.days).filter(|(_, on)| *on).map(|(day, _)| *day).collect();
            write!(f, "{} ", days.join(","))?;
        }
        let clock = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        write!(f, "{}-{} {}", clock(self.from), clock(self.to), self.zone)
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_as_people_write_them() {
        for (given, shown) in [
            ("02:00-04:00", "02:00-04:00 UTC"),
            ("22:00-04:30 Europe/Zurich", "22:00-04:30 Europe/Zurich"),
            ("Mon-Fri 02:00-04:00", "Mon,Tue,Wed,Thu,Fri 02:00-04:00 UTC"),
            ("sat,Sun 00:00-24:00 UTC", "Sat,Sun 00:00-24:00 UTC"),
            ("Sat-Mon 01:00-02:00", "Mon,Sat,Sun 01:00-02:00 UTC"),
            ("Mon-Sun 01:00-02:00", "01:00-02:00 UTC"),
        ] {
            let window = Window::parse(given).unwrap();
            assert_eq!(window.to_string(), shown, "{given}");
            assert_eq!(Window::parse(shown).unwrap(), window, "{shown}");
        }
        assert_eq!(Window::parse_all(" 01:00-02:00 ; Sun 03:00-04:00;").unwrap().len(), 2);
        assert_eq!(Window::parse_all("").unwrap().len(), 0);
    }

    #[test]
    fn texts_that_are_not_windows_are_refused_with_the_reason() {
        for bad in [
            "",
            "2:00-4:00",
            "02:00",
            "02:00-02:00",
            "24:00-02:00",
            "02:00-25:00",
            "02:60-03:00",
            "Mo 02:00-04:00",
            "Mon- 02:00-04:00",
            "Mon 02:00-04:00 ../../etc/passwd x",
            "02:00-04:00 Europe/Zu..rich",
            "at night",
        ] {
            assert!(Window::parse(bad).is_err(), "{bad}");
        }
    }
}
