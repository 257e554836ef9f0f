//! The place of one test: its folder, its instances, and the parts it shares with others.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Docker;

/// What all tests on this machine share.
#[derive(Debug, Clone)]
pub struct Parts {
    pub docker: Docker,
    /// The registry's address, "127.0.0.1:5000".
    pub registry: String,
    /// What images of tests bear as io.cotter.demo, so that their remains are found.
    pub label: String,
    /// Release of the demo app to its reference by digest: r1 to r4, crash, exit, unhealthy, slow.
    pub images: BTreeMap<String, String>,
}

impl Parts {
    /// Makes sure of engine, registry and images; quick when all is there.
    ///
    /// # Panics
    ///
    /// With the script's own words when one of them can't be had.
    #[track_caller]
    pub fn ensure() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/test-parts.sh");
        let out = Command::new(&script).output().expect("scripts/test-parts.sh runs");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "a real part is missing (scripts/prepare.sh installs them): {said}");
        let mut words = BTreeMap::new();
        let mut images = BTreeMap::new();
        for line in String::from_utf8_lossy(&out.stdout).lines() {
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["image", release, reference] => {
                    images.insert((*release).to_owned(), (*reference).to_owned());
                }
                [name, value] => {
                    words.insert((*name).to_owned(), (*value).to_owned());
                }
                _ => panic!("scripts/test-parts.sh said {line:?}"),
            }
        }
        let word = |name: &str| {
            words.get(name).unwrap_or_else(|| panic!("scripts/test-parts.sh printed no {name}")).clone()
        };
        Self {
            docker: Docker::new(Path::new(&word("docker")), Path::new(&word("engine"))),
            registry: word("registry"),
            label: word("label"),
            images,
        }
    }
}

/// One test's place. Dropped last, it removes what its instances have in the engine.
#[derive(Debug)]
pub struct Lab {
    name: String,
    dir: tempfile::TempDir,
    instances: Mutex<Vec<String>>,
    pub parts: Parts,
}

impl Lab {
    /// A lab for the test `name` (lower-case letters, digits and '-').
    #[track_caller]
    pub fn new(name: &str) -> Self {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let parts = Parts::ensure();
        // Unix sockets live in it, and a path of theirs has 107 bytes at most: /tmp is short.
        let dir = tempfile::Builder::new().prefix("cotter-").tempdir_in("/tmp").expect("a folder in /tmp");
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        Self {
            name: format!("t{}-{number}-{name}", std::process::id()),
            dir,
            instances: Mutex::default(),
            parts,
        }
    }

    /// The lab's folder; it goes with the lab.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The engine as docker shows it.
    pub fn docker(&self) -> &Docker {
        &self.parts.docker
    }

    /// The instance of `device` in this lab, noted for removal.
    pub fn instance(&self, device: &str) -> String {
        let instance = format!("{}-{device}", self.name);
        let mut noted = self.instances.lock().expect("no test panics here");
        if !noted.contains(&instance) {
            noted.push(instance.clone());
        }
        instance
    }

    /// The reference, by digest, of a release of the demo app.
    #[track_caller]
    pub fn image(&self, release: &str) -> &str {
        self.parts.images.get(release).unwrap_or_else(|| panic!("no demo image {release}"))
    }

    /// Writes `text` to `name` in the lab's folder, for this user only: it may be a key.
    #[track_caller]
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.expect("the lab's folder can be written");
        path
    }

    /// Writes a compose file: each service runs its release of the demo app, published on a
    /// loopback port of the engine's choice. `more` is YAML for every service, without indent.
    #[track_caller]
    pub fn compose(&self, name: &str, services: &[(&str, &str)], more: &str) -> PathBuf {
        let mut text = String::from("services:\n");
        for (service, release) in services {
            let image = self.image(release);
            write!(text, "  {service}:\n    image: {image}\n    ports: [\"127.0.0.1::8080\"]\n").unwrap();
            for line in more.lines() {
                writeln!(text, "    {line}").unwrap();
            }
        }
        self.file(name, &text)
    }

    /// Writes a compose file of two services from `registry`: `web` changes with the release, `api` never does.
    #[track_caller]
    pub fn web_and_api(&self, release: &str, registry: &str, soak: &str) -> PathBuf {
        let image = |release: &str| self.image(release).replace(&self.parts.registry, registry);
        let text = format!(
            r#"services:
  web:
    image: {}
    ports: ["127.0.0.1::8080"]
    volumes: ["data:/data"]
    stop_grace_period: 2s
    labels: {{ io.cotter.trial.soak: {soak} }}
  api:
    image: {}
    stop_grace_period: 2s
    labels: {{ io.cotter.trial.soak: {soak} }}
volumes:
  data: {{}}
"#,
            image(release),
            image("r3")
        );
        self.file(&format!("{release}.yml"), &text)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for instance in self.instances.lock().unwrap_or_else(|e| e.into_inner()).iter() {
            if std::thread::panicking() {
                let filter = format!("label=io.cotter.instance={instance}");
                let out = self.docker().try_run(&["ps", "--all", "--filter", &filter]);
                eprintln!("--- containers of {instance}:\n{}", String::from_utf8_lossy(&out.stdout));
            }
            self.docker().remove_instance(instance);
        }
    }
}
