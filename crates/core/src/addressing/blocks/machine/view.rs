//! What the store's watch tells.

use std::{collections::BTreeSet, sync::Arc};

use russet_net::{Prefix, packed};

use super::{
    super::{affinity::Seen, block::Block, name::HandleId, store::Outline},
    BlockMachine, Change, Key, Now, Value, Versioned,
    slot::{BlockSlot, Slot},
};

/// A block in a few words: what is needed of a block that is another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) rev: u64,
    pub(super) whose: Whose,
    /// How many addresses could be taken when it was looked at.
    pub(super) free: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Ours,
    /// Another node's, or nobody's.
    Others,
}

/// How full a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    pub pool: Prefix,
    /// How many of its blocks there are, and how many there can be.
    pub blocks: usize,
    pub most: u128,
}

impl BlockMachine {
    /// How full the enabled pools are.
    pub fn fill(&self) -> Vec<Fill> {
        let pools = self.config.iter().flat_map(|config| &config.pools);
        pools
            .map(|pool| {
                let blocks =
                    self.index.range(pool.cidr()..).take_while(|(b, _)| pool.cidr().covers(**b));
                let most = 1_u128.checked_shl(pool.index_bits().into()).unwrap_or(u128::MAX);
                Fill { pool: pool.cidr(), blocks: blocks.count(), most }
            })
            .collect()
    }

    pub(super) fn snapshot(&mut self, objects: Vec<(Key, Versioned)>, rev: u64, now: Now) {
        self.synced = true;
        let present: BTreeSet<Key> = objects.iter().map(|(key, _)| key.clone()).collect();
        let blocks = self.index.keys().chain(self.blocks.keys()).copied().map(Key::Block);
        let affinities = self.affinities.keys().map(|c| Key::Affinity(self.node.clone(), *c));
        let known: BTreeSet<Key> = blocks.chain(affinities).collect();
        for key in known.difference(&present) {
            self.changed(Change { key: key.clone(), rev, value: None }, now);
        }
        for (key, Versioned { rev, value }) in objects {
            self.changed(Change { key, rev, value: Some(value) }, now);
        }
        packed::pack(&mut self.index);
    }

    /// Old revisions must not be compared with those of another history. What is under way is given up: its
    /// outcome would be about the old one.
    pub(super) fn forget_history(&mut self) {
        let cidrs: Vec<_> = self.blocks.keys().copied().collect();
        for cidr in cidrs {
            self.unbatch(cidr);
        }
        self.synced = false;
        self.ops.clear();
        self.index.clear();
        self.lent.clear();
        self.affinities.clear();
        self.claims.clear();
        self.blocks.values_mut().for_each(|block| block.slot = Slot::unknown());
        self.handles.values_mut().for_each(|handle| handle.slot = Slot::unknown());
    }

    pub(super) fn changed(&mut self, Change { key, rev, value }: Change, now: Now) {
        match (key, value) {
            (Key::Block(cidr), Some(Value::Block(block))) => {
                self.block_seen(cidr, rev, Some(block), now);
            }
            (Key::Block(cidr), Some(Value::Outline { outline, ours })) => {
                self.outline_seen(cidr, rev, &outline, ours);
            }
            (Key::Block(cidr), None) => self.block_seen(cidr, rev, None, now),
            (Key::Affinity(node, cidr), value) if node == self.node => {
                let state = match value {
                    Some(Value::Affinity(state)) => Some(state),
                    _ => None,
                };
                self.affinities.entry(cidr).or_insert_with(Slot::absent).learn(rev, state);
            }
            // Handles are read when they are needed: a watch of all would cost every node the whole cluster.
            _ => {}
        }
    }

    fn block_seen(&mut self, cidr: Prefix, rev: u64, block: Option<Arc<Block>>, now: Now) {
        let block = block.filter(|block| !block.is_deleted() && block.cidr() == cidr);
        let ours = Seen::of(block.as_deref(), &self.node).is_ours();
        if ours && !self.blocks.contains_key(&cidr) {
            self.blocks.insert(cidr, BlockSlot::new(Slot::absent()));
        }
        self.index(cidr, rev, block.as_deref(), now);
        if let Some(known) = self.blocks.get_mut(&cidr) {
            known.slot.learn(rev, block);
        }
    }

