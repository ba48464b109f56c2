//! Chooses a block for each address that is asked for, and which block to claim ahead.
//!
//! First the block in which the handle has an address already, whose ever it is; then a block of ours that has room; then one that is being claimed; then a new one; then, when no new one
//! may be had and borrowing is allowed, another node's.

use std::{collections::BTreeMap, net::IpAddr};

use russet_net::{Family, Prefix};

use super::{
    super::{
        affinity::AffinityState,
        block::TakeError,
        name::HandleId,
        pool::BlockPool,
        walk::{free_block, overlapping, rank},
    },
    BlockConfig, BlockMachine, Borrowing, Now, Refusal, Want,
    request::{At, Part},
    slot::{HandleSlot, Slot},
    view::Whose,
};

/// What to do for one part.
enum Choice {
    Take(Prefix),
    Claim(Prefix),
    Wait,
    Refuse(Refusal),
}

/// What is left of the blocks, with those taken off that wait for a write.
struct Room {
    /// Free addresses of our blocks, whole or half claimed.
    own: BTreeMap<Prefix, usize>,
    /// How many parts wait for each block.
    load: BTreeMap<Prefix, usize>,
}

impl Room {
    fn of(&self, cidr: Prefix) -> usize {
        let free = self.own.get(&cidr).copied().unwrap_or_default();
        free.saturating_sub(self.waiting(cidr))
    }

    fn waiting(&self, cidr: Prefix) -> usize {
        self.load.get(&cidr).copied().unwrap_or_default()
    }
}

