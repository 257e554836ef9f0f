//! Where the images of a fleet are pushed to.

use std::fmt;

use super::ImageRef;

/// `host[:port][/path]`, to which the rest of an image's name is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryPrefix(String);

/// A text that is not the beginning of an image's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} cannot be a registry: {REGISTRY_ACCEPTS}")]
pub struct BadRegistry {
    given: String,
}

/// What is said of a text that is not accepted.
pub const REGISTRY_ACCEPTS: &str = "write HOST[:PORT][/PATH], e.g. registry.example.com/lab, without https:// and in lower case, 128 characters at most";

/// Maximum number of bytes, so that the names of fleets and services have room after it.
const LONGEST: usize = 128;

impl RegistryPrefix {
    /// Parses a text. Slashes at its end are dropped.
    ///
    /// # Errors
    ///
    /// [`BadRegistry`] if it does not begin with a host, or no image can have such a name.
    pub fn parse(text: &str) -> Result<Self, BadRegistry> {
        let kept = text.trim_end_matches('/');
        let host = kept.split('/').next().unwrap_or_default();
        // The engine takes any other first part for a user of Docker Hub.
        let is_host = host.contains(['.', ':']) || host == "localhost";
        let is_name = ImageRef::parse(&format!("{kept}/a")).is_ok();
        if is_host && is_name && kept.len() <= LONGEST {
            Ok(Self(kept.to_owned()))
        } else {
            Err(BadRegistry { given: text.chars().take(80).collect() })
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegistryPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_begins_with_a_host() {
        for (text, wanted) in [
            ("registry.example.com", Some("registry.example.com")),
            ("registry.example.com/lab/", Some("registry.example.com/lab")),
            ("localhost/lab", Some("localhost/lab")),
            ("127.0.0.1:5000", Some("127.0.0.1:5000")),
            ("r:5000/a/b", Some("r:5000/a/b")),
            ("docker.io/lab", Some("docker.io/lab")),
            ("lab", None),
            ("", None),
            ("/", None),
            ("https://r.example", None),
            ("r.example/Lab", None),
            ("r.example/lab:1", None),
            ("r.example/lab@sha256:", None),
            ("r.example/a b", None),
            ("r.example//lab", None),
        ] {
            let parsed = RegistryPrefix::parse(text).ok();
            assert_eq!(parsed.as_ref().map(RegistryPrefix::as_str), wanted, "{text:?}");
        }
        assert!(RegistryPrefix::parse(&format!("r.example/{}", "a".repeat(120))).is_err());
    }
}
