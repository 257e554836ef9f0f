//! Reads a compose project, as an author has it on a machine, into the plain compose file of a release.
//!
//! Variables, `include`, `extends`, override files, profiles and files of variables are resolved as Compose resolves
//! them (its binary is the judge in tests/compose_projects). Devices read only the result. Unlike Compose, a scalar stays
//! as its author wrote it.

mod build;
mod content;
mod env_file;
mod error;
mod extends;
mod files;
mod filled;
mod finish;
mod json;
mod merge;
mod model;
mod node;
mod paths;
mod scalar;
mod variables;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use build::{Build, FIELDS as BUILD_FIELDS, Field, Secret, SecretFrom};
pub use env_file::variables_of;
pub use error::{Finding, Place};
use files::Files;
use filled::Filled;
use model::{Given, Loader, Scope, Values};
use node::{Kind, Node};

use crate::model::Refusal;
use crate::wire::compose_file::{self, ComposeFile};

/// Where a project is, and what it is filled in with.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The compose files, each over the one before. Empty: those with the usual names.
    pub files: Vec<PathBuf>,
    /// The text of a file whose path is `-`.
    pub input: Option<String>,
    /// The project's folder, in which relative paths begin. `None`: that of the first file.
    pub directory: Option<PathBuf>,
    /// Files of variables. Empty: `.env` in the project's folder, if there is one.
    pub env_files: Vec<PathBuf>,
    /// Profiles that are chosen. Empty: those of the variable `COMPOSE_PROFILES`.
    pub profiles: Vec<String>,
    /// The environment, which wins over files of variables.
    pub environment: BTreeMap<String, String>,
    /// Whether compose files may name files outside of the project.
    pub allow_outside: bool,
}

/// A project, resolved.
#[derive(Debug, Clone)]
pub struct Project {
    pub file: ComposeFile,
    pub warnings: Vec<Finding>,
    /// The folder in which its relative paths begin.
    pub directory: PathBuf,
    builds: Result<BTreeMap<String, Build>, Vec<Finding>>,
    /// The services that say how their image is built.
    built: BTreeSet<String>,
    model: Node,
    filled: Filled,
}

impl Project {
    /// Adds the place to what devices say of the release. Leaves out the values of variables.
    #[must_use]
    pub fn finding(&self, refusal: &Refusal) -> Finding {
        let node = json::nearest(&self.model, &refusal.path);
        let place = &node.place;
        let finding = Finding {
            place: (!place.file.is_empty()).then(|| place.clone()),
            path: refusal.path.clone(),
            why: refusal.why.clone(),
        };
        let mut places = Vec::new();
        node.collect_places(&mut places);
        self.filled.hide(finding, places.into_iter())
    }

    /// The services without an image that can be used. `may_build` is whether images are built where a service says how.
    #[must_use]
    pub fn without_image(&self, may_build: bool) -> Vec<Finding> {
        let place = |path: &str| json::nearest(&self.model, path).place.clone();
        finish::check_images(&self.file.services, &self.built, may_build, &place)
    }

    /// Takes out how images are built, by service.
    ///
    /// # Errors
    ///
    /// All errors in it, also those of folders and files that are not there.
    pub fn take_builds(&mut self) -> Result<BTreeMap<String, Build>, Vec<Finding>> {
        std::mem::replace(&mut self.builds, Ok(BTreeMap::new()))
    }
}

