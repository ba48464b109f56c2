//! What of a pool is in use, and what of it may not change while it is.
//!
//! A block that is there keeps its size and its place, whatever its pool says later: a pool that moves away from
//! under its blocks has addresses in use that belong to no pool, and are neither routed nor handed out again.

use std::{collections::BTreeMap, fmt};

use russet_net::Prefix;

use super::{Affinity, BlockLen, IpPool, IpamBlock};

/// What is taken of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    pub blocks: usize,
    pub addresses: usize,
    /// How many of the addresses each node has; those of no node are under the empty name.
    pub nodes: BTreeMap<String, usize>,
}

impl PoolUse {
    /// Counts the blocks that lie in a prefix, or around it.
    pub fn of<'a>(cidr: Prefix, blocks: impl IntoIterator<Item = &'a IpamBlock>) -> Self {
        let mut used = Self::default();
        for block in blocks.into_iter().filter(|block| block.cidr().overlaps(cidr)) {
            used.blocks += 1;
            let home = block.affinity().and_then(Affinity::host).map(ToString::to_string);
            for (_, by) in block.allocated() {
                used.addresses += 1;
                let node = by.node().map(str::to_owned);
                *used
                    .nodes
                    .entry(node.or_else(|| home.clone()).unwrap_or_default())
                    .or_default() += 1;
            }
        }
        used
    }
}

/// `12 addresses in 3 blocks, on node-1 (7), node-2 (5)`.
impl fmt::Display for PoolUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ending = |n: usize, one: &'static str, more| if n == 1 { one } else { more };
        let (addresses, blocks) = (self.addresses, self.blocks);
        write!(f, "{addresses} address{} in ", ending(addresses, "", "es"))?;
        write!(f, "{blocks} block{}", ending(blocks, "", "s"))?;
        for (i, (node, count)) in self.nodes.iter().take(MOST_NODES).enumerate() {
            let node = if node.is_empty() { "no node" } else { node };
            write!(f, "{}{node} ({count})", if i == 0 { ", on " } else { ", " })?;
        }
        match self.nodes.len().checked_sub(MOST_NODES) {
            Some(more) if more > 0 => write!(f, " and {more} more nodes"),
            _ => Ok(()),
        }
    }
}

/// More are not named in one line.
const MOST_NODES: usize = 8;

/// A change that a pool's blocks do not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolInUse {
    #[error(
        "{cidr} has {used}; a pool in use keeps its cidr: make a new pool, disable this one, and delete it when its pods are gone"
    )]
    Cidr { cidr: Prefix, used: PoolUse },
    #[error(
        "blocks of /{} are there ({used}), and they keep their size: make a new pool with the other", before.get()
    )]
    BlockLen { before: BlockLen, used: PoolUse },
    #[error("{cidr} has {used}; disable the pool, and delete it when its pods are gone")]
    Removed { cidr: Prefix, used: PoolUse },
}

/// What a pool's blocks do not allow of a change.
pub fn check_change(before: &IpPool, after: &IpPool, used: &PoolUse) -> Vec<PoolInUse> {
    let mut faults = Vec::new();
    if used.blocks == 0 {
        return faults;
    }
    if before.cidr() != after.cidr() {
        faults.push(PoolInUse::Cidr { cidr: before.cidr(), used: used.clone() });
    }
    let len = before.block_len();
    // A pool of the other family has other lengths, and its cidr is told above.
    if len != after.block_len() && len.family() == after.family() {
        faults.push(PoolInUse::BlockLen { before: len, used: used.clone() });
    }
    faults
}

/// What a pool's addresses do not allow of its removal. Blocks without any are no hindrance.
pub fn check_removal(pool: &IpPool, used: &PoolUse) -> Option<PoolInUse> {
    let in_use = used.addresses > 0;
    in_use.then(|| PoolInUse::Removed { cidr: pool.cidr(), used: used.clone() })
}

#[cfg(test)]
mod tests {
    use russet_desired::Flag;

    use super::*;
    use crate::{
        addressing::blocks::{Claimant, Reserved, Timestamp},
        model::calico::Encapsulation,
    };

    #[test]
    fn addresses_are_counted_by_who_has_them() {
        let blocks = [block("10.0.0.0/30", "a", &["a", "b"]), block("10.9.0.0/30", "a", &["a"])];
        let used = PoolUse::of("10.0.0.0/16".parse().unwrap(), &blocks);
        assert_eq!(used.to_string(), "2 addresses in 1 block, on a (1), b (1)");
        // A pool that was made smaller than its block is in use, too.
        assert_eq!(PoolUse::of("10.0.0.2/31".parse().unwrap(), &blocks).blocks, 1);
        assert_eq!(PoolUse::of("10.1.0.0/16".parse().unwrap(), &blocks), PoolUse::default());
    }

    #[test]
    fn a_pool_with_blocks_keeps_its_place_and_their_size() {
        let blocks = [block("10.0.0.0/26", "a", &[])];
        let used = PoolUse::of("10.0.0.0/16".parse().unwrap(), &blocks);
        let before = pool("10.0.0.0/16", 26);
        assert_eq!(check_change(&before, &before, &used), []);
        assert_eq!(check_change(&before, &pool("10.0.0.0/15", 27), &used).len(), 2);
        assert_eq!(check_change(&before, &pool("10.0.0.0/15", 27), &PoolUse::default()), []);
        // Nobody has an address of it.
        assert_eq!(check_removal(&before, &used), None);
    }

    #[test]
    fn a_pool_with_addresses_stays() {
        let blocks = [block("10.0.0.0/26", "a", &["b"])];
        let used = PoolUse::of("10.0.0.0/16".parse().unwrap(), &blocks);
        let told = check_removal(&pool("10.0.0.0/16", 26), &used).unwrap().to_string();
        assert!(told.contains("10.0.0.0/16 has 1 address in 1 block, on b (1)"), "{told}");
    }

    fn pool(cidr: &str, len: u64) -> IpPool {
        let cidr: Prefix = cidr.parse().unwrap();
        let len = BlockLen::new(cidr.family(), len).unwrap();
        IpPool::new(cidr, Some(len), Encapsulation::None, Flag::Off).unwrap()
    }

    /// A block whose first addresses these nodes have.
    fn block(cidr: &str, host: &str, nodes: &[&str]) -> IpamBlock {
        let affinity = Some(Affinity::Host(host.parse().unwrap()));
        let empty = IpamBlock::new(cidr.parse().unwrap(), affinity, Timestamp::default()).unwrap();
        nodes.iter().fold(empty, |block, node| {
            let secondary = [("node".to_owned(), (*node).to_owned())].into();
            let who = Claimant { handle: node.parse().unwrap(), secondary };
            block.take(1, &who, &Reserved::default(), Timestamp::default()).0
        })
    }
}
