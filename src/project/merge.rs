//! Merges a later file, or the service that extends another one, into what stands before. The rules are Compose's:
//! maps are merged, lists are appended, single values are replaced, and some fields have a rule of their own.

use std::collections::BTreeMap;

use super::error::Finding;
use super::node::{Kind, Map, Node, Tag, get, get_mut, remove, set};

/// How the values of a field are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Maps member by member, lists by appending, anything else by replacing.
    Usual,
    /// The later value replaces the earlier one.
    Replace,
    /// `NAME=value` lists and maps, name by name.
    Pairs,
    /// One text or a list of texts, appended.
    Texts,
    /// A list of names or a map with these names, name by name.
    Names,
    /// `depends_on`: as `Names`, where a name in a list has the default condition.
    Dependencies,
    /// `build`: a text is the context.
    Build,
    /// `logging`: options of another driver are not kept.
    Logging,
    /// `ipam.config`: by subnet.
    Subnets,
}

fn rule(path: &[String]) -> Rule {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["services", _, "command" | "entrypoint"] | ["services", _, "healthcheck", "test"] => Rule::Replace,
        ["services", _, "environment" | "labels" | "annotations" | "sysctls"]
        | ["services", _, "build", "args" | "labels" | "additional_contexts"]
        | ["services", _, "deploy", "labels"]
        | ["networks" | "volumes", _, "labels"] => Rule::Pairs,
        ["services", _, "dns" | "dns_opt" | "dns_search" | "env_file" | "label_file" | "tmpfs"]
        | ["services", _, "extra_hosts"]
        | ["services", _, "build", "extra_hosts"] => Rule::Texts,
        ["services", _, "networks" | "models"] => Rule::Names,
        ["services", _, "depends_on"] => Rule::Dependencies,
        ["services", _, "build"] => Rule::Build,
        ["services", _, "logging"] => Rule::Logging,
        ["networks", _, "ipam", "config"] => Rule::Subnets,
        _ => Rule::Usual,
    }
}

/// Merges `later` into `earlier`; `path` is where both stand.
pub(super) fn merge(earlier: Node, later: Node, path: &mut Vec<String>) -> Result<Node, Finding> {
    if later.tag == Tag::Override {
        return Ok(Node { tag: Tag::None, ..later });
    }
    let rule = rule(path);
    if rule == Rule::Replace {
        return Ok(later);
    }
    if later.is_null() {
        return Ok(earlier);
    }
    if earlier.is_null() {
        return Ok(later);
    }
    let place = later.place.clone();
    match rule {
        Rule::Pairs => Ok(overlay(pairs(earlier), pairs(later))),
        Rule::Names => merge_maps(names(earlier), names(later), path),
        Rule::Dependencies => merge_maps(dependencies(earlier), dependencies(later), path),
        Rule::Build => merge_maps(build(earlier), build(later), path),
        Rule::Texts => {
            let mut list = texts(earlier);
            for node in texts(later) {
                if list.iter().all(|present| present.kind != node.kind) {
                    list.push(node);
                }
            }
            Ok(Node::new(Kind::List(list), place))
        }
        Rule::Logging => {
            let driver = |node: &Node| node.get("driver").and_then(Node::as_text).map(str::to_owned);
            match (driver(&earlier), driver(&later)) {
                (Some(a), Some(b)) if a != b => Ok(later),
                _ => merge_maps(earlier, later, path),
            }
        }
        Rule::Subnets => subnets(earlier, later, path),
        Rule::Usual | Rule::Replace => match (earlier.kind, later.kind) {
            (Kind::List(mut list), Kind::List(more)) => {
                list.extend(more);
                Ok(Node::new(Kind::List(list), place))
            }
            (earlier_kind @ Kind::Map(_), later_kind @ Kind::Map(_)) => {
                let earlier = Node::new(earlier_kind, earlier.place);
                merge_maps(earlier, Node::new(later_kind, place), path)
            }
            // A limit may be one number in one file and soft and hard in the other.
            (Kind::Scalar { .. }, kind) => Ok(Node::new(kind, place)),
            (_, kind) if is_ulimit(path) => Ok(Node::new(kind, place)),
            (earlier_kind, later_kind) => Err(mismatch(&earlier_kind, &later_kind, &place, path)),
        },
    }
}

/// A later name replaces an earlier one, also if it has no value.
fn overlay(earlier: Node, later: Node) -> Node {
    let place = earlier.place.clone();
    let (Kind::Map(mut map), Kind::Map(more)) = (earlier.kind, later.kind) else {
        return Node::map(Map::new(), &place);
    };
    for (key, node) in more {
        if node.tag == Tag::Reset {
            remove(&mut map, &key);
        } else {
            set(&mut map, &key, node);
        }
    }
    Node::map(map, &place)
}

