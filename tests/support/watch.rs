//! The engine's events of an instance, kept: what ran beside what, also for moments that no look shows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::Docker;

#[derive(Debug, Default)]
struct Seen {
    /// The containers of each service that run.
    up: BTreeMap<String, BTreeSet<String>>,
    doubles: Vec<String>,
    starts: u64,
    ends: u64,
}

/// Follows `docker events` until it is dropped.
#[derive(Debug)]
pub struct Watch {
    client: Child,
    reader: Option<JoinHandle<()>>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

impl Watch {
    /// Begins before the first container of the instance starts.
    #[track_caller]
    pub fn begin(docker: &Docker, instance: &str) -> Self {
        let (label, format) = (format!("label=io.cotter.instance={instance}"), "{{json .}}");
        let mut command: Command = docker.command(&[
            "events",
            "--filter",
            &label,
            "--filter",
            "event=start",
            "--filter",
            "event=die",
            "--format",
            format,
        ]);
        let mut client = command.stdout(Stdio::piped()).spawn().expect("the docker client runs");
        let lines = BufReader::new(client.stdout.take().expect("its output is a pipe")).lines();
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let noted = Arc::clone(&seen);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).expect("an event is JSON");
                noted.0.lock().unwrap().note(&event);
                noted.1.notify_all();
            }
        });
        Self { client, reader: Some(reader), seen }
    }

    /// Services of which two containers ran at once, with both.
    pub fn doubles(&self) -> Vec<String> {
        self.seen.0.lock().unwrap().doubles.clone()
    }

    /// How many starts there were.
    pub fn starts(&self) -> u64 {
        self.seen.0.lock().unwrap().starts
    }

    /// Waits until another container ends; `false` if none does for so long.
    pub fn until_one_ends(&self, patience: Duration) -> bool {
        let seen = self.seen.0.lock().unwrap();
        let ends = seen.ends;
        let waited = self.seen.1.wait_timeout_while(seen, patience, |seen| seen.ends == ends);
        !waited.unwrap().1.timed_out()
    }
}

impl Seen {
    fn note(&mut self, event: &Value) {
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (action, id) = (text("/Action"), text("/Actor/ID"));
        let service = text("/Actor/Attributes/io.cotter.service");
        if service.is_empty() {
            return;
        }
        let up = self.up.entry(service.clone()).or_default();
        if action == "start" {
            up.insert(id);
            self.starts += 1;
        } else {
            up.remove(&id);
            self.ends += 1;
        }
        if up.len() > 1 {
            self.doubles.push(format!("{service}: {up:?}"));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _gone = self.client.kill();
        let _gone = self.client.wait();
        self.reader.take().map(JoinHandle::join);
    }
}
