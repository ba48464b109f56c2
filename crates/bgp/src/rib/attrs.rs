//! Attribute sets, each kept once however many paths have it.
//!
//! An [`AttrId`] stands for the canonical octets of the attributes, the next hop, and what a path carries
//! beside them (an EVPN label). What best path, policy and reflection ask most often is read once, when a
//! set is first seen, into a [`Summary`]. Sets are counted: when the last path lets go, the memory comes back.
//!
//! The hash is keyed with a seed, for the octets are a peer's to choose.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    num::NonZeroU32,
};

use hashbrown::HashTable;
use russet_net::Asn;

use crate::{
    bestpath::Mobility,
    wire::{Attributes, Community, ExtCommunity, NextHop, Origin, RouterId, Tail},
};

/// Stands for an attribute set of a [`Pool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttrId(NonZeroU32);

/// All that a path says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttrSet {
    /// Canonical; see [`crate::wire`].
    pub octets: Box<[u8]>,
    pub next_hop: NextHop,
    pub tail: Tail,
}

/// What is asked most often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub local_pref: u32,
    pub hops: u32,
    pub origin: Origin,
    pub med: u32,
    pub neighbor: Option<Asn>,
    pub originator: Option<RouterId>,
    pub clusters: u32,
    pub mobility: Mobility,
    pub scope: Scope,
}

/// How far a path may be told (RFC 1997).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Everyone,
    /// Internal peers only.
    OurAs,
    Nobody,
}

/// Every attribute set in use.
#[derive(Debug)]
pub struct Pool {
    slots: Vec<Slot>,
    free: Vec<AttrId>,
    index: HashTable<AttrId>,
    keyed: Keyed,
}

#[derive(Debug)]
struct Slot {
    set: AttrSet,
    summary: Summary,
    uses: u32,
    hash: u64,
}

/// `SipHash` with a key of our own in front.
#[derive(Clone, Copy, Debug)]
pub struct Keyed(pub u64);

impl BuildHasher for Keyed {
    type Hasher = std::hash::DefaultHasher;

    fn build_hasher(&self) -> Self::Hasher {
        let mut hasher = Self::Hasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

impl Pool {
    pub fn new(keyed: Keyed) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), index: HashTable::new(), keyed }
    }

    /// Finds or keeps a set, and counts one use of it. `None` when the octets are not canonical, or there are
    /// four billion sets.
    pub fn intern(&mut self, octets: &[u8], next_hop: NextHop, tail: Tail) -> Option<AttrId> {
        let hash = self.keyed.hash_one((octets, next_hop, tail));
        let slots = &mut self.slots;
        let same = |id: &AttrId| slots[id.place()].is(octets, next_hop, tail);
        if let Some(id) = self.index.find(hash, same) {
            slots[id.place()].uses += 1;
            return Some(*id);
        }
        let summary = Summary::of(&Attributes::read(octets)?);
        let set = AttrSet { octets: octets.into(), next_hop, tail };
        let slot = Slot { set, summary, uses: 1, hash };
        let id = if let Some(id) = self.free.pop() {
            slots[id.place()] = slot;
            id
        } else {
            slots.push(slot);
            AttrId(NonZeroU32::new(u32::try_from(slots.len()).ok()?)?)
        };
        self.index.insert_unique(hash, id, |id| slots[id.place()].hash);
        Some(id)
    }

    /// Counts `more` uses of a set that is in use.
    pub fn retain(&mut self, id: AttrId, more: u32) {
        self.slots[id.place()].uses += more;
    }

    /// Lets go of one use. The last one gives the memory back; the number may then mean another set.
    pub fn release(&mut self, id: AttrId) {
        let slot = &mut self.slots[id.place()];
        slot.uses -= 1;
        if slot.uses > 0 {
            return;
        }
        slot.set.octets = Box::default();
        let hash = slot.hash;
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        self.free.push(id);
        self.shrink();
    }

    /// Once hardly anything is in use, the tables are given back too.
    fn shrink(&mut self) {
        if self.index.is_empty() && self.slots.capacity() > KEPT {
            *self = Self::new(self.keyed);
        }
    }

    pub fn get(&self, id: AttrId) -> &AttrSet {
        &self.slots[id.place()].set
    }

    pub fn summary(&self, id: AttrId) -> &Summary {
        &self.slots[id.place()].summary
    }

    /// How many sets are in use.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
}