fn is_ulimit(path: &[String]) -> bool {
    path.len() == 4 && path[0] == "services" && path[2] == "ulimits"
}

fn mismatch(earlier: &Kind, later: &Kind, place: &super::error::Place, path: &[String]) -> Finding {
    let name = |kind: &Kind| Node::new(kind.clone(), place.clone()).kind_name();
    let why = format!(
        "it is {} here and {} in what it is merged into: write both alike, or tag this one with !override",
        name(later),
        name(earlier)
    );
    Finding::at(place, path.join("."), why)
}

fn merge_maps(earlier: Node, later: Node, path: &mut Vec<String>) -> Result<Node, Finding> {
    let place = earlier.place.clone();
    let (mut map, more) = match (earlier.kind, later.kind) {
        (Kind::Map(map), Kind::Map(more)) => (map, more),
        (earlier, later) => return Err(mismatch(&earlier, &later, &later_place(&later, &place), path)),
    };
    for (key, node) in more {
        if node.tag == Tag::Reset {
            remove(&mut map, &key);
            continue;
        }
        let node = match remove_keeping_position(&mut map, &key) {
            Some(present) => {
                path.push(key.clone());
                let merged = merge(present, node, path)?;
                path.pop();
                merged
            }
            None => node,
        };
        set(&mut map, &key, node);
    }
    Ok(Node::map(map, &place))
}

/// The place of a value whose kind does not fit: that of its first part, else that of what it is merged into.
fn later_place(kind: &Kind, other: &super::error::Place) -> super::error::Place {
    match kind {
        Kind::List(list) => list.first().map_or_else(|| other.clone(), |node| node.place.clone()),
        Kind::Map(map) => map.first().map_or_else(|| other.clone(), |(_, node)| node.place.clone()),
        Kind::Scalar { .. } => other.clone(),
    }
}

/// Takes a member out of a map, and leaves null in its position.
fn remove_keeping_position(map: &mut Map, key: &str) -> Option<Node> {
    let node = get_mut(map, key)?;
    let null = Node::null(&node.place);
    Some(std::mem::replace(node, null))
}

/// `NAME=value` texts as a map.
pub(super) fn pairs(node: Node) -> Node {
    let place = node.place.clone();
    let Kind::List(list) = node.kind else { return node };
    let mut map = Map::new();
    for item in list {
        let Some(text) = item.as_text() else { continue };
        match text.split_once('=') {
            Some((name, value)) => {
                let (name, value) = (name.to_owned(), Node::text(value, &item.place));
                set(&mut map, &name, value);
            }
            None => set(&mut map, text, Node::null(&item.place)),
        }
    }
    Node::map(map, &place)
}

fn names(node: Node) -> Node {
    let place = node.place.clone();
    let Kind::List(list) = node.kind else { return node };
    let name = |item: Node| item.as_text().map(|name| (name.to_owned(), Node::null(&item.place)));
    Node::map(list.into_iter().filter_map(name).collect(), &place)
}

/// `depends_on` as a map with conditions.
pub(super) fn dependencies(node: Node) -> Node {
    let place = node.place.clone();
    let Kind::List(list) = node.kind else { return node };
    let entry = |item: Node| {
        let name = item.as_text()?.to_owned();
        let condition = ("condition".to_owned(), Node::text("service_started", &item.place));
        Some((name, Node::map(vec![condition], &item.place)))
    };
    Node::map(list.into_iter().filter_map(entry).collect(), &place)
}

fn build(node: Node) -> Node {
    let place = node.place.clone();
    match node.as_text().map(str::to_owned) {
        Some(context) => Node::map(vec![("context".into(), Node::text(context, &place))], &place),
        None => node,
    }
}

fn texts(node: Node) -> Vec<Node> {
    match node.kind {
        Kind::List(list) => list,
        Kind::Map(map) => map
            .into_iter()
            .map(|(name, value)| match value.as_text() {
                Some(text) => Node::text(format!("{name}={text}"), &value.place),
                None => Node::text(name, &value.place),
            })
            .collect(),
        Kind::Scalar { .. } => vec![node],
    }
}

fn subnets(earlier: Node, later: Node, path: &mut Vec<String>) -> Result<Node, Finding> {
    let place = later.place.clone();
    let mut list = match (earlier.kind, &later.kind) {
        (Kind::List(list), Kind::List(_)) => list,
        (kind, later) => return Err(mismatch(&kind, later, &place, path)),
    };
    let subnet = |node: &Node| node.get("subnet").and_then(Node::as_text).map(str::to_owned);
    for node in texts(later) {
        match list.iter().position(|present| subnet(present) == subnet(&node)) {
            Some(at) => {
                let present = list.remove(at);
                list.insert(at, merge_maps(present, node, path)?);
            }
            None => list.push(node),
        }
    }
    Ok(Node::new(Kind::List(list), place))
}

