//! Small parts of pages: states, times, commits, names, commands.

use jiff::Timestamp;
use maud::{Markup, PreEscaped, html};

use crate::fleet::clock;
use crate::model::ReleaseStatus;
use crate::model::text::one_line;
use crate::wire::operator_api::{DeviceState, ReleaseView};

/// A name that came from outside: as text, in its own direction, and without characters that hide something.
pub(super) fn named(name: &str) -> Markup {
    html! { bdi { (one_line(name)) } }
}

/// A state, by a shape and a word.
pub(super) fn state(state: DeviceState) -> Markup {
    html! {
        span.state.(tone(state)) { (sign(state.as_str())) (state_words(state)) }
    }
}

/// The words for a state.
pub(super) fn state_words(state: DeviceState) -> &'static str {
    match state {
        DeviceState::OnTarget => "On target",
        DeviceState::Pending => "Pending",
        DeviceState::Updating => "Updating",
        DeviceState::Waiting => "Waiting",
        DeviceState::Blocked => "Blocked",
        DeviceState::Rejected => "Rejected",
        DeviceState::Failing => "Failing",
        DeviceState::Offline => "Offline",
        DeviceState::Silent => "Never seen",
        DeviceState::NoTarget => "No release",
    }
}

/// What a state means, in one line.
pub(super) fn state_meaning(state: DeviceState) -> &'static str {
    match state {
        DeviceState::OnTarget => "It runs the release that it should run.",
        DeviceState::Pending => "It has not received its target yet.",
        DeviceState::Updating => "It is downloading, swapping or trying its target.",
        DeviceState::Waiting => "A lock, a window, a hold or an operator's stop keeps it from going on.",
        DeviceState::Blocked => "Something on the device or in the release keeps it from going on.",
        DeviceState::Rejected => "It has rejected its target, and runs an earlier release.",
        DeviceState::Failing => "It runs its target, but not well.",
        DeviceState::Offline => "It has not been in contact for more than one and a half poll intervals.",
        DeviceState::Silent => "It was registered, and has never polled.",
        DeviceState::NoTarget => "There is no release for it.",
    }
}

/// The colour of a state.
pub(super) fn tone(state: DeviceState) -> &'static str {
    match state {
        DeviceState::OnTarget => "good",
        DeviceState::Updating | DeviceState::Pending => "busy",
        DeviceState::Waiting => "calm",
        DeviceState::Blocked => "warn",
        DeviceState::Rejected | DeviceState::Failing => "bad",
        DeviceState::Offline | DeviceState::Silent | DeviceState::NoTarget => "idle",
    }
}

/// The colour of a phase of a rollout.
pub(super) fn phase_tone(phase: &str) -> &'static str {
    match phase {
        "running" => "busy",
        "completed" => "good",
        "paused" => "calm",
        "halted" | "pulled-back" => "bad",
        _ => "idle",
    }
}

/// The shape of a state or verdict. Each has one of its own, so that colour is not needed.
pub(super) fn sign(word: &str) -> Markup {
    let path = match word {
        "on-target" | "accepted" | "completed" | "active" => {
            "<circle cx='6' cy='6' r='6'/><path class='cut' d='M3.2 6.2 5.2 8.2 8.9 4.2'/>"
        }
        "updating" | "running" => "<path class='line' d='M10.6 4A5 5 0 1 0 11 6M10.9 1v3.2H7.7'/>",
        "pending" | "exposed" => "<circle class='line' cx='6' cy='6' r='5'/><path d='M6 1a5 5 0 0 1 0 10z'/>",
        "waiting" | "paused" => {
            "<rect x='1.5' y='1' width='3.2' height='10' rx='1'/><rect x='7.3' y='1' width='3.2' height='10' rx='1'/>"
        }
        "blocked" | "fetching" => "<path d='M6 .5 11.8 11H.2z'/><path class='cut' d='M6 4.2v3M6 8.8v.6'/>",
        "rejected" | "halted" | "aborted" => {
            "<rect x='.5' y='.5' width='11' height='11' rx='2'/><path class='cut' d='m3.7 3.7 4.6 4.6m0-4.6L3.7 8.3'/>"
        }
        "failing" | "unhealthy" => {
            "<path d='M3.6.5h4.8L11.5 3.6v4.8L8.4 11.5H3.6L.5 8.4V3.6z'/><path class='cut' d='M6 3v3.6M6 8.6v.6'/>"
        }
        "offline" => "<circle class='line' cx='6' cy='6' r='5'/><path class='line' d='m2.5 9.5 7-7'/>",
        "pulled-back" => "<path class='line' d='M4 1.5 1.2 4.3 4 7.1M1.5 4.3h5.6a3.2 3.2 0 0 1 0 6.4H4.4'/>",
        "silent" | "unreached" => "<circle class='line dash' cx='6' cy='6' r='5'/>",
        _ => "<path class='line' d='M1.5 6h9'/>",
    };
    html! { svg.sign viewBox="0 0 12 12" width="12" height="12" aria-hidden="true" { (PreEscaped(path)) } }
}

