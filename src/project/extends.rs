//! Completes services that extend others, of their own file or of another one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Finding, Place};
use super::files;
use super::merge::{drop_replaced_of, merge};
use super::model::{Given, LONGEST_CHAIN, Loader, Scope, Values};
use super::node::{Kind, Map, Node, get, get_mut, remove, set, start_of};
use super::{paths, yaml};

/// Where a service is looked for that another one extends.
struct Base<'b> {
    services: &'b Map,
    file: &'b Path,
    /// The folder that relative paths begin at.
    directory: &'b Path,
    values: &'b Values,
}

impl Loader {
    /// Replaces each service that extends another one by the complete service.
    pub(super) fn extend(
        &mut self,
        document: &mut Node,
        file: &Path,
        scope: &Scope,
    ) -> Result<(), Vec<Finding>> {
        let Some(Kind::Map(services)) = document.get("services").map(|node| node.kind.clone()) else {
            return Ok(());
        };
        let mut wrong = Vec::new();
        for (name, service) in &services {
            if service.get("extends").is_none() {
                continue;
            }
            let base = Base { services: &services, file, directory: &scope.directory, values: &scope.values };
            match self.extended(name, &base, &mut Vec::new()) {
                Ok(complete) => {
                    if let Some(map) = document.as_map_mut().and_then(|map| get_mut(map, "services")) {
                        map.as_map_mut().into_iter().for_each(|map| set(map, name, complete.clone()));
                    }
                }
                Err(bad) => wrong.push(bad),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// A file that services extend, with its variables filled in.
    fn base(&mut self, file: &Path, shown: &Arc<str>, values: &Values) -> Result<Node, Finding> {
        if let Some(model) = self.bases.get(file) {
            return Ok(model.clone());
        }
        let given = Given { path: file.to_owned(), text: None, is_named: false };
        let mut model = yaml::empty(shown);
        for mut document in self.documents(&given, shown)? {
            let failed = || Finding::at(&start_of(shown), "", "its variables cannot be filled in");
            let filled = self.fill(&mut document, values);
            filled.map_err(|bad| bad.into_iter().next().unwrap_or_else(failed))?;
            model = merge(model, document, &mut Vec::new())?;
        }
        paths::resolve(&mut model, file.parent().unwrap_or(Path::new("/")));
        self.bases.insert(file.to_owned(), model.clone());
        Ok(model)
    }

    /// The complete service `name`: what it extends, and over that its own fields.
    fn extended(
        &mut self,
        name: &str,
        base: &Base<'_>,
        trail: &mut Vec<(PathBuf, String)>,
    ) -> Result<Node, Finding> {
        let Some(service) = get(base.services, name) else {
            let place = Place { file: self.shown(base.file), line: 0 };
            return Err(Finding::at(&place, format!("services.{name}"), "there is no such service"));
        };
        let Some(extends) = service.get("extends") else { return Ok(service.clone()) };
        let path = format!("services.{name}.extends");
        let wrong = |why: String| Finding::at(&extends.place, path.clone(), why);
        let here = (base.file.to_owned(), name.to_owned());
        if trail.contains(&here) || trail.len() >= LONGEST_CHAIN {
            return Err(wrong("the service extends itself, by way of others: remove one of them".into()));
        }
        trail.push(here);
        let from = extends.get("service").unwrap_or(extends).as_text();
        let from =
            from.ok_or_else(|| wrong("it names no service: write its name, or service and file".into()))?;
        let missing = |file: &Path| {
            format!("there is no service {from} in {}: correct the name", files::shown(file, &self.directory))
        };
        let parent = match extends.get("file").and_then(Node::as_text) {
            None if get(base.services, from).is_none() => return Err(wrong(missing(base.file))),
            None => self.extended(from, base, trail)?,
            Some(file) => {
                let file = files::join(base.directory, file);
                let shown = self.shown(&file);
                let model = self.base(&file, &shown, base.values).map_err(|bad| wrong(bad.to_string()))?;
                let directory = file.parent().unwrap_or(Path::new("/")).to_owned();
                let services = model.get("services").and_then(Node::as_map).cloned().unwrap_or_default();
                if get(&services, from).is_none() {
                    let why = format!("there is no service {from} in {shown}: correct the name");
                    return Err(wrong(why));
                }
                let base =
                    Base { services: &services, file: &file, directory: &directory, values: base.values };
                self.extended(from, &base, trail)?
            }
        };
        let mut own = service.clone();
        own.as_map_mut().and_then(|map| remove(map, "extends"));
        let (nodes, bytes) = parent.size();
        self.count(nodes, bytes, &extends.place)?;
        let mut complete = merge(parent, own, &mut vec!["services".into(), name.into()])?;
        drop_replaced_of(&mut complete);
        Ok(complete)
    }
}
