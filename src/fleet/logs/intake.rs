//! Reads the body of a stream: decompresses it, finds lines, and says how fast they may come. Does no I/O.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use flate2::write::MultiGzDecoder;
use jiff::Timestamp;
use serde::Serialize;

use super::Line;
use super::senders::Pace;
use crate::wire::log_line::StreamedLine;

/// The longest line in bytes, as JSON. A text of 10,000 characters fits.
const LONGEST_LINE: usize = 64 << 10;

/// Maximum number of bytes of lines that wait to be kept. More are dropped.
const WAITING: usize = 512 << 10;

/// Why a stream ends with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fleet) enum BadStream {
    /// It is no gzip.
    NotCompressed,
    /// A line is no JSON.
    NotJson,
}

/// A stream that is being read.
pub(in crate::fleet) struct Intake {
    body: Body,
    pace: Arc<Pace>,
}

enum Body {
    Plain(Lines),
    Gzip(Box<MultiGzDecoder<Lines>>),
}

/// Complete lines.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
    is_too_long: bool,
    lines: Vec<Vec<u8>>,
    waiting: usize,
    bytes: usize,
    dropped: u64,
}

/// A line as it is kept and shown.
#[derive(Serialize)]
struct KeptLine<'a> {
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    stderr: bool,
    message: &'a str,
}

impl Intake {
    pub(in crate::fleet) fn new(is_compressed: bool, pace: Arc<Pace>) -> Self {
        let lines = Lines::default();
        let body = match is_compressed {
            true => Body::Gzip(Box::new(MultiGzDecoder::new(lines))),
            false => Body::Plain(lines),
        };
        Self { body, pace }
    }

    /// Reads a piece of the body. Returns how long to wait for the next one.
    ///
    /// # Errors
    ///
    /// [`BadStream::NotCompressed`].
    pub(in crate::fleet) fn feed(&mut self, piece: &[u8]) -> Result<Duration, BadStream> {
        let before = (self.lines_ref().lines.len(), self.lines_ref().bytes);
        match &mut self.body {
            Body::Plain(lines) => lines.take(piece),
            Body::Gzip(decoder) => {
                decoder
                    .write_all(piece)
                    .and_then(|()| decoder.flush())
                    .map_err(|_| BadStream::NotCompressed)?;
            }
        }
        let lines = self.lines_ref();
        let (count, bytes) = (lines.lines.len() - before.0, lines.bytes - before.1);
        Ok(self.pace.charge(count, bytes + piece.len()))
    }

    /// Takes the lines that were read, as lines of this fleet. `name` is the name of a service by its number. Also returns how
    /// many lines were dropped.
    ///
    /// # Errors
    ///
    /// [`BadStream::NotJson`].
    pub(in crate::fleet) fn lines(
        &mut self,
        fleet: u64,
        name: impl Fn(u64) -> Option<String>,
        now: Timestamp,
    ) -> Result<(Vec<Line>, u64), BadStream> {
        let lines = self.lines_mut();
        let (taken, mut dropped) = (std::mem::take(&mut lines.lines), std::mem::take(&mut lines.dropped));
        lines.waiting = 0;
        let mut kept = Vec::with_capacity(taken.len());
        for line in taken {
            match kept_line(&line, fleet, &name, now)? {
                Some(line) => kept.push(line),
                None => dropped += 1,
            }
        }
        Ok((kept, dropped))
    }

    /// Returns whether there are lines to take.
    pub(in crate::fleet) fn has_lines(&self) -> bool {
        !self.lines_ref().lines.is_empty() || self.lines_ref().dropped > 0
    }

    fn lines_ref(&self) -> &Lines {
        match &self.body {
            Body::Plain(lines) => lines,
            Body::Gzip(decoder) => decoder.get_ref(),
        }
    }

    fn lines_mut(&mut self) -> &mut Lines {
        match &mut self.body {
            Body::Plain(lines) => lines,
            Body::Gzip(decoder) => decoder.get_mut(),
        }
    }
}

