//! Reads one service of a release.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Form;
use super::at::{self, At, Fields, Notes, digits, members};
use super::fields::{self, Verdict};
use super::limits::{capabilities, signal, ulimits, user, working_dir};
use super::quantities::memory;
use super::{
    configs, features, healthcheck, isolation, mounts, networking, ports, resources, shared, strings, texts,
};
use crate::model::text::is_one_line;
use crate::model::{
    Condition, Device, ImageRef, NetworkMode, Platform, Refusal, RestartPolicy, ServiceName, ServiceSpec,
    SpecHash,
};
use crate::wire::state_v3::ServiceState;

const RESTART: &str = "\"no\", \"always\", \"unless-stopped\", \"on-failure\" or \"on-failure:N\"";

/// The paths of a service and of its compose fields.
pub(in crate::wire) struct Paths {
    /// `services.web`
    pub(in crate::wire) service: String,
    /// `services.web.composition` in a target, `services.web` in a file
    pub(in crate::wire) composition: String,
    pub(in crate::wire) form: Form,
}

/// Reads a service without computing its hash. Returns `None` if it has no usable image.
pub(super) fn read(given: &ServiceState, paths: &Paths, notes: &mut Notes) -> Option<ServiceSpec> {
    let image = notes.keep(
        ImageRef::parse(&given.image)
            .map_err(|bad| Refusal { path: format!("{}.image", paths.service), why: bad.to_string() }),
    );
    let read = Fields { path: &paths.composition, map: &given.composition };
    judge_all(&read, notes);
    contract(given, paths, notes);

    let mut spec = blank(given, image?);
    spec.command = read.with("command", notes, words);
    spec.entrypoint = read.with("entrypoint", notes, words);
    spec.environment = environment(given, paths, &read, notes);
    spec.labels = labels(given, paths, &read, notes);
    let at = |key| read.get(key);
    spec.network_mode = networking::mode(
        at("network_mode").filter(|at| !at::is_nothing(at.value)).as_ref(),
        at("networks").as_ref(),
        notes,
    );
    if let Some(hosts) = at("extra_hosts") {
        spec.extra_hosts = networking::extra_hosts(&hosts, notes);
    }
    spec.ports = at("ports").map(|at| ports::read(&at, paths.form, notes)).unwrap_or_default();
    drop_useless_ports(&mut spec, &read, notes);
    mounts::read(at("volumes").as_ref(), at("tmpfs").as_ref(), &mut spec, notes);
    spec.healthcheck = at("healthcheck").and_then(|at| healthcheck::read(&at, notes));
    spec.depends_on = at("depends_on").map(|at| depends_on(&at, notes)).unwrap_or_default();
    spec.restart = read.with("restart", notes, restart).unwrap_or(RestartPolicy::Always);
    spec.devices = at("devices").map(|at| devices(&at, notes)).unwrap_or_default();
    spec.ulimits = at("ulimits").map(|at| ulimits(&at, notes)).unwrap_or_default();
    spec.cap_add = at("cap_add").map(|at| capabilities(&at, notes)).unwrap_or_default();
    spec.cap_drop = at("cap_drop").map(|at| capabilities(&at, notes)).unwrap_or_default();
    plain_fields(&mut spec, &read, notes);
    configs::read(&read, &mut spec, notes);
    networking::mac_address(&read, &mut spec, notes);
    isolation::read(&read, &mut spec, notes);
    resources::read(&read, &mut spec, notes);
    features::read(&paths.service, &mut spec, notes);
    shared::conflicts(&read, &spec, notes);
    check_sizes(&spec, paths, notes);
    Some(spec)
}

/// Maximum number of bytes of one argument or variable, with its name and the final NUL (MAX_ARG_STRLEN of Linux).
const LONGEST_TEXT: usize = 131_072;

/// Refuses arguments and variables that are too long for the kernel.
fn check_sizes(spec: &ServiceSpec, paths: &Paths, notes: &mut Notes) {
    for (name, value) in &spec.environment {
        let bytes = name.len() + value.len() + 2;
        if bytes > LONGEST_TEXT {
            let path = format!("{}.environment.{name}", paths.service);
            let why = format!(
                "it has {bytes} bytes with its name, and Linux accepts {LONGEST_TEXT}: put it into a file"
            );
            notes.refuse(Refusal { path, why });
        }
    }
    for (field, words) in [("command", &spec.command), ("entrypoint", &spec.entrypoint)] {
        if let Some(word) = words.iter().flatten().find(|word| word.len() >= LONGEST_TEXT) {
            let path = format!("{}.{field}", paths.composition);
            let bytes = word.len() + 1;
            let why = format!(
                "an argument has {bytes} bytes, and Linux accepts {LONGEST_TEXT}: put it into a file"
            );
            notes.refuse(Refusal { path, why });
        }
    }
}

