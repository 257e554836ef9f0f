//! Reads the mounts of a service: volumes, paths of the host and tmpfs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::at::{At, Notes, is_nothing};
use crate::model::{Mount, MountOptions, MountSource, Refusal, ServiceSpec, VolumeName};
use crate::wire::units;

const SHORT: &str = "\"volume:/path\", \"volume:/path:ro\" or \"/path\"";
const TARGET: &str = "an absolute path in the container, other than \"/\" and without \"..\"";

/// Reads `volumes` and `tmpfs` into `spec`. Refuses a container path that is mounted twice.
pub(super) fn read(
    volumes: Option<&At<'_>>,
    tmpfs: Option<&At<'_>>,
    spec: &mut ServiceSpec,
    notes: &mut Notes,
) {
    let mut taken = BTreeSet::new();
    for item in volumes.and_then(|at| notes.keep(at.list())).unwrap_or_default() {
        let read = match item.value {
            Value::String(text) => short(&item, text, notes).map(Place::Mount),
            Value::Object(_) => long(&item, notes),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => Err(item.wrong(SHORT)),
        };
        if let Some(place) = notes.keep(read) {
            put(place, &item, &mut taken, spec, notes);
        }
    }
    for item in tmpfs.and_then(|at| notes.keep(at.text_or_list())).unwrap_or_default() {
        if let Some(place) = notes.keep(item.text().and_then(|text| tmpfs_line(&item, text))) {
            put(place, &item, &mut taken, spec, notes);
        }
    }
    spec.mounts.sort_by(|a, b| a.target.cmp(&b.target));
}

enum Place {
    Mount(Mount),
    Tmpfs { target: String, options: String },
}

fn put(place: Place, at: &At<'_>, taken: &mut BTreeSet<String>, spec: &mut ServiceSpec, notes: &mut Notes) {
    let target = match &place {
        Place::Mount(mount) => &mount.target,
        Place::Tmpfs { target, .. } => target,
    };
    if !taken.insert(target.clone()) {
        return notes.refuse(at.refusal(format_args!("{target:?} is mounted twice: remove one")));
    }
    match place {
        Place::Mount(mount) => spec.mounts.push(mount),
        Place::Tmpfs { target, options } => {
            spec.tmpfs.insert(target, options);
        }
    }
}

fn short(at: &At<'_>, text: &str, notes: &mut Notes) -> Result<Mount, Refusal> {
    let parts: Vec<&str> = text.split(':').map(str::trim).collect();
    let (source, target, modes) = match parts.as_slice() {
        [path] if path.starts_with('/') => ("", *path, ""),
        [source, target] => (*source, *target, ""),
        [source, target, modes] => (*source, *target, *modes),
        _ => return Err(at.wrong(SHORT)),
    };
    let source = if parts.len() == 1 { MountSource::Anonymous } else { source_of(at, source)? };
    let is_host = matches!(source, MountSource::Host(_));
    let (mut is_read_only, mut options) = (false, MountOptions::default());
    for mode in modes.split(',').filter(|mode| !mode.is_empty()) {
        match mode {
            "ro" => is_read_only = true,
            "rw" => is_read_only = false,
            "nocopy" if !is_host => options.has_no_copy = true,
            _ if is_host && PROPAGATIONS.contains(&mode) => options.propagation = Some(mode.to_owned()),
            "z" | "Z" | "cached" | "delegated" | "consistent" => {
                notes.warn(at.refusal(format_args!("the mode {mode:?} has no effect here")));
            }
            _ => return Err(at.wrong("\"ro\", \"rw\" or \"nocopy\" as the mode of a volume")),
        }
    }
    Ok(Mount { source, target: container_path(at, target)?, is_read_only, options })
}

