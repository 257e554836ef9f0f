//! Compose projects in the shapes that people have, each read by Docker Compose and by us: both accept it, and devices
//! run the same, or the project's file says why not.
//!
//! A project is one text file: settings, then its files after lines `== NAME`. The settings:
//! `files`, `profiles` and `env` as on the command line; `refused`, a part of our first error; `compose: refuses`, if
//! Compose refuses the project, too; `differs`, why devices get something else than Compose runs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cotter::model::{DeviceUuid, Policy, ReleaseLimits, TargetApp};
use cotter::project::{self, Project, Source};
use cotter::wire::target_v3;
use serde_json::{Value, json};

const DEVICE: &str = "0123456789abcdef0123456789abcdef";

#[derive(Debug, Default)]
struct Case {
    name: String,
    files: Vec<String>,
    profiles: Vec<String>,
    env: BTreeMap<String, String>,
    refused: Option<String>,
    differs: bool,
    is_refused_by_compose: bool,
    folder: PathBuf,
}

fn case(path: &Path, below: &Path) -> Case {
    let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let text = fs::read_to_string(path).unwrap();
    let mut case = Case { folder: below.join(&name), name, ..Case::default() };
    let mut parts = text.split("== ");
    let words = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for line in parts.next().unwrap().lines() {
        let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{}: {line}", case.name));
        match key {
            "files" => case.files = words(value),
            "profiles" => case.profiles = words(value),
            "env" => {
                let pair = |word: String| {
                    word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
                };
                case.env = words(value).into_iter().filter_map(pair).collect();
            }
            "refused" => case.refused = Some(value.to_owned()),
            "compose" => case.is_refused_by_compose = true,
            "differs" => case.differs = true,
            _ => panic!("{}: {line}", case.name),
        }
    }
    for part in parts {
        let (name, content) = part.split_once('\n').unwrap();
        let path = case.folder.join(name.trim());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    case
}

impl Case {
    fn ours(&self) -> Result<Project, String> {
        let source = Source {
            files: self.files.iter().map(|file| self.folder.join(file)).collect(),
            directory: Some(self.folder.clone()),
            profiles: self.profiles.clone(),
            environment: self.env.clone(),
            ..Source::default()
        };
        project::load(&source).map_err(|errors| errors[0].to_string())
    }

    /// The project as Compose resolves it, read by us.
    ///
    /// `None`: Compose accepts it, and what it prints is refused by us.
    fn composes(&self, compose: &Path) -> Result<Option<Project>, String> {
        let mut command = Command::new(compose);
        for file in &self.files {
            command.args(["-f", file]);
        }
        for profile in &self.profiles {
            command.args(["--profile", profile]);
        }
        command.args(["config", "--format", "json"]).current_dir(&self.folder).env_clear().envs(&self.env);
        let out = command.output().unwrap();
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        let source = Source {
            files: vec!["-".into()],
            input: Some(String::from_utf8(out.stdout).unwrap()),
            directory: Some(self.folder.clone()),
            environment: self.env.clone(),
            // Compose leaves the services' profiles in what it prints.
            profiles: self.profiles.clone(),
            ..Source::default()
        };
        Ok(project::load(&source).ok())
    }
}

/// What a device makes of a project: its services, networks and volumes, or why it refuses them.
fn on_device(project: &Project) -> Result<Value, String> {
    let mut services = serde_json::Map::new();
    for (name, fields) in &project.file.services {
        let mut fields = fields.clone();
        fields.remove("build");
        let service = json!({"id": 1, "image_id": 1, "image": fields["image"], "composition": fields});
        services.insert(name.clone(), service);
    }
    let release = json!({"id": 1, "services": services, "networks": project.file.networks, "volumes": project.file.volumes});
    let app = json!({"id": 1, "name": "app", "releases": {"abc": release}});
    let body = json!({DEVICE: {"name": "d", "apps": {DEVICE: app}}}).to_string();
    // What an owner allows is not the question here.
    let policy = Policy { host_paths: vec!["/".into()], limits: ReleaseLimits::HIGHEST, ..Policy::balena() };
    let target = target_v3::parse(body.as_bytes(), &DeviceUuid::parse(DEVICE).unwrap(), &policy).unwrap();
    match target.apps.values().next().unwrap() {
        TargetApp::Wanted(wanted) => {
            let release = wanted.release.as_ref().unwrap();
            // Compose does not print what no service uses, and a device does not make it.
            let services = serde_json::to_value(&release.services).unwrap();
            let text = services.to_string();
            let used = |name: &str| text.contains(&format!("\"{name}\""));
            let networks: BTreeMap<_, _> =
                release.networks.iter().filter(|(name, _)| used(name.as_str())).collect();
            let volumes: BTreeMap<_, _> =
                release.volumes.iter().filter(|(name, _)| used(name.as_str())).collect();
            Ok(json!({ "services": services, "networks": networks, "volumes": volumes }))
        }
        TargetApp::Refused(refused) => Err(refused.refusals[0].to_string()),
    }
}

/// Our first error, as `cotter release check` finds it.
fn verdict(project: Result<Project, String>) -> Result<Value, String> {
    let project = project?;
    if let Some(without) = project.without_image(false).first() {
        return Err(without.to_string());
    }
    let image = |(name, fields): (&String, &serde_json::Map<String, Value>)| {
        (name.clone(), cotter::model::ImageRef::parse(fields["image"].as_str().unwrap()).unwrap())
    };
    let images = project.file.services.iter().map(image).collect();
    cotter::wire::compose_file::check(&project.file, &images, None)
        .map_err(|refusals| project.finding(&refusals[0]).to_string())?;
    on_device(&project)
}

/// Whether devices accept the project with the images that `cotter push` builds. The folders of the builds may be missing.
///
/// # Errors
///
/// The first reason why not.
fn judge_once_built(project: &Project) -> Result<(), String> {
    let image = cotter::model::ImageRef::parse("image").unwrap();
    let images = project.file.services.keys().map(|name| (name.clone(), image.clone())).collect();
    if let Some(without) = project.without_image(true).first() {
        return Err(without.to_string());
    }
    cotter::wire::compose_file::check(&project.file, &images, None)
        .map(drop)
        .map_err(|refusals| project.finding(&refusals[0]).to_string())
}

fn cases(below: &Path) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compose_projects");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "project"));
    paths.sort();
    paths.iter().map(|path| case(path, below)).collect()
}

