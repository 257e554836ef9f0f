//! The records, as the client of one request may see and change them.
//!
//! Handlers have no other way to the records. So nothing out of a token's scope is found or changed, and every act is in the
//! audit trail.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::{ApiError, log_failure};
use super::conditions::Conditions;
use super::etag::{self, ETag, Tagged};
use super::needs::{Method, Needs, OfPage};
use super::reason;
use super::repeat::{self, BadKey, Key};
use crate::fleet::access::{AccessRefusal, Entry, MOST_THINGS, Outcome, Scope, Which};
use crate::fleet::audit_log::Page;
use crate::fleet::clock;
use crate::fleet::gate::{Caller, Gate, RECORDED};
use crate::fleet::policy::{Change, Pinned, Refusal, Sight, World};
use crate::fleet::records::{ActError, Records};
use crate::fleet::repeats::Repeat;
use crate::listen::Admitted;
use crate::wire::operator_api::Code;

mod views;

/// Maximum number of characters of a path in the audit trail.
const LONGEST_PATH: usize = 300;

/// The world in an act.
pub(super) struct Acting<'a> {
    sight: Sight<&'a World>,
    conditions: &'a Conditions,
    is_checked: Cell<bool>,
}

impl<'a> Deref for Acting<'a> {
    type Target = Sight<&'a World>;

    fn deref(&self) -> &Self::Target {
        &self.sight
    }
}

impl<'a> Acting<'a> {
    fn new(world: &'a World, order: &'a Order) -> Self {
        let sight = Sight::new(world, Arc::clone(&order.caller.scope));
        Self { sight, conditions: &order.conditions, is_checked: Cell::new(order.conditions.is_none()) }
    }

    /// Checks the conditions of the request against the thing that the act is about, as it is now. No other act can come
    /// between.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotAsExpected`].
    pub(super) fn expects(&self, etag: &ETag) -> Result<(), Refusal> {
        self.is_checked.set(true);
        self.conditions.check(etag)
    }
}

/// The world in an answer.
pub(super) type Seen = Sight<Arc<World>>;

/// A request: who makes it, what it is for, and why.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) caller: Caller,
    needs: Needs,
    request: String,
    /// Whether a page of the dashboard only asks what an act would do, to show it.
    is_preview: bool,
    why: Option<String>,
    conditions: Conditions,
    key: Option<Arc<Key>>,
    is_repeat: AtomicBool,
}

/// What an act gave, now or when it was done.
enum Acted<T> {
    First(T),
    Again(Arc<Repeat>),
}

/// The records for one request. Cheap to clone.
#[derive(Clone)]
pub(super) struct Desk {
    records: Arc<Records>,
    order: Arc<Order>,
    /// The place of the request. Work that goes on after the client has gone keeps it.
    place: Admitted,
}

impl Order {
    /// Reads the parts of a request that the audit trail has.
    ///
    /// # Errors
    ///
    /// If its reason is not accepted.
    pub(super) fn new(caller: Caller, needs: Needs, request: &Request) -> Result<Self, ApiError> {
        let why = reason::of(request.headers())?;
        let path: String = request.uri().path().chars().take(LONGEST_PATH).collect();
        // The router has taken off what the routes of this API begin with.
        let page = request.extensions().get::<OfPage>().map(|OfPage(page)| page.clone());
        let is_preview = page.as_ref().is_some_and(|page| page.starts_with("GET "));
        let shown = page.unwrap_or_else(|| format!("{} /api/v1{path}", needs.method.as_str()));
        let conditions = Conditions::of(request.headers())?;
        if !needs.has_etag && needs.method != Method::Get && !conditions.is_none() {
            let wrong = "this request has the header If-Match or If-None-Match, and is not about one thing with an ETag";
            return Err(ApiError::with_remedy(Code::BadRequest, wrong, "leave the header out"));
        }
        let key = Key::of(request.headers(), &caller.by, needs.method, request.uri()).map_err(|BadKey| {
            let accepts = "send one with 1 to 255 visible characters in UTF-8";
            ApiError::with_remedy(Code::BadRequest, "the header Idempotency-Key is not a key", accepts)
        })?;
        let (key, is_repeat) = (key.map(Arc::new), AtomicBool::new(false));
        Ok(Self { caller, needs, request: shown, is_preview, why, conditions, key, is_repeat })
    }

