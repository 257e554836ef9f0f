//! Who is asking: finds the user of a token, counts wrong tokens, and keeps when each token was used last.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::access::{AccessRefusal, By, FIRST, Role, Scope, Throttle, Token, TokenEnd, TooMany};
use super::in_progress::{InProgress, Turn};
use super::key_hash::KeyHash;
use super::locks::locked;
use super::policy::World;
use super::records::Records;
use super::settings::OPERATORS;
use super::{clock, secret, sightings};

/// The file in the data folder with the time of the last use of each token.
const USED_FILE: &str = "tokens-used";

/// The line in that file with the time since when uses are known. It is no hash.
const SINCE: &str = "since";

/// Maximum number of requests in progress of a token, of one of an admin, and of all tokens that are not of admins. A client that does not
/// read its answers holds their places, and admins must find one to end its token.
const OF_A_TOKEN: usize = 8;
const OF_AN_ADMIN: usize = 16;
const OF_OTHERS: usize = OPERATORS - 8;

/// The name under which the requests of all tokens are counted that are not of admins. It is no hash.
const ALL_OTHERS: &str = "others";

/// Refused requests of a token in a day that are recorded in the audit trail, each by itself.
pub(super) const RECORDED: u64 = 20;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The way in for operators.
pub(super) struct Gate {
    records: Arc<Records>,
    /// The server's first token, which is a file. It is an admin that no record can end.
    first: KeyHash,
    throttle: Mutex<Throttle>,
    used: Mutex<BTreeMap<KeyHash, Timestamp>>,
    /// Since when the uses of tokens are known here; `None`: since the first one.
    known_since: Option<Timestamp>,
    in_progress: Arc<InProgress>,
    /// Refused requests by id of the token: since when, and how many.
    refused: Mutex<BTreeMap<String, (Instant, u64)>>,
    file: PathBuf,
}

/// Who is asking, with an accepted token.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) by: By,
    pub(super) role: Role,
    pub(super) scope: Arc<Scope>,
    pub(super) from: Option<IpAddr>,
    /// `None` for the server's first token, which never ends.
    token: Option<KeyHash>,
}

impl Caller {
    /// Returns its token, if it has a record.
    pub(super) fn token<'w>(&self, world: &'w World) -> Option<&'w Token> {
        world.accounts().token(self.token.as_ref()?)
    }

    /// Checks that its token is still accepted, by these records: it may have ended since the request began.
    ///
    /// # Errors
    ///
    /// [`AccessRefusal::TokenEnded`].
    pub(super) fn check(&self, world: &World) -> Result<(), AccessRefusal> {
        let Some(token) = self.token(world) else {
            return Ok(());
        };
        match world.accounts().end(token, clock::now()) {
            None => Ok(()),
            Some(end) => {
                Err(AccessRefusal::TokenEnded { token: token.name.clone(), user: token.user.clone(), end })
            }
        }
    }
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
        let is_there = file.exists();
        let known = sightings::load(&file, |hash| Some(KeyHash(hash.to_owned())));
        // Records that came here from elsewhere, e.g. with a backup, have tokens that were used there.
        let begins = (!is_there && !records.is_new()).then(clock::now);
        let known_since = known.get(&KeyHash(SINCE.to_owned())).copied().or(begins);
        let is_token = |hash: &KeyHash| records.world().accounts().token(hash).is_some();
        let used = known.into_iter().filter(|(hash, _)| is_token(hash)).collect();
        let (throttle, used) = (Mutex::default(), Mutex::new(used));
        let (in_progress, refused) = (Arc::default(), Mutex::default());
        Self { first: secret::hash(token), records, throttle, used, known_since, in_progress, refused, file }
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
        match self.recall(&hash, from) {
            Err(NotSignedIn::Unknown) => Err(self.wrong(from)),
            known => known,
        }
    }

    /// Finds out who signed in with the token of this hash. It may have ended since.
    ///
    /// # Errors
    ///
    /// [`NotSignedIn`], without counting a wrong token.
    pub(super) fn recall(&self, hash: &KeyHash, from: Option<IpAddr>) -> Result<Caller, NotSignedIn> {
        if *hash == self.first {
            let by = By { user: None, token: FIRST.to_owned(), id: hash.id().to_owned() };
            return Ok(Caller { by, role: Role::Admin, scope: Arc::new(Scope::All), from, token: None });
        }
        let now = clock::now();
        let found = {
            let world = self.records.world();
            let token = world.accounts().token(hash);
            token.map(|token| (token.clone(), world.accounts().end(token, now)))
        };
        match found {
            None => Err(NotSignedIn::Unknown),
            Some((token, Some(end))) => Err(NotSignedIn::Ended { token: token.name, user: token.user, end }),
            Some((token, None)) => {
                let by = By { user: Some(token.user), token: token.name, id: hash.id().to_owned() };
                locked(&self.used).insert(hash.clone(), now);
                let scope = Arc::new(token.scope);
                Ok(Caller { by, role: token.role, scope, from, token: Some(hash.clone()) })
            }
        }
    }

    /// Counts a request of a token, and one of all that are no admins, until the turns are dropped. `None` if too many are in
    /// progress.
    pub(super) fn enter(&self, caller: &Caller) -> Option<(Turn, Option<Turn>)> {
        let token = caller.token.as_ref().unwrap_or(&self.first);
        if caller.role == Role::Admin {
            return Some((self.in_progress.enter(token, OF_AN_ADMIN)?, None));
        }
        let of_token = self.in_progress.enter(token, OF_A_TOKEN)?;
        Some((of_token, Some(self.in_progress.enter(&KeyHash(ALL_OTHERS.to_owned()), OF_OTHERS)?)))
    }

    /// Counts a refused request of a token. Returns the number of those of a day if this one is recorded: the first
    /// [`RECORDED`], and then the 100th, the 1000th and so on.
    pub(super) fn refused(&self, caller: &Caller) -> Option<u64> {
        let mut refused = locked(&self.refused);
        let (since, count) = refused.entry(caller.by.id.clone()).or_insert((Instant::now(), 0));
        if since.elapsed() >= DAY {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        is_recorded(*count).then_some(*count)
    }

    /// Returns whether a token without a known use may have been used elsewhere, before the records came here.
    pub(super) fn is_use_unknown(&self, token: &Token) -> bool {
        self.last_used(&token.hash).is_none() && self.known_since.is_some_and(|since| token.created < since)
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
        let used = locked(&self.used).iter().map(|(hash, at)| (hash.0.clone(), *at)).collect::<Vec<_>>();
        let used = used.into_iter().chain(self.known_since.map(|at| (SINCE.to_owned(), at))).collect();
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

fn is_recorded(number: u64) -> bool {
    number <= RECORDED || (number >= 100 && 10_u64.pow(number.ilog10()) == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_many_refused_requests_are_recorded() {
        let recorded: Vec<_> = (1..=100_000).filter(|number| is_recorded(*number)).collect();
        let expected: Vec<_> = (1..=20).chain([100, 1000, 10_000, 100_000]).collect();
        assert_eq!(recorded, expected);
    }
}
