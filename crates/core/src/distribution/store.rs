//! Reads from a peer's lease where its subnets are.
//!
//! A lease says itself how its holder is reached, or names the node that holds it, which may hold many; then what is
//! claimed but the subnet is the node's, and no two leases of one node are rivals.
//!
//! [`reaches`] judges a lease by itself; [`Claims`] judges it against the others. Of two leases that claim the
//! same, the one with the lower create revision stays, so every node decides alike and whatever the order
//! of arrival. A lease that is refused for another's sake still holds its own claims: who comes third
//! does not win by the quarrel of the first two.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound,
    sync::Arc,
};

use russet_net::{At, Dst, Family, Form, Mac, Prefix, PublicKey, Reach, packed};

use crate::{
    error::Fault,
    model::{LeaseKey, NodeName, Pool},
    transport::Me,
    world::{Holder, Holding},
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

/// What leads to a lease but for its subnets. Leases of one node may have it in common.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    /// The node that the lease names, with the node's revision.
    holder: Option<(NodeName, u64)>,
    v4: Option<At>,
    v6: Option<At>,
}

impl End {
    /// The node that has it, where leases name one.
    pub fn node(&self) -> Option<&NodeName> {
        self.holder.as_ref().map(|(name, _)| name)
    }

    pub fn reaches(&self, key: LeaseKey) -> Reaches {
        let reach = |subnet: Option<Prefix>, at: Option<At>| {
            Some(Reach { dst: Dst::Prefix(subnet?), at: at? })
        };
        Reaches { v4: reach(key.v4(), self.v4), v6: reach(key.v6(), self.v6) }
    }

    fn of(holder: Option<(NodeName, u64)>, reaches: Reaches) -> Self {
        let at = |reach: Option<Reach>| reach.map(|reach| reach.at);
        Self { holder, v4: at(reaches.v4), v6: at(reaches.v6) }
    }
}

/// A lease that is right by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub key: LeaseKey,
    pub rev: u64,
    pub end: Arc<End>,
}

impl Candidate {
    /// Reads a peer's lease, on its own merits.
    ///
    /// # Errors
    ///
    /// The first thing in it that cannot be.
    pub fn new(me: &Me<'_>, key: LeaseKey, holding: Holding) -> Result<Self, Fault> {
        let reaches = reaches(me, key, &holding);
        let Holding { rev, holder, .. } = holding;
        let holder = match holder {
            None => None,
            Some(Holder { name, rev: Some(rev) }) => Some((name, rev)),
            Some(Holder { name, rev: None }) => return Err(Fault::HolderUnknown { holder: name }),
        };
        Ok(Self { key, rev, end: Arc::new(End::of(holder, reaches?)) })
    }

    pub fn reaches(&self) -> Reaches {
        self.end.reaches(self.key)
    }

    /// Whether its objects may be those of another lease too.
    pub fn shares(&self) -> bool {
        self.end.holder.is_some()
    }

    /// Whether the other is held by the same node.
    pub fn is_of_same_node(&self, other: &Self) -> bool {
        self.shares() && self.end.holder == other.end.holder
    }

    /// What it claims, in the order in which that is judged, and as whom.
    pub fn claims(&self) -> impl Iterator<Item = (Claim, Claimant)> + use<> {
        let (key, rev, held) = (self.key, self.rev, self.shares());
        let of_node = self.end.holder.as_ref().map_or(rev, |(_, rev)| *rev);
        // Where another distribution lays what leads to a node, its subnets are not ours to claim.
        let is_left =
            self.reaches().iter().all(|it| matches!(it.at, At::Node { form: Form::Foreign, .. }));
        claims(self.reaches()).filter_map(move |claim| match claim {
            Claim::Subnet(_) if held && is_left => None,
            Claim::Subnet(_) => Some((claim, Claimant { rev, key })),
            _ => Some((claim, Claimant { rev: of_node, key })),
        })
    }

    /// Those of its claims that others may have too. A node's blocks are each a key of their own in the store, and an
    /// address out of one of them may be another's.
    pub fn contested(&self) -> impl Iterator<Item = (Claim, Claimant)> + use<> {
        let held = self.shares();
        self.claims().filter(move |(claim, _)| !(held && claim.is_subnet()))
    }

    /// Those that are the node's, which every lease of it makes.
    pub fn of_node(&self) -> impl Iterator<Item = (Claim, Claimant)> + use<> {
        let held = self.shares();
        self.claims().filter(move |(claim, _)| held && !claim.is_subnet())
    }

    /// Those that it makes for itself alone.
    pub fn of_itself(&self) -> impl Iterator<Item = (Claim, Claimant)> + use<> {
        let held = self.shares();
        self.claims().filter(move |(claim, _)| !held || claim.is_subnet())
    }
}

fn reaches(me: &Me<'_>, key: LeaseKey, holding: &Holding) -> Result<Reaches, Fault> {
    let of = |family| reach(me, key, holding, family);
    let reaches = Reaches { v4: of(Family::V4)?, v6: of(Family::V6)? };
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
    holding: &Holding,
    family: Family,
) -> Result<Option<Reach>, Fault> {
    let (Some(pool), Some(subnet)) = (me.footing.config.pool(family), key.of(family)) else {
        return Ok(None);
    };
    let lease = &holding.lease;
    if holding.holder.is_some() {
        me.footing.config.pool_of(subnet).ok_or(Fault::OutsidePools { subnet })?;
    } else {
        lies_right(me, subnet, pool.network())?;
    }
    let carrier = me.footing.carrier(lease, subnet, me.own, holding.has_router);
    let ip = match &carrier {
        Ok(carrier) => carrier.address(lease, family),
        Err(_) => lease.public(family),
    };
    let ip = ip.ok_or(Fault::NoAddress { family })?;
    is_a_node_s(me, ip)?;
    let form = carrier?.heed(lease, family)?;
    Ok(Some(Reach { dst: Dst::Prefix(subnet), at: At::Node { ip, form } }))
}

