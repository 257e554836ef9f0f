//! What a purge removes. Nothing else removes a named volume.

use super::*;
use crate::model::{Answer, FileLock, OwnVolume, Purge};
use crate::plan::plan_purge;

/// `data` of the app, mounted by its web, and `old` of an app that was removed.
fn volumes() -> Vec<OwnVolume> {
    let volume = |app: &AppId, name: &str, used_by: &[&str]| OwnVolume {
        id: format!("1_{name}"),
        app: app.clone(),
        volume: VolumeName::parse(name).unwrap(),
        used_by: used_by.iter().map(|id| ContainerId::parse(id).unwrap()).collect(),
    };
    let gone = AppId::parse("gone").unwrap();
    vec![volume(&app(), "data", &["web-1"]), volume(&app(), "cache", &[]), volume(&gone, "old", &[])]
}

/// What the purge `what` removes from the device `text`, or its answer. `what` is `app` or `app volume`; `!` means forced,
/// and `?` a dry run.
fn purged(text: &str, what: &str) -> String {
    purged_of(text, what, &volumes(), false)
}

/// As [`purged`], with other volumes. `is_of_unused`: only those that nothing uses.
fn purged_of(text: &str, what: &str, volumes: &[OwnVolume], is_of_unused: bool) -> String {
    let mut device = Device::parse(text);
    if text.contains("lock web") {
        let lock = BTreeMap::from([(name("web"), FileLock { path: "/l".into() })]);
        device.facts.locks.insert(app(), lock);
    }
    let mut words = what.trim_end_matches(['!', '?']).split_whitespace().map(str::to_owned);
    let purge = Purge {
        app: words.next(),
        volume: words.next(),
        is_forced: what.ends_with('!'),
        is_dry: what.ends_with('?'),
        is_of_unused,
    };
    match plan_purge(&device.situation(), &purge, volumes) {
        Ok(purging) => {
            let stopped = purging.containers.iter().map(|seen| format!("-{}", seen.container));
            let removed = purging.volumes.iter().map(|volume| format!("-{}", volume.id));
            stopped.chain(removed).collect::<Vec<_>>().join(" ")
        }
        Err(Answer::Done(line)) => line,
        Err(Answer::Refused(line)) => format!("refused: {line}"),
        Err(Answer::Held(line)) => format!("held: {line}"),
        Err(Answer::NotFound(line)) => format!("not found: {line}"),
    }
}

#[test]
fn a_purge_removes_volumes_and_the_containers_that_mount_them() {
    let rest = "target 1, good 1, db@1 running, web@1 running";
    for (why, device, what, expected) in [
        ("all of an app", rest, "demo", "-web-1 -1_data -1_cache"),
        ("by its uuid", rest, "app", "-web-1 -1_data -1_cache"),
        ("one volume, and only who mounts it", rest, "demo cache", "-1_cache"),
        ("of an app that is gone", rest, "gone", "-1_old"),
        ("also without a target", "", "gone old", "-1_old"),
        (
            "a dry run lists them",
            rest,
            "demo data?",
            "would be purged: volumes of demo: data; containers are removed, and created again where they are wanted: web",
        ),
        ("listed", rest, "", "demo has cache, data; gone (no longer wanted) has old"),
        ("no such volume", rest, "demo db", "not found: demo has no such volume: it has data, cache"),
        (
            "no such app",
            rest,
            "shop",
            "not found: this device has no app shop; `cotter status` names its apps",
        ),
        (
            "a held device is not purged of what runs",
            "hold, target 1, good 1, web@1 running",
            "demo data",
            "held: the device is held since noon: audit; `cotter unhold` first",
        ),
        ("what does not run may go", "hold, target 1, good 1, web@1 exited", "demo data", "-web-1 -1_data"),
        (
            "locks count",
            "target 1, good 1, web@1 running, lock web",
            "demo data",
            "held: updates are locked by service web of demo: /l; --force passes this",
        ),
        ("and are passed over", "target 1, good 1, web@1 running, lock web", "demo data!", "-web-1 -1_data"),
        (
            "not in the middle of a trial",
            "target 2, good 1, trial 2, web@1 exited",
            "demo data",
            "refused: a release of demo is on trial; try again when it is accepted or rejected",
        ),
        (
            "services that could not be created again stay",
            "target refused, good 1, web@1 running",
            "demo data",
            "refused: this device refuses the release of demo in its target, so the containers that use the volumes could not \
             be created again; `cotter explain` says why it is refused: correct the release first",
        ),
        (
            "a volume that nothing uses may go",
            "target refused, good 1, web@1 running",
            "demo cache",
            "-1_cache",
        ),
    ] {
        assert_eq!(purged(device, what), expected, "{why}");
    }
}

#[test]
fn a_clean_up_keeps_what_a_known_service_may_still_mount() {
    let volume = |name: &str| OwnVolume {
        id: format!("1_{name}"),
        app: app(),
        volume: VolumeName::parse(name).unwrap(),
        used_by: Default::default(),
    };
    // The container of `web` is absent just now, and comes back with the volumes of its image.
    let volumes = [volume("web_unnamed-data-01020304"), volume("gone_unnamed-data-01020304"), volume("old")];
    let left = purged_of("target 1, good 1, db@1 running", "demo", &volumes, true);
    assert_eq!(left, "-1_gone_unnamed-data-01020304 -1_old");
}