impl AttrId {
    /// An id is made only from the place of a slot, and slots are never taken away.
    const fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl AttrSet {
    /// The attributes as values.
    pub fn attributes(&self) -> Attributes {
        // They were read once, when the set was kept.
        Attributes::read(&self.octets).unwrap_or_default()
    }
}

impl Slot {
    fn is(&self, octets: &[u8], next_hop: NextHop, tail: Tail) -> bool {
        *self.set.octets == *octets && self.set.next_hop == next_hop && self.set.tail == tail
    }
}

impl Hash for AttrSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&*self.octets, self.next_hop, self.tail).hash(state);
    }
}

impl Summary {
    pub fn of(attributes: &Attributes) -> Self {
        let clusters = u32::try_from(attributes.cluster_list.len()).unwrap_or(u32::MAX);
        Self {
            local_pref: attributes.local_pref.unwrap_or(USUAL_LOCAL_PREF),
            hops: u32::try_from(attributes.as_path.hops()).unwrap_or(u32::MAX),
            origin: attributes.origin,
            med: attributes.med.unwrap_or(0),
            neighbor: attributes.as_path.neighbor(),
            originator: attributes.originator_id,
            clusters,
            mobility: mobility(&attributes.ext_communities),
            scope: Scope::of(&attributes.communities),
        }
    }
}

impl Scope {
    fn of(communities: &[Community]) -> Self {
        let of = |community: &Community| match *community {
            Community::NO_ADVERTISE => Self::Nobody,
            Community::NO_EXPORT | Community::NO_EXPORT_SUBCONFED => Self::OurAs,
            _ => Self::Everyone,
        };
        communities.iter().map(of).max().unwrap_or(Self::Everyone)
    }
}

fn mobility(communities: &[ExtCommunity]) -> Mobility {
    let moved = communities.iter().find_map(|community| community.as_mac_mobility());
    moved.map(Into::into).unwrap_or_default()
}

/// What a path without a local preference has (RFC 4271 leaves the number to us; everyone takes this).
pub const USUAL_LOCAL_PREF: u32 = 100;
/// So many slots stay when none is in use.
const KEPT: usize = 1_024;

#[cfg(test)]
mod tests {
    use russet_net::Asn;

    use super::*;
    use crate::wire::{AsPath, Sticky};

    #[test]
    fn equal_sets_are_one_and_the_last_use_gives_it_back() {
        let mut pool = Pool::new(Keyed(1));
        let (one, other) = (octets(1), octets(2));
        let id = pool.intern(&one, hop(1), Tail::None).unwrap();
        assert_eq!(pool.intern(&one, hop(1), Tail::None), Some(id));
        assert_ne!(pool.intern(&one, hop(2), Tail::None), Some(id));
        assert_ne!(pool.intern(&other, hop(1), Tail::None), Some(id));
        assert_eq!(pool.len(), 3);

        pool.release(id);
        assert_eq!(pool.summary(id).med, 1);
        pool.release(id);
        assert_eq!(pool.len(), 2);
        let again = pool.intern(&octets(3), hop(1), Tail::None).unwrap();
        assert_eq!(again, id, "the place is used again");
        assert_eq!(pool.summary(again).med, 3);
    }

    #[test]
    fn ten_thousand_sets_come_and_go_and_leave_nothing() {
        let mut pool = Pool::new(Keyed(2));
        let ids: Vec<_> =
            (0..10_000).map(|med| pool.intern(&octets(med), hop(1), Tail::None).unwrap()).collect();
        for (med, id) in (0..10_000).zip(&ids) {
            assert_eq!(pool.get(*id).attributes().med, Some(med));
        }
        for id in ids {
            pool.release(id);
        }
        assert!(pool.is_empty());
        assert!(pool.slots.capacity() <= KEPT);
    }

    #[test]
    fn a_summary_says_what_the_attributes_say() {
        let summary = Summary::of(&Attributes {
            as_path: AsPath::sequence([Asn::new(7), Asn::new(8)]),
            communities: vec![Community::new(9), Community::NO_EXPORT],
            ext_communities: vec![ExtCommunity::mac_mobility(Sticky::Yes, 3)],
            ..Attributes::default()
        });
        assert_eq!((summary.local_pref, summary.med, summary.hops), (100, 0, 2));
        assert_eq!(summary.neighbor, Some(Asn::new(7)));
        assert_eq!(summary.scope, Scope::OurAs);
        assert_eq!(summary.mobility, Mobility { sticky: 1, sequence: 3 });
        let nobody = [Community::NO_EXPORT, Community::NO_ADVERTISE];
        assert_eq!(Scope::of(&nobody), Scope::Nobody);
    }

    fn octets(med: u32) -> Vec<u8> {
        let mut octets = Vec::new();
        Attributes { med: Some(med), ..Attributes::default() }.write(&mut octets);
        octets
    }

    fn hop(last: u8) -> NextHop {
        NextHop::V4([10, 0, 0, last].into())
    }
}
