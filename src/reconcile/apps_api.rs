//! Introduces new containers to their device, and publishes what the supervisor API knows of them.
//!
//! The host has an address on each bridge network: its gateway. Only the containers of that network reach it there, so
//! that is where the API listens for them. Services with the network of the host use loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::engine::Operate;
use crate::model::{
    Access, ApiClient, ApiContainer, ApiKey, ApiView, AppId, DeviceFacts, Door, Introduction, Ledger,
    NetworkMode, Observed, ObservedNetwork, ObservedService, Release, ServiceName, ServiceSpec, Target,
    TargetApp,
};

use super::resolve::Known;
use super::{HostAccess, Memory, Reconciler};

/// The feature label of the supervisor API, and that of the cloud's API.
const SUPERVISOR: &str = "supervisor-api";
const CLOUD: &str = "balena-api";

/// Maximum number of links `network_mode: service:x` that are followed from one service to the next.
const LONGEST_CHAIN: usize = 8;

/// The device, for introductions.
pub(super) struct AppsApi {
    pub(super) device: DeviceFacts,
    pub(super) bridge: Option<Door>,
}

impl AppsApi {
    /// Returns what a new container gets to know.
    pub(super) fn introduction(
        &self,
        known: Known<'_>,
        (app, service): (&AppId, &ServiceName),
        release: &Release,
        spec: &ServiceSpec,
    ) -> Introduction {
        let key = known.ledger.apps.get(app).and_then(|entry| entry.api_keys.get(service));
        let access = self.access(known.observed, app, (release, spec), key);
        let device = &self.device;
        let mut named = vec![
            ("DEVICE_UUID", device.uuid.clone()),
            ("DEVICE_TYPE", device.device_type.clone()),
            ("DEVICE_ARCH", device.architecture.clone()),
            ("DEVICE_NAME_AT_INIT", known.target.device_name.clone()),
            ("HOST_OS_VERSION", device.os_version.clone()),
        ];
        named.retain(|(_, value)| !value.is_empty());
        if let Some(Access { address, port, key }) = &access {
            let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
            let url = format!("http://{host}:{port}");
            named.extend([
                ("SUPERVISOR_ADDRESS", url.clone()),
                ("SUPERVISOR_API_URL", url),
                ("SUPERVISOR_HOST", address.to_string()),
                ("SUPERVISOR_PORT", port.to_string()),
                ("SUPERVISOR_API_KEY", key.secret.clone()),
            ]);
        }
        if let Some((url, key)) = device.cloud.as_ref().filter(|_| spec.has_feature(CLOUD)) {
            named.extend([("API_URL", url.clone()), ("API_KEY", key.clone())]);
        }
        let both = |(name, value): &(&str, String)| {
            ["BALENA", "RESIN"].map(|prefix| (format!("{prefix}_{name}"), value.clone()))
        };
        Introduction { variables: named.iter().flat_map(both).collect(), access }
    }

    /// Returns how a service of `release` reaches the supervisor API. `None` if it does not ask for it, or cannot reach it.
    fn access(
        &self,
        observed: &Observed,
        app: &AppId,
        (release, spec): (&Release, &ServiceSpec),
        key: Option<&ApiKey>,
    ) -> Option<Access> {
        let port = self.device.supervisor_port.filter(|_| spec.has_feature(SUPERVISOR))?;
        let address = self.doors(observed, app, release, spec).first()?.address;
        Some(Access { address, port, key: key?.clone() })
    }

    /// Returns the addresses of the host that a service reaches, the one in its variables first.
    fn doors(&self, observed: &Observed, app: &AppId, release: &Release, spec: &ServiceSpec) -> Vec<Door> {
        let Some(spec) = owner_of_network(release, spec) else { return Vec::new() };
        let attached = match &spec.network_mode {
            NetworkMode::Host => return vec![Door::loopback()],
            NetworkMode::Bridge => return self.bridge.iter().cloned().collect(),
            NetworkMode::None | NetworkMode::Service(_) => return Vec::new(),
            NetworkMode::Networks(attached) => attached,
        };
        let mut ordered: Vec<_> = attached.iter().collect();
        ordered.sort_by_key(|(_, attachment)| std::cmp::Reverse(attachment.priority));
        let door = |network: &ObservedNetwork| {
            Some(Door { address: network.gateway?, peers: network.subnets.clone() })
        };
        let of_name = |(name, _)| {
            let hash = release.networks.get(name).and_then(|spec| spec.config_hash.as_ref());
            let is_it = |seen: &&ObservedNetwork| {
                seen.app == *app && seen.network == *name && seen.config_hash.as_ref() == hash
            };
            observed.networks.iter().find(is_it).and_then(door)
        };
        ordered.into_iter().filter_map(of_name).collect()
    }
}

/// Returns the service whose network a service has: itself, or the one that it joins.
fn owner_of_network<'a>(release: &'a Release, spec: &'a ServiceSpec) -> Option<&'a ServiceSpec> {
    let mut spec = spec;
    for _ in 0..LONGEST_CHAIN {
        let NetworkMode::Service(other) = &spec.network_mode else { return Some(spec) };
        spec = release.services.get(other)?;
    }
    None
}

