//! One conversation with one registry: where it is, how it is asked, with which token, and what it refuses.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use httpdate::parse_http_date;
use reqwest::header::{ACCEPT, DATE, HeaderMap, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use crate::model::{ImageRef, RegistryLogin};

use super::{RegistryError, Unanswered};

/// Manifests of one image and indexes of several architectures, in Docker's and in OCI's names.
const KINDS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// How long a registry may wish us away, whatever it says.
const AWAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// A conversation about one image.
pub(super) struct Asking<'a> {
    image: &'a ImageRef,
    client: Client,
    /// Of the image's repository, e.g. `https://r.example/v2/a/b`.
    base: String,
    /// Who the device is, if it is for this registry.
    login: Option<&'a RegistryLogin>,
    /// Shown once the registry has asked for it.
    pass: Option<Pass>,
}

enum Pass {
    Token(String),
    /// The login itself.
    Login,
}

impl<'a> Asking<'a> {
    /// Nothing is asked yet.
    pub(super) fn new(image: &'a ImageRef, login: Option<&'a RegistryLogin>) -> Result<Self, RegistryError> {
        let (host, path) = place(image.repository());
        let is_local = is_on_this_machine(host);
        let why = |e| RegistryError::Unreachable { image: image.to_string(), why: innermost(&e) };
        let client = client(is_local).map_err(why)?;
        let scheme = if is_local { "http" } else { "https" };
        let login = login.filter(|login| login.is_for(image));
        Ok(Self { image, client, base: format!("{scheme}://{host}/v2/{path}"), login, pass: None })
    }

    /// Asks for `what` of the repository, e.g. `manifests/latest`, and once more with the login, or with
    /// a token from whom the registry names, if it wants that. The answer is a good one, its body is not read yet.
    pub(super) async fn ask(&mut self, method: Method, what: &str) -> Result<Response, Unanswered> {
        let mut answer = self.send(method.clone(), what).await?;
        if answer.status() == StatusCode::UNAUTHORIZED && self.pass.is_none() {
            self.pass = Some(self.get_pass(&answer).await?);
            answer = self.send(method, what).await?;
        }
        let image = self.image.to_string();
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::NOT_FOUND => Err(RegistryError::NotFound { image }.into()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(RegistryError::Denied { image }.into()),
            _ => Err(self.refused(&answer)),
        }
    }

    /// Reads a body of at most `limit` bytes.
    pub(super) async fn read(&self, mut answer: Response, limit: usize) -> Result<Vec<u8>, Unanswered> {
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.unreachable(innermost(&e)))? {
            if body.len() + chunk.len() > limit {
                return Err(self.unreachable(format!("it sends more than {limit} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// An answer that is none, or makes no sense.
    pub(super) fn unreachable(&self, why: String) -> Unanswered {
        RegistryError::Unreachable { image: self.image.to_string(), why }.into()
    }

    async fn send(&self, method: Method, what: &str) -> Result<Response, Unanswered> {
        let mut request = self.client.request(method, format!("{}/{what}", self.base)).header(ACCEPT, KINDS);
        match &self.pass {
            Some(Pass::Token(token)) => request = request.bearer_auth(token),
            Some(Pass::Login) => request = self.with_login(request),
            None => {}
        }
        request.send().await.map_err(|e| self.unreachable(innermost(&e)))
    }

    fn refused(&self, answer: &Response) -> Unanswered {
        let status = answer.status();
        let is_busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let after = if is_busy { retry_after(answer.headers()) } else { None };
        Unanswered { after, ..self.unreachable(format!("status {status}")) }
    }

    fn with_login(&self, request: RequestBuilder) -> RequestBuilder {
        match self.login {
            Some(login) => request.basic_auth(&login.username, Some(&login.password)),
            None => request,
        }
    }

    /// What the registry's `WWW-Authenticate` asks for: the login, or a token from where it says. As for the
    /// engine's pulls, who gives the tokens of a registry of the cloud is shown the login; others give one to anybody.
    async fn get_pass(&self, answer: &Response) -> Result<Pass, Unanswered> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(alias = "access_token")]
            token: String,
        }
        let denied = || Unanswered::from(RegistryError::Denied { image: self.image.to_string() });
        let challenge = answer.headers().get(WWW_AUTHENTICATE).and_then(|c| c.to_str().ok());
        let is_basic = challenge.and_then(|c| c.get(..6)).is_some_and(|c| c.eq_ignore_ascii_case("basic "));
        if is_basic && self.login.is_some() {
            return Ok(Pass::Login);
        }
        let parameters = challenge.and_then(parameters).ok_or_else(denied)?;
        let of = |name: &str| parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        let realm = of("realm").filter(|realm| realm.starts_with("https://") || is_loopback_url(realm));
        let query: Vec<_> = ["service", "scope"].iter().filter_map(|name| Some((*name, of(name)?))).collect();
        let request = self.client.get(realm.ok_or_else(denied)?).query(&query);
        let answer = self.with_login(request).send().await.map_err(|_| denied())?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                return Err(self.refused(&answer));
            }
            _ => return Err(denied()),
        }
        let body = self.read(answer, LARGEST_TOKEN).await?;
        Ok(Pass::Token(serde_json::from_slice::<Answer>(&body).map_err(|_| denied())?.token))
    }
}

