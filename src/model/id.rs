//! Names and ids, checked once when they enter and never again.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text::one_line;

/// A kind of [`Id`]: its name in messages, and the texts that it accepts.
pub trait Kind {
    /// The noun for messages, e.g. "service name".
    const WHAT: &'static str;
    /// What is accepted, for messages.
    const ACCEPTS: &'static str;
    /// Returns `true` if `text` is such an id.
    fn is_valid(text: &str) -> bool;
}

/// A checked name. Cheap to clone; two ids are equal when their texts are.
pub struct Id<K> {
    text: Arc<str>,
    kind: PhantomData<fn() -> K>,
}

/// A text that is not a valid id of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not a {what}: it must be {accepts}", one_line(given))]
pub struct BadId {
    what: &'static str,
    accepts: &'static str,
    given: String,
}

impl<K: Kind> Id<K> {
    /// Checks `text`.
    ///
    /// # Errors
    ///
    /// [`BadId`] with the accepted form; the text is shortened to 64 characters.
    pub fn parse(text: impl AsRef<str>) -> Result<Self, BadId> {
        let text = text.as_ref();
        if K::is_valid(text) {
            return Ok(Self { text: text.into(), kind: PhantomData });
        }
        Err(BadId { what: K::WHAT, accepts: K::ACCEPTS, given: text.chars().take(64).collect() })
    }
}

impl<K> Id<K> {
    /// The text of this id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        Self { text: Arc::clone(&self.text), kind: PhantomData }
    }
}

impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<K> Eq for Id<K> {}

impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl<K> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl<K> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de, K: Kind> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(text).map_err(serde::de::Error::custom)
    }
}

