//! Reads a compose file for `release create`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::exit::Usage;
use crate::fleet::operator_api::views::Composition;
use crate::model::ImageRef;

/// What of a compose file makes a release; other top-level keys are not ours.
#[derive(Debug, Deserialize)]
struct ComposeFile {
    services: BTreeMap<String, Map<String, Value>>,
    #[serde(default)]
    networks: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    volumes: Option<BTreeMap<String, Value>>,
}

/// The composition of a file, and the image that each service names.
pub(super) fn read(path: &Path) -> anyhow::Result<(Composition, BTreeMap<String, ImageRef>)> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Usage(format!("cannot read {}: {error}", path.display())))?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> anyhow::Result<(Composition, BTreeMap<String, ImageRef>)> {
    let file: ComposeFile = serde_norway::from_str(text).map_err(|error| Usage(error.to_string()))?;
    let mut images = BTreeMap::new();
    for (name, service) in &file.services {
        let image = service.get("image").and_then(Value::as_str).ok_or_else(|| {
            Usage(format!("services.{name} has no image; build and push it, then name it with `image:`"))
        })?;
        let image =
            ImageRef::parse(image).map_err(|error| Usage(format!("services.{name}.image: {error}")))?;
        images.insert(name.clone(), image);
    }
    let composition = Composition {
        services: file.services,
        networks: file.networks.unwrap_or_default(),
        volumes: file.volumes.unwrap_or_default(),
    };
    Ok((composition, images))
}
