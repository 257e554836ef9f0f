//! Takes the content of `configs` and `secrets` into the services that use them, because devices do not have the
//! author's files.

use super::error::Finding;
use super::files;
use super::model::{Loader, Values};
use super::node::{Kind, Map, Node, get, remove, set};
use std::path::Path;

/// Replaces the entries of `field` (`configs` or `secrets`) by entries of `configs` that have their content.
pub(super) fn inline(
    fields: &mut Map,
    field: &str,
    declared: Option<&Node>,
    path: &str,
    loader: &mut Loader,
    values: &Values,
    wrong: &mut Vec<Finding>,
) {
    let Some(entries) = remove(fields, field) else { return };
    let path = format!("{path}.{field}");
    let Kind::List(entries_list) = &entries.kind else {
        if !entries.is_null() {
            wrong.push(Finding::at(&entries.place, path, "it is not a list: write names below"));
        }
        return;
    };
    let mut inlined = match get(fields, "configs").map(|node| &node.kind) {
        Some(Kind::List(list)) => list.clone(),
        Some(Kind::Map(_) | Kind::Scalar { .. }) | None => Vec::new(),
    };
    for (n, entry) in entries_list.iter().enumerate() {
        match one(entry, field, declared, loader, values) {
            Ok(node) => inlined.push(node),
            Err(why) => wrong.push(Finding::at(&entry.place, format!("{path}[{n}]"), why)),
        }
    }
    set(fields, "configs", Node::new(Kind::List(inlined), entries.place));
}

/// An entry with its content.
fn one(
    entry: &Node,
    field: &str,
    declared: Option<&Node>,
    loader: &mut Loader,
    values: &Values,
) -> Result<Node, String> {
    let name = entry.get("source").unwrap_or(entry).as_text().ok_or("it has no source: write a name")?;
    let definition = declared.and_then(|declared| declared.get(name));
    let definition =
        definition.ok_or_else(|| format!("there is no {name} under {field}: declare it, or correct the name"))?;
    let content = content(definition, field, name, loader, values)?;
    let target = match entry.get("target").and_then(Node::as_text) {
        Some(target) if target.starts_with('/') || field == "configs" => target.to_owned(),
        Some(target) => format!("/run/secrets/{target}"),
        None if field == "configs" => format!("/{name}"),
        None => format!("/run/secrets/{name}"),
    };
    let mut members: Map = vec![
        ("source".into(), Node::text(name, &entry.place)),
        ("target".into(), Node::text(target, &entry.place)),
        ("content".into(), content),
    ];
    for key in ["uid", "gid", "mode"] {
        members.extend(entry.get(key).map(|node| (key.to_owned(), node.clone())));
    }
    Ok(Node::map(members, &entry.place))
}

fn content(
    definition: &Node,
    field: &str,
    name: &str,
    loader: &mut Loader,
    values: &Values,
) -> Result<Node, String> {
    let member = |key: &str| definition.get(key).and_then(Node::as_text);
    if definition.get("external").is_some_and(|external| external.is_true() || external.as_map().is_some()) {
        return Err(format!("{field}.{name} is external, and devices do not have it: give its content or its file"));
    }
    match (member("content"), member("file"), member("environment")) {
        (Some(content), None, None) => Ok(Node::text(content, &definition.place)),
        (None, Some(file), None) => {
            let shown = files::shown(Path::new(file), &loader.directory);
            let text = loader.files.read(Path::new(file)).map_err(|why| format!("{shown}: {why}"))?;
            Ok(Node::text(text, &definition.place))
        }
        (None, None, Some(variable)) => match values.get(variable) {
            Some(value) => Ok(Node::text(value, &definition.place)),
            None => Err(format!("the variable {variable} has no value: set it in the environment or in the file .env")),
        },
        (None, None, None) => Err(format!("{field}.{name} has no content: write content, file or environment")),
        _ => Err(format!("{field}.{name} has several contents: write one of content, file and environment")),
    }
}
