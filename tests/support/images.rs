//! Images that no build makes: a demo image with another config, put into the registry by hand.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use cotter::tar;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Lab;

const KIND: &str = "application/vnd.docker.distribution.manifest.v2+json";
const INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

impl Lab {
    /// A release of the demo app under another digest, which no engine has yet: only its config tells them
    /// apart. Its reference.
    #[track_caller]
    pub fn fresh_image(&self, release: &str) -> String {
        let own = self.dir().display().to_string();
        self.altered_image(release, |config| {
            config["config"]["Labels"]["io.cotter.fresh"] = own.clone().into()
        })
    }

    /// A release of the demo app whose config was altered; its reference.
    #[track_caller]
    pub fn altered_image(&self, release: &str, alter: impl Fn(&mut Value)) -> String {
        self.remade_image(release, |_, config| alter(config))
    }

    /// A release of the demo app with another manifest and config; its reference.
    #[track_caller]
    fn remade_image(&self, release: &str, alter: impl Fn(&mut Value, &mut Value)) -> String {
        let registry = &self.parts.registry;
        let manifest = self.manifest(self.image(release)).1;
        let mut manifest: Value = serde_json::from_slice(&manifest).expect("a manifest");
        let config = manifest["config"]["digest"].as_str().expect("a config");
        let config = send(registry, "GET", &format!("/v2/demo/app/blobs/{config}"), "", b"").1;
        let mut config: Value = serde_json::from_slice(&config).expect("a config");
        alter(&mut manifest, &mut config);
        let config = config.to_string().into_bytes();
        manifest["config"]["digest"] = self.put_blob(&config).into();
        manifest["config"]["size"] = config.len().into();
        self.put_manifest(KIND, &manifest)
    }

    /// An image whose only layer has `bytes` bytes and is no archive. Every engine fetches it and fails. Its reference.
    #[track_caller]
    pub fn torn_image(&self, bytes: usize) -> String {
        let own = self.dir().display().to_string();
        let layer: Vec<u8> = own.bytes().cycle().take(bytes).collect();
        let layer_digest = self.put_blob(&layer);
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [layer_digest] },
        });
        let config = config.to_string().into_bytes();
        let config_digest = self.put_blob(&config);
        let kind = |what: &str| format!("application/vnd.docker.{what}");
        self.put_manifest(
            KIND,
            &json!({
                "schemaVersion": 2, "mediaType": KIND,
                "config": { "mediaType": kind("container.image.v1+json"), "digest": config_digest, "size": config.len() },
                "layers": [{ "mediaType": kind("image.rootfs.diff.tar.gzip"), "digest": layer_digest, "size": layer.len() }],
            }),
        )
    }

    /// A release of the demo app with one more layer, of `bytes` bytes that no engine has yet. Its reference, and the
    /// bytes of the layer.
    #[track_caller]
    pub fn grown_image(&self, release: &str, bytes: usize) -> (String, usize) {
        let own = self.dir().display().to_string();
        let content: Vec<u8> = own.bytes().cycle().take(bytes).collect();
        let layer = tar::archive(&[tar::Entry::private("filler", &content)], 0);
        let digest = self.put_blob(&layer);
        let kind = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        let entry = json!({ "mediaType": kind, "digest": digest, "size": layer.len() });
        let image = self.remade_image(release, |manifest, config| {
            config["rootfs"]["diff_ids"].as_array_mut().expect("layers").push(digest.clone().into());
            manifest["layers"].as_array_mut().expect("layers").push(entry.clone());
        });
        (image, layer.len())
    }

    /// Puts a blob into the registry; its digest.
    #[track_caller]
    fn put_blob(&self, blob: &[u8]) -> String {
        let registry = &self.parts.registry;
        let digest = sha256(blob);
        let (head, _) = send(registry, "POST", "/v2/demo/app/blobs/uploads/", "", b"");
        let place = head.lines().find_map(|line| line.strip_prefix("Location: "));
        let place = place.expect("a place to upload to").trim();
        let path = place.split_once(registry.as_str()).map_or(place, |(_, path)| path);
        let (head, _) = send(registry, "PUT", &format!("{path}&digest={digest}"), "", blob);
        assert!(head.starts_with("HTTP/1.1 201"), "{head}");
        digest
    }

    /// An image for several machines: for each architecture one that is in the registry. Its reference.
    #[track_caller]
    pub fn index(&self, images: &[(&str, &str)]) -> String {
        let entry = |(architecture, image): &(&str, &str)| {
            let (digest, manifest) = self.manifest(image);
            json!({
                "mediaType": KIND, "digest": digest, "size": manifest.len(),
                "platform": { "os": "linux", "architecture": architecture },
            })
        };
        let entries: Vec<_> = images.iter().map(entry).collect();
        self.put_manifest(INDEX, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }))
    }

    /// The manifest of an image of the registry, by its digest.
    #[track_caller]
    fn manifest<'a>(&self, image: &'a str) -> (&'a str, Vec<u8>) {
        let digest = image.split_once('@').expect("a digest").1;
        let (path, accept) = (format!("/v2/demo/app/manifests/{digest}"), format!("Accept: {KIND}\r\n"));
        (digest, send(&self.parts.registry, "GET", &path, &accept, b"").1)
    }

    /// Puts a manifest or an index into the registry; its reference.
    #[track_caller]
    fn put_manifest(&self, kind: &str, manifest: &Value) -> String {
        let registry = &self.parts.registry;
        let manifest = manifest.to_string().into_bytes();
        let digest = sha256(&manifest);
        let kind = format!("Content-Type: {kind}\r\n");
        let (head, _) = send(registry, "PUT", &format!("/v2/demo/app/manifests/{digest}"), &kind, &manifest);
        assert!(head.starts_with("HTTP/1.1 201"), "{head}");
        format!("{registry}/demo/app@{digest}")
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes it");
        text
    })
}

/// One request to the registry; the answer's head and body.
fn send(address: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> (String, Vec<u8>) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).expect("the registry listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let mut answer = Vec::new();
    let asked = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    asked.and_then(|()| stream.read_to_end(&mut answer)).expect("the registry answers");
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole head");
    (String::from_utf8_lossy(&answer[..end]).into_owned(), answer[end + 4..].to_vec())
}
