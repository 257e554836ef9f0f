//! Containers are introduced to the supervisor API, and lose no key by a restart of the agent.

use super::*;
use crate::engine::Inspect;
use crate::model::{ApiKey, ObservedService, OfService, Power};

/// `web` asks for the supervisor API, on the engine's default bridge.
fn asking(number: u8) -> Target {
    let mut target = target(number);
    for app in target.apps.values_mut() {
        let TargetApp::Wanted(app) = app else { continue };
        let services = &mut app.release.as_mut().unwrap().services;
        let web = services.get_mut(&ServiceName::parse("web").unwrap()).unwrap();
        web.labels.insert("io.balena.features.supervisor-api".into(), "1".into());
        web.network_mode = NetworkMode::Bridge;
    }
    target
}

async fn web(lab: &Lab) -> ObservedService {
    let services = lab.engine.observe().await.unwrap().services;
    services.into_iter().find(|s| s.service.as_str() == "web").unwrap()
}

fn starts(lab: &Lab) -> usize {
    lab.engine.calls().iter().filter(|call| call.starts_with("start ")).count()
}

fn restart() -> Order {
    let service = OfService { app: None, service: "web".into() };
    Order::Restart { service, is_forced: false }
}

#[tokio::test(start_paused = true)]
async fn a_service_gets_a_key_and_an_address_that_outlive_the_agent() {
    let lab = Lab::new();
    lab.host.inside().device.supervisor_port = Some(48484);
    lab.deliver(asking(1));
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    let before = web(&lab).await;
    assert_eq!(before.introduced.as_deref(), Some("172.17.0.1:48484#1"));
    let view = lab.api_view.borrow().clone();
    let clients: Vec<_> = view.clients.iter().map(|c| (c.service.as_str(), c.key.secret.as_str())).collect();
    assert_eq!(clients, [("web", "key-1")]);
    let doors: Vec<_> = view.doors.iter().map(|door| door.address.to_string()).collect();
    assert_eq!((doors, view.containers.len()), (vec!["172.17.0.1".to_owned()], 2));

    // The agent starts again, and nothing changes.
    let (engine, notebook) = lab.cut();
    let host = Host::default();
    host.inside().device.supervisor_port = Some(48484);
    let lab = Lab::booted(engine, Arc::new(host), notebook, "boot", PlanSettings::default());
    lab.deliver(asking(1));
    lab.pass(60).await;
    assert_eq!(web(&lab).await, before);
    assert_eq!(*lab.api_view.borrow(), view);

    // Another key: the container is created again with it, at its next start.
    let key = ApiKey { id: "x".into(), secret: "y".into() };
    let (app, service) = (app_id("app"), ServiceName::parse("web").unwrap());
    let answer = lab.order(Order::NewKey { app, service, key }).await;
    assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
    assert_eq!(lab.api_view.borrow().clients[0].key.secret, "y", "at once");
    lab.pass(60).await;
    assert_eq!(web(&lab).await.container, before.container);
    assert!(matches!(lab.order(restart()).await, Answer::Done(_)));
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    assert_eq!(web(&lab).await.introduced.as_deref(), Some("172.17.0.1:48484#x"));
}

/// Containers keep the key that they have while the owner switches the API off, so it must be good when it is on again.
#[tokio::test(start_paused = true)]
async fn a_key_outlives_a_policy_that_is_switched_off_and_on() {
    let lab = Lab::new();
    lab.host.inside().device.supervisor_port = Some(48484);
    lab.deliver(asking(1));
    lab.pass(60).await;
    let key = ApiKey { id: "x".into(), secret: "y".into() };
    let (app, service) = (app_id("app"), ServiceName::parse("web").unwrap());
    assert!(matches!(lab.order(Order::NewKey { app, service, key }).await, Answer::Done(_)));

    let (engine, notebook) = lab.cut();
    let lab = Lab::booted(engine, Arc::new(Host::default()), notebook, "boot", PlanSettings::default());
    lab.deliver(asking(2));
    lab.pass(60).await;
    assert_eq!((lab.runs().await.as_str(), lab.api_view.borrow().clients.len()), ("db@2 web@2", 0));

    let (engine, notebook) = lab.cut();
    let host = Host::default();
    host.inside().device.supervisor_port = Some(48484);
    let lab = Lab::booted(engine, Arc::new(host), notebook, "boot", PlanSettings::default());
    lab.deliver(asking(3));
    lab.pass(60).await;
    assert_eq!(lab.api_view.borrow().clients[0].key.secret, "y");
}

#[tokio::test(start_paused = true)]
async fn without_the_owners_word_there_is_no_api() {
    let lab = Lab::new();
    lab.deliver(asking(1));
    lab.pass(60).await;
    assert_eq!(web(&lab).await.introduced, None);
    assert_eq!(*lab.api_view.borrow(), ApiView::default());
    let key = ApiKey { id: "x".into(), secret: "y".into() };
    let (app, service) = (app_id("app"), ServiceName::parse("web").unwrap());
    assert!(matches!(lab.order(Order::NewKey { app, service, key }).await, Answer::NotFound(_)));
}

#[tokio::test(start_paused = true)]
async fn a_reboot_waits_for_locks_and_holds() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(60).await;
    let reboot = |is_forced| Order::Power { power: Power::Reboot, is_forced };
    lab.host.inside().locks.insert((1, ServiceName::parse("web").unwrap()));
    assert!(matches!(lab.order(reboot(false)).await, Answer::Held(_)));
    assert!(matches!(lab.order(reboot(true)).await, Answer::Done(_)));
    assert_eq!(lab.host.inside().ended, [Power::Reboot]);
    lab.order(Order::Hold(Hold { reason: "audit".into(), since: "noon".into() })).await;
    assert!(matches!(lab.order(reboot(true)).await, Answer::Held(_)));
    assert_eq!(lab.host.inside().ended.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn all_services_of_an_app_are_started_again() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(60).await;
    let before = starts(&lab);
    let answer = lab.order(Order::RestartApp { app: app_id("app"), is_forced: false }).await;
    assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
    lab.pass(60).await;
    assert_eq!((starts(&lab), lab.runs().await.as_str()), (before + 2, "db@1 web@1"));
}

/// Once removed, it could not be created again.
#[tokio::test(start_paused = true)]
async fn a_container_of_a_refused_app_keeps_its_old_key() {
    let lab = Lab::new();
    lab.host.inside().device.supervisor_port = Some(48484);
    lab.deliver(asking(1));
    lab.pass(60).await;
    let before = web(&lab).await;
    let mut refused = asking(1);
    let refusals = vec![Refusal { path: "services.web.pid".into(), why: "not supported".into() }];
    let app = RefusedApp { name: "demo".into(), release: "2".into(), refusals };
    refused.apps.insert(app_id("app"), TargetApp::Refused(app));
    lab.deliver(refused);
    lab.pass(60).await;
    let key = ApiKey { id: "x".into(), secret: "y".into() };
    let (app, service) = (app_id("app"), ServiceName::parse("web").unwrap());
    assert!(matches!(lab.order(Order::NewKey { app, service, key }).await, Answer::Done(_)));
    let started = starts(&lab);
    assert!(matches!(lab.order(restart()).await, Answer::Done(_)));
    lab.pass(60).await;
    assert_eq!((lab.runs().await.as_str(), starts(&lab)), ("db@1 web@1", started + 1));
    let after = web(&lab).await;
    assert_eq!((after.container, after.introduced), (before.container, before.introduced));
}
