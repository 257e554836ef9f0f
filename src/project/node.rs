//! A value of a compose project, with the place where it is written.

use std::sync::Arc;

use super::error::Place;

/// A value. Scalars keep the author's text: what it means (a number, a bool) depends on where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) place: Place,
    pub(super) tag: Tag,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Scalar {
        text: String,
        /// Written without quotes, so that it may be a number, a bool or null.
        is_plain: bool,
    },
    List(Vec<Node>),
    Map(Map),
}

/// The tags of Compose, which say how a value is merged into that of an earlier file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Tag {
    #[default]
    None,
    /// `!reset`: the value of the earlier file is removed.
    Reset,
    /// `!override`: this value replaces that of the earlier file.
    Override,
}

/// The members of a map, in their order.
pub(super) type Map = Vec<(String, Node)>;

impl Node {
    pub(super) fn new(kind: Kind, place: Place) -> Self {
        Self { kind, place, tag: Tag::None }
    }

    /// A text, as if it were written in quotes.
    pub(super) fn text(text: impl Into<String>, place: &Place) -> Self {
        Self::new(Kind::Scalar { text: text.into(), is_plain: false }, place.clone())
    }

    pub(super) fn map(map: Map, place: &Place) -> Self {
        Self::new(Kind::Map(map), place.clone())
    }

    pub(super) fn null(place: &Place) -> Self {
        Self::new(Kind::Scalar { text: String::new(), is_plain: true }, place.clone())
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, is_plain: true } if super::scalar::is_null(text))
    }

    /// The text of a scalar that is not null.
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } if !self.is_null() => Some(text),
            Kind::Scalar { .. } | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    pub(super) fn as_map(&self) -> Option<&Map> {
        if let Kind::Map(map) = &self.kind { Some(map) } else { None }
    }

    pub(super) fn as_map_mut(&mut self) -> Option<&mut Map> {
        if let Kind::Map(map) = &mut self.kind { Some(map) } else { None }
    }

    pub(super) fn as_list(&self) -> Option<&[Node]> {
        if let Kind::List(list) = &self.kind { Some(list) } else { None }
    }

    /// A member of a map that is not null.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.as_map().and_then(|map| get(map, key)).filter(|node| !node.is_null())
    }

    /// Whether it is `true`, also as a text.
    pub(super) fn is_true(&self) -> bool {
        self.as_text().is_some_and(|text| super::scalar::flag(text) == Some(true))
    }

    /// The number of nodes in it, with itself, and the bytes of its texts.
    pub(super) fn size(&self) -> (usize, usize) {
        let sum = |sizes: &mut dyn Iterator<Item = (usize, usize)>| {
            sizes.fold((1, 0), |(nodes, bytes), (more, text)| (nodes + more, bytes + text))
        };
        match &self.kind {
            Kind::Scalar { text, .. } => (1, text.len()),
            Kind::List(list) => sum(&mut list.iter().map(Node::size)),
            Kind::Map(map) => sum(&mut map.iter().map(|(name, node)| {
                let (nodes, bytes) = node.size();
                (nodes, bytes + name.len())
            })),
        }
    }

    /// Adds the places of it and of all that is in it.
    pub(super) fn collect_places<'n>(&'n self, places: &mut Vec<&'n Place>) {
        places.push(&self.place);
        match &self.kind {
            Kind::Scalar { .. } => {}
            Kind::List(list) => list.iter().for_each(|item| item.collect_places(places)),
            Kind::Map(map) => map.iter().for_each(|(_, member)| member.collect_places(places)),
        }
    }

    /// A word for its kind, for messages.
    pub(super) fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar { .. } if self.is_null() => "empty",
            Kind::Scalar { .. } => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }
}

pub(super) fn get<'n>(map: &'n [(String, Node)], key: &str) -> Option<&'n Node> {
    map.iter().find(|(name, _)| name == key).map(|(_, node)| node)
}

pub(super) fn get_mut<'n>(map: &'n mut Map, key: &str) -> Option<&'n mut Node> {
    map.iter_mut().find(|(name, _)| name == key).map(|(_, node)| node)
}

/// Sets a member, in its present position if there is one.
pub(super) fn set(map: &mut Map, key: &str, node: Node) {
    match get_mut(map, key) {
        Some(present) => *present = node,
        None => map.push((key.to_owned(), node)),
    }
}

pub(super) fn remove(map: &mut Map, key: &str) -> Option<Node> {
    let at = map.iter().position(|(name, _)| name == key)?;
    Some(map.remove(at).1)
}

/// The place of line 1 of a file.
pub(super) fn start_of(file: &Arc<str>) -> Place {
    Place { file: file.clone(), line: 1 }
}
