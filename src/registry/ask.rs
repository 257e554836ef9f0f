//! Requests to one registry about one image: its address, the login or token, and its refusals.

use std::time::Duration;

use serde::Deserialize;

use crate::http::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use crate::http::{Answer, Failure, Follow, Http, Method, Request, StatusCode, Url, is_loopback};
use crate::model::{ImageRef, RegistryLogin};

use super::challenge::Challenge;
use super::{DEADLINE, NoAnswer, RegistryError, Unanswered};

/// The media types of manifests and indexes, of Docker and of OCI.
const KINDS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Maximum number of bytes of an answer with a token.
const LARGEST_TOKEN: usize = 64 << 10;

/// How long a token is valid if its service does not say, in seconds (distribution API).
const USUAL_LIFE: u64 = 60;

/// Requests about one image.
pub(super) struct Asking<'a> {
    http: &'a Http,
    image: &'a ImageRef,
    /// E.g. `https://r.example`.
    registry: String,
    /// The image's path there, e.g. `a/b`.
    path: String,
    /// The device's login, if this registry may have it.
    login: Option<&'a RegistryLogin>,
    /// The credential to send. Fetched after the registry has asked for it.
    pass: Option<Pass>,
}

/// A credential for the registry.
pub(super) enum Pass {
    Token {
        token: String,
        life: Duration,
    },
    /// The login itself.
    Login,
}

impl<'a> Asking<'a> {
    /// Sends nothing yet.
    pub(super) fn new(http: &'a Http, image: &'a ImageRef, login: Option<&'a RegistryLogin>) -> Self {
        let (host, path) = host_and_path(image.repository());
        let login = login.filter(|login| login.is_for(image));
        let is_local = Url::parse(&format!("http://{host}")).is_ok_and(|url| is_loopback(&url));
        let is_plain = is_local || login.is_some_and(|login| login.is_plain(host));
        let registry = format!("{}://{host}", if is_plain { "http" } else { "https" });
        Self { http, image, registry, path, login, pass: None }
    }

    /// Requests `what` of the repository, e.g. `manifests/latest`. If the registry asks for a credential, requests it once
    /// more with the login, or with a token from the registry's token service. Returns only answers with status 200; the
    /// body is not read yet.
    pub(super) async fn ask(&mut self, method: Method, what: &str) -> Result<Answer, Unanswered> {
        let url = format!("{}/v2/{}/{what}", self.registry, self.path);
        let mut answer = self.send(method.clone(), &url).await?;
        if answer.status() == StatusCode::UNAUTHORIZED && self.pass.is_none() {
            self.pass = Some(self.get_pass(&answer).await?);
            answer = self.send(method, &url).await?;
        }
        let image = self.image.to_string();
        match answer.status() {
            StatusCode::OK if is_page(&answer) => Err(self.invalid(PORTAL.to_owned())),
            StatusCode::OK => Ok(answer),
            StatusCode::NOT_FOUND => Err(RegistryError::NotFound { image }.into()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(RegistryError::Denied { image }.into()),
            _ => Err(self.refused(&answer)),
        }
    }

    /// Returns the credential that the registry wants for any request; `None` if it wants none.
    pub(super) async fn probe(&self) -> Result<Option<Pass>, Unanswered> {
        // The engine makes this request before each pull, too.
        let answer = self.send(Method::GET, &format!("{}/v2/", self.registry)).await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => self.get_pass(&answer).await.map(Some),
            status if status.is_success() => Ok(None),
            _ => Err(self.refused(&answer)),
        }
    }

    /// Reads a body of at most `limit` bytes.
    pub(super) async fn read(&self, answer: Answer, limit: usize) -> Result<Vec<u8>, Unanswered> {
        answer.body(limit).await.map_err(|failure| self.failed(failure))
    }

    /// Makes the error for an answer with invalid content.
    pub(super) fn invalid(&self, why: String) -> Unanswered {
        self.unreachable(NoAnswer::Invalid(why))
    }

    fn unreachable(&self, why: NoAnswer) -> Unanswered {
        RegistryError::Unreachable { image: self.image.to_string(), why }.into()
    }

    fn failed(&self, failure: Failure) -> Unanswered {
        self.unreachable(NoAnswer::Failed(failure))
    }

    /// Sends a request. It may be redirected anywhere, because the content is checked by its digest. Only the registry
    /// gets credentials.
    async fn send(&self, method: Method, url: &str) -> Result<Answer, Unanswered> {
        let request = Request::new(method, url, DEADLINE).header(ACCEPT, KINDS).follow(Follow::Anywhere);
        let request = match &self.pass {
            Some(Pass::Token { token, .. }) => request.bearer(token),
            Some(Pass::Login) => self.with_login(request),
            None => request,
        };
        self.http.send(request).await.map_err(|failure| self.failed(failure))
    }

    fn refused(&self, answer: &Answer) -> Unanswered {
        let status = answer.status();
        let is_busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let after = if is_busy { answer.retry_after() } else { None };
        Unanswered { after, ..self.unreachable(NoAnswer::Status(status)) }
    }

    fn denied(&self) -> Unanswered {
        RegistryError::Denied { image: self.image.to_string() }.into()
    }

    fn with_login(&self, request: Request) -> Request {
        match self.login {
            Some(login) => request.basic(&login.username, &login.password),
            None => request,
        }
    }

