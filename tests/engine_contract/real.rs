//! The contract on an engine that answers at a socket.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use cotter::engine::{Docker, DockerSettings};
use cotter::model::{ContainerId, ImageRef, Instance};

use crate::support::{Differences, Lab, Podman};
use crate::{Bench, Images, contract};

struct RealBench {
    lab: Lab,
    instance: String,
    engine: Docker,
    neighbour: Docker,
    images: Images,
    foreign: Mutex<Vec<String>>,
    /// What this engine is known to do otherwise.
    differences: Option<Differences>,
    /// Where it notes its networks, if that can be seen.
    networks: Option<PathBuf>,
}

impl Drop for RealBench {
    fn drop(&mut self) {
        for id in self.foreign.get_mut().unwrap().iter() {
            self.lab.docker().try_run(&["rm", "--force", id]);
        }
    }
}

impl Bench for RealBench {
    type Engine = Docker;

    fn engine(&self) -> &Docker {
        &self.engine
    }

    fn neighbour(&self) -> &Docker {
        &self.neighbour
    }

    fn images(&self) -> &Images {
        &self.images
    }

    fn foreign(&self) -> String {
        // One without a label, and one with our instance's label and no other.
        let label = format!("io.cotter.instance={}", self.instance);
        let run = ["run", "--detach", "--network", "none"];
        self.lab.docker().run(&[&run[..], &["--label", &label, self.lab.image("r1")]].concat());
        let id = self.lab.docker().run(&[&run[..], &[self.lab.image("r1")]].concat());
        self.foreign.lock().unwrap().push(id.clone());
        id
    }

    fn foreign_runs(&self, id: &str) -> bool {
        self.lab.docker().run(&["inspect", "--format", "{{.State.Running}}", id]) == "true"
    }

    async fn start_unheard(&self, id: &ContainerId) {
        let mut stream = UnixStream::connect(self.lab.docker().socket()).unwrap();
        let request = format!(
            "POST /v1.41/containers/{id}/start HTTP/1.1\r\nHost: engine\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
    }

    fn kill(&self, id: &ContainerId) {
        self.lab.docker().run(&["kill", "--signal", "KILL", id.as_str()]);
    }

    fn cut_short(&self, id: &ContainerId) {
        let docker = self.lab.docker();
        let name = docker.run(&["inspect", "--format", "{{.Name}}", id.as_str()]);
        let name = name.trim_start_matches('/');
        docker.run(&["rename", id.as_str(), &format!("{name}.partial")]);
    }

    fn volumes(&self) -> BTreeSet<String> {
        self.lab.docker().ids("volume", &self.instance).into_iter().collect()
    }

    fn networks_of(&self, id: &ContainerId) -> usize {
        let format = "{{len .NetworkSettings.Networks}}";
        self.lab.docker().run(&["inspect", "--format", format, id.as_str()]).parse().unwrap()
    }

    fn architecture(&self) -> String {
        self.lab.docker().run(&["version", "--format", "{{.Server.Arch}}"])
    }

    fn layers_of(&self, image: &ImageRef) -> BTreeSet<String> {
        let format = "{{range .RootFS.Layers}}{{println .}}{{end}}";
        let output = self.lab.docker().run(&["image", "inspect", "--format", format, &image.to_string()]);
        output.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    fn second(&self) -> u8 {
        if self.differences.is_none() { 214 } else { 217 }
    }

    async fn remembers<T>(&self, act: impl Future<Output = T>) -> T {
        let files = self.networks.iter().flat_map(|dir| fs::read_dir(dir).unwrap());
        let noted: Vec<_> =
            files.map(|file| file.unwrap().path()).map(|p| (fs::read(&p).unwrap(), p)).collect();
        let result = act.await;
        noted.into_iter().for_each(|(text, path)| fs::write(path, text).unwrap());
        result
    }

    fn leaves_joined_alone(&self) -> bool {
        self.differences.is_none()
    }

    fn holds(&self, what: &str, is_so: bool, seen: &dyn Debug) {
        match &self.differences {
            None => assert!(is_so, "{what}: {seen:?}"),
            Some(differences) => differences.note(what, is_so, &format!("{seen:?}")),
        }
    }

    fn free_port(&self) -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }
}

/// The engine at `socket`, for an instance of the lab.
pub(crate) fn docker(socket: &Path, lab: &Lab, instance: &str) -> Docker {
    Docker::new(DockerSettings {
        socket: socket.to_owned(),
        instance: Instance::parse(instance).unwrap(),
        services_dir: lab.dir().join("services"),
        stall_timeout: Duration::from_secs(30),
    })
}

/// A bench on the lab's engine.
fn bench(lab: Lab, other: Option<(Differences, PathBuf)>) -> RealBench {
    let image = |release: &str| ImageRef::parse(lab.image(release)).unwrap();
    let absent = format!("sha256:{}", "0".repeat(64));
    let images = Images {
        well: image("r1"),
        // An image of its own: the contract removes it, which no container of another test may prevent.
        other: ImageRef::parse(&lab.fresh_image("r4")).unwrap(),
        exit: image("exit"),
        unhealthy: image("unhealthy"),
        slow: image("slow"),
        missing: image("r1").at_digest(&absent).unwrap(),
        nowhere: ImageRef::parse(&format!("127.0.0.1:1/demo/app@{absent}")).unwrap(),
    };
    let (ours, theirs) = (lab.instance("a"), lab.instance("b"));
    let socket = lab.docker().socket();
    let (engine, neighbour) = (docker(socket, &lab, &ours), docker(socket, &lab, &theirs));
    let (differences, networks) = other.unzip();
    let foreign = Mutex::default();
    RealBench { lab, instance: ours, engine, neighbour, images, foreign, differences, networks }
}

#[tokio::test]
async fn the_real_engine_keeps_the_contract() {
    Box::pin(contract(&bench(Lab::new("contract"), None))).await;
}

/// What podman does otherwise is listed in docs/engines.md, and nothing else.
#[tokio::test]
async fn podman_keeps_the_contract_but_for_what_is_listed() {
    let Some((podman, lab)) = Podman::with_lab("podman") else { return };
    let differences = Differences::listed("The engine", &podman);
    let bench = bench(lab, Some((differences, podman.networks_dir())));
    Box::pin(contract(&bench)).await;
    bench.differences.as_ref().unwrap().assert_as_listed();
}
