//! A stand-in of the part of a balena API that devices use, after open-balena-api 49.0.12 (its files state-get-v3.ts,
//! state-patch-v3.ts and state-patch-utils.ts) and what was measured of a running one (docs/dev/protocol.md).
//!
//! It has what surprises: the memory of the last status that was written for an image, the limit of metrics, the 401 for
//! one unknown item, and the 304 without an etag for a device that was deleted. It is no proof of what a real API does.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

/// The fields of a device that a report may have; those of the second list are metrics.
const FIELDS: [&str; 8] = [
    "status",
    "os_version",
    "os_variant",
    "supervisor_version",
    "ip_address",
    "mac_address",
    "cpu_id",
    "is_undervolted",
];
const METRICS: [&str; 7] = [
    "memory_usage",
    "memory_total",
    "storage_usage",
    "storage_total",
    "cpu_temp",
    "cpu_usage",
    "storage_block_device",
];

pub(crate) struct Balena {
    pub(crate) url: String,
    shared: Arc<Mutex<Shared>>,
}

/// What the API has of one device, which is the only one.
struct Shared {
    uuid: String,
    key: String,
    app: String,
    is_deleted: bool,
    target: Value,
    etag: u32,
    /// The images of the services of each release.
    releases: BTreeMap<String, BTreeSet<String>>,
    fields: Map<String, Value>,
    /// By image.
    installs: BTreeMap<String, Install>,
    /// What was last written for an image, and when.
    written: BTreeMap<String, (Install, Instant)>,
    metrics_at: Option<Instant>,
    limits: Limits,
    requests: Vec<(String, Value)>,
    /// How many of the next reports fail.
    failing: u32,
}

/// For how long the API remembers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// What was written for an image: 300 s in a real one.
    pub(crate) installs: Duration,
    /// That metrics were written: 60 s in a real one.
    pub(crate) metrics: Duration,
    /// Whether a progress of 100 is always written, as in a real one.
    pub(crate) writes_100: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Install {
    pub(crate) status: String,
    pub(crate) release: String,
    pub(crate) progress: Option<i64>,
}

impl Balena {
    /// Starts one with a device that has this key, and an app with these releases: each a commit and its images. It ends
    /// with the test process.
    pub(crate) fn start(
        (uuid, key): (&str, &str),
        app: &str,
        releases: &[(&str, &[&str])],
        limits: Limits,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let images = |images: &[&str]| images.iter().map(|image| (*image).to_owned()).collect();
        let shared = Arc::new(Mutex::new(Shared {
            uuid: uuid.to_owned(),
            key: key.to_owned(),
            app: app.to_owned(),
            is_deleted: false,
            target: json!({}),
            etag: 0,
            releases: releases.iter().map(|(commit, all)| ((*commit).to_owned(), images(all))).collect(),
            fields: Map::new(),
            installs: BTreeMap::new(),
            written: BTreeMap::new(),
            metrics_at: None,
            limits,
            requests: Vec::new(),
            failing: 0,
        }));
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        Self { url, shared }
    }

    /// Sets the target of the device: its `apps`.
    pub(crate) fn target(&self, apps: Value) {
        let mut shared = self.shared.lock().unwrap();
        shared.target = apps;
        shared.etag += 1;
    }

    /// Answers the next reports with an error, and takes nothing of them.
    pub(crate) fn fail_reports(&self, count: u32) {
        self.shared.lock().unwrap().failing = count;
    }

    /// Deletes the device. Its key remains, as in a real one.
    pub(crate) fn delete_device(&self) {
        self.shared.lock().unwrap().is_deleted = true;
    }

    /// Undoes that, which no real one can.
    pub(crate) fn restore_device(&self) {
        self.shared.lock().unwrap().is_deleted = false;
    }

    /// What is shown of an image: its status, its release and its progress.
    pub(crate) fn install(&self, image: &str) -> Option<Install> {
        self.shared.lock().unwrap().installs.get(image).cloned()
    }

    /// The fields of the device.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        self.shared.lock().unwrap().fields.clone()
    }

    /// The bodies of the requests so far whose method and path begin with `what`.
    pub(crate) fn requests(&self, what: &str) -> Vec<Value> {
        let shared = self.shared.lock().unwrap();
        let of_it = shared.requests.iter().filter(|(request, _)| request.starts_with(what));
        of_it.map(|(_, body)| body.clone()).collect()
    }
}

impl Shared {
    fn knows_images(&self, apps: &Map<String, Value>) -> bool {
        for (app, reported) in apps {
            let releases = reported["releases"].as_object();
            if releases.is_none_or(Map::is_empty) && reported["release_uuid"].is_null() {
                continue;
            }
            let mut commits: BTreeSet<&str> =
                releases.into_iter().flat_map(Map::keys).map(String::as_str).collect();
            commits.extend(reported["release_uuid"].as_str());
            let services = releases.into_iter().flat_map(Map::values);
            let services =
                services.filter_map(|release| release["services"].as_object()).flat_map(Map::values);
            let images: Vec<&str> = services.filter_map(|service| service["image"].as_str()).collect();
            // Every reported release with each of the reported images that it has: the API compares counts.
            let found = commits.iter().filter_map(|commit| self.releases.get(*commit));
            let found =
                found.map(|own| images.iter().filter(|image| own.contains(**image)).count()).sum::<usize>();
            let is_known =
                *app == self.app && commits.iter().all(|commit| self.releases.contains_key(*commit));
            if !is_known || found != images.len() {
                return false;
            }
        }
        true
    }

