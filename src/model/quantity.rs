//! Numbers, times and sizes for people.

/// A number of things: "1 device", "2 devices". `noun` is one whose plural ends with `s`.
#[must_use]
pub fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    // No count is larger than a u64: the largest that there are is a usize.
    let count: u64 = count.try_into().unwrap_or(u64::MAX);
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{s}")
}

/// How often something happened: "once", "2 times".
#[must_use]
pub fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// A number of seconds in its largest unit: "40 s", "2 min", "22 h", "3 days".
#[must_use]
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A number of bytes in its largest unit, with a decimal below 10: "1.2 MiB".
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let Some((shift, unit)) = units.into_iter().find(|(shift, _)| bytes >> shift > 0) else {
        return format!("{bytes} B");
    };
    let tenths = (u128::from(bytes) * 10) >> shift;
    if tenths < 100 {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    } else {
        format!("{} {unit}", tenths / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        for (count, expected) in [(0, "0 devices"), (1, "1 device"), (2, "2 devices")] {
            assert_eq!(counted(count, "device"), expected);
        }
        assert_eq!(counted(u64::MAX, "byte"), "18446744073709551615 bytes");
        assert_eq!((times(1), times(2)), ("once".to_owned(), "2 times".to_owned()));
    }

    #[test]
    fn in_the_largest_unit() {
        for (bytes_, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_258_291, "1.1 MiB"),
            (10 << 20, "10 MiB"),
            ((1 << 30) - 1, "1023 MiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(bytes(bytes_), expected);
        }
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (172_799, "47 h"),
            (172_800, "2 days"),
        ] {
            assert_eq!(span(seconds), expected);
        }
    }
}
