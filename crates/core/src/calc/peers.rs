//! The peers' leases, judged by themselves and against each other, one change at a time.
//!
//! Whether a peer stands depends on its own lease and on whoever claims the same before it, and on
//! nothing else. So a change touches the lease itself and its rivals, old and new; nobody else is
//! looked at. Every object of a peer is keyed by something that it claims (its subnet, its address, its
//! MAC), so no two peers that stand want the same object.

use std::collections::BTreeMap;

use russet_desired::{Emit, Item, Key, Patches, Tables};
use russet_net::{At, Family, Form, Prefix};

use super::Standing;
use crate::{
    distribution::store::{Claim, Claimant, Claims, Reaches, claims, lost_to, reaches},
    error::Fault,
    model::{Lease, LeaseKey},
    transport::Me,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    /// Leases that are right by themselves.
    candidates: BTreeMap<LeaseKey, Candidate>,
    claims: Claims,
    /// Why a lease is not used; small beside the candidates.
    faults: BTreeMap<LeaseKey, Fault>,
    /// Whose fault may be another than before; some are named more than once.
    judged: Vec<LeaseKey>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    rev: u64,
    reaches: Reaches,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Placed,
    /// Not judged yet, or lost to another.
    Out,
}

impl Peers {
    /// Starts over, and returns everything that is wanted.
    pub(super) fn rebuild(
        &mut self,
        me: &Me<'_>,
        leases: impl Iterator<Item = (LeaseKey, Lease, u64)>,
    ) -> Tables {
        self.forget();
        for (key, lease, rev) in leases {
            self.enter(me, key, Some((lease, rev)));
        }
        let keys: Vec<_> = self.candidates.keys().copied().collect();
        keys.into_iter().flat_map(|key| self.judge(me, key)).collect()
    }

    pub(super) fn forget(&mut self) -> Tables {
        self.judged.extend(std::mem::take(&mut self.faults).into_keys());
        self.candidates.clear();
        self.claims.clear();
        Tables::default()
    }

    /// Takes the leases that changed, `None` for those that are gone or unreadable.
    pub(super) fn update(
        &mut self,
        me: &Me<'_>,
        leases: impl Iterator<Item = (LeaseKey, Option<(Lease, u64)>)>,
    ) -> Patches {
        let mut affected = Vec::new();
        let mut patches = Patches::default();
        for (key, lease) in leases {
            affected.push(key);
            affected.extend(self.rivals(key));
            self.withdraw(me, key, &mut patches);
            self.leave(key);
            self.enter(me, key, lease);
            affected.extend(self.rivals(key));
        }
        affected.sort_unstable();
        affected.dedup();
        // All withdrawals come before any wish: a key that changes hands is wanted.
        for key in &affected {
            self.withdraw(me, *key, &mut patches);
        }
        patches.merge(affected.into_iter().flat_map(|key| self.judge(me, key)).collect());
        patches
    }

    /// What the leases that are right by themselves claim.
    pub(super) const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Whose fault may have changed since the last call.
    pub(super) fn take_judged(&mut self) -> Vec<LeaseKey> {
        std::mem::take(&mut self.judged)
    }

    pub(super) fn fault(&self, key: LeaseKey) -> Option<&Fault> {
        self.faults.get(&key)
    }

    pub(super) fn standing(&self, key: LeaseKey) -> Standing<'static> {
        let Some(candidate) = self.candidates.get(&key) else { return Standing::Unknown };
        let mut forms = candidate.reaches.iter().filter_map(|reach| match reach.at {
            At::Node { form, .. } => Some(form),
            At::Here => None,
        });
        match forms.find(|form| *form != Form::Plain) {
            Some(Form::Vtep(_)) => Standing::Tunnel,
            Some(Form::Udp) => Standing::Engine,
            Some(Form::Ipip) => Standing::Ipip,
            Some(Form::Extension) => Standing::Extension,
            Some(Form::Foreign) => Standing::Foreign,
            Some(Form::Wireguard(..)) => Standing::Sealed,
            Some(Form::Plain) | None => Standing::Direct,
        }
    }

    /// The peer whose claim an object is keyed by.
    pub(super) fn holder_of(&self, key: &Key) -> Option<LeaseKey> {
        let claims: Vec<Claim> = match key {
            Key::Route(route) => vec![Claim::Subnet(route.dst)],
            Key::Neighbour(neighbour) => based_at(neighbour.ip).collect(),
            Key::EnginePeer(peer) => vec![Claim::Subnet(peer.prefix)],
            Key::WireguardPeer(peer) => vec![Claim::Subnet(peer.prefix)],
            Key::Fdb(fdb) => Family::BOTH.map(|family| Claim::Vtep(family, fdb.mac)).into(),
            Key::NextHop(hop) => based_at(hop.via).chain([Claim::Address(hop.via)]).collect(),
            _ => return None,
        };
        let placed = |claimant: &Claimant| {
            self.candidates.get(&claimant.key).is_some_and(|c| c.place == Place::Placed)
        };
        claims.into_iter().flat_map(|claim| self.claims.same(claim)).find(placed).map(|c| c.key)
    }
}

