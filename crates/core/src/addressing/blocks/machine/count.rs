//! Keeps the index by handle: raised before a block is written, lowered after.

use std::collections::BTreeMap;

use russet_net::{Family, Prefix};

use super::{
    super::{handle::Handle, name::HandleId},
    BlockMachine, Key, MOST_PER_HANDLE, Now, Outcome, Refusal, StoreOp, Value,
    request::{At, Part},
    slot::{BlockSlot, HandleSlot},
    together::Way,
};

/// How many parts wait for a handle's addresses in a block.
type Pending = BTreeMap<(HandleId, Prefix), u32>;

/// What a handle's index should say.
struct Aim {
    wanted: Handle,
    /// Whether an address is given only after it says so.
    waited_for: bool,
    /// Blocks of which it says more than they have, and it was not us: whoever raised the count before a restart
    /// may have sent the block's write too. The count stays until the block is written once more.
    unsure: Vec<Prefix>,
}

impl BlockMachine {
    pub(super) fn count(&mut self, now: Now) {
        if self.handles.is_empty() {
            return;
        }
        let mut pending = Pending::new();
        for part in self.parts.values() {
            if let Some(cidr) = part.at.pending() {
                *pending.entry((part.who.handle.clone(), cidr)).or_default() += 1;
            }
        }
        let plain = self.plain();
        for handle in self.handles.keys().cloned().collect::<Vec<_>>() {
            let Some(known) = self.handles.get(&handle) else { continue };
            if !known.slot.is_idle() {
                continue;
            }
            if plain.contains(&handle) && self.way(known) == Way::TogetherSoon {
                continue;
            }
            if !known.slot.is_blind() {
                self.count_one(&handle, &pending, now);
            } else if !known.touched.is_empty() {
                self.read_handle(&handle, now);
            }
        }
    }

    fn count_one(&mut self, handle: &HandleId, pending: &Pending, now: Now) {
        if self.follow(handle, now) {
            return;
        }
        let Some(known) = self.handles.get(handle) else { return };
        let is = known.slot.value().cloned().unwrap_or_default();
        let firm = known.slot.is_firm();
        let Aim { wanted, waited_for, unsure } = self.aim(handle, known, &is, pending);
        for cidr in unsure {
            self.block_slot(cidr).fence = true;
            self.dirty = true;
        }
        if wanted.total() > MOST_PER_HANDLE && wanted.total() > is.total() {
            self.refuse_more(handle, is.total());
        } else if wanted == is && (firm || !waited_for) {
            self.counted(handle, pending);
        } else {
            // Also when it says already what it should: the collector, or a write from before a restart, may be
            // about to lower it, and fails at another revision.
            self.write_handle(handle, (!wanted.is_empty()).then_some(wanted), now);
        }
    }

    fn aim(&self, handle: &HandleId, known: &HandleSlot, is: &Handle, pending: &Pending) -> Aim {
        let mut aim = Aim { wanted: is.clone(), waited_for: false, unsure: Vec::new() };
        for cidr in &known.touched {
            let waiting = pending.get(&(handle.clone(), *cidr)).copied().unwrap_or_default();
            aim.waited_for |= waiting > 0;
            let has = is.count(*cidr);
            let should = self.wanted(handle, *cidr, waiting, has);
            let theirs = should < has && !known.raised.contains(cidr);
            if theirs && self.blocks.get(cidr).is_some_and(BlockSlot::may_change) {
                aim.unsure.push(*cidr);
            } else {
                aim.wanted = aim.wanted.with(*cidr, should);
            }
        }
        aim
    }

    /// How many addresses the handle should have in the block: what it has, or is about to have.
    fn wanted(&self, handle: &HandleId, cidr: Prefix, waiting: u32, is: u32) -> u32 {
        let Some(known) = self.blocks.get(&cidr) else { return waiting };
        let proposed = known.slot.proposed().map_or(0, |block| block.count(handle));
        if known.slot.is_uncertain() || known.slot.is_under_way() {
            // A count is not lowered on a guess.
            return is.max(waiting).max(proposed);
        }
        match known.block().map_or(0, |block| block.count(handle)).max(proposed) {
            0 => waiting,
            // It keeps what it has.
            has => has,
        }
    }

