//! Reads the fields of a form or of a query, and writes queries. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but the characters that have no meaning in any part of a URL (RFC 3986, unreserved).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The fields of a form, in its order. A name may occur several times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Parses `application/x-www-form-urlencoded`. What is not UTF-8 is replaced.
    pub(super) fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// Returns the first value of a name, unless it is blank.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim());
        found.filter(|value| !value.is_empty())
    }

    /// As [`Self::get`]; empty if there is none.
    pub(super) fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// Returns all fields but these.
    pub(super) fn without<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
        let kept = self.0.iter().filter(|(key, _)| !names.contains(&key.as_str()));
        kept.map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// Writes a query, without `?` and without fields that have no value.
pub(super) fn query<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let kept = fields.into_iter().filter(|(_, value)| !value.is_empty());
    kept.map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect::<Vec<_>>().join("&")
}

/// Percent-encodes a text for any part of a URL.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Returns an address of this server to go on to, if it is nothing else: a path, with a query.
pub(super) fn local(address: Option<&str>) -> Option<String> {
    let address = address?;
    // A browser takes `//host` and `/\host` for another server.
    let is_path = address.starts_with('/') && !address[1..].starts_with(['/', '\\']);
    let is_plain = address.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\\"<>".contains(&byte));
    (is_path && is_plain && address.len() <= 4000).then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_browsers_write_them() {
        let fields = Fields::parse("a=1&b=x+y%2B%C3%A4&a=2&c&=&d=%zz%4&e=%ff");
        assert_eq!(fields.all("a"), ["1", "2"]);
        assert_eq!((fields.get("b"), fields.get("c"), fields.get("d")), (Some("x y+ä"), None, Some("%zz%4")));
        assert_eq!(fields.text("e"), "\u{fffd}");
        let written = query([("n m", "ä&=/"), ("none", ""), ("z", "+")]);
        assert_eq!(written, "n%20m=%C3%A4%26%3D%2F&z=%2B");
        assert_eq!(Fields::parse(&written).text("n m"), "ä&=/");
    }

    #[test]
    fn only_a_path_of_this_server_is_gone_on_to() {
        for good in ["/", "/fleets/1?state=failing&filter=a%3Db"] {
            assert_eq!(local(Some(good)).as_deref(), Some(good));
        }
        for bad in [
            "",
            "fleets",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a b",
            "/\n/x",
            "/\u{e4}",
        ] {
            assert_eq!(local(Some(bad)), None, "{bad:?}");
        }
        assert_eq!(local(None), None);
    }
}
