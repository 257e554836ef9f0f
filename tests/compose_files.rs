//! Compose files of the kind that people run on devices, and input that is wrong on purpose: what becomes of each
//! stands in a text file beside them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use cotter::model::{DeviceUuid, ImageRef, Policy, Refusal, TargetApp};
use cotter::project;
use cotter::wire::compose_file::{self, ComposeFile};
use cotter::wire::target_v3;
use serde_json::{Value, json};

const DEVICE: &str = "0123456789abcdef0123456789abcdef";
/// How long any input may take before it counts as one that hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest line of a refusal: more of the author's own text would fill the screen.
const LONGEST_LINE: usize = 600;

fn lines(out: &mut String, kind: &str, notes: &[Refusal]) {
    for note in notes {
        writeln!(out, "  {kind} {note}").unwrap();
    }
}

/// What `cotter release create` says of a file, and a device with the usual settings of the release.
fn verdict(text: &str) -> String {
    let mut out = String::new();
    let project = match project::parse(text) {
        Ok(project) => project,
        Err(wrong) => {
            out.push_str("file: refused\n");
            for wrong in wrong {
                writeln!(out, "  refusal {wrong}").unwrap();
            }
            return out;
        }
    };
    let without = project.without_image(false);
    if !without.is_empty() {
        out.push_str("file: refused\n");
        for wrong in without {
            writeln!(out, "  refusal {wrong}").unwrap();
        }
        return out;
    }
    for warning in &project.warnings {
        writeln!(out, "  warning {warning}").unwrap();
    }
    let file = project.file;
    let mut images = BTreeMap::new();
    for (name, service) in &file.services {
        match ImageRef::parse(service["image"].as_str().unwrap()) {
            Ok(image) => drop(images.insert(name.clone(), image)),
            Err(bad) => {
                writeln!(out, "file: refused\n  refusal services.{name}.image: {bad}").unwrap();
                return out;
            }
        }
    }
    match compose_file::check(&file, &images, None) {
        Ok(warnings) => {
            out.push_str("file: accepted\n");
            lines(&mut out, "warning", &warnings);
        }
        Err(refusals) => {
            out.push_str("file: refused\n");
            lines(&mut out, "refusal", &refusals);
        }
    }
    out.push_str(&on_device(target(&file).to_string().as_bytes()));
    out
}

/// The target of a device that should run the file's services.
fn target(file: &ComposeFile) -> Value {
    let services: serde_json::Map<String, Value> = file
        .services
        .iter()
        .map(|(name, fields)| {
            let service = json!({"id": 1, "image_id": 1, "image": fields["image"], "composition": fields});
            (name.clone(), service)
        })
        .collect();
    let release = json!({"id": 1, "services": services, "networks": file.networks, "volumes": file.volumes});
    json!({DEVICE: {"name": "d", "apps": {DEVICE: {"id": 1, "name": "app", "releases": {"abc": release}}}}})
}

fn on_device(body: &[u8]) -> String {
    let mut out = String::new();
    match target_v3::parse(body, &DeviceUuid::parse(DEVICE).unwrap(), &Policy::default()) {
        Err(error) => writeln!(out, "device: target refused\n  refusal {error}").unwrap(),
        Ok(target) => {
            for app in target.apps.values() {
                match app {
                    TargetApp::Wanted(wanted) => {
                        out.push_str("device: accepted\n");
                        lines(&mut out, "warning", &wanted.warnings);
                    }
                    TargetApp::Refused(refused) => {
                        out.push_str("device: refused\n");
                        lines(&mut out, "refusal", &refused.refusals);
                    }
                }
            }
        }
    }
    out
}

/// What becomes of each file of a folder, by name.
fn answers(folder: &Path) -> (usize, String) {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "yml" || e == "json"));
    files.sort();
    let mut all = String::new();
    for path in &files {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(path).unwrap();
        let (tell, output) = mpsc::channel();
        let is_target = name.ends_with(".json");
        std::thread::spawn(move || {
            let answer =
                if is_target { on_device(text.replace("DEVICE", DEVICE).as_bytes()) } else { verdict(&text) };
            let _ = tell.send(answer);
        });
        let answer = output.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{name} hangs or panics"));
        for line in answer.lines() {
            assert!(line.chars().count() <= LONGEST_LINE, "{name}: {line}");
        }
        writeln!(all, "== {name}\n{answer}").unwrap();
    }
    (files.len(), all)
}

/// Compares what was found with the text beside the files; what was found is kept for a look.
fn assert_verdicts(folder: &str, least: usize) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let (count, found) = answers(&folder);
    assert!(count >= least, "{count} files");
    let kept =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.txt", folder.file_name().unwrap().display()));
    fs::write(&kept, &found).unwrap();
    let expected = fs::read_to_string(folder.join("verdicts.txt")).unwrap();
    for (expected, found) in expected.split("== ").zip(found.split("== ")) {
        assert_eq!(found, expected, "all that was found is in {}", kept.display());
    }
    assert_eq!(found.len(), expected.len(), "all that was found is in {}", kept.display());
    found
}

#[test]
fn files_that_people_run_on_devices() {
    let found = assert_verdicts("compose_examples", 30);
    // What is refused says where.
    for line in found.lines().filter(|line| line.starts_with("  refusal ")) {
        assert!(line.contains(": "), "{line}");
    }
}

#[test]
fn input_that_is_wrong_is_answered() {
    let found = assert_verdicts("corpus", 40);
    assert!(!found.contains("s3cret"), "a value of the environment is shown");
}

/// Too large to stand in a file.
#[test]
fn input_that_is_huge_is_answered() {
    let long = format!("services:\n  web:\n    image: a\n    command: {}\n", "x".repeat(1 << 20));
    assert!(verdict(&long).contains("it has more than 1048576 bytes: shorten it"), "{}", verdict(&long));
    let mut many = "services:\n".to_owned();
    for n in 0..5_000 {
        writeln!(many, "  s{n}: {{image: a, depends_on: [s{}], ports: ['{}:80']}}", (n + 1) % 5_000, n + 1)
            .unwrap();
    }
    let output = verdict(&many);
    let refusals: Vec<_> = output.lines().filter(|line| line.contains("refusal")).collect();
    assert!(refusals.len() <= 4, "{}", refusals.len());
    assert!(refusals[0].contains("services wait for each other"), "{}", refusals[0]);
    let deep = format!("{{\"{DEVICE}\": {}1{}}}", "[".repeat(90_000), "]".repeat(90_000));
    let output = on_device(deep.as_bytes());
    assert!(output.contains("recursion limit exceeded"), "{output}");
    let wrong: Vec<Value> = (0..20_000).map(|_| json!("x")).collect();
    let body = json!({DEVICE: {"name": "d", "apps": {DEVICE: {"id": 1, "name": "a", "releases": {"abc": {
        "id": 1, "services": {"web": {"id": 1, "image_id": 1, "image": "a", "composition": {"ports": wrong}}},
    }}}}}});
    assert_eq!(on_device(body.to_string().as_bytes()).lines().count(), 66, "the list is bounded");
}
