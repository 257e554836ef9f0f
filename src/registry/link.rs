//! Gives an image a second name in its registry: the layers are mounted from the first one, so no layer moves, and all
//! manifests are the same bytes, so the digest stays.

use serde::Deserialize;

use super::ask::{Asking, host_and_path};
use super::manifest::{DEEPEST, Document, checked};
use super::{DEADLINE, LARGEST_MANIFEST, RegistryError, Unanswered, digest_of};
use crate::http::header::CONTENT_TYPE;
use crate::http::{Http, Method, Request, StatusCode, Url, is_loopback};
use crate::model::ImageRef;

/// Maximum number of layers and manifests of one image.
const MOST: usize = 1000;

/// Why an image has no second name.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    NotRead(RegistryError),

    #[error("its registry does not let {to} be written ({why})")]
    NotWritten { to: String, why: String },
}

/// Links an image that has a digest to the repository of `to`, which is in the same registry and has the same digest. Does
/// nothing if it is there already.
///
/// # Errors
///
/// [`LinkError`].
pub async fn link(http: &Http, image: &ImageRef, to: &ImageRef) -> Result<(), LinkError> {
    let not_read = |unanswered: Unanswered| LinkError::NotRead(unanswered.why);
    let digest = to.digest().unwrap_or_default();
    let there = Asking::new(http, to, None).ask(Method::HEAD, &format!("manifests/{digest}")).await;
    if there.is_ok() {
        return Ok(());
    }
    let mut linking = Linking { http, to, from: Asking::new(http, image, None), from_path: path(image) };
    let mut left = vec![(digest.to_owned(), 0)];
    let mut found = Vec::new();
    let mut blobs = Vec::new();
    while let Some((digest, depth)) = left.pop() {
        let manifest = linking.manifest(&digest).await.map_err(not_read)?;
        let Document { manifests, config, layers } = &manifest.document;
        if depth < DEEPEST {
            left.extend(manifests.iter().flatten().map(|entry| (entry.digest.clone(), depth + 1)));
        }
        blobs.extend(config.iter().chain(layers.iter().flatten()).map(|blob| blob.digest.clone()));
        found.push(manifest);
        if found.len() + left.len() + blobs.len() > MOST {
            let why = format!("it has more than {MOST} layers and manifests");
            return Err(linking.not_written(why));
        }
    }
    blobs.sort_unstable();
    blobs.dedup();
    for blob in &blobs {
        linking.mount(blob).await?;
    }
    // An index is last, because a registry wants its manifests first.
    for manifest in found.iter().rev() {
        linking.put(manifest).await?;
    }
    Ok(())
}

struct Linking<'a> {
    http: &'a Http,
    to: &'a ImageRef,
    from: Asking<'a>,
    from_path: String,
}

struct Found {
    digest: String,
    kind: String,
    bytes: Vec<u8>,
    document: Document,
}

#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
}

impl Linking<'_> {
    async fn manifest(&mut self, digest: &str) -> Result<Found, Unanswered> {
        let digest = checked(digest).map_err(|why| self.from.invalid(why))?.to_owned();
        let answer = self.from.ask(Method::GET, &format!("manifests/{digest}")).await?;
        let kind = answer.header(&CONTENT_TYPE).unwrap_or_default().to_owned();
        let bytes = self.from.read(answer, LARGEST_MANIFEST).await?;
        if digest_of(&bytes) != digest {
            return Err(self.from.invalid(format!("its manifest {digest} has another digest")));
        }
        let invalid = |error: serde_json::Error| self.from.invalid(format!("its manifest: {error}"));
        let document = serde_json::from_slice(&bytes).map_err(invalid)?;
        let typed: Typed = serde_json::from_slice(&bytes).map_err(invalid)?;
        Ok(Found { digest, kind: typed.media_type.unwrap_or(kind), bytes, document })
    }

    async fn mount(&self, digest: &str) -> Result<(), LinkError> {
        let digest = checked(digest).map_err(|why| self.not_written(why))?;
        let query = format!("blobs/uploads/?mount={digest}&from={}", self.from_path);
        let request = Request::new(Method::POST, self.url(&query), DEADLINE).json(Vec::new());
        match self.send(request).await? {
            StatusCode::CREATED => Ok(()),
            StatusCode::ACCEPTED => {
                Err(self.not_written("it does not share layers between repositories".to_owned()))
            }
            status => Err(self.not_written(format!("status {status}"))),
        }
    }

    async fn put(&self, manifest: &Found) -> Result<(), LinkError> {
        let url = self.url(&format!("manifests/{}", manifest.digest));
        let request = Request::new(Method::PUT, url, DEADLINE).json(manifest.bytes.clone());
        match self.send(request.header(CONTENT_TYPE, &manifest.kind)).await? {
            StatusCode::CREATED => Ok(()),
            status => Err(self.not_written(format!("status {status}"))),
        }
    }

    async fn send(&self, request: Request) -> Result<StatusCode, LinkError> {
        let answer = self.http.send(request).await;
        answer.map(|answer| answer.status()).map_err(|failure| self.not_written(failure.to_string()))
    }

    fn url(&self, what: &str) -> String {
        let (host, path) = host_and_path(self.to.repository());
        let is_local = Url::parse(&format!("http://{host}")).is_ok_and(|url| is_loopback(&url));
        format!("{}://{host}/v2/{path}/{what}", if is_local { "http" } else { "https" })
    }

    fn not_written(&self, why: String) -> LinkError {
        LinkError::NotWritten { to: self.to.repository().to_owned(), why }
    }
}

fn path(image: &ImageRef) -> String {
    host_and_path(image.repository()).1
}
