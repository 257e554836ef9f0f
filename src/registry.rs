//! Asks image registries what a tag stands for. It does not know what a release is, nor who asks.
//!
//! Registries on this machine (localhost, 127.0.0.0/8, ::1) are asked over plain HTTP,
//! as the engine does; all others over HTTPS. Our own few lines of the distribution
//! API, because the kept client for it weighs a megabyte in a binary that boards download.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{ACCEPT, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;

use crate::model::ImageRef;

/// How long one registry may take over one question.
const DEADLINE: Duration = Duration::from_secs(30);

/// Manifests of one image and indexes of several architectures, in Docker's and in OCI's names.
const KINDS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

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
    let asking = digest(image);
    let digest = tokio::time::timeout(DEADLINE, asking)
        .await
        .map_err(|_| unreachable(format!("no answer in {} s", DEADLINE.as_secs())))??;
    image.at_digest(&digest).map_err(|error| unreachable(error.to_string()))
}

/// Asks for the manifest, and once more with a token if the registry names who gives one to anybody.
async fn digest(image: &ImageRef) -> Result<String, RegistryError> {
    let unreachable = |why: String| RegistryError::Unreachable { image: image.to_string(), why };
    let (host, path) = place(image.repository());
    let is_local = is_on_this_machine(host);
    // A second install is refused, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut client = Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .user_agent(concat!("cotter/", env!("CARGO_PKG_VERSION")));
    if is_local {
        // Nor does it need a machine that knows authorities.
        client = client.no_proxy().tls_certs_only([]);
    }
    let client = client.build().map_err(|e| unreachable(innermost(&e)))?;
    let scheme = if is_local { "http" } else { "https" };
    let url = format!("{scheme}://{host}/v2/{path}/manifests/{}", image.tag().unwrap_or("latest"));
    let head = || client.head(&url).header(ACCEPT, KINDS);
    let mut answer = head().send().await.map_err(|e| unreachable(innermost(&e)))?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        let token =
            token(&client, &answer).await.ok_or(RegistryError::Denied { image: image.to_string() })?;
        answer = head().bearer_auth(token).send().await.map_err(|e| unreachable(innermost(&e)))?;
    }
    match answer.status() {
        StatusCode::OK => {
            let digest = answer.headers().get("docker-content-digest").and_then(|d| d.to_str().ok());
            digest.map(str::to_owned).ok_or_else(|| unreachable("it tells no digest".to_owned()))
        }
        StatusCode::NOT_FOUND => Err(RegistryError::NotFound { image: image.to_string() }),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(RegistryError::Denied { image: image.to_string() })
        }
        other => Err(unreachable(format!("status {other}"))),
    }
}

/// A token for anybody, from where the registry's `WWW-Authenticate: Bearer` says; `None` when it wants
/// a login.
async fn token(client: &Client, answer: &Response) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(alias = "access_token")]
        token: String,
    }
    let challenge = answer.headers().get(WWW_AUTHENTICATE)?.to_str().ok()?;
    let parameters = parameters(challenge)?;
    let of = |name: &str| parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let realm = of("realm").filter(|realm| realm.starts_with("https://") || is_loopback_url(realm))?;
    let query: Vec<_> = ["service", "scope"].iter().filter_map(|name| Some((*name, of(name)?))).collect();
    let answer = client.get(realm).query(&query).send().await.ok()?;
    Some(answer.error_for_status().ok()?.json::<Answer>().await.ok()?.token)
}

/// `Bearer realm="…",service="…"` in its parts; `None` for any other scheme.
fn parameters(challenge: &str) -> Option<Vec<(&str, &str)>> {
    let (scheme, mut rest) = challenge.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut found = Vec::new();
    while let Some((key, after)) = rest.split_once("=\"") {
        let (value, after) = after.split_once('"')?;
        found.push((key.trim_matches([',', ' ']), value));
        rest = after;
    }
    Some(found)
}

/// Registry and path of a repository, as the engine reads it: without a host it is Docker Hub's.
fn place(repository: &str) -> (&str, String) {
    match repository.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
            (if host == "docker.io" { HUB } else { host }, path.to_owned())
        }
        Some(_) => (HUB, repository.to_owned()),
        None => (HUB, format!("library/{repository}")),
    }
}

/// Docker Hub's own name differs from the one in references.
const HUB: &str = "registry-1.docker.io";

fn is_loopback_url(url: &str) -> bool {
    url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).is_some_and(is_on_this_machine)
}

fn is_on_this_machine(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn innermost(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_their_registry_or_docker_hub() {
        for (repository, host, path) in [
            ("alpine", HUB, "library/alpine"),
            ("docker.io/library/alpine", HUB, "library/alpine"),
            ("owner/app", HUB, "owner/app"),
            ("localhost/app", "localhost", "app"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000", "a/b"),
            ("r.example/a/b", "r.example", "a/b"),
        ] {
            assert_eq!(place(repository), (host, path.to_owned()), "{repository}");
        }
    }

    #[test]
    fn a_challenge_in_its_parts() {
        let challenge =
            r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull""#;
        let expected = vec![
            ("realm", "https://auth.example/token"),
            ("service", "r.example"),
            ("scope", "repository:a/b:pull"),
        ];
        assert_eq!(parameters(challenge), Some(expected));
        assert_eq!(parameters(r#"Basic realm="x""#), None);
        assert_eq!(parameters("Bearer"), None);
    }

    #[test]
    fn only_this_machine_is_asked_in_plain() {
        for (host, is_local) in [
            ("localhost:5000", true),
            ("127.1.2.3", true),
            ("[::1]:5000", true),
            ("r.example", false),
            ("127.example", false),
        ] {
            assert_eq!(is_on_this_machine(host), is_local, "{host}");
        }
    }
}
