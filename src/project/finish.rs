//! Turns a merged model into what a release needs: profiles, replicas and files of variables are applied, and what
//! only concerns the author's machine is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::env_file::Format;
use super::error::{Finding, Place};
use super::files;
use super::merge::{dependencies, pairs};
use super::model::{Loader, Values, texts_of};
use super::node::{Kind, Map, Node, get, get_mut, remove, set};

/// Why a service is not a part of the release.
#[derive(Debug, Clone, Copy)]
enum Absence {
    Profile,
    Replicas,
}

/// Applies to the model all that depends on the author's machine. Returns all errors.
pub(super) fn apply(
    model: &mut Node,
    loader: &mut Loader,
    values: &Values,
    profiles: &BTreeSet<String>,
) -> Vec<Finding> {
    let mut wrong = Vec::new();
    check_sections(model, &mut wrong);
    let Some(sections) = model.as_map_mut() else { return wrong };
    let (configs, secrets) = (remove(sections, "configs"), remove(sections, "secrets"));
    for (name, network) in get_mut(sections, "networks").and_then(Node::as_map_mut).into_iter().flatten() {
        replace_external(name, network, loader);
        drop_name(network);
    }
    for (_, volume) in get_mut(sections, "volumes").and_then(Node::as_map_mut).into_iter().flatten() {
        drop_name(volume);
    }
    let Some(services) = get_mut(sections, "services") else { return wrong };
    let place = services.place.clone();
    let Some(services) = services.as_map_mut() else { return wrong };
    leave_out(services, profiles, &mut wrong);
    if services.is_empty() && wrong.is_empty() {
        let why = "no service is chosen: choose a profile with --profile, or give a service a replica";
        wrong.push(Finding::at(&place, "services", why));
        return wrong;
    }
    for (name, service) in services.iter_mut() {
        let path = format!("services.{name}");
        let Some(fields) = service.as_map_mut() else { continue };
        for field in ["profiles", "extends"] {
            remove(fields, field);
        }
        // One of each is what a device runs.
        if get(fields, "scale").and_then(Node::as_text) == Some("1") {
            remove(fields, "scale");
        }
        depend_on_links(fields);
        wrong.extend(variables(fields, &path, loader, values).err());
        wrong.extend(labels(fields, &path, loader, values).err());
        for (field, declared) in [("configs", &configs), ("secrets", &secrets)] {
            super::content::inline(fields, field, declared.as_ref(), &path, loader, values, &mut wrong);
        }
        super::content::inline_mounts(fields, &path, loader, &mut wrong);
    }
    wrong
}

/// Refuses what is not a section of a compose file, and sections that are not maps.
fn check_sections(model: &mut Node, wrong: &mut Vec<Finding>) {
    let start = model.place.clone();
    let Some(sections) = model.as_map_mut() else { return };
    sections.retain(|(name, node)| {
        let is_known = matches!(name.as_str(), "services" | "networks" | "volumes" | "configs" | "secrets");
        if is_known {
            if node.as_map().is_none() && !node.is_null() {
                let why = "it is not a map: write names with their fields below";
                wrong.push(Finding::at(&node.place, name, why));
            }
            return true;
        }
        let is_ignored =
            matches!(name.as_str(), "version" | "name") || name.starts_with("x-") || node.is_null();
        if !is_ignored {
            let why = "it is not supported: write services, networks, volumes, configs and secrets only";
            wrong.push(Finding::at(&node.place, name, why));
        }
        false
    });
    let services = get(sections, "services").and_then(Node::as_map);
    if wrong.is_empty() && services.is_none_or(Vec::is_empty) {
        let place = get(sections, "services").map_or(&start, |node| &node.place);
        wrong.push(Finding::at(place, "services", "there is no service: write at least one, with an image"));
        return;
    }
    for (name, service) in services.into_iter().flatten() {
        if service.as_map().is_none() {
            let why = "it is not a map: write its fields below, image at least";
            wrong.push(Finding::at(&service.place, format!("services.{name}"), why));
        }
    }
}

fn is_external(node: &Node) -> bool {
    node.get("external").is_some_and(|external| external.is_true() || external.as_map().is_some())
}

