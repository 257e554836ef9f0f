//! How many bytes an image has cost, and when its download is given up.

use serde::{Deserialize, Serialize};

/// What one download has moved so far, as far as the engine reports it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Compressed bytes that came from the registry. A layer that is fetched again counts again.
    pub fetched: u64,
    /// Compressed bytes of the layers that are not here yet, as far as the engine has begun them.
    pub needed: u64,
}

/// Progress of one download.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Downloading and extracting together. It never falls.
    pub percent: u8,
    pub transfer: Transfer,
}

/// All downloads of one image for the present target. They end with a new target, with `cotter retry`, and when a release
/// with the image is accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// Bytes that came from the registry.
    pub fetched: u64,
    /// Those of them that belong to downloads which the engine ended with an error that is not known to pass.
    #[serde(default)]
    pub futile: u64,
    /// The most bytes that one download needed, as far as the engine reported it.
    pub needed: u64,
    /// Why the last download failed; empty: none has failed, or the agent ended during it.
    #[serde(default)]
    pub why: String,
}

/// How many complete downloads may end with an error that is not known to pass.
const FUTILE: u64 = 3;

/// How many times its own size an image may cost, whatever interrupts its downloads.
const BUDGET: u64 = 10;

/// A small image may cost this much, so that a bad link does not use up its budget in minutes.
const SMALL: u64 = 100 << 20;

impl Download {
    /// Returns whether the image is given up. `size`: its missing bytes as its registry reports them, 0 if unknown.
    #[must_use]
    pub fn is_given_up(&self, size: u64) -> bool {
        let needed = self.needed(size);
        // An engine that reports no bytes cannot be judged by them.
        needed > 0
            && (self.futile >= needed.saturating_mul(FUTILE)
                || self.fetched >= needed.saturating_mul(BUDGET).max(SMALL))
    }

    /// The bytes that a complete download needs, by the engine or by the registry, whichever says more.
    #[must_use]
    pub fn needed(&self, size: u64) -> u64 {
        self.needed.max(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_given_up_when_its_downloads_cost_too_much() {
        const MIB: u64 = 1 << 20;
        for (why, fetched, futile, needed, size, expected) in [
            ("nothing came", 0, 0, 0, 0, false),
            ("the engine reports no bytes", 900, 900, 0, 0, false),
            ("two complete downloads failed", 60, 60, 30, 30, false),
            ("three complete downloads failed", 90, 90, 30, 30, true),
            ("three complete ones were interrupted", 90, 0, 30, 30, false),
            ("interrupted for ten times its size", 300, 0, 30, 30, true),
            ("nearly so", 299, 0, 30, 30, false),
            ("a small one may cost 100 MiB", 99, 0, 1, 1, false),
            ("and no more", 100, 0, 1, 1, true),
            ("the registry names a larger size than the engine has begun", 300, 90, 30, 40, false),
            ("the engine needs more than the registry says", 90, 90, 30, 10, true),
        ] {
            let download = Download {
                fetched: fetched * MIB,
                futile: futile * MIB,
                needed: needed * MIB,
                why: String::new(),
            };
            assert_eq!(download.is_given_up(size * MIB), expected, "{why}");
        }
        let endless = Download { fetched: 1, futile: u64::MAX, needed: u64::MAX, why: String::new() };
        assert!(endless.is_given_up(u64::MAX), "sizes beyond all measure");
    }
}
