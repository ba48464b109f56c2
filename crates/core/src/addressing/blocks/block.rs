//! The algebra of one block: each function takes a block and gives the next value for a compare-and-swap.
//!
//! A free address waits in a queue, first in, first out, so that it is used again as late as possible. An
//! address that is given back either goes to the queue's end at once, or first cools down: it keeps its place
//! with attributes that name nobody and say when it was released, until [`Block::thaw`] frees it.
//!
//! Every change raises the block's sequence number, and an address remembers the number at which it was
//! given. Whoever decides to release it names that number, and is refused when it was taken again since.
//!
//! There is no way to an invalid block: the fields are private, and `check` is the only door for a block that
//! was read.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};

use russet_net::Prefix;

use super::{
    name::{Affinity, HandleId, Name, Timestamp},
    pool::{Reserved, block_lens},
};

/// One block of addresses, as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub(super) cidr: Prefix,
    pub(super) affinity: Option<Affinity>,
    /// For each address the index of its attributes, or none when it is free.
    pub(super) allocations: Vec<Option<usize>>,
    /// The free ones, the next to be given first.
    pub(super) unallocated: VecDeque<usize>,
    pub(super) attributes: Vec<Attributes>,
    pub(super) sequence: u64,
    /// The sequence number at which an address was given. Blocks of old versions have none.
    pub(super) given_at: BTreeMap<usize, u64>,
    pub(super) deleted: bool,
}

/// What is recorded beside an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub handle: Option<HandleId>,
    /// `pod`, `namespace`, `node`, `type`, `timestamp`.
    pub secondary: BTreeMap<String, String>,
    /// When it was given back; it is cooling down since.
    pub released_at: Option<Timestamp>,
}

impl Attributes {
    pub fn pod(&self) -> Option<&str> {
        self.text(POD)
    }

    pub fn namespace(&self) -> Option<&str> {
        self.text(NAMESPACE)
    }

    pub fn node(&self) -> Option<&str> {
        self.text(NODE)
    }

    /// `vxlanTunnelAddress` and its like; a pod's has none.
    pub fn kind(&self) -> Option<&str> {
        self.text(TYPE)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.secondary.get(name).map(String::as_str)
    }
}

/// The names of what is recorded, as Calico writes them.
pub const POD: &str = "pod";
pub const NAMESPACE: &str = "namespace";
pub const NODE: &str = "node";
pub const TYPE: &str = "type";
pub const TIMESTAMP: &str = "timestamp";

/// Who takes an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    pub handle: HandleId,
    pub secondary: BTreeMap<String, String>,
}

/// An address that is somebody's, with the number that a release must name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    pub addr: IpAddr,
    pub sequence: u64,
}

/// Which address to release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub addr: IpAddr,
    /// Refused when the address was given at another number.
    pub sequence: Option<u64>,
    /// Refused when the address is another's.
    pub handle: Option<HandleId>,
}

/// What becomes of an address that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It goes to the end of the queue.
    None,
    /// It cools down first, from this moment on.
    From(Timestamp),
}

/// Why a wished address cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakeError {
    #[error("address {addr} is taken by {}", by.as_ref().map_or("nobody that is named", |by| by.as_str()))]
    Taken { addr: IpAddr, by: Option<HandleId> },
    #[error("address {addr} was released a moment ago and may not be used again yet")]
    Cooling { addr: IpAddr },
    #[error("address {addr} is not in block {block}")]
    Outside { addr: IpAddr, block: Prefix },
    #[error("address {addr} is reserved")]
    Reserved { addr: IpAddr },
}

/// Why an address is not released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    #[error("address {addr} is not in block {block}")]
    Outside { addr: IpAddr, block: Prefix },
    #[error("address {addr} was given again since: at {is}, not {named}")]
    Stale { addr: IpAddr, named: u64, is: u64 },
    #[error("address {addr} is another's")]
    NotTheirs { addr: IpAddr },
}

/// A block's length is out of its family's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a block of {0} is too large or none")]
pub struct BadSize(pub Prefix);

