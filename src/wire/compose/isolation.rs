//! Reads namespaces, security options, name resolution and logging of a service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use super::at::{At, Fields, Notes, is_nothing};
use super::networking::host_name;
use super::quantities::whole;
use super::{limits, log_options, shared, strings, texts};
use crate::model::{DeviceRequest, Logging, NetworkMode, Refusal, ServiceName, ServiceSpec};

/// Reads these fields into `spec`, whose network must be read before.
pub(super) fn read(fields: &Fields<'_>, spec: &mut ServiceSpec, notes: &mut Notes) {
    namespaces(fields, spec, notes);
    let at = |key| fields.get(key);
    let isolation = &mut spec.isolation;
    isolation.cgroup = fields.filled("cgroup", notes, |at| match at.text()? {
        word @ ("host" | "private") => Ok(word.to_owned()),
        _ => Err(at.wrong("\"host\" or \"private\"")),
    });
    isolation.cgroup_parent = fields.filled("cgroup_parent", notes, |at| Ok(at.text()?.to_owned()));
    isolation.runtime = fields.filled("runtime", notes, |at| Ok(at.text()?.to_owned()));
    for (key, kept) in [("security_opt", true), ("group_add", false)] {
        let Some(at) = at(key) else { continue };
        for item in notes.keep(at.list()).unwrap_or_default() {
            if kept {
                isolation.security.extend(notes.keep(security(&item)));
            } else {
                isolation.groups.extend(notes.keep(group(&item)));
            }
        }
    }
    if let Some(at) = at("device_cgroup_rules") {
        for item in notes.keep(at.list()).unwrap_or_default() {
            isolation.device_rules.extend(notes.keep(device_rule(&item)));
        }
    }
    if let Some(at) = at("gpus").filter(|at| !is_nothing(at.value)) {
        isolation.device_requests = gpus(&at, notes);
    }
    if let Some(at) = at("sysctls") {
        let has_host_ipc = isolation.ipc.as_deref() == Some("host");
        isolation.sysctls = sysctls(&at, &spec.network_mode, has_host_ipc, notes);
    }
    resolver(fields, spec, notes);
    spec.logging = at("logging").and_then(|at| logging(&at, notes));
    spec.annotations = at("annotations").map(|at| texts::labels(&at, notes)).unwrap_or_default();
    spec.has_stdin = fields.with("stdin_open", notes, |at| at.flag()).unwrap_or_default();
}

fn namespaces(fields: &Fields<'_>, spec: &mut ServiceSpec, notes: &mut Notes) {
    let isolation = &mut spec.isolation;
    let ipc = fields.filled("ipc", notes, |at| match at.text()? {
        word @ ("none" | "private" | "shareable" | "host") => Ok(Shared::Word(word.to_owned())),
        text => shared::service_of(at, text)
            .unwrap_or_else(|| {
                Err(at.wrong("\"none\", \"private\", \"shareable\", \"host\" or \"service:NAME\""))
            })
            .map(Shared::Of),
    });
    (isolation.ipc, isolation.ipc_of) = apart(ipc);
    let pid = fields.filled("pid", notes, |at| match at.text()? {
        "host" => Ok(Shared::Word(())),
        text => shared::service_of(at, text)
            .unwrap_or_else(|| Err(at.wrong("\"host\" or \"service:NAME\"")))
            .map(Shared::Of),
    });
    let (is_host_pid, pid_of) = apart(pid);
    (isolation.has_host_pid, isolation.pid_of) = (is_host_pid.is_some(), pid_of);
    let mut is_host = |key: &str| {
        let read = fields.filled(key, notes, |at| match at.text()? {
            "host" => Ok(true),
            _ => Err(at.wrong("\"host\"")),
        });
        read.unwrap_or_default()
    };
    isolation.has_host_uts = is_host("uts");
    isolation.has_host_users = is_host("userns_mode");
    if isolation.has_host_uts && (spec.hostname.is_some() || fields.get("domainname").is_some()) {
        let why =
            "it cannot be combined with hostname and domainname: remove the one or the others".to_owned();
        notes.refuse(Refusal { path: format!("{}.uts", fields.path), why });
    }
}

/// A namespace that is named by a word, or that of another service.
enum Shared<T> {
    Word(T),
    Of(ServiceName),
}

