//! Reads an author's docker-compose file for a new release.
//!
//! Accepts only what a device can run: every service names an image that is built and pushed, and nothing depends on the
//! author's own environment.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::bounds::{self, Taken};
use super::compose::at::path_line;
use super::compose::{self, Form};
use super::policy;
use super::state_v3::{ReleaseState, ServiceState};
use crate::model::{ImageRef, Policy, Refusal, ReleaseLimits};

/// Most bytes of a file.
const LONGEST: usize = 1 << 20;

/// The parts of a compose file, as JSON, with `$$` replaced by `$`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ComposeFile {
    /// The services' fields by name; each has an `image`.
    pub services: BTreeMap<String, Map<String, Value>>,
    pub networks: BTreeMap<String, Value>,
    pub volumes: BTreeMap<String, Value>,
    /// Top-level fields that are not honoured. [`check`] returns them, too.
    pub warnings: Vec<Refusal>,
}

/// An error in a compose file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// The line, from 1, if it was found.
    pub line: Option<usize>,
    /// E.g. `services.web.image`; empty for the complete file.
    pub key: String,
    /// The reason, with a remedy.
    pub why: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.why)
    }
}

impl std::error::Error for FileError {}

/// Parses the text of a compose file, of at most 1 MiB. Resolves anchors and `<<`; ignores `version` and `x-*`.
///
/// # Errors
///
/// All errors of its form: invalid YAML, a service without `image`, a variable (`${NAME}`), an unknown top-level field.
/// [`check`] checks the fields of services.
pub fn parse(text: &str) -> Result<ComposeFile, Vec<FileError>> {
    let mut document = document(text).map_err(|bad| vec![bad])?;
    let mut file = ComposeFile::default();
    let mut wrong = Vec::new();
    for (key, value) in &mut document {
        interpolate(key, value, &mut wrong);
    }
    for (key, value) in document {
        let section = match key.as_str() {
            "services" => services(value, &mut file, &mut wrong),
            "networks" => section(value).map(|section| file.networks = section),
            "volumes" => section(value).map(|section| file.volumes = section),
            "version" => Ok(()),
            "name" => {
                file.warnings.push(Refusal {
                    path: key.clone(),
                    why: "not honoured: the fleet has its own name".into(),
                });
                Ok(())
            }
            _ if key.starts_with("x-") || value.is_null() => Ok(()),
            "secrets" | "configs" => {
                Err("files and values of the author's machine are not part of a release: put \
                files into the image, and pass values in environment variables of the device or fleet"
                    .to_owned())
            }
            _ => Err("it is not supported: write services, networks and volumes only".to_owned()),
        };
        wrong.extend(section.err().map(|why| FileError { line: None, key, why }));
    }
    if file.services.is_empty() && wrong.is_empty() {
        let why = "there is no service: write at least one, with an image".into();
        wrong.push(FileError { line: None, key: "services".into(), why });
    }
    if wrong.is_empty() {
        return Ok(file);
    }
    for bad in &mut wrong {
        bad.line = line_of(text, &bad.key);
        bad.key = path_line(&bad.key);
    }
    wrong.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
    Err(wrong)
}

/// Checks whether devices accept the file with the resolved `images` of its services. Uses the code with which devices
/// read their target. Returns warnings.
///
/// # Errors
///
/// All refusals, with paths of the file, e.g. `services.web.ports[0]`.
pub fn check(file: &ComposeFile, images: &BTreeMap<String, ImageRef>) -> Result<Vec<Refusal>, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let mut release = ReleaseState {
        id: 0,
        services: BTreeMap::new(),
        networks: file.networks.clone(),
        volumes: file.volumes.clone(),
    };
    for (name, composition) in &file.services {
        let Some(image) = images.get(name) else {
            let why = "its image was not resolved: check the image's name and the registry".into();
            refusals.push(Refusal { path: format!("services.{name}.image"), why });
            continue;
        };
        release.services.insert(name.clone(), service(image, composition));
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let (contents, mut notes) = compose::read(&release, Form::File);
    let exceeded = |bounds: &ReleaseLimits| bounds::exceeded(&contents, Form::File, bounds, Taken::default());
    // No setting of a device can accept more.
    notes.refusals.extend(exceeded(&ReleaseLimits::HIGHEST));
    if notes.refusals.is_empty() {
        let mut allowed = policy::violations(&contents, Form::File, &Policy::default());
        allowed.extend(exceeded(&ReleaseLimits::default()));
        let mut warnings = file.warnings.clone();
        warnings.extend(notes.warnings);
        warnings.extend(allowed.into_iter().map(|Refusal { path, why }| Refusal {
            path,
            why: format!("devices refuse it unless their settings allow it: {why}"),
        }));
        Ok(warnings)
    } else {
        Err(notes.refusals)
    }
}

