//! What a node puts back into a store that has lost it: its blocks, with the addresses that somebody here lives with.
//!
//! It only adds to what is there. A block that exists, or overlaps one that does, is left as it is, whose ever it is; a block
//! is put back as it was cut, or not at all. An address is in it only when its handle counts it, so that no count is too low.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use russet_net::Prefix;

use super::{
    block::{Block, Claimant},
    handle::Handle,
    name::{Affinity, HandleId, Name, Timestamp},
    pool::{BlockPool, Reserved},
};

/// Somebody who lives with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    pub addr: IpAddr,
    pub who: Claimant,
}

/// What the store has now.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    pub pools: &'a [BlockPool],
    /// The blocks that exist: those at least that overlap this node's.
    pub blocks: &'a BTreeSet<Prefix>,
}

/// A block that is to be put back, and who lives in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lot {
    pub cidr: Prefix,
    pub tenants: Vec<Tenant>,
}

impl Found<'_> {
    /// Whether a pool is cut so that it gives the block.
    pub fn gives(&self, cidr: Prefix) -> bool {
        self.pools.iter().any(|pool| pool.gives(cidr))
    }

    fn is_free(&self, cidr: Prefix) -> bool {
        !self.blocks.iter().any(|other| other.overlaps(cidr))
    }
}

/// The blocks among a node's own that the store lacks. One that nobody lives in is claimed anew when it is needed.
pub fn lots(own: &BTreeSet<Prefix>, tenants: &[Tenant], found: Found<'_>) -> Vec<Lot> {
    let lot = |cidr: Prefix| {
        let tenants = tenants.iter().filter(|tenant| cidr.contains(tenant.addr));
        Lot { cidr, tenants: tenants.cloned().collect() }
    };
    let lacking = own.iter().copied().filter(|cidr| found.gives(*cidr) && found.is_free(*cidr));
    lacking.map(lot).filter(|lot| !lot.tenants.is_empty()).collect()
}

/// What each handle has in a node's own blocks. A handle is created once, so that it counts the blocks too that have no pool
/// yet: a count that is too high is put right by the collector.
pub fn counts(own: &BTreeSet<Prefix>, tenants: &[Tenant]) -> BTreeMap<HandleId, Handle> {
    let mut all: BTreeMap<HandleId, Handle> = BTreeMap::new();
    for Tenant { addr, who } in tenants {
        let Some(cidr) = own.iter().copied().find(|cidr| cidr.contains(*addr)) else { continue };
        let handle = all.entry(who.handle.clone()).or_default();
        *handle = handle.with(cidr, handle.count(cidr).saturating_add(1));
    }
    all
}

