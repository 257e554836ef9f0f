//! A small server with prepared answers, and a terminal. For tests of what is shown; they need nothing else of `support`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "not every test needs both")]

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// The status and the body of an answer.
pub(crate) type Found = (u16, Vec<u8>);

/// Answers one request by its method and path.
pub(crate) fn answer(mut stream: impl Read + Write, find: impl Fn(&str, &str) -> Found) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            // Whoever only looks whether it may connect.
            Ok(_) | Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    let mut words = head.split(' ');
    let (status, content) = find(words.next().unwrap(), words.next().unwrap());
    let head =
        format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", content.len());
    // Who has seen enough does not read to the end.
    let _ = stream.write_all(&[head.as_bytes(), &content].concat());
}

/// What a command prints when its standard output is a terminal.
pub(crate) fn terminal(folder: &Path, words: &str, environment: &[(&str, &str)]) -> Vec<u8> {
    let file = folder.join("typescript");
    let command = format!("{} {words}", env!("CARGO_BIN_EXE_cotter"));
    let status = Command::new("script")
        .args(["--quiet", "--return", "--command", &command])
        .arg(&file)
        .current_dir(folder)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect("script, of Debian's bsdutils, makes a terminal");
    assert!(status.code().is_some());
    let all = fs::read(file).unwrap();
    // `script` tells its beginning in a line, and its end after an empty one.
    let begin = all.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let end = all.windows(16).rposition(|window| window == b"\n\nScript done on").unwrap() + 1;
    all[begin..end].to_vec()
}
