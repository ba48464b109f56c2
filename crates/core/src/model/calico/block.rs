//! A block: a few addresses of a pool, and for each who has it.
//!
//! An address is known by its ordinal, its place in the block. It is taken or free, never both; what is
//! neither is lost until somebody mends the block, and is told by [`IpamBlock::lost`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use russet_net::Prefix;

use super::{Affinity, BlockLen, HandleId, PoolFault};

/// A checked block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpamBlock(BlockParts);

/// What a block is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockParts {
    pub cidr: Prefix,
    pub affinity: Option<Affinity>,
    pub taken: BTreeMap<Ordinal, Allocation>,
    /// The first is handed out next, and what comes back goes last.
    pub free: Vec<Ordinal>,
    /// Who has the addresses; several addresses may have one owner.
    pub owners: Vec<Owner>,
    /// Counts the writes of the block.
    pub sequence: u64,
    /// Whether it is about to be removed, where the store cannot compare when it removes.
    pub deleted: bool,
}

/// An address' place in its block, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ordinal(u16);

impl Ordinal {
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl From<u16> for Ordinal {
    fn from(raw: u16) -> Self {
        Self(raw)
    }
}

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An address that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The place of its owner among the block's.
    pub owner: usize,
    /// The block's sequence number when it was taken; `None` in blocks of old.
    pub sequence: Option<u64>,
}

/// Who has an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub handle: Option<HandleId>,
    /// `pod`, `namespace`, `node`, `type`, `timestamp`.
    pub attributes: BTreeMap<String, String>,
}

impl Owner {
    pub fn pod(&self) -> Option<&str> {
        self.attribute("pod")
    }

    pub fn namespace(&self) -> Option<&str> {
        self.attribute("namespace")
    }

    pub fn node(&self) -> Option<&str> {
        self.attribute("node")
    }

    /// `vxlanTunnelAddress` and its like; a pod's has none.
    pub fn kind(&self) -> Option<&str> {
        self.attribute("type")
    }

    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
}

/// What is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockFault {
    #[error(transparent)]
    Len(#[from] PoolFault),
    #[error("ordinal {ordinal} is beyond the {size} addresses of {cidr}")]
    Beyond { ordinal: Ordinal, size: u16, cidr: Prefix },
    #[error("ordinal {0} is both allocated and unallocated")]
    TakenAndFree(Ordinal),
    #[error("ordinal {0} is twice among the unallocated")]
    FreeTwice(Ordinal),
    #[error("ordinal {ordinal} has attribute {owner}, and there are {owners}")]
    NoOwner { ordinal: Ordinal, owner: usize, owners: usize },
}

impl IpamBlock {
    /// # Errors
    ///
    /// Every fault at once.
    pub fn new(parts: BlockParts) -> Result<Self, Vec<BlockFault>> {
        let size = size_of(parts.cidr).map_err(|fault| vec![fault.into()])?;
        let mut faults = Vec::new();
        let beyond = |ordinal: Ordinal| BlockFault::Beyond { ordinal, size, cidr: parts.cidr };
        for (&ordinal, allocation) in &parts.taken {
            if ordinal.0 >= size {
                faults.push(beyond(ordinal));
            }
            let (owner, owners) = (allocation.owner, parts.owners.len());
            if owner >= owners {
                faults.push(BlockFault::NoOwner { ordinal, owner, owners });
            }
        }
        let mut seen = BTreeSet::new();
        for &ordinal in &parts.free {
            if ordinal.0 >= size {
                faults.push(beyond(ordinal));
            }
            if !seen.insert(ordinal) {
                faults.push(BlockFault::FreeTwice(ordinal));
            } else if parts.taken.contains_key(&ordinal) {
                faults.push(BlockFault::TakenAndFree(ordinal));
            }
        }
        if faults.is_empty() { Ok(Self(parts)) } else { Err(faults) }
    }

    pub const fn parts(&self) -> &BlockParts {
        &self.0
    }

    /// For a change; [`IpamBlock::new`] checks it again.
    pub fn into_parts(self) -> BlockParts {
        self.0
    }

    pub const fn cidr(&self) -> Prefix {
        self.0.cidr
    }

    pub const fn affinity(&self) -> Option<&Affinity> {
        self.0.affinity.as_ref()
    }

    /// How many addresses it has.
    pub fn size(&self) -> u16 {
        size_of(self.0.cidr).unwrap_or_default()
    }

