//! Asks image registries for the digest of a tag, the size of an image, and a token to pull it, and links an image to a
//! second repository. It does not know what a
//! release is, or why it is asked.
//!
//! Requests go over plain HTTP to registries on this machine (localhost, 127.0.0.0/8, ::1), as the engine does, and over
//! HTTPS to all others, unless the settings say that one has no TLS. We have our own few lines for the distribution API,
//! because the maintained client for it adds a megabyte to a binary that boards download.

mod ask;
mod challenge;
mod image_content;
mod image_size;
mod link;
mod manifest;
mod pass;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::http::{Failure, Http, Method, StatusCode, header::HeaderName};
use crate::model::ImageRef;

use ask::Asking;
pub use image_content::{ImageContent, image_content};
pub use image_size::measure_image;
pub use link::{LinkError, link};
pub use pass::pass;

/// Longest time for one request to a registry.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why a registry did not answer, sorted by what one can do about it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry has no such image, or hides it.
    #[error("{image} is not in its registry; push it first, or check the name and the tag")]
    NotFound { image: String },

    /// The registry needs a login.
    #[error(
        "the registry does not let us read {image}; make it readable without a login, or name it with its digest (repository@sha256:...)"
    )]
    Denied { image: String },

    /// Its token service is on a host that may not get the login.
    #[error(
        "the registry of {image} wants the device's login to be sent to {realm}, which is not one of the cloud's hosts; \
         if that host may have it, add {realm} to cloud.registries"
    )]
    ForeignRealm { image: String, realm: String },

    /// No answer, or an invalid one.
    #[error(
        "the registry of {image} does not answer ({why}); check its address and the network, then try again"
    )]
    Unreachable { image: String, why: NoAnswer },
}

/// Why a registry gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("no answer in {} s", .0.as_secs())]
    Late(Duration),
    #[error("{0}")]
    Failed(Failure),
    #[error("its token service: {0}")]
    TokenService(Failure),
    #[error("status {0}")]
    Status(StatusCode),
    /// The answer has a valid status and an invalid content. The text says what is wrong with it.
    #[error("{0}")]
    Invalid(String),
}

/// A failed request to a registry.
#[derive(Debug)]
pub struct Unanswered {
    /// How long it asked us to wait: 1 s to 1 h.
    pub after: Option<Duration>,
    pub why: RegistryError,
}

impl From<RegistryError> for Unanswered {
    fn from(why: RegistryError) -> Self {
        Self { after: None, why }
    }
}

/// Replaces the tag of an image by its present digest. For an image for several architectures, that is the digest of the
/// index. An image that has a digest already is returned without a request.
///
/// # Errors
///
/// [`RegistryError`], after 30 s at the latest.
pub async fn resolve(http: &Http, image: &ImageRef) -> Result<ImageRef, RegistryError> {
    if image.digest().is_some() {
        return Ok(image.clone());
    }
    let digest =
        tokio::time::timeout(DEADLINE, digest(http, image)).await.map_err(|_| late(image, DEADLINE))??;
    let invalid = |why| RegistryError::Unreachable { image: image.to_string(), why: NoAnswer::Invalid(why) };
    image.at_digest(&digest).map_err(|error| invalid(error.to_string()))
}

fn late(image: &ImageRef, patience: Duration) -> RegistryError {
    RegistryError::Unreachable { image: image.to_string(), why: NoAnswer::Late(patience) }
}

async fn digest(http: &Http, image: &ImageRef) -> Result<String, RegistryError> {
    let what = format!("manifests/{}", image.tag().unwrap_or("latest"));
    let mut asking = Asking::new(http, image, None);
    let asked = asking.ask(Method::HEAD, &what).await;
    let digest = HeaderName::from_static("docker-content-digest");
    match asked {
        Ok(answer) => {
            if let Some(digest) = answer.header(&digest) {
                return Ok(digest.to_owned());
            }
        }
        Err(denied @ Unanswered { why: RegistryError::Denied { .. }, .. }) => return Err(denied.why),
        Err(busy @ Unanswered { after: Some(_), .. }) => return Err(busy.why),
        Err(_) => {}
    }
    // Some registries refuse HEAD, or do not name the digest. The engine fetches the manifest then, too.
    let answer = asking.ask(Method::GET, &what).await.map_err(|unanswered| unanswered.why)?;
    let body = asking.read(answer, LARGEST_MANIFEST).await.map_err(|unanswered| unanswered.why)?;
    if serde_json::from_slice::<serde_json::Value>(&body).is_ok_and(|manifest| manifest.is_object()) {
        return Ok(digest_of(&body));
    }
    Err(asking.invalid("its manifest is not JSON".to_owned()).why)
}

/// Bytes of a manifest or an index.
const LARGEST_MANIFEST: usize = 4 << 20;

/// The digest of some bytes.
fn digest_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        // A text takes all that is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
