//! `cotter push`: from source to devices, with a real docker, a real registry, a real fleet server and real agents.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "helpers of tests; a test reads its own environment"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use support::{Agent, Fleet, FleetServer, Lab, Program, eventually};

/// A project in a folder of the lab, and a fleet for it.
struct Scene {
    server: FleetServer,
    fleet: Fleet,
    folder: PathBuf,
    lab: Lab,
}

impl Scene {
    /// `files`: each begins with a line `== name`. `APP` stands for an image of the demo app.
    #[track_caller]
    fn new(name: &str, files: &str) -> Self {
        let lab = Lab::new(name);
        let server = FleetServer::start(&lab);
        let fleet = server.create_fleet(&lab, "Lab of plants");
        let folder = lab.dir().join("project");
        let scene = Self { server, fleet, folder, lab };
        scene.write(files);
        scene
    }

    fn write(&self, files: &str) {
        for part in files.split("== ").skip(1) {
            let (name, content) = part.split_once('\n').unwrap();
            let path = self.folder.join(name.trim());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content.replace("APP", self.lab.image("r1"))).unwrap();
        }
    }

    /// `cotter push FLEET FOLDER ARGS...`
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Program::cotter();
        command.args(["push", &self.fleet.name]).arg(&self.folder).args(args);
        command.env("COTTER_FLEET_URL", &self.server.url).env("COTTER_TOKEN_FILE", self.server.token_file());
        command.env("DOCKER_HOST", format!("unix://{}", self.lab.docker().socket().display()));
        command.env("PATH", format!("{}:{}", self.lab.docker().folder().display(), env("PATH")));
        command
    }

    #[track_caller]
    fn push(&self, args: &[&str]) -> Pushed {
        Pushed::of(self.command(args).output().unwrap())
    }

    /// A registry's address below which every image of this scene is.
    fn registry(&self) -> String {
        format!("{}/{}", self.lab.parts.registry, self.lab.instance("push"))
    }

    /// The commits of all releases.
    #[track_caller]
    fn releases(&self) -> Vec<String> {
        let said = self.server.cli_json(&["release", "list"]);
        let list = said["releases"].as_array().unwrap();
        list.iter().map(|release| release["commit"].as_str().unwrap().to_owned()).collect()
    }

    /// Makes the folder a Git repository with one commit, and gives its id.
    fn git(&self) -> String {
        self.run_git(&["init", "--quiet"]);
        self.run_git(&["add", "."]);
        self.run_git(&["commit", "--quiet", "--message", "first"]);
        self.run_git(&["rev-parse", "HEAD"])
    }

    fn run_git(&self, args: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@example.com"])
            .args(args)
            .current_dir(&self.folder);
        let out = git.output().unwrap();
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// A folder with a program `docker` that is this script.
    fn fake_docker(&self, script: &str) -> PathBuf {
        let folder = self.lab.dir().join("bin");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("docker");
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // What was built here and is not used by a container any more.
        let (docker, filter) = (self.lab.docker(), format!("reference={}/*/*", self.registry()));
        let found = docker.try_run(&["images", "--filter", &filter, "--format", "{{.Repository}}:{{.Tag}}"]);
        for image in String::from_utf8_lossy(&found.stdout).lines() {
            docker.try_run(&["rmi", image]);
        }
    }
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// What a command printed.
struct Pushed {
    code: i32,
    out: String,
    /// The lines of standard error.
    said: String,
}

impl Pushed {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("an exit code"),
            out: String::from_utf8(output.stdout).unwrap(),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts that it failed with a last line which begins and ends so.
    #[track_caller]
    fn failed(&self, code: i32, start: &str, parts: &[&str]) {
        let last = self.said.trim_end().lines().next_back().unwrap_or_default();
        assert_eq!(self.code, code, "{}", self.said);
        assert!(last.starts_with(start), "{last:?} in {}", self.said);
        assert!(parts.iter().all(|part| last.contains(part)), "{parts:?} in {last:?} of {}", self.said);
    }
}

const TWO: &str = r#"== compose.yaml
services:
  web:
    build:
      context: web
      args: [RELEASE]
    ports: ["127.0.0.1::8080"]
  Api_2:
    build:
      context: .
      dockerfile_inline: |
        FROM APP AS base
        ENV DEMO_RELEASE=inline
        FROM base
        ENV DEMO_RELEASE=wrong
      target: base
      labels: {io.cotter.test: "a b"}
    ports: ["127.0.0.1::8080"]
  ready:
    image: APP
== web/Dockerfile
FROM APP
ARG RELEASE=none
ENV DEMO_RELEASE=$RELEASE
"#;

#[test]
fn a_project_is_built_pushed_and_run_by_three_devices() {
    let scene = Scene::new("push", TWO);
    let commit = scene.git();
    let agents: Vec<Agent<'_>> =
        ["a", "b", "c"].map(|name| Agent::start(&scene.lab, &scene.server, &scene.fleet, name)).into();
    agents.iter().for_each(|agent| agent.until_polled(1));
    let args = ["--registry", &scene.registry(), "--json", "--wait"];
    let out = scene.command(&args).env("RELEASE", "from-env").output();
    let pushed = Pushed::of(out.unwrap());
    assert_eq!(pushed.code, 0, "{}", pushed.said);
    for line in [
        "building Api_2 (1/2)",
        "building web (2/2)",
        "pushing web (2/2) as ",
        "created release ",
        "b is on-target",
    ] {
        assert!(pushed.said.lines().any(|said| said.starts_with(line)), "no {line:?} in {}", pushed.said);
    }
    // The output of docker does not mix with our answer.
    let created: Value = serde_json::from_str(&pushed.out).unwrap_or_else(|e| panic!("{e}: {}", pushed.out));
    let release = &created["created"]["release"];
    assert_eq!(release["commit"], commit.as_str());
    for (service, start) in [
        ("web", format!("{}/lab-of-plants/web@sha256:", scene.registry())),
        ("Api_2", format!("{}/lab-of-plants/api_2@sha256:", scene.registry())),
        ("ready", scene.lab.image("r1").to_owned()),
    ] {
        let image = release["services"][service].as_str().unwrap();
        assert!(image.starts_with(&start), "{service}: {image}");
    }
    assert!(!pushed.said.contains("warning"), "how an image is built is not for devices: {}", pushed.said);
    for agent in &agents {
        agent.until_serves("web", &commit, "from-env");
        let api = agent.until_serves("Api_2", &commit, "inline");
        assert_eq!(api.label("io.cotter.test"), "a b");
    }

    // The same commit again is refused before anything is built.
    let again = scene.push(&["--registry", &scene.registry()]);
    again.failed(21, "error: Lab of plants has a release ", &[&commit, "--commit"]);
    assert!(!again.said.contains("building"), "{}", again.said);

    // A changed file, and a draft.
    scene.write("== web/Dockerfile\nFROM APP\nENV DEMO_RELEASE=changed\n");
    let dirty = scene.push(&["--registry", &scene.registry(), "--draft"]);
    assert_eq!(dirty.code, 0, "{}", dirty.said);
    assert!(dirty.said.contains("warning: files have changed since the last Git commit"), "{}", dirty.said);
    let releases = scene.releases();
    let start = format!("{}-dirty-", &commit[..12]);
    assert!(releases.iter().any(|commit| commit.starts_with(&start)), "{releases:?}");
    assert!(dirty.out.contains("draft"), "{}", dirty.out);
}

#[test]
fn a_release_that_a_device_rejects_ends_the_wait() {
    let scene = Scene::new("push-wait", TWO);
    let compose = |image: &str| {
        let text = "== compose.yaml\nservices:\n  web:\n    image: IMAGE\n    ports: ['127.0.0.1::8080']\n    \
                    labels: {io.cotter.trial.soak: 3s}\n";
        text.replace("IMAGE", image)
    };
    scene.write(&compose("APP"));
    let alone = scene.push(&["--commit", "c0", "--wait"]);
    assert_eq!(alone.code, 0, "{}", alone.said);
    assert!(alone.said.contains("no device is concerned"), "{}", alone.said);
    let mut agent = Agent::prepare(&scene.lab, &scene.server.url, &scene.fleet, "a");
    agent.set("cloud.report_interval=1s");
    agent.start_again();
    agent.until_serves("web", "c0", "r1");
    agent.until_status("/apps/0/update", "done");

    for commit in ["c1", "c2"] {
        scene.write(&compose(scene.lab.image("crash")));
        let rejected = scene.push(&["--commit", commit, "--wait", "--timeout", "2min"]);
        assert_eq!(rejected.code, 40, "{}", rejected.said);
        assert!(rejected.said.contains("a is rejected: web was restarted"), "{}", rejected.said);
        agent.until_serves("web", "c0", "r1");
    }
    // The rejection of the release before is not taken for one of this release.
    scene.write(&compose(scene.lab.image("r2")));
    let accepted = scene.push(&["--commit", "c3", "--wait", "--timeout", "2min"]);
    assert_eq!(accepted.code, 0, "{}", accepted.said);
    agent.until_serves("web", "c3", "r2");

    scene.write(&compose(scene.lab.image("crash")));
    let late = scene.push(&["--commit", "c4", "--wait", "--timeout", "0s"]);
    late.failed(22, "not done within 0 s, and the devices continue", &[]);
}

#[test]
fn a_build_that_fails_creates_nothing() {
    let scene = Scene::new("push-fail", TWO);
    scene.write("== web/Dockerfile\nFROM APP\nCOPY missing /\n");
    let pushed = scene.push(&["--registry", &scene.registry()]);
    let parts = ["no release is created", "compose.yaml:3", "docker ended with exit code 1"];
    pushed.failed(1, "error: the image of web is not built", &parts);
    assert!(!pushed.said.contains("pushing"), "{}", pushed.said);
    assert_eq!(scene.releases(), Vec::<String>::new());
    // For programs the last line is JSON, whatever docker has written before.
    let pushed = scene.push(&["--registry", &scene.registry(), "--json"]);
    let last: serde_json::Value = serde_json::from_str(pushed.said.lines().last().unwrap()).unwrap();
    assert_eq!((&last["error"]["exit"], pushed.code), (&1.into(), 1), "{}", pushed.said);
}

#[test]
fn a_build_that_fails_is_kept_with_its_log_if_wanted() {
    let one = "== compose.yaml\nservices:\n  web: {build: web, ports: ['127.0.0.1::8080']}\n== web/Dockerfile\nFROM APP\n";
    let scene = Scene::new("push-keep", one);
    let agent = Agent::start(&scene.lab, &scene.server, &scene.fleet, "a");
    let commit = scene.git();
    scene.server.cli(&["fleet", "set", &scene.fleet.name, "--registry", &scene.registry()]);
    scene.write("== web/Dockerfile\nFROM APP\nCOPY missing-file /\n");
    let failed = scene.push(&["--commit", &commit, "--record-failure"]);
    failed.failed(1, "error: the image of web is not built", &["docker ended with exit code 1"]);
    assert!(!failed.said.contains("no release is created"), "{}", failed.said);
    assert!(failed.said.contains("recorded as failed: `cotter release show"), "{}", failed.said);
    assert!(failed.said.contains("missing-file"), "docker's output is shown, too: {}", failed.said);
    let shown = scene.server.cli_json(&["release", "show", &commit]);
    let release = &shown["release"];
    assert_eq!((&release["status"], &release["services"]), (&"failed".into(), &serde_json::json!({})));
    let log = release["build_log"].as_str().unwrap();
    assert!(log.contains("missing-file") && log.len() <= 16_384, "{log}");
    let people = scene.server.cli(&["release", "show", &commit]);
    assert!(people.contains("END OF THE BUILD'S LOG") && people.contains("missing-file"), "{people}");

    // The corrected project takes its place, in the registry of the fleet. The device has got nothing else.
    scene.write("== web/Dockerfile\nFROM APP\nENV DEMO_RELEASE=corrected\n");
    let pushed = scene.push(&["--commit", &commit]);
    assert_eq!(pushed.code, 0, "{}", pushed.said);
    assert!(
        pushed.said.contains(&format!("as {}/lab-of-plants/web:{commit}", scene.registry())),
        "{}",
        pushed.said
    );
    assert_eq!(scene.releases(), std::slice::from_ref(&commit));
    agent.until_serves("web", &commit, "corrected");
}

#[test]
fn what_devices_refuse_is_said_before_anything_is_built() {
    let scene = Scene::new("push-refused", TWO);
    scene.write(
        r#"== compose.yaml
services:
  web:
    build:
      context: web
      dockerfile: Missing
      flavour: new
    network_mode: host
    pid: service:other
  api:
    build: nowhere
  other: {}
"#,
    );
    let marker = scene.lab.dir().join("ran");
    let bin = scene.fake_docker(&format!("touch {}", marker.display()));
    let mut command = scene.command(&["--registry", &scene.registry()]);
    let pushed =
        Pushed::of(command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).output().unwrap());
    pushed.failed(2, "error: the project has ", &["errors"]);
    for line in [
        "compose.yaml:5: services.web.build.dockerfile: there is no file ",
        "compose.yaml:6: services.web.build.flavour: docker's command line has no option for it",
        "compose.yaml:10: services.api.build.context: there is no folder ",
        "compose.yaml:11: services.other: it has no image",
    ] {
        assert!(pushed.said.contains(line), "no {line:?} in {}", pushed.said);
    }
    assert!(!marker.exists(), "docker ran");
}

