//! Makes the paths of a model absolute that name files of the author's machine.
//!
//! Absolute sources of bind mounts name paths of the device. Relative ones name files of the author: [`RELATIVE`] keeps
//! where they are.

use std::path::Path;

use super::files::join;
use super::merge::pairs;
use super::node::{Kind, Map, Node, get_mut, set};

/// The member of a mount with the absolute path of its relative source.
pub(super) const RELATIVE: &str = "x-cotter-relative";

/// The member of a mount with its short form.
pub(super) const SHORT: &str = "x-cotter-short";

/// Makes relative paths begin at `base`.
pub(super) fn resolve(model: &mut Node, base: &Path) {
    let Some(sections) = model.as_map_mut() else { return };
    for section in ["configs", "secrets"] {
        for (_, entry) in members(sections, section) {
            if let Some(file) = entry.as_map_mut().and_then(|map| get_mut(map, "file")) {
                anchor(file, base);
            }
        }
    }
    for (_, service) in members(sections, "services") {
        let Some(fields) = service.as_map_mut() else { continue };
        for field in ["env_file", "label_file"] {
            let Some(node) = get_mut(fields, field) else { continue };
            match &mut node.kind {
                Kind::List(list) => list.iter_mut().for_each(|item| anchor_entry(item, base)),
                Kind::Map(_) | Kind::Scalar { .. } => anchor_entry(node, base),
            }
        }
        if let Some(Kind::List(mounts)) = get_mut(fields, "volumes").map(|node| &mut node.kind) {
            mounts.iter_mut().for_each(|mount| note_relative(mount, base));
        }
        let Some(build) = get_mut(fields, "build") else { continue };
        match &mut build.kind {
            Kind::Map(build) => {
                if let Some(context) = get_mut(build, "context") {
                    anchor_context(context, base);
                }
                if let Some(contexts) = get_mut(build, "additional_contexts") {
                    *contexts = pairs(std::mem::replace(contexts, Node::null(&contexts.place.clone())));
                }
                for (_, context) in members(build, "additional_contexts") {
                    anchor_context(context, base);
                }
            }
            Kind::Scalar { .. } => anchor_context(build, base),
            Kind::List(_) => {}
        }
    }
}

fn members<'m>(map: &'m mut Map, section: &str) -> impl Iterator<Item = &'m mut (String, Node)> {
    get_mut(map, section).and_then(Node::as_map_mut).into_iter().flatten()
}

/// Notes where the source of a mount is, if it is relative.
fn note_relative(mount: &mut Node, base: &Path) {
    let is_of_project = |source: &str| {
        let source = source.split(':').next().unwrap_or_default();
        let is_relative = source.starts_with(['.', '~']);
        is_relative || (Path::new(source).starts_with(base) && base.parent().is_some())
    };
    let place = mount.place.clone();
    if let Some(text) = mount.as_text().filter(|text| is_of_project(text)).map(str::to_owned) {
        let mut parts = text.splitn(3, ':');
        let (Some(source), Some(target)) = (parts.next(), parts.next()) else { return };
        let is_read_only = parts.next().is_some_and(|modes| modes.split(',').any(|mode| mode == "ro"));
        let members = [
            ("type", "bind"),
            ("source", source),
            ("target", target),
            ("read_only", if is_read_only { "true" } else { "false" }),
            (SHORT, &text),
            (RELATIVE, &join(base, source).display().to_string()),
        ];
        let map = members.into_iter().map(|(key, text)| (key.to_owned(), Node::text(text, &place))).collect();
        *mount = Node::map(map, &place);
        return;
    }
    let is_bind = mount.get("type").and_then(Node::as_text) == Some("bind");
    let is_plain = |source: &str| is_bind && !source.starts_with('/');
    let source = mount.get("source").and_then(Node::as_text);
    let source = source.filter(|source| is_of_project(source) || is_plain(source));
    let Some(path) = source.map(|source| join(base, source).display().to_string()) else { return };
    if let Some(map) = mount.as_map_mut().filter(|map| super::node::get(map, RELATIVE).is_none()) {
        set(map, RELATIVE, Node::text(path, &place));
    }
}

fn anchor_entry(node: &mut Node, base: &Path) {
    match node.as_map_mut() {
        Some(map) => get_mut(map, "path").into_iter().for_each(|path| anchor(path, base)),
        None => anchor(node, base),
    }
}

fn anchor(node: &mut Node, base: &Path) {
    if let Some(path) = node.as_text().filter(|path| !path.is_empty()) {
        *node = Node::text(join(base, path).display().to_string(), &node.place.clone());
    }
}

/// A context may also be an address, an image or a service.
fn anchor_context(node: &mut Node, base: &Path) {
    if node.as_text().is_some_and(|text| !is_address(text)) {
        anchor(node, base);
    }
}

/// Whether the context of a build is not a path.
pub(super) fn is_address(context: &str) -> bool {
    context.contains("://")
        || ["git@", "github.com/", "service:"].iter().any(|start| context.starts_with(start))
}
