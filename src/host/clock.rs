//! Decides whether the clock can be trusted, and whether a maintenance window is open. Reads no clock: callers pass the
//! time.

use std::path::Path;
use std::time::Duration;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

use crate::model::{Clock, Window, WindowState};

/// An earlier time is certainly wrong: this version of Cotter did not exist then.
const RELEASED: Timestamp = Timestamp::constant(1_793_491_200, 0); // 2026-11-01T00:00:00Z

/// How far back a clock may jump when NTP corrects it.
const SLACK: SignedDuration = SignedDuration::from_secs(60);

/// The folder of the time zone database.
const ZONES: &str = "/usr/share/zoneinfo";

/// Maximum number of bytes of a zone file. No file of the database is that long.
const LARGEST_ZONE: u64 = 1 << 20;

/// Days in which the next opening is searched: two weeks, because the change to summer time can skip the window of one
/// week.
const AHEAD: i32 = 15;

/// Decides whether a clock that shows `now` can be trusted. `seen_at` (RFC 3339) is the last time that was trusted; one
/// that cannot be parsed is ignored.
#[must_use]
pub fn trust(now: Timestamp, seen_at: Option<&str>) -> Clock {
    if now < RELEASED {
        return Clock::Untrusted(format!(
            "the clock shows {now:.0}, which is before this version of Cotter was made; set it, or enable NTP"
        ));
    }
    let seen_at = seen_at.and_then(|text| text.parse::<Timestamp>().ok());
    match seen_at.filter(|seen_at| seen_at.duration_since(now) > SLACK) {
        None => Clock::Trusted,
        Some(seen_at) => Clock::Untrusted(format!(
            "the clock shows {now:.0}, but it has shown {seen_at:.0} before; set it, or enable NTP"
        )),
    }
}

/// Returns whether `window` is open at `now`: whether the local time in its zone is within its span.
///
/// An hour that the change to summer time skips is in no window. An hour that occurs twice is in the window both times. A
/// span over midnight belongs to the day on which it begins.
#[must_use]
pub fn window(window: &Window, now: Timestamp) -> WindowState {
    match zone(Path::new(ZONES), &window.zone) {
        Ok(zone) => state(window, &zone, now),
        Err(why) => WindowState::Unknown(why),
    }
}

/// Loads the zone `name`. Reads it again each time, so that a database that is installed later is found.
fn zone(folder: &Path, name: &str) -> Result<TimeZone, String> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    if !folder.is_dir() {
        return Err(format!(
            "the time zone {name} is unknown, because there is no {}; install tzdata",
            folder.display()
        ));
    }
    let path = folder.join(name);
    let unknown = || {
        format!("the time zone {name} is not in {}; check its name, or reinstall tzdata", folder.display())
    };
    if name.contains('.') || name.starts_with('/') || path.metadata().map_or(true, |m| m.len() > LARGEST_ZONE)
    {
        return Err(unknown());
    }
    let bytes = std::fs::read(&path).map_err(|_| unknown())?;
    TimeZone::tzif(name, &bytes).map_err(|_| unknown())
}

fn state(window: &Window, zone: &TimeZone, now: Timestamp) -> WindowState {
    let today = zone.to_datetime(now).date();
    for ahead in -1..=AHEAD {
        let Some((begin, end)) = today.checked_add(ahead.days()).ok().and_then(|day| span(window, zone, day))
        else {
            continue;
        };
        if begin > now {
            let opens_in = Duration::try_from(begin.duration_since(now)).unwrap_or_default();
            return WindowState::Closed { opens_in };
        }
        if now < end {
            return WindowState::Open;
        }
    }
    // The window has no day. The parser accepts no such window.
    WindowState::Closed { opens_in: Duration::from_secs(24 * 3600) }
}

/// Returns begin and end of the window that begins on `day`; `None` if none does.
fn span(window: &Window, zone: &TimeZone, day: Date) -> Option<(Timestamp, Timestamp)> {
    let weekday = usize::try_from(day.weekday().to_monday_zero_offset()).ok()?;
    if !*window.days.get(weekday)? {
        return None;
    }
    let last_day = if window.to < window.from { day.tomorrow().ok()? } else { day };
    let begin = instants(zone, at(day, window.from)?)?.0;
    let end = instants(zone, at(last_day, window.to)?)?.1;
    (begin < end).then_some((begin, end))
}

