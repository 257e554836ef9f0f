//! The tunnel to the VPN of the cloud, in the status document.

use serde::{Deserialize, Serialize};

use crate::model::VpnState;

/// The tunnel to the VPN of the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpnStatus {
    /// `connected`, `connecting`, or why there is no tunnel: one of the words of docs/balena.md.
    pub state: String,
    /// This device's address in the tunnel, and the server's; absent without a tunnel.
    pub address: Option<String>,
    pub peer: Option<String>,
    /// Why there is no tunnel, and what to do; absent if there is one or it is being made.
    pub why: Option<String>,
    pub remedy: Option<String>,
}

impl VpnStatus {
    /// Returns `None` if the owner of the device has the VPN off.
    pub(super) fn of(state: &VpnState) -> Option<Self> {
        let ends = match state {
            VpnState::Off => return None,
            VpnState::Connected(ends) => Some(ends),
            VpnState::TurnedOff | VpnState::Connecting | VpnState::Down(_) => None,
        };
        Some(Self {
            state: state.as_str().to_owned(),
            address: ends.map(|ends| ends.own.to_string()),
            peer: ends.map(|ends| ends.peer.to_string()),
            why: state.why(),
            remedy: state.remedy().map(str::to_owned),
        })
    }
}
