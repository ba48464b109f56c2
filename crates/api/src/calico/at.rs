//! A place in a JSON document: reads what is there, and notes what should not be.
//!
//! A reader never stops at a fault: it notes it with its path and says `None`, and so does what is absent.
//! Whoever converts an object asks for all its fields and looks at the faults once, at the end.

use std::{cell::RefCell, collections::BTreeSet, fmt, str::FromStr, time::Duration};

use russet_net::{Asn, OutOfRange, Prefix};
use serde_json::Value;

use super::{duration::GoDuration, fault::FieldFault};

/// What came up while a document was read.
#[derive(Debug, Default)]
pub(super) struct Notes {
    faults: RefCell<Vec<FieldFault>>,
    /// The fields of `spec` that somebody asked for.
    asked: RefCell<BTreeSet<&'static str>>,
}

impl Notes {
    /// More are not told: a hostile object may have thousands.
    const MOST: usize = 32;

    fn add(&self, path: &str, reason: String) {
        let mut faults = self.faults.borrow_mut();
        if faults.len() < Self::MOST {
            faults.push(FieldFault { path: path.to_owned(), reason });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.faults.borrow().is_empty()
    }

    /// Forgets the faults of fields of `spec` that nobody heeds.
    pub(super) fn forgive_idle(&self) {
        let is_heeded = |fault: &FieldFault| match fault.path.strip_prefix("spec.") {
            Some(path) => self.asked(path.split(['.', '[']).next().unwrap_or(path)),
            None => true,
        };
        self.faults.borrow_mut().retain(is_heeded);
    }

    pub(super) fn asked(&self, field: &str) -> bool {
        self.asked.borrow().contains(field)
    }

    pub(super) fn into_faults(self) -> Vec<FieldFault> {
        self.faults.into_inner()
    }
}

/// A place, and the value there if there is one. `null` is as if absent, as in Go.
#[derive(Clone, Debug)]
pub struct At<'a> {
    value: Option<&'a Value>,
    path: String,
    notes: &'a Notes,
}

impl<'a> At<'a> {
    pub(super) fn root(value: &'a Value, notes: &'a Notes) -> Self {
        Self { value: Some(value).filter(|value| !value.is_null()), path: String::new(), notes }
    }

    /// The field of an object. What is no object at all is noted where a field is first asked for.
    pub(super) fn at(&self, key: &'static str) -> Self {
        if self.path == "spec" {
            self.notes.asked.borrow_mut().insert(key);
        }
        self.idle(key)
    }

    /// The same of a field that is only checked: it has no effect, and that is told.
    pub(super) fn idle(&self, key: &'static str) -> Self {
        let path =
            if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        self.below(self.object().and_then(|object| object.get(key)), path)
    }

    fn below(&self, value: Option<&'a Value>, path: String) -> Self {
        Self { value: value.filter(|value| !value.is_null()), path, notes: self.notes }
    }

