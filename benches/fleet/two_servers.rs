//! Two servers that share a PostgreSQL: both on one processor, the database and the load on the other. The database is
//! Debian's with its own settings, so each commit is on the disk before it is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::load::{self, Client, Times};
use crate::postgres::{PASSWORD, Postgres};
use crate::server::{self, Server, Store};
use crate::{Table, WINDOW, seed};

/// How often a device of one server waits for an act at the other.
const ACTS: usize = 200;

/// Connections that report while servers are killed, and the devices of each.
const REPORTING: u32 = 32;
const OF_EACH: u32 = 20;

/// What every measurement needs.
struct Site<'a> {
    binary: &'a Path,
    folder: &'a Path,
    store: Store,
    postgres: Postgres,
    devices: u32,
}

pub fn run(
    runtime: &Runtime,
    binary: &Path,
    folder: &Path,
    seeded: &seed::Seeded,
    (devices, kills): (u32, u32),
) {
    let Some(postgres) = Postgres::start_with(&["max_connections=40"]) else {
        panic!("PostgreSQL is not installed; scripts/prepare.sh does that");
    };
    let password_file = folder.join("password");
    fs::write(&password_file, PASSWORD).unwrap();
    fs::set_permissions(&password_file, fs::Permissions::from_mode(0o600)).unwrap();
    let url = postgres.url("fleet").replace(&format!(":{PASSWORD}"), "");
    let site = Site { binary, folder, store: Store { url, password_file }, postgres, devices };
    let mut table = Table { rows: Vec::new() };
    let begun = Instant::now();
    server::restore(binary, folder, Some(&site.store));
    table.row(
        &format!("restore a backup of {devices} devices into the database ({} MB)", seeded.bytes / 1_000_000),
        format!("{:.1} s", begun.elapsed().as_secs_f64()),
        "",
    );
    let servers = ["a", "b"].map(|name| site.start(name));
    let both = |of: fn(&Server) -> f64| format!("{:.1} and {:.1}", of(&servers[0]), of(&servers[1]));
    table.row("start, first and second server", both(|it| it.started.as_secs_f64()) + " s", "< 3 s");
    table.row("memory at rest", both(|it| it.memory_kib() as f64 / 1024.0) + " MiB", "≤ 256 MiB");
    runtime.block_on(measure(&site, &mut table, &servers, seeded));
    table.row("memory of the database", format!("{} MiB", site.postgres.memory_kib() / 1024), "");
    table.row(
        "memory at the end, at most",
        both(|it| it.peak_kib() as f64 / 1024.0) + " MiB",
        "≤ 512 MiB, the unit's",
    );
    runtime.block_on(kill(site, &mut table, servers, kills));
    println!("\n{}: two servers on one processor, PostgreSQL and the load on the other\n", server::machine());
    table.print();
}

impl Site<'_> {
    fn start(&self, name: &str) -> Server {
        Server::start_at(self.binary, self.folder, name, Some(&self.store))
    }
}

