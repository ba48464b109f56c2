//! A block that was read is believed only whole: every fault of it is told, and one fault refuses it.
//!
//! What older versions are known to leave behind is no fault: attributes that nobody uses, numbers of
//! addresses that are free, allocations without a number, addresses that are neither taken nor free
//! ([`Block::lost`]), which are given to nobody.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
};

use russet_net::Prefix;

use super::{
    block::{Attributes, Block, size_of},
    name::Affinity,
};

/// A block as it was read, with nothing checked but its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawBlock {
    pub cidr: Prefix,
    pub affinity: Option<String>,
    pub allocations: Vec<Option<i64>>,
    pub unallocated: Vec<i64>,
    pub attributes: Vec<Attributes>,
    pub sequence: u64,
    /// Ordinal and number; an ordinal that is no number at all is -1 here.
    pub given_at: Vec<(i64, u64)>,
    pub deleted: bool,
}

/// One thing that is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockFault {
    #[error("{0} has not the size of a block, /20 to /32 for IPv4 and /116 to /128 for IPv6")]
    Size(Prefix),
    #[error("{0}")]
    Affinity(String),
    #[error("{is} elements are not the {wanted} addresses of the block")]
    Length { is: usize, wanted: usize },
    #[error("ordinal {ordinal} has attribute {index}, and there are {attributes}")]
    Index { ordinal: usize, index: i64, attributes: usize },
    #[error("ordinal {0} is no address of the block")]
    FreeOutside(i64),
    #[error("ordinal {0} is twice among the unallocated")]
    FreeTwice(usize),
    #[error("ordinal {0} is both allocated and unallocated")]
    Both(usize),
    #[error("{0} is no ordinal of the block")]
    NumberOutside(i64),
    #[error("ordinal {0} has two numbers")]
    NumberTwice(usize),
}

/// All faults of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFaults(pub Vec<BlockFault>);

impl std::error::Error for BlockFaults {}

