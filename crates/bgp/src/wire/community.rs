//! Communities: marks that routes carry (RFC 1997, 4360, 8092; EVPN's of RFC 7432, 8365, 9135, 9012).
// Octets in the order of the wire have no better names than letters.
#![allow(clippy::many_single_char_names)]

use std::{fmt, net::Ipv4Addr, str::FromStr};

use russet_net::{Asn, Mac, ParseError};

/// A standard community: 32 bits, written as two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(u32);

impl Community {
    /// Not to be told to external peers (RFC 1997).
    pub const NO_EXPORT: Self = Self(0xffff_ff01);
    /// Not to be told to any peer.
    pub const NO_ADVERTISE: Self = Self(0xffff_ff02);
    /// Not to be told outside the member of the confederation; as we are in none, like `NO_EXPORT`.
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xffff_ff03);
    /// Packets for the destination are to be dropped (RFC 7999).
    pub const BLACKHOLE: Self = Self(0xffff_029a);
    /// The sender is about to go away (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);

    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMED.iter().find(|(community, _)| community == self) {
            Some((_, name)) => f.pad(name),
            None => f.pad(&format!("{}:{}", self.0 >> 16, self.0 & 0xffff)),
        }
    }
}

impl FromStr for Community {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((community, _)) = NAMED.iter().find(|(_, name)| *name == text) {
            return Ok(*community);
        }
        let fail = || ParseError::new(text, "a community", "two numbers of 16 bits are wanted");
        let (high, low) = text.split_once(':').ok_or_else(fail)?;
        let high: u16 = number(high).ok_or_else(fail)?;
        let low: u16 = number(low).ok_or_else(fail)?;
        Ok(Self(u32::from(high) << 16 | u32::from(low)))
    }
}

/// A large community: three numbers of 32 bits (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// The AS that gives the other two their meaning.
    pub global: u32,
    pub local: [u32; 2],
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}:{}", self.global, self.local[0], self.local[1]))
    }
}

impl FromStr for LargeCommunity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || ParseError::new(text, "a large community", "three numbers are wanted");
        let mut parts = text.split(':').map(number);
        let mut part = || parts.next().flatten().ok_or_else(fail);
        let read = Self { global: part()?, local: [part()?, part()?] };
        if parts.next().is_some() { Err(fail()) } else { Ok(read) }
    }
}

/// An extended community: a type of one or two octets and a value, together 8 octets (RFC 4360).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtCommunity([u8; 8]);

impl ExtCommunity {
    pub const fn new(octets: [u8; 8]) -> Self {
        Self(octets)
    }

    pub const fn octets(self) -> [u8; 8] {
        self.0
    }

    /// A route target of an AS (RFC 4360 §4, RFC 5668).
    pub fn route_target(asn: Asn, value: u32) -> Self {
        if let Ok(short) = u16::try_from(asn.get()) {
            return Self::build(TWO_OCTET_AS, ROUTE_TARGET, short, value);
        }
        // Beside an AS of four octets there are two left for the value.
        let ([a, b, c, d], [_, _, e, f]) = (asn.get().to_be_bytes(), value.to_be_bytes());
        Self([FOUR_OCTET_AS, ROUTE_TARGET, a, b, c, d, e, f])
    }

    /// How packets for the route are to be wrapped; 8 is VXLAN (RFC 9012 §4.1).
    pub const fn encapsulation(tunnel: u16) -> Self {
        let [a, b] = tunnel.to_be_bytes();
        Self([OPAQUE, ENCAPSULATION, 0, 0, 0, 0, a, b])
    }

    /// The MAC address of the router behind a VTEP (RFC 9135 §8.1).
    pub const fn router_mac(mac: Mac) -> Self {
        let [a, b, c, d, e, f] = mac.octets();
        Self([EVPN, ROUTER_MAC, a, b, c, d, e, f])
    }

    /// How often a MAC address has moved (RFC 7432 §7.7).
    pub const fn mac_mobility(sticky: Sticky, sequence: u32) -> Self {
        let flags = matches!(sticky, Sticky::Yes) as u8;
        let [a, b, c, d] = sequence.to_be_bytes();
        Self([EVPN, MAC_MOBILITY, flags, 0, a, b, c, d])
    }