/// Services that ask for the supervisor API, in the releases that are wanted or accepted.
fn asking<'a>(
    target: Option<&'a Target>,
    ledger: &'a Ledger,
) -> Vec<(&'a AppId, &'a ServiceName, &'a Release, &'a ServiceSpec)> {
    let apps = target.into_iter().flat_map(|target| &target.apps);
    let of_app = |(app, wanted): (&'a AppId, &'a TargetApp)| {
        let good = ledger.apps.get(app).and_then(|entry| entry.good.as_ref());
        let releases = wanted.release().into_iter().chain(good);
        releases.flat_map(move |release| release.services.iter().map(move |(n, s)| (app, n, release, s)))
    };
    apps.flat_map(of_app).filter(|(_, _, _, spec)| spec.has_feature(SUPERVISOR)).collect()
}

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    fn apps_api(&self) -> AppsApi {
        AppsApi { device: self.host.device(), bridge: self.bridge.clone() }
    }

    fn asking(&self) -> Vec<(&AppId, &ServiceName, &Release, &ServiceSpec)> {
        asking(self.delivered.as_ref().map(|delivered| &*delivered.target), &self.ledger)
    }

    /// Makes keys for services that ask for the supervisor API and have none, and forgets those of services that are gone.
    /// The caller saves the ledger.
    pub(super) fn make_keys(&mut self) {
        // While the owner does not allow the API, the keys rest: containers that have them keep them.
        if self.host.device().supervisor_port.is_none() {
            return;
        }
        let asking = self.asking();
        let asking: BTreeSet<_> =
            asking.into_iter().map(|(app, service, ..)| (app.clone(), service.clone())).collect();
        let apps = &mut Arc::make_mut(&mut self.ledger).apps;
        for (app, entry) in apps.iter_mut() {
            entry.api_keys.retain(|service, _| asking.contains(&(app.clone(), service.clone())));
        }
        for (app, service) in asking {
            let keys = &mut apps.entry(app).or_default().api_keys;
            if !keys.contains_key(&service)
                && let Some(key) = self.host.new_key()
            {
                keys.insert(service, key);
            }
        }
    }

    /// Asks the engine for its default bridge if a service needs it that asks for the supervisor API.
    pub(super) async fn learn_bridge(&mut self) {
        let needs_it = |(_, _, release, spec): &(_, _, &Release, &ServiceSpec)| {
            owner_of_network(release, spec).is_some_and(|spec| spec.network_mode == NetworkMode::Bridge)
        };
        if self.bridge.is_none() && self.asking().iter().any(needs_it) {
            self.bridge = self.engine.default_bridge().await.ok().flatten();
        }
    }

    /// Marks the containers whose address or key of the supervisor API is not the present one.
    pub(super) fn mark_outdated(&mut self) {
        if self.observed.services.iter().all(|seen| seen.introduced.is_none()) {
            return;
        }
        let api = self.apps_api();
        let mut marks = BTreeMap::new();
        for (app, service, release, spec) in self.asking() {
            let key = self.ledger.apps.get(app).and_then(|entry| entry.api_keys.get(service));
            if let Some(access) = api.access(&self.observed, app, (release, spec), key) {
                marks.insert((app.clone(), service.clone(), spec.hash.clone()), access.mark());
            }
        }
        // Containers of a refused app stay as they are: once removed, they could not be created again.
        let target = self.delivered.as_ref().map(|delivered| Arc::clone(&delivered.target));
        let is_refused = |app: &AppId| {
            let wanted = target.as_ref().and_then(|target| target.apps.get(app));
            matches!(wanted, Some(TargetApp::Refused(_)))
        };
        for seen in &mut Arc::make_mut(&mut self.observed).services {
            if is_refused(&seen.app) {
                continue;
            }
            let present = marks.get(&(seen.app.clone(), seen.service.clone(), seen.spec.clone()));
            let Some((had, present)) = seen.introduced.as_ref().zip(present) else { continue };
            seen.is_outdated = had != present;
        }
    }

    /// Returns what the supervisor API knows. Empty while no service that asks for it has a key, and the cloud cannot ask.
    pub(super) fn api_view(&self) -> ApiView {
        let (mut asking, mut view) = (self.asking(), ApiView::default());
        let api = self.apps_api();
        if api.device.supervisor_port.is_none() {
            asking.clear();
        }
        if asking.is_empty() && !api.device.has_vpn {
            return view;
        }
        let mut seen = BTreeSet::new();
        for (app, service, release, spec) in asking {
            let keys = self.ledger.apps.get(app).map(|entry| &entry.api_keys);
            let Some(key) = keys.and_then(|keys| keys.get(service)) else { continue };
            view.doors.extend(api.doors(&self.observed, app, release, spec));
            if seen.insert((app, service)) {
                let (app, service, key) = (app.clone(), service.clone(), key.clone());
                view.clients.push(ApiClient { app, service, key });
            }
        }
        if !view.clients.is_empty() || api.device.has_vpn {
            view.containers = self.observed.services.iter().map(container).collect();
        }
        view
    }
}

fn container(seen: &ObservedService) -> ApiContainer {
    ApiContainer {
        app: seen.app.clone(),
        service: seen.service.clone(),
        id: seen.container.clone(),
        image: seen.image.clone(),
        state: seen.state,
        created: seen.created,
    }
}
