//! Moves the device to another cloud, when the present one orders it.
//!
//! The present cloud stays in force until the other one has answered a poll of this device with a target that continues what
//! runs here. Each step can be repeated: the device's new key is on the disk before it is sent anywhere, and the move is in
//! force once it is on the disk. So after a power cut the device is at one of both, and goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::cloud::{self, Client, Polled, Registration, State};
use crate::config::{CloudConfig, MoveTo, checked_endpoint};
use crate::host;
use crate::http::{Http, Url};
use crate::model::{
    CloudReport, Delivered, FleetRef, Identity, Move, MoveOrder, MoveReport, Policy, Report, StoredTarget,
    Target, with_causes,
};
use crate::store::Store;
use crate::wire::target_v3;

use super::persistence::save_identity;

/// Times between attempts: the first, and the longest.
const AGAIN: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// What a move needs.
pub(super) struct Mover<'a> {
    pub(super) http: &'a Http,
    /// The present cloud.
    pub(super) cloud: &'a CloudConfig,
    /// The endpoint of the settings.
    pub(super) settings: &'a str,
    pub(super) policy: &'a Policy,
    /// Who the device is by its settings and its store, also while a move is in force.
    pub(super) identity: &'a Identity,
    pub(super) store: &'a Store,
    pub(super) target: watch::Receiver<Option<Arc<Delivered>>>,
    pub(super) report: &'a watch::Sender<CloudReport>,
    /// Notified when what is reported to the cloud has changed.
    pub(super) reported: &'a watch::Sender<Report>,
    /// Notified when an operator asks the device to try again at once.
    pub(super) move_now: &'a Notify,
}

/// A device that has moved: who it is, and its first target there.
pub(super) struct Moved {
    pub(super) identity: Identity,
    pub(super) delivered: Delivered,
}

