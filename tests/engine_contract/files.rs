//! The files of a release, as the engine writes them into a container.

use std::time::Duration;

use cotter::engine::Operate;
use cotter::model::{ContentFile, ImageRef, Mount, MountOptions, MountSource, ServiceSpec, VolumeName};

use crate::real::docker;
use crate::support::Lab;
use crate::{create, created, gone, pull, seen, spec};

#[tokio::test]
async fn a_container_has_the_files_of_its_release_before_it_starts() {
    let lab = Lab::new("files");
    let image = ImageRef::parse(lab.image("r1")).unwrap();
    let engine = docker(lab.docker().socket(), &lab, &lab.instance("a"));
    pull(&engine, &image).await.unwrap();
    let file = |target: &str, content: &str, mode, uid| ContentFile {
        target: target.to_owned(),
        content: content.to_owned(),
        mode,
        uid,
        gid: 0,
    };
    let files = vec![
        file("/etc/deep/er/app.conf", "port 80\n", 0o440, 1000),
        file("/run/secrets/token", "", 0o400, 0),
        file("/../../outside", "x", 0o444, 0),
    ];
    let spec = ServiceSpec { files, ..spec(&image, 50) };
    let id = created(&engine, "web", &spec).await;
    let listed = |inside: &str| {
        let out = lab.docker().try_run(&["cp", &format!("{id}:{inside}"), "-"]);
        assert!(out.status.success(), "{out:?}");
        out.stdout
    };
    let archive = listed("/etc/deep/er/app.conf");
    let text = |from: usize, to: usize| String::from_utf8_lossy(&archive[from..to]).into_owned();
    assert!(text(100, 108).contains("440"), "mode {:?}", text(100, 108));
    assert_eq!(u32::from_str_radix(text(108, 115).trim_matches(['\0', ' ']), 8), Ok(1000));
    assert!(text(512, archive.len()).starts_with("port 80\n"));
    assert!(!listed("/run/secrets/token").is_empty());
    // No path leads out of the container.
    assert!(!std::path::Path::new("/outside").exists());
    engine.start(&id).await.unwrap();
    engine.stop(&id, Duration::from_secs(2)).await.unwrap();
    engine.start(&id).await.unwrap();
    assert!(!listed("/etc/deep/er/app.conf").is_empty(), "they stay over a restart");
    gone(&engine, &id).await;
}

/// Without a name, the engine would delete it with the container of the last release.
#[tokio::test]
async fn what_an_image_keeps_in_a_volume_without_a_name_outlives_the_container() {
    let lab = Lab::new("unnamed");
    let altered = lab.altered_image("r1", |config| {
        config["config"]["Volumes"] = serde_json::json!({ "/keep": {}, "/mounted/": {} });
    });
    let image = ImageRef::parse(&altered).unwrap();
    let engine = docker(lab.docker().socket(), &lab, &lab.instance("a"));
    pull(&engine, &image).await.unwrap();
    let mounted = |source, target: &str| Mount {
        source,
        target: target.to_owned(),
        is_read_only: false,
        options: MountOptions::default(),
    };
    let named = MountSource::Volume(VolumeName::parse("data").unwrap());
    let mounts = vec![mounted(MountSource::Anonymous, "/authors"), mounted(named, "/mounted")];
    let first = ServiceSpec { mounts: mounts.clone(), ..spec(&image, 60) };
    let old = created(&engine, "web", &first).await;
    engine.start(&old).await.unwrap();
    let file = lab.dir().join("precious");
    std::fs::write(&file, "data").unwrap();
    for folder in ["keep", "authors"] {
        lab.docker().run(&["cp", file.to_str().unwrap(), &format!("{old}:/{folder}/precious")]);
    }
    engine.stop(&old, Duration::from_secs(2)).await.unwrap();
    let second = ServiceSpec { mounts, ..spec(&image, 61) };
    create(&engine, "web", &second).await.unwrap();
    gone(&engine, &old).await;
    let new = seen(&engine, "web").await.expect("the second one is left").container;
    engine.start(&new).await.unwrap();
    for folder in ["keep", "authors"] {
        let out = lab.docker().try_run(&["cp", &format!("{new}:/{folder}/precious"), "-"]);
        assert!(
            out.status.success() && String::from_utf8_lossy(&out.stdout).contains("data"),
            "{folder}: {out:?}"
        );
    }
    let label = format!("label=io.cotter.instance={}", lab.instance("a"));
    let volumes = lab.docker().run(&["volume", "ls", "--quiet", "--filter", &label]);
    assert_eq!(volumes.lines().count(), 3, "{volumes}");
    assert!(volumes.contains("web_unnamed-keep-") && volumes.contains("web_unnamed-authors-"), "{volumes}");
    gone(&engine, &new).await;
}
