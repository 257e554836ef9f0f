//! One contract, two engines: the fake of the tests and the real Docker Engine are held to the same
//! list, so that what is proved with the fake holds on a device.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod fake;
mod files;
mod locks;
mod outlived;
mod real;
mod remains;
mod secrets;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use cotter::engine::{EngineError, Inspect, NewContainer, Notice, Operate, RunRecord};
use cotter::model::{
    App, AppId, Commit, ContainerId, ContainerState, Health, Healthcheck, ImageRef, Introduction, Isolation,
    LastEnd, Mount, MountOptions, MountSource, Namespace, NetworkAttachment, NetworkMode, NetworkName,
    NetworkSpec, Observed, ObservedService, PortMapping, Probe, Protocol, PullProgress, RegistryPass,
    RestartPolicy, ServiceName, ServiceSpec, SpecHash, Subnet, VolumeName, VolumeSpec,
};
use futures_util::StreamExt;
use tokio::sync::mpsc;

/// How long an engine may take to show the effect of a call.
const PATIENCE: Duration = Duration::from_secs(20);

const MISSING_NETWORK: &str = "a missing network shows at start, not at creation";

const ANOTHER_NETWORK: &str = "a network that was removed and created again is another one";

/// The images of the contract, by what their containers do.
struct Images {
    well: ImageRef,
    other: ImageRef,
    exit: ImageRef,
    unhealthy: ImageRef,
    slow: ImageRef,
    /// In a registry that answers, and not there.
    missing: ImageRef,
    /// In a registry that does not answer.
    nowhere: ImageRef,
}

/// What the contract needs besides the engine under test.
trait Bench {
    type Engine: Operate;

    fn engine(&self) -> &Self::Engine;

    /// Another instance on the same engine.
    fn neighbour(&self) -> &Self::Engine;

    fn images(&self) -> &Images;

    /// Makes a container that bears none of our labels; its id.
    fn foreign(&self) -> String;

    /// Whether the foreign container still runs.
    fn foreign_runs(&self, id: &str) -> bool;

    /// Sends the call that starts a container, and hangs up before the engine answers.
    async fn start_unheard(&self, id: &ContainerId);

    /// Kills a container's process behind our back.
    fn kill(&self, id: &ContainerId);

    /// Names of the app's volumes in the engine of this instance.
    fn volumes(&self) -> BTreeSet<String>;

    /// Makes a container look as if the power went while it was created.
    fn cut_short(&self, id: &ContainerId);

    /// On how many networks a container is.
    fn networks_of(&self, id: &ContainerId) -> usize;

    /// The engine's architecture, in the word that images have for it.
    fn architecture(&self) -> String;

    /// The layers of an image that is here.
    fn layers_of(&self, image: &ImageRef) -> BTreeSet<String>;

    /// An unused port of the loopback.
    fn free_port(&self) -> u16;

    /// The second number of the addresses of networks that say theirs.
    fn second(&self) -> u8 {
        214
    }

    /// Removes a network by `act`. One that the engine forgets while containers run on it is known to it again then,
    /// or it could not clear away what they have of it.
    async fn remembers<T>(&self, act: impl Future<Output = T>) -> T {
        act.await
    }

    /// Whether what a container joins is left to us, to start and to remove.
    fn leaves_joined_alone(&self) -> bool {
        true
    }

    /// Asserts what every engine should do; on one that is known to do otherwise, notes it.
    fn holds(&self, what: &str, is_so: bool, seen: &dyn Debug) {
        assert!(is_so, "{what}: {seen:?}");
    }
}

fn app() -> App {
    App { id: AppId::parse("0123456789abcdef0123456789abcdef").unwrap(), number: 7, name: "demo".into() }
}

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn network(name: &str) -> NetworkName {
    NetworkName::parse(name).unwrap()
}

fn volume(name: &str) -> VolumeName {
    VolumeName::parse(name).unwrap()
}

/// A spec with no network and no volume; `seed` tells specs apart.
fn spec(image: &ImageRef, seed: u8) -> ServiceSpec {
    ServiceSpec {
        network_mode: NetworkMode::None,
        restart: RestartPolicy::No,
        stop_grace: Some(Duration::from_secs(2)),
        ..ServiceSpec::bare(
            SpecHash::parse(format!("v1:{seed:02x}{}", "5".repeat(62))).unwrap(),
            image.clone(),
        )
    }
}

/// A network in a range of its own, as large as `bits` say: another one for runs and for engines beside each other.
fn lan(second: u8, bits: u8) -> NetworkSpec {
    let subnet = Some(format!("10.{second}.{}.0/{bits}", std::process::id() % 250));
    let subnets = vec![Subnet { subnet, ..Subnet::default() }];
    NetworkSpec { config_hash: Some(format!("c{bits}")), subnets, ..NetworkSpec::default() }
}

fn on(names: &[&str]) -> NetworkMode {
    NetworkMode::Networks(names.iter().map(|n| (network(n), NetworkAttachment::default())).collect())
}

async fn create<E: Operate>(engine: &E, name: &str, spec: &ServiceSpec) -> Result<(), EngineError> {
    create_with(engine, name, spec, &BTreeMap::new()).await
}

async fn reconnect<E: Operate>(
    engine: &E,
    name: &str,
    spec: &ServiceSpec,
    id: &ContainerId,
) -> Result<(), EngineError> {
    let joined = BTreeMap::new();
    with(name, spec, &joined, async |new| engine.reconnect(id, new).await).await
}

/// Creates a container that joins others.
async fn create_with<E: Operate>(
    engine: &E,
    name: &str,
    spec: &ServiceSpec,
    joined: &BTreeMap<ServiceName, ContainerId>,
) -> Result<(), EngineError> {
    with(name, spec, joined, async |new| engine.create(new).await).await
}

