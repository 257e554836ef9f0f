//! Counts requests and how long they took, by route.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::locks::locked;

/// Upper bounds of the times that are counted, in seconds, with their texts in labels.
pub(super) const BOUNDS: [(f64, &str); 7] = [
    (0.001, "0.001"),
    (0.005, "0.005"),
    (0.02, "0.02"),
    (0.1, "0.1"),
    (0.5, "0.5"),
    (2.0, "2"),
    (10.0, "10"),
];

/// Requests of one route and method.
#[derive(Debug, Clone, Default)]
pub(super) struct Route {
    /// By status.
    pub(super) answers: BTreeMap<u16, u64>,
    /// How many took at most the bound of the same place.
    pub(super) within: [u64; BOUNDS.len()],
    pub(super) timed: u64,
    pub(super) seconds: f64,
}

/// All requests since the server started. There are as many entries as there are routes and methods.
#[derive(Debug, Default)]
pub(super) struct Requests {
    routes: Mutex<BTreeMap<(String, &'static str), Route>>,
}

impl Requests {
    /// Counts a request. `took` is `None` for one that waited for news on purpose.
    pub(super) fn count(&self, route: &str, method: &str, status: u16, took: Option<Duration>) {
        // A client may send any method.
        let known = ["GET", "HEAD", "POST", "PATCH", "DELETE"];
        let method = known.into_iter().find(|known| *known == method).unwrap_or("other");
        let mut routes = locked(&self.routes);
        let entry = routes.entry((route.to_owned(), method)).or_default();
        *entry.answers.entry(status).or_default() += 1;
        if let Some(took) = took {
            let seconds = took.as_secs_f64();
            entry.timed += 1;
            entry.seconds += seconds;
            for (count, (bound, _)) in entry.within.iter_mut().zip(BOUNDS) {
                *count += u64::from(seconds <= bound);
            }
        }
    }

    /// Returns the counts, by route and method.
    pub(super) fn all(&self) -> BTreeMap<(String, &'static str), Route> {
        locked(&self.routes).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_status_and_time() {
        let requests = Requests::default();
        let took = |millis| Some(Duration::from_millis(millis));
        requests.count("/a", "GET", 200, took(3));
        requests.count("/a", "GET", 304, took(300));
        requests.count("/a", "GET", 304, None);
        requests.count("/a", "BREW", 405, took(20_000));
        let all = requests.all();
        let got = &all[&("/a".to_owned(), "GET")];
        assert_eq!(got.answers, BTreeMap::from([(200, 1), (304, 2)]));
        assert_eq!((got.within, got.timed), ([0, 1, 1, 1, 2, 2, 2], 2));
        assert!((got.seconds - 0.303).abs() < 1e-9);
        let other = &all[&("/a".to_owned(), "other")];
        assert_eq!((other.within, other.timed), ([0; 7], 1));
    }
}
