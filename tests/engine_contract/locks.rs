//! The lock folder of a service, as the engine mounts it.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use cotter::engine::Operate;
use cotter::model::{ImageRef, ServiceSpec};

use crate::real::docker;
use crate::support::Lab;
use crate::{created, gone, pull, service, spec};

/// What the engine does with a lock folder is the engine's own; the fake has none.
#[tokio::test]
async fn a_service_sees_its_lock_folder_whoever_makes_it() {
    let lab = Lab::new("locks");
    let image = ImageRef::parse(lab.image("r1")).unwrap();
    let services_dir = lab.dir().join("services");
    let engine = docker(lab.docker().socket(), &lab, &lab.instance("a"));
    pull(&engine, &image).await.unwrap();
    let spec = ServiceSpec { is_read_only: true, ..spec(&image, 20) };
    let id = created(&engine, "web", &spec).await;
    let folder = services_dir.join("7/web");
    let sees = |name: &str, inside: &str| {
        std::fs::write(folder.join(name), name).unwrap();
        let out = lab.docker().try_run(&["cp", &format!("{id}:{inside}/{name}"), "-"]);
        out.status.success() && String::from_utf8_lossy(&out.stdout).contains(name)
    };
    // As after a boot: there is none yet, and only the engine can make it.
    for round in ["first", "second"] {
        assert!(!services_dir.exists());
        engine.start(&id).await.expect("a folder that is missing stops no container");
        assert!(folder.is_dir(), "{round}");
        assert!(sees("one", "/tmp/balena") && sees("two", "/tmp/resin"), "{round}");
        engine.stop(&id, Duration::from_secs(2)).await.unwrap();
        std::fs::remove_dir_all(&services_dir).unwrap();
    }
    // One that we make is taken as it is.
    let locks = cotter::host::Locks::new(services_dir.clone());
    locks.prepare(7, &service("web")).unwrap();
    engine.start(&id).await.unwrap();
    let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1777);
    locks.take(7, &[service("web")]).unwrap();
    let out = lab.docker().run(&["cp", &format!("{id}:/tmp/balena/updates.lock"), "-"]);
    assert!(out.contains("cotter\n"), "the app sees that we are at it: {out:?}");
    let raw = &lab.docker().containers(&lab.instance("a"))[0].raw;
    let env: Vec<_> = raw.pointer("/Config/Env").unwrap().as_array().unwrap().iter().collect();
    for line in ["BALENA=1", "RESIN_APP_NAME=demo", "BALENA_APP_LOCK_PATH=/tmp/balena/updates.lock"] {
        assert!(env.iter().any(|env| *env == line), "{line} is not in {env:?}");
    }
    gone(&engine, &id).await;
    assert!(folder.is_dir());
}
