//! The addresses of the tunnel, from the kernel, and whether they may be used.

use std::net::Ipv4Addr;

use crate::model::VpnAddresses;

/// A row of `/proc/net/route`.
struct Route<'a> {
    interface: &'a str,
    range: u32,
    mask: u32,
    has_gateway: bool,
}

/// Returns both ends of the tunnel: `own` is what openvpn says, and the peer is the only address to which the interface has
/// a route. `routes` is the text of `/proc/net/route`.
///
/// # Errors
///
/// A line that says what is wrong: the kernel has other routes over the tunnel, or the addresses are in a network of this
/// device or of no use, so that they would catch traffic that is not for the tunnel.
pub(super) fn ends(own: Ipv4Addr, interface: &str, routes: &str) -> Result<VpnAddresses, String> {
    let routes: Vec<Route<'_>> = routes.lines().skip(1).filter_map(row).collect();
    let over: Vec<_> = routes.iter().filter(|route| route.interface == interface).collect();
    let peer = match over.as_slice() {
        [only] if only.mask == u32::MAX && !only.has_gateway => Ipv4Addr::from_bits(only.range),
        [] => return Err(format!("{interface} has no peer")),
        _ => return Err(format!("{interface} has other routes than the one to its peer")),
    };
    for address in [own, peer] {
        if address.is_loopback()
            || address.is_unspecified()
            || address.is_multicast()
            || address.is_broadcast()
            || address.is_link_local()
        {
            return Err(format!("{address} is no address of a tunnel"));
        }
        let bits = address.to_bits();
        let taken = routes.iter().find(|route| {
            // A default route is in the way of nothing.
            route.interface != interface && route.mask != 0 && bits & route.mask == route.range & route.mask
        });
        if let Some(route) = taken {
            return Err(format!("{address} is in the network of {}", route.interface));
        }
    }
    if own == peer {
        return Err(format!("both ends have the address {own}"));
    }
    Ok(VpnAddresses { own, peer })
}

/// Checks that IPv6 is of no use over the interface: openvpn sets up nothing of it, so an address or a route that is more than
/// link-local comes from a router advertisement of the server. The texts are those of `/proc/net/if_inet6` and
/// `/proc/net/ipv6_route`.
///
/// # Errors
///
/// A line that says what there is.
pub(super) fn check_v6(interface: &str, addresses: &str, routes: &str) -> Result<(), String> {
    let is_over = |line: &&str| line.split_whitespace().last() == Some(interface);
    let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    if let Some(line) = addresses.lines().filter(is_over).find(|line| !is_link_local(line)) {
        return Err(format!("{interface} has the IPv6 address {}", first(line)));
    }
    // The kernel makes a route to ff00::/8 itself.
    let is_own = |line: &&str| is_link_local(line) || line.starts_with("ff");
    match routes.lines().filter(is_over).find(|line| !is_own(line)) {
        Some(line) => Err(format!("{interface} has an IPv6 route to {}", first(line))),
        None => Ok(()),
    }
}

/// Returns whether a row begins with an address or a network of fe80::/10.
fn is_link_local(line: &str) -> bool {
    line.get(..3)
        .and_then(|digits| u16::from_str_radix(digits, 16).ok())
        .is_some_and(|bits| bits >> 2 == 0xfe8 >> 2)
}

