//! All users and tokens in memory: look-ups, acts, and applying changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{AccessChange, AccessRefusal, Role, Scope, Token, TokenEnd, User};
use crate::fleet::key_hash::KeyHash;

/// Maximum number of users, and of tokens with the ended ones. Neither is ever deleted.
const MOST_USERS: usize = 10_000;
const MOST_TOKENS: usize = 100_000;

/// Shortest prefix with which the id of a token can be given.
const SHORTEST_PREFIX: usize = 4;

const NAME_ACCEPTS: &str = "it has 1 to 64 letters a to z, A to Z, digits, '.', '_', '-', '+' and '@', and begins with a letter or digit";
const NO_PREFIX: &str =
    "4 or more hex digits alone would be taken for the beginning of an id; put another character into it";
const NO_USER: &str = "the audit trail has it for those who act without a token";
const NO_FILE: &str = "it is the name of the server's first token";

/// The name of the server's first token, which is a file and no record. No user may have it.
pub const FIRST: &str = "operator.token";

/// The names of those who act without a token, in the audit trail: a device, with its own name after this word, a rollout,
/// and `cotter-fleet restore`. No user and no token may have such a name.
pub const DEVICE: &str = "device";
pub const ROLLOUT: &str = "rollout";
pub const RESTORER: &str = "cotter-fleet";
const OF_NO_USER: [&str; 3] = [DEVICE, ROLLOUT, RESTORER];

/// The values of a new token.
#[derive(Debug, Clone)]
pub struct NewToken {
    pub hash: KeyHash,
    pub user: String,
    /// `None`: the name of its role, with a number if the user has that already.
    pub name: Option<String>,
    pub role: Role,
    pub scope: Scope,
    pub created: Timestamp,
    /// How long it is accepted; `None`: until it is revoked.
    pub expires_in: Option<SignedDuration>,
}

/// All users and tokens. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    users: Arc<BTreeMap<String, User>>,
    tokens: Arc<BTreeMap<KeyHash, Token>>,
}

impl Token {
    /// Formats its id and its name.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} ({}) of {}", self.hash.id(), self.name, self.user)
    }
}

impl Accounts {
    /// Applies one change. It must come from an act on these accounts, or from the store.
    pub fn apply(&mut self, change: AccessChange) {
        match change {
            AccessChange::PutUser(user) => {
                Arc::make_mut(&mut self.users).insert(user.name.clone(), user);
            }
            AccessChange::PutToken(token) => {
                Arc::make_mut(&mut self.tokens).insert(token.hash.clone(), token);
            }
        }
    }

    /// Returns a change for each record. Applied to empty accounts, they make these.
    pub fn records(&self) -> impl Iterator<Item = AccessChange> {
        let users = self.users.values().cloned().map(AccessChange::PutUser);
        users.chain(self.tokens.values().cloned().map(AccessChange::PutToken))
    }

