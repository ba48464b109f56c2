//! How a packet crosses the underlay.
//!
//! A value of this choice is a folder that implements [`Transport`], a variant of [`TransportConfig`], and
//! a line in [`Footing::new`]. What a peer's lease says overrides the pool for traffic to that peer
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
//! A pool that turns from vxlan or ipip to another transport keeps its tunnel's end as *retiring*, to receive by, until
//! no peer's lease says so any more: the others send into the tunnel until they have seen our new lease.

mod direct;
mod extension;
mod ipip;
mod udp;
mod unmanaged;
mod vxlan;
mod wireguard;

use std::{fmt, net::IpAddr};

use russet_desired::{
    AddressKey, AddressScope, AddressSpec, Emit, Flag, Item, NextHopKey, NextHopSpec, RouteKey,
    RouteSpec, SysctlKey, SysctlSpec,
};
use russet_net::{At, Family, Form, IfName, Mac, Mtu, Prefix, Reach};

pub use self::{
    direct::Direct, extension::Extension, ipip::Ipip, udp::Udp, unmanaged::Unmanaged, vxlan::Vxlan,
    wireguard::Wireguard,
};
use crate::{
    error::Fault,
    model::{Backend, Lease, LeaseKey, NetworkConfig, Settings, TransportConfig, UnderlayFact},
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
    pub own: LeaseKey,
    /// The first one of this life. What pods have learned of it stays: the bridge's MAC.
    pub first: LeaseKey,
}

