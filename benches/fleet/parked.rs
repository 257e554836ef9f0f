//! Polls that wait at the server: the memory of each, and how long news take to all of them.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Table;
use crate::load::{Client, Times, parked_poll};
use crate::server::Server;

/// Connections that are opened before the next ones.
const AT_ONCE: usize = 500;

/// Devices with one source address.
const WITH_ONE_ADDRESS: usize = 10_000;

/// Parks polls of devices with odd numbers, which follow the fleet, and then pins the fleet.
pub async fn measure(server: &Server, table: &mut Table, etags: &[String], commit: &str) {
    let parked = server.parked.min(etags.len() / 2);
    let before = server.memory_kib();
    let mut polls = JoinSet::new();
    for n in 0..parked {
        let number = n * 2 + 1;
        let request = parked_poll(u32::try_from(number).unwrap(), &etags[number - 1]);
        let source = Ipv4Addr::new(127, 0, 0, u8::try_from(2 + n / WITH_ONE_ADDRESS).unwrap());
        let address = server.address;
        polls.spawn(async move {
            let answer = Client::connect_from(source, address).await.send(&request).await;
            (answer.status, Instant::now())
        });
        if n % AT_ONCE == AT_ONCE - 1 || n + 1 == parked {
            server.until_parked(n + 1).await;
        }
    }
    let each = (server.memory_kib().saturating_sub(before)) as f64 / parked as f64;
    table.row(&format!("memory of each of {parked} polls that wait"), format!("{each:.1} KiB"), "≤ 16 KiB");

    let begun = Instant::now();
    server.act("/fleets/lab/pin", &format!("{{\"release\":\"{commit}\"}}")).await;
    let acted = begun.elapsed();
    let mut times: Vec<Duration> = Vec::new();
    while let Some(answered) = polls.join_next().await {
        let (status, at) = answered.expect("a poll is answered");
        assert_eq!(status, 200, "a new target");
        times.push(at.duration_since(begun));
    }
    let times = Times::of(times);
    let figure = format!(
        "p50 {}, p99 {}, the last {}; the pin itself {:.0} ms",
        times.at(50),
        times.at(99),
        times.at(100),
        acted.as_secs_f64() * 1000.0
    );
    table.row(
        &format!("from a pin to {parked} waiting devices, each with its whole target"),
        figure,
        "p99 < 1 s",
    );
}
