//! Answers, and bounded ways to read them.

use std::time::Duration;

use httpdate::parse_http_date;
use hyper::body::Bytes;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::{Failure, failed};

/// Maximum number of bytes that are read of an error answer.
const WORDS: usize = 4 * 1024;

/// The shortest and the longest `Retry-After` that is respected.
const AWAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// An answer whose body is not read yet. Dropping it closes its connection.
#[derive(Debug)]
pub struct Answer {
    response: Response,
}

impl Answer {
    pub(super) fn new(response: Response) -> Self {
        Self { response }
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Returns the first value of a header, if it is text.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Returns all values of a header that are text.
    pub fn headers(&self, name: &HeaderName) -> impl Iterator<Item = &str> {
        self.response.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// Returns how long the server asks us to wait: see [`retry_after`].
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(self.response.headers())
    }

    /// Reads the next piece of the body, after decompression; `None` at its end.
    ///
    /// # Errors
    ///
    /// If the connection breaks, or the deadline of the request passes.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.response.chunk().await.map_err(failed)
    }

    /// Reads the complete body, of at most `most` bytes after decompression.
    ///
    /// # Errors
    ///
    /// [`Failure::TooLong`] as soon as there are more bytes; otherwise as [`next`](Self::next).
    pub async fn body(mut self, most: usize) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(piece) = self.next().await? {
            if body.len() + piece.len() > most {
                return Err(Failure::TooLong(most));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// Reads the first 4 KiB of the body, for an error answer. Returns what arrived before the body ended or the deadline
    /// passed.
    pub async fn beginning(mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Ok(Some(piece)) = self.next().await {
            body.extend_from_slice(&piece[..piece.len().min(WORDS - body.len())]);
            if body.len() == WORDS {
                break;
            }
        }
        body
    }
}

/// Parses `Retry-After`, in seconds or as a date, and bounds it to 1 s … 1 h. A date is compared with the server's own
/// clock, because ours may be wrong.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let value = text(RETRY_AFTER)?;
    let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let after = if is_number {
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let parse = |text: &str| parse_http_date(text).ok();
        let (now, then) = (parse(text(DATE)?)?, parse(value)?);
        then.duration_since(now).unwrap_or_default()
    };
    Some(after.clamp(AWAY.0, AWAY.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_parsed() {
        let date = "Wed, 25 Nov 2026 08:00:00 GMT";
        for (value, date, seconds) in [
            ("30", None, Some(30)),
            (" 30 ", None, Some(30)),
            ("0", None, Some(1)),
            ("86400", None, Some(3600)),
            ("99999999999999999999999", None, Some(3600)),
            ("Wed, 25 Nov 2026 08:02:00 GMT", Some(date), Some(120)),
            ("Wed, 25 Nov 2026 07:00:00 GMT", Some(date), Some(1)),
            ("Fri, 25 Dec 2026 08:00:00 GMT", Some(date), Some(3600)),
            ("Wed, 25 Nov 2026 08:02:00 GMT", None, None),
            ("soon", Some(date), None),
            ("-5", Some(date), None),
            ("1.5", Some(date), None),
            ("", Some(date), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            date.map(|date| headers.insert(DATE, date.parse().unwrap()));
            assert_eq!(retry_after(&headers), seconds.map(Duration::from_secs), "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
