//! References to images.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `[host[:port]/]path[:tag][@sha256:hex]`. A digest makes it exact. If there are both, the tag is dropped.
///
/// Every engine accepts a reference that was parsed: the grammar is that of the engine (distribution/reference), the
/// narrower one where its versions differ. A stored reference may have another form: see [`ImageRef::is_good`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// A text that is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not an image reference: {why}")]
pub struct BadImage {
    given: String,
    why: &'static str,
}

/// The longest host and path together, in bytes.
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;
/// The host of Docker Hub, which is left out.
const HUB: &str = "docker.io";

impl ImageRef {
    /// Parses a reference from a target or a compose file.
    ///
    /// # Errors
    ///
    /// [`BadImage`] with the reason.
    pub fn parse(text: &str) -> Result<Self, BadImage> {
        let bad = |why| BadImage { given: text.chars().take(80).collect(), why };
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => (name, Some(digest)),
        };
        let last_slash = name.rfind('/').map_or(0, |at| at + 1);
        let (repository, tag) = match name[last_slash..].split_once(':') {
            None => (name, None),
            Some((last, tag)) => (&name[..last_slash + last.len()], Some(tag)),
        };
        check_name(repository).map_err(bad)?;
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad(
                "its tag has letters, digits, '_', '.' and '-' only, 128 at most, and does not begin with '.' or '-'",
            ));
        }
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(bad("its digest is sha256: and 64 lower-case hex digits"));
        }
        let tag = if digest.is_some() { None } else { Some(tag.unwrap_or("latest").to_owned()) };
        Ok(Self { repository: familiar(repository).to_owned(), tag, digest: digest.map(str::to_owned) })
    }

    /// Returns `true` if engines accept the reference. An earlier version of Cotter accepted and stored some that engines
    /// do not accept. These names must not become part of a path.
    #[must_use]
    pub fn is_good(&self) -> bool {
        Self::parse(&self.to_string()).is_ok()
    }

    /// Makes a reference from a stored text without checks, so that a record with a name that is no longer accepted is not
    /// lost.
    fn stored(text: &str) -> Self {
        Self::parse(text).unwrap_or_else(|_| {
            let (repository, digest) = text.split_once('@').map_or((text, None), |(name, d)| (name, Some(d)));
            Self { repository: repository.to_owned(), tag: None, digest: digest.map(str::to_owned) }
        })
    }

    /// Returns registry host and path, without tag and digest.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the registry host, with its port if the reference has one; `None`: Docker Hub.
    #[must_use]
    pub fn registry(&self) -> Option<&str> {
        split_host(&self.repository).0
    }

    /// Returns `sha256:…` if the reference is exact.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Returns the tag; `None` if the reference has a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the text that identifies the image: its digest, or else the whole reference.
    #[must_use]
    pub fn identity(&self) -> String {
        self.digest.clone().unwrap_or_else(|| self.to_string())
    }

    /// Returns a reference to the same repository with a digest.
    ///
    /// # Errors
    ///
    /// [`BadImage`] if `digest` is not `sha256:` and 64 lower-case hex digits.
    pub fn at_digest(&self, digest: &str) -> Result<Self, BadImage> {
        Self::parse(&format!("{}@{digest}", self.repository))
    }
}

/// Checks that `text` is host and path of a repository. The error is the reason why not.
fn check_name(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it names no repository");
    }
    if text.len() > LONGEST_NAME {
        return Err("its host and path have more than 255 characters");
    }
    let (host, path) = split_host(text);
    if !host.is_none_or(is_host) {
        return Err(
            "its host is not a name or an address with, perhaps, a port, e.g. registry.example.com:5000",
        );
    }
    if path.contains(|c: char| c.is_ascii_uppercase()) && check_name(&text.to_ascii_lowercase()).is_ok() {
        return Err("its path has upper-case letters: write it in lower case");
    }
    if !path.split('/').all(is_component) {
        return Err(
            "each part of its path has lower-case letters and digits only, with '.', '_', '__' or '-' between them",
        );
    }
    if path.len() == 64 && host.is_none() && path.bytes().all(is_hex) {
        return Err("engines take 64 hex digits for the id of an image");
    }
    Ok(())
}

/// Splits off the host. The first part is a host if it cannot be a part of a path.
fn split_host(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), path),
        Some(_) | None => (None, text),
    }
}

fn is_host(text: &str) -> bool {
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let is_port = |port: &str| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Returns `true` for letters and digits with one of `.`, `_`, `__` or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut words =
        text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|s| !s.is_empty());
    let is_separator = |s: &str| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    let ends = text.bytes().next().zip(text.bytes().next_back());
    ends.is_some_and(|(first, last)| is_word(first) && is_word(last)) && words.all(is_separator)
}