/// The propagation modes of a mount.
const PROPAGATIONS: &[&str] = &["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// Reads a source: a path of the host, or the name of a volume.
fn source_of(at: &At<'_>, source: &str) -> Result<MountSource, Refusal> {
    if source.starts_with('/') {
        return host_path(at, source);
    }
    if source.starts_with(['.', '~']) || source.contains('/') || source.contains('\\') {
        let short: String = source.chars().take(60).collect();
        return Err(at.refusal(format_args!(
            "{short:?} is a path relative to the compose file, which devices do not have: use a named volume, put the \
             files into the image, or mount small files read-only (\":ro\"), and `cotter release create` takes their \
             content into the release"
        )));
    }
    VolumeName::parse(source).map(MountSource::Volume).map_err(|bad| at.refusal(bad))
}

/// Reads an absolute path of the host. The policy of the device decides later whether it may be mounted.
fn host_path(at: &At<'_>, source: &str) -> Result<MountSource, Refusal> {
    let bare = source.trim_end_matches('/');
    let is_fine = source.starts_with('/')
        && !bare.contains(['\0', ':'])
        && bare.split('/').all(|part| part != ".." && part != ".")
        && !bare.contains("//");
    if !is_fine {
        return Err(at.wrong("an absolute path of the host, without \"..\""));
    }
    Ok(MountSource::Host(if bare.is_empty() { "/".to_owned() } else { bare.to_owned() }))
}

fn long(at: &At<'_>, notes: &mut Notes) -> Result<Place, Refusal> {
    let fields = at.map()?;
    let field = |name: &str| fields.iter().find(|(key, _)| *key == name).map(|(_, field)| field);
    let kind = field("type").map_or(Ok("volume"), At::text)?;
    let source = field("source").map_or(Ok(""), At::text)?;
    if !matches!(kind, "volume" | "tmpfs" | "bind") {
        return Err(field("type").unwrap_or(at).wrong("\"volume\", \"tmpfs\" or \"bind\""));
    }
    let mut options = MountOptions::default();
    for (key, field) in &fields {
        match *key {
            "type" | "target" | "read_only" => {}
            "source" if kind != "tmpfs" => {}
            "volume" if kind == "volume" => volume_options(field, &mut options)?,
            "bind" if kind == "bind" => bind_options(field, &mut options, notes)?,
            "tmpfs" if kind == "tmpfs" => {}
            "consistency" => notes.warn(field.refusal("it has no effect here")),
            _ if is_nothing(field.value) => {}
            _ => return Err(field.unknown(format_args!("it is not a field of a {kind} mount: remove it"))),
        }
    }
    let target = field("target").ok_or_else(|| at.refusal("it has no target: write the container's path"))?;
    let target = container_path(target, target.text()?)?;
    let is_read_only = field("read_only").map_or(Ok(false), At::flag)?;
    if kind == "tmpfs" {
        let mut options = field("tmpfs").map_or(Ok(Vec::new()), tmpfs_options)?;
        options.extend(is_read_only.then(|| "ro".to_owned()));
        return Ok(Place::Tmpfs { target, options: options.join(",") });
    }
    let source = match (kind, source) {
        ("bind", path) => match source_of(at, path)? {
            MountSource::Host(path) => MountSource::Host(path),
            MountSource::Volume(_) | MountSource::Anonymous | MountSource::EngineSocket => {
                return Err(at.wrong("an absolute path of the host as source"));
            }
        },
        (_, "") => MountSource::Anonymous,
        (_, name) => VolumeName::parse(name).map(MountSource::Volume).map_err(|bad| at.refusal(bad))?,
    };
    Ok(Place::Mount(Mount { source, target, is_read_only, options }))
}

/// Reads `volume: { nocopy, subpath }` of the long form.
fn volume_options(at: &At<'_>, options: &mut MountOptions) -> Result<(), Refusal> {
    for (key, field) in at.map()? {
        match key {
            "nocopy" => options.has_no_copy = field.flag()?,
            "subpath" if is_nothing(field.value) => {}
            "subpath" => {
                let path = field.text()?;
                if path.starts_with('/') || path.split('/').any(|part| part == "..") {
                    return Err(field.wrong("a path within the volume, without \"..\""));
                }
                options.subpath = Some(path.to_owned());
            }
            _ if is_nothing(field.value) => {}
            _ => return Err(field.unknown("it is not supported: write nocopy or subpath only")),
        }
    }
    Ok(())
}

/// Reads `bind: { propagation, create_host_path }` of the long form.
fn bind_options(at: &At<'_>, options: &mut MountOptions, notes: &mut Notes) -> Result<(), Refusal> {
    for (key, field) in at.map()? {
        match key {
            "create_host_path" => options.must_exist = !field.flag()?,
            "propagation" => match field.text()? {
                word if PROPAGATIONS.contains(&word) => options.propagation = Some(word.to_owned()),
                _ => return Err(field.wrong("e.g. \"rslave\" or \"rshared\"")),
            },
            "selinux" => notes.warn(field.refusal("it has no effect here")),
            _ if is_nothing(field.value) => {}
            _ => return Err(field.unknown("it is not supported: write propagation or create_host_path only")),
        }
    }
    Ok(())
}

/// Reads `tmpfs: { size, mode }` of the long form.
fn tmpfs_options(at: &At<'_>) -> Result<Vec<String>, Refusal> {
    let mut options = Vec::new();
    for (key, field) in at.map()? {
        match key {
            "size" => options.push(format!("size={}", field.size()?)),
            "mode" => options.push(format!("mode={:o}", permissions(&field)?)),
            _ => return Err(field.unknown("it is not an option of a tmpfs: write size or mode")),
        }
    }
    options.sort_unstable_by(|a, b| b.cmp(a));
    Ok(options)
}

/// Reads file permissions. A text is octal, because YAML takes `0755` for a text.
fn permissions(at: &At<'_>) -> Result<u64, Refusal> {
    let mode = match at.value.as_str() {
        Some(text) => u64::from_str_radix(text, 8).ok().filter(|_| !text.starts_with('+')),
        None => at.value.as_u64(),
    };
    mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| at.wrong("file permissions, e.g. 0o755"))
}

