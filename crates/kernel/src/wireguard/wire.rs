//! The words of generic netlink's family `wireguard` (`linux/wireguard.h`), and of the one that knows the others' numbers
//! (`linux/genetlink.h`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use russet_net::{Family, IfName, Prefix, PresharedKey, PublicKey};

use crate::netlink::{Attr, Batch, Message, Writer, rt};

/// `WG_GENL_NAME`.
pub(super) const FAMILY: &str = "wireguard";

/// One device, as far as it is of interest. A dump tells of one in several messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Device {
    pub(super) link: Option<IfName>,
    pub(super) key: Option<PublicKey>,
    pub(super) port: u16,
    pub(super) peers: BTreeMap<PublicKey, Peer>,
}

/// One peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) psk: Option<PresharedKey>,
    /// Seconds; zero is none.
    pub(super) keepalive: u16,
    /// Since 1970; zero is never.
    pub(super) handshake: Duration,
    pub(super) allowed: BTreeSet<Prefix>,
}

impl Device {
    /// Adds what one message tells.
    pub(super) fn take(&mut self, message: Message<'_>) {
        for attr in message.attrs(HEADER_LEN) {
            match attr.kind {
                WGDEVICE_A_PUBLIC_KEY => self.key = key_of(&attr).map(PublicKey::new),
                WGDEVICE_A_LISTEN_PORT => self.port = attr.u16(),
                WGDEVICE_A_PEERS => attr.attrs().for_each(|peer| self.take_peer(&peer)),
                _ => {}
            }
        }
    }

    /// A peer with many prefixes comes in several pieces, and only the first says all of it.
    fn take_peer(&mut self, peer: &Attr<'_>) {
        let Some(key) = peer.attrs().find(WGPEER_A_PUBLIC_KEY).and_then(|attr| key_of(&attr))
        else {
            return;
        };
        let entry = self.peers.entry(PublicKey::new(key)).or_default();
        for attr in peer.attrs() {
            match attr.kind {
                WGPEER_A_ENDPOINT => entry.endpoint = endpoint_of(attr.value),
                WGPEER_A_PRESHARED_KEY => {
                    let psk = key_of(&attr).filter(|key| *key != [0; 32]);
                    entry.psk = psk.map(PresharedKey::new);
                }
                WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL => entry.keepalive = attr.u16(),
                WGPEER_A_LAST_HANDSHAKE_TIME => entry.handshake = time_of(attr.value),
                WGPEER_A_ALLOWEDIPS => {
                    entry.allowed.extend(attr.attrs().filter_map(|ip| prefix_of(&ip)));
                }
                _ => {}
            }
        }
    }
}

// ---- requests

/// Asks for the number of [`FAMILY`].
pub(super) fn ask_family(batch: &mut Batch) {
    batch.push(GENL_ID_CTRL, 0, &header(CTRL_CMD_GETFAMILY, 1)).str(CTRL_ATTR_FAMILY_NAME, FAMILY);
}

pub(super) fn family_of(message: &Message<'_>) -> Option<u16> {
    message.attrs(HEADER_LEN).find(CTRL_ATTR_FAMILY_ID).map(|attr| attr.u16())
}

/// Asks for a device with its peers.
pub(super) fn ask_device(batch: &mut Batch, family: u16, index: u32) {
    batch.push(family, 0, &header(WG_CMD_GET_DEVICE, VERSION)).u32(WGDEVICE_A_IFINDEX, index);
}

/// Gives a device its private key and its port.
pub(super) fn set_device(
    batch: &mut Batch,
    family: u16,
    index: u32,
    secret: &PresharedKey,
    port: u16,
) {
    batch
        .push(family, 0, &header(WG_CMD_SET_DEVICE, VERSION))
        .u32(WGDEVICE_A_IFINDEX, index)
        .bytes(WGDEVICE_A_PRIVATE_KEY, &secret.reveal())
        .u16(WGDEVICE_A_LISTEN_PORT, port);
}

