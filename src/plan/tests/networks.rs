//! Networks that change: next to each other where the engine allows it, and one after the other where not.

use proptest::prelude::*;

use super::{Device, check, hash, lan, name, release};
use crate::model::{ContainerState, NetworkId, Plan, Step};
use crate::plan::violations;

#[test]
fn networks_without_an_address_in_common_stand_side_by_side() {
    let before = "target 20, good 18, have 18 20, lan 1, db@18 running, web@18 running";
    for (why, device, expected) in [
        ("the new one comes first", "", "create-network lan"),
        ("then all containers", "lan 3", "create db@20, create web@20"),
        (
            "nothing of the old one goes before the end",
            "lan 3, trial 20, db@20 created, web@20 created",
            "stop db db-18, start db db-20, stop web web-18, start web web-20",
        ),
    ] {
        assert_eq!(Device::parse(&format!("{before}, {device}")).planned(), expected, "{why}");
    }
    check(&[
        (
            "containers first",
            "target 20, good 20, have 18 20, lan 1, lan 3, db@20 running, web@20 running, web@18 exited",
            "remove web web-18",
        ),
        (
            "then it does",
            "target 20, good 20, have 18 20, lan 1, lan 3, db@20 running, web@20 running",
            "remove-network lan",
        ),
    ]);
}

/// The engine created one of them late, for a process of the agent that had ended.
#[test]
fn of_two_networks_with_one_name_one_goes() {
    for (why, device, goes) in [
        (
            "the second where nothing runs",
            "lan 1, lan 1, target 18, trial 18, have 18, db@18 created, web@18 created",
            &["lan-1-2"][..],
        ),
        (
            "the one on which nothing runs",
            "lan 1, target 18, good 18, have 18, db@18 running, web@18 running, lan 1, moved",
            &["lan-1-1"],
        ),
        ("all but one", "lan 1, lan 1, lan 1, target 18, have 18", &["lan-1-2", "lan-1-3"]),
    ] {
        let (device, is_moved) = device.strip_suffix(", moved").map_or((device, false), |text| (text, true));
        let mut device = Device::parse(device);
        for seen in device.observed.services.iter_mut().filter(|_| is_moved) {
            seen.is_cut_off = false;
            seen.networks.values_mut().for_each(|id| *id = NetworkId::parse("lan-1-2").ok());
        }
        let ids = |step: &Step| {
            if let Step::RemoveNetwork { id, .. } = step { id.to_string() } else { step.to_string() }
        };
        assert_eq!(device.plan().stage.iter().map(ids).collect::<Vec<_>>(), goes, "{why}");
    }
    let device = Device::parse("lan 1, lan 1, target 18, good 18");
    let networks = device.observed.networks.iter().filter(|n| n.network == lan());
    let both = networks.map(crate::plan::networks::remove).collect();
    let found = violations(&device.situation(), &Plan { stage: both, waiting: Vec::new() });
    assert_eq!(found, ["remove-network lan: a release needs it"; 2]);
}

#[test]
fn a_network_in_the_place_of_another_one_comes_when_that_has_gone() {
    let before = "target 19, good 18, db@18 running, lan 1";
    for (why, device, expected) in [
        ("its image first of all", "have 18, web@18 running", "pull r/web:19"),
        ("then it is written down that it is tried", "have 18 19, web@18 running", "try 19"),
        ("then what runs there stops", "have 18 19, web@18 running, trial 19", "stop web web-18"),
        ("not while an app has locked updates", "have 18 19, web@18 running, lock web", "wait web locked"),
        ("nor while the device is held", "have 18 19, web@18 running, trial 19, hold", "wait all held"),
        ("then it goes", "have 18 19, web@18 exited, stopped web@18, trial 19", "remove-network lan"),
    ] {
        assert_eq!(Device::parse(&format!("{before}, {device}")).planned(), expected, "{why}");
    }
    let gone = "target 19, good 18, have 18 19, trial 19, db@18 running, web@18 exited, stopped web@18";
    for (why, device, expected) in [
        ("then the new one comes", "", "create-network lan"),
        ("then what is on it", "lan 2", "create web@19"),
        ("then that starts", "lan 2, web@19 created", "fence web web-18, start web web-19"),
        ("and is watched", "lan 2, web@19 running", "wait all trial"),
    ] {
        assert_eq!(Device::parse(&format!("{gone}, {device}")).planned(), expected, "{why}");
    }
    check(&[
        (
            "with all that joins it",
            "lan 1, target 21, good 18, have 18 21, trial 21, db@18 running, web@18 running",
            "stop web web-18",
        ),
        (
            "it waits, too",
            "target 21, good 18, have 18 21, trial 21, db@18 running, web@18 exited, stopped web@18, lan 2",
            "create vpn@21",
        ),
    ]);
}

