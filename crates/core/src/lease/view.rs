//! What the store is known to hold, as far as a lease is concerned.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use russet_net::{Family, Prefix};

use super::{LeaseClaim, Life};
use crate::model::{Lease, LeaseKey, NetworkConfig};

/// Every claim that has been told, once a snapshot has come.
#[derive(Debug, Default)]
pub(super) struct View {
    claims: BTreeMap<LeaseKey, LeaseClaim>,
    synced: bool,
    /// Claims that bear our address, and whose holder has shown that it lives.
    others: BTreeSet<LeaseKey>,
}

impl View {
    pub(super) fn replace(&mut self, claims: Vec<LeaseClaim>) {
        self.claims = claims.into_iter().map(|claim| (claim.key, claim)).collect();
        self.others.retain(|key| self.claims.contains_key(key));
        self.synced = true;
    }

    /// Takes a claim, unless a newer value of its key is known.
    pub(super) fn insert(&mut self, claim: LeaseClaim) {
        let known = self.claims.get(&claim.key).map_or(0, |known| known.mod_rev);
        if claim.mod_rev >= known {
            self.claims.insert(claim.key, claim);
        }
    }

    /// Forgets a key, unless it has been written since.
    pub(super) fn remove(&mut self, key: LeaseKey, rev: u64) {
        if self.claims.get(&key).is_some_and(|known| known.mod_rev <= rev) {
            self.claims.remove(&key);
            self.others.remove(&key);
        }
    }

    /// Notes that a claim is another node's, although it bears our address.
    pub(super) fn leave_to_another(&mut self, key: LeaseKey) {
        self.others.insert(key);
    }

    /// Notes that somebody unknown holds a key.
    pub(super) fn note_taken(&mut self, key: LeaseKey) {
        let unknown =
            LeaseClaim { key, lease: None, create_rev: 0, mod_rev: 0, life: Life::Leased };
        self.claims.entry(key).or_insert(unknown);
    }

    pub(super) fn is_synced(&self) -> bool {
        self.synced
    }

    pub(super) fn get(&self, key: LeaseKey) -> Option<&LeaseClaim> {
        self.claims.get(&key)
    }

    /// The claims that bear our address: this node's, from this life or an earlier one.
    pub(super) fn ours(&self, me: &Lease) -> impl Iterator<Item = &LeaseClaim> {
        let me = identity(me);
        self.claims
            .values()
            .filter(move |claim| me.is_some() && claim.lease.as_ref().and_then(identity) == me)
            .filter(|claim| !self.others.contains(&claim.key))
    }

    /// The claim of ours that the configuration could have given: what we held before, else the earliest.
    pub(super) fn reusable(
        &self,
        me: &Lease,
        config: &NetworkConfig,
        previous: Option<LeaseKey>,
    ) -> Option<&LeaseClaim> {
        let ours = self.ours(me).filter(|claim| config.fits(claim.key));
        ours.min_by_key(|claim| (previous != Some(claim.key), claim.create_rev))
    }

    /// The subnets that others hold.
    pub(super) fn taken(&self, me: &Lease) -> BTreeSet<Prefix> {
        let ours: BTreeSet<_> = self.ours(me).map(|claim| claim.key).collect();
        let others = self.claims.keys().filter(|key| !ours.contains(key));
        others.flat_map(|key| key.subnets()).collect()
    }
}

/// What tells one node's lease from another's: its address, IPv4 when there is one.
pub(super) fn identity(lease: &Lease) -> Option<IpAddr> {
    lease.public(Family::V4).or_else(|| lease.public(Family::V6))
}
