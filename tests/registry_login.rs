//! A registry that wants a login, and a real engine that pulls from it with the device's key.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking and reads the real clock"
)]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cotter::engine::{Docker, DockerSettings, EngineError, Inspect as _, Operate as _};
use cotter::model::{ImageRef, Instance, RegistryLogin};
use cotter::registry::weigh;
use support::{Lab, Program, eventually, http_get};
use tokio::sync::mpsc;

/// Another registry over the images of the tests' own, that lets nobody in but `user` with `key`.
fn guarded(lab: &Lab) -> (Program, String) {
    // perl's crypt is the C library's, which knows bcrypt: the one kind that the registry takes.
    let print = r#"print crypt("key", '$2y$05$abcdefghijklmnopqrstuu')"#;
    let hash = String::from_utf8(Command::new("perl").args(["-e", print]).output().unwrap().stdout).unwrap();
    assert!(hash.starts_with("$2y$05$"), "perl hashes: {hash}");
    let passwords = lab.file("htpasswd", &format!("user:{hash}\n"));
    let storage = Path::new(env!("CARGO_MANIFEST_DIR")).join(".registry/storage");
    let settings = format!(
        "version: 0.1
log: {{ level: info, accesslog: {{ disabled: true }} }}
storage: {{ filesystem: {{ rootdirectory: {} }} }}
auth: {{ htpasswd: {{ realm: tests, path: {} }} }}
http: {{ addr: 127.0.0.1:0, secret: loopback-only }}
",
        storage.display(),
        passwords.display()
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

#[tokio::test]
async fn a_guarded_registry_is_shown_the_key_if_it_is_the_clouds() {
    let lab = Lab::new("login");
    let (registry, address) = guarded(&lab);
    let own = ImageRef::parse(&lab.fresh_image("r1")).unwrap();
    let image = ImageRef::parse(&format!("{address}/demo/app@{}", own.digest().unwrap())).unwrap();
    let engine = |login: Option<(&str, &str)>| {
        let login = login.map(|(password, registry)| RegistryLogin {
            username: "user".into(),
            password: password.into(),
            registries: vec![registry.to_owned()],
        });
        Docker::new(DockerSettings {
            socket: lab.docker().socket().to_owned(),
            instance: Instance::parse(lab.instance("a")).unwrap(),
            services_dir: lab.dir().join("services"),
            login,
            stall_timeout: Duration::from_secs(30),
        })
    };
    for (login, why) in [
        (None, "no login"),
        (Some(("key", "registry.example.com")), "another cloud's registry is not shown the key"),
        (Some(("wrong", address.as_str())), "a wrong key"),
    ] {
        let error = engine(login).pull(&image, None, mpsc::channel(8).0).await.unwrap_err();
        assert!(matches!(error, EngineError::RegistryAuth { .. }), "{why}: {error}");
    }
    // What it weighs is told to who is let in.
    let login =
        RegistryLogin { username: "user".into(), password: "key".into(), registries: vec![address.clone()] };
    let machine = engine(None).about().await.unwrap().architecture;
    let weight = weigh(&image, &machine, Some(&login)).await.unwrap();
    assert!(!weight.layers.is_empty() && weight.architectures.contains(&machine), "{weight:?}");
    let denied = weigh(&image, &machine, None).await.unwrap_err().why.to_string();
    assert!(denied.contains("does not let us read"), "{denied}");
    engine(Some(("key", &address))).pull(&image, None, mpsc::channel(8).0).await.unwrap();
    lab.docker().run(&["image", "inspect", &image.to_string()]);
    lab.docker().run(&["rmi", &image.to_string()]);
    drop(registry);
}
