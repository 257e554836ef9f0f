//! Keys: generated at random, stored as hashes, compared as hashes.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::policy::KeyHash;
use crate::ownership;

/// Longest key in bytes that a device may bring to its registration.
const LONGEST_KEY: usize = 255;

/// Returns 32 random hex digits for a key or a commit.
///
/// # Errors
///
/// If the machine has no random bytes.
pub(super) fn token() -> io::Result<String> {
    Ok(hex(&random::<16>()?))
}

/// Returns the digits of a random UUID of version 4 (RFC 9562): an openBalena takes a fleet with no other one.
///
/// # Errors
///
/// As [`token`].
pub(super) fn uuid() -> io::Result<String> {
    let mut bytes = random::<16>()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(hex(&bytes))
}

/// Returns random bytes.
///
/// # Errors
///
/// If the machine has none.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|why| io::Error::other(format!("no random bytes: {why}")))?;
    Ok(bytes)
}

/// Returns the hash of a key, which is stored instead of it. The time of comparing hashes reveals nothing about a key.
pub(super) fn hash(key: &str) -> KeyHash {
    KeyHash(hex(&Sha256::digest(key)))
}

/// Returns the hash of a key in a request. A key that is longer than any valid one is refused without computing it.
pub(super) fn hash_given(key: &str) -> Option<KeyHash> {
    let key = key.trim();
    (1..=LONGEST_KEY).contains(&key.len()).then(|| hash(key))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Reads the operator's token from `path`, or generates it and writes it there, readable by its owner only.
///
/// # Errors
///
/// If the file cannot be read or written, is empty, is a link, or other users can read it. Its mode is not corrected
/// silently, because other users may know the token already, so an operator must decide.
pub(super) fn operator_token(path: &Path) -> io::Result<String> {
    match read_private(path) {
        Ok(text) if text.trim().is_empty() => {
            Err(io::Error::other("the file is empty; delete it, and a new token is generated"))
        }
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = token()?;
            let unfinished = path.with_extension("new");
            let _gone = fs::remove_file(&unfinished);
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
            writeln!(file, "{token}")?;
            file.sync_all()?;
            fs::rename(&unfinished, path)?;
            Ok(token)
        }
        Err(error) => Err(error),
    }
}

/// Reads a password from a file that only its owner and its group can read.
///
/// # Errors
///
/// If it cannot be read, is empty, or others can read it.
pub fn password(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o007 != 0 {
        return Err(io::Error::other("all users of this machine have access to it; run chmod o= on it"));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(io::Error::other("it is empty; write the password into it")),
        password => Ok(password.to_owned()),
    }
}

fn read_private(path: &Path) -> io::Result<String> {
    let mut file = ownership::follow_no_link(fs::OpenOptions::new().read(true)).open(path)?;
    if let Some(why) = ownership::exposure(&file.metadata()?) {
        return Err(io::Error::other(format!("{why}, or delete it for a new token")));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}
