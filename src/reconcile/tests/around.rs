//! The reconciler amid locks, windows, slow registries and stubborn containers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Lab, Notebook, app_id, image, release, target};
use crate::engine::fake::{Behaviour, Fault};
use crate::model::{
    Answer, Clock, Halt, HeldPort, ImageSize, Lease, NetworkAttachment, NetworkMode, NetworkName, Order,
    PlanSettings, PortMapping, Protocol, Reason, Release, ServiceName, Strategy, Target, TargetApp, Window,
    WindowState,
};
use crate::reconcile::Unmeasured;

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

/// The target with a change to the spec of `web`.
fn changed(number: u8, change: impl FnOnce(&mut crate::model::ServiceSpec)) -> Target {
    let mut target = target(number);
    change(release_of(&mut target).services.get_mut(&service("web")).unwrap());
    target
}

/// The release that a target wants of the app.
fn release_of(target: &mut Target) -> &mut Release {
    let TargetApp::Wanted(wanted) = target.apps.get_mut(&app_id("app")).unwrap() else { unreachable!() };
    wanted.release.as_mut().unwrap()
}

async fn on_release_1() -> Lab {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    lab
}

fn reasons(lab: &Lab) -> Vec<Reason> {
    lab.report.borrow().waiting.iter().map(|w| w.reason).collect()
}

#[tokio::test(start_paused = true)]
async fn a_lock_file_is_waited_for_and_seen_to_go() {
    let lab = on_release_1().await;
    lab.host.inside().locks.insert((1, service("web")));
    lab.deliver(target(2));
    lab.pass(100).await;
    assert_eq!(lab.runs().await, "(db@2) (web@2) db@1 web@1", "fetched and created");
    assert_eq!(reasons(&lab), [Reason::Locked]);
    assert!(lab.host.inside().own.is_empty());
    let calls = lab.engine.calls().len();
    lab.pass(250).await;
    assert!(lab.engine.calls().len() - calls <= 1, "waiting costs the engine nothing");
    lab.host.inside().locks.clear();
    lab.pass(2).await;
    assert_eq!(lab.runs().await, "(db@1) (web@1) db@2 web@2", "it goes on at once");
    assert_eq!(lab.host.inside().own.len(), 2, "ours stand while it is on trial");
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
    assert!(lab.host.inside().own.is_empty(), "and go when it is accepted");
}

#[tokio::test(start_paused = true)]
async fn a_lock_taken_at_the_last_moment_is_respected() {
    let lab = on_release_1().await;
    // Nobody held one when the swap was decided; the app took it just before ours.
    lab.host.inside().late.insert((1, service("db")));
    lab.deliver(target(2));
    lab.pass(10).await;
    assert!(lab.host.inside().late.is_empty(), "ours were asked for");
    assert!(lab.host.inside().own.is_empty());
    assert_eq!(lab.runs().await, "(db@2) (web@2) db@1 web@1");
    lab.host.inside().locks.clear();
    lab.pass(30).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
}

#[tokio::test(start_paused = true)]
async fn an_order_of_the_cloud_breaks_locks() {
    let lab = on_release_1().await;
    lab.host.inside().locks.insert((1, service("web")));
    let forced = Target { is_lock_overridden: true, ..target(2) };
    lab.deliver(forced);
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
    assert!(lab.host.inside().locks.is_empty(), "it is gone for good");
}

