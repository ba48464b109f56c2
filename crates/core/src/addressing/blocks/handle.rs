//! The index by owner: in which blocks a handle has addresses, and how many.
//!
//! It is written before the block when an address is taken, and after it when one is released. So a crash
//! leaves a count that is too high, never one that is too low: whoever releases by handle looks into a block
//! in vain, and the collector puts the count right.
//!
//! A count is set to what it should be, not raised by one: a write whose answer was lost can be made again.

use std::collections::BTreeMap;

use russet_net::Prefix;

/// How many addresses a handle has in each block. A handle without any is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handle {
    counts: BTreeMap<Prefix, u32>,
}

impl Handle {
    /// Counts of zero are left out.
    pub fn new(counts: impl IntoIterator<Item = (Prefix, u32)>) -> Self {
        Self { counts: counts.into_iter().filter(|(_, count)| *count > 0).collect() }
    }

    pub fn count(&self, block: Prefix) -> u32 {
        self.counts.get(&block).copied().unwrap_or_default()
    }

    pub fn total(&self) -> u32 {
        self.counts.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    pub fn blocks(&self) -> impl Iterator<Item = (Prefix, u32)> {
        self.counts.iter().map(|(block, count)| (*block, *count))
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The same with another count for one block.
    #[must_use]
    pub fn with(&self, block: Prefix, count: u32) -> Self {
        let mut next = self.clone();
        match count {
            0 => _ = next.counts.remove(&block),
            count => _ = next.counts.insert(block, count),
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_without_addresses_is_empty() {
        let block = "10.0.0.0/26".parse().unwrap();
        let one = Handle::default().with(block, 2);
        assert_eq!((one.count(block), one.total()), (2, 2));
        assert!(one.with(block, 0).is_empty());
        assert!(Handle::new([(block, 0)]).is_empty());
    }
}
