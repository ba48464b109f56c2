//! The first pass: whether a name that a file uses is one that it gives.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::topology::{Fault, ROUTER, form, schema, tree::Tree};

/// The names that a file gives, so that those that it uses can be looked up.
pub(super) struct Names<'a> {
    nodes: BTreeSet<&'a str>,
    pods: BTreeSet<&'a str>,
    subnets: BTreeSet<&'a str>,
    faults: Vec<Fault>,
}

impl<'a> Names<'a> {
    pub(super) fn of(tree: &'a Tree) -> Self {
        let subnets = tree.get("underlay").and_then(|underlay| underlay.get("subnets"));
        let mut faults = Vec::new();
        let mut taken = BTreeMap::from([(ROUTER, "the router")]);
        let nodes = named("nodes", tree.get("nodes"), &mut taken, &mut faults);
        let pods = named("pods", tree.get("pods"), &mut taken, &mut faults);
        let subnets = named("underlay.subnets", subnets, &mut BTreeMap::new(), &mut faults);
        Self { nodes, pods, subnets, faults }
    }

    pub(super) fn faults(mut self, tree: &Tree, schema: &Value) -> Vec<Fault> {
        let mut found = std::mem::take(&mut self.faults);
        schema::each_text(tree, schema, &mut |format, text, line, place| {
            if let Err(reason) = self.look_up(format, text) {
                found.push(Fault { line, place: place.to_owned(), reason });
            }
        });
        found
    }

    /// The formats whose texts are names of something else in the file.
    fn look_up(&self, format: &str, text: &str) -> Result<(), String> {
        let place = || self.nodes.iter().chain(&self.pods).copied().collect::<BTreeSet<_>>();
        match format {
            "node" => known("node", text, &self.nodes),
            "subnet" => known("subnet", text, &self.subnets),
            "link" if self.nodes.contains(text) => Ok(()),
            "link" => known("node or subnet", text, &self.subnets),
            "place" => known("node or pod", text, &place()),
            "target" if form::address(text).is_some() => Ok(()),
            "target" => known("node, pod or address", text, &place()),
            "link-at" => {
                let at = text.split_once('/').map_or(text, |(place, _)| place);
                if at == ROUTER { Ok(()) } else { known("node or pod", at, &place()) }
            }
            _ => Ok(()),
        }
    }
}

fn known(what: &str, text: &str, names: &BTreeSet<&str>) -> Result<(), String> {
    if names.contains(text) {
        return Ok(());
    }
    let names: Vec<_> = names.iter().copied().collect();
    Err(format!("there is no {what} {text:?}; known are: {}", names.join(", ")))
}

/// Collects the names of a list's entries and tells those that are taken.
fn named<'a>(
    place: &'static str,
    list: Option<&'a Tree>,
    taken: &mut BTreeMap<&'a str, &'static str>,
    faults: &mut Vec<Fault>,
) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (i, entry) in list.map(Tree::list).unwrap_or_default().iter().enumerate() {
        let Some(at) = entry.get("name") else { continue };
        let Some(name) = at.text() else { continue };
        if let Some(owner) = taken.insert(name, place) {
            let reason = format!("the name {name:?} is taken already, by {owner}");
            faults.push(Fault { line: at.line, place: format!("{place}[{i}].name"), reason });
        }
        names.insert(name);
    }
    names
}