async fn with(
    name: &str,
    spec: &ServiceSpec,
    joined: &BTreeMap<ServiceName, ContainerId>,
    act: impl AsyncFnOnce(NewContainer<'_>) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let (app, release, service) = (app(), Commit::parse("abc123").unwrap(), service(name));
    let networks = BTreeMap::from([
        (network("default"), NetworkSpec::default()),
        (network("second"), NetworkSpec::default()),
        (network("third"), NetworkSpec::default()),
        // Who is connected to it needs its name only.
        (network("lan"), lan(0, 24)),
    ]);
    let volumes = BTreeMap::from([(volume("data"), VolumeSpec::default()), (volume("share"), share())]);
    let new = NewContainer {
        app: &app,
        release: &release,
        service: &service,
        spec,
        networks: &networks,
        volumes: &volumes,
        joined,
        introduction: &Introduction::default(),
    };
    act(new).await
}

/// Files of another machine that offers none, with a login.
fn share() -> VolumeSpec {
    let options =
        [("type", "cifs"), ("device", "//127.0.0.1/share"), ("o", "username=u,password=hunter2,vers=3.0")];
    let driver_opts = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    VolumeSpec { driver_opts, ..VolumeSpec::default() }
}

async fn pull<E: Operate>(engine: &E, image: &ImageRef) -> Result<Vec<PullProgress>, EngineError> {
    let (tx, mut rx) = mpsc::channel(1000);
    engine.pull(image, None, &RegistryPass::Nothing, tx).await?;
    let mut output = Vec::new();
    while let Some(progress) = rx.recv().await {
        output.push(progress);
    }
    Ok(output)
}

async fn look<E: Operate>(engine: &E) -> Observed {
    engine.observe().await.unwrap()
}

async fn seen<E: Operate>(engine: &E, name: &str) -> Option<ObservedService> {
    let mut found = look(engine).await.services;
    found.retain(|s| s.service.as_str() == name);
    assert!(found.len() <= 1, "{found:#?}");
    found.pop()
}

/// The container of `name`, once `is_it` says so.
async fn until<E: Operate>(
    engine: &E,
    name: &str,
    is_it: impl Fn(&ObservedService) -> bool,
) -> ObservedService {
    let mut last = None;
    for _ in 0..PATIENCE.as_millis() / 100 {
        last = seen(engine, name).await;
        if let Some(seen) = last.clone().filter(|s| is_it(s)) {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("waited in vain for {name}; it is {last:#?}");
}

/// Created and not started; its id.
async fn created<E: Operate>(engine: &E, name: &str, spec: &ServiceSpec) -> ContainerId {
    create(engine, name, spec).await.unwrap();
    seen(engine, name).await.expect("what was created is seen").container
}

async fn started<E: Operate>(engine: &E, name: &str, spec: &ServiceSpec) -> ContainerId {
    let id = created(engine, name, spec).await;
    engine.start(&id).await.unwrap();
    id
}

async fn gone<E: Operate>(engine: &E, id: &ContainerId) {
    until_stopped(engine, id, Duration::from_secs(2)).await;
    engine.remove(id).await.unwrap();
}

/// The whole list, in an order in which each check leaves nothing behind.
async fn contract<B: Bench>(bench: &B) {
    pulls(bench).await;
    tells_of_itself(bench).await;
    creates(bench).await;
    identities(bench).await;
    starts_and_stops(bench).await;
    outlived::starts(bench).await;
    removes(bench).await;
    Box::pin(swaps(bench)).await;
    kills(bench).await;
    removes_by_force(bench).await;
    parks(bench).await;
    publishes(bench).await;
    networks(bench).await;
    volumes(bench).await;
    Box::pin(refusals_quote_no_secret(bench)).await;
    several_networks(bench).await;
    // podman starts what a container joins along with it, and has its own ways to remove the two.
    if bench.leaves_joined_alone() {
        joins(bench).await;
    }
    networks_made_anew(bench).await;
    events(bench).await;
    health(bench).await;
    evidence(bench).await;
    others(bench).await;
    images_go(bench).await;
}

async fn pulls<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    for image in [&images.well, &images.other, &images.exit, &images.unhealthy, &images.slow] {
        let output = pull(engine, image).await.unwrap();
        let output: Vec<_> = output.into_iter().map(|progress| progress.percent(0)).collect();
        assert!(output.is_sorted() && output.iter().all(|percent| *percent <= 100), "{output:?}");
        assert!(look(engine).await.images.contains(image), "seen under the reference it was pulled by");
    }
    pull(engine, &images.well).await.expect("again");
    pull(bench.neighbour(), &images.well).await.unwrap();
    let error = pull(engine, &images.missing).await.unwrap_err();
    assert!(matches!(error, EngineError::NoImage { .. }), "{error:?}");
    assert!(!error.is_transient());
    let error = pull(engine, &images.nowhere).await.unwrap_err();
    assert!(matches!(error, EngineError::Registry { .. }), "{error:?}");
    assert!(error.is_transient());
    let here = look(engine).await.images;
    assert!(!here.contains(&images.missing) && !here.contains(&images.nowhere));
}

async fn tells_of_itself<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    let about = engine.about().await.unwrap();
    assert!(about.data_root.starts_with('/'), "{}", about.data_root);
    assert_eq!(about.architecture, bench.architecture());
    let (here, well) = (engine.layers().await.unwrap(), bench.layers_of(&images.well));
    assert!(!well.is_empty() && here.is_superset(&well), "{well:?} is not in {here:?}");
    assert!(here.is_superset(&bench.layers_of(&images.other)));
}

async fn creates<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    let error = create(engine, "web", &spec(&images.missing, 1)).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { status: 404, .. }), "no image: {error:?}");
    let lacks_network = ServiceSpec { network_mode: on(&["default"]), ..spec(&images.well, 1) };
    // The network is looked for at start only; a planner makes networks first.
    let created_without = create(engine, "web", &lacks_network).await;
    bench.holds(
        "a missing network shows at start, not at creation",
        created_without.is_ok(),
        &created_without,
    );
    if created_without.is_ok() {
        let id = seen(engine, "web").await.unwrap().container;
        let error = engine.start(&id).await.unwrap_err();
        assert!(matches!(error, EngineError::Refused { status: 404, .. }), "no network: {error:?}");
        assert_eq!(seen(engine, "web").await.unwrap().state, ContainerState::Created);
        engine.remove(&id).await.unwrap();
    }
    let id = created(engine, "web", &spec(&images.well, 1)).await;
    let error = create(engine, "web", &spec(&images.well, 1)).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { status: 409, .. }), "the name is taken: {error:?}");
    let web = seen(engine, "web").await.expect("one");
    assert_eq!((web.container, web.state), (id.clone(), ContainerState::Created));
    // Another spec of the same service is another container beside it.
    create(engine, "web", &spec(&images.well, 2)).await.unwrap();
    let both = look(engine).await.services;
    assert_eq!(both.len(), 2);
    for seen in both {
        engine.remove(&seen.container).await.unwrap();
    }
    assert_eq!(look(engine).await.services, []);
}