/// Makes a service as it would be in a target.
fn service(image: &ImageRef, composition: &Map<String, Value>) -> ServiceState {
    ServiceState {
        id: 0,
        image_id: 0,
        image: image.to_string(),
        running: true,
        environment: BTreeMap::new(),
        labels: BTreeMap::new(),
        contract: None,
        composition: composition.clone(),
    }
}

/// Converts the YAML text to a JSON map.
fn document(text: &str) -> Result<Map<String, Value>, FileError> {
    let whole = |line, why: String| FileError { line, key: String::new(), why };
    if text.len() > LONGEST {
        return Err(whole(
            None,
            format!("the file has {} bytes, and {LONGEST} are accepted: shorten it", text.len()),
        ));
    }
    let unreadable = |bad: &serde_norway::Error| {
        // The parser's message names Rust's largest number types.
        let why = bad.to_string().replace(" as u128", "").replace(" as i128", "");
        let why = why.replace("expected any YAML value", "expected a smaller number, or a text");
        whole(bad.location().map(|at| at.line()), format!("it is not valid YAML: {why}"))
    };
    let mut yaml: serde_norway::Value = serde_norway::from_str(text).map_err(|bad| unreadable(&bad))?;
    yaml.apply_merge().map_err(|bad| unreadable(&bad))?;
    let mut key = String::new();
    match json(yaml, &mut key) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(whole(None, "it is not a compose file: write services with their names below".into())),
        Err(why) => Err(FileError { line: line_of(text, &key), key: path_line(&key), why }),
    }
}

/// Converts YAML to JSON. After an error, `key` is the path of the value that cannot be converted.
fn json(yaml: serde_norway::Value, key: &mut String) -> Result<Value, String> {
    use serde_norway::Value as Yaml;
    let length = key.len();
    let value = match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => Value::Bool(flag),
        Yaml::String(text) => Value::String(text),
        Yaml::Number(number) => {
            number_of(&number).ok_or("it is not a number that is accepted: write it as a text")?
        }
        Yaml::Sequence(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (n, item) in items.into_iter().enumerate() {
                key.push_str(&format!("[{n}]"));
                list.push(json(item, key)?);
                key.truncate(length);
            }
            Value::Array(list)
        }
        Yaml::Mapping(members) => {
            let mut map = Map::new();
            for (name, member) in members {
                let name = match name {
                    Yaml::String(text) => text,
                    Yaml::Number(number) => number.to_string(),
                    Yaml::Bool(flag) => flag.to_string(),
                    Yaml::Null | Yaml::Sequence(_) | Yaml::Mapping(_) | Yaml::Tagged(_) => {
                        return Err("a name in it is not a text: write a text".into());
                    }
                };
                key.push_str(if length == 0 { "" } else { "." });
                key.push_str(&name);
                let member = json(member, key)?;
                key.truncate(length);
                map.insert(name, member);
            }
            Value::Object(map)
        }
        Yaml::Tagged(tagged) => return Err(format!("the tag {} is not supported: remove it", tagged.tag)),
    };
    Ok(value)
}

fn number_of(number: &serde_norway::Number) -> Option<Value> {
    let whole = number.as_u64().map(Value::from).or_else(|| number.as_i64().map(Value::from));
    whole.or_else(|| number.as_f64().and_then(serde_json::Number::from_f64).map(Value::Number))
}

