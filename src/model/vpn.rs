//! The VPN of a balena cloud: where its servers are, and how this device's tunnel to them is.

use std::fmt;
use std::net::Ipv4Addr;

/// A server of the VPN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpnServer {
    /// A host name, or an address.
    pub host: String,
    pub port: u16,
    pub is_udp: bool,
}

/// What a cloud says of its VPN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpnOffer {
    /// At least one, in the order in which they are tried.
    pub servers: Vec<VpnServer>,
    /// The certificates that a server's own must be signed by, as PEM and nothing else.
    pub authorities: String,
}

/// A tunnel that is wanted.
#[derive(Clone, PartialEq, Eq)]
pub struct VpnWanted {
    pub offer: VpnOffer,
    pub uuid: String,
    /// Secret: the device's key at its cloud.
    pub key: String,
}

/// Without the key.
impl fmt::Debug for VpnWanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VpnWanted").field("offer", &self.offer).finish_non_exhaustive()
    }
}

/// How the tunnel is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum VpnState {
    /// The owner of the device has not turned it on.
    #[default]
    Off,
    /// The cloud has turned it off for this device.
    TurnedOff,
    Connecting,
    /// There is none, for this reason.
    Down(VpnTrouble),
    Connected(VpnAddresses),
}

/// The two ends of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VpnAddresses {
    /// This device's address in the tunnel.
    pub own: Ipv4Addr,
    /// The server's.
    pub peer: Ipv4Addr,
}

/// Why there is no tunnel. The texts are what openvpn or the cloud said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VpnTrouble {
    /// The cloud was not asked yet, or did not answer.
    NotAsked(String),
    /// The cloud has none.
    NoVpn,
    /// What the cloud says of it is not accepted.
    BadOffer(String),
    NotInstalled,
    NotRunning,
    /// The server did not take the device's uuid and key.
    Refused,
    NotTrusted(String),
    Unreachable(String),
    /// The server gave addresses that are not accepted.
    Addresses(String),
    /// The files for openvpn cannot be written.
    NoFiles(String),
}

impl VpnState {
    /// The word of the status document.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::TurnedOff => "turned_off",
            Self::Connecting => "connecting",
            Self::Down(trouble) => trouble.as_str(),
            Self::Connected(_) => "connected",
        }
    }

    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected(_))
    }

    /// Returns why there is no tunnel, if there should be one.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        match self {
            Self::Off | Self::Connecting | Self::Connected(_) => None,
            Self::TurnedOff => Some("the cloud turned it off for this device".to_owned()),
            Self::Down(trouble) => Some(trouble.to_string()),
        }
    }

    /// Returns what to do about it.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Off | Self::Connecting | Self::Connected(_) => None,
            Self::TurnedOff => Some("set BALENA_SUPERVISOR_VPN_CONTROL to true in the cloud"),
            Self::Down(trouble) => Some(trouble.remedy()),
        }
    }
}

impl VpnTrouble {
    #[must_use]
    fn as_str(&self) -> &'static str {
        match self {
            Self::NotAsked(_) => "not_asked",
            Self::NoVpn => "no_vpn",
            Self::BadOffer(_) => "bad_offer",
            Self::NotInstalled => "not_installed",
            Self::NotRunning => "not_running",
            Self::Refused => "refused",
            Self::NotTrusted(_) => "not_trusted",
            Self::Unreachable(_) => "unreachable",
            Self::Addresses(_) => "addresses",
            Self::NoFiles(_) => "no_files",
        }
    }

    fn remedy(&self) -> &'static str {
        match self {
            Self::NotAsked(_) => "it is asked again by itself; `cotter check` says whether the cloud answers",
            Self::NoVpn => "set vpn.enabled = \"no\" on the device",
            Self::BadOffer(_) => "correct DEVICE_CONFIG_OPENVPN_CA, VPN_HOST and VPN_PORT of the cloud's API",
            Self::NotInstalled => "apt-get install openvpn",
            Self::NotRunning => {
                "`systemctl status cotter-vpn` says why; systemctl enable --now cotter-vpn.path starts it"
            }
            Self::Refused => "see whether the cloud still has the device: `cotter check` asks it",
            Self::NotTrusted(_) => {
                "DEVICE_CONFIG_OPENVPN_CA of the cloud's API must have the authority of the server's certificate, and the \
                 device's clock must be right"
            }
            Self::Unreachable(_) => {
                "check VPN_HOST and VPN_PORT of the cloud's API, and that firewalls let them pass"
            }
            Self::Addresses(_) => {
                "give the VPN another range, VPN_BASE_SUBNET of open-balena-vpn, and no IPv6"
            }
            Self::NoFiles(_) => "free space in /run, and see that /dev/net/tun is there",
        }
    }
}

impl fmt::Display for VpnTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked(why) => write!(f, "the cloud has not said yet where its VPN is: {why}"),
            Self::NoVpn => write!(f, "the cloud has no VPN"),
            Self::BadOffer(why) => write!(f, "what the cloud says of its VPN is not accepted: {why}"),
            Self::NotInstalled => write!(f, "openvpn is not installed"),
            Self::NotRunning => write!(f, "openvpn does not run"),
            Self::Refused => write!(f, "the VPN server refused this device's uuid and key"),
            Self::NotTrusted(what) => write!(f, "the certificate of the VPN server is not trusted: {what}"),
            Self::Unreachable(what) => write!(f, "the VPN server cannot be reached: {what}"),
            Self::Addresses(why) => write!(
                f,
                "the tunnel was ended, because the VPN server gave addresses that would catch other traffic of this device: \
                 {why}"
            ),
            Self::NoFiles(why) => write!(f, "what openvpn needs cannot be made: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_debug_output_has_a_key() {
        let offer = VpnOffer { servers: Vec::new(), authorities: String::new() };
        let wanted = VpnWanted { offer, uuid: "ab".into(), key: "hunter2".into() };
        assert!(!format!("{wanted:?} {wanted:#?}").contains("hunter2"));
    }
}
