//! `cotter completion` and `cotter-fleet completion`: print scripts with which shells complete commands.

use clap::{Args, Command, ValueEnum};
use clap_complete::shells;

use super::print;

/// Completes names of fleets, devices, releases and services, with `cotter names`. It calls clap's function before.
const NAMES_FOR_BASH: &str = include_str!("names.bash");

/// The same for zsh: the names of a kind.
const NAMES_FOR_ZSH: &str = "\
_cotter_of() {
    local -a names
    names=(${(f)\"$(cotter names $1 2>/dev/null)\"})
    compadd -a names
}

";

/// The same for fish.
const NAMES_FOR_FISH: &str = "
complete -c cotter -n '__fish_seen_subcommand_from logs stop start restart explain' -f -a '(cotter names services 2>/dev/null)'
complete -c cotter -n '__fish_seen_subcommand_from fleet push; and not __fish_seen_subcommand_from list' -f -a '(cotter names fleets 2>/dev/null)'
complete -c cotter -n '__fish_seen_subcommand_from device; and not __fish_seen_subcommand_from list barred' -f -a '(cotter names devices 2>/dev/null)'
complete -c cotter -n '__fish_seen_subcommand_from release pin; and not __fish_seen_subcommand_from list create check' -f -a '(cotter names releases 2>/dev/null)'
complete -c cotter -n '__fish_seen_subcommand_from env' -l device -x -a '(cotter names devices 2>/dev/null)'
complete -c cotter -n '__fish_seen_subcommand_from env; and __fish_seen_subcommand_from rm' -f -a '(cotter names variables 2>/dev/null)'
complete -c cotter -n '__fish_seen_subcommand_from device release env' -l fleet -x -a '(cotter names fleets 2>/dev/null)'
";

/// Arguments of `completion`.
#[derive(Debug, Args)]
pub(super) struct Completion {
    /// Shell that the script is for
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script for `command`.
pub(super) fn run(completion: &Completion, command: Command) -> anyhow::Result<()> {
    print::raw(&script(completion.shell, command))
}

/// Returns the script that completes `command` in a shell, or `None` if the shell is not bash, zsh or fish.
#[must_use]
pub fn completion_for(shell: &str, command: Command) -> Option<Vec<u8>> {
    Shell::from_str(shell, false).ok().map(|shell| script(shell, command))
}

fn script(shell: Shell, command: Command) -> Vec<u8> {
    let mut command = visible(command);
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    match shell {
        Shell::Bash => {
            clap_complete::generate(shells::Bash, &mut command, name.clone(), &mut script);
            if name == "cotter" {
                script.extend_from_slice(NAMES_FOR_BASH.as_bytes());
            }
        }
        Shell::Zsh => {
            clap_complete::generate(shells::Zsh, &mut command, name.clone(), &mut script);
            if name == "cotter" {
                script = with_names_for_zsh(&String::from_utf8_lossy(&script)).into_bytes();
            }
        }
        Shell::Fish => {
            clap_complete::generate(shells::Fish, &mut command, name.clone(), &mut script);
            if name == "cotter" {
                script.extend_from_slice(NAMES_FOR_FISH.as_bytes());
            }
        }
    }
    script
}

/// Lets zsh complete names where clap's script completes files: its text has what each argument is.
fn with_names_for_zsh(script: &str) -> String {
    const FILES: &str = ":_default'";
    const OF: [(&str, &str); 6] = [
        (":fleet -- ", "fleets"),
        ("]:FLEET:", "fleets"),
        ("]:DEVICE:", "devices"),
        (":device -- ", "devices"),
        (":release -- ", "releases"),
        (":service -- ", "services"),
    ];
    let mut all = String::with_capacity(script.len() + 1024);
    for line in script.lines() {
        // What begins to exist has no name yet.
        let kind = OF.iter().find(|(part, _)| line.contains(part) && !line.contains("new fleet"));
        if line.starts_with("if [ \"$funcstack[1]\"") {
            all.push_str(NAMES_FOR_ZSH);
        }
        match kind.filter(|_| line.contains(FILES)) {
            Some((_, kind)) => all.push_str(&line.replace(FILES, &format!(":{{_cotter_of {kind}}}'"))),
            None => all.push_str(line),
        }
        all.push('\n');
    }
    all
}

/// Removes the hidden commands: clap's script for bash would offer them.
fn visible(mut command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, visible);
    }
    if !command.get_subcommands().any(Command::is_hide_set) {
        return command;
    }
    let shown: Vec<_> = command.get_subcommands().filter(|inner| !inner.is_hide_set()).cloned().collect();
    // clap takes only names that live as long as the process, which prints a script and ends.
    let name: &'static str = command.get_name().to_owned().leak();
    let copy = Command::new(name).args(command.get_arguments().cloned()).subcommands(shown);
    match command.get_about() {
        Some(about) => copy.about(about.clone()),
        None => copy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zsh_completes_names_in_place_of_files() {
        let script = String::from_utf8(completion_for("zsh", crate::cli::definitions()).unwrap()).unwrap();
        for part in [
            "Name of the fleet:{_cotter_of fleets}'",
            "]:FLEET:{_cotter_of fleets}'",
            "]:DEVICE:{_cotter_of devices}'",
            "first 4 or more digits of the uuid:{_cotter_of devices}'",
            "first 4 or more characters of it:{_cotter_of releases}'",
            "in the compose file:{_cotter_of services}'",
            "Name of the new fleet:_default'",
        ] {
            assert!(script.contains(part), "{part}");
        }
        let (function, end) = (script.find("_cotter_of() {"), script.find("if [ \"$funcstack[1]\""));
        assert!(function.is_some() && function < end, "{script}");
    }

    #[test]
    fn hidden_commands_are_not_offered() {
        for shell in ["bash", "zsh", "fish"] {
            let hidden = Command::new("fleet-serve").hide(true);
            let fleet =
                Command::new("fleet").about("Fleets").subcommand(hidden).subcommand(Command::new("create"));
            let command = Command::new("cotter").version("1").subcommand(fleet);
            let script = String::from_utf8(completion_for(shell, command).unwrap()).unwrap();
            assert!(script.contains("create") && script.contains("version"), "{script}");
            assert!(!script.contains("fleet-serve"), "{script}");
        }
    }
}
