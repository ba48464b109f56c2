//! Reads from a peer's lease where its subnets are.
//!
//! [`reaches`] judges a lease by itself; [`Claims`] judges it against the others. Of two leases that claim the
//! same, the one with the lower create revision stays, so every node decides alike and whatever the order
//! of arrival. A lease that is refused for another's sake still holds its own claims: who comes third
//! does not win by the quarrel of the first two.

use std::{collections::BTreeSet, net::IpAddr, ops::Bound};

use russet_net::{At, Dst, Family, Mac, Prefix, Reach};

use crate::{
    error::Fault,
    model::{Lease, LeaseKey, Pool},
    transport::Me,
};

/// Where a peer's subnets are: at most one of each family, IPv4 first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaches {
    v4: Option<Reach>,
    v6: Option<Reach>,
}

impl Reaches {
    pub fn iter(self) -> impl Iterator<Item = Reach> {
        self.v4.into_iter().chain(self.v6)
    }
}

/// Reads a peer's lease, on its own merits.
///
/// # Errors
///
/// The first thing in it that cannot be.
pub fn reaches(me: &Me<'_>, key: LeaseKey, lease: &Lease) -> Result<Reaches, Fault> {
    let reaches =
        Reaches { v4: reach(me, key, lease, Family::V4)?, v6: reach(me, key, lease, Family::V6)? };
    if reaches.v4.is_none() && reaches.v6.is_none() {
        let family = me.footing.config.families().next().unwrap_or(Family::V4);
        return Err(Fault::FamilyMissing { family });
    }
    Ok(reaches)
}

/// `None` when the network or the lease does not have the family: a cluster may be on its way from
/// one family to two.
fn reach(
    me: &Me<'_>,
    key: LeaseKey,
    lease: &Lease,
    family: Family,
) -> Result<Option<Reach>, Fault> {
    let (Some(pool), Some(subnet)) = (me.footing.config.pool(family), key.of(family)) else {
        return Ok(None);
    };
    lies_right(me, subnet, pool.network())?;
    let ip = lease.public(family).ok_or(Fault::NoAddress { family })?;
    is_a_node_s(me, ip)?;
    let mac = me.footing.carrier(lease, family)?.heed(lease, family)?;
    Ok(Some(Reach { dst: Dst::Prefix(subnet), at: At::Node { ip, mac } }))
}

fn lies_right(me: &Me<'_>, subnet: Prefix, network: Prefix) -> Result<(), Fault> {
    if !network.covers(subnet) {
        return Err(Fault::OutsideNetwork { subnet, network });
    }
    match me.own.of(subnet.family()) {
        Some(other) if other.overlaps(subnet) => Err(Fault::OverlapsOurs { subnet, other }),
        _ => Ok(()),
    }
}

fn is_a_node_s(me: &Me<'_>, ip: IpAddr) -> Result<(), Fault> {
    if me.footing.underlay.addr(Family::of(ip)) == Some(ip) {
        return Err(Fault::OurAddress { ip });
    }
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || broadcast {
        return Err(Fault::NotUnicast { ip });
    }
    let mut networks = me.footing.config.pools().map(Pool::network);
    match networks.find(|network| network.contains(ip)) {
        Some(network) => Err(Fault::InsideNetwork { ip, network }),
        None => Ok(()),
    }
}

/// What two leases cannot both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    Subnet(Prefix),
    Address(IpAddr),
    Vtep(Family, Mac),
}

/// The claims of a peer, in the order in which they are judged.
pub fn claims(reaches: Reaches) -> impl Iterator<Item = Claim> {
    let of = |reach: Reach| {
        let Dst::Prefix(subnet) = reach.dst;
        let (ip, mac) = match reach.at {
            At::Node { ip, mac } => (Some(ip), mac),
            At::Here => (None, None),
        };
        let vtep = mac.map(|mac| Claim::Vtep(subnet.family(), mac));
        [Some(Claim::Subnet(subnet)), ip.map(Claim::Address), vtep].into_iter().flatten()
    };
    reaches.iter().flat_map(of)
}

/// Who claims: the lower is the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claimant {
    /// The lease's create revision.
    pub rev: u64,
    pub key: LeaseKey,
}

impl Claimant {
    const FIRST: Self = Self { rev: 0, key: LeaseKey::LOWEST };
}

/// Why a claim falls to another.
pub fn lost_to(claim: Claim, other: LeaseKey) -> Fault {
    match claim {
        Claim::Subnet(subnet) => Fault::Overlaps { subnet, other },
        Claim::Address(ip) => Fault::SameAddress { ip, other },
        Claim::Vtep(_, mac) => Fault::SameMac { mac, other },
    }
}

/// Every claim of every peer, ordered so that rivals are found without looking at the rest.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    all: BTreeSet<(Claim, Claimant)>,
}

impl Claims {
    pub fn insert(&mut self, claim: Claim, claimant: Claimant) {
        self.all.insert((claim, claimant));
    }

    pub fn remove(&mut self, claim: Claim, claimant: Claimant) {
        self.all.remove(&(claim, claimant));
    }

    pub fn clear(&mut self) {
        self.all.clear();
    }

    /// Everyone who claims the same, or what overlaps it; `within` is the network that subnets lie in.
    pub fn rivals(&self, claim: Claim, within: Option<Prefix>) -> BTreeSet<Claimant> {
        match claim {
            Claim::Subnet(subnet) => {
                let mut rivals = self.covering(subnet, within);
                rivals.extend(self.covered(subnet));
                rivals
            }
            Claim::Address(_) | Claim::Vtep(..) => self.same(claim).collect(),
        }
    }

    /// Everyone who claims exactly this, the earliest first.
    pub fn same(&self, claim: Claim) -> impl Iterator<Item = Claimant> {
        let rest = self.all.range((claim, Claimant::FIRST)..);
        rest.take_while(move |(other, _)| *other == claim).map(|(_, claimant)| *claimant)
    }

    /// Subnets as short as the network, and longer, that hold this one.
    fn covering(&self, subnet: Prefix, within: Option<Prefix>) -> BTreeSet<Claimant> {
        let shortest = within.map_or(0, Prefix::len);
        let around = |len| Prefix::around(subnet.addr(), len).ok().map(Claim::Subnet);
        (shortest..subnet.len()).filter_map(around).flat_map(|claim| self.same(claim)).collect()
    }

    /// This subnet and those within it lie between its base and its last address.
    fn covered(&self, subnet: Prefix) -> impl Iterator<Item = Claimant> {
        let first = (Claim::Subnet(subnet), Claimant::FIRST);
        let last = Claim::Subnet(Prefix::host(subnet.last()));
        self.all
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(move |(claim, _)| *claim <= last)
            .map(|(_, claimant)| *claimant)
    }
}
