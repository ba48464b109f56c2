//! Bare packets as the payload of UDP, carried by an engine of our own (flannel's `udp`).
//!
//! One TUN device for both families, and one engine behind it. Per peer three objects make one path: the engine knows
//! where the peer's subnet is, the route leads into the device, its next hop is the base of the peer's subnet. A
//! family's packets cross the underlay in the same family, as with the other tunnels; flannel itself has IPv4 only.

use std::net::SocketAddr;

use russet_desired::{
    Emit, EngineEnd, EnginePeerKey, EnginePeerSpec, EngineSpec, EngineWire, Flag, Item, LinkKind,
    LinkSpec, SysctlKey, SysctlSpec,
};
use russet_net::{At, Dst, Family, Form, IfName, Mtu, Port, Prefix, Reach};

use super::{Me, Transport};
use crate::{
    error::Fault,
    model::{Backend, Lease, NetworkConfig, Preset, Settings, Tunnel, UdpConfig, UnderlayFact},
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
        let mtu = least_room(underlay, underlay.mtu, network, overhead)?;
        let link = link_name(settings.preset, ["flannel0", "rst.udp0", "rst.udp0"]);
        Ok(Self { config, link, mtu })
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
        let port = self.config.port;
        let end = |family| end(me, family, port);
        let spec = EngineSpec { wire: EngineWire::Udp, v4: end(Family::V4), v6: end(Family::V6) };
        device(me, Device { link: self.link, role: "udp", mtu: self.mtu }, spec, out);
    }

    /// A lease that names no backend says all that there is to say.
    fn heed(&self, _lease: &Lease, _family: Family) -> Result<Form, Fault> {
        Ok(Form::Udp)
    }

    /// Every node listens on one port, so a peer's is our own.
    fn remote(&self, _me: &Me<'_>, reach: &Reach, out: &mut Emit) {
        let (Dst::Prefix(subnet), At::Node { ip, .. }) = (reach.dst, reach.at) else { return };
        let endpoint = SocketAddr::new(ip, self.config.port.get());
        path(self.link, subnet, EnginePeerSpec { endpoint, key: None }, out);
    }
}

/// An engine's device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    pub(super) link: IfName,
    pub(super) role: &'static str,
    pub(super) mtu: Mtu,
}

/// The device of an engine with its addresses, and the engine behind it.
pub(super) fn device(me: &Me<'_>, device: Device, engine: EngineSpec, out: &mut Emit) {
    let Device { link, role, mtu } = device;
    let (mac, master) = (None, None);
    out.push(Item::Link(
        link,
        LinkSpec { kind: LinkKind::Tun, role, mac, mtu, master, inherits: Flag::Off },
    ));
    let families = me.footing.config.families();
    for addr in families.filter_map(|family| me.own.tunnel_addr(Tunnel::Wireguard, family)) {
        out.push(super::whole_address(link, addr));
    }
    out.push(super::no_router_advertisements(link));
    out.push(accept_local(link));
    out.push(Item::Engine(link, engine));
}

/// What leads to a peer through an engine's device.
pub(super) fn path(link: IfName, subnet: Prefix, peer: EnginePeerSpec, out: &mut Emit) {
    out.push(Item::EnginePeer(EnginePeerKey { link, prefix: subnet }, peer));
    super::into_device(link, subnet, out);
}

/// Where an engine of this node listens.
fn end(me: &Me<'_>, family: Family, port: Port) -> Option<EngineEnd> {
    me.footing.config.pool(family)?;
    let ip = me.footing.underlay.addr(family)?;
    let inner = me.own.of(family)?.addr();
    Some(EngineEnd { listen: SocketAddr::new(ip, port.get()), inner })
}

/// What every family's packet may be.
pub(super) fn least_room(
    underlay: &UnderlayFact,
    outer: Mtu,
    network: &NetworkConfig,
    overhead: fn(Family) -> u16,
) -> Result<Mtu, Fault> {
    network.families().try_fold(outer, |least, family| {
        Ok(least.min(super::room(underlay.link, outer, overhead(family), family)?))
    })
}

/// What the engine itself answers to our pods comes in by the device, from an address that is ours.
fn accept_local(link: IfName) -> Item {
    let key = SysctlKey {
        rank: crate::attachment::RANK_DEVICE,
        path: format!("net/ipv4/conf/{link}/accept_local"),
    };
    Item::Sysctl(key, SysctlSpec { value: "1", optional: Flag::On })
}

/// flannel's name, or ours, or Calico's; all are constants of the callers.
pub(super) fn link_name(preset: Preset, [flannel, ours, calico]: [&str; 3]) -> IfName {
    let name = match preset {
        Preset::Flannel => flannel,
        Preset::Russet => ours,
        Preset::Calico => calico,
    };
    name.parse().unwrap_or_else(|_| unreachable!("{name} is a link's name"))
}

const fn overhead(underlay: Family) -> u16 {
    match underlay {
        Family::V4 => 28,
        Family::V6 => 48,
    }
}
