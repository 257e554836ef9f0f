//! Reads how long a poll may wait: `Prefer: wait=N` (RFC 7240, 4.3).

use axum::http::{HeaderMap, HeaderName, HeaderValue};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The longest wait, in seconds. A longer one becomes this one.
const LONGEST: u64 = 300;

/// Returns for how many seconds a request prefers to wait; `None` if it has no such preference, or none that can be read.
pub(super) fn wait(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    // The first one counts, and parameters after it have no meaning here.
    let value = preferences.find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then_some(value)
    })?;
    let digits = value.trim().trim_matches('"');
    let seconds = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    (seconds > 0).then_some(LONGEST.min(seconds))
}

/// The header that says for how long the server would wait, in seconds.
pub(super) fn applied(seconds: u64) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::from_str(&format!("wait={seconds}"));
    (APPLIED, value.unwrap_or(HeaderValue::from_static("wait")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences() {
        for (lines, expected) in [
            (&[][..], None),
            (&["wait=50"], Some(50)),
            (&["wait=1"], Some(1)),
            (&["wait=300"], Some(300)),
            (&["wait=301"], Some(300)),
            (&["wait=18446744073709551615"], Some(300)),
            (&["respond-async, wait=10"], Some(10)),
            (&["respond-async", "wait=10"], Some(10)),
            (&["Wait = \"10\""], Some(10)),
            (&["wait=10; foo=bar, wait=20"], Some(10)),
            (&["wait=0"], None),
            (&["wait=-1"], None),
            (&["wait=+1"], None),
            (&["wait=1.5"], None),
            (&["wait="], None),
            (&["wait"], None),
            (&["wait=99999999999999999999"], None),
            (&["waiting=5"], None),
            (&["foo=\"wait=5\""], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(PREFER, line.parse().unwrap());
            }
            assert_eq!(wait(&headers), expected, "{lines:?}");
        }
    }
}
