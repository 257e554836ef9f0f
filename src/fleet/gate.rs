//! Who is asking: finds the user of a token, counts wrong tokens, and keeps when each token was used last.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::access::{By, FIRST, Role, Scope, Throttle, TokenEnd, TooMany};
use super::key_hash::KeyHash;
use super::records::Records;
use super::{clock, secret, sightings};

/// The file in the data folder with the time of the last use of each token.
const USED_FILE: &str = "tokens-used";

/// The way in for operators.
pub(super) struct Gate {
    records: Arc<Records>,
    /// The server's first token, which is a file. It is an admin that no record can end.
    first: KeyHash,
    throttle: Mutex<Throttle>,
    used: Mutex<BTreeMap<KeyHash, Timestamp>>,
    file: PathBuf,
}

/// Who is asking, with an accepted token.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) by: By,
    pub(super) role: Role,
    pub(super) scope: Arc<Scope>,
    pub(super) from: Option<IpAddr>,
}

/// Why a request is not accepted.
#[derive(Debug)]
pub(super) enum NotSignedIn {
    /// It has no token, or none that was ever made here.
    Unknown,
    /// The same, and its address has sent too many of them.
    TooMany { wait: Duration },
    /// The token was accepted once.
    Ended { token: String, user: String, end: TokenEnd },
}

impl Gate {
    /// `token` is the server's first token.
    pub(super) fn new(records: Arc<Records>, token: &str, dir: &std::path::Path) -> Self {
        let file = dir.join(USED_FILE);
        let known = sightings::load(&file, |hash| Some(KeyHash(hash.to_owned())));
        let is_token = |hash: &KeyHash| records.world().accounts().token(hash).is_some();
        let used = known.into_iter().filter(|(hash, _)| is_token(hash)).collect();
        let (throttle, used) = (Mutex::default(), Mutex::new(used));
        Self { first: secret::hash(token), records, throttle, used, file }
    }

    pub(super) fn records(&self) -> &Arc<Records> {
        &self.records
    }

    /// Finds out who sent this token.
    ///
    /// # Errors
    ///
    /// [`NotSignedIn`]. An accepted token is accepted from any address, also from one that has sent too many wrong ones:
    /// an attacker must not lock out those behind the same address.
    pub(super) fn sign_in(&self, given: Option<&str>, from: Option<IpAddr>) -> Result<Caller, NotSignedIn> {
        let Some(given) = given else { return Err(NotSignedIn::Unknown) };
        let Some(hash) = secret::hash_given(given) else { return Err(self.wrong(from)) };
        if hash == self.first {
            let by = By { user: None, token: FIRST.to_owned(), id: hash.id().to_owned() };
            return Ok(Caller { by, role: Role::Admin, scope: Arc::new(Scope::All), from });
        }
        let now = clock::now();
        let found = {
            let world = self.records.world();
            let token = world.accounts().token(&hash);
            token.map(|token| (token.clone(), world.accounts().end(token, now)))
        };
        match found {
            None => Err(self.wrong(from)),
            Some((token, Some(end))) => Err(NotSignedIn::Ended { token: token.name, user: token.user, end }),
            Some((token, None)) => {
                let by = By { user: Some(token.user), token: token.name, id: hash.id().to_owned() };
                locked(&self.used).insert(hash, now);
                Ok(Caller { by, role: token.role, scope: Arc::new(token.scope), from })
            }
        }
    }

    /// Returns when a token was used last.
    pub(super) fn last_used(&self, token: &KeyHash) -> Option<Timestamp> {
        locked(&self.used).get(token).copied()
    }

    /// Writes to the disk when each token was used last.
    ///
    /// # Errors
    ///
    /// The file is then as it was before.
    pub(super) fn save(&self) -> io::Result<()> {
        let used = locked(&self.used).iter().map(|(hash, at)| (hash.0.clone(), *at)).collect();
        sightings::save(&self.file, &used)
    }

    /// Counts a wrong token.
    fn wrong(&self, from: Option<IpAddr>) -> NotSignedIn {
        let Some(from) = from else { return NotSignedIn::Unknown };
        match locked(&self.throttle).failed(from, Instant::now()) {
            Ok(()) => NotSignedIn::Unknown,
            Err(TooMany { wait, is_first }) => {
                if is_first {
                    tracing::warn!(%from, "too many wrong tokens from one address are answered with 429");
                }
                NotSignedIn::TooMany { wait }
            }
        }
    }
}

/// Ignores poisoning, because a panic elsewhere does not invalidate what these locks guard.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