#[test]
fn without_docker_or_a_registry_nothing_is_built() {
    let scene = Scene::new("push-none", TWO);
    let nothing = scene.lab.dir().join("empty");
    fs::create_dir(&nothing).unwrap();
    let out = scene.command(&["--registry", &scene.registry()]).env("PATH", &nothing).output().unwrap();
    Pushed::of(out).failed(1, "error: docker is not installed", &["install Docker's command line"]);

    scene.push(&[]).failed(2, "error: it is not known where the image of Api_2 goes", &["COTTER_REGISTRY"]);
    scene.push(&["--registry", "lab"]).failed(
        2,
        "error: --registry: \"lab\" cannot be a registry: write HOST",
        &[],
    );

    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let pushed = scene.push(&["--registry", &away]);
    pushed.failed(20, "error: the image of Api_2 has no place; no image was built", &["does not answer"]);
    assert!(!pushed.said.contains("building"), "{}", pushed.said);
    assert_eq!(scene.releases(), Vec::<String>::new());
}

#[test]
fn the_classic_builder_refuses_what_only_buildx_can_do() {
    let scene = Scene::new("push-classic", TWO);
    scene.write(
        r#"== compose.yaml
services:
  web:
    build:
      context: web
      secrets: [token]
      ssh: [default]
      platforms: [linux/amd64, linux/arm64]
secrets:
  token: {file: token}
== token
abc
"#,
    );
    let marker = scene.lab.dir().join("ran");
    let bin = scene.fake_docker(&format!("[ \"$1\" = buildx ] && exit 1; touch {}", marker.display()));
    let mut command = scene.command(&["--registry", &scene.registry()]);
    let pushed =
        Pushed::of(command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).output().unwrap());
    pushed.failed(2, "error: docker has no buildx", &[]);
    for line in
        ["5: services.web.build.secrets", "6: services.web.build.ssh", "3: services.web.build.platforms"]
    {
        assert!(pushed.said.contains(&format!("compose.yaml:{line}: docker's classic")), "{}", pushed.said);
    }
    assert!(!marker.exists(), "docker ran");
}

