//! Responses of the engine without end: lines of JSON, and logs. Only a little is kept in memory at a time.
//!
//! bollard 0.21 keeps a line until it ends. While its log is read, a container that writes a line without end would fill
//! the agent's memory.

use std::io;

use bollard::errors::Error;
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};

/// The longest line, in bytes. The engine quotes whole errors of registries, so lines can be long.
const LONGEST_LINE: usize = 1 << 20;

/// Lines, or pieces of a log. An error ends the stream.
pub(super) type Pieces = BoxStream<'static, Result<Vec<u8>, Error>>;

/// Returns the next piece of a body; `None` at its end.
pub(super) async fn piece(body: &mut Incoming) -> Result<Option<Bytes>, Error> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(piece) = frame?.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

/// Returns the lines of a body without their line breaks. Empty lines are left out.
pub(super) fn lines(body: Incoming) -> Pieces {
    let lines = stream::unfold(Some((body, Lines::default())), |open| async move {
        let (mut body, mut lines) = open?;
        loop {
            if let Some(line) = lines.next() {
                return Some((Ok(line), Some((body, lines))));
            }
            match piece(&mut body).await {
                Ok(Some(piece)) => {
                    if let Err(error) = lines.add(&piece) {
                        return Some((Err(error.into()), None));
                    }
                }
                Ok(None) => return lines.rest().map(|line| (Ok(line), None)),
                Err(error) => return Some((Err(error), None)),
            }
        }
    });
    lines.boxed()
}

/// Finds lines in pieces.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    /// So many of these bytes have been searched and contain no line break.
    searched: usize,
}

impl Lines {
    fn add(&mut self, piece: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(piece);
        // All complete lines are taken out before more is added.
        if self.bytes.len() > LONGEST_LINE + piece.len() {
            return Err(io::Error::other(format!("it sends a line of more than {} MiB", LONGEST_LINE >> 20)));
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let Some(at) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.bytes.len();
                return None;
            };
            let end = self.searched + at;
            let line: Vec<u8> = self.bytes.drain(..=end).take(end).collect();
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }

    fn rest(self) -> Option<Vec<u8>> {
        (!self.bytes.trim_ascii().is_empty()).then_some(self.bytes)
    }
}

/// Returns a log piece by piece: the body without the headers that separate standard output from error.
pub(super) fn output(body: Incoming) -> Pieces {
    let written = stream::unfold(Some((body, Frames::Unknown(Vec::new()))), |open| async move {
        let (mut body, mut frames) = open?;
        loop {
            match piece(&mut body).await {
                Ok(Some(piece)) => {
                    let written = frames.feed(&piece);
                    if !written.is_empty() {
                        return Some((Ok(written), Some((body, frames))));
                    }
                }
                Ok(None) => return frames.rest().map(|written| (Ok(written), None)),
                Err(error) => return Some((Err(error), None)),
            }
        }
    });
    written.boxed()
}

/// Bytes of the header of a frame: the stream's number, three zeros, and the length (Engine API, attach).
const HEADER: usize = 8;

/// Removes the headers from a log. The log of a container with a terminal has none.
#[derive(Debug)]
enum Frames {
    /// The beginning, until it shows whether there are headers.
    Unknown(Vec<u8>),
    Bare,
    /// In a header; these bytes of it have arrived.
    Header(Vec<u8>),
    /// In a frame; so many bytes of it are missing.
    Inside(usize),
}

impl Frames {
    fn feed(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut written = Vec::with_capacity(piece.len());
        let mut rest = piece;
        while !rest.is_empty() {
            match self {
                Self::Bare => {
                    written.extend_from_slice(rest);
                    break;
                }
                Self::Inside(left) => {
                    let (now, later) = rest.split_at(rest.len().min(*left));
                    written.extend_from_slice(now);
                    *left -= now.len();
                    if *left == 0 {
                        *self = Self::Header(Vec::new());
                    }
                    rest = later;
                }
                Self::Unknown(header) | Self::Header(header) => {
                    header.push(rest[0]);
                    rest = &rest[1..];
                    if !begins_header(header) {
                        written.extend_from_slice(header);
                        *self = Self::Bare;
                    } else if let [_, _, _, _, a, b, c, d] = **header {
                        let length = u32::from_be_bytes([a, b, c, d]);
                        *self = match usize::try_from(length) {
                            Ok(0) | Err(_) => Self::Header(Vec::new()),
                            Ok(length) => Self::Inside(length),
                        };
                    }
                }
            }
        }
        written
    }

