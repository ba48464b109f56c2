//! Resources out of documents: what a folder holds, or a store.
//!
//! An object that cannot be read keeps what it said when it last could; only one that is not there any more is gone.

use std::collections::BTreeMap;

use russet_api::calico::{Form, Kind, Layout, ObjectFault, Stored};
use russet_core::model::calico::Name;
use serde_json::Value;

use super::{Grade, Report, Resources};

/// Reads documents one after the other into [`Resources`].
#[derive(Debug)]
pub struct Documents<'a> {
    resources: Resources,
    last: Option<&'a Resources>,
}

impl<'a> Documents<'a> {
    /// `last` is what is in force.
    pub const fn new(node: Name, last: Option<&'a Resources>) -> Self {
        Self { resources: Resources::of(node), last }
    }

    /// Reads one; lists hold several. Kinds that are not the speaker's are passed over.
    ///
    /// # Errors
    ///
    /// When nobody can say which object it is. One that is known by its name is reported there.
    pub fn read(&mut self, document: &Value) -> Result<(), ObjectFault> {
        if let Some(items) = document.get("items").and_then(Value::as_array) {
            return items.iter().try_for_each(|item| self.read(item));
        }
        let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (into, last) = (&mut self.resources, self.last);
        let reports = &mut into.reports;
        match kind.as_str() {
            "Node" => take(document, &mut into.nodes, last.map(|last| &last.nodes), reports),
            "BGPConfiguration" => {
                let last = last.map(|last| &last.configurations);
                take(document, &mut into.configurations, last, reports)
            }
            "BGPPeer" => take(document, &mut into.peers, last.map(|last| &last.peers), reports),
            "BGPFilter" => {
                take(document, &mut into.filters, last.map(|last| &last.filters), reports)
            }
            "IPPool" => take(document, &mut into.pools, last.map(|last| &last.pools), reports),
            _ => Ok(()),
        }
    }

    pub fn done(self) -> Resources {
        self.resources
    }
}

fn take<T: Form + Clone>(
    document: &Value,
    into: &mut BTreeMap<Name, T>,
    last: Option<&BTreeMap<Name, T>>,
    reports: &mut Vec<Report>,
) -> Result<(), ObjectFault> {
    let name = document.get("metadata").and_then(|meta| meta.get("name")).and_then(Value::as_str);
    let name = name.and_then(|name| name.parse::<Name>().ok());
    let read = Stored::<T>::read(document.to_string().as_bytes(), Layout::Resource);
    let (name, object) = match (name, read) {
        (Some(name), Ok(object)) => (name, object),
        (Some(name), Err(fault)) => {
            into.extend(last.and_then(|last| Some((name.clone(), last.get(&name)?.clone()))));
            reports.extend(fault.faults.iter().map(|fault| Report {
                kind: T::KIND,
                name: name.clone(),
                grade: Grade::Fault,
                reason: fault.to_string(),
            }));
            return Ok(());
        }
        // Without a name it was not read well.
        (None, Err(fault)) => return Err(fault),
        (None, Ok(_)) => return Ok(()),
    };
    if matches!(T::KIND, Kind::BgpConfiguration | Kind::BgpPeer | Kind::BgpFilter) {
        reports.extend(object.unused().iter().map(|field| Report {
            kind: T::KIND,
            name: name.clone(),
            grade: Grade::NoEffect,
            reason: format!("spec.{field}"),
        }));
    }
    into.insert(name, object.value().clone());
    Ok(())
}
