//! The fields of a build that become options one by one: how each is written, and its values.

use std::path::Path;

use super::super::files;
use super::super::node::{Kind, Node};
use super::super::paths::is_address;
use super::super::scalar;
use super::{Field, Reader};

/// How a field is written.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Text,
    /// `true` is a value; `false` is none.
    Switch,
    Texts,
    /// `NAME=value`, as a list or a map.
    Pairs,
    /// As `Pairs`; a value is a folder or an address.
    Contexts,
    /// `host:address`, as a list or a map.
    Hosts,
    /// Limits by their name, each a number or a soft and a hard one.
    Limits,
    /// An id, or `id=path`, as a list or a map.
    Keys,
}

/// The fields of `build` that become options one by one, besides those that [`super::Build`] names.
pub const FIELDS: &[&str] = &[
    "additional_contexts",
    "cache_from",
    "cache_to",
    "entitlements",
    "extra_hosts",
    "labels",
    "network",
    "no_cache",
    "no_cache_filter",
    "privileged",
    "provenance",
    "pull",
    "sbom",
    "shm_size",
    "ssh",
    "tags",
    "target",
    "ulimits",
];

fn shape(field: &str) -> Shape {
    match field {
        "additional_contexts" => Shape::Contexts,
        "extra_hosts" => Shape::Hosts,
        "labels" => Shape::Pairs,
        "no_cache" | "privileged" | "pull" => Shape::Switch,
        "ssh" => Shape::Keys,
        "ulimits" => Shape::Limits,
        "cache_from" | "cache_to" | "entitlements" | "no_cache_filter" | "tags" => Shape::Texts,
        _ => Shape::Text,
    }
}

impl Reader<'_> {
    pub(super) fn field(&mut self, name: &'static str, node: &Node, fields: &mut Vec<Field>) {
        let values = match shape(name) {
            Shape::Text => vec![self.text(name, node)],
            Shape::Switch => match node.as_text().and_then(scalar::flag) {
                Some(true) => vec!["true".to_owned()],
                Some(false) => Vec::new(),
                None => {
                    self.refuse(&node.place, name, "it is neither true nor false: write one of them");
                    Vec::new()
                }
            },
            Shape::Texts => self.texts(name, node),
            Shape::Pairs => {
                let members = self.members(name, node);
                let text = |(key, value): &(String, Node)| {
                    let value = if value.is_null() {
                        String::new()
                    } else {
                        self.text(&format!("{name}.{key}"), value)
                    };
                    format!("{key}={value}")
                };
                members.iter().map(text).collect()
            }
            Shape::Contexts => self.contexts(name, node),
            Shape::Hosts => self.hosts(name, node),
            Shape::Limits => self.limits(name, node),
            Shape::Keys => self.keys(name, node),
        };
        if !values.is_empty() {
            fields.push(Field { name, place: node.place.clone(), values });
        }
    }

    fn contexts(&mut self, name: &str, node: &Node) -> Vec<String> {
        let mut contexts = Vec::new();
        for (key, value) in self.members(name, node) {
            let field = format!("{name}.{key}");
            let context = self.text(&field, &value);
            if context.starts_with("service:") {
                let why = "docker's command line does not know services: name an image (docker-image://...) or a folder";
                self.refuse(&value.place, &field, why);
            } else if !is_address(&context) {
                self.check_folder(Path::new(&context), &value.place, &field);
            }
            contexts.push(format!("{key}={context}"));
        }
        contexts
    }

    fn hosts(&mut self, name: &str, node: &Node) -> Vec<String> {
        let host = |host: &str, address: &str| {
            let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
            format!("{host}:{address}")
        };
        let mut hosts = Vec::new();
        for (key, value) in node.as_map().into_iter().flatten() {
            let addresses = self.texts(name, value);
            hosts.extend(addresses.iter().map(|address| host(key, address)));
        }
        for text in if node.as_map().is_some() { Vec::new() } else { self.texts(name, node) } {
            match text.split_once(['=', ':']) {
                Some((name, address)) => hosts.push(host(name, address)),
                None => {
                    self.refuse(&node.place, name, format!("{text:?} has no address: write host=address"))
                }
            }
        }
        hosts
    }

    fn limits(&mut self, name: &str, node: &Node) -> Vec<String> {
        let mut limits = Vec::new();
        for (limit, value) in self.members(name, node) {
            match (value.as_text(), value.get("soft"), value.get("hard")) {
                (Some(both), _, _) => limits.push(format!("{limit}={both}")),
                (None, Some(soft), Some(hard)) => {
                    let (soft, hard) = (self.text(name, soft), self.text(name, hard));
                    limits.push(format!("{limit}={soft}:{hard}"));
                }
                (None, _, _) => {
                    self.refuse(&value.place, &format!("{name}.{limit}"), "write a number, or soft and hard");
                }
            }
        }
        limits
    }

    fn keys(&mut self, name: &str, node: &Node) -> Vec<String> {
        let node = if node.as_text().is_some() {
            Node::new(Kind::List(vec![node.clone()]), node.place.clone())
        } else {
            node.clone()
        };
        let mut keys = Vec::new();
        for (id, value) in self.members(name, &node) {
            if value.is_null() {
                keys.push(id);
                continue;
            }
            let path = self.text(name, &value);
            keys.push(format!("{id}={}", files::join(self.outside.directory, &path).display()));
        }
        keys
    }
}