    /// Returns the bytes that are left at the end of the body.
    fn rest(self) -> Option<Vec<u8>> {
        match self {
            Self::Unknown(bytes) if !bytes.is_empty() => Some(bytes),
            Self::Unknown(_) | Self::Bare | Self::Header(_) | Self::Inside(_) => None,
        }
    }
}

pub(super) fn begins_header(bytes: &[u8]) -> bool {
    bytes.len() <= HEADER && bytes[0] <= 2 && bytes[1..].iter().take(3).all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(pieces: &[&str]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.add(piece.as_bytes()).unwrap();
            found.extend(std::iter::from_fn(|| lines.next()));
        }
        found.extend(lines.rest());
        found.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn lines_are_found_across_pieces() {
        for (pieces, expected) in [
            (&["{\"a\":1}\n{\"b\"", ":2}\n"][..], "{\"a\":1} {\"b\":2}"),
            (&["a\r\n\r\n\nb"], "a\r b"),
            (&["a", "b", "\n", "c"], "ab c"),
            (&["", "\n"], ""),
        ] {
            assert_eq!(lines_of(pieces).join(" "), expected, "{pieces:?}");
        }
    }

    #[test]
    fn a_line_that_never_ends_is_an_error() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; 64 << 10];
        let taken = (0..1000).take_while(|_| lines.add(&piece).is_ok() && lines.next().is_none()).count();
        assert_eq!(taken, 17, "a megabyte and one piece");
        // Many short lines are not one long line.
        let mut lines = Lines::default();
        let piece = b"0123456\n".repeat(8192);
        for _ in 0..100 {
            lines.add(&piece).unwrap();
            assert_eq!(std::iter::from_fn(|| lines.next()).count(), 8192);
        }
    }

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0], length.as_slice(), text.as_bytes()].concat()
    }

    /// The log in a body that arrives in pieces of `size` bytes.
    fn written(body: &[u8], size: usize) -> String {
        let mut frames = Frames::Unknown(Vec::new());
        let mut all = Vec::new();
        for piece in body.chunks(size) {
            all.extend(frames.feed(piece));
        }
        all.extend(frames.rest().unwrap_or_default());
        String::from_utf8_lossy(&all).into_owned()
    }

    #[test]
    fn headers_are_removed_from_a_log() {
        let framed = [frame(1, "out\n"), frame(2, "error\n"), frame(1, ""), frame(1, "end")].concat();
        let no_header = [frame(1, "out\n"), b"\x01\x02bare".to_vec()].concat();
        for (why, body, expected) in [
            ("both streams", framed.as_slice(), "out\nerror\nend"),
            ("a terminal has no headers", b"$ ls\r\n".as_slice(), "$ ls\r\n"),
            ("a terminal that begins like one", b"\x01\x00\x00x", "\x01\0\0x"),
            ("a terminal that ends early", b"\x01\0", "\x01\0"),
            ("a header that is none", &no_header, "out\n\x01\x02bare"),
            ("nothing", b"", ""),
        ] {
            for size in [1, 3, 8, 1000] {
                assert_eq!(written(body, size), expected, "{why}, {size}");
            }
        }
    }

    /// A line without end, and an impossible length of a frame, need the memory of one piece.
    #[test]
    fn nothing_of_a_log_is_kept() {
        let piece = vec![b'x'; 16 << 10];
        for begin in [b"x".to_vec(), [1, 0, 0, 0, 255, 255, 255, 255].to_vec()] {
            let mut frames = Frames::Unknown(Vec::new());
            frames.feed(&begin);
            for _ in 0..1000 {
                assert_eq!(frames.feed(&piece).len(), piece.len());
            }
        }
    }
}