#[test]
fn the_way_back_takes_the_old_network_back() {
    let bad = "target 19, good 18, rejected 19, db@18 running, web@18 exited, stopped web@18";
    for (why, device, expected) in [
        ("what runs there stops", "lan 2, web@19 restarting", "stop web web-19, wait all rejected"),
        ("it goes", "lan 2, web@19 exited", "remove-network lan, wait all rejected"),
        ("the old one comes", "web@19 exited", "create-network lan, wait all rejected"),
        (
            "and the container is connected to it anew",
            "web@19 exited, relan 1",
            "reconnect web web-18, fence web web-19, start web web-18, wait all rejected",
        ),
        ("then the rest goes", "lan 1, web@19 exited, back web@18", "remove web web-19, wait all rejected"),
    ] {
        assert_eq!(Device::parse(&format!("{bad}, {device}")).planned(), expected, "{why}");
    }
    check(&[
        (
            "also when the next target does so",
            "target 3, good 18, pulling web@3, db@18 running, web@18 exited, stopped web@18, lan 2, web@19 restarting",
            "stop web web-19, wait web downloading",
        ),
        (
            "or is refused",
            "target refused, good 18, db@18 running, web@18 exited, stopped web@18, lan 2, web@19 exited, db@19 running",
            "remove-network lan, wait all refused",
        ),
        (
            "while it is held in the middle, what ran before comes back",
            "target 19, good 18, have 18 19, trial 19, hold, db@18 running, web@18 exited, stopped web@18, lan 2, web@19 created",
            "remove-network lan, wait all held",
        ),
        (
            "its network first",
            "target 19, good 18, have 18 19, trial 19, hold, db@18 running, web@18 exited, stopped web@18, web@19 created",
            "create-network lan, wait all held",
        ),
        (
            "then itself",
            "target 19, good 18, have 18 19, trial 19, hold, db@18 running, web@18 exited, stopped web@18, relan 1, web@19 created",
            "reconnect web web-18, fence web web-19, start web web-18, wait all held",
        ),
    ]);
}

/// As after `docker network prune` while the app was stopped.
#[test]
fn a_network_that_was_taken_away_comes_back() {
    check(&[
        ("the network", "target 18, good 18, have 18, db@18 running, web@18 exited", "create-network lan"),
        (
            "then whoever was on it",
            "target 18, good 18, have 18, db@18 running, web@18 exited, relan 1",
            "reconnect web web-18, start web web-18",
        ),
        (
            "one that never ran finds it by name",
            "target 18, good 18, have 18, db@18 running, web@18 created, relan 1",
            "start web web-18",
        ),
        (
            "also while the next one is fetched",
            "target 3, good 18, pulling web@3, db@18 running, web@18 exited, relan 1",
            "reconnect web web-18, start web web-18, wait web downloading",
        ),
    ]);
}

#[test]
fn a_network_on_which_something_runs_is_not_removed_while_the_app_is_locked() {
    let cut_off = "target 3, good 18, pulling web@3, have 18, db@18 running, web@18 exited, stopped web@18, \
                   lan 2, vpn@21 running, web@21 exited, lock vpn";
    assert_eq!(Device::parse(cut_off).planned(), "wait web downloading, wait vpn locked");
}

/// The power was cut while the container was being reconnected.
#[test]
fn a_container_that_lost_its_network_is_reconnected_before_it_starts() {
    let mut device = Device::parse("lan 1, target 18, good 18, db@18 running, web@18 exited, stopped web@18");
    assert_eq!(device.planned(), "start web web-18");
    device.observed.services[1].networks.clear();
    assert_eq!(device.planned(), "reconnect web web-18, start web web-18");
}

#[test]
fn of_two_networks_with_one_name_both_stay_while_something_runs_on_each() {
    let mut device =
        Device::parse("lan 1, lan 1, target 18, good 18, have 18, db@18 running, web@18 running");
    let second = NetworkId::parse("lan-1-2").ok();
    device.observed.services[0].networks.insert("lan_1".into(), second);
    assert_eq!(device.planned(), "");
}