fn apart<T>(shared: Option<Shared<T>>) -> (Option<T>, Option<ServiceName>) {
    match shared {
        Some(Shared::Word(word)) => (Some(word), None),
        Some(Shared::Of(name)) => (None, Some(name)),
        None => (None, None),
    }
}

/// Reads a security option as `key=value`, the engine's present form.
fn security(at: &At<'_>) -> Result<String, Refusal> {
    let accepts = "e.g. \"no-new-privileges:true\", \"seccomp=unconfined\" or \"apparmor=unconfined\"";
    // A profile is JSON, which may have several lines.
    let text = if at.content()?.starts_with("seccomp") { at.content()? } else { at.text()? };
    let (key, value) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((text, ""));
    match (key, value) {
        ("no-new-privileges", "" | "true") => Ok("no-new-privileges".to_owned()),
        ("no-new-privileges", "false") => Ok("no-new-privileges=false".to_owned()),
        ("systempaths", "unconfined") => Ok("systempaths=unconfined".to_owned()),
        ("seccomp", profile) if profile == "unconfined" || profile.trim_start().starts_with('{') => {
            Ok(format!("seccomp={profile}"))
        }
        ("seccomp", _) => Err(at.refusal(
            "a profile cannot be a file, because files of the author are not part of a release: \
             write its JSON after \"seccomp=\"",
        )),
        ("apparmor" | "label", value) if !value.is_empty() => Ok(format!("{key}={value}")),
        _ => Err(at.wrong(accepts)),
    }
}

fn group(at: &At<'_>) -> Result<String, Refusal> {
    let text = at.word()?;
    if text.is_empty() || text.contains([':', ' ', '\n']) {
        return Err(at.wrong("a group's name or number"));
    }
    limits::id(at, &text)?;
    Ok(text)
}

/// Reads a rule such as `c 188:* rwm`.
fn device_rule(at: &At<'_>) -> Result<String, Refusal> {
    let text = at.text()?;
    let number = |part: &str| {
        part == "*" || (!part.is_empty() && part.len() <= 9 && part.chars().all(|c| c.is_ascii_digit()))
    };
    let is_fine = match text.split_ascii_whitespace().collect::<Vec<_>>().as_slice() {
        ["a" | "b" | "c", numbers, access] => {
            numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
                && access.len() <= 3
                && access.chars().all(|c| matches!(c, 'r' | 'w' | 'm'))
        }
        _ => false,
    };
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    if is_fine { Ok(words.join(" ")) } else { Err(at.wrong("a rule, e.g. \"c 188:* rwm\"")) }
}

/// Reads `gpus`: `all`, or a list as in `deploy`.
fn gpus(at: &At<'_>, notes: &mut Notes) -> Vec<DeviceRequest> {
    match at.value {
        Value::String(text) if text == "all" => {
            vec![DeviceRequest {
                count: Some(-1),
                capabilities: vec!["gpu".to_owned()],
                ..DeviceRequest::default()
            }]
        }
        Value::Array(_) => {
            let mut found = requests(at, notes);
            for request in &mut found {
                if !request.capabilities.iter().any(|c| c == "gpu") {
                    request.capabilities.push("gpu".to_owned());
                }
            }
            found
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            notes.refuse(at.wrong("\"all\", or a list of devices with driver, count or device_ids"));
            Vec::new()
        }
    }
}

/// Reads requests for devices of a driver. Without count and ids, a request is for all of them.
pub(super) fn requests(at: &At<'_>, notes: &mut Notes) -> Vec<DeviceRequest> {
    let mut found = Vec::new();
    for item in notes.keep(at.list()).unwrap_or_default() {
        let mut request = DeviceRequest::default();
        for (key, field) in notes.keep(item.map()).unwrap_or_default() {
            match key {
                "driver" => {
                    request.driver = notes.keep(field.text()).unwrap_or_default().to_owned();
                }
                "count" if field.value.as_str() == Some("all") => request.count = Some(-1),
                "count" => {
                    let read = whole(&field, "a number of devices, or \"all\"", -1..=1024);
                    request.count = notes.keep(read);
                }
                "device_ids" => request.ids = notes.keep(strings(&field)).unwrap_or_default(),
                "capabilities" => request.capabilities = notes.keep(strings(&field)).unwrap_or_default(),
                "options" => request.options = texts::labels(&field, notes),
                _ if is_nothing(field.value) => {}
                _ => notes
                    .refuse(field.unknown(
                        "it is not known: write driver, count, device_ids, capabilities or options",
                    )),
            }
        }
        if request.count.is_some() && !request.ids.is_empty() {
            notes.refuse(item.refusal("count cannot be combined with device_ids: remove one of the two"));
        }
        if request.count.is_none() && request.ids.is_empty() {
            request.count = Some(-1);
        }
        found.push(request);
    }
    found
}

