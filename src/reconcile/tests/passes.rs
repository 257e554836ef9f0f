//! What the engine is given to show registries.

use std::time::Duration;

use super::{Lab, image, target};
use crate::engine::EngineError;
use crate::model::{Reason, RegistryLogin, RegistryPass};

/// A device on release 1 whose registry wants a token for `web` of release 2.
async fn lab() -> Lab {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    let login = RegistryLogin {
        cloud: String::new(),
        username: "d".into(),
        password: "hunter2".into(),
        registries: Vec::new(),
    };
    let pass = RegistryPass::Token { token: "t".into(), life: Duration::from_secs(60), login };
    lab.host.inside().passes.insert(image("web", 2), Ok(pass));
    lab
}

fn pulls(lab: &Lab) -> Vec<String> {
    lab.engine.calls().into_iter().filter(|call| call.starts_with("pull r/web:2")).collect()
}

#[tokio::test(start_paused = true)]
async fn the_engine_shows_a_registry_what_it_asks_for() {
    let lab = lab().await;
    lab.deliver(target(2));
    lab.pass(30).await;
    assert_eq!(lab.runs().await, "db@2 web@2");
    assert_eq!(pulls(&lab), ["pull r/web:2 with a token"]);
}

#[tokio::test(start_paused = true)]
async fn a_download_that_outlives_its_token_is_begun_again_with_the_login() {
    let lab = lab().await;
    lab.engine.take_no_tokens();
    lab.engine.slow(&image("web", 2), Duration::from_secs(61));
    lab.deliver(target(2));
    lab.pass(70).await;
    let waiting = lab.report.borrow().waiting.clone();
    assert_eq!(lab.runs().await, "db@1 web@1", "{waiting:?}");
    lab.pass(100).await;
    assert_eq!(pulls(&lab), ["pull r/web:2 with a token", "pull r/web:2 with the login"]);
    assert_eq!(lab.runs().await, "db@2 web@2");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_at_once_does_not_lead_to_the_login() {
    let lab = lab().await;
    lab.engine.take_no_tokens();
    lab.deliver(target(2));
    lab.pass(4000).await;
    assert!(pulls(&lab).len() > 2, "it is tried again: {:?}", pulls(&lab));
    assert!(pulls(&lab).iter().all(|call| call == "pull r/web:2 with a token"), "{:?}", pulls(&lab));
    assert_eq!(lab.runs().await, "db@1 web@1");
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_of_the_registry_the_engine_is_not_asked() {
    let lab = lab().await;
    let message = "it wants the device's key to be shown to evil.example".to_owned();
    let error = EngineError::RegistryAuth { image: "r/web:2".into(), message };
    lab.host.inside().passes.insert(image("web", 2), Err(error));
    lab.deliver(target(2));
    lab.pass(30).await;
    assert_eq!(pulls(&lab), Vec::<String>::new());
    let waiting = lab.report.borrow().waiting.clone();
    assert!(
        waiting.iter().any(|w| w.reason == Reason::Backoff && w.why.contains("shown to evil.example")),
        "{waiting:?}"
    );
    assert_eq!(lab.runs().await, "db@1 web@1");
}
