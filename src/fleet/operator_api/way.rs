//! What each route needs: a row of the table of routes cannot be made without it.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::handler::Handler;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, on};

use super::answer::{ApiError, Failed};
use super::desk::Order;
use super::needs::{Method, Needs};
use crate::fleet::access::{Outcome, Permission, Reach, Scope};
use crate::fleet::gate::{Caller, Gate};
use crate::fleet::records::Records;
use crate::model::text::shortened;
use crate::wire::operator_api::Code;

/// Maximum number of characters of a message in the audit trail.
const LONGEST_MESSAGE: usize = 500;

/// A method of a route: what it needs, and its handler.
pub(in crate::fleet) struct Way {
    pub(in crate::fleet) needs: Needs,
    handler: MethodRouter<Arc<Records>>,
}

/// A route: its path, and its methods.
pub(in crate::fleet) type Route = (&'static str, Vec<Way>);

/// A method of a route that a token for some fleets may use, too, for these fleets.
pub(super) fn way<H, T>(method: Method, permission: Permission, what: &'static str, handler: H) -> Way
where
    H: Handler<T, Arc<Records>>,
    T: 'static,
{
    let needs = Needs { method, permission, reach: Reach::Fleets, what, has_etag: false };
    Way { needs, handler: on(method.filter(), handler) }
}

impl Way {
    /// Not for a token for some fleets.
    pub(super) fn of_the_server(mut self) -> Self {
        self.needs.reach = Reach::Server;
        self
    }

    /// About one thing that has an ETag.
    pub(super) fn of_one(mut self) -> Self {
        self.needs.has_etag = true;
        self
    }

    /// The handler, behind what it needs.
    pub(super) fn guarded(self, gate: &Arc<Gate>) -> MethodRouter<Arc<Records>> {
        let state = (Arc::clone(gate), self.needs);
        self.handler.route_layer(middleware::from_fn_with_state(state, permitted))
    }
}

/// The header of an answer to a request that was done before.
const REPEATED: HeaderName = HeaderName::from_static("cotter-repeated");

/// Lets a request pass that its caller may make. Records in the audit trail if it was to change something and was refused.
async fn permitted(
    State((gate, needs)): State<(Arc<Gate>, Needs)>,
    Extension(caller): Extension<Caller>,
    mut request: Request,
    next: Next,
) -> Response {
    let order = match Order::new(caller, needs, &request) {
        Ok(order) => Arc::new(order),
        Err(error) => return error.into_response(),
    };
    let response = match check(&order.caller, needs) {
        Ok(()) => {
            request.extensions_mut().insert(Arc::clone(&order));
            if let Some(key) = order.key() {
                request.extensions_mut().insert(key);
            }
            let mut response = next.run(request).await;
            if order.is_repeat() {
                response.headers_mut().insert(REPEATED, HeaderValue::from_static("true"));
            }
            response
        }
        Err(error) => error.into_response(),
    };
    if order.is_act() && !response.status().is_success() {
        let (code, message) = response
            .extensions()
            .get::<Failed>()
            .map(|Failed(failure)| (failure.code.clone(), shortened(&failure.message, LONGEST_MESSAGE)))
            .unwrap_or_default();
        let status = response.status().as_u16();
        // The trail is in the database, too.
        if code == Code::DatabaseLost.word_and_status().0 {
            return response;
        }
        order.refused(&gate, Outcome::Refused { status, code, message }).await;
    }
    response
}

/// Checks the role and the reach of a token.
fn check(caller: &Caller, needs: Needs) -> Result<(), ApiError> {
    if !caller.role.may(needs.permission) {
        return Err(ApiError::needs_role(caller, needs.permission.least()));
    }
    if needs.reach == Reach::Server && *caller.scope != Scope::All {
        return Err(ApiError::needs_all_fleets(caller));
    }
    Ok(())
}
