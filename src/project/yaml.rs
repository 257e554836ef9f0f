//! Reads YAML: documents with anchors, merge keys and the tags of Compose.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::error::{Finding, Place};
use super::node::{Kind, Map, Node, Tag, get, start_of};

/// Most values of a file, after its anchors are filled in.
const MOST_NODES: usize = 100_000;

/// Deepest nesting of a file.
const DEEPEST: usize = 100;

/// Reads all documents of a file.
pub(super) fn documents(text: &str, file: &Arc<str>) -> Result<Vec<Node>, Finding> {
    let mut builder = Builder {
        file: file.clone(),
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        documents: Vec::new(),
    };
    for event in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        let (event, span) = event.map_err(|bad| {
            let place = Place { file: file.clone(), line: bad.marker().line() };
            Finding::at(&place, "", format_args!("it is not valid YAML: {}", bad.info()))
        })?;
        builder.take(event, span.start.line())?;
    }
    Ok(builder.documents)
}

struct Builder {
    file: Arc<str>,
    /// The lists and maps that are not complete, the innermost last.
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    documents: Vec<Node>,
}

struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value comes next, with its line.
    key: Option<(String, usize)>,
    /// The values of `<<`.
    merged: Vec<Node>,
}

impl Builder {
    fn place(&self, line: usize) -> Place {
        Place { file: self.file.clone(), line }
    }

    fn wrong(&self, line: usize, why: impl std::fmt::Display) -> Finding {
        Finding::at(&self.place(line), self.path(), why)
    }

    /// The path of the value that is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.node.kind {
                Kind::List(items) => path.push_str(&format!("[{}]", items.len())),
                Kind::Map(_) | Kind::Scalar { .. } => {
                    if let Some((key, _)) = &open.key {
                        path.push_str(if path.is_empty() { "" } else { "." });
                        path.push_str(key);
                    }
                }
            }
        }
        path
    }

    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Finding> {
        match event {
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id) else {
                    return Err(self.wrong(line, "an alias refers to the value that it is a part of: remove it"));
                };
                let size = node.size();
                if self.nodes + size > MOST_NODES {
                    return Err(self.too_many(line));
                }
                self.nodes += size;
                let mut node = node.clone();
                node.place = self.place(line);
                self.add(node, line)
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.count(line)?;
                let (tag, plain) = self.tag(tag.as_deref(), line)?;
                let is_plain = plain.unwrap_or(style == ScalarStyle::Plain);
                let kind = Kind::Scalar { text: text.into_owned(), is_plain };
                let node = Node { kind, place: self.place(line), tag };
                self.keep(anchor, &node);
                self.add(node, line)
            }
            Event::SequenceStart(anchor, tag) => self.begin(Kind::List(Vec::new()), anchor, tag.as_deref(), line),
            Event::MappingStart(anchor, tag) => self.begin(Kind::Map(Map::new()), anchor, tag.as_deref(), line),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(mut open) = self.open.pop() else { return Ok(()) };
                if let Kind::Map(map) = &mut open.node.kind {
                    merge_keys(map, open.merged);
                }
                self.keep(open.anchor, &open.node);
                self.add(open.node, line)
            }
        }
    }

    /// Reads a tag: what Compose makes of it, and whether it says that a scalar is a text (`Some(false)`) or not.
    fn tag(&self, tag: Option<&saphyr_parser::Tag>, line: usize) -> Result<(Tag, Option<bool>), Finding> {
        let Some(tag) = tag else { return Ok((Tag::None, None)) };
        if tag.is_yaml_core_schema() {
            match tag.suffix.as_str() {
                "str" => return Ok((Tag::None, Some(false))),
                "int" | "float" | "bool" | "null" => return Ok((Tag::None, Some(true))),
                "map" | "seq" => return Ok((Tag::None, None)),
                _ => {}
            }
        } else if tag.handle == "!" {
            match tag.suffix.as_str() {
                "reset" => return Ok((Tag::Reset, None)),
                "override" => return Ok((Tag::Override, None)),
                _ => {}
            }
        }
        Err(self.wrong(line, format_args!("the tag {tag} is not supported: remove it")))
    }

    fn begin(
        &mut self,
        kind: Kind,
        anchor: usize,
        tag: Option<&saphyr_parser::Tag>,
        line: usize,
    ) -> Result<(), Finding> {
        if self.open.len() >= DEEPEST {
            return Err(self.wrong(line, format_args!("it is nested deeper than {DEEPEST} levels: flatten it")));
        }
        self.count(line)?;
        let (tag, _) = self.tag(tag, line)?;
        let node = Node { kind, place: self.place(line), tag };
        self.open.push(Open { node, anchor, key: None, merged: Vec::new() });
        Ok(())
    }

    fn count(&mut self, line: usize) -> Result<(), Finding> {
        self.nodes += 1;
        if self.nodes > MOST_NODES { Err(self.too_many(line)) } else { Ok(()) }
    }

    fn too_many(&self, line: usize) -> Finding {
        let why = format!("it has more than {MOST_NODES} values, with those of its anchors: shorten it");
        Finding::at(&self.place(line), "", why)
    }

    fn keep(&mut self, anchor: usize, node: &Node) {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
    }

    /// Adds a complete value to the list or map around it.
    fn add(&mut self, mut node: Node, line: usize) -> Result<(), Finding> {
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        let map = match &mut open.node.kind {
            Kind::List(list) => {
                list.push(node);
                return Ok(());
            }
            Kind::Map(map) => map,
            Kind::Scalar { .. } => return Ok(()),
        };
        let Some((key, key_line)) = open.key.take() else {
            let Kind::Scalar { text, .. } = node.kind else {
                return Err(self.wrong(line, "a name in it is not a text: write a text"));
            };
            let first = get(map, &text).map(|first| first.place.line);
            if let Some(first) = first {
                let why = format!("{text:?} stands here and in line {first}: remove one");
                return Err(self.wrong(line, why));
            }
            open.key = Some((text, line));
            return Ok(());
        };
        if key == "<<" {
            return match self.merge(&node) {
                true => Ok(()),
                false => Err(self.wrong(line, "<< needs a map or a list of maps: write an alias of a map")),
            };
        }
        node.place.line = key_line;
        map.push((key, node));
        Ok(())
    }

    /// Takes the value of `<<`. Returns whether it is one that can be merged.
    fn merge(&mut self, node: &Node) -> bool {
        let sources: Vec<Node> = match &node.kind {
            Kind::Map(_) => vec![node.clone()],
            Kind::List(list) => list.clone(),
            Kind::Scalar { .. } => return node.is_null(),
        };
        let all_maps = sources.iter().all(|source| source.as_map().is_some());
        if let Some(open) = self.open.last_mut().filter(|_| all_maps) {
            open.merged.extend(sources);
        }
        all_maps
    }
}

/// Adds the members of `<<` that the map does not have itself; an earlier source wins.
fn merge_keys(map: &mut Map, sources: Vec<Node>) {
    for source in sources {
        let Kind::Map(members) = source.kind else { continue };
        for (key, node) in members {
            if get(map, &key).is_none() {
                map.push((key, node));
            }
        }
    }
}

/// The document of a file without any.
pub(super) fn empty(file: &Arc<str>) -> Node {
    Node::map(Map::new(), &start_of(file))
}