/// Whoever asks a registry. One for all that are elsewhere: it reads the authorities that this machine knows.
fn client(is_local: bool) -> Result<Client, reqwest::Error> {
    static ELSEWHERE: OnceLock<Client> = OnceLock::new();
    if let Some(client) = ELSEWHERE.get().filter(|_| !is_local) {
        return Ok(client.clone());
    }
    // A second install is refused, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .user_agent(concat!("cotter/", env!("CARGO_PKG_VERSION")));
    if is_local {
        // Nor does it need a machine that knows authorities.
        return client.no_proxy().tls_certs_only([]).build();
    }
    let client = client.pool_idle_timeout(Duration::from_secs(5)).build()?;
    Ok(ELSEWHERE.get_or_init(|| client).clone())
}

/// Bytes of an answer with a token in it.
const LARGEST_TOKEN: usize = 1 << 20;

/// `Retry-After`, in seconds or as a date. A date is held against the registry's own clock, so that
/// ours may be wrong.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let wish = text(RETRY_AFTER)?;
    let is_number = !wish.is_empty() && wish.bytes().all(|b| b.is_ascii_digit());
    let after = if is_number {
        Duration::from_secs(wish.parse().unwrap_or(u64::MAX))
    } else {
        let parse = |text: &str| parse_http_date(text).ok();
        let (now, then) = (parse(text(DATE)?)?, parse(wish)?);
        then.duration_since(now).unwrap_or_default()
    };
    Some(after.clamp(AWAY.0, AWAY.1))
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
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "http");
    url.is_some_and(|url| url.host_str().is_some_and(is_on_this_machine))
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

    #[test]
    fn a_token_is_asked_for_in_plain_on_this_machine_only() {
        for (realm, is_local) in [
            ("http://localhost:5001/token", true),
            ("http://127.0.0.1/token?a=b", true),
            ("http://[::1]:5001", true),
            ("http://auth.example/token", false),
            ("http://localhost:x@auth.example/token", false),
            ("http://localhost:x\\@auth.example/token", false),
            ("https://localhost/token", false),
        ] {
            assert_eq!(is_loopback_url(realm), is_local, "{realm}");
        }
    }

    #[test]
    fn how_long_a_registry_wishes_us_away() {
        let date = "Wed, 25 Nov 2026 08:00:00 GMT";
        for (wish, date, seconds) in [
            ("30", None, Some(30)),
            (" 30 ", None, Some(30)),
            ("0", None, Some(1)),
            ("86400", None, Some(3600)),
            ("99999999999999999999999", None, Some(3600)),
            ("Wed, 25 Nov 2026 08:02:00 GMT", Some(date), Some(120)),
            ("Wed, 25 Nov 2026 07:00:00 GMT", Some(date), Some(1)),
            ("Fri, 25 Dec 2026 08:00:00 GMT", Some(date), Some(3600)),
            ("Wed, 25 Nov 2026 08:02:00 GMT", None, None),
            ("soon", Some(date), None),
            ("-5", Some(date), None),
            ("1.5", Some(date), None),
            ("", Some(date), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, wish.parse().unwrap());
            date.map(|date| headers.insert(DATE, date.parse().unwrap()));
            assert_eq!(retry_after(&headers), seconds.map(Duration::from_secs), "{wish}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
