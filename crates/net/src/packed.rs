//! Maps that take up no more than what is in them.
//!
//! A B-tree that grows in the order of its keys leaves every node half empty behind it, and a snapshot comes in that order.
//! One that is built of all its entries at once has full nodes. What is changed later costs what it always costs.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

/// Builds a map anew of what is in it. That takes a moment for each entry, so it is for when many have come.
pub fn pack<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    *map = mem::take(map).into_iter().collect();
}

/// [`pack`] for a set.
pub fn pack_set<K: Ord>(set: &mut BTreeSet<K>) {
    *set = mem::take(set).into_iter().collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_what_it_was() {
        let before: BTreeMap<_, _> = (0..1_000).map(|n| (n, n + 1)).collect();
        let mut map = BTreeMap::new();
        map.extend(before.clone());
        pack(&mut map);
        assert_eq!(map, before);
        let mut set: BTreeSet<_> = before.keys().copied().collect();
        pack_set(&mut set);
        assert!(set.iter().eq(before.keys()));
    }
}
