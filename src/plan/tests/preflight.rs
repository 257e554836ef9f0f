//! What forbids a release on this device: size, architecture, ports, volumes.

use std::collections::BTreeMap;

use super::{Device, app, check, name};
use crate::model::{
    HostNeed, Mount, MountOptions, MountSource, ObservedVolume, Platform, Release, TargetApp, VolumeName,
    VolumeSpec,
};

#[test]
fn registries_are_asked_before_the_first_byte() {
    check(&[
        (
            "each image",
            "target 2, good 1, unweighed db@2, unweighed web@2, db@1 running, web@1 running",
            "weigh r/db:2, weigh r/web:2",
        ),
        (
            "once",
            "target 2, good 1, measuring db@2, unweighed web@2, db@1 running, web@1 running",
            "weigh r/web:2, wait db downloading",
        ),
        (
            "what is here is not asked for",
            "target 2, good 1, have 2, unweighed db@2, db@1 running, web@1 running",
            "create db@2, create web@2",
        ),
        (
            "and the good release is kept alive meanwhile",
            "target 2, good 1, measuring db@2, db@1 exited, web@1 running",
            "start db db-1, wait db downloading",
        ),
    ]);
}

#[test]
fn a_release_that_does_not_fit_is_not_fetched() {
    let on = |more: &str| format!("target 2, good 1, db@1 running, web@1 running, reserve 10, {more}");
    for (why, more, expected) in [
        (
            "three times its compressed bytes, and the reserve",
            "free 99, weight db@2 a=10, weight web@2 b=20",
            "wait all insufficient_disk",
        ),
        ("just enough", "free 100, weight db@2 a=10, weight web@2 b=20", "pull r/db:2, pull r/web:2"),
        (
            "a layer that two share counts once",
            "free 70, weight db@2 a=20, weight web@2 a=20",
            "pull r/db:2, pull r/web:2",
        ),
        (
            "layers that are here count for nothing",
            "free 40, layers a, weight db@2 a=1000, weight web@2 a=1000 b=10",
            "pull r/db:2, pull r/web:2",
        ),
        (
            "what is on its way has its room",
            "free 40, pulling db@2, weight db@2 a=1000, weight web@2 b=10",
            "pull r/web:2, wait db downloading",
        ),
        ("the free space is unknown", "weight db@2 a=1000", "pull r/db:2, pull r/web:2"),
        ("nothing is to come", "free 0", "pull r/db:2, pull r/web:2"),
        (
            "sizes beyond all measure",
            "free 100, weight db@2 a=9000000000000, weight web@2 b=9000000000000",
            "wait all insufficient_disk",
        ),
    ] {
        assert_eq!(Device::parse(&on(more)).planned(), expected, "{why}");
    }
    let device = Device::parse(&on("free 50, weight db@2 a=10, weight web@2 b=20"));
    assert_eq!(
        device.plan().waiting[0].why,
        "release needs 90 MiB (30 MiB compressed, times 3), 50 MiB are free on the engine's disk, of which 10 MiB are reserved"
    );
    check(&[(
        "what deletes first makes its own room",
        "target 10, good 1, free 50, reserve 10, weight db@10 a=10, weight web@10 b=1000, db@1 running, web@1 running",
        "pull r/db:10",
    )]);
}

#[test]
fn an_image_that_the_engine_cannot_unpack_is_not_fetched() {
    let on = |more: &str| format!("target 2, good 1, have db@2, db@1 running, web@1 running{more}");
    for (why, more, expected) in [
        ("too old", ", old engine, zstd web@2", "wait web unsupported_image"),
        ("it can", ", zstd web@2", "pull r/web:2"),
        ("gzip", ", old engine", "pull r/web:2"),
        ("it is here", ", old engine, zstd db@2", "pull r/web:2"),
    ] {
        assert_eq!(Device::parse(&on(more)).planned(), expected, "{why}");
    }
}

#[test]
fn an_image_for_other_machines_is_not_fetched() {
    let on = |more: &str| format!("target 2, good 1, have db@2, db@1 running, web@1 running, {more}");
    for (why, more, expected) in [
        ("another", "arch arm64, made web@2 amd64", "wait web wrong_architecture"),
        ("the same", "arch arm64, made web@2 arm64", "pull r/web:2"),
        ("one of several", "arch arm64, made web@2 amd64 arm64", "pull r/web:2"),
        ("of 32 bits", "arch arm64, made web@2 arm", "pull r/web:2"),
        ("not the other way round", "arch arm, made web@2 arm64", "wait web wrong_architecture"),
        ("it does not say", "arch arm64", "pull r/web:2"),
        ("the engine does not say", "made web@2 amd64", "pull r/web:2"),
    ] {
        assert_eq!(Device::parse(&on(more)).planned(), expected, "{why}");
    }
}

