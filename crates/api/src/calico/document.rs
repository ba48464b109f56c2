//! What an object was made of, whole, and the order in which Calico writes it.
//!
//! Go writes a structure's fields in the order of their declaration and a map's in that of their names,
//! without blanks, and escapes what could end a script in a web page. So do we: known fields in their order,
//! the others behind them by name. A number of more than 64 bits is kept as a fraction, as Go keeps one that
//! it does not know.

use std::io;

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value, ser::Formatter};

/// A JSON object that is patched in place.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Document(Value);

impl Document {
    pub(super) fn new(value: Value) -> Self {
        Self(value)
    }

    pub(super) const fn value(&self) -> &Value {
        &self.0
    }

    pub(super) fn get(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(&self.0, |value, key| value.get(key))
    }

    /// Sets a field, and makes the objects on the way to it.
    pub(super) fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        let Some((last, way)) = path.split_last() else { return };
        let mut here = &mut self.0;
        for key in way {
            here = map(here).entry((*key).to_owned()).or_insert(Value::Null);
        }
        map(here).insert((*last).to_owned(), value.into());
    }

    /// Sets a field that Go leaves out when it says nothing.
    pub(super) fn set_or_remove<V: Into<Value>>(&mut self, path: &[&str], value: Option<V>) {
        match value {
            Some(value) => self.set(path, value),
            None => self.remove(path),
        }
    }

    fn remove(&mut self, path: &[&str]) {
        let Some((last, way)) = path.split_last() else { return };
        let here = way.iter().try_fold(&mut self.0, |value, key| value.get_mut(key));
        if let Some(Value::Object(object)) = here {
            object.remove(*last);
        }
    }

    /// The bytes, with the fields in this order.
    pub(super) fn text(&self, order: Order<'_>) -> String {
        let mut bytes = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, GoFormatter);
        let written = Ordered { value: &self.0, order }.serialize(&mut serializer);
        // Keys are texts and nothing is written but into memory.
        written.ok().and_then(|()| String::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

/// The object here; what is none becomes an empty one.
fn map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("made an object right above"),
    }
}

/// The order of an object's fields.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order<'a> {
    /// An object of the API, with the order of the kind's own fields, of nested ones too.
    Object(&'a [&'a str]),
    /// As listed, what is not listed last.
    Fields(&'a [&'a str]),
    /// A map, whose names are data.
    ByName,
}

impl Order<'_> {
    fn place(self, key: &str) -> usize {
        let list = match self {
            Self::Object(_) => ENVELOPE,
            Self::Fields(list) => list,
            Self::ByName => &[],
        };
        list.iter().position(|name| *name == key).unwrap_or(usize::MAX)
    }

    /// That of what lies below a field.
    fn below(self, key: &str) -> Self {
        match self {
            _ if MAPS.contains(&key) => Self::ByName,
            Self::Object(_) if key == "metadata" => Self::Fields(METADATA),
            Self::Object(own) => Self::Fields(own),
            other => other,
        }
    }
}

/// Go's `TypeMeta`, and what every object has.
pub(super) const ENVELOPE: &[&str] = &["kind", "apiVersion", "metadata", "spec", "status"];

/// Go's `ObjectMeta`.
pub(super) const METADATA: &[&str] = &[
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

struct Ordered<'a> {
    value: &'a Value,
    order: Order<'a>,
}

/// Maps among Calico's structures.
pub(super) const MAPS: &[&str] = &[
    "labels",
    "annotations",
    "secondary",
    "alternate",
    "alternateOwnerAttrs",
    "block",
    "sequenceNumberForAllocation",
];

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Array(items) => {
                serializer.collect_seq(items.iter().map(|value| Ordered { value, ..*self }))
            }
            Value::Object(object) => {
                let mut fields: Vec<_> = object.iter().collect();
                // Stable: what is not in the order keeps that of the names.
                fields.sort_by_key(|(key, _)| self.order.place(key));
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (key, value) in fields {
                    map.serialize_entry(key, &Ordered { value, order: self.order.below(key) })?;
                }
                map.end()
            }
            plain => plain.serialize(serializer),
        }
    }
}

/// Go's `encoding/json`: no blanks, and five characters more are escaped.
struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let special = ['<', '>', '&', '\u{2028}', '\u{2029}'];
        let mut rest = fragment;
        while let Some(at) = rest.find(special) {
            let (plain, tail) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = tail.chars();
            if let Some(c) = chars.next() {
                write!(writer, "\\u{:04x}", u32::from(c))?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_written_in_go_s_order_and_unknown_ones_behind_them() {
        let document = Document::new(json!({
            "zeta": 1, "alpha": {"b": 1, "a": 2}, "spec": {"x": 1, "cidr": "c"}, "kind": "K",
            "status": {"conditions": [{"status": "True", "type": "T"}]},
            "metadata": {"labels": {"kind": "1", "cidr": "2", "a": "<&>"}, "name": "n"},
        }));
        assert_eq!(
            document.text(Order::Object(&["cidr", "type", "status"])),
            r#"{"kind":"K","metadata":{"name":"n","labels":{"a":"\u003c\u0026\u003e","cidr":"2","kind":"1"}},"#
                .to_owned()
                + r#""spec":{"cidr":"c","x":1},"status":{"conditions":[{"type":"T","status":"True"}]},"#
                + r#""alpha":{"a":2,"b":1},"zeta":1}"#
        );
    }

    #[test]
    fn a_patch_touches_its_field_only() {
        let mut document = Document::new(json!({"spec": {"a": 1, "b": 2}}));
        document.set(&["spec", "a"], 3);
        document.set(&["status", "c"], "new");
        document.set_or_remove(&["spec", "b"], None::<u32>);
        document.set_or_remove(&["gone", "b"], None::<u32>);
        assert_eq!(document.value(), &json!({"spec": {"a": 3}, "status": {"c": "new"}}));
    }
}