impl BlockMachine {
    pub(super) fn place(&mut self, config: &BlockConfig, now: Now) {
        let mut room = self.room(config, now);
        let waiting = self.parts.iter().filter(|(_, part)| part.at == At::Waiting);
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            // A refused request takes its other parts with it.
            let Some(part) = self.parts.get(&id) else { continue };
            let (request, family) = (part.request, part.want.family);
            let pools = pools_of(config, family, &part.want.pools);
            self.used_pools.extend(pools.first().map(|pool| pool.cidr()));
            let choice = match part.want.wished {
                Some(addr) => self.choose_exactly(config, &pools, addr, &room),
                None => self.choose(config, &pools, part, &room),
            };
            match choice {
                Choice::Take(cidr) => {
                    *room.load.entry(cidr).or_default() += 1;
                    self.assign(id, cidr);
                }
                Choice::Claim(cidr) => _ = self.claims.insert(cidr),
                Choice::Wait => {}
                Choice::Refuse(refusal) => self.refuse(request, refusal),
            }
        }
        self.claim_ahead(config, &room);
    }

    fn room(&self, config: &BlockConfig, now: Now) -> Room {
        let mut load = BTreeMap::new();
        for cidr in self.parts.values().filter_map(|part| part.at.pending()) {
            *load.entry(cidr).or_default() += 1;
        }
        let thawed = now.wall.before(config.cooldown);
        let own = self.blocks.iter().filter(|(cidr, _)| self.seen(**cidr).is_ours());
        let own = own.filter_map(|(cidr, known)| {
            Some((*cidr, known.block()?.free(&config.reserved, thawed)))
        });
        Room { own: own.collect(), load }
    }

    /// Sends a part to a block: the handle's count comes first.
    pub(super) fn assign(&mut self, id: u64, cidr: Prefix) {
        let Some(part) = self.parts.get_mut(&id) else { return };
        part.at = At::Counting(cidr);
        let handle = part.who.handle.clone();
        let fresh = || HandleSlot::new(Slot::absent());
        self.handles.entry(handle).or_insert_with(fresh).touched.insert(cidr);
        self.block_slot(cidr);
        self.dirty = true;
    }

    fn choose(
        &self,
        config: &BlockConfig,
        pools: &[BlockPool],
        part: &Part,
        room: &Room,
    ) -> Choice {
        let family = part.want.family;
        if pools.is_empty() {
            return Choice::Refuse(Refusal::NoPool(family));
        }
        let confirmed = || pools.iter().flat_map(|pool| self.own(*pool, room, Stage::Confirmed));
        // The same request was made before: it gets the same address, borrowed though it may be.
        let had = confirmed().find(|cidr| self.has(*cidr, &part.who.handle));
        if let Some(cidr) = had.or_else(|| self.borrowed(pools, &part.who.handle)) {
            return Choice::Take(cidr);
        }
        if let Some(cidr) = confirmed().find(|cidr| room.of(*cidr) > 0) {
            return Choice::Take(cidr);
        }
        if self.claims.iter().any(|cidr| pools.iter().any(|pool| pool.gives(*cidr))) {
            return Choice::Wait;
        }
        // What is being given up is taken back before anything new.
        let mut half = pools.iter().flat_map(|pool| self.own(*pool, room, Stage::Half));
        if let Some(cidr) = half.find(|cidr| room.of(*cidr) > 0) {
            return Choice::Claim(cidr);
        }
        let most = config.blocks_per_node;
        let limit = self.owned(room) >= most;
        let mut pools_for_new = pools.iter().filter(|_| !limit);
        if let Some(cidr) = pools_for_new.find_map(|pool| self.candidate(config, *pool)) {
            return Choice::Claim(cidr);
        }
        match self.lender(config, pools, room) {
            Some(cidr) => Choice::Take(cidr),
            None if limit => Choice::Refuse(Refusal::BlockLimit(most)),
            None => Choice::Refuse(Refusal::Exhausted(family)),
        }
    }

    /// Another's block in which a handle has an address. It is read before it is written.
    fn borrowed(&self, pools: &[BlockPool], handle: &HandleId) -> Option<Prefix> {
        let given = |cidr: &Prefix| pools.iter().any(|pool| pool.gives(*cidr));
        let mut lent = self.lent.iter().filter(|(_, handles)| handles.contains(handle));
        lent.find(|(cidr, _)| given(cidr)).map(|(cidr, _)| *cidr)
    }

    pub(super) fn has(&self, cidr: Prefix, handle: &HandleId) -> bool {
        self.blocks.get(&cidr).and_then(|known| known.block()).is_some_and(|b| b.has(handle))
    }

    fn choose_exactly(
        &self,
        config: &BlockConfig,
        pools: &[BlockPool],
        addr: IpAddr,
        room: &Room,
    ) -> Choice {
        // What was claimed ahead may be somebody's by now, whatever has become of its pool.
        if let Some(cidr) = self.ahead_in(addr) {
            return Choice::Take(cidr);
        }
        let Some(cidr) = pools.iter().find_map(|pool| pool.block_of(addr)) else {
            return Choice::Refuse(Refusal::NoPoolHas(addr));
        };
        if config.reserved.contains(addr) {
            return Choice::Refuse(TakeError::Reserved { addr }.into());
        }
        match self.index.get(&cidr).map(|known| known.whose) {
            Some(Whose::Others) if config.borrowing == Borrowing::Never => {
                Choice::Refuse(Refusal::Strict { addr, block: cidr })
            }
            Some(_) => Choice::Take(cidr),
            None if self.claims.contains(&cidr) => Choice::Wait,
            None if self.owned(room) >= config.blocks_per_node => {
                Choice::Refuse(Refusal::BlockLimit(config.blocks_per_node))
            }
            None => match overlapping(cidr, &self.index) {
                Some(other) => Choice::Refuse(Refusal::Overlaps { addr, block: cidr, other }),
                None => Choice::Claim(cidr),
            },
        }
    }

    /// The block in which this node has claimed an address ahead.
    fn ahead_in(&self, addr: IpAddr) -> Option<Prefix> {
        let (cidr, known) = self.blocks.range(..=Prefix::host(addr)).next_back()?;
        known.block()?.ahead(addr, &self.node).map(|_| *cidr)
    }

    /// How many addresses our blocks have left for each of the wants, where they have least.
    pub fn left_for(&self, wants: &[Want], now: Now) -> usize {
        let Some(config) = &self.config else { return 0 };
        let room = self.room(config, now);
        let left = |want: &Want| -> usize {
            let pools = pools_of(config, want.family, &want.pools);
            let own = pools.iter().flat_map(|pool| self.own(*pool, &room, Stage::Confirmed));
            own.map(|cidr| room.of(cidr)).sum()
        };
        wants.iter().map(left).min().unwrap_or_default()
    }

    fn candidate(&self, config: &BlockConfig, pool: BlockPool) -> Option<Prefix> {
        free_block(pool, &self.node, &self.index, &config.reserved)
    }

    /// Another node's block to borrow from: the first with room in this node's own order.
    fn lender(&self, config: &BlockConfig, pools: &[BlockPool], room: &Room) -> Option<Prefix> {
        if config.borrowing == Borrowing::Never {
            return None;
        }
        let within = |pool: &BlockPool| {
            let blocks = self.index.range(pool.cidr()..).take_while({
                let cidr = pool.cidr();
                move |(block, _)| cidr.covers(**block)
            });
            blocks
                .filter(|(block, known)| {
                    known.whose == Whose::Others && known.free > room.waiting(**block)
                })
                .map(|(block, _)| *block)
                .min_by_key(|block| rank(&self.node, *block))
        };
        pools.iter().find_map(within)
    }

    /// Our blocks of a pool, whole or in the middle of a claim or a release.
    fn own(&self, pool: BlockPool, room: &Room, stage: Stage) -> impl Iterator<Item = Prefix> {
        let is = move |cidr: Prefix| {
            let confirmed =
                self.affinities.get(&cidr).and_then(Slot::value) == Some(&AffinityState::Confirmed);
            confirmed == (stage == Stage::Confirmed)
        };
        let blocks = room.own.keys().copied();
        blocks.filter(move |cidr| pool.gives(*cidr) && is(*cidr))
    }

    /// How many blocks this node has, those included that it is about to get.
    fn owned(&self, room: &Room) -> usize {
        let coming = self.claims.iter().filter(|cidr| !room.own.contains_key(*cidr));
        room.own.len() + coming.count()
    }

    /// Claims the next block before the last address is gone, so that no request waits for a block. Not where
    /// blocks are scarce: there each one that is held in advance is missing elsewhere.
    fn claim_ahead(&mut self, config: &BlockConfig, room: &Room) {
        for pool in &config.pools {
            let used = self.used_pools.contains(&pool.cidr());
            let own: Vec<_> = self.own(*pool, room, Stage::Confirmed).collect();
            let coming = self.claims.iter().any(|cidr| pool.gives(*cidr));
            if (own.is_empty() && !used) || coming || self.owned(room) >= config.blocks_per_node {
                continue;
            }
            let left: usize = own.iter().map(|cidr| room.of(*cidr)).sum();
            if left < low_water(*pool)
                && !self.is_scarce(*pool)
                && let Some(cidr) = self.candidate(config, *pool)
            {
                self.claims.insert(cidr);
            }
        }
    }

    fn is_scarce(&self, pool: BlockPool) -> bool {
        let all = 1_usize.checked_shl(pool.index_bits().into()).unwrap_or(usize::MAX);
        self.index.keys().filter(|cidr| pool.gives(**cidr)).count() > all / 2
    }
}

/// Whether a block of ours has its affinity confirmed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Confirmed,
    Half,
}

fn pools_of(config: &BlockConfig, family: Family, asked: &[Prefix]) -> Vec<BlockPool> {
    let enabled = config.pools.iter().copied().filter(|pool| pool.family() == family);
    if asked.is_empty() {
        return enabled.collect();
    }
    let enabled: Vec<_> = enabled.collect();
    asked.iter().filter_map(|cidr| enabled.iter().copied().find(|p| p.cidr() == *cidr)).collect()
}

/// With fewer free addresses than this in a pool, a node claims another block, and the collector leaves it its
/// empty ones.
pub(in super::super) fn low_water(pool: BlockPool) -> usize {
    (pool.block_size() / 4).clamp(1, 16)
}
