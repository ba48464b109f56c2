//! Packets sealed by WireGuard, by an engine of our own (flannel's `wireguard`, which has the kernel's).
//!
//! As `udp`, but that a lease also says its holder's key and port, in each family its own. A node's key is the same in
//! both and after every reboot. Where all is sealed nothing goes bare: a peer that does not seal is refused by name.

use std::net::SocketAddr;

use russet_desired::{Emit, EnginePeerSpec, EngineSpec, EngineWire, WireguardSpec};
use russet_net::{At, Dst, Family, Form, IfName, Mtu, PublicKey, Reach};

use super::{
    Me, Transport,
    udp::{device, end, least_room, link_name, path},
};
use crate::{
    error::Fault,
    model::{Backend, Lease, NetworkConfig, Settings, UnderlayFact, WireguardConfig, WireguardEnd},
};

/// This node's device, engine and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wireguard {
    config: WireguardConfig,
    link: IfName,
    mtu: Mtu,
    key: PublicKey,
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
        Ok(Self { config, link: link_name(settings.preset, "flannel-wg", "rst.wg0"), mtu, key })
    }
}

impl Transport for Wireguard {
    fn advertise(&self, network: &NetworkConfig) -> Backend {
        let end = |family, port| network.pool(family).map(|_| WireguardEnd { key: self.key, port });
        Backend::Wireguard {
            v4: end(Family::V4, self.config.port),
            v6: end(Family::V6, self.config.port_v6),
        }
    }

    /// flannel takes 80 in both families: IPv6 40, UDP 8, and WireGuard 32.
    fn overhead(&self, underlay: Family) -> u16 {
        overhead(underlay)
    }

    fn local(&self, me: &Me<'_>, out: &mut Emit) {
        let WireguardConfig { port, port_v6, psk, keepalive, .. } = self.config;
        let spec = EngineSpec {
            wire: EngineWire::Wireguard(WireguardSpec { psk, keepalive }),
            v4: end(me, Family::V4, port),
            v6: end(me, Family::V6, port_v6),
        };
        device(self.link, "wireguard", self.mtu, spec, out);
    }

    fn heed(&self, lease: &Lease, family: Family) -> Result<Form, Fault> {
        let WireguardEnd { key, port } = lease.wireguard(family).ok_or(Fault::NoKey { family })?;
        if key == self.key {
            return Err(Fault::OurKey { key });
        }
        Ok(Form::Wireguard(key, port))
    }

    fn remote(&self, _me: &Me<'_>, reach: &Reach, out: &mut Emit) {
        let Dst::Prefix(subnet) = reach.dst;
        let At::Node { ip, form: Form::Wireguard(key, port) } = reach.at else { return };
        let endpoint = SocketAddr::new(ip, port.get());
        path(self.link, subnet, EnginePeerSpec { endpoint, key: Some(key) }, out);
    }
}

const fn overhead(_underlay: Family) -> u16 {
    80
}
