//! Where the daemons log: the journal under systemd, standard error elsewhere.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

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
    let is_journal = crate::config::environment().contains_key("JOURNAL_STREAM");
    match tracing_journald::layer() {
        Ok(journal) if is_journal => {
            registry.with(journal.with_field_prefix(Some("COTTER".to_owned()))).init();
        }
        Ok(_) | Err(_) => {
            registry
                .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false))
                .init();
        }
    }
}
