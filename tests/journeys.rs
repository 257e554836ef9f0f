//! The transcripts of docs/journeys.md are true: their commands are run as they are written there, with real agents, a real
//! engine and registry and a real fleet server, and print what is written there.
//!
//! A line `desk$ COMMAND` or `kitchen$ COMMAND` is run on that machine, and the lines below it are its output. A line `...`
//! stands for any lines, and `…` for any text of a line. Ids, digests and keys differ in every run: each word of the page stands
//! for one word of the run, and later commands get that one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "helpers of tests; a test reads its own environment and measures"
)]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Agent, FleetServer, Lab, Program, eventually};

const PAGE: &str = include_str!("../docs/journeys.md");

/// Longest time for a device to get where the next journey begins.
const PATIENCE: Duration = Duration::from_secs(40);

const SERVER: &str = "https://fleet.example.com";
const REGISTRY: &str = "registry.example.com/lab";

/// A command of the page and the lines that it prints there.
#[derive(Debug, PartialEq)]
struct Step<'a> {
    machine: &'a str,
    command: &'a str,
    output: Vec<&'a str>,
}

/// The steps below a heading of the page.
fn journey(title: &str) -> Vec<Step<'static>> {
    let (_, rest) = PAGE.split_once(&format!("\n## {title}\n")).expect("a heading of this title");
    steps(rest.split("\n## ").next().unwrap())
}

fn steps(text: &str) -> Vec<Step<'_>> {
    let mut found: Vec<Step<'_>> = Vec::new();
    for block in text.split("\n```").skip(1).step_by(2) {
        for line in block.lines().skip(1) {
            let words = line.split_once("$ ").filter(|(name, _)| name.chars().all(char::is_alphanumeric));
            match words {
                Some((machine, command)) => found.push(Step { machine, command, output: Vec::new() }),
                None => found.last_mut().expect("a command before its output").output.push(line),
            }
        }
    }
    found
}

/// What stands on the page for a word of this run: pairs of the page's word and the run's.
#[derive(Debug, Default, Clone)]
struct Words(Vec<(String, String)>);

impl Words {
    /// Notes that `page` stands for `run`. Returns `false` if that contradicts an earlier pair; a shortened id is the start of
    /// its long form.
    fn note(&mut self, page: &str, run: &str) -> bool {
        let agrees = |(p, r): &(String, String)| {
            let len = p.len().min(page.len());
            (p[..len] == page[..len]) == (r[..len] == run[..len])
        };
        let is_fine = page.len() == run.len() && self.0.iter().all(agrees);
        if is_fine {
            self.0.push((page.to_owned(), run.to_owned()));
        }
        is_fine
    }

    /// The command with the words of this run.
    #[track_caller]
    fn for_this_run(&self, command: &str) -> String {
        let mut said = command.to_owned();
        for word in ids(command) {
            let known = self.0.iter().find(|(page, _)| page.starts_with(word));
            let (_, run) = known.unwrap_or_else(|| panic!("{word} of {command:?} was not printed before"));
            said = said.replace(word, &run[..word.len()]);
        }
        said
    }

    /// Whether a line of the page is this line of the run.
    fn is_line(&mut self, page: &str, run: &str) -> bool {
        let (page, run) = (without_times(page), without_times(run));
        let (of_page, of_run) = (ids(&page), ids(&run));
        let mut said = run.clone();
        if of_page.len() == of_run.len() {
            for (page, run) in of_page.iter().zip(&of_run) {
                if !self.note(page, run) {
                    return false;
                }
                said = said.replace(run, page);
            }
        }
        is_like(&page, &said)
    }