#[tokio::test(start_paused = true)]
async fn locks_and_crashes_do_not_keep_a_service_stopped() {
    let lab = on_release_1().await;
    lab.host.inside().locks.insert((1, service("web")));
    lab.deliver(target(2));
    lab.pass(10).await;
    lab.engine
        .meddle(|services| services.retain(|s| s.release.as_str() != "1" || s.service.as_str() != "db"));
    lab.pass(5).await;
    assert_eq!(lab.runs().await, "(db@2) (web@2) db@1 web@1");
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_by_itself() {
    let lab = on_release_1().await;
    let until = lab.host.inside().started.elapsed() + Duration::from_secs(60);
    let lease = |boot_id: &str| Lease {
        id: "1".into(),
        owner: "backup".into(),
        reason: "copying".into(),
        boot_id: boot_id.into(),
        until,
    };
    lab.notebook.0.lock().unwrap().ledger.leases = vec![lease("boot"), lease("an earlier boot")];
    let (engine, notebook) = lab.cut();
    let lab = Lab::on(engine, notebook);
    lab.deliver(target(2));
    lab.pass(40).await;
    assert_eq!(lab.runs().await, "(db@2) (web@2) db@1 web@1");
    assert_eq!(reasons(&lab), [Reason::Locked], "the other boot's counts for nothing");
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
}

#[tokio::test(start_paused = true)]
async fn a_window_is_waited_for_also_offline() {
    let window = Window::parse("02:00-04:00").unwrap();
    let plan = PlanSettings { windows: BTreeSet::from([window.clone()]), ..PlanSettings::default() };
    let lab = Lab::with(plan);
    let closed = WindowState::Closed { opens_in: Duration::from_secs(7000) };
    lab.host.inside().windows.insert(window.clone(), closed);
    lab.deliver(target(1));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@1 web@1", "a first release does not wait");
    lab.deliver(target(2));
    lab.pass(3000).await;
    assert_eq!(lab.runs().await, "(db@2) (web@2) db@1 web@1");
    assert_eq!(reasons(&lab), [Reason::Window]);
    lab.host.inside().windows.insert(window, WindowState::Open);
    lab.pass(320).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_never_right_closes_no_window_for_ever() {
    let window = Window::parse("02:00-04:00").unwrap();
    let plan = PlanSettings { windows: BTreeSet::from([window]), ..PlanSettings::default() };
    let mut lab = Lab::with(plan.clone());
    lab.deliver(target(1));
    lab.pass(20).await;
    let seen = lab.notebook.0.lock().unwrap().ledger.clock.seen_at.clone();
    assert_eq!(seen.as_deref(), Some("2026-01-01T00:00:00Z"), "the time is remembered");
    lab.pass(300).await;
    assert_eq!(lab.host.inside().judged_by, seen, "and a clock is judged by it");
    for _ in 0..3 {
        // The waiting counts over restarts.
        lab.host.inside().clock = Clock::Untrusted("it is 1970".into());
        lab.deliver(target(2));
        lab.pass(7 * 3600).await;
        assert_eq!(lab.runs().await, "(db@2) (web@2) db@1 web@1");
        assert_eq!(reasons(&lab), [Reason::Clock]);
        let (engine, notebook) = lab.cut();
        lab = Lab::on_with(engine, notebook, plan.clone());
    }
    lab.host.inside().clock = Clock::Untrusted("it is 1970".into());
    lab.deliver(target(2));
    lab.pass(4 * 3600).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
    let seen = lab.notebook.0.lock().unwrap().ledger.clock.seen_at.clone();
    assert_eq!(seen, None, "a wrong time is not, and the noted one was as wrong");
}

#[tokio::test(start_paused = true)]
async fn a_successor_takes_over_when_it_says_so() {
    let timeout = Duration::from_secs(60);
    let hand_over = |number| changed(number, |web| web.strategy = Strategy::HandOver { timeout });
    let lab = on_release_1().await;
    // What an earlier one has said does not count.
    lab.host.inside().handed_over.insert((1, service("web")));
    lab.deliver(hand_over(2));
    lab.pass(30).await;
    assert_eq!(lab.runs().await, "(db@1) db@2 web@1 web@2", "both run");
    assert_eq!(reasons(&lab), [Reason::HandOver]);
    lab.host.inside().handed_over.insert((1, service("web")));
    lab.pass(2).await;
    assert_eq!(lab.runs().await, "(db@1) (web@1) db@2 web@2");
    lab.pass(15).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
    lab.deliver(hand_over(3));
    lab.pass(55).await;
    assert_eq!(lab.runs().await, "(db@2) db@3 web@2 web@3");
    let (engine, notebook) = lab.cut();
    let lab = Lab::on(engine, notebook);
    lab.deliver(hand_over(3));
    lab.pass(4).await;
    assert_eq!(lab.runs().await, "(db@2) db@3 web@2 web@3");
    lab.pass(40).await;
    assert_eq!(lab.runs().await, "db@3 web@3", "or when its time is over, over restarts");
}

#[tokio::test(start_paused = true)]
async fn a_predecessor_that_makes_room_is_back_when_the_image_cannot_be_had() {
    let lab = on_release_1().await;
    lab.engine.unpublish(&image("web", 2));
    lab.deliver(changed(2, |web| web.strategy = Strategy::KillThenDownload));
    lab.pass(10).await;
    assert_eq!(lab.runs().await, "(db@2) (web@1) db@1", "it made room");
    lab.pass(3600).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    assert_eq!(reasons(&lab), [Reason::Rejected]);
    assert_eq!(lab.report.borrow().waiting[0].why.split(": ").next(), Some("release 2 was rejected"));
}

#[tokio::test(start_paused = true)]
async fn a_long_download_is_no_part_of_a_trial() {
    let lab = on_release_1().await;
    lab.engine.slow(&image("web", 2), Duration::from_secs(1200));
    lab.deliver(changed(2, |web| web.strategy = Strategy::KillThenDownload));
    lab.pass(1000).await;
    assert_eq!(lab.runs().await, "(db@2) (web@1) db@1");
    assert_eq!(reasons(&lab), [Reason::Downloading]);
    lab.pass(300).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
}

#[tokio::test(start_paused = true)]
async fn a_download_does_not_delay_the_restart_of_a_crashed_service() {
    let lab = on_release_1().await;
    lab.engine.slow(&image("web", 2), Duration::from_secs(600));
    lab.deliver(target(2));
    lab.pass(100).await;
    lab.engine.meddle(|services| services.retain(|s| s.service.as_str() != "db"));
    lab.pass(1).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    lab.pass(600).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_wants_peace_gets_it() {
    let lab = on_release_1().await;
    let limited = Unmeasured { after: Some(Duration::from_secs(900)), why: "too many requests".into() };
    lab.host.inside().sizes.insert(image("web", 2), Err(limited));
    lab.deliver(target(2));
    lab.pass(800).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    assert!(!lab.engine.calls().iter().any(|call| call == "pull r/web:2"), "no byte is asked for");
    let asked = lab.host.inside().asked;
    assert_eq!(asked, 4, "both images of 1, both of 2, once each");
    lab.host.inside().sizes.clear();
    lab.pass(400).await;
    assert_eq!(lab.runs().await, "db@2 web@2");

    // One that does not answer stands in no download's way.
    let silent = Unmeasured { after: None, why: "no answer".into() };
    lab.host.inside().sizes.insert(image("web", 3), Err(silent));
    lab.deliver(target(3));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@3 web@3");
}

#[tokio::test(start_paused = true)]
async fn a_release_that_does_not_fit_waits_for_room_and_costs_nothing() {
    let lab = on_release_1().await;
    let size = ImageSize { layers: vec![("big".to_owned(), 1 << 30)], ..ImageSize::default() };
    lab.host.inside().sizes.insert(image("web", 2), Ok(size));
    lab.host.inside().free = Some(3 << 30);
    lab.deliver(target(2));
    let calls = lab.engine.calls().len();
    lab.pass(100).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    assert_eq!(reasons(&lab), [Reason::InsufficientDisk]);
    let since = lab.engine.calls()[calls..].to_vec();
    assert!(!since.iter().any(|call| call.starts_with("pull")), "{since:?}");
    assert_eq!(since.iter().filter(|call| *call == "list-layers").count(), 1, "layers are asked for once");
    lab.host.inside().free = Some(4 << 30);
    lab.pass(40).await;
    assert_eq!(lab.runs().await, "db@2 web@2", "by itself");
}

#[tokio::test(start_paused = true)]
async fn a_size_is_asked_for_again_when_its_release_comes_back() {
    let lab = on_release_1().await;
    let size = ImageSize { layers: vec![("big".to_owned(), 1 << 30)], ..ImageSize::default() };
    lab.host.inside().sizes.insert(image("web", 2), Ok(size));
    lab.host.inside().free = Some(1 << 30);
    lab.deliver(target(2));
    lab.pass(20).await;
    assert_eq!(reasons(&lab), [Reason::InsufficientDisk]);
    lab.deliver(target(1));
    lab.pass(20).await;
    // Its tag names a smaller image by now.
    lab.host.inside().sizes.clear();
    lab.deliver(target(2));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_taken_stops_nothing_and_is_seen_to_be_free() {
    let lab = on_release_1().await;
    let held = HeldPort {
        host_ip: String::new(),
        port: 80,
        protocol: Protocol::Tcp,
        container: None,
        by: "a program of the host".into(),
    };
    lab.host.inside().listeners.push(held);
    let publishes = |number| {
        changed(number, |web| {
            let (host_ip, protocol) = (String::new(), Protocol::Tcp);
            web.ports = vec![PortMapping { host_ip, host_port: Some(80), container_port: 8080, protocol }];
        })
    };
    lab.deliver(publishes(2));
    lab.pass(100).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    assert_eq!(reasons(&lab), [Reason::PortInUse]);
    lab.host.inside().listeners.clear();
    lab.pass(40).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
    // The predecessor holds it now, and so does the engine for it: both give way.
    lab.host.inside().listeners.push(HeldPort {
        host_ip: String::new(),
        port: 80,
        protocol: Protocol::Tcp,
        container: None,
        by: "the engine's proxy".into(),
    });
    lab.deliver(publishes(3));
    lab.pass(40).await;
    assert_eq!(lab.runs().await, "db@3 web@3");
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_not_pulled_again_until_a_person_acts() {
    let lab = on_release_1().await;
    lab.engine.unpublish(&image("web", 2));
    lab.deliver(target(2));
    lab.pass(24 * 3600).await;
    let pulls = |lab: &Lab| lab.engine.calls().iter().filter(|call| *call == "pull r/web:2").count();
    assert_eq!(pulls(&lab), 5);
    let waiting = lab.report.borrow().waiting.clone();
    assert_eq!((waiting[0].reason, waiting[0].retry_in), (Reason::Backoff, None));
    lab.engine.publish(&image("web", 2), Behaviour::Runs);
    assert!(matches!(lab.order(Order::Retry { app: None }).await, Answer::Done(_)));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_is_tried_again_for_another_target_alone() {
    let lab = on_release_1().await;
    lab.engine.unpublish(&image("web", 2));
    lab.deliver(target(2));
    lab.pass(24 * 3600).await;
    lab.engine.publish(&image("web", 2), Behaviour::Runs);
    lab.deliver(target(2));
    lab.pass(3600).await;
    assert_eq!(lab.runs().await, "db@1 web@1", "the same target changes nothing");
    lab.deliver(changed(2, |web| web.stop_grace = Some(Duration::from_secs(3))));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_service_is_restarted_within_its_budget() {
    let lab = on_release_1().await;
    let starts = |lab: &Lab| lab.engine.calls().iter().filter(|call| call.starts_with("start ")).count();
    let sicken = |lab: &Lab| {
        lab.engine.meddle(|services| {
            for seen in services.iter_mut().filter(|s| s.service.as_str() == "web") {
                seen.health = crate::model::Health::Unhealthy;
            }
        });
    };
    let before = starts(&lab);
    for _ in 0..6 {
        sicken(&lab);
        lab.pass(60).await;
    }
    assert_eq!(starts(&lab) - before, 3);
    assert_eq!(reasons(&lab), [Reason::Unhealthy], "then it is reported and left running");
    let (engine, notebook) = lab.cut();
    let lab = Lab::on(engine, notebook);
    lab.deliver(target(1));
    lab.pass(60).await;
    assert_eq!(starts(&lab) - before, 3, "a restart of the agent gives no new ones");
    lab.pass(3600).await;
    assert_eq!(starts(&lab) - before, 4, "an hour later it is tried again");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_heal_window_is_not_missed() {
    let heal_window = Duration::from_secs(1000);
    let lab = Lab::with(PlanSettings { heals: 1, heal_window, ..PlanSettings::default() });
    lab.deliver(target(1));
    lab.pass(20).await;
    let starts = |lab: &Lab| lab.engine.calls().iter().filter(|call| call.starts_with("start ")).count();
    let before = starts(&lab);
    for _ in 0..2 {
        lab.engine.meddle(|services| {
            let web = services.iter_mut().find(|s| s.service.as_str() == "web");
            web.unwrap().health = crate::model::Health::Unhealthy;
        });
        lab.pass(10).await;
    }
    assert_eq!(starts(&lab) - before, 1, "the budget is used up");
    lab.pass(970).await;
    assert_eq!(starts(&lab) - before, 1);
    lab.pass(30).await;
    assert_eq!(starts(&lab) - before, 2, "although no event and no resync is due");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_container_that_somebody_removed_is_forgotten() {
    let lab = on_release_1().await;
    lab.deliver(target(2));
    lab.pass(5).await;
    assert_eq!(lab.runs().await, "(db@1) (web@1) db@2 web@2");
    let stopped = || lab.notebook.0.lock().unwrap().ledger.apps[&app_id("app")].stopped_by_agent.len();
    assert_eq!(stopped(), 2);
    lab.engine.meddle(|services| services.retain(|s| s.release.as_str() != "1"));
    lab.pass(30).await;
    assert_eq!((lab.good().as_deref(), stopped()), (Some("2"), 0));
}

#[tokio::test(start_paused = true)]
async fn a_download_that_no_release_wants_any_more_is_dropped() {
    let lab = on_release_1().await;
    lab.engine.slow(&image("web", 2), Duration::from_secs(600));
    lab.deliver(target(2));
    lab.pass(100).await;
    assert_eq!(reasons(&lab), [Reason::Downloading]);
    lab.deliver(target(3));
    lab.pass(1000).await;
    assert_eq!(lab.runs().await, "db@3 web@3");
    let pulls = lab.engine.calls().into_iter().filter(|call| call == "pull r/web:2");
    assert_eq!(pulls.count(), 0, "the fake notes a pull at its end");
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_stopped_stays_stopped_over_restarts() {
    let lab = on_release_1().await;
    let spec = release(1).services[&service("web")].hash.clone();
    let halt = Halt { spec, since: "noon".into() };
    let app = app_id("app");
    lab.notebook
        .0
        .lock()
        .unwrap()
        .ledger
        .apps
        .get_mut(&app)
        .unwrap()
        .stopped_by_operator
        .insert(service("web"), halt);
    let (engine, notebook) = lab.cut();
    let lab = Lab::on(engine, notebook);
    lab.deliver(target(1));
    lab.pass(600).await;
    assert_eq!(lab.runs().await, "(web@1) db@1");
    assert_eq!(reasons(&lab), [Reason::Stopped]);
    lab.deliver(target(2));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@2 web@2", "another spec is another service");
    assert!(lab.notebook.0.lock().unwrap().ledger.apps[&app].stopped_by_operator.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_does_not_stop_is_killed() {
    let lab = on_release_1().await;
    let observed = crate::engine::Inspect::observe(&*lab.engine).await.unwrap();
    let web = observed.services.iter().find(|s| s.service.as_str() == "web").unwrap().container.clone();
    lab.engine.never("stop", &web);
    lab.deliver(target(2));
    lab.pass(100).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
    let ends: Vec<_> = lab.engine.calls().into_iter().filter(|call| call.ends_with(web.as_str())).collect();
    let verbs: Vec<_> = ends.iter().map(|call| call.split(' ').next().unwrap()).collect();
    let verbs: Vec<_> = verbs.into_iter().filter(|verb| *verb != "inspect").collect();
    assert_eq!(verbs, ["start", "stop", "stop", "kill", "remove"]);
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_step_that_failed_is_not_done() {
    let lab = on_release_1().await;
    let observed = crate::engine::Inspect::observe(&*lab.engine).await.unwrap();
    let web = observed.services.iter().find(|s| s.service.as_str() == "web").unwrap().container.clone();
    lab.engine.never("stop", &web);
    let mut without = target(1);
    let TargetApp::Wanted(wanted) = without.apps.get_mut(&app_id("app")).unwrap() else { unreachable!() };
    wanted.release = None;
    lab.deliver(without);
    lab.pass(100).await;
    assert_eq!(lab.runs().await, "");
    let calls: Vec<_> = lab.engine.calls().into_iter().filter(|call| call.ends_with(web.as_str())).collect();
    let verbs: Vec<_> = calls.iter().filter_map(|call| call.split(' ').next()).collect();
    let verbs: Vec<_> = verbs.into_iter().filter(|verb| *verb != "inspect").collect();
    assert_eq!(verbs, ["start", "stop", "stop", "kill", "remove"], "it is not removed while it runs");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_never_ends_keeps_its_release() {
    let lab = on_release_1().await;
    let observed = crate::engine::Inspect::observe(&*lab.engine).await.unwrap();
    let web = observed.services.iter().find(|s| s.service.as_str() == "web").unwrap().container.clone();
    for verb in ["stop", "kill"] {
        lab.engine.never(verb, &web);
    }
    lab.deliver(target(2));
    lab.pass(60).await;
    assert!(reasons(&lab).contains(&Reason::EngineStuck), "{:?}", lab.report.borrow().waiting);
    lab.pass(400).await;
    assert_eq!(lab.runs().await, "db@1 web@1", "the old release runs, whole");
    assert_eq!(reasons(&lab), [Reason::Rejected]);
    let calls = lab.engine.calls().len();
    lab.pass(3600).await;
    assert!(lab.engine.calls().len() - calls < 40, "and nothing loops");
}

#[tokio::test(start_paused = true)]
async fn unknown_facts_block_nothing() {
    let lab = on_release_1().await;
    let first = lab.engine.calls().iter().position(|call| call == "info");
    let first = first.expect("the engine is asked who it is");
    let (engine, _) = lab.cut();
    let lab = Lab::on(engine, Notebook::default());
    let before = lab.engine.calls().len();
    lab.engine.fail(first, Fault::Error);
    lab.deliver(target(2));
    lab.pass(30).await;
    assert_eq!(lab.engine.calls()[before + first], "info", "that one failed");
    assert_eq!(lab.runs().await, "db@2 web@2");
}

#[tokio::test(start_paused = true)]
async fn a_volume_with_another_config_refuses_the_app_and_no_other() {
    let lab = on_release_1().await;
    let mut mixed = target(2);
    let data = crate::model::VolumeName::parse("data").unwrap();
    let volumes = &mut release_of(&mut mixed).volumes;
    volumes.get_mut(&data).unwrap().driver_opts.insert("type".to_owned(), "nfs".to_owned());
    let other = changed(3, |_| {});
    let TargetApp::Wanted(mut other) = other.apps[&app_id("app")].clone() else { unreachable!() };
    other.app = crate::model::App { id: app_id("other"), number: 2, name: "other".into() };
    mixed.apps.insert(app_id("other"), TargetApp::Wanted(other));
    lab.deliver(mixed.clone());
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@1 db@3 web@1 web@3", "the other app goes on, and this one is as it was");
    assert_eq!(reasons(&lab), [Reason::Refused]);
    let report = lab.report.borrow().clone();
    let app = &report.apps[&app_id("app")];
    assert_eq!(app.current.as_ref().unwrap().as_str(), "1");
    let update = &app.update[app.target.as_ref().unwrap()];
    assert_eq!(*update, crate::model::UpdateStatus::Rejected);
    let pulls =
        lab.engine.calls().iter().filter(|call| call.starts_with("pull r/") && call.ends_with(":2")).count();
    assert_eq!(pulls, 0, "nothing was fetched for it");
    // Somebody has removed it by hand.
    lab.engine.lose_volumes();
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@2 db@3 web@2 web@3");
}

#[tokio::test(start_paused = true)]
async fn volumes_are_asked_for_again_for_another_target() {
    let lab = on_release_1().await;
    lab.host.inside().locks.insert((1, service("web")));
    let mut without = target(2);
    let release = release_of(&mut without);
    release.volumes.clear();
    release.services.values_mut().for_each(|spec| spec.mounts.clear());
    lab.deliver(without);
    lab.pass(20).await;
    assert_eq!(reasons(&lab), [Reason::Locked], "it needs no volume");
    let mut other = target(3);
    let data = crate::model::VolumeName::parse("data").unwrap();
    let options = &mut release_of(&mut other).volumes.get_mut(&data).unwrap().driver_opts;
    options.insert("type".to_owned(), "nfs".to_owned());
    lab.deliver(other);
    lab.pass(20).await;
    assert_eq!((reasons(&lab), lab.runs().await), (vec![Reason::Refused], "db@1 web@1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_image_of_the_platform_is_fetched() {
    let lab = on_release_1().await;
    lab.deliver(changed(2, |web| web.platform = crate::model::Platform::parse("linux/amd64").ok()));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
    let pulls: Vec<_> = lab.engine.calls().into_iter().filter(|call| call.contains(":2")).collect();
    assert_eq!(pulls, ["pull r/db:2", "pull r/web:2 for linux/amd64"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_waits_for_the_end_of_the_stop_only_for_what_one_alone_can_have() {
    let port = |host_port| PortMapping {
        host_ip: String::new(),
        host_port,
        container_port: 80,
        protocol: Protocol::Tcp,
    };
    let at = |ipv4_address: Option<&str>, ipv6_address: Option<&str>, mac_address: Option<&str>| {
        let [ipv4_address, ipv6_address, mac_address] =
            [ipv4_address, ipv6_address, mac_address].map(|address| address.map(str::to_owned));
        let at =
            NetworkAttachment { ipv4_address, ipv6_address, mac_address, ..NetworkAttachment::default() };
        NetworkMode::Networks([(NetworkName::parse("default").unwrap(), at)].into())
    };
    for (ports, network_mode, swaps) in [
        (vec![], at(None, None, None), 2),
        (vec![], NetworkMode::Host, 2),
        (vec![port(None)], at(None, None, None), 2),
        (vec![port(None), port(Some(8080))], at(None, None, None), 1),
        (vec![], at(Some("172.20.0.9"), None, None), 1),
        (vec![], at(None, Some("fd00::9"), None), 1),
        (vec![], at(None, None, Some("02:42:ac:11:00:09")), 1),
    ] {
        let lab = on_release_1().await;
        let what = format!("{ports:?} {network_mode:?}");
        lab.deliver(changed(2, |web| (web.ports, web.network_mode) = (ports, network_mode)));
        lab.pass(60).await;
        assert_eq!(lab.runs().await, "db@2 web@2", "{what}");
        assert_eq!(lab.engine.swaps(), swaps, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_lock_folder_of_a_service_goes_with_its_last_container() {
    let lab = on_release_1().await;
    // What a crash has left of another time.
    lab.host.inside().folders.extend([(1, service("old")), (9, service("web"))]);
    let folders = |lab: &Lab| {
        let inside = lab.host.inside();
        inside.folders.iter().map(|(app, name)| format!("{app}/{name}")).collect::<Vec<_>>().join(" ")
    };
    let mut without_web = target(2);
    let TargetApp::Wanted(wanted) = without_web.apps.get_mut(&app_id("app")).unwrap() else { unreachable!() };
    wanted.release.as_mut().unwrap().services.remove(&service("web"));
    lab.host.inside().locks.insert((1, service("web")));
    lab.deliver(without_web.clone());
    lab.pass(20).await;
    assert_eq!((lab.runs().await.as_str(), folders(&lab).as_str()), ("(db@2) db@1 web@1", "1/db 1/web"));
    lab.host.inside().locks.clear();
    lab.pass(30).await;
    assert_eq!((lab.runs().await.as_str(), folders(&lab).as_str()), ("db@2", "1/db"));

    // Nobody knows any more which folder is whose: all stay.
    let (engine, _) = lab.cut();
    let lab = Lab::on(engine, Notebook::default());
    lab.host.inside().folders.extend([(1, service("db")), (9, service("web"))]);
    lab.pass(400).await;
    assert_eq!(folders(&lab), "1/db 9/web");
    lab.deliver(without_web.clone());
    lab.pass(30).await;
    assert_eq!(folders(&lab), "1/db");
    let mut none = without_web;
    none.apps.clear();
    lab.deliver(none);
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@2", "a target that names no app touches nothing");
    assert_eq!(folders(&lab), "1/db");
}

/// Each of them is another one, and none is ever accepted.
#[tokio::test(start_paused = true)]
async fn a_target_that_changes_again_and_again_fills_no_device() {
    let lab = on_release_1().await;
    let mut most = 0;
    for number in 10..60 {
        for name in ["db", "web"] {
            lab.engine.publish(&image(name, number), Behaviour::Runs);
        }
        lab.deliver(target(number));
        lab.pass(3).await;
        most = most.max(lab.containers().await);
    }
    assert!(most <= 6, "those of the good release, of the last and of the one before: {most}");
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@59 web@59");
}

#[tokio::test(start_paused = true)]
async fn volumes_are_asked_for_again_when_a_rejected_release_is_tried_again() {
    let lab = on_release_1().await;
    lab.engine.publish(&image("web", 2), Behaviour::Crashes);
    lab.deliver(target(2));
    lab.pass(600).await;
    assert_eq!(reasons(&lab), [Reason::Rejected]);
    let asked = || lab.engine.calls().iter().filter(|call| call.starts_with("list-volumes")).count();
    let before = asked();
    assert!(matches!(lab.order(Order::Retry { app: None }).await, Answer::Done(_)));
    lab.pass(20).await;
    assert_eq!(asked(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn layers_that_come_with_another_image_need_no_room() {
    let lab = on_release_1().await;
    let size = ImageSize { layers: vec![("big".to_owned(), 1 << 30)], ..ImageSize::default() };
    lab.host.inside().sizes.insert(image("web", 2), Ok(size));
    lab.host.inside().free = Some(1 << 30);
    lab.engine.make_of(&image("web", 3), &["big"]);
    lab.deliver(target(2));
    lab.pass(20).await;
    assert_eq!(reasons(&lab), [Reason::InsufficientDisk]);
    let mut both = target(2);
    let TargetApp::Wanted(mut other) = target(3).apps[&app_id("app")].clone() else { unreachable!() };
    other.app = crate::model::App { id: app_id("other"), number: 2, name: "other".into() };
    both.apps.insert(app_id("other"), TargetApp::Wanted(other));
    lab.deliver(both);
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@2 db@3 web@2 web@3");
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_stage_is_no_part_of_a_trial() {
    let short = |deadline: u64| {
        let mut target = target(2);
        release_of(&mut target).trial.deadline = Some(Duration::from_secs(deadline));
        target
    };
    let lab = on_release_1().await;
    let before = lab.engine.calls().len();
    lab.deliver(short(60));
    lab.pass(20).await;
    let first = lab.engine.calls()[before..].iter().position(|call| call.starts_with("stop ")).unwrap();
    // The call is given up after a while, or is answered late.
    for (deadline, frozen) in [(60, 200), (20, 40)] {
        let lab = on_release_1().await;
        lab.engine.fail(first, Fault::Freeze);
        lab.deliver(short(deadline));
        lab.pass(frozen).await;
        lab.engine.thaw();
        lab.pass(60).await;
        assert!(lab.engine.calls()[before + first].starts_with("stop "), "that one took {frozen} s");
        assert_eq!((lab.runs().await.as_str(), reasons(&lab)), ("db@2 web@2", vec![]), "{frozen} s");
    }
}

#[tokio::test(start_paused = true)]
async fn the_windows_of_a_release_are_read_from_the_host() {
    let lab = on_release_1().await;
    let window = Window::parse("02:00-04:00").unwrap();
    lab.host.inside().windows.insert(window.clone(), WindowState::Open);
    let mut second = target(2);
    release_of(&mut second).windows = BTreeSet::from([window]);
    lab.deliver(second);
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
}

/// They cost the engine a call, in each cycle.
#[tokio::test(start_paused = true)]
async fn ports_are_asked_for_before_a_trial_alone() {
    // One is on trial and then accepted, the other is on trial and then rejected.
    for behaviour in [Behaviour::Runs, Behaviour::Crashes] {
        let lab = on_release_1().await;
        lab.engine.publish(&image("web", 2), behaviour);
        lab.deliver(changed(2, |web| {
            let (host_ip, protocol) = (String::new(), Protocol::Tcp);
            web.ports = vec![PortMapping { host_ip, host_port: Some(80), container_port: 8080, protocol }];
        }));
        let asked = || lab.engine.calls().iter().filter(|call| call.starts_with("list-ports")).count();
        lab.pass(5).await;
        let before = asked();
        assert!(before > 0, "{behaviour:?}");
        lab.pass(3600).await;
        assert_eq!(asked(), before, "{behaviour:?}");
    }
}
