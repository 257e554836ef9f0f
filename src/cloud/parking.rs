//! Decides how long a poll asks to wait at the cloud for a new target, and when the next poll is due. Pure.
//!
//! A Cotter fleet server answers such a poll as soon as the target changes, and otherwise when the wait is over. It says so
//! in the header `Preference-Applied`. Other clouds ignore the question and answer at once; then polls follow their interval.

use std::time::Duration;

/// What a request has, beyond its wait, for its answer to arrive.
const MARGIN: Duration = Duration::from_secs(5);

/// The wait of a poll whose answer the status needs soon. It is not zero, because only the answer to a wait shows whether the
/// cloud lets polls wait.
const BRIEF: Duration = Duration::from_secs(1);

/// A wait that ends with an error after so long may have been ended by a proxy. Without a wait, or sooner, it is a failure
/// like any other.
const CUT: Duration = Duration::from_secs(5);

/// How many new targets may follow each other at once, and the pause before each further one. The count begins anew with an
/// answer that took half of its wait.
const NEWS: u32 = 30;
const PAUSE_BETWEEN_NEWS: Duration = Duration::from_secs(5);

/// When to poll next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// After the usual interval.
    Interval,
    Now,
    /// After this and up to a second more.
    After(Duration),
}

/// The waits of one device at its cloud.
#[derive(Debug)]
pub(super) struct Parking {
    /// What polls ask for; zero for none.
    wait: Duration,
    /// Whether the last answer to a poll with a wait said that it was honoured.
    is_honoured: bool,
    /// Whether the next poll asks for no wait.
    is_plain: bool,
    /// Whether the next poll waits only briefly, because the status must soon say that the cloud answers: at the start, and
    /// after a failure.
    is_brief: bool,
    /// Answers in a row without news that came long before the wait was over.
    early: u32,
    /// New targets in a row that did so.
    news: u32,
    /// Waits in a row that were cut off.
    cuts: u32,
}

impl Parking {
    /// Creates waits of up to `longest`, for requests that may take `timeout` in all.
    pub(super) fn new(longest: Duration, timeout: Duration) -> Self {
        let wait = longest.min(timeout.saturating_sub(MARGIN));
        // The header has whole seconds.
        let wait = Duration::from_secs(wait.as_secs());
        Self { wait, is_honoured: false, is_plain: false, is_brief: true, early: 0, news: 0, cuts: 0 }
    }

    /// Returns the wait that the next poll asks for.
    pub(super) fn ask(&self) -> Option<Duration> {
        let wait = if self.is_brief { self.wait.min(BRIEF) } else { self.wait };
        (!self.is_plain && !wait.is_zero()).then_some(wait)
    }

    /// Returns whether the cloud lets polls wait.
    pub(super) fn is_honoured(&self) -> bool {
        self.is_honoured
    }

    /// An operator wants an answer now: the next poll does not wait.
    pub(super) fn interrupt(&mut self) {
        self.is_plain = true;
    }

    /// Takes note of a failure.
    pub(super) fn failed(&mut self) {
        self.is_brief = true;
    }

    /// Takes note of an answer: the wait that was asked for, whether it was honoured, how long the answer took, and whether
    /// it was a new target. Returns when to poll next.
    pub(super) fn answered(
        &mut self,
        asked: Option<Duration>,
        is_honoured: bool,
        took: Duration,
        is_new: bool,
    ) -> Next {
        let Some(asked) = asked else {
            self.is_plain = false;
            return if self.is_honoured { Next::After(Duration::ZERO) } else { Next::Interval };
        };
        self.is_brief = false;
        self.is_honoured = is_honoured;
        if !is_honoured {
            return Next::Interval;
        }
        self.cuts = 0;
        if took >= asked / 2 {
            (self.early, self.news) = (0, 0);
            return if is_new { Next::Now } else { Next::After(Duration::ZERO) };
        }
        // Targets may well follow each other: an operator changes one thing after the other.
        if is_new {
            self.news = self.news.saturating_add(1);
            return if self.news <= NEWS { Next::Now } else { Next::After(PAUSE_BETWEEN_NEWS) };
        }
        // The server stops, or another device has the same key and takes turns with this one.
        let seconds = 1_u64.checked_shl(self.early).unwrap_or(u64::MAX);
        self.early = self.early.saturating_add(1);
        Next::After(Duration::from_secs(seconds - 1))
    }

