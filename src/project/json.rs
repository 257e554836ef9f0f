//! Turns a model into JSON, and finds the place of a path in it.

use serde_json::{Map, Value};

use super::error::Finding;
use super::node::{Kind, Node};
use super::scalar;

/// Fields whose value is a bool, also if it is written as a text.
const FLAGS: &[&str] = &[
    "attachable",
    "create_host_path",
    "disable",
    "enable_ipv4",
    "enable_ipv6",
    "external",
    "init",
    "internal",
    "nocopy",
    "oom_kill_disable",
    "privileged",
    "read_only",
    "required",
    "stdin_open",
    "tty",
];

/// Fields whose value is a number, also if it is hexadecimal or octal. `ulimits` has numbers by name.
const NUMBERS: &[&str] = &[
    "cpu_count",
    "cpu_period",
    "cpu_quota",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "cpu_shares",
    "gw_priority",
    "hard",
    "max_attempts",
    "mem_limit",
    "mem_reservation",
    "mem_swappiness",
    "memswap_limit",
    "mode",
    "oom_score_adj",
    "pids",
    "pids_limit",
    "priority",
    "rate",
    "retries",
    "shm_size",
    "soft",
    "weight",
];

/// Maps of texts: their values are never numbers or bools.
const TEXTS: &[&str] = &[
    "annotations",
    "args",
    "aux_addresses",
    "driver_opts",
    "environment",
    "extra_hosts",
    "labels",
    "options",
    "sysctls",
];

/// Converts a value. Texts are the author's, except for null and bools, and for numbers where a text is not asked for.
/// Adds a warning for each text that Compose would change.
pub(super) fn value(node: &Node, path: &str, warnings: &mut Vec<Finding>) -> Value {
    convert(node, path, false, warnings)
}

fn convert(node: &Node, path: &str, is_text: bool, warnings: &mut Vec<Finding>) -> Value {
    match &node.kind {
        Kind::Scalar { text, is_plain: false } => Value::String(text.clone()),
        Kind::Scalar { text, is_plain: true } if is_text => {
            let read = scalar::value(text);
            if read.is_null() {
                return read;
            }
            if is_changed(text, &read) {
                let why = format!(
                    "Compose would change this value; devices get it as it is written: put it into quotes ({text:?}) \
                     so that both agree"
                );
                warnings.push(Finding::at(&node.place, path, why));
            }
            Value::String(text.clone())
        }
        Kind::Scalar { text, is_plain: true } => match scalar::value(text) {
            // 1.10 is not 1.1, and 0440 not 440.
            Value::Number(number) if number.to_string() == *text => Value::Number(number),
            Value::Number(_) => Value::String(text.clone()),
            read @ (Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
                read
            }
        },
        Kind::List(list) => {
            let item = |(n, item)| convert(item, &format!("{path}[{n}]"), is_text, warnings);
            Value::Array(list.iter().enumerate().map(item).collect())
        }
        Kind::Map(map) => {
            let mut members = Map::new();
            for (name, member) in map {
                let path = format!("{path}.{name}");
                let mut read = convert(member, &path, is_text || TEXTS.contains(&name.as_str()), warnings);
                if !is_text
                    && FLAGS.contains(&name.as_str())
                    && let Some(flag) = read.as_str().and_then(scalar::flag)
                {
                    read = Value::Bool(flag);
                }
                if !is_text
                    && NUMBERS.contains(&name.as_str())
                    && let Kind::Scalar { text, is_plain: true } = &member.kind
                    && let number @ Value::Number(_) = scalar::value(text)
                    && !number.is_f64()
                {
                    read = number;
                }
                members.insert(name.clone(), read);
            }
            Value::Object(members)
        }
    }
}

/// Whether a text is a number that has no place in JSON.
fn is_odd_number(text: &str) -> bool {
    let bare = text.trim_start_matches(['+', '-']);
    matches!(bare.to_ascii_lowercase().as_str(), ".inf" | ".nan")
        || (bare.len() > 18 && bare.chars().all(|c| c.is_ascii_digit() || c == '_'))
}

/// Whether Compose gives a container another text than the author wrote.
fn is_changed(text: &str, read: &Value) -> bool {
    let is_date = || {
        let day = text.get(..10).is_some_and(|day| day.parse::<jiff::civil::Date>().is_ok());
        day && (text.len() == 10 || text[10..].starts_with(['T', 't', ' ']))
    };
    match read {
        Value::Bool(flag) => flag.to_string() != *text,
        // A short fraction stays as it is; 1.0 becomes 1, and large numbers get an exponent.
        Value::Number(number) if number.is_f64() => {
            !number.as_f64().is_some_and(|number| number.to_string() == *text && number.abs() < 1e6)
        }
        Value::Number(number) => number.to_string() != *text,
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            is_date() || is_odd_number(text)
        }
    }
}

/// The value at `path`, e.g. `services.web.ports[0]`, or the nearest one around it.
pub(super) fn nearest<'n>(root: &'n Node, path: &str) -> &'n Node {
    let (mut node, mut rest) = (root, path);
    loop {
        let next = match &node.kind {
            Kind::Scalar { .. } => None,
            Kind::List(list) => rest
                .strip_prefix('[')
                .and_then(|text| text.split_once(']'))
                .and_then(|(number, rest)| Some((list.get(number.parse::<usize>().ok()?)?, rest))),
            Kind::Map(map) => {
                let name = rest.strip_prefix('.').unwrap_or(rest);
                let fits = |(key, member): &'n (String, Node)| {
                    let rest = name.strip_prefix(key.as_str())?;
                    (rest.is_empty() || rest.starts_with(['.', '['])).then_some((member, rest))
                };
                map.iter().filter_map(fits).min_by_key(|(_, rest)| rest.len())
            }
        };
        match next {
            Some((member, after)) => (node, rest) = (member, after),
            None => return node,
        }
    }
}
