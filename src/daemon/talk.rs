//! Talks to the cloud: registers, polls, reports, and moves to another cloud. Only wiring.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cloud::{self, Client, Poller, Repeats, Reporter, Start, Times};
use crate::config::{CloudConfig, Joining};
use crate::engine::Docker;
use crate::host;
use crate::http::Http;
use crate::logs::LogTask;
use crate::model::{CloudReport, Hardware, Identity, LocalApps, Policy, RegistryLogin, ReportedAccess};
use crate::store::Store;

use super::data_root::DataRoot;
use super::moving::{Moved, Mover};
use super::tags::TagTask;
use super::vpn::Vpn;
use super::{Wires, joining, uploads};

/// The task that talks to the cloud.
pub(super) struct Talk {
    pub(super) http: Http,
    /// Where metrics are served, if anywhere.
    pub(super) metrics: Option<SocketAddr>,
    /// The folder of the engine's images, once it is known.
    pub(super) data_root: Arc<DataRoot>,
    /// The cloud of the settings. A move may have put another one in its place.
    pub(super) settings: CloudConfig,
    pub(super) policy: Policy,
    /// Who the device is by its settings and its store.
    pub(super) identity: Identity,
    pub(super) store: Store,
    pub(super) wires: Wires,
    pub(super) login: watch::Sender<Option<RegistryLogin>>,
    pub(super) besides: Besides,
}

/// What runs besides polls and reports.
pub(super) struct Besides {
    pub(super) logs: LogTask<Docker>,
    pub(super) tags: TagTask,
    pub(super) vpn: Vpn,
}

impl Besides {
    /// Runs all of it for this cloud, until `stop`.
    async fn run(&mut self, client: &Client, there: &Identity, wires: &Wires, stop: &CancellationToken) {
        let uploaded = self.logs.run(uploads::to(client, there), uploads::sources(wires), stop.clone());
        let tagged = self.tags.run(client.clone(), there, stop.clone());
        let tunnel = self.vpn.run(client, there, wires, stop.clone());
        tokio::join!(Box::pin(uploaded), Box::pin(tagged), Box::pin(tunnel));
    }
}

/// Returns the device's login to the registries of its cloud.
pub(super) fn login(cloud: &CloudConfig, identity: &Identity) -> RegistryLogin {
    RegistryLogin {
        cloud: cloud.endpoint.clone(),
        username: format!("d_{}", identity.uuid),
        password: identity.device_key.clone(),
        registries: cloud::registries(&cloud.endpoint, &cloud.registries),
    }
}

impl Talk {
    /// Returns the settings of the cloud that is in force. The registries in the settings are those of the settings' cloud,
    /// so they do not get the key of another one.
    pub(super) fn present(settings: CloudConfig, identity: &Identity) -> CloudConfig {
        match identity.moves.in_force(&settings.endpoint) {
            None => settings,
            Some(moved) => CloudConfig {
                endpoint: moved.to.clone(),
                joining: Joining::Remembered,
                registries: Vec::new(),
                ..settings
            },
        }
    }

    /// Talks until `stop`: to the present cloud, and after a move to the next one. `etag` and `wanted_interval` are those of
    /// the target in force.
    pub(super) async fn run(
        mut self,
        (mut etag, mut wanted_interval): (Option<String>, Option<Duration>),
        stop: CancellationToken,
    ) {
        loop {
            let Some(Moved { identity, delivered }) =
                Box::pin(self.round((etag, wanted_interval), &stop)).await
            else {
                return;
            };
            self.identity = identity;
            let cloud = Self::present(self.settings.clone(), &self.identity);
            let (there, _) = self.identity.in_force(&self.settings.endpoint);
            self.login.send_replace(Some(login(&cloud, &there)));
            self.wires.cloud.send_replace(CloudReport::default());
            etag = delivered.record.as_ref().and_then(|record| record.etag.clone());
            wanted_interval = delivered.target.poll_interval;
            self.wires.target.send_replace(Some(delivered.into()));
        }
    }

