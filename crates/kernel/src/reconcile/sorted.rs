//! Many keys in order at once: what a search for each would cost ten times.
//!
//! A snapshot of 10,000 nodes is 40,000 keys that come sorted and find sorted maps. Walking along is then a
//! few comparisons for each, and building a map from sorted entries is a copy. A single change still costs
//! a single search.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, btree_map::Range},
    iter::Peekable,
};

/// Looks up keys that come in ascending order.
#[derive(Debug)]
pub(super) struct Seek<'a, K, V> {
    map: &'a BTreeMap<K, V>,
    rest: Peekable<Range<'a, K, V>>,
}

impl<'a, K: Ord, V> Seek<'a, K, V> {
    pub(super) fn new(map: &'a BTreeMap<K, V>) -> Self {
        Self { map, rest: map.range(..).peekable() }
    }

    /// The value at `key`, which must not be below the one before.
    pub(super) fn get(&mut self, key: &K) -> Option<&'a V> {
        for _ in 0..STEPS {
            let (there, value) = self.rest.peek()?;
            match (*there).cmp(key) {
                Ordering::Less => self.rest.next(),
                Ordering::Equal => return Some(*value),
                Ordering::Greater => return None,
            };
        }
        self.rest = self.map.range(key..).peekable();
        let (there, value) = self.rest.peek()?;
        (*there == key).then_some(*value)
    }
}

/// Puts entries that come in ascending order into a map, in the cheaper of two ways.
pub(super) fn extend<K: Ord, V>(map: &mut BTreeMap<K, V>, entries: Vec<(K, V)>) {
    if entries.len() > map.len() / BULK {
        map.append(&mut entries.into_iter().collect());
    } else {
        map.extend(entries);
    }
}

/// The same for a set.
pub(super) fn extend_set<K: Ord>(set: &mut BTreeSet<K>, keys: Vec<K>) {
    if keys.len() > set.len() / BULK {
        set.append(&mut keys.into_iter().collect());
    } else {
        set.extend(keys);
    }
}

/// How far it is cheaper to walk than to search.
const STEPS: usize = 4;
/// Above one new entry for so many old ones, the map is built anew.
const BULK: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn seeking_finds_what_a_search_finds(
            map in prop::collection::btree_map(0_u8..100, any::<u8>(), 0..100),
            keys in prop::collection::btree_set(0_u8..110, 0..110),
        ) {
            let mut seek = Seek::new(&map);
            for key in keys {
                prop_assert_eq!(seek.get(&key), map.get(&key));
            }
        }

        #[test]
        fn extending_either_way_gives_the_same(
            map in prop::collection::btree_map(0_u8..100, any::<u8>(), 0..100),
            more in prop::collection::btree_map(0_u8..100, any::<u8>(), 0..100),
        ) {
            let mut ours = map.clone();
            extend(&mut ours, more.clone().into_iter().collect());
            let mut keys: BTreeSet<u8> = map.keys().copied().collect();
            extend_set(&mut keys, more.keys().copied().collect());
            let mut theirs = map;
            theirs.extend(more);
            prop_assert!(keys.iter().eq(theirs.keys()));
            prop_assert_eq!(ours, theirs);
        }
    }
}
