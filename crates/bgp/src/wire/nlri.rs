//! Network layer reachability information: what a route leads to, and how a message lists many of them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use russet_net::{Family as IpFamily, Prefix};

use super::{Esi, EvpnKey, Family, Label, PathId, reader::Reader};

/// One route of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nlri {
    /// [`PathId::NONE`] where add-path is not in use.
    pub path_id: PathId,
    pub key: NlriKey,
    pub tail: Tail,
}

/// What one destination is told from another by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NlriKey {
    V4(V4Prefix),
    V6(V6Prefix),
    Evpn(EvpnKey),
}

/// An IPv4 prefix in 8 octets, its host bits zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct V4Prefix {
    bits: u32,
    len: u8,
}

/// An IPv6 prefix in 17 octets, its host bits zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct V6Prefix {
    octets: [u8; 16],
    len: u8,
}

/// What a path carries beside its attributes and is no part of its key; nothing outside EVPN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tail {
    #[default]
    None,
    EthernetAd {
        label: Label,
    },
    MacIp {
        esi: Esi,
        label_1: Label,
        /// The VNI of the routed table, where there is one (RFC 9135 §4.1).
        label_2: Option<Label>,
    },
    Prefix {
        esi: Esi,
        /// Of the prefix's own family; unspecified where the next hop is the gateway.
        gateway: IpAddr,
        label: Label,
    },
}

/// Routes of one family where they lie in a message. They have been looked at: each can be read.
#[derive(Clone, Copy, Debug)]
pub struct Nlris<'a> {
    family: Family,
    ids: Ids,
    octets: &'a [u8],
    count: u32,
    passed_over: u32,
}

/// Whether each route has a path identifier in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ids {
    Absent,
    Present,
}

/// Reads routes off a message, one by one.
#[derive(Clone, Debug)]
pub struct NlriIter<'a> {
    family: Family,
    ids: Ids,
    reader: Reader<'a>,
}

impl Nlri {
    /// A route without a path identifier and without a tail.
    pub const fn plain(key: NlriKey) -> Self {
        Self { path_id: PathId::NONE, key, tail: Tail::None }
    }

    pub(super) fn write(&self, ids: Ids, out: &mut Vec<u8>) {
        if ids == Ids::Present {
            out.extend(self.path_id.get().to_be_bytes());
        }
        match self.key {
            NlriKey::V4(prefix) => write_prefix(prefix.len, &prefix.bits.to_be_bytes(), out),
            NlriKey::V6(prefix) => write_prefix(prefix.len, &prefix.octets, out),
            NlriKey::Evpn(key) => key.write(self.tail, out),
        }
    }
}

impl NlriKey {
    pub const fn family(&self) -> Family {
        match self {
            Self::V4(_) => Family::Ipv4Unicast,
            Self::V6(_) => Family::Ipv6Unicast,
            Self::Evpn(_) => Family::L2vpnEvpn,
        }
    }

    /// The prefix of a unicast destination.
    pub fn prefix(&self) -> Option<Prefix> {
        match *self {
            Self::V4(prefix) => Some(prefix.into()),
            Self::V6(prefix) => Some(prefix.into()),
            Self::Evpn(_) => None,
        }
    }
}

impl From<Prefix> for NlriKey {
    fn from(prefix: Prefix) -> Self {
        match prefix.addr() {
            IpAddr::V4(addr) => Self::V4(V4Prefix { bits: addr.into(), len: prefix.len() }),
            IpAddr::V6(addr) => Self::V6(V6Prefix { octets: addr.octets(), len: prefix.len() }),
        }
    }
}

impl From<EvpnKey> for NlriKey {
    fn from(key: EvpnKey) -> Self {
        Self::Evpn(key)
    }
}

impl V4Prefix {
    /// The prefix that `bits` lies in; `None` when the length is above 32.
    pub const fn around(bits: u32, len: u8) -> Option<Self> {
        match len {
            0 => Some(Self { bits: 0, len }),
            1..=32 => Some(Self { bits: bits & u32::MAX << (32 - len), len }),
            _ => None,
        }
    }

    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// The prefix length in bits.
    // A length of zero is the whole family, so there is nothing that `is_empty` could mean.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(self) -> u8 {
        self.len
    }
}

impl V6Prefix {
    /// The prefix that `addr` lies in; `None` when the length is above 128.
    pub const fn around(addr: Ipv6Addr, len: u8) -> Option<Self> {
        let bits = match len {
            0 => 0,
            1..=128 => addr.to_bits() & u128::MAX << (128 - len),
            _ => return None,
        };
        Some(Self { octets: bits.to_be_bytes(), len })
    }

    pub const fn octets(self) -> [u8; 16] {
        self.octets
    }

    /// The prefix length in bits.
    // A length of zero is the whole family, so there is nothing that `is_empty` could mean.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(self) -> u8 {
        self.len
    }
}

impl From<V4Prefix> for Prefix {
    fn from(prefix: V4Prefix) -> Self {
        // The length was checked when the prefix was made.
        Self::around(Ipv4Addr::from(prefix.bits).into(), prefix.len)
            .unwrap_or_else(|_| Self::all(IpFamily::V4))
    }
}

impl From<V6Prefix> for Prefix {
    fn from(prefix: V6Prefix) -> Self {
        // The length was checked when the prefix was made.
        Self::around(Ipv6Addr::from(prefix.octets).into(), prefix.len)
            .unwrap_or_else(|_| Self::all(IpFamily::V6))
    }
}

impl Tail {
    pub(super) const fn label(self) -> Label {
        match self {
            Self::EthernetAd { label } | Self::Prefix { label, .. } => label,
            Self::MacIp { label_1, .. } => label_1,
            Self::None => Label::new([0; 3]),
        }
    }