/// What was said at creation is what is seen later.
async fn identities<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    for (name, grace, output) in [
        ("whole", Some(Duration::from_secs(7)), 7),
        ("split", Some(Duration::from_millis(2500)), 3),
        ("usual", None, 10),
    ] {
        let spec = ServiceSpec { stop_grace: grace, ..spec(&images.well, 3) };
        let id = created(engine, name, &spec).await;
        let seen = seen(engine, name).await.unwrap();
        assert_eq!(seen.app, app().id);
        assert_eq!(seen.service, service(name));
        assert_eq!(seen.release.as_str(), "abc123");
        assert_eq!(seen.spec, spec.hash);
        assert_eq!(seen.image, images.well.to_string());
        assert_eq!(seen.grace, Duration::from_secs(output), "{name}");
        assert_eq!(seen.health, Health::Unchecked);
        assert!(seen.ports.is_empty());
        engine.remove(&id).await.unwrap();
    }
}

async fn starts_and_stops<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    let grace = Duration::from_secs(2);
    let id = started(engine, "web", &spec(&images.well, 4)).await;
    assert_eq!(seen(engine, "web").await.unwrap().state, ContainerState::Running);
    engine.start(&id).await.expect("it runs already");
    engine.stop(&id, grace).await.unwrap();
    let stopped = seen(engine, "web").await.expect("stopping keeps it");
    assert_eq!((&stopped.container, stopped.state), (&id, ContainerState::Exited { code: 0 }));
    assert!(stopped.status.starts_with("Exited (0)"), "{}", stopped.status);
    engine.stop(&id, grace).await.expect("it is stopped already");
    engine.start(&id).await.expect("a stopped one starts again");
    assert_eq!(seen(engine, "web").await.unwrap().state, ContainerState::Running);
    gone(engine, &id).await;
    engine.stop(&id, grace).await.expect("it is gone already");
    let error = engine.start(&id).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { status: 404, .. }), "{error:?}");

    // One that was never started is not stopped, and stays what it is.
    let id = created(engine, "web", &spec(&images.well, 4)).await;
    engine.stop(&id, grace).await.unwrap();
    assert_eq!(seen(engine, "web").await.unwrap().state, ContainerState::Created);
    engine.remove(&id).await.unwrap();

    // An exit code is seen; with no restart policy it stays down, with one the engine brings it back.
    let id = started(engine, "job", &spec(&images.exit, 4)).await;
    until(engine, "job", |s| s.state == ContainerState::Exited { code: 1 }).await;
    engine.stop(&id, grace).await.unwrap();
    assert_eq!(seen(engine, "job").await.unwrap().state, ContainerState::Exited { code: 1 }, "kept");
    gone(engine, &id).await;
    let crashing = ServiceSpec { restart: RestartPolicy::Always, ..spec(&images.exit, 5) };
    for _ in 0..5 {
        let id = started(engine, "job", &crashing).await;
        until(engine, "job", |s| s.state == ContainerState::Restarting).await;
        until_stopped(engine, &id, grace).await;
        stays_down(engine, "job").await;
        gone(engine, &id).await;
    }
}

/// Stops a container that the engine may restart all the time.
async fn until_stopped<E: Operate>(engine: &E, id: &ContainerId, grace: Duration) {
    until_ended(async || engine.stop(id, grace).await).await;
}

/// Ends a container that the engine may restart all the time. podman on a busy machine may need several calls, and each
/// that had no effect fails.
async fn until_ended(mut end: impl AsyncFnMut() -> Result<(), EngineError>) {
    for _ in 0..5 {
        match end().await {
            Err(EngineError::KeptRestarting { .. }) => {}
            ended => return ended.unwrap(),
        }
    }
    panic!("it was started again each time");
}

/// Waits until it has ended, and checks that it is not started again.
async fn stays_down<E: Operate>(engine: &E, name: &str) {
    let has_ended = |s: &ObservedService| matches!(s.state, ContainerState::Exited { .. });
    until(engine, name, has_ended).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let seen = seen(engine, name).await.unwrap();
        assert!(has_ended(&seen), "{seen:?}");
    }
}

