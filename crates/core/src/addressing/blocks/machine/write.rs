//! Writes blocks: one compare-and-swap for all that wait for the same block, to take or to release.

use std::sync::Arc;

use russet_net::Prefix;

use super::{
    super::{
        affinity::Seen,
        block::{Block, Given, Release, Rest, TakeError},
        name::{HandleId, Timestamp},
    },
    BlockConfig, BlockMachine, Borrowing, Key, Now, Outcome, StoreOp, Value,
    request::At,
    slot::{Batch, Settled, Source},
};

/// Something that is to be released in a block.
#[derive(Clone, Debug)]
pub(super) struct Free {
    /// Who is told.
    pub(super) request: Option<u64>,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Handle(HandleId),
    Address(Release),
}

/// A block on its way to its next value.
struct Draft {
    block: Arc<Block>,
    batch: Batch,
    thawed: Timestamp,
    /// A write of somebody who is no more may still come, and must not: it gives addresses that nobody waits for.
    fenced: bool,
}

impl BlockMachine {
    pub(super) fn free(&mut self, cidr: Prefix, free: Free) {
        self.frees.entry(cidr).or_default().push(free);
        self.block_slot(cidr);
        self.dirty = true;
    }

    pub(super) fn write(&mut self, config: &BlockConfig, now: Now) {
        let ready = self.parts.values().filter_map(|part| match part.at {
            At::Ready(cidr) => Some(cidr),
            _ => None,
        });
        let threatened = self.blocks.iter().filter(|(_, known)| known.is_to_be_fenced());
        let threatened = threatened.map(|(cidr, _)| *cidr);
        let mut cidrs: Vec<_> = ready.chain(self.frees.keys().copied()).chain(threatened).collect();
        cidrs.sort_unstable();
        cidrs.dedup();
        for cidr in cidrs {
            let slot = &self.block_slot(cidr).slot;
            let (idle, blind) = (slot.is_idle(), slot.is_blind());
            match (idle, blind) {
                (false, _) => {}
                (true, true) => self.read_block(cidr, now),
                (true, false) => self.compose(config, cidr, now),
            }
        }
    }

    pub(super) fn compose(&mut self, config: &BlockConfig, cidr: Prefix, now: Now) {
        let block = self.blocks.get(&cidr).and_then(|known| known.block()).map(Arc::clone);
        let Some(block) = block else {
            self.gone(cidr);
            return;
        };
        let before = block.sequence();
        let thawed = now.wall.before(config.cooldown);
        let fenced = self.block_slot(cidr).is_to_be_fenced();
        let mut draft = Draft { block, batch: Batch::default(), thawed, fenced };
        self.add_frees(config, cidr, &mut draft, now);
        self.add_parts(config, cidr, &mut draft, now);
        if draft.block.sequence() == before {
            if !draft.fenced {
                return;
            }
            draft.block = Arc::new(draft.block.restated());
        }
        let Draft { block, batch, .. } = draft;
        for (id, ..) in &batch.parts {
            if let Some(part) = self.parts.get_mut(id) {
                part.at = At::Writing(cidr);
            }
        }
        self.write_block(cidr, Some(block), now);
        self.block_slot(cidr).batch = batch;
    }

    /// The block is not there: nothing to release, and nothing to take.
    fn gone(&mut self, cidr: Prefix) {
        for free in self.frees.remove(&cidr).unwrap_or_default() {
            self.freed(free.request, 0);
        }
        for part in self.parts.values_mut().filter(|part| part.at == At::Ready(cidr)) {
            part.at = At::Waiting;
        }
        self.unindex(cidr);
        self.block_slot(cidr).fence = false;
        self.dirty = true;
    }

    fn add_frees(&mut self, config: &BlockConfig, cidr: Prefix, draft: &mut Draft, now: Now) {
        let rest = if config.cooldown.is_zero() { Rest::None } else { Rest::From(now.wall) };
        for free in self.frees.remove(&cidr).unwrap_or_default() {
            let next = match &free.what {
                What::Handle(handle) => Ok(draft.block.release_handle(handle, rest)),
                What::Address(release) => draft.block.release(release, rest),
            };
            self.touch(&free, cidr, &draft.block);
            match next {
                Ok(Some(next)) => {
                    let n = draft.block.held().count().saturating_sub(next.held().count());
                    draft.block = Arc::new(next);
                    draft.batch.frees.push((free, u32::try_from(n).unwrap_or(u32::MAX)));
                }
                // Counted, and not there: what was to give it may be under way since before a restart.
                Ok(None) if self.is_counted(&free, cidr) => {
                    draft.fenced = true;
                    draft.batch.frees.push((free, 0));
                }
                Ok(None) => self.freed(free.request, 0),
                Err(err) => {
                    if let Some(id) = free.request {
                        self.refuse(id, err.into());
                    }
                }
            }
            self.dirty = true;
        }
    }

    fn is_counted(&self, free: &Free, cidr: Prefix) -> bool {
        let What::Handle(handle) = &free.what else { return false };
        let index = self.handles.get(handle).and_then(|known| known.slot.value());
        index.is_some_and(|index| index.count(cidr) > 0)
    }

    /// The count of whoever had the address is to be lowered afterwards.
    fn touch(&mut self, free: &Free, cidr: Prefix, block: &Block) {
        let handle = match &free.what {
            What::Handle(handle) => Some(handle.clone()),
            What::Address(release) => block
                .held()
                .find(|(given, _)| given.addr == release.addr)
                .and_then(|(_, by)| by.cloned()),
        };
        if let Some(handle) = handle {
            self.touched(handle, cidr);
        }
    }

