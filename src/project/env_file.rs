//! Reads files of variables (`.env`, `env_file`), as Compose does.

use std::collections::{BTreeMap, BTreeSet};

use super::variables::{self, Values};

/// How a file of variables is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// With quotes, escapes, comments and variables.
    Usual,
    /// `format: raw`: each line is a name and the value as it is written.
    Raw,
}

/// An error of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LineError {
    pub(super) line: usize,
    pub(super) why: String,
}

/// Variables of files, and what they are filled in from: `outer` first, then those that stand before.
struct Known<'v> {
    outer: &'v dyn Values,
    read: &'v BTreeMap<String, String>,
}

/// Does not quote the text, because it may be a part of a secret.
const NOT_FILLED: &str = "its value has a \"$\" that is not a variable of a line before: write \"$$\" for a plain $, or put the value in single quotes";

impl Known<'_> {
    /// The value with its variables filled in.
    fn fill(&self, value: &str, unset: &mut BTreeSet<String>) -> Result<String, String> {
        let filled = variables::fill(value, self, unset);
        if self.outer.is_final() && (filled.is_err() || !unset.is_empty()) {
            return Err(NOT_FILLED.to_owned());
        }
        filled.map_err(|bad| bad.to_string())
    }
}

impl Values for Known<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.outer.get(name).or_else(|| self.read.get(name).cloned())
    }
}

/// Adds the variables of a file to `read`. A name without `=` takes its value from `outer`, if it has one there.
pub(super) fn read_into(
    text: &str,
    format: Format,
    outer: &dyn Values,
    read: &mut BTreeMap<String, String>,
    unset: &mut BTreeSet<String>,
) -> Result<(), LineError> {
    if let Some(at) = text.find('\0') {
        let line = line_at(text, at);
        return Err(LineError { line, why: "it has a NUL character: remove it".into() });
    }
    let text = text.trim_start_matches('\u{feff}');
    match format {
        Format::Usual => usual(text, outer, read, unset),
        Format::Raw => raw(text, outer, read),
    }
}

/// Has no variables, and takes the text of a file as final: a name without a value is an error there.
struct Nothing;

impl Values for Nothing {
    fn get(&self, _name: &str) -> Option<String> {
        None
    }

    fn is_final(&self) -> bool {
        true
    }
}

/// Returns the variables of a file. Only variables that are set before in it are filled in.
///
/// # Errors
///
/// The first line with an error, and what is wrong there, without any part of a value. Unlike in a compose project, a variable
/// that has no value is an error.
pub fn variables_of(text: &str) -> Result<BTreeMap<String, String>, (usize, String)> {
    let mut read = BTreeMap::new();
    read_into(text, Format::Usual, &Nothing, &mut read, &mut BTreeSet::new())
        .map_err(|bad| (bad.line, bad.why))?;
    Ok(read)
}

fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn raw(text: &str, outer: &dyn Values, read: &mut BTreeMap<String, String>) -> Result<(), LineError> {
    for (n, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line, outer.get(line)),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(LineError { line: n + 1, why: "it has no name of a variable before \"=\"".into() });
        }
        read.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(())
}

fn usual(
    text: &str,
    outer: &dyn Values,
    read: &mut BTreeMap<String, String>,
    unset: &mut BTreeSet<String>,
) -> Result<(), LineError> {
    let (mut at, mut line, mut counted) = (0, 1, 0);
    while let Some(found) = text[at..].find(|c: char| !c.is_whitespace()) {
        at += found;
        let line_end = text[at..].find('\n').map_or(text.len(), |n| at + n);
        if text[at..].starts_with('#') {
            at = line_end;
            continue;
        }
        line += text[counted..at].matches('\n').count();
        counted = at;
        let wrong = |why: String| LineError { line, why };
        let mut statement = &text[at..line_end];
        if let Some(rest) = statement.strip_prefix("export")
            && rest.starts_with(char::is_whitespace)
        {
            statement = rest.trim_start();
        }
        let Some(split) = statement.find(['=', ':']) else {
            let name = statement.trim_end();
            check_name(name).map_err(wrong)?;
            let value = bare(name, outer).map_err(wrong)?;
            read.extend(value.map(|value| (name.to_owned(), value)));
            at = line_end;
            continue;
        };
        let name = statement[..split].trim_end();
        check_name(name).map_err(wrong)?;
        // From here on in the complete text, because a value in quotes may have several lines.
        let after = &text[line_end - statement.len() + split + 1..];
        let value_text = after.trim_start_matches([' ', '\t', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{a0}']);
        let known = Known { outer, read };
        let mut fill = |value: &str| known.fill(value, unset).map_err(|why| wrong(format!("{name}: {why}")));
        let (value, used) = match value_text.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let (inner, used) = quoted(&value_text[1..], quote)
                    .ok_or_else(|| wrong(format!("{name}: the quote {quote} is not closed: close it")))?;
                let value = if quote == '"' { fill(&unescaped(&inner))? } else { inner };
                (value, 1 + used)
            }
            Some(_) | None => {
                let line = value_text.split('\n').next().unwrap_or_default();
                let bare = line.split(" #").next().unwrap_or_default().trim_end();
                (fill(bare)?, line.len())
            }
        };
        read.insert(name.to_owned(), value);
        at = text.len() - value_text.len() + used;
    }
    Ok(())
}