    /// The first line of the page that is not the run's, as far as that can be told.
    fn first_difference<'a>(&self, page: &[&'a str], run: &[&str]) -> &'a str {
        let mut words = self.clone();
        let until = (0..page.len()).find(|at| !words.are_lines(&[&page[..=*at], &["..."]].concat(), run));
        until.map_or("(the run has more lines)", |at| page[at])
    }

    /// Whether the lines of the page are those of the run.
    fn are_lines(&mut self, page: &[&str], run: &[&str]) -> bool {
        match (page, run) {
            ([], []) => true,
            (["...", page @ ..], _) => (0..=run.len()).any(|skipped| {
                let mut tried = self.clone();
                let is_it = tried.are_lines(page, &run[skipped..]);
                if is_it {
                    *self = tried;
                }
                is_it
            }),
            ([line, page @ ..], [said, run @ ..]) => self.is_line(line, said) && self.are_lines(page, run),
            _ => false,
        }
    }
}

/// The ids, digests and keys of a text: words of 7 or more hexadecimal digits.
fn ids(text: &str) -> Vec<&str> {
    let is_id = |word: &&str| word.len() >= 7 && word.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(is_id).collect()
}

/// With `TIME` for each time and each number of a span, and single spaces, because columns are as wide as their texts.
fn without_times(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    let mut said = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_time = bare.len() >= 20 && bare.as_bytes()[10] == b'T' && bare.ends_with('Z');
        let is_number = bare.chars().all(|c| c.is_ascii_digit()) && !bare.is_empty();
        let has_unit = words.get(at + 1).is_some_and(|unit| {
            ["s", "min", "h", "second", "seconds"].contains(&unit.trim_end_matches([',', ';', ':', ')']))
        });
        said.push(if is_time || is_number && has_unit {
            word.replace(bare, "TIME")
        } else {
            (*word).to_owned()
        });
    }
    said.join(" ")
}

/// Whether `said` is `pattern`, in which `…` stands for any text.
fn is_like(pattern: &str, said: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = said.strip_prefix(parts.next().unwrap()) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, parts)) = parts.split_last() else { return rest.is_empty() };
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