/// Names of a compose file, the preferred one first, and of the file that is merged over it.
const USUAL: &[&str] = &["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: &[&str] = &[
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// Reads a project.
///
/// # Errors
///
/// All errors of the project that can be found at once, sorted by place.
pub fn load(source: &Source) -> Result<Project, Vec<Finding>> {
    let whole = |why: String| vec![Finding { place: None, path: String::new(), why }];
    let here =
        std::env::current_dir().map_err(|error| whole(format!("the current folder is unknown: {error}")))?;
    let first = source
        .directory
        .as_ref()
        .map_or(here.clone(), |path| files::join(&here, &path.display().to_string()));
    let files_of = |directory: &Path| Files::of(directory, source.allow_outside);
    // The file of variables may name the compose files.
    let early =
        values_of(source, &first, &mut Loader::new(files_of(&first), here.clone())).unwrap_or_default();
    let given = given_files(source, &early, &here, &first).map_err(whole)?;
    let directory = match given.first() {
        Some(Given { path, text: None, .. }) if source.directory.is_none() => {
            path.parent().unwrap_or(&here).to_owned()
        }
        Some(_) | None => first,
    };
    let mut loader = Loader::new(files_of(&directory), here);
    let mut values = values_of(source, &directory, &mut loader)?;
    let name = project_name(&given, &values, &directory, &mut loader);
    values.entry("COMPOSE_PROJECT_NAME".into()).or_insert(name);
    let profiles = profiles(source, &values);
    let scope = Scope { directory: directory.clone(), values: values.clone(), included: Vec::new() };
    let mut model = match loader.model(&given, &scope) {
        Ok(model) => model,
        Err(wrong) => return Err(hidden(&loader.filled, wrong)),
    };
    let secrets = model.get("secrets").cloned();
    let mut wrong = finish::apply(&mut model, &mut loader, &values, &profiles);
    if !wrong.is_empty() {
        wrong.sort();
        return Err(hidden(&loader.filled, wrong));
    }
    let builds = build::read_all(&model, secrets.as_ref(), &values, &directory, &loader.files);
    let filled = loader.filled;
    let builds = builds.map_err(|wrong| hidden(&filled, wrong));
    let mut warnings = hidden(&filled, loader.warnings);
    let mut file = ComposeFile {
        services: section(&model, "services", &mut warnings)
            .into_iter()
            .filter_map(|(name, value)| if let Value::Object(map) = value { Some((name, map)) } else { None })
            .collect(),
        networks: section(&model, "networks", &mut warnings),
        volumes: section(&model, "volumes", &mut warnings),
    };
    let changed = compose_file::as_compose_means(&mut file);
    let mut built = BTreeSet::new();
    for (name, fields) in &mut file.services {
        built.extend(fields.get("build").is_some_and(|build| !build.is_null()).then(|| name.clone()));
        // It names the author's files and values, and no device reads it.
        fields.retain(|name, _| !matches!(name.as_str(), "build" | "develop") && !name.starts_with("x-"));
    }
    let mut project = Project { file, warnings, directory, builds, built, model, filled };
    let changed: Vec<Finding> = changed.iter().map(|warning| project.finding(warning)).collect();
    project.warnings.extend(changed);
    Ok(project)
}

/// Errors or warnings without the values of variables.
fn hidden(filled: &Filled, findings: Vec<Finding>) -> Vec<Finding> {
    findings.into_iter().map(|finding| filled.hide(finding, std::iter::empty())).collect()
}

/// Reads the text of one compose file without an environment, and without any other file.
///
/// # Errors
///
/// As [`load`].
pub fn parse(text: &str) -> Result<Project, Vec<Finding>> {
    let source = Source {
        files: vec![PathBuf::from("-")],
        input: Some(text.to_owned()),
        directory: Some(PathBuf::from("/nonexistent")),
        ..Source::default()
    };
    load(&source)
}

fn section(model: &Node, name: &str, warnings: &mut Vec<Finding>) -> BTreeMap<String, Value> {
    let Some(Kind::Map(map)) = model.get(name).map(|node| &node.kind) else { return BTreeMap::new() };
    let member =
        |(key, node): &(String, Node)| (key.clone(), json::value(node, &format!("{name}.{key}"), warnings));
    map.iter().map(member).collect()
}

/// The compose files: those that are named, else those with the usual names in `directory`.
fn given_files(
    source: &Source,
    values: &Values,
    here: &Path,
    directory: &Path,
) -> Result<Vec<Given>, String> {
    if !source.files.is_empty() {
        let one = |path: &PathBuf| {
            if path == Path::new("-") {
                let text = Some(source.input.clone().unwrap_or_default());
                return Given { path: PathBuf::from("-"), text, is_named: true };
            }
            Given { path: files::join(here, &path.display().to_string()), text: None, is_named: true }
        };
        return Ok(source.files.iter().map(one).collect());
    }
    let named = values.get("COMPOSE_FILE").filter(|names| !names.is_empty());
    if let Some(names) = named {
        let separator = values.get("COMPOSE_PATH_SEPARATOR").filter(|text| !text.is_empty());
        let separator = separator.map_or(":", String::as_str);
        let one = |name| Given { path: files::join(directory, name), text: None, is_named: true };
        return Ok(names.split(separator).filter(|name| !name.is_empty()).map(one).collect());
    }
    let first = |names: &[&str]| names.iter().map(|name| directory.join(name)).find(|path| path.is_file());
    let Some(main) = first(USUAL) else {
        return Err(format!(
            "there is no compose file in {}: name one with --file, or write {}",
            directory.display(),
            USUAL.join(", ")
        ));
    };
    let paths = std::iter::once(main).chain(first(OVERRIDES));
    Ok(paths.map(|path| Given { path, text: None, is_named: false }).collect())
}

/// The values of variables: the environment's, else those of files of variables.
fn values_of(source: &Source, directory: &Path, loader: &mut Loader) -> Result<Values, Vec<Finding>> {
    let mut outer = source.environment.clone();
    let variable = |name: &str| source.environment.get(name).filter(|value| !value.is_empty());
    let here = loader.directory.clone();
    let named = |path: &str| (files::join(&here, path), true);
    let env_files: Vec<(PathBuf, bool)> = if !source.env_files.is_empty() {
        source.env_files.iter().map(|path| named(&path.display().to_string())).collect()
    } else if let Some(names) = variable("COMPOSE_ENV_FILES") {
        names.split(',').filter(|name| !name.is_empty()).map(named).collect()
    } else if variable("COMPOSE_DISABLE_ENV_FILE").and_then(|text| scalar::flag(text)) == Some(true) {
        Vec::new()
    } else {
        Some((directory.join(".env"), false)).into_iter().filter(|(path, _)| path.is_file()).collect()
    };
    let mut read = Values::new();
    for (path, is_named) in &env_files {
        let shown = files::shown(path, &loader.directory);
        let whole = |why: String| Finding::at(&Place { file: shown.clone(), line: 0 }, "", why);
        let text = if *is_named { loader.files.read_named(path) } else { loader.files.read(path) };
        let text = text.map_err(|why| vec![whole(why)])?;
        loader
            .read_variables(&text, &shown, env_file::Format::Usual, &outer, &mut read)
            .map_err(|error| vec![error])?;
    }
    for (name, value) in read {
        outer.entry(name).or_insert(value);
    }
    Ok(outer)
}

/// The name of the project: that of the last file that has one, else of its folder.
fn project_name(given: &[Given], values: &Values, directory: &Path, loader: &mut Loader) -> String {
    let named = loader
        .top_level_text(given, "name")
        .and_then(|name| variables::fill(&name, values, &mut BTreeSet::new()).ok());
    let folder = || directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = named.unwrap_or_else(folder).to_lowercase();
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect();
    name.trim_start_matches(['_', '-']).to_owned()
}

fn profiles(source: &Source, values: &Values) -> BTreeSet<String> {
    if !source.profiles.is_empty() {
        return source.profiles.iter().cloned().collect();
    }
    let chosen = values.get("COMPOSE_PROFILES").map(String::as_str).unwrap_or_default();
    chosen.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