async fn removes<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    let id = started(engine, "web", &spec(&images.well, 6)).await;
    let error = engine.remove(&id).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { status: 409, .. }), "it runs: {error:?}");
    assert_eq!(seen(engine, "web").await.unwrap().state, ContainerState::Running);
    gone(engine, &id).await;
    assert_eq!(seen(engine, "web").await, None);
    engine.remove(&id).await.expect("it is gone already");
    // One that the engine keeps restarting counts as running.
    let crashing = ServiceSpec { restart: RestartPolicy::Always, ..spec(&images.exit, 6) };
    let id = started(engine, "job", &crashing).await;
    until(engine, "job", |s| s.state == ContainerState::Restarting).await;
    let mut removed = Ok(());
    for _ in 0..40 {
        removed = engine.remove(&id).await;
        if removed.is_ok() {
            break;
        }
        assert!(matches!(removed, Err(EngineError::Refused { status: 409, .. })), "it restarts: {removed:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bench.holds("a container is held between two starts", removed.is_err(), &removed);
    gone(engine, &id).await;
}

async fn kills<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    // Its restart policy is to keep it running, and still it stays down.
    let lasting = ServiceSpec { restart: RestartPolicy::Always, ..spec(&images.well, 16) };
    let id = started(engine, "web", &lasting).await;
    engine.kill(&id).await.unwrap();
    until(engine, "web", |s| s.state == ContainerState::Exited { code: 137 }).await;
    engine.kill(&id).await.expect("it does not run");
    assert_eq!(seen(engine, "web").await.unwrap().state, ContainerState::Exited { code: 137 });
    engine.start(&id).await.expect("a killed one starts again");
    assert_eq!(seen(engine, "web").await.unwrap().state, ContainerState::Running);
    gone(engine, &id).await;
    engine.kill(&id).await.expect("it is gone already");
    let id = created(engine, "web", &spec(&images.well, 16)).await;
    engine.kill(&id).await.expect("it was never started");
    assert_eq!(seen(engine, "web").await.unwrap().state, ContainerState::Created);
    engine.remove(&id).await.unwrap();
    // One that the engine is about to start again.
    let crashing = ServiceSpec { restart: RestartPolicy::Always, ..spec(&images.exit, 16) };
    let id = started(engine, "job", &crashing).await;
    until(engine, "job", |s| s.state == ContainerState::Restarting).await;
    until_ended(async || engine.kill(&id).await).await;
    stays_down(engine, "job").await;
    engine.remove(&id).await.expect("it does not come back");
}

async fn removes_by_force<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    let id = started(engine, "web", &spec(&images.well, 17)).await;
    engine.remove_by_force(&id).await.expect("it runs");
    assert_eq!(look(engine).await.services, []);
    engine.remove_by_force(&id).await.expect("it is gone already");
    let id = created(engine, "web", &spec(&images.well, 17)).await;
    engine.remove_by_force(&id).await.expect("it does not run");
    let crashing = ServiceSpec { restart: RestartPolicy::Always, ..spec(&images.exit, 17) };
    let id = started(engine, "job", &crashing).await;
    until(engine, "job", |s| s.state == ContainerState::Restarting).await;
    engine.remove_by_force(&id).await.expect("it restarts");
    assert_eq!(look(engine).await.services, []);
}

async fn parks<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    let spec = spec(&images.well, 18);
    let id = started(engine, "web", &spec).await;
    let before = seen(engine, "web").await.unwrap();
    engine.park(&id).await.unwrap();
    let observed = look(engine).await;
    assert_eq!(observed.services, []);
    assert_eq!(observed.parked, [ObservedService { status: observed.parked[0].status.clone(), ..before }]);
    engine.park(&id).await.expect("it is put aside already");
    assert_eq!(look(engine).await.parked.len(), 1);
    // Its name is free again, for more than one.
    let next = started(engine, "web", &spec).await;
    assert_ne!(next, id);
    engine.park(&next).await.unwrap();
    assert_eq!(look(engine).await.parked.len(), 2);
    let third = created(engine, "web", &spec).await;
    engine.remove(&third).await.unwrap();
    // It is still what it was: one that runs is not removed, it can be stopped, and killed.
    let error = engine.remove(&id).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { status: 409, .. }), "it runs: {error:?}");
    engine.stop(&id, Duration::from_secs(2)).await.unwrap();
    let mut states: Vec<_> = look(engine).await.parked.into_iter().map(|s| (s.container, s.state)).collect();
    states.sort_by_key(|(container, _)| *container != id);
    assert_eq!(
        states,
        [(id.clone(), ContainerState::Exited { code: 0 }), (next.clone(), ContainerState::Running)]
    );
    engine.remove(&id).await.unwrap();
    engine.remove_by_force(&next).await.unwrap();
    let observed = look(engine).await;
    assert_eq!((observed.services, observed.parked), (vec![], vec![]));
    engine.park(&id).await.expect("it is gone");
}

/// Makes a network, which is there then, or was already.
async fn make_network(engine: &impl Operate, app: &App, name: &NetworkName, spec: &NetworkSpec) {
    support::until_interfaces_stay(async || engine.create_network(app, name, spec).await).await.unwrap();
}

async fn publishes<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    make_network(engine, &app(), &network("default"), &NetworkSpec::default()).await;
    let fixed = bench.free_port();
    let port = |host_port, container_port, protocol| PortMapping {
        host_ip: "127.0.0.1".to_owned(),
        host_port,
        container_port,
        protocol,
    };
    let ports = vec![
        port(Some(fixed), 8080, Protocol::Tcp),
        port(None, 8081, Protocol::Tcp),
        port(None, 53, Protocol::Udp),
    ];
    let spec = ServiceSpec { network_mode: on(&["default"]), ports, ..spec(&images.well, 19) };
    let id = created(engine, "web", &spec).await;
    let ours = async || {
        let mut held = engine.published().await.unwrap();
        held.retain(|held| held.container.as_ref() == Some(&id));
        held
    };
    assert_eq!(ours().await, [], "it does not run");
    engine.start(&id).await.unwrap();
    let held = ours().await;
    let seen_ports = seen(engine, "web").await.unwrap().ports;
    assert_eq!(seen_ports.keys().copied().collect::<Vec<_>>(), [53, 8080, 8081]);
    assert_eq!(seen_ports[&8080], BTreeSet::from([fixed]));
    let of = |container_port: u16, protocol| {
        let picked = *seen_ports[&container_port].first().unwrap();
        held.iter().find(|held| held.port == picked && held.protocol == protocol).unwrap()
    };
    for held in [of(8080, Protocol::Tcp), of(8081, Protocol::Tcp), of(53, Protocol::Udp)] {
        assert_eq!(held.host_ip, "127.0.0.1");
        assert!(held.by.contains("7_web_"), "{held:?}");
    }
    assert_eq!(held.len(), 3, "{held:?}");
    let theirs = bench.neighbour().published().await.unwrap();
    assert!(
        theirs.is_empty() || held.iter().all(|held| theirs.contains(held)),
        "whoever made them: {theirs:?}"
    );
    engine.stop(&id, Duration::from_secs(2)).await.unwrap();
    assert_eq!(ours().await, [], "it does not run any more");
    assert!(seen(engine, "web").await.unwrap().ports.is_empty());
    gone(engine, &id).await;
    for network in look(engine).await.networks {
        engine.remove_network(&network.id).await.unwrap();
    }
}