    /// Returns the key of this request, if it has one.
    pub(super) fn key(&self) -> Option<Arc<Key>> {
        self.key.clone()
    }

    /// Returns whether this request is to change something.
    pub(super) fn is_act(&self) -> bool {
        self.needs.method != Method::Get && !self.is_preview
    }

    /// Returns whether this request was done before.
    pub(super) fn is_repeat(&self) -> bool {
        self.is_repeat.load(Ordering::Relaxed)
    }

    /// Finds what this request did when it was made before.
    fn repeated(&self, world: &World) -> Result<Option<Arc<Repeat>>, Refusal> {
        let Some(key) = &self.key else { return Ok(None) };
        let Some(repeat) = world.repeats().find(&key.id, clock::now()) else { return Ok(None) };
        if repeat.request != key.request() {
            return Err(Refusal::KeyReused);
        }
        self.is_repeat.store(true, Ordering::Relaxed);
        Ok(Some(Arc::clone(repeat)))
    }

    /// Returns the changes that remember what this request did.
    fn remembered(&self, world: &World, entry: &Entry, answer: Option<String>) -> Vec<Change> {
        let Some(key) = &self.key else { return Vec::new() };
        let (id, request) = (key.id.clone(), key.request());
        let repeat = Repeat { id, request, at: entry.at, number: entry.number, answer };
        let forgotten = world.repeats().without_room(&repeat, entry.at);
        let forgotten = forgotten.into_iter().map(Change::DropRepeat);
        forgotten.chain([Change::PutRepeat(Box::new(repeat))]).collect()
    }