    /// Returns the users, by name.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values()
    }

    /// Returns the tokens, oldest first, including those that have ended.
    #[must_use]
    pub fn tokens_by_age(&self) -> Vec<&Token> {
        let mut tokens: Vec<_> = self.tokens.values().collect();
        tokens.sort_by_key(|token| (token.created, &token.hash));
        tokens
    }

    #[must_use]
    pub fn token(&self, hash: &KeyHash) -> Option<&Token> {
        self.tokens.get(hash)
    }

    /// Returns why a token is not accepted any more; `None` if it is accepted.
    #[must_use]
    pub fn end(&self, token: &Token, now: Timestamp) -> Option<TokenEnd> {
        let disabled = self.users.get(&token.user).and_then(|user| user.disabled).map(TokenEnd::UserDisabled);
        let expired = token.expires.filter(|expires| *expires <= now).map(TokenEnd::Expired);
        disabled.or(token.revoked.map(TokenEnd::Revoked)).or(expired)
    }

    /// Finds a user by name.
    ///
    /// # Errors
    ///
    /// [`AccessRefusal::NoSuchUser`].
    pub fn find_user(&self, name: &str) -> Result<&User, AccessRefusal> {
        self.users.get(name).ok_or_else(|| AccessRefusal::NoSuchUser { given: shown(name) })
    }

    /// Finds a token by its id, a prefix of it (4 or more), or its name. Of several with one name, the active one is meant.
    ///
    /// # Errors
    ///
    /// [`AccessRefusal::NoSuchToken`], [`AccessRefusal::Ambiguous`].
    pub fn find_token(&self, text: &str, now: Timestamp) -> Result<&Token, AccessRefusal> {
        let begins = |token: &Token| text.len() >= SHORTEST_PREFIX && token.hash.0.starts_with(text);
        let mut found: Vec<_> =
            self.tokens.values().filter(|token| token.name == text || begins(token)).collect();
        if found.len() > 1 && found.iter().any(|token| self.end(token, now).is_none()) {
            found.retain(|token| self.end(token, now).is_none());
        }
        match found[..] {
            [] => Err(AccessRefusal::NoSuchToken { given: shown(text) }),
            [token] => Ok(token),
            _ => {
                let matches = found.iter().take(5).map(|token| token.label()).collect();
                Err(AccessRefusal::Ambiguous { given: shown(text), matches })
            }
        }
    }

    /// Adds a user.
    ///
    /// # Errors
    ///
    /// [`AccessRefusal::BadName`], [`AccessRefusal::UserTaken`], [`AccessRefusal::TooMany`].
    pub fn add_user(&self, name: String, now: Timestamp) -> Result<Vec<AccessChange>, AccessRefusal> {
        check_name("user", &name)?;
        if self.users.contains_key(&name) {
            return Err(AccessRefusal::UserTaken { name });
        }
        if self.users.len() >= MOST_USERS {
            let remedy = "enable a user that was disabled";
            return Err(AccessRefusal::TooMany { what: "users", most: MOST_USERS, remedy });
        }
        Ok(vec![AccessChange::PutUser(User { name, created: now, disabled: None })])
    }

    /// Disables a user, and revokes all its tokens for ever. One that was disabled before keeps its time.
    #[must_use]
    pub fn disable_user(&self, user: &User, now: Timestamp) -> Vec<AccessChange> {
        if user.disabled.is_some() {
            return Vec::new();
        }
        let disabled = AccessChange::PutUser(User { disabled: Some(now), ..user.clone() });
        let its = self.tokens.values().filter(|token| token.user == user.name && token.revoked.is_none());
        let revoked = its.map(|token| AccessChange::PutToken(Token { revoked: Some(now), ..token.clone() }));
        [disabled].into_iter().chain(revoked).collect()
    }

    /// Lets a user have tokens again. The tokens from before stay revoked.
    #[must_use]
    pub fn enable_user(&self, user: &User) -> Vec<AccessChange> {
        if user.disabled.is_none() {
            return Vec::new();
        }
        vec![AccessChange::PutUser(User { disabled: None, ..user.clone() })]
    }

    /// Adds a token of a user.
    ///
    /// # Errors
    ///
    /// [`AccessRefusal::NoSuchUser`], [`AccessRefusal::Disabled`], [`AccessRefusal::BadName`],
    /// [`AccessRefusal::TokenTaken`], [`AccessRefusal::AdminOfSome`], [`AccessRefusal::NoFleets`],
    /// [`AccessRefusal::TooMany`].
    pub fn create_token(&self, new: NewToken) -> Result<Vec<AccessChange>, AccessRefusal> {
        let NewToken { hash, user, name, role, scope, created, expires_in } = new;
        let user = self.find_user(&user)?;
        if user.disabled.is_some() {
            return Err(AccessRefusal::Disabled { name: user.name.clone() });
        }
        if let Scope::Fleets(fleets) = &scope {
            if role == Role::Admin {
                return Err(AccessRefusal::AdminOfSome);
            }
            if fleets.is_empty() {
                return Err(AccessRefusal::NoFleets);
            }
        }
        if self.tokens.len() >= MOST_TOKENS {
            let remedy = "use a token for longer";
            return Err(AccessRefusal::TooMany { what: "tokens", most: MOST_TOKENS, remedy });
        }
        let name = self.name_for(user, name, role, created)?;
        // A time that is too far ahead to be represented counts as no end.
        let expires = expires_in.and_then(|wait| created.checked_add(wait).ok());
        let user = user.name.clone();
        Ok(vec![AccessChange::PutToken(Token {
            hash,
            user,
            name,
            role,
            scope,
            created,
            expires,
            revoked: None,
        })])
    }

    /// Revokes a token for ever. One that was revoked before keeps its time.
    #[must_use]
    pub fn revoke_token(&self, token: &Token, now: Timestamp) -> Vec<AccessChange> {
        if token.revoked.is_some() {
            return Vec::new();
        }
        vec![AccessChange::PutToken(Token { revoked: Some(now), ..token.clone() })]
    }

    /// Checks the name of a new token, or makes one.
    fn name_for(
        &self,
        user: &User,
        name: Option<String>,
        role: Role,
        now: Timestamp,
    ) -> Result<String, AccessRefusal> {
        let is_taken = |name: &str| {
            let mut its = self.tokens.values().filter(|token| token.user == user.name && token.name == name);
            its.any(|token| self.end(token, now).is_none())
        };
        match name {
            Some(name) => {
                check_name("token", &name)?;
                if is_taken(&name) {
                    return Err(AccessRefusal::TokenTaken { user: user.name.clone(), name });
                }
                Ok(name)
            }
            None => {
                let numbered = (2..=MOST_TOKENS + 1).map(|n| format!("{role}-{n}"));
                let mut names = [role.to_string()].into_iter().chain(numbered);
                Ok(names.find(|name| !is_taken(name)).unwrap_or_else(|| role.to_string()))
            }
        }
    }
}

/// Checks the name of a user or a token: an allow-list, because names are in the audit trail and in commands.
fn check_name(what: &'static str, name: &str) -> Result<(), AccessRefusal> {
    let bad = |accepts| Err(AccessRefusal::BadName { what, given: shown(name), accepts });
    let is_good = (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-+@".contains(c))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !is_good {
        return bad(NAME_ACCEPTS);
    }
    if name.len() >= SHORTEST_PREFIX && name.chars().all(|c| c.is_ascii_hexdigit()) {
        return bad(NO_PREFIX);
    }
    if OF_NO_USER.contains(&name) {
        return bad(NO_USER);
    }
    if name == FIRST { bad(NO_FILE) } else { Ok(()) }
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
