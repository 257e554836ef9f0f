//! The log endpoint of a balena API, for [`FakeCloud`](super::FakeCloud): docs/dev/protocol.md, "Log streaming".

use std::io::{BufRead, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use flate2::write::GzDecoder;
use serde_json::Value;

/// What came over log streams.
#[derive(Debug, Default)]
pub struct LogStreams {
    /// When each stream began, and the head of its request, in lower case.
    pub begun: Vec<(Instant, String)>,
    /// Streams whose client has ended the body.
    pub complete: usize,
    /// The lines of all streams, and when each came.
    pub lines: Vec<(Instant, Value)>,
    /// Bodies that the real API would refuse.
    pub wrong: Vec<String>,
    /// The status with which a stream is answered at once; `None`: it is read.
    pub refuses: Option<u16>,
    /// Reads nothing of a stream while it is set.
    pub is_stalled: bool,
}

impl LogStreams {
    /// The messages of a service, or of the supervisor.
    pub fn of(&self, service: Option<u64>) -> Vec<String> {
        let is_its = |line: &&Value| match service {
            Some(number) => line["serviceId"] == number,
            None => line["isSystem"] == true,
        };
        let lines = self.lines.iter().map(|(_, line)| line);
        lines.filter(is_its).map(|line| line["message"].as_str().expect("a text").to_owned()).collect()
    }
}

type Shared<'a> = &'a dyn Fn(&mut dyn FnMut(&mut LogStreams));

/// Reads a stream to its end.
pub(super) fn answer(
    mut reader: impl BufRead,
    mut stream: TcpStream,
    (method, path, head): (&str, &str, &str),
    shared: Shared<'_>,
) -> Option<()> {
    let (mut refuses, has) = (None, |line: &str| head.lines().any(|given| given == line));
    shared(&mut |logs| {
        logs.begun.push((Instant::now(), head.to_owned()));
        refuses = logs.refuses;
    });
    let is_right = method == "POST"
        && path.starts_with("/device/v2/")
        && has("content-type: application/x-ndjson")
        && has("content-encoding: gzip")
        && has("transfer-encoding: chunked")
        && head.contains("authorization: bearer ");
    let mut end = |status: u16| {
        write!(stream, "HTTP/1.1 {status} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()
    };
    if !is_right {
        shared(&mut |logs| logs.wrong.push(format!("{method} {path} {head}")));
        return end(415);
    }
    if let Some(status) = refuses {
        return end(status);
    }
    let mut decoder = GzDecoder::new(Vec::new());
    loop {
        let mut is_stalled = false;
        shared(&mut |logs| is_stalled = logs.is_stalled);
        if is_stalled {
            std::thread::sleep(std::time::Duration::from_millis(100));
            continue;
        }
        let piece = chunk(&mut reader)?;
        let is_over = piece.is_empty();
        if decoder.write_all(&piece).and_then(|()| decoder.flush()).is_err() {
            shared(&mut |logs| logs.wrong.push("it is no gzip".to_owned()));
            return end(400);
        }
        let text = decoder.get_mut();
        let complete = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = text.drain(..complete).collect();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line = serde_json::from_slice::<Value>(line);
            let is_right = line.as_ref().is_ok_and(|line| {
                line["message"].is_string() && line["timestamp"].is_u64() && line["isStdErr"].is_boolean()
            });
            shared(&mut |logs| match &line {
                Ok(line) if is_right => logs.lines.push((Instant::now(), line.clone())),
                other => logs.wrong.push(format!("{other:?}")),
            });
        }
        if is_over {
            shared(&mut |logs| logs.complete += 1);
            return end(201);
        }
    }
}

/// Reads a chunk of a body; an empty one is its end.
fn chunk(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = String::new();
    // A quiet stream sends nothing for long, and the connection has a read timeout.
    loop {
        match reader.read_line(&mut line) {
            Ok(0) => return None,
            Ok(_) => break,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
    let length = usize::from_str_radix(line.trim(), 16).ok()?;
    let mut piece = vec![0; length + 2];
    reader.read_exact(&mut piece).ok()?;
    piece.truncate(length);
    Some(piece)
}
