//! Somebody else writes our lease, mostly another node with our address: nobody takes from the other, and both say so.

use std::time::Instant;

use russet_net::Family;

use super::{LeaseMachine, State};
use crate::{
    lease::{LeaseClaim, LeaseFault, LeaseOutput, LostReason, view::identity},
    model::Lease,
};

impl LeaseMachine {
    /// Somebody else with our address has written our key. Whoever held it before says it again, ever more slowly;
    /// whoever only took it over gives way, and both say so.
    pub(super) fn contest(&mut self, claim: &LeaseClaim, now: Instant) {
        let State::Held(held) = &mut self.state else { return };
        let Some(ip) = claim.lease.as_ref().and_then(identity) else { return };
        if held.unproven.is_some() {
            self.view.leave_to_another(claim.key);
            self.previous = None;
            self.state = State::BackOff { until: now, attempt: 0 };
            self.say(LeaseOutput::Lost { key: claim.key, reason: LostReason::Shared(ip) });
            return;
        }
        let other = claim.lease.as_ref().is_some_and(|lease| other_end(lease, &held.written));
        self.write_again(now);
        self.pend(if other { LeaseFault::SharedAddress(ip) } else { LeaseFault::Rewritten(ip) });
    }
}

/// Whether two leases cannot be of one node's life: a tunnel's end is derived from the node, or kept.
pub(super) fn other_end(one: &Lease, other: &Lease) -> bool {
    let differ = |family| match (one.vtep(family), other.vtep(family)) {
        (Some(one), Some(other)) => one.mac != other.mac,
        _ => match (one.wireguard(family), other.wireguard(family)) {
            (Some(one), Some(other)) => one.key != other.key,
            _ => false,
        },
    };
    Family::BOTH.into_iter().any(differ)
}
