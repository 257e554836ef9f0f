//! What decisions cost, measured in a process of its own: planning, and reading a large target.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cotter::model::{
    ContainerId, ContainerState, DeviceUuid, Facts, Health, Ledger, NetworkId, NetworkName, Observed,
    ObservedNetwork, ObservedService, Policy, Release, Target, TargetApp,
};
use cotter::plan::{Situation, plan, report, violations};
use cotter::wire::target_v3;
use serde_json::{Value, json};

use crate::figures::{median, status_kib};

/// The word that makes this process measure and print, and nothing else.
pub const WORD: &str = "--pure";

const DEVICE: &str = "0123456789abcdef0123456789abcdef";

/// Milliseconds and MiB.
#[derive(Debug, Clone, Default)]
pub struct Pure {
    pub plan_ms: f64,
    pub decide_ms: f64,
    pub parse_ms: f64,
    pub parse_mib: f64,
}

/// Measures in a process that has done nothing else.
#[track_caller]
pub fn measure() -> Pure {
    let myself = std::env::current_exe().expect("this program is a file");
    let mut child = Command::new(myself);
    child.arg(WORD).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = child.spawn().expect("this program runs again");
    let large = body(200, 200, 5440).to_string();
    // Dropped at once, and with it the other process's input ends.
    child.stdin.take().expect("it is piped").write_all(large.as_bytes()).expect("it reads");
    let out = child.wait_with_output().expect("it ends");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout);
    let numbers: Vec<f64> = text.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    let [plan_ms, decide_ms, parse_ms, parse_mib] = numbers[..] else { panic!("{text:?}") };
    Pure { plan_ms, decide_ms, parse_ms, parse_mib }
}

/// What the other process does.
pub fn print() {
    // Memory first, and the body made elsewhere: what was freed before would be used again and not be seen.
    let device = DeviceUuid::parse(DEVICE).unwrap();
    let mut large = String::new();
    std::io::stdin().read_to_string(&mut large).unwrap();
    assert!((1_000_000..1_100_000).contains(&large.len()), "{} bytes", large.len());
    let before = status_kib("VmRSS");
    // Makes the kernel count its peak anew.
    std::fs::write("/proc/self/clear_refs", "5").expect("a process may reset its own peak");
    black_box(target_v3::parse(large.as_bytes(), &device, &Policy::default()).unwrap());
    let parse_mib = (status_kib("VmHWM") - before) / 1024.0;
    let parse_ms = timed(21, || {
        drop(black_box(target_v3::parse(large.as_bytes(), &device, &Policy::default()).unwrap()))
    });
    let (plan_ms, decide_ms) = planning(&device);
    println!("{plan_ms} {decide_ms} {parse_ms} {parse_mib}");
}

/// 100 services run, 20 of them are to change, all images are here: the plan alone, and with its check and
/// the report, as each cycle makes them.
fn planning(device: &DeviceUuid) -> (f64, f64) {
    let parse = |changed| {
        target_v3::parse(body(100, changed, 0).to_string().as_bytes(), device, &Policy::default()).unwrap()
    };
    let (old, new) = (parse(0), parse(20));
    let observed = running(&old, &new);
    // The engine was asked for its volumes, and has none of these apps.
    let facts = Facts { volumes: Some(BTreeMap::new()), ..Facts::default() };
    let mut ledger = Ledger::default();
    for (id, release) in releases(&old) {
        ledger.apps.entry(id.clone()).or_default().good = Some(release.clone());
    }
    let at = Situation {
        target: Some(Arc::new(new)),
        observed: Arc::new(observed),
        ledger: Arc::new(ledger),
        pulling: BTreeMap::new(),
        measuring: BTreeSet::new(),
        failed_steps: BTreeMap::new(),
        steady: BTreeMap::new(),
        facts: Arc::new(facts),
        boot_id: "boot".into(),
        settings: Arc::default(),
    };
    assert_eq!(plan(&at).stage.len(), 20, "{:?}", plan(&at));
    let planned = timed(101, || drop(black_box(plan(black_box(&at)))));
    let decided = timed(101, || {
        let plan = plan(black_box(&at));
        assert!(violations(&at, &plan).is_empty());
        drop(black_box(report(&at, &plan)));
    });
    (planned, decided)
}