/// Returns a line as it is kept; `None` for one with wrong types, which balena's API drops, too, and for one of a service that
/// the fleet does not have: a service of the fleet before wrote it, and whoever sees the device now may not see that one.
fn kept_line(
    json: &[u8],
    fleet: u64,
    name: impl Fn(u64) -> Option<String>,
    now: Timestamp,
) -> Result<Option<Line>, BadStream> {
    let Ok(line) = serde_json::from_slice::<StreamedLine>(json) else {
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok();
        return if is_json { Ok(None) } else { Err(BadStream::NotJson) };
    };
    let at = i64::try_from(line.timestamp).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
    let number = line.service_id.filter(|_| !line.is_system);
    let service = match number.map(name) {
        Some(None) => return Ok(None),
        Some(Some(name)) => Some(name),
        None => None,
    };
    let kept = KeptLine {
        at: at.unwrap_or(now),
        service: service.as_deref(),
        stderr: line.is_std_err,
        message: &line.message,
    };
    let Ok(mut json) = serde_json::to_vec(&kept) else { return Ok(None) };
    json.push(b'\n');
    Ok(Some(Line { fleet, service, json }))
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_complete) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            self.is_too_long |= self.begun.len() + text.len() > LONGEST_LINE;
            if !self.is_too_long {
                self.begun.extend_from_slice(text);
            }
            if is_complete {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        let line = std::mem::take(&mut self.begun);
        let is_too_long = std::mem::take(&mut self.is_too_long);
        if is_too_long || self.waiting + line.len() > WAITING {
            self.dropped += 1;
        } else if !line.trim_ascii().is_empty() {
            self.waiting += line.len() + 64;
            self.lines.push(line);
        }
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::senders::LONGEST_WAIT;
    use super::*;

    fn reader(is_compressed: bool) -> Intake {
        Intake::new(is_compressed, Arc::new(Pace::new()))
    }

    fn shown(intake: &mut Intake) -> Result<(Vec<String>, u64), BadStream> {
        let name = |number| (number == 40).then(|| "web".to_owned());
        let (lines, dropped) = intake.lines(1, name, Timestamp::UNIX_EPOCH)?;
        Ok((lines.into_iter().map(|line| String::from_utf8(line.json).unwrap()).collect(), dropped))
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn lines_of_the_protocol() {
        let body = concat!(
            r#"{"message":"hello","timestamp":1000,"serviceId":40,"isStdErr":true}"#,
            "\n\n",
            r#"{"message":"a service of another fleet","timestamp":1,"serviceId":41}"#,
            "\n",
            r#"{"message":"Started service","timestamp":18446744073709551615,"isSystem":true,"isStdErr":false}"#,
            "\n",
            r#"{"message":7,"timestamp":1}"#,
            "\n",
            r#"{"message":"not complete"#
        );
        let expected = [
            "{\"at\":\"1970-01-01T00:00:01Z\",\"service\":\"web\",\"stderr\":true,\"message\":\"hello\"}\n",
            "{\"at\":\"1970-01-01T00:00:00Z\",\"stderr\":false,\"message\":\"Started service\"}\n",
        ];
        for (is_compressed, body) in [(false, body.as_bytes().to_vec()), (true, gzip(body.as_bytes()))] {
            let mut intake = reader(is_compressed);
            body.chunks(7).for_each(|piece| assert_eq!(intake.feed(piece), Ok(Duration::ZERO)));
            assert!(intake.has_lines());
            assert_eq!(shown(&mut intake).unwrap(), (expected.map(str::to_owned).to_vec(), 2));
            assert!(!intake.has_lines());
        }
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        assert_eq!(reader(true).feed(b"this is no gzip at all"), Err(BadStream::NotCompressed));
        let mut intake = reader(false);
        intake.feed(b"{\"message\":\n").unwrap();
        assert_eq!(shown(&mut intake).unwrap_err(), BadStream::NotJson);
    }

    /// A small body may be a thousand times as long once it is decompressed.
    #[test]
    fn a_bomb_takes_little_memory_and_then_waits() {
        let line = format!("{{\"message\":\"{}\",\"timestamp\":1}}\n", "x".repeat(9_000));
        let bomb = gzip(line.repeat(10_000).as_bytes());
        let mut intake = reader(true);
        let mut wait = Duration::ZERO;
        for piece in bomb.chunks(8192) {
            wait = intake.feed(piece).unwrap();
            assert!(intake.lines_ref().waiting <= WAITING + 10_000);
        }
        assert_eq!(wait, LONGEST_WAIT);
        let (kept, dropped) = shown(&mut intake).unwrap();
        assert_eq!(kept.len() as u64 + dropped, 10_000);
        assert!(kept.len() < 60);
        // A line without end.
        let mut intake = reader(false);
        for _ in 0..1000 {
            intake.feed(&[b'x'; 8192]).unwrap();
            assert!(intake.lines_ref().begun.capacity() <= 2 * LONGEST_LINE);
        }
        intake.feed(b"\n").unwrap();
        assert_eq!(shown(&mut intake).unwrap(), (Vec::new(), 1));
    }
}
