//! Reads the files that a release brings with it: `configs` with their content.
//!
//! `cotter release create` writes the content of configs and secrets into the services that use them, because devices do
//! not have the author's files.

use std::collections::BTreeSet;

use super::at::{At, Fields, Notes, is_nothing};
use super::mounts::container_path;
use crate::model::{ContentFile, Refusal, ServiceSpec};

/// Maximum number of bytes of all files of a service.
const MOST_BYTES: usize = 131_072;

/// Maximum number of bytes of a path, which is that of tar.
const LONGEST_PATH: usize = 100;

/// Highest user and group id, which is that of tar.
const HIGHEST_ID: u64 = 0o7_777_777;

/// Reads the files into `spec`, whose mounts must be read before.
pub(super) fn read(fields: &Fields<'_>, spec: &mut ServiceSpec, notes: &mut Notes) {
    let Some(list) = fields.get("configs").filter(|at| !is_nothing(at.value)) else { return };
    let mut targets = BTreeSet::new();
    for item in notes.keep(list.list()).unwrap_or_default() {
        let Some(file) = notes.keep(file(&item)) else { continue };
        if !targets.insert(file.target.clone()) {
            notes.refuse(item.refusal(format_args!("{:?} is written twice: remove one", file.target)));
        }
        let mut above = file.target.match_indices('/').map(|(end, _)| &file.target[..end]);
        if above.any(|folder| spec.tmpfs.contains_key(folder)) {
            let why = "a tmpfs is mounted over it, which is empty at each start: choose another target";
            notes.refuse(item.refusal(why));
        }
        spec.files.push(file);
    }
    spec.files.sort_by(|a, b| a.target.cmp(&b.target));
    let bytes: usize = spec.files.iter().map(|file| file.content.len()).sum();
    if bytes > MOST_BYTES {
        let why = format_args!(
            "they have {bytes} bytes, and a service may have {MOST_BYTES}: put larger files into the image"
        );
        notes.refuse(list.refusal(why));
    }
    if spec.is_read_only && !spec.files.is_empty() {
        let why = "the engine writes no file into a container with read_only: remove one of the two, or put the \
                   files into the image";
        notes.refuse(list.refusal(why));
    }
}

fn file(at: &At<'_>) -> Result<ContentFile, Refusal> {
    let without = || {
        at.refusal(
            "it has no content, and devices do not have the author's files: create the release with `cotter release \
             create`, which adds the content",
        )
    };
    let fields = if at.value.is_string() { return Err(without()) } else { at.map()? };
    let field = |name: &str| fields.iter().find(|(key, _)| *key == name).map(|(_, field)| field);
    for (key, field) in &fields {
        if !matches!(*key, "source" | "target" | "content" | "mode" | "uid" | "gid")
            && !is_nothing(field.value)
        {
            return Err(field.refusal("it is not a field of a config: remove it"));
        }
    }
    let content = field("content").ok_or_else(without)?.content()?.to_owned();
    let target = field("target").ok_or_else(|| at.refusal("it has no target: write the container's path"))?;
    let path = container_path(target, target.text()?)?;
    if path.len() > LONGEST_PATH {
        let why = format_args!("it has {} bytes, and {LONGEST_PATH} are accepted: shorten it", path.len());
        return Err(target.refusal(why));
    }
    let id = |name: &str| match field(name) {
        Some(at) => {
            let accepts = "a number of a user or group, 2097151 at most";
            let id = at.whole(accepts)?;
            u32::try_from(id).ok().filter(|_| id <= HIGHEST_ID).ok_or_else(|| at.wrong(accepts))
        }
        None => Ok(0),
    };
    let mode = field("mode").map_or(Ok(0o444), mode)?;
    Ok(ContentFile { target: path, content, mode, uid: id("uid")?, gid: id("gid")? })
}

/// Permissions: an octal text, or the number that YAML makes of one.
fn mode(at: &At<'_>) -> Result<u32, Refusal> {
    let accepts = "permissions, e.g. \"0444\"";
    let mode = match at.value.as_str() {
        Some(text) => {
            let digits = text.trim_start_matches("0o");
            let is_octal = !digits.is_empty() && digits.chars().all(|c| c.is_digit(8));
            is_octal.then(|| u32::from_str_radix(digits, 8).ok()).flatten()
        }
        None => u32::try_from(at.whole(accepts)?).ok(),
    };
    mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| at.wrong(accepts))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::model::ServiceName;
    use crate::wire::compose::{self, Form};

    fn read(composition: &Value) -> Result<Value, Vec<String>> {
        let service = json!({"id": 1, "image_id": 2, "image": "a", "composition": composition});
        let release = json!({"id": 1, "services": {"web": service}});
        let (contents, notes) = compose::read(&serde_json::from_value(release).unwrap(), Form::File);
        if !notes.refusals.is_empty() {
            return Err(notes.refusals.iter().map(ToString::to_string).collect());
        }
        Ok(serde_json::to_value(&contents.services[&ServiceName::parse("web").unwrap()].files).unwrap())
    }

    #[test]
    fn a_file_has_its_content_and_its_permissions() {
        let given = json!({"configs": [
            {"source": "b", "target": "/b", "content": "two", "mode": "0640", "uid": "1000", "gid": 5},
            {"source": "a", "target": "/etc/a", "content": ""},
            {"source": "c", "target": "/c", "content": "x", "mode": 288},
        ]});
        let wanted = json!([
            {"target": "/b", "content": "two", "mode": 0o640, "uid": 1000, "gid": 5},
            {"target": "/c", "content": "x", "mode": 0o440, "uid": 0, "gid": 0},
            {"target": "/etc/a", "content": "", "mode": 0o444, "uid": 0, "gid": 0},
        ]);
        assert_eq!(read(&given), Ok(wanted));
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let without = "it has no content, and devices do not have the author's files: create the release with `cotter \
                       release create`, which adds the content";
        let long = format!("/{}", "x".repeat(100));
        for (given, path, why) in [
            (json!({"configs": ["a"]}), "configs[0]", without),
            (json!({"configs": [{"source": "a", "target": "/a"}]}), "configs[0]", without),
            (
                json!({"configs": [{"content": "a"}]}),
                "configs[0]",
                "it has no target: write the container's path",
            ),
            (
                json!({"configs": [{"content": "a", "target": long}]}),
                "configs[0].target",
                "it has 101 bytes, and 100 are accepted: shorten it",
            ),
            (
                json!({"configs": [{"content": "a", "target": "/a", "mode": "9"}]}),
                "configs[0].mode",
                "\"9\" is not accepted: write permissions, e.g. \"0444\"",
            ),
            (
                json!({"configs": [{"content": "a", "target": "/a"}, {"content": "b", "target": "/a"}]}),
                "configs[1]",
                "\"/a\" is written twice: remove one",
            ),
            (
                json!({"configs": [{"content": "a", "target": "/run/a"}], "tmpfs": "/run"}),
                "configs[0]",
                "a tmpfs is mounted over it, which is empty at each start: choose another target",
            ),
            (
                json!({"configs": [{"content": "a", "target": "/a"}], "read_only": true}),
                "configs",
                "the engine writes no file into a container with read_only: remove one of the two, or put the files \
                 into the image",
            ),
            (
                json!({"configs": [{"content": "a".repeat(131_073), "target": "/a"}]}),
                "configs",
                "they have 131073 bytes, and a service may have 131072: put larger files into the image",
            ),
        ] {
            assert_eq!(read(&given), Err(vec![format!("services.web.{path}: {why}")]));
        }
    }
}
