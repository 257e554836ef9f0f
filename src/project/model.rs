//! Reads compose files into one model: documents, variables, `include`, `extends`, and one file over the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::env_file::{self, Format};
use super::error::{Finding, Place};
use super::files::{self, Files};
use super::filled::{Filled, Recorded};
use super::merge::{drop_replaced, drop_tags, merge};
use super::node::{Kind, Node, get_mut, remove, set, start_of};
use super::{paths, variables, yaml};

/// Values of variables, by name.
pub(super) type Values = BTreeMap<String, String>;

/// A compose file: its path, or its text if it is not on the disk.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) path: PathBuf,
    pub(super) text: Option<String>,
    /// The operator named this file, so it may be outside of the project.
    pub(super) is_named: bool,
}

/// What the files of one model have in common.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    /// The folder that relative paths in them begin at.
    pub(super) directory: PathBuf,
    pub(super) values: Values,
    /// The files that lead here by `include`.
    pub(super) included: Vec<PathBuf>,
}

/// Maximum number of services that extend each other in a chain, and of files that include each other in one.
pub(super) const LONGEST_CHAIN: usize = 50;

/// Reads files and collects warnings.
#[derive(Debug)]
pub(super) struct Loader {
    pub(super) files: Files,
    /// The folder that paths in messages begin at.
    pub(super) directory: PathBuf,
    pub(super) warnings: Vec<Finding>,
    unset: BTreeSet<String>,
    /// The values and bytes of all that was read, with copies.
    nodes: usize,
    bytes: usize,
    /// Files that services extend, as they were read.
    pub(super) bases: BTreeMap<PathBuf, Node>,
    pub(super) filled: Filled,
}

/// Maximum number of values of a project, and of bytes of its texts. Copies by anchors, `extends`, `include` and files of variables
/// count.
const MOST_NODES: usize = 1_000_000;
const MOST_BYTES: usize = 32 << 20;

/// Maximum number of variables without a value that are listed in warnings.
const MOST_UNSET: usize = 64;

impl Loader {
    pub(super) fn new(files: Files, directory: PathBuf) -> Self {
        Self {
            files,
            directory,
            warnings: Vec::new(),
            unset: BTreeSet::new(),
            nodes: 0,
            bytes: 0,
            bases: BTreeMap::new(),
            filled: Filled::default(),
        }
    }

    /// Counts what was added to the project.
    pub(super) fn count(&mut self, nodes: usize, bytes: usize, place: &Place) -> Result<(), Finding> {
        (self.nodes, self.bytes) = (self.nodes + nodes, self.bytes + bytes);
        let why = if self.nodes > MOST_NODES {
            format!(
                "the project has more than {MOST_NODES} values, with all that it includes and extends: shorten it"
            )
        } else if self.bytes > MOST_BYTES {
            format!(
                "the project has more than {MOST_BYTES} bytes, with all that it includes and extends: shorten it"
            )
        } else {
            return Ok(());
        };
        Err(Finding::at(place, "", why))
    }

    pub(super) fn shown(&self, path: &Path) -> Arc<str> {
        files::shown(path, &self.directory)
    }

    /// Reads the files, each over the one before.
    pub(super) fn model(&mut self, given: &[Given], scope: &Scope) -> Result<Node, Vec<Finding>> {
        let mut model: Option<Node> = None;
        for file in given {
            let shown = self.shown(&file.path);
            model.get_or_insert_with(|| yaml::empty(&shown));
            for mut document in self.documents(file, &shown).map_err(|error| vec![error])? {
                self.fill(&mut document, &scope.values)?;
                self.include(&mut document, &file.path, scope)?;
                self.extend(&mut document, &file.path, scope)?;
                let earlier = model.take().unwrap_or_else(|| yaml::empty(&shown));
                let is_first = earlier.as_map().is_some_and(Vec::is_empty);
                let mut merged = merge(earlier, document, &mut Vec::new()).map_err(|error| vec![error])?;
                drop_tags(&mut merged);
                if !is_first {
                    drop_replaced(&mut merged);
                }
                model = Some(merged);
            }
        }
        let mut model = model.unwrap_or_else(|| yaml::empty(&"".into()));
        paths::resolve(&mut model, &scope.directory);
        fill_bare_names(&mut model, &scope.values);
        Ok(model)
    }

