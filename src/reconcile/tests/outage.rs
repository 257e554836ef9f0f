//! The engine goes for a while, or the store for good, in the middle of a trial.

use super::*;
use crate::engine::fake::Fault;
use crate::model::Strategy;

/// A device on which `first` is good. `second`, whose `web` behaves so, became the target 5 s ago.
async fn tried(first: Target, second: Target, behaviour: Behaviour) -> Lab {
    let lab = Lab::new();
    lab.deliver(first);
    lab.pass(20).await;
    lab.engine.publish(&image("web", 2), behaviour);
    lab.deliver(second);
    lab.pass(5).await;
    assert_eq!(lab.runs().await, "(db@1) (web@1) db@2 web@2", "it is on trial, and well");
    lab
}

#[tokio::test(start_paused = true)]
async fn an_engine_killed_in_a_trial_is_no_fault_of_the_release() {
    let lab = tried(without_restart(1), without_restart(2), Behaviour::Runs).await;
    lab.engine.go_down();
    lab.pass(10).await;
    lab.engine.revive();
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
    assert_eq!(lab.good().as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_engine_hides_no_release_that_fails() {
    let lab = tried(without_restart(1), without_restart(2), Behaviour::Runs).await;
    lab.engine.publish(&image("web", 2), Behaviour::Exits(3));
    lab.engine.go_down();
    lab.pass(10).await;
    lab.engine.revive();
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@1 web@1", "started once more, it failed by itself");
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_crashes_beside_its_predecessor_has_its_time_and_no_more() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    let (engine, notebook) = lab.cut();
    // There is nothing to roll back to: it is not remembered that release 1 was good.
    *notebook.0.lock().unwrap() = Page::default();
    let lab = Lab::on(engine, notebook);
    lab.engine.publish(&image("web", 2), Behaviour::Crashes);
    let mut second = target(2);
    for app in second.apps.values_mut() {
        let TargetApp::Wanted(wanted) = app else { continue };
        for spec in wanted.release.iter_mut().flat_map(|release| release.services.values_mut()) {
            spec.strategy = Strategy::HandOver { timeout: Duration::from_secs(20) };
        }
    }
    lab.deliver(second);
    lab.pass(15).await;
    assert_eq!(lab.runs().await, "(web@2) db@1 db@2 web@1", "both side by side");
    lab.pass(30).await;
    assert_eq!(lab.runs().await, "(db@1) (web@1) (web@2) db@2");
}

#[tokio::test(start_paused = true)]
async fn a_release_is_watched_anew_when_the_engine_was_gone() {
    let lab = tried(target(1), target(2), Behaviour::CrashesAfter(Duration::from_secs(6))).await;
    // It crashes, and the engine starts it again with a count of restarts that begins anew.
    lab.engine.go_down();
    lab.pass(7).await;
    lab.engine.revive();
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
}

#[tokio::test(start_paused = true)]
async fn time_without_answers_of_the_engine_does_not_count_for_the_soak() {
    let lab = tried(target(1), target(2), Behaviour::CrashesAfter(Duration::from_secs(8))).await;
    // The engine answers only the list of the next observation, and there is no other one for two minutes.
    lab.engine.fail(1, Fault::Freeze);
    lab.engine.meddle(|_| {});
    lab.pass(130).await;
    lab.engine.thaw();
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
}

#[tokio::test(start_paused = true)]
async fn a_release_is_not_accepted_without_a_soak_even_if_its_trial_is_forgotten() {
    let lab = tried(target(1), target(2), Behaviour::CrashesAfter(Duration::from_secs(8))).await;
    let (engine, notebook) = lab.cut();
    *notebook.0.lock().unwrap() = Page::default();
    let lab = Lab::on(engine, notebook);
    lab.deliver(target(2));
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "(db@1) (web@1) (web@2) db@2", "what was replaced is kept");
    assert_eq!(lab.good(), None);
}