// ---- what a block says
impl Block {
    /// An empty block. `now` starts its sequence number, so that a block that is made again after it was
    /// deleted does not give the numbers of the first out anew.
    ///
    /// # Errors
    ///
    /// When the prefix's length is not a block's.
    pub fn new(cidr: Prefix, affinity: Option<Affinity>, now: Timestamp) -> Result<Self, BadSize> {
        let size = size_of(cidr).ok_or(BadSize(cidr))?;
        Ok(Self {
            cidr,
            affinity,
            allocations: vec![None; size],
            unallocated: (0..size).collect(),
            attributes: Vec::new(),
            sequence: now.nanos(),
            given_at: BTreeMap::new(),
            deleted: false,
        })
    }

    pub const fn cidr(&self) -> Prefix {
        self.cidr
    }

    pub const fn affinity(&self) -> Option<&Affinity> {
        self.affinity.as_ref()
    }

    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Kubernetes cannot delete at a revision, so a block is first marked. Readers treat it as absent.
    pub const fn is_deleted(&self) -> bool {
        self.deleted
    }

    pub fn size(&self) -> usize {
        self.allocations.len()
    }

    /// Whether nobody has or had an address of it. One that cools down is not free yet.
    pub fn is_empty(&self) -> bool {
        self.taken().all(|(_, attributes)| {
            attributes.handle.as_ref().is_some_and(HandleId::is_windows_reserved)
        })
    }

    /// How many addresses can be taken at once, those included that have cooled down by then.
    pub fn free(&self, reserved: &Reserved, thawed: Timestamp) -> usize {
        let cooled = self.cooled(thawed).count();
        if !reserved.touches(self.cidr) {
            return self.unallocated.len() + cooled;
        }
        let open = |ordinal: &usize| self.addr(*ordinal).is_some_and(|a| !reserved.contains(a));
        self.unallocated.iter().filter(|n| open(n)).count()
            + self.cooled(thawed).filter(|(n, _)| open(n)).count()
    }

    /// How many addresses a handle has.
    pub fn count(&self, handle: &HandleId) -> u32 {
        let held = self.held().filter(|(_, by)| *by == Some(handle)).count();
        u32::try_from(held).unwrap_or(u32::MAX)
    }

    pub fn has(&self, handle: &HandleId) -> bool {
        // Attributes that nobody uses are never left in a block of ours, but others leave them.
        self.attributes.iter().any(|a| a.handle.as_ref() == Some(handle)) && self.count(handle) > 0
    }

    /// Every address that is somebody's, with its handle when it has one. Cooling ones are nobody's.
    pub fn held(&self) -> impl Iterator<Item = (Given, Option<&HandleId>)> {
        self.allocated().map(|(given, attributes)| (given, attributes.handle.as_ref()))
    }

    /// Every address that is somebody's, with what is recorded of it.
    pub fn allocated(&self) -> impl Iterator<Item = (Given, &Attributes)> {
        self.taken().filter(|(_, attributes)| attributes.released_at.is_none()).filter_map(
            |(ordinal, attributes)| {
                let sequence = self.given_at.get(&ordinal).copied().unwrap_or_default();
                Some((Given { addr: self.addr(ordinal)?, sequence }, attributes))
            },
        )
    }

    /// Addresses that are neither taken nor free, in a block that somebody wrote so. Nobody is given them
    /// unless he asks for that one.
    pub fn lost(&self) -> impl Iterator<Item = IpAddr> {
        let free: BTreeSet<usize> = self.unallocated.iter().copied().collect();
        let open = self.allocations.iter().enumerate().filter(|(_, slot)| slot.is_none());
        open.filter(move |(n, _)| !free.contains(n)).filter_map(|(n, _)| self.addr(n))
    }

    /// Whether some address has cooled down by then and waits for a [`Self::thaw`].
    pub fn is_thawing(&self, thawed: Timestamp) -> bool {
        self.cooled(thawed).next().is_some()
    }

    fn taken(&self) -> impl Iterator<Item = (usize, &Attributes)> {
        self.allocations
            .iter()
            .enumerate()
            .filter_map(|(ordinal, index)| Some((ordinal, self.attributes.get((*index)?)?)))
    }

    fn cooled(&self, thawed: Timestamp) -> impl Iterator<Item = (usize, Timestamp)> {
        // Most blocks have no such attributes: then no address is looked at.
        let some = self.attributes.iter().any(|a| a.released_at.is_some_and(|at| at <= thawed));
        let all = some.then(|| self.taken()).into_iter().flatten();
        all.filter_map(|(n, attributes)| Some((n, attributes.released_at?)))
            .filter(move |(_, at)| *at <= thawed)
    }

