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

use crate::host;
use crate::model::text::{self, Screen, one_line};

/// The version of what `--json` prints. Fields may be added within one.
const SCHEMA_VERSION: u64 = 1;

/// Widest column that is padded with spaces. One longer cell does not make all rows longer.
const WIDEST: usize = 120;

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
    if all.len() == 1 { line(empty) } else { put(&aligned(&all, terminal_width())) }
}

/// Prints facts, one a line: the name, then the value.
pub(super) fn facts(facts: &[(&str, String)]) -> anyhow::Result<()> {
    let rows: Vec<_> = facts.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]).collect();
    put(&aligned(&rows, None))
}

/// Prints text as one line.
pub(super) fn line(line: &str) -> anyhow::Result<()> {
    put(&(shown(line) + "\n"))
}

/// Prints a line with a word in its colour.
pub(super) fn marked_line(before: &str, word: &str, after: &str) -> anyhow::Result<()> {
    put(&format!("{before}{}{}\n", marked(&shown(word)), shown(after)))
}

/// One line for people: safe to show, and with short digests. JSON has them whole.
fn shown(text: &str) -> String {
    short_digests(&one_line(text))
}

/// Cuts each digest to its first 8 digits, enough to tell images apart: `app@sha256:1f3795f4`.
fn short_digests(text: &str) -> String {
    const BEGINS: &str = "@sha256:";
    let mut parts = text.split(BEGINS);
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        let rest = if digits == 64 { part.get(64..).unwrap_or_default() } else { part };
        short.push_str(BEGINS);
        short.push_str(if digits == 64 { part.get(..8).unwrap_or_default() } else { "" });
        short.push_str(rest);
    }
    short
}

/// The colour of a word that says how something is; `None` for any other text.
fn colour(cell: &str) -> Option<u8> {
    match cell {
        "ok" | "done" | "on-target" | "Running" | "accepted" | "success" => Some(32),
        "WARN" | "pending" | "updating" | "waiting" | "trial" | "downloading" | "locked" | "window"
        | "held" | "silent" | "offline" | "Downloading" => Some(33),
        "ERROR" | "failing" | "failed" | "blocked" | "rejected" | "degraded" | "unhealthy" | "Dead" => {
            Some(31)
        }
        _ => None,
    }
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
    put(&format!("\r\x1b[K{}", cut(&shown(line), width.saturating_sub(1).max(LEAST_LAST))))
}

/// Shows progress in the last line of a terminal on standard error. What is printed next replaces it, if the line is
/// emptied before.
pub(super) fn progress_note(line: &str) {
    let width = columns_of(io::stderr()).unwrap_or(usize::MAX);
    let line = cut(&one_line(line), width.saturating_sub(1).max(LEAST_LAST));
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

/// Cuts a text to at most `width` characters. What is cut ends with `…`.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// The least width to which a last column is cut.
const LEAST_LAST: usize = 12;

/// Aligns the cells of rows that have the same number of them. `terminal`: the width to which the last column is cut.
fn aligned(rows: &[Vec<String>], terminal: Option<usize>) -> String {
    let clean = |row: &Vec<String>| row.iter().map(|cell| shown(cell)).collect();
    let mut rows: Vec<Vec<String>> = rows.iter().map(clean).collect();
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(|column| width(column).min(WIDEST)).collect();
    if let Some(terminal) = terminal {
        let before: usize = widths.iter().rev().skip(1).map(|width| width + 2).sum();
        let rest = terminal.saturating_sub(before).max(LEAST_LAST);
        rows.iter_mut().filter_map(|row| row.last_mut()).for_each(|last| *last = cut(last, rest));
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| marked(&format!("{cell:width$}")));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_short() {
        let digest = "0123456789abcdef".repeat(4);
        let text =
            format!("pull r/a@sha256:{digest} and r/b@sha256:{digest}: no @sha256:abc, sha256:{digest}");
        let short =
            format!("pull r/a@sha256:01234567 and r/b@sha256:01234567: no @sha256:abc, sha256:{digest}");
        assert_eq!(short_digests(&text), short);
        for kept in ["", "@sha256:", "a@sha256:ä", &format!("a@sha256:{digest}0")] {
            assert_eq!(short_digests(kept), kept);
        }
    }

    #[test]
    fn the_last_column_is_cut_to_the_width_of_the_terminal_and_no_other_one() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let why = "web: it exited with code 1; last line: cannot open the config";
        let rows = [
            row(["NAME", "STATE", "WHY"]),
            row(["kitchen", "failing", why]),
            row(["hall", "on-target", "-"]),
        ];
        let whole = aligned(&rows, None);
        assert!(whole.contains(why), "{whole}");
        let narrow = aligned(&rows, Some(40));
        assert_eq!(
            narrow,
            "NAME     STATE      WHY\nkitchen  failing    web: it exited with…\nhall     on-target  -\n"
        );
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        assert_eq!(aligned(&rows, Some(1000)), whole);
        assert!(aligned(&rows, Some(3)).contains("  web: it exi…\n"), "something is left of it in any case");
    }
}
