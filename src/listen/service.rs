//! Connects hyper with the routes: records where a request begins and ends, and admits it if its user decides its rank.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{CONNECTION, TRANSFER_ENCODING};
use axum::http::{HeaderValue, Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::admission::{Connection, Phase, Rank, Visit};

/// How requests are admitted.
#[derive(Debug, Clone, Copy)]
pub enum Admission {
    /// Each request is admitted before it is routed, with the rank of its peer's user. `busy` is the response if there is
    /// no place.
    ByUser { busy: fn() -> Response<Body> },
    /// The routes admit it, with [`Visit::admit`]. A request that no route admits is still answered, but its body is never
    /// read.
    ByRoutes,
}

/// The routes, for the requests of one connection.
pub(super) struct Routes {
    pub(super) routes: TowerToHyperService<Router>,
    pub(super) admission: Admission,
    pub(super) connection: Arc<Connection>,
}

/// A request that is being served; dropped when its response exists.
struct Serving(Arc<Connection>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.enter(Phase::Answered);
    }
}

impl Service<Request<Incoming>> for Routes {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.connection.enter(Phase::Serving);
        let serving = Serving(Arc::clone(&self.connection));
        let client = self.connection.client(request.headers());
        let visit = Visit { connection: Arc::clone(&self.connection), client };
        let has_body = !request.body().is_end_stream();
        // If there is a Content-Length, too, hyper uses this one, and the connection must then be closed (RFC 9112,
        // 6.3): a proxy may have seen another end of the request. hyper has dropped the length by now, so every
        // such connection is closed.
        let is_chunked = request.headers().contains_key(TRANSFER_ENCODING);
        let refused = match self.admission {
            Admission::ByRoutes => None,
            Admission::ByUser { busy } => {
                let rank = if visit.is_privileged() { Rank::Privileged } else { Rank::Ordinary };
                let admitted = visit.admit(rank).map(|admitted| request.extensions_mut().insert(admitted));
                admitted.is_err().then(busy)
            }
        };
        request.extensions_mut().insert(visit);
        let routed = refused.is_none().then(|| self.routes.call(request));
        Box::pin(async move {
            let mut response = match (routed, refused) {
                (Some(routed), _) => routed.await?,
                (None, refused) => refused.unwrap_or_default(),
            };
            if is_chunked || (has_body && !serving.0.is_admitted()) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| Answer { body, _serving: serving }))
        })
    }
}

/// The body of a response. Its end is the end of the request.
pub(super) struct Answer {
    body: Body,
    _serving: Serving,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
