//! Packets sealed by WireGuard (flannel's `wireguard`): by the kernel where it can, by an engine of our own where not.
//!
//! A lease says its holder's key and port, in each family its own. A node's key is the same in both and after every
//! reboot. Where all is sealed nothing goes bare: a peer that does not seal is refused by name. Who seals is a node's
//! own business, and its peers see no difference; `kernel` has the objects of the one, `udp` those of the other.
//!
//! | mode | kernel's devices | listens | a family's packets cross by |
//! |---|---|---|---|
//! | separate | `flannel-wg`, `flannel-wg-v6` | `ListenPort`, `ListenPortV6` | itself |
//! | auto | `flannel-wg` | `ListenPort` | what is likelier to reach the peer |
//! | ipv4, ipv6 | `flannel-wg` | `ListenPort` | IPv4, IPv6 |

mod kernel;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use russet_desired::{
    Emit, EngineEnd, EnginePeerSpec, EngineSpec, EngineWire, WireguardPeerSpec, WireguardSpec,
};
use russet_net::{At, Dst, Family, Form, IfName, Mtu, Port, PublicKey, Reach};

use super::{
    Me, Transport,
    udp::{self, least_room, link_name, path},
};
use crate::{
    error::Fault,
    model::{
        Backend, Lease, NetworkConfig, Sealer, Settings, UnderlayFact, WireguardConfig,
        WireguardEnd, WireguardMode,
    },
};

/// This node's devices and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wireguard {
    config: WireguardConfig,
    sealer: Sealer,
    link: IfName,
    /// What IPv6 has of its own where the kernel seals and the families are separate.
    link_v6: IfName,
    mtu: Mtu,
    key: PublicKey,
    here: (Option<Ipv4Addr>, Option<Ipv6Addr>),
}

impl Wireguard {
    /// # Errors
    ///
    /// When this node has no key, or the underlay leaves no room.
    pub fn new(
        settings: &Settings,
        config: WireguardConfig,
        network: &NetworkConfig,
        underlay: &UnderlayFact,
    ) -> Result<Self, Fault> {
        let key = settings.key.ok_or(Fault::NoOwnKey)?;
        let outer = config.mtu.unwrap_or(underlay.mtu);
        let mtu = least_room(underlay, outer, network, overhead)?;
        let link = link_name(settings.preset, ["flannel-wg", "rst.wg0", "wireguard.cali"]);
        let link_v6 = link_name(settings.preset, ["flannel-wg-v6", "rst.wg0-v6", "wg-v6.cali"]);
        let here = (underlay.v4, underlay.v6);
        Ok(Self { config, sealer: settings.sealer, link, link_v6, mtu, key, here })
    }

    fn shared(&self) -> WireguardSpec {
        WireguardSpec { psk: self.config.psk, keepalive: self.config.keepalive }
    }

    /// Where this node listens for what crosses by a family, if it does.
    fn listens(&self, outer: Family) -> Option<Port> {
        match (self.config.mode, outer) {
            (WireguardMode::Separate, Family::V6) => Some(self.config.port_v6),
            (WireguardMode::Separate | WireguardMode::Auto, _) => Some(self.config.port),
            (WireguardMode::Over(over), outer) => (over == outer).then_some(self.config.port),
        }
    }

    /// What an engine does: one device, and one socket for each family of the underlay.
    fn engine(&self, me: &Me<'_>, out: &mut Emit) {
        let spec = EngineSpec {
            wire: EngineWire::Wireguard(self.shared()),
            v4: self.engine_end(me, Family::V4),
            v6: self.engine_end(me, Family::V6),
        };
        let device = udp::Device { link: self.link, role: "wireguard", mtu: self.mtu };
        udp::device(me, device, spec, out);
    }

    fn engine_end(&self, me: &Me<'_>, outer: Family) -> Option<EngineEnd> {
        let mut crossing = me.footing.config.families();
        let is_crossed = |by: Option<Family>| by.is_none_or(|by| by == outer);
        crossing
            .any(|family| is_crossed(me.footing.config.transport().outer(family)))
            .then_some(())?;
        let listen = SocketAddr::new(me.footing.underlay.addr(outer)?, self.listens(outer)?.get());
        // Without a subnet of that family nothing of that family needs an answer.
        let subnet = me.own.of(outer).or_else(|| me.own.subnets().next())?;
        Some(EngineEnd { listen, inner: subnet.addr() })
    }

    /// The family that is likelier to reach a peer that has both: public addresses before private ones, IPv4 before
    /// IPv6 (flannel's `selectMode`). A family that we lack reaches nobody.
    fn likelier(&self, v4: Ipv4Addr, v6: Ipv6Addr) -> Family {
        match self.here {
            (None, Some(_)) => Family::V6,
            (Some(_), Some(ours))
                if v4.is_private() && !v6.is_unique_local() && !ours.is_unique_local() =>
            {
                Family::V6
            }
            _ => Family::V4,
        }
    }
}