/// The value of a name without `=`, if it has one.
fn bare(name: &str, outer: &dyn Values) -> Result<Option<String>, String> {
    match outer.get(name) {
        None if outer.is_final() => Err("it has a name without a value: write NAME=value".into()),
        value => Ok(value),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_fine = |c: char| c.is_alphanumeric() || "_.-[]".contains(c);
    if !name.is_empty() && name.chars().all(is_fine) {
        return Ok(());
    }
    // The text may be a part of a secret.
    Err("it does not begin with the name of a variable: write NAME=value, and quotes around a value of several lines".into())
}

/// The text up to the closing quote, with escaped quotes replaced, and the bytes used with the quote.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut inner = String::new();
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        if is_escaped {
            if c != quote {
                inner.push('\\');
            }
            inner.push(c);
            is_escaped = false;
        } else if c == '\\' {
            is_escaped = true;
        } else if c == quote {
            return Some((inner, at + c.len_utf8()));
        } else {
            inner.push(c);
        }
    }
    None
}

/// Replaces the escapes of a shell. `\$` becomes `$$`, which is a plain `$` once variables are filled in.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('v') => out.push('\u{b}'),
            Some('$') => out.push_str("$$"),
            Some(same @ ('"' | '\\')) => out.push(same),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, format: Format) -> Result<Vec<(String, String)>, LineError> {
        let outer: BTreeMap<String, String> = [("HOST".into(), "outer".into())].into();
        let mut read = BTreeMap::new();
        read_into(text, format, &outer, &mut read, &mut BTreeSet::new())?;
        Ok(read.into_iter().collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_form_of_a_line() {
        for (text, wanted) in [
            ("A=1\nB = two words \n", vec![("A", "1"), ("B", "two words")]),
            ("# comment\n\n  A=1 # more\nB=a#b\n", vec![("A", "1"), ("B", "a#b")]),
            ("export A=1\nB: yaml\r\n", vec![("A", "1"), ("B", "yaml")]),
            ("A='$HOST \\' \"'\n", vec![("A", "$HOST ' \"")]),
            ("A=\"$HOST\\n\\$X \\\"q\\\"\" \nB=2", vec![("A", "outer\n$X \"q\""), ("B", "2")]),
            ("A=\"two\nlines\"\nB=2", vec![("A", "two\nlines"), ("B", "2")]),
            ("A=1\nB=${A}-${HOST}-${NONE:-d}", vec![("A", "1"), ("B", "1-outer-d")]),
            ("HOST\nNONE\nA=\n", vec![("A", ""), ("HOST", "outer")]),
            ("\u{feff}A=1", vec![("A", "1")]),
            ("A=x=y", vec![("A", "x=y")]),
            ("A=\nB=2", vec![("A", ""), ("B", "2")]),
        ] {
            assert_eq!(read(text, Format::Usual), Ok(pairs(&wanted)), "{text:?}");
        }
    }

    #[test]
    fn raw_lines_are_taken_as_they_are() {
        let text = "A='1'\n#c\nB=$HOST \nHOST\nNONE\n";
        let wanted = pairs(&[("A", "'1'"), ("B", "$HOST "), ("HOST", "outer")]);
        assert_eq!(read(text, Format::Raw), Ok(wanted));
    }

    const NO_NAME: &str = "it does not begin with the name of a variable: write NAME=value, and quotes around a value of several lines";

    #[test]
    fn errors_name_the_line() {
        for (text, line, why) in [
            ("A=1\nB=\"open\nC=2", 2, "B: the quote \" is not closed: close it"),
            ("A B=1", 1, NO_NAME),
            ("\n\n=1", 3, NO_NAME),
            ("A=\0", 1, "it has a NUL character: remove it"),
            (
                "A=${B:?no}",
                1,
                "A: the variable B has no value (no): set it in the environment or in the file .env",
            ),
        ] {
            assert_eq!(read(text, Format::Usual), Err(LineError { line, why: why.into() }), "{text:?}");
        }
    }
}