/// Replaces a network that is outside of the project by one of the app's own, with a warning: a device has no other, and
/// most projects have it only because their services were in several files. A volume has data, so an external one stays
/// and is refused.
fn replace_external(name: &str, network: &mut Node, loader: &mut Loader) {
    if !is_external(network) {
        return;
    }
    let place = network.get("external").map_or(&network.place, |external| &external.place).clone();
    let why =
        "on a device the app gets a network of its own in its place; services of other apps are not on it";
    loader.warnings.push(Finding::at(&place, format!("networks.{name}.external"), why));
    if let Some(fields) = network.as_map_mut() {
        for field in ["external", "name"] {
            remove(fields, field);
        }
    }
}

/// The agent names networks and volumes, so that the data of an app stays its own.
fn drop_name(node: &mut Node) {
    let is_external = is_external(node);
    if let Some(fields) = node.as_map_mut().filter(|_| !is_external) {
        remove(fields, "name");
        remove(fields, "external");
    }
}

/// Leaves out the services of other profiles, and those with no replica.
fn leave_out(services: &mut Map, profiles: &BTreeSet<String>, wrong: &mut Vec<Finding>) {
    let mut absent: BTreeMap<String, Absence> = BTreeMap::new();
    for (name, service) in services.iter() {
        let own = service.get("profiles").map(texts_of).unwrap_or_default();
        let is_chosen =
            own.is_empty() || profiles.contains("*") || own.iter().any(|own| profiles.contains(*own));
        let replicas =
            service.get("scale").or_else(|| service.get("deploy").and_then(|deploy| deploy.get("replicas")));
        if !is_chosen {
            absent.insert(name.clone(), Absence::Profile);
        } else if replicas.and_then(Node::as_text) == Some("0") {
            absent.insert(name.clone(), Absence::Replicas);
        }
    }
    services.retain(|(name, _)| !absent.contains_key(name));
    for (name, service) in services.iter_mut() {
        let Some(fields) = service.as_map_mut() else { continue };
        let Some(node) = get_mut(fields, "depends_on") else { continue };
        let names = match &node.kind {
            Kind::Map(map) => map.iter().map(|(name, _)| name.clone()).collect(),
            Kind::List(_) | Kind::Scalar { .. } => {
                texts_of(node).into_iter().map(str::to_owned).collect::<Vec<_>>()
            }
        };
        if !names.iter().any(|name| absent.contains_key(name)) {
            continue;
        }
        *node = dependencies(std::mem::replace(node, Node::null(&node.place.clone())));
        let Some(map) = node.as_map_mut() else { continue };
        map.retain(|(other, condition)| match absent.get(other) {
            None | Some(Absence::Replicas) => !absent.contains_key(other),
            Some(Absence::Profile) => {
                let is_required = condition
                    .get("required")
                    .and_then(Node::as_text)
                    .is_none_or(|text| super::scalar::flag(text) != Some(false));
                if is_required {
                    let why = format!(
                        "{other} is not in the release, because none of its profiles is chosen: choose one with \
                         --profile, or write \"required: false\""
                    );
                    wrong.push(Finding::at(&condition.place, format!("services.{name}.depends_on.{other}"), why));
                }
                false
            }
        });
        if map.is_empty() {
            remove(fields, "depends_on");
        }
    }
}

/// A service starts after those that it links to, as with Compose.
fn depend_on_links(fields: &mut Map) {
    let Some(links) = get(fields, "links").filter(|links| links.as_list().is_some()) else { return };
    let place = links.place.clone();
    let names: Vec<String> = texts_of(links)
        .into_iter()
        .map(|link| link.split_once(':').map_or(link, |(name, _)| name).to_owned())
        .collect();
    let mut node =
        dependencies(remove(fields, "depends_on").unwrap_or_else(|| Node::map(Map::new(), &place)));
    if let Some(map) = node.as_map_mut() {
        for name in names {
            if get(map, &name).is_none() {
                let condition = vec![("condition".to_owned(), Node::text("service_started", &place))];
                map.push((name, Node::map(condition, &place)));
            }
        }
    }
    set(fields, "depends_on", node);
}

/// Writes the variables of `env_file` into `environment`, whose own ones win.
fn variables(fields: &mut Map, path: &str, loader: &mut Loader, values: &Values) -> Result<(), Finding> {
    let Some(files) = remove(fields, "env_file").filter(|files| !is_empty(files)) else { return Ok(()) };
    let own = take_pairs(fields, "environment", &files.place);
    let value_of = |node: &Node| node.as_text().map(str::to_owned);
    // A file may refer to variables of the project, then of the service, then of the files before.
    let mut read: Values =
        own.iter().filter_map(|(name, node)| Some((name.clone(), value_of(node)?))).collect();
    let mut outer = read.clone();
    outer.extend(values.clone());
    let path = format!("{path}.env_file");
    read_files(&files, &path, loader, &outer, &mut read)?;
    set(fields, "environment", below(read, own, &files.place));
    Ok(())
}

