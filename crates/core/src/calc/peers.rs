//! The peers' leases, judged by themselves and against each other, one change at a time.
//!
//! Whether a peer stands depends on its own lease and on whoever claims the same before it, and on
//! nothing else. So a change touches the lease itself and its rivals, old and new; nobody else is
//! looked at. Every object of a peer is keyed by something that it claims (its subnet, its address, its
//! MAC), so no two peers that stand want the same object. Leases that name their node share the node's, which are
//! counted.

use std::{collections::BTreeMap, net::IpAddr};

use russet_desired::{Emit, Item, Key, Patches, Tables};
use russet_net::{At, Family, Form, Mac, Prefix};

use super::Standing;
use crate::{
    distribution::store::{Candidate, Claim, Claimant, Claims, Reaches, lost_to},
    error::Fault,
    model::LeaseKey,
    transport::Me,
    world::Holding,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    /// Leases that are right by themselves.
    candidates: BTreeMap<LeaseKey, Box<Placed>>,
    claims: Claims,
    /// How many leases that name their node want an object. A route is one lease's alone.
    shared: BTreeMap<Key, u32>,
    /// Why a lease is not used; small beside the candidates.
    faults: BTreeMap<LeaseKey, Fault>,
    /// Whose fault may be another than before; some are named more than once.
    judged: Vec<LeaseKey>,
}