#[test]
fn every_project_is_accepted_or_refused_with_its_file_and_line() {
    let below = tempfile::tempdir().unwrap();
    let cases = cases(below.path());
    assert!(cases.len() >= 60, "{}", cases.len());
    let mut wrong = BTreeSet::new();
    for case in cases {
        match (verdict(case.ours()), &case.refused) {
            (Ok(_), None) => {}
            (Err(error), Some(part)) if error.contains(part.as_str()) => {
                let has_line = error.split(": ").next().is_some_and(|place| place.rsplit_once(':').is_some());
                if !has_line && !part.contains("cannot be read") {
                    wrong.insert(format!("{}: no line: {error}", case.name));
                }
            }
            (ours, wanted) => {
                wrong.insert(format!("{}: {ours:?}, wanted {wanted:?}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn docker_compose_is_of_the_same_opinion() {
    let compose = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cross/compose/compose/docker-compose");
    if !compose.exists() {
        let must = std::env::var_os("COTTER_SKIP_NOTHING").is_some();
        assert!(!must, "{} is missing: scripts/prepare.sh installs it", compose.display());
        eprintln!("skipped: {} is missing: scripts/prepare.sh installs it", compose.display());
        return;
    }
    let below = tempfile::tempdir().unwrap();
    let mut wrong = BTreeSet::new();
    for case in cases(below.path()) {
        let theirs = case.composes(&compose);
        if theirs.is_err() != case.is_refused_by_compose {
            wrong.insert(format!("{}: Compose: {:?}", case.name, theirs.err()));
            continue;
        }
        let (Ok(ours), Ok(theirs)) = (verdict(case.ours()), theirs) else { continue };
        let Some(theirs) = theirs else {
            if !case.differs {
                wrong.insert(format!("{}: what Compose prints is refused", case.name));
            }
            continue;
        };
        match on_device(&theirs) {
            Ok(theirs) if (theirs == ours) == case.differs => {
                wrong.insert(format!("{}:\n  ours   {ours}\n  theirs {theirs}", case.name));
            }
            Ok(_) => {}
            Err(_) if case.differs => {}
            Err(error) => {
                wrong.insert(format!("{}: {error}", case.name));
            }
        }
    }
    for line in &wrong {
        eprintln!("{line}");
    }
    assert!(wrong.is_empty(), "{} projects", wrong.len());
}

/// `docs/compose.md` is compared with this list, which must be that of the Compose that judges.
#[test]
fn the_list_of_fields_is_that_of_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join(".cross/compose/compose/docker-compose").exists() {
        eprintln!("skipped: scripts/prepare.sh installs docker-compose");
        return;
    }
    let out = Command::new(root.join("scripts/compose-fields.py")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let listed = fs::read_to_string(root.join("tests/compose_fields.txt")).unwrap();
    let hint = "scripts/compose-fields.py >tests/compose_fields.txt";
    assert!(String::from_utf8(out.stdout).unwrap() == listed, "the list is out of date: {hint}");
}

/// `COTTER_COMPOSE_FILES=LIST cargo test --test compose_projects other_files -- --nocapture` compares any compose files,
/// whose paths are the lines of LIST, and prints what differs.
#[test]
fn docker_compose_is_of_the_same_opinion_of_other_files() {
    let compose = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cross/compose/compose/docker-compose");
    let Some(list) = std::env::var_os("COTTER_COMPOSE_FILES") else { return };
    let list = fs::read_to_string(list).unwrap();
    let (mut accepted, mut alike, mut both, mut to_build) = (0, 0, 0, 0);
    for path in list.lines().map(Path::new) {
        let case = Case {
            name: path.display().to_string(),
            files: vec![path.file_name().unwrap().to_str().unwrap().to_owned()],
            folder: path.parent().unwrap().to_owned(),
            ..Case::default()
        };
        let ours = verdict(case.ours());
        if let Err(error) = &ours {
            println!("refused: {}: {error}", case.name);
        }
        match case.composes(&compose) {
            theirs @ Ok(Some(_) | None) => {
                accepted += 1;
                let Ok(ours) = ours else {
                    match case.ours().and_then(|project| judge_once_built(&project)) {
                        Ok(()) => to_build += 1,
                        Err(why) => println!("refused also once built: {}: {why}", case.name),
                    }
                    continue;
                };
                let Some(theirs) = theirs.unwrap() else {
                    println!("what Compose prints is refused: {}", case.name);
                    continue;
                };
                both += 1;
                let theirs = on_device(&theirs);
                if theirs.as_ref() == Ok(&ours) {
                    alike += 1;
                } else {
                    println!("differs: {}\n  ours   {ours}\n  theirs {theirs:?}", case.name);
                }
            }
            Err(_) if ours.is_ok() => println!("only Compose refuses {}", case.name),
            Err(_) => {}
        }
    }
    println!(
        "Compose accepts {accepted}, we accept {both} of them, and {alike} are alike; `cotter push` accepts {to_build} more"
    );
}
