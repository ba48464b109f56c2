//! An object's envelope: kind, group and metadata.

use russet_core::model::calico::Name;
use russet_net::Labels;

use super::{
    at::At,
    document::Document,
    kind::{Group, Kind},
};

/// What every object of the API has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub name: Name,
    pub namespace: Option<Name>,
    pub uid: Option<String>,
    /// RFC 3339, in UTC.
    pub created: Option<String>,
}

impl Meta {
    pub const fn named(name: Name) -> Self {
        Self { name, namespace: None, uid: None, created: None }
    }

    /// Checks the envelope of an object that should be of this kind.
    pub(super) fn read(root: &At<'_>, kind: Kind) -> Option<Self> {
        let called = root.at("kind");
        if called.required().text().is_some_and(|name| !kind.is_called(name)) {
            called.wanted(kind.name());
        }
        let versions = Group::BOTH.map(|group| (group.api_version(), group));
        root.at("apiVersion").required().one_of(&versions);
        let meta = root.at("metadata");
        let namespace = meta.at("namespace");
        if kind.is_namespaced() {
            namespace.required();
        }
        Some(Self {
            namespace: namespace.parsed(),
            uid: meta.at("uid").owned(),
            created: meta.at("creationTimestamp").owned(),
            name: meta.at("name").required().parsed()?,
        })
    }

    pub(super) fn write(&self, document: &mut Document, kind: Kind, group: Group) {
        document.set(&["kind"], kind.name_in(group));
        document.set(&["apiVersion"], group.api_version());
        document.set(&["metadata", "name"], self.name.as_str());
        let namespace = self.namespace.as_ref().map(Name::as_str);
        document.set_or_remove(&["metadata", "namespace"], namespace);
        document.set_or_remove(&["metadata", "uid"], self.uid.as_deref());
        // Go has no way to leave a time out.
        document.set(&["metadata", "creationTimestamp"], self.created.as_deref());
    }
}

pub(super) fn labels(root: &At<'_>) -> Labels {
    let entries = root.at("metadata").at("labels").entries();
    entries
        .into_iter()
        // An empty value is one.
        .filter_map(|(name, value)| Some((name, value.value()?.as_str().or_else(|| note(&value))?)))
        .collect()
}

fn note<'a>(value: &At<'_>) -> Option<&'a str> {
    value.wanted("a text");
    None
}

pub(super) fn write_labels(document: &mut Document, labels: &Labels) {
    let object: serde_json::Map<_, _> =
        labels.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    document.set_or_remove(&["metadata", "labels"], (!object.is_empty()).then_some(object));
}
