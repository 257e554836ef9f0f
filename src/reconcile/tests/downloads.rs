//! Downloads and containers that never end well: they are given up, and a restart does not forget it.

use super::*;

/// What an engine says of a layer that is no archive.
const TORN: &str = "failed to register layer: archive/tar: invalid tar header";
const MIB: u64 = 1 << 20;

impl Lab {
    fn pulls_of(&self, image: &ImageRef) -> usize {
        let pull = format!("pull {image}");
        self.engine.calls().iter().filter(|call| **call == pull).count()
    }

    fn waits(&self) -> Vec<(Reason, String)> {
        self.report.borrow().waiting.iter().map(|w| (w.reason, w.why.clone())).collect()
    }

    #[track_caller]
    fn assert_given_up(&self) {
        let waits = self.waits();
        let given_up = waits.iter().find(|(reason, _)| *reason == Reason::DownloadGivenUp);
        let (_, why) = given_up.unwrap_or_else(|| panic!("{waits:?}"));
        assert!(why.contains("900 MiB were fetched, and it needs 300 MiB") && why.contains(TORN), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_download_that_never_ends_well_is_given_up_for_this_target() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(30).await;
    let bad = image("web", 2);
    lab.engine.break_image(&bad, 300 * MIB, TORN);
    lab.deliver(target(2));
    lab.pass(24 * 3600).await;
    assert_eq!(lab.pulls_of(&bad), 3, "{:?}", lab.waits());
    lab.assert_given_up();
    assert_eq!(lab.runs().await, "db@1 web@1");
    // The same after a restart. The first target after it is the one of before.
    let (engine, notebook) = lab.cut();
    let lab = Lab::on(engine, notebook);
    lab.deliver(target(2));
    lab.pass(24 * 3600).await;
    assert_eq!(lab.pulls_of(&bad), 3);
    lab.assert_given_up();
    // An operator has mended the registry.
    assert!(matches!(lab.order(Order::Retry { app: None }).await, Answer::Done(_)));
    lab.pass(3600).await;
    assert_eq!(lab.pulls_of(&bad), 6, "a new budget");
    // Another target, and back.
    lab.deliver(target(3));
    lab.pass(30).await;
    assert_eq!(lab.runs().await, "db@3 web@3");
    lab.deliver(target(2));
    lab.pass(3600).await;
    assert_eq!(lab.pulls_of(&bad), 9, "a new target is a new budget");
}

#[tokio::test(start_paused = true)]
async fn downloads_that_are_cut_cost_ten_times_their_size_at_most() {
    let lab = Lab::new();
    let bad = image("web", 1);
    lab.engine.break_image(&bad, 300 * MIB, "read tcp 10.0.0.1:1->10.0.0.2:443: connection reset by peer");
    lab.deliver(target(1));
    lab.pass(24 * 3600).await;
    assert_eq!(lab.pulls_of(&bad), 10);
    assert!(lab.waits().iter().any(|(reason, _)| *reason == Reason::DownloadGivenUp), "{:?}", lab.waits());
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_away_is_asked_for_ever_and_costs_no_save() {
    let lab = Lab::new();
    let bad = image("web", 1);
    lab.engine.break_image(&bad, 0, "dial tcp 10.0.0.2:443: connect: connection refused");
    lab.deliver(target(1));
    lab.pass(600).await;
    let writes = lab.notebook.0.lock().unwrap().writes;
    lab.pass(24 * 3600).await;
    assert!(lab.pulls_of(&bad) > 200, "{}", lab.pulls_of(&bad));
    assert_eq!(lab.notebook.0.lock().unwrap().writes, writes);
}

#[tokio::test(start_paused = true)]
async fn a_download_that_restarts_interrupt_is_counted() {
    let lab = Lab::new();
    let bad = image("web", 1);
    lab.engine.break_image(&bad, 300 * MIB, TORN);
    lab.engine.slow(&bad, Duration::from_secs(3600));
    let (mut lab, mut cuts) = (lab, 0);
    while cuts < 10 {
        lab.deliver(target(1));
        lab.pass(60).await;
        let (engine, notebook) = lab.cut();
        lab = Lab::on(engine, notebook);
        cuts += 1;
    }
    lab.deliver(target(1));
    lab.pass(60).await;
    assert_eq!(lab.pulls_of(&bad), 0, "the fake notes a pull at its end only");
    let waits = lab.waits();
    let why = "3000 MiB were fetched, and it needs 300 MiB; its downloads were interrupted";
    assert!(waits.iter().any(|(_, words)| words.contains(why)), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_the_engine_calls_wrong_is_asked_for_once() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(30).await;
    lab.engine.refuse_for_good("create web@2");
    lab.deliver(target(2));
    lab.pass(24 * 3600).await;
    let asked = || lab.engine.calls().iter().filter(|call| **call == "create web@2").count();
    assert_eq!(asked(), 1, "{:?}", lab.waits());
    assert_eq!(lab.runs().await, "db@1 web@1", "and what was created of it is gone");
    let stops = lab.engine.calls().iter().filter(|call| call.starts_with("stop")).count();
    assert_eq!(stops, 0);
    let waits = lab.waits();
    let rejected = waits.iter().find(|(reason, _)| *reason == Reason::Rejected);
    assert!(rejected.is_some_and(|(_, why)| why.contains("invalid parameter")), "{waits:?}");
    lab.deliver(target(3));
    lab.pass(30).await;
    assert_eq!(lab.runs().await, "db@3 web@3");
}

#[tokio::test(start_paused = true)]
async fn a_first_release_that_the_engine_calls_wrong_is_blocked_with_its_words() {
    let lab = Lab::new();
    lab.engine.refuse_for_good("create web@1");
    lab.deliver(target(1));
    lab.pass(24 * 3600).await;
    assert_eq!(lab.engine.calls().iter().filter(|call| **call == "create web@1").count(), 1);
    let waits = lab.waits();
    assert!(
        waits.iter().any(|(reason, why)| *reason == Reason::Degraded && why.contains("invalid parameter")),
        "{waits:?}"
    );
}