    pub fn addr(&self, ordinal: Ordinal) -> Option<IpAddr> {
        self.0.cidr.nth(ordinal.0.into())
    }

    pub fn ordinal(&self, addr: IpAddr) -> Option<Ordinal> {
        let offset = self.0.cidr.offset_of(addr)?;
        u16::try_from(offset).ok().map(Ordinal)
    }

    /// Who has an address of ours.
    pub fn owner(&self, ordinal: Ordinal) -> Option<&Owner> {
        self.0.taken.get(&ordinal).and_then(|taken| self.0.owners.get(taken.owner))
    }

    /// Addresses that are taken by another node than the block's.
    pub fn borrowed(&self) -> impl Iterator<Item = (IpAddr, &Owner)> {
        let host = self.affinity().and_then(Affinity::host);
        self.0.taken.keys().filter_map(move |ordinal| {
            let owner = self.owner(*ordinal)?;
            let own = host.is_some_and(|host| owner.node() == Some(host.as_str()));
            if own { None } else { self.addr(*ordinal).map(|addr| (addr, owner)) }
        })
    }

    /// Addresses that are neither taken nor free.
    pub fn lost(&self) -> impl Iterator<Item = Ordinal> {
        let free: BTreeSet<_> = self.0.free.iter().copied().collect();
        let all = (0..self.size()).map(Ordinal);
        all.filter(move |ordinal| !free.contains(ordinal) && !self.0.taken.contains_key(ordinal))
    }
}

/// The checked length leaves at most 12 bits.
fn size_of(cidr: Prefix) -> Result<u16, PoolFault> {
    let len = BlockLen::new(cidr.family(), cidr.len().into())?;
    Ok(1 << (cidr.family().bits() - len.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_free_or_lost() {
        let block = IpamBlock::new(parts()).unwrap();
        assert_eq!(block.size(), 4);
        assert_eq!(block.addr(Ordinal(1)), Some([10, 0, 0, 5].into()));
        assert_eq!(block.ordinal([10, 0, 0, 5].into()), Some(Ordinal(1)));
        assert_eq!(block.owner(Ordinal(1)).unwrap().node(), Some("other"));
        assert_eq!(block.lost().collect::<Vec<_>>(), [Ordinal(2)]);
        let borrowed: Vec<_> = block.borrowed().map(|(addr, _)| addr.to_string()).collect();
        assert_eq!(borrowed, ["10.0.0.5"]);
    }

    #[test]
    fn every_fault_of_a_block_is_told() {
        let mut bad = parts();
        bad.free = vec![Ordinal(0), Ordinal(3), Ordinal(3), Ordinal(4)];
        bad.taken.insert(Ordinal(2), Allocation { owner: 9, sequence: None });
        let faults = IpamBlock::new(bad).unwrap_err();
        assert_eq!(
            faults,
            [
                BlockFault::NoOwner { ordinal: Ordinal(2), owner: 9, owners: 2 },
                BlockFault::TakenAndFree(Ordinal(0)),
                BlockFault::FreeTwice(Ordinal(3)),
                BlockFault::Beyond { ordinal: Ordinal(4), size: 4, cidr: parts().cidr },
            ]
        );
    }

    #[test]
    fn a_block_has_at_most_4096_addresses() {
        let mut large = parts();
        large.cidr = "10.0.0.0/19".parse().unwrap();
        assert!(matches!(IpamBlock::new(large).unwrap_err()[..], [BlockFault::Len(_)]));
        let mut largest = parts();
        largest.cidr = "fd00::/116".parse().unwrap();
        assert_eq!(IpamBlock::new(largest).unwrap().size(), 4_096);
    }

    fn parts() -> BlockParts {
        let owner = |node: &str| Owner {
            handle: None,
            attributes: BTreeMap::from([("node".to_owned(), node.to_owned())]),
        };
        let taken = |owner| Allocation { owner, sequence: Some(7) };
        BlockParts {
            cidr: "10.0.0.4/30".parse().unwrap(),
            affinity: Some("host:node-1".parse().unwrap()),
            taken: BTreeMap::from([(Ordinal(0), taken(0)), (Ordinal(1), taken(1))]),
            free: vec![Ordinal(3)],
            owners: vec![owner("node-1"), owner("other")],
            sequence: 8,
            deleted: false,
        }
    }
}
