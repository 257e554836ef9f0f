use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::fleet::policy::{
    Change, Departure, KeyHash, NewDevice, NewFleet, NewRelease, NewService, Refusal, VariableChange,
    VariableHolder,
};
use crate::fleet::reach;
use crate::model::{AppId, Commit, DeviceUuid, ImageRef, ReleaseStatus, ServiceName};

const DEVICES: [&str; 3] = ["a", "b", "c"];

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn uuid(device: &str) -> DeviceUuid {
    DeviceUuid::parse(device.repeat(32)).unwrap()
}

fn change(world: &mut World, changes: Result<Vec<Change>, Refusal>) {
    changes.unwrap().into_iter().for_each(|change| world.apply(change));
}

/// A fleet of three devices and a release in which `side` joins the network of `web`, whose author sets `A` to 1.
fn world() -> World {
    let mut world = World::default();
    let fleet = NewFleet {
        uuid: AppId::parse("f".repeat(32)).unwrap(),
        name: "lab".into(),
        created: now(),
        key: KeyHash("key".into()),
        registry: None,
    };
    let created = world.create_fleet(fleet);
    change(&mut world, created);
    for device in DEVICES {
        let new = NewDevice {
            uuid: uuid(device),
            name: device.into(),
            device_type: "board".into(),
            key: KeyHash(device.into()),
            by: KeyHash("key".into()),
            created: now(),
            tags: BTreeMap::new(),
        };
        let registered = world.register(new).map(|(_, changes)| changes);
        change(&mut world, registered);
    }
    let image = ImageRef::parse(&format!("r.example/x@sha256:{}", "a".repeat(64))).unwrap();
    let service = |(name, composition): (&str, &str)| {
        let composition: Map<_, _> = serde_json::from_str(composition).unwrap();
        (ServiceName::parse(name).unwrap(), NewService { image: image.clone(), composition })
    };
    let services = [
        ("db", "{}"),
        ("web", r#"{"environment": ["A=1", "B=2"]}"#),
        ("side", r#"{"network_mode": "service:web"}"#),
    ];
    let new = NewRelease {
        commit: Commit::parse("one").unwrap(),
        status: ReleaseStatus::Success,
        is_final: true,
        is_passing_tests: true,
        start_timestamp: now(),
        services: services.into_iter().map(service).collect(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        build_log: None,
    };
    let released = world.create_release(world.find_fleet("lab").unwrap(), new).map(|(_, changes)| changes);
    change(&mut world, released);
    world
}

/// Sets or removes a variable of a device, or of the fleet ("").
fn vary(world: &mut World, of: &str, service: &str, name: &str, value: Option<&str>) -> VariableHolder {
    let asked = VariableChange {
        service: (!service.is_empty()).then(|| ServiceName::parse(service).unwrap()),
        set: value.map(|value| (name.to_owned(), value.to_owned())).into_iter().collect(),
        remove: if value.is_some() { BTreeSet::new() } else { BTreeSet::from([name.to_owned()]) },
        is_secret: false,
    };
    let (holder, changes) = if of.is_empty() {
        let fleet = world.find_fleet("lab").unwrap();
        (VariableHolder::Fleet(fleet.number), world.change_fleet_variables(fleet, &asked))
    } else {
        let device = world.device(&uuid(of)).unwrap();
        (VariableHolder::Device(device.uuid.clone()), world.change_device_variables(device, &asked))
    };
    changes.unwrap_or_default().into_iter().for_each(|change| world.apply(change));
    holder
}

/// The etag of a device, and its body.
async fn target(targets: &Targets, world: &World, device: &str) -> (String, Vec<u8>) {
    let device = world.device(&uuid(device)).unwrap();
    let wanted = targets.of(device, world).unwrap();
    let etag = wanted.etag().to_owned();
    let (body, length) = targets.body(wanted, device, world).unwrap();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    assert_eq!(body.len(), length);
    (etag, body.to_vec())
}

fn known(targets: &Targets) -> usize {
    targets.apps.lock().unwrap().known.len()
}

#[tokio::test]
async fn devices_share_an_app_unless_their_variables_differ() {
    let targets = Targets::new(Duration::from_secs(60));
    let mut world = world();
    vary(&mut world, "", "", "A", Some("fleet"));
    for device in DEVICES {
        target(&targets, &world, device).await;
    }
    assert_eq!(known(&targets), 1);
    vary(&mut world, "a", "", "OWN", Some("1"));
    vary(&mut world, "b", "", "OWN", Some("1"));
    vary(&mut world, "c", "", "OWN", Some("2"));
    for device in DEVICES {
        target(&targets, &world, device).await;
    }
    assert_eq!(known(&targets), 3, "none of their own, OWN=1, OWN=2");
}

#[tokio::test]
async fn an_environment_has_all_levels_of_its_service() {
    let targets = Targets::new(Duration::from_secs(60));
    let mut world = world();
    vary(&mut world, "", "", "A", Some("fleet"));
    vary(&mut world, "", "web", "B", Some("\"quoted\""));
    vary(&mut world, "a", "db", "C", Some("of db"));
    let body = target(&targets, &world, "a").await.1;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let services =
        body.pointer(&format!("/{}/apps/{}/releases/one/services", "a".repeat(32), "f".repeat(32)));
    let services = services.unwrap();
    assert_eq!(services["web"]["environment"], serde_json::json!({ "A": "fleet", "B": "\"quoted\"" }));
    assert_eq!(services["db"]["environment"], serde_json::json!({ "A": "fleet", "C": "of db" }));
    assert_eq!(services["side"]["environment"], serde_json::json!({ "A": "fleet" }));
    assert_eq!(services["web"]["composition"]["environment"], serde_json::json!(["A=1", "B=2"]), "as it was");
}

/// Lists ask again and again, and each answer holds for the records of its moment.
#[tokio::test]
async fn a_device_is_outdated_from_the_moment_at_which_its_target_is_another_one() {
    let targets = Targets::new(Duration::from_secs(60));
    let mut world = world();
    let reported = target(&targets, &world, "a").await.0;
    let is_current = |world: &World, etag: &str| {
        let device = world.device(&uuid("a")).unwrap();
        let first = targets.is_current(etag, device, world).unwrap();
        assert_eq!(targets.is_current(etag, device, world).unwrap(), first, "asked again");
        first
    };
    assert!(is_current(&world, &reported) && !is_current(&world, "W/\"1-other\""));
    let departure = Departure {
        to: "https://there.example".into(),
        fleet: "1".into(),
        key: "a-provisioning-key".into(),
        ordered: now(),
    };
    let device = |world: &World| world.device(&uuid("a")).unwrap().clone();
    let fleet = |world: &World| world.find_fleet("lab").unwrap().clone();
    let (of_device, of_fleet) = (device(&world), fleet(&world));
    for (there, back) in [
        (
            Change::PutDevice(Device { name: "z".into(), ..of_device.clone() }),
            Change::PutDevice(of_device.clone()),
        ),
        (
            Change::PutDevice(Device { departure: Some(departure), ..of_device.clone() }),
            Change::PutDevice(of_device.clone()),
        ),
        (
            Change::PutFleet(Fleet { name: "z".into(), ..of_fleet.clone() }),
            Change::PutFleet(of_fleet.clone()),
        ),
        (Change::PutFleet(Fleet { target: None, ..of_fleet.clone() }), Change::PutFleet(of_fleet)),
    ] {
        world.apply(there.clone());
        assert!(!is_current(&world, &reported), "{there:?}");
        let new = target(&targets, &world, "a").await.0;
        assert!(is_current(&world, &new), "{there:?}");
        world.apply(back);
        assert!(is_current(&world, &reported) && !is_current(&world, &new), "and back: {there:?}");
    }
}

/// A place and a value: of the fleet or a device, of all services or one.
fn act() -> impl Strategy<Value = (usize, usize, usize, Option<u8>)> {
    (0..4_usize, 0..4_usize, 0..2_usize, prop::option::weighted(0.7, 0..3_u8))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// The etag of a device changes exactly when its body does, whatever is known of earlier targets, and a service is said
    /// to restart exactly when the spec hash that the device's agent computes changes.
    #[test]
    fn etags_and_restarts_follow_the_bodies(acts in prop::collection::vec(act(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let targets = Targets::new(Duration::from_secs(60));
        let mut world = world();
        let mut etags: HashMap<String, Vec<u8>> = HashMap::new();
        let mut before: Vec<_> = DEVICES.iter().map(|device| runtime.block_on(target(&targets, &world, device))).collect();
        for (of, service, name, value) in acts {
            let of = ["", "a", "b", "c"][of];
            let (service, name) = (["", "db", "side", "web"][service], ["A", "B"][name]);
            let earlier = world.clone();
            let value = value.map(|value| value.to_string());
            let holder = vary(&mut world, of, service, name, value.as_deref());
            let after: Vec<_> = DEVICES.iter().map(|device| runtime.block_on(target(&targets, &world, device))).collect();
            let mut restarts = BTreeMap::new();
            for ((device, was), is) in DEVICES.iter().zip(&before).zip(&after) {
                prop_assert_eq!(was.0 == is.0, was.1 == is.1);
                let row = world.device(&uuid(device)).unwrap();
                prop_assert_eq!(targets.is_current(&was.0, row, &world).unwrap(), was.0 == is.0);
                prop_assert!(targets.is_current(&is.0, row, &world).unwrap());
                let same = etags.entry(is.0.clone()).or_insert_with(|| is.1.clone());
                prop_assert_eq!(&*same, &is.1, "an etag has one body");
                let (was, is) = (hashes(&was.1), hashes(&is.1));
                let services: BTreeSet<_> = is.iter().filter(|(name, hash)| was[*name] != **hash).map(|(name, _)| name.clone()).collect();
                if !services.is_empty() {
                    restarts.insert((*device).to_owned(), services);
                }
            }
            let said = reach::restarts(&earlier, &world, &holder, &reach::Named::default());
            let said: BTreeMap<_, _> = said.into_iter().map(|restart| (restart.name, BTreeSet::clone(&restart.services))).collect();
            prop_assert_eq!(said, restarts);
            before = after;
        }
    }
}

/// The spec hashes that a device's agent computes from a body.
fn hashes(body: &[u8]) -> BTreeMap<ServiceName, String> {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    let device = body.as_object().unwrap().values().next().unwrap();
    let app = device["apps"].as_object().unwrap().values().next().unwrap();
    let release = app["releases"]["one"].clone();
    let release = serde_json::from_value(release).unwrap();
    let (contents, notes) = crate::wire::compose::read(&release, crate::wire::compose::Form::Target);
    assert!(notes.refusals.is_empty(), "{:?}", notes.refusals);
    contents.services.into_iter().map(|(name, spec)| (name, spec.hash.to_string())).collect()
}
