//! Whether what was taken from the pools adds up: blocks, handles, affinities, pools, nodes, workloads.
//!
//! It looks at plain facts and not at the objects that they come from, so that a block that no model takes can be
//! looked at, too. What it finds it names; whether an address may be given back is [`IpamFacts::may_go`]'s to say, and
//! what is in doubt stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use russet_net::Prefix;

use super::{Affinity, AffinityState, HandleId, Name};

/// All that is known of addresses, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpamFacts {
    pub pools: BTreeMap<Name, Prefix>,
    pub blocks: Vec<BlockFacts>,
    pub handles: BTreeMap<HandleId, BTreeMap<Prefix, u32>>,
    pub affinities: BTreeMap<(Affinity, Prefix), AffinityState>,
    pub nodes: BTreeSet<String>,
    /// Who says that an address is its own: workloads, and nodes of their tunnels.
    pub users: BTreeMap<IpAddr, Vec<String>>,
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFacts {
    pub cidr: Prefix,
    pub affinity: Option<Affinity>,
    pub taken: Vec<TakenFacts>,
    /// Neither taken nor free.
    pub lost: Vec<IpAddr>,
}

/// An address that somebody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenFacts {
    pub addr: IpAddr,
    pub handle: Option<HandleId>,
    /// `pod`, `namespace`, `node`, `type`, `timestamp`.
    pub attributes: BTreeMap<String, String>,
    /// The block's sequence number when it was taken; 0 in blocks of old, which do not say.
    pub sequence: u64,
}

/// Something that does not add up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum IpamProblem {
    #[error("address {0} is taken without a handle, so nobody will give it back")]
    NoHandle(IpAddr),
    #[error("address {addr} is taken by handle {handle}, which does not exist")]
    UnknownHandle { addr: IpAddr, handle: HandleId },
    #[error("address {addr} belongs to node {node}, which does not exist")]
    NodeGone { addr: IpAddr, node: String },
    #[error("address {addr} of {user} is not taken: another may be given it")]
    NotTaken { addr: IpAddr, user: String },
    #[error("address {addr} has {} owners: {}", users.len(), users.join(", "))]
    Shared { addr: IpAddr, users: Vec<String> },
    #[error("address {addr} of block {block} is neither taken nor free: nobody is ever given it")]
    Lost { addr: IpAddr, block: Prefix },
    #[error("handle {handle} says {said} addresses of block {block}, and the block says {has}")]
    Count { handle: HandleId, block: Prefix, said: u32, has: u32 },
    #[error("{affinity} claims block {block} ({state:?}), which does not exist")]
    NoBlock { affinity: Affinity, block: Prefix, state: AffinityState },
    #[error("block {block} belongs to {affinity}, whose claim does not exist")]
    NoClaim { affinity: Affinity, block: Prefix },
    #[error("block {block} belongs to {}, and {claimer} claims it, too ({state:?})", owner.as_ref().map_or("nobody".to_owned(), ToString::to_string))]
    OtherClaim { block: Prefix, owner: Option<Affinity>, claimer: Affinity, state: AffinityState },
    #[error("block {0} lies in no pool: its addresses are not routed, and not masqueraded rightly")]
    OutsidePools(Prefix),
    #[error("blocks {0} and {1} overlap: two may be given one address")]
    Overlap(Prefix, Prefix),
}

impl IpamProblem {
    /// The address that it is about, if it is about one.
    pub const fn addr(&self) -> Option<IpAddr> {
        match self {
            Self::NoHandle(addr)
            | Self::UnknownHandle { addr, .. }
            | Self::NodeGone { addr, .. }
            | Self::NotTaken { addr, .. }
            | Self::Shared { addr, .. }
            | Self::Lost { addr, .. } => Some(*addr),
            _ => None,
        }
    }
}

impl IpamFacts {
    /// Every problem, those of one kind together, sorted.
    pub fn problems(&self) -> Vec<IpamProblem> {
        let mut found = Vec::new();
        for block in &self.blocks {
            found.extend(self.of_addresses(block));
            found.extend(
                block.lost.iter().map(|&addr| IpamProblem::Lost { addr, block: block.cidr }),
            );
            found.extend(self.of_block(block));
        }
        found.extend(self.of_users());
        found.extend(self.of_counts());
        found.extend(self.of_claims());
        found.extend(self.overlaps());
        found.sort_unstable();
        found
    }

    fn of_addresses<'a>(&'a self, block: &'a BlockFacts) -> impl Iterator<Item = IpamProblem> + 'a {
        block.taken.iter().flat_map(|taken| {
            let addr = taken.addr;
            let handle = match &taken.handle {
                None => Some(IpamProblem::NoHandle(addr)),
                Some(handle) if self.knows(handle) => None,
                Some(handle) => Some(IpamProblem::UnknownHandle { addr, handle: handle.clone() }),
            };
            let gone =
                self.gone(taken).map(|node| IpamProblem::NodeGone { addr, node: node.to_owned() });
            handle.into_iter().chain(gone)
        })
    }