impl fmt::Display for BlockFaults {
    /// A block of 4,096 addresses can have as many faults; a line shows the first few.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().take(SHOWN).enumerate() {
            let sep = if i == 0 { "" } else { "; " };
            write!(f, "{sep}{fault}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

const SHOWN: usize = 8;

impl TryFrom<RawBlock> for Block {
    type Error = BlockFaults;

    fn try_from(raw: RawBlock) -> Result<Self, BlockFaults> {
        let Some(size) = size_of(raw.cidr) else {
            return Err(BlockFaults(vec![BlockFault::Size(raw.cidr)]));
        };
        let mut faults = Faults { size, list: Vec::new() };
        let affinity = faults.affinity(raw.affinity.as_deref());
        let allocations = faults.allocations(&raw);
        let unallocated = faults.unallocated(&raw.unallocated, &allocations);
        let mut numbers = faults.numbers(&raw.given_at);
        if !faults.list.is_empty() {
            return Err(BlockFaults(faults.list));
        }
        numbers.retain(|(ordinal, _)| allocations.get(*ordinal).is_some_and(Option::is_some));
        Ok(Self {
            cidr: raw.cidr,
            affinity,
            allocations,
            unallocated,
            attributes: raw.attributes,
            sequence: raw.sequence,
            given_at: numbers.into_iter().collect(),
            deleted: raw.deleted,
        })
    }
}

impl From<&Block> for RawBlock {
    fn from(block: &Block) -> Self {
        // An ordinal is below 4,096, and so is an index of attributes that are in use.
        let raw = |n: &usize| i64::try_from(*n).unwrap_or(i64::MAX);
        Self {
            cidr: block.cidr,
            affinity: block.affinity.as_ref().map(ToString::to_string),
            allocations: block.allocations.iter().map(|slot| slot.as_ref().map(raw)).collect(),
            unallocated: block.unallocated.iter().map(raw).collect(),
            attributes: block.attributes.clone(),
            sequence: block.sequence,
            given_at: block.given_at.iter().map(|(n, number)| (raw(n), *number)).collect(),
            deleted: block.deleted,
        }
    }
}

struct Faults {
    size: usize,
    list: Vec<BlockFault>,
}

impl Faults {
    fn affinity(&mut self, text: Option<&str>) -> Option<Affinity> {
        match text?.parse() {
            Ok(affinity) => Some(affinity),
            Err(err) => {
                self.list.push(BlockFault::Affinity(err.to_string()));
                None
            }
        }
    }

    fn allocations(&mut self, raw: &RawBlock) -> Vec<Option<usize>> {
        if raw.allocations.len() != self.size {
            let is = raw.allocations.len();
            self.list.push(BlockFault::Length { is, wanted: self.size });
        }
        let attributes = raw.attributes.len();
        let mut checked = Vec::with_capacity(self.size);
        for (ordinal, index) in raw.allocations.iter().take(self.size).enumerate() {
            let index = index.map(|index| {
                usize::try_from(index).ok().filter(|n| *n < attributes).unwrap_or_else(|| {
                    self.list.push(BlockFault::Index { ordinal, index, attributes });
                    0
                })
            });
            checked.push(index);
        }
        checked
    }

    fn unallocated(&mut self, raw: &[i64], allocations: &[Option<usize>]) -> VecDeque<usize> {
        let mut free = BTreeSet::new();
        let mut queue = VecDeque::new();
        for ordinal in raw {
            match self.ordinal(*ordinal) {
                None => self.list.push(BlockFault::FreeOutside(*ordinal)),
                Some(n) if !free.insert(n) => self.list.push(BlockFault::FreeTwice(n)),
                Some(n) => queue.push_back(n),
            }
        }
        let taken = allocations.iter().enumerate().filter(|(_, slot)| slot.is_some());
        let both = taken.map(|(ordinal, _)| ordinal).filter(|ordinal| free.contains(ordinal));
        self.list.extend(both.map(BlockFault::Both));
        queue
    }

    fn numbers(&mut self, raw: &[(i64, u64)]) -> Vec<(usize, u64)> {
        let mut seen = BTreeSet::new();
        let mut numbers = Vec::new();
        for (ordinal, number) in raw {
            match self.ordinal(*ordinal) {
                None => self.list.push(BlockFault::NumberOutside(*ordinal)),
                Some(n) if !seen.insert(n) => self.list.push(BlockFault::NumberTwice(n)),
                Some(n) => numbers.push((n, *number)),
            }
        }
        numbers
    }

    fn ordinal(&self, raw: i64) -> Option<usize> {
        usize::try_from(raw).ok().filter(|n| *n < self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{name::Timestamp, pool::Reserved},
        *,
    };

    #[test]
    fn every_fault_of_a_hostile_block_is_told() {
        let mut raw = good();
        raw.affinity = Some("n1".to_owned());
        raw.allocations = vec![Some(7), Some(0), None];
        raw.unallocated = vec![1, 1, -1, 99];
        raw.given_at = vec![(0, 1), (0, 2), (4, 3), (-1, 3)];
        let faults = Block::try_from(raw).unwrap_err().0;
        assert!(matches!(faults[0], BlockFault::Affinity(_)));
        assert_eq!(
            faults[1..],
            [
                BlockFault::Length { is: 3, wanted: 4 },
                BlockFault::Index { ordinal: 0, index: 7, attributes: 1 },
                BlockFault::FreeTwice(1),
                BlockFault::FreeOutside(-1),
                BlockFault::FreeOutside(99),
                BlockFault::Both(1),
                BlockFault::NumberTwice(0),
                BlockFault::NumberOutside(4),
                BlockFault::NumberOutside(-1),
            ]
        );
    }

    #[test]
    fn what_old_versions_leave_behind_is_no_fault() {
        let mut raw = good();
        raw.attributes.push(Attributes::default());
        // A number of a free address, and none of the one that is taken.
        raw.given_at = vec![(3, 9)];
        let block = Block::try_from(raw).unwrap();
        assert!(block.given_at.is_empty());
        let (next, _) = block.keep(&"h".parse().unwrap()).unwrap();
        assert_eq!(next.attributes.len(), 1, "the next write tidies up");
    }

    #[test]
    fn an_address_that_is_neither_taken_nor_free_is_lost_and_never_given() {
        let block = Block::try_from(RawBlock { unallocated: vec![3, 1], ..good() }).unwrap();
        assert_eq!(block.lost().collect::<Vec<_>>(), [std::net::IpAddr::from([10, 0, 0, 2])]);
        let who = super::super::block::Claimant {
            handle: "other".parse().unwrap(),
            secondary: std::collections::BTreeMap::new(),
        };
        let (next, given) = block.take(9, &who, &Reserved::default(), Timestamp::default());
        assert_eq!(given.len(), 2);
        assert_eq!(next.lost().count(), 1);
    }

    #[test]
    fn a_block_of_no_block_s_size_is_refused_before_anything_is_counted() {
        let raw = RawBlock { cidr: "10.0.0.0/8".parse().unwrap(), ..good() };
        assert!(matches!(Block::try_from(raw).unwrap_err().0[..], [BlockFault::Size(_)]));
    }

    #[test]
    fn a_line_of_a_thousand_faults_is_short() {
        let raw = RawBlock { unallocated: vec![-1; 1_000], ..good() };
        let line = Block::try_from(raw).unwrap_err().to_string();
        assert!(line.ends_with("more") && line.len() < 700, "{line}");
    }

    fn good() -> RawBlock {
        let handle = "h".parse().ok();
        RawBlock {
            cidr: "10.0.0.0/30".parse().unwrap(),
            affinity: Some("host:n1".to_owned()),
            allocations: vec![Some(0), None, None, None],
            unallocated: vec![1, 2, 3],
            attributes: vec![Attributes { handle, ..Attributes::default() }],
            sequence: 5,
            given_at: vec![(0, 4)],
            deleted: false,
        }
    }
}
