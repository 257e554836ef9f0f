//! What the host does not let a release have, when that shows only right before a step.

use super::*;
use crate::model::ContainerId;

fn mount(path: &str, is_read_only: bool) -> Mount {
    let source = MountSource::Host(path.to_owned());
    Mount { source, target: "/x".into(), is_read_only, options: MountOptions::default() }
}

/// The target, whose service `web` mounts a path of the host.
fn mounting(number: u8, path: &str, is_read_only: bool) -> Target {
    let mut target = target(number);
    let TargetApp::Wanted(app) = target.apps.get_mut(&app_id("app")).unwrap() else { unreachable!() };
    let services = &mut app.release.as_mut().unwrap().services;
    services.get_mut(&ServiceName::parse("web").unwrap()).unwrap().mounts.push(mount(path, is_read_only));
    target
}

/// The target with an app beside it, whose `web` of release 3 mounts a path of the host.
fn beside(mut target: Target, path: &str, is_read_only: bool) -> Target {
    let mut other = mounting(3, path, is_read_only).apps.remove(&app_id("app")).unwrap();
    let TargetApp::Wanted(app) = &mut other else { unreachable!() };
    app.app = App { id: app_id("other"), number: 2, name: "other".into() };
    target.apps.insert(app_id("other"), other);
    target
}

fn whys(lab: &Lab) -> Vec<String> {
    lab.report.borrow().waiting.iter().map(|w| w.why.clone()).collect()
}

async fn container_of(lab: &Lab, service: &str, release: &str) -> ContainerId {
    let observed = crate::engine::Inspect::observe(&*lab.engine).await.unwrap().services;
    let mut found =
        observed.into_iter().filter(|s| s.service.as_str() == service && s.release.as_str() == release);
    found.next().unwrap().container
}

fn barred(lab: &Lab, path: &str) {
    lab.host.inside().barred.insert(path.to_owned());
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_mounted_is_not_created() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    barred(&lab, "/srv/x");
    lab.deliver(mounting(2, "/srv/x", false));
    lab.pass(30).await;
    assert_eq!(lab.runs().await, "(db@2) db@1 web@1");
    assert!(whys(&lab).iter().any(|why| why.contains("/srv/x may not be mounted")), "{:?}", whys(&lab));
    lab.host.inside().barred.clear();
    lab.pass(300).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
}

#[tokio::test(start_paused = true)]
async fn a_path_that_changed_since_the_container_was_made_is_not_mounted_and_stops_nothing() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    let web = ServiceName::parse("web").unwrap();
    lab.host.inside().locks.insert((1, web));
    lab.deliver(mounting(2, "/srv/x", false));
    lab.pass(30).await;
    assert_eq!(lab.runs().await, "(db@2) (web@2) db@1 web@1", "it is made, and waits");
    lab.host.inside().links.insert("/srv/x".into(), "/etc".into());
    barred(&lab, "/etc");
    let running = container_of(&lab, "web", "1").await;
    let calls = lab.engine.calls().len();
    lab.host.inside().locks.clear();
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    let why = "release 2 was rejected: web does not start: /etc may not be mounted";
    assert_eq!(whys(&lab), [why]);
    let stops = format!("stop {running}");
    assert!(!lab.engine.calls()[calls..].contains(&stops), "what cannot start stops nothing");
    lab.host.inside().links.clear();
    lab.order(Order::Retry { app: None }).await;
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
}