fn lies_right(me: &Me<'_>, subnet: Prefix, network: Prefix) -> Result<(), Fault> {
    if !network.covers(subnet) {
        return Err(Fault::OutsideNetwork { subnet, network });
    }
    match me.own.overlapping(subnet) {
        Some(other) => Err(Fault::OverlapsOurs { subnet, other }),
        None => Ok(()),
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
    /// A tunnel's own address within the network.
    Inner(IpAddr),
    Key(Family, PublicKey),
}

impl Claim {
    pub const fn is_subnet(self) -> bool {
        matches!(self, Self::Subnet(_))
    }
}

/// The claims of a peer, in the order in which they are judged.
fn claims(reaches: Reaches) -> impl Iterator<Item = Claim> {
    let of = |reach: Reach| {
        let Dst::Prefix(subnet) = reach.dst;
        let (ip, form) = match reach.at {
            At::Node { ip, form } => (Some(ip), form),
            At::Here => (None, Form::Plain),
        };
        let inner = match form {
            Form::Vtep { inner, .. } => inner.map(Claim::Inner),
            _ => None,
        };
        let end = match form {
            Form::Vtep { mac, .. } => Some(Claim::Vtep(subnet.family(), mac)),
            Form::Wireguard(key, _) => Some(Claim::Key(subnet.family(), key)),
            Form::Plain | Form::Udp | Form::Ipip | Form::Extension | Form::Foreign => None,
        };
        [Some(Claim::Subnet(subnet)), ip.map(Claim::Address), end, inner].into_iter().flatten()
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
        Claim::Inner(ip) => Fault::SameEnd { ip, other },
        Claim::Key(_, key) => Fault::SameKey { key, other },
    }
}

/// Every claim of every peer, ordered so that rivals are found without looking at the rest. What is a node's is claimed
/// by the first of its leases that are reached alike, for all of them.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    all: BTreeSet<(Claim, Claimant)>,
    /// How many subnets there are of each length. A cluster has one length, or few, so this is what makes it
    /// cheap to ask for the subnets around another.
    lengths: BTreeMap<(Family, u8), usize>,
}

impl Claims {
    pub fn insert(&mut self, claim: Claim, claimant: Claimant) {
        if self.all.insert((claim, claimant))
            && let Claim::Subnet(subnet) = claim
        {
            *self.lengths.entry((subnet.family(), subnet.len())).or_default() += 1;
        }
    }

    pub fn remove(&mut self, claim: Claim, claimant: Claimant) {
        if self.all.remove(&(claim, claimant))
            && let Claim::Subnet(subnet) = claim
        {
            self.forget_length(subnet);
        }
    }

    fn forget_length(&mut self, subnet: Prefix) {
        let length = (subnet.family(), subnet.len());
        let left = self.lengths.get(&length).map_or(0, |count| count.saturating_sub(1));
        match left {
            0 => _ = self.lengths.remove(&length),
            left => _ = self.lengths.insert(length, left),
        }
    }

    /// Has them take up no more than what is in them.
    pub fn pack(&mut self) {
        packed::pack_set(&mut self.all);
    }

    pub fn clear(&mut self) {
        self.all.clear();
        self.lengths.clear();
    }

    /// Everyone who claims the same, or what overlaps it, in no order.
    pub fn rivals(&self, claim: Claim) -> impl Iterator<Item = Claimant> {
        let subnet = match claim {
            Claim::Subnet(subnet) => Some(subnet),
            Claim::Address(_) | Claim::Vtep(..) | Claim::Inner(_) | Claim::Key(..) => None,
        };
        let around = subnet.into_iter().flat_map(|subnet| self.covering(subnet));
        around.chain(self.equal_or_within(claim))
    }

    /// Everyone who claims exactly this, the earliest first.
    pub fn same(&self, claim: Claim) -> impl Iterator<Item = Claimant> {
        self.between(claim, claim)
    }

    /// A lease whose subnet is this one or holds it.
    pub fn lease_of(&self, dst: Prefix) -> Option<LeaseKey> {
        let around = self.covering(dst).chain(self.same(Claim::Subnet(dst)));
        around.min().map(|claimant| claimant.key)
    }

    /// Shorter subnets that hold this one.
    fn covering(&self, subnet: Prefix) -> impl Iterator<Item = Claimant> {
        let lengths = self.lengths.range((subnet.family(), 0)..(subnet.family(), subnet.len()));
        let around = move |(_, len)| Prefix::around(subnet.addr(), len).ok().map(Claim::Subnet);
        lengths.map(|(length, _)| *length).filter_map(around).flat_map(|claim| self.same(claim))
    }

    /// A subnet and those within it lie between its base and its last address.
    fn equal_or_within(&self, claim: Claim) -> impl Iterator<Item = Claimant> {
        let last = match claim {
            Claim::Subnet(subnet) => Claim::Subnet(Prefix::host(subnet.last())),
            Claim::Address(_) | Claim::Vtep(..) | Claim::Inner(_) | Claim::Key(..) => claim,
        };
        self.between(claim, last)
    }

    fn between(&self, first: Claim, last: Claim) -> impl Iterator<Item = Claimant> {
        let from = Bound::Included((first, Claimant::FIRST));
        self.all
            .range((from, Bound::Unbounded))
            .take_while(move |(claim, _)| *claim <= last)
            .map(|(_, claimant)| *claimant)
    }
}