/// Converts minutes after midnight to a time of day; 24:00 is midnight of the next day.
fn at(day: Date, minutes: u16) -> Option<DateTime> {
    let (hour, minute) = (i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?);
    if hour == 24 {
        return Some(day.tomorrow().ok()?.to_datetime(Time::midnight()));
    }
    Some(day.to_datetime(Time::new(hour, minute, 0, 0).ok()?))
}

/// Returns when clocks in `zone` first and last show `time`. If they skip it, both are the moment of the jump.
fn instants(zone: &TimeZone, time: DateTime) -> Option<(Timestamp, Timestamp)> {
    let ambiguous = zone.to_ambiguous_timestamp(time);
    let offset = ambiguous.offset();
    let (earlier, later) = (ambiguous.earlier().ok()?, ambiguous.later().ok()?);
    match offset {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => Some((earlier, later)),
        AmbiguousOffset::Gap { .. } => {
            let jump = zone.following(earlier).next()?.timestamp();
            Some((jump, jump))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_clock_is_trusted_or_not() {
        let minute_before = Some("2026-12-01T00:00:00Z");
        for (now, seen_at, expected) in [
            ("1970-01-01T00:00:07Z", None, "shows 1970-01-01T00:00:07Z, which is before this version"),
            ("2026-10-31T23:59:59Z", None, "before this version"),
            ("2026-11-01T00:00:00Z", None, ""),
            ("2026-12-01T00:00:00Z", minute_before, ""),
            ("2026-11-30T23:59:00Z", minute_before, ""),
            ("2026-11-30T23:58:59Z", minute_before, "has shown 2026-12-01T00:00:00Z before; set it"),
            ("2036-01-01T00:00:00Z", minute_before, ""),
            ("2026-12-01T00:00:00Z", Some("yesterday"), ""),
        ] {
            match trust(time(now), seen_at) {
                Clock::Trusted => assert_eq!(expected, "", "{now}"),
                Clock::Untrusted(why) => {
                    assert!(!expected.is_empty() && why.contains(expected), "{now}: {why}")
                }
            }
        }
    }

    /// Zurich: 2026-03-29 02:00 becomes 03:00, 2026-10-25 03:00 becomes 02:00. Apia had no 2011-12-30 at all.
    #[test]
    fn windows_at_an_instant() {
        const OPEN: i64 = 0;
        let hour = 3600;
        for (text, now, opens_in) in [
            // 2027-01-04 is a Monday.
            ("02:00-04:00", "2027-01-04T01:59:59Z", 1),
            ("02:00-04:00", "2027-01-04T02:00:00Z", OPEN),
            ("02:00-04:00", "2027-01-04T03:59:59Z", OPEN),
            ("02:00-04:00", "2027-01-04T04:00:00Z", 22 * hour),
            ("00:00-24:00", "2027-01-04T23:59:59Z", OPEN),
            ("Sun 00:00-24:00", "2027-01-03T23:59:59Z", OPEN),
            ("Sun 00:00-24:00", "2027-01-04T00:00:00Z", 6 * 24 * hour),
            ("Mon 02:00-04:00", "2027-01-04T04:00:00Z", 7 * 24 * hour - 2 * hour),
            // Over midnight, it belongs to the day on which it begins.
            ("Mon 22:00-02:00", "2027-01-04T01:00:00Z", 21 * hour),
            ("Mon 22:00-02:00", "2027-01-04T22:00:00Z", OPEN),
            ("Mon 22:00-02:00", "2027-01-05T01:59:59Z", OPEN),
            ("Mon 22:00-02:00", "2027-01-05T02:00:00Z", 7 * 24 * hour - 4 * hour),
            ("Sun 22:00-02:00", "2027-01-04T01:00:00Z", OPEN),
            ("22:00-21:59", "2027-01-04T21:58:59Z", OPEN),
            ("22:00-21:59", "2027-01-04T21:59:00Z", 60),
            // The zone's clock and its day count, not those of UTC.
            ("02:00-04:00 Europe/Zurich", "2027-01-04T01:00:00Z", OPEN),
            ("02:00-04:00 Europe/Zurich", "2027-01-04T03:00:00Z", 22 * hour),
            ("02:00-04:00 Europe/Zurich", "2027-07-05T00:00:00Z", OPEN),
            ("Mon 08:00-09:00 Pacific/Auckland", "2027-01-03T19:30:00Z", OPEN),
            ("Mon 02:00-03:00 Asia/Kathmandu", "2027-01-03T20:15:00Z", OPEN),
            ("Mon 02:00-03:00 Asia/Kathmandu", "2027-01-03T20:14:59Z", 1),
            // A skipped hour is not in the window.
            ("02:00-04:00 Europe/Zurich", "2026-03-29T00:59:59Z", 1),
            ("02:00-04:00 Europe/Zurich", "2026-03-29T01:00:00Z", OPEN),
            ("02:00-04:00 Europe/Zurich", "2026-03-29T02:00:00Z", 22 * hour),
            ("01:30-02:30 Europe/Zurich", "2026-03-29T00:59:59Z", OPEN),
            ("01:30-02:30 Europe/Zurich", "2026-03-29T01:00:00Z", 22 * hour + hour / 2),
            ("02:15-02:45 Europe/Zurich", "2026-03-29T01:20:00Z", 23 * hour - hour / 12),
            ("Sun 02:00-03:00 Europe/Zurich", "2026-03-29T00:00:00Z", 7 * 24 * hour),
            // An hour that occurs twice is in it both times.
            ("02:00-03:00 Europe/Zurich", "2026-10-25T00:00:00Z", OPEN),
            ("02:00-03:00 Europe/Zurich", "2026-10-25T01:59:59Z", OPEN),
            ("02:00-03:00 Europe/Zurich", "2026-10-25T02:00:00Z", 23 * hour),
            ("01:00-02:30 Europe/Zurich", "2026-10-25T01:29:59Z", OPEN),
            ("01:00-02:30 Europe/Zurich", "2026-10-25T01:30:00Z", 22 * hour + hour / 2),
            ("22:00-04:00 Europe/Zurich", "2026-10-25T02:59:59Z", OPEN),
            ("22:00-04:00 Europe/Zurich", "2026-10-25T03:00:00Z", 18 * hour),
            ("Fri 02:00-04:00 Pacific/Apia", "2011-12-30T09:30:00Z", 6 * 24 * hour + 2 * hour + hour / 2),
            // The ends of time, where there is no next day.
            ("00:00-24:00", "9999-12-30T22:00:00Z", 24 * hour),
            ("22:00-04:00", "-009999-01-02T01:59:59Z", 20 * hour + 1),
        ] {
            let expected = match opens_in {
                OPEN => WindowState::Open,
                seconds => WindowState::Closed { opens_in: Duration::from_secs(seconds.unsigned_abs()) },
            };
            assert_eq!(window(&Window::parse(text).unwrap(), time(now)), expected, "{text} at {now}");
        }
    }

    #[test]
    fn a_window_of_no_day_never_opens() {
        let never = Window { days: [false; 7], ..Window::parse("01:00-02:00").unwrap() };
        let closed = WindowState::Closed { opens_in: Duration::from_secs(86_400) };
        assert_eq!(window(&never, time("2027-01-04T01:30:00Z")), closed);
    }

    #[test]
    fn the_error_for_an_unknown_zone_has_a_remedy() {
        let unknown = |zone: &str| {
            let asked = Window { zone: zone.to_owned(), ..Window::parse("01:00-02:00").unwrap() };
            match window(&asked, time("2027-01-04T01:30:00Z")) {
                WindowState::Unknown(why) => why,
                other @ (WindowState::Open | WindowState::Closed { .. }) => panic!("{zone}: {other:?}"),
            }
        };
        assert_eq!(
            unknown("Europe/Zurihc"),
            "the time zone Europe/Zurihc is not in /usr/share/zoneinfo; check its name, or reinstall tzdata"
        );
        for zone in ["Europe", "tzdata.zi", "../../../etc/passwd", "/etc/passwd", ""] {
            assert!(unknown(zone).contains("is not in"), "{zone}");
        }
        let why = zone(Path::new("/no/zoneinfo"), "Europe/Zurich").unwrap_err();
        assert_eq!(
            why,
            "the time zone Europe/Zurich is unknown, because there is no /no/zoneinfo; install tzdata"
        );
        assert!(zone(Path::new("/no/zoneinfo"), "UTC").is_ok(), "UTC needs no database");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Torn"), "TZif2\0\0").unwrap();
        assert!(zone(folder.path(), "Torn").is_err());
    }
}
