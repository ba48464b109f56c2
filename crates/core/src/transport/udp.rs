//! Bare packets as the payload of UDP, carried by an engine of our own (flannel's `udp`).
//!
//! One TUN device for both families, and one engine behind it. Per peer three objects make one path: the engine knows
//! where the peer's subnet is, the route leads into the device, its next hop is the base of the peer's subnet. A
//! family's packets cross the underlay in the same family, as with the other tunnels; flannel itself has IPv4 only.

use std::net::SocketAddr;

use russet_desired::{
    Emit, EngineEnd, EnginePeerKey, EnginePeerSpec, EngineSpec, Flag, Item, LinkKind, LinkSpec,
    NextHopKey, NextHopSpec, RouteKey, RouteSpec, SysctlKey, SysctlSpec,
};
use russet_net::{At, Dst, Family, Form, IfName, Mtu, Reach};

use super::{Me, Transport};
use crate::{
    error::Fault,
    model::{Backend, Lease, NetworkConfig, Preset, Settings, UdpConfig, UnderlayFact},
};

/// This node's device and engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    config: UdpConfig,
    link: IfName,
    mtu: Mtu,
}

impl Udp {
    /// # Errors
    ///
    /// When the underlay leaves no room.
    pub fn new(
        settings: &Settings,
        config: UdpConfig,
        network: &NetworkConfig,
        underlay: &UnderlayFact,
    ) -> Result<Self, Fault> {
        let mut mtu = underlay.mtu;
        for family in network.families() {
            let left = super::room(underlay.link, underlay.mtu, overhead(family), family)?;
            mtu = mtu.min(left);
        }
        Ok(Self { config, link: link_name(settings.preset), mtu })
    }

    fn end(&self, me: &Me<'_>, family: Family) -> Option<EngineEnd> {
        me.footing.config.pool(family)?;
        let ip = me.footing.underlay.addr(family)?;
        let inner = me.own.of(family)?.addr();
        Some(EngineEnd { listen: SocketAddr::new(ip, self.config.port.get()), inner })
    }
}

impl Transport for Udp {
    fn advertise(&self, _network: &NetworkConfig) -> Backend {
        Backend::Udp
    }

    /// The outer IP header (20 or 40) and UDP 8.
    fn overhead(&self, underlay: Family) -> u16 {
        overhead(underlay)
    }

    fn local(&self, me: &Me<'_>, out: &mut Emit) {
        let link = self.link;
        let (mac, master) = (None, None);
        let spec = LinkSpec { kind: LinkKind::Tun, role: "udp", mac, mtu: self.mtu, master };
        out.push(Item::Link(link, spec));
        let ends = EngineSpec { v4: self.end(me, Family::V4), v6: self.end(me, Family::V6) };
        for end in [ends.v4, ends.v6].into_iter().flatten() {
            out.push(super::whole_address(link, end.inner));
        }
        out.push(super::no_router_advertisements(link));
        out.push(accept_local(link));
        out.push(Item::Engine(link, ends));
    }

    /// A lease that names no backend says all that there is to say.
    fn heed(&self, _lease: &Lease, _family: Family) -> Result<Form, Fault> {
        Ok(Form::Udp)
    }

    /// Every node listens on one port, so a peer's is our own.
    fn remote(&self, _me: &Me<'_>, reach: &Reach, out: &mut Emit) {
        let (Dst::Prefix(subnet), At::Node { ip, .. }) = (reach.dst, reach.at) else { return };
        let link = self.link;
        let endpoint = SocketAddr::new(ip, self.config.port.get());
        let via = NextHopKey { via: subnet.addr(), link };
        let key = EnginePeerKey { link, prefix: subnet };
        out.push(Item::EnginePeer(key, EnginePeerSpec { endpoint }));
        out.push(Item::NextHop(via, NextHopSpec { onlink: Flag::On }));
        out.push(Item::Route(RouteKey::main(subnet), RouteSpec { via }));
    }
}

/// What the engine itself answers to our pods comes in by the device, from an address that is ours.
fn accept_local(link: IfName) -> Item {
    let key = SysctlKey {
        rank: crate::attachment::RANK_DEVICE,
        path: format!("net/ipv4/conf/{link}/accept_local"),
    };
    Item::Sysctl(key, SysctlSpec { value: "1", optional: Flag::On })
}

/// flannel's name, or ours.
fn link_name(preset: Preset) -> IfName {
    let name = match preset {
        Preset::Flannel => "flannel0",
        Preset::Russet => "rst.udp0",
    };
    // Two names that any link may have; the empty fallback is none.
    name.parse().unwrap_or_else(|_| unreachable!("{name} is a link's name"))
}

const fn overhead(underlay: Family) -> u16 {
    match underlay {
        Family::V4 => 28,
        Family::V6 => 48,
    }
}
