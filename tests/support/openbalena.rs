//! A stand-in of openBalena's API (OData, version 7), after its model (open-balena-api 49: its file balena.sbvr and the hooks
//! beside it): required and allowed fields, unique and natural keys, references, the rules for releases, pins and images, how
//! a release becomes a fleet's target, and the form of its answers. It reads the filters that `cotter` sends and no others.
//!
//! It is no proof of what a real API does; it fails what the model forbids.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value, json};

/// The token of its user.
pub(crate) const TOKEN: &str = "a-token-of-openbalena";

/// A kind of row: its name, required fields, other fields that a client may set, and the fields that are unique together.
/// A field with `>TABLE` names a row there.
type Kind = (&'static str, &'static str, &'static str, &'static [&'static str]);

const TABLES: &[Kind] = &[
    ("organization", "handle", "", &["handle"]),
    ("device_type", "slug", "", &["slug"]),
    (
        "application",
        "app_name organization>organization is_for__device_type>device_type",
        "uuid should_track_latest_release should_be_running__release>release",
        &["organization app_name", "uuid"],
    ),
    ("service", "application>application service_name", "", &["application service_name"]),
    (
        "release",
        "belongs_to__application>application commit composition status source start_timestamp",
        "is_final is_invalidated is_passing_tests build_log end_timestamp",
        &[],
    ),
    (
        "image",
        "is_a_build_of__service>service start_timestamp status",
        "content_hash end_timestamp push_timestamp is_stored_at__image_location",
        &["is_stored_at__image_location"],
    ),
    (
        "image__is_part_of__release",
        "image>image is_part_of__release>release",
        "",
        &["image is_part_of__release"],
    ),
    ("application_environment_variable", "application>application name value", "", &["application name"]),
    ("service_environment_variable", "service>service name value", "", &["service name"]),
    (
        "device",
        "uuid belongs_to__application>application",
        "device_name is_pinned_on__release>release",
        &["uuid"],
    ),
    ("device_tag", "device>device tag_key value", "", &["device tag_key"]),
    ("device_environment_variable", "device>device name value", "", &["device name"]),
    ("service_install", "device>device installs__service>service", "", &["device installs__service"]),
    (
        "device_service_environment_variable",
        "service_install>service_install name value",
        "",
        &["service_install name"],
    ),
];

/// What becomes of the next change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is done, and its answer is lost.
    After,
    /// It is not done, and the connection ends.
    Before,
}

pub(crate) struct OpenBalena {
    pub(crate) url: String,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    tables: BTreeMap<&'static str, BTreeMap<u64, Map<String, Value>>>,
    next: u64,
    /// Keys and the application of each.
    keys: BTreeMap<String, u64>,
    changes: u64,
    fault: Option<(u64, Fault)>,
    later: u32,
}

type Answered = Result<(u16, String), (u16, String)>;

impl OpenBalena {
    /// Starts one with an organization and two device types. It ends with the test process.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut all = Shared { next: 1, ..Shared::default() };
        all.add("organization", json!({ "handle": "acme" }));
        for slug in ["generic-amd64", "raspberrypi4-64"] {
            all.add("device_type", json!({ "slug": slug }));
        }
        let shared = Arc::new(Mutex::new(all));
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        Self { url, shared }
    }

    /// All rows, without what is made at random.
    pub(crate) fn rows(&self) -> Value {
        json!(self.shared.lock().unwrap().tables)
    }

    /// The rows of a kind.
    pub(crate) fn table(&self, name: &str) -> Vec<Map<String, Value>> {
        let shared = self.shared.lock().unwrap();
        shared.tables.get(name).map(|rows| rows.values().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn changes(&self) -> u64 {
        self.shared.lock().unwrap().changes
    }

    /// After so many more changes there is a fault, at each of them.
    pub(crate) fn fail_after(&self, changes: u64, fault: Fault) {
        let mut shared = self.shared.lock().unwrap();
        shared.fault = Some((shared.changes + changes, fault));
    }

    pub(crate) fn let_pass(&self) {
        self.shared.lock().unwrap().fault = None;
    }

    /// The next requests are answered with 429.
    pub(crate) fn want_later(&self, requests: u32) {
        self.shared.lock().unwrap().later = requests;
    }

    /// Changes a row, as its user would in the dashboard.
    pub(crate) fn set(&self, table: &str, id: u64, field: &str, value: Value) {
        let mut shared = self.shared.lock().unwrap();
        shared.change(table, id, Map::from_iter([(field.to_owned(), value)])).unwrap();
    }

    pub(crate) fn add_organization(&self, handle: &str) {
        self.shared.lock().unwrap().add("organization", json!({ "handle": handle }));
    }
}

impl Shared {
    fn add(&mut self, table: &'static str, row: Value) -> u64 {
        let Value::Object(mut row) = row else { panic!("a row is an object") };
        let id = self.next;
        self.next += 1;
        row.insert("id".to_owned(), id.into());
        self.tables.entry(table).or_default().insert(id, row);
        id
    }

    fn row(&self, table: &str, id: u64) -> Option<&Map<String, Value>> {
        self.tables.get(table)?.get(&id)
    }

    /// A number in a field of a row.
    fn link(&self, table: &str, id: u64, field: &str) -> Option<u64> {
        self.row(table, id)?.get(field)?.as_u64()
    }

    fn create(&mut self, name: &str, mut row: Map<String, Value>) -> Result<u64, (u16, String)> {
        let (table, required, _, _) = table(name)?;
        if matches!(*table, "device" | "service_install" | "organization" | "device_type") {
            return Err((401, String::new()));
        }
        for field in fields(required) {
            if row.get(field.0).is_none_or(Value::is_null) {
                return Err((400, format!("\"{}\" is required", field.0)));
            }
        }
        for (field, value) in defaults(table) {
            row.entry(field.to_owned()).or_insert(value);
        }
        match *table {
            // Whatever a client says.
            "application" => {
                row.insert("should_track_latest_release".to_owned(), true.into());
                let own = format!("{:012x}4{:03x}8{:015x}", self.next, 0, 0);
                row.entry("uuid").or_insert(own.into());
            }
            "image" => {
                let place = format!("registry2.example.com/v2/{:032x}", self.next);
                row.insert("is_stored_at__image_location".to_owned(), place.into());
            }
            _ => {}
        }
        self.check(table, None, &row)?;
        let id = self.add(table, Value::Object(row));
        self.track(table, id);
        Ok(id)
    }

    fn change(&mut self, name: &str, id: u64, patch: Map<String, Value>) -> Result<(), (u16, String)> {
        let (table, ..) = table(name)?;
        // A row that is not there is no error.
        let Some(before) = self.row(table, id).cloned() else { return Ok(()) };
        if before.get("is_final") == Some(&true.into()) && patch.get("is_final") == Some(&false.into()) {
            return Err((400, "Finalized releases cannot be converted to draft.".to_owned()));
        }
        let mut after = before;
        after.extend(patch.clone());
        self.check(table, Some(id), &after)?;
        let own: Vec<_> = table_fields(table).map(|(field, _)| field).collect();
        if let Some(unknown) = patch.keys().find(|field| !own.contains(&field.as_str())) {
            return Err((400, format!("unknown field {unknown}")));
        }
        self.tables.entry(table).or_default().insert(id, after);
        self.track(table, id);
        Ok(())
    }

    /// A tracking fleet follows its newest release that is successful, final, valid and passes its tests.
    fn track(&mut self, table: &str, id: u64) {
        let Some(application) =
            self.link(table, id, "belongs_to__application").filter(|_| table == "release")
        else {
            return;
        };
        let is_tracking =
            self.row("application", application).unwrap()["should_track_latest_release"] == true;
        let releases = self.tables.get("release").into_iter().flatten();
        let newest = releases
            .filter(|(_, row)| row["belongs_to__application"] == application && row["status"] == "success")
            .filter(|(_, row)| row["is_final"] == true && row["is_invalidated"] == false)
            .filter(|(_, row)| row["is_passing_tests"] == true)
            .max_by_key(|(id, row)| (row["start_timestamp"].as_str().unwrap().to_owned(), **id))
            .map(|(id, _)| *id);
        if let (true, Some(newest)) = (is_tracking, newest) {
            let row = self.tables.get_mut("application").unwrap().get_mut(&application).unwrap();
            row.insert("should_be_running__release".to_owned(), newest.into());
        }
    }

    /// What the model demands of a row.
    fn check(
        &self,
        table: &'static str,
        id: Option<u64>,
        row: &Map<String, Value>,
    ) -> Result<(), (u16, String)> {
        let refused = |why: &str| Err((400, why.to_owned()));
        let own: BTreeMap<_, _> = table_fields(table).collect();
        for (field, value) in row.iter().filter(|(field, _)| *field != "id") {
            let Some(to) = own.get(field.as_str()) else {
                return Err((400, format!("unknown field {field}")));
            };
            if let (Some(to), false) = (to, value.is_null())
                && value.as_u64().and_then(|id| self.row(to, id)).is_none()
            {
                return Err((409, format!("\"Data is referenced by {field}.\"")));
            }
        }
        for together in self::table(table)?.3 {
            let key = |row: &Map<String, Value>| -> Vec<String> {
                together.split(' ').map(|field| row.get(field).unwrap_or(&Value::Null).to_string()).collect()
            };
            let others =
                self.tables.get(table).into_iter().flatten().filter(|(other, _)| Some(**other) != id);
            if others.clone().any(|(_, other)| key(other) == key(row)) {
                return Err((409, format!("\"{together}\" must be unique.")));
            }
        }
        let text = |field: &str| row.get(field).and_then(Value::as_str).unwrap_or_default();
        let number = |field: &str| row.get(field).and_then(Value::as_u64);
        let is_success =
            |release: u64| self.row("release", release).is_some_and(|row| row["status"] == "success");
        match table {
            "application" => {
                let name = text("app_name");
                let is_good = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
                if !(4..=100).contains(&name.len()) || !name.chars().all(is_good) {
                    return refused("App name may only contain [a-zA-Z0-9_-].");
                }
                let uuid = text("uuid").as_bytes();
                if !uuid.is_empty() && (uuid.len() != 32 || uuid[12] != b'4' || !b"89ab".contains(&uuid[16]))
                {
                    return refused(
                        "Application UUID must be a 32 character long lower case UUID version 4.",
                    );
                }
                let target = number("should_be_running__release");
                let is_own = |target| self.link("release", target, "belongs_to__application") == id;
                if target.is_some_and(|target| !is_success(target) || !is_own(target)) {
                    return refused(
                        "It is necessary that each release that should be running on an application, has a status that is equal to \"success\" and belongs to the application.",
                    );
                }
            }
            "release" => {
                if text("commit").len() > 40 || !row["composition"].is_object() {
                    return refused("a release has a commit of 40 characters at most, and a composition");
                }
                let others =
                    self.tables.get("release").into_iter().flatten().filter(|(other, _)| Some(**other) != id);
                let same = |other: &Map<String, Value>| {
                    ["commit", "belongs_to__application", "status"]
                        .iter()
                        .all(|field| other[*field] == row[*field])
                };
                if text("status") == "success" && others.clone().any(|(_, other)| same(other)) {
                    return refused(
                        "It is necessary that each application owns at most one successful release of a commit.",
                    );
                }
            }
            "image" if text("status") == "success" && text("push_timestamp").is_empty() => {
                return refused(
                    "It is necessary that each image that has a status that is equal to \"success\", has a push timestamp.",
                );
            }
            "image" if text("content_hash").len() > 71 => {
                return refused("a content hash has 71 characters at most");
            }
            "device" => {
                let own = number("belongs_to__application");
                let pin = number("is_pinned_on__release");
                let is_own = |pin| self.link("release", pin, "belongs_to__application") == own;
                if pin.is_some_and(|pin| !is_success(pin) || !is_own(pin)) {
                    return refused(
                        "It is necessary that each release that is pinned to a device, has a status that is equal to \"success\" and belongs to an application1 that the device belongs to.",
                    );
                }
            }
            "device_tag"
                if text("tag_key").contains(char::is_whitespace)
                    || text("tag_key").starts_with("io.balena.") =>
            {
                return refused("Tag keys cannot contain whitespace.");
            }
            name if name.ends_with("_environment_variable") => {
                let name = text("name");
                if name.starts_with("BALENA_")
                    || name.starts_with("RESIN_")
                    || name.starts_with(|c: char| c.is_ascii_digit())
                {
                    return refused("Environment variables may not start with BALENA_ or a digit.");
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn register(&mut self, key: &str, body: &Map<String, Value>) -> Answered {
        let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
        let wanted = body.get("application").map(|number| number.to_string().trim_matches('"').to_owned());
        let Some(application) = self.keys.get(key).copied().filter(|it| Some(it.to_string()) == wanted)
        else {
            return Err((401, String::new()));
        };
        if self.tables.get("device").into_iter().flatten().any(|(_, row)| row["uuid"] == text("uuid")) {
            return Err((409, "\"uuid\" must be unique.".to_owned()));
        }
        let device = self.add(
            "device",
            json!({ "uuid": text("uuid"), "device_name": text("device_name"), "belongs_to__application": application,
                    "is_pinned_on__release": null }),
        );
        let services: Vec<u64> = self
            .tables
            .get("service")
            .into_iter()
            .flatten()
            .filter(|(_, row)| row["application"] == application)
            .map(|(id, _)| *id)
            .collect();
        for service in services {
            self.add("service_install", json!({ "device": device, "installs__service": service }));
        }
        Ok((201, json!({ "id": device, "uuid": text("uuid"), "api_key": text("api_key") }).to_string()))
    }

    /// Reads a list: only the fields that are selected, and each reference as an object.
    fn list(&self, name: &str, query: &str) -> Answered {
        let bad = || (400, "Malformed url".to_owned());
        let (table, ..) = table(name)?;
        let mut options: BTreeMap<&str, String> = BTreeMap::new();
        for part in query.split('&') {
            let (option, value) = part.split_once('=').ok_or_else(bad)?;
            // The parser wants these characters as they are.
            if ["%24", "%28", "%29", "%2C", "%3A", "+"].iter().any(|code| value.contains(code)) {
                return Err(bad());
            }
            options.insert(option, value.replace("%20", " "));
        }
        let own: BTreeMap<_, _> = table_fields(table).chain([("id", None)]).collect();
        let select: Vec<&str> = options.get("$select").ok_or_else(bad)?.split(',').collect();
        if select.iter().any(|field| !own.contains_key(field))
            || options.get("$orderby").map(String::as_str) != Some("id asc")
        {
            return Err(bad());
        }
        let top: usize = options.get("$top").and_then(|top| top.parse().ok()).ok_or_else(bad)?;
        let mut rows = Vec::new();
        for (id, row) in self.tables.get(table).into_iter().flatten() {
            let all = options.get("$filter").map_or("", String::as_str);
            let mut is_wanted = true;
            for part in all.split(" and ").filter(|part| !part.is_empty()) {
                is_wanted &= self.matches(table, *id, part).ok_or_else(bad)?;
            }
            if is_wanted {
                let shown = select.iter().map(|field| {
                    let value = row.get(*field).cloned().unwrap_or_default();
                    let is_link = own.get(field).is_some_and(Option::is_some) && !value.is_null();
                    ((*field).to_owned(), if is_link { json!({ "__id": value }) } else { value })
                });
                rows.push(Value::Object(shown.collect()));
            }
        }
        rows.truncate(top);
        Ok((200, json!({ "d": rows }).to_string()))
    }

    /// `FIELD eq N`, `id gt N` or `FIELD/any(V:V/…)`; `None` for anything else.
    fn matches(&self, table: &str, id: u64, filter: &str) -> Option<bool> {
        if let Some((field, rest)) = filter.split_once("/any(") {
            let (variable, inner) = rest.strip_suffix(')')?.split_once(':')?;
            let inner = inner.strip_prefix(variable)?.strip_prefix('/')?;
            let (_, to) = table_fields(table).find(|(name, _)| *name == field)?;
            return match self.link(table, id, field) {
                Some(other) => self.matches(to?, other, inner),
                None => Some(false),
            };
        }
        match filter.split(' ').collect::<Vec<_>>().as_slice() {
            ["id", "gt", number] => Some(id > number.parse::<u64>().ok()?),
            ["id", "eq", number] => Some(id == number.parse::<u64>().ok()?),
            [field, "eq", number] => {
                table_fields(table).find(|(name, _)| name == field)?;
                Some(self.link(table, id, field) == Some(number.parse::<u64>().ok()?))
            }
            _ => None,
        }
    }
}

fn table(name: &str) -> Result<&'static Kind, (u16, String)> {
    TABLES.iter().find(|(table, ..)| *table == name).ok_or((404, format!("there is no {name}")))
}

/// Fields with the table that each refers to.
fn fields(text: &'static str) -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    text.split(' ').filter(|field| !field.is_empty()).map(|field| match field.split_once('>') {
        Some((field, to)) => (field, Some(to)),
        None => (field, None),
    })
}

fn table_fields(name: &str) -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    let (_, required, others, _) = table(name).unwrap();
    fields(required).chain(fields(others))
}

fn defaults(table: &str) -> Vec<(&'static str, Value)> {
    match table {
        "release" => {
            vec![
                ("is_final", true.into()),
                ("is_invalidated", false.into()),
                ("is_passing_tests", true.into()),
            ]
        }
        "application" => vec![("should_be_running__release", Value::Null)],
        _ => Vec::new(),
    }
}

fn answer(stream: TcpStream, shared: &Mutex<Shared>) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let (mut length, mut token) = (0, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "authorization" => value.trim().strip_prefix("Bearer ")?.clone_into(&mut token),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let said = {
        let mut shared = shared.lock().unwrap();
        if shared.later > 0 {
            shared.later -= 1;
            Err((429, "later".to_owned()))
        } else {
            let is_change = method != "GET";
            shared.changes += u64::from(is_change);
            let fault =
                shared.fault.filter(|(at, _)| is_change && shared.changes > *at).map(|(_, fault)| fault);
            if fault == Some(Fault::Before) {
                return None;
            }
            let said = route(&mut shared, &method, &path, &token, body);
            if fault == Some(Fault::After) {
                return None;
            }
            said
        }
    };
    let (status, body) = said.unwrap_or_else(|refused| refused);
    let length = body.len();
    let later = if status == 429 { "Retry-After: 1\r\n" } else { "" };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} Said\r\n{later}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .ok()
}

fn route(shared: &mut Shared, method: &str, path: &str, token: &str, body: Map<String, Value>) -> Answered {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if (method, path) == ("POST", "/device/register") {
        return shared.register(token, &body);
    }
    if token != TOKEN {
        return Err((401, String::new()));
    }
    let application =
        path.strip_prefix("/api-key/application/").and_then(|rest| rest.strip_suffix("/provisioning"));
    if let (Some(application), "POST") = (application, method) {
        let application = application.parse().map_err(|_| (400, String::new()))?;
        shared.row("application", application).ok_or((401, String::new()))?;
        let key = format!("provisioning-key-{}", shared.keys.len() + 1);
        shared.keys.insert(key.clone(), application);
        return Ok((200, json!(key).to_string()));
    }
    let resource = path.strip_prefix("/v7/").ok_or((404, String::new()))?;
    match (method, resource.split_once('(')) {
        ("GET", None) => shared.list(resource, query),
        ("POST", None) => {
            let id = shared.create(resource, body)?;
            Ok((201, json!({ "id": id }).to_string()))
        }
        ("PATCH", Some((resource, id))) => {
            let id = id.trim_end_matches(')').parse().map_err(|_| (400, String::new()))?;
            shared.change(resource, id, body)?;
            // An empty body, and no count.
            Ok((200, String::new()))
        }
        // Without a key it would change every row.
        _ => Err((400, "no such request in the stand-in".to_owned())),
    }
}