async fn measure(site: &Site<'_>, table: &mut Table, servers: &[Server; 2], seeded: &seed::Seeded) {
    let [a, b] = servers;
    let mut client = Client::connect(a.address).await;
    let mut etags = Vec::new();
    let begun = Instant::now();
    for number in 1..=site.devices {
        let answer = client.send(&load::poll(number, None)).await;
        assert_eq!(answer.status, 200, "device {number}");
        etags.push(answer.etag.expect("an etag"));
    }
    let each = f64::from(site.devices) / begun.elapsed().as_secs_f64();
    table.row("first polls at one server, one after the other", format!("{each:.0}/s"), "");

    for commit in [&seeded.commits[1], &seeded.commits[2]] {
        let body = format!("{{\"filter\":\"half=a\",\"release\":\"{commit}\"}}");
        let following = follow(b, &etags[1], commit);
        let ((pin, acted), polls, seen) = tokio::join!(
            async { (a.act("/devices/pin", &body).await, Instant::now()) },
            load::paced(b.address, &etags, Duration::from_secs(6), 2_000),
            following,
        );
        let figure = format!(
            "{:.2} s, {:.2} s later known to a device of the other server; polls there meanwhile: p50 {}, p99 {}, most {}",
            pin.as_secs_f64(),
            seen.saturating_duration_since(acted).as_secs_f64(),
            polls.at(50),
            polls.at(99),
            polls.at(100)
        );
        table.row(&format!("bulk pin of {} devices by tag", site.devices / 2), figure, "");
    }
    table.row(
        "an act at one server until a device of the other has it",
        seen(servers, seeded, &etags).await,
        "< 1 s",
    );

    let alone = load::reports(a.address, 64, site.devices, WINDOW).await;
    table.row("reports at 64 connections of one server", format!("{:.0}/s", alone.per_second()), "");
    let half = site.devices / 2;
    // Each device reports at one server.
    let (one, other) = tokio::join!(
        load::reports(a.address, 32, half, WINDOW),
        load::reports_from(b.address, 32, half, half, WINDOW)
    );
    let both = one.per_second() + other.per_second();
    table.row("reports at 32 connections of each server", format!("{both:.0}/s"), "");
}

/// Waits until a device of a server has a release: when it has.
async fn follow(server: &Server, etag: &str, commit: &str) -> Instant {
    let mut client = Client::connect(server.address).await;
    let mut etag = etag.to_owned();
    loop {
        let answer = client.send(&load::parked_poll(2, &etag)).await;
        let at = Instant::now();
        if answer.status == 200 {
            etag = answer.etag.expect("an etag");
            if answer.body.windows(commit.len()).any(|part| part == commit.as_bytes()) {
                return at;
            }
        }
    }
}

/// Pins a device at one server whose poll waits at the other, again and again, each time another one; the servers take turns.
async fn seen(servers: &[Server; 2], seeded: &seed::Seeded, etags: &[String]) -> String {
    let mut times = Vec::new();
    // Devices with odd numbers follow the fleet so far.
    let numbers = (1..).step_by(2).take_while(|number| *number <= etags.len()).take(ACTS);
    for (n, number) in numbers.enumerate() {
        let (act, poll) = (&servers[n % 2], &servers[(n + 1) % 2]);
        let device = u32::try_from(number).unwrap();
        let (path, body) = (
            format!("/devices/{}/pin", seed::device(device).0),
            format!("{{\"release\":\"{}\"}}", seeded.commits[1]),
        );
        let request = load::parked_poll(device, &etags[number - 1]);
        let told = async {
            let answer = Client::connect(poll.address).await.send(&request).await;
            assert_eq!(answer.status, 200, "a new target");
            Instant::now()
        };
        let pin = async {
            // The poll waits by then.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let begun = Instant::now();
            act.act(&path, &body).await;
            begun
        };
        let (at, begun) = tokio::join!(told, pin);
        times.push(at.saturating_duration_since(begun));
    }
    let times = Times::of(times);
    format!("p50 {}, p99 {}, most {}, of {ACTS} acts", times.at(50), times.at(99), times.at(100))
}

/// Where a load finds the servers now. One that is down is asked in vain.
type Addresses = Arc<RwLock<[(std::net::SocketAddr, String); 2]>>;

