//! A JSON object whose keys match without regard to case, as Go's do.

use std::collections::BTreeMap;

use serde_json::Value;

/// An object's values by lower-cased key. A key with the value `null` is as if absent, as in Go.
#[derive(Debug)]
pub(super) struct Folded(BTreeMap<String, Value>);

impl Folded {
    /// Returns `None` when the value is no object.
    pub(super) fn new(value: Value) -> Option<Self> {
        let Value::Object(map) = value else { return None };
        let present = map.into_iter().filter(|(_, value)| !value.is_null());
        Some(Self(present.map(|(key, value)| (key.to_lowercase(), value)).collect()))
    }

    /// An object that has nothing.
    pub(super) fn empty() -> Self {
        Self(BTreeMap::new())
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(&key.to_lowercase())
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(&key.to_lowercase())
    }
}

/// Says what a value is, for a message; its text is cut, because it comes from outside.
pub(super) fn said(value: &Value) -> String {
    const MOST: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= MOST {
        return text;
    }
    let head: String = text.chars().take(MOST).collect();
    format!("{head}…")
}
