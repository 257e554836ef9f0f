//! The settings of openvpn.

use std::path::Path;

use crate::model::VpnWanted;

/// The file with the device's uuid and key, in the folder of the settings. openvpn is started in their folder.
pub(super) const CREDENTIALS: &str = "credentials";

/// What the server may set: the address of the tunnel, and how often both ends send a sign of life. All else that a server
/// sends is left out, above all routes, name servers and variables.
const ACCEPTED: [&str; 11] = [
    "ping ",
    "ping-exit ",
    "ping-restart ",
    "sndbuf ",
    "rcvbuf ",
    "ifconfig ",
    "topology p2p",
    "peer-id ",
    "cipher ",
    "protocol-flags ",
    // The options go on in another message.
    "push-continuation ",
];

/// The part of the settings that is the same on all devices. `comp-lzo` is what open-balena-vpn needs (`compress lzo` of its
/// server.conf); this side compresses nothing. `auth-retry nointeract`: after a refusal openvpn tries again, more and more
/// rarely, and does not end.
const FIXED: &str = "\
client
dev-type tun
topology p2p
nobind
persist-key
resolv-retry infinite
connect-retry 5 120
server-poll-timeout 30
ping 10
ping-restart 120
remote-cert-tls server
tls-version-min 1.2
auth-user-pass credentials
auth-retry nointeract
auth-nocache
script-security 0
allow-compression asym
comp-lzo
data-ciphers AES-256-GCM:AES-192-GCM:AES-128-GCM:AES-256-CBC:AES-192-CBC:AES-128-CBC
route-nopull
management-client-user root
verb 3
suppress-timestamps
";

/// Returns the settings. `device` is the name of the network interface, `socket` the path of the management socket.
pub(super) fn config(wanted: &VpnWanted, device: &str, socket: &Path) -> String {
    let mut text =
        format!("# Made by `cotter agent`.\n{FIXED}dev {device}\nmanagement {} unix\n", socket.display());
    for server in &wanted.offer.servers {
        let proto = if server.is_udp { "udp" } else { "tcp-client" };
        text.push_str(&format!("remote {} {} {proto}\n", server.host, server.port));
    }
    for accepted in ACCEPTED {
        text.push_str(&format!("pull-filter accept \"{accepted}\"\n"));
    }
    // The first filter that fits counts, and the empty text fits everything.
    text.push_str("pull-filter ignore \"\"\n");
    text.push_str(&format!("<ca>\n{}</ca>\n", wanted.offer.authorities));
    text
}

/// Returns the file of credentials: the name and the password, a line each.
pub(super) fn credentials(wanted: &VpnWanted) -> String {
    login(&wanted.uuid, &wanted.key)
}

pub(super) fn login(uuid: &str, key: &str) -> String {
    format!("{uuid}\n{key}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{VpnOffer, VpnServer};

    #[test]
    fn the_settings_have_servers_filters_and_certificates() {
        let server = |host: &str, is_udp| VpnServer { host: host.into(), port: 443, is_udp };
        let offer = VpnOffer {
            servers: vec![server("u.example", true), server("t.example", false)],
            authorities: "CERTIFICATES\n".into(),
        };
        let wanted = VpnWanted { offer, uuid: "ab".into(), key: "hunter2".into() };
        let text = config(&wanted, "cotter-vpn", Path::new("/run/x/management.sock"));
        assert!(text.contains("\nremote u.example 443 udp\nremote t.example 443 tcp-client\n"), "{text}");
        assert!(text.contains("\ndev cotter-vpn\nmanagement /run/x/management.sock unix\n"), "{text}");
        assert!(text.ends_with("pull-filter ignore \"\"\n<ca>\nCERTIFICATES\n</ca>\n"), "{text}");
        assert!(!text.contains("hunter2"));
        assert_eq!(credentials(&wanted), "ab\nhunter2\n");
    }
}