    pub(super) fn documents(&mut self, file: &Given, shown: &Arc<str>) -> Result<Vec<Node>, Finding> {
        let read = match &file.text {
            Some(text) if text.len() as u64 > files::LONGEST => Err(files::too_long()),
            Some(text) => Ok(text.clone()),
            None if file.is_named => self.files.read_named(&file.path),
            None => self.files.read(&file.path),
        };
        let whole = |why: String| Finding::at(&Place { file: shown.clone(), line: 0 }, "", why);
        let text = read.map_err(whole)?;
        let documents = yaml::documents(&text, shown)?;
        for document in &documents {
            let (nodes, bytes) = document.size();
            self.count(nodes, bytes, &start_of(shown))?;
            if document.as_map().is_none() && !document.is_null() {
                let why = "it is not a compose file: write services with their names below";
                return Err(Finding::at(&start_of(shown), "", why));
            }
        }
        Ok(documents)
    }

    /// Returns the value of a top-level field in the last file that has it, before variables are filled in. Returns
    /// `None` if a file cannot be read: reading the model reports that.
    pub(super) fn top_level_text(&mut self, given: &[Given], field: &str) -> Option<String> {
        let mut found = None;
        for file in given {
            let shown = self.shown(&file.path);
            for document in self.documents(file, &shown).ok()? {
                found = document.get(field).and_then(Node::as_text).map(str::to_owned).or(found);
            }
        }
        found
    }

