//! VXLAN with the leases as its control plane (RFC 7348; the kernel state is flannel's).
//!
//! One device per family, `nolearning`: what is behind which VTEP is told by the leases. Per peer three
//! objects make one path: the route's gateway is the base of the peer's subnet, the neighbour entry maps
//! it to the peer's VTEP MAC, the FDB entry maps the MAC to the peer's underlay address. A peer that says where its tunnel
//! ends is its own gateway.

use std::net::IpAddr;

use russet_desired::{
    Emit, FdbKey, FdbSpec, Flag, Item, LinkKind, LinkSpec, NeighbourKey, NeighbourSpec, NextHopKey,
    NextHopSpec, OffloadSpec, RouteKey, RouteSpec, VxlanSpec,
};
use russet_net::{At, Dst, Family, Form, IfName, Mac, Mtu, Reach};
use sha2::{Digest, Sha256};

use super::{Me, Transport};
use crate::{
    error::Fault,
    model::{
        Backend, Lease, NetworkConfig, Preset, Settings, TransportConfig, Tunnel, UnderlayFact,
        Vtep, VxlanConfig, calico,
    },
};

/// This node's tunnel ends, one per family of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vxlan {
    config: VxlanConfig,
    v4: Option<End>,
    v6: Option<End>,
}

/// One device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    link: IfName,
    mac: Mac,
    mtu: Mtu,
}

impl Vxlan {
    /// # Errors
    ///
    /// When the VNI makes a name that no link can have, or the underlay leaves no room.
    pub fn new(
        settings: &Settings,
        config: VxlanConfig,
        network: &NetworkConfig,
        underlay: &UnderlayFact,
    ) -> Result<Self, Fault> {
        let end = |family| -> Result<Option<End>, Fault> {
            if !network.crosses(family, |by| matches!(by, TransportConfig::Vxlan(_))) {
                return Ok(None);
            }
            let link = link_name(settings.preset, config, family)?;
            let kept = settings.mac_of(link);
            let mac = kept.unwrap_or_else(|| match settings.preset {
                Preset::Calico => calico::vtep_mac(&settings.node, family),
                Preset::Flannel | Preset::Russet => vtep_mac(&settings.node, config, family),
            });
            let outer = config.mtu_of(family).unwrap_or(underlay.mtu);
            let mtu = super::room(underlay.link, outer, overhead(family), family)?;
            Ok(Some(End { link, mac, mtu }))
        };
        Ok(Self { config, v4: end(Family::V4)?, v6: end(Family::V6)? })
    }

    /// Whether peers on a shared link are reached without the tunnel.
    pub fn is_direct(&self) -> bool {
        self.config.direct_routing.is_on()
    }

    pub fn link(&self, family: Family) -> Option<IfName> {
        self.end(family).map(|end| end.link)
    }

    pub fn mac(&self, family: Family) -> Option<Mac> {
        self.end(family).map(|end| end.mac)
    }

    /// What is left of it beside one that has the other's devices.
    pub fn without(self, other: &Self) -> Option<Self> {
        let left = |ours: Option<End>, theirs: Option<End>| ours.filter(|_| theirs.is_none());
        let (v4, v6) = (left(self.v4, other.v4), left(self.v6, other.v6));
        (v4.is_some() || v6.is_some()).then_some(Self { v4, v6, ..self })
    }

    fn end(&self, family: Family) -> Option<End> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// A peer's VTEP, with its address within the network where it says one.
    fn end_of(&self, lease: &Lease, family: Family) -> Result<(Mac, Option<IpAddr>), Fault> {
        if let Backend::Ends(ends) = &lease.backend {
            let end = ends.vxlan(family).ok_or(Fault::NoMac { family })?;
            return Ok((end.mac, Some(end.addr)));
        }
        let Vtep { vni, mac } = lease.vtep(family).ok_or(Fault::NoMac { family })?;
        if vni != self.config.vni {
            return Err(Fault::OtherVni { got: vni, want: self.config.vni });
        }
        Ok((mac, None))
    }

