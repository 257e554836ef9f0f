//! Asks before something is deleted that cannot be made again.

use std::io::IsTerminal as _;

use super::exit::Usage;
use super::print;

/// Says `what` will happen, and returns once the user has typed yes.
///
/// # Errors
///
/// A usage error that begins with `undone`, if the answer is another one or if no question can be asked: a program that
/// reads JSON cannot answer, and neither can anything that is not a terminal. All of these need `--yes`.
pub(super) fn agree(what: &str, undone: &str, json: bool) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    let why = if json {
        "with --json this needs --yes"
    } else if !stdin.is_terminal() {
        "without a terminal this needs --yes"
    } else {
        print::question(&format!("{what} Type yes to continue: "))?;
        let mut answer = String::new();
        stdin.read_line(&mut answer)?;
        if answer.trim() == "yes" {
            return Ok(());
        }
        "answer yes, or use --yes"
    };
    Err(Usage(format!("{undone}; {why}")).into())
}
