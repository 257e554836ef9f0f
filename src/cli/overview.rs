//! The overview of `cotter --help`: where to begin, and the commands by what they are for.

use clap::Command;

/// The commands by what they are for, in the order in which they are shown.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "This device",
        &[
            "status",
            "explain",
            "update",
            "logs",
            "history",
            "events",
            "plan",
            "check",
            "support-bundle",
            "retry",
            "rollback",
            "hold",
            "unhold",
            "lock",
            "stop",
            "start",
            "restart",
            "purge",
        ],
    ),
    (
        "On a fleet server",
        &[
            "push", "release", "device", "fleet", "rollout", "webhook", "env", "user", "token", "audit",
            "export", "import",
        ],
    ),
    ("Set-up and daemon", &["join", "leave", "config", "agent", "completion"]),
];

/// Examples of commands that have none of their own.
const EXAMPLES: &[(&[&str], &str)] = &[
    (&["config", "show"], "cotter config show --set update.soak=30s"),
    (&["lock", "list"], "cotter lock list"),
    (&["fleet", "create"], "cotter fleet create greenhouse --registry registry.example.com/lab"),
    (&["fleet", "list"], "cotter fleet list"),
    (&["fleet", "show"], "cotter fleet show greenhouse"),
    (&["fleet", "rename"], "cotter fleet rename greenhouse orchard"),
    (&["fleet", "delete"], "cotter fleet delete greenhouse --dry-run"),
    (&["fleet", "pin"], "cotter fleet pin greenhouse 3f1c2a9 --wait"),
    (&["fleet", "track-latest"], "cotter fleet track-latest greenhouse"),
    (&["fleet", "provisioning-key", "list"], "cotter fleet provisioning-key list greenhouse"),
    (
        &["fleet", "provisioning-key", "revoke"],
        "cotter fleet provisioning-key revoke greenhouse 3f1ab0c9d2e4",
    ),
    (&["user", "add"], "cotter user add anna"),
    (&["user", "list"], "cotter user list"),
    (&["user", "disable"], "cotter user disable anna --reason \"has left\""),
    (&["user", "enable"], "cotter user enable anna"),
    (&["token", "list"], "cotter token list --user anna"),
    (&["token", "revoke"], "cotter token revoke 4f1a"),
    (&["token", "whoami"], "cotter token whoami"),
    (&["device", "list"], "cotter device list --state failing,blocked --filter ring=canary"),
    (&["device", "show"], "cotter device show north"),
    (&["device", "logs"], "cotter device logs north web -f"),
    (&["device", "pin"], "cotter device pin 3f1c2a9 --filter ring=canary --dry-run"),
    (&["device", "track-fleet"], "cotter device track-fleet --filter ring=canary"),
    (&["device", "tag"], "cotter device tag north ring=canary"),
    (&["device", "move"], "cotter device move north orchard"),
    (&["device", "rename"], "cotter device rename north north-2"),
    (&["device", "delete"], "cotter device delete north"),
    (&["device", "barred"], "cotter device barred"),
    (&["device", "allow"], "cotter device allow 7cf02a69e10d --restore"),
    (&["release", "list"], "cotter release list greenhouse"),
    (&["release", "show"], "cotter release show 3f1c2a9"),
    (&["release", "wait"], "cotter release wait 3f1c2a9 --timeout 30min --allow-failed 2%"),
    (&["release", "finalize"], "cotter release finalize 3f1c2a9"),
    (&["release", "invalidate"], "cotter release invalidate 3f1c2a9"),
    (&["release", "validate"], "cotter release validate 3f1c2a9"),
    (&["release", "set-status"], "cotter release set-status 3f1c2a9 success"),
    (&["release", "delete"], "cotter release delete 3f1c2a9"),
];

const BEGIN: &str = "\
Start here:
  on a device      cotter join https://fleet.example.com --fleet NAME --key -
                   (`-` reads the key from standard input)
  at your desk     cotter push NAME, in the folder of a compose project
  no update?       cotter explain
";

/// Adds the overview to the help of `cotter`, and examples to that of its commands.
pub(super) fn grouped(command: Command) -> Command {
    let overview = overview(&command);
    let command =
        EXAMPLES.iter().fold(command, |command, (path, example)| with_example(command, path, example));
    command.help_template(format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{overview}Options:\n{{options}}\n\n\
        `cotter COMMAND --help` shows the options of a command, and examples.\n"
    ))
}

fn with_example(command: Command, path: &[&str], example: &str) -> Command {
    match path {
        [] => command.after_help(format!("Example: {example}")),
        [name, rest @ ..] => command.mut_subcommand(name, |inner| with_example(inner, rest, example)),
    }
}

fn overview(command: &Command) -> String {
    let mut text = format!("{BEGIN}\n");
    for (title, names) in GROUPS {
        text.push_str(&format!("{title}:\n"));
        for inner in names.iter().filter_map(|name| command.find_subcommand(name)) {
            let about = inner.get_about().map(ToString::to_string).unwrap_or_default();
            text.push_str(&format!("  {:<16} {about}\n", inner.get_name()));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_command_has_its_place_and_fits_on_a_line() {
        let command = crate::cli::definitions();
        let shown: BTreeSet<_> =
            command.get_subcommands().filter(|inner| !inner.is_hide_set()).map(Command::get_name).collect();
        let grouped: Vec<_> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        assert_eq!(grouped.iter().copied().collect::<BTreeSet<_>>(), shown);
        assert_eq!(grouped.len(), shown.len(), "each once");
        for line in overview(&command).lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    /// The commands that do something, each with its examples.
    fn examples(command: &Command, path: &str, found: &mut Vec<(String, Vec<String>)>) {
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
            let path = format!("{path} {}", inner.get_name());
            if inner.get_subcommands().next().is_none() {
                let help = inner.get_after_help().or(inner.get_after_long_help());
                let help = help.map(ToString::to_string).unwrap_or_default();
                let help = help.replace("$(git rev-parse HEAD)", "3f1c2a9");
                // `id=$(cotter lock acquire)` is one, too.
                let lines =
                    help.lines().filter_map(|line| Some(line.split_once("cotter ")?.1.trim_end_matches(')')));
                found.push((path.clone(), lines.map(|line| format!("cotter {line}")).collect()));
            }
            examples(inner, &path, found);
        }
    }

    #[test]
    fn every_command_has_an_example_that_it_accepts() {
        let mut found = Vec::new();
        examples(&crate::cli::definitions(), "cotter", &mut found);
        for (path, examples) in found {
            assert!(!examples.is_empty(), "{path} has no example");
            for example in examples {
                assert!(example.starts_with(&path), "{path}: {example}");
                let words = shell_words::split(&example).unwrap();
                let words = words.iter().take_while(|word| ![">", "|", "&&"].contains(&word.as_str()));
                let parsed = crate::cli::definitions().try_get_matches_from(words);
                assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
            }
        }
    }
}