    /// Whether somebody gives back what the handle holds. That of Windows' reserved addresses is in blocks only: they go
    /// with the block.
    fn knows(&self, handle: &HandleId) -> bool {
        handle.is_windows_reserved() || self.handles.contains_key(handle)
    }

    /// The node of an address, when there is no such node.
    fn gone<'t>(&self, taken: &'t TakenFacts) -> Option<&'t str> {
        let node = taken.attributes.get("node").map(String::as_str)?;
        (!node.is_empty() && !self.nodes.contains(node)).then_some(node)
    }

    fn of_block<'a>(&'a self, block: &'a BlockFacts) -> impl Iterator<Item = IpamProblem> + 'a {
        let cidr = block.cidr;
        let outside = !self.pools.values().any(|pool| pool.covers(cidr));
        let outside = outside.then_some(IpamProblem::OutsidePools(cidr));
        let unclaimed = block
            .affinity
            .as_ref()
            .filter(|affinity| !self.affinities.contains_key(&((*affinity).clone(), cidr)));
        let unclaimed = unclaimed
            .map(|affinity| IpamProblem::NoClaim { affinity: affinity.clone(), block: cidr });
        outside.into_iter().chain(unclaimed)
    }

    fn of_users(&self) -> impl Iterator<Item = IpamProblem> + '_ {
        let taken: BTreeSet<_> =
            self.blocks.iter().flat_map(|block| &block.taken).map(|taken| taken.addr).collect();
        let in_pools = |addr: IpAddr| self.pools.values().any(|pool| pool.contains(addr));
        self.users.iter().flat_map(move |(&addr, users)| {
            // Addresses that come from elsewhere are nobody's business here.
            let missing = !taken.contains(&addr) && in_pools(addr);
            let missing = missing.then(|| users.first()).flatten();
            let missing = missing.map(|user| IpamProblem::NotTaken { addr, user: user.clone() });
            let shared = users.len() > 1;
            missing
                .into_iter()
                .chain(shared.then(|| IpamProblem::Shared { addr, users: users.clone() }))
        })
    }

    /// A count that is too high keeps a handle for ever; one too low loses it early.
    fn of_counts(&self) -> Vec<IpamProblem> {
        let mut has: BTreeMap<(&HandleId, Prefix), u32> = BTreeMap::new();
        for block in &self.blocks {
            for handle in block.taken.iter().filter_map(|taken| taken.handle.as_ref()) {
                *has.entry((handle, block.cidr)).or_default() += 1;
            }
        }
        let mut found = Vec::new();
        for (handle, blocks) in &self.handles {
            for (&block, &said) in blocks {
                let has = has.remove(&(handle, block)).unwrap_or_default();
                if has != said {
                    found.push(IpamProblem::Count { handle: handle.clone(), block, said, has });
                }
            }
        }
        // What is left is in blocks that the handle does not name; unknown handles are told by address.
        let unsaid = has.into_iter().filter(|((handle, _), _)| self.handles.contains_key(handle));
        found.extend(unsaid.map(|((handle, block), has)| IpamProblem::Count {
            handle: handle.clone(),
            block,
            said: 0,
            has,
        }));
        found
    }

    fn of_claims(&self) -> impl Iterator<Item = IpamProblem> + '_ {
        let blocks: BTreeMap<_, _> = self.blocks.iter().map(|block| (block.cidr, block)).collect();
        self.affinities.iter().filter_map(move |((affinity, cidr), &state)| {
            let Some(block) = blocks.get(cidr) else {
                return Some(IpamProblem::NoBlock {
                    affinity: affinity.clone(),
                    block: *cidr,
                    state,
                });
            };
            let owner = &block.affinity;
            (owner.as_ref() != Some(affinity)).then(|| IpamProblem::OtherClaim {
                block: *cidr,
                owner: owner.clone(),
                claimer: affinity.clone(),
                state,
            })
        })
    }

    fn overlaps(&self) -> Vec<IpamProblem> {
        let mut sorted: Vec<_> = self.blocks.iter().map(|block| block.cidr).collect();
        // A prefix comes right before all that lie in it.
        sorted.sort_unstable();
        let mut found = Vec::new();
        let mut around: Vec<Prefix> = Vec::new();
        for cidr in sorted {
            while around.pop_if(|outer| !outer.covers(cidr)).is_some() {}
            found.extend(around.last().map(|outer| IpamProblem::Overlap(*outer, cidr)));
            around.push(cidr);
        }
        found
    }

    /// Whether an address can be given back without taking it from anybody: nobody says that it is his own, and
    /// either its node is gone or nobody could ever give it back. What Windows reserves is used by the block itself.
    pub fn may_go(&self, taken: &TakenFacts) -> bool {
        let reserved = taken.handle.as_ref().is_some_and(HandleId::is_windows_reserved);
        let used = reserved || self.users.contains_key(&taken.addr);
        let orphan = taken.handle.as_ref().is_none_or(|handle| !self.knows(handle));
        !used && (orphan || self.gone(taken).is_some())
    }
}

#[cfg(test)]
mod tests;