#[derive(Clone, Debug)]
struct Placed {
    candidate: Candidate,
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
        leases: impl Iterator<Item = (LeaseKey, Holding)>,
    ) -> Tables {
        self.forget();
        for (key, holding) in leases {
            self.enter(me, key, Some(holding));
        }
        let keys: Vec<_> = self.candidates.keys().copied().collect();
        keys.into_iter().flat_map(|key| self.judge(me, key)).collect()
    }

    pub(super) fn forget(&mut self) -> Tables {
        self.judged.extend(std::mem::take(&mut self.faults).into_keys());
        self.candidates.clear();
        self.claims.clear();
        self.shared.clear();
        Tables::default()
    }

    /// Takes the leases that changed, `None` for those that are gone or unreadable.
    pub(super) fn update(
        &mut self,
        me: &Me<'_>,
        leases: impl Iterator<Item = (LeaseKey, Option<Holding>)>,
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
        let mut forms = candidate.candidate.reaches.iter().filter_map(|reach| match reach.at {
            At::Node { form, .. } => Some(form),
            At::Here => None,
        });
        match forms.find(|form| *form != Form::Plain) {
            Some(Form::Vtep { .. }) => Standing::Tunnel,
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
            Key::Neighbour(neighbour) => {
                based_at(neighbour.ip).chain(ends_at(neighbour.ip)).collect()
            }
            Key::EnginePeer(peer) => vec![Claim::Subnet(peer.prefix)],
            Key::WireguardPeer(peer) => vec![Claim::Subnet(peer.prefix)],
            Key::Fdb(fdb) => Family::BOTH.map(|family| Claim::Vtep(family, fdb.mac)).into(),
            Key::NextHop(hop) => {
                let of_node = ends_at(hop.via).chain([Claim::Address(hop.via)]);
                based_at(hop.via).chain(of_node).collect()
            }
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
    fn enter(&mut self, me: &Me<'_>, key: LeaseKey, holding: Option<Holding>) {
        self.judged.push(key);
        let Some(holding) = holding.filter(|holding| !me.holds(key, holding)) else { return };
        match Candidate::new(me, key, holding) {
            Ok(candidate) => {
                for (claim, claimant) in candidate.claims() {
                    self.claims.insert(claim, claimant);
                }
                let placed = Placed { candidate, place: Place::Out };
                self.candidates.insert(key, Box::new(placed));
            }
            Err(fault) => _ = self.faults.insert(key, fault),
        }
    }

    fn leave(&mut self, key: LeaseKey) {
        self.faults.remove(&key);
        let Some(placed) = self.candidates.remove(&key) else { return };
        for (claim, claimant) in placed.candidate.claims() {
            self.claims.remove(claim, claimant);
        }
    }

    /// Takes a lease's objects back, if it has any, but for those that another lease of its node wants too.
    fn withdraw(&mut self, me: &Me<'_>, key: LeaseKey, patches: &mut Patches) {
        let Some(placed) = self.candidates.get_mut(&key) else { return };
        if placed.place == Place::Out {
            return;
        }
        placed.place = Place::Out;
        let shares = placed.candidate.shares();
        for item in objects(me, placed.candidate.reaches) {
            let key = item.key();
            if !shares || is_lone(&key) || is_last(&mut self.shared, &key) {
                patches.unset(key);
            }
        }
    }

    /// Gives a lease its place or its fault, and returns its objects.
    fn judge(&mut self, me: &Me<'_>, key: LeaseKey) -> Vec<Item> {
        self.judged.push(key);
        let verdict = self.verdict(key);
        let Some(placed) = self.candidates.get_mut(&key) else { return Vec::new() };
        if let Err(fault) = verdict {
            self.faults.insert(key, fault);
            placed.place = Place::Out;
            return Vec::new();
        }
        self.faults.remove(&key);
        placed.place = Place::Placed;
        let objects = objects(me, placed.candidate.reaches);
        if placed.candidate.shares() {
            for key in objects.iter().map(Item::key).filter(|key| !is_lone(key)) {
                *self.shared.entry(key).or_default() += 1;
            }
        }
        objects
    }

    /// The first claim that somebody earlier has too is lost to the earliest who has it.
    fn verdict(&self, key: LeaseKey) -> Result<(), Fault> {
        let Some(placed) = self.candidates.get(&key) else { return Ok(()) };
        let candidate = &placed.candidate;
        for (claim, claimant) in candidate.contested() {
            match self.rivals_of(candidate, claim).min() {
                Some(first) if first < claimant => return Err(lost_to(claim, first.key)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Everyone who claims what the lease claims, itself among them unless it names its node; nobody when it claims
    /// nothing.
    fn rivals(&self, key: LeaseKey) -> Vec<LeaseKey> {
        let Some(placed) = self.candidates.get(&key) else { return Vec::new() };
        let candidate = &placed.candidate;
        let claims = candidate.contested();
        claims.flat_map(|(claim, _)| self.rivals_of(candidate, claim)).map(|it| it.key).collect()
    }

    fn rivals_of<'a>(
        &'a self,
        candidate: &'a Candidate,
        claim: Claim,
    ) -> impl Iterator<Item = Claimant> + 'a {
        let is_rival = |claimant: &Claimant| {
            let other = self.candidates.get(&claimant.key).map(|placed| &placed.candidate);
            !other.is_some_and(|other| candidate.is_of_same_node(other))
        };
        self.claims.rivals(claim).filter(move |claimant| !candidate.shares() || is_rival(claimant))
    }
}

/// Whether an object is wanted for one lease at most: it goes by the subnet.
const fn is_lone(key: &Key) -> bool {
    matches!(key, Key::Route(_))
}

/// Counts one wish for an object less, and tells whether it was the last.
fn is_last(shared: &mut BTreeMap<Key, u32>, key: &Key) -> bool {
    let Some(count) = shared.get_mut(key) else { return true };
    *count -= 1;
    if *count == 0 {
        shared.remove(key);
        return true;
    }
    false
}

/// What reaches a peer.
pub(super) fn objects(me: &Me<'_>, reaches: Reaches) -> Vec<Item> {
    let mut out = Emit::default();
    for reach in reaches.iter() {
        me.footing.carrier_of(&reach).remote(me, &reach, &mut out);
    }
    out.items
}

/// The tunnel's end that an address stands for.
fn ends_at(ip: IpAddr) -> impl Iterator<Item = Claim> {
    let mac = match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(addr) => Mac::of_link_local(addr),
    };
    std::iter::once(Claim::Inner(ip)).chain(mac.map(|mac| Claim::Vtep(Family::V6, mac)))
}

/// Every subnet that begins at an address.
fn based_at(ip: IpAddr) -> impl Iterator<Item = Claim> {
    let subnet = move |len| Prefix::new(ip, len).ok().map(Claim::Subnet);
    (0..=Family::of(ip).bits()).filter_map(subnet)
}
