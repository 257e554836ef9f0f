//! Gives the status socket the logs of services. It only reads from the engine.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{Log, LogRequest, Logs, NoLog};
use crate::engine::{Docker, EngineError, Inspect, LogSpan};
use crate::host;
use crate::model::{AppId, ContainerId, ContainerState, ObservedService, Report, with_causes};

/// Longest time between two observations while a followed service has no running container.
const OBSERVE_AGAIN: Duration = Duration::from_secs(2);

/// Logs of the services that `report` knows, until `stop` is cancelled.
pub(super) fn source(engine: Arc<Docker>, report: watch::Receiver<Report>, stop: CancellationToken) -> Logs {
    Logs::new(move |request| {
        let (engine, report, stop) = (Arc::clone(&engine), report.clone(), stop.clone());
        async move {
            let apps = apps(&report.borrow(), &request)?;
            let service = Service { engine, apps, name: request.service.clone() };
            open(service, &request, report, stop).await
        }
        .boxed()
    })
}

/// Opens the log of a service's current container.
async fn open(
    service: Service,
    request: &LogRequest,
    report: watch::Receiver<Report>,
    stop: CancellationToken,
) -> Result<Log, NoLog> {
    let Some((container, _)) = service.container().await? else { return Err(service.unknown().await) };
    let span = LogSpan { tail: request.tail, since: request.since.unwrap_or(0), is_followed: request.follow };
    let pieces = service.engine.logs(&container, span).await.map_err(failed)?.boxed();
    let reader = Reader { service, report, stop, is_followed: request.follow, container, pieces };
    Ok(stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) }).boxed())
}

fn failed(error: EngineError) -> NoLog {
    NoLog { code: "engine", why: with_causes(&error) }
}

/// Returns the apps that the request may mean: the named one, or all.
fn apps(report: &Report, request: &LogRequest) -> Result<Vec<AppId>, NoLog> {
    let Some(app) = &request.app else { return Ok(report.apps.keys().cloned().collect()) };
    let found: Vec<_> = report
        .apps
        .iter()
        .filter(|(id, known)| id.as_str() == app || known.name == *app)
        .map(|(id, _)| id.clone())
        .collect();
    if found.is_empty() {
        return Err(NoLog {
            code: "not_found",
            why: format!("this device has no app {app}; `cotter status` names its apps"),
        });
    }
    Ok(found)
}

type Pieces = BoxStream<'static, Result<Vec<u8>, EngineError>>;

/// Reads the log of one service, container after container.
struct Reader {
    service: Service,
    report: watch::Receiver<Report>,
    stop: CancellationToken,
    is_followed: bool,
    container: ContainerId,
    pieces: Pieces,
}

impl Reader {
    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Option<Result<Vec<u8>, String>> {
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            piece = self.piece() => piece,
        }
    }

    async fn piece(&mut self) -> Option<Result<Vec<u8>, String>> {
        loop {
            match self.pieces.next().await {
                Some(Ok(piece)) => return Some(Ok(piece)),
                Some(Err(error)) if !self.is_followed => return Some(Err(with_causes(&error))),
                None if !self.is_followed => return None,
                // A restart of the engine ends the log, too. A client that follows waits for it.
                Some(Err(_)) | None => self.go_on(host::now().as_second()).await,
            }
        }
    }

    /// Waits until a container of the service runs, and opens its log. The log of the same container continues from where
    /// it `ended` (seconds since 1970), so lines of that second come twice. That of another one is read from its start.
    async fn go_on(&mut self, ended: i64) {
        loop {
            // Once the sender of reports is dropped, `changed` returns at once, so only a sleep bounds the loop.
            if tokio::time::timeout(OBSERVE_AGAIN, self.report.changed())
                .await
                .is_ok_and(|changed| changed.is_err())
            {
                tokio::time::sleep(OBSERVE_AGAIN).await;
            }
            let Ok(Some((container, true))) = self.service.container().await else { continue };
            let since = if container == self.container { i32::try_from(ended).unwrap_or(0) } else { 0 };
            let span = LogSpan { tail: None, since, is_followed: true };
            if let Ok(pieces) = self.service.engine.logs(&container, span).await {
                (self.container, self.pieces) = (container, pieces.boxed());
                return;
            }
        }
    }
}

/// The service whose log is read.
struct Service {
    engine: Arc<Docker>,
    /// The apps that it may be of.
    apps: Vec<AppId>,
    name: String,
}

impl Service {
    /// Returns its newest running container, else its newest one, and whether that runs.
    async fn container(&self) -> Result<Option<(ContainerId, bool)>, NoLog> {
        let observed = self.engine.observe().await.map_err(failed)?;
        let is_its =
            |seen: &&ObservedService| seen.service.as_str() == self.name && self.apps.contains(&seen.app);
        let found: Vec<_> = observed.services.iter().filter(is_its).collect();
        let first = found.first().map(|seen| &seen.app);
        if found.iter().any(|seen| Some(&seen.app) != first) {
            let why = format!("several apps have a service {}; say which with --app", self.name);
            return Err(NoLog { code: "bad_request", why });
        }
        let running = found.iter().find(|seen| seen.state == ContainerState::Running);
        let running = running.map(|seen| (seen.container.clone(), true));
        Ok(running.or_else(|| found.first().map(|seen| (seen.container.clone(), false))))
    }

    /// Makes the error that the service has no container, with the services that have one.
    async fn unknown(&self) -> NoLog {
        let observed = match self.engine.observe().await {
            Ok(observed) => observed,
            Err(error) => return failed(error),
        };
        let ours = observed.services.iter().filter(|seen| self.apps.contains(&seen.app));
        let names: BTreeSet<_> = ours.map(|seen| seen.service.as_str()).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let there = if names.is_empty() { "none has".to_owned() } else { format!("these have: {names}") };
        NoLog { code: "not_found", why: format!("service {} has no container here; {there}", self.name) }
    }
}
