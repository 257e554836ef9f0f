//! Finds networks of a release that have addresses in common, in one pass over all their ranges.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::at::Notes;
use super::refusal;
use crate::model::{NetworkName, NetworkSpec};

/// The first address of a range, after the number of bits that its kind of addresses has.
type First = (u32, u128);

/// Ranges that have no address in common, by their first address: the last one, and the network.
type Ranges<'n> = BTreeMap<First, (u128, &'n NetworkName)>;

/// Refuses a network that has addresses in common with an earlier one, because the engine creates only one of them.
pub(super) fn check(networks: &BTreeMap<NetworkName, NetworkSpec>, notes: &mut Notes) {
    let mut taken = Ranges::new();
    for (name, spec) in networks.iter().filter(|(_, spec)| spec.ipam_driver.is_empty()) {
        let subnets = spec.subnets.iter().filter_map(|subnet| range(subnet.subnet.as_deref()?));
        let own: Vec<_> = subnets.collect();
        if let Some(other) = own.iter().find_map(|own| network_at(&taken, *own)) {
            let why = format_args!("its subnet overlaps with that of network {other}: choose another subnet");
            notes.refuse(refusal(format!("networks.{name}.ipam.config"), why));
            continue;
        }
        for (first, last) in own {
            take(&mut taken, first, last, name);
        }
    }
}

/// Returns the network that has an address of this range.
fn network_at<'n>(taken: &Ranges<'n>, (first, last): (First, u128)) -> Option<&'n NetworkName> {
    // Of ranges without a common address, only the last that begins before the end can reach into this one.
    let (begin, (end, name)) = taken.range(..=(first.0, last)).next_back()?;
    (begin.0 == first.0 && *end >= first.1).then_some(*name)
}

/// Adds a range of a network, whose own ranges may be a part of each other.
fn take<'n>(taken: &mut Ranges<'n>, first: First, last: u128, name: &'n NetworkName) {
    if let Some((begin, (end, _))) = taken.range(..=first).next_back()
        && begin.0 == first.0
        && *end >= last
    {
        return;
    }
    while let Some(inner) = taken.range(first..=(first.0, last)).next().map(|(begin, _)| *begin) {
        taken.remove(&inner);
    }
    taken.insert(first, (last, name));
}

/// Reads `address/bits` as its first and its last address.
fn range(text: &str) -> Option<(First, u128)> {
    let (ip, bits) = text.split_once('/')?;
    let (value, width) = match ip.parse::<IpAddr>().ok()? {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    let free = width - bits.parse::<u32>().ok()?.min(width);
    let rest = u128::MAX.checked_shr(128 - free).unwrap_or_default();
    Some(((width, value & !rest), value | rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Subnet;

    fn network(ranges: &[String]) -> NetworkSpec {
        let subnet = |range: &String| Subnet { subnet: Some(range.clone()), ..Subnet::default() };
        NetworkSpec { subnets: ranges.iter().map(subnet).collect(), ..NetworkSpec::default() }
    }

    fn found(networks: &BTreeMap<NetworkName, NetworkSpec>) -> Vec<String> {
        let mut notes = Notes::default();
        check(networks, &mut notes);
        notes.refusals.iter().map(ToString::to_string).collect()
    }

    fn any_range() -> impl Strategy<Value = String> {
        prop_oneof![
            (0..4_u8, 0..4_u8, 0..=32_u8).prop_map(|(a, b, bits)| format!("10.0.{a}.{}/{bits}", b * 64)),
            (0..4_u8, 0..=128_u8).prop_map(|(a, bits)| format!("fd0{a}::/{bits}")),
        ]
    }

    proptest! {
        /// Each network that is not refused has no address in common with any other of them, and each that is refused has
        /// some in common with the one that is named.
        #[test]
        fn networks_are_compared_with_all_others(
            all in prop::collection::vec(prop::collection::vec(any_range(), 0..3), 0..8),
        ) {
            let name = |n: usize| NetworkName::parse(format!("n{n}")).unwrap();
            let networks: BTreeMap<_, _> = all.iter().enumerate().map(|(n, own)| (name(n), network(own))).collect();
            let mut refused = BTreeMap::new();
            for line in found(&networks) {
                let (own, rest) = line["networks.".len()..].split_once('.').unwrap();
                let other = rest.split_once("of network ").unwrap().1.split_once(':').unwrap().0;
                refused.insert(NetworkName::parse(own).unwrap(), NetworkName::parse(other).unwrap());
            }
            for (own, other) in &refused {
                prop_assert!(networks[own].overlaps(&networks[other].ranges()), "{own} and {other}");
            }
            for (a, one) in networks.iter().filter(|(name, _)| !refused.contains_key(*name)) {
                for (b, other) in networks.iter().filter(|(name, _)| !refused.contains_key(*name)) {
                    prop_assert!(a == b || !one.overlaps(&other.ranges()), "{a} and {b}");
                }
            }
        }
    }
}
