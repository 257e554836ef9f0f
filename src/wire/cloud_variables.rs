//! Reads the configuration variables of a target, and answers each of them: see [`CLOUD_VARIABLES`].
//!
//! [`CLOUD_VARIABLES`]: crate::model::CLOUD_VARIABLES

use std::collections::BTreeMap;

use crate::model::text::cleaned;
use crate::model::{Answered, AnsweredVariable, CloudVariable, Standing, Takes};

/// The prefixes of names. If a variable has both, the first one counts.
const PREFIXES: [&str; 2] = ["BALENA_", "RESIN_"];

/// Maximum number of variables that are answered one by one.
const MOST: usize = 100;

/// Maximum number of characters of a name or a value in an answer.
const LONGEST: usize = 100;

/// Returns the first value of a variable that is a yes or a no.
pub(super) fn yes_or_no(config: &BTreeMap<String, String>, name: &str) -> Option<bool> {
    PREFIXES.into_iter().find_map(|prefix| word(config.get(&format!("{prefix}{name}"))?))
}

/// Returns the first value of a variable that is a number.
pub(super) fn number(config: &BTreeMap<String, String>, name: &str) -> Option<u64> {
    PREFIXES.into_iter().find_map(|prefix| config.get(&format!("{prefix}{name}"))?.trim().parse().ok())
}

/// Reads yes or no.
fn word(value: &str) -> Option<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "on" => Some(true),
        "0" | "false" | "off" | "" => Some(false),
        _ => None,
    }
}

/// Returns an answer to each variable: first those without an effect, then the others, each by name. A cloud with very
/// many of them gets one answer for the rest.
pub(super) fn answers(config: &BTreeMap<String, String>, has_vpn: bool) -> Vec<AnsweredVariable> {
    let mut all: Vec<_> = config.iter().map(|(name, value)| answer(config, (name, value), has_vpn)).collect();
    all.sort_by_key(|answer| answer.standing == Standing::Honoured);
    let more = all.len().saturating_sub(MOST);
    if more > 0 {
        all.truncate(MOST);
        let what = format!("{MOST} variables are answered one by one; remove some to see these");
        all.push(AnsweredVariable { name: format!("{more} more"), standing: Standing::NotApplicable, what });
    }
    all
}

fn answer(config: &BTreeMap<String, String>, (name, value): (&str, &str), has_vpn: bool) -> AnsweredVariable {
    let (standing, what) = judge(config, (name, value), has_vpn);
    AnsweredVariable { name: cleaned(name, LONGEST), standing, what }
}

fn judge(
    config: &BTreeMap<String, String>,
    (name, value): (&str, &str),
    has_vpn: bool,
) -> (Standing, String) {
    let bare = PREFIXES.into_iter().find_map(|prefix| name.strip_prefix(prefix));
    let Some((bare, row)) = bare.and_then(|bare| Some((bare, CloudVariable::find(bare)?))) else {
        let what = "this version does not know it, so it has no effect; is the name right?";
        return (Standing::Unknown, what.to_owned());
    };
    let answered = row.answered.on_device(has_vpn);
    if let Some(why) = why_not(answered, value) {
        return (Standing::NotApplicable, why);
    }
    if !is_accepted(row.takes, value) {
        return (Standing::BadValue, wrong(config, (name, bare), row, value));
    }
    // The newer name goes before the older one, if its value is accepted.
    let newer = format!("{}{bare}", PREFIXES[0]);
    if newer != name && config.get(&newer).is_some_and(|value| is_read(row.takes, value)) {
        return (Standing::Honoured, format!("{newer} goes before it"));
    }
    match answered {
        Answered::Yes(what) | Answered::IfVpn(what, _) | Answered::Always(_, what) | Answered::No(what) => {
            (Standing::Honoured, what.to_owned())
        }
    }
}

/// Returns why a value has no effect here, if it has none.
fn why_not(answered: Answered, value: &str) -> Option<String> {
    match answered {
        Answered::Yes(_) | Answered::IfVpn(..) => None,
        Answered::No(why) => Some(why.to_owned()),
        Answered::Always(fixed, why) => {
            let is_it = match (word(value), word(fixed)) {
                (Some(given), Some(fixed)) => given == fixed,
                _ => value.trim().eq_ignore_ascii_case(fixed),
            };
            (!is_it).then(|| format!("{why}; the device does what {fixed} asks for"))
        }
    }
}

/// Returns `true` if a value has the right form.
fn is_read(takes: Takes, value: &str) -> bool {
    match takes {
        Takes::Text => true,
        Takes::YesOrNo => word(value).is_some(),
        Takes::Milliseconds(..) => value.trim().parse::<u64>().is_ok(),
    }
}

/// Returns `true` if a value has the right form and is within its bounds.
fn is_accepted(takes: Takes, value: &str) -> bool {
    match takes {
        Takes::Text | Takes::YesOrNo => is_read(takes, value),
        Takes::Milliseconds(least, most) => {
            value.trim().parse().is_ok_and(|number| (least..=most).contains(&number))
        }
    }
}

