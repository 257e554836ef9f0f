//! Joins the VPN of the cloud, if the owner of the device and the cloud want it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cloud::{Client, with_jitter};
use crate::config::VpnConfig;
use crate::model::{
    ApiKey, Delivered, Identity, ReportedAccess, VpnState, VpnTrouble, VpnWanted, with_causes,
};
use crate::vpn::{self, Ended, Files, Intent, Tunnel};
use crate::wire::os_config;

use super::Wires;

/// How often the cloud is asked where its VPN is.
const EVERY: Duration = Duration::from_secs(24 * 3600);

/// The first and the longest wait after a failure.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(900);

/// Where Debian's package has openvpn.
const PROGRAM: &str = "/usr/sbin/openvpn";

/// The folder of openvpn's files in the runtime folder of the agent.
const FOLDER: &str = "vpn";

/// The VPN of the cloud.
pub(super) struct Vpn {
    files: Files,
    is_on: bool,
    /// The port of the supervisor API.
    port: u16,
}

/// Returns where openvpn's files are, for this network interface.
pub(super) fn files(runtime_dir: &Path, device: String) -> Files {
    // The runtime folder of openvpn's unit: the agent cannot write there, and openvpn not in the agent's.
    let mut of_openvpn = runtime_dir.as_os_str().to_owned();
    of_openvpn.push("-vpn");
    Files {
        folder: runtime_dir.join(FOLDER),
        device,
        socket: PathBuf::from(of_openvpn).join("management.sock"),
    }
}

/// Returns the key of the cloud for the supervisor API. It comes from the device's key, so it changes with it, and is the
/// same after a restart. Whoever has it does not have the device's key.
fn key(identity: &Identity) -> ApiKey {
    let text = format!("supervisor API of {}\n{}", identity.uuid, identity.device_key);
    let hex: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    ApiKey { id: "cloud".to_owned(), secret: hex[..32].to_owned() }
}

impl Vpn {
    /// `port`: that of the supervisor API.
    pub(super) fn new(runtime_dir: &Path, settings: VpnConfig, port: u16) -> Self {
        let VpnConfig { is_on, device } = settings;
        Self { files: files(runtime_dir, device), is_on, port }
    }

    /// Ends a tunnel that is not to go on: that of another identity, i.e. to a former cloud, or any if the VPN is off.
    pub(super) async fn end_former(&self, identity: &Identity) {
        let uuid = identity.uuid.to_string();
        if !(self.is_on && self.files.are_of(&uuid, &identity.device_key)) {
            self.end().await;
        }
    }

    /// Ends any tunnel.
    pub(super) async fn end(&self) {
        match vpn::end_for_good(&self.files).await {
            Ok(Ended::WasNot) => {}
            Ok(Ended::Gone) => info!("ended the VPN of a former cloud or former settings"),
            Ok(Ended::Runs) => warn!("the former VPN does not end; systemctl stop cotter-vpn ends it"),
            Err(why) => warn!(%why, "the settings of the former VPN cannot be removed; remove them by hand"),
        }
    }

    /// Returns what is reported to the cloud, so that it can ask the supervisor API.
    pub(super) fn access(&self, identity: &Identity) -> Option<ReportedAccess> {
        self.is_on.then(|| ReportedAccess { port: self.port, key: key(identity).secret })
    }