#[test]
fn the_checker_keeps_networks() {
    let remove =
        |n: &str| Step::RemoveNetwork { app: super::app(), network: lan(), id: NetworkId::parse(n).unwrap() };
    for (text, step, why) in [
        ("target 18, good 18, lan 1, web@18 running", remove("lan-1-1"), "a container that runs is on it"),
        ("target 18, good 18, lan 1", remove("lan-1-1"), "a release needs it"),
        ("target 20, good 18, lan 1", remove("lan-1-1"), "a release needs it"),
        ("target 19, good 18, lan 1", remove("lan-1-1"), "a release needs it"),
        ("target 19, good 20, lan 1, web@18 exited", remove("lan-1-1"), "its successor is not accepted yet"),
        ("target 18, good 18", remove("lan-1-1"), "the network is not ours"),
        (
            "target 19, good 18, trial 19, lan 1, web@18 running",
            Step::Stop {
                app: super::app(),
                service: name("web"),
                container: super::ContainerId::parse("web-18").unwrap(),
                grace: std::time::Duration::ZERO,
            },
            "its release is not replaced by one that is ready",
        ),
        (
            "target 18, good 18, lan 1, web@18 running",
            Step::Reconnect {
                app: super::app(),
                service: name("web"),
                container: super::ContainerId::parse("web-18").unwrap(),
            },
            "the container runs",
        ),
    ] {
        let device = Device::parse(text);
        let found = violations(&device.situation(), &Plan { stage: vec![step.clone()], waiting: Vec::new() });
        assert_eq!(found, [format!("{step}: {why}")], "{text}");
    }
}

proptest! {
    /// Wherever the power is cut while one network replaces another, a release that crashes is rejected, and the
    /// accepted release comes back completely, with its old container and without a download.
    #[test]
    fn a_bad_release_on_another_network_is_taken_back(
        bad in prop::sample::select(vec![19_u8, 20, 21]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let text = format!("lan 1, target {bad}, good 18, have 18 {bad}, pulled 18 {bad}, db@18 running, web@18 running");
        let mut device = Device::parse(&text);
        let web = hash("web", bad);
        for cut in cuts.into_iter().map(Some).chain([None; 40]) {
            let plan = device.plan();
            let upto = cut.map_or(plan.stage.len(), |cut| cut.index(plan.stage.len() + 1));
            for step in &plan.stage[..upto] {
                prop_assert!(!matches!(step, Step::Pull { .. }), "no download");
                device.apply(step, |spec| *spec != web);
            }
            for seen in &mut device.observed.services {
                seen.restarts += u64::from(seen.state == ContainerState::Restarting);
            }
        }
        prop_assert_eq!(device.planned(), "wait all rejected", "{}", device.shown());
        let runs: Vec<_> = device.observed.services.iter().map(|s| (s.container.to_string(), s.state)).collect();
        prop_assert_eq!(runs.len(), 2, "{:?}", runs);
        for service in ["db", "web"] {
            prop_assert!(runs.contains(&(format!("{service}-18"), ContainerState::Running)), "{:?}", runs);
        }
        let networks: Vec<_> = device.observed.networks.iter().map(|n| n.name.as_str()).collect();
        prop_assert!(networks.len() == 2 && networks.contains(&"lan_1"), "{:?}", networks);
        prop_assert_eq!(device.ledger.apps[&super::app()].good.as_ref().unwrap(), &release(18));
    }
}

/// Makes the device's first network one of a balena supervisor, with this name on the engine.
fn with_original(device: &str, named: &str, config: Option<&str>) -> Device {
    let mut device = Device::parse(device);
    let network = &mut device.observed.networks[0];
    network.is_original = true;
    named.clone_into(&mut network.name);
    network.config_hash = config.map(str::to_owned);
    device
}

#[test]
fn networks_of_a_balena_supervisor_are_adopted_or_left_or_make_room() {
    let here = "target 18, good 18, have 18, lan 1, db@18 running, web@18 running";
    let first = "target 18, trial 18, have 18, lan 1";
    let made = "target 18, trial 18, have 18, lan 1, db@18 created, web@18 created";
    let other = Some("original");
    for (why, device, name, config, expected) in [
        ("one without a config is as good as ours", first, "7_default", None, "create db@18, create web@18"),
        (
            "one with a config goes: two cannot have one name",
            made,
            "7_default",
            other,
            "remove-network default",
        ),
        ("another name is in no way", first, "abc_default", other, "create-network default"),
    ] {
        assert_eq!(with_original(device, name, config).planned(), expected, "{why}");
    }
    // No release wants it, and it stays.
    let mut device = Device::parse(here);
    device.add_network();
    let left = device.observed.networks.last_mut().unwrap();
    left.is_original = true;
    left.id = NetworkId::parse("left").unwrap();
    left.config_hash = other.map(str::to_owned);
    "abc_default".clone_into(&mut left.name);
    assert_eq!(device.planned(), "");
    let left = device.observed.networks.iter().filter(|n| n.is_original);
    let stage = left.map(crate::plan::networks::remove).collect();
    let found = violations(&device.situation(), &Plan { stage, waiting: Vec::new() });
    assert_eq!(
        found,
        ["remove-network default: a balena supervisor created it, and no network needs its place"]
    );
}