#[test]
fn buildx_gets_every_option_and_no_secret_on_its_command_line() {
    let scene = Scene::new("push-buildx", TWO);
    scene.write(
        r#"== compose.yaml
services:
  web:
    image: EXAMPLE/own/web:1
    platform: linux/arm64
    build:
      context: web
      args: {TOKEN: secret-1, PATH: /x}
      secrets: [token]
      platforms: [linux/amd64]
secrets:
  token: {content: secret-2}
"#,
    );
    let file = scene.folder.join("compose.yaml");
    let text = fs::read_to_string(&file).unwrap().replace("EXAMPLE", &scene.registry());
    fs::write(&file, text).unwrap();
    let log = scene.lab.dir().join("log");
    let script = format!("echo \"$* ($TOKEN $COTTER_BUILD_SECRET_0)\" >> {}", log.display());
    let bin = scene.fake_docker(&script);
    let path = format!("{}:/usr/bin:/bin", bin.display());
    // This docker pushes nothing, so the digest is not found.
    let pushed = Pushed::of(scene.command(&[]).env("PATH", &path).output().unwrap());
    pushed.failed(5, "error: the image of web is pushed, and no release is created", &["push it first"]);
    let own = format!("{}/own/web:1", scene.registry());
    let folder = scene.folder.join("web").display().to_string();
    let wanted = format!(
        "buildx version ( )\n\
         buildx build --load --tag {own} --platform linux/arm64 --build-arg PATH=/x --build-arg TOKEN \
         --secret id=token,env=COTTER_BUILD_SECRET_0 -- {folder} (secret-1 secret-2)\n\
         push {own} ( )\n"
    );
    assert_eq!(fs::read_to_string(&log).unwrap(), wanted);

    // Several platforms go from the builder to the registry.
    fs::remove_file(&log).unwrap();
    let args = ["--platform", "linux/amd64,linux/arm/v7", "--commit", "c1", "--registry", &scene.registry()];
    let pushed = Pushed::of(scene.command(&args).env("PATH", &path).output().unwrap());
    assert!(
        pushed.said.contains("warning: services.web.platform: linux/arm64 is replaced"),
        "{}",
        pushed.said
    );
    let log = fs::read_to_string(&log).unwrap();
    let own = format!("{}/lab-of-plants/web:c1", scene.registry());
    assert!(log.contains(&format!("build --push --tag {own} --platform linux/amd64,linux/arm/v7 ")), "{log}");
    assert!(!log.contains("\npush "), "{log}");
    assert_eq!(scene.releases(), Vec::<String>::new());
}

