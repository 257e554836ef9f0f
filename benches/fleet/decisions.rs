//! Decisions of a rollout over all devices of the fleet, with half of them exposed at the end.

use std::time::Duration;

use crate::Table;
use crate::load::median;
use crate::server::Server;

/// Decisions that are measured.
const DECISIONS: usize = 20;

/// A decision follows another after a second at the earliest.
const BETWEEN: Duration = Duration::from_millis(400);

/// Starts a rollout for all devices and reads from the server's metrics how long its decisions take.
pub async fn measure(server: &Server, table: &mut Table, devices: u32, commit: &str) {
    server.act("/devices/track-fleet", r#"{"filter":"half=a"}"#).await;
    let definition = r#"{"waves":["50%","100%"],"segments":["half"]}"#;
    let body = format!(r#"{{"release":"{commit}","definition":{definition}}}"#);
    server.act("/fleets/lab/rollouts", &body).await;
    let mut times = Vec::new();
    let (mut count, mut sum) = so_far(server).await;
    while times.len() < DECISIONS {
        tokio::time::sleep(BETWEEN).await;
        let (next, total) = so_far(server).await;
        if next > count {
            times.push((total - sum) / (next - count) * 1000.0);
            (count, sum) = (next, total);
        }
    }
    let most = times.iter().copied().fold(0.0, f64::max);
    let figure = format!("{:.0} ms, {most:.0} ms at most", median(times));
    table.row(&format!("a decision of a rollout for {devices} devices"), figure, "< 50 ms");
}

/// Returns the number of decisions and the seconds that they took.
async fn so_far(server: &Server) -> (f64, f64) {
    let page = server.page("/metrics").await;
    let of = |end: &str| {
        let name = format!("cotter_fleet_rollout_decision_seconds_{end} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&name)).expect("the metric is there");
        value.parse().expect("a number")
    };
    (of("count"), of("sum"))
}