    /// A block that is another's, or that nobody can read. Where it is in use here it is read again first.
    fn outline_seen(
        &mut self,
        cidr: Prefix,
        rev: u64,
        outline: &Outline,
        handles: Arc<[HandleId]>,
    ) {
        if self.index.get(&cidr).is_some_and(|known| known.rev > rev) {
            return;
        }
        let whose = Whose::Others;
        self.index.insert(cidr, Summary { rev, whose, free: outline.free });
        self.lend(cidr, handles);
        if let Some(known) = self.blocks.get_mut(&cidr) {
            known.slot.outdated(rev);
        }
    }

    /// Notes what is known of a block in a few words.
    pub(super) fn index(&mut self, cidr: Prefix, rev: u64, block: Option<&Block>, now: Now) {
        if self.index.get(&cidr).is_some_and(|known| known.rev > rev) {
            return;
        }
        let Some(block) = block else {
            self.unindex(cidr);
            return;
        };
        let ours = Seen::of(Some(block), &self.node).is_ours();
        let whose = if ours { Whose::Ours } else { Whose::Others };
        let free = match (&self.config, whose) {
            // Ours is kept whole.
            (_, Whose::Ours) => 0,
            (None, Whose::Others) => block.size(),
            (Some(config), Whose::Others) => {
                block.free(&config.reserved, now.wall.before(config.cooldown))
            }
        };
        let handles = match whose {
            Whose::Ours => Arc::default(),
            Whose::Others => block.held().filter_map(|(_, by)| by.cloned()).collect(),
        };
        self.index.insert(cidr, Summary { rev, whose, free });
        self.lend(cidr, handles);
    }

    /// Notes that a block is not there.
    pub(super) fn unindex(&mut self, cidr: Prefix) {
        self.index.remove(&cidr);
        self.lent.remove(&cidr);
    }

    fn lend(&mut self, cidr: Prefix, handles: Arc<[HandleId]>) {
        if handles.is_empty() {
            self.lent.remove(&cidr);
        } else {
            self.lent.insert(cidr, handles);
        }
    }

    /// Whether a block is ours, as far as is known.
    pub(super) fn seen(&self, cidr: Prefix) -> Seen {
        match self.blocks.get(&cidr) {
            Some(known) if known.slot.value().is_some() || !known.slot.is_blind() => {
                Seen::of(known.block().map(AsRef::as_ref), &self.node)
            }
            _ if self.index.contains_key(&cidr) => Seen::Anothers,
            _ => Seen::Absent,
        }
    }

    /// The block's slot, made when there is none: blind when the block is known to exist.
    pub(super) fn block_slot(&mut self, cidr: Prefix) -> &mut BlockSlot {
        let exists = self.index.contains_key(&cidr);
        let fresh = || BlockSlot::new(if exists { Slot::unknown() } else { Slot::absent() });
        self.blocks.entry(cidr).or_insert_with(fresh)
    }

    /// Forgets the blocks and the handles that nobody needs any more.
    pub(super) fn tidy(&mut self) {
        let used = |cidr: &Prefix| {
            self.frees.contains_key(cidr)
                || self.claims.contains(cidr)
                || self.affinities.get(cidr).is_some_and(|a| a.value().is_some())
                || self.parts.values().any(|part| part.at.block() == Some(*cidr))
                || self.handles.values().any(|handle| handle.touched.contains(cidr))
        };
        let idle = |(cidr, known): (&Prefix, &BlockSlot)| {
            let ours = Seen::of(known.block().map(AsRef::as_ref), &self.node).is_ours();
            (!ours && !known.slot.is_under_way() && !known.is_to_be_fenced() && !used(cidr))
                .then_some(*cidr)
        };
        let idle: Vec<_> = self.blocks.iter().filter_map(idle).collect();
        for cidr in idle {
            self.blocks.remove(&cidr);
        }
        let claims = &self.claims;
        self.affinities.retain(|cidr, affinity| {
            affinity.value().is_some() || !affinity.is_idle() || claims.contains(cidr)
        });
    }
}
