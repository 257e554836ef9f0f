//! What the upload of logs and the supervisor API cost: at rest, and while an app floods its log.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::device::{Device, Rest};
use crate::figures::{median, most};
use crate::support::{FleetServer, Lab};
use crate::table::Row;

/// Services of each device, besides the one that floods.
const SERVICES: usize = 5;

/// Longer than a stream stays open without lines.
const UNTIL_CLOSED: Duration = Duration::from_secs(75);

/// Some 50,000 lines of 61 bytes a second. It counts them in a file.
const FLOOD: &str = "i=0; while :; do /busybox yes 'a line of a flood, which has some sixty characters in all..' | \
                     /busybox head -n 2500; i=$$((i+2500)); echo $$i > /count; /busybox usleep 43000; done";

/// The sizes of a measurement.
pub struct Size {
    pub rest: Duration,
    pub rounds: usize,
}

/// The rows about logs. The server gets the logs of all devices from now on.
#[track_caller]
pub fn rows(lab: &Lab, server: &mut FleetServer, size: &Size, say: &dyn Fn(&str)) -> Vec<Row> {
    server.stop();
    server.take_all_logs();
    server.start_again();
    say("devices without logs and API, with them, and with a flood");
    let install = |name: &str, kind: Kind| {
        let files = ["r1", "r2"].map(|release| compose(lab, name, release, kind));
        let others = usize::from(kind == Kind::Flood);
        let upload = if kind == Kind::Without { "logs.upload=off" } else { "logs.upload=on" };
        let settings = [upload, "policy.host_paths=/usr/bin/busybox"];
        Device::install_of(lab, server, (name, SERVICES, others), &files, &settings)
    };
    let mut quiet = vec![install("logs-off", Kind::Without), install("logs-on", Kind::With)];
    std::thread::sleep(UNTIL_CLOSED);
    say("at rest, with and without logs and API");
    let rest = Device::rest(&mut quiet, size.rest, false);
    let uploaded = quiet[1].status()["cloud"]["logs"]["sent"].as_u64().unwrap_or_default();
    assert!(uploaded > 0, "logs are uploaded: {}", quiet[1].status());
    say("swaps without a flood");
    let calm = swaps(server, &mut quiet[1], size.rounds);
    say("a flood");
    let mut flooded = install("logs-flood", Kind::Flood);
    let flood = Flood::watch(lab, &mut flooded, size.rest);
    say("swaps in a flood");
    let under = swaps(server, &mut flooded, size.rounds);
    let peak = flood.peak_mib.max(pss_mib(&mut flooded));
    let gaps = flooded.status()["cloud"]["logs"]["gaps"].as_u64().unwrap_or_default();
    assert!(gaps > 0, "lines are skipped unread: {}", flooded.status());
    table(&rest, (calm, under), (flood.lines_per_s, peak))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Without,
    With,
    Flood,
}

fn table(rest: &[Rest], (calm, under): ([f64; 2], [f64; 2]), (lines_per_s, peak): (f64, f64)) -> Vec<Row> {
    let added = rest[1].pss_mib - rest[0].pss_mib;
    vec![
        Row::new("five services, without logs and API: memory at rest (PSS), MiB", 2, [rest[0].pss_mib]),
        Row::new("  with logs and API, MiB", 2, [rest[1].pss_mib]),
        Row::new("  more, MiB", 2, [added]).budget(&[1.0]),
        Row::new("  with logs and API: engine calls at rest", 0, [rest[1].calls]).budget(&[0.0]),
        Row::new("  with logs and API: written to disk at rest, bytes", 0, [rest[1].written]).budget(&[0.0]),
        Row::new("an app floods its log, lines/s", 0, [lines_per_s]),
        Row::new("  memory in the flood (PSS), most, MiB", 2, [peak]).budget(&[9.5]),
        Row::new("  update without the flood: switch to all new running, s", 2, [calm[0]]),
        Row::new("  update in the flood, s", 2, [under[0]]).budget(&[1.5]),
        Row::new("  a service down without the flood, median, s", 2, [calm[1]]),
        Row::new("  a service down in the flood, median, s", 2, [under[1]]).budget(&[0.6]),
    ]
}

/// Medians of rounds of updates: from the switch to the last start, and of the time that a service is down.
fn swaps(server: &FleetServer, device: &mut Device<'_>, rounds: usize) -> [f64; 2] {
    let (mut whole, mut down) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (swap, _) = device.switch(server, round % 2);
        whole.push(swap.whole);
        down.extend(swap.down);
    }
    [median(&whole), median(&down)]
}

struct Flood {
    lines_per_s: f64,
    peak_mib: f64,
}

impl Flood {
    /// Watches a flood, and the memory of the agent in it.
    fn watch(lab: &Lab, device: &mut Device<'_>, period: Duration) -> Self {
        let id = device.container("flood");
        let process = lab.docker().run(&["inspect", "--format", "{{.State.Pid}}", &id]);
        let counter = PathBuf::from(format!("/proc/{}/root/count", process.trim()));
        let count = || -> f64 {
            let text = fs::read_to_string(&counter).unwrap_or_default();
            text.trim().parse().unwrap_or_default()
        };
        let (begun, before) = (Instant::now(), count());
        let mut seen = Vec::new();
        while begun.elapsed() < period {
            std::thread::sleep(Duration::from_secs(2));
            seen.push(pss_mib(device));
        }
        let lines_per_s = (count() - before) / begun.elapsed().as_secs_f64();
        Self { lines_per_s, peak_mib: most(&seen) }
    }
}

fn pss_mib(device: &mut Device<'_>) -> f64 {
    device.pss_mib()
}

/// A compose file of five services of `release` and perhaps one that floods, which is the same in every release.
fn compose(lab: &Lab, name: &str, release: &str, kind: Kind) -> PathBuf {
    let api = if kind == Kind::Without { "" } else { ", io.balena.features.supervisor-api: '1'" };
    let labels = format!("labels: {{ io.cotter.trial.soak: 0s{api} }}");
    let mut text = "services:\n".to_owned();
    for n in 1..=SERVICES {
        let image = lab.image(release);
        writeln!(text, "  s{n}:\n    image: {image}\n    ports: [\"127.0.0.1::8080\"]\n    stop_grace_period: 3s\n    {labels}")
            .unwrap();
    }
    if kind == Kind::Flood {
        let image = lab.image("r1");
        writeln!(
            text,
            "  flood:\n    image: {image}\n    entrypoint: [/busybox, sh, -c, {FLOOD:?}]\n    \
             volumes: ['/usr/bin/busybox:/busybox:ro']\n    environment: {{ PATH: / }}\n    stop_grace_period: 1s\n    \
             logging: {{ driver: json-file, options: {{ max-size: 10m, max-file: '2' }} }}\n    {labels}"
        )
        .unwrap();
    }
    lab.file(&format!("{name}-{release}.yml"), &text)
}