/// A small picture beside words.
pub(super) fn icon(name: &str) -> Markup {
    let path = match name {
        "pin" => {
            "<path d='M9.5 2 14 6.5 11.2 7.6 8.4 10.4 8 13 3 8l2.600-.4L8.400 4.800z'/><path d='M5.500 10.500 2 14'/>"
        }
        "follow" => "<path d='M2 8h10M8.500 4.500 12 8l-3.500 3.500'/>",
        "check" => "<path d='m3 8.500 3.500 3.500L13 4.500'/>",
        "person" => {
            "<circle cx='8' cy='5.500' r='2.800'/><path d='M2.500 14c.6-3 2.700-4.300 5.500-4.300s4.900 1.300 5.500 4.300'/>"
        }
        "wave" => "<path d='M1.500 10c2-6 4.300-6 6.500 0s4.500 6 6.500 0'/>",
        "copy" => {
            "<rect x='5.500' y='5.500' width='8' height='8' rx='1.500'/><path d='M10.500 5.500v-3h-8v8h3'/>"
        }
        _ => "<circle cx='8' cy='8' r='5'/>",
    };
    html! { svg.icon viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" { (PreEscaped(path)) } }
}

/// A moment: how long ago it was, or when. The script shows it in the reader's time zone.
pub(super) fn age(at: Timestamp) -> Markup {
    html! { time datetime=(at) title=(utc(at)) data-as="age" { (ago(at)) } }
}

/// A moment with its date and time.
pub(super) fn moment(at: Timestamp) -> Markup {
    html! { time datetime=(at) title=(utc(at)) data-as="moment" { (utc(at)) } }
}

fn utc(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn ago(at: Timestamp) -> String {
    let seconds = clock::now().duration_since(at).as_secs();
    let counted =
        |number: i64, unit: &str| format!("{number} {unit}{} ago", if number == 1 { "" } else { "s" });
    match seconds {
        ..5 => "just now".to_owned(),
        5..60 => counted(seconds, "second"),
        60..3600 => counted(seconds / 60, "minute"),
        3600..86_400 => counted(seconds / 3600, "hour"),
        _ => counted(seconds / 86_400, "day"),
    }
}

/// The first digits of a commit.
pub(super) fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// A commit, with a link to the release.
pub(super) fn commit(fleet: &str, commit: Option<&str>) -> Markup {
    match commit {
        Some(commit) => html! {
            a.commit href={ "/fleets/" (super::fields::encoded(fleet)) "/releases/" (commit) } title=(commit) { (short(commit)) }
        },
        None => html! { span.muted { "none" } },
    }
}

/// A commit as text, where a link would be in the way.
pub(super) fn plain_commit(commit: Option<&str>) -> Markup {
    match commit {
        Some(commit) => html! { code.commit title=(commit) { (short(commit)) } },
        None => html! { span.muted { "none" } },
    }
}

/// What is special about a release; empty for one that a fleet can track.
pub(super) fn flags(release: &ReleaseView) -> Markup {
    html! {
        @match release.status {
            ReleaseStatus::Failed => span.tag.bad { "Failed" },
            ReleaseStatus::Running => span.tag { "Building" },
            ReleaseStatus::Success => {},
        }
        @if !release.is_final { span.tag { "Draft" } }
        @if release.is_invalidated { span.tag.bad { "Invalid" } }
        @if !release.is_passing_tests { span.tag.warn { "Tests failed" } }
        @if release.is_fleet_target { span.tag.accent { "Target" } }
    }
}

/// A command to copy.
pub(super) fn command(text: &str) -> Markup {
    html! {
        div.command {
            code { (text) }
            button type="button" data-copy=(text) hidden { (icon("copy")) "Copy" }
        }
    }
}

/// A number with its noun.
pub(super) fn counted(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// A number with its thousands apart.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The hidden field without which no form is accepted.
pub(super) fn csrf(text: &str) -> Markup {
    html! { input type="hidden" name="csrf" value=(text); }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_are_text() {
        let shown = named("<script>alert(1)</script> \u{202e}abc\u{7}").into_string();
        assert_eq!(shown, "<bdi>&lt;script&gt;alert(1)&lt;/script&gt; \\u{202e}abc\\u{7}</bdi>");
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(counted(1, "device"), "1 device");
    }
}
