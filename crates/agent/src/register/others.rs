//! Which underlay addresses the other nodes have, of the news that all listeners hear. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use russet_api::calico::{Key, Kind, ResourceId};
use russet_core::model::calico::{Name, OnSubnet};
use russet_net::Family;

use crate::{
    node::OwnAddresses,
    resources::{Known, News, Object},
};

/// The other nodes' addresses, and whether our own object was written.
#[derive(Clone, Debug, Default)]
pub struct Others {
    known: bool,
    /// The revision of this node's own object; `None` when there is none.
    own: Option<u64>,
    addrs: BTreeMap<Name, [Option<IpAddr>; 2]>,
}

impl Others {
    /// Whether the store has been read.
    pub const fn is_known(&self) -> bool {
        self.known
    }

    pub const fn own(&self) -> Option<u64> {
        self.own
    }

    /// Takes what the datastore says. Returns whether anything is otherwise than before; a node's object is written every
    /// few seconds, and mostly says what it said. A store that is not believed says nothing.
    pub fn take(&mut self, own: &Name, news: &News) -> bool {
        match news {
            News::All { picture, .. } => {
                *self = Self { known: true, ..Self::default() };
                for (key, known) in picture.iter() {
                    self.put(own, key, Some(known));
                }
                true
            }
            News::Changed { changes, .. } => changes
                .iter()
                .fold(false, |any, change| self.put(own, &change.key, change.known.as_ref()) | any),
            News::Doubted { .. } | News::Aside { .. } | News::Away(_) | News::Back => false,
        }
    }

    fn put(&mut self, own: &Name, key: &Key, known: Option<&Known>) -> bool {
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
