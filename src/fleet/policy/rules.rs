//! The rules for names, tags, types and keys. All are allow-lists: anything that is not listed here is refused.
//!
//! Only new values are checked. Records that are older than a rule keep working.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::Refusal;
use crate::model::text::is_one_line;
use crate::model::{
    MOST_TAGS, REGISTRY_ACCEPTS, RegistryPrefix, TAG_KEY_ACCEPTS, TAG_VALUE_ACCEPTS, is_tag_key, is_tag_value,
};

/// Shortest prefix with which a uuid, commit or key id can be given.
pub(super) const SHORTEST_PREFIX: usize = 4;

const NAME_ACCEPTS: &str = "it has 1 to 255 characters, which are letters, digits, visible characters beyond ASCII, \
                            single spaces and any of - _ . , : / ( ) + # @ & ', begins with a letter or digit and ends with no space";
const NO_PREFIX: &str = "4 or more hex digits alone would be taken for the beginning of a uuid or an id; put another \
                         character into it";
const NO_ROUTE: &str =
    "it is a word of the operator API, where no request could name the device; choose another";

/// The words that stand in the place of a device's name in paths of the operator API.
const OF_ROUTES: [&str; 4] = ["pin", "track-fleet", "tags", "delete"];

const NO_NUMBER: &str = "digits alone would be taken for a fleet's number, and 32 hex digits for its uuid; put a letter \
                         or '-' into it";
const TYPE_ACCEPTS: &str = "it has 1 to 100 of the letters a to z, A to Z, digits, '-', '_' and '.', and begins with a \
                            letter or digit";
const KEY_LENGTH: &str = "a device key has 16 to 255 characters; 32 random hex digits are usual";
const KEY_LETTERS: &str =
    "a device key is made of the letters a to z, A to Z, digits, '-', '_', '.', '~', '+', '/' and '='";
const KEY_GUESSABLE: &str = "a device key must be random, and this one can be guessed: it has fewer than 5 different \
                             characters, or contains the device's uuid";

/// Longest text in a message, in characters.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

pub(super) fn bad(what: &'static str, given: &str, accepts: &'static str) -> Refusal {
    Refusal::BadText { what, given: shown(given), accepts }
}

fn check_name(what: &'static str, name: &str) -> Result<(), Refusal> {
    let is_first = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii();
    let is_good = name.chars().count() <= 255
        && is_one_line(name)
        && name.chars().all(|c| is_first(c) || " -_.,:/()+#@&'".contains(c))
        && name.starts_with(is_first)
        && !name.ends_with(' ')
        && !name.contains("  ");
    if is_good { Ok(()) } else { Err(bad(what, name, NAME_ACCEPTS)) }
}

/// Checks the name of a device. Commands accept a name or the prefix of a uuid, so a name must not look like one.
pub(super) fn check_device_name(name: &str) -> Result<(), Refusal> {
    check_name("device name", name)?;
    if OF_ROUTES.contains(&name) {
        return Err(bad("device name", name, NO_ROUTE));
    }
    check_no_prefix("device name", name)
}

/// Checks the name of a key. Commands accept a name or the prefix of an id, so a name must not look like one.
pub(super) fn check_key_name(name: &str) -> Result<(), Refusal> {
    check_name("key name", name)?;
    check_no_prefix("key name", name)
}

fn check_no_prefix(what: &'static str, name: &str) -> Result<(), Refusal> {
    let is_prefix = name.len() >= SHORTEST_PREFIX && name.chars().all(|c| c.is_ascii_hexdigit());
    if is_prefix { Err(bad(what, name, NO_PREFIX)) } else { Ok(()) }
}

/// Checks the name of a fleet. Commands accept a name, a number or a uuid, so a name must not look like the others.
pub(super) fn check_fleet_name(name: &str) -> Result<(), Refusal> {
    check_name("fleet name", name)?;
    let is_number = name.chars().all(|c| c.is_ascii_digit());
    let is_uuid = name.len() >= 32 && name.chars().all(|c| c.is_ascii_hexdigit());
    if is_number || is_uuid { Err(bad("fleet name", name, NO_NUMBER)) } else { Ok(()) }
}

/// Checks the address of a registry, and returns it as it is stored. An empty one is none.
pub(super) fn checked_registry(given: Option<&str>) -> Result<Option<String>, Refusal> {
    let Some(given) = given.filter(|given| !given.is_empty()) else { return Ok(None) };
    match RegistryPrefix::parse(given) {
        // The same registry is always the same text.
        Ok(registry) if registry.as_str() == given => Ok(Some(given.to_owned())),
        Ok(_) | Err(_) => Err(bad("registry", given, REGISTRY_ACCEPTS)),
    }
}

/// Checks a tag of a device.
pub(super) fn check_tag(key: &str, value: &str) -> Result<(), Refusal> {
    if !is_tag_key(key) {
        return Err(bad("tag key", key, TAG_KEY_ACCEPTS));
    }
    if is_tag_value(value) { Ok(()) } else { Err(bad("tag value", value, TAG_VALUE_ACCEPTS)) }
}

/// Checks the number of tags of a device after a change.
pub(super) fn check_tag_count(tags: usize) -> Result<(), Refusal> {
    let most = u64::try_from(MOST_TAGS).unwrap_or(0);
    check_range("number of tags of a device", u64::try_from(tags).ok(), 0..=most)
}

/// Checks a device type: the slug of a board.
pub(super) fn check_device_type(text: &str) -> Result<(), Refusal> {
    let is_good = text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if is_good { Ok(()) } else { Err(bad("device type", text, TYPE_ACCEPTS)) }
}

/// Checks a key that a device generated for itself. No message contains the key.
///
/// Accepts every character of a bearer token (RFC 6750). The least number of different characters refuses
/// `aaaaaaaaaaaaaaaa`; 16 random hex digits have fewer than 5 once in two million cases.
///
/// # Errors
///
/// [`Refusal::BadDeviceKey`].
pub fn check_device_key(key: &str, uuid: &str) -> Result<(), Refusal> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "-_.~+/=".contains(c);
    let why = if !(16..=255).contains(&key.len()) {
        KEY_LENGTH
    } else if !key.chars().all(is_fine) {
        KEY_LETTERS
    } else if key.chars().collect::<BTreeSet<_>>().len() < 5 || key.contains(uuid) {
        KEY_GUESSABLE
    } else {
        return Ok(());
    };
    Err(Refusal::BadDeviceKey { why })
}

/// Checks a number that an operator set, if one was set.
pub(super) fn check_range(
    what: &'static str,
    given: Option<u64>,
    range: RangeInclusive<u64>,
) -> Result<(), Refusal> {
    match given {
        Some(given) if !range.contains(&given) => {
            Err(Refusal::OutOfRange { what, given, least: *range.start(), most: *range.end() })
        }
        Some(_) | None => Ok(()),
    }
}