/// The variables that were read from files, and over them a service's own ones.
fn below(read: Values, own: Map, place: &Place) -> Node {
    let mut all: Map = read.into_iter().map(|(name, value)| (name, Node::text(value, place))).collect();
    for (name, node) in own {
        set(&mut all, &name, node);
    }
    Node::map(all, place)
}

/// The `NAME=value` entries of a field, which is taken out.
fn take_pairs(fields: &mut Map, field: &str, place: &Place) -> Map {
    let node = remove(fields, field).map_or_else(|| Node::map(Map::new(), place), pairs);
    match node.kind {
        Kind::Map(map) => map,
        Kind::List(_) | Kind::Scalar { .. } => Map::new(),
    }
}

/// Writes the labels of `label_file` into `labels`, whose own ones win.
fn labels(fields: &mut Map, path: &str, loader: &mut Loader, values: &Values) -> Result<(), Finding> {
    let Some(files) = remove(fields, "label_file").filter(|files| !is_empty(files)) else { return Ok(()) };
    let own = take_pairs(fields, "labels", &files.place);
    let mut read = Values::new();
    read_files(&files, &format!("{path}.label_file"), loader, values, &mut read)?;
    set(fields, "labels", below(read, own, &files.place));
    Ok(())
}

fn is_empty(node: &Node) -> bool {
    match &node.kind {
        Kind::Scalar { text, .. } => node.is_null() || text.is_empty(),
        Kind::List(list) => list.is_empty(),
        Kind::Map(map) => map.is_empty(),
    }
}

fn read_files(
    node: &Node,
    path: &str,
    loader: &mut Loader,
    outer: &Values,
    read: &mut Values,
) -> Result<(), Finding> {
    let entries = node.as_list().unwrap_or(std::slice::from_ref(node));
    for entry in entries {
        let wrong = |why: String| Finding::at(&entry.place, path, why);
        let Some(file) = entry.get("path").unwrap_or(entry).as_text() else {
            return Err(wrong("it has no path: write the path of a file".into()));
        };
        let format = match entry.get("format").and_then(Node::as_text) {
            None => Format::Usual,
            Some("raw") => Format::Raw,
            Some(other) => return Err(wrong(format!("{other:?} is no format: write \"raw\", or remove it"))),
        };
        let is_required = entry
            .get("required")
            .and_then(Node::as_text)
            .is_none_or(|text| super::scalar::flag(text) != Some(false));
        let file = Path::new(file);
        if !is_required && !file.exists() {
            continue;
        }
        let shown: Arc<str> = files::shown(file, &loader.directory);
        let text = loader.files.read(file).map_err(|why| wrong(format!("{shown}: {why}")))?;
        loader.read_variables(&text, &shown, format, outer, read)?;
    }
    Ok(())
}

/// The services without an image. `may_build` is whether images are built where a service says how.
pub(super) fn check_images(
    services: &BTreeMap<String, serde_json::Map<String, Value>>,
    built: &BTreeSet<String>,
    may_build: bool,
    place: &dyn Fn(&str) -> Place,
) -> Vec<Finding> {
    let mut wrong = Vec::new();
    for (name, fields) in services {
        let path = format!("services.{name}");
        let mut refuse = |part: &str, why: &str| {
            let path = format!("{path}{part}");
            wrong.push(Finding::at(&place(&path), path.clone(), why));
        };
        match fields.get("image") {
            Some(Value::String(image)) if image.is_empty() && !built.contains(name) => {
                refuse(".image", "it is empty: name the image")
            }
            Some(Value::String(image)) if !image.is_empty() => {}
            Some(Value::Null | Value::String(_)) | None if may_build && built.contains(name) => {}
            Some(Value::Null | Value::String(_)) | None if built.contains(name) => refuse(
                ".build",
                "images are not built here: use `cotter push`, which builds them, or build and push it and name the image",
            ),
            Some(Value::Null | Value::String(_)) | None => refuse("", "it has no image: name one"),
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                refuse(".image", "it is not a text: name the image");
            }
        }
    }
    wrong
}
