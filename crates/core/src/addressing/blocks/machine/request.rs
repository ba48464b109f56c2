//! Who waits for what: requests, and the parts that an allocation is made of, one for each address.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use russet_net::Prefix;

use super::{
    super::{
        block::{Claimant, Given, Release},
        name::HandleId,
    },
    Answer, Ask, BlockMachine, MOST_WAITING, Now, PATIENCE, Refusal, Want,
    slot::{HandleSlot, Slot, Source},
    write::{Free, What},
};

#[derive(Debug)]
pub(super) struct Request {
    pub(super) until: Instant,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// The ids of the parts, in the order of the wants.
    Allocate { handle: HandleId, parts: Vec<u64> },
    /// The handle's index is read first.
    LookUp { handle: HandleId },
    /// So many blocks are still to be written, and so many addresses are free already.
    Release { left: usize, freed: u32 },
}

/// One address that is asked for.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) request: u64,
    pub(super) who: Arc<Claimant>,
    pub(super) want: Want,
    pub(super) at: At,
    /// Nobody waits for it any more, but the write that gives it is under way.
    pub(super) abandoned: bool,
}

/// How far a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Waiting,
    /// The handle's count for the block is to be written.
    Counting(Prefix),
    Ready(Prefix),
    Writing(Prefix),
    Given(Given, Source, Prefix),
}

impl At {
    pub(super) const fn block(self) -> Option<Prefix> {
        match self {
            Self::Waiting => None,
            Self::Counting(cidr)
            | Self::Ready(cidr)
            | Self::Writing(cidr)
            | Self::Given(_, _, cidr) => Some(cidr),
        }
    }

    /// The block that it waits for, while no write has it.
    pub(super) const fn pending(self) -> Option<Prefix> {
        match self {
            Self::Counting(cidr) | Self::Ready(cidr) => Some(cidr),
            Self::Waiting | Self::Writing(_) | Self::Given(..) => None,
        }
    }
}

impl BlockMachine {
    pub(super) fn ask(&mut self, request: u64, ask: Ask, now: Now) {
        if self.requests.len() >= MOST_WAITING || self.requests.contains_key(&request) {
            self.answer(request, Err(Refusal::Busy));
            return;
        }
        let kind = match ask {
            Ask::Allocate { who, .. } if self.is_looked_up(&who.handle) => {
                // What it would get now might be released by what was asked before.
                return self.answer(request, Err(Refusal::CalledOff));
            }
            Ask::Allocate { who, wants } => self.begin(request, who, wants),
            Ask::ReleaseHandle(handle) => {
                self.call_off(&handle);
                Kind::LookUp { handle }
            }
            Ask::ReleaseAddress(release) => match self.locate(request, release) {
                Ok(kind) => kind,
                Err(refusal) => return self.answer(request, Err(refusal)),
            },
        };
        self.requests.insert(request, Request { until: now.mono + PATIENCE, kind });
        self.finish(request);
    }

    pub(super) fn is_looked_up(&self, handle: &HandleId) -> bool {
        let looks = |kind: &Kind| matches!(kind, Kind::LookUp { handle: by } if by == handle);
        self.requests.values().any(|request| looks(&request.kind))
    }

    fn begin(&mut self, request: u64, who: Claimant, wants: Vec<Want>) -> Kind {
        let handle = who.handle.clone();
        let who = Arc::new(who);
        let mut parts = Vec::new();
        for want in wants {
            let id = self.next_part;
            self.next_part += 1;
            let who = Arc::clone(&who);
            self.parts.insert(id, Part { request, who, want, at: At::Waiting, abandoned: false });
            parts.push(id);
        }
        Kind::Allocate { handle, parts }
    }

    /// Which block an address to be released is in: one that exists.
    fn locate(&mut self, request: u64, release: Release) -> Result<Kind, Refusal> {
        let addr = release.addr;
        let block = self.index.range(..=Prefix::host(addr)).next_back();
        let block = block.map(|(cidr, _)| *cidr).filter(|cidr| cidr.contains(addr));
        let cidr = block.ok_or(Refusal::NoPoolHas(addr))?;
        self.free(cidr, Free { request: Some(request), what: What::Address(release) });
        Ok(Kind::Release { left: 1, freed: 0 })
    }

    fn call_off(&mut self, handle: &HandleId) {
        let of = |kind: &Kind| matches!(kind, Kind::Allocate { handle: by, .. } if by == handle);
        let requests = self.requests.iter().filter(|(_, request)| of(&request.kind));
        let requests: Vec<_> = requests.map(|(id, _)| *id).collect();
        for id in requests {
            self.refuse(id, Refusal::CalledOff);
        }
    }

