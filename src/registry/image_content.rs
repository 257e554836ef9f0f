//! What of an image not every device can run, or what its author should know: the formats of its layers, and its volumes.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::http::Http;
use crate::model::ImageRef;

use super::ask::Asking;
use super::manifest::{self, DEEPEST, Entry, Kind};
use super::{Unanswered, late};

/// How long a registry may take for one image.
const PATIENCE: Duration = Duration::from_secs(10);

/// Maximum number of manifests of one image that are read.
const MOST_MANIFESTS: usize = 8;

/// What is in an image, for any of its platforms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageContent {
    /// Whether it has layers that are packed with zstd.
    pub has_zstd: bool,
    /// Media types of layers that no engine is known to unpack.
    pub odd_layers: BTreeSet<String>,
    /// Paths that it declares with `VOLUME`.
    pub volumes: BTreeSet<String>,
}

/// The media types of layers that every engine unpacks.
const USUAL_LAYERS: &[&str] = &[
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
];

/// Asks for the manifests of an image, and for one config of it.
///
/// # Errors
///
/// [`Unanswered`], after 10 s at the latest.
pub async fn image_content(http: &Http, image: &ImageRef) -> Result<ImageContent, Unanswered> {
    let asked = tokio::time::timeout(PATIENCE, ask(http, image)).await;
    asked.unwrap_or_else(|_| Err(late(image, PATIENCE).into()))
}

async fn ask(http: &Http, image: &ImageRef) -> Result<ImageContent, Unanswered> {
    let mut asking = Asking::new(http, image, None);
    let mut content = ImageContent::default();
    let mut open = vec![(manifest::get(&mut asking, image.digest(), image.tag()).await?, 0)];
    let (mut read, mut has_config) = (1, false);
    while let Some((document, depth)) = open.pop() {
        let manifest = match document.sort().map_err(|why| asking.invalid(why))? {
            Kind::Image(manifest) => manifest,
            Kind::Index(entries) => {
                let of_linux = entries.iter().filter(|entry| depth < DEEPEST && is_read(entry));
                for entry in of_linux.take(MOST_MANIFESTS.saturating_sub(read)) {
                    read += 1;
                    open.push((manifest::get(&mut asking, Some(&entry.digest), None).await?, depth + 1));
                }
                continue;
            }
        };
        for layer in &manifest.layers {
            content.has_zstd |= layer.is_zstd();
            let is_usual = layer.media_type.is_empty() || USUAL_LAYERS.contains(&layer.media_type.as_str());
            if !is_usual && !layer.is_zstd() {
                content.odd_layers.insert(layer.media_type.clone());
            }
        }
        // The platforms of an image have the same volumes.
        if !has_config {
            has_config = true;
            let config = manifest::config(&mut asking, &manifest).await?;
            let volumes = config.config.and_then(|defaults| defaults.volumes).unwrap_or_default();
            content.volumes.extend(volumes.into_keys());
        }
    }
    Ok(content)
}

/// An entry for Linux, or one that does not say for what it is, such as an inner index. Attestations are for no platform.
fn is_read(entry: &Entry) -> bool {
    entry.platform.is_none() || entry.architecture().is_some_and(|architecture| architecture != "unknown")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::sample::{Server, answer};
    use crate::registry::digest_of;

    /// A registry with these blobs, of which the first is the image's.
    async fn content(blobs: Vec<String>) -> Result<ImageContent, String> {
        let first = digest_of(blobs[0].as_bytes());
        let registry = Server::start(move |request| {
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            match blobs.iter().find(|blob| path.ends_with(&digest_of(blob.as_bytes()))) {
                Some(blob) => answer("200 OK", &[], blob.as_bytes()),
                None => answer("404 No", &[], b""),
            }
        });
        let image = ImageRef::parse(&format!("{}/lab/web@{first}", registry.address)).unwrap();
        image_content(&Http::new().unwrap(), &image).await.map_err(|unanswered| unanswered.why.to_string())
    }

    fn manifest(config: &str, layers: &[&str]) -> String {
        let layer = |media: &&str| format!(r#"{{"mediaType":"{media}","digest":"sha256:0","size":1}}"#);
        let layers: Vec<_> = layers.iter().map(layer).collect();
        let digest = digest_of(config.as_bytes());
        format!(r#"{{"config":{{"digest":"{digest}","size":1}},"layers":[{}]}}"#, layers.join(","))
    }

    fn texts(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[tokio::test]
    async fn formats_of_layers_and_volumes_are_found() {
        const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
        const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
        let config = r#"{"config":{"Volumes":{"/data":{},"/var/lib/x":{}}}}"#.to_owned();
        let volumes = texts(&["/data", "/var/lib/x"]);
        let usual = ImageContent { volumes: volumes.clone(), ..ImageContent::default() };
        for (layers, expected) in [
            (&[GZIP, "application/vnd.docker.image.rootfs.diff.tar.gzip", ""][..], usual.clone()),
            (&[GZIP, ZSTD], ImageContent { has_zstd: true, ..usual.clone() }),
            (
                &["application/wasm"],
                ImageContent { odd_layers: texts(&["application/wasm"]), ..usual.clone() },
            ),
        ] {
            let found = content(vec![manifest(&config, layers), config.clone()]).await;
            assert_eq!(found, Ok(expected), "{layers:?}");
        }
        for config in [r#"{"config":null}"#, "{}", r#"{"config":{"Volumes":null}}"#] {
            let found = content(vec![manifest(config, &[GZIP]), config.to_owned()]).await;
            assert_eq!(found, Ok(ImageContent::default()), "{config}");
        }
        assert!(
            content(vec![manifest(&config, &[GZIP])]).await.unwrap_err().contains("is not in its registry")
        );
    }

    #[tokio::test]
    async fn every_platform_of_an_index_is_read_and_no_attestation() {
        let config = r#"{"config":{"Volumes":{"/data":{}}}}"#.to_owned();
        let (arm, amd) = (manifest(&config, &["x+zstd"]), manifest(&config, &[]));
        let proof = manifest(&config, &["application/vnd.in-toto+json"]);
        let entry = |blob: &str, platform: &str| {
            format!(r#"{{"digest":"{}","size":1{platform}}}"#, digest_of(blob.as_bytes()))
        };
        let of = |os: &str, architecture: &str| {
            format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"}}"#)
        };
        let inner = format!(r#"{{"manifests":[{}]}}"#, entry(&arm, &of("linux", "arm64")));
        let index = format!(
            r#"{{"manifests":[{},{},{},{}]}}"#,
            entry(&amd, &of("linux", "amd64")),
            entry(&inner, ""),
            entry(&proof, &of("unknown", "unknown")),
            entry("never there", &of("windows", "amd64")),
        );
        let found = content(vec![index, inner, arm, amd, proof, config]).await;
        let expected =
            ImageContent { has_zstd: true, odd_layers: BTreeSet::new(), volumes: texts(&["/data"]) };
        assert_eq!(found, Ok(expected));
    }
}
