//! Gives blocks back: those of nodes that are gone, empty ones that their node does not need, claims that were
//! left half way, and empty blocks that have an affinity to nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use russet_net::Prefix;

use super::{
    super::{
        affinity::{AffinityState, Seen, Step, Wish, next},
        block::Block,
        machine::low_water,
        name::{Affinity, Name, Timestamp},
        pool::BlockPool,
    },
    Key, Living, Now, Picture, Rules, Sight, StoreOp, Twice, Value,
};

type Sights = Twice<(Option<Name>, Prefix), (u64, u64)>;

/// A node and a block, as far as they have to do with each other.
type Pair = (Name, Prefix);

pub(super) fn give_back(
    before: &Sights,
    picture: &Picture,
    living: &Living,
    rules: &Rules,
    now: Now,
) -> (Sights, Vec<StoreOp>) {
    let mut seen = Sights::default();
    let mut ops = Vec::new();
    let needless = needless(picture, living, rules, now.wall.before(rules.cooldown));
    for (node, cidr) in pairs(picture) {
        let affinity = picture.affinities.get(&(node.clone(), cidr));
        let state = affinity.map(|found| found.value);
        let block = picture.blocks.get(&cidr);
        let sight = Seen::of(block.map(|found| found.value.as_ref()), &node);
        let whole = state == Some(AffinityState::Confirmed) && sight.is_ours();
        let pair = (node, cidr);
        if whole && !needless.contains(&pair) {
            continue;
        }
        let mark = (affinity.map_or(0, |a| a.rev), block.map_or(0, |b| b.rev));
        let key = (Some(pair.0.clone()), cidr);
        let again = seen.see(before, key, mark, Sight::now(rules, now));
        // A release that was begun was looked at twice before it was.
        if again || state == Some(AffinityState::PendingDeletion) {
            // Addresses that live nodes have borrowed stay theirs, in a block that is nobody's.
            let gone = !living.nodes.contains_key(&pair.0);
            let wish = if gone { Wish::Release } else { Wish::ReleaseEmpty };
            let step = next(wish, state, sight);
            ops.extend(write(step, &pair, picture));
        }
    }
    for (cidr, found) in &picture.blocks {
        let free = found.value.affinity().is_none() && found.value.is_empty();
        let mark = (0, found.rev);
        if free && seen.see(before, (None, *cidr), mark, Sight::now(rules, now)) {
            let key = Key::Block(*cidr);
            ops.push(StoreOp::Swap { key, expect: Some(found.rev), value: None });
        }
    }
    (seen, ops)
}

fn pairs(picture: &Picture) -> BTreeSet<Pair> {
    let owned = picture.blocks.iter().filter_map(|(cidr, found)| match found.value.affinity() {
        Some(Affinity::Host(node)) => Some((node.clone(), *cidr)),
        // A controller looks after its own.
        Some(Affinity::Virtual(_)) | None => None,
    });
    owned.chain(picture.affinities.keys().cloned()).collect()
}

/// The blocks that can go: all of a node that is gone; of others the empty ones without which it would not at once
/// claim a new one. So each keeps one at least.
fn needless(
    picture: &Picture,
    living: &Living,
    rules: &Rules,
    thawed: Timestamp,
) -> BTreeSet<Pair> {
    let mut needless = BTreeSet::new();
    let mut room: BTreeMap<(Name, BlockPool), usize> = BTreeMap::new();
    let mut empty: Vec<(Name, Prefix, BlockPool, usize)> = Vec::new();
    for (cidr, found) in &picture.blocks {
        let block: &Block = &found.value;
        let Some(node) = block.affinity().and_then(Affinity::host) else { continue };
        if !living.nodes.contains_key(node) {
            needless.insert((node.clone(), *cidr));
            continue;
        }
        match rules.pools.iter().copied().find(|pool| pool.gives(*cidr)) {
            // Nobody allocates from it any more.
            None if block.is_empty() => _ = needless.insert((node.clone(), *cidr)),
            None => {}
            Some(pool) => {
                let free = block.free(&rules.reserved, thawed);
                *room.entry((node.clone(), pool)).or_default() += free;
                if block.is_empty() {
                    empty.push((node.clone(), *cidr, pool, free));
                }
            }
        }
    }
    for (node, cidr, pool, free) in empty {
        let left = room.entry((node.clone(), pool)).or_default();
        let without = left.saturating_sub(free);
        // Twice what makes a node claim, so that one pod more or less does not move a block.
        if without >= 2 * low_water(pool) {
            *left = without;
            needless.insert((node, cidr));
        }
    }
    needless
}

fn write(step: Step, (node, cidr): &Pair, picture: &Picture) -> Option<StoreOp> {
    let affinity = Key::Affinity(node.clone(), *cidr);
    let expect = picture.affinities.get(&(node.clone(), *cidr)).map(|found| found.rev);
    let block = picture.blocks.get(cidr);
    match step {
        Step::SetAffinity(state) => {
            let value = Some(Value::Affinity(state));
            Some(StoreOp::Swap { key: affinity, expect, value })
        }
        Step::DeleteAffinity => Some(StoreOp::Swap { key: affinity, expect, value: None }),
        Step::DeleteBlock => {
            let expect = Some(block?.rev);
            Some(StoreOp::Swap { key: Key::Block(*cidr), expect, value: None })
        }
        Step::DisownBlock => {
            let found = block?;
            let value = Some(Value::Block(Arc::new(found.value.owned_by(None))));
            Some(StoreOp::Swap { key: Key::Block(*cidr), expect: Some(found.rev), value })
        }
        Step::CreateBlock | Step::Done | Step::Refused => None,
    }
}