    /// Keeps the tunnel to this cloud until `stop`. A tunnel that runs then goes on.
    pub(super) async fn run(
        &self,
        client: &Client,
        identity: &Identity,
        wires: &Wires,
        stop: CancellationToken,
    ) {
        wires.cloud_key.send_replace(self.is_on.then(|| key(identity)));
        let first = match self.is_on {
            false => Intent::Not(VpnState::Off),
            true => Intent::Keep(VpnTrouble::NotAsked("it is being asked".to_owned())),
        };
        let intent = watch::Sender::new(first);
        let (files, state) = (self.files.clone(), wires.vpn.clone());
        let tunnel = Tunnel { files, program: PROGRAM.into(), state };
        let wanted = intent.subscribe();
        let directed = async {
            if self.is_on {
                direct(client, identity, wires.target.subscribe(), &intent).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = vpn::run(&tunnel, wanted, stop) => {}
            () = directed => {}
            () = shown(wires) => {}
        }
    }
}

/// Shows the state of the tunnel with that of the cloud.
async fn shown(wires: &Wires) {
    let mut state = wires.vpn.subscribe();
    loop {
        let now = state.borrow_and_update().clone();
        wires.cloud.send_if_modified(|cloud| {
            let is_news = cloud.vpn != now;
            cloud.vpn = now;
            is_news
        });
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// Asks the cloud where its VPN is, at the beginning and once a day, and says what is wanted of the tunnel. Ends when no
/// target can come any more.
async fn direct(
    client: &Client,
    identity: &Identity,
    mut target: watch::Receiver<Option<Arc<Delivered>>>,
    intent: &watch::Sender<Intent>,
) {
    let mut wait = FIRST;
    loop {
        let is_wanted = is_wanted(target.borrow_and_update().as_ref());
        let next = if is_wanted {
            match ask(client, identity).await {
                Ok(found) => {
                    become_of(intent, found);
                    wait = FIRST;
                    EVERY
                }
                Err(why) => {
                    // A tunnel to what the cloud said before goes on.
                    if !matches!(*intent.borrow(), Intent::Run(_)) {
                        become_of(intent, Intent::Keep(VpnTrouble::NotAsked(why)));
                    }
                    let next = wait;
                    wait = (wait * 2).min(LONGEST);
                    next
                }
            }
        } else {
            become_of(intent, Intent::Not(VpnState::TurnedOff));
            EVERY
        };
        tokio::select! {
            () = sleep(with_jitter(next)) => {}
            is_open = changes(&mut target, is_wanted) => if !is_open {
                return;
            },
        }
    }
}

/// Returns `true` if the cloud wants this device in its VPN, and while there is no target.
fn is_wanted(delivered: Option<&Arc<Delivered>>) -> bool {
    delivered.is_none_or(|delivered| delivered.target.has_vpn)
}

/// Waits until the cloud wants something else. Returns `false` if no target can come any more.
async fn changes(target: &mut watch::Receiver<Option<Arc<Delivered>>>, was_wanted: bool) -> bool {
    target.wait_for(|delivered| is_wanted(delivered.as_ref()) != was_wanted).await.is_ok()
}

fn become_of(intent: &watch::Sender<Intent>, next: Intent) {
    intent.send_if_modified(|now| {
        let is_new = *now != next;
        if is_new {
            *now = next;
        }
        is_new
    });
}

/// Asks the cloud. An error means that it must be asked again soon.
async fn ask(client: &Client, identity: &Identity) -> Result<Intent, String> {
    let down = |trouble| Ok(Intent::Not(VpnState::Down(trouble)));
    match client.os_config(&identity.device_key).await {
        Err(why) => Err(with_causes(&why)),
        Ok(None) => down(VpnTrouble::NoVpn),
        Ok(Some(body)) => match os_config::vpn(&body) {
            Ok(None) => down(VpnTrouble::NoVpn),
            Err(why) => down(VpnTrouble::BadOffer(why)),
            Ok(Some(offer)) => {
                let (uuid, key) = (identity.uuid.to_string(), identity.device_key.clone());
                Ok(Intent::Run(Arc::new(VpnWanted { offer, uuid, key })))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DeviceUuid, Moves};

    #[test]
    fn the_key_of_the_cloud_follows_the_key_of_the_device_and_is_not_it() {
        let of = |device_key: &str| {
            let uuid = DeviceUuid::parse("ab".repeat(16)).unwrap();
            key(&Identity { uuid, device_key: device_key.into(), registered: None, moves: Moves::default() })
                .secret
        };
        assert_eq!(of("one"), of("one"));
        assert_ne!(of("one"), of("two"));
        assert!(of("one").len() == 32 && of("one").chars().all(|c| c.is_ascii_hexdigit()));
    }
}
