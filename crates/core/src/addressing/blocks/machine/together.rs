//! Writes the count of a handle that is new, and the block that gives it its address, at once: both or none.
//!
//! The count must stand before the address is given. Where both are one transaction it does, and nobody waits for two
//! writes one behind the other. It is tried once for a handle: what is not as it was believed, or is another's, or was
//! not answered, goes the long way, count first.

use std::collections::{BTreeMap, BTreeSet};

use russet_net::Prefix;

use super::{
    super::{affinity::Seen, handle::Handle, name::HandleId},
    BlockConfig, BlockMachine, Now, Output,
    request::At,
    slot::{BlockSlot, HandleSlot},
};

/// How a handle is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Together,
    /// As soon as the write of its block that is under way has ended.
    TogetherSoon,
    /// Before its block is written.
    First,
}

impl BlockMachine {
    pub(super) fn write_together(&mut self, config: &BlockConfig, now: Now) {
        let newcomers = self.newcomers();
        if newcomers.is_empty() {
            return;
        }
        let blocks: BTreeSet<Prefix> = newcomers.values().flatten().copied().collect();
        for part in self.parts.values_mut().filter(|it| newcomers.contains_key(&it.who.handle)) {
            if let At::Counting(cidr) = part.at {
                part.at = At::Ready(cidr);
            }
        }
        self.together = Some(Vec::new());
        for cidr in blocks {
            self.compose(config, cidr, now);
            self.block_slot(cidr).batch.together = true;
        }
        for handle in newcomers.keys() {
            // One for which there was no room after all looks for another block.
            let of = self.parts.values().filter(|part| part.who.handle == *handle);
            let counts = of.filter_map(|part| match part.at {
                At::Writing(cidr) => Some((cidr, 1)),
                _ => None,
            });
            let counts = Handle::new(counts);
            if !counts.is_empty() {
                self.write_handle(handle, Some(counts), now);
            }
        }
        if let Some(ops) = self.together.take().filter(|ops| !ops.is_empty()) {
            self.outputs.push_back(Output::Together(ops));
        }
    }

    /// The handles that can be counted together with their blocks now, those that came first in front.
    fn newcomers(&self) -> BTreeMap<HandleId, BTreeSet<Prefix>> {
        let mut newcomers = BTreeMap::new();
        let plain = self.plain();
        for handle in self.parts.values().map(|part| &part.who.handle) {
            if newcomers.len() >= MOST_TOGETHER {
                break;
            }
            let Some(known) = self.handles.get(handle) else { continue };
            let is_new = plain.contains(handle) && !newcomers.contains_key(handle);
            if is_new && self.way(known) == Way::Together {
                newcomers.insert(handle.clone(), known.touched.clone());
            }
        }
        newcomers
    }

    /// The handles that wait for counts and wish no address by name, for none of what they want.
    pub(super) fn plain(&self) -> BTreeSet<HandleId> {
        let mut plain = BTreeMap::new();
        for part in self.parts.values() {
            let is = matches!(part.at, At::Counting(_)) && part.want.wished.is_none();
            *plain.entry(&part.who.handle).or_insert(true) &= is;
        }
        plain.into_iter().filter(|(_, is)| *is).map(|(handle, _)| handle.clone()).collect()
    }

    /// How a plain handle is counted.
    pub(super) fn way(&self, known: &HandleSlot) -> Way {
        let is_plain = |block: &BlockSlot| {
            Seen::of(block.block().map(AsRef::as_ref), &self.node).is_ours()
                && !block.slot.is_blind()
                && !block.is_to_be_fenced()
                && (block.slot.is_idle() || block.slot.is_under_way())
        };
        let blocks = || known.touched.iter().map(|cidr| self.blocks.get(cidr));
        if !known.slot.is_untried() || !blocks().all(|block| block.is_some_and(is_plain)) {
            Way::First
        } else if blocks().flatten().all(|block| block.slot.is_idle()) {
            Way::Together
        } else {
            Way::TogetherSoon
        }
    }
}

/// How many handles share a transaction: etcd takes 128 operations (`--max-txn-ops`), blocks included.
const MOST_TOGETHER: usize = 100;
