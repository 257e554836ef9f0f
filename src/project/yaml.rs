//! Reads YAML: documents with anchors, merge keys and the tags of Compose.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use libyaml_safer::{EventData, Parser, ScalarStyle};

use super::error::{Finding, Place};
use super::node::{Kind, Map, Node, Tag, start_of};

/// Maximum number of values of a file, with the copies of its anchors.
const MOST_NODES: usize = 100_000;

/// Maximum number of bytes of the texts of a file, with the copies of its anchors.
const MOST_BYTES: usize = 8 << 20;

/// Maximum number of members of a map or list.
const MOST_MEMBERS: usize = 10_000;

/// Deepest nesting of a file.
const DEEPEST: usize = 100;

/// Reads all documents of a file.
pub(super) fn documents(text: &str, file: &Arc<str>) -> Result<Vec<Node>, Finding> {
    let mut builder = Builder {
        file: file.clone(),
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        bytes: 0,
        documents: Vec::new(),
    };
    let mut bytes = text.as_bytes();
    let mut parser = Parser::new();
    parser.set_input_string(&mut bytes);
    for event in parser {
        let event = event.map_err(|bad| {
            let line = bad.problem_mark().map_or(0, |mark| line_of(mark.line));
            let context = bad.context().map(|context| format!(", {context}")).unwrap_or_default();
            let place = Place { file: file.clone(), line };
            Finding::at(&place, "", format_args!("it is not valid YAML: {}{context}", bad.problem()))
        })?;
        builder.take(event.data, line_of(event.start_mark.line))?;
    }
    Ok(builder.documents)
}

/// The library counts lines from 0.
fn line_of(line: u64) -> usize {
    usize::try_from(line).map_or(0, |line| line + 1)
}

struct Builder {
    file: Arc<str>,
    /// The lists and maps that are not complete, the innermost last.
    open: Vec<Open>,
    anchors: HashMap<String, Node>,
    nodes: usize,
    bytes: usize,
    documents: Vec<Node>,
}

struct Open {
    node: Node,
    anchor: Option<String>,
    /// The key whose value comes next, with its line.
    key: Option<(String, usize)>,
    /// The names so far, with their lines.
    names: HashMap<String, usize>,
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

    fn take(&mut self, event: EventData, line: usize) -> Result<(), Finding> {
        match event {
            EventData::StreamStart { .. } | EventData::StreamEnd | EventData::DocumentEnd { .. } => Ok(()),
            EventData::DocumentStart { .. } => {
                self.anchors.clear();
                Ok(())
            }
            EventData::Alias { anchor } => {
                let Some(node) = self.anchors.get(&anchor) else {
                    let why =
                        format!("*{anchor} is not an anchor that is complete before this: correct the name");
                    return Err(self.wrong(line, why));
                };
                let (nodes, bytes) = node.size();
                self.count(nodes, bytes, line)?;
                let Some(node) = self.anchors.get(&anchor) else { return Ok(()) };
                let mut node = node.clone();
                node.place = self.place(line);
                self.add(node, line)
            }
            EventData::Scalar { anchor, tag, value, style, .. } => {
                self.count(1, value.len(), line)?;
                let (tag, plain) = self.tag(tag.as_deref(), line)?;
                let is_plain = plain.unwrap_or(style == ScalarStyle::Plain);
                let node =
                    Node { kind: Kind::Scalar { text: value, is_plain }, place: self.place(line), tag };
                self.keep(anchor, &node, line)?;
                self.add(node, line)
            }
            EventData::SequenceStart { anchor, tag, .. } => {
                self.begin(Kind::List(Vec::new()), anchor, tag.as_deref(), line)
            }
            EventData::MappingStart { anchor, tag, .. } => {
                self.begin(Kind::Map(Map::new()), anchor, tag.as_deref(), line)
            }
            EventData::SequenceEnd | EventData::MappingEnd => {
                let Some(mut open) = self.open.pop() else { return Ok(()) };
                if let Kind::Map(map) = &mut open.node.kind {
                    merge_keys(map, open.merged);
                }
                self.keep(open.anchor, &open.node, line)?;
                self.add(open.node, line)
            }
        }
    }

