use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::fleet::policy::{KeyHash, NewDevice, NewFleet, NewRelease, NewService, Reported};
use crate::model::{AppId, Commit, DeviceUuid, ImageRef, ReleaseStatus, ServiceName};

/// A world with a fleet, its target `two` (number 2), the release `one` before it, and a device that reported this.
pub(in crate::fleet) fn world(reported: impl FnOnce(&mut Reported)) -> World {
    let mut world = World::default();
    let now = Timestamp::UNIX_EPOCH;
    let apply =
        |world: &mut World, changes: Vec<_>| changes.into_iter().for_each(|change| world.apply(change));
    let key = || KeyHash("key".to_owned());
    let fleet = NewFleet {
        uuid: AppId::parse("uuid").unwrap(),
        name: "lab".into(),
        created: now,
        key: key(),
        registry: None,
    };
    let changes = world.create_fleet(fleet).unwrap();
    apply(&mut world, changes);
    let web = || NewService {
        image: ImageRef::parse(&format!("r/web@sha256:{}", "a".repeat(64))).unwrap(),
        composition: serde_json::Map::new(),
    };
    for commit in ["one", "two"] {
        let release = NewRelease {
            commit: Commit::parse(commit).unwrap(),
            status: ReleaseStatus::Success,
            is_final: true,
            is_passing_tests: true,
            start_timestamp: now,
            services: BTreeMap::from([(ServiceName::parse("web").unwrap(), web())]),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            build_log: None,
        };
        let fleet = world.find_fleet("lab").unwrap().clone();
        let (_, changes) = world.create_release(&fleet, release).unwrap();
        apply(&mut world, changes);
    }
    let device = NewDevice {
        uuid: DeviceUuid::parse("a".repeat(32)).unwrap(),
        name: "board".to_owned(),
        device_type: "generic-amd64".to_owned(),
        key: KeyHash("secret".to_owned()),
        by: key(),
        created: now,
        tags: BTreeMap::new(),
    };
    let (_, changes) = world.register(device).unwrap();
    apply(&mut world, changes);
    let device = world.find_device("board").unwrap().clone();
    let mut new = Reported::default();
    reported(&mut new);
    let changes = world.report(&device, new);
    apply(&mut world, changes);
    world
}

/// Says where the device of a world stands: "rejected (why)".
fn standing(world: &World, contact: Contact) -> String {
    let Standing { state, why } = of(world, world.find_device("board").unwrap(), contact);
    if why.is_empty() { state.as_str().to_owned() } else { format!("{} ({why})", state.as_str()) }
}

/// A device that takes `target` for its target and waits for these: `service/reason/why`.
fn waits(target: &str, waits: &[&str]) -> Option<Arc<Account>> {
    let wait = |text: &&str| {
        let [service, reason, why] = text.splitn(3, '/').collect::<Vec<_>>()[..] else { panic!("{text}") };
        let service = Some(service.to_owned()).filter(|service| !service.is_empty());
        Wait { service, reason: reason.to_owned(), why: why.to_owned(), since: None }
    };
    let waiting = waits.iter().map(wait).collect();
    Some(Arc::new(Account { target: Some(target.to_owned()), waiting, ..Account::default() }))
}

#[test]
fn where_a_device_with_our_agent_stands() {
    for (why, running, account, expected) in [
        ("it runs its target", 2, waits("two", &[]), "on-target"),
        ("it has not taken its target up", 1, waits("one", &[]), "pending"),
        ("what it waits for concerns another target", 1, waits("one", &["/rejected/bad"]), "pending"),
        ("it is on its way", 1, waits("two", &[]), "updating"),
        ("it downloads", 1, waits("two", &["web/downloading/"]), "updating (downloading: web)"),
        (
            "it went back",
            1,
            waits("two", &["web/starting/x", "/rejected/release two was rejected: web exited with code 3"]),
            "rejected (web exited with code 3)",
        ),
        (
            "its disk is full",
            1,
            waits("two", &["/insufficient_disk/needs 2 GiB, has 1"]),
            "blocked (insufficient_disk: needs 2 GiB, has 1)",
        ),
        ("it is locked", 1, waits("two", &["web/locked/by kiosk"]), "waiting (locked: web: by kiosk)"),
        (
            "it runs its target, and a service is unhealthy",
            2,
            waits("two", &["web/unhealthy/its healthcheck fails"]),
            "failing (web: its healthcheck fails)",
        ),
        (
            "a service of a release on trial is unhealthy, and may get well",
            1,
            waits("two", &["web/unhealthy/its healthcheck fails"]),
            "updating (web: its healthcheck fails)",
        ),
        ("its engine is gone", 2, waits("two", &["/engine/no socket"]), "blocked (engine: no socket)"),
        (
            "a reason of a newer agent",
            1,
            waits("two", &["/dreaming/of sheep"]),
            "updating (dreaming: of sheep)",
        ),
    ] {
        let world = world(|reported| {
            reported.at = Some(Timestamp::UNIX_EPOCH);
            reported.running = Some(running);
            reported.account = account;
        });
        assert_eq!(standing(&world, Contact::Recent), expected, "{why}");
        assert_eq!(
            standing(&world, Contact::Outdated),
            "pending",
            "its target has other variables now: {why}"
        );
    }
}

