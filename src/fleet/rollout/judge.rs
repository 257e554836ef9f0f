//! The test that separates a bad release from a good one by the verdicts of devices, as they come: Wald's sequential probability
//! ratio test.
//!
//! It weighs two hypotheses: that a device fails with the base rate, as with the release before, or with the rate that must be
//! detected. However often it is asked, it calls a release with the base rate bad with a probability of at most alpha, and
//! it calls one with the other rate good with a probability of about beta.

use serde::{Deserialize, Serialize};

use super::share::Share;

/// The settings of the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Test {
    /// Highest probability of calling a good release bad.
    pub alpha: Share,
    /// Probability of calling a bad release good.
    pub beta: Share,
    /// The least base rate that is assumed: a fleet without any failure so far may have some.
    pub floor: Share,
    /// The failure rate that must be detected.
    pub detect: Share,
}

impl Default for Test {
    fn default() -> Self {
        Self {
            alpha: Share::of_ten_thousand(50),
            beta: Share::of_ten_thousand(50),
            floor: Share::of_ten_thousand(50),
            detect: Share::of_ten_thousand(500),
        }
    }
}

/// What the verdicts say so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    Bad,
    Good,
    /// Neither. With that many further devices that accept the release, it is good.
    Open {
        needs: u64,
    },
}

/// The two rates that are weighed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    pub base: f64,
    pub bad: f64,
}

impl Test {
    /// Returns the rates for a fleet in which this share of devices failed in its last rollout. The rate to detect is at least
    /// three times the base rate: few devices cannot separate closer ones.
    #[must_use]
    pub fn rates(&self, base: f64) -> Rates {
        let base = base.max(self.floor.as_f64()).min(0.3);
        Rates { base, bad: self.detect.as_f64().max(base * 3.0).min(0.95) }
    }

    /// Judges so many failures among so many verdicts. `tests` is how many groups are tested at the same time; alpha is shared
    /// among them.
    #[must_use]
    pub fn judge(&self, rates: Rates, failures: u64, verdicts: u64, tests: u64) -> Finding {
        let (evidence, of_success) = weigh(rates, failures, verdicts);
        let alpha = self.alpha.as_f64() / float(tests.max(1));
        let beta = self.beta.as_f64();
        let (good, bad) = ((beta / (1.0 - alpha)).ln(), ((1.0 - beta) / alpha).ln());
        if evidence >= bad {
            Finding::Bad
        } else if evidence <= good {
            Finding::Good
        } else {
            Finding::Open { needs: whole((evidence - good) / of_success) }
        }
    }

    /// Returns `true` if the verdicts are for the bad rate rather than for the base rate, however weakly.
    #[must_use]
    pub fn leans_bad(&self, rates: Rates, failures: u64, verdicts: u64) -> bool {
        weigh(rates, failures, verdicts).0 > 0.0
    }
}

/// Returns the logarithm of the ratio of both likelihoods, and how much each success takes from it.
fn weigh(rates: Rates, failures: u64, verdicts: u64) -> (f64, f64) {
    let of_failure = (rates.bad / rates.base).ln();
    let of_success = -((1.0 - rates.bad) / (1.0 - rates.base)).ln();
    let evidence = float(failures) * of_failure - float(verdicts.saturating_sub(failures)) * of_success;
    (evidence, of_success)
}

#[allow(clippy::cast_precision_loss, reason = "no fleet has 2^52 devices")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded up, positive, and small")]
fn whole(count: f64) -> u64 {
    count.ceil().max(1.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_failures_among_few_devices_decide_nothing() {
        let (test, rates) = (Test::default(), Test::default().rates(0.0));
        assert_eq!(test.judge(rates, 0, 0, 1), Finding::Open { needs: 115 });
        assert_eq!(test.judge(rates, 0, 115, 1), Finding::Good);
        assert_eq!(test.judge(rates, 1, 5, 1), Finding::Open { needs: 161 });
        assert_eq!(test.judge(rates, 1, 166, 1), Finding::Good, "that many more were enough");
        assert_eq!(test.judge(rates, 1, 165, 1), Finding::Open { needs: 1 });
        assert_eq!(test.judge(rates, 3, 5, 1), Finding::Bad);
        assert_eq!(test.judge(rates, 3, 5, 10), Finding::Open { needs: 262 }, "ten groups at a time");
        assert!(test.leans_bad(rates, 1, 20) && !test.leans_bad(rates, 1, 100));
    }

    #[test]
    fn the_base_rate_of_the_fleet_counts() {
        let test = Test::default();
        assert_eq!(test.judge(test.rates(0.0), 8, 100, 1), Finding::Bad);
        assert_eq!(
            test.judge(test.rates(0.08), 8, 100, 1),
            Finding::Good,
            "as many as with the release before"
        );
        let rates = test.rates(1.0);
        assert!(rates.base < rates.bad && rates.bad < 1.0, "{rates:?}");
    }
}
