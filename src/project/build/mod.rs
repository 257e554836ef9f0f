//! Reads how the images of services are built. It does not know with which program.

mod fields;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use fields::FIELDS;

use super::content::{Origin, origin};
use super::error::{Finding, Place};
use super::files::{self, Files};
use super::merge::pairs;
use super::model::Values;
use super::node::{Kind, Map, Node};
use super::paths::is_address;

/// How the image of a service is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    pub place: Place,
    /// An absolute folder, or an address.
    pub context: String,
    /// `None`: the usual name. Absolute if the context is a folder.
    pub dockerfile: Option<String>,
    /// The text of the Dockerfile, if it is in the compose file.
    pub inline: Option<String>,
    /// Those with a value.
    pub args: BTreeMap<String, String>,
    pub platforms: Vec<String>,
    pub secrets: Vec<Secret>,
    /// What else it has: see [`FIELDS`].
    pub fields: Vec<Field>,
}

/// A field with the values of its options, one or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    pub place: Place,
    pub values: Vec<String>,
}

/// A secret for the time of the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub place: Place,
    pub id: String,
    pub from: SecretFrom,
}

/// Where the content of a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    File(PathBuf),
    Value(String),
}

/// What a build refers to outside of itself.
#[derive(Debug)]
struct Outside<'o> {
    secrets: Option<&'o Node>,
    values: &'o Values,
    directory: &'o Path,
    files: &'o Files,
}

/// Reads the builds of all services.
///
/// # Errors
///
/// All errors in them.
pub(super) fn read_all(
    model: &Node,
    secrets: Option<&Node>,
    values: &Values,
    directory: &Path,
    files: &Files,
) -> Result<BTreeMap<String, Build>, Vec<Finding>> {
    let outside = Outside { secrets, values, directory, files };
    let (mut builds, mut wrong) = (BTreeMap::new(), Vec::new());
    for (name, service) in model.get("services").and_then(Node::as_map).into_iter().flatten() {
        let Some(node) = service.get("build") else { continue };
        let mut reader =
            Reader { outside: &outside, path: format!("services.{name}.build"), wrong: Vec::new() };
        let build = reader.build(node);
        wrong.append(&mut reader.wrong);
        builds.extend(build.map(|build| (name.clone(), build)));
    }
    if wrong.is_empty() { Ok(builds) } else { Err(wrong) }
}

/// Reads one build, and collects its errors.
#[derive(Debug)]
struct Reader<'o> {
    outside: &'o Outside<'o>,
    path: String,
    wrong: Vec<Finding>,
}

