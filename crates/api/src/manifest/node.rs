//! A value and where it stands.

use serde_json::{Map, Value};

use super::Span;

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub span: Span,
    pub shape: Shape,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Neither list nor object.
    Scalar(Value),
    List(Vec<Node>),
    /// In the order in which they are written; no key is twice.
    Object(Vec<Member>),
}

/// A field of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub key: String,
    pub key_span: Span,
    pub node: Node,
}

impl Node {
    /// The value without places.
    pub fn value(&self) -> Value {
        match &self.shape {
            Shape::Scalar(value) => value.clone(),
            Shape::List(items) => Value::Array(items.iter().map(Self::value).collect()),
            Shape::Object(members) => {
                let pairs = members.iter().map(|member| (member.key.clone(), member.node.value()));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }

    pub fn members(&self) -> &[Member] {
        match &self.shape {
            Shape::Object(members) => members,
            _ => &[],
        }
    }

    /// The field of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.members().iter().find(|member| member.key == key).map(|member| &member.node)
    }

    pub fn text(&self) -> Option<&str> {
        match &self.shape {
            Shape::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether nothing is said, as in an empty document.
    pub const fn is_null(&self) -> bool {
        matches!(self.shape, Shape::Scalar(Value::Null))
    }

    /// The node at the path of a fault, such as `spec.importV4[0].cidr`, and its place. Of what is not there it
    /// is the name of the nearest that it would lie in.
    pub fn find(&self, path: &str) -> (Option<&Self>, Span) {
        let (node, name) = self.walk(path);
        match node {
            // A collection is best shown by its name.
            Ok(node) if matches!(&node.shape, Shape::Scalar(value) if !value.is_null()) => {
                (Some(node), node.span)
            }
            Ok(node) => (Some(node), name),
            Err(nearest) => (None, nearest),
        }
    }

    /// The place of the name of the field at a path.
    pub fn find_name(&self, path: &str) -> Span {
        let (node, name) = self.walk(path);
        node.map_or_else(|nearest| nearest, |_| name)
    }

    /// The node at a path, or the place of the nearest; and the last name on the way.
    fn walk(&self, path: &str) -> (Result<&Self, Span>, Span) {
        let mut here = self;
        let mut name = self.members().first().map_or(self.span, |first| first.key_span);
        let mut rest = path;
        while !rest.is_empty() {
            let Some((next, next_name, after)) = here.step(rest) else {
                let scalar = matches!(here.shape, Shape::Scalar(_));
                return (Err(if scalar { here.span } else { name }), name);
            };
            name = next_name.unwrap_or(next.span);
            (here, rest) = (next, after);
        }
        (Ok(here), name)
    }

    /// One step along a path: the node, its name's place if it has a name, and the rest of the path.
    fn step<'p>(&self, path: &'p str) -> Option<(&Self, Option<Span>, &'p str)> {
        match &self.shape {
            Shape::List(items) => {
                let (number, after) = path.strip_prefix('[')?.split_once(']')?;
                Some((items.get(number.parse::<usize>().ok()?)?, None, after))
            }
            Shape::Object(members) => {
                let name = path.strip_prefix('.').unwrap_or(path);
                members.iter().find_map(|member| {
                    let after = after_name(name, &member.key)?;
                    Some((&member.node, Some(member.key_span), after))
                })
            }
            Shape::Scalar(_) => None,
        }
    }
}

/// What follows a name in a path, which has it bare, or quoted where names are data.
fn after_name<'p>(path: &'p str, name: &str) -> Option<&'p str> {
    let ends = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
    if let Some(rest) = path.strip_prefix(name).filter(|rest| ends(rest)) {
        return Some(rest);
    }
    let quoted = format!("[{:?}]", crate::calico::cut(name));
    path.strip_prefix(quoted.as_str()).filter(|rest| ends(rest))
}
