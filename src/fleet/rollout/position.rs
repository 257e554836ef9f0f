//! Where in a rollout a device stands. Its position depends on the rollout and on the device alone, so that no other device that
//! joins, leaves or gets another tag moves it.

use std::collections::BTreeMap;

/// The tag with which a device says when it wants to be reached: `early`, `late` or `never`.
const TAG: &str = "rollout";

/// The order in which devices are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    /// In the first wave that is a share or a number.
    Early(u64),
    Usual(u64),
    /// In the last wave.
    Late(u64),
}

/// Returns the position of a device in the rollout with this number; `None` if its tag forbids rollouts.
#[must_use]
pub fn position(rollout: u64, uuid: &str, tags: &BTreeMap<String, String>) -> Option<Position> {
    let point = point(rollout, uuid);
    match tags.get(TAG).map(String::as_str) {
        Some("never") => None,
        Some("early") => Some(Position::Early(point)),
        Some("late") => Some(Position::Late(point)),
        Some(_) | None => Some(Position::Usual(point)),
    }
}

/// Returns a number that is spread evenly over all `u64`, by FNV-1a and the finalizer of MurmurHash3. It must never change:
/// rollouts under way depend on it.
fn point(rollout: u64, uuid: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in rollout.to_be_bytes().iter().chain(uuid.as_bytes()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_never_change_and_are_spread_evenly() {
        assert_eq!(point(1, "a0a1a2a3"), 11_222_347_976_925_933_497);
        let mut tenths = [0_u32; 10];
        for n in 0..10_000 {
            let tenth = (u128::from(point(7, &format!("{n:032x}"))) * 10) >> 64;
            tenths[usize::try_from(tenth).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (900..1_100).contains(count)), "{tenths:?}");
        let moved = (0..1_000).filter(|n| {
            let uuid = format!("{n:032x}");
            (point(1, &uuid) < u64::MAX / 2) != (point(2, &uuid) < u64::MAX / 2)
        });
        assert!((400..600).contains(&moved.count()), "another rollout has another order");
    }

    #[test]
    fn a_device_says_when_it_wants_to_be_reached() {
        let position = |value: &str| position(1, "a", &BTreeMap::from([(TAG.to_owned(), value.to_owned())]));
        assert!(matches!(position("early"), Some(Position::Early(_))));
        assert!(matches!(position("late"), Some(Position::Late(_))));
        assert!(matches!(position("canary"), Some(Position::Usual(_))));
        assert_eq!(position("never"), None);
        assert!(position("early") < position("canary") && position("canary") < position("late"));
    }
}
