//! EVPN's routes: types 1 to 5 (RFC 7432 §7, RFC 9136 §3).
//!
//! What tells two routes apart is the key; labels, gateway and (except where it is the point) the segment are
//! not, and travel as the [`Tail`] of a path.
// Octets in the order of the wire have no better names than letters.
#![allow(clippy::many_single_char_names)]

use std::{fmt, net::IpAddr, str::FromStr};

use russet_net::{Family as IpFamily, Mac, ParseError, Prefix, Vni};

use super::{Tail, reader::Reader};

/// What one EVPN route is told from another by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EvpnKey {
    /// Type 1: a segment is here (`tag` is all ones), or a part of it.
    EthernetAd { rd: RouteDistinguisher, esi: Esi, tag: u32 },
    /// Type 2: a MAC address, and what IP address it has.
    MacIp { rd: RouteDistinguisher, tag: u32, mac: Mac, ip: Option<IpAddr> },
    /// Type 3: this VTEP wants what is flooded.
    Multicast { rd: RouteDistinguisher, tag: u32, origin: IpAddr },
    /// Type 4: who else is on a segment.
    Segment { rd: RouteDistinguisher, esi: Esi, origin: IpAddr },
    /// Type 5: an IP prefix.
    Prefix { rd: RouteDistinguisher, tag: u32, prefix: Prefix },
}

/// What keeps equal routes of different tables apart: 8 octets (RFC 4364 §4.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteDistinguisher([u8; 8]);

/// An Ethernet segment: 10 octets; all zero where there is but one link (RFC 7432 §5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Esi([u8; 10]);

/// 24 bits: a VNI with VXLAN, an MPLS label in the upper 20 otherwise (RFC 8365 §5.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label([u8; 3]);

impl RouteDistinguisher {
    pub const fn new(octets: [u8; 8]) -> Self {
        Self(octets)
    }

    pub const fn octets(self) -> [u8; 8] {
        self.0
    }
}

impl Esi {
    pub const ZERO: Self = Self([0; 10]);

    pub const fn new(octets: [u8; 10]) -> Self {
        Self(octets)
    }

    pub const fn octets(self) -> [u8; 10] {
        self.0
    }
}

impl Label {
    pub const fn new(octets: [u8; 3]) -> Self {
        Self(octets)
    }

    pub const fn octets(self) -> [u8; 3] {
        self.0
    }

    /// The label as a VNI, which it is with VXLAN.
    pub fn vni(self) -> Vni {
        let [a, b, c] = self.0;
        // Three octets are in range.
        Vni::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(Vni::MAX)
    }
}

impl From<Vni> for Label {
    fn from(vni: Vni) -> Self {
        let [_, a, b, c] = vni.get().to_be_bytes();
        Self([a, b, c])
    }
}

impl EvpnKey {
    pub const fn rd(self) -> RouteDistinguisher {
        match self {
            Self::EthernetAd { rd, .. }
            | Self::MacIp { rd, .. }
            | Self::Multicast { rd, .. }
            | Self::Segment { rd, .. }
            | Self::Prefix { rd, .. } => rd,
        }
    }

    /// The route type as it is numbered on the wire.
    pub const fn route_type(self) -> u8 {
        match self {
            Self::EthernetAd { .. } => 1,
            Self::MacIp { .. } => 2,
            Self::Multicast { .. } => 3,
            Self::Segment { .. } => 4,
            Self::Prefix { .. } => 5,
        }
    }

    /// Reads the value of a route of this type. What has a type or a form that we do not know is `None`: it is
    /// passed over, since whoever made it need not be the peer that relays it (RFC 7606 §5.4).
    pub(super) fn read(route_type: u8, value: &[u8]) -> Option<(Self, Tail)> {
        let mut reader = Reader::new(value);
        let read = match route_type {
            1 => ethernet_ad(&mut reader),
            2 => mac_ip(&mut reader),
            3 => multicast(&mut reader),
            4 => segment(&mut reader),
            5 => prefix(&mut reader),
            _ => None,
        };
        read.filter(|_| reader.is_empty())
    }

