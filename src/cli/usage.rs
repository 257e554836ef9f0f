//! Corrects what clap says of a command line that it cannot parse.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The commands that are about this device, by the socket of its agent.
const OF_THIS_DEVICE: [&str; 4] = ["status", "explain", "history", "plan"];

/// Removes from usage lines the options that come from the environment: clap shows all that have a value.
pub(super) fn without_environment(
    message: &str,
    known: &Command,
    typed: impl IntoIterator<Item = String>,
) -> String {
    let typed: Vec<_> = typed.into_iter().collect();
    let mut options = Vec::new();
    collect_options(known, &mut options);
    options.retain(|(long, _)| {
        let is_it = |word: &String| word == long || word.starts_with(&format!("{long}="));
        !typed.iter().any(is_it)
    });
    let shorter = |line: &str| {
        let mut line = line.to_owned();
        if line.trim_start().starts_with("Usage:") {
            for (long, value) in &options {
                let shown = value.as_ref().map_or(format!(" {long}"), |value| format!(" {long} <{value}>"));
                line = line.replace(&format!("{shown} "), " ");
                line = line.strip_suffix(&shown).map(str::to_owned).unwrap_or(line);
            }
        }
        line
    };
    message.lines().map(shorter).collect::<Vec<_>>().join("\n")
}

/// The options that the environment can set, with the names of their values.
fn collect_options(command: &Command, options: &mut Vec<(String, Option<String>)>) {
    for option in command.get_arguments().filter(|option| option.get_env().is_some()) {
        let Some(long) = option.get_long() else { continue };
        let value = option.get_action().takes_values().then(|| {
            let names = option.get_value_names().and_then(|names| names.first());
            names.map_or_else(|| option.get_id().as_str().to_uppercase(), ToString::to_string)
        });
        options.push((format!("--{long}"), value));
    }
    command.get_subcommands().for_each(|command| collect_options(command, options));
}

/// Returns which command may be meant; empty if none comes to mind.
pub(super) fn suggestion(answer: &clap::Error, known: &Command, verb: Option<&str>) -> String {
    let word = |kind| match answer.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    if answer.kind() == ErrorKind::InvalidSubcommand {
        let Some(given) = word(ContextKind::InvalidSubcommand) else { return String::new() };
        let with_it = known
            .get_subcommands()
            .filter(|group| group.get_subcommands().any(|verb| verb.get_name() == given));
        let meant: Vec<_> =
            with_it.map(|group| format!("`{} {} {given}`", known.get_name(), group.get_name())).collect();
        return if meant.is_empty() {
            String::new()
        } else {
            format!("; did you mean {}?", meant.join(" or "))
        };
    }
    let is_name = |word: &&str| !word.starts_with('-');
    let is_here = verb.is_some_and(|verb| OF_THIS_DEVICE.contains(&verb));
    match word(ContextKind::InvalidArg).filter(is_name) {
        Some(given) if answer.kind() == ErrorKind::UnknownArgument && is_here => {
            format!(
                "; this is about the device that it runs on: `cotter device show {given}` asks the fleet server"
            )
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::definitions;

    fn said(words: &[&str]) -> String {
        let mut known = definitions();
        let answer = known.try_get_matches_from_mut(words).unwrap_err();
        suggestion(&answer, &known, words.get(1).copied())
    }

    #[test]
    fn a_verb_without_its_group_is_found() {
        for (words, expected) in [
            (&["cotter", "pin", "north"][..], "; did you mean `cotter fleet pin` or `cotter device pin`?"),
            (&["cotter", "finalize"], "; did you mean `cotter release finalize`?"),
            (&["cotter", "nonsense"], ""),
            (&["cotter", "status", "--nort"], ""),
            (&["cotter", "device", "show", "a", "b"], ""),
        ] {
            assert_eq!(said(words), expected, "{words:?}");
        }
        assert!(said(&["cotter", "status", "north"]).contains("`cotter device show north`"));
    }

    #[test]
    fn options_from_the_environment_are_not_in_a_usage_line() {
        let line =
            "error: x\n\nUsage: cotter device show --url <URL> --token-file <FILE> --insecure <DEVICE>";
        let typed = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let shorter = without_environment(line, &definitions(), typed(&["cotter", "device", "show"]));
        assert_eq!(shorter, "error: x\n\nUsage: cotter device show <DEVICE>");
        let typed = typed(&["cotter", "device", "show", "--url=http://a"]);
        let shorter = without_environment(line, &definitions(), typed);
        assert_eq!(shorter, "error: x\n\nUsage: cotter device show --url <URL> <DEVICE>");
    }
}
