//! Lists the networks of this machine, from the kernel's routes, and its name servers.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A route with a shorter prefix is a default route, not a network.
const LEAST_BITS: u32 = 8;

/// Prefixes of the interfaces that an engine creates for its own networks. The engine checks those itself.
const OF_ENGINES: [&str; 4] = ["br-", "docker", "podman", "veth"];

/// Files with the name servers; the second has those behind systemd-resolved.
const SERVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// A range of addresses that this machine uses, so that no network of containers may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `address/bits`.
    pub range: String,
    /// E.g. `network eth0`.
    pub what: String,
}

/// Returns the routes of this machine, except default routes, routes to itself and routes into an engine's networks; and
/// its name servers.
#[must_use]
pub fn routes() -> Vec<Route> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut routes = ipv4(&read("/proc/net/route"));
    routes.extend(ipv6(&read("/proc/net/ipv6_route")));
    routes.extend(SERVERS.iter().flat_map(|path| servers(&read(path))));
    routes
}

/// Parses lines such as `nameserver 10.0.0.1`.
fn servers(text: &str) -> Vec<Route> {
    let ip = |line: &str| {
        let mut words = line.split_whitespace();
        let ip: IpAddr = words.next().filter(|word| *word == "nameserver").and(words.next())?.parse().ok()?;
        (!ip.is_loopback()).then_some(ip)
    };
    let route = |ip: IpAddr| Route {
        range: format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }),
        what: "name server".to_owned(),
    };
    text.lines().filter_map(ip).map(route).collect()
}

fn route(ip: IpAddr, bits: u32, interface: &str) -> Option<Route> {
    let is_ours = interface != "lo" && !OF_ENGINES.iter().any(|prefix| interface.starts_with(prefix));
    let is_linked = match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unicast_link_local(),
    };
    (is_ours && is_linked && bits >= LEAST_BITS)
        .then(|| Route { range: format!("{ip}/{bits}"), what: format!("network {interface}") })
}

/// Parses lines such as `eth0 000200C0 ... 00FFFFFF`: addresses are words in the byte order of this machine.
fn ipv4(text: &str) -> Vec<Route> {
    let word = |digits: &str| u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes).map(Ipv4Addr::from);
    let one = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (interface, to, mask) = (words.first()?, word(words.get(1)?)?, word(words.get(7)?)?);
        route(IpAddr::V4(to), mask.to_bits().leading_ones(), interface)
    };
    text.lines().skip(1).filter_map(one).collect()
}

/// Parses lines such as `fd00... 40 ... eth0`: the address and its prefix length in hex, the interface last.
fn ipv6(text: &str) -> Vec<Route> {
    let one = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ip = Ipv6Addr::from(u128::from_str_radix(words.first()?, 16).ok()?);
        route(IpAddr::V6(ip), u32::from_str_radix(words.get(1)?, 16).ok()?, words.last()?)
    };
    text.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn networks_of_this_machine_are_listed_and_default_routes_are_not() {
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    tun0\t00000080\t010200C0\t0003\t0\t0\t0\t00000080\t0\t0\t0\n\
                    docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                    br-44619ecbd000\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                    eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                    wg0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n\
                    nonsense\n";
        let found: Vec<_> = ipv4(text).iter().map(|r| format!("{} {}", r.what, r.range)).collect();
        assert_eq!(found, ["network eth0 192.0.2.0/24", "network wg0 10.0.0.0/8"]);
        let rest = "00 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 \
                    00000001";
        let text = format!(
            "fd000000000000000000000000000000 40 {rest}     eth0\nfe800000000000000000000000000000 40 {rest}     eth0\n\
             00000000000000000000000000000000 00 {rest}     eth0\nff000000000000000000000000000000 08 {rest}     eth0\n\
             00000000000000000000000000000001 80 {rest}       lo\n"
        );
        let found: Vec<_> = ipv6(&text).iter().map(|r| format!("{} {}", r.what, r.range)).collect();
        assert_eq!(found, ["network eth0 fd00::/64"]);
        let text = "# nameserver 10.0.0.9\nnameserver 10.0.0.1 \nnameserver 127.0.0.53\nsearch a\nnameserver fd00::1\n";
        let found: Vec<_> = servers(text).into_iter().map(|r| r.range).collect();
        assert_eq!(found, ["10.0.0.1/32", "fd00::1/128"]);
    }
}
