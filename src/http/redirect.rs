//! Decides which redirects are followed. Pure.
//!
//! reqwest 0.13.5 must not decide this. It removes the credentials from a request that is redirected to another origin,
//! but adds them again if that origin redirects once more within itself (seen with
//! `tests::reqwest_itself_leaks_a_credential_on_the_second_redirect`).

use reqwest::header::LOCATION;
use reqwest::{Method, Response, StatusCode, Url};

use super::{Failure, is_loopback, origin};

/// Where redirects of a request may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// To the same scheme, host and port only.
    SameOrigin,
    /// To other servers, without credentials; for content that the reader verifies. Never from https to plain HTTP, and
    /// never from another machine to this one.
    Anywhere,
}

/// Maximum number of redirects to follow.
const MOST: usize = 5;

/// Returns the location to which an answer redirects, as text.
pub(super) fn location(answer: &Response) -> Option<String> {
    let is_redirect = matches!(
        answer.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = answer.headers().get(LOCATION).filter(|_| is_redirect)?;
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}

/// Returns the URL of the next request, after `redirects` others.
pub(super) fn next(
    from: &Url,
    location: &str,
    method: &Method,
    follow: Follow,
    redirects: usize,
) -> Result<Url, Failure> {
    let Ok(mut to) = from.join(location) else {
        let to = "an address that cannot be read".to_owned();
        return Err(Failure::Redirected { to, why: "which is not followed" });
    };
    let refused = |why| Err(Failure::Redirected { to: origin(&to), why });
    if !matches!(to.scheme(), "http" | "https") {
        return refused("which is not HTTP");
    }
    if from.scheme() == "https" && to.scheme() == "http" {
        return refused("which is not encrypted, while the first server is");
    }
    if *method != Method::GET && *method != Method::HEAD {
        return refused("but a request that changes something is not sent a second time");
    }
    let is_same = from.origin() == to.origin();
    match follow {
        Follow::SameOrigin if !is_same => {
            return refused("which is another server; our key is not sent there");
        }
        Follow::Anywhere if !is_same && is_loopback(&to) && !is_loopback(from) => {
            return refused("which is this machine");
        }
        Follow::Anywhere if to.scheme() == "http" && !is_same && !is_loopback(&to) => {
            return refused("which is not encrypted");
        }
        Follow::SameOrigin | Follow::Anywhere => {}
    }
    if redirects >= MOST {
        return refused("after too many redirects");
    }
    // reqwest would send them as credentials.
    let _ = (to.set_username(""), to.set_password(None));
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_of(from: &str, location: &str, method: Method, follow: Follow) -> String {
        match next(&Url::parse(from).unwrap(), location, &method, follow, 0) {
            Ok(url) => url.to_string(),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn requests_with_credentials_stay_at_their_origin() {
        let other = "which is another server; our key is not sent there";
        for (from, location, expected) in [
            ("https://api.example/a", "/b?c=d", "https://api.example/b?c=d".to_owned()),
            ("https://api.example/a", "https://api.example:443/b", "https://api.example/b".to_owned()),
            ("https://api.example/a", "//API.EXAMPLE/b", "https://api.example/b".to_owned()),
            ("https://api.example/a", "https://u:p@api.example/b", "https://api.example/b".to_owned()),
            (
                "https://api.example/a",
                "https://api.example:8443/b",
                format!("it redirects to https://api.example:8443, {other}"),
            ),
            (
                "https://api.example/a",
                "https://evil.example/b",
                format!("it redirects to https://evil.example, {other}"),
            ),
            (
                "https://api.example/a",
                "https://api.example@evil.example/",
                format!("it redirects to https://evil.example, {other}"),
            ),
            (
                "https://api.example/a",
                "//evil.example",
                format!("it redirects to https://evil.example, {other}"),
            ),
            (
                "https://api.example/a",
                "\\\\evil.example/x",
                format!("it redirects to https://evil.example, {other}"),
            ),
            (
                "https://api.example/a",
                "http://api.example/a",
                "it redirects to http://api.example, which is not encrypted, while the first server is"
                    .to_owned(),
            ),
            (
                "http://api.example/a",
                "https://api.example/a",
                format!("it redirects to https://api.example, {other}"),
            ),
            (
                "http://127.0.0.1:1/a",
                "http://127.0.0.1:2/a",
                format!("it redirects to http://127.0.0.1:2, {other}"),
            ),
            (
                "https://api.example/a",
                "file:///etc/passwd",
                "it redirects to null, which is not HTTP".to_owned(),
            ),
            (
                "https://api.example/a",
                "https://[::",
                "it redirects to an address that cannot be read, which is not followed".to_owned(),
            ),
        ] {
            assert_eq!(next_of(from, location, Method::GET, Follow::SameOrigin), expected, "{location}");
        }
        for method in [Method::POST, Method::PATCH, Method::DELETE] {
            let next = next_of("https://api.example/a", "/b", method, Follow::SameOrigin);
            assert_eq!(
                next,
                "it redirects to https://api.example, but a request that changes something is not sent a second time"
            );
        }
    }

    #[test]
    fn content_may_be_elsewhere_but_not_in_the_clear_nor_on_this_machine() {
        for (from, location, expected) in [
            ("https://r.example/v2/a", "https://cdn.example/b?sig=1", "https://cdn.example/b?sig=1"),
            (
                "https://r.example/v2/a",
                "http://cdn.example/b",
                "it redirects to http://cdn.example, which is not encrypted, while the first server is",
            ),
            (
                "https://r.example/v2/a",
                "https://127.0.0.1/b",
                "it redirects to https://127.0.0.1, which is this machine",
            ),
            (
                "https://r.example/v2/a",
                "https://localhost:2375/b",
                "it redirects to https://localhost:2375, which is this machine",
            ),
            ("http://127.0.0.1:5000/v2/a", "http://127.0.0.1:9000/b", "http://127.0.0.1:9000/b"),
            ("http://127.0.0.1:5000/v2/a", "https://cdn.example/b", "https://cdn.example/b"),
            (
                "http://127.0.0.1:5000/v2/a",
                "http://cdn.example/b",
                "it redirects to http://cdn.example, which is not encrypted",
            ),
        ] {
            assert_eq!(next_of(from, location, Method::GET, Follow::Anywhere), expected, "{location}");
        }
    }

    #[test]
    fn a_circle_ends() {
        let url = Url::parse("https://api.example/a").unwrap();
        assert!(next(&url, "/a", &Method::GET, Follow::SameOrigin, MOST - 1).is_ok());
        let error = next(&url, "/a", &Method::GET, Follow::SameOrigin, MOST).unwrap_err().to_string();
        assert_eq!(error, "it redirects to https://api.example, after too many redirects");
    }
}
