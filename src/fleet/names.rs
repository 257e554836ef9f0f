//! Makes names for devices that bring none: two words, with a number if the name is taken.

const FIRST: [&str; 32] = [
    "amber", "autumn", "bold", "brave", "bright", "calm", "clear", "coastal", "crisp", "deep", "early",
    "gentle", "golden", "green", "hidden", "keen", "light", "lively", "misty", "mellow", "nimble",
    "northern", "patient", "plain", "quiet", "rapid", "silver", "solid", "steady", "sunny", "warm", "wild",
];
const SECOND: [&str; 32] = [
    "anchor", "beacon", "birch", "bridge", "brook", "canyon", "cedar", "cliff", "cloud", "comet", "dune",
    "ember", "falcon", "field", "forest", "harbor", "heron", "hill", "island", "lake", "lantern", "maple",
    "meadow", "mill", "otter", "pine", "reef", "ridge", "river", "stone", "tide", "valley",
];

/// Makes a name from random bytes. `is_taken` returns whether a name exists.
pub(super) fn device_name(random: [u8; 4], is_taken: impl Fn(&str) -> bool) -> String {
    let [a, b, c, d] = random;
    let plain = format!("{}-{}", FIRST[usize::from(a % 32)], SECOND[usize::from(b % 32)]);
    if !is_taken(&plain) {
        return plain;
    }
    let start = u32::from(u16::from_be_bytes([c, d]));
    let numbered = |n: u32| format!("{plain}-{}", start.wrapping_add(n) % 100_000);
    (0..100_000).map(numbered).find(|name| !is_taken(name)).unwrap_or(plain)
}
