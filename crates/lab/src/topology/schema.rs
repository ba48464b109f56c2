//! Holds a tree against the schema of the file's form, and tells every fault at once.
//!
//! The schema comes from the Rust types (`form`), so there is one description of a topology: what `russet lab
//! schema` prints, what an editor completes from, and what is checked here. Only what schemars writes for
//! those types is understood; this is no general validator.

use std::fmt;

use serde_json::Value;

use super::{
    tree::{Node, Tree},
    value::check_format,
};

/// One thing that is wrong, where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The line in the file; 0 when it is not known.
    pub line: u64,
    /// The way to the value: `nodes[2].subnet`.
    pub place: String,
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        match self.place.as_str() {
            "" => f.write_str(&self.reason),
            place => write!(f, "{place}: {}", self.reason),
        }
    }
}

/// Finds what in `tree` does not fit `schema`, a document with its `$defs`.
pub(crate) fn faults(tree: &Tree, schema: &Value) -> Vec<Fault> {
    let mut walk = Walk { root: schema, faults: Vec::new(), visit: &mut |_, _, _, _| {} };
    walk.value(tree, schema, "");
    walk.faults
}

/// Visits every text that has a format: the format, the text, its line and its place.
pub(crate) fn each_text(tree: &Tree, schema: &Value, visit: &mut dyn FnMut(&str, &str, u64, &str)) {
    let mut walk = Walk { root: schema, faults: Vec::new(), visit };
    walk.value(tree, schema, "");
}

struct Walk<'a, 'v> {
    root: &'a Value,
    faults: Vec<Fault>,
    visit: &'v mut dyn FnMut(&str, &str, u64, &str),
}

impl<'a> Walk<'a, '_> {
    fn value(&mut self, tree: &Tree, schema: &'a Value, place: &str) {
        let schema = self.resolve(schema);
        if let Some(alternatives) = alternatives(schema) {
            return self.one_of(tree, alternatives, place);
        }
        if !fits_kind(tree, schema) {
            let wanted = self.describe(schema);
            return self.fault(
                tree.line,
                place,
                format!("wanted is {wanted}, not {}", tree.what()),
            );
        }
        match &tree.node {
            Node::Map(entries) => self.mapping(tree, entries, schema, place),
            Node::List(items) => {
                let Some(each) = schema.get("items") else { return };
                for (i, item) in items.iter().enumerate() {
                    self.value(item, each, &format!("{place}[{i}]"));
                }
            }
            Node::Scalar(value) => self.scalar(tree.line, value, schema, place),
        }
    }

    fn mapping(&mut self, tree: &Tree, entries: &[(String, Tree)], schema: &'a Value, place: &str) {
        let known = schema.get("properties").and_then(Value::as_object);
        for (key, at) in entries {
            let inner = join(place, key);
            match (known.and_then(|known| known.get(key)), schema.get("additionalProperties")) {
                (Some(property), _) => self.value(at, property, &inner),
                (None, Some(Value::Bool(false))) => {
                    let keys = known.into_iter().flat_map(|known| known.keys());
                    self.fault(at.line, &inner, unknown_key(key, keys.map(String::as_str)));
                }
                (None, Some(each)) if each.is_object() => self.value(at, each, &inner),
                (None, _) => {}
            }
        }
        for key in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            let key = key.as_str().unwrap_or_default();
            if tree.get(key).is_none() {
                self.fault(tree.line, place, format!("`{key}` is missing"));
            }
        }
    }

    fn scalar(&mut self, line: u64, value: &Value, schema: &Value, place: &str) {
        if let Some(allowed) = allowed(schema)
            && !allowed.contains(&value)
        {
            let allowed: Vec<_> = allowed.into_iter().filter_map(Value::as_str).collect();
            return self.fault(line, place, format!("{value} is none of: {}", allowed.join(", ")));
        }
        if let (Some(text), Some(format)) =
            (value.as_str(), schema.get("format").and_then(Value::as_str))
        {
            (self.visit)(format, text, line, place);
            if let Err(reason) = check_format(format, text) {
                self.fault(line, place, reason);
            }
        }
        for (bound, outside) in [
            ("minimum", (|n, limit| n < limit) as fn(f64, f64) -> bool),
            ("maximum", |n, limit| n > limit),
        ] {
            if let (Some(n), Some(limit)) =
                (value.as_f64(), schema.get(bound).and_then(Value::as_f64))
                && outside(n, limit)
            {
                self.fault(line, place, format!("{n} is beyond the {bound}, {limit}"));
            }
        }
    }

    /// Walks the alternative that the value means, so that its own faults are told and not only that none
    /// fits.
    fn one_of(&mut self, tree: &Tree, alternatives: &'a [Value], place: &str) {
        if let Some(meant) = alternatives.iter().find(|schema| self.is_meant(tree, schema)) {
            return self.value(tree, meant, place);
        }
        let wanted: Vec<_> = alternatives.iter().map(|schema| self.describe(schema)).collect();
        let got = tree.text().map_or_else(|| tree.what().to_owned(), |text| format!("{text:?}"));
        self.fault(tree.line, place, format!("{got} is none of: {}", wanted.join(", ")));
    }

    /// Whether the value is an attempt at this alternative: a known word, the only key, the right kind.
    fn is_meant(&self, tree: &Tree, schema: &'a Value) -> bool {
        let schema = self.resolve(schema);
        if let Some(alternatives) = alternatives(schema) {
            return alternatives.iter().any(|schema| self.is_meant(tree, schema));
        }
        if let (Node::Scalar(value), Some(allowed)) = (&tree.node, allowed(schema)) {
            return allowed.contains(&value);
        }
        match variant(schema) {
            Some(key) => tree.get(key).is_some(),
            None => fits_kind(tree, schema),
        }
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|path| self.root.pointer(path.trim_start_matches('#')))
            .unwrap_or(schema)
    }

    fn describe(&self, schema: &'a Value) -> String {
        let schema = self.resolve(schema);
        if let Some(allowed) = allowed(schema) {
            let words: Vec<_> = allowed.into_iter().filter_map(Value::as_str).collect();
            return words.join(", ");
        }
        if let Some(alternatives) = alternatives(schema) {
            let all: Vec<_> = alternatives.iter().map(|schema| self.describe(schema)).collect();
            return all.join(", ");
        }
        match (variant(schema), kinds(schema).first()) {
            (Some(key), _) => format!("{key}: …"),
            (None, Some(&"array")) => "a list".to_owned(),
            (None, Some(&"object")) => "a mapping".to_owned(),
            (None, Some(&"string")) => "a text".to_owned(),
            (None, Some(&"boolean")) => "true or false".to_owned(),
            (None, Some(&"integer")) => "a whole number".to_owned(),
            (None, Some(&"null")) => "nothing".to_owned(),
            (None, _) => "any value".to_owned(),
        }
    }

    fn fault(&mut self, line: u64, place: &str, reason: String) {
        self.faults.push(Fault { line, place: place.to_owned(), reason });
    }
}