/// A fleet server, an operator's desk with a project, and the device `kitchen`, which has not joined yet.
struct Scene {
    server: FleetServer,
    words: Words,
    /// What differs from the page.
    wrong: Vec<String>,
    lab: Lab,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new("journeys");
        let scene =
            Self { server: FleetServer::start(&lab), words: Words::default(), wrong: Vec::new(), lab };
        scene.script("desk/bin/cotter", &format!("exec {} \"$@\"", Program::binary().display()));
        scene.kitchen();
        scene
    }

    fn dir(&self, machine: &str) -> PathBuf {
        self.lab.dir().join(machine)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn script(&self, name: &str, text: &str) {
        self.write(name, &format!("#!/bin/sh\n{text}\n"));
        std::fs::set_permissions(self.dir(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A device as the package leaves it, with places of its own, and a systemctl that runs the agent.
    fn kitchen(&self) {
        let (dir, cotter) =
            (self.dir("kitchen").display().to_string(), Program::binary().display().to_string());
        let socket = self.lab.docker().socket().display().to_string();
        let instance = self.lab.instance("kitchen");
        self.write(
            "kitchen/agent.toml",
            &format!(
                "instance = \"{instance}\"\nstate_dir = \"{dir}/state\"\nruntime_dir = \"{dir}/run\"\n[engine]\nsocket = \
                 \"{socket}\"\n"
            ),
        );
        let systemctl = format!(
            "case \"$1\" in\nshow) echo loaded;;\nrestart) {cotter} agent --config {dir}/agent.toml > {dir}/agent.log 2>&1 < \
             /dev/null &\necho $! > {dir}/agent.pid;;\nesac"
        );
        self.script("kitchen/bin/systemctl", &systemctl);
        let cotter = format!(
            "if [ \"$1\" = join ]; then exec {cotter} \"$@\" --config {dir}/agent.toml --unit cotter-agent.service; fi\nexec \
             {cotter} \"$@\""
        );
        self.script("kitchen/bin/cotter", &cotter);
    }

    /// The registry's address below which every image of this scene is.
    fn registry(&self) -> String {
        format!("{}/{}", self.lab.parts.registry, self.lab.instance("push"))
    }

    /// Runs `line` in the shell of a machine; the lines that it prints, with the names of the page.
    fn run(&self, machine: &str, line: &str) -> String {
        let line = self.words.for_this_run(line).replace(SERVER, &self.server.url);
        let line = line.replace(REGISTRY, &self.registry());
        let mut shell = Program::cotter_by(&["sh".into(), "-c".into(), format!("{line} 2>&1").into()]);
        let (bin, docker) = (self.dir(machine).join("bin"), self.lab.docker());
        let path = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{}:{}:{path}", bin.display(), docker.folder().display()));
        shell.env("DOCKER_HOST", format!("unix://{}", docker.socket().display()));
        if machine == "desk" {
            shell
                .env("COTTER_FLEET_URL", &self.server.url)
                .env("COTTER_TOKEN_FILE", self.server.token_file());
        } else {
            let run = self.dir(machine).join("run");
            shell.env("COTTER_STATUS_SOCKET", run.join("status.sock"));
            shell.env("COTTER_CONTROL_SOCKET", run.join("control.sock"));
        }
        let output = shell.current_dir(self.dir(machine)).output().expect("a shell");
        let said = String::from_utf8_lossy(&output.stdout).replace(&self.server.url, SERVER);
        let said = said.replace(&self.registry(), REGISTRY).replace(&self.lab.parts.registry, REGISTRY);
        said.replace(&self.dir("kitchen").display().to_string(), "/etc/cotter")
    }

    /// Plays a journey of the page, and notes each output that is not what is written there.
    #[track_caller]
    fn play(&mut self, title: &str) {
        let begun = Instant::now();
        println!("## {title}");
        for Step { machine, command, output } in journey(title) {
            let said = self.run(machine, command);
            println!("{machine}$ {command}\n{}", said.trim_end());
            let lines: Vec<_> = said.lines().collect();
            let before = self.words.clone();
            if !self.words.are_lines(&output, &lines) {
                let line = before.first_difference(&output, &lines);
                self.wrong.push(format!(
                    "{machine}$ {command}\n--- this line of the page differs:\n{line}\n--- run\n{said}"
                ));
            }
        }
        println!("{title}: {:.0} s", begun.elapsed().as_secs_f64());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(self.dir("kitchen/agent.pid")) {
            let pid = pid.trim();
            let _ = Command::new("kill").arg(pid).status();
            let is_gone = || (!Path::new("/proc").join(pid).exists()).then_some(());
            support::eventually_or(Duration::from_secs(20), is_gone);
        }
        let (docker, filter) = (self.lab.docker(), format!("reference={}/*/*", self.registry()));
        let found = docker.try_run(&["images", "--filter", &filter, "--format", "{{.Repository}}:{{.Tag}}"]);
        for image in String::from_utf8_lossy(&found.stdout).lines() {
            docker.try_run(&["rmi", image]);
        }
    }
}

#[test]
fn every_command_prints_what_the_page_says() {
    let mut scene = Scene::new();
    let web = |image: &str, more: &str| format!("services:\n  web:\n    image: {image}\n{more}");
    scene.write("desk/compose.yaml", "services:\n  web:\n    build: .\n    ports: ['127.0.0.1::8080']\n");
    scene.write("desk/Dockerfile", &format!("FROM {}\nENV DEMO_RELEASE=mine\n", scene.lab.image("r1")));
    scene.play("At home, with one device");

    scene.write("crash.yml", &web(scene.lab.image("crash"), ""));
    let file = scene.dir("crash.yml").display().to_string();
    scene.server.cli(&["release", "create", "greenhouse", "--file", &file]);
    eventually("the device has rejected the release and gone back", PATIENCE, || {
        let said = scene.run("kitchen", "cotter status");
        let services = said.lines().filter(|line| line.starts_with("greenhouse ")).count();
        (said.contains("was rejected") && services == 1 && said.contains(" Running ")).then_some(())
    });
    scene.play("At three in the morning");

    let plants = scene.server.create_fleet(&scene.lab, "plants");
    scene.write("first.yml", &web(scene.lab.image("r2"), ""));
    scene.server.create_release(&plants, "v1.0", &scene.dir("first.yml"));
    let url = scene.server.url.clone();
    let names = ["north", "south", "west"];
    let later = "    environment: {DEMO_DELAY: 8}\n    healthcheck: {test: [CMD, /app, check], interval: 1s, retries: 20}\n";
    scene.write("desk/compose.yaml", &web(scene.lab.image("slow"), later));
    let lab = Lab::new("journeys-many");
    let mut agents: Vec<_> = names.iter().map(|name| Agent::prepare(&lab, &url, &plants, name)).collect();
    for (agent, name) in agents.iter_mut().zip(names) {
        agent.set("cloud.report_interval=1s");
        agent.set("cloud.tags=ring=canary");
        // What is slow there does not get healthy in time.
        agent.set(if name == "west" { "update.deadline=2s" } else { "update.deadline=30s" });
        std::fs::write(agent.dir().join("provisioning.key"), std::fs::read(&plants.key_file).unwrap())
            .unwrap();
        agent.start_again();
    }
    eventually("all have joined", PATIENCE, || {
        let said = scene.server.cli_json(&["device", "list", "--fleet", "plants", "--state", "on-target"]);
        (said["devices"].as_array().unwrap().len() == names.len()).then_some(())
    });
    scene.play("A release engineer, with many devices");
    assert!(scene.wrong.is_empty(), "{}", scene.wrong.join("\n"));
}

/// The table of the page counts the commands of its transcripts.
#[test]
fn the_table_counts_the_commands() {
    let mut rows = 0;
    for line in PAGE.lines().filter(|line| line.starts_with("| [")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let title = cells[0].trim_start_matches('[').split(']').next().unwrap();
        let steps = journey(title);
        let desk = steps.iter().filter(|step| step.machine == "desk").count();
        let device = steps.len() - desk;
        assert_eq!((cells[1], cells[2]), (&*device.to_string(), &*desk.to_string()), "{line}");
        // From an installed package to the first accepted release.
        if rows == 0 {
            assert!(device <= 3 && desk <= 3, "{line}");
        }
        rows += 1;
    }
    assert_eq!(rows, PAGE.matches("\n## ").count(), "a row for each journey");
}

#[test]
fn a_line_is_compared_with_what_stands_for_this_run() {
    let mut words = Words::default();
    assert!(words.is_line(
        "release  aaaaaaaaaaaa1111 at 2026-11-25T10:15:26Z",
        "release bbbbbbbbbbbb2222 at 2026-12-25T10:00:00Z"
    ));
    assert!(words.is_line("runs aaaaaaaaaaaa, … it should", "runs bbbbbbbbbbbb, as it should"));
    assert!(!words.clone().is_line("runs aaaaaaaaaaaa", "runs cccccccccccc"), "another id");
    assert!(!words.clone().is_line("runs aaaaaaaaaaab", "runs bbbbbbbbbbbb"), "another word for it");
    assert!(!words.clone().is_line("runs aaaaaaaaaaaa", "run bbbbbbbbbbbb"), "another text");
    assert_eq!(words.for_this_run("cotter device pin a aaaaaaaa"), "cotter device pin a bbbbbbbb");
    assert!(words.are_lines(&["a", "...", "b"], &["a", "c", "d", "b"]));
    assert!(words.are_lines(&["a", "...", "b"], &["a", "b"]));
    assert!(!words.are_lines(&["a", "..."], &["b"]) && !words.are_lines(&["a"], &["a", "b"]));
    let found = steps("\n```\ndesk$ one\nx\npi$ two\n```\ntext\n```\npi$ three\n```\n");
    let step = |machine, command, output: &[&'static str]| Step { machine, command, output: output.to_vec() };
    assert_eq!(found, [step("desk", "one", &["x"]), step("pi", "two", &[]), step("pi", "three", &[])]);
}
