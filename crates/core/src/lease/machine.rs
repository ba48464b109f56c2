//! The lease machine: one `handle`, and a state whose variants carry what that state has.
//!
//! Two rules keep a subnet from being used twice. A plain put goes only over a key that is known to be
//! ours and has not run out; in every other case the write is a create, which fails when somebody is
//! there. And an outcome that comes late is never trusted for more than it says: a create that succeeded
//! after it was given up is either what we still want, or it is released.
//!
//! `machine/news` takes what the store tells, `machine/outcome` what became of our writes, `machine/contest` another who
//! writes our lease.

mod contest;
mod news;
mod outcome;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use super::{LeaseFault, LeaseInput, LeaseOutput, Life, LostReason, StoreWrite, Term, view::View};
use crate::{
    addressing::node_subnet::{Random, choose},
    model::{Lease, LeaseKey, NetworkConfig, Settings, UnderlayFact},
    transport::Footing,
};

/// Takes and keeps this node's lease.
#[derive(Debug)]
pub struct LeaseMachine {
    settings: Settings,
    term: Term,
    random: Random,
    config: Option<NetworkConfig>,
    underlay: Option<UnderlayFact>,
    previous: Option<LeaseKey>,
    view: View,
    state: State,
    /// Writes whose outcome has not come, those that were given up included.
    ops: BTreeMap<u64, Op>,
    /// Writes of a lease that failed, and may have been done all the same.
    doubtful: BTreeMap<u64, Op>,
    next_op: u64,
    /// Keys of ours that we do not want any more, with the revision that they were last written at.
    surplus: BTreeMap<LeaseKey, u64>,
    release_at: Option<Instant>,
    outputs: VecDeque<LeaseOutput>,
    said: Option<LeaseFault>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Configuration, underlay or snapshot are not known, or do not go together.
    Waiting,
    Asking {
        op: u64,
        until: Instant,
        attempt: u32,
    },
    BackOff {
        until: Instant,
        attempt: u32,
    },
    Held(Held),
}

/// A lease that is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    key: LeaseKey,
    /// `None`: a reservation.
    expires: Option<Instant>,
    written: Lease,
    /// The revision of our last write that is known of.
    rev: u64,
    presence: Presence,
    upkeep: Upkeep,
    attempt: u32,
    /// How often somebody else has written it, or spoilt it.
    contests: u32,
    /// Until when it is not said to be ours, and we give way to somebody who writes it: we took over what was there, and
    /// know of no earlier life in which it was ours.
    unproven: Option<Instant>,
}

/// What the store was last known to have at our key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Ours { seen: Instant },
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upkeep {
    /// Nothing to do until something changes.
    Never,
    At(Instant),
    Asking {
        op: u64,
        until: Instant,
    },
}

#[derive(Clone, Debug)]
struct Op {
    write: StoreWrite,
    issued: Instant,
}

impl LeaseMachine {
    /// Creates a machine that knows nothing yet. `seed` should differ from node to node and start to start.
    pub fn new(settings: Settings, term: Term, seed: u64) -> Self {
        Self {
            settings,
            term,
            random: Random::new(seed),
            config: None,
            underlay: None,
            previous: None,
            view: View::default(),
            state: State::Waiting,
            ops: BTreeMap::new(),
            doubtful: BTreeMap::new(),
            next_op: 0,
            surplus: BTreeMap::new(),
            release_at: None,
            outputs: VecDeque::new(),
            said: None,
        }
    }

    /// Advances the machine. `now` must never go backwards.
    pub fn handle(&mut self, input: LeaseInput, now: Instant) {
        match input {
            LeaseInput::Config(config) => self.config = Some(config),
            LeaseInput::Underlay(underlay) => self.underlay = Some(underlay),
            LeaseInput::Previous(key) => self.previous = Some(key),
            LeaseInput::Snapshot { claims, rev } => self.snapshot(claims, rev, now),
            LeaseInput::OtherHistory => self.forget_history(),
            LeaseInput::Claimed(claim) => self.claimed(claim, now),
            LeaseInput::Gone { key, rev } => self.gone(key, rev),
            LeaseInput::Wrote { op, outcome } => self.wrote(op, outcome, now),
            LeaseInput::Timeout => self.give_up_late(now),
        }
        self.advance(now);
        self.release(now);
    }

