//! A lease per node: which subnets a node asks for.
//!
//! In this order: the subnet that it had, when that is free; else a random one of the first hundred free
//! from the pool's minimum, so that nodes that start together seldom ask for the same.
//!
//! A second family's subnet lies as far into its pool as that of the first. A lease has one key for both, and
//! the store lets only one node create it: were they drawn apart, two nodes at once could hold the same IPv4
//! subnet under different keys.

use std::collections::BTreeSet;

use russet_net::{Family, Prefix};

use crate::model::{LeaseKey, NetworkConfig, Pool};

/// How many free subnets are drawn from.
const DRAW: usize = 100;

/// Chooses a key that the configuration could give and nobody holds.
///
/// `previous` is kept family by family: a node that gets a second family keeps its subnet of the first.
/// Returns `None` when a family has no free subnet.
pub fn choose(
    config: &NetworkConfig,
    taken: &BTreeSet<Prefix>,
    previous: Option<LeaseKey>,
    random: &mut Random,
) -> Option<LeaseKey> {
    let v4 = match config.pool(Family::V4) {
        Some(pool) => Some((pool, subnet_of(pool, taken, previous, random)?)),
        None => None,
    };
    let v6 = match config.pool(Family::V6) {
        Some(pool) => Some(
            beside(v4, pool, taken, previous)
                .or_else(|| subnet_of(pool, taken, previous, random))?,
        ),
        None => None,
    };
    LeaseKey::new(v4.map(|(_, subnet)| subnet), v6)
}

/// The subnet that lies as far into its pool as the first family's into its own, when it is free and this node
/// had no other.
fn beside(
    first: Option<(Pool, Prefix)>,
    pool: Pool,
    taken: &BTreeSet<Prefix>,
    previous: Option<LeaseKey>,
) -> Option<Prefix> {
    let (first, subnet) = first?;
    let had = previous.and_then(|key| key.of(pool.family())).filter(|subnet| pool.gives(*subnet));
    let subnet = pool.subnet(first.index_of(subnet)?)?;
    (had.is_none() && blocker(taken, subnet).is_none()).then_some(subnet)
}

fn subnet_of(
    pool: Pool,
    taken: &BTreeSet<Prefix>,
    previous: Option<LeaseKey>,
    random: &mut Random,
) -> Option<Prefix> {
    let kept = previous.and_then(|key| key.of(pool.family())).filter(|subnet| pool.gives(*subnet));
    if let Some(subnet) = kept.filter(|subnet| blocker(taken, *subnet).is_none()) {
        return Some(subnet);
    }
    let free: Vec<_> = free(pool, taken).take(DRAW).collect();
    free.get(random.below(free.len())).copied()
}

/// The pool's subnets that overlap nothing taken, in order.
pub fn free(pool: Pool, taken: &BTreeSet<Prefix>) -> impl Iterator<Item = Prefix> {
    let mut next = Some(pool.min());
    std::iter::from_fn(move || {
        loop {
            let subnet = next.filter(|subnet| *subnet <= pool.max())?;
            let Some(held) = blocker(taken, subnet) else {
                next = subnet.next();
                return Some(subnet);
            };
            // A large claim is stepped over at once, so the steps are bounded by the claims.
            next = Prefix::around(held.last().max(subnet.last()), subnet.len()).ok()?.next();
        }
    })
}

/// A taken prefix that overlaps `subnet`.
fn blocker(taken: &BTreeSet<Prefix>, subnet: Prefix) -> Option<Prefix> {
    let around = |len| Prefix::around(subnet.addr(), len).ok();
    let covering = (0..subnet.len()).filter_map(around).find(|p| taken.contains(p));
    let last = Prefix::host(subnet.last());
    covering.or_else(|| taken.range(subnet..=last).next().copied())
}

