//! The waves of a rollout as a picture: how many devices accepted, rejected, wait, are silent, or are still to come.

use maud::{Markup, html};

use super::parts::{grouped, sign};
use crate::wire::operator_api::{RolloutTally, RolloutView, WaveView};

/// Width of a whole bar.
const WIDE: u64 = 1000;

/// The parts of a wave: the shape and colour, the words, and the number.
fn parts(wave: &WaveView, is_over: bool) -> Vec<(&'static str, &'static str, &'static str, u64)> {
    let RolloutTally {
        exposed,
        accepted,
        rejected,
        blocked,
        unhealthy,
        silent,
        updating,
        waiting,
        fetching,
        unreached,
    } = wave.tally;
    let to_come = wave.devices.max(exposed) - exposed;
    let all = [
        ("accepted", "good", "accepted", accepted),
        ("rejected", "bad", "rejected", rejected),
        ("unhealthy", "bad", "unhealthy", unhealthy),
        ("blocked", "warn", "blocked", blocked),
        ("fetching", "warn", "cannot fetch", fetching),
        ("updating", "busy", "updating", updating),
        ("waiting", "calm", "waiting", waiting),
        ("silent", "idle", "silent", silent),
        ("unreached", "idle", "not reached", unreached),
        ("none", "none", to_come_words(wave, is_over), to_come),
    ];
    all.into_iter().filter(|(.., count)| *count > 0).collect()
}

/// What becomes of devices that have not got the release.
fn to_come_words(wave: &WaveView, is_over: bool) -> &'static str {
    match (is_over, wave.has_begun) {
        (true, _) => "not exposed",
        (false, true) => "not exposed yet",
        (false, false) => "to come",
    }
}

/// All waves, one below the other. The longest has the whole width.
pub(super) fn waves(rollout: &RolloutView) -> Markup {
    let most =
        rollout.waves.iter().map(|wave| wave.devices.max(wave.tally.exposed)).max().unwrap_or(0).max(1);
    html! {
        ol.waves {
            @for (index, wave) in rollout.waves.iter().enumerate() {
                li.begun[wave.has_begun] {
                    p.wave-name {
                        strong { "Wave " (index + 1) } " " span.muted { (wave.wave) }
                        @if rollout.wave == index + 1 && rollout.ended.is_none() { " " span.tag.accent { "Now" } }
                        span.right.muted { (grouped(usize::try_from(wave.devices).unwrap_or(0))) " devices" }
                    }
                    (bar(wave, most))
                    p.legend {
                        @for (shape, tone, words, count) in parts(wave, rollout.ended.is_some()) {
                            span.(tone) { (sign(shape)) (grouped(usize::try_from(count).unwrap_or(0))) " " (words) }
                        }
                        @if let Some(wait) = wait(rollout, wave) {
                            span.muted { "at the earliest " (after(wait)) " after wave " (rollout.wave) " began" }
                        }
                    }
                }
            }
        }
    }
}

fn bar(wave: &WaveView, most: u64) -> Markup {
    let mut begin = 0;
    let drawn: Vec<_> = parts(wave, false)
        .into_iter()
        .map(|(_, tone, _, count)| {
            let width = (count * WIDE / most).max(6);
            begin += width;
            (tone, begin - width, width)
        })
        .collect();
    html! {
        svg.wave-bar viewBox={ "0 0 " (begin.max(WIDE)) " 16" } preserveAspectRatio="none" aria-hidden="true" {
            @for (tone, begin, width) in drawn {
                rect.(tone) x=(begin) y="0" width=(width.saturating_sub(2)) height="16" {}
            }
        }
    }
}

/// Returns how many seconds after the present wave this one begins at the earliest. There is no such time while the rollout does
/// not run, and none for a wave without devices.
fn wait(rollout: &RolloutView, wave: &WaveView) -> Option<u64> {
    let present = rollout.waves.get(rollout.wave.checked_sub(1)?)?;
    let is_to_come = rollout.phase == "running" && present.has_begun && !wave.has_begun;
    is_to_come.then(|| wave.earliest_s.saturating_sub(present.earliest_s)).filter(|wait| *wait > 0)
}

/// A time in words.
pub(super) fn after(seconds: u64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
