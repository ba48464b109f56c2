//! An object as it is stored: its checked value, and all that it was made of.

use russet_net::Selector;
use serde_json::{Map, Value};

use super::{
    at::{At, Notes},
    document::{Document, Order},
    fault::ObjectFault,
    kind::{Group, Kind},
    meta::Meta,
};

/// How an object lies in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// With kind, metadata and spec.
    Resource,
    /// The value alone, as etcd holds what IPAM writes.
    Bare,
}

/// A kind that is converted by hand.
pub trait Form: Sized {
    const KIND: Kind;
    /// The names of its fields in the order in which Go writes them, of nested ones too.
    const ORDER: &'static [&'static str];

    /// The names of its fields, at any depth.
    const FIELDS: Fields = Fields::All(Self::ORDER);

    /// Reads the value. Faults are noted; `None` is for what cannot be said without a field that is missing.
    fn read(root: &At<'_>, layout: Layout) -> Option<Self>;
}

/// What is known of a kind's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// Every field that Calico has.
    All(&'static [&'static str]),
    /// Those that concern a network; there are others.
    Some(&'static [&'static str]),
}

/// A kind that we write.
pub trait Written: Form {
    /// Patches what is ours into what was there.
    fn patch(&self, object: &mut Patch<'_>);
}

/// What a [`Written`] value is patched into.
#[derive(Debug)]
pub struct Patch<'a> {
    pub(super) document: &'a mut Document,
    pub(super) layout: Layout,
}

/// A checked value beside the object that it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<T> {
    value: T,
    /// `None` in [`Layout::Bare`], where the key says it.
    meta: Option<Meta>,
    document: Document,
    /// Fields of `spec` that are kept and have no effect here.
    unused: Vec<String>,
    layout: Layout,
}

/// What a slip in a field that has no effect means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Idle {
    Met,
    Forgiven,
}

/// An object is at most this large (etcd's own limit on a request).
const MOST_OCTETS: usize = 1_572_864;

impl<T: Form> Stored<T> {
    /// Reads an object as it lies in a store. A slip in a field that has no effect here is somebody else's, and does not
    /// keep what has one from being heeded.
    ///
    /// # Errors
    ///
    /// Every fault of it at once.
    pub fn read(bytes: &[u8], layout: Layout) -> Result<Self, ObjectFault> {
        let name = T::KIND.name();
        if bytes.len() > MOST_OCTETS {
            let reason = format!("{} octets are more than {MOST_OCTETS}", bytes.len());
            return Err(ObjectFault::whole(name, reason));
        }
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|err| ObjectFault::whole(name, err.to_string()))?;
        if !value.is_object() {
            return Err(ObjectFault::whole(name, "it is no JSON object"));
        }
        Self::checked(value, layout, Idle::Forgiven)
    }

    /// Reads an object that somebody is about to write: every slip is met.
    pub(super) fn of(value: Value, layout: Layout) -> Result<Self, ObjectFault> {
        Self::checked(value, layout, Idle::Met)
    }

    fn checked(value: Value, layout: Layout, idle: Idle) -> Result<Self, ObjectFault> {
        let notes = Notes::default();
        let root = At::root(&value, &notes);
        let meta = match layout {
            Layout::Resource => Meta::read(&root, T::KIND),
            Layout::Bare => None,
        };
        let read = T::read(&root, layout);
        if idle == Idle::Forgiven {
            notes.forgive_idle();
        }
        let (Some(read), true) = (read, notes.is_empty()) else {
            return Err(ObjectFault { kind: T::KIND.name(), faults: notes.into_faults() });
        };
        let unused = unused(&value, &notes);
        Ok(Self { value: read, meta, unused, layout, document: Document::new(value) })
    }

    pub const fn value(&self) -> &T {
        &self.value
    }

    /// The value alone; what else the object had is dropped.
    pub fn into_value(self) -> T {
        self.value
    }

    pub const fn meta(&self) -> Option<&Meta> {
        self.meta.as_ref()
    }

    /// Fields of `spec` that are kept and have no effect here, by name.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// The whole object, as it would be written.
    pub(super) const fn whole(&self) -> &Value {
        self.document.value()
    }

    /// Changes what is beside the value, such as a status.
    pub(super) fn patch_whole(&mut self, patch: impl FnOnce(&mut Document)) {
        patch(&mut self.document);
    }

    /// What Kubernetes compares writes with.
    pub fn resource_version(&self) -> Option<&str> {
        self.document.get(&["metadata", "resourceVersion"])?.as_str()
    }

    /// The object's bytes as Calico writes them.
    pub fn text(&self) -> String {
        match self.layout {
            Layout::Resource => self.document.text(Order::Object(T::ORDER)),
            Layout::Bare => self.document.text(Order::Fields(T::ORDER)),
        }
    }
}