/// A configuration that holds on this node's underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footing {
    pub config: NetworkConfig,
    pub underlay: UnderlayFact,
    /// What a pod that is added now is given: the least that any family's way carries.
    pub pod_mtu: Mtu,
    pool: Carrier,
    /// What the pool was before, and peers may still send by.
    retiring: Option<Carrier>,
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

    /// Whether it is a device that can go on hearing beside another transport.
    const fn can_retire(&self) -> bool {
        matches!(self, Self::Vxlan(_) | Self::Ipip(_))
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
        for family in config.families() {
            needs_address(config.transport().outer(family), family, underlay)?;
        }
        let pool = match config.transport() {
            TransportConfig::Vxlan(vxlan) => {
                Carrier::Vxlan(Vxlan::new(settings, *vxlan, &config, underlay)?)
            }
            TransportConfig::Direct => Carrier::Direct(Direct),
            TransportConfig::Udp(udp) => Carrier::Udp(Udp::new(settings, *udp, &config, underlay)?),
            TransportConfig::Ipip(ipip) => Carrier::Ipip(Ipip::new(settings, *ipip, underlay)?),
            TransportConfig::Unmanaged => Carrier::Unmanaged(Unmanaged),
            TransportConfig::Extension(extension) => {
                Carrier::Extension(Extension::new(settings, extension, underlay)?)
            }
            TransportConfig::Wireguard(wireguard) => {
                Carrier::Wireguard(Wireguard::new(settings, *wireguard, &config, underlay)?)
            }
        };
        let mut footing = Self {
            config,
            underlay: underlay.clone(),
            pod_mtu: underlay.mtu,
            pool,
            retiring: None,
        };
        footing.pod_mtu = footing.least_mtu()?;
        Ok(footing)
    }

    /// Takes over from what was in force before.
    #[must_use]
    pub fn after(self, old: Option<&Self>) -> Self {
        let ours = std::mem::discriminant(&self.pool);
        let mut left = old.into_iter().flat_map(|old| [Some(&old.pool), old.retiring.as_ref()]);
        let mut left = left.by_ref().flatten().filter(|carrier| carrier.can_retire());
        let retiring = left.find(|carrier| std::mem::discriminant(*carrier) != ours).cloned();
        Self { retiring, ..self }
    }

    /// The tunnel's end that only receives.
    pub fn retiring(&self) -> Option<&dyn Transport> {
        self.retiring.as_ref().map(Carrier::transport)
    }

    /// Lets it go.
    pub fn retire(&mut self) {
        self.retiring = None;
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
            backend: self.transport().advertise(&self.config),
        }
    }

    pub fn transport(&self) -> &dyn Transport {
        self.pool.transport()
    }

    /// The transport that reaches the holder of a lease: what it says, as far as we can send it.
    ///
    /// # Errors
    ///
    /// When the holder speaks a backend that we do not.
    pub fn carrier(&self, lease: &Lease, family: Family) -> Result<&dyn Transport, Fault> {
        let shared = lease.public(family).is_some_and(|ip| self.underlay.shares_link_with(ip));
        match (&lease.backend, &self.pool) {
            (_, Carrier::Unmanaged(unmanaged)) => Ok(unmanaged),
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

    /// The transport that a reach was made for.
    pub fn carrier_of(&self, reach: &Reach) -> &dyn Transport {
        match (&self.pool, reach.at) {
            (Carrier::Vxlan(vxlan), At::Node { form: Form::Vtep(_), .. }) => vxlan,
            (Carrier::Udp(udp), At::Node { form: Form::Udp, .. }) => udp,
            (Carrier::Ipip(ipip), At::Node { form: Form::Ipip, .. }) => ipip,
            (Carrier::Unmanaged(unmanaged), At::Node { form: Form::Foreign, .. }) => unmanaged,
            (Carrier::Extension(extension), At::Node { form: Form::Extension, .. }) => extension,
            (Carrier::Wireguard(wireguard), At::Node { form: Form::Wireguard(..), .. }) => {
                wireguard
            }
            _ => &Direct,
        }
    }

    /// Our VTEP's MAC of a family, when there is one.
    pub fn own_mac(&self, family: Family) -> Option<Mac> {
        match &self.pool {
            Carrier::Vxlan(vxlan) => vxlan.mac(family),
            _ => None,
        }
    }

    fn not_on_link(&self, lease: &Lease, family: Family) -> Fault {
        match lease.public(family) {
            Some(ip) => Fault::NotOnLink { ip, link: self.underlay.link },
            None => Fault::NoAddress { family },
        }
    }

    fn least_mtu(&self) -> Result<Mtu, Fault> {
        let mut least = self.underlay.mtu;
        for (i, family) in self.config.families().enumerate() {
            let left = self.path_mtu(family)?;
            least = if i == 0 { left } else { least.min(left) };
        }
        Ok(least)
    }

    /// What a pod's packet of a family may be, so that it fits the underlay of the same family.
    fn path_mtu(&self, family: Family) -> Result<Mtu, Fault> {
        let overhead = self.transport().overhead(family);
        room(self.underlay.link, self.outer_mtu(), overhead, family)
    }

    /// The largest packet that is sent over the underlay.
    pub fn outer_mtu(&self) -> Mtu {
        match self.config.transport() {
            TransportConfig::Vxlan(vxlan) => vxlan.mtu.unwrap_or(self.underlay.mtu),
            TransportConfig::Wireguard(wireguard) => wireguard.mtu.unwrap_or(self.underlay.mtu),
            _ => self.underlay.mtu,
        }
    }

    /// Our VXLAN device of a family, when the pool has one.
    pub fn vxlan_link(&self, family: Family) -> Option<IfName> {
        match &self.pool {
            Carrier::Vxlan(vxlan) => vxlan.link(family),
            _ => None,
        }
    }
}

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

/// The base of the subnet alone, so that the peers' route to us has a gateway that is ours.
fn whole_address(link: IfName, addr: IpAddr) -> Item {
    let key = AddressKey { link, addr, len: Family::of(addr).bits() };
    Item::Address(key, AddressSpec { scope: AddressScope::Global })
}

/// The route to a peer's subnet, through a device that finds the peer by the packet's own address.
fn into_device(link: IfName, subnet: Prefix, out: &mut Emit) {
    let via = NextHopKey { via: subnet.addr(), link };
    out.push(Item::NextHop(via, NextHopSpec { onlink: Flag::On }));
    out.push(Item::Route(
        RouteKey::main(subnet),
        RouteSpec { via: via.into(), inherits: Flag::Off },
    ));
}

/// A tunnel is no place to learn a default route from.
fn no_router_advertisements(link: IfName) -> Item {
    let key = SysctlKey {
        rank: crate::attachment::RANK_DEVICE,
        path: format!("net/ipv6/conf/{link}/accept_ra"),
    };
    Item::Sysctl(key, SysctlSpec { value: "0", optional: Flag::On })
}
