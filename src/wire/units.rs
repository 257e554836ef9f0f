//! Parses sizes and durations of compose files.

use std::time::Duration;

/// A text that is not a size or a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {what}: write {accepts}")]
pub struct BadUnit {
    /// The text, shortened to 64 characters.
    pub given: String,
    pub what: &'static str,
    pub accepts: &'static str,
}

const SIZE: &str = "a whole number of bytes, or a number with b, k, m, g or t (powers of 1024), e.g. \"64m\"";
const DURATION: &str = "numbers with h, m, s, ms or us, e.g. \"10s\" or \"1m30s\", 8760h at most";
const LONGEST: Duration = Duration::from_secs(8760 * 3600);

/// Bytes of a size such as `64m`, `1.5g`, `512kb`, `2GiB` or `1024`. Units are powers of 1024, in
/// either case, with an optional `b` or `ib`; a fraction of a byte is dropped.
///
/// # Errors
///
/// [`BadUnit`] for anything else, and above the engine's 2^63 - 1.
pub fn size(text: &str) -> Result<u64, BadUnit> {
    let bad = || BadUnit { given: shortened(text), what: "a size", accepts: SIZE };
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let power = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(bad()),
    };
    let bytes = scaled(number, 1024_u128.pow(power)).ok_or_else(bad)?;
    if bytes > i64::MAX as u128 {
        return Err(bad());
    }
    u64::try_from(bytes).map_err(|_| bad())
}

/// A duration such as `10s`, `1m30s`, `2.5s` or `500ms`. A bare number is refused, because its unit
/// would be a guess; only `0` has none.
///
/// # Errors
///
/// [`BadUnit`] for anything else, and above 8760 h.
pub fn duration(text: &str) -> Result<Duration, BadUnit> {
    let bad = || BadUnit { given: shortened(text), what: "a duration", accepts: DURATION };
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| !c.is_ascii_alphabetic() && c != 'µ').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(bad()),
        };
        nanos = nanos.checked_add(scaled(number, unit).ok_or_else(bad)?).ok_or_else(bad)?;
        rest = after;
    }
    if text.trim().is_empty() || nanos > LONGEST.as_nanos() {
        return Err(bad());
    }
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| bad())
}

/// Returns the billionths of a number of 0 or more, e.g. `0.5`. `None` for any other text.
#[must_use]
pub fn billionths(text: &str) -> Option<u64> {
    let text = if text.starts_with('.') { format!("0{text}") } else { text.to_owned() };
    scaled(&text, 1_000_000_000).and_then(|n| u64::try_from(n).ok())
}

/// Returns `number` (digits with at most one point) times `unit`, rounded down. `None` if it is not a number or too long.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |text: &str| text.len() <= 19 && text.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || number.ends_with('.') || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let ten = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_mul(unit)?.checked_add(part.checked_mul(unit)? / ten)
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("10b", 10),
            ("64m", 67_108_864),
            ("64MB", 67_108_864),
            ("64MiB", 67_108_864),
            ("1.5g", 1_610_612_736),
            ("1 k", 1024),
            ("0.3b", 0),
            ("2t", 2_199_023_255_552),
            ("9223372036854775807", 9_223_372_036_854_775_807),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1.", ".5m", "1.2.3m", "64mm", "9223372036854775808", "9e9", "1m1k"]
        {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(
            size("lots").unwrap_err().to_string(),
            "\"lots\" is not a size: write a whole number of bytes, or a number with b, k, m, g or t \
             (powers of 1024), e.g. \"64m\""
        );
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("2.5s", 2_500),
            ("500ms", 500),
            ("1h", 3_600_000),
            ("2000us", 2),
            ("8760h", 31_536_000_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "10", "s", "10 s", "-1s", "1d", "8761h", "99999999999999999999h", "1s30", "1m 30s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(
            duration("30").unwrap_err().to_string(),
            "\"30\" is not a duration: write numbers with h, m, s, ms or us, e.g. \"10s\" or \"1m30s\", \
             8760h at most"
        );
    }

    #[test]
    fn parts_of_one() {
        let all = [("1", 1_000_000_000), ("0.5", 500_000_000), (".25", 250_000_000), ("0.0000000009", 0)];
        for (text, wanted) in all {
            assert_eq!(billionths(text), Some(wanted), "{text}");
        }
        for bad in ["", ".", "1.", "-1", "+1", "1e3", "a", "0x1", "99999999999999999999"] {
            assert_eq!(billionths(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,40}") {
            let _ = (size(&text), duration(&text));
        }

        #[test]
        fn whole_seconds_come_back(h in 0_u64..9, m in 0_u64..60, s in 0_u64..60) {
            let text = format!("{h}h{m}m{s}s");
            proptest::prop_assert_eq!(duration(&text), Ok(Duration::from_secs(h * 3600 + m * 60 + s)));
        }
    }
}