    /// Returns the credential that the registry's `WWW-Authenticate` asks for: the login, or a token that is fetched from
    /// its token service.
    async fn get_pass(&self, answer: &Answer) -> Result<Pass, Unanswered> {
        match Challenge::read(answer.headers(&WWW_AUTHENTICATE)) {
            Some(Challenge::Basic) if self.login.is_some() => Ok(Pass::Login),
            Some(Challenge::Bearer { realm, service }) => self.get_token(&realm, service).await,
            Some(Challenge::Basic) | None => Err(self.denied()),
        }
    }

    /// Fetches a token that allows only reading this image, whatever scope the registry names.
    async fn get_token(&self, realm: &str, service: Option<String>) -> Result<Pass, Unanswered> {
        #[derive(Deserialize)]
        struct Issued {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<serde_json::Value>,
        }
        self.check_realm(realm)?;
        let scope = format!("repository:{}:pull", self.path);
        let mut request = Request::new(Method::GET, realm, DEADLINE).query("scope", scope);
        if let Some(service) = service {
            request = request.query("service", service);
        }
        let sent = self.http.send(self.with_login(request)).await;
        let answer = sent.map_err(|failure| self.unreachable(NoAnswer::TokenService(failure)))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(self.denied()),
            _ => return Err(self.refused(&answer)),
        }
        let body = self.read(answer, LARGEST_TOKEN).await?;
        let issued: Option<Issued> = serde_json::from_slice(&body).ok();
        let life = issued
            .as_ref()
            .and_then(|issued| issued.expires_in.as_ref())
            .and_then(seconds)
            .unwrap_or(USUAL_LIFE);
        let token =
            issued.and_then(|issued| issued.token.or(issued.access_token)).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| self.invalid("its token service returned no token".to_owned()))?;
        Ok(Pass::Token { token, life: Duration::from_secs(life) })
    }

    /// Checks that `realm` may be asked for tokens: over https, or over http if the settings say that its host has no TLS.
    /// With a login, only if the host may have it.
    pub(super) fn check_realm(&self, realm: &str) -> Result<(), Unanswered> {
        let is_http = |url: &Url| matches!(url.scheme(), "http" | "https");
        let parts = Url::parse(realm).ok().filter(is_http).zip(Url::parse(&self.registry).ok());
        let Some((realm, registry)) = parts else {
            return Err(self.invalid("the address of its token service is invalid".to_owned()));
        };
        let name = realm.host_str().unwrap_or_default();
        let host = realm.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        if self.login.is_some_and(|login| !login.may_see(&host)) {
            return Err(RegistryError::ForeignRealm { image: self.image.to_string(), realm: host }.into());
        }
        let is_own_plain = self.login.is_some_and(|login| login.is_plain(&host));
        match realm.scheme() {
            _ if is_loopback(&realm) && !is_loopback(&registry) => {
                Err(self.invalid(format!("it names this machine, at {host}, as its token service")))
            }
            "http" if !is_loopback(&realm) && !is_own_plain => {
                Err(self.invalid(format!("its token service {host} has no TLS")))
            }
            _ => Ok(()),
        }
    }
}

/// The error for a web page: a network may answer in the registry's place until its user has logged in.
const PORTAL: &str = "its answer is a web page: perhaps the network wants a login (a captive portal), or the address is that of another server";

/// Returns whether an answer is a web page. No registry sends one for a manifest or a blob.
fn is_page(answer: &Answer) -> bool {
    let kind = answer.header(&CONTENT_TYPE).unwrap_or_default().trim_start();
    kind.get(..9).is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"))
}

/// Reads a number of seconds, which some token services write as a text or with a fraction.
fn seconds(value: &serde_json::Value) -> Option<u64> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.split('.').next()?.trim().parse().ok()
}

/// Splits a repository into registry and path, as the engine does: without a host, it is on Docker Hub.
pub(super) fn host_and_path(repository: &str) -> (&str, String) {
    match repository.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
            (if host == "docker.io" { HUB } else { host }, path.to_owned())
        }
        Some(_) => (HUB, repository.to_owned()),
        None => (HUB, format!("library/{repository}")),
    }
}

/// The host of Docker Hub's registry. References name it docker.io.
const HUB: &str = "registry-1.docker.io";

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
            assert_eq!(host_and_path(repository), (host, path.to_owned()), "{repository}");
        }
    }

    #[test]
    fn where_a_registry_is_and_whether_it_is_asked_in_plain() {
        let login = RegistryLogin {
            cloud: String::new(),
            username: String::new(),
            password: String::new(),
            registries: vec!["http://lan.example:5000".to_owned(), "tls.example".to_owned()],
        };
        let http = Http::new().unwrap();
        for (image, registry) in [
            ("localhost:5000/a", "http://localhost:5000"),
            ("127.1.2.3/a", "http://127.1.2.3"),
            ("r.example/a", "https://r.example"),
            ("127.example/a", "https://127.example"),
            ("lan.example:5000/a", "http://lan.example:5000"),
            ("lan.example:5001/a", "https://lan.example:5001"),
            ("tls.example/a", "https://tls.example"),
        ] {
            let image = ImageRef::parse(image).unwrap();
            assert_eq!(Asking::new(&http, &image, Some(&login)).registry, registry);
        }
    }
}
