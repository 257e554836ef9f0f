//! `Idempotency-Key`: a request with a key is done once, however often it is sent.

use std::io::{self, Write};
use std::sync::OnceLock;

use axum::http::{HeaderMap, Uri};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::needs::Method;
use crate::fleet::access::By;
use crate::fleet::repeats::LONGEST_ANSWER;
use crate::fleet::secret;
use crate::model::text::is_one_line;

/// The header with the key.
pub(in crate::fleet) const HEADER: &str = "idempotency-key";

/// Maximum number of characters of a key.
const LONGEST_KEY: usize = 255;

/// The key of a request, and what the request is.
#[derive(Debug)]
pub(super) struct Key {
    /// Of the key and its user: two users may have the same key.
    pub(super) id: String,
    head: String,
    body: OnceLock<[u8; 32]>,
}

/// Identifies a key and its user.
pub(in crate::fleet) fn id_of(by: &By, key: &str) -> String {
    // The server's first token has no user, and no user has the empty name.
    let user = by.user.as_deref().unwrap_or_default();
    secret::hex(&Sha256::digest(format!("{user}\n{}", key.trim())))
}

/// The header is not a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadKey;

impl Key {
    /// Reads the key of a request; `None` if it has none.
    ///
    /// # Errors
    ///
    /// [`BadKey`].
    pub(super) fn of(
        headers: &HeaderMap,
        by: &By,
        method: Method,
        uri: &Uri,
    ) -> Result<Option<Self>, BadKey> {
        let mut given = headers.get_all(HEADER).iter();
        let Some(first) = given.next() else { return Ok(None) };
        let key = std::str::from_utf8(first.as_bytes()).map_err(|_| BadKey)?.trim();
        let is_good = (1..=LONGEST_KEY).contains(&key.chars().count()) && is_one_line(key);
        if !is_good || given.next().is_some() {
            return Err(BadKey);
        }
        Ok(Some(Self {
            id: id_of(by, key),
            head: format!("{} {uri}", method.as_str()),
            body: OnceLock::new(),
        }))
    }

    /// Takes the body of the request into account. Without a body it is never called.
    pub(super) fn has_body(&self, body: &[u8]) {
        let _known = self.body.set(Sha256::digest(body).into());
    }

    /// Identifies equal requests.
    pub(super) fn request(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(&self.head);
        hash.update("\n");
        hash.update(self.body.get().copied().unwrap_or_default());
        secret::hex(&hash.finalize())
    }
}

/// Returns an answer as it is kept; `None` if it is too long.
pub(super) fn kept<T: Serialize>(answer: &T) -> Option<String> {
    let mut bounded = Bounded(Vec::new());
    serde_json::to_writer(&mut bounded, answer).ok()?;
    String::from_utf8(bounded.0).ok()
}

/// Takes so many bytes, and then fails, so that a long answer costs no more than a short one.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST_ANSWER {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn key(user: Option<&str>, values: &[&str], path: &'static str) -> Result<Option<Key>, BadKey> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let by = By { user: user.map(str::to_owned), token: "t".into(), id: "0".into() };
        Key::of(&headers, &by, Method::Post, &Uri::from_static(path))
    }

    #[test]
    fn a_key_has_one_to_255_visible_characters() {
        let longest = "ä".repeat(255);
        for good in ["a", "\"quoted\"", "8e03978e-40d5-43dd-bc93-6894a57f9324", "a b", &longest] {
            assert!(key(None, &[good], "/x").unwrap().is_some(), "{good}");
        }
        assert!(key(None, &[], "/x").unwrap().is_none());
        for bad in [&[""][..], &[" "], &[&"a".repeat(256)], &["a\tb"], &["a", "b"]] {
            assert_eq!(key(None, bad, "/x").unwrap_err(), BadKey, "{bad:?}");
        }
    }

    #[test]
    fn requests_are_equal_if_user_key_path_query_and_body_are() {
        let of = |user, value, path, body: &[u8]| {
            let key = key(user, &[value], path).unwrap().unwrap();
            key.has_body(body);
            (key.id.clone(), key.request())
        };
        let first = of(Some("anna"), "k", "/x?a=1", b"{}");
        assert_eq!(first, of(Some("anna"), "k", "/x?a=1", b"{}"));
        for (user, value) in [(Some("ben"), "k"), (None, "k"), (Some("anna"), "l")] {
            assert_ne!(first.0, of(user, value, "/x?a=1", b"{}").0);
        }
        for (path, body) in [("/y?a=1", "{}"), ("/x", "{}"), ("/x?a=1", "{ }"), ("/x?a=1", "")] {
            assert_ne!(first.1, of(Some("anna"), "k", path, body.as_bytes()).1);
        }
    }

    #[test]
    fn a_long_answer_is_not_kept() {
        assert_eq!(kept(&vec![1, 2]).as_deref(), Some("[1,2]"));
        assert!(kept(&"x".repeat(LONGEST_ANSWER - 2)).is_some());
        assert_eq!(kept(&"x".repeat(LONGEST_ANSWER)), None);
    }
}