    /// Whether it says which tables take the route in.
    pub const fn is_route_target(self) -> bool {
        matches!(self.0[0] & !NOT_TRANSITIVE, TWO_OCTET_AS | IPV4 | FOUR_OCTET_AS)
            && self.0[1] == ROUTE_TARGET
    }

    /// Whether it goes beyond the AS (RFC 4360 §2).
    pub const fn is_transitive(self) -> bool {
        self.0[0] & NOT_TRANSITIVE == 0
    }

    pub fn as_encapsulation(self) -> Option<u16> {
        match self.0 {
            [OPAQUE, ENCAPSULATION, _, _, _, _, a, b] => Some(u16::from_be_bytes([a, b])),
            _ => None,
        }
    }

    pub fn as_router_mac(self) -> Option<Mac> {
        match self.0 {
            [EVPN, ROUTER_MAC, octets @ ..] => Some(Mac::new(octets)),
            _ => None,
        }
    }

    /// Whether the address is sticky, and the sequence number.
    pub fn as_mac_mobility(self) -> Option<(Sticky, u32)> {
        match self.0 {
            [EVPN, MAC_MOBILITY, flags, _, a, b, c, d] => {
                let sticky = if flags & 1 == 0 { Sticky::No } else { Sticky::Yes };
                Some((sticky, u32::from_be_bytes([a, b, c, d])))
            }
            _ => None,
        }
    }

    fn build(kind: u8, subtype: u8, global: u16, value: u32) -> Self {
        let [a, b] = global.to_be_bytes();
        let [c, d, e, f] = value.to_be_bytes();
        Self([kind, subtype, a, b, c, d, e, f])
    }
}

/// Whether a MAC address may not move (RFC 7432 §15.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sticky {
    No,
    Yes,
}

impl fmt::Display for ExtCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, subtype, a, b, c, d, e, g] = self.0;
        let name = match subtype {
            ROUTE_TARGET => "rt",
            ROUTE_ORIGIN => "soo",
            _ => "",
        };
        let text = match kind {
            TWO_OCTET_AS if !name.is_empty() => {
                let value = u32::from_be_bytes([c, d, e, g]);
                format!("{name}:{}:{value}", u16::from_be_bytes([a, b]))
            }
            IPV4 if !name.is_empty() => {
                format!("{name}:{}:{}", Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([e, g]))
            }
            FOUR_OCTET_AS if !name.is_empty() => {
                let asn = u32::from_be_bytes([a, b, c, d]);
                format!("{name}:{asn}:{}", u16::from_be_bytes([e, g]))
            }
            _ => self.special().unwrap_or_else(|| format!("0x{:016x}", u64::from_be_bytes(self.0))),
        };
        f.pad(&text)
    }
}

impl ExtCommunity {
    fn special(self) -> Option<String> {
        if let Some(tunnel) = self.as_encapsulation() {
            let name = if tunnel == VXLAN { "vxlan".into() } else { tunnel.to_string() };
            return Some(format!("encap:{name}"));
        }
        if let Some(mac) = self.as_router_mac() {
            return Some(format!("router-mac:{mac}"));
        }
        let (sticky, sequence) = self.as_mac_mobility()?;
        let sticky = if sticky == Sticky::Yes { ":sticky" } else { "" };
        Some(format!("mac-mobility:{sequence}{sticky}"))
    }
}

impl FromStr for ExtCommunity {
    type Err = ParseError;

    /// Takes `rt:65000:100`, `soo:…`, with an AS or an IPv4 address in front, and `0x` with 16 digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let reason = "rt:ASN:NUMBER, soo:ASN:NUMBER or 0x with 16 digits is wanted";
        let fail = || ParseError::new(text, "an extended community", reason);
        if let Some(hex) = text.strip_prefix("0x").filter(|hex| hex.len() == 16) {
            let raw =
                hex.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u64::from_str_radix(hex, 16));
            return raw.and_then(Result::ok).map(|raw| Self(raw.to_be_bytes())).ok_or_else(fail);
        }
        let mut parts = text.splitn(3, ':');
        let subtype = match parts.next() {
            Some("rt") => ROUTE_TARGET,
            Some("soo") => ROUTE_ORIGIN,
            _ => return Err(fail()),
        };
        let (global, value) = (parts.next().ok_or_else(fail)?, parts.next().ok_or_else(fail)?);
        Self::of_parts(subtype, global, value).ok_or_else(fail)
    }
}

