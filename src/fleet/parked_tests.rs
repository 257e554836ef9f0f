use std::time::Duration;

use super::*;
use crate::fleet::policy::{Device, Reported, World};
use crate::fleet::standing::tests::world;

fn uuid(letter: &str) -> DeviceUuid {
    DeviceUuid::parse(letter.repeat(32)).unwrap()
}

fn board(world: &World) -> Device {
    world.find_device("board").unwrap().clone()
}

/// Waits for nothing: says how the wait ended, if it has.
async fn ended(place: Place) -> Option<Woken> {
    let far = Instant::now() + Duration::from_secs(600);
    tokio::select! {
        biased;
        woken = place.wait(far) => Some(woken),
        () = std::future::ready(()) => None,
    }
}

/// Device `a` is in fleet 1, as the board of the world, `b` too, and `c` is in fleet 2.
#[tokio::test]
async fn a_change_wakes_whom_it_concerns() {
    let world = world(|_| {});
    let (device, fleet) = (board(&world), world.find_fleet("lab").unwrap().clone());
    assert_eq!((&device.uuid, device.fleet), (&uuid("a"), 1));
    for (why, changes, expected) in [
        ("a device", vec![Change::PutDevice(device.clone())], "a"),
        ("a device that moves", vec![Change::PutDevice(Device { fleet: 2, ..device.clone() })], "a"),
        ("a device that goes", vec![Change::DropDevice(uuid("b"))], "b"),
        ("a fleet", vec![Change::PutFleet(fleet)], "ab"),
        ("a fleet that goes", vec![Change::DropFleet(2)], "c"),
        ("a report", vec![Change::PutReports(uuid("a"), Reported::default())], ""),
        ("two", vec![Change::PutDevice(device), Change::DropFleet(2)], "ac"),
        ("nothing", vec![], ""),
    ] {
        let parked = Parked::new(64);
        let places =
            [("a", 1), ("b", 1), ("c", 2)].map(|(name, fleet)| (name, parked.enter(&uuid(name), fleet)));
        parked.changed(&changes);
        let mut woken = String::new();
        for (name, place) in places {
            match ended(place.unwrap()).await {
                Some(Woken::Changed) => woken.push_str(name),
                Some(Woken::Over) => panic!("{why}: {name} is over"),
                None => {}
            }
        }
        assert_eq!(woken, expected, "{why}");
        assert_eq!(parked.count(), 0, "{why}: every place was given back");
    }
}

#[tokio::test]
async fn the_later_poll_of_a_device_has_its_place() {
    let parked = Parked::new(64);
    let first = parked.enter(&uuid("a"), 1).unwrap();
    let second = parked.enter(&uuid("a"), 1).unwrap();
    assert_eq!(ended(first).await, Some(Woken::Over));
    assert!(parked.has(&uuid("a")), "the end of the first does not take away the place of the second");
    parked.all_changed();
    assert_eq!(ended(second).await, Some(Woken::Changed));
}

#[tokio::test]
async fn one_in_eight_connections_is_for_others() {
    for (connections, most) in [(16, 14), (17, 14), (1024, 896)] {
        let parked = Parked::new(connections);
        let device = |n: usize| DeviceUuid::parse(format!("{n:032x}")).unwrap();
        let mut places: Vec<_> = (0..most).map(|n| parked.enter(&device(n), 1).expect("a place")).collect();
        assert!(parked.enter(&device(most), 1).is_none());
        places.push(parked.enter(&device(0), 1).expect("a device that has a place keeps it"));
        places.remove(1);
        assert!(parked.enter(&device(most), 1).is_some(), "a place that was given back");
    }
}

#[tokio::test]
async fn a_wait_ends_with_its_time_or_with_the_server() {
    let parked = Parked::new(64);
    let place = parked.enter(&uuid("a"), 1).unwrap();
    assert_eq!(place.wait(Instant::now()).await, Woken::Over);
    assert!(!parked.has(&uuid("a")));
    let place = parked.enter(&uuid("a"), 1).unwrap();
    parked.close();
    assert_eq!(ended(place).await, Some(Woken::Over));
    assert!(parked.enter(&uuid("a"), 1).is_none());
}