    /// Writes type, length and value.
    pub(super) fn write(self, tail: Tail, out: &mut Vec<u8>) {
        out.push(self.route_type());
        let at = out.len();
        out.push(0);
        out.extend(self.rd().octets());
        match self {
            Self::EthernetAd { esi, tag, .. } => {
                out.extend(esi.octets());
                out.extend(tag.to_be_bytes());
                out.extend(tail.label().octets());
            }
            Self::MacIp { tag, mac, ip, .. } => {
                out.extend(tail.esi().octets());
                out.extend(tag.to_be_bytes());
                out.push(48);
                out.extend(mac.octets());
                out.push(ip.map_or(0, |ip| IpFamily::of(ip).bits()));
                out.extend(ip.iter().flat_map(octets_of));
                out.extend(tail.label().octets());
                out.extend(tail.second_label().iter().flat_map(|label| label.octets()));
            }
            Self::Multicast { tag, origin, .. } => {
                out.extend(tag.to_be_bytes());
                write_addr(origin, out);
            }
            Self::Segment { esi, origin, .. } => {
                out.extend(esi.octets());
                write_addr(origin, out);
            }
            Self::Prefix { tag, prefix, .. } => {
                out.extend(tail.esi().octets());
                out.extend(tag.to_be_bytes());
                out.push(prefix.len());
                out.extend(octets_of(&prefix.addr()));
                out.extend(octets_of(&tail.gateway(prefix.family())));
                out.extend(tail.label().octets());
            }
        }
        // The longest, type 5 with IPv6, has 58 octets.
        let len = u8::try_from(out.len() - at - 1).unwrap_or(u8::MAX);
        if let Some(octet) = out.get_mut(at) {
            *octet = len;
        }
    }
}

fn ethernet_ad(reader: &mut Reader<'_>) -> Option<(EvpnKey, Tail)> {
    let (rd, esi) = (rd(reader)?, esi(reader)?);
    let key = EvpnKey::EthernetAd { rd, esi, tag: reader.u32()? };
    Some((key, Tail::EthernetAd { label: label(reader)? }))
}

fn mac_ip(reader: &mut Reader<'_>) -> Option<(EvpnKey, Tail)> {
    let (rd, esi, tag) = (rd(reader)?, esi(reader)?, reader.u32()?);
    if reader.u8()? != 48 {
        return None;
    }
    let mac = Mac::new(reader.array()?);
    let ip = addr_or_none(reader)?;
    let label_1 = label(reader)?;
    let label_2 = if reader.is_empty() { None } else { Some(label(reader)?) };
    Some((EvpnKey::MacIp { rd, tag, mac, ip }, Tail::MacIp { esi, label_1, label_2 }))
}

fn multicast(reader: &mut Reader<'_>) -> Option<(EvpnKey, Tail)> {
    let (rd, tag) = (rd(reader)?, reader.u32()?);
    Some((EvpnKey::Multicast { rd, tag, origin: addr_or_none(reader)?? }, Tail::None))
}

fn segment(reader: &mut Reader<'_>) -> Option<(EvpnKey, Tail)> {
    let (rd, esi) = (rd(reader)?, esi(reader)?);
    Some((EvpnKey::Segment { rd, esi, origin: addr_or_none(reader)?? }, Tail::None))
}

fn prefix(reader: &mut Reader<'_>) -> Option<(EvpnKey, Tail)> {
    let (rd, esi, tag, len) = (rd(reader)?, esi(reader)?, reader.u32()?, reader.u8()?);
    // The family follows from the length of the whole: two addresses and a label are left.
    let family = if reader.len() == 4 + 4 + 3 { IpFamily::V4 } else { IpFamily::V6 };
    let prefix = Prefix::around(addr(reader, family)?, len).ok()?;
    let gateway = addr(reader, family)?;
    let tail = Tail::Prefix { esi, gateway, label: label(reader)? };
    Some((EvpnKey::Prefix { rd, tag, prefix }, tail))
}

fn rd(reader: &mut Reader<'_>) -> Option<RouteDistinguisher> {
    reader.array().map(RouteDistinguisher)
}

fn esi(reader: &mut Reader<'_>) -> Option<Esi> {
    reader.array().map(Esi)
}

fn label(reader: &mut Reader<'_>) -> Option<Label> {
    reader.array().map(Label)
}

fn addr(reader: &mut Reader<'_>, family: IpFamily) -> Option<IpAddr> {
    match family {
        IpFamily::V4 => reader.v4().map(Into::into),
        IpFamily::V6 => reader.v6().map(Into::into),
    }
}

/// An address behind its length in bits, which may be zero.
#[allow(clippy::option_option)] // the outer is "malformed", the inner "there is none"
fn addr_or_none(reader: &mut Reader<'_>) -> Option<Option<IpAddr>> {
    match reader.u8()? {
        0 => Some(None),
        32 => addr(reader, IpFamily::V4).map(Some),
        128 => addr(reader, IpFamily::V6).map(Some),
        _ => None,
    }
}

fn write_addr(addr: IpAddr, out: &mut Vec<u8>) {
    out.push(IpFamily::of(addr).bits());
    out.extend(octets_of(&addr));
}

fn octets_of(addr: &IpAddr) -> impl Iterator<Item = u8> + use<> {
    let (octets, len) = match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            ([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 4)
        }
        IpAddr::V6(addr) => (addr.octets(), 16),
    };
    octets.into_iter().take(len)
}

