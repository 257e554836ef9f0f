//! How services replace their predecessors, by strategy.

use super::{Device, check};

#[test]
fn kill_then_download() {
    check(&[
        (
            "what does not make room comes first",
            "target 9, good 1, db@1 running, web@1 running",
            "pull r/db:9",
        ),
        ("and its container", "target 9, good 1, have db@9, db@1 running, web@1 running", "create db@9"),
        (
            "then it is written down that it is tried",
            "target 9, good 1, have db@9, db@1 running, web@1 running, db@9 created",
            "try 9",
        ),
        (
            "not while locked",
            "target 9, good 1, lock web, have db@9, db@1 running, web@1 running, db@9 created",
            "wait web locked",
        ),
        (
            "not while held",
            "target 9, good 1, hold, have db@9, db@1 running, web@1 running, db@9 created",
            "wait all held",
        ),
        (
            "then its predecessor stops, and is kept",
            "target 9, good 1, trial 9, have db@9, db@1 running, web@1 running, db@9 created",
            "stop web web-1",
        ),
        (
            "then its image comes, and nothing brings the predecessor back",
            "target 9, good 1, trial 9, have db@9, db@1 running, web@1 exited, stopped web@1, db@9 created",
            "pull r/web:9",
        ),
        (
            "while others are kept alive",
            "target 9, good 1, trial 9, have db@9, db@1 exited, pulling web@9, web@1 exited, stopped web@1, db@9 created",
            "fence db db-9, start db db-1, wait web downloading",
        ),
        (
            "then its container",
            "target 9, good 1, trial 9, have 9, db@1 running, web@1 exited, stopped web@1, db@9 created",
            "create web@9",
        ),
        (
            "then all is swapped",
            "target 9, good 1, trial 9, have 9, db@1 running, web@1 exited, stopped web@1, db@9 created, web@9 created",
            "stop db db-1, start db db-9, fence web web-1, start web web-9",
        ),
        (
            "an image that cannot be had ends it",
            "target 9, good 1, trial 9, have db@9, spent pull web@9 5, db@1 running, web@1 exited, stopped web@1, db@9 created",
            "reject 9: web cannot be pulled: no",
        ),
        (
            "and the predecessor is back without a download",
            "target 9, good 1, rejected 9, have 1 db@9, db@1 running, web@1 exited, stopped web@1, db@9 created",
            "start web web-1, wait all rejected",
        ),
        (
            "one whose image is here is swapped as any other",
            "target 9, good 1, have 9, db@1 running, web@1 running",
            "create db@9, create web@9",
        ),
        ("a first release has nothing that could go first", "target 9", "pull r/db:9, pull r/web:9"),
        (
            "held in the middle of it, the predecessor comes back",
            "target 9, good 1, trial 9, hold, have 1 db@9, db@1 running, web@1 exited, stopped web@1, db@9 created",
            "start web web-1, wait all held",
        ),
    ]);
}

#[test]
fn delete_then_download() {
    check(&[
        (
            "its predecessor stops and goes",
            "target 10, good 1, trial 10, have 1 db@10, pulled 1, db@1 running, web@1 running, db@10 created",
            "stop web web-1, remove web web-1",
        ),
        (
            "cut in between",
            "target 10, good 1, trial 10, have 1 db@10, pulled 1, db@1 running, web@1 exited, stopped web@1, db@10 created",
            "remove web web-1",
        ),
        (
            "then its image",
            "target 10, good 1, trial 10, have 1 db@10, pulled 1, db@1 running, db@10 created",
            "remove-image r/web:1",
        ),
        (
            "but not one that we did not pull",
            "target 10, good 1, trial 10, have 1 db@10, db@1 running, db@10 created",
            "pull r/web:10",
        ),
        (
            "then the new one comes",
            "target 10, good 1, trial 10, have db@10 db@1, pulled 1, db@1 running, db@10 created",
            "pull r/web:10",
        ),
        (
            "going back needs a download",
            "target 10, good 1, rejected 10, have db@1 db@10, pulled 1, db@1 running, db@10 created",
            "pull r/web:1, wait all rejected",
        ),
        (
            "the tried release runs until the other is pulled, whatever its author set",
            "target 22, good 10, rejected 22, have db@10 22, pulled 10, db@10 exited, stopped db@10, db@22 running, web@22 running",
            "pull r/web:10, wait all rejected",
        ),
        (
            "nothing is deleted before the rest is here",
            "target 10, good 1, have 1, pulled 1, db@1 running, web@1 running",
            "pull r/db:10",
        ),
    ]);
}

#[test]
fn what_another_service_needs_is_not_deleted() {
    let text = "target 10, good 1, trial 10, have 1 db@10, pulled 1, db@1 running, db@10 created";
    let mut device = Device::parse(text);
    let mut release = super::release(10);
    release.services.get_mut(&super::name("db")).unwrap().image = super::image("web", 1);
    device.target = Some(super::target(Some(release)));
    assert_eq!(device.planned(), "pull r/web:10");
    let mut device = Device::parse(text);
    assert_eq!(device.planned(), "remove-image r/web:1");
    device.observed.services[0].image = super::image("web", 1).to_string();
    assert_eq!(device.planned(), "pull r/web:10", "a container of another service has the image");
}

#[test]
fn hand_over() {
    let on = |more: &str| {
        format!(
            "target 11, good 1, trial 11, db@1 exited, stopped db@1, db@11 running, web@1 running, {more}"
        )
    };
    for (why, more, expected) in [
        ("the successor starts beside its predecessor", "web@11 created", "start web web-11"),
        ("and is waited for", "web@11 running", "wait web hand-over"),
        ("until it says so", "web@11 running, handed-over web", "stop web web-1"),
        ("or its time is over", "web@11 running, handing-over web 60", "stop web web-1"),
        ("and no sooner", "web@11 running, handing-over web 59", "wait web hand-over"),
        (
            "one that crashes ends it",
            "web@11 restarting, restarts 3",
            "reject 11: db was restarted 3 times by the engine",
        ),
    ] {
        assert_eq!(Device::parse(&on(more)).planned(), expected, "{why}");
    }
    check(&[
        (
            "in a rollback nothing is handed over",
            "target 11, good 1, rejected 11, db@1 running, web@1 running, db@11 exited, web@11 running",
            "stop web web-11, wait all rejected",
        ),
        (
            "nor when a good release was half stopped",
            "target 11, good 11, db@11 running, web@1 running, web@11 exited",
            "stop web web-1, start web web-11",
        ),
        (
            "a first release has no predecessor",
            "target 11, trial 11, db@11 created, web@11 created",
            "start db db-11, start web web-11",
        ),
        (
            "the others are swapped meanwhile",
            "target 11, good 1, trial 11, db@1 running, db@11 created, web@1 running, web@11 created",
            "stop db db-1, start db db-11, start web web-11",
        ),
    ]);
}
