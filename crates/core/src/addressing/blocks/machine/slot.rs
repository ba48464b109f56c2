//! What is known of one object of the store, and the one operation on it that is under way.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use russet_net::Prefix;

use super::{
    super::{
        block::Block,
        block::Given,
        handle::Handle,
        store::{Outcome, Value, Versioned},
    },
    NO_ANSWER,
    write::Free,
};
use crate::addressing::node_subnet::Random;

/// One object. An older picture of it never replaces a newer one, whichever way they come.
#[derive(Debug)]
pub(super) struct Slot<V> {
    known: Known<V>,
    /// Nothing was heard of a write: it is read before anything else.
    doubtful: bool,
    /// That write may still come, as long as the object has the revision that it expects.
    looming: Option<u64>,
    /// The revision of our last write.
    written: Option<u64>,
    flight: Option<Flight<V>>,
    attempt: u32,
    pause: Option<Instant>,
}

#[derive(Debug)]
enum Known<V> {
    Unknown,
    /// It did not exist at this revision.
    Absent {
        at: u64,
    },
    At(Versioned<V>),
}

#[derive(Debug)]
struct Flight<V> {
    op: u64,
    until: Instant,
    sent: Sent<V>,
}

#[derive(Debug)]
enum Sent<V> {
    Read,
    Write(Option<V>),
}

/// What an outcome means for whoever waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    Written,
    /// It is to be made again from what is known now.
    NotWritten,
}

impl<V: Clone> Slot<V> {
    /// Not looked at yet.
    pub(super) const fn unknown() -> Self {
        Self::of(Known::Unknown)
    }

    /// Believed not to exist; a write finds out.
    pub(super) const fn absent() -> Self {
        Self::of(Known::Absent { at: 0 })
    }

    const fn of(known: Known<V>) -> Self {
        Self {
            known,
            doubtful: false,
            looming: None,
            written: None,
            flight: None,
            attempt: 0,
            pause: None,
        }
    }

    pub(super) const fn value(&self) -> Option<&V> {
        match &self.known {
            Known::At(versioned) => Some(&versioned.value),
            Known::Unknown | Known::Absent { .. } => None,
        }
    }

    /// The revision that a write must expect.
    pub(super) const fn rev(&self) -> Option<u64> {
        match &self.known {
            Known::At(versioned) => Some(versioned.rev),
            Known::Unknown | Known::Absent { .. } => None,
        }
    }

    /// The value that is being written, while one is.
    pub(super) fn proposed(&self) -> Option<&V> {
        match &self.flight.as_ref()?.sent {
            Sent::Write(value) => value.as_ref(),
            Sent::Read => None,
        }
    }

    pub(super) const fn is_under_way(&self) -> bool {
        self.flight.is_some()
    }

    /// Whether an operation may be sent.
    pub(super) const fn is_idle(&self) -> bool {
        self.flight.is_none() && self.pause.is_none()
    }

    /// Whether it is believed not to exist, and nothing was tried that would tell.
    pub(super) const fn is_untried(&self) -> bool {
        matches!(self.known, Known::Absent { at: 0 })
            && self.is_idle()
            && self.attempt == 0
            && !self.doubtful
    }

    /// Whether it must be read before it is written.
    pub(super) const fn is_blind(&self) -> bool {
        self.doubtful || matches!(self.known, Known::Unknown)
    }

    /// Whether a write that was given up may yet change the object under our hands. A write of ours ends that,
    /// if it changes nothing but the revision.
    pub(super) fn is_threatened(&self) -> bool {
        self.looming.is_some() && self.looming == self.rev()
    }

    /// Whether it stands as it was last written here, and no write that was given up can change that.
    pub(super) fn is_firm(&self) -> bool {
        self.rev().is_some() && self.written == self.rev() && !self.is_threatened()
    }

    /// Whether it may be otherwise than it is known.
    pub(super) fn is_uncertain(&self) -> bool {
        self.is_blind() || self.is_threatened()
    }

    pub(super) fn reading(&mut self, op: u64, now: Instant) {
        self.flight = Some(Flight { op, until: now + NO_ANSWER, sent: Sent::Read });
    }

    pub(super) fn writing(&mut self, op: u64, value: Option<V>, now: Instant) {
        self.flight = Some(Flight { op, until: now + NO_ANSWER, sent: Sent::Write(value) });
    }

    pub(super) fn late(&self, now: Instant) -> Option<u64> {
        self.flight.as_ref().filter(|flight| flight.until <= now).map(|flight| flight.op)
    }

    pub(super) fn end_pause(&mut self, now: Instant) {
        self.pause = self.pause.filter(|until| *until > now);
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.flight.as_ref().map(|flight| flight.until).or(self.pause)
    }

    /// Takes what the watch, or an answer, says of the object at a revision.
    pub(super) fn learn(&mut self, rev: u64, value: Option<V>) {
        let newer = match &self.known {
            Known::Unknown => true,
            Known::Absent { at } => rev > *at || (rev == 0 && *at == 0),
            Known::At(known) => rev > known.rev,
        };
        if newer {
            self.known = match value {
                Some(value) => Known::At(Versioned { rev, value }),
                None => Known::Absent { at: rev },
            };
        }
    }