    /// Sends parts to the block in which the handle has an address already: the same request was made before a
    /// restart. Every block that the index names is looked at first, since one may be named in vain. Returns
    /// whether there is something to wait for.
    fn follow(&mut self, handle: &HandleId, now: Now) -> bool {
        let waits = |part: &&Part| {
            let counting = matches!(part.at, At::Counting(_));
            counting && part.who.handle == *handle && part.want.wished.is_none()
        };
        let families: Vec<Family> =
            self.parts.values().filter(waits).map(|part| part.want.family).collect();
        let Some(known) = self.handles.get_mut(handle) else { return false };
        let index = known.slot.value().cloned().unwrap_or_default();
        let named = index
            .blocks()
            .map(|(cidr, _)| cidr)
            .filter(|cidr| families.contains(&cidr.family()) && !known.raised.contains(cidr));
        let named: Vec<Prefix> = named.collect();
        known.touched.extend(named.iter().copied());
        let mut unread = false;
        for cidr in &named {
            let slot = &self.block_slot(*cidr).slot;
            let (blind, idle) = (slot.is_blind(), slot.is_idle());
            unread |= blind;
            if blind && idle {
                self.read_block(*cidr, now);
            }
        }
        unread || self.send_home(handle, &named)
    }

    /// Sends parts to those of the blocks in which the handle has an address. Returns whether any moved.
    fn send_home(&mut self, handle: &HandleId, named: &[Prefix]) -> bool {
        let homes: Vec<_> = named.iter().copied().filter(|cidr| self.has(*cidr, handle)).collect();
        let moves = self.parts.iter().filter_map(|(id, part)| {
            let At::Counting(at) = part.at else { return None };
            let free = part.who.handle == *handle && part.want.wished.is_none();
            let home = homes.iter().find(|cidr| cidr.family() == part.want.family);
            home.filter(|home| free && !self.has(at, handle) && **home != at).map(|h| (*id, *h))
        });
        let moves: Vec<_> = moves.collect();
        for (id, cidr) in &moves {
            self.assign(*id, *cidr);
        }
        !moves.is_empty()
    }

    /// The index is as it should be: whoever waited for that goes on.
    fn counted(&mut self, handle: &HandleId, pending: &Pending) {
        for part in self.parts.values_mut().filter(|part| part.who.handle == *handle) {
            if let At::Counting(cidr) = part.at {
                part.at = At::Ready(cidr);
                self.dirty = true;
            }
        }
        let Some(known) = self.handles.get_mut(handle) else { return };
        let (blocks, frees) = (&self.blocks, &self.frees);
        known.touched.retain(|cidr| {
            let busy = blocks
                .get(cidr)
                .is_some_and(|b| b.slot.is_under_way() || b.slot.is_uncertain() || b.fence);
            busy || frees.contains_key(cidr) || pending.contains_key(&(handle.clone(), *cidr))
        });
        if known.touched.is_empty() && !self.is_looked_up(handle) {
            self.handles.remove(handle);
        }
    }

    fn refuse_more(&mut self, handle: &HandleId, has: u32) {
        let of = self.parts.values().filter(|part| part.who.handle == *handle && !part.abandoned);
        let requests: Vec<_> = of.map(|part| part.request).collect();
        for request in requests {
            self.refuse(request, Refusal::HandleLimit { handle: handle.clone(), has });
        }
    }

    pub(super) fn read_handle(&mut self, handle: &HandleId, now: Now) {
        let op = self.store(StoreOp::Read(Key::Handle(handle.clone())));
        if let Some(known) = self.handles.get_mut(handle) {
            known.slot.reading(op, now.mono);
        }
    }

    pub(super) fn write_handle(&mut self, handle: &HandleId, value: Option<Handle>, now: Now) {
        let Some(known) = self.handles.get(handle) else { return };
        let (key, expect) = (Key::Handle(handle.clone()), known.slot.rev());
        let op = self.store(StoreOp::Swap { key, expect, value: value.clone().map(Value::Handle) });
        if let Some(known) = self.handles.get_mut(handle) {
            let is = known.slot.value().cloned().unwrap_or_default();
            let counts = value.iter().flat_map(Handle::blocks);
            known.raised.extend(counts.map(|(cidr, _)| cidr).filter(|c| is.count(*c) == 0));
            known.slot.writing(op, value, now.mono);
        }
    }

    pub(super) fn handle_settled(&mut self, handle: &HandleId, outcome: Outcome, now: Now) {
        if let Some(known) = self.handles.get_mut(handle) {
            known.slot.settle(outcome, now.mono, &mut self.random);
        }
    }
}
