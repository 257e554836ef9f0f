//! Prints answers: tables for people, JSON for programs, errors in one line.
//!
//! This is the only file that writes to the terminal (`tests/floors.rs`). What it prints may come from outside, so
//! all of it passes [`text`], except what [`raw`] writes to files and pipes.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::process::Stdio;

use anyhow::Context;
use serde::Serialize;
use serde_json::{Map, Value};

use super::layout::{LEAST, aligned, colour, cut, short_digests, width_before_last, wrapped};
use crate::host;
use crate::model::text::{self, Screen, one_line};
use crate::wire::operator_api::PinnedView;

/// The version of what `--json` prints. Fields may be added within one.
const SCHEMA_VERSION: u64 = 1;

/// Prints `{"schema_version": 1, "<name>": <value>}`.
pub(super) fn json(name: &str, value: &impl Serialize) -> anyhow::Result<()> {
    let mut document = Map::new();
    document.insert("schema_version".to_owned(), SCHEMA_VERSION.into());
    document.insert(name.to_owned(), serde_json::to_value(value)?);
    put(&text::json(&format!("{:#}\n", Value::Object(document))))
}

/// Prints a document that has its own `schema_version`.
pub(super) fn document(document: &impl Serialize) -> anyhow::Result<()> {
    put(&text::json(&(serde_json::to_string_pretty(document)? + "\n")))
}

/// Prints a JSON document as one line. Returns `false` once nothing reads the output any more.
pub(super) fn json_reaches(document: &str) -> bool {
    writeln!(io::stdout().lock(), "{}", text::json(document)).is_ok()
}

/// Prints rows under their headers, columns aligned, or `empty` when there are no rows. On a terminal the last column is
/// cut to its width.
pub(super) fn table<const N: usize>(
    headers: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    empty: &str,
) -> anyhow::Result<()> {
    columns(&headers, rows.into_iter().map(Vec::from), empty)
}

/// Prints a table whose columns are chosen when the command runs. All rows have as many cells as there are headers.
pub(super) fn columns(
    headers: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
    empty: &str,
) -> anyhow::Result<()> {
    let headers = headers.iter().map(|&header| header.to_owned()).collect();
    let all: Vec<Vec<String>> = std::iter::once(headers).chain(rows).collect();
    hinted(&all, empty, None)
}

/// Prints rows, the first of them headers. If something was cut, a last line says where the rest is.
pub(super) fn hinted(all: &[Vec<String>], empty: &str, hint: Option<&str>) -> anyhow::Result<()> {
    if all.len() == 1 {
        return line(empty);
    }
    let clean: Vec<Vec<String>> =
        all.iter().map(|row| row.iter().map(|cell| shown(cell)).collect()).collect();
    let (lines, is_cut) = aligned(&clean, terminal_width(), |cell| marked(&cell));
    put(&lines)?;
    hint.filter(|_| is_cut).map_or(Ok(()), |hint| line(&format!("-> {hint}")))
}

/// Whether rows fit on the terminal, if there is one, with so many characters for the last column.
pub(super) fn fits(rows: &[Vec<String>], last: usize) -> bool {
    terminal_width().is_none_or(|width| width_before_last(rows) + last <= width)
}

/// Prints facts, one a line: the name, then the value. On a terminal a long value goes on below itself.
pub(super) fn facts(facts: &[(&str, String)]) -> anyhow::Result<()> {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    facts.iter().try_for_each(|(name, value)| hanging(width + 2, &format!("{name:width$}  {value}")))
}

/// Prints text as one line, which on a terminal goes on in the next ones, indented by `hang`, where it is too long.
pub(super) fn hanging(hang: usize, line: &str) -> anyhow::Result<()> {
    put(&(wrapped(shown(line).trim_end(), hang, terminal_width()) + "\n"))
}

/// Prints text as one line.
pub(super) fn line(line: &str) -> anyhow::Result<()> {
    put(&(shown(line) + "\n"))
}

