//! Behaviour of the fake that the contract cannot check on a real engine.

use std::pin::pin;

use futures_util::StreamExt;

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::*;
use crate::engine::sample::Sample;
use crate::engine::{Inspect as _, Notice, Operate as _};
use crate::model::{NetworkMode, RegistryPass, RestartPolicy, ServiceSpec, SpecHash};

fn image() -> ImageRef {
    ImageRef::parse("r.example/web:1").unwrap()
}

/// Creates a container of `name` that the engine keeps running as `restart` says.
async fn create(engine: &Fake, name: &str, restart: RestartPolicy) -> ContainerId {
    let spec = ServiceSpec {
        network_mode: NetworkMode::None,
        restart,
        ..ServiceSpec::bare(SpecHash::from_sha256(1, [1; 32]), image())
    };
    engine.create(Sample::new(name).container(&spec)).await.unwrap();
    engine.observe().await.unwrap().services.last().unwrap().container.clone()
}

async fn states(engine: &Fake) -> Vec<String> {
    let seen = engine.observe().await.unwrap();
    let all = seen.services.iter().chain(&seen.parked);
    let mut states: Vec<_> = all.map(|seen| format!("{} {:?}", seen.service, seen.state)).collect();
    states.sort();
    states
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_was_down_keeps_its_containers_and_restarts_those_with_a_policy() {
    let engine = Fake::new(Instance::parse("fake").unwrap());
    engine.publish(&image(), Behaviour::Runs);
    engine.pull(&image(), None, &RegistryPass::Nothing, mpsc::channel(1).0).await.unwrap();
    let mut ids = BTreeMap::new();
    for (name, restart) in [
        ("always", RestartPolicy::Always),
        ("job", RestartPolicy::No),
        ("killed", RestartPolicy::Always),
        ("new", RestartPolicy::Always),
        ("parked", RestartPolicy::UnlessStopped),
        ("retried", RestartPolicy::OnFailure { retries: 3 }),
        ("stopped", RestartPolicy::UnlessStopped),
    ] {
        let id = create(&engine, name, restart).await;
        if name != "new" {
            engine.start(&id).await.unwrap();
        }
        ids.insert(name, id);
    }
    engine.stop(&ids["stopped"], Duration::ZERO).await.unwrap();
    engine.kill(&ids["killed"]).await.unwrap();
    engine.park(&ids["parked"]).await.unwrap();

    let mut events = pin!(engine.events());
    engine.fail(1, Fault::Down);
    engine.observe().await.expect("not yet");
    for call in [engine.start(&ids["stopped"]).await, engine.start(&ids["new"]).await] {
        assert!(matches!(call, Err(EngineError::Unreachable { .. })), "{call:?}");
    }
    assert!(engine.observe().await.is_err(), "it stays away");
    assert!(matches!(events.next().await, Some(Err(EngineError::Unreachable { .. }))));
    assert!(events.next().await.is_none());
    let mut again = pin!(engine.events());
    assert!(matches!(again.next().await, Some(Err(EngineError::Unreachable { .. }))));

    let mut events = {
        engine.revive();
        pin!(engine.events())
    };
    assert_eq!(
        states(&engine).await,
        [
            "always Running",
            "job Exited { code: 137 }",
            "killed Exited { code: 137 }",
            "new Created",
            "parked Running",
            "retried Exited { code: 137 }",
            "stopped Exited { code: 0 }",
        ]
    );
    engine.start(&ids["new"]).await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(Notice::Changed))));
}