/// Reads the fields that have one plain value.
fn plain_fields(spec: &mut ServiceSpec, read: &Fields<'_>, notes: &mut Notes) {
    spec.platform =
        read.filled("platform", notes, |at| Platform::parse(at.text()?).map_err(|bad| at.refusal(bad)));
    spec.user = read.filled("user", notes, user);
    spec.working_dir = read.filled("working_dir", notes, working_dir);
    spec.hostname = read.filled("hostname", notes, networking::own_name);
    spec.stop_grace = read.filled("stop_grace_period", notes, |at| at.duration());
    spec.stop_signal = read.filled("stop_signal", notes, signal);
    spec.memory_limit = read.filled("mem_limit", notes, memory).filter(|bytes| *bytes > 0);
    spec.has_init = read.with("init", notes, |at| at.flag());
    spec.has_tty = read.with("tty", notes, |at| at.flag()).unwrap_or_default();
    spec.is_read_only = read.with("read_only", notes, |at| at.flag()).unwrap_or_default();
    spec.is_privileged = read.with("privileged", notes, |at| at.flag()).unwrap_or_default();
}

fn judge_all(read: &Fields<'_>, notes: &mut Notes) {
    for (key, at) in members(read.path, read.map) {
        match fields::judge(key, &at) {
            Verdict::Fine => {}
            Verdict::Warning(warning) => notes.warn(warning),
            Verdict::Refusal(refusal) => notes.refuse(refusal),
        }
    }
}

/// Warns that the requirements of a contract are not checked.
fn contract(given: &ServiceState, paths: &Paths, notes: &mut Notes) {
    let requires = given.contract.as_ref().and_then(|contract| contract.get("requires"));
    if requires.and_then(Value::as_array).is_some_and(|requires| !requires.is_empty()) {
        notes.warn(Refusal {
            path: format!("{}.contract.requires", paths.service),
            why: "not honoured: requirements are not checked".into(),
        });
    }
}

fn blank(given: &ServiceState, image: ImageRef) -> ServiceSpec {
    ServiceSpec {
        service_id: given.id,
        image_id: given.image_id,
        is_running: given.running,
        ..ServiceSpec::bare(SpecHash::from_sha256(1, [0; 32]), image)
    }
}

fn environment(
    given: &ServiceState,
    paths: &Paths,
    read: &Fields<'_>,
    notes: &mut Notes,
) -> BTreeMap<String, String> {
    let mut merged = texts::environment(read.get("environment").as_ref(), &given.environment, notes);
    for (name, value) in &given.environment {
        check_pair(&format!("{}.environment.{name}", paths.service), name, value, notes);
        merged.insert(name.clone(), value.clone());
    }
    merged
}

fn labels(
    given: &ServiceState,
    paths: &Paths,
    read: &Fields<'_>,
    notes: &mut Notes,
) -> BTreeMap<String, String> {
    let mut merged = read.get("labels").map(|at| texts::labels(&at, notes)).unwrap_or_default();
    for (name, value) in &given.labels {
        check_pair(&format!("{}.labels.{name}", paths.service), name, value, notes);
        merged.insert(name.clone(), value.clone());
    }
    texts::without_own(texts::respell(merged), &format!("{}.labels", paths.service), notes)
}

fn check_pair(path: &str, name: &str, value: &str, notes: &mut Notes) {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') || !is_one_line(name) {
        notes.refuse(Refusal {
            path: path.to_owned(),
            why: "its name is empty or contains '=', a line break or an invisible character, or it contains a NUL \
                  character: correct it"
                .into(),
        });
    }
}

/// Drops the ports of a service without its own network, with a warning, because it cannot publish any.
fn drop_useless_ports(spec: &mut ServiceSpec, read: &Fields<'_>, notes: &mut Notes) {
    let why = match spec.network_mode {
        NetworkMode::Host => "not honoured: with network_mode host every port is a port of the host",
        NetworkMode::None => "not honoured: with network_mode none there is nothing to publish",
        NetworkMode::Networks(_) | NetworkMode::Bridge | NetworkMode::Service(_) => return,
    };
    if !spec.ports.is_empty() {
        spec.ports.clear();
        notes.warn(Refusal { path: format!("{}.ports", read.path), why: why.into() });
    }
}

/// Marks each `#` at the start of a word as a character of it: a command has no comments, as with Compose.
fn without_comments(text: &str) -> String {
    let (mut out, mut quote, mut is_start) = (String::with_capacity(text.len()), None, true);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '#' && is_start && quote.is_none() {
            out.push('\\');
        }
        out.push(c);
        match (quote, c) {
            (None | Some('"'), '\\') => out.extend(chars.next()),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            _ => {}
        }
        is_start = quote.is_none() && c.is_whitespace();
    }
    out
}

/// Reads a command: a list as it is, or a text that is split as a shell would, without expansion.
fn words(at: &At<'_>) -> Result<Vec<String>, Refusal> {
    match at.value {
        Value::String(_) => shell_words::split(&without_comments(at.content()?)).map_err(|_| {
            at.refusal("a quote is not closed: close it, or write the command as a list of texts")
        }),
        Value::Array(_) => strings(at),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            Err(at.wrong("a text or a list of texts"))
        }
    }
}