impl ExtCommunity {
    fn of_parts(subtype: u8, global: &str, value: &str) -> Option<Self> {
        let wide = |kind: u8, global: u32, value: u16| {
            let ([a, b, c, d], [e, f]) = (global.to_be_bytes(), value.to_be_bytes());
            Self([kind, subtype, a, b, c, d, e, f])
        };
        if let Ok(addr) = global.parse::<Ipv4Addr>() {
            return Some(wide(IPV4, addr.into(), number(value)?));
        }
        match number::<u16>(global) {
            Some(asn) => Some(Self::build(TWO_OCTET_AS, subtype, asn, number(value)?)),
            None => Some(wide(FOUR_OCTET_AS, number(global)?, number(value)?)),
        }
    }
}

/// Digits and nothing else: no sign.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

const NAMED: [(Community, &str); 5] = [
    (Community::NO_EXPORT, "no-export"),
    (Community::NO_ADVERTISE, "no-advertise"),
    (Community::NO_EXPORT_SUBCONFED, "no-export-subconfed"),
    (Community::BLACKHOLE, "blackhole"),
    (Community::GRACEFUL_SHUTDOWN, "graceful-shutdown"),
];
const NOT_TRANSITIVE: u8 = 0x40;
const TWO_OCTET_AS: u8 = 0x00;
const IPV4: u8 = 0x01;
const FOUR_OCTET_AS: u8 = 0x02;
const OPAQUE: u8 = 0x03;
const EVPN: u8 = 0x06;
const ROUTE_TARGET: u8 = 0x02;
const ROUTE_ORIGIN: u8 = 0x03;
const ENCAPSULATION: u8 = 0x0c;
const ROUTER_MAC: u8 = 0x03;
const MAC_MOBILITY: u8 = 0x00;
const VXLAN: u16 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_read_as_they_are_written() {
        for text in ["65000:100", "no-export", "graceful-shutdown"] {
            assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
        }
        for text in ["rt:65000:100", "rt:10.0.0.1:7", "soo:4200000000:7", "0x080012345678abcd"] {
            let community: ExtCommunity = text.parse().unwrap();
            assert_eq!(community.to_string().parse(), Ok(community), "{text}");
        }
        let large = LargeCommunity { global: 4_200_000_000, local: [1, 2] };
        assert_eq!(large.to_string().parse(), Ok(large));
        assert_eq!(large.to_string(), "4200000000:1:2");
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for bad in ["65536:1", "1:65536", "1", "+1:2", "1:2:3"] {
            assert!(bad.parse::<Community>().is_err(), "{bad}");
        }
        for bad in ["rt:1", "rt:4294967296:1", "rt:70000:65536", "xx:1:1", "0x12"] {
            assert!(bad.parse::<ExtCommunity>().is_err(), "{bad}");
        }
        assert!("1:2:3:4".parse::<LargeCommunity>().is_err());
    }

    #[test]
    fn the_communities_of_evpn_are_named() {
        let mac = Mac::new([2, 0, 0, 0, 0, 9]);
        assert_eq!(ExtCommunity::router_mac(mac).as_router_mac(), Some(mac));
        assert_eq!(ExtCommunity::encapsulation(8).to_string(), "encap:vxlan");
        let moved = ExtCommunity::mac_mobility(Sticky::Yes, 3);
        assert_eq!(moved.as_mac_mobility(), Some((Sticky::Yes, 3)));
        assert_eq!(moved.to_string(), "mac-mobility:3:sticky");
        assert!(ExtCommunity::route_target(Asn::new(70_000), 5).is_route_target());
        assert_eq!(ExtCommunity::route_target(Asn::new(70_000), 5).to_string(), "rt:70000:5");
    }
}
