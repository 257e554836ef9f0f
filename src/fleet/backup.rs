//! The file of a backup: JSON lines. The first line says what the file is, each other one has a record, and the last one has
//! their number and a checksum of all lines before it. So a backup that was cut short or changed is never taken for a good one,
//! and a person can read it.

use std::io::{self, BufRead};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::policy::Change;
use super::record::{self, BadRecord, Entry};
use super::secret::hex;

/// What the first line says.
const KIND: &str = "cotter-fleet backup";

/// Maximum number of bytes of a line. The largest record of a new server is that of a fleet with 5,000 services, which has less than 2 MiB.
/// Older versions had no such limit.
const LONGEST_LINE: u64 = 64 << 20;

/// The first line of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    file: String,
    /// Version of the records' format.
    format: u32,
    /// Version of the server that wrote it.
    server: String,
    pub created: Timestamp,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    kind: &'a str,
    id: String,
    #[serde(borrow)]
    record: &'a RawValue,
}

#[derive(Debug, Serialize, Deserialize)]
struct Tail {
    records: u64,
    sha256: String,
}

#[derive(Deserialize)]
struct Last {
    end: Tail,
}

/// Why a file is not a good backup.
#[derive(Debug, thiserror::Error)]
pub enum BadBackup {
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    #[error("it is no backup of a fleet server: its first line does not say so")]
    OtherFile,
    #[error("a newer version of cotter-fleet wrote it; use that version")]
    Newer,
    #[error("line {line} is not accepted: {why}")]
    Line { line: u64, why: String },
    #[error("it is cut short after line {lines}: the line with the checksum is missing")]
    CutShort { lines: u64 },
    #[error("it was changed after it was written: {what}")]
    Changed { what: &'static str },
    #[error("there is more text after line {line}, which is the end of the backup")]
    More { line: u64 },
}

/// The content of a good backup.
#[derive(Debug)]
pub struct Backup {
    pub head: Head,
    pub records: Vec<Change>,
}

/// Writes the lines of a backup, one after the other.
#[derive(Debug)]
pub struct Writer {
    digest: Sha256,
    records: u64,
}

impl Writer {
    /// Begins a backup, and returns its first line.
    ///
    /// # Errors
    ///
    /// Never in practice: no record has a value that is not JSON.
    pub fn begin(created: Timestamp) -> serde_json::Result<(Self, Vec<u8>)> {
        let head = Head {
            file: KIND.to_owned(),
            format: record::VERSION,
            server: env!("CARGO_PKG_VERSION").to_owned(),
            created,
        };
        let mut writer = Self { digest: Sha256::new(), records: 0 };
        let line = writer.line(serde_json::to_vec(&head)?);
        Ok((writer, line))
    }

    /// Returns the lines of a record.
    ///
    /// # Errors
    ///
    /// As [`Writer::begin`]; and for a record that no reader would accept.
    pub fn record(&mut self, change: &Change) -> serde_json::Result<Vec<u8>> {
        let mut lines = Vec::new();
        for entry in record::entries(change)? {
            // A snapshot has no record that is removed.
            let Entry::Put { kind, id, json } = entry else { continue };
            let id = serde_json::to_string(&id)?;
            let mut line = format!("{{\"kind\":\"{kind}\",\"id\":{id},\"record\":").into_bytes();
            line.extend_from_slice(&json);
            line.push(b'}');
            if line.len() as u64 >= LONGEST_LINE {
                let why = format!("the record {kind}/{id} is larger than 64 MiB, so no backup can have it");
                return Err(serde::ser::Error::custom(why));
            }
            self.records += 1;
            lines.extend(self.line(line));
        }
        Ok(lines)
    }

    /// Ends the backup, and returns its last line.
    #[must_use]
    pub fn end(self) -> Vec<u8> {
        let tail = Tail { records: self.records, sha256: hex(&self.digest.finalize()) };
        format!("{{\"end\":{{\"records\":{},\"sha256\":\"{}\"}}}}\n", tail.records, tail.sha256).into_bytes()
    }

    fn line(&mut self, mut line: Vec<u8>) -> Vec<u8> {
        line.push(b'\n');
        self.digest.update(&line);
        line
    }
}

impl Backup {
    /// Reads a backup, and checks all of it.
    ///
    /// # Errors
    ///
    /// [`BadBackup`]; each says what is wrong, and where.
    pub fn read(mut from: impl BufRead) -> Result<Self, BadBackup> {
        let mut line = Vec::new();
        let mut digest = Sha256::new();
        if !next_line(&mut from, &mut line, 1)? {
            return Err(BadBackup::OtherFile);
        }
        let head: Head = serde_json::from_slice(&line).map_err(|_| BadBackup::OtherFile)?;
        if head.file != KIND {
            return Err(BadBackup::OtherFile);
        }
        if head.format > record::VERSION {
            return Err(BadBackup::Newer);
        }
        let (mut records, mut number) = (Vec::new(), 1_u64);
        loop {
            digest.update(&line);
            if !next_line(&mut from, &mut line, number + 1)? {
                return Err(BadBackup::CutShort { lines: number });
            }
            number += 1;
            if let Ok(Last { end }) = serde_json::from_slice(&line) {
                end.check(number - 2, digest)?;
                return match next_line(&mut from, &mut line, number + 1)? {
                    true => Err(BadBackup::More { line: number }),
                    false => Ok(Self { head, records }),
                };
            }
            records.extend(changes(&line, head.format, number)?);
        }
    }
}

impl Tail {
    fn check(&self, records: u64, digest: Sha256) -> Result<(), BadBackup> {
        if self.records != records {
            return Err(BadBackup::Changed { what: "the number of records is another one" });
        }
        if self.sha256 != hex(&digest.finalize()) {
            return Err(BadBackup::Changed { what: "its content does not fit its checksum" });
        }
        Ok(())
    }
}

fn changes(line: &[u8], format: u32, number: u64) -> Result<Vec<Change>, BadBackup> {
    let bad = |why: String| BadBackup::Line { line: number, why };
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| bad(error.to_string()))?;
    record::read(line.kind, &line.id, format, line.record.get()).map_err(|error| match error {
        BadRecord::Newer => BadBackup::Newer,
        BadRecord::Form(why) => bad(why),
    })
}

/// Reads the next line with its end; `false` at the end of the file.
fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>, number: u64) -> Result<bool, BadBackup> {
    line.clear();
    io::Read::take(&mut *from, LONGEST_LINE).read_until(b'\n', line)?;
    if line.last().is_some_and(|last| *last != b'\n') {
        return match line.len() as u64 {
            LONGEST_LINE => Err(BadBackup::Line { line: number, why: "it is longer than 64 MiB".to_owned() }),
            _ => Err(BadBackup::CutShort { lines: number - 1 }),
        };
    }
    Ok(!line.is_empty())
}
