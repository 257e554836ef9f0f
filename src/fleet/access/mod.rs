//! Decides who may do what on the fleet server. Pure: no I/O, no async, no clock, no HTTP.
//!
//! [`Accounts`] has all users and tokens. A token belongs to a user, has a [`Role`], and reaches all fleets or some
//! ([`Scope`]). As in the policy, an act reads the records and returns [`AccessChange`]s or an [`AccessRefusal`];
//! [`Accounts::apply`] makes the changes. [`Entry`] is a record of the audit trail, and [`Throttle`] limits how often an
//! address may present a wrong token.
//!
//! It knows no fleet, device or release, only the numbers of fleets.

mod accounts;
mod entry;
mod refusal;
mod role;
mod throttle;
mod types;

pub use accounts::{Accounts, DEVICE, FIRST, NewToken, RESTORER, ROLLOUT};
pub use entry::{By, Entry, MOST_THINGS, Outcome, Thing, Which};
pub use refusal::AccessRefusal;
pub use role::{Permission, Reach, Role, UnknownRole};
pub(super) use throttle::site as site_of;
pub use throttle::{Throttle, TooMany};
pub use types::{AccessChange, Scope, Token, TokenEnd, User};