fn alternatives(schema: &Value) -> Option<&[Value]> {
    ["oneOf", "anyOf"].iter().find_map(|key| schema.get(key)?.as_array()).map(Vec::as_slice)
}

/// The values that are allowed, when they are counted out.
fn allowed(schema: &Value) -> Option<Vec<&Value>> {
    match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
        (Some(one), _) => Some(vec![one]),
        (None, Some(several)) => Some(several.iter().collect()),
        (None, None) => None,
    }
}

/// The key that names a variant: an object that requires one property and has no other.
fn variant(schema: &Value) -> Option<&str> {
    let required = schema.get("required")?.as_array()?;
    let only = schema.get("properties")?.as_object()?.len() == 1;
    match required.as_slice() {
        [key] if only => key.as_str(),
        _ => None,
    }
}

fn kinds(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn fits_kind(tree: &Tree, schema: &Value) -> bool {
    let kinds = kinds(schema);
    let fits = |kind: &&str| match &tree.node {
        Node::List(_) => *kind == "array",
        Node::Map(_) => *kind == "object",
        Node::Scalar(Value::Null) => *kind == "null",
        Node::Scalar(Value::Bool(_)) => *kind == "boolean",
        Node::Scalar(Value::Number(n)) => match *kind {
            "integer" => n.is_i64() || n.is_u64(),
            kind => kind == "number",
        },
        Node::Scalar(_) => *kind == "string",
    };
    kinds.is_empty() || kinds.iter().any(fits)
}

fn unknown_key<'k>(key: &str, known: impl Iterator<Item = &'k str>) -> String {
    let known: Vec<_> = known.collect();
    format!("there is no key `{key}` here; known are: {}", known.join(", "))
}

fn join(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
}
