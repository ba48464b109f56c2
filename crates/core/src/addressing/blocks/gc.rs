//! Frees what nobody owns any more: a picture of the store and what is known of the living in, writes out.
//!
//! An address is valid until it is proven to be nobody's. It is freed only when it was seen so twice, a grace
//! period apart, each time by evidence as old as the look; when all addresses of its handle are seen so; and
//! by the sequence number at which it was seen, so that one which was taken again is never freed. A node that
//! lives answers for its own addresses, and one that is silent keeps them all.
//!
//! [`Collector`] remembers nothing but what was seen once, so losing it costs one grace period. Writes are
//! compare-and-swap values of the picture: whoever was faster wins, and the next look shows it.
//!
//! `leak` judges addresses, `index` puts handles right, `space` gives blocks back.

mod index;
mod leak;
mod space;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use self::index::counts;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use russet_net::Prefix;

use super::{
    affinity::AffinityState,
    block::{Block, Rest},
    handle::Handle,
    machine::Now,
    name::{HandleId, Name},
    pool::{BlockPool, Reserved},
    store::{Key, StoreOp, Value, Versioned},
};

/// What the store has.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    pub blocks: BTreeMap<Prefix, Versioned<Arc<Block>>>,
    pub affinities: BTreeMap<(Name, Prefix), Versioned<AffinityState>>,
    pub handles: BTreeMap<HandleId, Versioned<Handle>>,
}

/// What is known of those who live.
#[derive(Clone, Debug, Default)]
pub struct Living {
    /// The nodes that there are. One that is not among them is gone.
    pub nodes: BTreeMap<Name, Report>,
    /// Handles and addresses that the cluster's own records of its pods name, whatever the node says.
    pub handles: BTreeSet<HandleId>,
    pub addrs: BTreeSet<IpAddr>,
}

/// What a node says of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Nothing: then all of them are valid.
    Silent,
    /// The handles that are in use or are being allocated, as of this moment.
    Uses { handles: BTreeSet<HandleId>, at: Instant },
}

/// How the collector goes about it.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Must be longer than a request waits for its address (`machine::PATIENCE`).
    pub grace: Duration,
    pub pools: Vec<BlockPool>,
    pub reserved: Reserved,
    pub cooldown: Duration,
}

/// Calico's grace period.
pub const GRACE: Duration = Duration::from_mins(15);

/// What was seen once, and is looked at again.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    leaks: Twice<IpAddr, u64>,
    counts: Twice<HandleId, (u64, Handle)>,
    spare: Twice<(Option<Name>, Prefix), (u64, u64)>,
    thaws: Twice<Prefix, u64>,
}

impl Collector {
    /// Looks once. Returns what to remember, and what to write: at most one write for an object, and no more
    /// than a bound; what is over comes with the next look.
    #[must_use]
    pub fn look(
        &self,
        picture: &Picture,
        living: &Living,
        rules: &Rules,
        now: Now,
    ) -> (Self, Vec<StoreOp>) {
        let (leaks, leaked) = leak::find(&self.leaks, picture, living, rules, now);
        let (thaws, thawing) = thawing(&self.thaws, picture, rules, now);
        let (counts, repairs) = index::repair(&self.counts, picture, rules, now);
        let (spare, given_back) = space::give_back(&self.spare, picture, living, rules, now);

        let mut touched: BTreeSet<Prefix> = leaked.keys().copied().collect();
        touched.extend(thawing);
        let mut ops = Vec::new();
        for cidr in &touched {
            let leaks = leaked.get(cidr).map(Vec::as_slice).unwrap_or_default();
            ops.extend(
                picture.blocks.get(cidr).map(|found| freed(*cidr, found, leaks, rules, now)),
            );
        }
        let free = |op: &StoreOp| !matches!(op.key(), Key::Block(cidr) if touched.contains(cidr));
        ops.extend(given_back.into_iter().filter(free));
        ops.extend(repairs);
        ops.truncate(MOST_WRITES);
        (Self { leaks, counts, spare, thaws }, ops)
    }

    /// Whether something was seen that a second look may do something about.
    pub fn suspects(&self) -> bool {
        let Self { leaks, counts, spare, thaws } = self;
        !(leaks.0.is_empty() && counts.0.is_empty() && spare.0.is_empty() && thaws.0.is_empty())
    }
}

/// A block without its leaks, and with what has cooled down.
fn freed(
    cidr: Prefix,
    found: &Versioned<Arc<Block>>,
    leaks: &[super::block::Release],
    rules: &Rules,
    now: Now,
) -> StoreOp {
    let rest = if rules.cooldown.is_zero() { Rest::None } else { Rest::From(now.wall) };
    let mut block = found.value.thaw(now.wall.before(rules.cooldown));
    for leak in leaks {
        if let Ok(Some(next)) = block.release(leak, rest) {
            block = next;
        }
    }
    let value = Some(Value::Block(Arc::new(block)));
    StoreOp::Swap { key: Key::Block(cidr), expect: Some(found.rev), value }
}

/// Blocks in which something has cooled down, and that nobody has written since: their own nodes free what has
/// cooled down with their next write.
fn thawing(
    before: &Twice<Prefix, u64>,
    picture: &Picture,
    rules: &Rules,
    now: Now,
) -> (Twice<Prefix, u64>, Vec<Prefix>) {
    let mut seen = Twice::default();
    let thawed = now.wall.before(rules.cooldown);
    let cooled = picture.blocks.iter().filter(|(_, found)| found.value.is_thawing(thawed));
    let again =
        cooled.filter(|(cidr, found)| seen.see(before, **cidr, found.rev, Sight::now(rules, now)));
    let again = again.map(|(cidr, _)| *cidr).collect();
    (seen, again)
}

/// What was seen, with a mark by which it is known to be the same still, and since when.
#[derive(Clone, Debug)]
struct Twice<K, M>(BTreeMap<K, (M, Instant)>);

impl<K, M> Default for Twice<K, M> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone, M: PartialEq> Twice<K, M> {
    /// Notes a sight. Returns whether the same was seen a grace period before what now speaks for it.
    fn see(&mut self, before: &Self, key: K, mark: M, sight: Sight) -> bool {
        let since = before.0.get(&key).filter(|(known, _)| *known == mark).map(|(_, since)| *since);
        self.0.insert(key, (mark, since.unwrap_or(sight.now)));
        since.is_some_and(|since| since + sight.grace <= sight.evidence)
    }
}

/// When something was seen, and how old is what speaks for it.
#[derive(Clone, Copy, Debug)]
struct Sight {
    now: Instant,
    evidence: Instant,
    grace: Duration,
}

impl Sight {
    /// By the picture itself.
    const fn now(rules: &Rules, now: Now) -> Self {
        Self { now: now.mono, evidence: now.mono, grace: rules.grace }
    }
}

/// How much is written at one look: a wrong picture of the living must not empty a cluster at once.
pub const MOST_WRITES: usize = 500;