/// Where a kind's own fields lie.
pub(super) fn spec<'a>(root: &At<'a>, layout: Layout) -> At<'a> {
    match layout {
        Layout::Resource => root.at("spec"),
        Layout::Bare => root.clone(),
    }
}

impl Patch<'_> {
    /// Sets a field of the kind's own.
    pub(super) fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        let path = self.path(path);
        self.document.set(&path, value);
    }

    /// Sets a field that Go leaves out when it says nothing.
    pub(super) fn set_or_remove<V: Into<Value>>(&mut self, path: &[&str], value: Option<V>) {
        let path = self.path(path);
        self.document.set_or_remove(&path, value);
    }

    /// Sets what is shown as a text.
    pub(super) fn show(&mut self, path: &[&str], value: Option<impl ToString>) {
        self.set_or_remove(path, value.map(|value| value.to_string()));
    }

    /// Sets a flag that Go leaves out when it is off.
    pub(super) fn flag(&mut self, path: &[&str], on: bool) {
        self.set_or_remove(path, on.then_some(true));
    }

    /// Leaves a selector as it is written where it means the same; one that chooses all needs no words.
    pub(super) fn selector(&mut self, path: &[&str], selector: &Selector) {
        let there = self.get(path).and_then(Value::as_str).unwrap_or_default();
        if there.parse().as_ref() != Ok(selector) {
            self.set(path, selector.to_string());
        }
    }

    /// Replaces a list where it says something else. What does not change keeps what is unknown in it: the list, and of a
    /// list that changes each item.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        path: &[&str],
        items: &[T],
        read: impl Fn(&At<'_>) -> Option<T>,
        write: impl Fn(&T) -> Value,
    ) {
        let notes = Notes::default();
        let list = self.get(path).cloned().unwrap_or_default();
        let of_list = At::root(&list, &notes);
        let there: Vec<(T, &Value)> =
            of_list.items().iter().filter_map(|item| Some((read(item)?, item.value()?))).collect();
        if !there.iter().map(|(item, _)| item).eq(items) {
            let kept = |item: &T| there.iter().find(|(other, _)| other == item);
            let list: Vec<Value> = items
                .iter()
                .map(|item| kept(item).map_or_else(|| write(item), |(_, value)| (*value).clone()))
                .collect();
            self.set_or_remove(path, (!list.is_empty()).then_some(list));
        }
    }

    pub(super) fn get(&self, path: &[&str]) -> Option<&Value> {
        self.document.get(&self.path(path))
    }

    fn path<'p>(&self, path: &[&'p str]) -> Vec<&'p str> {
        let spec = match self.layout {
            Layout::Resource => Some("spec"),
            Layout::Bare => None,
        };
        spec.into_iter().chain(path.iter().copied()).collect()
    }
}

impl<T: Written> Stored<T> {
    /// An object of the API that was not there.
    pub fn new(meta: Meta, value: T, group: Group) -> Self {
        let mut document = Document::default();
        meta.write(&mut document, T::KIND, group);
        Self::made(value, Some(meta), document, Layout::Resource)
    }

    /// A value of etcd that was not there.
    pub fn bare(value: T) -> Self {
        let document = Document::new(Value::Object(Map::new()));
        Self::made(value, None, document, Layout::Bare)
    }

    fn made(value: T, meta: Option<Meta>, document: Document, layout: Layout) -> Self {
        let mut stored = Self { value, meta, document, unused: Vec::new(), layout };
        stored.patch();
        stored
    }

    /// Changes the value, and nothing of the object that is not the value's.
    pub fn set(&mut self, value: T) {
        self.value = value;
        self.patch();
    }

    fn patch(&mut self) {
        let layout = self.layout;
        self.value.patch(&mut Patch { document: &mut self.document, layout });
    }

    /// Sets what is the object's and not the value's.
    pub(super) fn patch_with(&mut self, patch: impl FnOnce(&mut Patch<'_>)) {
        let layout = self.layout;
        patch(&mut Patch { document: &mut self.document, layout });
    }
}

fn unused(value: &Value, notes: &Notes) -> Vec<String> {
    let spec = value.get("spec").and_then(Value::as_object);
    let names = spec.into_iter().flat_map(Map::keys);
    names.filter(|name| !notes.asked(name)).cloned().collect()
}
