//! Service specs by chance: as a compose file, read as a release and as a device's target, created on the real
//! engine. The app finds what was asked for, and the next look plans nothing.
//!
//! A spec that fails is made smaller, and shown with the seed that repeats it. `COTTER_SPECS` is how many are tried,
//! `COTTER_SPECS_SEED` where they begin.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use cotter::engine::{Inspect, Operate};
use cotter::model::{
    AppLedger, DeviceUuid, Ledger, Observed, Policy, Release, ServiceName, Target, TargetApp,
};
use cotter::plan::{Situation, plan};
use cotter::project;
use cotter::wire::target_v3;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::{Map, Value, json};

use crate::cases::PRELUDE;
use crate::support::{eventually, number};
use crate::{Bench, DEVICE};

/// The last line that a container writes; then it goes on running.
const END: &str = "that is all";

/// Something that a service asks for, and how that is seen.
#[derive(Debug, Clone)]
struct Wish {
    /// Of the compose file.
    fields: Value,
    /// Run inside.
    script: String,
    /// What the script writes.
    inside: String,
    /// Where the engine tells it, and what.
    configured: Vec<(String, Value)>,
}

fn inside(fields: Value, script: &str, inside: impl ToString) -> Wish {
    Wish { fields, script: script.to_owned(), inside: inside.to_string(), configured: Vec::new() }
}

fn configured(fields: Value, pointer: &str, value: Value) -> Wish {
    Wish {
        fields,
        script: String::new(),
        inside: String::new(),
        configured: vec![(pointer.to_owned(), value)],
    }
}

fn limits() -> Vec<BoxedStrategy<Wish>> {
    let cpus = (1..=16_u32).prop_map(|n| {
        let (asked, quota) = (f64::from(n) / 8.0, n * 12_500);
        inside(json!({"cpus": asked}), "cpu", format!("{quota} 100000"))
    });
    let memory = (24..=96_u64, any::<bool>()).prop_map(|(mib, is_text)| {
        let asked = if is_text { json!(format!("{mib}m")) } else { json!(mib << 20) };
        inside(json!({"mem_limit": asked}), "limit memory/memory.limit_in_bytes memory.max", mib << 20)
    });
    let processes =
        (20..=900_u32).prop_map(|n| inside(json!({"pids_limit": n}), "limit pids/pids.max pids.max", n));
    let shared = (1..=64_u32).prop_map(|mib| {
        let found = format!("size={}k", mib << 10);
        inside(json!({"shm_size": format!("{mib}mb")}), "mounted /dev/shm size=", found)
    });
    let files = (64..=500_u32, 0..=500_u32).prop_map(|(soft, more)| {
        let hard = soft + more;
        let asked = if more == 0 { json!(soft) } else { json!({"soft": soft, "hard": hard}) };
        inside(json!({"ulimits": {"nofile": asked}}), "ulimit -Sn; ulimit -Hn", format!("{soft}\n{hard}"))
    });
    let score =
        (0..=1000_u32).prop_map(|n| inside(json!({"oom_score_adj": n}), "cat /proc/self/oom_score_adj", n));
    let shares =
        (2..=4096_u32).prop_map(|n| configured(json!({"cpu_shares": n}), "/HostConfig/CpuShares", json!(n)));
    vec![
        cpus.boxed(),
        memory.boxed(),
        processes.boxed(),
        shared.boxed(),
        files.boxed(),
        score.boxed(),
        shares.boxed(),
    ]
}

fn people() -> Vec<BoxedStrategy<Wish>> {
    let identity = (0..=2000_u32, 0..=2000_u32, prop::collection::btree_set(3000..=4000_u32, 0..3));
    let identity = identity.prop_map(|(user, group, more)| {
        let groups: BTreeSet<_> = more.iter().copied().chain([group]).collect();
        let groups: Vec<_> = groups.iter().map(ToString::to_string).collect();
        inside(
            json!({"user": format!("{user}:{group}"), "group_add": more}),
            "id -u; id -g; id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' '",
            format!("{user}\n{group}\n{}", groups.join(" ")),
        )
    });
    // By their numbers in the kernel (linux/capability.h).
    let known = [("CHOWN", 0), ("KILL", 5), ("NET_BIND_SERVICE", 10), ("NET_ADMIN", 12), ("SYS_TIME", 25)];
    let capabilities = prop::sample::subsequence(known.to_vec(), 0..=known.len()).prop_map(|some| {
        let bits: u64 = some.iter().map(|(_, bit)| 1 << bit).sum();
        let names: Vec<_> = some.iter().map(|(name, _)| *name).collect();
        inside(json!({"cap_drop": ["ALL"], "cap_add": names}), "status CapBnd", format!("{bits:016x}"))
    });
    let init = any::<bool>().prop_map(|has| {
        inside(json!({"init": has}), "cat /proc/1/comm", if has { "docker-init" } else { "busybox" })
    });
    let read_only = Just(inside(json!({"read_only": true}), "mounted / '^r[ow]$'", "ro"));
    let name = "[a-z][a-z0-9-]{0,20}[a-z0-9]"
        .prop_map(|name| inside(json!({"hostname": name}), "cat /proc/sys/kernel/hostname", name));
    let sysctls = (128..=4096_u32, 8192..=65536_u32).prop_map(|(backlog, message)| {
        inside(
            json!({"sysctls": {"net.core.somaxconn": backlog, "kernel.msgmax": message.to_string()}}),
            "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax",
            format!("{backlog}\n{message}"),
        )
    });
    vec![
        identity.boxed(),
        capabilities.boxed(),
        init.boxed(),
        read_only.boxed(),
        name.boxed(),
        sysctls.boxed(),
    ]
}

