//! The logs of devices: reads their log streams, keeps the last lines in files, and serves them to operators.
//!
//! By default a device uploads its logs only while an operator asks for them. Files are bounded for each device and in all, are written
//! without a sync, and belong to this server alone: they are in no backup, and other servers on the same database do not
//! have them.

mod intake;
mod senders;
mod shelf;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::locks::locked;
use super::parked::Parked;
use super::places::{self, Places};
use crate::model::DeviceUuid;
use senders::Senders;

pub(super) use intake::{BadStream, Intake};
pub(super) use senders::Place;
pub(super) use shelf::{Line, Shelf};

/// Which devices upload their logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogMode {
    /// Of a device while an operator asks for them, and some minutes longer.
    #[default]
    Asked,
    /// Of all devices.
    On,
    /// Of none.
    Off,
}

impl LogMode {
    /// Reads a word of the settings.
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "asked" => Some(Self::Asked),
            "on" => Some(Self::On),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// How long a device uploads after an operator asked for its logs.
const ASKED_FOR: Duration = Duration::from_secs(600);

/// How much longer its stream is read. It ends the stream itself once its next poll says so.
const GRACE: Duration = Duration::from_secs(120);

/// The fraction of connections that streams of logs may have: one in this many.
const SHARE: usize = 16;

/// Maximum number of streams to those who follow logs, of all users.
pub(super) const FOLLOWING: usize = 16;

/// What was taken since the server started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) lines: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// Lines that were not kept: too long, of a wrong form, or the disk was full.
    pub(super) dropped: AtomicU64,
}

/// The logs of all devices.
#[derive(Debug)]
pub(super) struct Logs {
    mode: LogMode,
    dir: PathBuf,
    /// Maximum number of bytes of all files.
    most: u64,
    asked: Mutex<HashMap<DeviceUuid, Instant>>,
    open: Mutex<HashMap<DeviceUuid, Weak<Shelf>>>,
    /// About how many bytes all files have.
    used: Arc<AtomicU64>,
    senders: Arc<Senders>,
    following: Arc<Places>,
    counts: Counts,
    parked: Arc<Parked>,
    stop: CancellationToken,
}

impl Logs {
    /// Logs in this folder, of at most `most` bytes, from devices on a share of so many connections. Removes the files of
    /// devices that are not `known`. Blocks.
    pub(super) fn open(
        dir: PathBuf,
        (mode, most): (LogMode, u64),
        connections: usize,
        parked: &Arc<Parked>,
        known: impl Fn(&str) -> bool,
    ) -> Self {
        let used = shelf::tidy(&dir, known);
        Self {
            mode,
            dir,
            most,
            asked: Mutex::default(),
            open: Mutex::default(),
            used: Arc::new(AtomicU64::new(used)),
            senders: Senders::new((connections / SHARE).max(1)),
            following: Places::new(FOLLOWING),
            counts: Counts::default(),
            parked: Arc::clone(parked),
            stop: CancellationToken::new(),
        }
    }

    pub(super) fn is_off(&self) -> bool {
        self.mode == LogMode::Off
    }

    /// Returns whether a device is to upload its logs.
    pub(super) fn wants(&self, uuid: &DeviceUuid) -> bool {
        self.wants_within(uuid, Duration::ZERO)
    }

    /// Returns whether the server still reads a stream of this device. This holds a bit longer than [`Self::wants`].
    pub(super) fn takes(&self, uuid: &DeviceUuid) -> bool {
        self.wants_within(uuid, GRACE)
    }

    fn wants_within(&self, uuid: &DeviceUuid, grace: Duration) -> bool {
        match self.mode {
            LogMode::On => true,
            LogMode::Off => false,
            LogMode::Asked => {
                locked(&self.asked).get(uuid).is_some_and(|until| *until + grace > Instant::now())
            }
        }
    }

