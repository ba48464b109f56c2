//! How a packet crosses the underlay.
//!
//! A value of this choice is a file that implements [`Transport`], a variant of [`TransportConfig`], one of `Carrier`
//! and its line in `Carrier::new`. What a peer's lease says overrides the pool for traffic to that peer
//! ([`Footing::carrier`]), so a cluster may be half way between two modes:
//!
//! | the pool says | the peer's lease says | on a shared link | elsewhere |
//! |---|---|---|---|
//! | vxlan | vxlan | tunnel; direct with `DirectRouting` | tunnel |
//! | vxlan | host-gw | direct | refused |
//! | host-gw | vxlan or host-gw | direct | refused |
//! | udp | udp | udp | udp |
//! | udp | vxlan or host-gw | direct | refused |
//! | vxlan or host-gw | udp | refused | refused |
//! | ipip | ipip | tunnel; direct with `DirectRouting` | tunnel |
//! | ipip | vxlan or host-gw | direct | refused |
//! | vxlan, host-gw or udp | ipip | direct | refused |
//! | ipip | udp | refused | refused |
//! | wireguard | wireguard | wireguard | wireguard |
//! | wireguard | anything else | refused | refused |
//! | anything else | wireguard | refused | refused |
//! | extension | extension | the operator's command | the operator's command |
//! | extension | vxlan, host-gw or ipip | direct | refused |
//! | extension | udp | refused | refused |
//! | anything else | extension | refused | refused |
//! | alloc | anything | whoever routes it | whoever routes it |
//!
//! A pool that turns from vxlan, ipip or wireguard to another transport keeps its tunnel's end as *retiring*, to receive
//! by, until no peer's lease says so any more: the others send into the tunnel until they have seen our new lease.
//! One that is left to routers from then on is reached by its old tunnel until a router teaches the way.

mod device;
mod direct;
mod extension;
mod ipip;
mod udp;
mod unmanaged;
mod vxlan;
mod wireguard;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use russet_desired::Emit;
use russet_net::{At, Dst, Family, Form, IfName, Mac, Mtu, Prefix, Reach};

pub(crate) use self::device::into;
use self::device::{into_device, no_router_advertisements, whole_address};
pub use self::{
    direct::Direct, extension::Extension, ipip::Ipip, udp::Udp, unmanaged::Unmanaged, vxlan::Vxlan,
    wireguard::Wireguard,
};
use crate::{
    choices::Distribution,
    error::Fault,
    model::{
        Backend, Ends, Lease, LeaseKey, NetworkConfig, Own, Pool, Settings, TransportConfig,
        Tunnel, UnderlayFact,
    },
    world::{HasRouter, Holding},
};

/// One way across the underlay.
pub trait Transport: fmt::Debug {
    /// What this node's lease says of it, for the families of the network.
    fn advertise(&self, config: &NetworkConfig) -> Backend;

    /// The octets that it puts around each packet.
    fn overhead(&self, underlay: Family) -> u16;

    /// Emits what is there whether or not there is any peer: device, address, settings.
    fn local(&self, me: &Me<'_>, out: &mut Emit);

    /// Reads what a peer's lease must say so that the peer can be reached, and in what form it takes packets.
    fn heed(&self, lease: &Lease, family: Family) -> Result<Form, Fault>;

    /// The address of a peer that a family's packets are sent to.
    fn address(&self, lease: &Lease, family: Family) -> Option<IpAddr> {
        lease.public(family)
    }

    /// Whether the holder of a lease may still send by this, although our pool is another by now.
    fn may_hear(&self, _lease: &Lease) -> bool {
        false
    }

    /// Emits what reaches a peer.
    fn remote(&self, me: &Me<'_>, reach: &Reach, out: &mut Emit);
}

/// What this node is: its settings, what it stands on, and the lease that it holds.
#[derive(Clone, Copy, Debug)]
pub struct Me<'a> {
    pub settings: &'a Settings,
    pub footing: &'a Footing,
    pub own: &'a Own,
    /// The first lease of this life. What pods have learned of it stays: the bridge's MAC.
    pub first: Option<LeaseKey>,
}

impl Me<'_> {
    /// Whether a lease is this node's own.
    pub fn holds(&self, key: LeaseKey, holding: &Holding) -> bool {
        match &holding.holder {
            Some(holder) => holder.name.as_str() == self.settings.node,
            None => self.own.lease() == Some(key),
        }
    }
}