async fn networks<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    let (app, name, plain) = (app(), network("default"), NetworkSpec::default());
    make_network(engine, &app, &name, &plain).await;
    make_network(engine, &app, &name, &plain).await;
    let found = look(engine).await.networks;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0].app, &found[0].network, &found[0].config_hash), (&app.id, &name, &None));
    // One with another config stands beside it.
    let configured =
        NetworkSpec { config_hash: Some("c0ffee".into()), is_internal: true, ..NetworkSpec::default() };
    make_network(engine, &app, &name, &configured).await;
    let mut hashes: Vec<_> = look(engine).await.networks.into_iter().map(|n| n.config_hash).collect();
    hashes.sort();
    assert_eq!(hashes, [None, Some("c0ffee".to_owned())]);
    // One that a running container uses is not taken from it.
    let id = started(engine, "web", &ServiceSpec { network_mode: on(&["default"]), ..spec(&images.well, 7) })
        .await;
    let used = look(engine).await.networks.into_iter().find(|n| n.config_hash.is_none()).unwrap();
    let removed = bench.remembers(engine.remove_network(&used.id)).await;
    let is_refused = matches!(removed, Err(EngineError::Refused { status: 403, .. }));
    bench.holds("a network that a running container uses is not removed", is_refused, &removed);
    gone(engine, &id).await;
    for network in look(engine).await.networks {
        engine.remove_network(&network.id).await.unwrap();
        engine.remove_network(&network.id).await.expect("it is gone already");
    }
    assert_eq!(look(engine).await.networks, []);
}

/// Networks that have addresses in common do not stand side by side, and who was on one that was made anew has to
/// be connected to it.
async fn networks_made_anew<B: Bench>(bench: &B) {
    let engine = bench.engine();
    let lan = |bits| lan(bench.second(), bits);
    let (app, name) = (app(), network("lan"));
    let lan_of = |seen: Observed| seen.networks.into_iter().find(|n| n.network == name);
    make_network(engine, &app, &network("second"), &NetworkSpec::default()).await;
    make_network(engine, &app, &name, &lan(24)).await;
    let old = lan_of(look(engine).await).unwrap();
    assert_eq!(old.subnets, lan(24).ranges());
    let create = async || engine.create_network(&app, &name, &lan(25)).await;
    let error = support::until_interfaces_stay(create).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { .. }), "it overlaps: {error:?}");

    let web = ServiceSpec { network_mode: on(&["lan", "second"]), ..spec(&bench.images().well, 80) };
    let id = created(engine, "web", &web).await;
    let known = async || seen(engine, "web").await.unwrap().networks.get(&old.name).cloned();
    let first = known().await;
    bench.holds("a container meets its networks when it starts first", first == Some(None), &first);
    engine.start(&id).await.unwrap();
    assert_eq!(known().await, Some(Some(old.id.clone())));
    engine.stop(&id, Duration::from_secs(2)).await.unwrap();
    engine.remove_network(&old.id).await.unwrap();
    make_network(engine, &app, &name, &lan(25)).await;
    let other = lan_of(look(engine).await).unwrap();
    assert_ne!(other.name, old.name);
    engine.remove_network(&other.id).await.unwrap();
    make_network(engine, &app, &name, &lan(24)).await;
    let new = lan_of(look(engine).await).unwrap();
    assert_eq!(new.name, old.name);

    let met = known().await;
    let is_another = met == Some(Some(old.id.clone()));
    bench.holds(ANOTHER_NETWORK, is_another, &met);
    if is_another {
        let error = engine.start(&id).await.unwrap_err();
        assert!(
            matches!(error, EngineError::Refused { status: 404, .. }),
            "it looks for the old one: {error:?}"
        );
        assert_eq!(known().await, Some(Some(old.id.clone())));
    }
    for _ in 0..2 {
        reconnect(engine, "web", &web, &id).await.unwrap();
    }
    assert_eq!(bench.networks_of(&id), 2);
    engine.start(&id).await.unwrap();
    assert_eq!(known().await, Some(Some(new.id.clone())));
    assert_eq!(seen(engine, "web").await.unwrap().container, id);
    gone(engine, &id).await;
    let error = reconnect(engine, "web", &web, &id).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { status: 404, .. }), "it is gone: {error:?}");
    for seen in look(engine).await.networks {
        engine.remove_network(&seen.id).await.unwrap();
    }
}