/// A small generator of numbers that differ by seed (`SplitMix64`); not for secrets.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).unwrap_or(u64::MAX).max(1);
        // Below `n`, which came from a `usize`.
        usize::try_from(self.next() % n).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TransportConfig;

    #[test]
    fn the_previous_subnet_is_kept_when_it_is_free() {
        let key = key("10.50.7.0/24");
        assert_eq!(chosen(&[], Some(key)), Some(key));
        assert_eq!(chosen(&["10.50.8.0/24"], Some(key)), Some(key));
        assert_ne!(chosen(&["10.50.7.0/24"], Some(key)), Some(key));
    }

    #[test]
    fn a_previous_subnet_of_another_network_is_not_kept() {
        assert_ne!(chosen(&[], Some(key("10.60.7.0/24"))), Some(key("10.60.7.0/24")));
        assert_ne!(chosen(&[], Some(key("10.50.0.0/24"))), Some(key("10.50.0.0/24")));
    }

    #[test]
    fn a_subnet_is_drawn_from_the_first_hundred_free() {
        let drawn: BTreeSet<_> = (0..2_000)
            .filter_map(|seed| {
                choose(&config(), &taken(&["10.50.1.0/24"]), None, &mut Random::new(seed))
            })
            .collect();
        assert_eq!(drawn.len(), DRAW);
        assert_eq!(drawn.first(), Some(&key("10.50.2.0/24")));
        assert_eq!(drawn.last(), Some(&key("10.50.101.0/24")));
    }

    #[test]
    fn what_overlaps_is_not_free_whatever_its_length() {
        let taken = taken(&["10.50.2.0/23", "10.50.4.128/25", "10.50.8.0/21", "10.50.128.0/17"]);
        let free: Vec<_> = free(pool(), &taken).map(|s| s.to_string()).collect();
        assert_eq!(
            free[..5],
            ["10.50.1.0/24", "10.50.5.0/24", "10.50.6.0/24", "10.50.7.0/24", "10.50.16.0/24"]
        );
        assert_eq!(free.last().map(String::as_str), Some("10.50.127.0/24"));
    }

    #[test]
    fn a_full_network_gives_nothing() {
        assert_eq!(chosen(&["10.50.0.0/16"], None), None);
        assert_eq!(chosen(&["0.0.0.0/0"], None), None);
    }

    #[test]
    fn a_node_that_gets_a_second_family_keeps_the_first() {
        let v6 = Pool::new("fd00:50::/48".parse().unwrap(), None, None, None).unwrap();
        let dual = NetworkConfig::new(Some(pool()), Some(v6), TransportConfig::Direct).unwrap();
        let previous = key("10.50.7.0/24");
        let chosen = choose(&dual, &BTreeSet::new(), Some(previous), &mut Random::new(1)).unwrap();
        assert_eq!(chosen.v4(), previous.v4());
        assert!(v6.gives(chosen.v6().unwrap()));
    }

    #[test]
    fn the_second_family_follows_the_first_so_that_one_key_stands_for_both() {
        let v6 = Pool::new("fd00:50::/48".parse().unwrap(), None, None, None).unwrap();
        let dual = NetworkConfig::new(Some(pool()), Some(v6), TransportConfig::Direct).unwrap();
        let drawn = |taken: &BTreeSet<Prefix>, seed| {
            choose(&dual, taken, None, &mut Random::new(seed)).unwrap()
        };
        let mut pairs = std::collections::BTreeMap::new();
        for seed in 0..2_000 {
            let key = drawn(&BTreeSet::new(), seed);
            let before = pairs.insert(key.v4().unwrap(), key.v6().unwrap());
            assert!(before.is_none_or(|v6| Some(v6) == key.v6()), "{key:?} beside {before:?}");
        }
        assert_eq!(pairs.len(), DRAW);
        assert_eq!(pairs[&"10.50.7.0/24".parse().unwrap()], "fd00:50:0:7::/64".parse().unwrap());
        // Where that one is taken, another does.
        let taken = taken(&["fd00:50::/57"]);
        let key = drawn(&taken, 1);
        assert!(blocker(&taken, key.v6().unwrap()).is_none() && v6.gives(key.v6().unwrap()));
    }

    fn chosen(taken_texts: &[&str], previous: Option<LeaseKey>) -> Option<LeaseKey> {
        choose(&config(), &taken(taken_texts), previous, &mut Random::new(7))
    }

    fn config() -> NetworkConfig {
        NetworkConfig::new(Some(pool()), None, TransportConfig::Direct).unwrap()
    }

    fn pool() -> Pool {
        Pool::new("10.50.0.0/16".parse().unwrap(), None, None, None).unwrap()
    }

    fn taken(texts: &[&str]) -> BTreeSet<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn key(text: &str) -> LeaseKey {
        LeaseKey::new(Some(text.parse().unwrap()), None).unwrap()
    }
}