impl Reader<'_> {
    fn refuse(&mut self, place: &Place, field: &str, why: impl std::fmt::Display) {
        let dot = if field.is_empty() { "" } else { "." };
        self.wrong.push(Finding::at(place, format!("{}{dot}{field}", self.path), why));
    }

    fn build(&mut self, node: &Node) -> Option<Build> {
        let short =
            node.as_text().map(|context| vec![("context".to_owned(), Node::text(context, &node.place))]);
        let Some(map) = short.as_ref().or(node.as_map()) else {
            self.refuse(&node.place, "", "it is a list: write a folder, or fields with context below");
            return None;
        };
        let mut build = Build {
            place: node.place.clone(),
            context: self.outside.directory.display().to_string(),
            dockerfile: None,
            inline: None,
            args: BTreeMap::new(),
            platforms: Vec::new(),
            secrets: Vec::new(),
            fields: Vec::new(),
        };
        for (name, value) in map.iter().filter(|(name, value)| !value.is_null() && !name.starts_with("x-")) {
            match name.as_str() {
                "context" => build.context = self.text(name, value),
                "dockerfile" => build.dockerfile = Some(self.text(name, value)),
                "dockerfile_inline" => build.inline = Some(self.text(name, value)),
                "args" => build.args = self.args(value),
                "platforms" => build.platforms = self.texts(name, value),
                "secrets" => build.secrets = self.secrets(value),
                "isolation" if value.as_text() == Some("default") => {}
                _ => match FIELDS.iter().find(|known| **known == name.as_str()) {
                    Some(known) => self.field(known, value, &mut build.fields),
                    None => self.refuse(
                        &value.place,
                        name,
                        "docker's command line has no option for it: remove it, or build the image yourself and name it",
                    ),
                },
            }
        }
        self.files(&mut build, map);
        Some(build)
    }

    /// Checks that folder and Dockerfile are there, and part of the project.
    fn files(&mut self, build: &mut Build, map: &Map) {
        let whole = build.place.clone();
        let place = |field: &str| super::node::get(map, field).map_or(&whole, |node| &node.place).clone();
        if build.dockerfile.is_some() && build.inline.is_some() {
            self.refuse(
                &place("dockerfile"),
                "dockerfile",
                "there is dockerfile_inline, too: remove one of both",
            );
        }
        if is_address(&build.context) {
            if build.context.starts_with("service:") {
                self.refuse(&place("context"), "context", "it is a service: write a folder or an address");
            }
            return;
        }
        let context = PathBuf::from(&build.context);
        if !self.check_folder(&context, &place("context"), "context") || build.inline.is_some() {
            return;
        }
        let named = build.dockerfile.as_ref().map(|name| files::join(&context, name));
        let usual = ["Dockerfile", "dockerfile"].map(|name| context.join(name));
        let file = named.clone().or_else(|| usual.into_iter().find(|file| file.is_file()));
        let shown = named.as_ref().unwrap_or(&context).display().to_string();
        match file.filter(|file| file.is_file()) {
            Some(file) => {
                if let Err(why) = self.outside.files.check_inside(&file) {
                    self.refuse(&place("dockerfile"), "dockerfile", format!("{shown}: {why}"));
                }
                build.dockerfile = named.map(|file| file.display().to_string());
            }
            None if named.is_some() => {
                let why = format!("there is no file {shown}: correct the path, which begins in the context");
                self.refuse(&place("dockerfile"), "dockerfile", why);
            }
            None => {
                let why = format!("there is no Dockerfile in {shown}: write one, or name it with dockerfile");
                self.refuse(&place("context"), "", why);
            }
        }
    }

    /// Refuses a folder that is not there, or not a part of the project. Returns whether it is fine.
    fn check_folder(&mut self, folder: &Path, place: &Place, field: &str) -> bool {
        let shown = folder.display();
        let checked = if folder.is_dir() {
            self.outside.files.check_inside(folder).map_err(|why| format!("{shown}: {why}"))
        } else {
            Err(format!("there is no folder {shown}: correct the path"))
        };
        checked.map_err(|why| self.refuse(place, field, why)).is_ok()
    }

    fn text(&mut self, field: &str, node: &Node) -> String {
        if let Some(text) = node.as_text() {
            return text.to_owned();
        }
        self.refuse(&node.place, field, format_args!("it is {}: write a text", node.kind_name()));
        String::new()
    }

    fn texts(&mut self, field: &str, node: &Node) -> Vec<String> {
        let items = node.as_list().unwrap_or(std::slice::from_ref(node));
        items.iter().map(|item| self.text(field, item)).collect()
    }

    /// The members of a map, or of a list of `NAME=value`.
    fn members(&mut self, field: &str, node: &Node) -> Map {
        match pairs(node.clone()).kind {
            Kind::Map(map) => map,
            Kind::List(_) | Kind::Scalar { .. } => {
                self.refuse(&node.place, field, "it is a text: write \"NAME: value\" below");
                Map::new()
            }
        }
    }

    /// Arguments with their values. One without a value has that of the environment; if there is none, it is left out.
    fn args(&mut self, node: &Node) -> BTreeMap<String, String> {
        let mut args = BTreeMap::new();
        for (name, value) in self.members("args", node) {
            let value = if value.is_null() {
                self.outside.values.get(&name).cloned()
            } else {
                Some(self.text(&format!("args.{name}"), &value))
            };
            args.extend(value.map(|value| (name, value)));
        }
        args
    }

    fn secrets(&mut self, node: &Node) -> Vec<Secret> {
        let Some(entries) = node.as_list() else {
            self.refuse(&node.place, "secrets", "it is not a list: write names below");
            return Vec::new();
        };
        let mut secrets = Vec::new();
        for (n, entry) in entries.iter().enumerate() {
            match self.secret(entry) {
                Ok(secret) => secrets.push(secret),
                Err(why) => self.refuse(&entry.place, &format!("secrets[{n}]"), why),
            }
        }
        secrets
    }

    fn secret(&self, entry: &Node) -> Result<Secret, String> {
        let name = entry.get("source").unwrap_or(entry).as_text().ok_or("it has no source: write a name")?;
        if let Some(field) = ["uid", "gid", "mode"].into_iter().find(|field| entry.get(field).is_some()) {
            return Err(format!(
                "docker's command line has no option for {field}: write it into the Dockerfile (RUN --mount=type=secret,{field}=...)"
            ));
        }
        let id = entry.get("target").and_then(Node::as_text).unwrap_or(name);
        if id.contains([',', '=', '"']) {
            return Err(format!("{id:?} has a ',', a '=' or a quote: write another name"));
        }
        let Some(definition) = self.outside.secrets.and_then(|secrets| secrets.get(name)) else {
            return Err(format!("there is no {name} under secrets: declare it, or correct the name"));
        };
        let from = match origin(definition, "secrets", name, self.outside.values)? {
            Origin::Text(text) => SecretFrom::Value(text),
            Origin::File(file) => {
                let shown = file.display().to_string();
                if !file.is_file() {
                    return Err(format!("there is no file {shown}: correct the path"));
                }
                self.outside.files.check_inside(&file).map_err(|why| format!("{shown}: {why}"))?;
                if shown.contains([',', '"']) {
                    return Err(format!(
                        "{shown:?} has a ',' or a quote, which docker does not take: rename it"
                    ));
                }
                SecretFrom::File(file)
            }
        };
        Ok(Secret { place: entry.place.clone(), id: id.to_owned(), from })
    }
}
