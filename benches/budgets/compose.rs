//! The same releases by Debian's docker-compose.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engine::{Events, Swap, now};
use crate::figures::of_children;
use crate::support::Lab;

/// A compose project with two releases.
pub struct Project {
    name: String,
    socket: PathBuf,
    files: [PathBuf; 2],
    services: usize,
    events: Events,
}

impl Project {
    /// Writes its files, pulls both releases and brings the newer one up.
    #[track_caller]
    pub fn install(lab: &Lab, services: usize) -> Self {
        let name = lab.instance(&format!("compose{services}"));
        let files = ["r1", "r2"].map(|release| {
            let mut text = "version: '2.4'\nservices:\n".to_owned();
            for n in 1..=services {
                write!(
                    text,
                    "  s{n}:
    image: {image}
    restart: unless-stopped
    ports: [\"127.0.0.1::8080\"]
    stop_grace_period: 3s
    labels: {{ io.cotter.instance: {name} }}
",
                    image = lab.image(release)
                )
                .unwrap();
            }
            writeln!(text, "networks: {{ default: {{ labels: {{ io.cotter.instance: {name} }} }} }}")
                .unwrap();
            lab.file(&format!("compose{services}-{release}.yml"), &text)
        });
        let socket = lab.docker().socket().to_owned();
        let events = Events::listen(&socket, &name);
        let project = Self { name, socket, files, services, events };
        for file in &project.files {
            project.run(file, &["pull", "-q"]);
        }
        project.run(&project.files[1], &["up", "-d"]);
        project
    }

    /// `docker-compose pull -q && docker-compose up -d`: how the swap went, and the milliseconds that its
    /// processes computed.
    #[track_caller]
    pub fn switch(&self, to: usize) -> (Swap, f64) {
        let computed = of_children();
        let begun = now();
        self.run(&self.files[to], &["pull", "-q"]);
        self.run(&self.files[to], &["up", "-d"]);
        let computed = of_children() - computed;
        (self.events.swap(begun, self.services), computed)
    }

    #[track_caller]
    fn run(&self, file: &Path, args: &[&str]) {
        let mut command = Command::new("docker-compose");
        command.args(["-p", &self.name, "-f"]).arg(file).args(args);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket.display()));
        let out = command.output().expect("docker-compose runs");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "docker-compose {args:?}: {said}");
    }
}
