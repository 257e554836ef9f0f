//! The fleet server, measured: `make bench-fleet`.
//!
//! The server that is shipped runs on one processor, and the load on the other. What it answers is compared with a bare axum
//! that answers the same bytes, in the same run. `--devices N` and `--releases N` for other sizes; `--server FILE` is the binary
//! that is measured; `--postgres` measures two servers on one PostgreSQL instead, with `--kills N`. Other words are passed
//! over: cargo adds some.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a bench fails by panicking, reads the real clocks, prints its table, and its counts are small"
)]

mod bare;
mod decisions;
mod load;
mod parked;
#[allow(dead_code, reason = "tests use more of it")]
#[path = "../../tests/support/postgres.rs"]
mod postgres;
mod seed;
mod server;
mod two_servers;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use load::{Client, Measured, median};
use server::Server;

/// How long each rate is measured.
const WINDOW: Duration = Duration::from_secs(5);

struct Table {
    rows: Vec<[String; 3]>,
}

impl Table {
    fn row(&mut self, what: &str, figure: String, goal: &str) {
        eprintln!("{what}: {figure}");
        self.rows.push([what.to_owned(), figure, goal.to_owned()]);
    }

    fn print(&self) {
        println!("| figure | measured | goal |\n| --- | --- | --- |");
        for [what, figure, goal] in &self.rows {
            println!("| {what} | {figure} | {goal} |");
        }
    }
}

fn main() {
    let words: Vec<_> = std::env::args().collect();
    if words.get(1).is_some_and(|word| word == bare::WORD) {
        return bare::serve();
    }
    let value = |name: &str| words.windows(2).find(|two| two[0] == name).map(|two| two[1].clone());
    let number = |name: &str, usual| value(name).map_or(usual, |n| n.parse().expect("a number"));
    let (devices, releases) = (number("--devices", 100_000_u32), number("--releases", 1_000_u32));
    let binary = PathBuf::from(value("--server").unwrap_or_else(|| "target/server/cotter-fleet".to_owned()));
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");

    eprintln!("seeding {devices} devices and {releases} releases");
    let seeded = seed::write(&folder.path().join("backup.jsonl"), devices, releases);
    if words.iter().any(|word| word == "--postgres") {
        let kills = number("--kills", 12);
        return two_servers::run(&runtime, &binary, folder.path(), &seeded, (devices, kills));
    }
    let begun = Instant::now();
    server::restore(&binary, folder.path(), None);
    let restored = begun.elapsed();
    let mut table = Table { rows: Vec::new() };
    table.row(
        &format!("restore a backup of {devices} devices ({} MB)", seeded.bytes / 1_000_000),
        format!("{:.1} s", restored.as_secs_f64()),
        "",
    );
    let server = Server::start(&binary, folder.path());
    table.row("start", format!("{:.1} s", server.started.as_secs_f64()), "< 3 s");
    let at_rest = server.memory_kib();
    table.row(
        "memory at rest",
        format!("{} MiB, {:.2} KiB a device", at_rest / 1024, at_rest as f64 / f64::from(devices)),
        "≤ 2 KiB a device",
    );
    runtime.block_on(measure(&server, &mut table, &seeded, devices));
    println!("\n{} on one processor, the load on the other\n", server::machine());
    table.print();
}

async fn measure(server: &Server, table: &mut Table, seeded: &seed::Seeded, devices: u32) {
    // Every device fetches its whole target once.
    let mut client = Client::connect(server.address).await;
    let mut etags = Vec::new();
    let begun = Instant::now();
    for number in 1..=devices {
        let answer = client.send(&load::poll(number, None)).await;
        assert_eq!(answer.status, 200, "device {number}");
        etags.push(answer.etag.expect("an etag"));
    }
    table.row(
        "first polls, each with the whole target, one after the other",
        format!("{:.0}/s", f64::from(devices) / begun.elapsed().as_secs_f64()),
        "",
    );
    table.row("memory after every device polled", format!("{} MiB", server.memory_kib() / 1024), "≤ 256 MiB");

    lists(server, table).await;

    // Polls without news: kept alive, and with a new connection each; beside a bare axum that answers the same.
    let bare = bare::Bare::start();
    for (name, is_new) in [("kept alive", false), ("with a new connection each", true)] {
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..3 {
            ours.push(load::rate(server.address, &etags, is_new, WINDOW).await.per_second());
            theirs.push(load::rate(bare.address, &etags, is_new, WINDOW).await.per_second());
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let goal = if is_new { "≥ 80 % of bare axum" } else { "≥ 20,000/s" };
        let figure = format!("{ours:.0}/s, {:.0} % of a bare axum ({theirs:.0}/s)", ours / theirs * 100.0);
        table.row(&format!("polls without news, {name}"), figure, goal);
    }
    drop(bare);

    // A bulk pin of half of the devices, while others poll.
    for commit in [seeded.commits[1].as_str(), seeded.commits[2].as_str()] {
        let body = format!("{{\"filter\":\"half=a\",\"release\":\"{commit}\"}}");
        let (pin, polls) = tokio::join!(
            server.act("/devices/pin", &body),
            load::paced(server.address, &etags, Duration::from_secs(4), 2_000),
        );
        let figure = format!(
            "{:.2} s; polls meanwhile: p50 {}, p99 {}, most {}",
            pin.as_secs_f64(),
            polls.at(50),
            polls.at(99),
            polls.at(100)
        );
        table.row(&format!("bulk pin of {} devices by tag", devices / 2), figure, "< 1 s, p99 < 20 ms");
    }
    let polls = load::paced(server.address, &etags, Duration::from_secs(4), 2_000).await;
    table.row(
        "the same polls at rest",
        format!("p50 {}, p99 {}, most {}", polls.at(50), polls.at(99), polls.at(100)),
        "",
    );

    parked::measure(server, table, &etags, &seeded.commits[3]).await;

    let reports: Measured = load::reports(server.address, 64, devices, WINDOW).await;
    table.row(
        "reports at 64 connections, each on the disk before it is answered",
        format!("{:.0}/s", reports.per_second()),
        "≥ 10,000/s",
    );
    decisions::measure(server, table, devices, &seeded.commits[4]).await;
    table.row(
        "memory at the end",
        format!("{} MiB, at most {} MiB", server.memory_kib() / 1024, server.peak_kib() / 1024),
        "",
    );
}

async fn lists(server: &Server, table: &mut Table) {
    for (name, path) in [
        ("fleets", "/fleets?limit=100"),
        ("devices", "/devices?limit=100"),
        ("devices by tag", "/devices?limit=100&filter=half%3Da"),
        ("devices by state", "/devices?limit=100&state=silent"),
        ("releases", "/releases?limit=100"),
        ("metrics", "metrics"),
    ] {
        let mut times = Vec::new();
        for _ in 0..5 {
            times.push(server.get(path).await.as_secs_f64() * 1000.0);
        }
        table.row(&format!("first page of {name}"), format!("{:.0} ms", median(times)), "< 50 ms");
    }
}