fn environment() -> BoxedStrategy<Wish> {
    let all = prop::collection::btree_map("V_[A-Z0-9_]{1,6}", "[ -~\\n\\té→]{0,12}", 1..4);
    all.prop_map(|all| {
        let script = all.keys().fold(String::new(), |mut text, name| {
            write!(text, "printf '%s|' \"${name}\"; ").unwrap();
            text
        });
        let found = all.values().fold(String::new(), |text, value| text + value + "|");
        inside(json!({"environment": all}), &script, found)
    })
    .boxed()
}

fn network() -> BoxedStrategy<Wish> {
    let address = prop::array::uniform2(1..=250_u8).prop_map(|[a, b]| format!("10.{a}.{b}.1"));
    let servers = prop::collection::vec(address.clone(), 1..=3).prop_map(|servers| {
        let lines: Vec<_> = servers.iter().map(|server| format!("nameserver {server}")).collect();
        inside(
            json!({"network_mode": "bridge", "dns": servers}),
            "grep nameserver /etc/resolv.conf",
            lines.join("\n"),
        )
    });
    let hosts = ("[a-z]{4,9}", address).prop_map(|(name, address)| {
        inside(
            json!({"network_mode": "bridge", "extra_hosts": {&name: &address}}),
            &format!("grep ' *{name}$' /etc/hosts | tr -s '\\t' ' '"),
            format!("{address} {name}"),
        )
    });
    let ports = (1..=65535_u16, any::<bool>()).prop_map(|(port, is_udp)| {
        let kind = if is_udp { "udp" } else { "tcp" };
        configured(
            json!({"network_mode": "bridge", "ports": [format!("127.0.0.1::{port}/{kind}")]}),
            "/HostConfig/PortBindings",
            json!({format!("{port}/{kind}"): [{"HostIp": "127.0.0.1", "HostPort": ""}]}),
        )
    });
    let named = "[a-z]{3,9}".prop_map(|alias| {
        let fields = json!({"networks": {"other": {"aliases": [alias]}}});
        inside(fields, "cat /sys/class/net/eth0/mtu", 1400)
    });
    let none = Just(inside(json!({"network_mode": "none"}), "ls /sys/class/net", "lo"));
    prop_oneof![none, servers, hosts, ports, named].boxed()
}

fn mounts() -> BoxedStrategy<Wish> {
    let volume = (any::<bool>(), any::<bool>()).prop_map(|(is_read_only, is_long)| {
        let mode = if is_read_only { "ro" } else { "rw" };
        let asked = if is_long {
            json!({"type": "volume", "source": "data", "target": "/data", "read_only": is_read_only})
        } else {
            json!(format!("data:/data:{mode}"))
        };
        inside(json!({"volumes": [asked]}), "mounted /data '^r[ow]$'", mode)
    });
    let tmpfs = (4..=4096_u32).prop_map(|pages| {
        let kib = pages * 4;
        inside(json!({"tmpfs": [format!("/t:size={kib}k")]}), "mounted /t size=", format!("size={kib}k"))
    });
    let anonymous = Just(inside(json!({"volumes": ["/seeded"]}), "ls /seeded", "seed"));
    prop_oneof![volume, tmpfs, anonymous].boxed()
}

