//! Which underlay addresses the other nodes have, of the news that all listeners hear. Pure.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use russet_api::calico::{Key, Kind, ResourceId};
use russet_core::model::calico::{Name, OnSubnet};
use russet_net::Family;
use russet_store::Guard;

use crate::{
    node::OwnAddresses,
    resources::{self, Known, News, Object, Picture},
};

/// The other nodes' addresses, and whether our own object was written.
#[derive(Clone, Debug, Default)]
pub struct Others {
    known: bool,
    /// The revision of this node's own object; `None` when there is none.
    own: Option<u64>,
    addrs: BTreeMap<Name, [Option<IpAddr>; 2]>,
    /// This node's own object as it was when the store was last believed.
    last: Option<Arc<[u8]>>,
    /// The store is not believed, because it has lost something.
    lost: bool,
    /// The revision of what the cluster says of itself.
    named: Option<u64>,
}

/// A store that has lost something.
#[derive(Clone, Debug)]
pub struct Lost {
    /// That it is the one that this was read of.
    pub guard: Guard,
    /// What this node's object was when the store was last believed.
    pub last: Option<Arc<[u8]>>,
}

impl Others {
    /// Before the store is read, with what an earlier life kept of this node's object.
    pub fn recalled(last: Option<Arc<[u8]>>) -> Self {
        Self { last, ..Self::default() }
    }

    /// What is put back by, when the store has lost something and is not another cluster's.
    pub fn lost(&self) -> Option<Lost> {
        let guard = resources::same_cluster(self.named).filter(|_| self.lost)?;
        Some(Lost { guard, last: self.last.clone() })
    }

    /// Whether the store has been read.
    pub const fn is_known(&self) -> bool {
        self.known
    }

    pub const fn own(&self) -> Option<u64> {
        self.own
    }

    /// Takes what the datastore says. Returns whether anything is otherwise than before; a node's object is written every
    /// few seconds, and mostly says what it said. A store that is not believed says what is there, for
    /// whoever puts something back.
    pub fn take(&mut self, own: &Name, news: &News) -> bool {
        match news {
            News::All { picture, .. } => {
                self.last = picture.text(&own_key(own)).cloned();
                self.lost = false;
                self.all(own, picture);
                true
            }
            News::Doubted { doubt, picture } => {
                self.lost = doubt.is_loss();
                self.all(own, picture);
                true
            }
            News::Changed { changes, .. } => {
                let text = |change: &resources::Change| {
                    is_own(own, &change.key).then(|| change.text.clone())
                };
                if let Some(text) = changes.iter().rev().find_map(text) {
                    self.last = text;
                }
                self.put_all(own, changes)
            }
            News::Aside { changes } => self.put_all(own, changes),
            News::Away(_) | News::Back => false,
        }
    }

    fn all(&mut self, own: &Name, picture: &Picture) {
        (self.known, self.own, self.named) = (true, None, None);
        self.addrs.clear();
        for (key, known) in picture.iter() {
            self.put(own, key, Some(known));
        }
    }

    fn put_all(&mut self, own: &Name, changes: &[resources::Change]) -> bool {
        changes
            .iter()
            .fold(false, |any, change| self.put(own, &change.key, change.known.as_ref()) | any)
    }

    fn put(&mut self, own: &Name, key: &Key, known: Option<&Known>) -> bool {
        if let Key::Resource(ResourceId { kind: Kind::ClusterInformation, .. }) = key {
            let now = known.map(|known| known.revision);
            return std::mem::replace(&mut self.named, now) != now;
        }
        let Key::Resource(ResourceId { kind: Kind::Node, name, .. }) = key else { return false };
        if name == own {
            let now = known.map(|known| known.revision);
            return std::mem::replace(&mut self.own, now) != now;
        }
        // One that cannot be read has what it had; one that never could has nothing.
        let now = known.and_then(|known| match &known.value {
            Some(Object::Node(node)) => {
                Some(Family::BOTH.map(|family| node.underlay(family).map(OnSubnet::addr)))
            }
            _ => None,
        });
        match now.filter(|addrs| addrs.iter().any(Option::is_some)) {
            Some(addrs) => self.addrs.insert(name.clone(), addrs) != Some(addrs),
            None => self.addrs.remove(name).is_some(),
        }
    }

    /// The first of our addresses that another node has, and which one.
    pub fn taken(&self, own: &OwnAddresses) -> Option<(IpAddr, Name)> {
        let ours = Family::BOTH.map(|family| own.addr(family));
        self.addrs.iter().find_map(|(name, theirs)| {
            let same =
                ours.iter().zip(theirs).find(|(ours, theirs)| ours.is_some() && ours == theirs);
            same.and_then(|(addr, _)| Some(((*addr)?, name.clone())))
        })
    }
}

fn own_key(own: &Name) -> Key {
    Key::Resource(ResourceId { kind: Kind::Node, namespace: None, name: own.clone() })
}

/// Whether it is this node's own object.
pub fn is_own(own: &Name, key: &Key) -> bool {
    matches!(key, Key::Resource(ResourceId { kind: Kind::Node, name, .. }) if name == own)
}
