//! Divides the log of a container, with the times that the engine recorded, into lines.
//!
//! Only the beginning of a line is kept, so a container that never ends its line, or writes one of any length, takes no more
//! memory than another one.

use std::collections::VecDeque;

use bollard::errors::Error;
use futures_util::stream::{self, BoxStream, StreamExt};
use hyper::body::Incoming;
use jiff::Timestamp;

use super::stream::{begins_header, piece};
use crate::model::{LogLine, LogTime};

/// The longest text of a line in characters, with what shows that it was cut (docs/dev/protocol.md, "Log streaming").
const LONGEST: usize = 10_000;
const CUT: &str = "[...]";

/// How many bytes of a line are kept: enough for the longest text.
const KEPT: usize = 4 * LONGEST;

/// The longest time in a log, with the zone.
const LONGEST_STAMP: usize = 40;

/// Returns the lines of a log that was requested with timestamps. An error ends the stream.
pub(super) fn log_lines(body: Incoming) -> BoxStream<'static, Result<LogLine, Error>> {
    let begin = Some((body, Reader::default()));
    let lines = stream::unfold(begin, |open| async move {
        let (mut body, mut reader) = open?;
        loop {
            if let Some(line) = reader.ready.pop_front() {
                return Some((Ok(line), Some((body, reader))));
            }
            if reader.is_over {
                return None;
            }
            match piece(&mut body).await {
                Ok(Some(piece)) => reader.feed(&piece),
                Ok(None) => reader.end(),
                Err(error) => return Some((Err(error), None)),
            }
        }
    });
    lines.boxed()
}

/// Finds lines in the pieces of a log.
#[derive(Debug, Default)]
struct Reader {
    framing: Framing,
    output: Output,
    errors: Output,
    ready: VecDeque<LogLine>,
    is_over: bool,
}

/// Whether the log has headers of 8 bytes, which separate standard output from error. The log of a terminal has none.
#[derive(Debug)]
enum Framing {
    /// The beginning, until it shows.
    Unknown(Vec<u8>),
    Bare,
    Header(Vec<u8>),
    Inside {
        left: usize,
        is_stderr: bool,
    },
}

impl Default for Framing {
    fn default() -> Self {
        Self::Unknown(Vec::new())
    }
}

impl Reader {
    fn feed(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            match &mut self.framing {
                Framing::Bare => {
                    self.output.feed(rest, false, &mut self.ready);
                    return;
                }
                Framing::Inside { left, is_stderr } => {
                    let (now, later) = rest.split_at(rest.len().min(*left));
                    *left -= now.len();
                    let (is_over, is_stderr) = (*left == 0, *is_stderr);
                    let stream = if is_stderr { &mut self.errors } else { &mut self.output };
                    stream.feed(now, is_stderr, &mut self.ready);
                    if is_over {
                        self.framing = Framing::Header(Vec::new());
                    }
                    rest = later;
                }
                Framing::Unknown(header) | Framing::Header(header) => {
                    header.push(rest[0]);
                    rest = &rest[1..];
                    if !begins_header(header) {
                        let bare = std::mem::take(header);
                        self.framing = Framing::Bare;
                        self.output.feed(&bare, false, &mut self.ready);
                    } else if let [number, _, _, _, a, b, c, d] = **header {
                        let left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(0);
                        let is_stderr = number == 2;
                        let stream = if is_stderr { &mut self.errors } else { &mut self.output };
                        // Each frame is one entry of the log, which begins with its time.
                        stream.begin_entry();
                        self.framing = match left {
                            0 => Framing::Header(Vec::new()),
                            left => Framing::Inside { left, is_stderr },
                        };
                    }
                }
            }
        }
    }

    /// Takes the lines that have no line break, because the container ended.
    fn end(&mut self) {
        self.is_over = true;
        self.output.flush(false, &mut self.ready);
        self.errors.flush(true, &mut self.ready);
    }
}