/// What is to be done to one peer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order<'a> {
    /// Makes or changes it; the prefixes come to those that it has.
    Set(&'a Peer),
    /// Gives it these prefixes and no other.
    Allow(&'a BTreeSet<Prefix>),
    Remove,
}

/// Writes one message for one peer, so that each is answered for itself.
pub(super) fn set_peer(
    batch: &mut Batch,
    family: u16,
    index: u32,
    key: PublicKey,
    order: Order<'_>,
) {
    let mut message = batch.push(family, 0, &header(WG_CMD_SET_DEVICE, VERSION));
    message.u32(WGDEVICE_A_IFINDEX, index);
    message.nest(WGDEVICE_A_PEERS, |peers| {
        peers.nest(0, |peer| {
            peer.bytes(WGPEER_A_PUBLIC_KEY, &key.octets());
            match order {
                Order::Set(wanted) => {
                    // All zero is none.
                    let psk = wanted.psk.map_or([0; 32], |psk| psk.reveal());
                    peer.bytes(WGPEER_A_PRESHARED_KEY, &psk)
                        .u16(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, wanted.keepalive);
                    if let Some(endpoint) = wanted.endpoint {
                        peer.bytes(WGPEER_A_ENDPOINT, &endpoint_octets(endpoint));
                    }
                    allow(peer, &wanted.allowed);
                }
                Order::Allow(prefixes) => {
                    let only = WGPEER_F_UPDATE_ONLY | WGPEER_F_REPLACE_ALLOWEDIPS;
                    peer.u32(WGPEER_A_FLAGS, only);
                    allow(peer, prefixes);
                }
                Order::Remove => {
                    peer.u32(WGPEER_A_FLAGS, WGPEER_F_REMOVE_ME);
                }
            }
        });
    });
}

fn allow(peer: &mut Writer<'_>, prefixes: &BTreeSet<Prefix>) {
    peer.nest(WGPEER_A_ALLOWEDIPS, |all| {
        for prefix in prefixes {
            let family = rt::family_number(prefix.family());
            all.nest(0, |one| {
                one.u16(WGALLOWEDIP_A_FAMILY, family.into())
                    .ip(WGALLOWEDIP_A_IPADDR, prefix.addr())
                    .u8(WGALLOWEDIP_A_CIDR_MASK, prefix.len());
            });
        }
    });
}

/// `struct genlmsghdr`.
const fn header(command: u8, version: u8) -> [u8; HEADER_LEN] {
    [command, version, 0, 0]
}

/// `struct sockaddr_in` or `struct sockaddr_in6`: family in the host's order, port and address big endian.
fn endpoint_octets(endpoint: SocketAddr) -> Vec<u8> {
    let family = u16::from(rt::family_number(Family::of(endpoint.ip())));
    let mut octets = family.to_ne_bytes().to_vec();
    octets.extend(endpoint.port().to_be_bytes());
    match endpoint.ip() {
        IpAddr::V4(ip) => {
            octets.extend(ip.octets());
            octets.extend([0; 8]);
        }
        IpAddr::V6(ip) => {
            octets.extend([0; 4]);
            octets.extend(ip.octets());
            octets.extend([0; 4]);
        }
    }
    octets
}

// ---- answers

fn key_of(attr: &Attr<'_>) -> Option<[u8; 32]> {
    attr.value.try_into().ok()
}

fn endpoint_of(octets: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(octets.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(octets.get(2..4)?.try_into().ok()?);
    let ip = match rt::family_of(u8::try_from(family).ok()?)? {
        Family::V4 => {
            IpAddr::from(<[u8; 4]>::try_from(octets.get(4..8)?).map(Ipv4Addr::from).ok()?)
        }
        Family::V6 => {
            IpAddr::from(<[u8; 16]>::try_from(octets.get(8..24)?).map(Ipv6Addr::from).ok()?)
        }
    };
    Some(SocketAddr::new(ip, port))
}

/// `struct __kernel_timespec`.
fn time_of(octets: &[u8]) -> Duration {
    let seconds = octets.get(..8).and_then(|octets| octets.try_into().ok()).map(i64::from_ne_bytes);
    Duration::from_secs(seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or_default())
}

fn prefix_of(attr: &Attr<'_>) -> Option<Prefix> {
    let ip = attr.attrs().find(WGALLOWEDIP_A_IPADDR)?.ip()?;
    let len = attr.attrs().find(WGALLOWEDIP_A_CIDR_MASK)?.u8();
    Prefix::around(ip, len).ok()
}

const HEADER_LEN: usize = 4;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// `WG_GENL_VERSION`.
const VERSION: u8 = 1;
const WG_CMD_GET_DEVICE: u8 = 0;
const WG_CMD_SET_DEVICE: u8 = 1;
const WGDEVICE_A_IFINDEX: u16 = 1;
const WGDEVICE_A_PRIVATE_KEY: u16 = 3;
const WGDEVICE_A_PUBLIC_KEY: u16 = 4;
const WGDEVICE_A_LISTEN_PORT: u16 = 6;
const WGDEVICE_A_PEERS: u16 = 8;
const WGPEER_A_PUBLIC_KEY: u16 = 1;
const WGPEER_A_PRESHARED_KEY: u16 = 2;
const WGPEER_A_FLAGS: u16 = 3;
const WGPEER_A_ENDPOINT: u16 = 4;
const WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL: u16 = 5;
const WGPEER_A_LAST_HANDSHAKE_TIME: u16 = 6;
const WGPEER_A_ALLOWEDIPS: u16 = 9;
const WGPEER_F_REMOVE_ME: u32 = 1;
const WGPEER_F_REPLACE_ALLOWEDIPS: u32 = 2;
const WGPEER_F_UPDATE_ONLY: u32 = 4;
const WGALLOWEDIP_A_FAMILY: u16 = 1;
const WGALLOWEDIP_A_IPADDR: u16 = 2;
const WGALLOWEDIP_A_CIDR_MASK: u16 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Messages;

    #[test]
    fn what_is_set_is_read_as_it_is_told() {
        let prefixes = ["10.50.2.0/24", "fd00:50:2::/64"].map(|text| text.parse().unwrap());
        for endpoint in ["192.168.77.2:51820", "[fd77::2]:4000"] {
            let peer = Peer {
                endpoint: Some(endpoint.parse().unwrap()),
                psk: Some(PresharedKey::new([7; 32])),
                keepalive: 25,
                handshake: Duration::ZERO,
                allowed: prefixes.into(),
            };
            let key = PublicKey::new([9; 32]);
            let mut batch = Batch::new();
            set_peer(&mut batch, 30, 4, key, Order::Set(&peer));
            let mut device = Device::default();
            Messages::new(batch.bytes()).for_each(|message| device.take(message));
            assert_eq!(device.peers, BTreeMap::from([(key, peer)]), "{endpoint}");
        }
    }

    #[test]
    fn an_endpoint_has_the_octets_of_the_kernel_s_struct() {
        let octets = endpoint_octets("192.168.77.2:51820".parse().unwrap());
        assert_eq!(octets[2..], [0xca, 0x6c, 192, 168, 77, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(endpoint_octets("[fd77::2]:1".parse().unwrap()).len(), 28);
        for len in 0..24 {
            // Too short for either: nobody's.
            let cut = &endpoint_octets("[fd77::2]:1".parse().unwrap())[..len];
            assert_eq!(endpoint_of(cut), None);
        }
    }
}