impl fmt::Display for RouteDistinguisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [_, kind, a, b, c, d, e, g] = self.0;
        let (low, wide) = (u16::from_be_bytes([e, g]), u32::from_be_bytes([a, b, c, d]));
        match u16::from_be_bytes([self.0[0], kind]) {
            0 => {
                let value = u32::from_be_bytes([c, d, e, g]);
                write!(f, "{}:{value}", u16::from_be_bytes([a, b]))
            }
            1 => write!(f, "{}:{low}", std::net::Ipv4Addr::from(wide)),
            2 => write!(f, "{wide}:{low}"),
            _ => write!(f, "0x{:016x}", u64::from_be_bytes(self.0)),
        }
    }
}

impl fmt::Debug for RouteDistinguisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RouteDistinguisher {
    type Err = ParseError;

    /// Takes `65000:100`, `10.0.0.1:7`, `4200000000:7` and `0x` with 16 digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || ParseError::new(text, "a route distinguisher", "ASN:NUMBER is wanted");
        if let Some(hex) = text.strip_prefix("0x").filter(|hex| hex.len() == 16) {
            let raw = u64::from_str_radix(hex, 16).map_err(|_| fail())?;
            return Ok(Self(raw.to_be_bytes()));
        }
        let (global, value) = text.split_once(':').ok_or_else(fail)?;
        let wide = |kind: u8, global: u32| -> Result<Self, ParseError> {
            let [a, b, c, d] = global.to_be_bytes();
            let [e, g] = value.parse::<u16>().map_err(|_| fail())?.to_be_bytes();
            Ok(Self([0, kind, a, b, c, d, e, g]))
        };
        if let Ok(addr) = global.parse::<std::net::Ipv4Addr>() {
            return wide(1, addr.into());
        }
        match global.parse::<u16>() {
            Ok(asn) => {
                let ([a, b], value) = (asn.to_be_bytes(), value.parse::<u32>());
                let [c, d, e, g] = value.map_err(|_| fail())?.to_be_bytes();
                Ok(Self([0, 0, a, b, c, d, e, g]))
            }
            Err(_) => wide(2, global.parse().map_err(|_| fail())?),
        }
    }
}

impl fmt::Display for Esi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.0.map(|octet| format!("{octet:02x}"));
        f.pad(&octets.join(":"))
    }
}

impl fmt::Debug for Esi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for EvpnKey {
    /// `[type]:[distinguisher]:` and what the type has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]:[{}]:", self.route_type(), self.rd())?;
        match self {
            Self::EthernetAd { esi, tag, .. } => write!(f, "[{esi}]:[{tag}]"),
            Self::MacIp { tag, mac, ip: Some(ip), .. } => write!(f, "[{tag}]:[{mac}]:[{ip}]"),
            Self::MacIp { tag, mac, ip: None, .. } => write!(f, "[{tag}]:[{mac}]"),
            Self::Multicast { tag, origin, .. } => write!(f, "[{tag}]:[{origin}]"),
            Self::Segment { esi, origin, .. } => write!(f, "[{esi}]:[{origin}]"),
            Self::Prefix { tag, prefix, .. } => write!(f, "[{tag}]:[{prefix}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distinguisher_reads_as_it_is_written() {
        for text in ["65000:100000", "10.0.0.1:7", "4200000000:7", "0x0009000000000001"] {
            assert_eq!(text.parse::<RouteDistinguisher>().unwrap().to_string(), text);
        }
        for bad in ["", "1", "70000:65536", "1.2.3.4:65536"] {
            assert!(bad.parse::<RouteDistinguisher>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mac_route_with_a_short_or_a_long_value_is_passed_over() {
        let key = EvpnKey::MacIp {
            rd: RouteDistinguisher([0, 1, 10, 0, 0, 1, 0, 7]),
            tag: 0,
            mac: Mac::new([2, 0, 0, 0, 0, 1]),
            ip: Some([10, 0, 0, 9].into()),
        };
        let tail = Tail::MacIp { esi: Esi::ZERO, label_1: Label([0, 0, 9]), label_2: None };
        let mut out = Vec::new();
        key.write(tail, &mut out);
        let value = &out[2..];
        assert_eq!(usize::from(out[1]), value.len());
        assert_eq!(EvpnKey::read(2, value), Some((key, tail)));
        for len in 0..value.len() {
            assert_eq!(EvpnKey::read(2, &value[..len]), None, "{len}");
        }
        assert_eq!(EvpnKey::read(2, &[value, &[0]].concat()), None);
        assert_eq!(EvpnKey::read(9, value), None);
    }
}