#[test]
fn new_variables_of_a_release_that_runs_are_on_trial_until_they_are_accepted() {
    for (update, account, expected) in [
        (UpdateStatus::ApplyingChanges, waits("two", &[]), "updating"),
        (
            UpdateStatus::ApplyingChanges,
            waits("two", &["web/trial/it runs well"]),
            "updating (trial: web: it runs well)",
        ),
        (UpdateStatus::ApplyingChanges, waits("two", &["web/unhealthy/ill"]), "updating (web: ill)"),
        (
            UpdateStatus::Rejected,
            waits("two", &["/rejected/web exited"]),
            "rejected (the release runs, and its new variables (`cotter env`) were rejected: web exited)",
        ),
        (UpdateStatus::Done, waits("two", &[]), "on-target"),
    ] {
        let world = world(|reported| {
            (reported.at, reported.running) = (Some(Timestamp::UNIX_EPOCH), Some(2));
            (reported.update_status, reported.update_of) = (Some(update), Some(2));
            reported.account = account;
        });
        assert_eq!(standing(&world, Contact::Recent), expected, "{update:?}");
    }
}

#[test]
fn where_a_device_with_another_agent_stands() {
    for (running, update, expected) in [
        (Some(2), None, "on-target"),
        (Some(2), Some(UpdateStatus::Rejected), "on-target"),
        (Some(1), Some(UpdateStatus::Done), "pending"),
        (Some(1), Some(UpdateStatus::Downloading), "updating"),
        (Some(1), Some(UpdateStatus::Rejected), "rejected"),
        (None, None, "pending"),
    ] {
        let world = world(|reported| {
            reported.at = Some(Timestamp::UNIX_EPOCH);
            (reported.running, reported.update_status, reported.update_of) = (running, update, Some(2));
        });
        assert_eq!(standing(&world, Contact::Recent), expected, "{running:?} {update:?}");
    }
}

#[test]
fn a_device_that_is_not_heard_of_is_never_on_target() {
    let silent = world(|_| {});
    assert_eq!(standing(&silent, Contact::Never), "silent");
    let gone = world(|reported| {
        reported.at = Some(Timestamp::UNIX_EPOCH);
        reported.running = Some(2);
        reported.account = waits("two", &["web/unhealthy/its healthcheck fails"]);
    });
    for contact in [Contact::Old, Contact::Never] {
        assert_eq!(standing(&gone, contact), "offline (before: failing: web: its healthcheck fails)");
    }
}

#[test]
fn lists_of_states_and_their_groups() {
    let words = |text| {
        let states = DeviceState::parse_list(text)?;
        Ok::<_, String>(states.into_iter().map(DeviceState::as_str).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(words("blocked, failed").as_deref(), Ok("blocked rejected failing"));
    let behind = words("behind").unwrap();
    assert!(!behind.contains("on-target") && behind.contains("offline"), "{behind}");
    let wrong = words("blocked,done").unwrap_err();
    assert!(
        wrong.starts_with("\"done\" is no state") && wrong.ends_with("no-target, failed and behind"),
        "{wrong}"
    );
}

/// Two fleets may have releases of the same commit.
#[test]
fn what_a_device_said_about_its_old_fleet_is_not_its_state_in_the_new_one() {
    let mut world = world(|reported| {
        let evidence = vec![crate::wire::account::Evidence { release: "two".into(), ..Default::default() }];
        let account = waits("two", &["web/rejected/it ended with code 1"]).unwrap();
        reported.account =
            Some(Arc::new(Account { agent: "1.2.3".into(), evidence, ..Account::clone(&account) }));
    });
    assert_eq!(standing(&world, Contact::Recent), "rejected (web: it ended with code 1)");
    let fleet = NewFleet {
        uuid: AppId::parse("other").unwrap(),
        name: "site".into(),
        created: Timestamp::UNIX_EPOCH,
        key: KeyHash("other".to_owned()),
        registry: None,
    };
    world.create_fleet(fleet).unwrap().into_iter().for_each(|change| world.apply(change));
    let of_site = world.find_fleet("site").unwrap().clone();
    let two = world.find_release(None, "two").unwrap();
    let release = NewRelease {
        commit: two.commit.clone(),
        status: ReleaseStatus::Success,
        is_final: true,
        is_passing_tests: true,
        start_timestamp: Timestamp::UNIX_EPOCH,
        services: BTreeMap::from([(
            ServiceName::parse("web").unwrap(),
            NewService {
                image: ImageRef::parse(&format!("r/web@sha256:{}", "a".repeat(64))).unwrap(),
                composition: serde_json::Map::new(),
            },
        )]),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        build_log: None,
    };
    let (_, changes) = world.create_release(&of_site, release).unwrap();
    changes.into_iter().for_each(|change| world.apply(change));
    let device = world.find_device("board").unwrap().clone();
    world.move_device(&device, &of_site).into_iter().for_each(|change| world.apply(change));
    assert_eq!(standing(&world, Contact::Recent), "pending");
    let account = world.reported(&device.uuid).account.clone().unwrap();
    assert_eq!(*account, Account { agent: "1.2.3".into(), ..Account::default() });
}
