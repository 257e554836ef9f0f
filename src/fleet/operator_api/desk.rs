//! The records, as the client of one request may see and change them.
//!
//! Handlers have no other way to the records. So nothing out of a token's scope is found or changed, and every act is in the
//! audit trail.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use jiff::Timestamp;

use super::answer::{ApiError, log_failure};
use super::needs::Needs;
use crate::fleet::access::{Entry, MOST_THINGS, Outcome, Scope, Which};
use crate::fleet::audit_log::Page;
use crate::fleet::clock;
use crate::fleet::gate::Caller;
use crate::fleet::parked::Parked;
use crate::fleet::policy::{Change, Device, Refusal, Sight, World};
use crate::fleet::records::{ActError, Records};
use crate::fleet::requests::Requests;
use crate::fleet::standing::Contact;
use crate::fleet::writer::Work;
use crate::model::DeviceUuid;
use crate::model::text::is_one_line;

/// The header with the reason of a request.
const REASON: &str = "cotter-reason";

/// Most characters of a reason, and of a path in the audit trail.
const LONGEST_REASON: usize = 500;
const LONGEST_PATH: usize = 300;

/// The world in an act.
pub(super) type Acting<'a> = Sight<&'a World>;

/// The world in an answer.
pub(super) type Seen = Sight<Arc<World>>;

/// A request: who makes it, what it is for, and why.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) caller: Caller,
    needs: Needs,
    request: String,
    why: Option<String>,
}

/// The records for one request. Cheap to clone.
#[derive(Clone)]
pub(super) struct Desk {
    records: Arc<Records>,
    order: Arc<Order>,
}

impl Order {
    /// Reads the parts of a request that the audit trail has.
    ///
    /// # Errors
    ///
    /// If its reason is not accepted.
    pub(super) fn new(caller: Caller, needs: Needs, request: &Request) -> Result<Self, ApiError> {
        let why = request.headers().get(REASON).map(|why| reason(why.as_bytes())).transpose()?;
        let path: String = request.uri().path().chars().take(LONGEST_PATH).collect();
        // The router has taken off what the routes of this API begin with.
        let request = format!("{} /api/v1{path}", needs.method.as_str());
        Ok(Self { caller, needs, request, why })
    }

    /// Records in the audit trail that this request was refused.
    pub(super) async fn refused(self: &Arc<Self>, records: &Arc<Records>, outcome: Outcome) {
        let order = Arc::clone(self);
        let act = move |world: &World| Ok(((), vec![order.entry(world, outcome).into()]));
        if let Err(error) = records.act(act).await {
            log_failure(&error);
        }
    }

    fn entry(&self, world: &World, outcome: Outcome) -> Entry {
        let Caller { by, from, .. } = &self.caller;
        Entry {
            number: world.audited() + 1,
            at: clock::now(),
            by: by.clone(),
            from: from.map(|from| from.to_string()),
            what: self.needs.what.to_owned(),
            request: self.request.clone(),
            things: Vec::new(),
            count: 0,
            fleets: Vec::new(),
            details: None,
            why: self.why.clone(),
            outcome,
        }
    }
}

impl From<Entry> for Change {
    fn from(entry: Entry) -> Self {
        Self::Audit(Box::new(entry))
    }
}

fn reason(given: &[u8]) -> Result<String, ApiError> {
    let given = std::str::from_utf8(given).unwrap_or_default().trim();
    let is_good = (1..=LONGEST_REASON).contains(&given.chars().count()) && is_one_line(given);
    is_good.then(|| given.to_owned()).ok_or_else(|| {
        let accepts = "the header Cotter-Reason has 1 to 500 visible characters in UTF-8, on one line";
        ApiError::bad_request(format!("the reason is not accepted: {accepts}"))
    })
}

impl Desk {
    /// Returns the records as they are now. Later changes do not reach it.
    pub(super) fn world(&self) -> Seen {
        Sight::new(self.records.world(), self.scope())
    }

    /// Runs an act, and records it in the audit trail, in the same write, if it changes something.
    ///
    /// # Errors
    ///
    /// As [`Records::act`]; and [`Refusal::OutOfScope`] for an act that would change something out of scope.
    pub(super) async fn act<T, F>(&self, act: F) -> Result<T, ActError>
    where
        T: Send + 'static,
        F: FnOnce(&Acting<'_>) -> Result<(T, Vec<Change>), Refusal> + Send + 'static,
    {
        let order = Arc::clone(&self.order);
        let audited = move |world: &World| {
            let sight = Sight::new(world, Arc::clone(&order.caller.scope));
            let (answer, mut changes) = act(&sight).map_err(|refusal| sight.concealed(refusal))?;
            sight.check(&changes)?;
            if !changes.is_empty() {
                let mut entry = order.entry(world, Outcome::Done);
                let (things, count, fleets) = world.things(&changes, MOST_THINGS);
                entry.details = world.details(&changes);
                (entry.things, entry.count, entry.fleets) = (things, count, fleets.into_iter().collect());
                changes.push(entry.into());
            }
            Ok((answer, changes))
        };
        self.records.act(audited).await
    }

    /// Reads the newest records of the audit trail below a number. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Records::audit_page`].
    pub(super) fn audit_page(&self, which: &Which, below: u64, most: usize) -> Result<Page, ActError> {
        self.records.audit_page(which, &self.order.caller.scope, below, most)
    }

    /// As [`Records::last_seen`].
    pub(super) fn last_seen(&self, world: &World, device: &Device) -> (Option<Timestamp>, Contact) {
        self.records.last_seen(world, device)
    }

    /// As [`Records::work`].
    pub(super) fn work(&self) -> &Work {
        self.records.work()
    }

    /// As [`Records::parked`].
    pub(super) fn parked(&self) -> &Parked {
        self.records.parked()
    }

    /// As [`Records::requests`].
    pub(super) fn requests(&self) -> &Requests {
        self.records.requests()
    }

    /// As [`Records::forget`].
    pub(super) fn forget(&self, uuid: &DeviceUuid) {
        self.records.forget(uuid);
    }

    /// Returns whether the request's token reaches all fleets.
    pub(super) fn reaches_all(&self) -> bool {
        *self.order.caller.scope == Scope::All
    }

    fn scope(&self) -> Arc<Scope> {
        Arc::clone(&self.order.caller.scope)
    }
}

impl FromRequestParts<Arc<Records>> for Desk {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, records: &Arc<Records>) -> Result<Self, ApiError> {
        // A route without `permitted` before it cannot be added to the table.
        let order = parts.extensions.get::<Arc<Order>>().cloned();
        let order = order.ok_or_else(|| {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "storage", "the route has no permission")
        })?;
        Ok(Self { records: Arc::clone(records), order })
    }
}
