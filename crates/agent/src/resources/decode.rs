//! One key and its value become one object, or the fault of it. Pure.

use std::{net::IpAddr, sync::Arc};

use russet_api::calico::{
    Form, Glance, Key, Kind, Layout, ObjectFault, ResourceId, StoreKey, Stored,
};
use russet_core::{
    Fault,
    addressing::blocks::{Outline, Reserved, Timestamp},
    model::calico::{Affinity, IpamBlock, Name, Scope},
};
use russet_net::Prefix;
use russet_store::{KeyChange, KeyValue};

use super::picture::{BlockNews, Object};
use crate::one_line;

/// What one key says now.
#[derive(Clone, Debug)]
pub struct Decoded {
    pub key: Key,
    pub revision: u64,
    /// The revision at which the key came to be: who is there first is told by it.
    pub created: u64,
    /// `None`: it is gone.
    pub what: Option<Result<Object, Fault>>,
    /// The bytes of what this node must know when it starts without the store.
    pub text: Option<Arc<[u8]>>,
}

/// Reads one object for a node; `None` for a key that means nothing here. The bytes of most are dropped.
pub fn decode(node: &Name, kv: KeyValue) -> Option<Decoded> {
    let key = known(&kv.key)?;
    let KeyValue { value, modified, created, .. } = kv;
    let read = object(node, &key, &value)?;
    if let Err(fault) = &read {
        tracing::warn!(op = "read store", subject = %key, reason = %one_line(fault), "it is left out");
    }
    let (revision, created) = (modified.get(), created.get());
    let text = (read.is_ok() && outlives_the_store(node, &key)).then(|| value.into());
    Some(Decoded { key, revision, created, what: Some(read), text })
}

/// Whether an object is kept on the node's disk: what its network is, and how it is reached itself.
fn outlives_the_store(node: &Name, key: &Key) -> bool {
    let Key::Resource(id) = key else { return false };
    match id.kind {
        Kind::IpPool => true,
        Kind::FelixConfiguration => match Scope::of(&id.name) {
            Scope::Cluster => true,
            Scope::Node(name) => name == *node,
            Scope::Nobody => false,
        },
        Kind::Node => id.name == *node,
        _ => false,
    }
}

pub(super) fn change(node: &Name, change: KeyChange) -> Option<Decoded> {
    match change {
        KeyChange::Put(kv) => decode(node, kv),
        KeyChange::Delete { key, revision } => {
            let revision = revision.get();
            let key = known(&key)?;
            Some(Decoded { key, revision, created: revision, what: None, text: None })
        }
    }
}

fn known(key: &[u8]) -> Option<Key> {
    match Key::read(key) {
        StoreKey::Known(key) => Some(key),
        StoreKey::Bad(fault) => {
            tracing::warn!(op = "read store", reason = %one_line(&fault), "a key is left out");
            None
        }
        StoreKey::Other => None,
    }
}

fn object(node: &Name, key: &Key, value: &[u8]) -> Option<Result<Object, Fault>> {
    let read = match key {
        Key::Resource(id) => return resource(id, value),
        Key::IpamConfig => bare(value).map(|stored| Object::IpamConfiguration(*stored.value())),
        Key::Block(cidr) => return Some(block(node, *cidr, value)),
        Key::BlockAffinity(..) => bare(value).map(|stored| Object::Affinity(*stored.value())),
        Key::Handle(_) => return None,
    };
    Some(read.map_err(Fault::from))
}

fn resource(id: &ResourceId, value: &[u8]) -> Option<Result<Object, Fault>> {
    let read = match id.kind {
        Kind::IpPool => shared(value).map(Object::Pool),
        Kind::IpReservation => shared(value).map(Object::Reservation),
        Kind::Node => shared(value).map(Object::Node),
        Kind::FelixConfiguration => shared(value).map(Object::Felix),
        Kind::BgpConfiguration => shared(value).map(Object::BgpConfiguration),
        Kind::BgpPeer => shared(value).map(Object::BgpPeer),
        Kind::BgpFilter => shared(value).map(Object::BgpFilter),
        Kind::ClusterInformation => shared(value).map(Object::Cluster),
        _ => return None,
    };
    Some(read.map_err(Fault::from))
}

/// A block of this node's is kept whole, with what is unknown in it, because it is written again.
fn block(node: &Name, cidr: Prefix, value: &[u8]) -> Result<Object, Fault> {
    if let Some(seen) = Glance::at(value)
        && seen.cidr == cidr
        && !is_of(node, seen.affinity.as_ref())
    {
        return Ok(others(node, seen));
    }
    let stored: Stored<IpamBlock> = bare(value).map_err(Fault::from)?;
    let block = stored.value();
    if block.cidr() != cidr {
        let reason = format!("cidr {} is not that of its key, {cidr}", block.cidr());
        return Err(Fault::Unreadable { what: "IPAMBlock", reason });
    }
    if is_of(node, block.affinity()) {
        return Ok(Object::Block(BlockNews::Own(Arc::new(stored))));
    }
    let held = block.allocated().filter(|(_, of)| of.node() == Some(node.as_str()));
    let ours = held.filter_map(|(given, of)| Some((given.addr, of.handle.clone()?))).collect();
    let outline = Outline::of(block, &Reserved::default(), Timestamp::default());
    let (ours, borrowed) = (few(ours), few(borrowed(block)));
    Ok(Object::Block(BlockNews::Other { outline, ours, borrowed }))
}

fn is_of(node: &Name, affinity: Option<&Affinity>) -> bool {
    affinity.and_then(Affinity::host) == Some(node)
}

/// Another's block, of which all that is needed was seen at a glance.
fn others(node: &Name, seen: Glance) -> Object {
    let ours = seen.others.iter().filter(|other| other.node == node.as_str());
    let ours = ours.filter_map(|other| Some((other.addr, other.handle.clone()?))).collect();
    let borrowed = seen.others.iter().filter_map(|it| Some((it.addr, it.node.parse().ok()?)));
    let outline = Outline { affinity: seen.affinity, free: seen.free };
    let (ours, borrowed) = (few(ours), few(borrowed.collect()));
    Object::Block(BlockNews::Other { outline, ours, borrowed })
}

/// Most are empty, and these are one.
fn few<T>(items: Vec<T>) -> Arc<[T]> {
    if items.is_empty() { Arc::default() } else { items.into() }
}

/// The addresses of a block that nodes have to which it has no affinity. A node that no object can be named after is none.
pub fn borrowed(block: &IpamBlock) -> Vec<(IpAddr, Name)> {
    let host = block.affinity().and_then(Affinity::host).map(Name::as_str);
    let others = block.allocated().filter(|(_, of)| of.node().is_some_and(|it| Some(it) != host));
    others.filter_map(|(given, of)| Some((given.addr, of.node()?.parse().ok()?))).collect()
}

fn bare<T: Form>(value: &[u8]) -> Result<Stored<T>, ObjectFault> {
    Stored::read(value, Layout::Bare)
}

fn shared<T: Form + Clone>(value: &[u8]) -> Result<Arc<T>, ObjectFault> {
    Stored::<T>::read(value, Layout::Resource).map(|stored| Arc::new(stored.into_value()))
}