/// Milliseconds of `work`, the median of `count` times.
fn timed(count: usize, work: impl Fn()) -> f64 {
    let once = |_| {
        let begun = Instant::now();
        work();
        begun.elapsed().as_secs_f64() * 1000.0
    };
    median(&(0..count).map(once).collect::<Vec<_>>())
}

fn releases(target: &Target) -> impl Iterator<Item = (&cotter::model::AppId, &Release)> {
    target.apps.iter().map(|(id, app)| match app {
        TargetApp::Wanted(wanted) => (id, wanted.release.as_ref().expect("a release")),
        TargetApp::Refused(refused) => panic!("{:?}", refused.refusals),
    })
}

/// All services of `now` run, with their network; the images of both are here.
fn running(now: &Target, next: &Target) -> Observed {
    let mut observed = Observed::default();
    for (id, release) in releases(next).chain(releases(now)) {
        observed.images.extend(release.services.values().map(|spec| spec.image.clone()));
        observed.networks = vec![ObservedNetwork {
            is_original: false,
            id: NetworkId::parse("net").unwrap(),
            app: id.clone(),
            network: NetworkName::parse("default").unwrap(),
            config_hash: None,
            name: "net".to_owned(),
            subnets: Vec::new(),
            gateway: None,
        }];
        let service =
            |(n, (name, spec)): (usize, (&cotter::model::ServiceName, &cotter::model::ServiceSpec))| {
                ObservedService {
                    container: ContainerId::parse(format!("{n:064x}")).unwrap(),
                    app: id.clone(),
                    service: name.clone(),
                    release: release.commit.clone(),
                    spec: spec.hash.clone(),
                    image: spec.image.to_string(),
                    grace: Duration::from_secs(10),
                    state: ContainerState::Running,
                    health: Health::Unchecked,
                    is_cut_off: false,
                    restarts: 0,
                    last_end: None,
                    status: "Up 1 hour".to_owned(),
                    ports: BTreeMap::new(),
                    networks: BTreeMap::new(),
                    joins: BTreeMap::new(),
                    created: 0,
                    introduced: None,
                    is_outdated: false,
                }
            };
        observed.services = release.services.iter().enumerate().map(service).collect();
    }
    observed
}

/// A target of `services` services, of which the first `changed` have another image than without, each with
/// about 0.9 × `padding` bytes of environment.
fn body(services: usize, changed: usize, padding: usize) -> Value {
    let services: serde_json::Map<_, _> = (0..services)
        .map(|n| {
            let seed = if n < changed { n + 1000 } else { n };
            let environment: serde_json::Map<_, _> = (0..padding / 80)
                .map(|v| {
                    (format!("VARIABLE_{v:04}"), json!("a value of the length that addresses have: example"))
                })
                .collect();
            let service = json!({
                "id": n + 1, "image_id": n + 1,
                "image": format!("registry.example.com/demo/s{n}@sha256:{seed:064x}"),
                "environment": environment,
                "labels": { "com.example.ring": "canary" },
                "composition": {
                    "ports": [format!("127.0.0.1:{}:8080", 10_000 + n)],
                    "volumes": ["data:/data"],
                    "healthcheck": { "test": ["CMD", "/app", "check"], "interval": "10s" },
                    "depends_on": if n == 0 { json!([]) } else { json!(["s0"]) },
                },
            });
            (format!("s{n}"), service)
        })
        .collect();
    let release =
        json!({ "id": 1, "services": services, "networks": { "default": {} }, "volumes": { "data": {} } });
    let app = json!({ "id": 1, "name": "shop", "class": "fleet", "releases": { "one": release } });
    json!({ DEVICE: { "name": "till", "config": {}, "apps": { "a".repeat(32): app } } })
}
