//! IPv4 in IPv4 (RFC 2003; flannel's `ipip`): 20 octets around a packet, and no port that a firewall could look at.
//!
//! One device for all peers: it has no remote end of its own, a packet goes to its route's next hop, which is the
//! peer's underlay address.

use std::net::Ipv4Addr;

use russet_desired::{
    Emit, Flag, IpipSpec, Item, LinkKind, LinkSpec, NextHopKey, NextHopSpec, RouteKey, RouteSpec,
};
use russet_net::{At, Dst, Family, Form, IfName, Mtu, Reach};

use super::{Me, Transport, udp::link_name};
use crate::{
    error::Fault,
    model::{Backend, IpipConfig, Lease, NetworkConfig, Preset, Settings, Tunnel, UnderlayFact},
};

/// This node's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipip {
    config: IpipConfig,
    link: IfName,
    /// Calico's is the kernel's own device, which sends from where the route says.
    local: Option<Ipv4Addr>,
    mtu: Mtu,
    inherits: Flag,
}

impl Ipip {
    pub const fn link(&self) -> IfName {
        self.link
    }

    /// # Errors
    ///
    /// When the underlay leaves no room, or has no IPv4 address.
    pub fn new(
        settings: &Settings,
        config: IpipConfig,
        underlay: &UnderlayFact,
    ) -> Result<Self, Fault> {
        let family = Family::V4;
        let missing = Fault::NoUnderlayAddress { link: underlay.link, family };
        let local = underlay.v4.ok_or(missing)?;
        let outer = config.mtu.unwrap_or(underlay.mtu);
        let mtu = super::room(underlay.link, outer, OVERHEAD, family)?;
        let link = link_name(settings.preset, ["flannel.ipip", "rst.ipip0", "tunl0"]);
        let is_kernels = settings.preset == Preset::Calico;
        let local = (!is_kernels).then_some(local);
        let inherits = settings.inherits_devices();
        Ok(Self { config, link, local, mtu, inherits })
    }

    /// Whether peers on a shared link are reached without the tunnel.
    pub fn is_direct(&self) -> bool {
        self.config.direct_routing.is_on()
    }
}

impl Transport for Ipip {
    fn advertise(&self, _network: &NetworkConfig) -> Backend {
        Backend::Ipip
    }

    /// One more IPv4 header.
    fn overhead(&self, _underlay: Family) -> u16 {
        OVERHEAD
    }

    fn local(&self, me: &Me<'_>, out: &mut Emit) {
        let (kind, mac, master) = (LinkKind::Ipip(IpipSpec { local: self.local }), None, None);
        let (mtu, inherits) = (self.mtu, self.inherits);
        let spec = LinkSpec { kind, role: "ipip", mac, mtu, master, inherits };
        out.push(Item::Link(self.link, spec));
        let addr = me.own.tunnel_addr(Tunnel::Ipip, Family::V4);
        if let Some(addr) = addr {
            out.push(super::whole_address(self.link, addr));
        }
    }

    fn heed(&self, _lease: &Lease, _family: Family) -> Result<Form, Fault> {
        Ok(Form::Ipip)
    }

    fn may_hear(&self, lease: &Lease) -> bool {
        match &lease.backend {
            Backend::Ends(ends) => ends.ipip.is_some(),
            other => *other == Backend::Ipip,
        }
    }

    /// `SUBNET via PUBLICIP dev flannel.ipip onlink`
    fn remote(&self, me: &Me<'_>, reach: &Reach, out: &mut Emit) {
        let (Dst::Prefix(subnet), At::Node { ip, .. }) = (reach.dst, reach.at) else { return };
        let via = NextHopKey { via: ip, link: self.link };
        out.push(Item::NextHop(via, NextHopSpec { onlink: Flag::On }));
        out.push(Item::Route(
            RouteKey::main(subnet),
            RouteSpec { via: via.into(), inherits: me.settings.inherits() },
        ));
    }
}

const OVERHEAD: u16 = 20;
