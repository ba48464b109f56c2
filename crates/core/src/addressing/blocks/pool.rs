//! What is cut into blocks, and what of it nobody may have.

use std::net::IpAddr;

use russet_net::{Family, Prefix};

/// A pool and the length of its blocks' prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockPool {
    cidr: Prefix,
    block_len: u8,
}

/// Why a pool cannot be cut into blocks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("block size {len} of pool {cidr} is not within {min} to {max}")]
    BlockSize { cidr: Prefix, len: u8, min: u8, max: u8 },
    #[error("pool {cidr} is smaller than one block of /{len}")]
    TooSmall { cidr: Prefix, len: u8 },
}

impl BlockPool {
    /// # Errors
    ///
    /// When the block length is out of its family's range, or the pool is smaller than one block.
    pub fn new(cidr: Prefix, block_len: u8) -> Result<Self, PoolError> {
        let (min, max) = block_lens(cidr.family());
        if !(min..=max).contains(&block_len) {
            return Err(PoolError::BlockSize { cidr, len: block_len, min, max });
        }
        if block_len < cidr.len() {
            return Err(PoolError::TooSmall { cidr, len: block_len });
        }
        Ok(Self { cidr, block_len })
    }

    pub const fn cidr(self) -> Prefix {
        self.cidr
    }

    pub const fn block_len(self) -> u8 {
        self.block_len
    }

    pub fn family(self) -> Family {
        self.cidr.family()
    }

    /// How many addresses a block has: at most [`MOST_ADDRESSES`].
    pub fn block_size(self) -> usize {
        1 << (self.family().bits() - self.block_len).min(12)
    }

    /// The base-2 logarithm of the number of blocks.
    pub fn index_bits(self) -> u8 {
        self.block_len - self.cidr.len()
    }

    /// The block number `index`, or `None` beyond the last.
    pub fn block(self, index: u128) -> Option<Prefix> {
        let shift = u32::from(self.family().bits() - self.block_len);
        let base = self.cidr.nth(index.checked_shl(shift).filter(|n| n >> shift == index)?)?;
        Prefix::new(base, self.block_len).ok()
    }

    /// The block that an address lies in, when it is one of this pool's.
    pub fn block_of(self, addr: IpAddr) -> Option<Prefix> {
        self.cidr.contains(addr).then(|| Prefix::around(addr, self.block_len).ok()).flatten()
    }

    /// Whether a block is one that this pool is cut into.
    pub fn gives(self, block: Prefix) -> bool {
        block.len() == self.block_len && self.cidr.covers(block)
    }
}

/// The shortest and the longest prefix of a block.
pub const fn block_lens(family: Family) -> (u8, u8) {
    match family {
        Family::V4 => (20, 32),
        Family::V6 => (116, 128),
    }
}

/// How many addresses the largest block has.
pub const MOST_ADDRESSES: usize = 4_096;

/// Addresses that are handed out to nobody (`IPReservation`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved(Vec<Prefix>);

impl Reserved {
    pub const fn new(prefixes: Vec<Prefix>) -> Self {
        Self(prefixes)
    }

    pub fn contains(&self, addr: IpAddr) -> bool {
        self.0.iter().any(|prefix| prefix.contains(addr))
    }

    /// Whether nothing of a block is left.
    pub fn covers(&self, block: Prefix) -> bool {
        self.0.iter().any(|prefix| prefix.covers(block))
    }

    pub fn touches(&self, block: Prefix) -> bool {
        self.0.iter().any(|prefix| prefix.overlaps(block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_cut_within_its_family_s_range() {
        let pool = |cidr: &str, len| BlockPool::new(cidr.parse().unwrap(), len);
        assert!(pool("10.0.0.0/16", 26).is_ok());
        assert!(matches!(pool("10.0.0.0/8", 19), Err(PoolError::BlockSize { min: 20, .. })));
        assert!(matches!(pool("fd00::/64", 115), Err(PoolError::BlockSize { max: 128, .. })));
        assert!(matches!(pool("10.0.0.0/27", 26), Err(PoolError::TooSmall { .. })));
        assert_eq!(pool("10.0.0.0/16", 20).unwrap().block_size(), MOST_ADDRESSES);
        assert_eq!(pool("fd00::/64", 122).unwrap().block_size(), 64);
    }

    #[test]
    fn blocks_are_counted_from_the_base() {
        let pool = BlockPool::new("10.0.0.0/16".parse().unwrap(), 26).unwrap();
        assert_eq!(pool.block(3), "10.0.0.192/26".parse().ok());
        assert_eq!(pool.block(1_023), "10.0.255.192/26".parse().ok());
        assert_eq!(pool.block(1_024), None);
        assert_eq!(pool.block(u128::MAX), None);
        assert_eq!(pool.block_of([10, 0, 0, 200].into()), pool.block(3));
        assert_eq!(pool.block_of([10, 1, 0, 0].into()), None);
        assert!(!pool.gives("10.0.0.0/25".parse().unwrap()));
        let all = BlockPool::new("::/0".parse().unwrap(), 128).unwrap();
        assert_eq!(
            all.block(u128::MAX).map(Prefix::addr),
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().ok()
        );
    }
}