/// Prints a line with a word of ours in its colour. On a terminal a long line goes on indented, below the character of
/// `after` with the number `hang`.
pub(super) fn marked_line(before: &str, word: &str, after: &str, hang: usize) -> anyhow::Result<()> {
    let hang = before.len() + word.len() + hang;
    let line = wrapped(&format!("{before}{word}{}", shown(after)), hang, terminal_width());
    let rest = line.get(before.len() + word.len()..).unwrap_or_default();
    put(&format!("{before}{}{rest}\n", marked(word)))
}

/// One line for people: safe to show, and with short digests. JSON has them whole.
fn shown(text: &str) -> String {
    short_digests(&one_line(text))
}

/// A word in its colour, if it has one and the output is a terminal that may have colours.
fn marked(word: &str) -> String {
    match colour(word.trim_end()).filter(|_| has_colour()) {
        Some(code) => format!("\x1b[{code}m{word}\x1b[0m"),
        None => word.to_owned(),
    }
}

/// Whether the output is a terminal whose user has not asked for no colour: <https://no-color.org>.
fn has_colour() -> bool {
    is_on_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// Prints text as one line. Returns `false` once nothing reads the output any more.
pub(super) fn reaches(line: &str) -> bool {
    writeln!(io::stdout().lock(), "{}", shown(line)).is_ok()
}

/// Replaces the last line of a terminal. A longer one is cut, because only its last row would be replaced next.
pub(super) fn progress(line: &str) -> anyhow::Result<()> {
    let width = terminal_width().unwrap_or(usize::MAX);
    put(&format!("\r\x1b[K{}", cut(&shown(line), width.saturating_sub(1).max(LEAST))))
}

/// Shows progress in the last line of a terminal on standard error. What is printed next replaces it, if the line is
/// emptied before.
pub(super) fn progress_note(line: &str) {
    let width = columns_of(io::stderr()).unwrap_or(usize::MAX);
    let line = cut(&one_line(line), width.saturating_sub(1).max(LEAST));
    let _gone = write!(io::stderr().lock(), "\r\x1b[K{line}\r");
}

/// Clears the screen of a terminal.
pub(super) fn screen() -> anyhow::Result<()> {
    put("\x1b[2J\x1b[H")
}

/// Prints a question without a line end, so that the answer is typed on the same line.
pub(super) fn question(question: &str) -> anyhow::Result<()> {
    put(&one_line(question))
}

/// Prints bytes as they are, for a file or a program.
pub(super) fn raw(bytes: &[u8]) -> anyhow::Result<()> {
    raw_reaches(bytes).map(drop)
}

/// Prints bytes as they are. Returns `false` once nothing reads the output any more.
fn raw_reaches(bytes: &[u8]) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("cannot print"),
    }
}

/// Prints a log piece by piece.
#[derive(Debug)]
pub(super) struct Log {
    /// `None`: the log is printed exactly as it is received.
    screen: Option<Screen>,
}

impl Log {
    /// Creates a printer that makes a log safe for a terminal. If the output is not a terminal, or if `is_raw`, it
    /// prints the log exactly as it is received.
    pub(super) fn new(is_raw: bool) -> Self {
        Self { screen: (!is_raw && io::stdout().is_terminal()).then(Screen::default) }
    }

    /// Prints a piece. Returns `false` once nothing reads the output any more.
    pub(super) fn piece_reaches(&mut self, piece: &[u8]) -> anyhow::Result<bool> {
        match &mut self.screen {
            Some(screen) => raw_reaches(screen.take(piece).as_bytes()),
            None => raw_reaches(piece),
        }
    }

    /// Prints what is left.
    pub(super) fn end(self) -> anyhow::Result<()> {
        self.screen.map_or(Ok(()), |screen| put(&screen.finish()))
    }
}