#[test]
fn a_port_that_is_taken_costs_no_byte() {
    let on = |more: &str| format!("target 12, good 1, db@1 running, web@1 running, {more}");
    for (why, more, expected) in [
        ("by a program of the host", "port 80 *", "wait web port_in_use"),
        ("by another container", "port 80 * other-7", "wait web port_in_use"),
        ("on one address", "port 80 10.0.0.1", "wait web port_in_use"),
        ("by a predecessor, which gives way", "port 80 * web-1", "pull r/db:12, pull r/web:12"),
        ("another port", "port 81 *", "pull r/db:12, pull r/web:12"),
    ] {
        assert_eq!(Device::parse(&on(more)).planned(), expected, "{why}");
    }
    let device = Device::parse(&on("port 80 * nginx-1"));
    assert_eq!(device.plan().waiting[0].why, "host port 80 is in use by nginx-1");
    let device = Device::parse(&on("port 80 *, halted web@12"));
    assert_eq!(device.planned(), "pull r/db:12, pull r/web:12", "an operator has stopped web");
    let mut device = Device::parse(&on("port 80 *"));
    device.facts.ports[0].protocol = crate::model::Protocol::Udp;
    assert_eq!(device.planned(), "pull r/db:12, pull r/web:12", "the same number, another protocol");
    check(&[
        (
            "a trial that has begun is not checked again",
            "target 12, good 1, trial 12, db@12 created, web@12 created, db@1 running, web@1 running, port 80 *",
            "stop db db-1, start db db-12, stop web web-1, start web web-12",
        ),
        (
            "nothing is stopped when it is taken later",
            "target 12, good 1, port 80 *, have 12, db@1 running, web@1 running, db@12 created, web@12 created",
            "wait web port_in_use",
        ),
        (
            "a good release is never asked",
            "target 12, good 12, port 80 *, db@12 running, web@12 exited",
            "start web web-12",
        ),
    ]);
}

/// The wanted release with a change.
fn change(device: &mut Device, change: impl FnOnce(&mut Release)) {
    let wanted = device.target.as_mut().unwrap().apps.get_mut(&app()).unwrap();
    let TargetApp::Wanted(wanted) = wanted else { unreachable!() };
    change(wanted.release.as_mut().unwrap());
}