fn restart(at: &At<'_>) -> Result<RestartPolicy, Refusal> {
    let text = match at.value {
        Value::Bool(false) => "no".to_owned(),
        Value::Null | Value::Bool(true) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            return Err(at.wrong(RESTART));
        }
        Value::String(text) => text.to_ascii_lowercase(),
    };
    match text.as_str() {
        "no" => Ok(RestartPolicy::No),
        "always" => Ok(RestartPolicy::Always),
        "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
        "on-failure" => Ok(RestartPolicy::OnFailure { retries: 0 }),
        _ => {
            let retries = text.strip_prefix("on-failure:").filter(|n| !n.is_empty()).and_then(digits);
            let retries = retries.and_then(|n| u32::try_from(n).ok()).filter(|n| i32::try_from(*n).is_ok());
            retries.map(|retries| RestartPolicy::OnFailure { retries }).ok_or_else(|| at.wrong(RESTART))
        }
    }
}

fn depends_on(at: &At<'_>, notes: &mut Notes) -> BTreeMap<ServiceName, Condition> {
    let mut found = BTreeMap::new();
    let name = |at: &At<'_>, text: &str| ServiceName::parse(text).map_err(|bad| at.refusal(bad));
    if let Value::Array(_) = at.value {
        for item in notes.keep(at.list()).unwrap_or_default() {
            let read = item.text().and_then(|text| name(&item, text));
            found.extend(notes.keep(read).map(|name| (name, Condition::Started)));
        }
        return found;
    }
    let Value::Object(map) = at.value else {
        notes.refuse(at.wrong("a list of services, or a map of services to conditions"));
        return found;
    };
    let path = at::parent(&at.path);
    for (key, value) in map {
        let item = At::new(format!("{path}.{key}"), value);
        let Some(name) = notes.keep(name(&item, key)) else { continue };
        found.insert(name, condition(&item, notes));
    }
    found
}

fn condition(at: &At<'_>, notes: &mut Notes) -> Condition {
    let mut condition = Condition::Started;
    if at.value.is_null() {
        return condition;
    }
    for (key, field) in notes.keep(at.map()).unwrap_or_default() {
        match (key, field.value) {
            ("condition", value) => {
                match value.as_str() {
                    Some("service_started") => condition = Condition::Started,
                    Some("service_healthy") => condition = Condition::Healthy,
                    Some("service_completed_successfully") => condition = Condition::Completed,
                    Some(_) | None => notes.refuse(field.wrong(
                        "\"service_started\", \"service_healthy\" or \"service_completed_successfully\"",
                    )),
                }
            }
            // `order` judges a dependency that is not required.
            ("required", Value::Bool(_)) | ("restart", Value::Bool(false)) => {}
            ("required", _) => notes.refuse(field.wrong("true or false")),
            ("restart", _) => {
                notes.warn(field.refusal("not honoured: a service is not restarted with its dependency"));
            }
            _ => notes.refuse(field.unknown("it is not a field of a dependency: write condition")),
        }
    }
    condition
}

fn devices(at: &At<'_>, notes: &mut Notes) -> Vec<Device> {
    let (mut found, mut taken) = (Vec::new(), BTreeSet::new());
    for item in notes.keep(at.list()).unwrap_or_default() {
        let Some(device) = notes.keep(device(&item)) else { continue };
        if !taken.insert(device.container_path.clone()) {
            notes.refuse(item.refusal("this path in the container is used twice: remove one"));
        } else {
            found.push(device);
        }
    }
    found
}

fn device(at: &At<'_>) -> Result<Device, Refusal> {
    let accepts = "\"/dev/host[:/dev/container[:rwm]]\"";
    let (host, container, permissions) = match at.value {
        Value::String(text) => {
            let parts: Vec<&str> = text.split(':').collect();
            match parts.as_slice() {
                [host] => (*host, *host, "rwm"),
                [host, second] if !second.starts_with('/') => (*host, *host, *second),
                [host, container] => (*host, *container, "rwm"),
                [host, container, permissions] => (*host, *container, *permissions),
                _ => return Err(at.wrong(accepts)),
            }
        }
        Value::Object(_) => long_device(at)?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => return Err(at.wrong(accepts)),
    };
    let is_path = |path: &str| path.starts_with('/') && path.len() > 1 && !path.contains('\0');
    let is_right = !permissions.is_empty() && permissions.chars().all(|c| matches!(c, 'r' | 'w' | 'm'));
    if !is_path(host) || !is_path(container) || !is_right {
        return Err(at.wrong(accepts));
    }
    Ok(Device {
        host_path: host.to_owned(),
        container_path: container.to_owned(),
        permissions: permissions.to_owned(),
    })
}

/// Reads the long form: `source`, `target` and `permissions`.
fn long_device<'v>(at: &At<'v>) -> Result<(&'v str, &'v str, &'v str), Refusal> {
    let (mut source, mut target, mut permissions) = ("", None, "rwm");
    for (key, field) in at.map()? {
        match key {
            "source" => source = field.text()?,
            "target" => target = Some(field.text()?),
            "permissions" => permissions = field.text()?,
            _ => return Err(field.unknown("it is not known: write source, target and permissions")),
        }
    }
    Ok((source, target.unwrap_or(source), permissions))
}