    /// Ends a request without success. What it got already is given back.
    pub(super) fn refuse(&mut self, request: u64, refusal: Refusal) {
        let Some(Request { kind, .. }) = self.requests.remove(&request) else { return };
        if let Kind::Allocate { parts, .. } = kind {
            for part in parts {
                self.abandon(part);
            }
        }
        self.answer(request, Err(refusal));
        self.dirty = true;
    }

    fn abandon(&mut self, id: u64) {
        let Some(part) = self.parts.get_mut(&id) else { return };
        match part.at {
            At::Writing(_) => part.abandoned = true,
            At::Given(given, source, cidr) => {
                let handle = part.who.handle.clone();
                self.parts.remove(&id);
                self.give_back(given, source, cidr, handle);
            }
            At::Waiting | At::Counting(_) | At::Ready(_) => _ = self.parts.remove(&id),
        }
    }

    /// Frees an address that nobody waits for. What the handle had before may be in use, and stays.
    pub(super) fn give_back(&mut self, given: Given, source: Source, cidr: Prefix, by: HandleId) {
        if source == Source::Taken {
            let Given { addr, sequence } = given;
            let release = Release { addr, sequence: Some(sequence), handle: Some(by) };
            self.free(cidr, Free { request: None, what: What::Address(release) });
        }
    }

    /// Notes an address that was written, and answers when it was the last of its request.
    pub(super) fn got(&mut self, id: u64, given: Given, source: Source, cidr: Prefix) {
        let Some(part) = self.parts.get_mut(&id) else { return };
        if part.abandoned {
            let handle = part.who.handle.clone();
            self.parts.remove(&id);
            self.give_back(given, source, cidr, handle);
            return;
        }
        part.at = At::Given(given, source, cidr);
        let request = part.request;
        self.finish(request);
    }

    fn finish(&mut self, request: u64) {
        let Some(Request { kind: Kind::Allocate { parts, .. }, .. }) = self.requests.get(&request)
        else {
            return;
        };
        let given = |id: &u64| match self.parts.get(id)?.at {
            At::Given(given, ..) => Some(given),
            _ => None,
        };
        let Some(all) = parts.iter().map(given).collect::<Option<Vec<_>>>() else { return };
        if let Some(Request { kind: Kind::Allocate { parts, .. }, .. }) =
            self.requests.remove(&request)
        {
            for id in parts {
                self.parts.remove(&id);
            }
        }
        self.answer(request, Ok(Answer::Given(all)));
    }

    /// Notes that one block of a release is done.
    pub(super) fn freed(&mut self, request: Option<u64>, n: u32) {
        let Some(id) = request else { return };
        let Some(Request { kind: Kind::Release { left, freed }, .. }) = self.requests.get_mut(&id)
        else {
            return;
        };
        *left = left.saturating_sub(1);
        *freed = freed.saturating_add(n);
        if *left == 0 {
            let released = *freed;
            self.requests.remove(&id);
            self.answer(id, Ok(Answer::Released(released)));
        }
    }

    /// Finds the blocks of handles that are to be released: those that the index names, and those of ours in
    /// which it has something, should the index be wrong.
    pub(super) fn look_up(&mut self, now: Now) {
        let wanted = self.requests.iter().filter_map(|(id, request)| match &request.kind {
            Kind::LookUp { handle } => Some((*id, handle.clone())),
            Kind::Allocate { .. } | Kind::Release { .. } => None,
        });
        for (request, handle) in wanted.collect::<Vec<_>>() {
            let unknown = || HandleSlot::new(Slot::unknown());
            let known = self.handles.entry(handle.clone()).or_insert_with(unknown);
            if !known.slot.is_idle() {
                continue;
            }
            if known.slot.is_blind() {
                self.read_handle(&handle, now);
            } else if !self.parts.values().any(|part| part.who.handle == handle) {
                self.release_found(request, &handle);
            }
        }
    }

    fn release_found(&mut self, request: u64, handle: &HandleId) {
        let Some(known) = self.handles.get_mut(handle) else { return };
        let counted = known.slot.value().into_iter().flat_map(super::super::Handle::blocks);
        let mut blocks: BTreeSet<Prefix> = counted.map(|(cidr, _)| cidr).collect();
        blocks.extend(known.touched.iter().copied());
        let ours = self.blocks.iter().filter(|(_, b)| b.block().is_some_and(|b| b.has(handle)));
        blocks.extend(ours.map(|(cidr, _)| *cidr));
        known.touched.extend(blocks.iter().copied());
        if let Some(waiting) = self.requests.get_mut(&request) {
            // One more than the blocks, so that it is not answered before all are begun.
            waiting.kind = Kind::Release { left: blocks.len() + 1, freed: 0 };
        }
        for cidr in blocks {
            let what = What::Handle(handle.clone());
            self.free(cidr, Free { request: Some(request), what });
        }
        self.freed(Some(request), 0);
        self.dirty = true;
    }
}