fn is_tag(text: &str) -> bool {
    (1..=LONGEST_TAG).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(is_hex))
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Removes Docker Hub's host and its folder for official images, as the engine does in its lists.
fn familiar(repository: &str) -> &str {
    let short = match split_host(repository) {
        (Some(HUB | "index.docker.io"), path) => path,
        (Some(_) | None, _) => repository,
    };
    short.strip_prefix("library/").filter(|name| !name.contains('/')).unwrap_or(short)
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Debug for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Serialize for ImageRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::stored(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn references_keep_what_identifies_them() {
        for (given, shown) in [
            ("alpine".to_owned(), "alpine:latest".to_owned()),
            ("docker.io/library/redis:7".into(), "redis:7".into()),
            ("docker.io/owner/app".into(), "owner/app:latest".into()),
            ("library/redis".into(), "redis:latest".into()),
            ("localhost:5000/library/redis".into(), "localhost:5000/library/redis:latest".into()),
            ("localhost:5000/a/b".into(), "localhost:5000/a/b:latest".into()),
            ("localhost:5000/a/b:1.2".into(), "localhost:5000/a/b:1.2".into()),
            (format!("r.example/a:old@sha256:{HEX}"), format!("r.example/a@sha256:{HEX}")),
        ] {
            assert_eq!(ImageRef::parse(&given).unwrap().to_string(), shown, "{given}");
        }
    }

    #[test]
    fn texts_that_are_not_references_are_refused_with_the_reason() {
        let long = |n: usize| "a".repeat(n);
        for (given, why) in [
            (String::new(), "it names no repository"),
            (":tag".into(), "it names no repository"),
            ("@sha256:00".into(), "it names no repository"),
            ("host.example/../../x".into(), "each part of its path"),
            ("host.example/a/./x".into(), "each part of its path"),
            ("host.example/..".into(), "each part of its path"),
            ("../x".into(), "its host"),
            ("./x".into(), "its host"),
            ("/x".into(), "each part of its path"),
            ("a//b".into(), "each part of its path"),
            ("a/".into(), "each part of its path"),
            ("host.example/".into(), "each part of its path"),
            ("a b".into(), "each part of its path"),
            ("a\n".into(), "each part of its path"),
            ("a\u{1b}[2J".into(), "each part of its path"),
            ("a\u{202e}b".into(), "each part of its path"),
            ("a%2e%2e".into(), "each part of its path"),
            ("a?b".into(), "each part of its path"),
            ("Web".into(), "write it in lower case"),
            ("Foo/bar".into(), "write it in lower case"),
            ("r.example/Web".into(), "write it in lower case"),
            ("127.0.0.1:5000/Bugs/App".into(), "write it in lower case"),
            ("r.example/We b".into(), "each part of its path"),
            ("-a".into(), "each part of its path"),
            ("a-".into(), "each part of its path"),
            ("a..b".into(), "each part of its path"),
            ("a___b".into(), "each part of its path"),
            ("a._b".into(), "each part of its path"),
            ("é".into(), "each part of its path"),
            ("http://r.example/a".into(), "its host"),
            ("my_host:5000/a".into(), "its host"),
            ("-r.example/a".into(), "its host"),
            ("r..example/a".into(), "its host"),
            ("r.example:/a".into(), "its host"),
            ("r.example:0/a".into(), "its host"),
            ("r.example:65536/a".into(), "its host"),
            ("r.example:+80/a".into(), "its host"),
            ("u:p@r.example/a".into(), "its digest"),
            ("[::1]:5000/a".into(), "its host"),
            (long(256), "more than 255"),
            (format!("r.example/{}", long(246)), "more than 255"),
            (HEX.into(), "64 hex digits"),
            ("a:".into(), "its tag"),
            ("a:-x".into(), "its tag"),
            ("a:.x".into(), "its tag"),
            ("a:b c".into(), "its tag"),
            ("a:1:2".into(), "its tag"),
            (format!("a:{}", long(129)), "its tag"),
            ("a@md5:00".into(), "its digest"),
            ("a@sha256:00".into(), "its digest"),
            ("a@".into(), "its digest"),
            (format!("a@sha256:{}", HEX.to_uppercase()), "its digest"),
            (format!("a@sha256:{HEX}@sha256:{HEX}"), "its digest"),
            (format!("a@sha256:{HEX}/../x"), "its digest"),
        ] {
            let error = ImageRef::parse(&given).expect_err(&given).to_string();
            assert!(error.contains(why), "{given}: {error}");
            assert!(error.chars().all(|c| !c.is_control()) && error.len() < 600, "{error}");
        }
    }

    #[test]
    fn a_stored_reference_of_any_form_is_kept() {
        for (stored, is_good) in [
            ("r.example/a:1".to_owned(), true),
            ("r.example/../../x:latest".into(), false),
            ("R.example/Web@sha256:00".into(), false),
            ("a@b@c".into(), false),
            (String::new(), false),
        ] {
            let text = serde_json::to_string(&stored).unwrap();
            let image: ImageRef = serde_json::from_str(&text).unwrap();
            assert_eq!((image.is_good(), serde_json::to_string(&image).unwrap()), (is_good, text));
        }
    }

    #[test]
    fn every_form_that_engines_accept_is_accepted() {
        for given in [
            "a".to_owned(),
            "x/a.b_c__d---e/0".into(),
            "R.Example/a".into(),
            "localhost/a".into(),
            "127.0.0.1:5000/a:v1.2_3-4".into(),
            "xn--mnchen-3ya.example:65535/a".into(),
            format!("r.example/{HEX}"),
            format!("a:{}", "x".repeat(128)),
            format!("r.example/{}", "a".repeat(245)),
            format!("a@sha256:{HEX}"),
        ] {
            assert!(ImageRef::parse(&given).is_ok(), "{given}");
        }
    }
}
