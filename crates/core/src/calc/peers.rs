//! The peers' leases, judged by themselves and against each other, one change at a time.
//!
//! Whether a peer stands depends on its own lease and on whoever claims the same before it, and on
//! nothing else. So a change touches the lease itself and its rivals, old and new; nobody else is
//! looked at. Every object of a peer is keyed by something that it claims (its subnet, its address, its
//! MAC), so no two peers that stand want the same object. Leases that name their node share the node's; `seats` knows
//! which do.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use russet_desired::{Emit, Item, Key, NextHopKey, Patches, Tables};
use russet_net::{At, Family, Form, Mac, Prefix, packed};

use super::{Standing, seats::Seats};
use crate::{
    distribution::store::{Candidate, Claim, Claimant, Claims, End, Reaches, lost_to},
    error::Fault,
    model::LeaseKey,
    transport::{self, Me},
    world::Holding,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    /// Leases that are right by themselves.
    candidates: BTreeMap<LeaseKey, Placed>,
    seats: Seats,
    claims: Claims,
    /// Why a lease is not used; small beside the candidates.
    faults: BTreeMap<LeaseKey, Fault>,
    /// Whose fault may be another than before; some are named more than once.
    judged: Vec<LeaseKey>,
}

/// A candidate but for its key.
#[derive(Clone, Debug)]
struct Placed {
    rev: u64,
    end: Arc<End>,
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
        self.seats.clear();
        self.claims.clear();
        Tables::default()
    }

    /// Has what has grown take up no more than what is in it.
    pub(super) fn pack(&mut self) {
        packed::pack(&mut self.candidates);
        self.seats.pack();
        self.claims.pack();
        self.judged.shrink_to_fit();
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
        let Some(candidate) = self.candidate(key) else { return Standing::Unknown };
        let mut forms = candidate.reaches().iter().filter_map(|reach| match reach.at {
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
        let is_placed = |key: &LeaseKey| {
            self.candidates.get(key).is_some_and(|placed| placed.place == Place::Placed)
        };
        let of_claim = |claim| {
            self.claims.same(claim).flat_map(move |claimant| self.spoken_for(claim, claimant.key))
        };
        claims.into_iter().flat_map(of_claim).find(is_placed).or_else(|| self.led_to_by(key))
    }

    /// Whose subnet a next hop leads to through a device by a link-local gateway: of that nothing can be looked up.
    fn led_to_by(&self, key: &Key) -> Option<LeaseKey> {
        let is_link_local =
            |hop: &&NextHopKey| matches!(hop.via, IpAddr::V6(via) if via.is_unicast_link_local());
        let hop = match key {
            Key::NextHop(hop) => Some(hop).filter(is_link_local)?,
            _ => return None,
        };
        let placed = self.candidates.iter().filter(|(_, placed)| placed.place == Place::Placed);
        let is_led_to = |subnet| transport::into(subnet) == hop.via;
        placed.map(|(key, _)| *key).find(|key| key.subnets().any(is_led_to))
    }

    fn candidate(&self, key: LeaseKey) -> Option<Candidate> {
        let Placed { rev, end, .. } = self.candidates.get(&key)?;
        Some(Candidate { key, rev: *rev, end: Arc::clone(end) })
    }
}

// ---- one lease
impl Peers {
    fn enter(&mut self, me: &Me<'_>, key: LeaseKey, holding: Option<Holding>) {
        self.judged.push(key);
        let Some(holding) = holding.filter(|holding| !me.holds(key, holding)) else { return };
        match Candidate::new(me, key, holding) {
            Ok(candidate) => self.take(candidate),
            Err(fault) => _ = self.faults.insert(key, fault),
        }
    }

    fn take(&mut self, mut candidate: Candidate) {
        for (claim, claimant) in candidate.of_itself() {
            self.claims.insert(claim, claimant);
        }
        let before = self.first_of(&candidate);
        self.seats.join(&mut candidate);
        self.pass_claims(&candidate, before);
        let Candidate { key, rev, end } = candidate;
        self.candidates.insert(key, Placed { rev, end, place: Place::Out });
    }

    fn leave(&mut self, key: LeaseKey) {
        self.faults.remove(&key);
        let Some(candidate) = self.candidate(key) else { return };
        self.candidates.remove(&key);
        for (claim, claimant) in candidate.of_itself() {
            self.claims.remove(claim, claimant);
        }
        let before = self.first_of(&candidate);
        self.seats.leave(&candidate);
        self.pass_claims(&candidate, before);
    }

    /// Who claims for all that are reached as this one.
    fn first_of(&self, candidate: &Candidate) -> Option<LeaseKey> {
        self.seats.keys(&candidate.end).first().copied()
    }

    /// Has the first of a seat claim what is the node's, in the place of who did before.
    fn pass_claims(&mut self, candidate: &Candidate, before: Option<LeaseKey>) {
        let now = self.first_of(candidate);
        if now == before {
            return;
        }
        for (claim, claimant) in candidate.of_node() {
            if let Some(key) = before {
                self.claims.remove(claim, Claimant { key, ..claimant });
            }
            if let Some(key) = now {
                self.claims.insert(claim, Claimant { key, ..claimant });
            }
        }
    }

    /// Takes a lease's objects back, if it has any, but for those that another lease of its node wants too.
    fn withdraw(&mut self, me: &Me<'_>, key: LeaseKey, patches: &mut Patches) {
        let Some(placed) = self.candidates.get_mut(&key) else { return };
        if placed.place == Place::Out {
            return;
        }
        placed.place = Place::Out;
        let end = Arc::clone(&placed.end);
        for object in objects(me, end.reaches(key)).iter().map(Item::key) {
            if is_lone(&object) || !self.is_wanted(me, &end, &object) {
                patches.unset(object);
            }
        }
    }

    /// Whether a lease that stands wants an object for which one of this end wanted it: mostly the first that is looked at,
    /// since what is the node's is the same for each.
    fn is_wanted(&self, me: &Me<'_>, end: &End, object: &Key) -> bool {
        let stands = |key: &LeaseKey| {
            self.candidates.get(key).is_some_and(|placed| placed.place == Place::Placed)
        };
        let mut standing = self.seats.of_same_node(end).filter(|(_, key)| stands(key));
        standing
            .any(|(end, key)| objects(me, end.reaches(key)).iter().any(|it| it.key() == *object))
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
        objects(me, placed.end.reaches(key))
    }

    /// The first claim that somebody earlier has too is lost to the earliest who has it.
    fn verdict(&self, key: LeaseKey) -> Result<(), Fault> {
        let Some(candidate) = self.candidate(key) else { return Ok(()) };
        for (claim, claimant) in candidate.contested() {
            match self.rivals_of(&candidate, claim).min() {
                Some(first) if first < claimant => return Err(lost_to(claim, first.key)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Everyone who claims what the lease claims, itself among them unless it names its node; nobody when it claims
    /// nothing.
    fn rivals(&self, key: LeaseKey) -> Vec<LeaseKey> {
        let Some(candidate) = self.candidate(key) else { return Vec::new() };
        let of_claim = |(claim, _)| {
            let rivals = self.rivals_of(&candidate, claim);
            rivals.flat_map(move |rival| self.spoken_for(claim, rival.key))
        };
        candidate.contested().flat_map(of_claim).collect()
    }

    /// Those who claim, each with the earliest of its seat for all.
    fn rivals_of<'a>(
        &'a self,
        candidate: &'a Candidate,
        claim: Claim,
    ) -> impl Iterator<Item = Claimant> + 'a {
        let is_rival = |claimant: &Claimant| {
            let other = self.candidate(claimant.key);
            !other.is_some_and(|other| candidate.is_of_same_node(&other))
        };
        self.claims.rivals(claim).filter(move |claimant| !candidate.shares() || is_rival(claimant))
    }

    /// For whom a lease claims something: for all of its seat where that is the node's.
    fn spoken_for(&self, claim: Claim, key: LeaseKey) -> Vec<LeaseKey> {
        let end = self.candidates.get(&key).map(|placed| &placed.end);
        match end.map_or(&[][..], |end| self.seats.keys(end)) {
            keys if !claim.is_subnet() && !keys.is_empty() => keys.to_vec(),
            _ => vec![key],
        }
    }
}

/// Whether an object is wanted for one lease at most: it goes by the subnet.
const fn is_lone(key: &Key) -> bool {
    matches!(key, Key::Route(_) | Key::EnginePeer(_) | Key::WireguardPeer(_))
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