    fn addr(&self, ordinal: usize) -> Option<IpAddr> {
        self.cidr.nth(u128::try_from(ordinal).ok()?)
    }

    fn ordinal(&self, addr: IpAddr) -> Option<usize> {
        usize::try_from(self.cidr.offset_of(addr)?).ok()
    }
}

// ---- the next value
impl Block {
    /// Takes up to `n` addresses, the longest free first. What has cooled down by `thawed` is free.
    #[must_use]
    pub fn take(
        &self,
        n: usize,
        who: &Claimant,
        reserved: &Reserved,
        thawed: Timestamp,
    ) -> (Self, Vec<Given>) {
        let mut next = self.thaw(thawed);
        let mut given = Vec::new();
        let mut passed_over = VecDeque::new();
        while given.len() < n {
            let Some(ordinal) = next.unallocated.pop_front() else { break };
            match next.addr(ordinal) {
                Some(addr) if !reserved.contains(addr) => given.push(next.give(ordinal, addr, who)),
                _ => passed_over.push_back(ordinal),
            }
        }
        // They keep their place before the rest.
        passed_over.append(&mut next.unallocated);
        next.unallocated = passed_over;
        (next.turned(), given)
    }

    /// Takes one address that was wished for.
    ///
    /// # Errors
    ///
    /// When somebody has it, it is reserved or cooling, or it is not in this block.
    pub fn take_exactly(
        &self,
        addr: IpAddr,
        who: &Claimant,
        reserved: &Reserved,
        thawed: Timestamp,
    ) -> Result<(Self, Given), TakeError> {
        let outside = TakeError::Outside { addr, block: self.cidr };
        let ordinal = self.ordinal(addr).ok_or(outside)?;
        if reserved.contains(addr) {
            return Err(TakeError::Reserved { addr });
        }
        let mut next = self.thaw(thawed);
        if let Some((_, attributes)) = next.taken().find(|(n, _)| *n == ordinal) {
            return Err(match attributes.released_at {
                Some(_) => TakeError::Cooling { addr },
                None => TakeError::Taken { addr, by: attributes.handle.clone() },
            });
        }
        next.unallocated.retain(|n| *n != ordinal);
        let given = next.give(ordinal, addr, who);
        Ok((next.turned(), given))
    }

    /// Gives a handle what it has once more, at a new number, so that a release which was decided before is
    /// refused. `None` when it has nothing here.
    #[must_use]
    pub fn keep(&self, handle: &HandleId) -> Option<(Self, Vec<Given>)> {
        let mut next = self.clone();
        let theirs = self.held().filter(|(_, by)| *by == Some(handle));
        let kept: Vec<_> =
            theirs.map(|(given, _)| Given { sequence: self.sequence, ..given }).collect();
        for ordinal in kept.iter().filter_map(|given| self.ordinal(given.addr)) {
            next.given_at.insert(ordinal, self.sequence);
        }
        (!kept.is_empty()).then(|| (next.turned(), kept))
    }

    /// Gives an address that a handle has to somebody else, at a new number. `None` when the handle does not have it.
    #[must_use]
    pub fn pass_on(&self, addr: IpAddr, from: &HandleId, to: &Claimant) -> Option<(Self, Given)> {
        self.held().find(|(given, by)| given.addr == addr && *by == Some(from))?;
        let mut next = self.clone();
        let given = next.give(self.ordinal(addr)?, addr, to);
        Some((next.turned(), given))
    }

    /// Which of the addresses that a node has claimed ahead it is: the handle that has it.
    pub fn ahead(&self, addr: IpAddr, node: &Name) -> Option<&HandleId> {
        let (_, by) = self.held().find(|(given, _)| given.addr == addr)?;
        by.filter(|by| by.ahead_of(node).is_some())
    }

    /// Releases one address. `None` when it is free or cooling already, which is no error.
    ///
    /// # Errors
    ///
    /// When it was given to somebody since, or is not in this block.
    pub fn release(&self, what: &Release, rest: Rest) -> Result<Option<Self>, ReleaseError> {
        let addr = what.addr;
        let outside = ReleaseError::Outside { addr, block: self.cidr };
        let ordinal = self.ordinal(addr).ok_or(outside)?;
        let Some((given, by)) = self.held().find(|(given, _)| given.addr == addr) else {
            return Ok(None);
        };
        if let Some(named) = what.sequence.filter(|named| *named != given.sequence) {
            return Err(ReleaseError::Stale { addr, named, is: given.sequence });
        }
        if what.handle.is_some() && what.handle.as_ref() != by {
            return Err(ReleaseError::NotTheirs { addr });
        }
        Ok(Some(self.without(&BTreeSet::from([ordinal]), rest)))
    }