/// A registry that has no image. `refuses`: it does not permit uploads; else it never answers them.
fn registry(refuses: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream, refuses));
        }
    });
    address
}

fn answer(mut stream: TcpStream, refuses: bool) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.extend(byte);
    }
    let status = match &head[..] {
        head if head.starts_with(b"GET /v2/ ") => "200 OK",
        head if head.starts_with(b"POST") && refuses => "403 Forbidden",
        head if head.starts_with(b"POST") => {
            std::thread::sleep(Duration::from_secs(120));
            return;
        }
        _ => "404 Not Found",
    };
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

#[test]
fn a_refused_or_interrupted_push_creates_nothing() {
    let scene = Scene::new("push-denied", TWO);
    let refusing = registry(true);
    let pushed = scene.push(&["--registry", &refusing, "--commit", "c1"]);
    let start = format!("error: {refusing}/lab-of-plants/api_2:c1, the image of Api_2, is not pushed");
    pushed.failed(1, &start, &["no release is created", "docker login", "docker ended with exit code 1"]);

    // SIGINT in the middle of the push, sent to cotter alone.
    let address = registry(false);
    let log = scene.lab.dir().join("push.log");
    let mut program =
        Program::start("cotter push", scene.command(&["--registry", &address, "--commit", "c1"]), &log);
    eventually("docker pushes", Duration::from_secs(60), || {
        (program.log().contains("Preparing") || program.has_ended()).then_some(())
    });
    let docker = children(program.id());
    assert_eq!(docker.len(), 1, "{}", program.log());
    program.signal("INT");
    eventually("it ends", Duration::from_secs(30), || program.has_ended().then_some(()));
    let said = program.log();
    let last = said.trim_end().lines().next_back().unwrap();
    assert!(last.starts_with("error: ") && last.contains("interrupted by signal INT"), "{said}");
    assert!(!Path::new(&format!("/proc/{}", docker[0])).exists(), "docker runs on: {said}");
    assert_eq!(scene.releases(), Vec::<String>::new());
    for (address, service) in
        [(&refusing, "api_2"), (&refusing, "web"), (&address, "api_2"), (&address, "web")]
    {
        scene.lab.docker().try_run(&["rmi", &format!("{address}/lab-of-plants/{service}:c1")]);
    }
}

/// The processes that this one started and that still run.
fn children(id: u32) -> Vec<String> {
    let said = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    said.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn images_are_built_for_the_platform_of_the_fleets_devices() {
    let scene = Scene::new(
        "push-boards",
        "== compose.yaml\nservices: {web: {build: web}}\n== web/Dockerfile\nFROM APP\n",
    );
    let device = serde_json::json!({
        "application": scene.fleet.number, "device_type": "raspberrypi4-64", "uuid": "5".repeat(32), "api_key": "0123456789abcdef".repeat(2),
    });
    let (device, key) = (device.to_string(), fs::read_to_string(&scene.fleet.key_file).unwrap());
    let address = scene.server.url.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /device/register HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{device}",
        key.trim(),
        device.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");

    let log = scene.lab.dir().join("log");
    let bin = scene.fake_docker(&format!("echo \"$*\" >> {}", log.display()));
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let args = ["--commit", "c1", "--registry", &scene.registry()];
    // This docker pushes nothing, so the digest is not found.
    let pushed = Pushed::of(scene.command(&args).env("PATH", &path).output().unwrap());
    pushed.failed(5, "error: the image of web is pushed, and no release is created", &["push it first"]);
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.contains(" --platform linux/arm64 "), "{log}");
}