    pub(super) const fn second_label(self) -> Option<Label> {
        match self {
            Self::MacIp { label_2, .. } => label_2,
            _ => None,
        }
    }

    pub(super) const fn esi(self) -> Esi {
        match self {
            Self::MacIp { esi, .. } | Self::Prefix { esi, .. } => esi,
            _ => Esi::ZERO,
        }
    }

    /// The gateway in this family; one of the other family cannot be written and is none.
    pub(super) fn gateway(self, family: IpFamily) -> IpAddr {
        match self {
            Self::Prefix { gateway, .. } if IpFamily::of(gateway) == family => gateway,
            _ => family.unspecified(),
        }
    }
}

impl<'a> Nlris<'a> {
    /// Looks at every route; `None` when one of them is malformed (RFC 7606 §5.3).
    pub(super) fn read(family: Family, ids: Ids, octets: &'a [u8]) -> Option<Self> {
        let mut iter = NlriIter { family, ids, reader: Reader::new(octets) };
        let (mut count, mut passed_over) = (0, 0);
        while !iter.reader.is_empty() {
            match iter.read()? {
                Some(_) => count += 1,
                None => passed_over += 1,
            }
        }
        Some(Self { family, ids, octets, count, passed_over })
    }

    pub const fn family(&self) -> Family {
        self.family
    }

    /// How many routes there are.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// How many more there are of a type or form that we do not know.
    pub(super) const fn passed_over(&self) -> u32 {
        self.passed_over
    }

    pub const fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    pub const fn iter(&self) -> NlriIter<'a> {
        NlriIter { family: self.family, ids: self.ids, reader: Reader::new(self.octets) }
    }
}

impl<'a> IntoIterator for &Nlris<'a> {
    type Item = Nlri;
    type IntoIter = NlriIter<'a>;

    fn into_iter(self) -> NlriIter<'a> {
        self.iter()
    }
}

impl NlriIter<'_> {
    /// The next route. The outer `None` is a malformed one, the inner one of a type that we do not know.
    #[allow(clippy::option_option)]
    fn read(&mut self) -> Option<Option<Nlri>> {
        let path_id = match self.ids {
            Ids::Present => PathId::new(self.reader.u32()?),
            Ids::Absent => PathId::NONE,
        };
        let key = match self.family {
            Family::Ipv4Unicast => {
                let (len, octets) = read_prefix::<4>(&mut self.reader)?;
                NlriKey::V4(V4Prefix::around(u32::from_be_bytes(octets), len)?)
            }
            Family::Ipv6Unicast => {
                let (len, octets) = read_prefix::<16>(&mut self.reader)?;
                NlriKey::V6(V6Prefix::around(octets.into(), len)?)
            }
            Family::L2vpnEvpn => {
                let route_type = self.reader.u8()?;
                let value = self.reader.block_u8()?;
                let read = EvpnKey::read(route_type, value);
                return Some(read.map(|(key, tail)| Nlri { path_id, key: key.into(), tail }));
            }
        };
        Some(Some(Nlri { path_id, key, tail: Tail::None }))
    }
}

impl Iterator for NlriIter<'_> {
    type Item = Nlri;

    fn next(&mut self) -> Option<Nlri> {
        while !self.reader.is_empty() {
            match self.read() {
                Some(Some(nlri)) => return Some(nlri),
                Some(None) => {}
                None => break,
            }
        }
        None
    }
}

fn read_prefix<const N: usize>(reader: &mut Reader<'_>) -> Option<(u8, [u8; N])> {
    let len = reader.u8()?;
    let given = reader.take(usize::from(len).div_ceil(8))?;
    let mut octets = [0; N];
    octets.get_mut(..given.len())?.copy_from_slice(given);
    Some((len, octets))
}

fn write_prefix(len: u8, octets: &[u8], out: &mut Vec<u8>) {
    out.push(len);
    out.extend(octets.iter().take(usize::from(len).div_ceil(8)));
}

impl fmt::Display for V4Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Prefix::from(*self), f)
    }
}

impl fmt::Debug for V4Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for V6Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Prefix::from(*self), f)
    }
}

impl fmt::Debug for V6Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for NlriKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(prefix) => fmt::Display::fmt(prefix, f),
            Self::V6(prefix) => fmt::Display::fmt(prefix, f),
            Self::Evpn(key) => fmt::Display::fmt(key, f),
        }
    }
}

impl fmt::Debug for NlriKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_that_a_sender_left_in_are_cleared() {
        let nlris = Nlris::read(Family::Ipv4Unicast, Ids::Absent, &[20, 10, 1, 0xff]).unwrap();
        let keys: Vec<_> = nlris.iter().map(|nlri| nlri.key.to_string()).collect();
        assert_eq!(keys, ["10.1.240.0/20"]);
    }

    #[test]
    fn a_length_above_the_family_or_a_missing_octet_is_malformed() {
        for bad in [&[33, 1, 2, 3, 4, 5][..], &[24, 10, 1], &[8]] {
            assert!(Nlris::read(Family::Ipv4Unicast, Ids::Absent, bad).is_none(), "{bad:?}");
        }
        assert!(Nlris::read(Family::Ipv6Unicast, Ids::Absent, &[129; 18]).is_none());
        assert!(Nlris::read(Family::Ipv4Unicast, Ids::Present, &[0, 0, 0]).is_none());
    }

    #[test]
    fn routes_of_an_unknown_type_are_passed_over() {
        let octets = [&[8, 2, 1, 1][..], &[3, 17], &[0; 12], &[32, 10, 0, 0, 1]].concat();
        let nlris = Nlris::read(Family::L2vpnEvpn, Ids::Absent, &octets).unwrap();
        assert_eq!((nlris.count(), nlris.iter().count()), (1, 1));
    }
}
