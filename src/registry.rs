//! Asks image registries. It does not know what a release is, nor who asks.
//!
//! Registries on this machine (localhost, 127.0.0.0/8, ::1) are asked over plain HTTP,
//! as the engine does; all others over HTTPS.

use std::net::IpAddr;
use std::time::Duration;

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

use crate::model::ImageRef;

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

    /// No answer, or none that makes sense.
    #[error(
        "the registry of {image} does not answer ({why}); check its address and the network, then try again"
    )]
    Unreachable { image: String, why: String },
}

/// The same image with the digest that its tag stands for now. For an image of several
/// architectures that is the digest of the whole index. An image that has a digest
/// already is not asked for.
///
/// # Errors
///
/// [`RegistryError`], after 30 s at the latest.
pub async fn resolve(image: &ImageRef) -> Result<ImageRef, RegistryError> {
    if image.digest().is_some() {
        return Ok(image.clone());
    }
    let unreachable = |why: String| RegistryError::Unreachable { image: image.to_string(), why };
    let reference = Reference::try_from(image.to_string()).map_err(|error| unreachable(error.to_string()))?;
    // A second install is refused, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let is_local = is_on_this_machine(reference.registry());
    let client = Client::new(ClientConfig {
        protocol: if is_local { ClientProtocol::Http } else { ClientProtocol::Https },
        connect_timeout: Some(Duration::from_secs(10)),
        read_timeout: Some(DEADLINE),
        user_agent: concat!("cotter/", env!("CARGO_PKG_VERSION")),
        no_proxy: is_local.then(|| "localhost,127.0.0.0/8,::1".to_owned()),
        ..ClientConfig::default()
    });
    let asking = client.fetch_manifest_digest(&reference, &RegistryAuth::Anonymous);
    let digest = tokio::time::timeout(DEADLINE, asking)
        .await
        .map_err(|_| unreachable(format!("no answer in {} s", DEADLINE.as_secs())))?
        .map_err(|error| sorted(image, &error))?;
    image.at_digest(&digest).map_err(|error| unreachable(error.to_string()))
}

fn is_on_this_machine(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn sorted(image: &ImageRef, error: &OciDistributionError) -> RegistryError {
    let image = image.to_string();
    #[expect(clippy::wildcard_enum_match_arm, reason = "all other errors mean that we got no usable answer")]
    match error {
        OciDistributionError::ImageManifestNotFoundError(_)
        | OciDistributionError::ServerError { code: 404, .. } => RegistryError::NotFound { image },
        OciDistributionError::AuthenticationFailure(_)
        | OciDistributionError::UnauthorizedError { .. }
        | OciDistributionError::ServerError { code: 401 | 403, .. } => RegistryError::Denied { image },
        OciDistributionError::RegistryError { envelope, .. } => {
            let says = |codes: &[OciErrorCode]| envelope.errors.iter().any(|e| codes.contains(&e.code));
            if says(&[OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::NotFound]) {
                RegistryError::NotFound { image }
            } else if says(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                RegistryError::Denied { image }
            } else {
                RegistryError::Unreachable { image, why: error.to_string() }
            }
        }
        OciDistributionError::RequestError(source) => {
            let innermost =
                std::iter::successors(Some(source as &dyn std::error::Error), |error| error.source()).last();
            let why = innermost.map_or_else(|| error.to_string(), ToString::to_string);
            RegistryError::Unreachable { image, why }
        }
        other => RegistryError::Unreachable { image, why: other.to_string() },
    }
}
