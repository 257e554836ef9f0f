//! A service that shares the network of another one follows it, whatever happens to that one.

use super::*;
use crate::engine::Inspect;
use crate::model::{ContainerId, ObservedService};

/// `web` shares the network of `db`.
fn shared(number: u8) -> Target {
    let mut target = target(number);
    share(&mut target, "web", "db");
    target
}

/// Lets one service share the network of another one.
pub(super) fn share(target: &mut Target, guest: &str, other: &str) {
    for app in target.apps.values_mut() {
        let TargetApp::Wanted(app) = app else { continue };
        let services = &mut app.release.as_mut().unwrap().services;
        let guest = services.get_mut(&ServiceName::parse(guest).unwrap()).unwrap();
        guest.network_mode = NetworkMode::Service(ServiceName::parse(other).unwrap());
    }
}

async fn container(lab: &Lab, service: &str) -> ObservedService {
    let services = lab.engine.observe().await.unwrap().services;
    services.into_iter().find(|s| s.service.as_str() == service).unwrap()
}

/// How often a call was made for this container.
fn calls(lab: &Lab, verb: &str, id: &ContainerId) -> usize {
    let call = format!("{verb} {id}");
    lab.engine.calls().iter().filter(|made| **made == call).count()
}

async fn assert_together(lab: &Lab, why: &str) {
    let (db, web) = (container(lab, "db").await, container(lab, "web").await);
    assert_eq!(are_together(lab, &web, &db).await, Ok(()), "{why}");
}

/// Whether a container was created to share the network of this other one, which runs, and was started after it;
/// what is so otherwise.
pub(super) async fn are_together(
    lab: &Lab,
    guest: &ObservedService,
    other: &ObservedService,
) -> Result<(), String> {
    if guest.joins.values().ne([&other.container]) {
        return Err(format!("it joins {:?} and not {}", guest.joins, other.container));
    }
    let of = lab.engine.started(&other.container).await.unwrap();
    let own = lab.engine.started(&guest.container).await.unwrap();
    if of.is_some() && own > of {
        Ok(())
    } else {
        Err(format!("started at {own:?}, and the other one at {of:?}"))
    }
}

#[tokio::test(start_paused = true)]
async fn it_follows_through_updates_and_is_left_alone_else() {
    let lab = Lab::new();
    lab.deliver(shared(1));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    assert_together(&lab, "installed").await;
    lab.deliver(shared(2));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
    assert_together(&lab, "updated").await;
    let (web, writes) = (container(&lab, "web").await, lab.notebook.0.lock().unwrap().writes);
    lab.pass(3600).await;
    assert_eq!(container(&lab, "web").await, web);
    assert_eq!(calls(&lab, "stop", &web.container), 0);
    assert_eq!(lab.notebook.0.lock().unwrap().writes, writes, "nothing is written at rest");
}

#[tokio::test(start_paused = true)]
async fn it_is_restarted_once_when_the_other_one_was() {
    let lab = Lab::new();
    lab.deliver(shared(1));
    lab.pass(20).await;
    let (db, web) = (container(&lab, "db").await, container(&lab, "web").await);
    for times in 1..=3 {
        lab.engine.restart(&db.container);
        lab.pass(60).await;
        assert_together(&lab, "restarted").await;
        assert_eq!(calls(&lab, "stop", &web.container), times, "once each time");
    }
    // An agent that was not there meanwhile finds it all the same.
    let (engine, notebook) = lab.cut();
    engine.restart(&db.container);
    let lab = Lab::on(engine, notebook);
    lab.deliver(shared(1));
    lab.pass(60).await;
    assert_together(&lab, "while no agent ran").await;
    assert_eq!(calls(&lab, "stop", &web.container), 4);
    // One that was not left behind is left alone by the next agent, also without its memory.
    let (engine, _) = lab.cut();
    let lab = Lab::on(engine, Notebook::default());
    lab.deliver(shared(1));
    lab.pass(60).await;
    assert_eq!(calls(&lab, "stop", &web.container), 4);
}

#[tokio::test(start_paused = true)]
async fn it_is_made_anew_when_the_other_one_was() {
    let lab = Lab::new();
    lab.deliver(shared(1));
    lab.pass(20).await;
    let before = container(&lab, "web").await;
    lab.engine.meddle(|services| services.retain(|s| s.service.as_str() != "db"));
    lab.pass(20).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    assert_together(&lab, "db was removed").await;
    assert_ne!(container(&lab, "web").await.container, before.container);
    lab.engine.meddle(|services| services.retain(|s| s.service.as_str() != "web"));
    lab.pass(20).await;
    assert_together(&lab, "web was removed").await;
}

#[tokio::test(start_paused = true)]
async fn both_come_back_when_a_release_is_bad() {
    for bad in ["db", "web"] {
        let lab = Lab::new();
        lab.engine.publish(&image(bad, 2), Behaviour::Crashes);
        lab.deliver(shared(1));
        lab.pass(20).await;
        let before = (container(&lab, "db").await.container, container(&lab, "web").await.container);
        lab.deliver(shared(2));
        lab.pass(120).await;
        assert_eq!(lab.runs().await, "db@1 web@1", "{bad}");
        assert_together(&lab, bad).await;
        let after = (container(&lab, "db").await.container, container(&lab, "web").await.container);
        assert_eq!(after, before, "{bad}: the stopped containers came back");
    }
}