    fn report(&mut self, body: &Value) -> u16 {
        if self.failing > 0 {
            self.failing -= 1;
            return 500;
        }
        let Some(state) =
            body[&self.uuid].as_object().filter(|_| body.as_object().is_some_and(|b| b.len() == 1))
        else {
            return 401;
        };
        // A row of a deleted device is not found, and then nothing is written: 200.
        if self.is_deleted {
            return 200;
        }
        if METRICS.iter().chain(&FIELDS).any(|name| state.get(*name).is_some_and(Value::is_f64)) {
            return 400;
        }
        if let Some(apps) = state.get("apps").and_then(Value::as_object) {
            if !self.knows_images(apps) {
                return 401;
            }
            self.installs_of(apps);
        }
        let mut fields: Map<String, Value> = Map::new();
        fields.extend(FIELDS.iter().filter_map(|name| Some(((*name).to_owned(), state.get(*name)?.clone()))));
        let metrics: Vec<_> =
            METRICS.iter().filter_map(|name| Some(((*name).to_owned(), state.get(*name)?.clone()))).collect();
        let is_due = self.metrics_at.is_none_or(|at| at.elapsed() >= self.limits.metrics);
        if !metrics.is_empty() && is_due {
            self.metrics_at = Some(Instant::now());
        }
        let has_changed = fields.iter().any(|(name, value)| self.fields.get(name) != Some(value));
        if is_due || has_changed {
            fields.extend(metrics);
        }
        self.fields.extend(fields);
        200
    }

    fn installs_of(&mut self, apps: &Map<String, Value>) {
        let mut named = BTreeSet::new();
        for release in apps.values().filter_map(|app| app["releases"].as_object()).flatten() {
            for service in release.1["services"].as_object().into_iter().flat_map(Map::values) {
                let image = service["image"].as_str().unwrap().to_owned();
                let install = Install {
                    status: service["status"].as_str().unwrap().to_owned(),
                    release: release.0.clone(),
                    progress: service["download_progress"].as_i64(),
                };
                named.insert(image.clone());
                self.write(image, install);
            }
        }
        for (image, install) in &mut self.installs {
            if !named.contains(image) {
                (install.status, install.progress) = ("deleted".to_owned(), None);
            }
        }
    }

    /// The first row of an image is created and not remembered.
    fn write(&mut self, image: String, install: Install) {
        if let Entry::Vacant(free) = self.installs.entry(image.clone()) {
            free.insert(install);
            return;
        }
        self.written.retain(|_, (_, at)| at.elapsed() < self.limits.installs);
        let is_written = self.written.get(&image).is_none_or(|(last, _)| {
            last.status != install.status
                || last.release != install.release
                || last.progress.is_none() != install.progress.is_none()
                || self.limits.writes_100 && install.progress == Some(100)
        });
        if is_written {
            self.written.insert(image.clone(), (install.clone(), Instant::now()));
            self.installs.insert(image, install);
        }
    }

    /// Answers with a status, headers and a body.
    fn route(&mut self, request: &str, key: &str, etag: Option<&str>, body: &Value) -> (u16, String, String) {
        let bare = |status| (status, String::new(), String::new());
        let state = format!("GET /device/v3/{}/state", self.uuid);
        if request == state && self.is_deleted {
            return bare(304);
        }
        if key != self.key {
            return bare(401);
        }
        if request == state {
            let target =
                json!({ &self.uuid: { "name": "one", "config": {}, "apps": self.target } }).to_string();
            let own = format!("W/\"{:x}\"", self.etag);
            let header = format!("ETag: {own}\r\n");
            let is_same = etag == Some(own.as_str());
            return if is_same { (304, header, String::new()) } else { (200, header, target) };
        }
        // Its parser reads the codes of a space and of an apostrophe, and no others.
        let query = request.replace("%20", " ").replace("%27", "'");
        if query == format!("GET /v7/device?$select=id&$filter=uuid eq '{}'", self.uuid) {
            let rows = if self.is_deleted { json!([]) } else { json!([{ "id": 11 }]) };
            return (200, String::new(), json!({ "d": rows }).to_string());
        }
        if request == "PATCH /device/v3/state" { bare(self.report(body)) } else { bare(404) }
    }
}

fn answer(stream: TcpStream, shared: &Mutex<Shared>) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let request = line.rsplit_once(' ')?.0.to_owned();
    let (mut length, mut key, mut etag) = (0, String::new(), None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => value.strip_prefix("Bearer ")?.clone_into(&mut key),
            "if-none-match" => etag = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (status, headers, text) = {
        let mut shared = shared.lock().unwrap();
        shared.requests.push((request.clone(), body.clone()));
        shared.route(&request, &key, etag.as_deref(), &body)
    };
    let mut stream = stream;
    let length = text.len();
    write!(
        stream,
        "HTTP/1.1 {status} Said\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    )
    .ok()
}