impl Mover<'_> {
    /// Waits for an order to move, and tries until it succeeds. Cancel safe between two requests: what was done is found again.
    pub(super) async fn run(mut self) -> Moved {
        let mut identity = self.identity.clone();
        let (mut wait, mut last) = (AGAIN, None);
        loop {
            let delivered = self.target.borrow_and_update().clone();
            let order = delivered.as_ref().and_then(|d| d.target.moves_to.clone());
            if last != order {
                (wait, last) = (AGAIN, order.clone());
            }
            let Some((order, delivered)) = order.zip(delivered) else {
                self.publish(None);
                if self.target.changed().await.is_err() {
                    return std::future::pending().await;
                }
                continue;
            };
            let begun = Instant::now();
            let why = match self.attempt(&order, &delivered.target, &mut identity).await {
                Ok(Some(moved)) => {
                    info!(to = order.endpoint, "device moved to another cloud");
                    self.publish(Some(MoveReport { to: order.endpoint, is_done: true, why: None }));
                    return moved;
                }
                Ok(None) => None,
                Err(why) => {
                    warn!(to = order.endpoint, why, "device cannot move to another cloud");
                    Some(why)
                }
            };
            self.publish(why.map(|why| MoveReport { to: order.endpoint, is_done: false, why: Some(why) }));
            tokio::select! {
                changed = self.target.changed() => if changed.is_err() { return std::future::pending().await },
                () = self.move_now.notified() => tokio::time::sleep_until(begun + AGAIN).await,
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST),
            }
        }
    }

    fn publish(&self, moving: Option<MoveReport>) {
        let is_new = self.report.send_if_modified(|report| {
            let is_new = report.moving != moving;
            report.moving = moving;
            is_new
        });
        if is_new {
            self.reported.send_modify(|_| {});
        }
    }

    /// Tries to move. Returns `None` if the present cloud is the one of the order.
    ///
    /// # Errors
    ///
    /// Why the device has not moved.
    async fn attempt(
        &self,
        order: &MoveOrder,
        present: &Target,
        identity: &mut Identity,
    ) -> Result<Option<Moved>, String> {
        let to = checked_endpoint(&order.endpoint).map_err(|error| error.to_string())?;
        if to == self.cloud.endpoint {
            return Ok(None);
        }
        self.permitted(&to)?;
        let fleet = FleetRef::parse(&order.fleet)
            .map_err(|accepts| format!("the order names no fleet: {accepts}"))?;
        let is_begun = identity.moves.begun.as_ref().is_some_and(|begun| begun.to == to);
        if !is_begun {
            let device_key = host::random_hex(16).map_err(|error| error.to_string())?;
            let from = self.settings.to_owned();
            let begun = Move { from, to: to.clone(), device_key, apps: Default::default() };
            identity.moves.begun = Some(begun);
        }
        // Saved again, too: the disk may not have taken it before.
        self.save(identity).await?;
        let Some(begun) = identity.moves.begun.clone() else { return Ok(None) };
        let client = Client::new(self.http.clone(), &to, self.cloud.request_timeout);
        self.register(&client, (&fleet, &order.key), (identity, &begun), is_begun).await?;

        let polled = client.state(&identity.uuid, &begun.device_key, None, None).await;
        let Polled { state: State::Changed { etag, body }, .. } =
            polled.map_err(|error| error.to_string())?
        else {
            return Err(format!("{to} has no target for this device"));
        };
        let target = target_v3::parse(&body, &identity.uuid, self.policy);
        let mut target = target.map_err(|error| format!("the target of {to} cannot be read: {error}"))?;
        let apps = present.successors(&target).map_err(|why| format!("{to}: {why}"))?;
        let body = String::from_utf8(body).map_err(|_| format!("the target of {to} is not UTF-8"))?;
        target.localize(&apps);

        let mut moved = identity.clone();
        moved.moves.begun = None;
        // It may have been begun with older settings, with which it would not be in force.
        moved.moves.done = Some(Move { from: self.settings.to_owned(), apps, ..begun });
        self.save(&moved).await?;
        let record = StoredTarget { endpoint: to, etag, body };
        Ok(Some(Moved {
            identity: moved,
            delivered: Delivered {
                target: Arc::new(target),
                etag: record.etag.clone(),
                record: Some(record),
            },
        }))
    }

    /// Checks what the device's owner allows.
    fn permitted(&self, to: &str) -> Result<(), String> {
        if to.starts_with("http://") && !self.cloud.endpoint.starts_with("http://") {
            return Err("it has no TLS, and the present cloud has: an https:// address is needed".to_owned());
        }
        let is_allowed = match &self.cloud.move_to {
            MoveTo::Anywhere => true,
            MoveTo::AsPolicyAllows => !self.policy.root_equal().is_empty(),
            MoveTo::Hosts(hosts) => {
                let url = Url::parse(to).ok();
                let host = url.as_ref().and_then(|url| {
                    let host = url.host_str()?.to_lowercase();
                    Some(url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}")))
                });
                host.is_some_and(|host| hosts.contains(&host))
            }
        };
        if is_allowed {
            return Ok(());
        }
        Err("the settings of this device do not allow it: cloud.move_to must have the host".to_owned())
    }

    /// Registers the device at the other cloud, unless an earlier attempt did.
    async fn register(
        &self,
        client: &Client,
        (fleet, key): (&FleetRef, &str),
        (identity, begun): (&Identity, &Move),
        is_begun: bool,
    ) -> Result<(), String> {
        // The provisioning key may be used up by the attempt that registered it.
        if is_begun && let Ok(Some(_)) = client.find(&identity.uuid, &begun.device_key).await {
            return Ok(());
        }
        let device = Registration {
            fleet,
            device_type: &self.cloud.device_type,
            device_name: self.cloud.device_name.as_deref(),
            tags: &Default::default(),
            uuid: &identity.uuid,
            device_key: &begun.device_key,
        };
        cloud::register_once(client, device, key).await.map(drop).map_err(|error| error.to_string())
    }

    async fn save(&self, identity: &Identity) -> Result<(), String> {
        let saved = save_identity(self.store, identity).await;
        saved.map_err(|error| format!("the disk does not take it: {}", with_causes(&error)))
    }
}
