//! What an image weighs: its manifest, its config, and its layers.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::http::Http;
use crate::model::quantity::counted;
use crate::model::{ImageRef, ImageSize, RegistryLogin, runs};

use super::ask::Asking;
use super::manifest::{self, DEEPEST, Descriptor, Document, Entry, Kind};
use super::{Unanswered, late};

/// How long a registry may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a layer: a pebibyte.
const LARGEST_LAYER: u64 = 1 << 50;

/// Asks for the manifest that an engine of `architecture` takes and for its config, which together tell
/// the image's layers.
///
/// `login` is shown to a registry that it is for, if that wants one.
///
/// If an index has no manifest for the engine there are no layers, and `architectures` says what there is.
///
/// # Errors
///
/// [`Unanswered`], after 10 s at the latest: a download waits for the answer, and does without it.
pub async fn measure_image(
    http: &Http,
    image: &ImageRef,
    architecture: &str,
    login: Option<&RegistryLogin>,
) -> Result<ImageSize, Unanswered> {
    let asked = tokio::time::timeout(PATIENCE, ask(http, image, architecture, login)).await;
    asked.unwrap_or_else(|_| Err(late(image, PATIENCE).into()))
}

async fn ask(
    http: &Http,
    image: &ImageRef,
    architecture: &str,
    login: Option<&RegistryLogin>,
) -> Result<ImageSize, Unanswered> {
    let mut asking = Asking::new(http, image, login);
    let mut document: Document = manifest::get(&mut asking, image.digest(), image.tag()).await?;
    let (mut all, mut depth) = (None::<BTreeSet<String>>, 0);
    let manifest = loop {
        let entries = match document.sort().map_err(|why| asking.invalid(why))? {
            Kind::Image(manifest) => break manifest,
            Kind::Index(entries) => entries,
        };
        depth += 1;
        if depth > DEEPEST {
            return Err(asking.invalid(format!("its indexes name each other more than {DEEPEST} deep")));
        }
        all.get_or_insert_default().extend(entries.iter().filter_map(Entry::architecture));
        let Some(digest) = choose(&entries, architecture) else {
            return Ok(ImageSize { architectures: all.unwrap_or_default(), ..ImageSize::default() });
        };
        document = manifest::get(&mut asking, Some(digest), None).await?;
    };
    let config = manifest::config(&mut asking, &manifest).await?;
    let has_zstd = manifest.layers.iter().any(Descriptor::is_zstd);
    let layers = layers(&manifest.layers, config.rootfs.diff_ids).map_err(|why| asking.invalid(why))?;
    let own = || config.architecture.into_iter().filter(|name| !name.is_empty()).collect();
    Ok(ImageSize { layers, architectures: all.unwrap_or_else(own), has_zstd })
}

/// The digest of the manifest that an engine of `architecture` takes.
fn choose<'a>(entries: &'a [Entry], architecture: &str) -> Option<&'a str> {
    // The variant of the engine's machine is not known: the newest that all machines of today have.
    let usual = ["", "v1", "v7", "v8"];
    let best = runs(architecture).find_map(|name| {
        let of_it = || entries.iter().filter(|entry| entry.architecture().as_deref() == Some(name));
        let is_usual =
            |entry: &&Entry| entry.platform.as_ref().is_some_and(|p| usual.contains(&p.variant.as_str()));
        of_it().find(is_usual).or_else(|| of_it().next())
    });
    best.map(|entry| entry.digest.as_str())
}

/// The layers by their content, each with its compressed bytes.
fn layers(layers: &[Descriptor], diff_ids: Vec<String>) -> Result<Vec<(String, u64)>, String> {
    if layers.len() != diff_ids.len() {
        let (listed, made) = (layers.len(), diff_ids.len());
        return Err(format!("its manifest has {} and its config {made}", counted(listed, "layer")));
    }
    if let Some(layer) = layers.iter().find(|layer| layer.size > LARGEST_LAYER) {
        return Err(format!("it has a layer of {} bytes", layer.size));
    }
    Ok(diff_ids.into_iter().zip(layers.iter().map(|layer| layer.size)).collect())
}

#[cfg(test)]
mod tests;