    /// Requests the logs of a device, and ends its waiting poll so that it learns this at once. Returns `true` if its logs were
    /// not requested before.
    pub(super) fn ask(&self, uuid: &DeviceUuid) -> bool {
        if self.mode != LogMode::Asked {
            return false;
        }
        let now = Instant::now();
        let mut asked = locked(&self.asked);
        asked.retain(|_, until| *until + GRACE > now);
        let is_news = asked.insert(uuid.clone(), now + ASKED_FOR).is_none_or(|until| until <= now);
        drop(asked);
        if is_news {
            self.parked.end(uuid);
        }
        is_news
    }

    /// Takes the place of a stream of this device, and ends the stream that it had; `None` if other devices have all places.
    pub(super) fn enter(&self, uuid: &DeviceUuid) -> Option<Place> {
        self.senders.enter(uuid)
    }

    /// Takes the place of this operator, who follows; `None` if all are taken.
    pub(super) fn follow(&self, user: &str) -> Option<places::Place> {
        self.following.enter(user)
    }

    /// Returns how many devices stream at the moment.
    pub(super) fn streams(&self) -> usize {
        self.senders.taken()
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns the shelf of a device.
    pub(super) fn shelf(&self, uuid: &DeviceUuid) -> Arc<Shelf> {
        let mut open = locked(&self.open);
        if let Some(shelf) = open.get(uuid).and_then(Weak::upgrade) {
            return shelf;
        }
        open.retain(|_, shelf| shelf.strong_count() > 0);
        let shelf = Arc::new(Shelf::new(&self.dir, uuid, Arc::clone(&self.used)));
        open.insert(uuid.clone(), Arc::downgrade(&shelf));
        shelf
    }

    /// Keeps lines of a device, and sends them to those who follow it. Blocks.
    pub(super) fn keep(&self, shelf: &Shelf, lines: Vec<Line>) {
        let (count, bytes) = (lines.len() as u64, lines.iter().map(|line| line.json.len() as u64).sum());
        match shelf.append(lines) {
            Ok(()) => {
                self.counts.lines.fetch_add(count, Ordering::Relaxed);
                self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) => {
                self.drop_lines(count);
                tracing::debug!(%error, "lines of a device's log are not kept");
            }
        }
        if self.used.load(Ordering::Relaxed) > self.most {
            let used = shelf::make_room(&self.dir, self.most / 10 * 9);
            self.used.store(used, Ordering::Relaxed);
        }
    }

    pub(super) fn drop_lines(&self, count: u64) {
        self.counts.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// Removes what there is of a device that was deleted.
    pub(super) fn forget(&self, uuid: &DeviceUuid) {
        locked(&self.asked).remove(uuid);
        self.shelf(uuid).remove();
    }

    /// Ends all streams. Call it when the server stops.
    pub(super) fn close(&self) {
        self.stop.cancel();
    }

    pub(super) async fn closed(&self) {
        self.stop.cancelled().await;
    }
}

/// The folder of logs in the data folder.
pub(super) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("logs")
}

/// New lines of a device. A reader that is too slow misses some.
pub(super) type News = broadcast::Receiver<Arc<Vec<Line>>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(n: u8) -> DeviceUuid {
        DeviceUuid::parse(format!("{n:032x}")).unwrap()
    }

