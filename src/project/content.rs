//! Takes the content of `configs` and `secrets` into the services that use them, because devices do not have the
//! author's files.

use super::error::Finding;
use super::files;
use super::model::{Loader, Values};
use super::node::{Kind, Map, Node, get, remove, set};
use super::paths::{RELATIVE, SHORT};
use std::path::{Path, PathBuf};

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
    let definition = definition
        .ok_or_else(|| format!("there is no {name} under {field}: declare it, or correct the name"))?;
    let content = content(definition, field, name, loader, values)?;
    let bytes = content.as_text().map_or(0, str::len);
    if bytes > MOST_BYTES {
        return Err(format!(
            "{field}.{name} has {bytes} bytes, and {MOST_BYTES} are accepted: put it into the image"
        ));
    }
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
    let text = match origin(definition, field, name, values)? {
        Origin::Text(text) => text,
        Origin::File(file) => {
            let shown = files::shown(&file, &loader.directory);
            loader.files.read(&file).map_err(|why| format!("{shown}: {why}"))?
        }
    };
    Ok(Node::text(text, &definition.place))
}

/// Where the content of a config or secret is.
pub(super) enum Origin {
    Text(String),
    File(PathBuf),
}

/// Reads where the content of the config or secret `name` is. `field` is the section in which it is declared.
///
/// # Errors
///
/// Why it has none.
pub(super) fn origin(definition: &Node, field: &str, name: &str, values: &Values) -> Result<Origin, String> {
    let member = |key: &str| definition.get(key).and_then(Node::as_text);
    if definition.get("external").is_some_and(|external| external.is_true() || external.as_map().is_some()) {
        return Err(format!("{field}.{name} is external, and is not here: give its content or its file"));
    }
    match (member("content"), member("file"), member("environment")) {
        (Some(content), None, None) => Ok(Origin::Text(content.to_owned())),
        (None, Some(file), None) => Ok(Origin::File(PathBuf::from(file))),
        (None, None, Some(variable)) => values.get(variable).cloned().map(Origin::Text).ok_or_else(|| {
            format!("the variable {variable} has no value: set it in the environment or in the file .env")
        }),
        (None, None, None) => {
            Err(format!("{field}.{name} has no content: write content, file or environment"))
        }
        _ => Err(format!("{field}.{name} has several contents: write one of content, file and environment")),
    }
}

/// Maximum number of files of a folder that is taken into a release.
const MOST_FILES: usize = 100;

/// Maximum number of bytes of what one mount takes into a release: what devices accept for a service.
const MOST_BYTES: usize = 131_072;

/// Replaces read-only mounts of the author's own files by entries of `configs` with their content. Other relative
/// mounts stay as they are written.
pub(super) fn inline_mounts(fields: &mut Map, path: &str, loader: &mut Loader, wrong: &mut Vec<Finding>) {
    let Some(Kind::List(mounts)) = get(fields, "volumes").map(|node| node.kind.clone()) else { return };
    let mut kept = Vec::new();
    let mut files = Vec::new();
    let place = get(fields, "volumes").map(|node| node.place.clone());
    for (n, mut mount) in mounts.into_iter().enumerate() {
        let Some(map) = mount.as_map_mut() else {
            kept.push(mount);
            continue;
        };
        let relative = remove(map, RELATIVE);
        let short = remove(map, SHORT);
        let as_written = short.map(|short| Node::new(short.kind, mount.place.clone()));
        let path = format!("{path}.volumes[{n}]");
        let is_read_only = mount.get("read_only").is_some_and(Node::is_true);
        let target = mount.get("target").and_then(Node::as_text).unwrap_or_default();
        let source = relative.as_ref().and_then(Node::as_text);
        let is_absolute =
            mount.get("source").and_then(Node::as_text).is_some_and(|text| text.starts_with('/'));
        match source {
            Some(source) if is_read_only => match contents(Path::new(source), target, loader, &mount) {
                Ok(taken) => {
                    let why = format!(
                        "devices do not have the files of the project: their content goes into the release ({})",
                        names(&taken)
                    );
                    loader.warnings.push(Finding::at(&mount.place, path, why));
                    files.extend(taken);
                }
                Err(why) => wrong.push(Finding::at(&mount.place, path, why)),
            },
            Some(_) if is_absolute => {
                let why = "it is a folder or file of the project, which devices do not have: use a named volume, put the \
                           files into the image, or mount small files read-only (\":ro\")";
                wrong.push(Finding::at(&mount.place, path, why));
            }
            Some(_) | None => kept.push(as_written.unwrap_or(mount)),
        }
    }
    let Some(place) = place else { return };
    if kept.is_empty() {
        remove(fields, "volumes");
    } else {
        set(fields, "volumes", Node::new(Kind::List(kept), place.clone()));
    }
    if files.is_empty() {
        return;
    }
    let mut all = get(fields, "configs").and_then(Node::as_list).map(<[Node]>::to_vec).unwrap_or_default();
    all.extend(files);
    set(fields, "configs", Node::new(Kind::List(all), place));
}