    /// Fills in the variables of all values.
    pub(super) fn fill(&mut self, document: &mut Node, values: &Values) -> Result<(), Vec<Finding>> {
        let mut wrong = Vec::new();
        self.fill_at(document, "", values, &mut wrong);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn fill_at(&mut self, node: &mut Node, path: &str, values: &Values, wrong: &mut Vec<Finding>) {
        match &mut node.kind {
            Kind::Scalar { text, is_plain } => {
                if !text.contains('$') {
                    return;
                }
                let mut unset = BTreeSet::new();
                let recorded = Recorded::of(values);
                match variables::fill(text, &recorded, &mut unset) {
                    Ok(filled) => {
                        if let Err(bad) = self.count(0, filled.len(), &node.place) {
                            // One such error is enough.
                            wrong.extend(wrong.is_empty().then_some(bad));
                            return;
                        }
                        self.filled.note(&node.place, recorded);
                        // What a variable brings is a text, also where it looks like a number.
                        (*text, *is_plain) = (filled, false);
                        self.note_unset(unset, &node.place, path);
                    }
                    Err(bad) => wrong.push(Finding::at(&node.place, path, bad)),
                }
            }
            Kind::List(list) => {
                for (n, item) in list.iter_mut().enumerate() {
                    self.fill_at(item, &format!("{path}[{n}]"), values, wrong);
                }
            }
            Kind::Map(map) => {
                for (name, value) in map {
                    let dot = if path.is_empty() { "" } else { "." };
                    self.fill_at(value, &format!("{path}{dot}{name}"), values, wrong);
                }
            }
        }
    }

    /// Warns of variables without a value, once of each.
    pub(super) fn note_unset(&mut self, unset: BTreeSet<String>, place: &Place, path: &str) {
        for name in unset {
            if self.unset.len() < MOST_UNSET && self.unset.insert(name.clone()) {
                let why = format!(
                    "the variable {name} has no value, so it is empty: set it in the environment or in the file \
                     .env, or write a default (\"${{{name}:-value}}\"), or \"$$\" for a plain $"
                );
                self.warnings.push(Finding::at(place, path, why));
            }
        }
    }

    /// Adds what other projects have that this document includes.
    fn include(&mut self, document: &mut Node, file: &Path, scope: &Scope) -> Result<(), Vec<Finding>> {
        let Some(list) = document.as_map_mut().and_then(|map| remove(map, "include")) else { return Ok(()) };
        let one = |error: Finding| vec![error];
        let Kind::List(entries) = list.kind else {
            let why = "it is not a list: write \"- path of a compose file\" below";
            return if list.is_null() { Ok(()) } else { Err(one(Finding::at(&list.place, "include", why))) };
        };
        for (n, entry) in entries.iter().enumerate() {
            let path = format!("include[{n}]");
            let wrong = |why: &str| Finding::at(&entry.place, path.clone(), why);
            let named = texts_of(entry.get("path").unwrap_or(entry));
            let Some(first) = named.first() else {
                return Err(one(wrong("it has no path: write the path of a compose file")));
            };
            let main = files::join(&scope.directory, first);
            let mut included = scope.included.clone();
            included.push(file.to_owned());
            if included.contains(&main) || included.len() > LONGEST_CHAIN {
                let why = format!("{first:?} is included by itself: remove one of the includes");
                return Err(one(wrong(&why)));
            }
            let directory = match entry.get("project_directory").and_then(Node::as_text) {
                Some(directory) => files::join(&scope.directory, directory),
                None => main.parent().unwrap_or(Path::new("/")).to_owned(),
            };
            let env_files: Vec<PathBuf> = match entry.get("env_file") {
                Some(names) => texts_of(names)
                    .iter()
                    .filter(|name| **name != "/dev/null")
                    .map(|name| files::join(&scope.directory, name))
                    .collect(),
                None => Some(directory.join(".env")).into_iter().filter(|path| path.is_file()).collect(),
            };
            let values = self.values_of(&env_files, &scope.values, &entry.place).map_err(one)?;
            let given: Vec<Given> = named
                .iter()
                .map(|name| Given { path: files::join(&scope.directory, name), text: None, is_named: false })
                .collect();
            // Variables may have other values in an included project, so it reads the files that services extend again.
            let bases = std::mem::take(&mut self.bases);
            let model = self.model(&given, &Scope { directory, values, included })?;
            self.bases = bases;
            import(model, document).map_err(one)?;
        }
        drop_replaced(document);
        Ok(())
    }

    /// Returns the values of `outer`, and those of files of variables for names that `outer` does not have.
    pub(super) fn values_of(
        &mut self,
        env_files: &[PathBuf],
        outer: &Values,
        place: &Place,
    ) -> Result<Values, Finding> {
        let mut read = Values::new();
        for path in env_files {
            let shown = self.shown(path);
            let text = self
                .files
                .read(path)
                .map_err(|why| Finding::at(place, "env_file", format_args!("{shown}: {why}")))?;
            self.read_variables(&text, &shown, Format::Usual, outer, &mut read)?;
        }
        read.extend(outer.clone());
        Ok(read)
    }

    /// Reads the text of a file of variables.
    pub(super) fn read_variables(
        &mut self,
        text: &str,
        shown: &Arc<str>,
        format: Format,
        outer: &Values,
        read: &mut Values,
    ) -> Result<(), Finding> {
        let mut unset = BTreeSet::new();
        let place = |line| Place { file: shown.clone(), line };
        env_file::read_into(text, format, outer, read, &mut unset)
            .map_err(|bad| Finding::at(&place(bad.line), "", bad.why))?;
        let bytes = read.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.count(read.len(), bytes, &place(0))?;
        self.note_unset(unset, &Place { file: shown.clone(), line: 0 }, "");
        Ok(())
    }
}

/// Returns the text of a node, or the texts of a list.
pub(super) fn texts_of(node: &Node) -> Vec<&str> {
    match node.as_list() {
        Some(list) => list.iter().filter_map(Node::as_text).collect(),
        None => node.as_text().into_iter().collect(),
    }
}

/// Adds an included model to a document. Where both have a value, the document wins.
fn import(model: Node, document: &mut Node) -> Result<(), Finding> {
    let Kind::Map(sections) = model.kind else { return Ok(()) };
    for (section, node) in sections {
        if !matches!(section.as_str(), "services" | "volumes" | "networks" | "secrets" | "configs" | "models")
        {
            continue;
        }
        let Some(map) = document.as_map_mut() else { return Ok(()) };
        let merged = match remove(map, &section) {
            Some(own) => merge(node, own, &mut vec![section.clone()])?,
            None => node,
        };
        set(map, &section, merged);
    }
    Ok(())
}

/// Sets `environment` entries that have no value to the value of that variable in the environment, if there is one.
fn fill_bare_names(model: &mut Node, values: &Values) {
    let Some(services) = model.as_map_mut().and_then(|map| get_mut(map, "services")) else { return };
    for (_, service) in services.as_map_mut().into_iter().flatten() {
        let Some(environment) = service.as_map_mut().and_then(|map| get_mut(map, "environment")) else {
            continue;
        };
        match &mut environment.kind {
            Kind::List(list) => {
                for item in list {
                    let name = item.as_text().filter(|text| !text.contains('='));
                    if let Some(value) = name.and_then(|name| Some(format!("{name}={}", values.get(name)?))) {
                        *item = Node::text(value, &item.place.clone());
                    }
                }
            }
            Kind::Map(map) => {
                for (name, value) in map.iter_mut().filter(|(_, value)| value.is_null()) {
                    if let Some(known) = values.get(name) {
                        *value = Node::text(known, &value.place.clone());
                    }
                }
            }
            Kind::Scalar { .. } => {}
        }
    }
}
