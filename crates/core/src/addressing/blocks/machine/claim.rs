//! Carries out what `affinity` decides, for the blocks that are being claimed and those found half claimed.

use std::{collections::BTreeSet, sync::Arc};

use russet_net::Prefix;

use super::{
    super::{
        affinity::{AffinityState, Seen, Step, Wish, next},
        block::Block,
        name::Affinity,
    },
    BlockConfig, BlockMachine, Key, Now, Outcome, StoreOp, Value,
    slot::Slot,
};

impl BlockMachine {
    pub(super) fn claim(&mut self, config: &BlockConfig, now: Now) {
        let mut cidrs: BTreeSet<Prefix> = self.claims.clone();
        cidrs.extend(self.affinities.keys().copied());
        cidrs.extend(self.blocks.keys().copied().filter(|cidr| self.seen(*cidr).is_ours()));
        // An affinity out of every pool is left to the collector.
        cidrs.retain(|cidr| config.pools.iter().any(|pool| pool.gives(*cidr)));
        for cidr in cidrs {
            self.advance_claim(cidr, now);
        }
    }

    fn advance_claim(&mut self, cidr: Prefix, now: Now) {
        let affinity = self.affinities.get(&cidr).and_then(Slot::value).copied();
        let seen = self.seen(cidr);
        if !self.claims.contains(&cidr) && !goes_on(affinity, seen) {
            return;
        }
        let known = self.affinities.entry(cidr).or_insert_with(Slot::absent);
        if !known.is_idle() {
            return;
        }
        if known.is_blind() {
            let key = Key::Affinity(self.node.clone(), cidr);
            let op = self.store(StoreOp::Read(key));
            if let Some(known) = self.affinities.get_mut(&cidr) {
                known.reading(op, now.mono);
            }
            return;
        }
        match next(Wish::Claim, affinity, seen) {
            Step::SetAffinity(state) => self.write_affinity(cidr, Some(state), now),
            Step::DeleteAffinity => self.write_affinity(cidr, None, now),
            Step::CreateBlock => self.create_block(cidr, now),
            // Whoever waits for it looks for another when it is full already.
            Step::Done | Step::Refused => self.dirty |= self.claims.remove(&cidr),
            // No claim removes a block.
            Step::DeleteBlock | Step::DisownBlock => {}
        }
    }

    fn write_affinity(&mut self, cidr: Prefix, state: Option<AffinityState>, now: Now) {
        let Some(expect) = self.affinities.get(&cidr).map(Slot::rev) else { return };
        let key = Key::Affinity(self.node.clone(), cidr);
        let op = self.store(StoreOp::Swap { key, expect, value: state.map(Value::Affinity) });
        if let Some(known) = self.affinities.get_mut(&cidr) {
            known.writing(op, state, now.mono);
        }
    }

    fn create_block(&mut self, cidr: Prefix, now: Now) {
        let owner = Some(Affinity::Host(self.node.clone()));
        let slot = &self.block_slot(cidr).slot;
        let (idle, blind) = (slot.is_idle(), slot.is_blind());
        let Ok(block) = Block::new(cidr, owner, now.wall) else { return };
        if !idle {
            return;
        }
        if blind {
            self.read_block(cidr, now);
        } else {
            self.write_block(cidr, Some(Arc::new(block)), now);
        }
    }

    pub(super) fn affinity_settled(&mut self, cidr: Prefix, outcome: Outcome, now: Now) {
        if let Some(known) = self.affinities.get_mut(&cidr) {
            known.settle(outcome, now.mono, &mut self.random);
        }
    }
}

/// Whether a claim that nobody here remembers is carried on. What is being released stays so, and an empty
/// block without its affinity may be one that is just being deleted.
const fn goes_on(affinity: Option<AffinityState>, seen: Seen) -> bool {
    match affinity {
        Some(AffinityState::Pending | AffinityState::Confirmed) => true,
        Some(AffinityState::PendingDeletion) => false,
        None => matches!(seen, Seen::OursUsed),
    }
}
