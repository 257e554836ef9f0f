//! Against registries that want the device's login, or more of it than they may have.

use crate::http::sample::{Say, Server, answer, endless_head, redirect};
use crate::model::{RegistryLogin, RegistryPass};

use super::*;

fn login(registries: &[&str]) -> RegistryLogin {
    let registries = registries.iter().map(|registry| (*registry).to_owned()).collect();
    RegistryLogin {
        cloud: String::new(),
        username: "d_1".to_owned(),
        password: "hunter2".to_owned(),
        registries,
    }
}

/// `d_1:hunter2` in Basic.
const SHOWN: &str = "ZF8xOmh1bnRlcjI=";

/// A registry that asks for a token of `realm`, and lets in who has the token `let-me-in`.
fn guarded(realm: String) -> Server {
    Server::start(move |request| {
        if request.contains("Bearer let-me-in") {
            return answer("200 OK", &["Docker-Content-Digest: sha256:0".to_owned()], b"{}");
        }
        let challenge = format!(
            "WWW-Authenticate: Bearer realm=\"{realm}\",service=\"r\",scope=\"repository:a/b:pull,push\""
        );
        answer("401 Who", &[challenge], b"")
    })
}

/// A token service with this answer.
fn tokens(body: &'static str) -> Server {
    Server::start(move |_| answer("200 OK", &[], body.as_bytes()))
}

async fn asked(registry: &Server, login: &RegistryLogin) -> Result<RegistryPass, String> {
    let image = ImageRef::parse(&format!("{}/lab/web", registry.address)).unwrap();
    pass(&Http::new().unwrap(), &image, login).await.map_err(|unanswered| unanswered.why.to_string())
}