    fn object(&self) -> Option<&'a serde_json::Map<String, Value>> {
        match self.value {
            Some(Value::Object(object)) => Some(object),
            Some(_) => {
                // Every field would note it again.
                let known = self.notes.faults.borrow().iter().any(|f| f.path == self.path);
                if !known {
                    self.wanted("an object");
                }
                None
            }
            None => None,
        }
    }

    /// The elements of a list, as places.
    pub(super) fn items(&self) -> Vec<Self> {
        (0..self.list().len()).map(|i| self.item(i)).collect()
    }

    /// One element as a place; its path is only made where it is asked for.
    pub(super) fn item(&self, i: usize) -> Self {
        self.below(self.value.and_then(|list| list.get(i)), format!("{}[{i}]", self.path))
    }

    /// The elements of a list, bare.
    pub(super) fn list(&self) -> &'a [Value] {
        match self.value {
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.wanted("a list");
                &[]
            }
            None => &[],
        }
    }

    /// The fields of an object whose names are data.
    pub(super) fn entries(&self) -> Vec<(&'a str, Self)> {
        let Some(object) = self.object() else { return Vec::new() };
        let entry = |(key, value): (&'a String, _)| {
            (key.as_str(), self.below(Some(value), format!("{}[{:?}]", self.path, cut(key))))
        };
        object.iter().map(entry).collect()
    }

    pub(super) fn is_there(&self) -> bool {
        self.value.is_some()
    }

    /// An empty text is Go's way to say nothing.
    pub(super) fn text(&self) -> Option<&'a str> {
        self.read("a text", Value::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn owned(&self) -> Option<String> {
        self.text().map(str::to_owned)
    }

    pub(super) fn flag(&self) -> Option<bool> {
        self.read("true or false", Value::as_bool)
    }

    pub(super) fn number(&self) -> Option<u64> {
        self.read("a whole number from 0 on", Value::as_u64)
    }

    /// A text that must be something.
    pub(super) fn parsed<T>(&self) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let text = self.text()?;
        text.parse().map_err(|err: T::Err| self.refuse(err.to_string())).ok()
    }

    /// A number that must be something.
    pub(super) fn ranged<T>(&self) -> Option<T>
    where
        T: TryFrom<u32, Error = OutOfRange>,
    {
        let number = self.number()?;
        // What does not fit is out of every range that ends below, and the range says which.
        let raw = u32::try_from(number).unwrap_or(u32::MAX);
        let read = T::try_from(raw).map_err(|err| self.refuse(err.of(number).to_string())).ok();
        if u64::from(raw) != number && read.is_some() {
            self.wanted("a number of 32 bits");
            return None;
        }
        read
    }

    /// As [`At::ranged`], where zero is as if absent.
    pub(super) fn above_zero<T>(&self) -> Option<T>
    where
        T: TryFrom<u32, Error = OutOfRange>,
    {
        if self.number()? == 0 { None } else { self.ranged() }
    }

    /// An AS number: a number, or a text such as `1.10`.
    pub(super) fn asn(&self) -> Option<Asn> {
        match self.value? {
            Value::String(_) => self.parsed(),
            Value::Number(number) => {
                let number = number.as_u64().and_then(|number| u32::try_from(number).ok());
                if number.is_none() {
                    self.wanted("an AS number of 32 bits");
                }
                number.map(Asn::new)
            }
            _ => {
                self.wanted("an AS number");
                None
            }
        }
    }

    /// A span of time.
    pub(super) fn span(&self) -> Option<Duration> {
        self.parsed::<GoDuration>().map(|span| span.0)
    }

    /// A prefix in canonical form, or an address alone.
    pub(super) fn prefix_or_address(&self) -> Option<Prefix> {
        let text = self.text()?;
        match text.parse() {
            Ok(addr) => Some(Prefix::host(addr)),
            Err(_) => self.parsed(),
        }
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.wanted(&format!("one of {}", words.join(", ")));
        }
        found
    }

    /// What must be there.
    pub(super) fn required(&self) -> &Self {
        if !self.is_there() || self.value.and_then(Value::as_str) == Some("") {
            self.refuse("it is missing");
        }
        self
    }

    pub(super) fn value(&self) -> Option<&'a Value> {
        self.value
    }

    /// Notes that what is here is not what it should be.
    pub(super) fn wanted(&self, what: &str) {
        let found =
            self.value.map_or_else(|| "nothing".to_owned(), |value| cut(&value.to_string()));
        self.refuse(format!("{found} is not {what}"));
    }

    pub(super) fn refuse(&self, reason: impl Into<String>) {
        self.notes.add(&self.path, reason.into());
    }

    fn read<T>(&self, wanted: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        let read = read(self.value?);
        if read.is_none() {
            self.wanted(wanted);
        }
        read
    }
}

/// What comes from outside is shown up to here.
pub(crate) fn cut(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
    }
}
