//! Which devices upload their logs at the moment. A device has one place, however many streams it opens: a new stream ends the
//! one before, and all of them have one pace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fleet::locks::locked;
use crate::model::DeviceUuid;

/// How many lines and bytes, after decompression, a device may send in a second, and how much of it at once.
const LINES: f64 = 500.0;
const BYTES: f64 = 256.0 * 1024.0;
const BURST: f64 = 8.0;

/// The longest wait.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The places of streams.
#[derive(Debug)]
pub(super) struct Senders {
    most: usize,
    devices: Mutex<HashMap<DeviceUuid, Sender>>,
}

/// A device that streams, or did a short time ago.
#[derive(Debug)]
struct Sender {
    pace: Arc<Pace>,
    stream: Option<Arc<CancellationToken>>,
}

/// The place of one stream. It is free again when this is dropped.
#[derive(Debug)]
pub(in crate::fleet) struct Place {
    of: Arc<Senders>,
    uuid: DeviceUuid,
    pace: Arc<Pace>,
    /// Cancelled when the device opens another stream.
    replaced: Arc<CancellationToken>,
}

/// How much a device has sent lately, in all its streams.
#[derive(Debug)]
pub(in crate::fleet) struct Pace {
    debt: Mutex<Debt>,
}

/// Lines and bytes that were taken, less what the time has allowed.
#[derive(Debug)]
struct Debt {
    lines: f64,
    bytes: f64,
    since: Instant,
}

impl Senders {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, devices: Mutex::default() })
    }

    /// Takes the place of a stream of this device, and ends the stream that it had; `None` if other devices have all places.
    pub(super) fn enter(self: &Arc<Self>, uuid: &DeviceUuid) -> Option<Place> {
        let mut devices = locked(&self.devices);
        devices.retain(|_, sender| sender.stream.is_some() || sender.pace.is_in_debt());
        let others = devices.iter().filter(|(other, sender)| *other != uuid && sender.stream.is_some());
        if others.count() >= self.most {
            return None;
        }
        let replaced = Arc::new(CancellationToken::new());
        let new = || Sender { pace: Arc::new(Pace::new()), stream: None };
        let sender = devices.entry(uuid.clone()).or_insert_with(new);
        if let Some(before) = sender.stream.replace(Arc::clone(&replaced)) {
            before.cancel();
        }
        Some(Place { of: Arc::clone(self), uuid: uuid.clone(), pace: Arc::clone(&sender.pace), replaced })
    }

    /// Returns how many devices stream.
    pub(super) fn taken(&self) -> usize {
        locked(&self.devices).values().filter(|sender| sender.stream.is_some()).count()
    }
}

impl Place {
    /// Returns once the device has opened another stream.
    pub(in crate::fleet) async fn replaced(&self) {
        self.replaced.cancelled().await;
    }

    /// Returns how long to wait before the first piece of the stream is read.
    pub(in crate::fleet) fn owed(&self) -> Duration {
        self.pace.charge(0, 0)
    }

    pub(in crate::fleet) fn pace(&self) -> Arc<Pace> {
        Arc::clone(&self.pace)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut devices = locked(&self.of.devices);
        if let Some(sender) = devices.get_mut(&self.uuid)
            && sender.stream.as_ref().is_some_and(|stream| Arc::ptr_eq(stream, &self.replaced))
        {
            sender.stream = None;
        }
    }
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { debt: Mutex::new(Debt { lines: 0.0, bytes: 0.0, since: Instant::now() }) }
    }

    /// Counts what was taken. Returns how long to wait before more is taken.
    #[expect(clippy::cast_precision_loss, reason = "counts of one piece are small")]
    pub(super) fn charge(&self, lines: usize, bytes: usize) -> Duration {
        let mut debt = locked(&self.debt);
        debt.pay();
        debt.lines += lines as f64;
        debt.bytes += bytes as f64;
        let seconds = (debt.lines / LINES).max(debt.bytes / BYTES) - BURST;
        Duration::from_secs_f64(seconds.clamp(0.0, LONGEST_WAIT.as_secs_f64()))
    }

    fn is_in_debt(&self) -> bool {
        let mut debt = locked(&self.debt);
        debt.pay();
        debt.lines > 0.0 || debt.bytes > 0.0
    }
}

impl Debt {
    /// Subtracts what the time has allowed since the last call.
    fn pay(&mut self) {
        let passed = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        self.lines = (self.lines - passed * LINES).max(0.0);
        self.bytes = (self.bytes - passed * BYTES).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(n: u8) -> DeviceUuid {
        DeviceUuid::parse(format!("{n:032x}")).unwrap()
    }

    #[test]
    fn a_device_has_one_place_however_many_streams_it_opens() {
        let places = Senders::new(2);
        let streams: Vec<_> = (0..10).map(|_| places.enter(&uuid(1)).unwrap()).collect();
        assert_eq!(places.taken(), 1);
        let is_replaced = |place: &Place| place.replaced.is_cancelled();
        assert!(streams[..9].iter().all(is_replaced) && !is_replaced(&streams[9]));
        let second = places.enter(&uuid(2)).unwrap();
        assert!(places.enter(&uuid(3)).is_none(), "all places are taken");
        assert!(places.enter(&uuid(2)).is_some_and(|_| is_replaced(&second)), "its own place is free for it");
        drop(streams);
        drop(second);
        assert_eq!(places.taken(), 0);
        assert!(places.enter(&uuid(3)).is_some());
    }

    #[test]
    fn a_stream_that_was_replaced_leaves_the_place_to_the_new_one() {
        let places = Senders::new(2);
        let (old, new) = (places.enter(&uuid(1)), places.enter(&uuid(1)));
        drop(old);
        assert_eq!(places.taken(), 1);
        drop(new);
        assert_eq!(places.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn all_streams_of_a_device_have_one_pace() {
        let places = Senders::new(2);
        let send = |place: &Place| place.pace().charge(1000, 0);
        let (first, other) = (places.enter(&uuid(1)).unwrap(), places.enter(&uuid(2)).unwrap());
        assert_eq!((0..4).map(|_| send(&first)).max(), Some(Duration::ZERO));
        let second = places.enter(&uuid(1)).unwrap();
        assert_eq!(second.owed(), Duration::ZERO);
        assert_eq!(send(&second), Duration::from_secs(2), "the burst is used up");
        assert_eq!(send(&other), Duration::ZERO);
        // A stream that ends and comes again has no new burst, until the time has paid for the last one.
        assert_eq!(
            places.enter(&uuid(1)).unwrap().owed(),
            Duration::from_secs(2),
            "before its first piece is read"
        );
        drop((first, second));
        assert_eq!(send(&places.enter(&uuid(1)).unwrap()), Duration::from_secs(4));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(send(&places.enter(&uuid(1)).unwrap()), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(20)).await;
        drop(places.enter(&uuid(3)));
        assert_eq!(locked(&places.devices).len(), 2, "who owes nothing is forgotten");
    }
}
