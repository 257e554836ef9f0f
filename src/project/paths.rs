//! Makes the paths of a model absolute that name files of the author's machine.
//!
//! Sources of bind mounts are not among them: they name paths of the device.

use std::path::Path;

use super::files::join;
use super::node::{Kind, Map, Node, get_mut};

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
        let Some(build) = get_mut(fields, "build") else { continue };
        match &mut build.kind {
            Kind::Map(build) => {
                if let Some(context) = get_mut(build, "context") {
                    anchor_context(context, base);
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
    let is_path =
        |text: &str| !text.contains("://") && !text.starts_with("git@") && !text.starts_with("service:");
    if node.as_text().is_some_and(is_path) {
        anchor(node, base);
    }
}
