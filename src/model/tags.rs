//! The rules for the tags of a device: the server holds them for all tags, and a device for those that it asks for.

use std::collections::BTreeMap;

use super::text::is_one_line;

/// A tag of a device, as its cloud has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceTag {
    /// The cloud's number of the tag.
    pub id: u64,
    pub key: String,
    pub value: String,
}

/// Maximum number of tags of a device.
pub const MOST_TAGS: usize = 100;

/// Most bytes of the key and of the value of a tag that a service sets. A balena API takes them; our own server takes less.
pub const LONGEST_SET_KEY: usize = 255;
pub const LONGEST_SET_VALUE: usize = 4096;

/// What is accepted as the key of a tag.
pub const TAG_KEY_ACCEPTS: &str =
    "a key has 1 to 100 letters, digits, '_', '.', '-', ':' and '/', nothing else";

/// What is accepted as the value of a tag.
pub const TAG_VALUE_ACCEPTS: &str =
    "a value has at most 255 bytes of visible characters and single spaces inside, and no ',', '=' or '!'";

/// Returns whether a text can be the key of a tag.
#[must_use]
pub fn is_tag_key(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ':' | '/'))
}

/// Returns whether a text can be the value of a tag.
#[must_use]
pub fn is_tag_value(text: &str) -> bool {
    text.len() <= 255
        && is_one_line(text)
        && !text.contains([',', '=', '!'])
        && !text.starts_with(' ')
        && !text.ends_with(' ')
        && !text.contains("  ")
}

/// Reads tags `key=value`.
///
/// # Errors
///
/// The first tag that is not accepted, and what is.
pub fn parse_tags<'a>(
    given: impl IntoIterator<Item = &'a str>,
) -> Result<BTreeMap<String, String>, (String, &'static str)> {
    let mut tags = BTreeMap::new();
    for tag in given {
        let bad = |accepts| (tag.to_owned(), accepts);
        let (key, value) = tag.split_once('=').ok_or(bad("a tag is KEY=VALUE, e.g. site=zurich"))?;
        if !is_tag_key(key) {
            return Err(bad(TAG_KEY_ACCEPTS));
        }
        if !is_tag_value(value) {
            return Err(bad(TAG_VALUE_ACCEPTS));
        }
        if tags.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(bad("a key can be given once only"));
        }
        if tags.len() > MOST_TAGS {
            return Err(bad("a device has at most 100 tags"));
        }
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_as_they_are_given() {
        let parsed = parse_tags(["site=zurich", "rack="]).unwrap();
        assert_eq!(
            parsed,
            BTreeMap::from([("site".into(), "zurich".into()), ("rack".into(), String::new())])
        );
        for (given, accepts) in [
            ("site", "a tag is KEY=VALUE, e.g. site=zurich"),
            ("=x", TAG_KEY_ACCEPTS),
            ("a b=x", TAG_KEY_ACCEPTS),
            ("a=b=c", TAG_VALUE_ACCEPTS),
            ("a=b,c", TAG_VALUE_ACCEPTS),
            ("a= b", TAG_VALUE_ACCEPTS),
            ("a=b\u{1b}", TAG_VALUE_ACCEPTS),
        ] {
            assert_eq!(parse_tags([given]), Err((given.to_owned(), accepts)));
        }
        assert_eq!(parse_tags(["a=1", "a=2"]), Err(("a=2".to_owned(), "a key can be given once only")));
        let many: Vec<_> = (0..=MOST_TAGS).map(|n| format!("k{n}=v")).collect();
        assert!(parse_tags(many.iter().map(String::as_str)).is_err());
        assert!(parse_tags(many.iter().skip(1).map(String::as_str)).is_ok());
    }
}
