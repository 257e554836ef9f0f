//! Wires the supervisor API for apps. Only wiring.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{CloudConfig, Config};
use crate::host;
use crate::model::{ApiKey, ApiView, DeviceFacts, DeviceUuid, Switch};
use crate::supervisor_api::{self, Allowed, CloudAccess, Supervisor};

use super::Wires;

/// Returns the facts of this device that containers get.
pub(super) fn device_facts(config: &Config, cloud: Option<&CloudConfig>, uuid: &DeviceUuid) -> DeviceFacts {
    DeviceFacts {
        uuid: uuid.to_string(),
        device_type: cloud.map(|cloud| cloud.device_type.clone()).unwrap_or_default(),
        architecture: architecture(std::env::consts::ARCH).to_owned(),
        os_version: host::os_name().unwrap_or_default(),
        supervisor_port: Some(config.supervisor_port),
        has_vpn: config.vpn.is_on,
        cloud: None,
    }
}

/// Balena's name of an architecture.
fn architecture(of_rust: &str) -> &str {
    match of_rust {
        "x86_64" => "amd64",
        "arm" => "armv7hf",
        "x86" => "i386",
        other => other,
    }
}

/// Makes a key that cannot be guessed.
pub(super) fn new_key() -> Option<ApiKey> {
    Some(ApiKey { id: host::random_hex(4).ok()?, secret: host::random_hex(16).ok()? })
}

/// Serves the API, if the owner allows it to services or has the VPN on.
pub(super) fn spawn(
    tasks: &mut JoinSet<()>,
    view: watch::Receiver<ApiView>,
    config: &Config,
    wires: &Wires,
    stop: &CancellationToken,
) {
    let policy = &config.policy;
    let is_for_services = policy.allows(Switch::SupervisorApi);
    if !is_for_services && !config.vpn.is_on {
        return;
    }
    let allowed = Allowed {
        reboot: policy.allows(Switch::Reboot),
        other_apps: policy.allows(Switch::OtherApps),
        tags: policy.allows(Switch::BalenaApi),
        journal: policy.allows(Switch::Features),
    };
    let channels = supervisor_api::Wires {
        view,
        report: wires.report.subscribe(),
        orders: wires.orders.clone(),
        poll_now: config.cloud.is_some().then(|| Arc::clone(&wires.poll_now)),
        tags: config.cloud.is_some().then(|| wires.tags.clone()),
        cloud: CloudAccess {
            state: wires.vpn.subscribe(),
            key: wires.cloud_key.subscribe(),
            device: config.vpn.device.clone(),
            is_for_services,
        },
        journal: |arguments| host::output("journalctl", arguments).boxed(),
    };
    let facts = (config.supervisor_port, host::os_name().unwrap_or_default());
    let supervisor = Supervisor::new(channels, allowed, facts, host::time_in, new_key);
    tasks.spawn(supervisor_api::run(supervisor, stop.clone()));
}