/// A configuration that holds on this node's underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footing {
    pub config: NetworkConfig,
    pub underlay: UnderlayFact,
    /// What a pod that is added now is given: the least that any family's way carries.
    pub pod_mtu: Mtu,
    /// One for each of the configuration's transports.
    carriers: Vec<Carrier>,
    /// What pools were before, and peers may still send by.
    retiring: Vec<Carrier>,
    /// Pools that routers were left with, and the tunnels that were theirs.
    left: BTreeMap<Prefix, Tunnel>,
    /// Whether a node that no tunnel reaches yet is left to routers.
    routers: bool,
}

/// The transports that a pool can choose.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Carrier {
    Vxlan(Vxlan),
    Direct(Direct),
    Udp(Udp),
    Ipip(Ipip),
    Wireguard(Wireguard),
    Unmanaged(Unmanaged),
    Extension(Extension),
}

impl Carrier {
    fn transport(&self) -> &dyn Transport {
        match self {
            Self::Vxlan(vxlan) => vxlan,
            Self::Direct(direct) => direct,
            Self::Udp(udp) => udp,
            Self::Ipip(ipip) => ipip,
            Self::Wireguard(wireguard) => wireguard,
            Self::Unmanaged(unmanaged) => unmanaged,
            Self::Extension(extension) => extension,
        }
    }

    fn new(
        settings: &Settings,
        transport: &TransportConfig,
        config: &NetworkConfig,
        underlay: &UnderlayFact,
    ) -> Result<Self, Fault> {
        Ok(match transport {
            TransportConfig::Vxlan(vxlan) => {
                Self::Vxlan(Vxlan::new(settings, *vxlan, config, underlay)?)
            }
            TransportConfig::Direct => Self::Direct(Direct),
            TransportConfig::Udp(udp) => Self::Udp(Udp::new(settings, *udp, config, underlay)?),
            TransportConfig::Ipip(ipip) => Self::Ipip(Ipip::new(settings, *ipip, underlay)?),
            TransportConfig::Unmanaged => Self::Unmanaged(Unmanaged),
            TransportConfig::Extension(extension) => {
                Self::Extension(Extension::new(settings, extension, underlay)?)
            }
            TransportConfig::Wireguard(wireguard) => {
                Self::Wireguard(Wireguard::new(settings, *wireguard, config, underlay)?)
            }
        })
    }

    const fn tunnel(&self) -> Option<Tunnel> {
        match self {
            Self::Vxlan(_) => Some(Tunnel::Vxlan),
            Self::Ipip(_) => Some(Tunnel::Ipip),
            Self::Wireguard(_) => Some(Tunnel::Wireguard),
            Self::Direct(_) | Self::Udp(_) | Self::Unmanaged(_) | Self::Extension(_) => None,
        }
    }

    /// What of it none of the others has, when that can go on hearing.
    fn beside(&self, others: &[Self]) -> Option<Self> {
        match self {
            Self::Vxlan(vxlan) => {
                let mut left = vxlan.clone();
                for other in others {
                    if let Self::Vxlan(other) = other {
                        left = left.without(other)?;
                    }
                }
                Some(Self::Vxlan(left))
            }
            // One device for all that they carry: what another has of it is all of it.
            Self::Ipip(_) | Self::Wireguard(_) => {
                let is_same = |other: &Self| other.tunnel() == self.tunnel();
                (!others.iter().any(is_same)).then(|| self.clone())
            }
            Self::Direct(_) | Self::Udp(_) | Self::Unmanaged(_) | Self::Extension(_) => None,
        }
    }

