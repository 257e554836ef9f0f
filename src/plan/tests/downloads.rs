//! Images whose downloads cost too much.

use super::{Device, app, check, image, release, target};
use crate::model::*;
use crate::plan::{PullEnd, apply_order, forget_downloads, record_done, record_download};

const MIB: u64 = 1 << 20;

#[test]
fn an_image_that_never_comes_is_given_up() {
    let on = |more: &str| format!("target 2, good 1, have db@2, db@1 running, web@1 running, {more}");
    for (why, more, expected) in [
        ("two complete downloads failed", "cost web@2 60 30 60", "pull r/web:2"),
        ("three complete downloads failed", "cost web@2 90 30 90", "wait web download_given_up"),
        ("it was interrupted, and passes", "cost web@2 90 30 0", "pull r/web:2"),
        ("it was interrupted for ever", "cost web@2 300 30 0", "wait web download_given_up"),
        (
            "the registry names a larger size than the engine has begun",
            "cost web@2 90 30 90, weight web@2 a=40",
            "pull r/web:2",
        ),
        (
            "layers that are here need no download",
            "cost web@2 90 30 90, weight web@2 a=40 b=30, layers a",
            "wait web download_given_up",
        ),
        ("a download under way goes on", "cost web@2 90 30 90, pulling web@2", "wait web downloading"),
        ("another image has its own budget", "cost db@2 90 30 90", "pull r/web:2"),
        (
            "the good release is kept alive meanwhile",
            "cost web@2 90 30 90, stopped web@1",
            "wait web download_given_up",
        ),
    ] {
        assert_eq!(Device::parse(&on(more)).planned(), expected, "{why}");
    }
    let device = Device::parse(&on("cost web@2 90 30 90"));
    assert_eq!(
        device.plan().waiting[0].why,
        "r/web:2 is not downloaded any more: 90 MiB were fetched, and it needs 30 MiB; invalid tar header; a new target \
         or `cotter retry` starts again"
    );
    check(&[(
        "a service whose predecessor stopped for the download gets it back",
        "target 9, good 1, trial 9 5, db@9 running, web@1 exited, stopped web@1, cost web@9 90 30 90",
        "reject 9: web cannot be pulled: r/web:9 is not downloaded any more: 90 MiB were fetched, and it needs 30 MiB; \
         invalid tar header; a new target or `cotter retry` starts again",
    )]);
}

#[test]
fn what_downloads_cost_is_recorded() {
    let (mut ledger, web) = (Ledger::default(), image("web", 2));
    let transfer = |fetched| Transfer { fetched, needed: 30 * MIB };
    let bad = PullEnd::Failed { why: "invalid tar header", is_passing: false };
    let cut = PullEnd::Failed { why: "connection refused", is_passing: true };
    for (why, news, fetched, end, expected) in [
        ("nothing came", 0, 0, Some(bad), None),
        ("a part, while it goes on", 16, 16, None, Some((16, 0, ""))),
        ("its end counts all of it as futile", 14, 30, Some(bad), Some((30, 30, "invalid tar header"))),
        ("one that was cut is not futile", 5, 5, Some(cut), Some((35, 30, "connection refused"))),
        ("nothing came again", 0, 0, Some(bad), Some((35, 30, "connection refused"))),
        ("it is complete", 30, 30, Some(PullEnd::Done), Some((65, 30, ""))),
    ] {
        record_download(&mut ledger, &web, news * MIB, transfer(fetched * MIB), end);
        let now = ledger.downloads.get(&web).map(|d| (d.fetched / MIB, d.futile / MIB, d.why.as_str()));
        assert_eq!(now, expected, "{why}");
    }
}

#[test]
fn a_budget_ends_with_its_target() {
    let cost =
        || Device::parse("target 2, good 1, cost web@2 90 30 90, cost web@1 5 5 0, cost web@3 5 5 0").ledger;
    let wanted = target(Some(release(2)));
    let left =
        |ledger: &Ledger| ledger.downloads.keys().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let mut after_restart = cost();
    forget_downloads(&mut after_restart, &wanted, false);
    assert_eq!(left(&after_restart), "r/web:1 r/web:2", "what no release needs is forgotten");
    let mut of_new_target = cost();
    forget_downloads(&mut of_new_target, &wanted, true);
    assert_eq!(left(&of_new_target), "");
    let mut accepted = cost();
    let commit = Step::Accept { app: app(), release: Commit::parse("2").unwrap() };
    record_done(&mut accepted, &wanted, "boot", "now", &commit);
    assert_eq!(left(&accepted), "r/web:1 r/web:3");
}

#[test]
fn an_operator_gives_a_new_budget() {
    for (why, order, left, answer) in [
        ("all apps", None, 0, "images may be downloaded again"),
        ("this app", Some("demo"), 0, "images may be downloaded again"),
    ] {
        let device = Device::parse("target 2, good 1, db@1 running, web@1 running, cost web@2 90 30 90");
        let order = Order::Retry { app: order.map(str::to_owned) };
        let (ledger, said) = apply_order(&device.situation(), &order);
        assert_eq!((ledger.downloads.len(), said), (left, Answer::Done(answer.to_owned())), "{why}");
    }
    let device = Device::parse("target 2, good 1, db@1 running, web@1 running, cost web@9 90 30 90");
    let (ledger, _) = apply_order(&device.situation(), &Order::Retry { app: Some("demo".to_owned()) });
    assert_eq!(ledger.downloads.len(), 1, "an image of another app keeps its own");
}
