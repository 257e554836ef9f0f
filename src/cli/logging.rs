//! Where the daemons log: the journal under systemd, standard error elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::journal::Journal;
use crate::config::ConfigError;

/// What `level` says: a word, or a filter such as `info,cotter::reconcile=debug`.
pub(super) fn filter(level: &str) -> Result<Targets, ConfigError> {
    let wrong = || ConfigError::Value {
        key: "log.level",
        given: level.to_owned(),
        accepts: "error, warn, info, debug or trace, or a filter such as info,cotter::reconcile=debug"
            .to_owned(),
    };
    // To the filter a misspelt level is the name of a module.
    let is_level = |part: &str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
    if !level.split(',').all(is_level) {
        return Err(wrong());
    }
    level.parse().map_err(|_| wrong())
}

/// Begins to log what `filter` lets through.
///
/// In the journal every field is a native one: `COTTER_APP`, `COTTER_STEP` and so on.
pub(super) fn begin(filter: Targets) {
    let registry = tracing_subscriber::registry().with(filter);
    let environment = crate::config::environment();
    match Journal::open() {
        Ok(journal) if environment.contains_key("JOURNAL_STREAM") => registry.with(journal).init(),
        Ok(_) | Err(_) => {
            let has_colour = std::io::stderr().is_terminal() && !is_plain(&environment);
            let text = tracing_subscriber::fmt::layer().compact().with_writer(std::io::stderr);
            registry.with(text.with_ansi(has_colour)).init();
        }
    }
}

/// Whether the user wants no colour: <https://no-color.org>.
fn is_plain(environment: &BTreeMap<String, String>) -> bool {
    environment.get("NO_COLOR").is_some_and(|set| !set.is_empty())
}
