//! A large fleet, as a backup that is restored.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use cotter::fleet::backup::Writer;
use cotter::fleet::policy::{Change, KeyHash, NewDevice, NewFleet, NewRelease, NewService, World};
use cotter::model::{AppId, Commit, DeviceUuid, ImageRef, ReleaseStatus, ServiceName};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sha2::{Digest as _, Sha256};

pub(crate) struct Seeded {
    pub(crate) bytes: u64,
    pub(crate) commits: Vec<String>,
}

/// Uuid and key of a device.
pub(crate) fn device(number: u32) -> (String, String) {
    (format!("{number:032x}"), format!("the-key-of-device-{number}"))
}

fn hash(text: &str) -> KeyHash {
    KeyHash(Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes a backup with one fleet, its releases of ten services, and its devices, half of which bear the tag `half=a`.
pub(crate) fn write(file: &Path, devices: u32, releases: u32) -> Seeded {
    let start = Timestamp::from_second(1_700_000_000).unwrap();
    let mut world = World::default();
    let apply =
        |world: &mut World, changes: Vec<Change>| changes.into_iter().for_each(|change| world.apply(change));
    let new = NewFleet {
        uuid: AppId::parse("c1e6d44ed31f099f3066283d20a8f3ae").unwrap(),
        name: "lab".to_owned(),
        created: start,
        key: hash("provisioning"),
        registry: None,
    };
    let changes = world.create_fleet(new).unwrap();
    apply(&mut world, changes);
    let mut commits = Vec::new();
    for number in 0..releases {
        let commit = format!(
            "{:040x}",
            Sha256::digest(number.to_string())[0..8].iter().fold(0_u64, |n, b| n << 8 | u64::from(*b))
        );
        let fleet = world.find_fleet("lab").unwrap().clone();
        let (_, changes) = world.create_release(&fleet, release(&commit, number, start)).unwrap();
        apply(&mut world, changes);
        commits.push(commit);
    }
    for number in 1..=devices {
        let (uuid, key) = device(number);
        let half = if number % 2 == 0 { "a" } else { "b" };
        let new = NewDevice {
            uuid: DeviceUuid::parse(uuid).unwrap(),
            name: format!("board-{number}"),
            device_type: "raspberrypi4-64".to_owned(),
            key: hash(&key),
            by: hash("provisioning"),
            // A provisioning key registers so many devices a minute.
            created: start.checked_add(SignedDuration::from_secs(i64::from(number))).unwrap(),
            tags: BTreeMap::from([
                ("half".to_owned(), half.to_owned()),
                ("site".to_owned(), format!("s{}", number % 100)),
            ]),
        };
        let (_, changes) = world.register(new).unwrap();
        apply(&mut world, changes);
    }
    let mut out = BufWriter::new(File::create(file).unwrap());
    let (mut writer, head) = Writer::begin(start).unwrap();
    out.write_all(&head).unwrap();
    for record in world.records() {
        out.write_all(&writer.record(&record).unwrap()).unwrap();
    }
    out.write_all(&writer.end()).unwrap();
    out.flush().unwrap();
    Seeded { bytes: std::fs::metadata(file).unwrap().len(), commits }
}

fn release(commit: &str, number: u32, start: Timestamp) -> NewRelease {
    let service = |n: u32| {
        let digest: String =
            Sha256::digest(format!("{number}/{n}")).iter().map(|b| format!("{b:02x}")).collect();
        let image =
            ImageRef::parse(&format!("registry.example.com/lab/service-{n}@sha256:{digest}")).unwrap();
        let composition = json!({
            "restart": "always",
            "ports": [format!("{}:80", 8000 + n)],
            "environment": { "A": "1", "B": "a longer value of a variable", "C": "3" },
            "volumes": ["data:/data"],
            "healthcheck": { "test": ["CMD", "/check"], "interval": "30s", "timeout": "5s", "retries": 3 },
        });
        let composition = composition.as_object().unwrap().clone();
        (ServiceName::parse(format!("service-{n}")).unwrap(), NewService { image, composition })
    };
    NewRelease {
        commit: Commit::parse(commit).unwrap(),
        status: ReleaseStatus::Success,
        is_final: true,
        is_passing_tests: true,
        start_timestamp: start.checked_add(SignedDuration::from_secs(i64::from(number))).unwrap(),
        services: (0..10).map(service).collect(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::from([("data".to_owned(), json!({}))]),
        build_log: None,
    }
}
