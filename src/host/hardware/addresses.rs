//! The addresses of this machine's network interfaces, without loopback and the networks of containers.
//!
//! They are read from files, because the agent's unit forbids the sockets (netlink) that list them otherwise. The kernel
//! lists local IPv4 addresses without their interface, so the interface is that of the network that an address is in.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::files;

/// Beginnings of the names of interfaces that belong to containers, to a VPN of the cloud, or to this machine itself.
const FOREIGN: [&str; 12] = [
    "balena",
    "br-",
    "cni",
    "cotter-vpn",
    "docker",
    "podman",
    "rce",
    "redsocks",
    "resin-",
    "supervisor",
    "veth",
    "virbr",
];

/// Maximum number of addresses that are returned, of each kind.
const MOST: usize = 32;

/// The type of an Ethernet interface in sysfs, which a wireless one has, too.
const ETHERNET: i64 = 1;

/// Flags of an IPv6 address that is not used yet, or never, because another machine has it.
const NOT_USED: u32 = 0x40 | 0x08;

fn is_own(interface: &str) -> bool {
    interface != "lo" && !FOREIGN.iter().any(|prefix| interface.starts_with(prefix))
}

/// Returns the addresses, those of IPv4 first.
pub(super) fn ips(root: &Path) -> Vec<IpAddr> {
    let read = |path: &str| files::text(&root.join(path)).unwrap_or_default();
    let networks = networks(&read("proc/net/route"));
    let v4 = local_v4(&read("proc/net/fib_trie")).into_iter().filter(|ip| is_of_own(*ip, &networks));
    let v6 = v6(&read("proc/net/if_inet6"));
    v4.take(MOST).map(IpAddr::V4).chain(v6.into_iter().take(MOST).map(IpAddr::V6)).collect()
}

/// Parses the kernel's tree of routes: an address, and below it `/32 host LOCAL` if it is one of this machine.
fn local_v4(text: &str) -> BTreeSet<Ipv4Addr> {
    let (mut found, mut last) = (BTreeSet::new(), None);
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(last.filter(|ip| !ip.is_loopback() && !ip.is_unspecified()));
        }
    }
    found
}

/// A network that an interface is in.
struct Network {
    interface: String,
    range: u32,
    mask: u32,
}

/// Parses lines such as `eth0 000200C0 00000000 … 00FFFFFF`: interface, destination, gateway, and the mask in the eighth
/// column, in the byte order of this machine. Leaves out routes over a gateway.
fn networks(text: &str) -> Vec<Network> {
    let word = |digits: &str| {
        u32::from_str_radix(digits, 16).ok().map(|word| u32::from_be_bytes(word.to_ne_bytes()))
    };
    let one = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (range, gateway, mask) = (word(words.get(1)?)?, word(words.get(2)?)?, word(words.get(7)?)?);
        (gateway == 0 && mask != 0).then(|| Network { interface: words[0].to_owned(), range, mask })
    };
    text.lines().skip(1).filter_map(one).collect()
}

/// Returns whether the smallest network with this address is one of an own interface.
fn is_of_own(ip: Ipv4Addr, networks: &[Network]) -> bool {
    let with_it =
        networks.iter().filter(|network| ip.to_bits() & network.mask == network.range & network.mask);
    with_it
        .max_by_key(|network| (network.mask, is_own(&network.interface)))
        .is_some_and(|network| is_own(&network.interface))
}

/// Parses lines such as `fd00… 04 40 00 82 eth0`: address, index, prefix length, scope (00 is global), flags, interface.
fn v6(text: &str) -> BTreeSet<Ipv6Addr> {
    let one = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[address, _, _, scope, flags, interface] = words.as_slice() else { return None };
        let ip = Ipv6Addr::from_bits(u128::from_str_radix(address, 16).ok()?);
        let flags = u32::from_str_radix(flags, 16).ok()?;
        (scope == "00" && flags & NOT_USED == 0 && is_own(interface) && !ip.is_loopback()).then_some(ip)
    };
    text.lines().filter_map(one).collect()
}

/// Returns the hardware addresses of interfaces that are no part of another one.
pub(super) fn macs(root: &Path) -> Vec<String> {
    let mut found = BTreeSet::new();
    for folder in files::entries(&root.join("sys/class/net")) {
        let is_ours = folder.file_name().and_then(|name| name.to_str()).is_some_and(is_own);
        let is_part = folder.join("master").symlink_metadata().is_ok();
        if is_ours && !is_part && files::number(&folder.join("type")) == Some(ETHERNET) {
            found.extend(files::word(&folder.join("address"), 17).filter(|mac| is_mac(mac)));
        }
    }
    found.into_iter().take(MOST).map(|mac| mac.to_ascii_uppercase()).collect()
}

fn is_mac(text: &str) -> bool {
    let is_pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split(':').count() == 6 && text.split(':').all(is_pair) && text != "00:00:00:00:00:00"
}