fn section(value: Value) -> Result<BTreeMap<String, Value>, String> {
    match value {
        Value::Null => Ok(BTreeMap::new()),
        Value::Object(map) => Ok(map.into_iter().collect()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err("it is not a map: write names with their fields below".to_owned())
        }
    }
}

fn services(value: Value, file: &mut ComposeFile, wrong: &mut Vec<FileError>) -> Result<(), String> {
    for (name, value) in section(value)? {
        let mut refuse = |part: &str, why: &str| {
            let key = format!("services.{name}{part}");
            wrong.push(FileError { line: None, key, why: why.to_owned() });
        };
        let Value::Object(fields) = value else {
            refuse("", "it is not a map: write its fields below, image at least");
            continue;
        };
        match fields.get("image") {
            Some(Value::String(image)) if image.is_empty() => refuse(".image", "it is empty: name the image"),
            Some(Value::String(_)) => {}
            Some(_) => refuse(".image", "it is not a text: name the image"),
            None if fields.contains_key("build") => {
                refuse(".build", "images are not built here: build and push it, then name the image");
            }
            None => refuse("", "it has no image: name one"),
        }
        file.services.insert(name, fields);
    }
    Ok(())
}

/// Turns `$$` into `$`; notes every other use of `$`, since there is no environment to take values from.
fn interpolate(key: &str, value: &mut Value, wrong: &mut Vec<FileError>) {
    match value {
        Value::String(text) if text.contains('$') => match plain(text) {
            Ok(plain) => *text = plain,
            Err(variable) => wrong.push(FileError {
                line: None,
                key: key.to_owned(),
                why: format!(
                    "{variable:?} is not filled in, because a release is the same on every device: write the \
                     value, or set a variable of the fleet or device; write $$ for a plain $"
                ),
            }),
        },
        Value::Array(items) => {
            for (n, item) in items.iter_mut().enumerate() {
                interpolate(&format!("{key}[{n}]"), item, wrong);
            }
        }
        Value::Object(map) => {
            for (name, member) in map.iter_mut() {
                interpolate(&format!("{key}.{name}"), member, wrong);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The text with each `$$` as `$`, or the first variable in it, e.g. `${NAME`, without any default value.
fn plain(text: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..=at]);
        let after = &rest[at + 1..];
        let Some(next) = after.strip_prefix('$') else {
            let (open, name) = after.strip_prefix('{').map_or(("$", after), |name| ("${", name));
            let name: String = name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            let close = if open == "${" { "}" } else { "" };
            return Err(format!("{open}{name}{close}"));
        };
        rest = next;
    }
    plain.push_str(rest);
    Ok(plain)
}

/// The line on which a key stands, by its indentation: for a file in block style, as most are. The
/// line of the nearest key around it when the key itself is not found.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut lines = text.lines().enumerate();
    let (mut found, mut parent, mut rest) = (None, None, key);
    while !rest.is_empty() && !rest.starts_with('[') {
        let mut child = None;
        let hit = loop {
            let Some((n, line)) = lines.next() else { break None };
            let bare = line.trim_start();
            if bare.is_empty() || bare.starts_with('#') {
                continue;
            }
            let depth = line.len() - bare.len();
            if parent.is_some_and(|parent| depth <= parent) {
                break None;
            }
            if *child.get_or_insert(depth) == depth
                && let Some(taken) = key_of(bare, rest)
            {
                break Some((n + 1, depth, taken));
            }
        };
        let Some((line, depth, taken)) = hit else { break };
        (found, parent) = (Some(line), Some(depth));
        rest = rest[taken..].trim_start_matches('.');
    }
    found
}

/// How much of `path` the key of this line is; names may have dots in them.
fn key_of(line: &str, path: &str) -> Option<usize> {
    let (name, _) = line.split_once(':')?;
    let name = name.trim().trim_matches(['"', '\'']);
    let rest = path.strip_prefix(name).filter(|_| !name.is_empty())?;
    (rest.is_empty() || rest.starts_with(['.', '['])).then_some(name.len())
}

#[cfg(test)]
#[path = "compose_file_tests.rs"]
mod tests;
