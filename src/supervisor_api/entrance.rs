//! Where the API listens: at the doors of containers, and at the address of the VPN while it is connected.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::listen::Listener;
use crate::model::{ApiView, Door, VpnState};

use super::Supervisor;

/// Where the API listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entrance {
    pub(super) door: Door,
    /// The network interface of the VPN. `None`: containers ask here.
    pub(super) device: Option<String>,
}

impl Entrance {
    pub(super) fn listen(&self, port: u16) -> std::io::Result<Listener> {
        let at = SocketAddr::new(self.door.address, port);
        match &self.device {
            Some(device) => Listener::tcp_at(at, device),
            None => Listener::tcp(at),
        }
    }
}

/// Returns where the API is to listen now.
pub(super) fn wanted(supervisor: &Supervisor, view: &ApiView, vpn: &VpnState) -> BTreeSet<Entrance> {
    let of_services = view.doors.iter().filter(|_| supervisor.cloud.is_for_services);
    let mut wanted: BTreeSet<_> =
        of_services.map(|door| Entrance { door: door.clone(), device: None }).collect();
    if let VpnState::Connected(ends) = vpn {
        let door = Door { address: ends.own.into(), peers: vec![format!("{}/32", ends.peer)] };
        wanted.insert(Entrance { door, device: Some(supervisor.cloud.device.clone()) });
    }
    wanted
}
