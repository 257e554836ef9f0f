//! Warns of what a release's images have that its compose file does not show.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::print;
use crate::http::Http;
use crate::model::ImageRef;
use crate::registry::{self, ImageContent};

/// Reads these images, which have just been found in their registries, and prints warnings. What cannot be read is passed
/// over: devices need no warning.
pub(super) async fn print(
    http: &Http,
    services: &BTreeMap<String, Map<String, Value>>,
    images: &BTreeMap<String, ImageRef>,
) {
    let mut read: BTreeMap<&ImageRef, Option<ImageContent>> = BTreeMap::new();
    for (service, image) in images {
        if !read.contains_key(image) {
            read.insert(image, registry::image_content(http, image).await.ok());
        }
        let Some(content) = read.get(image).and_then(Option::as_ref) else { continue };
        let none = Map::new();
        for (path, why) in warnings(image, content, services.get(service).unwrap_or(&none)) {
            print::note(&format!("warning: services.{service}.{path}: {why}"));
        }
    }
}

/// The fields that are concerned, and why.
fn warnings(
    image: &ImageRef,
    content: &ImageContent,
    fields: &Map<String, Value>,
) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if content.has_zstd {
        let why = format!(
            "{image} has layers packed with zstd, which Docker unpacks only from version 23 on: devices with an older one \
             wait before the download (unsupported_image); push it with gzip layers for them"
        );
        found.push(("image", why));
    }
    for layer in &content.odd_layers {
        let why = format!(
            "{image} has a layer of the type {layer:?}, which engines may not unpack: build and push the image with docker"
        );
        found.push(("image", why));
    }
    let mounted = mounted(fields);
    for path in content.volumes.iter().filter(|path| !mounted.contains(bare(path))) {
        let why = format!(
            "the image declares VOLUME {path}, and no volume is mounted there: its data stays with the service through \
             updates, in a volume without a name of yours; name one: \"- data:{path}\""
        );
        found.push(("volumes", why));
    }
    found
}

/// The paths in the container at which something is mounted.
fn mounted(fields: &Map<String, Value>) -> BTreeSet<&str> {
    let items = |field: &str| match fields.get(field) {
        Some(Value::Array(items)) => items.iter().collect(),
        Some(item @ Value::String(_)) => vec![item],
        _ => Vec::new(),
    };
    let volumes = items("volumes").into_iter().filter_map(|mount| match mount {
        Value::Object(mount) => mount.get("target").and_then(Value::as_str),
        Value::String(text) => Some(text.split(':').nth(1).unwrap_or(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    });
    let tmpfs = items("tmpfs").into_iter().filter_map(Value::as_str);
    volumes.chain(tmpfs.filter_map(|text| text.split(':').next())).map(bare).collect()
}

/// A path without slashes at its end.
fn bare(path: &str) -> &str {
    path.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_of_an_image_is_named_unless_something_is_mounted_there() {
        let image = ImageRef::parse("r.example/db:1").unwrap();
        let content = ImageContent {
            has_zstd: true,
            odd_layers: BTreeSet::from(["application/wasm".to_owned()]),
            volumes: BTreeSet::from(["/data".to_owned(), "/log/".to_owned()]),
        };
        for (fields, expected) in [
            (json!({}), "/data /log/"),
            (json!({"volumes": ["d:/data", "/log"]}), ""),
            (json!({"volumes": ["d:/data/sub:ro"]}), "/data /log/"),
            (json!({"volumes": [{"type": "volume", "source": "d", "target": "/data/"}]}), "/log/"),
            (json!({"tmpfs": ["/log:size=1m"]}), "/data"),
            (json!({"tmpfs": "/data"}), "/log/"),
        ] {
            let all = warnings(&image, &content, fields.as_object().unwrap());
            let named = |(field, why): &(&str, String)| {
                let path = why.strip_prefix("the image declares VOLUME ")?.split(',').next()?.to_owned();
                assert_eq!(*field, "volumes");
                Some(path)
            };
            assert_eq!(all.iter().filter_map(named).collect::<Vec<_>>().join(" "), expected, "{fields}");
            assert!(
                all[0].1.contains("packed with zstd") && all[1].1.contains("\"application/wasm\""),
                "{all:?}"
            );
        }
    }
}