    fn line(n: u64) -> Line {
        Line { fleet: 1, service: Some("web".to_owned()), json: format!("{{\"n\":{n}}}\n").into_bytes() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_is_wanted_for_some_minutes_after_an_operator_asked() {
        let folder = tempfile::tempdir().unwrap();
        let logs =
            |mode| Logs::open(folder.path().join("logs"), (mode, 1 << 20), 1024, &Parked::new(8), |_| true);
        let asked = logs(LogMode::Asked);
        assert!(!asked.wants(&uuid(1)) && !asked.takes(&uuid(1)));
        assert!(asked.ask(&uuid(1)));
        assert!(!asked.ask(&uuid(1)), "it was asked already");
        assert!(asked.wants(&uuid(1)) && !asked.wants(&uuid(2)));
        tokio::time::advance(ASKED_FOR + Duration::from_secs(1)).await;
        assert!(!asked.wants(&uuid(1)) && asked.takes(&uuid(1)), "its stream is read on");
        assert!(asked.ask(&uuid(1)));
        let on = logs(LogMode::On);
        assert!(on.wants(&uuid(1)) && !on.ask(&uuid(1)));
        let off = logs(LogMode::Off);
        assert!(!off.wants(&uuid(1)) && !off.ask(&uuid(1)) && !off.wants(&uuid(1)));
    }

    #[tokio::test]
    async fn lines_of_another_fleet_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let logs =
            Logs::open(folder.path().join("logs"), (LogMode::On, 1 << 20), 1024, &Parked::new(8), |_| true);
        let shelf = logs.shelf(&uuid(1));
        let mut news = shelf.news();
        logs.keep(
            &shelf,
            vec![line(1), Line { fleet: 12, ..line(2) }, line(3), Line { fleet: 2, ..line(4) }],
        );
        let read = |fleet| {
            let lines = shelf.read(10, fleet, &[]).0;
            assert!(lines.iter().all(|line| line.fleet == fleet));
            lines.into_iter().map(|line| String::from_utf8(line.json).unwrap()).collect::<String>()
        };
        assert_eq!(read(1), "{\"n\":1}\n{\"n\":3}\n");
        assert_eq!((read(12).as_str(), read(3).as_str()), ("{\"n\":2}\n", ""));
        let sent = news.recv().await.unwrap();
        assert_eq!(sent.iter().filter(|line| line.is_of(2, &[])).count(), 1);
        // A file of a version that kept no fleet.
        std::fs::write(folder.path().join("logs").join(format!("{}.jsonl", uuid(1))), "{\"n\":5}\n").unwrap();
        assert_eq!(read(1), "");
    }

    #[tokio::test]
    async fn a_user_takes_not_all_places_of_those_who_follow() {
        let folder = tempfile::tempdir().unwrap();
        let logs =
            Logs::open(folder.path().join("logs"), (LogMode::On, 1 << 20), 1024, &Parked::new(8), |_| true);
        let anna: Vec<_> = (0..FOLLOWING).map(|_| logs.follow("anna").unwrap()).collect();
        assert!(logs.follow("anna").is_none());
        let _ben = logs.follow("ben").expect("anna has the most");
        assert!(anna[0].given_away().is_cancelled() && !anna[1].given_away().is_cancelled());
    }

    #[tokio::test]
    async fn files_are_bounded_for_each_device_and_in_all_and_go_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("logs");
        let logs = Logs::open(dir.clone(), (LogMode::On, 300 << 10), 1024, &Parked::new(8), |_| true);
        let size = || std::fs::read_dir(&dir).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        for device in 1..=5 {
            let shelf = logs.shelf(&uuid(device));
            for batch in 0..100 {
                logs.keep(&shelf, (0..1000).map(|n| line(batch * 1000 + n)).collect());
            }
            let used: u64 = size();
            assert!(used <= 320 << 10, "{used}");
            let (last, _) = shelf.read(3, 1, &[]);
            let last: Vec<_> =
                last.iter().map(|line| String::from_utf8(line.json.clone()).unwrap()).collect();
            assert_eq!(last, ["{\"n\":99997}\n", "{\"n\":99998}\n", "{\"n\":99999}\n"]);
        }
        let left = |n| logs.shelf(&uuid(n)).read(10, 1, &[]).0.len();
        assert_eq!((left(1), left(5)), (0, 10), "the oldest files went");
        logs.forget(&uuid(5));
        assert_eq!(left(5), 0);
        assert_eq!(logs.counts().lines.load(Ordering::Relaxed), 500_000);
        // Files of devices that do not exist any more go at the next start.
        logs.keep(&logs.shelf(&uuid(7)), vec![line(1)]);
        logs.keep(&logs.shelf(&uuid(4)), (0..10).map(line).collect());
        let known = uuid(4).to_string();
        let logs =
            Logs::open(dir.clone(), (LogMode::On, 300 << 10), 1024, &Parked::new(8), |uuid| uuid == known);
        let left = |n| logs.shelf(&uuid(n)).read(10, 1, &[]).0.len();
        assert_eq!((left(7), left(4)), (0, 10));
    }
}