fn options(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_volume_that_is_here_is_not_made_anew() {
    let data = VolumeName::parse("data").unwrap();
    let device = |here: Option<Option<(&str, &str)>>, (driver, wanted): (&str, &str)| {
        let mut device = Device::parse("target 2, good 1, have 1 2, db@1 running, web@1 exited");
        change(&mut device, |release| {
            let source = MountSource::Volume(data.clone());
            let (target, options_of) = ("/data".to_owned(), MountOptions::default());
            let mount = Mount { source, target, is_read_only: false, options: options_of };
            release.services.get_mut(&name("web")).unwrap().mounts.push(mount);
            let (driver, driver_opts) = (driver.to_owned(), options(wanted));
            let spec = VolumeSpec { driver, driver_opts, ..VolumeSpec::default() };
            release.volumes.insert(data.clone(), spec);
        });
        device.facts.volumes = here.map(|volume| {
            let volume = volume.map(|(driver, given)| {
                let (name, driver) = ("1_data".to_owned(), driver.to_owned());
                ((app(), data.clone()), ObservedVolume { name, driver, options: options(given) })
            });
            volume.into_iter().collect()
        });
        device
    };
    let refused = "start web web-1, wait all refused";
    for (why, here, wanted, expected) in [
        ("there is none", Some(None), ("", "o=size"), "create db@2, create web@2"),
        ("it is the same", Some(Some(("local", ""))), ("", ""), "create db@2, create web@2"),
        ("with options", Some(Some(("x", "a=1 b=2"))), ("x", "b=2 a=1"), "create db@2, create web@2"),
        ("another driver", Some(Some(("local", ""))), ("x", ""), refused),
        ("other options", Some(Some(("local", "a=1"))), ("", "a=2"), refused),
        ("options no more", Some(Some(("local", "a=1"))), ("", ""), refused),
        ("unknown", None, ("", ""), "start web web-1, wait all backoff"),
    ] {
        assert_eq!(device(here, wanted).planned(), expected, "{why}");
    }
    let plan = device(Some(Some(("local", "device=tmpfs type=tmpfs"))), ("", "")).plan();
    assert_eq!(
        plan.waiting[0].why,
        "volumes.data: the volume exists with driver local and the options device, type, and the release \
         wants driver local and no options. A volume is never replaced, because its content would be lost: give \
         it another name in the release, or save its content and remove it: docker volume rm 1_data"
    );
    let other =
        device(Some(Some(("local", "o=password=hunter2 type=cifs"))), ("", "o=password=hunter3 type=cifs"));
    assert!(
        other.plan().waiting[0].why.starts_with(
            "volumes.data: the volume exists with driver local and the options o, type, and the release wants \
             driver local and the options o, type, with other values of o. A volume is never replaced"
        ),
        "{}",
        other.plan().waiting[0].why
    );
}

#[test]
fn a_platform_is_one_that_the_image_has_and_the_device_runs() {
    let planned = |platform: &str, made_for: &str, ours: &str| {
        let text = format!(
            "target 2, good 1, db@1 running, web@1 running, have db@2, arch {ours}, made web@2 {made_for}"
        );
        let mut device = Device::parse(text.trim_end());
        change(&mut device, |release| {
            release.services.get_mut(&name("web")).unwrap().platform = Platform::parse(platform).ok();
        });
        let plan = device.plan();
        plan.waiting.first().map_or(device.planned(), |waiting| waiting.why.clone())
    };
    for (platform, made_for, ours, expected) in [
        ("linux/arm64", "amd64 arm64", "arm64", "pull r/web:2"),
        ("linux/arm/v7", "arm arm64", "arm64", "pull r/web:2"),
        ("linux/arm64", "", "arm64", "pull r/web:2"),
        (
            "linux/amd64",
            "amd64 arm64",
            "arm64",
            "its platform is linux/amd64, and this device is arm64: remove platform, or name one that it runs",
        ),
        (
            "linux/arm/v7",
            "amd64 arm64",
            "arm64",
            "its platform is linux/arm/v7, and r/web:2 is made for amd64, arm64",
        ),
    ] {
        assert_eq!(planned(platform, made_for, ours), expected, "{platform} of {made_for} on {ours}");
    }
}

#[test]
fn what_the_host_lacks_stops_nothing() {
    let device = |state: &str| {
        let mut device = Device::parse(state);
        change(&mut device, |release| {
            let web = release.services.get_mut(&name("web")).unwrap();
            web.isolation.sysctls.insert("net.foo.bar".to_owned(), "1".to_owned());
        });
        let why = "this kernel has no setting net.foo.bar".to_owned();
        device.facts.lacks.insert(HostNeed::Setting("net.foo.bar".to_owned()), why);
        device
    };
    let plan = device("target 2, good 1, db@1 running, web@1 running").plan();
    assert_eq!(plan.waiting[0].why, "this kernel has no setting net.foo.bar");
    for (why, state, expected) in [
        ("nothing is pulled", "target 2, good 1, db@1 running, web@1 running", "wait web host_lacks"),
        (
            "what ended is kept alive",
            "target 2, good 1, db@1 exited, web@1 running",
            "start db db-1, wait web host_lacks",
        ),
        ("nothing would stop", "bare, target 1", "pull r/db:1, pull r/web:1"),
        (
            "a trial that has begun is not checked again",
            "target 2, good 1, trial 2, have 2, db@1 exited, web@1 exited, db@2 running, web@2 starting",
            "wait web starting",
        ),
    ] {
        assert_eq!(device(state).planned(), expected, "{why}");
    }
}

#[test]
fn a_container_that_is_never_created_rejects_its_release() {
    let on = "db@1 running, web@1 running, db@2 created";
    check(&[
        (
            "nothing has stopped",
            &format!("target 2, good 1, have 2, {on}, spent create web@2 1"),
            "reject 2: web cannot be created: no",
        ),
        (
            "it failed for another reason",
            &format!("target 2, good 1, have 2, {on}, putoff create web@2 1"),
            "wait web backoff",
        ),
        (
            "while an operator holds the device, it waits",
            &format!("target 2, good 1, have 2, hold, {on}, spent create web@2 1"),
            "wait web backoff",
        ),
        (
            "its predecessor has stopped for the download, and comes back",
            "target 9, good 1, trial 9 5, have 9, db@9 running, web@1 exited, stopped web@1, spent create web@9 1",
            "reject 9: web cannot be created: no",
        ),
        (
            "there is nothing to roll back to",
            "target 1, have 1, db@1 created, spent create web@1 1",
            "wait all degraded, wait web backoff",
        ),
    ]);
}