/// The names of files, the first ones of many.
fn names(files: &[Node]) -> String {
    const MOST: usize = 5;
    let named = files.iter().filter_map(|file| file.get("source").and_then(Node::as_text));
    let mut shown: Vec<&str> = named.take(MOST).collect();
    if files.len() > MOST {
        shown.push("…");
    }
    format!("{}: {}", files.len(), shown.join(", "))
}

/// The files at `source`, as entries of `configs` at `target`.
///
/// # Errors
///
/// Why they cannot be taken into a release.
fn contents(source: &Path, target: &str, loader: &mut Loader, mount: &Node) -> Result<Vec<Node>, String> {
    let shown = |path: &Path| files::shown(path, &loader.directory).to_string();
    let failed = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", shown(path));
    let too_much = || {
        format!(
            "it has more than {MOST_FILES} files or {MOST_BYTES} bytes, which is more than a release takes: put them into \
             the image"
        )
    };
    let mut found = Vec::new();
    let mut folders = vec![(source.to_owned(), PathBuf::from(target))];
    let mut bytes = 0;
    while let Some((source, target)) = folders.pop() {
        // Not even the names in a folder outside are looked at.
        loader.files.check_inside(&source).map_err(|why| failed(&source, &why))?;
        if source.is_dir() {
            let entries = std::fs::read_dir(&source).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let mut entries = entries.map_err(|error| failed(&source, &error))?;
            if entries.len() + found.len() + folders.len() > MOST_FILES {
                return Err(too_much());
            }
            let is_hidden = |entry: &&std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
            if let Some(hidden) = entries.iter().find(is_hidden) {
                return Err(format!(
                    "it has {}, which may not be meant for devices: mount its files one by one, or move that one away",
                    shown(&hidden.path())
                ));
            }
            entries.sort_by_key(std::fs::DirEntry::file_name);
            folders.extend(entries.iter().rev().map(|entry| (entry.path(), target.join(entry.file_name()))));
            continue;
        }
        found.push((source, target));
    }
    let mut taken = Vec::new();
    for (source, target) in found {
        let name = files::shown(&source, &loader.directory).to_string();
        let content = loader.files.read(&source).map_err(|why| format!("{name}: {why}"))?;
        bytes += content.len();
        if bytes > MOST_BYTES {
            return Err(too_much());
        }
        taken.push(
            entry(&source, &target, content, mount)
                .ok_or_else(|| format!("{name}: its name is not UTF-8"))?,
        );
    }
    if taken.is_empty() { Err("it is an empty folder: use a named volume".into()) } else { Ok(taken) }
}

/// A file with the permissions that Git would keep, so that each author makes the same release.
fn entry(source: &Path, target: &Path, content: String, mount: &Node) -> Option<Node> {
    use std::os::unix::fs::PermissionsExt;
    let is_program = std::fs::metadata(source).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0);
    let name = source.file_name()?.to_str()?;
    let text = |text: &str| Node::text(text, &mount.place);
    let members = vec![
        ("source".into(), text(name)),
        ("target".into(), text(target.to_str()?)),
        ("content".into(), Node::text(content, &mount.place)),
        ("mode".into(), text(if is_program { "0755" } else { "0644" })),
    ];
    Some(Node::map(members, &mount.place))
}
