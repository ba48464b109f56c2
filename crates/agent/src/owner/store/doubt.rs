//! A store that is not believed: what may be taken of it, and how it comes to be believed.
//!
//! Its entries are kept aside, so that they can be taken as they are when the operator accepts them. Till
//! then leases are added and nothing is removed or repointed, and this node puts its own lease back.

use std::{mem, time::Instant};

use russet_core::{
    Change, FactId,
    lease::{LeaseClaim, LeaseInput},
    model::{Lease, UnderlayFact},
    world::World,
};
use russet_net::Family;
use russet_store::{KeyChange, KeyValue};

use super::PutBack;
use crate::owner::{
    Owner,
    trust::{Doubt, judge},
};

impl Owner {
    /// Takes the leases that a doubted picture has and that are new, and removes and repoints nothing.
    pub(super) fn add_leases_only(&mut self, entries: &[KeyValue]) {
        if matches!(self.store.doubt, Some(Doubt::OtherCluster { found: Some(_), .. })) {
            // The same subnets lead elsewhere there.
            return;
        }
        let (world, believed) = (self.calc.world(), self.store.seen.revision);
        let facts = entries.iter().filter_map(|kv| self.store.fact(kv));
        let added: Vec<_> = facts.filter_map(|fact| addition(fact, world, believed)).collect();
        self.changes(added);
    }

    pub(super) fn set_aside(&mut self, changes: &[KeyChange]) {
        for change in changes {
            match change {
                KeyChange::Put(kv) => {
                    self.add_leases_only(std::slice::from_ref(kv));
                    self.store.aside.insert(kv.key.clone(), kv.clone());
                }
                KeyChange::Delete { key, .. } => _ = self.store.aside.remove(key),
            }
        }
    }

    /// A store that only lacked its configuration is believed as soon as it has one. One that is older is not, when
    /// it is written until it is not: the operator accepts it, or the one that was seen comes back.
    pub(super) fn doubt_again(&mut self, changes: &[KeyChange], now: Instant) {
        self.store.doubt = judge(&self.store.seen, &self.store.claimed_aside());
        if self.store.doubt.is_none() {
            self.accept(now);
        } else if self.store.put_back == PutBack::Begun && self.may_put_back() {
            // All nodes do this at once, so nobody looks at the whole again for each.
            for change in changes {
                self.lease_change_in_doubt(change, now);
            }
        } else {
            self.lease_in_doubt(now);
        }
    }

    /// Puts this node's lease into a store that lost it. That only adds, and when all nodes have done it the
    /// operator can accept the store without losing a packet.
    pub(super) fn lease_in_doubt(&mut self, now: Instant) {
        self.store.put_back = PutBack::No;
        if !self.may_put_back() {
            return;
        }
        let claims: Vec<_> =
            self.store.aside.values().filter_map(|kv| self.store.claim(kv)).collect();
        if claims.iter().any(|claim| self.would_move_us(claim)) {
            return;
        }
        self.store.put_back = PutBack::Begun;
        self.tell_lease_of_config(now);
        self.lease_input(LeaseInput::Snapshot { claims, rev: self.store.revision }, now);
    }

    /// It is not done in a store that has another cluster's id, nor in one with another configuration.
    fn may_put_back(&self) -> bool {
        let lost = self.store.doubt.as_ref().is_some_and(Doubt::is_loss);
        let config = self.store.aside.get(self.store.keys.config().as_bytes());
        lost && config.is_some_and(|kv| Some(&kv.value) == self.store.raw_config.as_ref())
    }

    fn lease_change_in_doubt(&mut self, change: &KeyChange, now: Instant) {
        let claim = match change {
            KeyChange::Put(kv) => self.store.claim(kv),
            KeyChange::Delete { .. } => None,
        };
        if !claim.is_some_and(|claim| self.would_move_us(&claim)) {
            self.lease_change(change, now);
        }
    }

    /// Whether a doubted lease says that our subnet is another's, or that we have another: an old copy of a
    /// store may, and pods run in the subnet that we have.
    fn would_move_us(&self, claim: &LeaseClaim) -> bool {
        let world = self.calc.world();
        let (Some(own), Some(footing)) = (world.own(), world.in_force()) else { return false };
        claim
            .lease
            .as_ref()
            .is_some_and(|lease| (claim.key == own) != is_of(lease, &footing.underlay))
    }

    /// What the operator is to judge, besides a store that is not believed.
    pub(in crate::owner) fn withheld(&self) -> Option<String> {
        let withheld = self.store.withheld.len();
        (withheld > 0).then(|| {
            format!("{withheld} leases were deleted after the configuration: was it emptied?")
        })
    }

    /// Removes what was withheld, by the operator's word.
    pub(in crate::owner) fn accept_withheld(&mut self) {
        let gone = mem::take(&mut self.store.withheld);
        self.changes(gone.into_iter().map(|key| Change::Remove { id: FactId::Lease(key) }));
    }

    /// Takes the store as it is now for the truth: by the operator's word, or because the doubt is gone.
    pub(in crate::owner) fn accept(&mut self, now: Instant) {
        if !self.store.claimed_aside().configured {
            // Without a configuration there is nothing to compute from: the last one stays.
            self.store.accept_unconfigured();
            return;
        }
        let entries: Vec<_> = mem::take(&mut self.store.aside).into_values().collect();
        self.store.believe();
        tracing::info!(
            op = "accept store",
            revision = self.store.revision,
            "the datastore is believed"
        );
        self.take_all(&entries, now);
        self.ask_for_name();
    }
}

/// Whether a lease bears this node's address.
fn is_of(lease: &Lease, underlay: &UnderlayFact) -> bool {
    let same = |family| lease.public(family).is_some_and(|ip| underlay.addr(family) == Some(ip));
    Family::BOTH.into_iter().any(same)
}

/// What a doubted change adds. A configuration would be a change and no addition, and so would another
/// value of a lease that is known. It is younger than all up to `believed`: a store that begins anew begins
/// with low revisions, and the lower one wins.
fn addition(change: Change, world: &World, believed: u64) -> Option<Change> {
    match change {
        Change::Upsert { id: FactId::Lease(key), fact, rev } if world.lease(key).is_none() => {
            let rev = believed.saturating_add(rev);
            Some(Change::Upsert { id: FactId::Lease(key), fact, rev })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use russet_api::flannel::read_net_conf;
    use russet_core::{Fact, model::Preset};

    use super::*;
    use crate::owner::store::tests::{GOOD, config, lease};

    #[test]
    fn a_doubted_store_adds_a_lease_and_changes_none() {
        let mut world = World::new(config().settings);
        let told = lease(3);
        let added = addition(told.clone(), &world, 900).unwrap();
        assert!(matches!(added, Change::Upsert { rev: 903, .. }), "younger than what is believed");
        world.apply(told.clone());
        assert_eq!(addition(told, &world, 900), None);
        let config = read_net_conf(GOOD, Preset::Flannel).unwrap();
        let config = Change::Upsert { id: FactId::Config, fact: Fact::Config(config), rev: 1 };
        assert_eq!(addition(config, &world, 900), None);
    }
}