/// Says that a value is not accepted, what is in force in its place, and what to do.
fn wrong(
    config: &BTreeMap<String, String>,
    (name, bare): (&str, &str),
    row: &CloudVariable,
    value: &str,
) -> String {
    let others = PREFIXES.into_iter().map(|prefix| format!("{prefix}{bare}"));
    let mut others = others.filter(|other| other != name);
    let other = others.find(|other| config.get(other).is_some_and(|value| is_read(row.takes, value)));
    let bounded = match row.takes {
        Takes::Milliseconds(least, most) => value.trim().parse().ok().map(|n: u64| n.clamp(least, most)),
        Takes::Text | Takes::YesOrNo => None,
    };
    let in_force = match (bounded, other) {
        (Some(bounded), _) => format!("{bounded} is in force"),
        (None, Some(other)) => format!("{other} is in force"),
        (None, None) => "the default is in force".to_owned(),
    };
    let value: String = value.chars().take(LONGEST).collect();
    format!("{value:?} is not accepted, so {in_force}; set it to {} in the cloud", row.takes.accepts())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers, a line each.
    fn lines(config: &[(&str, &str)]) -> Vec<String> {
        let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        answers(&config, false)
            .iter()
            .map(|it| format!("{} {}: {}", it.standing.as_str(), it.name, it.what))
            .collect()
    }

    #[track_caller]
    fn only(config: &[(&str, &str)]) -> String {
        let lines = lines(config);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    }

    #[test]
    fn each_variable_has_an_answer() {
        for (name, value, expected) in [
            (
                "BALENA_SUPERVISOR_POLL_INTERVAL",
                "900000",
                "honoured BALENA_SUPERVISOR_POLL_INTERVAL: the time",
            ),
            (
                "RESIN_SUPERVISOR_LOG_CONTROL",
                "false",
                "honoured RESIN_SUPERVISOR_LOG_CONTROL: false: no logs",
            ),
            (
                "BALENA_SUPERVISOR_VPN_CONTROL",
                "false",
                "honoured BALENA_SUPERVISOR_VPN_CONTROL: the owner of the device has the VPN off",
            ),
            (
                "BALENA_SUPERVISOR_VPN_CONTROL",
                "true",
                "not_applicable BALENA_SUPERVISOR_VPN_CONTROL: the owner of the device has the VPN off: vpn.enabled = \"yes\" \
                 turns it on; the device does what false",
            ),
            ("BALENA_HOST_FIREWALL_MODE", "Off", "honoured"),
            ("BALENA_HOST_FIREWALL_MODE", "auto", "not_applicable"),
            (
                "BALENA_SUPERVISOR_DELTA_VERSION",
                "3",
                "not_applicable BALENA_SUPERVISOR_DELTA_VERSION: images are",
            ),
            (
                "RESIN_HOST_CONFIG_gpu_mem",
                "16",
                "not_applicable RESIN_HOST_CONFIG_gpu_mem: config.txt belongs",
            ),
            (
                "BALENA_SUPERVISOR_NEWEST",
                "1",
                "unknown BALENA_SUPERVISOR_NEWEST: this version does not know it",
            ),
            (
                "SUPERVISOR_LOG_CONTROL",
                "false",
                "unknown SUPERVISOR_LOG_CONTROL: this version does not know it",
            ),
        ] {
            let line = only(&[(name, value)]);
            assert!(line.starts_with(expected), "{name}={value}: {line}");
        }
    }

    #[test]
    fn a_bad_value_says_what_is_in_force_and_what_to_do() {
        for (config, expected) in [
            (
                &[("BALENA_SUPERVISOR_POLL_INTERVAL", "soon")][..],
                "bad_value BALENA_SUPERVISOR_POLL_INTERVAL: \"soon\" is not accepted, so the default is in force; set it to a \
                 number of milliseconds from 1000 to 86400000 in the cloud",
            ),
            (
                &[("BALENA_SUPERVISOR_POLL_INTERVAL", "soon"), ("RESIN_SUPERVISOR_POLL_INTERVAL", "600000")],
                "bad_value BALENA_SUPERVISOR_POLL_INTERVAL: \"soon\" is not accepted, so RESIN_SUPERVISOR_POLL_INTERVAL is in \
                 force; set it to a number of milliseconds from 1000 to 86400000 in the cloud",
            ),
            (
                &[("BALENA_SUPERVISOR_POLL_INTERVAL", "0")],
                "bad_value BALENA_SUPERVISOR_POLL_INTERVAL: \"0\" is not accepted, so 1000 is in force; set it to a number of \
                 milliseconds from 1000 to 86400000 in the cloud",
            ),
            (
                &[("RESIN_SUPERVISOR_LOG_CONTROL", "perhaps")],
                "bad_value RESIN_SUPERVISOR_LOG_CONTROL: \"perhaps\" is not accepted, so the default is in force; set it to true \
                 or false (or 1, 0, on, off) in the cloud",
            ),
        ] {
            assert_eq!(lines(config)[0], expected);
        }
    }

    #[test]
    fn the_newer_prefix_goes_before_the_older_one() {
        let both =
            [("BALENA_SUPERVISOR_POLL_INTERVAL", "5000"), ("RESIN_SUPERVISOR_POLL_INTERVAL", "600000")];
        assert_eq!(
            lines(&both)[1],
            "honoured RESIN_SUPERVISOR_POLL_INTERVAL: BALENA_SUPERVISOR_POLL_INTERVAL goes before it"
        );
    }

    #[test]
    fn very_many_variables_are_bounded_and_those_without_effect_come_first() {
        let mut config: BTreeMap<String, String> =
            (0..500).map(|n| (format!("BALENA_COTTER_MOVE_{n}"), String::new())).collect();
        config.insert("BALENA_SUPERVISOR_LOG_CONTROL".into(), "\u{202e}\n".repeat(500));
        config.insert("RESIN_SUPERVISOR_OVERRIDE_LOCK".into(), "true".into());
        let answers = answers(&config, false);
        assert_eq!((answers.len(), answers[100].name.as_str()), (101, "402 more"));
        assert!(
            answers
                .iter()
                .all(|answer| answer.what.len() < 1500 && !answer.what.contains(['\n', '\u{202e}']))
        );
    }
}