    fn touched(&mut self, handle: HandleId, cidr: Prefix) {
        let fresh = || super::HandleSlot::new(super::Slot::unknown());
        self.handles.entry(handle).or_insert_with(fresh).touched.insert(cidr);
    }

    fn add_parts(&mut self, config: &BlockConfig, cidr: Prefix, draft: &mut Draft, now: Now) {
        let ready = self.parts.iter().filter(|(_, part)| part.at == At::Ready(cidr));
        for id in ready.map(|(id, _)| *id).collect::<Vec<_>>() {
            match self.draw(config, id, draft) {
                Some(Ok((block, given, source))) => {
                    if let Some(from) = draft.block.ahead(given.addr, &self.node).cloned() {
                        self.touched(from, cidr);
                    }
                    draft.block = Arc::new(block);
                    draft.batch.parts.push((id, given, source));
                }
                Some(Err(err)) => {
                    if let Some(request) = self.parts.get(&id).map(|part| part.request) {
                        self.refuse(request, err.into());
                    }
                }
                None => {
                    // What was said of its room is not so any more.
                    let rev = self.blocks.get(&cidr).and_then(|known| known.slot.rev());
                    self.index(cidr, rev.unwrap_or_default(), Some(&draft.block), now);
                    if let Some(part) = self.parts.get_mut(&id) {
                        part.at = At::Waiting;
                    }
                    self.dirty = true;
                }
            }
        }
    }

    /// One address for a part: what the handle has already, or a free one. `None` when there is none for us.
    fn draw(
        &self,
        config: &BlockConfig,
        id: u64,
        draft: &Draft,
    ) -> Option<Result<(Block, Given, Source), TakeError>> {
        let part = self.parts.get(&id)?;
        let block = &draft.block;
        let wished = |given: &&Given| part.want.wished.is_none_or(|addr| addr == given.addr);
        if let Some((next, kept)) = block.keep(&part.who.handle)
            && let Some(given) = kept.iter().find(wished)
        {
            return Some(Ok((next, *given, Source::Kept)));
        }
        // It is somebody's already, who keeps it also when nobody waits for the answer any more.
        if let Some(addr) = part.want.wished
            && let Some(from) = block.ahead(addr, &self.node)
            && let Some((next, given)) = block.pass_on(addr, from, &part.who)
        {
            return Some(Ok((next, given, Source::Kept)));
        }
        let ours = Seen::of(Some(block), &self.node).is_ours();
        if !ours && config.borrowing == Borrowing::Never {
            return None;
        }
        if let Some(addr) = part.want.wished {
            let taken = block.take_exactly(addr, &part.who, &config.reserved, draft.thawed);
            return Some(taken.map(|(next, given)| (next, given, Source::Taken)));
        }
        let (next, given) = block.take(1, &part.who, &config.reserved, draft.thawed);
        given.first().map(|given| Ok((next, *given, Source::Taken)))
    }

    pub(super) fn read_block(&mut self, cidr: Prefix, now: Now) {
        let op = self.store(StoreOp::Read(Key::Block(cidr)));
        self.block_slot(cidr).slot.reading(op, now.mono);
    }

    pub(super) fn write_block(&mut self, cidr: Prefix, value: Option<Arc<Block>>, now: Now) {
        let expect = self.block_slot(cidr).slot.rev();
        let written = value.clone().map(Value::Block);
        let op = self.store(StoreOp::Swap { key: Key::Block(cidr), expect, value: written });
        self.block_slot(cidr).slot.writing(op, value, now.mono);
    }

    pub(super) fn block_settled(&mut self, cidr: Prefix, outcome: Outcome, now: Now) {
        let Some(known) = self.blocks.get_mut(&cidr) else { return };
        let outcome = only_of(cidr, outcome);
        let settled = known.slot.settle(outcome, now.mono, &mut self.random);
        if !known.slot.is_blind() {
            let (rev, block) = (known.slot.rev(), known.block().map(Arc::clone));
            match (rev, block) {
                (Some(rev), Some(block)) => self.index(cidr, rev, Some(&block), now),
                _ => self.unindex(cidr),
            }
        }
        if settled == Settled::NotWritten {
            self.unbatch(cidr);
            return;
        }
        let Some(known) = self.blocks.get_mut(&cidr) else { return };
        known.fence = false;
        let Batch { parts, frees, .. } = std::mem::take(&mut known.batch);
        for (id, given, source) in parts {
            self.got(id, given, source, cidr);
        }
        for (free, n) in frees {
            self.freed(free.request, n);
        }
    }

    /// The write did not happen, as far as is known: whoever it was for waits again.
    pub(super) fn unbatch(&mut self, cidr: Prefix) {
        let batch = self.blocks.get_mut(&cidr).map(|known| std::mem::take(&mut known.batch));
        let Some(Batch { parts, frees, together }) = batch else { return };
        for (id, ..) in parts {
            match self.parts.get_mut(&id) {
                Some(part) if part.abandoned => _ = self.parts.remove(&id),
                // Its count was not written either.
                Some(_) if together => self.assign(id, cidr),
                Some(part) => part.at = At::Ready(cidr),
                None => {}
            }
        }
        if !frees.is_empty() {
            let frees = frees.into_iter().map(|(free, _)| free);
            self.frees.entry(cidr).or_default().extend(frees);
        }
    }
}

/// A key under which another block is says nothing of ours.
fn only_of(cidr: Prefix, outcome: Outcome) -> Outcome {
    match &outcome {
        Outcome::Present { value: Some(found), .. } => match &found.value {
            Value::Block(block) if block.cidr() == cidr => outcome,
            _ => Outcome::Failed("another object is at the block's key".to_owned()),
        },
        _ => outcome,
    }
}
