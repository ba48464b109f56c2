//! Frees what nodes that are gone have left, on one node of the cluster at a time.
//!
//! A node is gone when it has no object any more. Whoever holds the key of this office looks through every
//! block; it is bound to a lease, so the office falls vacant when its holder dies. Writes are compare and swap,
//! so two that hold it for a moment do no harm.

use std::collections::BTreeSet;

use russet_api::calico::{self, StoreKey};
use russet_core::{
    addressing::blocks::{
        Collector, Key, StoreOp, Value, Versioned,
        gc::{Living, Picture, Report, Rules},
        machine::Now,
    },
    model::calico::{Affinity, Name},
};
use russet_store::KeyValue;

use super::{documents::Document, shelf::Shelf};
use crate::one_line;

/// What is known of the cluster's nodes.
#[derive(Clone, Debug)]
pub(super) struct Census {
    pub(super) node: Name,
    pub(super) nodes: BTreeSet<Name>,
    pub(super) rules: Rules,
    pub(super) term_s: u32,
}

/// Looks once, if this node has the office. Returns what to remember, and what to write.
pub(super) async fn look(
    store: impl Shelf,
    census: Census,
    collector: Collector,
    now: Now,
) -> (Collector, Vec<StoreOp>) {
    // Without our own object the list of nodes is not to be trusted: all would be gone.
    if !census.nodes.contains(&census.node) {
        return (collector, Vec::new());
    }
    match holds_office(&store, &census).await {
        Ok(true) => {}
        // What was seen in an earlier term is too old.
        Ok(false) => return (Collector::default(), Vec::new()),
        Err(reason) => {
            tracing::info!(op = "collect", reason, "nobody looks for leaks of nodes that are gone");
            return (collector, Vec::new());
        }
    }
    let (picture, readable) = match picture(&store).await {
        Ok(found) => found,
        Err(reason) => {
            tracing::info!(op = "collect", reason, "the store could not be read");
            return (collector, Vec::new());
        }
    };
    let nodes = census.nodes.iter().map(|node| (node.clone(), Report::Silent));
    let living = Living { nodes: nodes.collect(), ..Living::default() };
    let (next, mut ops) = collector.look(&picture, &living, &census.rules, now);
    if readable == Readable::InPart {
        // A count may be of a block that could not be read.
        ops.retain(|op| !matches!(op.key(), Key::Handle(_)));
    }
    (next, ops)
}

async fn holds_office(store: &impl Shelf, census: &Census) -> Result<bool, String> {
    let held = store.hold(OFFICE.as_bytes(), census.node.as_str().as_bytes(), census.term_s).await;
    held.map_err(|err| one_line(&err))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readable {
    Whole,
    InPart,
}

/// All that the collector looks at, decoded as it comes.
async fn picture(store: &impl Shelf) -> Result<(Picture, Readable), String> {
    let mut picture = Picture::default();
    let mut readable = Readable::Whole;
    for folder in ["assignment/", "host/", "handle/"] {
        let prefix = format!("{}{folder}", calico::Key::IPAM);
        let each = |kv| {
            if take(&mut picture, &kv) == Readable::InPart {
                readable = Readable::InPart;
            }
        };
        store.visit(prefix.as_bytes(), each).await.map_err(|err| one_line(&err))?;
    }
    Ok((picture, readable))
}

/// Takes one object, if it is one of ours; tells whether that could be read.
fn take(picture: &mut Picture, kv: &KeyValue) -> Readable {
    let key = match calico::Key::read(&kv.key) {
        StoreKey::Known(key) => key,
        StoreKey::Bad(_) => return Readable::InPart,
        StoreKey::Other => return Readable::Whole,
    };
    let Some(key) = ours(key) else { return Readable::Whole };
    let Ok(document) = Document::read(&key, kv) else { return Readable::InPart };
    put(picture, key, kv.modified.get(), document.value());
    Readable::Whole
}

fn ours(key: calico::Key) -> Option<Key> {
    match key {
        calico::Key::Block(cidr) => Some(Key::Block(cidr)),
        calico::Key::BlockAffinity(Affinity::Host(node), cidr) => Some(Key::Affinity(node, cidr)),
        calico::Key::Handle(id) => Some(Key::Handle(id)),
        _ => None,
    }
}

fn put(picture: &mut Picture, key: Key, rev: u64, value: Value) {
    match (key, value) {
        (Key::Block(cidr), Value::Block(value)) => {
            picture.blocks.insert(cidr, Versioned { rev, value });
        }
        (Key::Affinity(node, cidr), Value::Affinity(value)) => {
            picture.affinities.insert((node, cidr), Versioned { rev, value });
        }
        (Key::Handle(id), Value::Handle(value)) => {
            picture.handles.insert(id, Versioned { rev, value });
        }
        _ => {}
    }
}

const OFFICE: &str = "/russet/ipam/collector";
