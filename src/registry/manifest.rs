//! Reads manifests, indexes and configs of images.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::http::Method;

use super::Unanswered;
use super::ask::Asking;

/// Bytes of a manifest, an index or an image's config. Read, the densest of them take about ten times as much, and four
/// images are weighed at once.
const LARGEST: usize = 1 << 20;

/// How many indexes lead to a manifest.
pub(super) const DEEPEST: u32 = 3;

/// Requests a manifest or an index, by its digest or else its tag, and checks it against the digest.
pub(super) async fn get(
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
pub(super) struct Document {
    pub(super) manifests: Option<Vec<Entry>>,
    pub(super) config: Option<Descriptor>,
    pub(super) layers: Option<Vec<Descriptor>>,
}

pub(super) enum Kind {
    Image(Manifest),
    Index(Vec<Entry>),
}

pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Descriptor {
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default, rename = "mediaType")]
    pub(super) media_type: String,
}

impl Descriptor {
    /// Whether it is packed with zstd, which Docker unpacks since version 23.
    pub(super) fn is_zstd(&self) -> bool {
        self.media_type.ends_with("+zstd") || self.media_type.ends_with(".zstd")
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    pub(super) digest: String,
    pub(super) platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) variant: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Config {
    pub(super) architecture: Option<String>,
    #[serde(default)]
    pub(super) rootfs: RootFs,
    #[serde(default)]
    pub(super) config: Option<Defaults>,
}

/// What the author of the image wrote for its containers.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Defaults {
    #[serde(default, rename = "Volumes")]
    pub(super) volumes: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct RootFs {
    #[serde(default)]
    pub(super) diff_ids: Vec<String>,
}

impl Document {
    pub(super) fn sort(self) -> Result<Kind, String> {
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
    pub(super) fn architecture(&self) -> Option<String> {
        let platform = self.platform.as_ref().filter(|platform| platform.os == "linux")?;
        (!platform.architecture.is_empty()).then(|| platform.architecture.clone())
    }
}

/// Requests the config of an image.
pub(super) async fn config(asking: &mut Asking<'_>, manifest: &Manifest) -> Result<Config, Unanswered> {
    let digest = checked(&manifest.config.digest).map_err(|why| asking.invalid(why))?;
    let answer = asking.ask(Method::GET, &format!("blobs/{digest}")).await?;
    let body = asking.read(answer, LARGEST).await?;
    parse("config", &body, Some(digest)).map_err(|why| asking.invalid(why))
}

/// `digest`, if it is of the kind that is used: it becomes part of an address.
pub(super) fn checked(digest: &str) -> Result<&str, String> {
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