/// Reads kernel settings. Refuses those that a container does not have for itself.
fn sysctls(
    at: &At<'_>,
    network: &NetworkMode,
    has_host_ipc: bool,
    notes: &mut Notes,
) -> BTreeMap<String, String> {
    const OWN: &str = "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax \
        kernel.shmmni kernel.shm_rmid_forced kernel.domainname";
    let settings = texts::labels(at, notes);
    for (name, value) in &settings {
        let mut refuse = |why: &str| {
            notes.refuse(Refusal { path: format!("{}.{name}", at.path), why: why.to_owned() });
        };
        let is_own = OWN.split_ascii_whitespace().any(|own| own == name);
        if value.is_empty() {
            refuse("it has no value: write one");
        } else if !is_setting(name) {
            refuse("it is not the name of a kernel setting: write e.g. net.core.somaxconn");
        } else if has_host_ipc && (name.starts_with("fs.mqueue.") || (is_own && name != "kernel.domainname"))
        {
            refuse("with ipc host it would change the host: set it on the host");
        } else if name.starts_with("net.") && *network == NetworkMode::Host {
            refuse("with network_mode host it would change the host: set it on the host");
        } else if !is_own && !name.starts_with("net.") && !name.starts_with("fs.mqueue.") {
            refuse("a container does not have its own value of it: set it on the host, and remove it here");
        }
    }
    settings
}

/// Returns whether `name` is a path below `/proc/sys`, with points between its parts. An interface may have a `/` for a point.
fn is_setting(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/'))
    };
    !name.contains("//") && name.split('.').all(is_part)
}

fn resolver(fields: &Fields<'_>, spec: &mut ServiceSpec, notes: &mut Notes) {
    spec.resolver.domainname = fields.filled("domainname", notes, host_name);
    let mut list = |key: &str, check: fn(&At<'_>) -> Result<String, Refusal>| {
        let Some(at) = fields.get(key).filter(|at| !is_nothing(at.value)) else { return Vec::new() };
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        for item in notes.keep(at.text_or_list()).unwrap_or_default() {
            // The resolver uses them in this order, and each only once.
            found.extend(notes.keep(check(&item)).filter(|text| seen.insert(text.clone())));
        }
        found
    };
    spec.resolver.servers = list("dns", |at| {
        let ip = at.text()?.parse::<IpAddr>();
        ip.map(|ip| ip.to_string()).map_err(|_| at.wrong("an address of a name server, e.g. \"9.9.9.9\""))
    });
    spec.resolver.search = list("dns_search", |at| match at.text()? {
        "." => Ok(".".to_owned()),
        _ => host_name(at),
    });
    spec.resolver.options = list("dns_opt", |at| match at.text()? {
        text if !text.is_empty() && !text.contains(char::is_whitespace) => Ok(text.to_owned()),
        _ => Err(at.wrong("an option of resolv.conf, e.g. \"ndots:2\"")),
    });
}

fn logging(at: &At<'_>, notes: &mut Notes) -> Option<Logging> {
    let mut logging = Logging { driver: String::new(), options: BTreeMap::new() };
    for (key, field) in notes.keep(at.map()).unwrap_or_default() {
        match key {
            "driver" => logging.driver = notes.keep(field.text()).unwrap_or_default().to_owned(),
            "options" => logging.options = texts::map(&field, notes),
            _ if is_nothing(field.value) || key.starts_with("x-") => {}
            _ => notes.refuse(field.unknown("it is not a field of logging: write driver and options")),
        }
    }
    log_options::check(at, &logging, notes);
    (!logging.driver.is_empty() || !logging.options.is_empty()).then_some(logging)
}
