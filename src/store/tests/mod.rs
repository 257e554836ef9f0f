//! Tests of a store on a real disk: damage, SIGKILL, full disks and other users.

mod damage;
mod disk;
mod kill;
mod plain;
mod property;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::model::{
    AppId, AppLedger, Commit, ContainerId, DeviceUuid, Hold, Identity, ImageRef, Ledger, NetworkSpec,
    Registration, Release, StoredTarget, TrialSpec,
};

use super::{Recovery, Remembered, Store};

fn identity(n: u64) -> Identity {
    Identity {
        uuid: DeviceUuid::parse("ab".repeat(16)).unwrap(),
        device_key: format!("key-{n}"),
        registered: Some(Registration { endpoint: "https://api.example".into(), device_id: Some(n) }),
        moves: crate::model::Moves::default(),
    }
}

fn target(n: u64, bytes: usize) -> StoredTarget {
    let body = format!("{n:020} {}", noise(n, bytes));
    StoredTarget { endpoint: "https://api.example".into(), etag: Some(format!("\"{n}\"")), body }
}

/// A ledger with one app per `(app, n, bytes)`; it has a hold if the first `n` is odd.
fn ledger(apps: &[(u64, u64, usize)]) -> Ledger {
    let mut ledger = Ledger::default();
    if apps.first().is_some_and(|(_, n, _)| n % 2 == 1) {
        ledger.hold = Some(Hold { reason: "audit".into(), since: "2026-01-01T00:00:00Z".into() });
    }
    for &(app, n, bytes) in apps {
        let network = NetworkSpec {
            labels: BTreeMap::from([("noise".to_owned(), noise(n, bytes))]),
            ..NetworkSpec::default()
        };
        let good = Release {
            commit: Commit::parse(format!("c{n}")).unwrap(),
            number: n,
            services: BTreeMap::new(),
            networks: BTreeMap::from([(crate::model::NetworkName::parse("default").unwrap(), network)]),
            volumes: BTreeMap::new(),
            trial: TrialSpec::default(),
            windows: [].into(),
        };
        let stopped = [ContainerId::parse(format!("container{n}")).unwrap()].into();
        ledger.apps.insert(
            AppId::parse(format!("app{app}")).unwrap(),
            AppLedger { good: Some(good), stopped_by_agent: stopped, ..AppLedger::default() },
        );
        ledger.images.insert(ImageRef::parse(&format!("registry.example/app{app}:v{n}")).unwrap());
    }
    ledger
}

/// Text that compresses badly and differs for each `n`.
fn noise(n: u64, bytes: usize) -> String {
    let mut random = Random(n + 1);
    (0..bytes).map(|_| char::from(b'a' + (random.below(26) as u8))).collect()
}

/// Pseudo-random numbers, the same on every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A large example of everything that a store can have.
fn full() -> Remembered {
    Remembered {
        identity: Some(identity(7)),
        target: Some(target(7, 30_000)),
        ledger: ledger(&[(1, 1, 9_000), (2, 2, 500), (3, 3, 20_000)]),
    }
}

fn save_all(store: &Store, remembered: &Remembered) {
    store.save_identity(remembered.identity.as_ref().unwrap()).unwrap();
    store.save_target(remembered.target.as_ref().unwrap()).unwrap();
    store.save_ledger(&remembered.ledger).unwrap();
}

fn open(dir: &Path) -> (Store, Vec<Recovery>) {
    Store::open(dir).unwrap()
}

/// Opens the store, reads its content and closes it.
fn remembered(dir: &Path) -> (Remembered, Vec<Recovery>) {
    let (store, notes) = open(dir);
    (store.load(), notes)
}

/// Every file below `dir`, sorted.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let onto = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &onto);
        } else {
            fs::copy(&path, &onto).unwrap();
        }
    }
}

/// All notes on one line.
fn text(notes: &[Recovery]) -> String {
    notes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
