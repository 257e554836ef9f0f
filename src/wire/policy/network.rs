//! Lists what a release can reach of the host's network.

use super::is_in;
use crate::model::{NetworkAttachment, NetworkMode, NetworkSpec, Subnet, Switch};

/// Options of the bridge driver that name no interface of the host and give no access to it. The last one is podman's.
const OPTIONS: &str = "com.docker.network.bridge.enable_icc com.docker.network.bridge.enable_ip_masquerade \
    com.docker.network.bridge.host_binding_ipv4 com.docker.network.container_iface_prefix \
    com.docker.network.driver.mtu mtu";

/// Options of a container's endpoint that concern only the container.
const END_OPTIONS: &str = "com.docker.network.endpoint.ifname";

/// Drivers that put containers on a network of the host.
const ON_THE_HOST: [&str; 2] = ["macvlan", "ipvlan"];

/// Returns what a service can reach through its networks, with the field that asks for it.
pub(super) fn of_service(mode: &NetworkMode) -> Vec<(&'static str, Switch)> {
    let attachments = match mode {
        // Containers that are not Cotter's are on the engine's own bridge, too.
        NetworkMode::Host | NetworkMode::Bridge => return vec![("network_mode", Switch::HostNetwork)],
        NetworkMode::None | NetworkMode::Service(_) => return Vec::new(),
        NetworkMode::Networks(attachments) => attachments,
    };
    let reaches = |attachment: &NetworkAttachment| {
        let NetworkAttachment {
            // Addresses and names on a network of the release. The network itself is checked where it is declared.
            aliases: _,
            ipv4_address: _,
            ipv6_address: _,
            link_local_ips: _,
            mac_address: _,
            priority: _,
            gateway_priority: _,
            driver_opts,
        } = attachment;
        driver_opts.keys().any(|option| !is_in(END_OPTIONS, option))
    };
    let is_reached = attachments.values().any(reaches);
    is_reached.then_some(("networks", Switch::HostNetwork)).into_iter().collect()
}

/// Returns what a declared network can reach, with the field that asks for it.
pub(super) fn of_network(spec: &NetworkSpec) -> Vec<(&'static str, Switch)> {
    let NetworkSpec {
        config_hash: _,
        is_internal: _,
        has_ipv6: _,
        labels: _,
        driver,
        driver_opts,
        subnets,
        ipam_driver,
        ipam_options,
    } = spec;
    let mut found = Vec::new();
    match driver.as_str() {
        "" | "bridge" => {}
        driver if ON_THE_HOST.contains(&driver) => found.push(("driver", Switch::HostNetwork)),
        _ => found.push(("driver", Switch::Drivers)),
    }
    if driver_opts.keys().any(|option| !is_in(OPTIONS, option)) {
        found.push(("driver_opts", Switch::HostNetwork));
    }
    if !matches!(ipam_driver.as_str(), "" | "default") || !ipam_options.is_empty() {
        found.push(("ipam.driver", Switch::Drivers));
    }
    if !subnets.iter().all(is_private) {
        found.push(("ipam.config", Switch::HostNetwork));
    }
    found
}

/// Returns whether a range is private. The engine adds a route on the host for each network, so a public range would
/// redirect the host's own traffic to that range into a container.
fn is_private(subnet: &Subnet) -> bool {
    // The engine accepts them only within the range.
    let Subnet { subnet: _, gateway: _, ip_range: _, aux_addresses: _ } = subnet;
    subnet.is_private()
}
