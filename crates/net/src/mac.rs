//! Ethernet addresses.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use crate::ParseError;

/// An Ethernet address: 6 octets, in wire order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    pub const ZERO: Self = Self([0; 6]);

    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// Makes any six octets a unicast address that no vendor can own (IEEE 802 §8.4: U/L set, I/G clear).
    #[must_use]
    pub const fn local(mut octets: [u8; 6]) -> Self {
        octets[0] = (octets[0] | 0x02) & !0x01;
        Self(octets)
    }

    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// The link-local address of the link that has this one (RFC 4291 appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let mut octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0];
        octets[8..11].copy_from_slice(&self.0[..3]);
        octets[13..].copy_from_slice(&self.0[3..]);
        octets[8] ^= 0x02;
        octets.into()
    }

    /// The address that a link-local one was made of.
    pub fn of_link_local(addr: Ipv6Addr) -> Option<Self> {
        let octets = addr.octets();
        let mut mac = [0; 6];
        mac[..3].copy_from_slice(&octets[8..11]);
        mac[3..].copy_from_slice(&octets[13..]);
        mac[0] ^= 0x02;
        let mac = Self(mac);
        (mac.link_local() == addr).then_some(mac)
    }

    /// Whether the address may be a station's own: not a group address and not all zero.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 0x01 == 0 && self != Self::ZERO
    }
}

impl TryFrom<&[u8]> for Mac {
    type Error = ParseError;

    fn try_from(octets: &[u8]) -> Result<Self, Self::Error> {
        octets.try_into().map(Self).map_err(|_| {
            ParseError::new(&format!("{octets:02x?}"), "a MAC address", "it has not 6 octets")
        })
    }
}

impl FromStr for Mac {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail =
            || ParseError::new(text, "a MAC address", "six octets in hex with colons are wanted");
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(fail)?;
            // `from_str_radix` would take a sign.
            if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(fail());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| fail())?;
        }
        parts.next().map_or(Ok(Self(octets)), |_| Err(fail()))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.0.map(|octet| format!("{octet:02x}"));
        f.pad(&octets.join(":"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_octets_agree() {
        let mac: Mac = "9E:c5:4e:f5:9e:25".parse().unwrap();
        assert_eq!(mac.octets(), [0x9e, 0xc5, 0x4e, 0xf5, 0x9e, 0x25]);
        assert_eq!(mac.to_string(), "9e:c5:4e:f5:9e:25");
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "9e:c5:4e:f5:9e",
            "9e:c5:4e:f5:9e:25:00",
            "9e:c5:4e:f5:9e:2",
            "+e:c5:4e:f5:9e:25",
            "9ec54ef59e25",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_local_address_is_unicast_and_locally_administered() {
        assert_eq!(Mac::local([0xff; 6]).octets()[0], 0xfe);
        assert!(Mac::local([0; 6]).is_unicast());
    }

    #[test]
    fn a_link_local_address_is_the_one_that_the_kernel_makes() {
        let all = Mac::new([0xee; 6]).link_local();
        assert_eq!(all.to_string(), "fe80::ecee:eeff:feee:eeee");
        assert_eq!(Mac::of_link_local(all), Some(Mac::new([0xee; 6])));
        assert_eq!(Mac::of_link_local("fe80::1".parse().unwrap()), None);
    }
}
