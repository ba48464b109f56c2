//! What is wrong with a configuration: every fault with its line and its place.

use std::{fmt::Display, str::FromStr};

use serde::de::{DeserializeOwned, IntoDeserializer};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::config::ConfigFaults;

/// A file's text, its tables, and what is wrong with them so far.
///
/// A place is a path in the file: `peer[0].hold-time`.
#[derive(Debug)]
pub(super) struct Faults<'a> {
    text: &'a str,
    document: Spanned<DeTable<'a>>,
    told: Vec<String>,
}

impl<'a> Faults<'a> {
    /// Reads the text. What is no TOML is told, and the rest is read on.
    pub fn of(text: &'a str) -> Self {
        let (document, errors) = DeTable::parse_recoverable(text);
        let mut faults = Self { text, document, told: Vec::new() };
        for error in &errors {
            faults.form(0, "", error);
        }
        faults
    }

    /// The tables of a list, each with its place. One of the wrong form is told and left out.
    pub fn list<T: DeserializeOwned>(&mut self, key: &str) -> Vec<(String, T)> {
        let elements = match self.document.get_ref().get(key).map(Spanned::get_ref) {
            None => return Vec::new(),
            Some(DeValue::Array(elements)) => elements.clone(),
            Some(_) => {
                self.tell(key, "a list of tables is wanted");
                return Vec::new();
            }
        };
        let mut read = Vec::new();
        for (n, element) in elements.into_iter().enumerate() {
            let (place, at) = (format!("{key}[{n}]"), element.span().start);
            match T::deserialize(element.into_deserializer()) {
                Ok(element) => read.push((place, element)),
                Err(error) => self.form(at, &place, &error),
            }
        }
        read
    }

    /// What stands at the top, these lists apart.
    pub fn top<T: DeserializeOwned>(&mut self, lists: &[&str]) -> Option<T> {
        let mut top = self.document.clone();
        for list in lists {
            top.get_mut().remove(*list);
        }
        T::deserialize(top.into_deserializer()).map_err(|error| self.form(0, "", &error)).ok()
    }

    pub fn tell(&mut self, place: &str, what: &str) {
        let line = self.line_of(self.position(place));
        self.told.push(format!("line {line}: {place}: {what}"));
    }

    pub fn check(&mut self, place: &str, holds: bool, otherwise: &str) {
        if !holds {
            self.tell(place, otherwise);
        }
    }

    pub fn take<T, E: Display>(&mut self, place: &str, read: Result<T, E>) -> Option<T> {
        read.map_err(|err| self.tell(place, &err.to_string())).ok()
    }

    pub fn parse<T: FromStr<Err: Display>>(&mut self, place: &str, text: &str) -> Option<T> {
        let read = text.parse().map_err(|err: T::Err| format!("{text:?}: {err}"));
        self.take(place, read)
    }

    /// The value, when nothing is wrong.
    pub fn end<T>(self, value: Option<T>) -> Result<T, ConfigFaults> {
        value.filter(|_| self.told.is_empty()).ok_or(ConfigFaults(self.told))
    }

    /// A fault of form, which the parser mostly knows the position of; else it is `at`.
    fn form(&mut self, at: usize, place: &str, error: &toml::de::Error) {
        let line = self.line_of(error.span().map_or(at, |span| span.start));
        let colon = if place.is_empty() { "" } else { ": " };
        let what = error.message().lines().collect::<Vec<_>>().join(", ");
        self.told.push(format!("line {line}: {place}{colon}{what}"));
    }

    /// Where a place begins, or what it lies in when it is not there itself.
    fn position(&self, place: &str) -> usize {
        let mut names = place.split(['.', '[', ']']).filter(|name| !name.is_empty());
        let first = names.next().and_then(|name| self.document.get_ref().get(name));
        let Some(mut value) = first else { return 0 };
        while let Some(within) = names.next().and_then(|name| within(value.get_ref(), name)) {
            value = within;
        }
        value.span().start
    }

    /// Counted from 1.
    fn line_of(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|octet| *octet == b'\n').count() + 1
    }
}

/// The element of a list by its number, or the value of a table by its key.
fn within<'v, 'a>(value: &'v DeValue<'a>, name: &str) -> Option<&'v Spanned<DeValue<'a>>> {
    match value {
        DeValue::Array(array) => array.get(name.parse::<usize>().ok()?),
        DeValue::Table(table) => table.get(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Row {
        #[allow(dead_code, reason = "its form is what is looked at")]
        n: u8,
    }

    #[test]
    fn faults_of_form_and_of_meaning_are_told_together_each_with_its_line() {
        let text = "[[row]]\nn = 'x'\n\n[[row]]\nn = 1\n\n[[row]]\nm = 2\n";
        let mut faults = Faults::of(text);
        let rows: Vec<(String, Row)> = faults.list("row");
        assert_eq!(rows.len(), 1);
        faults.tell(&format!("{}.n", rows[0].0), "it is odd");
        faults.tell("row[1].k", "it is not there");
        let told = faults.end(Some(())).unwrap_err().0;
        assert!(told[0].starts_with("line 2: row[0]: invalid type"), "{told:?}");
        assert!(told[1].starts_with("line 8: row[2]: unknown field `m`"), "{told:?}");
        assert_eq!(told[2], "line 5: row[1].n: it is odd");
        assert_eq!(told[3], "line 4: row[1].k: it is not there");
    }

    #[test]
    fn what_is_no_toml_is_told_once_for_each_place() {
        let told = Faults::of("a = \nb = 1\nc = ]\n").end(Some(())).unwrap_err().0;
        assert!(told.iter().any(|fault| fault.starts_with("line 1: ")), "{told:?}");
        assert!(told.iter().any(|fault| fault.starts_with("line 3: ")), "{told:?}");
    }
}
