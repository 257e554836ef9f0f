//! Reads a compose project for `release create` and `release check`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::exit::{InTheWay, Usage};
use super::print;
use crate::config::{Config, Given, environment, environment_outside};
use crate::model::quantity::counted;
use crate::model::{ImageRef, Policy};
use crate::project::{self, Build, Finding, Source};
use crate::wire::compose_file::{self, ComposeFile};

/// Maximum number of bytes of a compose file from the standard input.
const LONGEST_INPUT: u64 = 1 << 20;

/// Where the project is.
#[derive(Debug, Args)]
pub(super) struct Location {
    /// Compose file, or - for the standard input; several are merged, each over the one before
    /// [default: compose.yaml or docker-compose.yml, and its override file]
    #[arg(long = "file", short, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Folder in which the relative paths of the project begin [default: that of the first file]
    #[arg(long, value_name = "DIR")]
    project_directory: Option<PathBuf>,
    /// File of variables; the environment wins over it [default: .env in the project's folder]
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
    /// Includes the services of this profile; * for all [default: the variable COMPOSE_PROFILES]
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// Lets compose files name files outside of the project (its Git repository, else its folder)
    #[arg(long)]
    allow_outside: bool,
}

impl Location {
    /// Sets the project's folder.
    pub(super) fn in_folder(mut self, folder: Option<PathBuf>) -> Self {
        self.project_directory = folder.or(self.project_directory);
        self
    }

    fn source(self) -> anyhow::Result<Source> {
        let input = if self.files.iter().any(|file| file == Path::new("-")) {
            let mut text = String::new();
            std::io::stdin()
                .take(LONGEST_INPUT + 1)
                .read_to_string(&mut text)
                .context("cannot read the standard input")?;
            Some(text)
        } else {
            None
        };
        Ok(Source {
            files: self.files,
            input,
            directory: self.project_directory,
            env_files: self.env_files,
            profiles: self.profiles,
            environment: environment(),
            allow_outside: self.allow_outside,
        })
    }
}

/// What is wrong with a project, and what its author should know.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) file: ComposeFile,
    pub(super) images: BTreeMap<String, ImageRef>,
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
    /// How images are built, by service, if they are.
    pub(super) builds: BTreeMap<String, Build>,
    /// The project's folder.
    pub(super) directory: PathBuf,
    /// Whether the project is complete, and devices refuse what it asks for.
    is_refused: bool,
}

/// Reads a project and judges it: with `device`, for a device with these settings.
pub(super) fn judge(location: Location, device: Option<&Policy>) -> anyhow::Result<Verdict> {
    judged(location, device, false)
}

/// As [`judge`], where images are built for services that say how. The release does not say it.
pub(super) fn judge_to_build(location: Location) -> anyhow::Result<Verdict> {
    judged(location, None, true)
}

fn judged(location: Location, device: Option<&Policy>, may_build: bool) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut project = match project::load(&location.source()?) {
        Ok(project) => project,
        Err(errors) => {
            verdict.errors = errors;
            return Ok(verdict);
        }
    };
    verdict.warnings.clone_from(&project.warnings);
    verdict.errors = project.without_image(may_build);
    verdict.directory.clone_from(&project.directory);
    if may_build {
        match project.take_builds() {
            Ok(builds) => verdict.builds = builds,
            Err(wrong) => verdict.errors.extend(wrong),
        }
    }
    for (name, service) in &project.file.services {
        let Some(image) = service.get("image").and_then(Value::as_str).filter(|image| !image.is_empty())
        else {
            continue;
        };
        match ImageRef::parse(image) {
            Ok(image) => drop(verdict.images.insert(name.clone(), image)),
            Err(bad) => {
                let path = format!("services.{name}.image");
                verdict.errors.push(project.finding(&crate::model::Refusal { path, why: bad.to_string() }));
            }
        }
    }
    // A service without an image has all other fields checked, too.
    let stand_in = ImageRef::parse("image").ok();
    let images = project
        .file
        .services
        .keys()
        .filter_map(|name| Some((name.clone(), verdict.images.get(name).or(stand_in.as_ref())?.clone())))
        .collect();
    match compose_file::check(&project.file, &images, device) {
        Ok(warnings) => verdict.warnings.extend(warnings.iter().map(|warning| project.finding(warning))),
        Err(refusals) => {
            verdict.is_refused = verdict.errors.is_empty();
            verdict.errors.extend(refusals.iter().map(|refusal| project.finding(refusal)));
        }
    }
    verdict.errors.sort();
    verdict.warnings.sort();
    verdict.file = project.file;
    Ok(verdict)
}

impl Verdict {
    /// Prints all warnings and errors.
    pub(super) fn print(&self) {
        for warning in &self.warnings {
            print::note(&format!("warning: {warning}"));
        }
        // A single one is the message of the failure itself.
        for error in self.errors.iter().filter(|_| self.errors.len() > 1) {
            print::note(&format!("error: {error}"));
        }
    }

    /// Fails if there are errors.
    pub(super) fn result(&self) -> anyhow::Result<()> {
        let why = match self.errors.as_slice() {
            [] => return Ok(()),
            [error] => error.to_string(),
            errors => format!("the project has {} errors: devices would not run it", errors.len()),
        };
        Err(if self.is_refused { InTheWay(why).into() } else { Usage(why).into() })
    }
}

/// `cotter release check`
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Compose file, or - for the standard input [default: compose.yaml or docker-compose.yml, and its override file]
    #[arg(value_name = "FILE", conflicts_with = "files")]
    file: Option<PathBuf>,
    #[command(flatten)]
    location: Location,
    /// Judges for a device with the settings of this agent.toml, by its sections `policy` and `limits`
    #[arg(long, value_name = "FILE")]
    device_policy: Option<PathBuf>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn check(verb: Check) -> anyhow::Result<()> {
    let device = match verb.device_policy {
        Some(file) => {
            let given = Given { file: Some(file), set: Vec::new() };
            Some(Config::load(&given, &environment_outside(&given))?.policy)
        }
        None => None,
    };
    let mut location = verb.location;
    location.files.splice(0..0, verb.file);
    let verdict = judge(location, device.as_ref())?;
    if verb.json {
        let document = |finding: &Finding| {
            json!({
                "file": finding.place.as_ref().map(|place| place.file.to_string()),
                "line": finding.place.as_ref().map(|place| place.line).filter(|line| *line > 0),
                "path": finding.path,
                "why": finding.why,
            })
        };
        let all = |findings: &[Finding]| findings.iter().map(document).collect::<Vec<_>>();
        print::json(
            "check",
            &json!({
                "is_accepted": verdict.errors.is_empty(),
                "errors": all(&verdict.errors),
                "warnings": all(&verdict.warnings),
            }),
        )?;
        return verdict.result();
    }
    verdict.print();
    verdict.result()?;
    let services = counted(verdict.file.services.len(), "service");
    let warnings = counted(verdict.warnings.len(), "warning");
    print::line(&format!("devices accept the project: {services}, {warnings}"))
}