/// Prints help. It contains no outside text.
pub(super) fn help(help: &clap::Error) {
    // It is not an error if the reader has closed its end.
    let _gone = help.print();
}

/// Prints text that is safe to show.
fn put(text: &str) -> anyhow::Result<()> {
    raw(text.as_bytes())
}

/// Returns whether standard output is a terminal.
pub(super) fn is_on_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Returns whether standard error is a terminal.
pub(super) fn warns_on_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Where the output of a program goes that the operator's command runs and that prints for people itself. Answers of
/// ours keep standard output.
pub(super) fn for_child() -> Stdio {
    io::stderr().into()
}

/// Prints a part of the output of a program that has passed [`Screen`], where [`for_child`] sends it otherwise. A failure to
/// print is ignored.
pub(super) fn output(text: &str) {
    let _gone = io::stderr().lock().write_all(text.as_bytes());
}

/// Prints an error and all its causes in one line.
pub(super) fn error(error: &anyhow::Error) {
    note(&format!("error: {error:#}"));
}

/// Prints `{"schema_version": 1, "<name>": <value>}` to standard error, in one line. A failure to print is ignored.
pub(super) fn json_note(name: &str, value: &impl Serialize) {
    let mut document = Map::new();
    document.insert("schema_version".to_owned(), SCHEMA_VERSION.into());
    document.insert(name.to_owned(), serde_json::to_value(value).unwrap_or_default());
    let _gone = writeln!(io::stderr().lock(), "{}", text::json(&Value::Object(document).to_string()));
}

/// Prints a note to standard error, in one line. A failure to print is ignored: it could not be reported either.
pub(super) fn note(note: &str) {
    log("", note);
}

/// Prints a line of a daemon's log: a beginning that we wrote, and a rest that may come from outside.
pub(super) fn log(beginning: &str, rest: &str) {
    let _gone = writeln!(io::stderr().lock(), "{beginning}{}", one_line(rest));
}

/// Prints a panic in one line. The standard library's own message would show outside text unescaped, and could
/// forge lines in a journal.
pub(super) fn panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let why = panic.payload_as_str().unwrap_or("no reason is known");
    note(&format!("error: panicked at {place}: {why}; please report it"));
}

/// Returns the value, or `-` if there is none.
pub(super) fn or_dash(value: Option<&str>) -> String {
    value.filter(|value| !value.is_empty()).unwrap_or("-").to_owned()
}

/// Returns since when, by whom and why something is pinned.
pub(super) fn pinned(PinnedView { at, by, why }: &PinnedView) -> String {
    let why = why.as_ref().map_or(String::new(), |why| format!(": {why}"));
    format!("at {at} by {by}{why}")
}

/// Prints how a service of a release failed, and the last lines that it wrote. `cause`: the predicate of a sentence.
pub(super) fn failure(
    indent: &str,
    (service, release, at): (&str, &str, &str),
    cause: Option<&str>,
    lines: &[String],
) -> anyhow::Result<()> {
    let cause = cause.unwrap_or("has not become healthy");
    line(&format!("{indent}{service} of release {release}, at {at}: {cause}"))?;
    lines.iter().try_for_each(|written| line(&format!("{indent}  | {written}")))
}

/// Returns the first 12 characters of a commit or uuid, enough to identify it.
pub(super) fn short(id: Option<&str>) -> String {
    or_dash(id.map(|id| id.get(..12).unwrap_or(id)))
}

/// The width of the terminal, which `COLUMNS` may replace; `None` where the output goes into a file or a pipe.
fn terminal_width() -> Option<usize> {
    if is_on_terminal() { columns_of(io::stdout()) } else { None }
}

#[expect(clippy::disallowed_methods, reason = "COLUMNS is a custom of terminals, and no setting of ours")]
fn columns_of(terminal: impl AsFd) -> Option<usize> {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    said.or_else(|| host::terminal_columns(terminal))
}
