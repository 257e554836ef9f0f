//! How answers look: tables for people, JSON for programs, errors in one line.

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;
use serde_json::{Map, Value};

/// The version of what `--json` prints. Fields may be added within one.
const SCHEMA_VERSION: u64 = 1;

/// Prints `{"schema_version": 1, "<name>": <value>}`.
pub(super) fn json(name: &str, value: &impl Serialize) -> anyhow::Result<()> {
    let mut document = Map::new();
    document.insert("schema_version".to_owned(), SCHEMA_VERSION.into());
    document.insert(name.to_owned(), serde_json::to_value(value)?);
    text(&format!("{:#}", Value::Object(document)))
}

/// Prints rows under their headers, columns aligned, or `empty` when there are no rows.
pub(super) fn table<const N: usize>(
    headers: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    empty: &str,
) -> anyhow::Result<()> {
    let rows: Vec<[String; N]> = rows.into_iter().collect();
    if rows.is_empty() {
        return text(empty);
    }
    let all: Vec<[String; N]> = std::iter::once(headers.map(str::to_owned)).chain(rows).collect();
    text(&aligned(&all))
}

/// Prints facts, one a line: the name, then the value.
pub(super) fn facts(facts: &[(&str, String)]) -> anyhow::Result<()> {
    let rows: Vec<[String; 2]> =
        facts.iter().map(|(name, value)| [(*name).to_owned(), value.clone()]).collect();
    text(&aligned(&rows))
}

/// Prints text and a line end. A reader that has gone is no error.
pub(super) fn text(text: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(()),
    }
}

/// Prints text as one line that moves no cursor.
pub(super) fn line(line: &str) -> anyhow::Result<()> {
    text(&clean(line))
}

/// Prints text as one line that moves no cursor; whether anybody reads it.
pub(super) fn reaches(line: &str) -> bool {
    writeln!(io::stdout().lock(), "{}", clean(line)).is_ok()
}

/// Prints a line in the place of the one before it, on a terminal.
pub(super) fn progress(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match write!(out, "\r\x1b[K{}", clean(line)).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(()),
    }
}

/// Empties the screen of a terminal.
pub(super) fn screen() -> anyhow::Result<()> {
    text("\x1b[2J\x1b[H")
}

/// Prints an error and all its causes in one line.
pub(super) fn error(error: &anyhow::Error) {
    let line = clean(&format!("{error:#}"));
    let _gone = writeln!(io::stderr().lock(), "error: {line}");
}

/// Prints a remark that is not the answer.
pub(super) fn note(note: &str) {
    let _gone = writeln!(io::stderr().lock(), "{}", clean(note));
}

/// What is there, else `-`.
pub(super) fn or_dash(value: Option<&str>) -> String {
    value.filter(|value| !value.is_empty()).unwrap_or("-").to_owned()
}

/// The beginning of a commit or uuid, enough to name it.
pub(super) fn short(id: Option<&str>) -> String {
    or_dash(id.map(|id| id.get(..12).unwrap_or(id)))
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.clone().map(|cell| clean(&cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Without characters that would move the terminal's cursor or its colours.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