    /// Returns the next thing to do, or `None` when all is done until the next input.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<LeaseOutput> {
        self.outputs.pop_front()
    }

    /// Returns when [`LeaseInput::Timeout`] is next due. Changes after every [`Self::handle`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting => None,
            State::Asking { until, .. } | State::BackOff { until, .. } => Some(*until),
            // Nothing is released before a lease is held.
            State::Held(held) if held.unproven.is_some() => held.next(),
            State::Held(held) => held.next().into_iter().chain(self.release_at).min(),
        }
    }

    /// The lease that is held, while it is.
    pub fn held(&self) -> Option<LeaseKey> {
        match &self.state {
            State::Held(held) if held.unproven.is_none() => Some(held.key),
            _ => None,
        }
    }
}

impl LeaseMachine {
    fn advance(&mut self, now: Instant) {
        match &self.state {
            State::Waiting => self.ask(0, now),
            &State::BackOff { until, attempt } if until <= now => self.ask(attempt, now),
            State::Asking { .. } | State::BackOff { .. } => {}
            State::Held(held) => self.keep(held.clone(), now),
        }
    }

    /// Asks for a lease: one that is ours already, else the one we had, else a free one.
    fn ask(&mut self, attempt: u32, now: Instant) {
        let Some((config, lease)) = self.wish() else {
            self.state = State::Waiting;
            return;
        };
        let write =
            if let Some(claim) = self.view.reusable(&lease, &config, self.previous) {
                Some(self.overwrite(claim.key, claim.life, lease))
            } else {
                let taken = self.view.taken(&lease);
                choose(&config, &taken, self.previous, &mut self.random)
                    .map(|key| StoreWrite::Create { key, lease, ttl_s: self.ttl_s() })
            };
        let Some(write) = write else {
            self.pend(LeaseFault::Exhausted);
            self.back_off(attempt, now);
            return;
        };
        let op = self.write(write, now);
        self.state = State::Asking { op, until: now + NO_ANSWER, attempt };
    }

    /// What to hold a lease of, and what it should say; `None` while something is not known.
    fn wish(&mut self) -> Option<(NetworkConfig, Lease)> {
        let (config, underlay) = (self.config.clone()?, self.underlay.as_ref()?);
        if !self.view.is_synced() {
            return None;
        }
        match Footing::new(&self.settings, config, underlay) {
            Ok(footing) => {
                let lease = footing.advertise();
                Some((footing.config, lease))
            }
            Err(fault) => {
                self.pend(LeaseFault::Footing(fault));
                None
            }
        }
    }

    fn keep(&mut self, mut held: Held, now: Instant) {
        if held.unproven.is_some_and(|until| until <= now) {
            held.unproven = None;
            self.state = State::Held(held.clone());
            self.say(LeaseOutput::Acquired { key: held.key, expires: held.expires });
        }
        // While the wish cannot be known, the lease is kept as it is.
        let wish = self.wish();
        if wish.as_ref().is_some_and(|(config, _)| !config.holds(held.key)) {
            self.leave(held.key, now);
            return;
        }
        let lease = wish.map_or_else(|| held.written.clone(), |(_, lease)| lease);
        if held.has_run_out(now) {
            self.pend(LeaseFault::RunOut);
        }
        let changed = held.written != lease || held.presence == Presence::Gone;
        let due = match held.upkeep {
            Upkeep::At(at) => at <= now || (changed && held.attempt == 0),
            Upkeep::Never => changed,
            Upkeep::Asking { .. } => false,
        };
        if due {
            let write = self.upkeep(&held, lease, now);
            let op = self.write(write, now);
            let upkeep = Upkeep::Asking { op, until: now + NO_ANSWER };
            self.state = State::Held(Held { upkeep, ..held });
        }
    }

    /// The network has moved away from under the lease.
    fn leave(&mut self, held: LeaseKey, now: Instant) {
        self.say(LeaseOutput::Lost { key: held, reason: LostReason::OutsideNetwork });
        self.previous = Some(held);
        self.ask(0, now);
    }

