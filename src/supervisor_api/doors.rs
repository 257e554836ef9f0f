//! Listens at each entrance while it is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::listen::{self, Admission, Limits};
use crate::model::{OfService, Order};

use super::Supervisor;
use super::entrance::{Entrance, wanted};
use super::request::LARGEST_BODY;
use super::serve::router;

/// Limits of each door. A container that takes all places takes them from its own network only.
const LIMITS: Limits = Limits {
    ordinary: 6,
    privileged: 1,
    per_user: 6,
    spare: 8,
    head: Duration::from_secs(10),
    idle: Duration::from_secs(30),
    stalled: Duration::from_secs(30),
    response: Some(Duration::from_secs(60)),
    body: Duration::from_secs(10),
    ordinary_bodies: 4 * LARGEST_BODY,
    privileged_bodies: LARGEST_BODY,
    linger: Duration::from_secs(2),
};

/// Times between two attempts to listen where that was not possible. An engine may create a bridge only when its first
/// container starts, which also causes an attempt.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(60);

/// How long a service has to read its new key.
const TO_READ: Duration = Duration::from_secs(2);

/// Serves the API until `stop` is cancelled, or no more news can come. Waits without waking up while nothing changes and
/// every door is open.
pub async fn run(supervisor: Supervisor, stop: CancellationToken) {
    let (mut view, mut vpn) = (supervisor.view.clone(), supervisor.cloud.state.clone());
    let (mut open, mut servers) = (BTreeMap::<Entrance, CancellationToken>::new(), JoinSet::new());
    let (restarts, mut outdated) = mpsc::channel(8);
    let mut restarting = JoinSet::new();
    let (mut failed, mut again) = (BTreeMap::<Entrance, String>::new(), SOON);
    loop {
        let wanted = wanted(&supervisor, &view.borrow_and_update(), &vpn.borrow_and_update());
        close(&mut open, &wanted);
        failed.retain(|entrance, _| wanted.contains(entrance));
        for entrance in wanted {
            if open.contains_key(&entrance) {
                continue;
            }
            let at = SocketAddr::new(entrance.door.address, supervisor.port);
            match entrance.listen(supervisor.port) {
                Ok(listener) => {
                    info!(%at, "the supervisor API is open");
                    failed.remove(&entrance);
                    let serving = stop.child_token();
                    let routes = router(supervisor.clone(), restarts.clone(), &entrance);
                    servers.spawn(listen::serve(
                        listener,
                        routes,
                        LIMITS,
                        Admission::ByRoutes,
                        serving.clone(),
                        "supervisor API",
                    ));
                    open.insert(entrance, serving);
                }
                Err(error) => note_failure(&mut failed, entrance, at, &error.to_string()),
            }
        }
        again = if failed.is_empty() { SOON } else { (again * 2).min(LATER) };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            changed = view.changed() => if changed.is_err() {
                break;
            },
            changed = vpn.changed() => if changed.is_err() {
                break;
            },
            Some(service) = outdated.recv() => {
                restarting.spawn(restart_later(supervisor.clone(), service));
            }
            Some(_) = restarting.join_next() => {}
            Some(_) = servers.join_next() => {}
            () = tokio::time::sleep(again), if !failed.is_empty() => {}
        }
    }
    open.values().for_each(CancellationToken::cancel);
    while servers.join_next().await.is_some() {}
}

/// Stops listening where it is not wanted any more.
fn close(open: &mut BTreeMap<Entrance, CancellationToken>, wanted: &BTreeSet<Entrance>) {
    open.retain(|entrance, serving| {
        let is_wanted = wanted.contains(entrance);
        if !is_wanted {
            info!(address = %entrance.door.address, "the supervisor API is closed");
            serving.cancel();
        }
        is_wanted
    });
}

/// Restarts a service whose container has a key that is no longer good, once the service has had the time to read the new
/// one. A lock or a hold may forbid it; then the container is created again before its next start.
async fn restart_later(supervisor: Supervisor, service: OfService) {
    tokio::time::sleep(TO_READ).await;
    let (answer, answered) = oneshot::channel();
    if supervisor.orders.send((Order::Restart { service, is_forced: false }, answer)).await.is_ok() {
        _ = answered.await;
    }
}

/// Logs once why a door cannot be opened.
fn note_failure(failed: &mut BTreeMap<Entrance, String>, entrance: Entrance, at: SocketAddr, error: &str) {
    if failed.get(&entrance).is_some_and(|known| known == error) {
        debug!(%at, error, "the supervisor API still cannot listen");
        return;
    }
    warn!(
        %at,
        error,
        "the supervisor API cannot listen here; if another program has the port, set supervisor_api.port; trying again"
    );
    failed.insert(entrance, error.to_owned());
}
