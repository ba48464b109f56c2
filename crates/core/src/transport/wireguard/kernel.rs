//! The kernel's own WireGuard: a device for each family, or one for both.

use russet_desired::{
    Emit, Flag, Item, LinkKind, LinkSpec, WireguardDeviceSpec, WireguardPeerKey, WireguardPeerSpec,
};
use russet_net::{Family, IfName, Port, Prefix};

use super::Wireguard;
use crate::{
    model::{Tunnel, WireguardMode},
    transport::{Me, into_device, no_router_advertisements, whole_address},
};

impl Wireguard {
    /// Device, addresses, key and port.
    pub(super) fn devices(&self, me: &Me<'_>, out: &mut Emit) {
        for family in me.footing.config.families() {
            let (link, port) = self.device_of(family);
            let addr = me.own.tunnel_addr(Tunnel::Wireguard, family);
            if addr.is_none() && me.own.lease().is_some() {
                continue;
            }
            // Said twice where both families have one; the second is as the first.
            out.push(Item::Link(link, self.link_spec()));
            out.push(Item::WireguardDevice(link, WireguardDeviceSpec { key: self.key, port }));
            out.push(no_router_advertisements(link));
            if let Some(addr) = addr {
                out.push(whole_address(link, addr));
            }
        }
    }

    /// What leads to a peer's subnet.
    pub(super) fn peer(&self, subnet: Prefix, peer: WireguardPeerSpec, out: &mut Emit) {
        let (link, _) = self.device_of(subnet.family());
        out.push(Item::WireguardPeer(WireguardPeerKey { link, prefix: subnet }, peer));
        into_device(link, subnet, out);
    }

    /// The device that a family's packets go into, and where it listens.
    pub(in crate::transport) const fn device_of(&self, family: Family) -> (IfName, Port) {
        match (self.config.mode, family) {
            (WireguardMode::Separate, Family::V6) => (self.link_v6, self.config.port_v6),
            _ => (self.link, self.config.port),
        }
    }

    const fn link_spec(&self) -> LinkSpec {
        let (kind, mac, master) = (LinkKind::Wireguard, None, None);
        // flannel's own goes when flanneld does; one that is left has another's key.
        LinkSpec { kind, role: "wireguard", mac, mtu: self.mtu, master, inherits: Flag::Off }
    }
}
