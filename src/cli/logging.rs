//! Logging of the daemons: to the journal under systemd, to standard error elsewhere.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::journal::Journal;
use super::print;
use crate::config::ConfigError;
use crate::host;

/// Parses `level`: one word, or a filter such as `info,cotter::reconcile=debug`.
pub(super) fn filter(level: &str) -> Result<Targets, ConfigError> {
    let wrong = || ConfigError::Value {
        key: "log.level",
        given: level.to_owned(),
        accepts: "error, warn, info, debug or trace, or a filter such as info,cotter::reconcile=debug"
            .to_owned(),
    };
    // The filter would take a misspelt level for the name of a module.
    let is_level = |part: &str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
    if !level.split(',').all(is_level) {
        return Err(wrong());
    }
    level.parse().map_err(|_| wrong())
}

/// Starts logging the events that `filter` accepts, under the name `program`.
///
/// In the journal every field of an event is a journal field: `COTTER_APP`, `COTTER_STEP` and so on.
pub(super) fn begin(program: &'static str, filter: Targets) {
    let registry = tracing_subscriber::registry().with(filter);
    let environment = crate::config::environment();
    match Journal::open(program) {
        Ok(journal) if environment.contains_key("JOURNAL_STREAM") => registry.with(journal).init(),
        Ok(_) | Err(_) => {
            let has_colour = print::warns_on_terminal() && !is_plain(&environment);
            registry.with(Lines { has_colour }).init();
        }
    }
}

/// Returns whether the user wants no colour: <https://no-color.org>.
fn is_plain(environment: &BTreeMap<String, String>) -> bool {
    environment.get("NO_COLOR").is_some_and(|set| !set.is_empty())
}

/// Writes each event as one line to standard error, e.g.
/// `2026-12-01T08:00:00.000000Z  INFO cotter::daemon: agent started instance="default"`.
#[derive(Debug)]
struct Lines {
    has_colour: bool,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let (level, target) = (event.metadata().level(), event.metadata().target());
        let word = if self.has_colour { coloured(*level) } else { format!("{level:>5}") };
        print::log(
            &format!("{:.6} {word} ", host::now()),
            &format!("{target}: {}{}", line.message, line.fields),
        );
    }
}

fn coloured(level: Level) -> String {
    let colour = match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    };
    format!("\x1b[{colour}m{level:>5}\x1b[0m")
}

/// An event's message, and its fields as ` name=value`. Texts are in quotes.
#[derive(Debug, Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