    /// The write that keeps a lease, by what is known of its key.
    fn upkeep(&self, held: &Held, lease: Lease, now: Instant) -> StoreWrite {
        match held.presence {
            // Seen since it should have run out, so it did not.
            Presence::Ours { seen } if held.expires.is_none_or(|end| now < end || end <= seen) => {
                let life = if held.expires.is_none() { Life::Reserved } else { Life::Leased };
                self.overwrite(held.key, life, lease)
            }
            Presence::Ours { .. } | Presence::Gone => {
                StoreWrite::Create { key: held.key, lease, ttl_s: self.ttl_s() }
            }
        }
    }

    fn overwrite(&self, key: LeaseKey, life: Life, lease: Lease) -> StoreWrite {
        match life {
            Life::Leased => StoreWrite::Renew { key, lease, ttl_s: self.ttl_s() },
            Life::Reserved => StoreWrite::Update { key, lease },
        }
    }

    fn release(&mut self, now: Instant) {
        if self.surplus.is_empty() {
            self.release_at = None;
            return;
        }
        let due = self.release_at.is_none_or(|at| at <= now);
        if !due || self.held().is_none() {
            return;
        }
        // Until it is known to be gone, it is asked for again.
        self.release_at = Some(now + RELEASE_AGAIN);
        let surplus: Vec<_> = self.surplus.iter().map(|(key, rev)| (*key, *rev)).collect();
        for (key, mod_rev) in surplus {
            self.write(StoreWrite::Release { key, mod_rev }, now);
        }
    }
}

impl LeaseMachine {
    fn write(&mut self, write: StoreWrite, now: Instant) -> u64 {
        let op = self.next_op;
        self.next_op += 1;
        self.ops.insert(op, Op { write: write.clone(), issued: now });
        bound(&mut self.ops);
        self.say(LeaseOutput::Store { op, write });
        op
    }

    fn back_off(&mut self, attempt: u32, now: Instant) {
        let until = now + self.delay(attempt);
        self.state = State::BackOff { until, attempt: attempt.saturating_add(1) };
    }

    /// Doubles with each attempt up to a bound; half of it is chance, so that rivals part.
    fn delay(&mut self, attempt: u32) -> Duration {
        let whole = FIRST_DELAY.saturating_mul(1 << attempt.min(16)).min(LONGEST_DELAY);
        let half = whole / 2;
        let millis = usize::try_from(half.as_millis()).unwrap_or(usize::MAX);
        half + Duration::from_millis(self.random.below(millis).try_into().unwrap_or_default())
    }

    fn ttl_s(&self) -> u32 {
        u32::try_from(self.term.ttl.as_secs()).unwrap_or(u32::MAX)
    }

    /// Says why something is not as it should be, once.
    fn pend(&mut self, fault: LeaseFault) {
        if self.said.as_ref() != Some(&fault) {
            self.said = Some(fault.clone());
            self.say(LeaseOutput::Pending(fault));
        }
    }

    fn say(&mut self, output: LeaseOutput) {
        self.outputs.push_back(output);
    }
}

impl Held {
    fn has_run_out(&self, now: Instant) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }

    fn next(&self) -> Option<Instant> {
        let upkeep = match self.upkeep {
            Upkeep::Never => None,
            Upkeep::At(at) | Upkeep::Asking { until: at, .. } => Some(at),
        };
        upkeep.into_iter().chain(self.unproven).min()
    }
}

impl Upkeep {
    fn no_later_than(self, now: Instant) -> Self {
        match self {
            Self::At(at) => Self::At(at.min(now)),
            Self::Never => Self::At(now),
            asking @ Self::Asking { .. } => asking,
        }
    }
}

fn bound(ops: &mut BTreeMap<u64, Op>) {
    while ops.len() > MOST_OPS {
        ops.pop_first();
    }
}

/// The later of two ends, where `None` is never.
fn later(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    Some(one?.max(other?))
}

/// Whoever holds what we took over, and lives, has seen our write and answered it by then.
const PROBATION: Duration = Duration::from_secs(2);
/// After this long without an answer a write is given up, though it may yet have happened.
const NO_ANSWER: Duration = Duration::from_secs(30);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
const RELEASE_AGAIN: Duration = Duration::from_mins(1);
/// How many writes without an answer are remembered.
const MOST_OPS: usize = 32;