fn life() -> Vec<BoxedStrategy<Wish>> {
    let restart = (0..4_u8, 1..=9_u32).prop_map(|(kind, count)| {
        let (asked, name, count) = match kind {
            0 => ("no".to_owned(), "no", 0),
            1 => (format!("on-failure:{count}"), "on-failure", count),
            2 => ("unless-stopped".to_owned(), "unless-stopped", 0),
            _ => ("always".to_owned(), "unless-stopped", 0),
        };
        configured(
            json!({"restart": asked}),
            "/HostConfig/RestartPolicy",
            json!({"Name": name, "MaximumRetryCount": count}),
        )
    });
    let stop = (1..=90_000_u32, prop::sample::select(vec!["SIGTERM", "SIGINT", "SIGUSR1"]));
    let stop = stop.prop_map(|(ms, signal)| Wish {
        configured: vec![
            ("/Config/StopTimeout".to_owned(), json!(ms.div_ceil(1000))),
            ("/Config/StopSignal".to_owned(), json!(signal)),
        ],
        ..configured(json!({"stop_grace_period": format!("{ms}ms"), "stop_signal": signal}), "", Value::Null)
    });
    let probe = (1..=3600_u64, 1..=600_u64, 1..=9_u32).prop_map(|(interval, timeout, retries)| {
        configured(
            json!({"healthcheck": {
                "test": ["CMD", "/bin/busybox", "true"], "interval": format!("{interval}s"),
                "timeout": format!("{timeout}s"), "retries": retries,
            }}),
            "/Config/Healthcheck",
            json!({
                "Test": ["CMD", "/bin/busybox", "true"], "Interval": interval * 1_000_000_000,
                "Timeout": timeout * 1_000_000_000, "Retries": retries,
            }),
        )
    });
    let logs = (1..=900_u32, 1..=9_u32).prop_map(|(size, count)| {
        let options = json!({"max-size": format!("{size}k"), "max-file": count.to_string()});
        configured(
            json!({"logging": {"driver": "json-file", "options": options}}),
            "/HostConfig/LogConfig",
            json!({"Type": "json-file", "Config": options}),
        )
    });
    let label = ("[a-z]{2,8}(\\.[a-z]{2,8}){1,2}", "[ -~é]{0,16}").prop_map(|(key, value)| {
        configured(json!({"labels": {&key: &value}}), &format!("/Config/Labels/{key}"), json!(value))
    });
    vec![restart.boxed(), stop.boxed(), probe.boxed(), logs.boxed(), label.boxed()]
}

/// Any service: of each kind of wish one or none.
fn service() -> impl Strategy<Value = Vec<Option<Wish>>> {
    let mut kinds = limits();
    kinds.extend(people());
    kinds.extend(life());
    kinds.extend([environment(), network(), mounts()]);
    kinds.into_iter().map(|kind| prop::option::weighted(0.4, kind)).collect::<Vec<_>>()
}

/// The compose file that asks for all of them, and writes what the container finds.
fn compose(image: &str, wishes: &[Wish]) -> String {
    let mut script = PRELUDE.to_owned();
    let mut fields = Map::new();
    for (n, wish) in wishes.iter().enumerate() {
        writeln!(script, "echo '== {n}'; {}", wish.script).unwrap();
        fields.extend(wish.fields.as_object().unwrap().clone());
    }
    writeln!(script, "echo; echo '== {END}'; exec sleep 1000").unwrap();
    fields.insert("image".to_owned(), json!(image));
    fields.insert("entrypoint".to_owned(), json!(["/bin/busybox", "sh", "-c"]));
    fields.insert("command".to_owned(), json!([script]));
    let mut services = json!({"web": fields});
    escape(&mut services);
    let other = json!({"driver_opts": {"com.docker.network.driver.mtu": "1400"}});
    let file = json!({"services": services, "networks": {"other": other}, "volumes": {"data": {}}});
    serde_json::to_string(&file).unwrap()
}

