//! What a container leaves, as the real engine clears it away or does not; the fake has no such remains.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cotter::engine::Operate;
use cotter::model::{ContainerState, ImageRef};

use crate::real::docker;
use crate::support::{EngineProxy, Lab};
use crate::{created, pull, seen, spec, started};

/// The engine's answer to the stop is kept back until the start is asked.
#[tokio::test]
async fn a_successor_starts_while_the_engine_clears_away() {
    let lab = Lab::new("swap");
    let image = ImageRef::parse(lab.image("r1")).unwrap();
    let socket = lab.dir().join("engine.sock");
    let proxy = EngineProxy::start(lab.docker().socket(), &socket);
    let engine = docker(&socket, &lab, &lab.instance("a"));
    pull(&engine, &image).await.unwrap();
    let old = started(&engine, "web", &spec(&image, 1)).await;
    let new = created(&engine, "next", &spec(&image, 2)).await;
    let grace = Duration::from_secs(2);
    proxy.hold(|call| call.ends_with("/stop"), |call| call.ends_with("/start"));
    let (stopped, started) = engine.swap(&old, grace, &new).await;
    assert!(matches!((&stopped, &started), (Ok(()), Some(Ok(())))), "{stopped:?}, {started:?}");
    assert_eq!(seen(&engine, "next").await.unwrap().state, ContainerState::Running);

    // What is refused then may have asked for something that was not free yet: it is asked once more after the stop.
    let starts = || proxy.calls().iter().filter(|call| call.ends_with("/start")).count();
    let (before, is_first) = (starts(), AtomicBool::new(true));
    proxy.hold(|call| call.ends_with("/stop"), |call| call.ends_with("/start"));
    proxy.refuse(move |call| call.ends_with("/start") && is_first.swap(false, Ordering::SeqCst));
    let (stopped, started) = engine.swap(&new, grace, &old).await;
    assert!(matches!((&stopped, &started), (Ok(()), Some(Ok(())))), "{stopped:?}, {started:?}");
    assert_eq!(starts() - before, 2);
    // And no more than that.
    proxy.refuse(|call| call.ends_with("/start"));
    let (stopped, started) = engine.swap(&old, grace, &new).await;
    assert!(matches!((&stopped, &started), (Ok(()), Some(Err(_)))), "{stopped:?}, {started:?}");
}

/// An engine that was killed in the middle of a start may find the folder that its runtime had made, for ever.
#[tokio::test]
async fn a_container_that_remains_keep_from_starting_is_seen_as_dead() {
    let folders = ["/run/containerd", "/run/docker/containerd/daemon"]
        .map(|root| Path::new(root).join("io.containerd.runtime.v2.task/moby"));
    let Some(folder) = folders.iter().find(|folder| folder.is_dir()) else {
        println!("skipped: the engine's runtime keeps its folders elsewhere");
        return;
    };
    let lab = Lab::new("remains");
    let image = ImageRef::parse(lab.image("r1")).unwrap();
    let engine = docker(lab.docker().socket(), &lab, &lab.instance("a"));
    pull(&engine, &image).await.unwrap();
    let spec = spec(&image, 1);
    let id = created(&engine, "web", &spec).await;
    let remains = folder.join(id.as_str());
    std::fs::create_dir(&remains).unwrap();
    let error = engine.start(&id).await.unwrap_err();
    std::fs::remove_dir(&remains).unwrap();
    assert!(error.to_string().contains("exists"), "{error}");
    let state = async || seen(&engine, "web").await.unwrap().state;
    assert_eq!(state().await, ContainerState::Dead);
    assert_eq!(state().await, ContainerState::Dead, "until something is done about it");
    // Somebody has cleared the folder away, and starts it by hand.
    lab.docker().run(&["start", id.as_str()]);
    assert_eq!(state().await, ContainerState::Running);
    engine.stop(&id, Duration::from_secs(2)).await.unwrap();
    assert!(matches!(state().await, ContainerState::Exited { .. }), "and it was no worse for it");
    engine.remove(&id).await.unwrap();
    started(&engine, "web", &spec).await;
    assert_eq!(state().await, ContainerState::Running);
}