    /// Releases all that a handle has. `None` when it has nothing here.
    #[must_use]
    pub fn release_handle(&self, handle: &HandleId, rest: Rest) -> Option<Self> {
        let theirs = self.held().filter(|(_, by)| *by == Some(handle));
        let ordinals: BTreeSet<_> =
            theirs.filter_map(|(given, _)| self.ordinal(given.addr)).collect();
        (!ordinals.is_empty()).then(|| self.without(&ordinals, rest))
    }

    /// Frees what has cooled down by then, the earliest released first.
    #[must_use]
    pub fn thaw(&self, thawed: Timestamp) -> Self {
        let mut next = self.clone();
        let mut cooled: Vec<_> = self.cooled(thawed).map(|(n, at)| (at, n)).collect();
        if cooled.is_empty() {
            return next;
        }
        cooled.sort_unstable();
        for (_, ordinal) in cooled {
            next.free_one(ordinal);
        }
        next.turned()
    }

    /// The same addresses with an affinity to somebody else, or to nobody.
    #[must_use]
    pub fn owned_by(&self, affinity: Option<Affinity>) -> Self {
        Self { affinity, ..self.clone() }.turned()
    }

    /// The same at a new number, so that writes which expect the old revision fail.
    #[must_use]
    pub fn restated(&self) -> Self {
        self.clone().turned()
    }

    /// Marked as deleted, for a store that cannot delete at a revision.
    #[must_use]
    pub fn marked_deleted(&self) -> Self {
        Self { deleted: true, ..self.clone() }.turned()
    }

    fn without(&self, ordinals: &BTreeSet<usize>, rest: Rest) -> Self {
        let mut next = self.clone();
        for ordinal in ordinals.iter().copied() {
            match rest {
                Rest::None => next.free_one(ordinal),
                Rest::From(at) => {
                    let cooling = Attributes { released_at: Some(at), ..Attributes::default() };
                    next.set(ordinal, cooling);
                }
            }
        }
        next.turned()
    }

    fn free_one(&mut self, ordinal: usize) {
        self.given_at.remove(&ordinal);
        if let Some(slot) = self.allocations.get_mut(ordinal) {
            *slot = None;
            self.unallocated.push_back(ordinal);
        }
    }

    fn give(&mut self, ordinal: usize, addr: IpAddr, who: &Claimant) -> Given {
        let Claimant { handle, secondary } = who.clone();
        self.set(ordinal, Attributes { handle: Some(handle), secondary, released_at: None });
        self.given_at.insert(ordinal, self.sequence);
        Given { addr, sequence: self.sequence }
    }

    /// Points an address at attributes, which it shares with whoever has the same.
    fn set(&mut self, ordinal: usize, attributes: Attributes) {
        let known = self.attributes.iter().position(|known| *known == attributes);
        let index = known.unwrap_or_else(|| {
            self.attributes.push(attributes);
            self.attributes.len() - 1
        });
        if let Some(slot) = self.allocations.get_mut(ordinal) {
            *slot = Some(index);
        }
    }

    /// Ends a change: attributes that nobody uses go, and the number goes up.
    fn turned(mut self) -> Self {
        let used: BTreeSet<usize> = self.allocations.iter().flatten().copied().collect();
        if used.len() < self.attributes.len() {
            let renumbered: BTreeMap<usize, usize> =
                used.iter().enumerate().map(|(new, old)| (*old, new)).collect();
            for slot in &mut self.allocations {
                *slot = slot.and_then(|old| renumbered.get(&old).copied());
            }
            let mut index = 0..;
            self.attributes.retain(|_| index.next().is_some_and(|index| used.contains(&index)));
        }
        self.sequence = self.sequence.saturating_add(1);
        self
    }
}

/// How many addresses a block of this prefix has, when it can be one.
pub fn size_of(cidr: Prefix) -> Option<usize> {
    let family = cidr.family();
    let (min, max) = block_lens(family);
    (min..=max).contains(&cidr.len()).then(|| 1 << (family.bits() - cidr.len()))
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
