//! What the store tells: every claim, and what has become of ours.

use std::time::Instant;

use super::{LeaseMachine, Op, Presence, State, Upkeep, contest::other_end};
use crate::{
    lease::{
        LeaseClaim, LeaseOutput, Life, LostReason, StoreWrite,
        view::{View, identity},
    },
    model::{Lease, LeaseKey},
};

impl LeaseMachine {
    pub(super) fn snapshot(&mut self, claims: Vec<LeaseClaim>, rev: u64, now: Instant) {
        self.view.replace(claims);
        self.surplus.retain(|key, written| *written > rev || self.view.get(*key).is_some());
        let State::Held(held) = &self.state else { return };
        match self.view.get(held.key).cloned() {
            Some(claim) => self.look_at(&claim, now),
            None if rev >= held.rev => self.miss(),
            // A picture from before our write says nothing of it.
            None => {}
        }
    }

    /// Old revisions must not be compared with those of another history: a lease that is not in it would be
    /// taken for written after the snapshot.
    pub(super) fn forget_history(&mut self) {
        self.view = View::default();
        self.surplus.clear();
        self.doubtful.clear();
        if let State::Held(held) = &mut self.state {
            held.rev = 0;
        }
    }

    pub(super) fn claimed(&mut self, claim: LeaseClaim, now: Instant) {
        self.look_at(&claim, now);
        self.view.insert(claim);
    }

    pub(super) fn gone(&mut self, key: LeaseKey, rev: u64) {
        self.view.remove(key, rev);
        if self.surplus.get(&key).is_some_and(|written| *written <= rev) {
            self.surplus.remove(&key);
        }
        if matches!(&self.state, State::Held(held) if held.key == key && held.rev < rev) {
            self.miss();
        }
    }

    pub(super) fn miss(&mut self) {
        if let State::Held(held) = &mut self.state {
            held.presence = Presence::Gone;
        }
    }

    /// Looks at what is at our key now: ours, spoilt, or another's.
    pub(super) fn look_at(&mut self, claim: &LeaseClaim, now: Instant) {
        let wished = self.wish().map(|(_, lease)| lease);
        let State::Held(held) = &mut self.state else { return };
        if claim.key != held.key || claim.mod_rev < held.rev {
            return;
        }
        let address = claim.lease.as_ref().and_then(identity);
        let bears = |lease: &Lease| identity(lease) == address;
        let is_ours = bears(&held.written) || wished.as_ref().is_some_and(bears);
        if address.is_some() && !is_ours {
            let lost = held.key;
            self.previous = None;
            self.state = State::BackOff { until: now, attempt: 0 };
            self.say(LeaseOutput::Lost { key: lost, reason: LostReason::Taken });
            return;
        }
        // With a write of ours under way it may be that one.
        let known = held.rev > 0 && !self.ops.values().any(|op| op.write.key() == claim.key);
        let newer = claim.mod_rev > held.rev;
        held.presence = Presence::Ours { seen: now };
        held.rev = claim.mod_rev;
        if claim.life == Life::Reserved {
            self.reserve();
        } else if newer && let Some((id, op)) = self.doubtful_write(claim) {
            return self.hold(id, op, claim.mod_rev, now);
        }
        let State::Held(held) = &mut self.state else { return };
        let same = claim.lease.as_ref() == Some(&held.written);
        let reserves = claim.life == Life::Reserved
            && !claim.lease.as_ref().is_some_and(|lease| other_end(lease, &held.written));
        if claim.lease.is_some() && claim.lease == wished {
            held.written = wished.unwrap_or_else(|| held.written.clone());
        }
        if !newer || (same && reserves) {
            return;
        }
        // Of two nodes of one address some backends write the same, so that only the revision tells.
        if known && claim.lease.is_some() && !reserves {
            return self.contest(claim, now);
        }
        if claim.lease.as_ref() != Some(&held.written) {
            self.write_again(now);
        }
    }

    /// An operator has made a reservation of what we hold.
    pub(super) fn reserve(&mut self) {
        let State::Held(held) = &mut self.state else { return };
        if held.expires.take().is_none() {
            return;
        }
        if matches!(held.upkeep, Upkeep::At(_)) {
            held.upkeep = Upkeep::Never;
        }
        if held.unproven.is_none() {
            let key = held.key;
            self.said = None;
            self.say(LeaseOutput::Acquired { key, expires: None });
        }
    }

    /// The write of ours that was said to have failed, and is in the store after all.
    pub(super) fn doubtful_write(&mut self, claim: &LeaseClaim) -> Option<(u64, Op)> {
        let wrote = |op: &Op| match &op.write {
            StoreWrite::Create { key, lease, .. } | StoreWrite::Renew { key, lease, .. } => {
                *key == claim.key && Some(lease) == claim.lease.as_ref()
            }
            StoreWrite::Update { .. } | StoreWrite::Release { .. } => false,
        };
        let id = *self.doubtful.iter().find(|(_, op)| wrote(op))?.0;
        Some((id, self.doubtful.remove(&id)?))
    }

    /// Says again what stands at our key, ever more slowly the more often it must be.
    pub(super) fn write_again(&mut self, now: Instant) {
        let State::Held(held) = &mut self.state else { return };
        let before = held.contests;
        held.contests = before.saturating_add(1);
        let again = if before == 0 { now } else { now + self.delay(before) };
        if let State::Held(held) = &mut self.state {
            held.upkeep = held.upkeep.no_later_than(again);
        }
    }
}
