//! A network that takes the place of another one, whatever happens on the way.

use super::*;
use crate::model::Subnet;

/// `web` is on `lan`, whose ranges have addresses in common in all releases.
fn on_lan(number: u8) -> Target {
    let mut target = target(number);
    put_on_lan(&mut target, number);
    target
}

/// Puts `web` there.
pub(super) fn put_on_lan(target: &mut Target, number: u8) {
    let lan = NetworkName::parse("lan").unwrap();
    for app in target.apps.values_mut() {
        let TargetApp::Wanted(app) = app else { continue };
        let release = app.release.as_mut().unwrap();
        let subnets = vec![Subnet { subnet: Some(format!("10.0.0.0/{}", 20 + number)), ..Subnet::default() }];
        let config_hash = Some(format!("c{number}"));
        let spec = NetworkSpec { config_hash, subnets, ..NetworkSpec::default() };
        release.networks.insert(lan.clone(), spec);
        let web = release.services.get_mut(&ServiceName::parse("web").unwrap()).unwrap();
        web.network_mode =
            NetworkMode::Networks(BTreeMap::from([(lan.clone(), NetworkAttachment::default())]));
    }
}

/// The engine's names of the networks that are there.
pub(super) async fn networks(lab: &Lab) -> Vec<String> {
    let observed = crate::engine::Inspect::observe(&*lab.engine).await.unwrap();
    let mut names: Vec<_> = observed.networks.into_iter().map(|n| n.name).collect();
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn it_comes_and_the_old_one_goes() {
    let lab = Lab::new();
    for number in 1..=3 {
        lab.deliver(on_lan(number));
        lab.pass(30).await;
        assert_eq!(lab.runs().await, format!("db@{number} web@{number}"));
        assert_eq!(networks(&lab).await, ["1_default".to_owned(), format!("1_lan_c{number}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_release_gives_it_back() {
    for bad in ["db", "web"] {
        let lab = Lab::new();
        lab.engine.publish(&image(bad, 2), Behaviour::Crashes);
        lab.deliver(on_lan(1));
        lab.pass(30).await;
        let before = crate::engine::Inspect::observe(&*lab.engine).await.unwrap().services;
        for service in ["db", "web"] {
            lab.engine.cut_registry(&image(service, 1));
        }
        lab.deliver(on_lan(2));
        lab.pass(300).await;
        assert_eq!(lab.runs().await, "db@1 web@1", "{bad}");
        assert_eq!(networks(&lab).await, ["1_default", "1_lan_c1"]);
        let after = crate::engine::Inspect::observe(&*lab.engine).await.unwrap().services;
        let ids = |all: Vec<crate::model::ObservedService>| {
            all.into_iter().map(|s| s.container).collect::<BTreeSet<_>>()
        };
        assert_eq!(ids(after), ids(before), "{bad}: the stopped containers came back");
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_takes_a_release_back() {
    let lab = Lab::new();
    for number in 1..=2 {
        lab.deliver(on_lan(number));
        lab.pass(30).await;
    }
    lab.order(Order::Rollback { app: None }).await;
    lab.pass(60).await;
    assert_eq!(lab.runs().await, "db@1 web@1");
    assert_eq!(networks(&lab).await, ["1_default", "1_lan_c1"]);
}

/// One call of the update goes wrong, and soon after the agent is cut off.
#[tokio::test(start_paused = true)]
async fn whatever_call_fails_it_ends_well() {
    for (is_bad, right) in [(false, 2), (true, 1)] {
        for n in 0..50 {
            for fault in [Wrong::Error, Wrong::ErrorAfter] {
                let lab = Lab::new();
                lab.deliver(on_lan(1));
                lab.pass(30).await;
                if is_bad {
                    lab.engine.publish(&image("web", 2), Behaviour::Crashes);
                }
                lab.engine.fail(n, fault);
                lab.deliver(on_lan(2));
                lab.pass(2).await;
                let (engine, notebook) = lab.cut();
                let lab = Lab::on(engine, notebook);
                lab.deliver(on_lan(2));
                lab.pass(900).await;
                let why = format!("call {n}, {fault:?}, bad {is_bad}");
                assert_eq!(lab.runs().await, format!("db@{right} web@{right}"), "{why}");
                assert_eq!(
                    networks(&lab).await,
                    ["1_default".to_owned(), format!("1_lan_c{right}")],
                    "{why}"
                );
            }
        }
    }
}