    /// Registers if need be, then polls and reports until `stop`, or until the device has moved to another cloud.
    async fn round(
        &mut self,
        (etag, wanted_interval): (Option<String>, Option<Duration>),
        stop: &CancellationToken,
    ) -> Option<Moved> {
        let Self { http, metrics, data_root, settings, policy, identity, store, wires, besides, .. } = self;
        let cloud = Self::present(settings.clone(), identity);
        let client = Client::new(http.clone(), &cloud.endpoint, cloud.request_timeout);
        wires.cloud.send_modify(|report| report.endpoint.clone_from(&cloud.endpoint));
        end_former_tunnel(besides, identity, settings, stop).await?;
        if !joining::register(&client, &cloud, identity, store, wires, stop).await {
            return None;
        }
        let (there, _) = identity.in_force(&settings.endpoint);
        let moved = identity.moves.in_force(&settings.endpoint);
        let apps = moved.map(|moved| moved.apps.clone()).unwrap_or_default();
        let round = stop.child_token();
        let start = Start {
            uuid: there.uuid.clone(),
            device_key: there.device_key.clone(),
            policy: policy.clone(),
            etag,
            interval: cloud.poll_interval,
            wanted_interval,
            wait: cloud.poll_wait,
            apps: apps.clone(),
        };
        let times = Times { time_in: host::time_in, uptime: host::uptime };
        let (target, report, poll_now) = (wires.target.clone(), wires.cloud.clone(), wires.poll_now.clone());
        let poller = Poller::new(client.clone(), start, target, report, times, poll_now);
        let access = besides.vpn.access(&there);
        let reporter = reporter(&client, &cloud, (&there, apps), wires, (*metrics, data_root), access);
        let dropped = joining::drop_key(&client, &cloud, &there, (store, &wires.poll_now), &round);
        let beside = besides.run(&client, &there, wires, &round);
        let quiet = async { tokio::join!(Box::pin(beside), Box::pin(dropped)) };
        let talk = async {
            tokio::join!(poller.run(round.clone()), reporter.run(round.clone()), quiet);
        };
        let mover = Mover {
            http,
            cloud: &cloud,
            settings: &settings.endpoint,
            policy,
            identity,
            store,
            target: wires.target.subscribe(),
            report: &wires.cloud,
            reported: &wires.report,
            move_now: &wires.move_now,
        };
        tokio::pin!(talk);
        let moved = tokio::select! {
            () = &mut talk => return None,
            moved = Box::pin(mover.run()) => moved,
        };
        // The last report tells the cloud that the device has moved.
        round.cancel();
        talk.await;
        (!stop.is_cancelled()).then_some(moved)
    }
}

/// Ends the tunnel of a former identity before the first request, which may wait long for its answer. Returns `None` if the
/// agent stops.
async fn end_former_tunnel(
    besides: &mut Besides,
    identity: &Identity,
    settings: &CloudConfig,
    stop: &CancellationToken,
) -> Option<()> {
    let (present, _) = identity.in_force(&settings.endpoint);
    stop.run_until_cancelled(besides.vpn.end_former(&present)).await
}

fn reporter(
    client: &Client,
    cloud: &CloudConfig,
    (identity, apps): (&Identity, LocalApps),
    wires: &Wires,
    (metrics, data_root): (Option<SocketAddr>, &Arc<DataRoot>),
    supervisor: Option<ReportedAccess>,
) -> Reporter {
    Reporter {
        client: client.clone(),
        uuid: identity.uuid.clone(),
        device_key: identity.device_key.clone(),
        report: wires.report.subscribe(),
        cloud: wires.cloud.clone(),
        hardware: Box::new(move || Hardware {
            supervisor: supervisor.clone(),
            ..host::Machine::default().hardware()
        }),
        load: {
            let (mut machine, data_root) = (host::Machine::default(), Arc::clone(data_root));
            Box::new(move || machine.load(data_root.get()))
        },
        repeats: Repeats::default(),
        gap: cloud.report_interval,
        longest_wait: cloud.poll_interval,
        lines: cloud.report_lines,
        metrics: Box::new(move || metrics.and_then(host::reached_at)),
        takes_accounts: None,
        apps,
    }
}