impl Lot {
    /// The block as it is to be created; `None` when no handle counts it.
    pub fn block(
        &self,
        node: &Name,
        counted: &BTreeMap<HandleId, Handle>,
        now: Timestamp,
    ) -> Option<Block> {
        let mut block = Block::new(self.cidr, Some(Affinity::Host(node.clone())), now).ok()?;
        for Tenant { addr, who } in &self.tenants {
            let count = counted.get(&who.handle).map_or(0, |handle| handle.count(self.cidr));
            if block.count(&who.handle) >= count {
                continue;
            }
            // Whoever lives there lives there, also where nobody new is to be put.
            let taken = block.take_exactly(*addr, who, &Reserved::default(), Timestamp::default());
            if let Ok((next, _)) = taken {
                block = next;
            }
        }
        (!block.is_empty()).then_some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_with_whoever_lives_in_it() {
        let (own, all) = (own(), [tenant("net.a", "10.0.0.65"), tenant("net.b", "10.0.0.66")]);
        let lots = lots(&own, &all, found(&pools(), &BTreeSet::new()));
        assert_eq!(cidrs(&lots), ["10.0.0.64/26"], "nobody lives in the other");
        let block = lots[0].block(&node(), &counts(&own, &all), NOW).unwrap();
        assert_eq!(block.affinity(), Some(&Affinity::Host(node())));
        let held = block.held().map(|(given, by)| format!("{} {}", given.addr, by.unwrap()));
        assert_eq!(held.collect::<Vec<_>>(), ["10.0.0.65 net.a", "10.0.0.66 net.b"]);
        assert_eq!(block.size() - block.free(&Reserved::default(), NOW), 2);
    }

    #[test]
    fn what_exists_or_overlaps_what_exists_is_left_as_it_is() {
        let (own, all) = (own(), [tenant("net.a", "10.0.0.65")]);
        for there in ["10.0.0.64/26", "10.0.0.64/28", "10.0.0.0/25"] {
            let there = BTreeSet::from([there.parse().unwrap()]);
            assert_eq!(lots(&own, &all, found(&pools(), &there)), [], "{there:?}");
        }
        let beside = BTreeSet::from(["10.0.0.128/26".parse().unwrap()]);
        assert_eq!(lots(&own, &all, found(&pools(), &beside)).len(), 1);
    }

    #[test]
    fn a_block_waits_for_a_pool_that_is_cut_as_it_is() {
        let (own, all) = (own(), [tenant("net.a", "10.0.0.65")]);
        for (cidr, len) in [("10.1.0.0/16", 26), ("10.0.0.0/16", 27)] {
            let pools = [BlockPool::new(cidr.parse().unwrap(), len).unwrap()];
            assert_eq!(lots(&own, &all, found(&pools, &BTreeSet::new())), []);
        }
    }

    #[test]
    fn an_address_out_of_another_s_block_is_not_put_back_by_this_node() {
        let (own, all) = (own(), [tenant("net.a", "10.0.0.200")]);
        assert_eq!(lots(&own, &all, found(&pools(), &BTreeSet::new())), []);
        assert_eq!(counts(&own, &all), BTreeMap::new());
    }

    #[test]
    fn a_handle_counts_the_block_too_that_has_no_pool_yet() {
        let all = [tenant("net.a", "10.0.0.65"), tenant("net.a", "fd00::1")];
        let mut own = own();
        own.insert("fd00::/122".parse().unwrap());
        let counts = counts(&own, &all);
        let of = |cidr: &str| counts[&all[0].who.handle].count(cidr.parse().unwrap());
        assert_eq!((of("10.0.0.64/26"), of("fd00::/122")), (1, 1));
        assert_eq!(cidrs(&lots(&own, &all, found(&pools(), &BTreeSet::new()))), ["10.0.0.64/26"]);
    }

    #[test]
    fn an_address_that_its_handle_does_not_count_is_left_out() {
        let (own, all) = (own(), [tenant("net.a", "10.0.0.65"), tenant("net.b", "10.0.0.66")]);
        let lots = lots(&own, &all, found(&pools(), &BTreeSet::new()));
        let mut counted = counts(&own, &all);
        counted.insert(all[0].who.handle.clone(), Handle::default());
        let block = lots[0].block(&node(), &counted, NOW).unwrap();
        assert_eq!(block.held().map(|(given, _)| given.addr).collect::<Vec<_>>(), [all[1].addr]);
        assert_eq!(lots[0].block(&node(), &BTreeMap::new(), NOW), None);
    }

    fn own() -> BTreeSet<Prefix> {
        ["10.0.0.64/26", "10.0.1.0/26"].map(|cidr| cidr.parse().unwrap()).into()
    }

    fn pools() -> [BlockPool; 1] {
        [BlockPool::new("10.0.0.0/16".parse().unwrap(), 26).unwrap()]
    }

    fn found<'a>(pools: &'a [BlockPool], blocks: &'a BTreeSet<Prefix>) -> Found<'a> {
        Found { pools, blocks }
    }

    fn tenant(handle: &str, addr: &str) -> Tenant {
        let who = Claimant { handle: handle.parse().unwrap(), secondary: BTreeMap::new() };
        Tenant { addr: addr.parse().unwrap(), who }
    }

    fn node() -> Name {
        "n1".parse().unwrap()
    }

    fn cidrs(lots: &[Lot]) -> Vec<String> {
        lots.iter().map(|lot| lot.cidr.to_string()).collect()
    }

    const NOW: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);
}