    /// Takes note of an error. Returns `true` if it may only mean that a proxy, which allows no such wait, cut the connection.
    /// Then it is no failure, and the next poll shows without a wait whether anything is wrong. After the second cut in a row, waits
    /// are half as long as the one that was cut.
    pub(super) fn forgive_cut(&mut self, asked: Option<Duration>, took: Duration, may_be_cut: bool) -> bool {
        if asked.is_none() || !self.is_honoured || !may_be_cut || took < CUT {
            return false;
        }
        self.is_plain = true;
        self.cuts += 1;
        if self.cuts >= 2 {
            self.wait = Duration::from_secs(self.wait.min(took).as_secs() / 2);
            self.cuts = 0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Not at its first poll.
    fn new(longest: Duration, timeout: Duration) -> Parking {
        Parking { is_brief: false, ..Parking::new(longest, timeout) }
    }

    fn parking() -> Parking {
        new(seconds(50), seconds(59))
    }

    #[test]
    fn the_first_poll_and_the_one_after_a_failure_wait_briefly() {
        let mut parking = Parking::new(seconds(50), seconds(59));
        assert_eq!(parking.ask(), Some(seconds(1)));
        assert_eq!(parking.answered(parking.ask(), true, seconds(1), false), Next::After(seconds(0)));
        assert_eq!(parking.ask(), Some(seconds(50)));
        parking.failed();
        assert_eq!(parking.ask(), Some(seconds(1)));
        assert_eq!(Parking::new(seconds(0), seconds(59)).ask(), None);
    }

    #[test]
    fn a_wait_ends_before_the_request_does() {
        for (longest, timeout, expected) in [
            (seconds(50), seconds(59), Some(seconds(50))),
            (seconds(300), seconds(59), Some(seconds(54))),
            (seconds(50), seconds(10), Some(seconds(5))),
            (Duration::from_millis(1900), seconds(59), Some(seconds(1))),
            (seconds(50), seconds(5), None),
            (seconds(50), seconds(1), None),
            (seconds(0), seconds(59), None),
        ] {
            assert_eq!(new(longest, timeout).ask(), expected, "{longest:?} {timeout:?}");
        }
    }

    #[test]
    fn other_clouds_are_polled_at_the_interval() {
        let mut parking = parking();
        for is_new in [true, false] {
            assert_eq!(parking.answered(parking.ask(), false, seconds(0), is_new), Next::Interval);
            assert_eq!(parking.ask(), Some(seconds(50)), "the next one may be another server");
            assert!(!parking.forgive_cut(parking.ask(), seconds(59), true), "an error is an error");
        }
        let mut off = new(seconds(0), seconds(59));
        assert_eq!(off.answered(off.ask(), false, seconds(0), true), Next::Interval);
    }

    #[test]
    fn one_wait_follows_the_other() {
        let mut parking = parking();
        let asked = parking.ask();
        assert_eq!(parking.answered(asked, true, seconds(50), false), Next::After(seconds(0)));
        assert_eq!(parking.answered(asked, true, seconds(49), true), Next::Now);
        assert_eq!(parking.answered(asked, true, seconds(3), true), Next::Now);
        assert!(parking.is_honoured());
    }

    #[test]
    fn answers_that_come_too_soon_make_no_storm() {
        let mut parking = parking();
        let asked = parking.ask();
        let mut next = |is_new| parking.answered(asked, true, seconds(0), is_new);
        assert_eq!([next(false), next(false), next(false)], [0, 1, 3].map(|n| Next::After(seconds(n))));
        assert_eq!(next(true), Next::Now, "a new target is what it waits for");
        assert_eq!(next(false), Next::After(seconds(7)), "and says nothing of the answers without news");
        for _ in 0..100 {
            assert!(matches!(next(false), Next::After(wait) if wait >= seconds(15)));
        }
        assert_eq!(
            parking.answered(asked, true, seconds(25), false),
            Next::After(seconds(0)),
            "all is well again"
        );
        let mut next = |is_new| parking.answered(asked, true, seconds(0), is_new);
        assert_eq!(
            [(); 30].map(|()| next(true)),
            [Next::Now; 30],
            "an operator changes one thing after the other"
        );
        for _ in 0..100 {
            assert_eq!(next(true), Next::After(seconds(5)), "a server that flips targets for ever");
        }
        parking.answered(asked, true, seconds(25), true);
        assert_eq!(parking.answered(asked, true, seconds(0), true), Next::Now, "all is well again");
    }

    #[test]
    fn an_operator_does_not_wait() {
        let mut parking = parking();
        assert_eq!(parking.answered(parking.ask(), true, seconds(50), false), Next::After(seconds(0)));
        parking.interrupt();
        assert_eq!(parking.ask(), None);
        assert_eq!(parking.answered(None, false, seconds(0), false), Next::After(seconds(0)));
        assert_eq!(parking.ask(), Some(seconds(50)));
    }

    #[test]
    fn waits_that_a_proxy_cuts_become_shorter() {
        let mut parking = parking();
        let asked = parking.ask();
        parking.answered(asked, true, seconds(50), false);
        assert!(!parking.forgive_cut(asked, seconds(1), true), "too soon");
        assert!(!parking.forgive_cut(asked, seconds(30), false), "the server said no");
        assert!(!parking.forgive_cut(None, seconds(30), true), "it did not wait");
        for expected in [50, 15] {
            assert!(parking.forgive_cut(asked, seconds(30), true));
            assert_eq!(parking.ask(), None, "is anything wrong?");
            assert_eq!(parking.answered(None, false, seconds(0), false), Next::After(seconds(0)));
            assert_eq!(parking.ask(), Some(seconds(expected)));
        }
        // A wait that is honoured shows that the cut before was something else.
        let asked = parking.ask();
        for _ in 0..3 {
            assert!(parking.forgive_cut(asked, seconds(10), true));
            parking.answered(None, false, seconds(0), false);
            parking.answered(asked, true, seconds(15), false);
        }
        assert_eq!(parking.ask(), Some(seconds(15)));
    }
}