impl Transport for Wireguard {
    fn advertise(&self, network: &NetworkConfig) -> Backend {
        let end = |family| {
            let port = match self.config.mode {
                WireguardMode::Separate => self.listens(family),
                WireguardMode::Auto | WireguardMode::Over(_) => Some(self.config.port),
            };
            network.pool(family).map(|_| WireguardEnd { key: self.key, port })
        };
        Backend::Wireguard { v4: end(Family::V4), v6: end(Family::V6) }
    }

    /// flannel takes 80 in both families: IPv6 40, UDP 8, and WireGuard 32.
    fn overhead(&self, underlay: Family) -> u16 {
        overhead(underlay)
    }

    fn local(&self, me: &Me<'_>, out: &mut Emit) {
        match self.sealer {
            Sealer::Kernel => self.devices(me, out),
            Sealer::Engine => self.engine(me, out),
        }
    }

    /// The port is what the peer says of the family that the packets cross by.
    fn heed(&self, lease: &Lease, family: Family) -> Result<Form, Fault> {
        let WireguardEnd { key, port } = lease.wireguard(family).ok_or(Fault::NoKey { family })?;
        if key == self.key {
            return Err(Fault::OurKey { key });
        }
        let outer = self.address(lease, family).map_or(family, Family::of);
        let said = lease.wireguard(outer).and_then(|end| end.port).or(port);
        let usual = self.listens(outer).unwrap_or(self.config.port);
        Ok(Form::Wireguard(key, said.unwrap_or(usual)))
    }

    fn address(&self, lease: &Lease, family: Family) -> Option<IpAddr> {
        match (self.config.mode, lease.public_ip, lease.public_ipv6) {
            (WireguardMode::Separate, ..) => lease.public(family),
            (WireguardMode::Over(outer), ..) => lease.public(outer),
            (WireguardMode::Auto, Some(v4), Some(v6)) => lease.public(self.likelier(v4, v6)),
            (WireguardMode::Auto, v4, v6) => v4.map(IpAddr::V4).or(v6.map(IpAddr::V6)),
        }
    }

    /// A lease that says wireguard is nobody's who could send to another transport's node.
    fn may_hear(&self, lease: &Lease) -> bool {
        match &lease.backend {
            Backend::Ends(ends) => Family::BOTH.into_iter().any(|it| ends.wireguard(it).is_some()),
            _ => false,
        }
    }

    fn remote(&self, _me: &Me<'_>, reach: &Reach, out: &mut Emit) {
        let Dst::Prefix(subnet) = reach.dst;
        let At::Node { ip, form: Form::Wireguard(key, port) } = reach.at else { return };
        let endpoint = SocketAddr::new(ip, port.get());
        match self.sealer {
            Sealer::Engine => {
                path(self.link, subnet, EnginePeerSpec { endpoint, key: Some(key) }, out);
            }
            Sealer::Kernel => {
                let peer = WireguardPeerSpec { key, endpoint, shared: self.shared() };
                self.peer(subnet, peer, out);
            }
        }
    }
}

const fn overhead(_underlay: Family) -> u16 {
    80
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Preset;

    #[test]
    fn auto_crosses_by_public_addresses_before_private_ones_and_by_what_both_have() {
        const PRIVATE: &str = "192.168.77.1";
        const PUBLIC: &str = "203.0.113.1";
        const LOCAL: &str = "fd77::1";
        const GLOBAL: &str = "2001:db8::1";
        for (here, peer, wanted) in [
            ((PRIVATE, GLOBAL), (PUBLIC, GLOBAL), PUBLIC),
            ((PRIVATE, GLOBAL), (PRIVATE, GLOBAL), GLOBAL),
            ((PRIVATE, LOCAL), (PRIVATE, GLOBAL), PRIVATE),
            ((PRIVATE, GLOBAL), (PRIVATE, LOCAL), PRIVATE),
            (("", GLOBAL), (PUBLIC, GLOBAL), GLOBAL),
            ((PRIVATE, GLOBAL), ("", LOCAL), LOCAL),
        ] {
            let lease = Lease {
                public_ip: peer.0.parse().ok(),
                public_ipv6: peer.1.parse().ok(),
                backend: Backend::HostGw,
            };
            let found = wireguard(here).address(&lease, Family::V4);
            assert_eq!(found, wanted.parse().ok(), "{here:?} to {peer:?}");
        }
    }

    fn wireguard(here: (&str, &str)) -> Wireguard {
        let link = link_name(Preset::Flannel, ["flannel-wg", "rst.wg0", "wireguard.cali"]);
        Wireguard {
            config: WireguardConfig { mode: WireguardMode::Auto, ..WireguardConfig::default() },
            sealer: Sealer::Kernel,
            link,
            link_v6: link,
            mtu: Mtu::ETHERNET,
            key: PublicKey::new([1; 32]),
            here: (here.0.parse().ok(), here.1.parse().ok()),
        }
    }
}
