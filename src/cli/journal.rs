//! Writes log events to the journal of systemd in its native protocol: one datagram per event, with a journal field
//! for each field of the event.
//!
//! We do not use a library, because events to alert on have a MESSAGE_ID, and because MESSAGE includes the fields:
//! `journalctl` shows nothing else by default.

use std::fmt::{Debug, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::model::Alert;
use crate::model::text::one_line;

/// The socket of journald.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Longest value in bytes; the rest is cut off. A datagram has room for several of this size.
const LONGEST: usize = 8 * 1024;

/// Longest time to wait until the journal accepts an event.
const PATIENCE: Duration = Duration::from_millis(200);

/// Sends events to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    /// The name of the program, as `journalctl -t` takes it.
    program: &'static str,
}

impl Journal {
    /// # Errors
    ///
    /// When there is no journal.
    pub(super) fn open(program: &'static str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // Without a timeout, a hanging journal would block everything: the process has one thread. It loses lines
        // instead.
        socket.set_write_timeout(Some(PATIENCE))?;
        // journald ignores an empty entry.
        match socket.send_to(&[], SOCKET) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(Self { socket, program }),
        }
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        let metadata = event.metadata();
        let bytes = entry.written(self.program, *metadata.level(), metadata.target());
        // If the journal does not accept it, there is no other place to report that.
        let _ = self.socket.send_to(&bytes, SOCKET);
    }
}

/// An event's message and fields, in their order.
#[derive(Debug, Default)]
struct Entry {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field.name(), &format!("{value:?}"));
    }
}

impl Entry {
    fn put(&mut self, name: &'static str, value: &str) {
        // One line only: a value from outside cannot begin another field or forge an entry.
        let mut value = one_line(value);
        value.truncate(value.floor_char_boundary(LONGEST));
        if name == "message" { self.message = value } else { self.fields.push((name, value)) }
    }

    /// Serializes the entry for journald.
    fn written(&self, program: &str, level: Level, target: &str) -> Vec<u8> {
        let priority = match level {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "5",
            Level::DEBUG => "6",
            Level::TRACE => "7",
        };
        let mut bytes = Vec::with_capacity(512);
        put(&mut bytes, "MESSAGE", &self.line());
        put(&mut bytes, "PRIORITY", priority);
        put(&mut bytes, "SYSLOG_IDENTIFIER", program);
        put(&mut bytes, "TARGET", target);
        for (name, value) in &self.fields {
            // journald drops fields with other characters in their names; a library may have one with a dot.
            let name_there = name.to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            put(&mut bytes, &format!("COTTER_{name_there}"), value);
            let is_it = |alert: &&Alert| *name == "alert" && alert.as_str() == value;
            if let Some(alert) = Alert::ALL.iter().find(is_it) {
                put(&mut bytes, "MESSAGE_ID", alert.id());
            }
        }
        bytes
    }

    /// Returns the message and its fields as one line for people. For a step, `what` makes `step` and `service`
    /// superfluous.
    fn line(&self) -> String {
        let mut line = self.message.clone();
        let is_step = self.fields.iter().any(|(name, _)| *name == "what");
        for (name, value) in &self.fields {
            let is_said = is_step && matches!(*name, "step" | "service");
            if !is_said && !matches!(*name, "alert" | "app") {
                // Writing into a text does not fail.
                let _ = write!(line, " {name}={value}");
            }
        }
        line
    }
}

fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, "=", value, "\n"] {
        bytes.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(message: &str, fields: &[(&'static str, &str)]) -> Entry {
        let mut entry = Entry::default();
        entry.put("message", message);
        fields.iter().for_each(|(name, value)| entry.put(name, value));
        entry
    }

    #[test]
    fn what_people_read() {
        for (fields, line) in [
            (&[][..], "done"),
            (&[("app", "0123"), ("error", "no such file")], "done error=no such file"),
            (
                &[
                    ("step", "start"),
                    ("app", "0123"),
                    ("service", "web"),
                    ("release", "two"),
                    ("what", "start web 0a1b"),
                ],
                "done release=two what=start web 0a1b",
            ),
            (
                &[("alert", "rejected"), ("release", "two"), ("why", "it exits")],
                "done release=two why=it exits",
            ),
        ] {
            assert_eq!(entry("done", fields).line(), line);
        }
    }

    #[test]
    fn what_journald_reads() {
        let entry = entry("release rejected", &[("alert", "rejected"), ("why", "it exits"), ("a.b", "c")]);
        let expected = [
            "MESSAGE=release rejected why=it exits a.b=c\n",
            "PRIORITY=4\nSYSLOG_IDENTIFIER=cotter\nTARGET=cotter::here\n",
            "COTTER_ALERT=rejected\nMESSAGE_ID=d7486aa294c347a4a7fd80e39f214d53\n",
            "COTTER_WHY=it exits\nCOTTER_A_B=c\n",
        ];
        let written = entry.written("cotter", Level::WARN, "cotter::here");
        assert_eq!(String::from_utf8_lossy(&written), expected.concat());
    }

    #[test]
    fn no_value_is_more_than_one_line_or_begins_a_field() {
        let forged =
            "no such driver\n<3>agent stopped\nPRIORITY=0\nMESSAGE\n\x04\0\0\0\0\0\0\0fake\x1b[2J\u{202e}";
        let shown = r"no such driver\n<3>agent stopped\nPRIORITY=0\nMESSAGE\n\u{4}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}fake\u{1b}[2J\u{202e}";
        let written = entry(forged, &[("error", forged)]).written("cotter", Level::WARN, "cotter::here");
        let expected = format!(
            "MESSAGE={shown} error={shown}\nPRIORITY=4\nSYSLOG_IDENTIFIER=cotter\nTARGET=cotter::here\nCOTTER_ERROR={shown}\n"
        );
        assert_eq!(String::from_utf8_lossy(&written), expected);
        let written =
            entry("long", &[("error", &"\n".repeat(100_000))]).written("cotter", Level::WARN, "cotter::here");
        assert!(written.len() < 3 * LONGEST, "{}", written.len());
    }
}