// ---- one lease
impl Peers {
    fn enter(&mut self, me: &Me<'_>, key: LeaseKey, lease: Option<(Lease, u64)>) {
        self.judged.push(key);
        let Some((lease, rev)) = lease.filter(|_| key != me.own) else { return };
        match reaches(me, key, &lease) {
            Ok(reaches) => {
                for claim in claims(reaches) {
                    self.claims.insert(claim, Claimant { rev, key });
                }
                self.candidates.insert(key, Candidate { rev, reaches, place: Place::Out });
            }
            Err(fault) => _ = self.faults.insert(key, fault),
        }
    }

    fn leave(&mut self, key: LeaseKey) {
        self.faults.remove(&key);
        let Some(candidate) = self.candidates.remove(&key) else { return };
        for claim in claims(candidate.reaches) {
            self.claims.remove(claim, Claimant { rev: candidate.rev, key });
        }
    }

    /// Takes a lease's objects back, if it has any.
    fn withdraw(&mut self, me: &Me<'_>, key: LeaseKey, patches: &mut Patches) {
        let Some(candidate) = self.candidates.get_mut(&key) else { return };
        if candidate.place == Place::Placed {
            candidate.place = Place::Out;
            for item in objects(me, candidate.reaches) {
                patches.unset(item.key());
            }
        }
    }

    /// Gives a lease its place or its fault, and returns its objects.
    fn judge(&mut self, me: &Me<'_>, key: LeaseKey) -> Vec<Item> {
        self.judged.push(key);
        let Some(candidate) = self.candidates.get_mut(&key) else { return Vec::new() };
        let claimant = Claimant { rev: candidate.rev, key };
        match verdict(&self.claims, claimant, candidate.reaches) {
            Ok(()) => {
                self.faults.remove(&key);
                candidate.place = Place::Placed;
                objects(me, candidate.reaches)
            }
            Err(fault) => {
                self.faults.insert(key, fault);
                candidate.place = Place::Out;
                Vec::new()
            }
        }
    }

    /// Everyone who claims what the lease claims, itself among them; nobody when it claims nothing.
    fn rivals(&self, key: LeaseKey) -> impl Iterator<Item = LeaseKey> {
        let ours = self.candidates.get(&key).into_iter().flat_map(|ours| claims(ours.reaches));
        ours.flat_map(|claim| self.claims.rivals(claim)).map(|claimant| claimant.key)
    }
}

/// The first claim that somebody earlier has too is lost to the earliest who has it.
fn verdict(all: &Claims, claimant: Claimant, reaches: Reaches) -> Result<(), Fault> {
    for claim in claims(reaches) {
        match all.rivals(claim).min() {
            Some(first) if first < claimant => return Err(lost_to(claim, first.key)),
            _ => {}
        }
    }
    Ok(())
}

/// What reaches a peer.
pub(super) fn objects(me: &Me<'_>, reaches: Reaches) -> Vec<Item> {
    let mut out = Emit::default();
    for reach in reaches.iter() {
        me.footing.carrier_of(&reach).remote(me, &reach, &mut out);
    }
    out.items
}

/// Every subnet that begins at an address.
fn based_at(ip: std::net::IpAddr) -> impl Iterator<Item = Claim> {
    let subnet = move |len| Prefix::new(ip, len).ok().map(Claim::Subnet);
    (0..=Family::of(ip).bits()).filter_map(subnet)
}
