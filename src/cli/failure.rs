//! How a command that fails says so: in one line for people, or with `--json`, as JSON for programs.

use std::ffi::OsString;

use serde::Serialize;

use super::client::ClientError;
use super::exit::Exit;
use super::print;
use crate::wire::operator_api::{Failure, RefusalView};

/// The commands for a fleet server, whose errors are JSON with `--json`.
const OF_THE_FLEET: [&str; 12] = [
    "fleet", "device", "release", "push", "env", "rollout", "webhook", "user", "token", "audit", "export",
    "import",
];

/// An error, as programs read it.
#[derive(Debug, Serialize)]
struct ErrorDocument<'a> {
    /// The name of the exit code.
    code: &'static str,
    exit: u8,
    message: String,
    /// The rule of the fleet that forbids it.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    /// What to do, as the server says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'a str>,
    /// The places of a compose file that devices would refuse.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    refusals: &'a [RefusalView],
}

/// Returns whether a command line asks for JSON of a fleet server. It may be one that cannot be parsed.
pub(super) fn wants_json(arguments: impl IntoIterator<Item = OsString>) -> bool {
    let mut arguments = arguments.into_iter().skip(1);
    let is_fleet = arguments.next().is_some_and(|verb| OF_THE_FLEET.iter().any(|of_fleet| verb == *of_fleet));
    is_fleet
        && arguments.take_while(|word| word != "--").any(|word| word == "--json" || word == "--json-lines")
}

/// Prints an error with all its causes. Returns the exit code.
pub(super) fn say(error: &anyhow::Error, json: bool) -> Exit {
    let exit = Exit::of(error);
    if !json {
        if exit == Exit::Done {
            print::note(&format!("note: {error:#}"));
        } else {
            print::error(error);
        }
        return exit;
    }
    let answer = error.chain().find_map(|cause| cause.downcast_ref::<ClientError>());
    let failure = match answer {
        Some(ClientError::Answer { failure }) => Some(failure),
        Some(_) | None => None,
    };
    print_json(exit, format!("{error:#}"), failure);
    exit
}

/// Prints an error of the command line.
pub(super) fn say_usage(line: &str, json: bool) {
    match json {
        true => print_json(Exit::Usage, line.trim_start_matches("error: ").to_owned(), None),
        false => print::note(line),
    }
}

fn print_json(exit: Exit, message: String, failure: Option<&Failure>) {
    let document = ErrorDocument {
        code: exit.as_str(),
        exit: exit as u8,
        message,
        rule: failure.and_then(|failure| failure.rule.as_deref()),
        remedy: failure.and_then(|failure| failure.remedy.as_deref()),
        refusals: failure.map_or(&[], |failure| &failure.refusals[..]),
    };
    print::json_note("error", &document);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_wanted_by_a_flag_of_the_commands_for_a_fleet_server() {
        for (line, expected) in [
            ("cotter fleet list --json", true),
            ("cotter device --json list", true),
            ("cotter release show x --jsno --json", true),
            ("cotter device list --json-lines", true),
            ("cotter fleet list", false),
            ("cotter status --json", false),
            ("cotter fleet show -- --json", false),
            ("cotter", false),
        ] {
            assert_eq!(wants_json(line.split(' ').map(OsString::from)), expected, "{line}");
        }
    }
}
