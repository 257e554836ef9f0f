//! A call outlives its caller: the engine goes on with it, and a fence waits for it.

use std::time::Duration;

use cotter::engine::Operate as _;
use cotter::model::{ContainerState, RestartPolicy, ServiceSpec};

use crate::{Bench, created, seen, spec};

/// How often it is tried on an engine: each time the fence meets the start at another moment.
const ROUNDS: u64 = 12;

pub(crate) async fn starts<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    let lasting = ServiceSpec { restart: RestartPolicy::Always, ..spec(&images.well, 17) };
    for round in 0..ROUNDS {
        let id = created(engine, "web", &lasting).await;
        bench.start_unheard(&id).await;
        tokio::time::sleep(Duration::from_millis(20 * (round / 2))).await;
        engine.fence(&id, Duration::ZERO).await.unwrap();
        for _ in 0..20 {
            let now = seen(engine, "web").await.unwrap().state;
            let is_down = matches!(now, ContainerState::Created | ContainerState::Exited { .. });
            assert!(is_down, "round {round}: it is {now:?} after the fence");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        engine.remove(&id).await.unwrap();
    }
    let id = created(engine, "web", &lasting).await;
    engine.fence(&id, Duration::ZERO).await.unwrap();
    assert_eq!(seen(engine, "web").await.unwrap().state, ContainerState::Created, "nothing was under way");
    engine.remove(&id).await.unwrap();
    engine.fence(&id, Duration::ZERO).await.expect("it is gone already");
}