/// Checks for `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most `longest` bytes: what the engine accepts in a name.
fn is_name(text: &str, longest: usize) -> bool {
    text.len() <= longest
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn is_lower_hex(text: &str) -> bool {
    text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

const NAME: &str = "letters, digits, '_', '.' and '-', beginning with a letter or digit, 255 at most";

/// Marks ids of apps (the uuid of an app: docs/dev/protocol.md, "Identifiers and keys").
pub enum AppKind {}
impl Kind for AppKind {
    const WHAT: &'static str = "app uuid";
    const ACCEPTS: &'static str = "letters, digits, '_', '.' and '-', 64 at most";
    fn is_valid(text: &str) -> bool {
        is_name(text, 64)
    }
}

/// Marks commits of releases (at most 40 characters on the wire).
pub enum CommitKind {}
impl Kind for CommitKind {
    const WHAT: &'static str = "release commit";
    const ACCEPTS: &'static str = "letters, digits, '_', '.' and '-', 40 at most";
    fn is_valid(text: &str) -> bool {
        is_name(text, 40)
    }
}

/// Marks device uuids.
pub enum DeviceKind {}
impl Kind for DeviceKind {
    const WHAT: &'static str = "device uuid";
    const ACCEPTS: &'static str = "32 or 62 lower-case hex digits";
    fn is_valid(text: &str) -> bool {
        matches!(text.len(), 32 | 62) && is_lower_hex(text)
    }
}

/// Marks service names.
pub enum ServiceKind {}
impl Kind for ServiceKind {
    const WHAT: &'static str = "service name";
    const ACCEPTS: &'static str = NAME;
    fn is_valid(text: &str) -> bool {
        is_name(text, 255)
    }
}

/// Marks the author's network names.
pub enum NetworkKind {}
impl Kind for NetworkKind {
    const WHAT: &'static str = "network name";
    const ACCEPTS: &'static str = NAME;
    fn is_valid(text: &str) -> bool {
        is_name(text, 255)
    }
}

/// Marks the author's volume names.
pub enum VolumeKind {}
impl Kind for VolumeKind {
    const WHAT: &'static str = "volume name";
    const ACCEPTS: &'static str = NAME;
    fn is_valid(text: &str) -> bool {
        is_name(text, 255)
    }
}

/// Marks names of instances.
pub enum InstanceKind {}
impl Kind for InstanceKind {
    const WHAT: &'static str = "name of an instance";
    const ACCEPTS: &'static str =
        "lower-case letters, digits and '-', at most 32, beginning with a letter or digit";
    fn is_valid(text: &str) -> bool {
        (1..=32).contains(&text.len())
            && !text.starts_with('-')
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    }
}

/// Marks ids of containers, which the engine assigns.
pub enum ContainerKind {}
impl Kind for ContainerKind {
    const WHAT: &'static str = "container id";
    const ACCEPTS: &'static str = NAME;
    fn is_valid(text: &str) -> bool {
        is_name(text, 255)
    }
}

/// Marks ids of networks, which the engine assigns.
pub enum EngineNetworkKind {}
impl Kind for EngineNetworkKind {
    const WHAT: &'static str = "network id";
    const ACCEPTS: &'static str = NAME;
    fn is_valid(text: &str) -> bool {
        is_name(text, 255)
    }
}

/// Marks hashes of a service's normalised spec: `v<version>:<64 hex>`.
pub enum SpecKind {}
impl Kind for SpecKind {
    const WHAT: &'static str = "spec hash";
    const ACCEPTS: &'static str = "'v', a version, ':' and 64 lower-case hex digits";
    fn is_valid(text: &str) -> bool {
        let Some((version, hash)) = text.strip_prefix('v').and_then(|t| t.split_once(':')) else {
            return false;
        };
        !version.is_empty()
            && version.chars().all(|c| c.is_ascii_digit())
            && hash.len() == 64
            && is_lower_hex(hash)
    }
}

/// Uuid of an app, i.e. of a fleet.
pub type AppId = Id<AppKind>;
/// The id of a release within its app.
pub type Commit = Id<CommitKind>;
/// Uuid of a device.
pub type DeviceUuid = Id<DeviceKind>;
/// Name of a service in its compose document.
pub type ServiceName = Id<ServiceKind>;
/// Name of a network in its compose document.
pub type NetworkName = Id<NetworkKind>;
/// Name of a volume in its compose document.
pub type VolumeName = Id<VolumeKind>;
/// The name of an agent's instance. Containers and networks are labelled with it.
pub type Instance = Id<InstanceKind>;
/// The engine's id of a container.
pub type ContainerId = Id<ContainerKind>;
/// The engine's id of a network.
pub type NetworkId = Id<EngineNetworkKind>;
/// Hash of everything that the author writes about a service.
pub type SpecHash = Id<SpecKind>;

impl SpecHash {
    /// Makes a hash of the given version from its 32 bytes.
    #[must_use]
    pub fn from_sha256(version: u32, bytes: [u8; 32]) -> Self {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text: format!("v{version}:{hex}").into(), kind: PhantomData }
    }

    /// The hash of containers that a balena supervisor created. No spec has it.
    #[must_use]
    pub fn of_original() -> Self {
        Self::from_sha256(0, [0; 32])
    }

    /// Returns the first eight hex digits, which are part of names of containers.
    #[must_use]
    pub fn short(&self) -> &str {
        let hash = self.as_str().split_once(':').map_or("", |(_, hash)| hash);
        hash.get(..8).unwrap_or(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_and_are_not() {
        for good in ["web", "9lives", "a.b-c_d", &"x".repeat(255)] {
            assert!(ServiceName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-web", "we b", "wéb", "a/b", "a\nb", "a\u{202e}b", "a\u{200b}", &"x".repeat(256)] {
            assert!(ServiceName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_id_says_what_is_accepted() {
        let error = DeviceUuid::parse("ABC").unwrap_err().to_string();
        assert_eq!(error, r#""ABC" is not a device uuid: it must be 32 or 62 lower-case hex digits"#);
    }

    #[test]
    fn a_bad_id_is_shown_without_invisible_characters() {
        let error = ServiceName::parse("web\n<3>\u{202e}\u{3164}\x1b[2J").unwrap_err().to_string();
        assert_eq!(
            error,
            r#""web\n<3>\u{202e}\u{3164}\u{1b}[2J" is not a service name: it must be letters, digits, '_', '.' and '-', beginning with a letter or digit, 255 at most"#
        );
    }

    #[test]
    fn spec_hashes_carry_a_version() {
        let hash = SpecHash::parse(format!("v1:{}", "0a".repeat(32))).unwrap();
        assert_eq!(hash.short(), "0a0a0a0a");
        assert_eq!(SpecHash::from_sha256(1, [10; 32]), hash);
        for bad in
            ["v1:short", ":", "1:00", &format!("v:{}", "0".repeat(64)), &format!("v1:{}", "G".repeat(64))]
        {
            assert!(SpecHash::parse(bad).is_err(), "{bad}");
        }
    }
}