/// Reads `/path[:options]` of the field `tmpfs`.
fn tmpfs_line(at: &At<'_>, text: &str) -> Result<Place, Refusal> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let given = options.split(',').filter(|option| !option.is_empty());
    let options: Vec<String> = given.map(|option| tmpfs_option(at, option)).collect::<Result<_, _>>()?;
    Ok(Place::Tmpfs { target: container_path(at, path)?, options: options.join(",") })
}

/// The options without a value that the engine accepts for a tmpfs.
const TMPFS_FLAGS: &[&str] = &[
    "ro",
    "rw",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "sync",
    "async",
    "dirsync",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
];

/// Converts one option to the kernel's form: sizes in bytes, because the kernel has fewer units than compose.
fn tmpfs_option(at: &At<'_>, option: &str) -> Result<String, Refusal> {
    let is_number = |text: &str, radix| u32::from_str_radix(text, radix).is_ok() && !text.starts_with('+');
    let is_known = match option.split_once('=') {
        Some(("size", size)) => match size.strip_suffix('%') {
            Some(percent) => is_number(percent, 10),
            None => {
                let bytes = units::size(size).map_err(|bad| at.refusal(bad))?;
                return Ok(format!("size={bytes}"));
            }
        },
        Some(("mode", mode)) => is_number(mode, 8),
        Some(("uid" | "gid" | "nr_inodes" | "nr_blocks", number)) => is_number(number, 10),
        Some(_) => false,
        None => TMPFS_FLAGS.contains(&option),
    };
    if is_known {
        return Ok(option.to_owned());
    }
    Err(at.refusal(format_args!(
        "{:?} is not an option of a tmpfs: write e.g. size=64m, mode=1777, uid, gid, ro, noexec",
        option.chars().take(60).collect::<String>()
    )))
}

/// Reads an absolute path in the container, and removes a slash at its end.
pub(super) fn container_path(at: &At<'_>, path: &str) -> Result<String, Refusal> {
    let bare = path.trim_end_matches('/');
    let is_fine = bare.starts_with('/')
        && !bare.contains(['\0', ':'])
        && bare.split('/').all(|part| part != ".." && part != ".")
        && !bare.contains("//");
    if is_fine { Ok(bare.to_owned()) } else { Err(at.wrong(TARGET)) }
}
