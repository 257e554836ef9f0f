//! Reads the labels with which an author sets how and when a release may be swapped (docs/dev/protocol.md, "Update
//! strategies").

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Notes, refusal};
use crate::model::{Refusal, ServiceName, ServiceSpec, Strategy, Window, is_zone};

const STRATEGY: &str = "io.balena.update.strategy";
const TIMEOUT: &str = "io.balena.update.handover-timeout";
const WINDOW: &str = "io.cotter.update.window";

/// The default timeout of a hand-over, as on balena devices.
const USUAL_TIMEOUT: Duration = Duration::from_secs(60);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Sets the strategy of each service. An unknown word gives a warning, because balena devices ignore it, too.
pub(super) fn strategies(services: &mut BTreeMap<ServiceName, ServiceSpec>, notes: &mut Notes) {
    for (name, spec) in services {
        let Some(word) = spec.labels.get(STRATEGY) else { continue };
        spec.strategy = match word.trim() {
            "download-then-kill" => Strategy::DownloadThenKill,
            "kill-then-download" => Strategy::KillThenDownload,
            "delete-then-download" => Strategy::DeleteThenDownload,
            "hand-over" => notes.keep(hand_over(name, spec)).unwrap_or_default(),
            _ => {
                notes.warn(refusal(
                    path(name, STRATEGY),
                    format_args!(
                        "{:?} is unknown, so download-then-kill is used: write download-then-kill, \
                         kill-then-download, delete-then-download or hand-over",
                        short(word)
                    ),
                ));
                Strategy::default()
            }
        };
    }
}

/// Reads the timeout of a hand-over. Refuses a hand-over if the two containers, which run side by side for a while, both
/// need something that only one of them can have.
fn hand_over(name: &ServiceName, spec: &ServiceSpec) -> Result<Strategy, Refusal> {
    if let Some(why) = alone(spec) {
        let why = format_args!(
            "hand-over lets the old and the new container run side by side, and {why}: remove one of the two"
        );
        return Err(refusal(path(name, STRATEGY), why));
    }
    let Some(text) = spec.labels.get(TIMEOUT) else {
        return Ok(Strategy::HandOver { timeout: USUAL_TIMEOUT });
    };
    let is_digits = !text.trim().is_empty() && text.trim().chars().all(|c| c.is_ascii_digit());
    let millis = is_digits.then(|| text.trim().parse().ok()).flatten().map(Duration::from_millis);
    match millis.filter(|timeout| *timeout <= LONGEST_TIMEOUT) {
        Some(timeout) => Ok(Strategy::HandOver { timeout }),
        None => {
            let why = format_args!(
                "{:?} is not accepted: write milliseconds, from 0 to {} (24 hours)",
                short(text),
                LONGEST_TIMEOUT.as_millis()
            );
            Err(refusal(path(name, TIMEOUT), why))
        }
    }
}

/// Returns what only one of two containers can have.
fn alone(spec: &ServiceSpec) -> Option<String> {
    if let Some(port) = spec.host_port() {
        return Some(format!("only one of them can publish host port {port}"));
    }
    if let Some(device) = spec.devices.first() {
        return Some(format!("only one of them should use the device {}", short(&device.host_path)));
    }
    spec.own_address().map(|address| format!("only one of them can have the address {address}"))
}

/// Returns the windows of all services together.
pub(super) fn windows(services: &BTreeMap<ServiceName, ServiceSpec>, notes: &mut Notes) -> BTreeSet<Window> {
    let mut windows = BTreeSet::new();
    for (name, spec) in services {
        let Some(text) = spec.labels.get(WINDOW) else { continue };
        let read = Window::parse_all(text).map_err(|bad| refusal(path(name, WINDOW), bad));
        let read = notes.keep(read).unwrap_or_default();
        for window in read.iter().filter(|window| !is_zone(&window.zone)) {
            let zone = &window.zone;
            notes.refuse(refusal(
                path(name, WINDOW),
                format_args!("the time zone {zone:?} is not known: write a name of the time zone database, e.g. Europe/Zurich"),
            ));
        }
        windows.extend(read);
    }
    windows
}

fn path(service: &ServiceName, label: &str) -> String {
    format!("services.{service}.labels.{label}")
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}