/// Ends a server or the database with SIGKILL, again and again, while devices report and operators act, and then counts what
/// was acknowledged and is not in the database.
async fn kill(mut site: Site<'_>, table: &mut Table, servers: [Server; 2], kills: u32) {
    let addresses: Addresses =
        Arc::new(RwLock::new(servers.each_ref().map(|it| (it.address, it.token().to_owned()))));
    let is_over = Arc::new(AtomicBool::new(false));
    let reported = Arc::new(Mutex::new(BTreeMap::new()));
    let acted = Arc::new(Mutex::new(BTreeSet::new()));
    let mut tasks = JoinSet::new();
    for n in 0..REPORTING {
        tasks.spawn(report(n, Arc::clone(&addresses), Arc::clone(&is_over), Arc::clone(&reported)));
    }
    for n in 0..4 {
        tasks.spawn(act(n, Arc::clone(&addresses), Arc::clone(&is_over), Arc::clone(&acted)));
    }
    let mut servers = servers.map(Some);
    let mut slowest = Duration::ZERO;
    for turn in 0..kills {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let begun = Instant::now();
        match turn % 3 {
            2 => {
                site.postgres.kill();
                site.postgres.start_again();
            }
            which => {
                let which = usize::try_from(which).unwrap();
                servers[which].take().expect("it runs").kill();
                let started = site.start(["a", "b"][which]);
                addresses.write().unwrap()[which] = (started.address, started.token().to_owned());
                servers[which] = Some(started);
            }
        }
        slowest = slowest.max(begun.elapsed());
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    is_over.store(true, Ordering::Relaxed);
    while tasks.join_next().await.is_some() {}

    let (reported, acted) = (reported.lock().unwrap(), acted.lock().unwrap());
    let numbers = "SELECT uuid, substring(record from '\"n([0-9]+)\"') FROM cotter_reports";
    let stored: BTreeMap<String, u64> = rows(&site.postgres.psql("fleet", numbers));
    let lost_reports =
        reported.iter().filter(|(uuid, n)| stored.get(*uuid).is_none_or(|found| found < *n)).count();
    let audit = site.postgres.psql(
        "fleet",
        "SELECT substring(record from 'k-[0-9]+-[0-9]+'), count(*) FROM cotter_audit \
         WHERE record LIKE '%\"create a fleet\"%' AND record LIKE '%\"done\"%' GROUP BY 1",
    );
    let done: BTreeMap<String, u64> = rows(&audit);
    let lost_acts = acted.iter().filter(|name| !done.contains_key(*name)).count();
    let twice = done.values().filter(|count| **count > 1).count();
    table.row(
        &format!("{kills} kill -9 of servers and database, in turn: acknowledged and lost"),
        format!(
            "{lost_acts} of {} acts, {lost_reports} of the last reports of {} devices; {twice} acts done twice; \
             longest until it was back {:.1} s",
            acted.len(),
            reported.len(),
            slowest.as_secs_f64()
        ),
        "0",
    );
    assert!(kills == 0 || (!acted.is_empty() && !reported.is_empty()), "the load has done something");
}

fn rows(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once('|'));
    pairs.filter_map(|(key, number)| Some((key.to_owned(), number.parse().ok()?))).collect()
}

async fn report(
    n: u32,
    addresses: Addresses,
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeMap<String, u64>>>,
) {
    // Larger than all that were reported before.
    let mut count = 1_000_000_000;
    while !is_over.load(Ordering::Relaxed) {
        count += 1;
        let number = n * OF_EACH + u32::try_from(count % u64::from(OF_EACH)).unwrap() + 1;
        let address = addresses.read().unwrap()[(n % 2) as usize].0;
        let sent = async {
            let mut client = Client::try_connect(address).await.ok()?;
            client.try_send(&load::numbered_report(number, count)).await.ok()
        };
        match tokio::time::timeout(Duration::from_secs(30), sent).await {
            Ok(Some(answer)) if answer.status == 200 => {
                acknowledged.lock().unwrap().insert(seed::device(number).0, count);
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn act(
    n: u32,
    addresses: Addresses,
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
) {
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        count += 1;
        let name = format!("k-{n}-{count}");
        let (address, token) = addresses.read().unwrap()[(n % 2) as usize].clone();
        let body = format!("{{\"name\":\"{name}\"}}");
        let sent = Server::try_act(address, &token, "/fleets", &body);
        if tokio::time::timeout(Duration::from_secs(30), sent).await == Ok(true) {
            acknowledged.lock().unwrap().insert(name);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