/// The lines of standard output or of standard error.
#[derive(Debug, Default)]
struct Output {
    /// The time of the next entry, as far as it has arrived; `None` inside of a line.
    stamp: Option<Vec<u8>>,
    is_begun: bool,
    line: Line,
}

/// The line that has not ended yet.
#[derive(Debug, Default)]
struct Line {
    at: LogTime,
    bytes: Vec<u8>,
    is_open: bool,
    /// Whether it was passed on already, because it is too long.
    is_passed: bool,
}

impl Output {
    fn begin_entry(&mut self) {
        (self.stamp, self.is_begun) = (Some(Vec::new()), true);
    }

    fn feed(&mut self, mut bytes: &[u8], is_stderr: bool, ready: &mut VecDeque<LogLine>) {
        if !self.is_begun {
            self.begin_entry();
        }
        while !bytes.is_empty() {
            if let Some(stamp) = &mut self.stamp {
                let (byte, later) = (bytes[0], &bytes[1..]);
                bytes = later;
                if byte != b' ' && byte != b'\n' {
                    stamp.push(byte);
                }
                if byte == b' ' || stamp.len() > LONGEST_STAMP || byte == b'\n' {
                    let stamp = std::mem::take(stamp);
                    self.stamp = None;
                    if !self.begin_line(&stamp, is_stderr, ready) && byte == b' ' {
                        self.line.add(b" ", is_stderr, ready);
                    }
                    if byte == b'\n' {
                        self.end_line(is_stderr, ready);
                    }
                }
                continue;
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let text = &bytes[..end.unwrap_or(bytes.len())];
            self.line.add(text, is_stderr, ready);
            match end {
                Some(end) => {
                    bytes = &bytes[end + 1..];
                    self.end_line(is_stderr, ready);
                }
                None => return,
            }
        }
    }

    /// Begins a line, unless the entry continues one: the engine divides a long line into entries of the same time.
    /// Returns whether its time could be read. If not, it is text.
    fn begin_line(&mut self, stamp: &[u8], is_stderr: bool, ready: &mut VecDeque<LogLine>) -> bool {
        let Some(at) = time(stamp) else {
            self.flush(is_stderr, ready);
            self.line = Line { at: self.line.at, is_open: true, ..Line::default() };
            self.line.add(stamp, is_stderr, ready);
            return false;
        };
        if !(self.line.is_open && self.line.at == at) {
            self.flush(is_stderr, ready);
            self.line = Line { at, is_open: true, ..Line::default() };
        }
        true
    }

    fn end_line(&mut self, is_stderr: bool, ready: &mut VecDeque<LogLine>) {
        self.flush(is_stderr, ready);
        self.stamp = Some(Vec::new());
    }

    fn flush(&mut self, is_stderr: bool, ready: &mut VecDeque<LogLine>) {
        if self.line.is_open {
            self.line.pass(is_stderr, ready);
            self.line.is_open = false;
        }
    }
}

impl Line {
    fn add(&mut self, text: &[u8], is_stderr: bool, ready: &mut VecDeque<LogLine>) {
        if self.is_passed {
            return;
        }
        let room = KEPT - self.bytes.len();
        self.bytes.extend_from_slice(&text[..text.len().min(room)]);
        if text.len() >= room {
            self.pass(is_stderr, ready);
        }
    }

