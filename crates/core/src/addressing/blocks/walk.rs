//! In which order a node looks for a block in a pool.
//!
//! The order follows from the node's name: the same at each start, and so different from node to node that two
//! which look at once seldom meet, and when they do, part at the next step. A pool may have 2^128 blocks and
//! is never listed: the walk starts somewhere and takes steps of an odd width, which by the number of blocks,
//! a power of two, comes to each block once.

use std::{collections::BTreeMap, hash::Hasher};

use russet_net::Prefix;

use super::{
    name::Name,
    pool::{BlockPool, Reserved, block_lens},
};

/// The blocks of one pool, each once, in a node's order.
#[derive(Clone, Debug)]
pub struct Walk {
    pool: BlockPool,
    at: u128,
    step: u128,
    mask: u128,
    /// How many are still to come, less one; `None` when none is.
    left: Option<u128>,
}

impl Walk {
    pub fn new(pool: BlockPool, node: &Name) -> Self {
        let bits = u32::from(pool.index_bits());
        let mask = u128::MAX.checked_shr(128 - bits).unwrap_or(0);
        let seed = |salt: u64| {
            let (high, low) = (hash(node, pool.cidr(), salt), hash(node, pool.cidr(), salt + 1));
            u128::from(high) << 64 | u128::from(low)
        };
        Self { pool, at: seed(0) & mask, step: (seed(2) | 1) & mask, mask, left: Some(mask) }
    }
}

impl Iterator for Walk {
    type Item = Prefix;

    fn next(&mut self) -> Option<Prefix> {
        let left = self.left?;
        self.left = left.checked_sub(1);
        let block = self.pool.block(self.at);
        self.at = self.at.wrapping_add(self.step) & self.mask;
        block
    }
}

/// The first block of a pool that does not exist yet and is not reserved whole.
///
/// Among as many blocks as exist, and one more, is one that does not. What is reserved, or lies in a block from
/// when the pool was cut otherwise, is passed over, up to a bound: a pool of which almost nothing is left is
/// treated as full.
pub fn free_block<T>(
    pool: BlockPool,
    node: &Name,
    exists: &BTreeMap<Prefix, T>,
    reserved: &Reserved,
) -> Option<Prefix> {
    let most = exists.len().saturating_add(MOST_PASSED_OVER);
    Walk::new(pool, node)
        .take(most)
        .find(|block| overlapping(*block, exists).is_none() && !reserved.covers(*block))
}

/// A block that exists and has addresses of this one: itself, or one of another size.
pub fn overlapping<T>(block: Prefix, exists: &BTreeMap<Prefix, T>) -> Option<Prefix> {
    let (shortest, _) = block_lens(block.family());
    let around = (shortest..=block.len()).filter_map(|len| Prefix::around(block.addr(), len).ok());
    let within = exists.range(block..).next().map(|(other, _)| *other);
    around
        .filter(|other| exists.contains_key(other))
        .chain(within.filter(|other| block.covers(*other)))
        .next()
}

/// A number that puts others' blocks into an order of this node's own, to borrow from.
pub fn rank(node: &Name, block: Prefix) -> u64 {
    hash(node, block, 4)
}

/// FNV-1a, which stays the same from version to version, with a mixing step at the end.
fn hash(node: &Name, prefix: Prefix, salt: u64) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325 ^ salt);
    hasher.write(node.as_str().as_bytes());
    match prefix.addr() {
        std::net::IpAddr::V4(addr) => hasher.write(&addr.octets()),
        std::net::IpAddr::V6(addr) => hasher.write(&addr.octets()),
    }
    hasher.write(&[prefix.len()]);
    crate::addressing::node_subnet::Random::new(hasher.finish()).next()
}

struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// How many blocks that do not exist and cannot be had a search passes over.
const MOST_PASSED_OVER: usize = 65_536;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_walk_comes_to_each_block_once(bits in 0_u8..=12, len in 20_u8..=32, name in "[a-z]{1,9}") {
            prop_assume!(len >= bits);
            let cidr = Prefix::around("10.0.0.0".parse().unwrap(), len - bits).unwrap();
            let pool = BlockPool::new(cidr, len).unwrap();
            let seen: Vec<_> = Walk::new(pool, &name.parse().unwrap()).collect();
            prop_assert_eq!(seen.len(), 1 << bits);
            prop_assert!(seen.iter().all(|block| pool.gives(*block)));
            prop_assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), 1 << bits);
        }
    }

    #[test]
    fn nodes_that_start_together_seldom_look_at_the_same_block_first() {
        let pool = pool("10.0.0.0/8", 26);
        let firsts: BTreeSet<_> =
            (0..500).filter_map(|n| Walk::new(pool, &node(n)).next()).collect();
        assert!(firsts.len() > 490, "{}", firsts.len());
        // Two that meet part at the next step, so a small pool is not fought over in step.
        let small = self::pool("10.0.0.0/20", 26);
        let orders: BTreeSet<Vec<_>> =
            (0..500).map(|n| Walk::new(small, &node(n)).take(3).collect()).collect();
        assert!(orders.len() > 400, "{}", orders.len());
    }

    #[test]
    fn the_largest_and_the_smallest_pool_are_walked_without_a_list() {
        let all = pool("::/0", 128);
        let blocks: BTreeSet<_> = Walk::new(all, &node(1)).take(1_000).collect();
        assert_eq!(blocks.len(), 1_000);
        let one = pool("10.0.0.0/26", 26);
        assert_eq!(Walk::new(one, &node(1)).collect::<Vec<_>>(), ["10.0.0.0/26".parse().unwrap()]);
        assert_eq!(Walk::new(pool("fd00::/64", 116), &node(1)).next().map(Prefix::len), Some(116));
    }

    #[test]
    fn a_free_block_is_found_when_there_is_one_and_reserved_ones_are_not() {
        let pool = pool("10.0.0.0/24", 28);
        let mut exists: BTreeMap<_, _> =
            Walk::new(pool, &node(2)).map(|block| (block, 0)).collect();
        assert_eq!(free_block(pool, &node(1), &exists, &Reserved::default()), None);
        let last: Prefix = "10.0.0.64/28".parse().unwrap();
        exists.remove(&last);
        assert_eq!(free_block(pool, &node(1), &exists, &Reserved::default()), Some(last));
        let reserved = Reserved::new(vec!["10.0.0.64/27".parse().unwrap()]);
        assert_eq!(free_block(pool, &node(1), &exists, &reserved), None);
    }

    #[test]
    fn a_pool_that_was_cut_otherwise_before_gives_no_address_twice() {
        let pool = pool("10.0.0.0/25", 27);
        let blocks = |texts: &[&str]| -> BTreeMap<Prefix, u8> {
            texts.iter().map(|text| (text.parse().unwrap(), 0)).collect()
        };
        let larger = blocks(&["10.0.0.0/26", "10.0.0.96/28"]);
        let free = free_block(pool, &node(1), &larger, &Reserved::default());
        assert_eq!(free, "10.0.0.64/27".parse().ok());
        let all = blocks(&["10.0.0.0/26", "10.0.0.80/28", "10.0.0.112/28"]);
        assert_eq!(free_block(pool, &node(1), &all, &Reserved::default()), None);
    }

    fn pool(cidr: &str, len: u8) -> BlockPool {
        BlockPool::new(cidr.parse().unwrap(), len).unwrap()
    }

    fn node(n: usize) -> Name {
        format!("node-{n}").parse().unwrap()
    }
}