    /// Whether it has an end of its own for a family.
    fn has_end(&self, family: Family) -> bool {
        match self {
            Self::Vxlan(vxlan) => vxlan.link(family).is_some(),
            Self::Ipip(_) => family == Family::V4,
            _ => true,
        }
    }

    /// The device that a family's packets go through.
    fn link(&self, family: Family) -> Option<IfName> {
        match self {
            Self::Vxlan(vxlan) => vxlan.link(family),
            Self::Ipip(ipip) => Some(ipip.link()),
            Self::Wireguard(wireguard) => Some(wireguard.device_of(family).0),
            Self::Direct(_) | Self::Udp(_) | Self::Unmanaged(_) | Self::Extension(_) => None,
        }
    }

    /// Whether a node that says where its tunnels end takes packets by this.
    fn reaches(&self, ends: &Ends, family: Family) -> bool {
        match self {
            Self::Direct(_) | Self::Unmanaged(_) => true,
            Self::Vxlan(_) | Self::Ipip(_) | Self::Wireguard(_) => {
                let has = |tunnel| ends.has(tunnel, family);
                self.has_end(family) && self.tunnel().is_some_and(has)
            }
            Self::Udp(_) | Self::Extension(_) => false,
        }
    }
}

impl Footing {
    /// # Errors
    ///
    /// When the underlay lacks an address or room in its MTU, or a device of that name cannot be.
    pub fn new(
        settings: &Settings,
        config: NetworkConfig,
        underlay: &UnderlayFact,
    ) -> Result<Self, Fault> {
        for pool in config.pools() {
            let family = pool.family();
            needs_address(config.transport_of(pool).outer(family), family, underlay)?;
        }
        let carriers = config.transports().iter();
        let carriers = carriers.map(|it| Carrier::new(settings, it, &config, underlay));
        let mut footing = Self {
            carriers: carriers.collect::<Result<_, _>>()?,
            config,
            underlay: underlay.clone(),
            pod_mtu: underlay.mtu,
            retiring: Vec::new(),
            left: BTreeMap::new(),
            routers: settings.distribution == Distribution::Bgp,
        };
        footing.pod_mtu = footing.least_mtu()?;
        Ok(footing)
    }

    /// Takes over from what was in force before.
    #[must_use]
    pub fn after(self, old: Option<&Self>) -> Self {
        let mut retiring: Vec<Carrier> = Vec::new();
        for carrier in old.into_iter().flat_map(Self::all) {
            let left = carrier.beside(&self.carriers);
            retiring.extend(left.and_then(|left| left.beside(&retiring)));
        }
        let left = old.map(|old| self.left_to_routers(old)).unwrap_or_default();
        Self { retiring, left, ..self }
    }