/// Parses a row: interface, destination, gateway, and the mask in the eighth column, words in the byte order of this machine.
fn row(line: &str) -> Option<Route<'_>> {
    let word = |digits: &str| {
        u32::from_str_radix(digits, 16).ok().map(|word| u32::from_be_bytes(word.to_ne_bytes()))
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    let (range, gateway, mask) = (word(words.get(1)?)?, word(words.get(2)?)?, word(words.get(7)?)?);
    Some(Route { interface: words.first()?, range, mask, has_gateway: gateway != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interface, network, gateway, mask.
    type Row<'a> = (&'a str, [u8; 4], [u8; 4], [u8; 4]);

    /// The kernel's table with these rows.
    fn table(rows: &[Row<'_>]) -> String {
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let row = |(interface, range, gateway, mask): &Row<'_>| {
            format!(
                "{interface}\t{}\t{}\t0001\t0\t0\t0\t{}\t0\t0\t0\n",
                word(*range),
                word(*gateway),
                word(*mask)
            )
        };
        let rows: String = rows.iter().map(row).collect();
        format!("Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n{rows}")
    }

    #[test]
    fn an_interface_with_an_address_or_a_route_of_ipv6_is_refused() {
        let address = |ip: &str, device: &str| format!("{ip} 0b 40 20 80 {device:>8}\n");
        let route = |to: &str, bits: &str, device: &str| {
            let (none, zeros) = ("0".repeat(32), "00000100 00000001 00000000 00000001");
            format!("{to} {bits} {none} 00 {none} {zeros} {device:>8}\n")
        };
        let (link, global) = ("fe80000000000000a1b2c3d4e5f60718", "20010db8000000000000000000000002");
        let (none, multicast) = ("0".repeat(32), format!("ff{}", "0".repeat(30)));
        let network = "fe800000000000000000000000000000";
        let own = route(network, "40", "tun") + &route(link, "80", "tun") + &route(&multicast, "08", "tun");
        let others = address(global, "eth0") + &address(link, "tun");
        let lan = route(&none, "00", "eth0") + &route(&none, "00", "lo");
        for (why, addresses, routes, is_fine) in [
            ("no IPv6", "", "", true),
            ("only link-local, and IPv6 elsewhere", &*others, &*(own.clone() + &lan), true),
            ("an address", &*(others.clone() + &address(global, "tun")), &*own, false),
            ("a default route", &*others, &*(own.clone() + &route(&none, "00", "tun")), false),
            ("half of all", &*others, &*(own.clone() + &route(&none, "01", "tun")), false),
            ("a network", &*others, &*(own.clone() + &route(global, "40", "tun")), false),
        ] {
            assert_eq!(check_v6("tun", addresses, routes).is_ok(), is_fine, "{why}");
        }
    }

    #[test]
    fn the_peer_is_the_only_route_and_in_no_other_network() {
        let all = [255; 4];
        let default = ("eth0", [0; 4], [192, 168, 1, 1], [0; 4]);
        let lan = ("eth0", [192, 168, 1, 0], [0; 4], [255, 255, 255, 0]);
        let peer = |ip| ("tun", ip, [0; 4], all);
        let own = [10, 9, 0, 3];
        for (why, own, rows, expected) in [
            ("as it should be", own, vec![default, lan, peer([10, 9, 0, 1])], "10.9.0.3 10.9.0.1"),
            ("a public peer", own, vec![default, lan, peer([52, 4, 252, 97])], "10.9.0.3 52.4.252.97"),
            ("no tunnel", own, vec![default, lan], "tun has no peer"),
            (
                "a router of the LAN",
                own,
                vec![default, lan, peer([192, 168, 1, 1])],
                "192.168.1.1 is in the network of eth0",
            ),
            (
                "an address of the LAN",
                [192, 168, 1, 9],
                vec![default, lan, peer([10, 9, 0, 1])],
                "192.168.1.9 is in the network of eth0",
            ),
            (
                "a network behind it",
                own,
                vec![peer([10, 9, 0, 1]), ("tun", [10, 0, 0, 0], [10, 9, 0, 1], [255, 0, 0, 0])],
                "tun has other routes than the one to its peer",
            ),
            (
                "a default route",
                own,
                vec![("tun", [0; 4], [0; 4], [0; 4])],
                "tun has other routes than the one to its peer",
            ),
            ("loopback", [127, 0, 0, 1], vec![peer([10, 9, 0, 1])], "127.0.0.1 is no address of a tunnel"),
            ("one address", own, vec![peer(own)], "both ends have the address 10.9.0.3"),
        ] {
            let found = ends(own.into(), "tun", &table(&rows));
            let shown = found.map_or_else(|why| why, |ends| format!("{} {}", ends.own, ends.peer));
            assert_eq!(shown, expected, "{why}");
        }
        assert!(ends(own.into(), "tun", "").is_err());
        assert!(ends(own.into(), "tun", "x\ntun zz").is_err());
    }
}
