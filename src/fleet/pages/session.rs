//! Who is signed in: sessions in memory, bounded in number and time. Pure: callers pass the time.
//!
//! A session keeps the hash of a token, never the token, and is itself found by the hash of its cookie. It ends with its token,
//! because every request asks the gate again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use tokio::time::Instant;

use crate::fleet::policy::KeyHash;
use crate::fleet::secret;

/// Maximum number of sessions. A new one takes the place of the one that was unused for longest.
const MOST: usize = 1000;
/// Maximum number of sessions of one token, so that no user can end those of others.
const MOST_OF_TOKEN: usize = 50;
/// A session ends when it was unused for so long, and at the latest after so long.
pub(super) const IDLE: Duration = Duration::from_secs(2 * 60 * 60);
pub(super) const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_cookie: Mutex<HashMap<KeyHash, Session>>,
}

#[derive(Debug)]
struct Session {
    token: KeyHash,
    csrf: String,
    begun: Instant,
    used: Instant,
    message: Option<String>,
}

/// What a request needs to know of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) token: KeyHash,
    /// The text that every form has, and that no other site knows.
    pub(super) csrf: String,
}

impl Sessions {
    /// Begins a session. `cookie` and `csrf` are random.
    pub(super) fn begin(&self, cookie: &str, csrf: String, token: KeyHash, now: Instant) {
        let mut sessions = self.locked();
        sessions.retain(|_, session| !session.is_over(now));
        let oldest = |sessions: &HashMap<KeyHash, Session>, only: Option<&KeyHash>| {
            let among =
                sessions.iter().filter(|(_, session)| only.is_none_or(|token| session.token == *token));
            among.min_by_key(|(_, session)| session.used).map(|(cookie, _)| cookie.clone())
        };
        let of_token = sessions.values().filter(|session| session.token == token).count();
        let gone = match of_token >= MOST_OF_TOKEN {
            true => oldest(&sessions, Some(&token)),
            false if sessions.len() >= MOST => oldest(&sessions, None),
            false => None,
        };
        gone.map(|gone| sessions.remove(&gone));
        let session = Session { token, csrf, begun: now, used: now, message: None };
        sessions.insert(secret::hash(cookie), session);
    }

    /// Finds a session. A request of a person counts as use (`is_use`); a page's automatic reload does not.
    pub(super) fn find(&self, cookie: &str, is_use: bool, now: Instant) -> Option<Found> {
        let mut sessions = self.locked();
        let session =
            sessions.get_mut(&secret::hash_given(cookie)?).filter(|session| !session.is_over(now))?;
        if is_use {
            session.used = now;
        }
        Some(Found { token: session.token.clone(), csrf: session.csrf.clone() })
    }

    /// Keeps a message for the next page of a session.
    pub(super) fn tell(&self, cookie: &str, message: String) {
        if let Some(session) = self.locked().get_mut(&secret::hash(cookie)) {
            session.message = Some(message);
        }
    }

    pub(super) fn take_message(&self, cookie: &str) -> Option<String> {
        self.locked().get_mut(&secret::hash(cookie))?.message.take()
    }

    pub(super) fn end(&self, cookie: &str) {
        self.locked().remove(&secret::hash(cookie));
    }

    /// Ends all sessions of a token.
    pub(super) fn end_all(&self, token: &KeyHash) {
        self.locked().retain(|_, session| session.token != *token);
    }

    /// Ignores poisoning, because a panic elsewhere does not invalidate the sessions.
    fn locked(&self) -> MutexGuard<'_, HashMap<KeyHash, Session>> {
        self.by_cookie.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.used) >= IDLE || now.duration_since(self.begun) >= LONGEST
    }
}

/// The name of the cookie. With the prefix a browser takes it only over TLS and for this host alone.
fn name(is_secure: bool) -> &'static str {
    if is_secure { "__Host-cotter" } else { "cotter" }
}

/// Returns the header that sets the cookie; an empty value removes it.
pub(super) fn set_cookie(value: &str, is_secure: bool) -> String {
    let age = if value.is_empty() { 0 } else { LONGEST.as_secs() };
    let secure = if is_secure { "; Secure" } else { "" };
    format!("{}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}", name(is_secure))
}

/// Returns the cookie of a request.
pub(super) fn cookie(headers: &HeaderMap, is_secure: bool) -> Option<String> {
    let texts = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut ours = pairs.filter(|(key, _)| *key == name(is_secure));
    ours.next().map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn token(name: &str) -> KeyHash {
        KeyHash(name.to_owned())
    }

    #[tokio::test]
    async fn a_session_ends_when_it_is_unused_and_at_the_latest_after_its_time() {
        let (sessions, begun) = (Sessions::default(), Instant::now());
        sessions.begin("a", "csrf".into(), token("t"), begun);
        let found = Found { token: token("t"), csrf: "csrf".into() };
        assert_eq!(sessions.find("a", true, begun), Some(found));
        assert_eq!(sessions.find("b", true, begun), None);
        assert!(sessions.find("a", false, begun + IDLE / 2).is_some(), "this is no use of it");
        assert_eq!(sessions.find("a", true, begun + IDLE), None);
        let mut now = begun;
        while sessions.find("a", true, now).is_some() {
            now += IDLE / 2;
        }
        assert_eq!(now.duration_since(begun), LONGEST);
    }

    #[tokio::test]
    async fn sessions_are_bounded_and_a_token_displaces_only_its_own() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        sessions.begin("first", String::new(), token("other"), now);
        for n in 0..u32::try_from(MOST_OF_TOKEN).unwrap() + 5 {
            sessions.begin(&format!("c{n}"), String::new(), token("t"), now + Duration::from_secs(n.into()));
        }
        assert!(sessions.find("first", true, now).is_some());
        assert_eq!(sessions.locked().len(), MOST_OF_TOKEN + 1);
        assert!(sessions.find("c4", true, now).is_none() && sessions.find("c5", true, now).is_some());
        sessions.end_all(&token("t"));
        assert_eq!(sessions.locked().len(), 1);
        sessions.end("first");
        for n in 0..MOST + 5 {
            sessions.begin(&format!("d{n}"), String::new(), token(&n.to_string()), now);
        }
        assert_eq!(sessions.locked().len(), MOST);
    }

    #[test]
    fn the_cookie_is_for_this_host_alone() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("x=1; cotter=plain; __Host-cotter=secure"));
        assert_eq!(cookie(&headers, false).as_deref(), Some("plain"));
        assert_eq!(cookie(&headers, true).as_deref(), Some("secure"));
        assert!(set_cookie("v", true).ends_with("; HttpOnly; SameSite=Strict; Secure"));
        assert!(set_cookie("", false).contains("Max-Age=0"));
    }
}