/// Containers that share namespaces: what they join is seen, must run when they start, and is found to have
/// started again.
async fn joins<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    let shareable = Isolation { ipc: Some("shareable".to_owned()), ..Isolation::default() };
    let door = ServiceSpec { isolation: shareable, ..spec(&images.well, 70) };
    let other = created(engine, "door", &door).await;
    let isolation =
        Isolation { ipc_of: Some(service("door")), pid_of: Some(service("door")), ..Isolation::default() };
    let network_mode = NetworkMode::Service(service("door"));
    // Two programs at one address need two ports.
    let environment = BTreeMap::from([("DEMO_PORT".to_owned(), "9090".to_owned())]);
    let guest = ServiceSpec { network_mode, isolation, environment, ..spec(&images.well, 71) };
    let joined = BTreeMap::from([(service("door"), other.clone())]);
    create_with(engine, "guest", &guest, &joined).await.unwrap();
    let seen_guest = seen(engine, "guest").await.unwrap();
    assert_eq!(seen_guest.joins, Namespace::ALL.map(|kind| (kind, other.clone())).into());
    assert_eq!(seen(engine, "door").await.unwrap().joins, BTreeMap::new());
    let id = seen_guest.container;
    let error = engine.start(&id).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { .. }), "the other one does not run: {error:?}");
    assert_eq!(seen(engine, "guest").await.unwrap().state, ContainerState::Created);
    assert_eq!(engine.started(&other).await.unwrap(), None);

    engine.start(&other).await.unwrap();
    engine.start(&id).await.unwrap();
    until(engine, "guest", |s| s.state == ContainerState::Running).await;
    let (of, own) = (engine.started(&other).await.unwrap(), engine.started(&id).await.unwrap());
    assert!(of.is_some() && own > of, "{own:?} is after {of:?}");
    assert_eq!(engine.started(&other).await.unwrap(), of, "as long as it runs");
    engine.stop(&other, Duration::from_secs(2)).await.unwrap();
    assert_eq!(engine.started(&other).await.unwrap(), None);
    engine.start(&other).await.unwrap();
    let again = engine.started(&other).await.unwrap();
    assert!(again > own, "{again:?} is after {own:?}");

    // Without the other one it never starts again.
    gone(engine, &other).await;
    engine.stop(&id, Duration::from_secs(2)).await.unwrap();
    let error = engine.start(&id).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { status: 404, .. }), "{error:?}");
    gone(engine, &id).await;
    assert_eq!(engine.started(&id).await.unwrap(), None);
}

/// One that runs gives way to one that was created, whatever the two ask for.
async fn swaps<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    let grace = Duration::from_secs(2);
    let host_port = Some(bench.free_port());
    let port = PortMapping {
        host_ip: "127.0.0.1".to_owned(),
        host_port,
        container_port: 8080,
        protocol: Protocol::Tcp,
    };
    let plain = |seed| ServiceSpec { network_mode: NetworkMode::Bridge, ..spec(&images.well, seed) };
    let with_port = |seed| ServiceSpec { ports: vec![port.clone()], ..plain(seed) };
    let state = async |id: &ContainerId| {
        let seen = look(engine).await.services.into_iter().find(|seen| seen.container == *id);
        seen.map(|seen| seen.state)
    };
    let ids =
        async || look(engine).await.services.into_iter().map(|seen| seen.container).collect::<BTreeSet<_>>();
    let restarted = ServiceSpec { restart: RestartPolicy::Always, ..spec(&images.exit, 90) };
    for (old, new) in [(plain(91), plain(92)), (with_port(93), with_port(94)), (restarted, plain(95))] {
        let old = started(engine, "web", &old).await;
        create(engine, "web", &new).await.unwrap();
        let new = ids().await.into_iter().find(|id| *id != old).unwrap();
        let mut started = None;
        until_ended(async || {
            let (stopped, begun) = engine.swap(&old, grace, &new).await;
            started = begun;
            stopped
        })
        .await;
        assert!(matches!(started, Some(Ok(()))), "{started:?}");
        assert_eq!(state(&new).await, Some(ContainerState::Running));
        assert!(matches!(state(&old).await, Some(ContainerState::Exited { .. })), "{:?}", state(&old).await);
        // It may be swapped again, and with one that is gone.
        assert!(matches!(engine.swap(&old, grace, &new).await, (Ok(()), Some(Ok(())))));
        engine.remove(&old).await.unwrap();
        assert!(matches!(engine.swap(&old, grace, &new).await, (Ok(()), Some(Ok(())))));
        let (stopped, started) = engine.swap(&new, grace, &old).await;
        assert!(stopped.is_ok());
        assert!(matches!(started, Some(Err(EngineError::Refused { status: 404, .. }))), "{started:?}");
        engine.remove(&new).await.unwrap();
    }
}

async fn volumes<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    let mount = |source| Mount {
        source,
        target: "/data".into(),
        is_read_only: false,
        options: MountOptions::default(),
    };
    let named = mount(MountSource::Volume(volume("data")));
    let spec = ServiceSpec { mounts: vec![named], ..spec(&images.well, 8) };
    let id = started(engine, "web", &spec).await;
    assert_eq!(bench.volumes().len(), 1, "{:?}", bench.volumes());
    gone(engine, &id).await;
    assert_eq!(bench.volumes().len(), 1, "a named volume outlives its container");
    let here = engine.volumes_of(&app(), &[volume("data"), volume("other")].into()).await.unwrap();
    let output: Vec<_> =
        here.iter().map(|(name, v)| (name.as_str(), v.driver.as_str(), v.options.len())).collect();
    assert_eq!(output, [("data", "local", 0)]);
    assert!(here[&volume("data")].name.ends_with("_7_data"), "{here:?}");
    // It is taken again, not made anew.
    let id = created(engine, "web", &spec).await;
    assert_eq!(bench.volumes().len(), 1);
    // It can be removed, and not while a container mounts it.
    let [output] = &engine.volumes().await.unwrap()[..] else { panic!("one volume") };
    assert_eq!((&output.app, &output.volume), (&app().id, &volume("data")));
    assert_eq!(output.used_by, BTreeSet::from([id.clone()]));
    let refused = engine.remove_volume(output).await.unwrap_err();
    assert!(matches!(refused, EngineError::Refused { status: 409, .. }), "{refused}");
    assert_eq!(bench.neighbour().volumes().await.unwrap(), []);
    engine.remove(&id).await.unwrap();
    assert_eq!(bench.volumes().len(), 1);
    for _ in 0..2 {
        engine.remove_volume(output).await.unwrap();
        assert_eq!((bench.volumes().len(), engine.volumes().await.unwrap().len()), (0, 0));
    }
}