#[tokio::test(start_paused = true)]
async fn a_service_does_not_start_below_a_folder_that_another_app_may_write_to() {
    for (upper, is_read_only, lower, runs) in [
        ("/srv", false, "/srv/x", "(web@2) db@2 db@3 web@3"),
        ("/srv", true, "/srv/x", "db@2 db@3 web@2 web@3"),
        ("/srv/x", false, "/srv/x", "db@2 db@3 web@2 web@3"),
        ("/srv", false, "/srvx", "db@2 db@3 web@2 web@3"),
        ("/link", false, "/srv/x", "(web@2) db@2 db@3 web@3"),
        // What is mounted below a folder that is mounted read-only may be written to.
        ("/srv", true, "/srv/disk/x", "(web@2) db@2 db@3 web@3"),
        ("/srv", true, "/srv/disk", "db@2 db@3 web@2 web@3"),
    ] {
        let lab = Lab::new();
        lab.host.inside().links.insert("/link".into(), "/srv".into());
        lab.deliver(beside(mounting(2, lower, true), upper, is_read_only));
        lab.pass(60).await;
        assert_eq!(lab.runs().await, runs, "{lower} below {upper}");
        let why = "service web of app other may write into a folder above \"/srv/";
        let is_reported = whys(&lab).iter().any(|reported| reported.contains(why));
        assert_eq!(is_reported, runs.starts_with('('), "{:?}", whys(&lab));
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_may_write_above_does_not_start_beside_one_that_runs() {
    let lab = Lab::new();
    lab.deliver(mounting(1, "/srv/x", true));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    lab.deliver(beside(mounting(1, "/srv/x", true), "/srv", false));
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "(web@3) db@1 db@3 web@1");
    let why = "it may write into a folder above \"/srv/x\", which service web of app app mounts";
    assert!(whys(&lab).iter().any(|reported| reported.contains(why)), "{:?}", whys(&lab));
}

/// The predecessor is down when its successor starts.
#[tokio::test(start_paused = true)]
async fn a_service_may_mount_less_than_it_did() {
    let lab = Lab::new();
    lab.deliver(mounting(1, "/srv", false));
    lab.pass(20).await;
    lab.deliver(mounting(2, "/srv/x", false));
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
    lab.deliver(mounting(3, "/srv", false));
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@3 web@3");
}

#[tokio::test(start_paused = true)]
async fn a_network_with_addresses_of_the_host_is_not_made() {
    let lab = Lab::new();
    barred(&lab, "10.0.0.0/22");
    let mut wanted = target(2);
    networks::put_on_lan(&mut wanted, 2);
    lab.deliver(wanted);
    lab.pass(30).await;
    assert_eq!(networks::networks(&lab).await, ["1_default"]);
    assert!(
        whys(&lab).iter().any(|why| why.contains("this device's eth0 (10.0.0.0/22)")),
        "{:?}",
        whys(&lab)
    );
    lab.host.inside().barred.clear();
    lab.pass(300).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
}

/// Of one release the reader sees what is written; here a link makes one path lead below the other.
#[tokio::test(start_paused = true)]
async fn services_of_one_release_and_a_service_itself_do_not_mount_below_what_they_may_write_to() {
    for services in [["web", "db"], ["web", "web"]] {
        let lab = Lab::new();
        lab.host.inside().links.insert("/srv/link".into(), "/srv/a/x".into());
        let mut wanted = target(1);
        let TargetApp::Wanted(app) = wanted.apps.get_mut(&app_id("app")).unwrap() else { unreachable!() };
        let release = app.release.as_mut().unwrap();
        for (service, path) in services.iter().zip(["/srv/link", "/srv/a"]) {
            let spec = release.services.get_mut(&ServiceName::parse(*service).unwrap()).unwrap();
            spec.mounts.push(mount(path, false));
        }
        lab.deliver(wanted);
        lab.pass(60).await;
        assert_eq!(lab.runs().await, "(web@1) db@1", "{services:?}");
        assert!(whys(&lab).iter().any(|why| why.contains("a folder above \"/srv/a/x\"")), "{:?}", whys(&lab));
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_waits_for_the_end_of_a_container_whose_mounts_are_unknown() {
    let lab = Lab::new();
    lab.deliver(mounting(1, "/srv", false));
    lab.pass(20).await;
    // The ledger is lost and the target has changed: what runs is of no release that is known.
    let (engine, _) = lab.cut();
    let lab = Lab::on(engine, Notebook::default());
    let mut wanted = mounting(2, "/srv/x", false);
    let TargetApp::Wanted(app) = wanted.apps.get_mut(&app_id("app")).unwrap() else { unreachable!() };
    let services = &mut app.release.as_mut().unwrap().services;
    let web = services.remove(&ServiceName::parse("web").unwrap()).unwrap();
    services.insert(ServiceName::parse("another").unwrap(), web);
    lab.deliver(wanted);
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "another@2 db@2");
    let another = container_of(&lab, "another", "2").await;
    let calls = lab.engine.calls();
    let started = calls.iter().position(|call| *call == format!("start {another}")).unwrap();
    let stopped = calls.iter().rposition(|call| call.starts_with("stop ")).unwrap();
    assert!(stopped < started, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_start_stops_nothing() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    let running = container_of(&lab, "web", "1").await;
    lab.host.inside().locks.insert((1, ServiceName::parse("web").unwrap()));
    lab.deliver(mounting(2, "/srv/x", false));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "(db@2) (web@2) db@1 web@1");
    barred(&lab, "/srv/x");
    let calls = lab.engine.calls().len();
    lab.host.inside().locks.clear();
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    let calls = lab.engine.calls()[calls..].to_vec();
    assert!(!calls.contains(&format!("stop {running}")), "{calls:?}");
}
