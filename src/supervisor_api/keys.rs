//! Finds the service to which the key of a request belongs.

use axum::http::{HeaderMap, header};

use crate::model::{ApiClient, ApiKey, ApiView};

/// Returns the key of a request: that of its query, or else of its header `Authorization`.
pub(super) fn key<'a>(query: Option<&'a str>, headers: &'a HeaderMap) -> Option<&'a str> {
    let in_query =
        query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| pair.strip_prefix("apikey="));
    in_query.or_else(|| {
        let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
        let is_known = ["apikey", "bearer"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        is_known.then(|| key.trim())
    })
}

/// Returns the service that has this key.
pub(super) fn client<'a>(view: &'a ApiView, key: &str) -> Option<&'a ApiClient> {
    view.clients.iter().find(|client| is_same(&client.key.secret, key))
}

/// Returns whether this is the key that the cloud has from the device's report.
pub(super) fn is_of_cloud(known: &Option<ApiKey>, given: &str) -> bool {
    known.as_ref().is_some_and(|known| is_same(&known.secret, given))
}

/// Compares two keys in constant time, for keys of one length.
fn is_same(known: &str, given: &str) -> bool {
    let differences = known.bytes().zip(given.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    known.len() == given.len() && differences == 0 && !known.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_the_query_or_in_a_header() {
        let found = |query: Option<&str>, header: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, header.parse().unwrap());
            key(query, &headers).map(str::to_owned)
        };
        for (query, header, expected) in [
            (Some("apikey=abc"), "", Some("abc")),
            (Some("force=1&apikey=abc"), "Bearer def", Some("abc")),
            (None, "Bearer def", Some("def")),
            (None, "ApiKey def", Some("def")),
            (Some("xapikey=abc"), "bearer  def ", Some("def")),
            (None, "Basic def", None),
            (None, "def", None),
        ] {
            assert_eq!(found(query, header).as_deref(), expected, "{query:?} {header}");
        }
    }

    #[test]
    fn keys_are_the_same_only_as_a_whole() {
        assert!(is_same("abc", "abc"));
        for given in ["", "ab", "abcd", "abd", "ABC"] {
            assert!(!is_same("abc", given), "{given}");
        }
        assert!(!is_same("", ""));
    }
}