#[tokio::test]
async fn the_engine_is_given_a_token_and_the_login_goes_to_the_token_service_alone() {
    let service = tokens(r#"{"token":"let-me-in","access_token":"let-me-in","expires_in":300}"#);
    let registry = guarded(service.url("/token?account=x"));
    let login = login(&[&registry.address, &service.address]);
    let token = "let-me-in".to_owned();
    let expected = RegistryPass::Token { token, life: Duration::from_secs(300), login: login.clone() };
    assert_eq!(asked(&registry, &login).await, Ok(expected));
    let shown = &service.requests()[0];
    // The scope is our own: what the registry would like is not asked for.
    assert!(
        shown.starts_with("GET /token?account=x&scope=repository%3Alab%2Fweb%3Apull&service=r "),
        "{shown}"
    );
    assert!(shown.contains(SHOWN), "{shown}");
    assert!(registry.requests().iter().all(|request| !request.contains(SHOWN)), "{:?}", registry.requests());
    for body in [r#"{"access_token":"let-me-in"}"#, r#"{"token":"let-me-in"}"#] {
        let service = tokens(body);
        let registry = guarded(service.url("/token"));
        let login = self::login(&[&registry.address, &service.address]);
        let life = Duration::from_secs(60);
        let expected = RegistryPass::Token { token: "let-me-in".to_owned(), life, login: login.clone() };
        assert_eq!(asked(&registry, &login).await, Ok(expected), "{body}");
    }
}

#[tokio::test]
async fn a_token_service_on_a_host_that_may_not_see_the_login_is_not_asked() {
    let service = tokens(r#"{"token":"let-me-in"}"#);
    let registry = guarded(service.url("/token"));
    let refused = asked(&registry, &login(&[&registry.address])).await.unwrap_err();
    let (registry_at, service_at) = (&registry.address, &service.address);
    assert_eq!(
        refused,
        format!(
            "the registry of {registry_at}/lab/web:latest wants the device's login to be sent to {service_at}, which is not \
             one of the cloud's hosts; if that host may have it, add {service_at} to cloud.registries"
        )
    );
    assert_eq!(service.requests(), Vec::<String>::new());
    // Nor when an image is weighed.
    let image = ImageRef::parse(&format!("{registry_at}/lab/web")).unwrap();
    let weighed = measure_image(&Http::new().unwrap(), &image, "arm64", Some(&login(&[registry_at]))).await;
    assert!(matches!(weighed.unwrap_err().why, RegistryError::ForeignRealm { .. }));
    assert_eq!(service.requests(), Vec::<String>::new());
    // Whoever has no login for a registry may ask anybody, and shows nothing.
    assert!(measure_image(&Http::new().unwrap(), &image, "arm64", None).await.is_err());
    let asked = service.requests();
    assert!(asked.len() == 1 && !asked[0].to_lowercase().contains("authorization"), "{asked:?}");
}

#[tokio::test]
async fn what_a_registry_may_say_of_its_token_service() {
    let login = login(&["127.0.0.1", "r.example", "auth.example", "http://lan.example", ".cloud.example"]);
    for (registry, realm, expected) in [
        ("r.example", "https://auth.example/token", ""),
        ("r.example", "https://auth.example:443/token", ""),
        ("r.example", "https://api.cloud.example:8443/token", ""),
        ("r.example", "http://lan.example/token", ""),
        ("r.example", "https://evil.example/token", "sent to evil.example,"),
        ("r.example", "https://auth.example@evil.example/token", "sent to evil.example,"),
        ("r.example", "https://auth.example:8443/token", "sent to auth.example:8443,"),
        ("r.example", "https://auth.example.evil.example/", "sent to auth.example.evil.example,"),
        ("r.example", "http://auth.example/token", "its token service auth.example has no TLS"),
        ("r.example", "http://127.0.0.1/token", "it names this machine"),
        ("r.example", "file:///etc/passwd", "the address of its token service is invalid"),
        ("r.example", "tokens", "the address of its token service is invalid"),
    ] {
        let image = ImageRef::parse(&format!("{registry}/a")).unwrap();
        let http = Http::new().unwrap();
        let checked = Asking::new(&http, &image, Some(&login)).check_realm(realm);
        match checked {
            Ok(()) => assert_eq!(expected, "", "{realm}"),
            Err(refused) => {
                let refused = refused.why.to_string();
                assert!(!expected.is_empty() && refused.contains(expected), "{realm}: {refused}");
            }
        }
    }
}

#[tokio::test]
async fn what_the_engine_is_given_follows_from_what_the_registry_asks_for() {
    let open = Server::start(|_| answer("200 OK", &[], b"{}"));
    assert_eq!(asked(&open, &login(&[&open.address])).await, Ok(RegistryPass::Nothing));
    assert_eq!(open.requests()[0].lines().next(), Some("GET /v2/ HTTP/1.1"));
    // One that the login is not for is not even asked.
    assert_eq!(asked(&open, &login(&["r.example"])).await, Ok(RegistryPass::Nothing));
    assert_eq!(open.requests().len(), 1);
    let basic =
        Server::start(|_| answer("401 Who", &["WWW-Authenticate: Basic realm=\"x\"".to_owned()], b""));
    let known = login(&[&basic.address]);
    assert_eq!(asked(&basic, &known).await, Ok(RegistryPass::Login(known)));
    assert!(basic.requests().iter().all(|request| !request.contains(SHOWN)), "the engine shows it by itself");
    for (status, expected) in [
        ("401 Who", "does not let us read"),
        ("500 Oh", "status 500 Internal Server Error"),
        ("404 What", "status 404 Not Found"),
    ] {
        let odd = Server::start(move |_| answer(status, &[], b""));
        let refused = asked(&odd, &login(&[&odd.address])).await.unwrap_err();
        assert!(refused.contains(expected), "{status}: {refused}");
    }
}

#[tokio::test]
async fn no_token_service_fills_the_memory_or_sends_the_login_on() {
    let elsewhere = tokens(r#"{"token":"let-me-in"}"#);
    let away = elsewhere.url("/token");
    let service = Server::start(move |request| match request.split(['?', ' ']).nth(1).unwrap() {
        "/endless" => Say::Endless(endless_head("200 OK", &[]), vec![b' '; 0x4000]),
        "/away" => redirect(307, &away),
        "/none" => answer("200 OK", &[], b"{}"),
        "/empty" => answer("200 OK", &[], br#"{"token":""}"#),
        "/denied" => answer("401 No", &[], b""),
        other => panic!("{other}"),
    });
    for (path, expected) in [
        ("/endless", "its answer has more than 65536 bytes"),
        ("/away", "which is another server"),
        ("/none", "returned no token"),
        ("/empty", "returned no token"),
        ("/denied", "does not let us read"),
    ] {
        let registry = guarded(service.url(path));
        let login = login(&[&registry.address, &service.address, &elsewhere.address]);
        let refused = asked(&registry, &login).await.unwrap_err();
        assert!(refused.contains(expected), "{path}: {refused}");
    }
    assert_eq!(elsewhere.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn blobs_may_be_elsewhere_and_credentials_stay() {
    let elsewhere = Server::start(|_| answer("200 OK", &[], b"{}"));
    let away = elsewhere.url("/blob?signature=1");
    let service = tokens(r#"{"token":"let-me-in"}"#);
    let realm = service.url("/token");
    let registry = Server::start(move |request| {
        if request.contains("Bearer let-me-in") {
            return redirect(307, &away);
        }
        answer("401 Who", &[format!("WWW-Authenticate: Bearer realm=\"{realm}\"")], b"")
    });
    let image = ImageRef::parse(&format!("{}/lab/web", registry.address)).unwrap();
    let login = login(&[&registry.address, &service.address]);
    let weighed = measure_image(&Http::new().unwrap(), &image, "arm64", Some(&login))
        .await
        .unwrap_err()
        .why
        .to_string();
    assert!(
        weighed.contains("its manifest is of a kind that is no longer used"),
        "it was read there: {weighed}"
    );
    let asked = elsewhere.requests();
    assert!(asked.len() == 1 && asked[0].starts_with("GET /blob?signature=1 "), "{asked:?}");
    assert!(!asked[0].to_lowercase().contains("authorization"), "{asked:?}");
}

/// A registry of one image, whose manifest is `MANIFEST`.
const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;

#[tokio::test]
async fn a_tag_is_resolved_in_whatever_way_the_registry_allows() {
    let digest = digest_of(MANIFEST);
    let named = format!("Docker-Content-Digest: {digest}");
    type Quirk = Box<dyn Fn(&str) -> Say + Send + Sync>;
    let manifest = || answer("200 OK", &[], MANIFEST);
    let with_digest = named.clone();
    let quirks: Vec<(&str, Quirk)> = vec![
        ("it names the digest", Box::new(move |_| answer("200 OK", std::slice::from_ref(&with_digest), b""))),
        ("it names none", Box::new(move |_| manifest())),
        (
            "it refuses HEAD with 405",
            Box::new(move |r| if r.starts_with("HEAD") { answer("405 No", &[], b"") } else { manifest() }),
        ),
        (
            "it refuses HEAD with 400",
            Box::new(move |r| if r.starts_with("HEAD") { answer("400 No", &[], b"") } else { manifest() }),
        ),
        (
            "it hides from HEAD",
            Box::new(move |r| if r.starts_with("HEAD") { answer("404 No", &[], b"") } else { manifest() }),
        ),
    ];
    for (why, quirk) in quirks {
        let registry = Server::start(quirk);
        let image = ImageRef::parse(&format!("{}/lab/web:1", registry.address)).unwrap();
        let resolved = resolve(&Http::new().unwrap(), &image)
            .await
            .map(|image| image.digest().unwrap_or_default().to_owned());
        assert_eq!(resolved.map_err(|error| error.to_string()), Ok(digest.clone()), "{why}");
    }
}

#[tokio::test]
async fn what_is_no_registry_is_named() {
    let page =
        || answer("200 OK", &["Content-Type: Text/HTML; charset=utf-8".to_owned()], b"<html>log in</html>");
    let portal = Server::start(move |_| page());
    let image = ImageRef::parse(&format!("{}/lab/web:1", portal.address)).unwrap();
    let http = Http::new().unwrap();
    let error = resolve(&http, &image).await.unwrap_err().to_string();
    assert!(error.contains("its answer is a web page: perhaps the network wants a login"), "{error}");
    let error = measure_image(&http, &image, "amd64", None).await.unwrap_err().why.to_string();
    assert!(error.contains("its answer is a web page"), "{error}");
    let odd = Server::start(|_| answer("200 OK", &[], b"hello"));
    let image = ImageRef::parse(&format!("{}/lab/web:1", odd.address)).unwrap();
    let error = resolve(&http, &image).await.unwrap_err().to_string();
    assert!(error.contains("its manifest is not JSON"), "{error}");
    for (status, expected) in [("404 No", "is not in its registry"), ("403 No", "does not let us read")] {
        let refusing = Server::start(move |_| answer(status, &[], b""));
        let image = ImageRef::parse(&format!("{}/lab/web:1", refusing.address)).unwrap();
        let error = resolve(&http, &image).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{status}: {error}");
    }
}

#[tokio::test]
async fn a_token_comes_in_several_shapes() {
    for (body, seconds) in [
        (r#"{"token":"let-me-in"}"#, 60),
        (r#"{"access_token":"let-me-in","expires_in":300}"#, 300),
        (r#"{"token":"let-me-in","access_token":"other","expires_in":"300"}"#, 300),
        (r#"{"token":null,"access_token":"let-me-in","expires_in":300.5}"#, 300),
        (r#"{"token":"let-me-in","expires_in":null,"issued_at":7}"#, 60),
        (r#"{"token":"let-me-in","expires_in":-1}"#, 60),
    ] {
        let service = tokens(body);
        let registry = guarded(service.url("/token"));
        let login = login(&[&registry.address, &service.address]);
        let life = Duration::from_secs(seconds);
        let expected = RegistryPass::Token { token: "let-me-in".to_owned(), life, login: login.clone() };
        assert_eq!(asked(&registry, &login).await, Ok(expected), "{body}");
    }
}