    /// The pools that were a tunnel's and are routers' now, with the tunnel.
    fn left_to_routers(&self, old: &Self) -> BTreeMap<Prefix, Tunnel> {
        let tunnel = |pool: Pool| {
            matches!(self.carriers.get(pool.transport())?, Carrier::Unmanaged(_)).then_some(())?;
            let before = old.config.pool_of(pool.network())?;
            let before_last = || old.left.get(&pool.network()).copied();
            let tunnel = old.carriers.get(before.transport())?.tunnel().or_else(before_last)?;
            Some((pool.network(), tunnel))
        };
        self.config.pools().filter_map(tunnel).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Carrier> {
        self.carriers.iter().chain(&self.retiring)
    }

    /// The tunnels' ends that only receive.
    pub fn retiring(&self) -> impl Iterator<Item = &dyn Transport> {
        self.retiring.iter().map(Carrier::transport)
    }

    /// Whether something of earlier configurations is in use, or may be again: a tunnel that only receives, or one that goes
    /// on until routers teach the way.
    pub fn uses_what_was(&self) -> bool {
        !self.retiring.is_empty() || !self.left.is_empty()
    }

    /// Lets those go that are done.
    pub fn retire(&mut self, mut is_done: impl FnMut(&dyn Transport) -> bool) {
        self.retiring.retain(|carrier| !is_done(carrier.transport()));
    }

    /// The tunnels of the pools, by the families that they carry.
    pub fn tunnels(&self) -> BTreeSet<(Tunnel, Family)> {
        let of = |pool: Pool| {
            let carrier = self.carriers.get(pool.transport())?;
            Some((carrier.tunnel()?, pool.family()))
        };
        self.config.pools().filter_map(of).collect()
    }

    /// The device of a tunnel that is or was the pools'.
    pub fn link_of(&self, tunnel: Tunnel, family: Family) -> Option<IfName> {
        let mut of = self.all().filter(|carrier| carrier.tunnel() == Some(tunnel));
        of.find_map(|carrier| carrier.link(family))
    }

    /// The tunnels that were the pools'.
    pub fn retiring_tunnels(&self) -> BTreeSet<(Tunnel, Family)> {
        let of = |carrier: &Carrier| {
            let families = Family::BOTH.into_iter().filter(|family| carrier.has_end(*family));
            let families: Vec<_> = families.collect();
            let tunnel = carrier.tunnel().into_iter();
            tunnel.flat_map(move |tunnel| families.clone().into_iter().map(move |it| (tunnel, it)))
        };
        self.retiring.iter().flat_map(of).collect()
    }

    /// The tunnel that reaches a node's subnet although its pool is routers' now: none of them teaches the way yet.
    pub fn not_taught_yet(&self, holding: &Holding, subnet: Prefix) -> Option<Tunnel> {
        let Backend::Ends(ends) = &holding.lease.backend else { return None };
        self.old_tunnel(ends, subnet, holding.has_router).and_then(Carrier::tunnel)
    }

    /// The pool that a prefix lies in, when it was a tunnel's and is routers' now.
    pub fn left_pool(&self, subnet: Prefix) -> Option<Prefix> {
        let pool = self.config.pool_of(subnet)?.network();
        self.left.contains_key(&pool).then_some(pool)
    }

    fn old_tunnel(&self, ends: &Ends, subnet: Prefix, router: HasRouter) -> Option<&Carrier> {
        let pool = self.left_pool(subnet).filter(|_| router == HasRouter::No)?;
        let tunnel = *self.left.get(&pool)?;
        let mut all = self.all().filter(|it| it.tunnel() == Some(tunnel));
        all.find(|carrier| carrier.reaches(ends, subnet.family()))
    }

    /// What this node's own lease says.
    pub fn advertise(&self) -> Lease {
        let outer = |family| self.config.transport().outer(family);
        let has = |family| {
            self.config.pool(family).is_some()
                || self.config.families().any(|inner| outer(inner) == Some(family))
        };
        Lease {
            public_ip: self.underlay.v4.filter(|_| has(Family::V4)),
            public_ipv6: self.underlay.v6.filter(|_| has(Family::V6)),
            backend: self.first().transport().advertise(&self.config),
        }
    }

    /// Those of the pools.
    pub fn transports(&self) -> impl Iterator<Item = &dyn Transport> {
        self.carriers.iter().map(Carrier::transport)
    }

    /// Of flannel's network the only one.
    fn first(&self) -> &Carrier {
        self.carriers.first().unwrap_or(&Carrier::Direct(Direct))
    }

    /// The transport that reaches a subnet's holder: what it says, as far as we can send it.
    ///
    /// # Errors
    ///
    /// When the holder speaks a backend that we do not.
    pub fn carrier(
        &self,
        lease: &Lease,
        subnet: Prefix,
        own: &Own,
        router: HasRouter,
    ) -> Result<&dyn Transport, Fault> {
        let family = subnet.family();
        let shared = lease.public(family).is_some_and(|ip| self.underlay.shares_link_with(ip));
        let pool = self.config.pool_of(subnet);
        let carrier = pool.and_then(|pool| self.carriers.get(pool.transport()));
        let carrier = carrier.unwrap_or_else(|| self.first());
        match (&lease.backend, carrier) {
            (Backend::Ends(ends), Carrier::Unmanaged(unmanaged)) => {
                let old = self.old_tunnel(ends, subnet, router);
                Ok(old.map_or(unmanaged, Carrier::transport))
            }
            (_, Carrier::Unmanaged(unmanaged)) => Ok(unmanaged),
            (Backend::Ends(ends), _) => {
                let direct = pool.is_some_and(|pool| pool.habits.direct_routing.is_on());
                let direct = shared && (direct || matches!(carrier, Carrier::Direct(_)));
                let chosen =
                    if direct { Some(DIRECT) } else { self.by_ends(carrier, ends, subnet, own) };
                let chosen = chosen.filter(|it| shared || !matches!(it, Carrier::Direct(_)));
                let chosen = chosen.or(shared.then_some(DIRECT));
                let chosen = chosen.or(self.routers.then_some(UNMANAGED));
                chosen
                    .map(Carrier::transport)
                    .ok_or_else(|| self.not_reached(lease, carrier, family))
            }
            (Backend::Foreign(name), _) => Err(Fault::Backend(*name)),
            (Backend::Wireguard { .. }, Carrier::Wireguard(wireguard)) => Ok(wireguard),
            // Where all is sealed nothing goes bare, not even over a shared link.
            (_, Carrier::Wireguard(_)) => Err(Fault::NotSealed),
            (Backend::Wireguard { .. }, _) => Err(Fault::NoWireguardHere),
            (Backend::Udp, Carrier::Udp(udp)) => Ok(udp),
            (Backend::Udp, _) => Err(Fault::NoUdpHere),
            (Backend::Extension(_), Carrier::Extension(extension)) => Ok(extension),
            (Backend::Extension(_), _) => Err(Fault::NoExtensionHere),
            (Backend::Vxlan { .. }, Carrier::Vxlan(vxlan)) if !(shared && vxlan.is_direct()) => {
                Ok(vxlan)
            }
            (Backend::Ipip, Carrier::Ipip(ipip)) if !(shared && ipip.is_direct()) => Ok(ipip),
            (Backend::Vxlan { .. } | Backend::HostGw | Backend::Ipip, _) if shared => Ok(&Direct),
            (Backend::Vxlan { .. } | Backend::HostGw | Backend::Ipip, _) => {
                Err(self.not_on_link(lease, family))
            }
        }
    }

    /// What reaches a node that says where its tunnels end. One that has no end of the pool's tunnel yet is on its way
    /// there, or was there before us, and takes packets by the tunnel whose end it has.
    fn by_ends<'a>(
        &'a self,
        wanted: &'a Carrier,
        ends: &Ends,
        subnet: Prefix,
        own: &Own,
    ) -> Option<&'a Carrier> {
        // Who is sent something sealed must know our key too.
        let sealed = own.announces(Tunnel::Wireguard, subnet.family());
        let may_send = |it: &&Carrier| sealed || !matches!(it, Carrier::Wireguard(_));
        let others = self.retiring.iter().chain(&self.carriers).filter(|it| it.tunnel().is_some());
        let mut all = std::iter::once(wanted).chain(others);
        all.find(|carrier| may_send(carrier) && carrier.reaches(ends, subnet.family()))
    }

    fn not_reached(&self, lease: &Lease, wanted: &Carrier, family: Family) -> Fault {
        match (wanted.tunnel(), lease.public(family)) {
            (Some(tunnel), Some(_)) => Fault::NoEnd { tunnel, family },
            _ => self.not_on_link(lease, family),
        }
    }

    /// The transport that a reach was made for.
    pub fn carrier_of(&self, reach: &Reach) -> &dyn Transport {
        let (At::Node { form, .. }, Dst::Prefix(subnet)) = (reach.at, reach.dst) else {
            return &Direct;
        };
        let is_it = |carrier: &&Carrier| {
            let is_of_form = matches!(
                (carrier, form),
                (Carrier::Vxlan(_), Form::Vtep { .. })
                    | (Carrier::Udp(_), Form::Udp)
                    | (Carrier::Ipip(_), Form::Ipip)
                    | (Carrier::Unmanaged(_), Form::Foreign)
                    | (Carrier::Extension(_), Form::Extension)
                    | (Carrier::Wireguard(_), Form::Wireguard(..))
            );
            is_of_form && carrier.has_end(subnet.family())
        };
        let mut all = self.all();
        let otherwise = if form == Form::Foreign { UNMANAGED } else { DIRECT };
        all.find(is_it).unwrap_or(otherwise).transport()
    }

    /// Our VTEP's MAC of a family, when there is one.
    pub fn own_mac(&self, family: Family) -> Option<Mac> {
        self.vxlans().find_map(|vxlan| vxlan.mac(family))
    }

    fn vxlans(&self) -> impl Iterator<Item = &Vxlan> {
        self.all().filter_map(|carrier| match carrier {
            Carrier::Vxlan(vxlan) => Some(vxlan),
            _ => None,
        })
    }

    fn not_on_link(&self, lease: &Lease, family: Family) -> Fault {
        match lease.public(family) {
            Some(ip) => Fault::NotOnLink { ip, link: self.underlay.link },
            None => Fault::NoAddress { family },
        }
    }

    fn least_mtu(&self) -> Result<Mtu, Fault> {
        let mut least = None;
        for pool in self.config.pools() {
            let left = self.path_mtu(pool)?;
            least = Some(least.map_or(left, |least: Mtu| least.min(left)));
        }
        Ok(least.unwrap_or(self.underlay.mtu))
    }

    /// What a packet to a pool may be, so that it fits the underlay of the same family.
    fn path_mtu(&self, pool: Pool) -> Result<Mtu, Fault> {
        let family = pool.family();
        let overhead =
            self.carriers.get(pool.transport()).map_or(0, |it| it.transport().overhead(family));
        room(
            self.underlay.link,
            self.outer_mtu_of(self.config.transport_of(pool), family),
            overhead,
            family,
        )
    }

    /// The largest packet that is sent over the underlay.
    pub fn outer_mtu(&self) -> Mtu {
        let family = self.config.pools().next().map_or(Family::V4, Pool::family);
        self.outer_mtu_of(self.config.transport(), family)
    }

    fn outer_mtu_of(&self, transport: &TransportConfig, family: Family) -> Mtu {
        match transport {
            TransportConfig::Vxlan(vxlan) => vxlan.mtu_of(family).unwrap_or(self.underlay.mtu),
            TransportConfig::Ipip(ipip) => ipip.mtu.unwrap_or(self.underlay.mtu),
            TransportConfig::Wireguard(wireguard) => wireguard.mtu.unwrap_or(self.underlay.mtu),
            _ => self.underlay.mtu,
        }
    }

    /// Our VXLAN device of a family, when the pool has one.
    pub fn vxlan_link(&self, family: Family) -> Option<IfName> {
        self.vxlans().find_map(|vxlan| vxlan.link(family))
    }
}

static DIRECT: &Carrier = &Carrier::Direct(Direct);
static UNMANAGED: &Carrier = &Carrier::Unmanaged(Unmanaged);

/// What crosses by a family needs an address of ours in it; where either will do, one of them.
fn needs_address(
    outer: Option<Family>,
    family: Family,
    underlay: &UnderlayFact,
) -> Result<(), Fault> {
    let there = match outer {
        Some(outer) => underlay.addr(outer),
        None => Family::BOTH.into_iter().find_map(|family| underlay.addr(family)),
    };
    let family = outer.unwrap_or(family);
    there.map(drop).ok_or(Fault::NoUnderlayAddress { link: underlay.link, family })
}

/// What is left of the underlay's MTU for a packet of `family`.
fn room(link: IfName, outer: Mtu, overhead: u16, family: Family) -> Result<Mtu, Fault> {
    outer.less(overhead, family).map_err(|fault| Fault::UnderlayMtu {
        link,
        underlay: outer,
        family,
        fault,
    })
}