    /// Records in the audit trail that this request was refused.
    ///
    /// Of many of one token in a day only some are recorded, with their number, so that they push nothing else out.
    pub(super) async fn refused(self: &Arc<Self>, gate: &Gate, mut outcome: Outcome) {
        let Some(number) = gate.refused(&self.caller) else { return };
        if let Outcome::Refused { message, .. } = &mut outcome
            && number > RECORDED
        {
            message.push_str(&format!(
                " ({number} requests of this token were refused since a day or less; after {RECORDED} of them only the 100th, the 1000th and so on are recorded)"
            ));
        }
        let (order, records) = (Arc::clone(self), gate.records());
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

fn done_already(done: &Repeat) -> ActError {
    Refusal::DoneAlready { at: done.at, number: done.number }.into()
}

impl Desk {
    /// Returns the records as they are now. Later changes do not reach it.
    pub(super) fn world(&self) -> Seen {
        Sight::new(self.records.world(), self.scope())
    }

    /// Answers with a thing that is read, or that the client has it already.
    ///
    /// # Errors
    ///
    /// If a condition of the request is not met.
    pub(super) fn read<T: Serialize>(&self, etag: &ETag, view: T) -> Result<Response, ApiError> {
        match self.is_news(etag)? {
            true => Ok(Tagged(etag.clone(), view).into_response()),
            false => Ok(etag::not_modified(etag)),
        }
    }

    /// Returns `false` if the client has what it reads already.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub(super) fn is_news(&self, etag: &ETag) -> Result<bool, ApiError> {
        Ok(self.order.conditions.is_news(etag)?)
    }

    /// Runs an act, and records it in the audit trail, in the same write, if it changes something. A request that is repeated
    /// with its key changes nothing, and has the answer of the first one.
    ///
    /// # Errors
    ///
    /// As [`Records::act`]; [`Refusal::OutOfScope`] for an act that would change something out of scope;
    /// [`Refusal::DoneAlready`] for a repeated one whose answer was too long to be kept.
    pub(super) async fn act<T, F>(&self, act: F) -> Result<T, ActError>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: FnOnce(&Acting<'_>) -> Result<(T, Vec<Change>), Refusal> + Send + 'static,
    {
        match self.decide(act, repeat::kept).await? {
            Acted::First(answer) => Ok(answer),
            Acted::Again(done) => {
                let kept = done.answer.as_deref().and_then(|answer| serde_json::from_str(answer).ok());
                kept.ok_or_else(|| done_already(&done))
            }
        }
    }

    /// As [`Self::act`], for an act whose answer is not kept.
    ///
    /// # Errors
    ///
    /// As [`Self::act`]; [`Refusal::DoneAlready`] for each repeated one.
    pub(super) async fn act_unkept<T, F>(&self, act: F) -> Result<T, ActError>
    where
        T: Send + 'static,
        F: FnOnce(&Acting<'_>) -> Result<(T, Vec<Change>), Refusal> + Send + 'static,
    {
        match self.decide(act, |_| None).await? {
            Acted::First(answer) => Ok(answer),
            Acted::Again(done) => Err(done_already(&done)),
        }
    }

    /// As [`Self::act`], for an act whose answer has a key or token that is not stored. `remedy` is for a client that did not
    /// get it.
    ///
    /// # Errors
    ///
    /// As [`Self::act`]; [`Refusal::ShownOnce`] for each repeated one.
    pub(super) async fn act_with_secret<T, F>(
        &self,
        (what, remedy): (&'static str, &'static str),
        act: F,
    ) -> Result<T, ActError>
    where
        T: Send + 'static,
        F: FnOnce(&Acting<'_>) -> Result<(T, Vec<Change>), Refusal> + Send + 'static,
    {
        match self.decide(act, |_| None).await? {
            Acted::First(answer) => Ok(answer),
            Acted::Again(done) => Err(Refusal::ShownOnce { at: done.at, what, remedy }.into()),
        }
    }

    async fn decide<T, F>(&self, act: F, kept: fn(&T) -> Option<String>) -> Result<Acted<T>, ActError>
    where
        T: Send + 'static,
        F: FnOnce(&Acting<'_>) -> Result<(T, Vec<Change>), Refusal> + Send + 'static,
    {
        let (order, place) = (Arc::clone(&self.order), self.place.clone());
        let audited = move |world: &World| {
            let _place = place;
            order.caller.check(world)?;
            if let Some(done) = order.repeated(world)? {
                return Ok((Acted::Again(done), Vec::new()));
            }
            let sight = Acting::new(world, &order);
            let (answer, mut changes) = act(&sight).map_err(|refusal| sight.concealed(refusal))?;
            sight.check(&changes)?;
            debug_assert!(sight.is_checked.get(), "{}: its conditions are not checked", order.request);
            if !changes.is_empty() {
                let mut entry = order.entry(world, Outcome::Done);
                let (things, count, fleets) = world.things(&changes, MOST_THINGS);
                entry.details = world.details(&changes);
                world.note_pins(&mut changes, Pinned::from(&entry));
                (entry.things, entry.count, entry.fleets) = (things, count, fleets.into_iter().collect());
                let messages = world.announcements(&changes, entry.at);
                changes.extend(messages);
                changes.extend(order.remembered(world, &entry, kept(&answer)));
                changes.push(entry.into());
            }
            Ok((Acted::First(answer), changes))
        };
        self.records.act(audited).await
    }

    /// Checks that the token of the request is still accepted. Call it now and then in an answer that takes long.
    ///
    /// # Errors
    ///
    /// [`AccessRefusal::TokenEnded`].
    pub(super) fn check_token(&self) -> Result<(), AccessRefusal> {
        self.order.caller.check(&self.records.world())
    }

    /// Reads the newest records of the audit trail below a number. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Records::audit_page`].
    pub(super) fn audit_page(&self, which: &Which, below: u64, most: usize) -> Result<Page, ActError> {
        self.records.audit_page(which, &self.order.caller.scope, below, most)
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
        let order = order.ok_or_else(|| ApiError::new(Code::Internal, "the route has no permission"))?;
        let place = parts.extensions.get::<Admitted>().cloned().ok_or_else(ApiError::busy)?;
        Ok(Self { records: Arc::clone(records), order, place })
    }
}
