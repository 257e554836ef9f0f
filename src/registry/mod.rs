//! Asks image registries what a tag stands for, what an image weighs, and how the device may pull it. It does not
//! know what a release is, nor who asks.
//!
//! Registries on this machine (localhost, 127.0.0.0/8, ::1) are asked over plain HTTP,
//! as the engine does; all others over HTTPS, unless the settings say that one has none. Our own few lines of the
//! distribution API, because the kept client for it weighs a megabyte in a binary that boards download.

mod ask;
mod challenge;
mod image_size;
mod pass;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::http::{Http, Method, header::HeaderName};
use crate::model::ImageRef;

use ask::Asking;
pub use image_size::measure_image;
pub use pass::pass;

/// How long one registry may take over one question.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why a registry did not tell, sorted by what one can do about it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It says that there is no such image, or hides it.
    #[error("{image} is not in its registry; push it first, or check the name and the tag")]
    NotFound { image: String },

    /// It wants to know who asks.
    #[error(
        "the registry does not let us read {image}; make it readable without a login, or name it with its digest (repository@sha256:...)"
    )]
    Denied { image: String },

    /// Its tokens come from a host that may not be shown the login.
    #[error(
        "the registry of {image} wants the device's login to be shown to {realm}, which is not one of the cloud's hosts; \
         if it may be shown there, add {realm} to cloud.registries"
    )]
    ForeignRealm { image: String, realm: String },

    /// No answer, or none that makes sense.
    #[error(
        "the registry of {image} does not answer ({why}); check its address and the network, then try again"
    )]
    Unreachable { image: String, why: String },
}

/// Why a registry did not answer a question.
#[derive(Debug)]
pub struct Unanswered {
    /// How long it wishes not to be asked: 1 s to 1 h.
    pub after: Option<Duration>,
    pub why: RegistryError,
}

impl From<RegistryError> for Unanswered {
    fn from(why: RegistryError) -> Self {
        Self { after: None, why }
    }
}

/// The same image with the digest that its tag stands for now. For an image of several
/// architectures that is the digest of the whole index. An image that has a digest
/// already is not asked for.
///
/// # Errors
///
/// [`RegistryError`], after 30 s at the latest.
pub async fn resolve(http: &Http, image: &ImageRef) -> Result<ImageRef, RegistryError> {
    if image.digest().is_some() {
        return Ok(image.clone());
    }
    let unreachable = |why: String| RegistryError::Unreachable { image: image.to_string(), why };
    let digest =
        tokio::time::timeout(DEADLINE, digest(http, image)).await.map_err(|_| late(image, DEADLINE))??;
    image.at_digest(&digest).map_err(|error| unreachable(error.to_string()))
}

fn late(image: &ImageRef, patience: Duration) -> RegistryError {
    let why = format!("no answer in {} s", patience.as_secs());
    RegistryError::Unreachable { image: image.to_string(), why }
}

async fn digest(http: &Http, image: &ImageRef) -> Result<String, RegistryError> {
    let what = format!("manifests/{}", image.tag().unwrap_or("latest"));
    let asked = Asking::new(http, image, None).ask(Method::HEAD, &what).await;
    let answer = asked.map_err(|unanswered| unanswered.why)?;
    let digest = answer.header(&HeaderName::from_static("docker-content-digest"));
    let why = "it tells no digest".to_owned();
    digest.map(str::to_owned).ok_or_else(|| RegistryError::Unreachable { image: image.to_string(), why })
}
