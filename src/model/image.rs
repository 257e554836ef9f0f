//! References to images: where one is, and which one exactly.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `[host[:port]/]path[:tag][@sha256:hex]`. A digest makes it exact; a tag beside a digest is dropped.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// A text that is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not an image reference: {why}")]
pub struct BadImage {
    given: String,
    why: &'static str,
}

impl ImageRef {
    /// Parses a reference as it stands in a target or a compose file.
    ///
    /// # Errors
    ///
    /// [`BadImage`] with what is wrong.
    pub fn parse(text: &str) -> Result<Self, BadImage> {
        let bad = |why| BadImage { given: text.chars().take(80).collect(), why };
        if text.len() > 4096 {
            return Err(bad("it is longer than 4096 bytes"));
        }
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => {
                let hex = digest.strip_prefix("sha256:").ok_or(bad("its digest is not sha256"))?;
                if hex.len() != 64 || !hex.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')) {
                    return Err(bad("its digest is not 64 lower-case hex digits"));
                }
                (name, Some(digest.to_owned()))
            }
        };
        let last_slash = name.rfind('/').map_or(0, |at| at + 1);
        let (repository, tag) = match name[last_slash..].split_once(':') {
            None => (name, None),
            Some((last, tag)) => (&name[..last_slash + last.len()], Some(tag)),
        };
        let repository = familiar(repository);
        if repository.is_empty() {
            return Err(bad("it names no repository"));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':');
        if !repository.chars().all(allowed) || repository.split('/').any(str::is_empty) {
            return Err(bad("its repository has a character or an empty part that registries refuse"));
        }
        let is_tag = |t: &str| {
            (1..=128).contains(&t.len())
                && !t.starts_with(['.', '-'])
                && t.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        };
        if tag.is_some_and(|t| !is_tag(t)) {
            return Err(bad("its tag has a form that registries refuse"));
        }
        let tag = if digest.is_some() { None } else { Some(tag.unwrap_or("latest").to_owned()) };
        Ok(Self { repository: repository.to_owned(), tag, digest })
    }

    /// Registry host and path, without tag and digest.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Registry host, with its port if one is named; `None`: Docker Hub.
    #[must_use]
    pub fn registry(&self) -> Option<&str> {
        let (host, _) = self.repository.split_once('/')?;
        (host.contains(['.', ':']) || host == "localhost").then_some(host)
    }

    /// `sha256:…`, when the reference is exact.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The tag; none when the reference has a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// What tells this image from every other one: the digest, else the whole reference.
    #[must_use]
    pub fn identity(&self) -> String {
        self.digest.clone().unwrap_or_else(|| self.to_string())
    }

    /// The same repository at an exact digest.
    ///
    /// # Errors
    ///
    /// [`BadImage`] when `digest` is not `sha256:` and 64 lower-case hex digits.
    pub fn at_digest(&self, digest: &str) -> Result<Self, BadImage> {
        Self::parse(&format!("{}@{digest}", self.repository))
    }
}

/// As the engine lists it: Docker Hub's own names are left out.
fn familiar(repository: &str) -> &str {
    let short = repository.strip_prefix("docker.io/").or(repository.strip_prefix("index.docker.io/"));
    let short = short.unwrap_or(repository);
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
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
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
    fn what_is_no_reference_is_told_so() {
        for bad in ["", ":tag", "a//b", "a b", "a@md5:00", "a@sha256:00", "a:-x", "a:"] {
            assert!(ImageRef::parse(bad).is_err(), "{bad}");
        }
    }
}
