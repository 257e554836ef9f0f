//! Evidence of rejected variables, and when evidence is past.

use super::*;
use crate::model::LastEnd;
use crate::reconcile::evidence::Failures;

/// The target 1 as it is with other variables: the same commit, with other specs, and the image of 2 to be able to crash.
fn with_variables() -> Target {
    let mut target = target(1);
    for app in target.apps.values_mut() {
        let TargetApp::Wanted(app) = app else { continue };
        app.release = Some(Release { commit: Commit::parse("1").unwrap(), ..release(2) });
    }
    target
}

#[tokio::test(start_paused = true)]
async fn of_rejected_variables_only_the_container_that_failed_is_evidence() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    let before = crate::engine::Inspect::observe(&*lab.engine).await.unwrap();
    lab.engine.publish(&image("web", 2), Behaviour::Crashes);
    lab.deliver(with_variables());
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    let report = lab.report.borrow().clone();
    assert_eq!(report.waiting[0].reason, Reason::Rejected);
    let found: Vec<_> =
        report.evidence.iter().map(|one| (one.service.as_str(), one.cause().unwrap())).collect();
    assert_eq!(found, [("web", "exited with code 1".to_owned())], "db and the web of before were stopped");
    let asked = lab.engine.calls();
    for seen in &before.services {
        let log = format!("logs {}", seen.container);
        assert!(!asked.contains(&log), "the log of what was replaced: {log}");
    }
}

#[tokio::test(start_paused = true)]
async fn evidence_is_past_once_a_later_release_was_accepted() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    lab.engine.publish(&image("web", 2), Behaviour::Crashes);
    lab.deliver(target(2));
    lab.pass(60).await;
    let reported = |lab: &Lab| lab.report.borrow().present_evidence().count();
    assert_eq!(reported(&lab), 1);
    lab.deliver(target(3));
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@3 web@3");
    assert_eq!(reported(&lab), 0, "the fleet server shows what is wrong now");
    assert_eq!(lab.report.borrow().evidence.len(), 1, "`cotter logs --release 2` still has it");
    lab.deliver(target(2));
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@3 web@3");
    assert_eq!(reported(&lab), 1, "it was rejected once more");
}

#[tokio::test(start_paused = true)]
async fn a_new_container_of_a_service_has_evidence_of_its_own() {
    let lab = Lab::new();
    for number in [1, 2] {
        lab.engine.publish(&image("web", number), Behaviour::Crashes);
    }
    let releases = || {
        let report = lab.report.borrow();
        let found: Vec<_> = report.evidence.iter().map(|one| one.release.to_string()).collect();
        found
    };
    lab.deliver(target(1));
    lab.pass(20).await;
    assert_eq!(releases(), ["1"]);
    lab.deliver(target(2));
    lab.pass(20).await;
    assert_eq!(releases(), ["2"], "less than a minute after the evidence of its predecessor");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_an_end_adds_to_the_list_and_does_not_contradict_it() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    let observed = crate::engine::Inspect::observe(&*lab.engine).await.unwrap();
    let known = LastEnd { error: "no such device".to_owned(), ..LastEnd::with_code(1) };
    let mut failures = Failures::default();
    failures.note_end(&observed.services[0].container, known.clone());
    for (why, listed, expected) in [
        ("the list says nothing", None, &known),
        ("the list says less", Some(LastEnd::with_code(1)), &known),
        ("the list has a later end", Some(LastEnd::with_code(3)), &LastEnd::with_code(3)),
    ] {
        let mut observed = Arc::new(observed.clone());
        Arc::make_mut(&mut observed).services[0].last_end = listed;
        failures.complete(&mut observed);
        assert_eq!(observed.services[0].last_end.as_ref(), Some(expected), "{why}");
    }
}