    fn pass(&mut self, is_stderr: bool, ready: &mut VecDeque<LogLine>) {
        if !std::mem::replace(&mut self.is_passed, true) {
            let text = text(&std::mem::take(&mut self.bytes));
            ready.push_back(LogLine { at: self.at, is_stderr, text });
        }
    }
}

/// Returns a line as text of at most [`LONGEST`] characters.
fn text(bytes: &[u8]) -> String {
    let is_full = bytes.len() >= KEPT;
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    if is_full || text.chars().nth(LONGEST).is_some() {
        let kept = text.char_indices().nth(LONGEST - CUT.len()).map_or(text.len(), |(at, _)| at);
        text.truncate(kept);
        text.push_str(CUT);
    }
    text
}

fn time(stamp: &[u8]) -> Option<LogTime> {
    let at: Timestamp = std::str::from_utf8(stamp).ok()?.parse().ok()?;
    LogTime::try_from(at.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const T1: &str = "2026-11-30T10:00:00.000000001Z";
    const T2: &str = "2026-11-30T10:00:00.000000002Z";

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0][..], &length, text.as_bytes()].concat()
    }

    /// The lines of a log that arrives in pieces of this size: `nanosecond>text` for output, `nanosecond!text` for errors.
    fn lines_of(log: &[u8], size: usize) -> Vec<String> {
        let mut reader = Reader::default();
        log.chunks(size).for_each(|piece| reader.feed(piece));
        reader.end();
        let shown = |line: LogLine| {
            let text = match line.text.chars().count() {
                0..50 => line.text,
                n => {
                    let end: String = line.text.chars().skip(n - 6).collect();
                    format!("{n} chars, {end}")
                }
            };
            format!("{}{}{text}", line.at % 10, if line.is_stderr { '!' } else { '>' })
        };
        reader.ready.into_iter().map(shown).collect()
    }

    #[test]
    fn logs_are_divided_into_lines() {
        let long = format!("{T1} {}", "x".repeat(16_384));
        let end = format!("{T1} end\n");
        let multibyte = format!("{T1} {}\n", "ü".repeat(10_001));
        let fits = format!("{T1} {}\n", "ü".repeat(10_000));
        let endless = frame(1, &long).repeat(50);
        for (why, log, expected) in [
            ("nothing", Vec::new(), &[][..]),
            (
                "two lines",
                [frame(1, &format!("{T1} a\n")), frame(2, &format!("{T2} b c\n"))].concat(),
                &["1>a", "2!b c"],
            ),
            ("an empty line", frame(1, &format!("{T1} \n")), &["1>"]),
            ("a terminal", format!("{T1} a\r\n{T2} b\r\n").into_bytes(), &["1>a", "2>b"]),
            (
                "a terminal without an end of line",
                format!("{T1} a\r\n{T2} $ ").into_bytes(),
                &["1>a", "2>$ "],
            ),
            (
                "no end of line, and then another time",
                [frame(1, &format!("{T1} a")), frame(1, &format!("{T2} b\n"))].concat(),
                &["1>a", "2>b"],
            ),
            (
                "one line in two entries",
                [frame(1, &format!("{T1} a")), frame(1, &format!("{T1} b\n"))].concat(),
                &["1>ab"],
            ),
            (
                "a long line between others of stderr",
                [frame(1, &long), frame(2, &format!("{T2} e\n")), frame(1, &end)].concat(),
                &["2!e", "1>10000 chars, x[...]"],
            ),
            (
                "a line that never ends",
                [endless, frame(1, &end), frame(1, &format!("{T2} b\n"))].concat(),
                &["1>10000 chars, x[...]", "2>b"],
            ),
            ("characters, not bytes", frame(1, &multibyte), &["1>10000 chars, ü[...]"][..]),
            ("just fits", frame(1, &fits), &["1>10000 chars, üüüüüü"]),
            (
                "no UTF-8",
                [frame(1, &format!("{T1} a")), frame(1, &format!("{T2} \u{0}b\n")), frame(1, "\n")].concat(),
                &["1>a", "2>\u{0}b", "2>"],
            ),
            ("no time", frame(1, "hello there\n"), &["0>hello there"]),
        ] {
            for size in [1, 7, 100_000] {
                assert_eq!(lines_of(&log, size), expected, "{why}, in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut reader = Reader::default();
        reader.feed(&frame(1, &format!("{T1} ")));
        let piece = frame(1, &format!("{T1} {}", "x".repeat(16_384)));
        for _ in 0..1000 {
            reader.feed(&piece);
            assert!(reader.output.line.bytes.capacity() <= 2 * KEPT);
        }
        assert_eq!(reader.ready.len(), 1);
    }
}
