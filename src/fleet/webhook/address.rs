//! Which URLs a webhook may have.

use crate::http::{self, Url};

/// Maximum number of bytes of a URL.
const LONGEST: usize = 2000;

/// Why a URL is not accepted. It is never quoted, because its path may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    #[error("it is not a URL; write it like https://ci.example.com/hooks/cotter")]
    NoUrl,
    #[error("it has more than 2000 characters")]
    TooLong,
    #[error("it is not https; http is accepted for this machine, and with allow_http (--allow-http)")]
    NotEncrypted,
    #[error("it has a user or a password; the signature says who sends, so leave them out")]
    Credentials,
    #[error("it has a fragment (#...), which is never sent; leave it out")]
    Fragment,
}

/// Checks the URL of a webhook. The owner of the server chooses it, so private addresses are accepted.
///
/// # Errors
///
/// [`BadAddress`].
pub fn check_address(text: &str, allows_http: bool) -> Result<(), BadAddress> {
    if text.len() > LONGEST {
        return Err(BadAddress::TooLong);
    }
    // A URL is stored as it is given, so nothing may be in it that the parser drops.
    let is_plain = text.chars().all(|c| !c.is_whitespace() && !c.is_control());
    let url = Url::parse(text).ok().filter(|url| is_plain && url.has_host()).ok_or(BadAddress::NoUrl)?;
    match url.scheme() {
        "https" => {}
        "http" if allows_http || http::is_loopback(&url) => {}
        "http" => return Err(BadAddress::NotEncrypted),
        _ => return Err(BadAddress::NoUrl),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(BadAddress::Credentials);
    }
    if url.fragment().is_some() { Err(BadAddress::Fragment) } else { Ok(()) }
}

/// Returns `true` if an answer from this URL comes from whoever the URL names: it is https, or this machine.
#[must_use]
pub fn is_authenticated(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.scheme() == "https" || http::is_loopback(&url))
}

/// Returns scheme, host and port of the URL of a webhook, which are no secret.
#[must_use]
pub fn origin(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "an invalid URL".to_owned(), |url| http::origin(&url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_for_this_machine_or_by_leave() {
        for (url, allows_http, expected) in [
            ("https://ci.example.com/hooks?a=b", false, Ok(())),
            ("https://10.0.0.8:8443/", false, Ok(())),
            ("http://127.0.0.1:9000/hook", false, Ok(())),
            ("http://localhost/hook", false, Ok(())),
            ("http://ci.example.com/", false, Err(BadAddress::NotEncrypted)),
            ("http://ci.example.com/", true, Ok(())),
            ("http://127.0.0.1.example.com/", false, Err(BadAddress::NotEncrypted)),
            ("ftp://ci.example.com/", true, Err(BadAddress::NoUrl)),
            ("file:///etc/passwd", true, Err(BadAddress::NoUrl)),
            ("ci.example.com/hook", true, Err(BadAddress::NoUrl)),
            ("", false, Err(BadAddress::NoUrl)),
            ("https://ci.example.com/\nx", false, Err(BadAddress::NoUrl)),
            ("https://anna:pw@ci.example.com/", false, Err(BadAddress::Credentials)),
            ("https://anna@ci.example.com/", false, Err(BadAddress::Credentials)),
            ("https://ci.example.com/#x", false, Err(BadAddress::Fragment)),
        ] {
            assert_eq!(check_address(url, allows_http), expected, "{url}");
            let is_secure = !url.starts_with("http://ci");
            assert!(expected.is_err() || is_authenticated(url) == is_secure, "{url}");
        }
        let long = format!("https://ci.example.com/{}", "x".repeat(2000));
        assert_eq!(check_address(&long, false), Err(BadAddress::TooLong));
        assert_eq!(origin("https://ci.example.com/secret?key=1"), "https://ci.example.com");
    }
}