    fn device(&self, me: &Me<'_>, family: Family, out: &mut Emit) -> Option<()> {
        let end = self.end(family)?;
        let addr = me.own.tunnel_addr(Tunnel::Vxlan, family);
        if me.own.lease().is_some() {
            addr?;
        }
        let spec = VxlanSpec {
            vni: self.config.vni,
            local: me.footing.underlay.addr(family)?,
            underlay: me.footing.underlay.link,
            port: self.config.port,
            learning: self.config.learning,
            gbp: self.config.gbp,
        };
        out.push(Item::Link(end.link, end.spec(spec, me.settings.inherits_devices())));
        if let Some(addr) = addr {
            out.push(super::whole_address(end.link, addr));
        }
        out.push(super::no_router_advertisements(end.link));
        if me.footing.underlay.spoils_checksums.contains(&end.link) {
            out.push(Item::Offload(end.link, OffloadSpec { tx_checksum: Flag::Off }));
        }
        Some(())
    }
}

impl Transport for Vxlan {
    fn advertise(&self, _network: &NetworkConfig) -> Backend {
        let vtep = |end: Option<End>| end.map(|end| Vtep { vni: self.config.vni, mac: end.mac });
        Backend::Vxlan { v4: vtep(self.v4), v6: vtep(self.v6) }
    }

    /// The outer IP header (20 or 40), UDP 8, VXLAN 8, and the inner Ethernet header 14. flannel takes 50
    /// over IPv6 too, which is 20 too few.
    fn overhead(&self, underlay: Family) -> u16 {
        overhead(underlay)
    }

    fn local(&self, me: &Me<'_>, out: &mut Emit) {
        for family in Family::BOTH {
            self.device(me, family, out);
        }
    }

    fn heed(&self, lease: &Lease, family: Family) -> Result<Form, Fault> {
        let (mac, inner) = self.end_of(lease, family)?;
        if !mac.is_unicast() {
            return Err(Fault::NotStation { mac });
        }
        if Some(mac) == self.mac(family) {
            return Err(Fault::OurMac { mac });
        }
        Ok(Form::Vtep { mac, inner })
    }

    fn may_hear(&self, lease: &Lease) -> bool {
        let mut families = Family::BOTH.into_iter().filter(|family| self.end(*family).is_some());
        if let Backend::Ends(ends) = &lease.backend {
            return families.any(|family| ends.vxlan(family).is_some());
        }
        let same = |vtep: Vtep| vtep.vni == self.config.vni;
        families.filter_map(|family| lease.vtep(family)).any(same)
    }

    /// Neighbour, FDB entry, next hop, route: each needs the one before.
    fn remote(&self, me: &Me<'_>, reach: &Reach, out: &mut Emit) {
        let Dst::Prefix(subnet) = reach.dst;
        let At::Node { ip, form: Form::Vtep { mac, inner } } = reach.at else { return };
        let Some(End { link, .. }) = self.end(subnet.family()) else { return };
        let base = inner.map_or(subnet.addr(), |addr| gateway(addr, mac));
        let via = NextHopKey { via: base, link };
        out.push(Item::Neighbour(NeighbourKey { link, ip: base }, NeighbourSpec { mac }));
        out.push(Item::Fdb(FdbKey { link, mac }, FdbSpec { dst: ip }));
        out.push(Item::NextHop(via, NextHopSpec { onlink: Flag::On }));
        out.push(Item::Route(
            RouteKey::main(subnet),
            RouteSpec { via: via.into(), inherits: me.settings.inherits() },
        ));
    }
}

impl End {
    fn spec(self, vxlan: VxlanSpec, inherits: Flag) -> LinkSpec {
        LinkSpec {
            kind: LinkKind::Vxlan(vxlan),
            role: "vxlan",
            mac: Some(self.mac),
            mtu: self.mtu,
            master: None,
            inherits,
        }
    }
}

