//! A registry that wants a login, and a real engine that pulls from it with the device's key.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking and reads the real clock"
)]

#[path = "../support/mod.rs"]
mod support;
mod tokens;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cotter::daemon::Host;
use cotter::engine::{Docker, DockerSettings, EngineError, Inspect as _, Operate as _};
use cotter::http::Http;
use cotter::model::{ImageRef, Instance, Policy, RegistryLogin, RegistryPass};
use cotter::reconcile::HostAccess as _;
use cotter::registry::{RegistryError, measure_image, pass};
use support::{Lab, Program, eventually, http_get};
use tokens::Tokens;
use tokio::sync::{mpsc, watch};

/// Another registry over the images of the tests' own, that lets a client in only with `auth`.
fn guarded(lab: &Lab, auth: &str) -> (Program, String) {
    let storage = Path::new(env!("CARGO_MANIFEST_DIR")).join(".registry/storage");
    let settings = format!(
        "version: 0.1
log: {{ level: info, accesslog: {{ disabled: true }} }}
storage: {{ filesystem: {{ rootdirectory: {} }} }}
auth: {auth}
http: {{ addr: 127.0.0.1:0, secret: loopback-only }}
",
        storage.display(),
    );
    let settings = lab.file("guarded.yml", &settings);
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(&settings);
    let registry = Program::start("the guarded registry", command, &lab.dir().join("guarded.log"));
    let address = eventually("the guarded registry listens", Duration::from_secs(15), || {
        let log = registry.log();
        let rest = log.split_once("listening on ")?.1;
        let address = rest.split(['"', ' ', ',']).next()?.to_owned();
        (http_get(&address, "/v2/")?.status == 401).then_some(address)
    });
    (registry, address)
}

/// `user` with `key`, as a file of passwords.
fn passwords(lab: &Lab) -> String {
    // perl's crypt is the C library's, which knows bcrypt: the one kind that the registry takes.
    let print = r#"print crypt("key", '$2y$05$abcdefghijklmnopqrstuu')"#;
    let hash = String::from_utf8(Command::new("perl").args(["-e", print]).output().unwrap().stdout).unwrap();
    assert!(hash.starts_with("$2y$05$"), "perl hashes: {hash}");
    let passwords = lab.file("htpasswd", &format!("user:{hash}\n"));
    format!("{{ htpasswd: {{ realm: tests, path: {} }} }}", passwords.display())
}

fn engine(lab: &Lab) -> Docker {
    Docker::new(DockerSettings {
        socket: lab.docker().socket().to_owned(),
        instance: Instance::parse(lab.instance("a")).unwrap(),
        services_dir: lab.dir().join("services"),
        stall_timeout: Duration::from_secs(30),
    })
}

fn login(password: &str, registries: &[&str]) -> RegistryLogin {
    let registries = registries.iter().map(|registry| (*registry).to_owned()).collect();
    RegistryLogin { cloud: String::new(), username: "user".into(), password: password.into(), registries }
}

/// An image of the lab's own, as it is called in the registry at `address`.
fn image(lab: &Lab, address: &str) -> ImageRef {
    let own = ImageRef::parse(&lab.fresh_image("r1")).unwrap();
    ImageRef::parse(&format!("{address}/demo/app@{}", own.digest().unwrap())).unwrap()
}

async fn pull(lab: &Lab, image: &ImageRef, pass: &RegistryPass) -> Result<u64, EngineError> {
    engine(lab).pull(image, None, pass, mpsc::channel(8).0).await
}

/// Whether the engine has the image; it is removed.
fn remove(lab: &Lab, image: &ImageRef) {
    lab.docker().run(&["image", "inspect", &image.to_string()]);
    lab.docker().run(&["rmi", &image.to_string()]);
}

#[tokio::test]
async fn a_guarded_registry_is_shown_the_key_if_it_is_the_clouds() {
    let lab = Lab::new("login");
    let (registry, address) = guarded(&lab, &passwords(&lab));
    let (image, http) = (image(&lab, &address), Http::new().unwrap());
    for (login, why) in [
        (login("key", &["registry.example.com"]), "another cloud's registry is not shown the key"),
        (login("wrong", &[&address]), "a wrong key"),
    ] {
        let pass = pass(&http, &image, &login).await.unwrap();
        let error = pull(&lab, &image, &pass).await.unwrap_err();
        assert!(matches!(error, EngineError::RegistryAuth { .. }), "{why}: {error}");
    }
    // Its size is for clients that may read it.
    let login = login("key", &[&address]);
    let machine = engine(&lab).about().await.unwrap().architecture;
    let size = measure_image(&http, &image, &machine, Some(&login)).await.unwrap();
    assert!(!size.layers.is_empty() && size.architectures.contains(&machine), "{size:?}");
    let denied = measure_image(&http, &image, &machine, None).await.unwrap_err().why.to_string();
    assert!(denied.contains("does not let us read"), "{denied}");
    let pass = pass(&http, &image, &login).await.unwrap();
    assert_eq!(pass, RegistryPass::Login(login));
    pull(&lab, &image, &pass).await.unwrap();
    remove(&lab, &image);
    drop(registry);
}

#[tokio::test]
async fn the_engine_pulls_with_a_token_and_never_has_the_key() {
    let lab = Lab::new("token");
    let tokens = Tokens::start(&lab);
    let (registry, address) = guarded(&lab, &tokens.auth());
    let (image, http) = (image(&lab, &address), Http::new().unwrap());

    // A token service that may not be shown the key is not asked, by us or by the engine.
    let refused = pass(&http, &image, &login("key", &[&address])).await.unwrap_err().why;
    assert!(
        matches!(&refused, RegistryError::ForeignRealm { realm, .. } if *realm == tokens.address),
        "{refused}"
    );
    let host = Host::new(
        lab.dir(),
        http.clone(),
        watch::Sender::new(Some(login("key", &[&address]))).subscribe(),
        Policy::default(),
    );
    let refused = host.pass(&image).await.unwrap_err();
    let answer = format!("if it may be shown there, add {} to cloud.registries", tokens.address);
    assert!(
        matches!(refused, EngineError::RegistryAuth { .. }) && refused.to_string().contains(&answer),
        "{refused}"
    );
    assert_eq!(tokens.asked(), Vec::<String>::new());

    let login = login("key", &[&address, &tokens.address]);
    let pass = pass(&http, &image, &login).await.unwrap();
    assert!(
        matches!(&pass, RegistryPass::Token { life, .. } if *life == Duration::from_secs(300)),
        "{pass:?}"
    );
    pull(&lab, &image, &pass).await.unwrap();
    remove(&lab, &image);
    let asked = tokens.asked();
    let us = concat!("cotter/", env!("CARGO_PKG_VERSION"));
    let shown = format!("{us} Basic dXNlcjprZXk= /token?scope=repository%3Ademo%2Fapp%3Apull&service=tests");
    assert_eq!(asked, [shown], "the engine asked for nothing");

    // A token that has ended is not taken any more.
    let ended =
        RegistryPass::Token { token: tokens.ended(), life: Duration::from_secs(60), login: login.clone() };
    let error = pull(&lab, &image, &ended).await.unwrap_err();
    assert!(matches!(error, EngineError::RegistryAuth { .. }), "{error}");

    // What is avoided: the engine shows a login to whom the registry names.
    pull(&lab, &image, &RegistryPass::Login(login)).await.unwrap();
    remove(&lab, &image);
    let by_engine = tokens.asked().pop().unwrap();
    assert!(by_engine.starts_with("docker/") && by_engine.contains(" Basic dXNlcjprZXk= "), "{by_engine}");
    drop(registry);
}
