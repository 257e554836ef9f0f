//! The files of a release, as the engine writes them into a container.

use std::time::Duration;

use cotter::engine::Operate;
use cotter::model::{ContentFile, ImageRef, ServiceSpec};

use crate::real::docker;
use crate::support::Lab;
use crate::{created, gone, pull, spec};

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