    /// Reads a tag: what Compose makes of it, and whether it says that a scalar is a text (`Some(false)`) or not.
    fn tag(&self, tag: Option<&str>, line: usize) -> Result<(Tag, Option<bool>), Finding> {
        let Some(tag) = tag else { return Ok((Tag::None, None)) };
        match tag.strip_prefix("tag:yaml.org,2002:").map_or(tag, |suffix| suffix) {
            "str" => Ok((Tag::None, Some(false))),
            "int" | "float" | "bool" | "null" => Ok((Tag::None, Some(true))),
            "map" | "seq" => Ok((Tag::None, None)),
            "!" => Ok((Tag::None, Some(false))),
            "!reset" => Ok((Tag::Reset, None)),
            "!override" => Ok((Tag::Override, None)),
            suffix => Err(self.wrong(line, format_args!("the tag {suffix} is not supported: remove it"))),
        }
    }

    fn begin(
        &mut self,
        kind: Kind,
        anchor: Option<String>,
        tag: Option<&str>,
        line: usize,
    ) -> Result<(), Finding> {
        if self.open.len() >= DEEPEST {
            return Err(
                self.wrong(line, format_args!("it is nested deeper than {DEEPEST} levels: flatten it"))
            );
        }
        self.count(1, 0, line)?;
        let (tag, _) = self.tag(tag, line)?;
        let node = Node { kind, place: self.place(line), tag };
        self.open.push(Open { node, anchor, key: None, names: HashMap::new(), merged: Vec::new() });
        Ok(())
    }

    fn count(&mut self, nodes: usize, bytes: usize, line: usize) -> Result<(), Finding> {
        (self.nodes, self.bytes) = (self.nodes + nodes, self.bytes + bytes);
        let why = if self.nodes > MOST_NODES {
            format!("it has more than {MOST_NODES} values, with those of its anchors: shorten it")
        } else if self.bytes > MOST_BYTES {
            format!("its texts have more than {MOST_BYTES} bytes, with those of its anchors: shorten it")
        } else {
            return Ok(());
        };
        Err(Finding::at(&self.place(line), "", why))
    }

    /// Keeps a copy of what has an anchor.
    fn keep(&mut self, anchor: Option<String>, node: &Node, line: usize) -> Result<(), Finding> {
        if let Some(anchor) = anchor {
            let (nodes, bytes) = node.size();
            self.count(nodes, bytes, line)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(())
    }

    /// Adds a complete value to the list or map around it.
    fn add(&mut self, mut node: Node, line: usize) -> Result<(), Finding> {
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        let map = match &mut open.node.kind {
            Kind::List(list) if list.len() < MOST_MEMBERS => {
                list.push(node);
                return Ok(());
            }
            Kind::Map(map) if map.len() < MOST_MEMBERS => map,
            Kind::List(_) | Kind::Map(_) => {
                let why = format!("it has more than {MOST_MEMBERS} members: shorten it");
                return Err(self.wrong(line, why));
            }
            Kind::Scalar { .. } => return Ok(()),
        };
        let Some((key, key_line)) = open.key.take() else {
            let Kind::Scalar { text, .. } = node.kind else {
                return Err(self.wrong(line, "a name in it is not a text: write a text"));
            };
            if text.starts_with("x-cotter-") {
                return Err(
                    self.wrong(line, format!("{text:?} is a name of Cotter's own: choose another one"))
                );
            }
            if let Some(first) = open.names.insert(text.clone(), line) {
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
    let mut names: HashSet<String> = map.iter().map(|(name, _)| name.clone()).collect();
    for source in sources {
        let Kind::Map(members) = source.kind else { continue };
        for (key, node) in members {
            if names.insert(key.clone()) {
                map.push((key, node));
            }
        }
    }
}

/// The document of a file without any.
pub(super) fn empty(file: &Arc<str>) -> Node {
    Node::map(Map::new(), &start_of(file))
}
