//! Where the daemons log: the journal under systemd, standard error elsewhere.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::exit::Usage;

/// Begins to log at `level`: a word, or a filter such as `info,cotter::reconcile=debug`.
///
/// In the journal every field is a native one: `COTTER_APP`, `COTTER_STEP` and so on.
pub(super) fn begin(level: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse(level).map_err(|error| {
        Usage(format!(
            "log level {level:?} is not understood ({error}); say error, warn, info, debug or trace"
        ))
    })?;
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
    Ok(())
}
