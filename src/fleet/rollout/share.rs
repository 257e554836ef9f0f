//! Shares of a whole, rates and lengths of time, as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A share of a whole, exact to a millionth: `0.5%`, `100%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    millionths: u32,
}

/// A text that is not a share, a rate or a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {what}")]
pub struct BadQuantity {
    given: String,
    what: &'static str,
}

impl BadQuantity {
    fn new(given: &str, what: &'static str) -> Self {
        Self { given: given.chars().take(80).collect(), what }
    }
}

impl Share {
    const WHOLE: u32 = 1_000_000;
    pub const ALL: Self = Self { millionths: Self::WHOLE };

    /// Returns a share of that many hundredths of a percent, at most the whole.
    #[must_use]
    pub const fn of_ten_thousand(parts: u32) -> Self {
        let millionths = parts.saturating_mul(100);
        Self { millionths: if millionths > Self::WHOLE { Self::WHOLE } else { millionths } }
    }

    /// Returns which share `part` is of `all`; `None` if it is none at all.
    #[must_use]
    pub fn of_counts(part: u64, all: u64) -> Option<Self> {
        let millionths = (u128::from(part) * u128::from(Self::WHOLE)).checked_div(u128::from(all))?;
        let millionths = u32::try_from(millionths).unwrap_or(Self::WHOLE).min(Self::WHOLE);
        (millionths > 0).then_some(Self { millionths })
    }

    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.millionths) / f64::from(Self::WHOLE)
    }

    /// Returns the least number that is at least this share of `all`.
    #[must_use]
    pub fn of(self, all: u64) -> u64 {
        let product = u128::from(all) * u128::from(self.millionths);
        u64::try_from(product.div_ceil(u128::from(Self::WHOLE))).unwrap_or(u64::MAX)
    }

    /// Returns `true` if `part` is more than this share of `all`.
    #[must_use]
    pub fn is_exceeded_by(self, part: u64, all: u64) -> bool {
        u128::from(part) * u128::from(Self::WHOLE) > u128::from(all) * u128::from(self.millionths)
    }

    /// Returns `true` if a point of the range of all `u64` is in the first part of this share.
    #[must_use]
    pub fn contains(self, point: u64) -> bool {
        let point = u128::from(point) * u128::from(Self::WHOLE);
        point < u128::from(self.millionths) << 64
    }
}

impl FromStr for Share {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bad = || {
            BadQuantity::new(text, "a share above 0% and up to 100%, with at most four decimals, like 0.5%")
        };
        let number = text.trim().strip_suffix('%').ok_or_else(bad)?.trim_end();
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(decimals) || whole.len() > 3 || decimals.len() > 4 {
            return Err(bad());
        }
        let digits = format!("{whole}{decimals:0<4}");
        let millionths = digits.parse().map_err(|_| bad())?;
        (1..=Self::WHOLE).contains(&millionths).then_some(Self { millionths }).ok_or_else(bad)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.millionths / 10_000, self.millionths % 10_000);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        let decimals = format!("{rest:04}");
        write!(f, "{whole}.{}%", decimals.trim_end_matches('0'))
    }
}

/// How many devices in which time: `500/h`, `20/min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    devices: u32,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Minute,
    Hour,
    Day,
}

impl Rate {
    /// Returns the time between two devices.
    #[must_use]
    pub fn interval(self) -> Duration {
        let seconds = match self.unit {
            Unit::Minute => 60,
            Unit::Hour => 3_600,
            Unit::Day => 86_400,
        };
        Duration::from_secs(seconds) / self.devices
    }
}

impl FromStr for Rate {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bad = || BadQuantity::new(text, "a rate from 1 to 1000000 devices in a min, h or d, like 500/h");
        let (devices, unit) = text.trim().split_once('/').ok_or_else(bad)?;
        let unit = match unit.trim() {
            "min" => Unit::Minute,
            "h" => Unit::Hour,
            "d" => Unit::Day,
            _ => return Err(bad()),
        };
        let devices = devices.trim().parse().ok().filter(|devices| (1..=1_000_000).contains(devices));
        Ok(Self { devices: devices.ok_or_else(bad)?, unit })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Minute => "min",
            Unit::Hour => "h",
            Unit::Day => "d",
        };
        write!(f, "{}/{unit}", self.devices)
    }
}

/// A length of time in whole seconds: `30min`, `2h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for Span {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let longest = Duration::from_secs(366 * 86_400);
        let parsed = humantime::parse_duration(text.trim()).ok();
        let parsed = parsed.filter(|parsed| *parsed <= longest && parsed.subsec_nanos() == 0);
        parsed.map(Self).ok_or_else(|| {
            BadQuantity::new(text, "a time of whole seconds and at most a year, like 30min or 2h")
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// Writes and reads a type in JSON as the text that people write.
macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}
pub(super) use as_text;

as_text!(Share, Rate, Span);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_as_people_write_them() {
        for (text, shown) in
            [("1%", "1%"), ("0.5%", "0.5%"), ("100%", "100%"), (" 12.50 % ", "12.5%"), ("0.0001%", "0.0001%")]
        {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), shown);
        }
        for text in
            ["0%", "0.0%", "101%", "100.1%", "1", "%", "-1%", "1.%", ".5%", "1e1%", "0.00001%", "1000%", "١%"]
        {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        let share = |text: &str| text.parse::<Share>().unwrap();
        assert_eq!(
            (share("95%").of(20), share("95%").of(21), share("0.5%").of(1), share("1%").of(0)),
            (19, 20, 1, 0)
        );
        assert!(Share::ALL.contains(u64::MAX) && share("50%").contains(u64::MAX / 2));
        assert!(!share("50%").contains(u64::MAX / 2 + 1));
    }

    #[test]
    fn rates_and_times_as_people_write_them() {
        let rate = |text: &str| text.parse::<Rate>();
        assert_eq!(rate("500/h").unwrap().interval(), Duration::from_millis(7_200));
        assert_eq!(rate(" 20 / min").unwrap().to_string(), "20/min");
        for text in ["0/h", "500", "500/s", "-1/h", "1000001/d", "1.5/h", "/h"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert_eq!("90min".parse::<Span>().unwrap().to_string(), "1h 30m");
        for text in ["", "30", "1500ms", "2years", "-1h"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
