//! Reads a compose file for `release create`.

use std::collections::BTreeMap;
use std::path::Path;

use super::exit::Usage;
use crate::model::ImageRef;
use crate::wire::compose_file::{self, ComposeFile};

/// Reads a compose file. Returns it with the image of each service.
pub(super) fn read(path: &Path) -> Result<(ComposeFile, BTreeMap<String, ImageRef>), Usage> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| Usage(format!("cannot read {shown}: {error}")))?;
    let file = compose_file::parse(&text).map_err(|wrong| {
        let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        Usage(format!("{shown}: {}", wrong.join("; ")))
    })?;
    let mut images = BTreeMap::new();
    for (name, service) in &file.services {
        let image = service.get("image").and_then(serde_json::Value::as_str).unwrap_or_default();
        let image = ImageRef::parse(image)
            .map_err(|error| Usage(format!("{shown}: services.{name}.image: {error}")))?;
        images.insert(name.clone(), image);
    }
    Ok((file, images))
}