/// A compose file has `$$` for `$`.
fn escape(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace('$', "$$"),
        Value::Array(items) => items.iter_mut().for_each(escape),
        Value::Object(map) => map.values_mut().for_each(escape),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The file as `release create` reads it, then as a device reads it from its target.
fn read(bench: &Bench, text: &str) -> Result<Target, String> {
    let file = project::parse(text).map_err(|wrong| format!("{wrong:?}"))?.file;
    let web = &file.services["web"];
    let service = json!({"id": 1, "image_id": 1, "image": web["image"], "composition": web});
    let target = json!({DEVICE: {"name": "d", "apps": {DEVICE: {
        "id": bench.app.number, "name": "demo", "releases": {"abc123": {
            "id": 1, "services": {"web": service}, "networks": file.networks, "volumes": file.volumes,
        }},
    }}}});
    let device = DeviceUuid::parse(DEVICE).unwrap();
    target_v3::parse(target.to_string().as_bytes(), &device, &Policy::default()).map_err(|e| e.to_string())
}

fn release(target: &Target) -> Result<&Release, String> {
    match target.apps.values().next() {
        Some(TargetApp::Wanted(wanted)) => wanted.release.as_ref().ok_or_else(|| "no release".to_owned()),
        other => Err(format!("{other:#?}")),
    }
}

/// What is planned for a device that runs `target` well, as it sees itself.
fn planned(target: &Target, observed: &Observed) -> Result<String, String> {
    let mut ledger = Ledger::default();
    for app in target.apps.keys() {
        let good = Some(release(target)?.clone());
        ledger.apps.insert(app.clone(), AppLedger { good, ..AppLedger::default() });
    }
    let at = Situation {
        target: Some(Arc::new(target.clone())),
        observed: Arc::new(observed.clone()),
        ledger: Arc::new(ledger),
        pulling: BTreeMap::new(),
        measuring: BTreeSet::new(),
        failed_steps: BTreeMap::new(),
        steady: BTreeMap::new(),
        facts: Arc::default(),
        boot_id: "boot".into(),
        settings: Arc::default(),
    };
    let steps: Vec<_> = plan(&at).stage.iter().map(ToString::to_string).collect();
    Ok(steps.join(", "))
}

/// Creates what `wishes` ask for, looks at it, starts it once more, and looks again.
async fn try_out(bench: &Bench, wishes: &[Wish]) -> Result<(), String> {
    let text = compose(&bench.image, wishes);
    let target = read(bench, &text)?;
    let release = release(&target)?;
    bench.create_networks(release).await;
    let web = ServiceName::parse("web").unwrap();
    let text_of = |error: cotter::engine::EngineError| error.to_string();
    bench.create(release, &web).await.map_err(text_of)?;
    let seen = bench.engine.observe().await.map_err(text_of)?.services.pop().ok_or("it is not seen")?;
    bench.engine.start(&seen.container).await.map_err(text_of)?;
    let wrote = eventually("the container has written everything", Duration::from_secs(30), || {
        let wrote = bench.logs("web");
        wrote.contains(END).then_some(wrote)
    });
    let mut wrong = differences(bench, wishes, &wrote);
    bench.lab.docker().run(&["restart", "--time", "0", seen.container.as_str()]);
    // Read anew, as after a start of the agent.
    let planned = planned(&read(bench, &text)?, &bench.engine.observe().await.map_err(text_of)?)?;
    if !planned.is_empty() {
        wrong.push(format!("planned though nothing changed: {planned}"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}\n{text}", wrong.join("\n"))) }
}

fn differences(bench: &Bench, wishes: &[Wish], wrote: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let containers = bench.lab.docker().containers(&bench.instance);
    let mut sections = wrote.split("== ");
    for (n, wish) in wishes.iter().enumerate() {
        let section =
            sections.find_map(|section| section.strip_prefix(&format!("{n}\n"))).unwrap_or("nothing");
        if section.trim() != wish.inside.trim() {
            wrong.push(format!("{}: inside is {section:?} and not {:?}", wish.fields, wish.inside));
        }
        for (pointer, expected) in wish.configured.iter().filter(|(pointer, _)| !pointer.is_empty()) {
            let found = containers[0].raw.pointer(pointer);
            if found != Some(expected) {
                wrong.push(format!("{}: {pointer} is {found:?} and not {expected}", wish.fields));
            }
        }
    }
    wrong
}

async fn remove_all(bench: &Bench) {
    let observed = bench.engine.observe().await.unwrap();
    for seen in observed.services {
        bench.engine.remove_by_force(&seen.container).await.unwrap();
    }
    for network in observed.networks {
        bench.engine.remove_network(&network.id).await.unwrap();
    }
}

#[test]
fn any_service_is_as_it_was_asked_for_and_stays_as_it_is() {
    let count = number("COTTER_SPECS").unwrap_or(20);
    let (mut chance, seed) = crate::support::Chance::seeded("COTTER_SPECS_SEED");
    eprintln!("COTTER_SPECS_SEED={seed} repeats these specs");
    let bytes: Vec<u8> = (0..32).map(|_| u8::try_from(chance.below(256)).unwrap()).collect();
    let config = Config {
        cases: u32::try_from(count).unwrap(),
        // Each of them is a container or two.
        max_shrink_iters: 60,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bench = Bench::new("generated", u64::from(std::process::id()) + 17);
    let found = runner.run(&service(), |wishes| {
        let wishes: Vec<_> = wishes.into_iter().flatten().collect();
        runtime.block_on(async {
            let result = try_out(&bench, &wishes).await;
            remove_all(&bench).await;
            result.map_err(TestCaseError::fail)
        })
    });
    if let Err(found) = found {
        panic!("COTTER_SPECS_SEED={seed} COTTER_SPECS={count}: {found}");
    }
}