/// What stands for a peer that says where its tunnel ends. In IPv6 it is not the address that it says: the kernel takes
/// no gateway onlink to which another device leads, and before a pool turns to VXLAN the route to the peer's block does.
fn gateway(addr: IpAddr, mac: Mac) -> IpAddr {
    match Family::of(addr) {
        Family::V4 => addr,
        Family::V6 => mac.link_local().into(),
    }
}

/// flannel's names, or Calico's, which has one device, or ours: short enough for every VNI of 24 bits in both families.
fn link_name(preset: Preset, config: VxlanConfig, family: Family) -> Result<IfName, Fault> {
    let vni = config.vni;
    let name = match (preset, family) {
        (Preset::Flannel, Family::V4) => format!("flannel.{vni}"),
        (Preset::Flannel, Family::V6) => format!("flannel-v6.{vni}"),
        (Preset::Russet, Family::V4) => format!("rst.vx{vni}"),
        (Preset::Russet, Family::V6) => format!("rst.v6x{vni}"),
        (Preset::Calico, Family::V4) => "vxlan.calico".to_owned(),
        (Preset::Calico, Family::V6) => "vxlan-v6.calico".to_owned(),
    };
    name.parse().map_err(|fault| Fault::LinkName { vni, fault })
}

/// The same after every restart, re-installation and reboot, and nobody else's.
fn vtep_mac(node: &str, config: VxlanConfig, family: Family) -> Mac {
    let family = match family {
        Family::V4 => 4_u8,
        Family::V6 => 6,
    };
    let mut hash = Sha256::new();
    hash.update(b"russet vtep");
    hash.update(config.vni.get().to_be_bytes());
    hash.update([family]);
    hash.update(node.as_bytes());
    let digest = hash.finalize();
    let mut octets = [0; 6];
    for (octet, byte) in octets.iter_mut().zip(digest.iter()) {
        *octet = *byte;
    }
    Mac::local(octets)
}

const fn overhead(underlay: Family) -> u16 {
    match underlay {
        Family::V4 => 50,
        Family::V6 => 70,
    }
}

#[cfg(test)]
mod tests {
    use russet_net::{Port, Vni};

    use super::*;

    #[test]
    fn a_mac_is_the_same_every_time_and_differs_by_node_vni_and_family() {
        let mac = |node, number, family| {
            let vni = Vni::try_from(number).unwrap();
            vtep_mac(node, VxlanConfig { vni, ..VxlanConfig::default() }, family)
        };
        let one = mac("a", 1, Family::V4);
        assert_eq!(one, mac("a", 1, Family::V4));
        assert!(one.is_unicast());
        for other in [mac("b", 1, Family::V4), mac("a", 2, Family::V4), mac("a", 1, Family::V6)] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_mac_does_not_depend_on_what_may_change() {
        let port = Port::VXLAN;
        let config = VxlanConfig { port, ..VxlanConfig::default() };
        assert_eq!(
            vtep_mac("a", config, Family::V4),
            vtep_mac("a", VxlanConfig::default(), Family::V4)
        );
    }

    #[test]
    fn names_fit_every_vni_in_our_preset_and_flannel_s_as_far_as_the_kernel_goes() {
        let name = |preset, vni, family| {
            let vni = Vni::try_from(vni).unwrap();
            link_name(preset, VxlanConfig { vni, ..VxlanConfig::default() }, family)
        };
        for family in Family::BOTH {
            assert!(name(Preset::Russet, 0xff_ffff, family).is_ok());
        }
        assert!(name(Preset::Flannel, 9_999_999, Family::V4).is_ok());
        assert!(name(Preset::Flannel, 10_000_000, Family::V4).is_err());
        assert!(name(Preset::Flannel, 9_999, Family::V6).is_ok());
        assert!(name(Preset::Flannel, 10_000, Family::V6).is_err());
    }
}
