//! A YAML document as a tree in which every value knows its line.
//!
//! serde stops at the first fault. A topology is checked whole, so the text first becomes this tree; `schema`
//! and `check` walk it and collect what is wrong, each with the line that the reader has to look at.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

/// A value and the line that it begins in, counted from 1; 0 when the parser does not know.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tree {
    pub(crate) line: u64,
    pub(crate) node: Node,
}

/// What a YAML value can be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    /// Null, a truth value, a number or a text.
    Scalar(Value),
    List(Vec<Tree>),
    /// In the order of the file.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// Reads one YAML document.
    ///
    /// # Errors
    ///
    /// When the text is not YAML, or holds a key twice; the message names the place.
    pub(crate) fn parse(text: &str) -> Result<Self, serde_saphyr::Error> {
        serde_saphyr::from_str::<Spanned<Node>>(text).map(Self::from)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Tree> {
        match &self.node {
            Node::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, at)| at),
            Node::Scalar(_) | Node::List(_) => None,
        }
    }

    pub(crate) fn list(&self) -> &[Tree] {
        match &self.node {
            Node::List(items) => items,
            Node::Scalar(_) | Node::Map(_) => &[],
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.node {
            Node::Scalar(value) => value.as_str(),
            Node::List(_) | Node::Map(_) => None,
        }
    }

    /// What a reader would call this value.
    pub(crate) fn what(&self) -> &'static str {
        match &self.node {
            Node::List(_) => "a list",
            Node::Map(_) => "a mapping",
            Node::Scalar(value) => match value {
                Value::Null => "nothing",
                Value::Bool(_) => "true or false",
                Value::Number(_) => "a number",
                _ => "a text",
            },
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        match &self.node {
            Node::Scalar(value) => value.clone(),
            Node::List(items) => items.iter().map(Self::to_json).collect(),
            Node::Map(entries) => Value::Object(
                entries.iter().map(|(key, at)| (key.clone(), at.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }
}

impl From<Spanned<Node>> for Tree {
    fn from(spanned: Spanned<Node>) -> Self {
        Self { line: spanned.referenced.line(), node: spanned.value }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Node>>()? {
            items.push(item.into());
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            entries.push((key, map.next_value::<Spanned<Node>>()?.into()));
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line() {
        let tree = Tree::parse("name: a\nnodes:\n  - {name: n1, port: 7}\n  - name: 10.0.0.0/8\n");
        let tree = tree.unwrap();
        let nodes = tree.get("nodes").unwrap().list();
        assert_eq!(nodes[0].get("port").unwrap().line, 3);
        assert_eq!(nodes[1].get("name").unwrap().line, 4);
        assert_eq!(nodes[1].get("name").unwrap().text(), Some("10.0.0.0/8"));
        assert_eq!(nodes[0].to_json(), serde_json::json!({"name": "n1", "port": 7}));
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        let err = Tree::parse("name: a\nname: b\n").unwrap_err();
        assert!(err.to_string().contains("name"), "{err}");
    }
}
