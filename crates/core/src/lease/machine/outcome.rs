//! What becomes of our writes.

use std::time::Instant;

use super::{
    Held, LeaseMachine, NO_ANSWER, Op, PROBATION, Presence, State, Upkeep, bound,
    contest::other_end, later,
};
use crate::{
    lease::{LeaseClaim, LeaseFault, LeaseOutput, Life, StoreWrite, WriteOutcome},
    model::{Lease, LeaseKey},
};

impl LeaseMachine {
    pub(super) fn wrote(&mut self, id: u64, outcome: WriteOutcome, now: Instant) {
        // An outcome that is told twice is known no more the second time.
        let Some(op) = self.ops.remove(&id) else { return };
        let key = op.write.key();
        match (&op.write, outcome) {
            (StoreWrite::Release { .. }, WriteOutcome::Failed(_)) => {}
            (StoreWrite::Release { .. }, _) => _ = self.surplus.remove(&key),
            (_, WriteOutcome::Done { rev }) => self.done(id, op, rev, now),
            (_, WriteOutcome::Exists) => {
                self.view.note_taken(key);
                self.failed(id, LeaseFault::LostRace, now);
            }
            (_, WriteOutcome::Failed(reason)) => {
                self.doubtful.insert(id, op);
                bound(&mut self.doubtful);
                self.failed(id, LeaseFault::Write(reason), now);
            }
        }
    }

    pub(super) fn done(&mut self, id: u64, op: Op, rev: u64, now: Instant) {
        let key = op.write.key();
        // What was asked for long before this one would have come before it.
        self.doubtful.retain(|_, other| {
            other.write.key() != key || op.issued.duration_since(other.issued) < NO_ANSWER
        });
        match &self.state {
            State::Held(held) if held.key == key => self.hold(id, op, rev, now),
            State::Held(_) => _ = self.surplus.insert(key, rev),
            State::Asking { op, .. } if *op != id && !self.still_wanted(key) => {
                self.surplus.insert(key, rev);
            }
            State::Waiting | State::Asking { .. } | State::BackOff { .. } => {
                self.hold(id, op, rev, now);
            }
        }
    }

    pub(super) fn still_wanted(&self, key: LeaseKey) -> bool {
        self.config.as_ref().is_some_and(|config| config.fits(key))
    }

    /// Takes a lease as ours, or notes that it lives longer. A late answer never shortens its life.
    pub(super) fn hold(&mut self, id: u64, op: Op, rev: u64, now: Instant) {
        let Op { write, issued } = op;
        let created = matches!(write, StoreWrite::Create { .. });
        let (key, lease, expires) = match write {
            StoreWrite::Create { key, lease, .. } | StoreWrite::Renew { key, lease, .. } => {
                (key, lease, Some(issued + self.term.ttl))
            }
            StoreWrite::Update { key, lease } => (key, lease, None),
            StoreWrite::Release { .. } => return,
        };
        let old = match &self.state {
            State::Held(held) => Some(held),
            _ => None,
        };
        if old.is_some_and(|old| old.rev > rev) {
            return;
        }
        // Whoever created it found no reservation.
        let gone = |old: &&Held| created && old.expires.is_none();
        let before = old.filter(|old| !gone(old)).map(|old| old.expires);
        // It became a reservation while this write was under way.
        let spoilt = before == Some(None) && expires.is_some();
        let expires = before.map_or(expires, |before| later(before, expires));
        let upkeep = match old.map(|old| old.upkeep) {
            // Somebody else's write is in flight still; its answer decides.
            Some(Upkeep::Asking { op, until }) if op != id => Upkeep::Asking { op, until },
            _ if spoilt => Upkeep::At(now),
            _ => self.next_upkeep(expires, now),
        };
        let presence = Presence::Ours { seen: now };
        let unproven = match old {
            Some(old) => old.unproven,
            None if created || self.previous == Some(key) => None,
            None => Some(now + PROBATION),
        };
        let contests = old.map_or(0, |old| old.contests);
        if old.is_none() {
            self.find_surplus(key, &lease);
        }
        self.state = State::Held(Held {
            key,
            expires,
            written: lease,
            rev,
            presence,
            upkeep,
            attempt: 0,
            contests,
            unproven,
        });
        self.previous = Some(key);
        self.said = None;
        if unproven.is_none() {
            self.say(LeaseOutput::Acquired { key, expires });
        }
    }

    pub(super) fn next_upkeep(&self, expires: Option<Instant>, now: Instant) -> Upkeep {
        let at = |end: Instant| end.checked_sub(self.term.margin).unwrap_or(now).max(now);
        expires.map_or(Upkeep::Never, |end| Upkeep::At(at(end)))
    }

    /// The lease that we had before, when another is taken, is a leftover: the others would see two leases of one node.
    /// What else bears our address may be another node's that lives, which most backends cannot tell from ours of an
    /// earlier life, so it is left to its end.
    pub(super) fn find_surplus(&mut self, held: LeaseKey, lease: &Lease) {
        // One that says another tunnel's end may be another node's, with our address.
        let same =
            |claim: &LeaseClaim| !claim.lease.as_ref().is_some_and(|it| other_end(it, lease));
        let leftover = |claim: &&LeaseClaim| {
            self.previous == Some(claim.key) && claim.life == Life::Leased && same(claim)
        };
        let leftovers: Vec<_> = self.view.ours(lease).filter(leftover).collect();
        self.surplus.extend(leftovers.into_iter().map(|claim| (claim.key, claim.mod_rev)));
        self.surplus.remove(&held);
    }

    /// A write that did not do it. If it is the one that we wait for, wait and try otherwise.
    pub(super) fn failed(&mut self, id: u64, fault: LeaseFault, now: Instant) {
        match &self.state {
            &State::Asking { op, attempt, .. } if op == id => {
                self.pend(fault);
                self.back_off(attempt, now);
            }
            State::Held(held @ Held { upkeep: Upkeep::Asking { op, .. }, attempt, .. })
                if *op == id =>
            {
                let attempt = *attempt;
                // That it has run out is the worse news, and stays.
                if !held.has_run_out(now) {
                    self.pend(fault);
                }
                let at = now + self.delay(attempt);
                if let State::Held(held) = &mut self.state {
                    held.upkeep = Upkeep::At(at);
                    held.attempt = attempt.saturating_add(1);
                }
            }
            _ => {}
        }
    }

    pub(super) fn give_up_late(&mut self, now: Instant) {
        let late = match self.state {
            State::Asking { op, until, .. } if until <= now => Some(op),
            State::Held(Held { upkeep: Upkeep::Asking { op, until }, .. }) if until <= now => {
                Some(op)
            }
            _ => None,
        };
        if let Some(op) = late {
            self.failed(op, LeaseFault::NoAnswer, now);
        }
    }
}
