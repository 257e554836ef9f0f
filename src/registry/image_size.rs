//! What an image weighs: its manifest, its config, and its layers.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::http::{Http, Method};
use crate::model::{ImageRef, ImageSize, RegistryLogin, runs};

use super::ask::Asking;
use super::{Unanswered, late};

/// How long a registry may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a manifest, an index or an image's config. Read, the densest of them take about ten times as much, and four
/// images are weighed at once.
const LARGEST: usize = 1 << 20;

/// How many indexes lead to a manifest.
const DEEPEST: u32 = 3;

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
    let mut document: Document = manifest(&mut asking, image.digest(), image.tag()).await?;
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
            return Ok(ImageSize { layers: Vec::new(), architectures: all.unwrap_or_default() });
        };
        document = self::manifest(&mut asking, Some(digest), None).await?;
    };
    let digest = checked(&manifest.config.digest).map_err(|why| asking.invalid(why))?;
    let answer = asking.ask(Method::GET, &format!("blobs/{digest}")).await?;
    let body = asking.read(answer, LARGEST).await?;
    let config: Config = parse("config", &body, Some(digest)).map_err(|why| asking.invalid(why))?;
    let layers = layers(&manifest.layers, config.rootfs.diff_ids).map_err(|why| asking.invalid(why))?;
    let own = || config.architecture.into_iter().filter(|name| !name.is_empty()).collect();
    Ok(ImageSize { layers, architectures: all.unwrap_or_else(own) })
}

async fn manifest(
    asking: &mut Asking<'_>,
    digest: Option<&str>,
    tag: Option<&str>,
) -> Result<Document, Unanswered> {
    let digest = digest.map(checked).transpose().map_err(|why| asking.invalid(why))?;
    let what = format!("manifests/{}", digest.or(tag).unwrap_or("latest"));
    let answer = asking.ask(Method::GET, &what).await?;
    let body = asking.read(answer, LARGEST).await?;
    parse("manifest", &body, digest).map_err(|why| asking.invalid(why))
}

/// A manifest or an index, of Docker's kind or of OCI's: they differ by what is in them.
#[derive(Debug, Deserialize)]
struct Document {
    manifests: Option<Vec<Entry>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

enum Kind {
    Image(Manifest),
    Index(Vec<Entry>),
}

struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
}

#[derive(Debug, Deserialize)]
struct Entry {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: String,
}

#[derive(Debug, Deserialize)]
struct Config {
    architecture: Option<String>,
    #[serde(default)]
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

impl Document {
    fn sort(self) -> Result<Kind, String> {
        match (self.manifests, self.config, self.layers) {
            (Some(entries), None, None) => Ok(Kind::Index(entries)),
            (None, Some(config), Some(layers)) => Ok(Kind::Image(Manifest { config, layers })),
            (None, None, None) => Err("its manifest is of a kind that is no longer used".to_owned()),
            // One text must not be two things to two readers.
            _ => Err("its manifest is neither that of an image nor an index".to_owned()),
        }
    }
}

impl Entry {
    /// For which machines it is, if it is an image that containers run.
    fn architecture(&self) -> Option<String> {
        let platform = self.platform.as_ref().filter(|platform| platform.os == "linux")?;
        (!platform.architecture.is_empty()).then(|| platform.architecture.clone())
    }
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
        return Err(format!("its manifest has {listed} layers and its config {made}"));
    }
    if let Some(layer) = layers.iter().find(|layer| layer.size > LARGEST_LAYER) {
        return Err(format!("it has a layer of {} bytes", layer.size));
    }
    Ok(diff_ids.into_iter().zip(layers.iter().map(|layer| layer.size)).collect())
}

/// `digest`, if it is of the kind that is used: it becomes part of an address.
fn checked(digest: &str) -> Result<&str, String> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    let is_good = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_good { Ok(digest) } else { Err(format!("{digest:.80?} is not a digest")) }
}

fn parse<T: DeserializeOwned>(name: &str, body: &[u8], digest: Option<&str>) -> Result<T, String> {
    let sum: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    if digest.is_some_and(|digest| digest != format!("sha256:{sum}")) {
        return Err(format!("its {name} is not what its digest says"));
    }
    serde_json::from_slice(body).map_err(|error| format!("its {name} cannot be read: {error}"))
}

#[cfg(test)]
mod tests;