/// Removes what is tagged `!reset`, and all tags.
pub(super) fn drop_tags(node: &mut Node) {
    node.tag = Tag::None;
    match &mut node.kind {
        Kind::Scalar { .. } => {}
        Kind::List(list) => {
            list.retain(|item| item.tag != Tag::Reset);
            list.iter_mut().for_each(drop_tags);
        }
        Kind::Map(map) => {
            map.retain(|(_, value)| value.tag != Tag::Reset);
            map.iter_mut().for_each(|(_, value)| drop_tags(value));
        }
    }
}

/// Removes entries of lists that a later one for the same target replaces, in the services of a model. It is for what
/// has been merged: within one file, two entries for one target are a mistake.
pub(super) fn drop_replaced(model: &mut Node) {
    let Some(services) = model.as_map_mut().and_then(|map| get_mut(map, "services")) else { return };
    services.as_map_mut().into_iter().flatten().for_each(|(_, service)| drop_replaced_of(service));
}

/// As [`drop_replaced`], for one service.
pub(super) fn drop_replaced_of(service: &mut Node) {
    for (field, node) in service.as_map_mut().into_iter().flatten() {
        if field == "networks" {
            for (_, network) in node.as_map_mut().into_iter().flatten() {
                for (field, list) in network.as_map_mut().into_iter().flatten() {
                    if field == "aliases" || field == "link_local_ips" {
                        unique(list, name_of_pair);
                    }
                }
            }
        } else if let Some(key) = identity(field) {
            unique(node, key);
        }
    }
}

type Identity = fn(&Node) -> Option<String>;

/// What makes two entries of a field the same.
fn identity(field: &str) -> Option<Identity> {
    match field {
        "annotations" | "cap_add" | "cap_drop" | "dns" | "dns_opt" | "dns_search" | "environment"
        | "expose" | "labels" | "links" | "profiles" | "sysctls" | "tmpfs" => Some(name_of_pair),
        "volumes" => Some(volume_target),
        "devices" => Some(device_target),
        "ports" => Some(port),
        "env_file" => Some(|node| node.get("path").unwrap_or(node).as_text().map(str::to_owned)),
        "configs" | "secrets" => Some(|node| {
            let target = node.get("target").or_else(|| node.get("source")).unwrap_or(node);
            target.as_text().map(str::to_owned)
        }),
        _ => None,
    }
}

fn unique(node: &mut Node, identity: Identity) {
    let Kind::List(list) = &mut node.kind else { return };
    let mut positions: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept: Vec<Node> = Vec::with_capacity(list.len());
    for item in std::mem::take(list) {
        let Some(key) = identity(&item) else {
            kept.push(item);
            continue;
        };
        if let Some(at) = positions.get(&key) {
            kept[*at] = item;
        } else {
            positions.insert(key, kept.len());
            kept.push(item);
        }
    }
    *list = kept;
}

fn name_of_pair(node: &Node) -> Option<String> {
    let text = node.as_text()?;
    Some(text.split_once('=').map_or(text, |(name, _)| name).to_owned())
}

fn volume_target(node: &Node) -> Option<String> {
    if let Some(target) = node.get("target") {
        return target.as_text().map(clean);
    }
    let text = node.as_text()?;
    let mut parts = text.split(':');
    let first = parts.next()?;
    Some(clean(parts.next().unwrap_or(first)))
}

/// A path without its last slash.
fn clean(path: &str) -> String {
    let bare = path.trim_end_matches('/');
    if bare.is_empty() { "/".to_owned() } else { bare.to_owned() }
}

fn device_target(node: &Node) -> Option<String> {
    if let Some(target) = node.get("target") {
        return target.as_text().map(str::to_owned);
    }
    let text = node.as_text()?;
    let mut parts = text.split(':');
    let first = parts.next()?;
    Some(parts.next().unwrap_or(first).to_owned())
}

/// `address:published:target/protocol`
fn port(node: &Node) -> Option<String> {
    let member = |name: &str| node.get(name).and_then(Node::as_text);
    if let Kind::Map(map) = &node.kind {
        let target = get(map, "target").and_then(Node::as_text)?;
        let (address, published) =
            (member("host_ip").unwrap_or("0.0.0.0"), member("published").unwrap_or_default());
        return Some(format!("{address}:{published}:{target}/{}", member("protocol").unwrap_or("tcp")));
    }
    let text = node.as_text()?;
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let mut parts = ports.rsplitn(3, ':');
    let target = parts.next()?;
    let published = parts.next().unwrap_or_default();
    let address = parts.next().filter(|address| !address.is_empty()).unwrap_or("0.0.0.0");
    Some(format!("{address}:{published}:{target}/{protocol}"))
}