    /// It is something else at this revision, and it was not told what.
    pub(super) fn outdated(&mut self, rev: u64) {
        let known = match &self.known {
            Known::Unknown => None,
            Known::Absent { at } => Some(*at),
            Known::At(known) => Some(known.rev),
        };
        if known.is_some_and(|known| rev > known) {
            self.known = Known::Unknown;
        }
    }

    pub(super) fn settle(&mut self, outcome: Outcome, now: Instant, random: &mut Random) -> Settled
    where
        V: FromValue,
    {
        let sent = self.flight.take().map(|flight| flight.sent);
        match (outcome, sent) {
            (Outcome::Done { rev }, Some(Sent::Write(value))) => {
                self.learn(rev, value);
                self.written = Some(rev);
                self.doubtful = false;
                self.attempt = 0;
                Settled::Written
            }
            (Outcome::Present { at, value }, sent) => {
                self.look(at, value);
                match sent {
                    Some(Sent::Write(_)) => self.back_off(CONFLICT, now, random),
                    _ => self.doubtful = false,
                }
                Settled::NotWritten
            }
            (Outcome::Failed(_) | Outcome::Done { .. }, sent) => {
                self.doubtful = true;
                if matches!(sent, Some(Sent::Write(_))) {
                    self.looming = self.rev();
                }
                self.back_off(FAILURE, now, random);
                Settled::NotWritten
            }
        }
    }

    /// An object that was looked for and not found is gone, also when the store names no revision.
    fn look(&mut self, at: u64, value: Option<Versioned>)
    where
        V: FromValue,
    {
        match value {
            Some(found) => match V::from_value(found.value) {
                Some(value) => self.learn(found.rev, Some(value)),
                // The store gave another kind of object: nothing is known.
                None => self.known = Known::Unknown,
            },
            None if at == 0 => self.known = Known::Absent { at: 0 },
            None => self.learn(at, None),
        }
    }

    /// Doubles with each attempt up to a bound; half of it is chance, so that rivals part.
    fn back_off(
        &mut self,
        (first, longest): (Duration, Duration),
        now: Instant,
        random: &mut Random,
    ) {
        let whole = first.saturating_mul(1 << self.attempt.min(16)).min(longest);
        let half = whole / 2;
        let micros = usize::try_from(half.as_micros()).unwrap_or(usize::MAX);
        let chance = u64::try_from(random.below(micros)).unwrap_or_default();
        self.pause = Some(now + half + Duration::from_micros(chance));
        self.attempt = self.attempt.saturating_add(1);
    }
}

/// The first and the longest pause after a lost comparison.
const CONFLICT: (Duration, Duration) = (Duration::from_millis(4), Duration::from_secs(1));
/// The same when the store did not answer.
const FAILURE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A kind of object.
pub(super) trait FromValue: Sized {
    fn from_value(value: Value) -> Option<Self>;
}

impl FromValue for Arc<Block> {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Block(block) => Some(block),
            _ => None,
        }
    }
}

impl FromValue for super::AffinityState {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Affinity(state) => Some(state),
            _ => None,
        }
    }
}

impl FromValue for Handle {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Handle(handle) => Some(handle),
            _ => None,
        }
    }
}

/// A block, and whom the write that is under way serves.
#[derive(Debug)]
pub(super) struct BlockSlot {
    pub(super) slot: Slot<Arc<Block>>,
    pub(super) batch: Batch,
    /// It is to be written once more, so that no write from before a restart comes after all.
    pub(super) fence: bool,
}

#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) parts: Vec<(u64, Given, Source)>,
    /// With how many addresses each frees.
    pub(super) frees: Vec<(Free, u32)>,
    /// Whether the counts of its handles are of the same transaction.
    pub(super) together: bool,
}

/// Where an address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Taken,
    /// The handle had it already.
    Kept,
}

impl BlockSlot {
    pub(super) fn new(slot: Slot<Arc<Block>>) -> Self {
        Self { slot, batch: Batch::default(), fence: false }
    }

    /// Whether a write that nobody here knows of could still find the revision that it expects.
    pub(super) fn may_change(&self) -> bool {
        self.block().is_some() && !self.slot.is_firm()
    }

    pub(super) fn is_to_be_fenced(&self) -> bool {
        self.fence || self.slot.is_threatened()
    }

    /// The block, unless it is marked as deleted.
    pub(super) fn block(&self) -> Option<&Arc<Block>> {
        self.slot.value().filter(|block| !block.is_deleted())
    }
}

/// A handle, and the blocks whose counts are to be put right.
#[derive(Debug)]
pub(super) struct HandleSlot {
    pub(super) slot: Slot<Handle>,
    pub(super) touched: BTreeSet<Prefix>,
    /// Blocks for which the count is ours: it was none before.
    pub(super) raised: BTreeSet<Prefix>,
}

impl HandleSlot {
    pub(super) const fn new(slot: Slot<Handle>) -> Self {
        Self { slot, touched: BTreeSet::new(), raised: BTreeSet::new() }
    }
}
