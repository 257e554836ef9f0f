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

/// How far the engine is with one download. Layers that were here before count nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Compressed bytes that are here. A byte that was fetched again counts once.
    pub fetched: u64,
    /// Compressed bytes of what is unpacked.
    pub unpacked: u64,
    pub layers: u32,
    /// Layers whose size the engine has named.
    pub sized: u32,
    /// Layers that are not here yet and whose size the engine has not named.
    pub pending: u32,
    /// Layers that are unpacked.
    pub complete: u32,
    pub transfer: Transfer,
}

impl PullProgress {
    /// The compressed bytes of the whole download; 0: unknown. `size`: its missing bytes as its registry reports them, 0 if
    /// unknown.
    #[must_use]
    pub fn total(&self, size: u64) -> u64 {
        let named = self.transfer.needed;
        match (self.pending, size) {
            (0, _) if named > 0 => named,
            (_, 0) => {
                // The layers that the engine has not named yet are as large as the others, as far as anybody knows.
                let all = u64::from(self.sized) + u64::from(self.pending);
                named.saturating_mul(all).checked_div(self.sized.into()).unwrap_or(0)
            }
            (_, size) => size.max(named),
        }
    }

    /// How much is done, in percent of its bytes. Fetching and unpacking count half each.
    #[must_use]
    pub fn percent(&self, size: u64) -> u8 {
        let total = self.total(size);
        if total == 0 {
            return percent(self.complete.into(), self.layers.into());
        }
        percent(self.fetched.saturating_add(self.unpacked), total.saturating_mul(2))
    }
}

/// `part` of `whole` in percent, at most 100; 0 of nothing.
fn percent(part: u64, whole: u64) -> u8 {
    let hundredths = u128::from(part) * 100;
    let percent = hundredths.checked_div(whole.into()).unwrap_or(0);
    u8::try_from(percent.min(100)).unwrap_or(100)
}

/// How far a download is, or several, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DownloadProgress {
    /// How much is done. Fetching and unpacking count half each.
    pub percent: u8,
    /// Compressed bytes that are here.
    pub fetched: u64,
    /// Compressed bytes of all that is fetched; 0: unknown.
    pub total: u64,
    /// Bytes that come each second at present; `None`: not known yet.
    pub rate: Option<u64>,
}

impl DownloadProgress {
    /// The seconds until everything is fetched, at the present rate.
    #[must_use]
    pub fn left_s(&self) -> Option<u64> {
        let rest = self.total.checked_sub(self.fetched).filter(|_| self.total > 0)?;
        rest.checked_div(self.rate?)
    }

    /// Several downloads as one; `None` if there are none.
    #[must_use]
    pub fn sum(all: impl IntoIterator<Item = Self>) -> Option<Self> {
        let all: Vec<_> = all.into_iter().collect();
        let whole: u64 = all.iter().fold(0, |sum, one| sum.saturating_add(one.total));
        let has_sizes = all.iter().all(|one| one.total > 0);
        let weight = |one: &Self| if has_sizes { one.total } else { 1 };
        let weights = all.iter().fold(0_u64, |sum, one| sum.saturating_add(weight(one)));
        let done =
            all.iter().fold(0_u128, |sum, one| sum + u128::from(one.percent) * u128::from(weight(one)));
        let percent = done.checked_div(weights.into())?;
        let rates: Vec<_> = all.iter().filter_map(|one| one.rate).collect();
        Some(Self {
            percent: u8::try_from(percent).unwrap_or(100),
            fetched: all.iter().fold(0, |sum, one| sum.saturating_add(one.fetched)),
            total: if has_sizes { whole } else { 0 },
            rate: (!rates.is_empty()).then(|| rates.into_iter().fold(0, u64::saturating_add)),
        })
    }
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
    fn progress_is_by_bytes() {
        let at = |fetched, unpacked, (sized, pending, complete), needed| PullProgress {
            fetched,
            unpacked,
            layers: sized + pending,
            sized,
            pending,
            complete,
            transfer: Transfer { fetched, needed },
        };
        for (why, progress, size, total, percent) in [
            ("nothing is known", at(0, 0, (0, 0, 0), 0), 0, 0, 0),
            ("the registry has named the size", at(0, 0, (0, 3, 0), 0), 900, 900, 0),
            ("a third is fetched", at(300, 0, (1, 2, 0), 300), 900, 900, 16),
            ("a third is done", at(300, 300, (1, 2, 1), 300), 900, 900, 33),
            ("fetched, not unpacked", at(900, 0, (3, 0, 0), 900), 900, 900, 50),
            ("all is done", at(900, 900, (3, 0, 3), 900), 900, 900, 100),
            (
                "the engine takes less: a layer came with another image",
                at(600, 600, (2, 0, 2), 600),
                900,
                600,
                100,
            ),
            ("without the registry the rest is guessed", at(300, 300, (1, 2, 1), 300), 0, 900, 33),
            ("an engine that names no bytes", at(0, 0, (0, 4, 3), 0), 0, 0, 75),
            ("sizes beyond all measure", at(u64::MAX, u64::MAX, (1, 0, 1), u64::MAX), 0, u64::MAX, 100),
        ] {
            assert_eq!((progress.total(size), progress.percent(size)), (total, percent), "{why}");
        }
    }

    #[test]
    fn several_downloads_count_by_their_bytes() {
        let one = |percent, fetched, total, rate| DownloadProgress { percent, fetched, total, rate };
        assert_eq!(DownloadProgress::sum([]), None);
        let large_and_small = [one(10, 180, 900, Some(60)), one(100, 100, 100, None)];
        let sum = DownloadProgress::sum(large_and_small).unwrap();
        assert_eq!(sum, one(19, 280, 1000, Some(60)));
        assert_eq!(sum.left_s(), Some(12));
        let unknown = DownloadProgress::sum([one(10, 180, 900, None), one(50, 7, 0, None)]).unwrap();
        assert_eq!(unknown, one(30, 187, 0, None));
        assert_eq!(unknown.left_s(), None, "without a size");
        assert_eq!(one(0, 0, 10, Some(0)).left_s(), None, "nothing comes");
    }

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