/// Whatever an engine refuses, and whenever: its words hold nothing that the release's author may have meant for the
/// container alone.
async fn refusals_quote_no_secret<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    let source = MountSource::Volume(volume("share"));
    let share =
        Mount { source, target: "/share".into(), is_read_only: false, options: MountOptions::default() };
    let environment = BTreeMap::from([("PASSWORD".to_owned(), "hunter3".to_owned())]);
    let mounts = vec![share];
    let id = created(engine, "web", &ServiceSpec { mounts, environment, ..spec(&images.well, 9) }).await;
    for _ in 0..2 {
        let refused = engine.start(&id).await.unwrap_err().to_string();
        assert!(!refused.contains("hunter") && !refused.contains("username=u"), "{refused}");
        assert!(refused.contains("share"), "the name of the volume says which it is: {refused}");
    }
    gone(engine, &id).await;
    for output in engine.volumes().await.unwrap() {
        engine.remove_volume(&output).await.unwrap();
    }
}

async fn several_networks<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    for name in ["default", "second", "third"] {
        make_network(engine, &app(), &network(name), &NetworkSpec::default()).await;
    }
    let names = ["default", "second", "third"];
    let spec = ServiceSpec { network_mode: on(&names), ..spec(&images.well, 9) };
    let id = created(engine, "web", &spec).await;
    assert_eq!(seen(engine, "web").await.unwrap().state, ContainerState::Created);
    assert_eq!(bench.networks_of(&id), 3);
    engine.start(&id).await.unwrap();
    assert_eq!(seen(engine, "web").await.unwrap().state, ContainerState::Running);
    gone(engine, &id).await;
    // With one of them missing it does not start without it, and does once it is there.
    let third = look(engine).await.networks.into_iter().find(|n| n.network.as_str() == "third").unwrap();
    engine.remove_network(&third.id).await.unwrap();
    let created_without = create(engine, "web", &spec).await;
    let id = seen(engine, "web").await.unwrap().container;
    bench.holds(MISSING_NETWORK, created_without.is_ok(), &created_without);
    if created_without.is_ok() {
        let error = engine.start(&id).await.unwrap_err();
        assert!(matches!(error, EngineError::Refused { status: 404, .. }), "no network: {error:?}");
        assert_ne!(seen(engine, "web").await.unwrap().state, ContainerState::Running);
    } else {
        // What is left is seen as what is to be removed.
        assert_eq!(seen(engine, "web").await.unwrap().state, ContainerState::Dead);
        engine.remove(&id).await.unwrap();
    }
    make_network(engine, &app(), &network("third"), &NetworkSpec::default()).await;
    let id = if created_without.is_ok() { id } else { created(engine, "web", &spec).await };
    engine.start(&id).await.unwrap();
    assert_eq!(seen(engine, "web").await.unwrap().state, ContainerState::Running);
    assert_eq!(bench.networks_of(&id), 3);
    // One that was started is bound to the very networks that it had then.
    assert!(!seen(engine, "web").await.unwrap().is_cut_off);
    engine.stop(&id, Duration::from_secs(1)).await.unwrap();
    let third = look(engine).await.networks.into_iter().find(|n| n.network.as_str() == "third").unwrap();
    engine.remove_network(&third.id).await.unwrap();
    assert!(!seen(engine, "web").await.unwrap().is_cut_off, "not before there is another one");
    make_network(engine, &app(), &network("third"), &NetworkSpec::default()).await;
    let is_cut_off = seen(engine, "web").await.unwrap().is_cut_off;
    bench.holds(ANOTHER_NETWORK, is_cut_off, &is_cut_off);
    if is_cut_off {
        let error = engine.start(&id).await.unwrap_err();
        assert!(matches!(error, EngineError::Refused { status: 404, .. }), "another network: {error:?}");
    } else {
        engine.start(&id).await.unwrap();
        assert_eq!(bench.networks_of(&id), 3);
    }
    gone(engine, &id).await;
    // One that a power cut left without all its networks is seen as what it is: it is to be removed first.
    let torso = created(engine, "web", &spec).await;
    bench.cut_short(&torso);
    assert_eq!(seen(engine, "web").await.unwrap().state, ContainerState::Dead);
    let error = create(engine, "web", &spec).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { status: 409, .. }), "{error:?}");
    engine.remove(&torso).await.unwrap();
    let id = created(engine, "web", &spec).await;
    engine.remove(&id).await.unwrap();
    for network in look(engine).await.networks {
        engine.remove_network(&network.id).await.unwrap();
    }
}

/// Waits for one event, then for the quiet after it. None of them is a restart.
async fn woken<S: StreamExt<Item = Result<Notice, EngineError>> + Unpin>(what: &str, events: &mut S) {
    let first = tokio::time::timeout(PATIENCE, events.next()).await;
    let mut next = first.unwrap_or_else(|_| panic!("no event: {what}"));
    loop {
        let notice = next.expect("the stream goes on").unwrap();
        assert!(matches!(notice, Notice::Changed | Notice::Ended { .. }), "{what}: {notice:?}");
        match tokio::time::timeout(Duration::from_millis(500), events.next()).await {
            Ok(event) => next = event,
            Err(_) => return,
        }
    }
}

async fn events<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    let id = created(engine, "web", &spec(&images.well, 10)).await;
    let mut events = std::pin::pin!(engine.events());
    // The stream opens at its first poll, and nothing says when it is open.
    let quiet = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
    assert!(quiet.is_err(), "nothing happened, and there is an event: {quiet:?}");
    engine.start(&id).await.unwrap();
    woken("start", &mut events).await;
    engine.stop(&id, Duration::from_secs(2)).await.unwrap();
    woken("stop", &mut events).await;
    engine.start(&id).await.unwrap();
    woken("start after a stop", &mut events).await;
    bench.kill(&id);
    woken("die", &mut events).await;
    until(engine, "web", |s| s.state == ContainerState::Exited { code: 137 }).await;
    engine.remove(&id).await.unwrap();
    woken("destroy", &mut events).await;
    let crashing = ServiceSpec { restart: RestartPolicy::Always, ..spec(&images.exit, 19) };
    let id = started(engine, "job", &crashing).await;
    let is_restarted = async {
        let expected = Notice::Restarted { app: app().id, service: service("job") };
        while events.next().await.expect("the stream goes on").unwrap() != expected {}
    };
    tokio::time::timeout(PATIENCE, is_restarted).await.expect("the engine tells that it restarts a service");
    gone(engine, &id).await;
    while tokio::time::timeout(Duration::from_millis(500), events.next()).await.is_ok() {}
    // Another instance's containers cause no event here.
    let theirs = started(bench.neighbour(), "web", &spec(&images.well, 10)).await;
    gone(bench.neighbour(), &theirs).await;
    let quiet = tokio::time::timeout(Duration::from_millis(500), events.next()).await;
    assert!(quiet.is_err(), "there is an event of another instance: {quiet:?}");
}

/// What is known of a failure: how a container ended, its last lines, and its failed healthcheck.
async fn evidence<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    let id = created(engine, "job", &spec(&images.exit, 20)).await;
    assert_eq!(engine.run_record(&id).await.unwrap(), RunRecord::default(), "it never ran");
    assert_eq!(engine.last_lines(&id).await.unwrap(), Vec::<String>::new());
    engine.start(&id).await.unwrap();
    let ended = until(engine, "job", |s| matches!(s.state, ContainerState::Exited { .. })).await;
    let ContainerState::Exited { code } = ended.state else { unreachable!() };
    let end = Some(LastEnd::with_code(code));
    assert_eq!(ended.last_end, end, "the list has it");
    let record = engine.run_record(&id).await.unwrap();
    assert_eq!((record.end, record.restarts, record.probe), (end, 0, None));
    let lines = engine.last_lines(&id).await.unwrap();
    assert!((1..=20).contains(&lines.len()), "{lines:?}");
    gone(engine, &id).await;
    assert_eq!(engine.run_record(&id).await.unwrap(), RunRecord::default(), "it is gone");

    let check = Healthcheck {
        probe: Probe::Command(vec!["/app".into(), "check".into()]),
        interval: Some(Duration::from_secs(1)),
        timeout: Some(Duration::from_secs(5)),
        start_period: None,
        start_interval: None,
        retries: Some(1),
    };
    let ill = ServiceSpec { healthcheck: Some(check), ..spec(&images.unhealthy, 21) };
    let id = started(engine, "ill", &ill).await;
    until(engine, "ill", |s| s.health == Health::Unhealthy).await;
    let record = engine.run_record(&id).await.unwrap();
    assert_eq!(record.end, None, "it runs");
    assert!(record.probe.is_some_and(|probe| probe.exit_code != 0));
    gone(engine, &id).await;
}

async fn health<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    let second = Some(Duration::from_secs(1));
    let probe = Healthcheck {
        probe: Probe::Command(vec!["/app".into(), "check".into()]),
        interval: second,
        timeout: Some(Duration::from_secs(5)),
        start_period: None,
        start_interval: None,
        retries: Some(1),
    };
    let checked = |image: &ImageRef, seed, retries| ServiceSpec {
        healthcheck: Some(Healthcheck { retries: Some(retries), ..probe.clone() }),
        ..spec(image, seed)
    };
    let well = started(engine, "well", &checked(&images.well, 11, 1)).await;
    let ill = started(engine, "ill", &checked(&images.unhealthy, 12, 1)).await;
    let slow = started(engine, "slow", &checked(&images.slow, 13, 60)).await;
    let before = seen(engine, "slow").await.unwrap();
    assert_eq!((before.state, before.health), (ContainerState::Running, Health::Starting));
    until(engine, "well", |s| s.health == Health::Healthy).await;
    until(engine, "ill", |s| s.health == Health::Unhealthy).await;
    assert_eq!(seen(engine, "ill").await.unwrap().state, ContainerState::Running, "unhealthy is not down");
    engine.stop(&ill, Duration::from_secs(2)).await.unwrap();
    assert_eq!(seen(engine, "ill").await.unwrap().health, Health::Unchecked, "down is not unhealthy");
    for id in [&well, &ill, &slow] {
        gone(engine, id).await;
    }
}

async fn others<B: Bench>(bench: &B) {
    let (engine, neighbour, images) = (bench.engine(), bench.neighbour(), bench.images());
    let foreign = bench.foreign();
    assert_eq!(look(engine).await.services, []);
    // Two instances hold the same service of the same app and spec, and see only their own.
    let spec = ServiceSpec { network_mode: on(&["default"]), ..spec(&images.well, 14) };
    for engine in [engine, neighbour] {
        make_network(engine, &app(), &network("default"), &NetworkSpec::default()).await;
    }
    let ours = started(engine, "web", &spec).await;
    assert_eq!(look(neighbour).await.services, []);
    let theirs = started(neighbour, "web", &spec).await;
    assert_ne!(ours, theirs);
    assert_eq!(seen(engine, "web").await.unwrap().container, ours);
    assert_eq!(seen(neighbour, "web").await.unwrap().container, theirs);
    let [a, b] = [look(engine).await.networks, look(neighbour).await.networks];
    assert!(a.len() == 1 && b.len() == 1 && a[0].id != b[0].id, "{a:?} {b:?}");
    gone(engine, &ours).await;
    engine.remove_network(&a[0].id).await.unwrap();
    assert_eq!(seen(neighbour, "web").await.unwrap().state, ContainerState::Running);
    gone(neighbour, &theirs).await;
    neighbour.remove_network(&b[0].id).await.unwrap();
    assert!(bench.foreign_runs(&foreign));
}

async fn images_go<B: Bench>(bench: &B) {
    let (engine, images) = (bench.engine(), bench.images());
    // One in use stays for its container, and that is no error.
    let id = started(engine, "web", &spec(&images.other, 15)).await;
    engine.remove_image(&images.other).await.unwrap();
    assert!(look(engine).await.images.contains(&images.other));
    assert_eq!(seen(engine, "web").await.unwrap().state, ContainerState::Running);
    gone(engine, &id).await;
    engine.remove_image(&images.other).await.unwrap();
    assert!(!look(engine).await.images.contains(&images.other));
    engine.remove_image(&images.other).await.expect("it is gone already");
    engine.remove_image(&images.missing).await.expect("it was never there");
}
